"""`fastaugself report`: write the report of a run again, or compare several runs on one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError, UsageError
from ..files import check_outputs, replace_file, utf8
from ..html.charts import line_chart
from ..html.page import escape, page
from ..runs.folder import read_config
from ..runs.records import final_mean, flat, is_number, read_lines, without_stub
from .reopen import reopen
from .report import write_report

NAMES = {
    "loss": "total loss", "loss_ssl": "loss of the method", "loss_crop": "AugSelf crop loss",
    "loss_color": "AugSelf color loss", "feature_std": "feature std", "knn": "k-NN accuracy",
    "linear": "linear probe", "rankme": "effective rank", "pairs_per_s": "pairs/s",
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


def comparison(runs: Sequence[Run]) -> str:
    """HTML of a comparison: options that differ, final values, and curves on common axes."""
    columns = "".join(f"<th>{escape(run.name)}</th>" for run in runs)
    options = sorted({name for run in runs for name in run.options if not name.startswith(UNINTERESTING)})
    rows = []
    for name in options:
        values = [run.options.get(name, "") for run in runs]
        if len(set(values)) > 1:
            cells = "".join(f"<td>{escape(value)}</td>" for value in values)
            rows.append(f"<tr><td><code>{escape(name)}</code></td>{cells}</tr>")
    different = f"<tr><th>option</th>{columns}</tr>{''.join(rows)}" if rows else ""
    return (
        f'<p class="eyebrow">fastaugself report</p>\n<h1>{len(runs)} runs compared</h1>\n<h2>Options that differ</h2>\n'
        + (f'<div class="scroll"><table>{different}</table></div>' if rows else "<p>None that affects the result.</p>")
        + "\n<h2>Final values</h2>\n"
        + f'<div class="scroll"><table><tr><th></th>{columns}</tr>{_final_values(runs)}</table></div>'
        + '\n<p class="note">Losses and speed are means over the last tenth of the steps; k-NN accuracy, linear '
        "probe and effective rank are from the last evaluation.</p>"
        + f"\n<h2>Curves</h2>\n{''.join(_curves(runs, key, name) for key, name in NAMES.items())}"
    )


def _final_values(runs: Sequence[Run]) -> str:
    """One table row per metric."""
    steps = "".join(f'<td class="number">{run.metrics[-1]["step"] if run.metrics else 0:,}</td>' for run in runs)
    rows = [f"<tr><td>steps</td>{steps}</tr>"]
    for key, name in NAMES.items():
        points = [run.points(key) for run in runs]
        if any(points):
            is_evaluation = key in ("knn", "linear", "rankme")
            ends = [None if not p else p[-1][1] if is_evaluation else final_mean(p) for p in points]
            cells = "".join(f'<td class="number">{"" if end is None else f"{end:.4g}"}</td>' for end in ends)
            rows.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    return "".join(rows)


def _curves(runs: Sequence[Run], key: str, name: str) -> str:
    """The curves of one metric: one chart per run, all with the same y range."""
    drawn = [(run, run.points(key)) for run in runs]
    values = [value for _, points in drawn for _, value in points]
    if not values:
        return ""
    figures = []
    for run, points in drawn:
        if points:
            x, y = zip(*points, strict=True)
            svg = line_chart(x, y, name=f"{name} of {run.name}", x_label="step", low=min(values), high=max(values))
            figures.append(f"<figure><h3>{escape(name)}</h3>{svg}<figcaption>{escape(run.name)}</figcaption></figure>")
    return f'<div class="charts">{"".join(figures)}</div>'
