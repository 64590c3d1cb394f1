"""The comparison of runs: one figure per metric with the curves of all runs, on axes that are the same for all."""

import itertools
import math
import re

import pytest

from fastaugself.html.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from fastaugself.html.overlay import APART, COLORS, Curve, legend, overlay_chart, series_class, spread
from fastaugself.report.compare import Run, comparison


def lines(svg):
    """The drawn points of every curve, by its class."""
    found = re.findall(r'<polyline class="line ([^"]+)" points="([^"]+)"', svg)
    return {name: [tuple(map(float, p.split(","))) for p in points.split()] for name, points in found}


def test_curves_of_different_lengths_and_heights_share_the_axes():
    a, b = Curve("a", [(0, 0.0), (100, 1.0)], 0), Curve("b", [(0, 0.5), (50, 0.25)], 1)
    drawn = lines(overlay_chart([a, b], name="n", x_label="step"))
    (x0, y0), (x1, y1) = drawn["series0"]
    (u0, v0), (u1, v1) = drawn["series1"]
    assert (x0, x1) == (LEFT, WIDTH - RIGHT) and u0 == x0 and u1 == pytest.approx((x0 + x1) / 2, abs=0.1)
    assert v0 == pytest.approx((y0 + y1) / 2, abs=0.1) and v1 == pytest.approx(0.75 * y0 + 0.25 * y1, abs=0.1)


def test_odd_curves_are_left_out_and_the_rest_is_drawn():
    curves = [
        Curve("<nan>", [(1, math.nan), (2, math.inf)], 0),
        Curve("<one>", [(3, 2.0)], 1),
        Curve("flat", [(1, 2.0), (2, 2.0)], 2),
    ]
    svg = overlay_chart(curves, name="n", x_label="step")
    assert set(lines(svg)) == {"series1", "series2"} and "nan" not in svg and "&lt;one&gt;" in svg
    assert overlay_chart(curves[:1], name="n", x_label="step") == "" == overlay_chart([], name="n", x_label="step")


@pytest.mark.parametrize(
    "wanted", [[50.0, 50.0], [188.0, 187.0, 186.0], [12.0, 12.0, 12.0], [100.0, 20.0, 101.0, 99.0], [60.0]]
)
def test_last_values_do_not_cover_each_other_and_stay_inside(wanted):
    placed = spread(wanted)
    ordered = sorted(placed)
    assert all(b - a >= APART - 1e-9 for a, b in itertools.pairwise(ordered))
    assert min(placed) >= TOP - 4 and max(placed) <= HEIGHT - BOTTOM
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    assert [placed[i] for i in order] == ordered  # in the order of the curves' ends


def test_values_that_are_far_apart_stay_at_their_curves():
    assert spread([150.0, 30.0, 90.0]) == [150.0, 30.0, 90.0]


def test_more_values_than_fit_keep_their_distance():
    placed = sorted(spread([100.0] * 20))
    assert all(b - a == pytest.approx(APART) for a, b in itertools.pairwise(placed))


def test_every_series_has_its_own_look():
    assert len({series_class(i) for i in range(2 * COLORS)}) == 2 * COLORS
    assert legend(["<a>", "b"]).count("<li") == 2 and "&lt;a&gt;" in legend(["<a>"])


def record(step, **values):
    return {"step": step, "epoch": step / 10, **values}


def test_the_comparison_has_one_figure_per_metric_and_the_values_before_training():
    runs = [
        Run(
            name,
            {"seed": str(i)},
            [record(s, loss=3.0 - s / 10 + i, loss_flip=0.6, essl_accuracy=0.5) for s in (5, 10)],
            [record(0, knn=0.25, r2_hue=0.5), record(10, knn=0.5 + i / 8, r2_hue=0.75)],
        )
        for i, name in enumerate(["a", "b"])
    ]
    page = comparison(runs)
    figures = dict(re.findall(r"<figure><h3>([^<]+)</h3>(.*?)</figure>", page))
    assert list(figures) == [
        "Total loss", "AugSelf flip loss", "k-NN accuracy", "Probe of hue", "E-SSL accuracy"
    ]  # fmt: skip
    for svg in figures.values():
        assert svg.count("<svg") == 1 and set(lines(svg)) == {"series0", "series1"}
    row = re.search(r"<tr><td>k-NN accuracy</td>(.*?)</tr>", page)[1]
    assert re.findall(r"([\d.]+)<br><small>from\W(?:nbsp;)?([\d.]+)", row) == [("0.5", "0.25"), ("0.625", "0.25")]
    total = re.search(r"<tr><td>Total loss</td>(.*?)</tr>", page)[1]
    assert "from" not in total and [float(v) for v in re.findall(r">([\d.]+)<", total)] == [2.0, 3.0]


def test_a_metric_that_one_run_lacks_is_drawn_for_the_other():
    runs = [Run("a", {}, [record(5, loss=1.0)], []), Run("b", {}, [record(5, loss=2.0, loss_crop=0.1)], [])]
    page = comparison(runs)
    figure = re.search(r"<h3>AugSelf crop loss</h3>(.*?)</figure>", page)[1]
    assert set(lines(figure)) == {"series1"}  # the colour of run b on the whole page
