"""The HTML page of `fastaugself eval segmentation`: photos with their masks and predictions, and the IoU of each class.

Shape suffixes: H W.
"""

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..html.page import data_uri, escape
from ..probes.segmentation import IGNORED
from .results import Row, number, write_html

STYLE = """<style>
.masks { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px; padding: 16px 0;
  border-top: 1px solid var(--line); align-items: start; }
.masks figcaption { overflow-wrap: anywhere; }
.masks img { width: 100%; display: block; border-radius: 3px; }
.classes { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 18px; max-width: none; }
.classes .sign { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px; }
</style>
"""
OPACITY = 0.6  # of the colours over the photo
GOLDEN = 0.618  # turns of hue between neighbouring classes, so that they differ


class Shown(NamedTuple):
    """A photo of the page. photo: uint8 [H, W, 3]. truth, predicted (by model): int64 classes [H, W]."""

    name: str
    photo: NDArray[np.uint8]
    truth: NDArray[np.int64]
    predicted: Mapping[str, NDArray[np.int64]]


def write_page(
    path: Path, data: str, shown: Sequence[Shown], classes: Sequence[str], rows: Sequence[Row], about: str
) -> Path:
    """Writes the page, and returns its path. rows: of the result. about: the foot of the page."""
    heading = f"Segmentation of {data}"
    signs = "".join(
        f'<li><span class="sign" style="background:rgb{color(i)}"></span>{escape(name)}</li>'
        for i, name in enumerate(classes)
    )
    blocks = "\n".join(_block(photo) for photo in shown)
    body = (
        f"{STYLE}<h1>{escape(heading)}</h1>\n"
        '<p class="lead">One 1×1 convolution on frozen feature maps, upsampled to the mask. Pixels without a class '
        f"keep the photo's colours in the mask.</p>\n{_scores(rows)}\n"
        f"<h2>IoU of each class</h2>\n{_table(rows, classes)}\n"
        f'<h2>Test photos</h2>\n<ul class="classes">{signs}</ul>\n{blocks}\n<p class="note">{escape(about)}</p>'
    )
    return write_html(path, heading, body)


def color(index: int) -> tuple[int, int, int]:
    """The colour of a class, 0 to 255."""
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN % 1, 0.75, (0.95, 0.7)[index % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def overlaid(photo: NDArray[np.uint8], classes_HW: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The photo in grey under the colours of the classes, uint8 [H, W, 3]; IGNORED pixels are the photo's own."""
    highest = int(classes_HW.max(initial=0)) + 1
    colors = np.array([color(i) for i in range(highest)], np.float64)
    gray = photo.mean(2, keepdims=True)
    mixed = (1 - OPACITY) * gray + OPACITY * colors[np.maximum(classes_HW, 0)]
    return np.where(classes_HW[..., None] == IGNORED, photo, mixed).round().astype(np.uint8)


def _block(shown: Shown) -> str:
    pictures = {shown.name: shown.photo, "mask": overlaid(shown.photo, shown.truth)}
    pictures |= {model: overlaid(shown.photo, classes) for model, classes in shown.predicted.items()}
    figures = "".join(
        f'<figure><img src="{data_uri(pixels, max_side=300)}" alt="{escape(title)}" loading="lazy">'
        f"<figcaption>{escape(title)}</figcaption></figure>"
        for title, pixels in pictures.items()
    )
    return f'<section class="masks">{figures}</section>'


def _scores(rows: Sequence[Row]) -> str:
    cells = "".join(
        f'<tr><td>{escape(row.label)}</td><td>{escape(row.metric)}</td><td class="number">{number(row.score.value)}'
        f"<br><small>{number(row.score.low)} to {number(row.score.high)}</small></td></tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tbody>{cells}</tbody></table></div>'


def _table(rows: Sequence[Row], classes: Sequence[str]) -> str:
    found = {row.label: row.details["iou"] for row in rows if "iou" in row.details}
    head = "".join(f'<th class="number">{escape(model)}</th>' for model in found)
    lines = []
    for name in classes:
        values = [iou[name] for iou in found.values()]
        cells = "".join(f'<td class="number">{"–" if v is None else number(v)}</td>' for v in values)
        lines.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th>class</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
