"""The model card of an export: method, data, results, and how to load and reproduce it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config.schema import Pretrain
from ..config.serialize import to_dict
from ..runs.records import flat, is_number, read_lines, read_object

_TEXT = """\
---
library_name: {library}
pipeline_tag: image-feature-extraction
tags:
- image-feature-extraction
- self-supervised
- fastaugself
---

# {title}

{backbone}, pretrained with {method} by fastaugself: step {step} of a schedule of {epochs} epochs.

| | |
|---|---|
| photos | {photos} |
| views | {size} px; the augmentations are in `config.json` below |
| batch size | {batch} |
| optimizer | {optimizer} |
| precision | {precision} |

{results}
## Usage

```python
{loading}
```

Images are resized to {size} px and normalised with mean {mean} and standard deviation {std}.

## Reproduce

Run `python recipes/RECIPE.py --from config.json --data.train PHOTOS` with this `config.json`:

```json
{config}
```

Trained with {environment}.
"""


def model_card(config: Pretrain, run: Path, weights: str, *, step: int, samples: int) -> str:
    """The model card as Markdown, with the metadata of the Hugging Face Hub. Only the last part of paths is shown.

    run: run folder, whose results and versions are shown if they exist. weights: name of the weights file beside the
    card. step: optimizer steps that were done. samples: photos that it was trained on.
    """
    backbone = config.backbone
    standard = backbone.width == 64 and backbone.stem == "imagenet"
    name = backbone.name.removeprefix("timm:")
    parts = [type(config.method).__name__] if config.base_loss else []
    for options in config.objectives.values():
        losses = ", ".join(f"{loss} {weight:g}" for loss, weight in options.weights.items())
        parts.append(f"{options.title} ({losses})")
    if config.predictor.enabled:
        parts.append("conditional predictor")
    if config.cassle.condition_dim:
        parts.append(f"CASSLE ({config.cassle.conditioning})")
    data = replace(config.data, train=_last(config.data.train), val=_last(config.data.val))
    files = data.train if isinstance(data.train, tuple) else (data.train,)
    where = f" from {_code(', '.join(map(str, files)))}" if data.train else ""
    o = config.optim
    checks = tuple(str(photos.mapped(lambda path: Path(path.name))) for photos in config.log.check_photos)
    log = replace(config.log, check=checks)
    without_folders = replace(config, run=Path(config.run.name), init=_last(config.init), data=data, log=log)
    return _TEXT.format(
        library="timm" if standard else "fastaugself",
        title=f"{name} {' + '.join(part.split(' ')[0] for part in parts)}",
        backbone=name if standard else f"{name}, width {backbone.width}, {backbone.stem} stem",
        method=" and ".join(parts),
        step=step,
        epochs=config.epochs,
        photos=f"{samples:,}{where}",
        size=config.view.size,
        batch=config.batch_size,
        optimizer=f"{o.name}, learning rate {o.lr:g} per 256, weight decay {o.weight_decay:g}, {o.schedule}",
        precision=config.precision,
        results=_results(run),
        loading=loading(config, Path(weights)),
        mean=config.augment.mean,
        std=config.augment.std,
        config=json.dumps(to_dict(without_folders), indent=2),
        environment=_environment(read_object(run / "environment.json")),
    )


def _last(path: Path | tuple[Path, ...] | None) -> Any:
    """A path, or several, without their folders."""
    if isinstance(path, tuple):
        return tuple(Path(part.name) for part in path)
    return None if path is None else Path(path.name)


def _results(run: Path) -> str:
    evaluations = read_lines(run / "evaluations.jsonl")
    numbers = {k: v for k, v in (evaluations[-1] if evaluations else {}).items() if is_number(v)}
    shown = {name: value for name, value in numbers.items() if name not in ("step", "epoch", "seconds")}
    rows = [f"| {_code(name)} | {value:.4g} |" for name, value in shown.items()]
    if not rows:
        return "This run has no evaluation results.\n"
    about = f"Measured at step {numbers['step']} to monitor training; not comparable with downstream evaluations."
    return "\n".join(["## Checks during training", "", about, "", "| | |", "|---|---|", *rows, ""])


def _environment(record: dict[str, Any]) -> str:
    versions = record.get("versions")
    known = {"python": record.get("python"), **(versions if isinstance(versions, dict) else {})}
    named = [f"{name} {value}" for name, value in flat(known).items() if value != "None"]
    machine = [str(record[key]) for key in ("gpu", "cpu") if record.get(key)]
    return _code(", ".join([*named, *machine]) or "versions unknown")


def _code(text: str) -> str:
    """Text as inline code, so that it cannot contain markup."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def loading(config: Pretrain, weights: Path) -> str:
    """Python code that loads the exported backbone: with timm and torchvision if they have its architecture."""
    backbone, size = config.backbone, config.view.size
    name = backbone.name.removeprefix("timm:")
    if name != backbone.name:
        return _TIMM.format(weights=weights)
    if backbone.width == 64 and backbone.stem == "imagenet":
        return _TIMM.format(weights=weights) + "\n\n" + _TORCHVISION.format(name=name, weights=weights)
    options = f'name="{name}", width={backbone.width}, stem="{backbone.stem}"'
    return _OWN.format(options=options, weights=weights, size=size)


_TIMM = """\
import timm

model = timm.create_model("local-dir:{weights.parent}", pretrained=True)"""
_TORCHVISION = """\
import torchvision
from safetensors.torch import load_file

model = torchvision.models.{name}()
model.load_state_dict(load_file("{weights}"), strict=False)  # only fc is missing"""
_OWN = """\
import torch
from safetensors.torch import load_file
from fastaugself import Backbone
from fastaugself.models.build import build_backbone

model, width = build_backbone(Backbone({options}))
model.load_state_dict(load_file("{weights}"))
features = model.eval()(torch.zeros(1, 3, {size}, {size}))  # [1, width], of images normalised as in config.json"""
