"""The trained backbone for others: safetensors with torchvision's and timm's parameter names."""

import contextlib
import copy
import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from ..aware.learner import Learner
from ..config.schema import Pretrain
from ..errors import RunError, UsageError
from ..files import check_outputs, replace_file
from ..models.build import image_size_option
from ..runs.build import build_learner
from ..runs.checkpoint import checkpoints, load
from ..runs.folder import read_pretrain
from .card import model_card
from .hub import check_can_publish, publish

log = logging.getLogger("fastaugself")

WEIGHTS, ONNX = "model.safetensors", "model.onnx"


def export_backbone(
    learner: Learner, config: Pretrain, folder: Path, *, step: int, samples: int = 0, run: Path | None = None
) -> Path:
    """Writes `folder/model.safetensors`, as timm reads it `folder/config.json`, and a card; gives the first's path.

    samples: photos it was trained on. run: the folder whose records the card tells, default the configuration's.

    A ResNet of standard width and stem loads with `timm.create_model("resnet50",
    pretrained_cfg_overlay=dict(file=...), num_classes=0)` or `timm.create_model("local-dir:FOLDER")`, and into a
    torchvision ResNet with `load_state_dict(..., strict=False)`, where only `fc` is missing.
    """
    backbone = learner.method.backbone
    state = {name: value.detach().cpu().contiguous() for name, value in backbone.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", "step": str(step), "backbone": config.backbone.name, "view_size": str(config.view.size)}
    replace_file(folder / WEIGHTS, save(state, metadata=metadata))
    description = json.dumps(_timm_config(config), indent=2) + "\n"
    replace_file(folder / "config.json", description.encode())
    card = model_card(config, run or config.run, WEIGHTS, step=step, samples=samples)
    replace_file(folder / "README.md", card.encode())
    return folder / WEIGHTS


def export_run(run: Path, folder: Path | None = None, *, onnx: bool = False, push: str = "") -> Path:
    """Exports the newest checkpoint of a run folder, to its `export/` or to `folder`, and reads the weights back.

    onnx: write model.onnx too. push: a repository of the Hugging Face Hub, USER/NAME, that gets these files when all
    are written and checked. Raises UsageError when `run` is not a run folder or holds no checkpoint, or nothing could
    be pushed; RunError when what is on the disk are not the weights, or the Hub refuses.
    """
    api = check_can_publish(push) if push else None
    config, target = read_pretrain(run), folder or run / "export"
    check_outputs(target / WEIGHTS)
    saved = checkpoints(run / "checkpoints")
    if not saved:
        raise UsageError(f"{run / 'checkpoints'} holds no checkpoint yet: train it first")
    content = load(saved[-1])
    learner = build_learner(config)
    learner.load_state_dict(content["state"]["learner"])
    weights = export_backbone(
        learner, config, target, step=content["step"], samples=content["state"]["samples"], run=run
    )
    _check_written(weights, learner.method.backbone)
    files = [WEIGHTS, "config.json", "README.md"]
    if onnx:
        export_onnx(learner.method.backbone, target / ONNX, size=config.view.size)
        files.append(ONNX)
    if push:
        log.info("published %s", publish(api, target, files, push))
    return weights


def _check_written(weights: Path, backbone: nn.Module) -> None:
    written, state = load_file(weights), backbone.state_dict()
    if written.keys() != state.keys() or not all(torch.equal(written[name], state[name].cpu()) for name in state):
        raise RunError(f"{weights} does not hold what was written to it: look at the disk, and export again")


def export_onnx(backbone: nn.Module, path: Path, *, size: int) -> float:
    """Writes a backbone as ONNX: `images` float32 [batch, 3, size, size], normalised, to `features` [batch, D].

    The file is run by onnxruntime before it gets its name. Returns the largest difference from PyTorch's features,
    relative to their largest. Raises UsageError where a package is missing, RunError where the two differ by 1e-3.
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
        images_BCHW = torch.cat([images_BCHW, images_BCHW[:1]])  # another batch size
        expected = module(images_BCHW)
        got = torch.from_numpy(session.run(None, {"images": images_BCHW.numpy()})[0])
    difference = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if not difference < 1e-3:
        raise RunError(f"onnxruntime's features differ from PyTorch's by {difference:.1e}; see {partial}")
    partial.replace(path)
    return difference


def _timm_config(config: Pretrain) -> dict[str, Any]:
    standard = config.backbone.width == 64 and config.backbone.stem == "imagenet"
    name = config.backbone.name.removeprefix("timm:")
    size = config.view.size
    return {
        "architecture": name if standard else None,
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
        "fastaugself": {"backbone": name, "width": config.backbone.width, "stem": config.backbone.stem},
    }
