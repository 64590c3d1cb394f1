"""Compiling the CPU kernels ahead of time."""

import torch

from .augment import augment
from .backends import INSTALLED
from .params import ViewPolicy
from .sampling import sample_params


def warm_up() -> None:
    """Compiles the CPU kernels, half a minute or so, or loads them if this machine has compiled them before.

    Call it when a machine or a container image is set up, so that the first batch of a run need not wait:
    `python -c "from fastaugself_kernels import warm_up; warm_up()"`. They are kept in NUMBA_CACHE_DIR, or beside the
    package, or in the user's cache folder. Does nothing where numba is not installed; Triton's kernels are compiled by
    their first calls on a GPU, in seconds.
    """
    if INSTALLED["numba"]:
        sizes_B2 = torch.tensor([[8, 8]])
        params_VBP = sample_params(torch.zeros(1, dtype=torch.int64), sizes_B2, [ViewPolicy.none(8)], seed=0, epoch=0)
        pixels = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
        augment(pixels, None, sizes_B2, params_VBP, size=8, blur_kernel=3, backend="numba")
