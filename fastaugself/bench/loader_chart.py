"""A bar chart of a `bench loader` record: photos per second and core, one bar per contestant."""

from pathlib import Path

from ..errors import UsageError
from .chart import OURS, THEIRS
from .harness import Record
from .tables.table import machine


def draw(result: Record, out: Path) -> None:
    """Writes a bar chart: medians with the lowest and highest round, one panel per storage.

    Raises UsageError without matplotlib.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise UsageError(f"--plot needs matplotlib ({error}): pip install matplotlib") from None
    fewest = min(result["config"]["workers"])
    panels = [
        (storage, rows)
        for storage in ("jpeg", "raw")
        if (rows := [r for r in result["rows"] if (r["storage"], r["workers"]) == (storage, fewest)])
    ]
    heights = [len(rows) for _, rows in panels]
    figure, axes = pyplot.subplots(
        len(panels),
        1,
        figsize=(8, 1.2 + 0.36 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, (storage, rows) in zip(axes[:, 0], panels, strict=True):
        rates = [row["samples_per_s_per_core"] for row in rows]
        ranges = [
            [rate - min(row["rounds_per_core"]) for rate, row in zip(rates, rows, strict=True)],
            [max(row["rounds_per_core"]) - rate for rate, row in zip(rates, rows, strict=True)],
        ]
        colours = [OURS if row["contestant"].startswith("fastaugself") else THEIRS for row in rows]
        names = [f"{row['contestant'].removesuffix(', decoded')} ({row['job']})" for row in rows]
        bars = axis.barh(names, rates, xerr=ranges, color=colours, ecolor="#57606a", capsize=2)
        axis.bar_label(bars, [f" {rate:,.0f}" for rate in rates], padding=4)
        axis.set(title=f"{storage}: photos per second and core")
        axis.margins(x=0.12)
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(machine(result).split(";")[0], fontsize=9, color="#57606a")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)
    pyplot.close(figure)
