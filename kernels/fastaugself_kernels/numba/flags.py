"""Compiler flags of the CPU kernels, for `numba.njit`."""

EXACT = dict(nogil=True, error_model="numpy", boundscheck=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Without fast-math: float operations keep their order and their rounding."""
FAST = dict(**EXACT, fastmath=True)
"""With fast-math, for loops over pixels."""
