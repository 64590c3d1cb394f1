"""The page of `fastaugself views`, and the parts of it that the report of a run is made of too."""

from collections.abc import Sequence

from .page import data_uri, escape, page
from .views import GROUPS, MINUS, Pair, Word, outlines


def views_page(pairs: Sequence[Pair], heading: str, detail: str) -> str:
    """The pairs as a complete HTML document."""
    rows = "\n".join(_pair_html(pair) for pair in pairs)
    return page(
        heading,
        f'<h1>{escape(heading)}</h1>\n<p class="eyebrow">{escape(detail)}</p>\n{rows}\n<p class="note">{LEGEND}</p>',
    )


LEGEND = (
    "Crops are width × height at (left, top) in pixels of the photo. Jitter is applied in the order shown. Differences "
    "are view 1 minus view 2, as AugSelf's targets are: that of centre x is mirrored where view 1 is."
)


def _pair_html(pair: Pair) -> str:
    first, second = (view_html(pair, v) for v in (0, 1))
    return (
        f'<section class="pair">\n<div class="photo"><h3>{escape(pair.name)}</h3>{photo_html(pair)}</div>\n'
        f"{first}\n{_bars_html(pair)}\n{second}\n</section>"
    )


def photo_html(pair: Pair, max_side: int = 640) -> str:
    """The photo with both crop boxes drawn on it."""
    height, width = pair.photo_HWC.shape[:2]
    rects = "".join(
        f'<rect class="{kind}" x="{left:g}" y="{top:g}" width="{w:g}" height="{h:g}"/>'
        for v, (top, left, h, w) in enumerate(outlines(pair), 1)
        for kind in ("under", f"v{v}")
    )
    return (
        f'<div class="framed"><img src="{data_uri(pair.photo_HWC, max_side=max_side)}" width="{width}" '
        f'height="{height}" alt="the photo"><svg class="boxes" viewBox="0 0 {width} {height}" '
        f'preserveAspectRatio="none" aria-hidden="true">{rects}</svg></div>'
    )


def image_html(pair: Pair, v: int) -> str:
    """View `v` as an image."""
    height, width = pair.views_HWC[v].shape[:2]
    style = ' class="pixels"' if height <= 96 else ""
    uri = data_uri(pair.views_HWC[v])
    return f'<img src="{uri}" width="{width}" height="{height}"{style} alt="view {v + 1}">'


def view_html(pair: Pair, v: int) -> str:
    """View `v` with its parameters in words."""
    rows = "".join(
        f'<dt>{word.label}</dt><dd class="{_state(word)}">{lines}</dd>'
        for word, lines in ((word, "<br>".join(map(escape, word.lines))) for word in pair.words[v])
    )
    return f'<div class="view v{v + 1}"><h3>View {v + 1}</h3>{image_html(pair, v)}<dl class="words">{rows}</dl></div>'


def _state(word: Word) -> str:
    return "on" if word.applied else "off"


def _bars_html(pair: Pair) -> str:
    parts = []
    for group, entries in pair.differences.items():
        parts.append(f'<p class="group">{GROUPS[group]}</p>')
        for label, value, text in entries:
            bar = bar_html(((value, "true"),))
            parts.append(f'<div class="bar"><span>{label}</span>{bar}<span class="number">{text}</span></div>')
    return f'<div class="bars"><h3>View 1 {MINUS} view 2</h3>{"".join(parts)}</div>'


def bar_html(values: Sequence[tuple[float, str]]) -> str:
    """Bars of (value in [-1, 1], CSS class) from a common zero, below one another."""
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
