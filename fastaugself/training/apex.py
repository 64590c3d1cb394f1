"""NVIDIA apex, where it is installed: it is built from source, and PyPI's `apex` is an unrelated package."""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..errors import UsageError
from ..models.norm import BatchNorm2d, by_groups


def apex_optimizers() -> Any:
    """The module `apex.optimizers` of NVIDIA apex.

    Raises UsageError where apex is missing, or where the `apex` that is installed is PyPI's namesake.
    """
    return _part("optimizers", "--optim.implementation")


def apex_sync_batch_norm() -> Callable[[nn.Module], nn.Module]:
    """What turns a batch norm into apex's synchronised one, with the same parameters, buffers and names.

    apex's norm wants images as [B, H, W, C], which channels-last images are without a copy. Raises UsageError like
    `apex_optimizers`.
    """
    base: Any = _part("parallel", "--backbone.sync-by").SyncBatchNorm

    class ApexSyncBatchNorm(base):  # type: ignore[misc]
        """apex's norm for channels-last images [B, C, H, W], by groups of samples."""

        group_size = 0

        def forward(self, input: Tensor) -> Tensor:
            return by_groups(self, self._whole, input)

        def _whole(self, x: Tensor) -> Tensor:
            if x.ndim == 2:
                return super().forward(x)
            return super().forward(x.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)

    def make(norm: Any) -> nn.Module:
        options = (norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made = ApexSyncBatchNorm(*options, channel_last=True)
        made.group_size = norm.group_size if isinstance(norm, BatchNorm2d) else 0
        return made

    return make


def _part(name: str, option: str) -> Any:
    """A module of NVIDIA apex; its modules are what tells it from its namesake."""
    remedy = f"build NVIDIA's from its source repository (NVIDIA/apex), or pass {option} torch"
    try:
        import apex
    except Exception as error:  # PyPI's package does not import on Python 3
        kind = "is not installed" if isinstance(error, ModuleNotFoundError) and error.name == "apex" else "is broken"
        raise UsageError(
            f"{option} apex: apex {kind} here ({error}); PyPI's `apex` is an unrelated package: {remedy}"
        ) from None
    try:
        return importlib.import_module(f"apex.{name}")
    except ImportError as error:
        if importlib.util.find_spec("apex.optimizers") is not None:
            raise UsageError(
                f"{option} apex: NVIDIA's apex is here, but not its part apex.{name} ({error}), which releases up to "
                f"25.05 have; pass {option} torch"
            ) from None
        raise UsageError(
            f"{option} apex: the `apex` at {[*getattr(apex, '__path__', []), '?'][0]} is PyPI's unrelated package, not "
            f"NVIDIA's; pip uninstall apex, then {remedy}"
        ) from None
