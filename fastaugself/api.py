"""Everything that the author of a method or of an aware objective needs, in one module."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .aware.base import AwareConfig as AwareConfig
    from .aware.base import AwareContext as AwareContext
    from .aware.base import AwareInputs as AwareInputs
    from .aware.base import AwareObjective as AwareObjective
    from .aware.base import AwareOutput as AwareOutput
    from .aware.base import Setting as Setting
    from .aware.base import Share as Share
    from .aware.base import ViewRequest as ViewRequest
    from .aware.base import register_aware as register_aware
    from .aware.descriptors import Descriptors as Descriptors
    from .distributed import all_gather as all_gather
    from .distributed import gather_with_gradient as gather_with_gradient
    from .distributed import rank as rank
    from .distributed import sum_over_processes as sum_over_processes
    from .distributed import sum_with_gradient as sum_with_gradient
    from .distributed import world_size as world_size
    from .errors import RunError as RunError
    from .errors import UsageError as UsageError
    from .methods import register as register
    from .methods.base import BuildContext as BuildContext
    from .methods.base import Method as Method
    from .methods.base import MethodConfig as MethodConfig
    from .methods.base import Output as Output
    from .methods.base import Views as Views
    from .methods.base import at_least_one as at_least_one
    from .models.ema import cosine_momentum as cosine_momentum
    from .models.ema import ema_copy as ema_copy
    from .models.ema import ema_update as ema_update
    from .models.heads import Predictor as Predictor
    from .models.heads import Projector as Projector
    from .models.heads import mlp as mlp
    from .models.inner import pooled as pooled

_MODULES = {
    **dict.fromkeys(
        (
            "AwareConfig",
            "AwareContext",
            "AwareInputs",
            "AwareObjective",
            "AwareOutput",
            "Setting",
            "Share",
            "ViewRequest",
            "register_aware",
        ),
        "aware.base",
    ),
    "Descriptors": "aware.descriptors",
    **dict.fromkeys(("BuildContext", "Method", "MethodConfig", "Output", "Views", "at_least_one"), "methods.base"),
    "register": "methods",
    **dict.fromkeys(("cosine_momentum", "ema_copy", "ema_update"), "models.ema"),
    **dict.fromkeys(("Predictor", "Projector", "mlp"), "models.heads"),
    "pooled": "models.inner",
    **dict.fromkeys(
        ("all_gather", "gather_with_gradient", "rank", "sum_over_processes", "sum_with_gradient", "world_size"),
        "distributed",
    ),
    **dict.fromkeys(("RunError", "UsageError"), "errors"),
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:  # as in __init__.py
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"fastaugself.{_MODULES[name]}"), name)
