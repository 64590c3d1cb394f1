"""Line charts as inline SVG, coloured by the page's style sheet so that they follow its light and dark themes."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from .page import escape

WIDTH, HEIGHT = 340, 214
LEFT, RIGHT, TOP, BOTTOM = 42, 44, 12, 26  # margins for the tick labels and the last value
MAX_POINTS = 240


class Level(NamedTuple):
    """A labelled horizontal reference line."""

    value: float
    label: str


def line_chart(
    x: Sequence[float],
    y: Sequence[float],
    *,
    name: str,
    x_label: str,
    levels: Sequence[Level] = (),
    low: float | None = None,
    high: float | None = None,
) -> str:
    """An SVG line chart whose curve is labelled with its last value.

    x, y: coordinates, x ascending; points with NaN or Inf are skipped. name: title for screen readers. levels: dashed,
    labelled reference lines. low, high: values that the y axis must include. More than `MAX_POINTS` points are averaged
    in groups of neighbours. Raises ValueError if no point is finite.
    """
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not points:
        raise ValueError(f"the curve of {name} has no finite point")
    last = points[-1][1]
    points = thin(points)
    values = [b for _, b in points] + [level.value for level in levels] + [v for v in (low, high) if v is not None]
    axes = Axes(points[-1][0], values, x_label)
    parts = axes.parts + [_across("reference", axes.y(level.value)) for level in levels]
    drawn = [(axes.x(a), axes.y(b)) for a, b in points]
    parts += curve(drawn)
    for level in levels:
        x_text, y_text, anchor = _free_spot(drawn, axes.y(level.value), 5.7 * len(level.label), WIDTH - RIGHT)
        parts.append(text_at(x_text, y_text, level.label, anchor, "level halo"))
    said = axes.said(last)
    parts.append(text_at(drawn[-1][0] + 7, drawn[-1][1] + 4, said, "start", "value"))
    return svg(parts, f"{name}: {_short(points[0][1])} at the start, {said} at the end")


class Axes:
    """The axes of a chart with round ticks. parts: their SVG. x, y: positions of values in the drawing.

    x_end: the last x; the first is 0. values: y values that the axis must include.
    """

    def __init__(self, x_end: float, values: Sequence[float], x_label: str) -> None:
        ticks = _ticks(min(values), max(values))
        self._bottom, self._top = min(ticks[0], min(values)), max(ticks[-1], max(values))
        self._x_end = x_end or 1.0
        x_ticks = [t for t in _ticks(0.0, x_end, count=5, steps=(1, 2, 5, 10)) if t <= x_end * 1.001]
        base = HEIGHT - BOTTOM
        self.parts = []
        for tick in ticks:
            self.parts.append(_across("grid", self.y(tick)))
            self.parts.append(text_at(LEFT - 7, self.y(tick) + 4, _number(tick, ticks), "end"))
        self.parts.append(_across("axis", base))
        self.parts += [text_at(self.x(tick), base + 16, _number(tick, x_ticks), "middle") for tick in x_ticks]
        self.parts.append(text_at(WIDTH, base + 16, x_label, "end"))

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self._x_end

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self._bottom) / (self._top - self._bottom)

    def said(self, value: float) -> str:
        """A value of a curve as text."""
        return _short(value) if abs(value) > 0.002 * (self._top - self._bottom) else "0"


def curve(drawn: Sequence[tuple[float, float]], series: str = "") -> list[str]:
    """A line through drawn points and a dot at its end. series: further class of both."""
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
    x, y = drawn[-1]
    return [
        f'<polyline class="{f"line {series}".strip()}" points="{line}"/>',
        f'<circle class="{f"dot {series}".strip()}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>',
    ]


def svg(parts: Sequence[str], label: str) -> str:
    """A chart of these parts. label: for screen readers."""
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _across(name: str, y: float) -> str:
    return f'<line class="{name}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def text_at(x: float, y: float, text: str, anchor: str, name: str = "tick") -> str:
    """Text at a place. anchor: the part of it that is there (start, middle, end). name: its class."""
    return f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MAX_POINTS` points: averages of groups of neighbours."""
    run = -(-len(points) // MAX_POINTS)
    if run == 1:
        return points
    chunks = [points[i : i + run] for i in range(0, len(points), run)]
    return [(chunk[-1][0], sum(b for _, b in chunk) / len(chunk)) for chunk in chunks]


def _free_spot(
    drawn: Sequence[tuple[float, float]], level: float, width: float, right: float
) -> tuple[float, float, str]:
    """(x, y, text-anchor) of a reference line's label, where the curve overlaps it least; above right if equal."""
    spots = [(right - 2, dy, "end", right - width, right) for dy in (-5.0, 14.0)]
    spots += [(LEFT + 4, dy, "start", LEFT, LEFT + width) for dy in (-5.0, 14.0)]

    def hits(spot: tuple[float, float, str, float, float]) -> int:
        _, dy, _, start, end = spot
        low, high = (level - 18, level) if dy < 0 else (level, level + 18)
        if high > HEIGHT - BOTTOM:
            return STEPS + 1
        xs = [start + (end - start) * i / STEPS for i in range(STEPS + 1)]
        return sum(y is not None and low <= y <= high for y in (_height_at(drawn, x) for x in xs))

    x, dy, anchor, _, _ = min(spots, key=hits)
    return x, level + dy, anchor


STEPS = 24  # points along a label at which overlap with the curve is tested


def _height_at(drawn: Sequence[tuple[float, float]], x: float) -> float | None:
    for (x0, y0), (x1, y1) in pairwise(drawn):
        if x0 <= x <= x1 and x1 > x0:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return None


def _ticks(low: float, high: float, count: int = 4, steps: Sequence[float] = (1, 2, 2.5, 5, 10)) -> list[float]:
    """Evenly spaced round numbers that cover [low, high]."""
    if high - low < 1e-12 * max(abs(low), abs(high), 1e-12):
        low, high = low - (abs(low) or 1.0) * 0.5, high + (abs(high) or 1.0) * 0.5
    raw = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in steps if m * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _number(value: float, ticks: Sequence[float]) -> str:
    """A tick label with the number of digits that the tick spacing needs."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else abs(value) or 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    digits += not math.isclose(step * 10**digits, round(step * 10**digits))  # steps of 2.5
    text = f"{abs(value):,.{digits}f}"
    return ("\N{MINUS SIGN}" if value < 0 and float(text.replace(",", "")) else "") + text


def _short(value: float) -> str:
    """A value with about three significant digits."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    text = f"{abs(value):,.{digits}f}" if abs(value) >= 5e-4 or value == 0 else f"{abs(value):.1e}"
    return ("\N{MINUS SIGN}" if value < 0 else "") + text
