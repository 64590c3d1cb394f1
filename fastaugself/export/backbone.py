"""Exports the trained backbone: safetensors with torchvision's and timm's parameter names, and ONNX."""

import contextlib
import copy
import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from ..aware.learner import Learner
from ..config.schema import Pretrain
from ..errors import RunError, UsageError
from ..files import check_outputs, replace_file, utf8
from ..models.build import image_size_option
from ..models.weights import read_safetensors
from ..runs.open import load_backbone
from .card import model_card
from .hub import check_can_publish, publish

log = logging.getLogger("fastaugself")

WEIGHTS, ONNX = "model.safetensors", "model.onnx"
# Where timm expects a name. It says "Unknown model (...)", with what is before the first dot.
NOT_IN_TIMM = (
    "a {backbone} of width {width} with the {stem} stem, which timm does not have: load this folder with "
    "`from fastaugself import load_encoder`"
)


def export_backbone(
    learner: Learner, config: Pretrain, folder: Path, *, step: int, samples: int = 0, run: Path | None = None
) -> Path:
    """Writes `folder/model.safetensors`, timm's `folder/config.json` and a model card; returns the path of the weights.

    step: optimizer steps that were done. samples: photos that it was trained on. run: run folder whose results go into
    the card, default `config.run`.

    A ResNet of standard width and stem loads with `timm.create_model("resnet50",
    pretrained_cfg_overlay=dict(file=...), num_classes=0)` or `timm.create_model("local-dir:FOLDER")`, and into a
    torchvision ResNet with `load_state_dict(..., strict=False)`, where only `fc` is missing.
    """
    return _write_export(learner.method.backbone, config, folder, step=step, samples=samples, run=run or config.run)


def _write_export(backbone: nn.Module, config: Pretrain, folder: Path, *, step: int, samples: int, run: Path) -> Path:
    state = {name: value.detach().cpu().contiguous() for name, value in backbone.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", "step": str(step), "backbone": config.backbone.name, "view_size": str(config.view.size)}
    replace_file(folder / WEIGHTS, save(state, metadata=metadata))
    description = json.dumps(_timm_config(config), indent=2) + "\n"
    replace_file(folder / "config.json", utf8(description))
    card = model_card(config, run, WEIGHTS, step=step, samples=samples)
    replace_file(folder / "README.md", utf8(card))
    return folder / WEIGHTS


def export_run(run: Path, folder: Path | None = None, *, onnx: bool = False, push: str = "") -> Path:
    """Exports the newest readable checkpoint of a run, verifies the written weights, and returns their path.

    folder: where to write, default `run/export`. onnx: also write model.onnx. push: repository USER/NAME on the Hugging
    Face Hub to upload the files to, after all of them are written and verified.
    Raises UsageError if `run` is not a run folder or holds no checkpoint, or if the upload is impossible; RunError if
    the written weights differ from the checkpoint, or the Hub refuses the upload.
    """
    api = check_can_publish(push) if push else None
    config, backbone, step, samples = load_backbone(run)
    target = folder or run / "export"
    check_outputs(target / WEIGHTS)
    weights = _write_export(backbone, config, target, step=step, samples=samples, run=run)
    _check_written(weights, backbone)
    files = [WEIGHTS, "config.json", "README.md"]
    if onnx:
        export_onnx(backbone, target / ONNX, size=config.view.size)
        files.append(ONNX)
    if push:
        log.info("published %s", publish(api, target, files, push))
    return weights


def _check_written(weights: Path, backbone: nn.Module) -> None:
    written, state = read_safetensors(weights)[0], backbone.state_dict()
    if written.keys() != state.keys() or not all(torch.equal(written[name], state[name].cpu()) for name in state):
        raise RunError(f"{weights} differs from the weights that were written to it: check the disk, and export again")


def export_onnx(backbone: nn.Module, path: Path, *, size: int) -> float:
    """Writes a backbone as ONNX: `images` (float32 [batch, 3, size, size], normalised) to `features` ([batch, D]).

    size: side of the images in pixels. The file is checked with onnxruntime before it is renamed to `path`. Returns the
    largest absolute difference from PyTorch's features, relative to the largest feature. Raises UsageError if a package
    is missing, RunError if that difference is 1e-3 or more.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise UsageError(f'ONNX needs a package: pip install "fastaugself[onnx]" ({error})') from None
    module = copy.deepcopy(backbone).cpu().float().eval()
    images_BCHW = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    partial = path.with_name(path.name + ".partial")
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (images_BCHW,),
            str(partial),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["features"],
            external_data=False,
            verbose=False,
        )
        session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
        images_BCHW = torch.cat([images_BCHW, images_BCHW[:1]])  # a batch size other than the traced one
        expected = module(images_BCHW)
        actual = torch.from_numpy(session.run(None, {"images": images_BCHW.numpy()})[0])
    difference = float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if not difference < 1e-3:
        raise RunError(f"onnxruntime's features differ from PyTorch's by {difference:.1e}; see {partial}")
    partial.replace(path)
    return difference


def _timm_config(config: Pretrain) -> dict[str, Any]:
    standard = config.backbone.width == 64 and config.backbone.stem == "imagenet"
    name = config.backbone.name.removeprefix("timm:")
    size = config.view.size
    described = {"backbone": name, "width": config.backbone.width, "stem": config.backbone.stem}
    return {
        "architecture": name if standard else NOT_IN_TIMM.format(**described),
        "num_classes": 0,
        "model_args": image_size_option(name, size) if name != config.backbone.name else {},
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "mean": list(config.augment.mean),
            "std": list(config.augment.std),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "num_classes": 0,
            "tag": "fastaugself",
        },
        "fastaugself": described,
    }
