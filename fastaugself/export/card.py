"""The card beside exported weights: what was trained, on what, how it went, and how to load and repeat it."""

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

{backbone}, pretrained with {method} by fastaugself, step {step} of a schedule of {epochs} epochs.

| | |
|---|---|
| photos | {photos} |
| views | {size} px; the whole policy stands in `config.json` of the run, below |
| batch size | {batch} |
| optimizer | {optimizer} |
| precision | {precision} |

{results}
## Load it

```python
{loading}
```

Images are resized to {size} px and normalised with mean {mean} and standard deviation {std}.

## Repeat it

`python recipes/RECIPE.py --from config.json --data.train PHOTOS`, with this `config.json`:

```json
{config}
```

Made with {environment}.
"""


def model_card(config: Pretrain, run: Path, weights: str, *, step: int, samples: int) -> str:
    """Markdown with the metadata that the Hugging Face Hub reads. Of paths it tells the last part only.

    run: its folder; results and versions are read there where they are. weights: name of the file beside the card.
    samples: photos it was trained on.
    """
    backbone, a = config.backbone, config.augself
    standard = backbone.width == 64 and backbone.stem == "imagenet"
    name = backbone.name.removeprefix("timm:")
    parts = [type(config.method).__name__]
    if a.weights:
        parts.append("AugSelf (" + ", ".join(f"{name} {weight:g}" for name, weight in a.weights.items()) + ")")
    if config.cassle.condition_dim:
        parts.append(f"CASSLE ({config.cassle.conditioning})")
    data = replace(config.data, train=_last(config.data.train), val=_last(config.data.val))
    files = data.train if isinstance(data.train, tuple) else (data.train,)
    where = f" from {_code(', '.join(map(str, files)))}" if data.train else ""
    o = config.optim
    named = replace(config, run=Path(config.run.name), init=_last(config.init), data=data)
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
        config=json.dumps(to_dict(named), indent=2),
        environment=_environment(read_object(run / "environment.json")),
    )


def _last(path: Path | tuple[Path, ...] | None) -> Any:
    """The same without the folders they are in."""
    if isinstance(path, tuple):
        return tuple(Path(part.name) for part in path)
    return None if path is None else Path(path.name)


def _results(run: Path) -> str:
    evaluations = read_lines(run / "evaluations.jsonl")
    numbers = {k: v for k, v in (evaluations[-1] if evaluations else {}).items() if is_number(v)}
    shown = {name: value for name, value in numbers.items() if name not in ("step", "epoch", "seconds")}
    rows = [f"| {_code(name)} | {value:.4g} |" for name, value in shown.items()]
    if not rows:
        return "No result of a downstream task was measured in this run.\n"
    about = f"Measured at step {numbers['step']}; alarms, not results to compare methods by."
    return "\n".join(["## Checks while training", "", about, "", "| | |", "|---|---|", *rows, ""])


def _environment(record: dict[str, Any]) -> str:
    versions = record.get("versions")
    known = {"python": record.get("python"), **(versions if isinstance(versions, dict) else {})}
    named = [f"{name} {value}" for name, value in flat(known).items() if value != "None"]
    machine = [str(record[key]) for key in ("gpu", "cpu") if record.get(key)]
    return _code(", ".join([*named, *machine]) or "versions unknown")


def _code(text: str) -> str:
    """Text of a run as code, so that none of it can be markup."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def loading(config: Pretrain, weights: Path) -> str:
    """Python that loads the exported backbone: with timm and torchvision where its shape is theirs."""
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
