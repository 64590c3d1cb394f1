"""`fastaugself eval NAME`: evaluations of frozen encoders; and `fastaugself features`, which writes their features."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

_FEATURES, _IMAGES = "fastaugself.evaluation.commands:", "fastaugself.evaluation.commands_images:"

COMMANDS = {
    "knn": _FEATURES + "Knn",
    "linear": _FEATURES + "Linear",
    "linear-sgd": "fastaugself.evaluation.commands_linear_sgd:LinearSgd",
    "finetune": "fastaugself.evaluation.commands_finetune:Finetune",
    "fewshot": _FEATURES + "FewShot",
    "retrieval": _FEATURES + "Retrieval",
    "localize": _FEATURES + "Localize",
    "regression": _FEATURES + "Regression",
    "information": _FEATURES + "Information",
    "parameters": _FEATURES + "Parameters",
    "equivariance": "fastaugself.evaluation.commands_equivariance:Equivariance",
    "geometry": "fastaugself.evaluation.commands_geometry:Geometry",
    "cka": "fastaugself.evaluation.commands_geometry:Cka",
    "invariance": _IMAGES + "InvarianceCommand",
    "layers": _IMAGES + "Layers",
    "segmentation": "fastaugself.evaluation.commands_dense:Segmentation",
    "robustness": "fastaugself.evaluation.commands_robustness:Robustness",
    "suite": "fastaugself.evaluation.commands_suite:Suite",
    "datasets": "fastaugself.evaluation.cli:datasets",
}


def datasets() -> None:
    """List the data sets for --dataset, with the files that each expects."""
    from .datasets import readers
    from .datasets.masks import LAYOUTS

    for name, reader in readers().items():
        print(f"{name:<14} {' '.join(getattr(reader, 'layout', reader.__doc__ or '').split())}")
    print("\nFor `fastaugself eval segmentation`:")
    for name, layout in LAYOUTS.items():
        print(f"{name:<14} {layout}")


def features(
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    data: Annotated[Positional[Path], arg(metavar="DATA")],
    out: Path,
    dataset: str = "",
    split: str = "",
    size: int = 0,
    resize: int = 0,
    seed: int = 0,
    device: Literal["auto", "cuda", "cpu"] = "auto",
    batch_size: int = 64,
    workers: int = 0,
    cache: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write the features of all photos of a data set to one .npz or .parquet file, with labels, classes and names.

    Args:
        model: A run folder, an export, timm:NAME, torchvision:NAME or random:RUN_OR_NAME, as for `fastaugself eval`.
        data: A folder of photos or of class folders, a .beton file, or the files of the data set given with --dataset.
        out: The .npz or .parquet file to write.
        dataset: Name of the paper's data set at DATA (listed by `fastaugself eval datasets`).
        split: Split to encode, such as test; default: the whole data set.
        size: Side of the input images in pixels; 0 = the model's own.
        resize: Shorter side in pixels after resizing, before the central crop; 0 = the input size.
        seed: Random seed of random weights.
        device: Device to run the model on.
        batch_size: Images per forward pass.
        workers: Decoding threads; 0 = one per core.
        cache: Folder of the feature cache; default: $FASTAUGSELF_CACHE, ~/.cache/fastaugself, or a folder in /tmp.
        overwrite: Replace `out` if it exists.
    """
    from .embed import write_features

    options = {"size": size, "resize": resize, "seed": seed, "batch_size": batch_size, "workers": workers}
    print(
        write_features(
            model, data, out, dataset=dataset, split=split, device=device, cache_folder=cache, overwrite=overwrite,
            **options,
        )
    )  # fmt: skip
