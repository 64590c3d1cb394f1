"""Several curves in one line chart, on common axes, each with the colour of its series on the whole page."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from .charts import BOTTOM, HEIGHT, TOP, Axes, curve, svg, text_at, thin
from .page import escape

COLORS = 6  # in page.css; further series repeat them with dashed lines
APART = 12.0  # pixels between the last values


class Curve(NamedTuple):
    """name: of the series. points: (x, y), x ascending. series: number of the series on the page."""

    name: str
    points: Sequence[tuple[float, float]]
    series: int


def overlay_chart(curves: Sequence[Curve], *, name: str, x_label: str) -> str:
    """An SVG line chart of several curves, each labelled with its last value in its colour.

    Points with NaN or Inf are skipped, and so are curves without any other; empty if nothing is left. name: title for
    screen readers. Long curves are averaged as in `charts.line_chart`.
    """
    found = []
    for curve_ in curves:
        points = [(a, b) for a, b in curve_.points if math.isfinite(a) and math.isfinite(b)]
        if points:
            found.append((curve_, points[-1][1], thin(points)))
    if not found:
        return ""
    axes = Axes(max(p[-1][0] for *_, p in found), [y for *_, p in found for _, y in p], x_label)
    parts = list(axes.parts)
    ends = []
    for of, last, points in found:
        drawn = [(axes.x(a), axes.y(b)) for a, b in points]
        parts += curve(drawn, series_class(of.series))
        ends.append((drawn[-1], axes.said(last), of))
    places = spread([y for (_, y), *_ in ends])
    for ((x, _), said, of), y in zip(ends, places, strict=True):
        parts.append(text_at(x + 7, y + 4, said, "start", f"value halo {series_class(of.series)}"))
    return svg(parts, f"{name}: " + ", ".join(f"{of.name} {said} at the end" for _, said, of in ends))


def legend(names: Sequence[str]) -> str:
    """The colours of the series, in the order of their numbers."""
    keys = "".join(f'<li class="key {series_class(i)}">{escape(name)}</li>' for i, name in enumerate(names))
    return f'<ul class="legend">{keys}</ul>'


def series_class(series: int) -> str:
    """The classes of a series in page.css."""
    return f"series{series % COLORS}" + (" dashed" if series // COLORS % 2 else "")


def spread(wanted: Sequence[float]) -> list[float]:
    """Heights near the wanted ones and at least `APART` from each other, inside the chart if there is room."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed: list[float] = []
    for i in order:
        placed.append(max(wanted[i], placed[-1] + APART) if placed else wanted[i])
    low, high = float(TOP), float(HEIGHT - BOTTOM)
    for k in range(len(placed) - 1, -1, -1):  # from the bottom up: nothing below the axis
        placed[k] = min(placed[k], placed[k + 1] - APART if k + 1 < len(placed) else high)
    for k in range(len(placed)):  # too many for the height: they go on below the axis
        placed[k] = max(placed[k], placed[k - 1] + APART if k else low - 4)
    found = [0.0] * len(wanted)
    for i, y in zip(order, placed, strict=True):
        found[i] = y
    return found
