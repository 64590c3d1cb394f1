"""Line charts: one scale for curves and levels, odd values, long curves."""

import math
import re

import pytest

from fastaugself.html.charts import MAX_POINTS, Level, line_chart


def curve(svg):
    return [tuple(map(float, p.split(","))) for p in re.search(r'points="([^"]+)"', svg)[1].split()]


def level_of(svg):
    return float(re.search(r'class="reference"[^>]* y1="([\d.]+)"', svg)[1])


def test_a_curve_and_its_level_share_one_scale():
    svg = line_chart([0, 1, 2], [0.0, 0.5, 1.0], name="n", x_label="epoch", levels=[Level(0.5, "half")])
    (x0, y0), (x1, y1), (x2, y2) = curve(svg)
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1) and x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y0 > y1 > y2 and level_of(svg) == pytest.approx(y1, abs=0.1)
    assert ">half<" in svg and ">1.00<" in svg


@pytest.mark.parametrize(
    "values",
    [[3.0], [2.0, 2.0, 2.0], [0.0, 0.0], [-1.0, -5.0], [1e-7, 2e-7], [1e6, 3e6], [1.0, math.nan, math.inf, 0.5]],
    ids=["one", "constant", "zero", "negative", "tiny", "huge", "nan and inf"],
)
def test_charts_of_odd_curves_are_finite_and_inside(values):
    svg = line_chart(range(len(values)), values, name="n", x_label="step", levels=[Level(values[0], "<level>")])
    assert "nan" not in svg and "inf" not in svg and "&lt;level&gt;" in svg
    for x, y in curve(svg):
        assert 0 <= x <= 340 and 0 <= y <= 214


def test_a_curve_without_a_finite_point_is_refused():
    with pytest.raises(ValueError, match="no finite point"):
        line_chart([1.0], [math.nan], name="n", x_label="step")


def test_a_long_curve_is_averaged_and_ends_at_its_last_step():
    n = 10_001
    svg = line_chart(range(n), [float(i % 2) for i in range(n)], name="n", x_label="step", low=0.0, high=1.0)
    points = curve(svg)
    assert len(points) <= MAX_POINTS
    top, bottom = curve(line_chart([0, 1], [1.0, 0.0], name="n", x_label="s", low=0.0, high=1.0))
    middle = (top[1] + bottom[1]) / 2
    assert all(abs(y - middle) < 0.05 * (bottom[1] - top[1]) for _, y in points[:-1])
    assert points[-1][0] == pytest.approx(top[0] + (bottom[0] - top[0]), abs=0.5)
