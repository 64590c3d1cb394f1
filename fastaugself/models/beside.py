"""torchvision and timm, also where torchvision's compiled part does not fit the torch that is there.

PyPI's torchvision is compiled for PyPI's CUDA build of torch. Beside a CPU build its operators (non-maximum suppression
of detectors) do not load, and then importing it, and timm with it, fails on their missing names. No classifier uses
them, so their names are all that is needed.
"""

import sys
from types import ModuleType

import torch

_names: list[torch.library.Library] = []  # the names live as long as this
_OPERATORS = ("nms", "qnms")


def import_torchvision() -> ModuleType:
    """The module torchvision. Raises ImportError if it is not installed, and what else its import raises."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _names:
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in _OPERATORS:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _names.append(library)
        import torchvision
    return torchvision


def import_timm() -> ModuleType:
    """The module timm. Raises ImportError if it or torchvision is not installed, and what else their import raises."""
    import_torchvision()
    import timm

    return timm


def without_operators() -> bool:
    """Whether torchvision has been imported without its compiled operators."""
    return bool(_names)
