"""NVIDIA apex, where it is installed: it is built from source, and PyPI's `apex` is an unrelated package."""

from typing import Any

from ..errors import UsageError


def apex_optimizers() -> Any:
    """The module `apex.optimizers` of NVIDIA apex.

    Raises UsageError where apex is missing, or where the `apex` that is installed is PyPI's namesake.
    """
    remedy = "build NVIDIA's from its source repository (NVIDIA/apex), or pass --optim.implementation torch"
    try:
        import apex
    except Exception as error:  # PyPI's package does not import on Python 3
        kind = "is not installed" if isinstance(error, ModuleNotFoundError) and error.name == "apex" else "is broken"
        raise UsageError(
            f"--optim.implementation apex: apex {kind} here ({error}); PyPI's `apex` is an unrelated package: {remedy}"
        ) from None
    try:
        from apex import optimizers
    except ImportError:
        raise UsageError(
            f"--optim.implementation apex: the `apex` at {getattr(apex, '__path__', ['?'])[0]} is PyPI's unrelated "
            f"package, not NVIDIA's; pip uninstall apex, then {remedy}"
        ) from None
    return optimizers
