"""Optional NVIDIA apex, which has to be built from source: PyPI's `apex` is an unrelated package."""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..errors import UsageError
from ..models.norm import BatchNorm2d, by_groups


def apex_optimizers() -> Any:
    """Imports `apex.optimizers` of NVIDIA apex. Raises UsageError if it is missing or PyPI's `apex` is installed."""
    return _apex_module("optimizers", "--optim.implementation")


def apex_sync_batch_norm() -> Callable[[nn.Module], nn.Module]:
    """Returns a function that builds apex's synchronised batch norm with the options of a given norm.

    Pass it to `use_native_sync`. apex's norm takes images as [B, H, W, C], which is a view of channels-last images.
    Raises UsageError like `apex_optimizers`.
    """
    base: Any = _apex_module("parallel", "--backbone.sync-by").SyncBatchNorm

    class ApexSyncBatchNorm(base):  # type: ignore[misc]
        """apex's SyncBatchNorm for features [B, C] and channels-last images [B, C, H, W], with group statistics."""

        group_size = 0

        def forward(self, input: Tensor) -> Tensor:
            return by_groups(self, self._forward_group, input)

        def _forward_group(self, x: Tensor) -> Tensor:
            if x.ndim == 2:
                return super().forward(x)
            return super().forward(x.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)

    def make(norm: Any) -> nn.Module:
        options = (norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made = ApexSyncBatchNorm(*options, channel_last=True)
        made.group_size = norm.group_size if isinstance(norm, BatchNorm2d) else 0
        return made

    return make


def _apex_module(name: str, option: str) -> Any:
    """Imports `apex.{name}`. NVIDIA's apex is recognised by its modules."""
    remedy = f"build NVIDIA's from its source repository (NVIDIA/apex), or pass {option} torch"
    try:
        import apex
    except Exception as error:  # PyPI's package cannot be imported on Python 3
        kind = "is not installed" if isinstance(error, ModuleNotFoundError) and error.name == "apex" else "is broken"
        raise UsageError(
            f"{option} apex: apex {kind} ({error}); PyPI's `apex` is an unrelated package: {remedy}"
        ) from None
    try:
        return importlib.import_module(f"apex.{name}")
    except ImportError as error:
        if importlib.util.find_spec("apex.optimizers") is not None:
            raise UsageError(
                f"{option} apex: NVIDIA's apex is installed without its module apex.{name} ({error}), which releases "
                f"after 25.05 no longer have; pass {option} torch"
            ) from None
        raise UsageError(
            f"{option} apex: the `apex` at {[*getattr(apex, '__path__', []), '?'][0]} is PyPI's unrelated package, not "
            f"NVIDIA's; pip uninstall apex, then {remedy}"
        ) from None
