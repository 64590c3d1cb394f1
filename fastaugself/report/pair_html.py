"""HTML of a photo, its two views and their parameters, for the report of a run and `fastaugself views`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..html.page import data_uri, escape
from .pairs import Pair, outlines
from .words import GROUPS, MINUS, Word


def pair_html(pair: Pair) -> str:
    """The photo, both views with their parameters, and the differences between them."""
    first, second = (view_html(pair, v) for v in (0, 1))
    return (
        f'<section class="pair">\n<div class="photo"><h3>{escape(pair.name)}</h3>{photo_html(pair)}</div>\n'
        f"{first}\n{_bars_html(pair)}\n{second}\n{_local_crops_html(pair)}</section>"
    )


def _local_crops_html(pair: Pair) -> str:
    """The local crops, in a row below the views."""
    if not pair.local_crops:
        return ""
    tiles = "".join(
        f'<div class="view"><h3>{i}</h3>{view_image(crop.view_HWC, f"local crop {i}")}{_words_html(crop.words)}</div>'
        for i, crop in enumerate(pair.local_crops, 1)
    )
    return f'<div class="local-crops"><h3>Local crops</h3><div class="grid">{tiles}</div></div>\n'


def photo_html(pair: Pair, max_side: int = 640) -> str:
    """The photo with the crop boxes of both views and of the local crops."""
    height, width = pair.photo_HWC.shape[:2]
    boxes = [("local-crop", crop.box) for crop in pair.local_crops]
    boxes += [(f"v{v}", box) for v, box in enumerate(outlines(pair), 1)]
    rects = "".join(
        f'<rect class="{kind}" x="{left:g}" y="{top:g}" width="{w:g}" height="{h:g}"/>'
        for name, (top, left, h, w) in boxes
        for kind in ("under", name)
    )
    return (
        f'<div class="framed"><img src="{data_uri(pair.photo_HWC, max_side=max_side)}" width="{width}" '
        f'height="{height}" alt="the photo"><svg class="boxes" viewBox="0 0 {width} {height}" '
        f'preserveAspectRatio="none" aria-hidden="true">{rects}</svg></div>'
    )


def image_html(pair: Pair, v: int) -> str:
    """An <img> of view `v` (0 or 1)."""
    return view_image(pair.views_HWC[v], f"view {v + 1}")


def view_image(view_HWC: NDArray[np.uint8], name: str) -> str:
    """An <img> of a view; name: its alt text."""
    height, width = view_HWC.shape[:2]
    style = ' class="pixels"' if height <= 96 else ""
    return f'<img src="{data_uri(view_HWC)}" width="{width}" height="{height}"{style} alt="{name}">'


def view_html(pair: Pair, v: int) -> str:
    """View `v` (0 or 1) with its parameters in words."""
    words = _words_html(pair.words[v])
    return f'<div class="view v{v + 1}"><h3>View {v + 1}</h3>{image_html(pair, v)}{words}</div>'


def _words_html(words: Sequence[Word]) -> str:
    rows = "".join(
        f'<dt>{word.label}</dt><dd class="{_state(word)}">{"<br>".join(map(escape, word.lines))}</dd>' for word in words
    )
    return f'<dl class="words">{rows}</dl>'


def _state(word: Word) -> str:
    """The CSS class of a parameter: whether its operation is applied."""
    return "on" if word.applied else "off"


def _bars_html(pair: Pair) -> str:
    """The differences of the parameters as bars, by group."""
    parts = []
    for group, entries in pair.differences.items():
        parts.append(f'<p class="group">{GROUPS[group]}</p>')
        for label, value, text in entries:
            bar = bar_html(((value, "true"),))
            parts.append(f'<div class="bar"><span>{label}</span>{bar}<span class="number">{text}</span></div>')
    return f'<div class="bars"><h3>View 1 {MINUS} view 2</h3>{"".join(parts)}</div>'


def bar_html(values: Sequence[tuple[float, str]]) -> str:
    """Horizontal bars from a common zero line; values: (value in [-1, 1], CSS class) of each bar, top to bottom."""
    step = 14 / len(values)
    thickness = min(6.0, step - 1.5)
    rects = []
    for i, (value, name) in enumerate(values):
        value = max(-1.0, min(1.0, value))
        x, y = min(value, 0), i * step + (step - thickness) / 2
        shape = f'x="{x:.3f}" y="{y:.2f}" width="{abs(value):.3f}" height="{thickness:.2f}"'
        rects.append(f'<rect class="{name}" {shape}/>')
    return (
        f'<svg viewBox="-1 0 2 14" preserveAspectRatio="none" aria-hidden="true">{"".join(rects)}'
        '<line class="zero" x1="0" x2="0" y1="0" y2="14"/></svg>'
    )
