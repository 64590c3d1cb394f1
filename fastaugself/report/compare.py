"""`fastaugself report`: write the report of a run again, or compare several runs on one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..aware import AWARE
from ..errors import RunError, UsageError
from ..files import check_outputs, replace_file, utf8
from ..html.overlay import Curve, legend, overlay_chart
from ..html.page import escape, page
from ..runs.folder import read_config
from ..runs.records import final_mean, flat, is_number, read_lines, without_stub
from .reopen import reopen
from .report import write_report
from .text import CHECK_TITLES, check_title, factor_title, loss_title, metric_title

NAMES = {
    "loss": "Total loss", "loss_ssl": "Loss of the method", **CHECK_TITLES, "feature_std": "Feature std",
    "pairs_per_s": "Speed, pairs/s",
}  # fmt: skip
UNINTERESTING = ("run", "log.", "checkpoint.", "data.workers")  # options that do not affect the result


def report_runs(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Writes report.html of one run, or a comparison of several to `out` (comparison.html); returns the path.

    Raises UsageError for folders that are not runs, RunError if the report cannot be written.
    """
    if not runs:
        raise UsageError("report needs one run folder, or several to compare; pass RUN ...")
    if len(runs) > 1:
        path = out or Path("comparison.html")
        check_outputs(path)
        replace_file(path, utf8(page("Runs compared", comparison([read_run(run) for run in runs]))))
        return path
    if out is not None:
        raise UsageError(f"--out {out} is for comparing several runs; the report of one run goes to its folder")
    return _report_again(runs[0])


def _report_again(run: Path) -> Path:
    trainer = reopen(run)
    try:
        written = write_report(run, trainer)
    finally:
        trainer.close()
    if written is None:
        raise RunError(f"the report of {run} could not be written")
    return written


@dataclass(frozen=True)
class Run:
    """The records of a run. options: by dotted name. metrics, evaluations: one dictionary per line, by step."""

    name: str
    options: dict[str, str]
    metrics: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]

    def points(self, key: str) -> list[tuple[int, float]]:
        """The (step, value) pairs of a metric or an evaluation."""
        records = without_stub(self.metrics) if any(key in m for m in self.metrics) else self.evaluations
        return [(r["step"], r[key]) for r in records if is_number(r.get(key))]


def read_run(run: Path) -> Run:
    """Reads the records of a run folder. Raises UsageError if the path is not a run folder."""
    options = flat(read_config(run))
    return Run(str(run), options, read_lines(run / "metrics.jsonl"), read_lines(run / "evaluations.jsonl"))


def compared(runs: Sequence[Run]) -> dict[str, str]:
    """The titles of the metrics and checks that are compared: `NAMES`, all losses, probes, and objectives' metrics."""
    found = dict.fromkeys(name for run in runs for record in (*run.metrics, *run.evaluations) for name in record)
    losses, probes, others = {}, {}, {}
    for name in found:
        if name.startswith("loss_"):
            losses[name] = loss_title(name.removeprefix("loss_"), long=True)
        elif name.startswith("r2_"):
            probes[name] = factor_title(name)
        elif "/" in name:
            probes[name] = check_title(name)
        elif name.partition("_")[0] in AWARE:
            others[name] = metric_title(name)
    first = {"loss": "", "loss_ssl": "", **losses, "knn": "", "linear": "", **probes, **others}
    return {name: NAMES.get(name) or first[name] for name in (*first, *NAMES)}


def comparison(runs: Sequence[Run]) -> str:
    """HTML of a comparison: options that differ, final values, and curves on common axes."""
    columns = "".join(f"<th>{escape(run.name)}</th>" for run in runs)
    numbers = columns.replace("<th>", '<th class="number">')
    options = sorted({name for run in runs for name in run.options if not name.startswith(UNINTERESTING)})
    rows = []
    for name in options:
        values = [run.options.get(name, "") for run in runs]
        if len(set(values)) > 1:
            cells = "".join(f"<td>{escape(value)}</td>" for value in values)
            rows.append(f"<tr><td><code>{escape(name)}</code></td>{cells}</tr>")
    different = f"<tr><th>option</th>{columns}</tr>{''.join(rows)}" if rows else ""
    names = compared(runs)
    return (
        f'<p class="eyebrow">fastaugself report</p>\n<h1>{len(runs)} runs compared</h1>\n'
        "<h2>Options that differ</h2>\n"
        + (f'<div class="scroll"><table>{different}</table></div>' if rows else "<p>None that affects the result.</p>")
        + "\n<h2>Final values</h2>\n"
        + f'<div class="scroll"><table><tr><th></th>{numbers}</tr>{_final_values(runs, names)}</table></div>'
        + '\n<p class="note">Losses and speed are means over the last tenth of the steps; k-NN accuracy, probes and '
        "effective rank are from the last evaluation, with the value before training below.</p>"
        + f"\n<h2>Curves</h2>\n{legend([run.name for run in runs])}\n"
        + f'<div class="charts">{"".join(_curves(runs, key, name) for key, name in names.items())}</div>'
    )


def _final_values(runs: Sequence[Run], names: dict[str, str]) -> str:
    """One table row per metric."""
    steps = "".join(f'<td class="number">{run.metrics[-1]["step"] if run.metrics else 0:,}</td>' for run in runs)
    rows = [f"<tr><td>steps</td>{steps}</tr>"]
    for key, name in names.items():
        points = [run.points(key) for run in runs]
        if any(points):
            cells = "".join(f'<td class="number">{_final(key, p)}</td>' for p in points)
            rows.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    return "".join(rows)


def _final(key: str, points: Sequence[tuple[int, float]]) -> str:
    """The final value of a metric; for checks of the features, also that before training."""
    if not points:
        return ""
    if key not in CHECK_TITLES and not key.startswith("r2_") and "/" not in key:
        return f"{final_mean(list(points)):.4g}"
    (first, before), (last, value) = points[0], points[-1]
    return f"{value:.4g}" + (f"<br><small>from\N{NO-BREAK SPACE}{before:.4g}</small>" if first == 0 < last else "")


def _curves(runs: Sequence[Run], key: str, name: str) -> str:
    """The curves of one metric in one figure; empty if no run has it."""
    curves = [Curve(run.name, points, i) for i, run in enumerate(runs) if (points := run.points(key))]
    svg = overlay_chart(curves, name=name, x_label="step") if curves else ""
    return f"<figure><h3>{escape(name)}</h3>{svg}</figure>" if svg else ""
