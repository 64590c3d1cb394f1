"""The trained backbone for others: safetensors with torchvision's and timm's parameter names."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save

from .config import Pretrain, from_dict
from .errors import UsageError
from .methods.build import build_learner
from .methods.learner import Learner
from .training.checkpoint import checkpoints, load, write_atomically

WEIGHTS = "model.safetensors"


def export_backbone(learner: Learner, config: Pretrain, folder: Path, *, step: int) -> Path:
    """Writes `folder/model.safetensors` and, as timm reads it, `folder/config.json`; gives the former's path.

    A ResNet of standard width and stem loads with `timm.create_model("resnet50",
    pretrained_cfg_overlay=dict(file=...), num_classes=0)` or `timm.create_model("local-dir:FOLDER")`, and into a
    torchvision ResNet with `load_state_dict(..., strict=False)`, where only `fc` is missing.
    """
    backbone = learner.method.backbone
    state = {name: value.detach().cpu().contiguous() for name, value in backbone.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", "step": str(step), "backbone": config.backbone.name, "view_size": str(config.view.size)}
    write_atomically(folder / WEIGHTS, save(state, metadata=metadata))
    description = json.dumps(_timm_config(config), indent=2) + "\n"
    write_atomically(folder / "config.json", description.encode())
    return folder / WEIGHTS


def export_run(run: Path, folder: Path | None = None) -> Path:
    """Exports the newest checkpoint of a run folder, to its `export/` or to `folder`.

    Raises UsageError when `run` is not a run folder or holds no checkpoint.
    """
    try:
        config = from_dict(Pretrain, json.loads((run / "config.json").read_text()))
    except (OSError, ValueError) as error:
        raise UsageError(f"{run} is not a run folder: its config.json cannot be read ({error})") from None
    saved = checkpoints(run / "checkpoints")
    if not saved:
        raise UsageError(f"{run / 'checkpoints'} holds no checkpoint yet")
    content = load(saved[-1])
    learner = build_learner(config)
    learner.load_state_dict(content["state"]["learner"])
    return export_backbone(learner, config, folder or run / "export", step=content["step"])


def _timm_config(config: Pretrain) -> dict[str, Any]:
    standard = config.backbone.width == 64 and config.backbone.stem == "imagenet"
    name = config.backbone.name.removeprefix("timm:")
    size = config.view.size
    return {
        "architecture": name if standard else None,
        "num_classes": 0,
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
