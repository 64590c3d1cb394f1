"""`fastaugself eval NAME`: evaluations of frozen encoders."""

_FEATURES, _IMAGES = "fastaugself.evaluation.commands:", "fastaugself.evaluation.commands_images:"

COMMANDS = {
    "knn": _FEATURES + "Knn",
    "linear": _FEATURES + "Linear",
    "fewshot": _FEATURES + "FewShot",
    "retrieval": _FEATURES + "Retrieval",
    "localize": _FEATURES + "Localize",
    "regression": _FEATURES + "Regression",
    "information": _FEATURES + "Information",
    "parameters": _FEATURES + "Parameters",
    "equivariance": "fastaugself.evaluation.commands_equivariance:Equivariance",
    "invariance": _IMAGES + "InvarianceCommand",
    "layers": _IMAGES + "Layers",
    "datasets": "fastaugself.evaluation.cli:datasets",
}


def datasets() -> None:
    """List the data sets for --dataset, with the files that each expects."""
    from .datasets import readers

    for name, reader in readers().items():
        print(f"{name:<14} {' '.join(getattr(reader, 'layout', reader.__doc__ or '').split())}")
