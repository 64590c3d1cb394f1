"""A bar chart of a `bench augment` record."""

from pathlib import Path

from .harness import Record
from .tables.table import machine

OURS, THEIRS, LINE = "#1f6feb", "#9aa4af", "#d1242f"


def draw(result: Record, path: Path) -> None:
    """Writes a bar chart of the main case: views per second (log axis), range over rounds, and the copy as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = sorted((row for row in result["rows"] if row["case"] == ""), key=lambda row: row["views_per_s"])
    rates = [row["views_per_s"] for row in rows]
    bound = 1e9 * result["copy"]["gb_per_s"] / rows[0]["bytes_per_view"]
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.36 * len(rows)), layout="constrained")
    whiskers = [
        [rate - min(row["rounds"]) for rate, row in zip(rates, rows, strict=True)],
        [max(row["rounds"]) - rate for rate, row in zip(rates, rows, strict=True)],
    ]
    colours = [OURS if row["name"].startswith("fastaugself") else THEIRS for row in rows]
    names = [row["name"] for row in rows]
    axes.barh(names, rates, xerr=whiskers, color=colours, ecolor="#57606a", capsize=2)
    for i, (rate, row) in enumerate(zip(rates, rows, strict=True)):
        axes.annotate(f"{rate:,.0f}", (max(row["rounds"]), i), (5, 0), textcoords="offset points", va="center")
    axes.axvline(bound, color=LINE, linestyle="--", linewidth=1)
    axes.annotate("speed of a copy ", (bound, 0), ha="right", va="center", color=LINE, fontsize=9)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(0.6 * min(rates), 1.3 * bound)
    axes.spines[["top", "right"]].set_visible(False)
    side, (height, width) = result["config"]["size"], result["config"]["photos"]
    axes.set_xlabel(f"views of {side} px per second, from photos of {height} x {width}")
    axes.set_title(machine(result).split(";")[0], fontsize=9, color="#57606a", loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
