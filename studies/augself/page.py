"""The page of a study: one table, one figure, and by a fixed rule whether each gain is shown."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tyro.conf import Positional

from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation.invariance_page import matrix
from fastaugself.files import replace_file
from fastaugself.html.page import escape, page
from plan import ALONE, FUSED, FUSION_TASKS, RANDOM, TASKS, Task, Variant, variants
from scores import read_value, task_folder

MINUS = "\N{MINUS SIGN}"
STYLE = """<style>
.study td, .study th { white-space: nowrap; }
.study td small { display: block; color: var(--soft); }
.study tr.first td { border-top: 2px solid var(--line); }
</style>
"""


class Cell(NamedTuple):
    """Scores of one variant in one task, by seed."""

    by_seed: dict[int, float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.by_seed.values())

    @property
    def std(self) -> float:
        """Standard deviation over seeds; NaN for a single seed."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else float("nan")


Table = dict[tuple[str, str], dict[str, Cell]]  # (method, part) -> task -> cell


def study_page(run: Positional[Path]) -> None:
    """Write study.html and numbers.json from the results so far.

    Args:
        run: Folder of the study.
    """
    print(write_page(run))


def write_page(run: Path) -> Path:
    """Writes `study.html` and `numbers.json`, and returns the page's path; UsageError without a study or a result."""
    try:
        record = json.loads((run / "study.json").read_text())
        study = record["study"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{run} holds no study: its study.json cannot be read ({error})") from None
    table = read_table(run, study, int(record["seeds"]))
    if not table:
        raise UsageError(f"{run} holds no result yet: run `python studies/augself/study.py run {run}` first")
    findings = verdicts(table)
    figure = _invariances(run, study, int(record["seeds"]))
    numbers = {
        f"{method} {part}": {task: {str(s): v for s, v in cell.by_seed.items()} for task, cell in row.items()}
        for (method, part), row in table.items()
    }
    content = {
        **record,
        "numbers": numbers,
        "reading": [finding._asdict() for finding in findings],
        "invariance": figure,
    }
    replace_file(run / "numbers.json", (json.dumps(content, indent=2) + "\n").encode())
    replace_file(run / "study.html", page("Study", _html(record, table, findings, figure)).encode())
    return run / "study.html"


def read_table(run: Path, study: Mapping[str, Any], seeds: int) -> Table:
    """The table of the results so far."""
    rows: dict[tuple[str, str], str] = {}
    for variant in variants(tuple(study["methods"]), tuple(study["parts"]), bool(study["invariances"])):
        rows[variant.method, variant.part] = variant.name
    if RANDOM in study["parts"]:
        rows["none", RANDOM] = "none-random-weights"
    table: Table = {}
    for key, name in rows.items():
        for task in TASKS:
            _add(table, key, task, run, name, seeds, 1)
    if study["invariances"]:
        for task in FUSION_TASKS:
            _add(table, (study["methods"][0], FUSED), task, run, f"{study['methods'][0]}-fused", seeds, 3)
    order = [*study["methods"], "none"]
    return dict(sorted(table.items(), key=lambda entry: order.index(entry[0][0])))  # stable within a method


def _add(table: Table, key: tuple[str, str], task: Task, run: Path, name: str, seeds: int, models: int) -> None:
    found = {}
    for seed in range(seeds):
        folder = task_folder(run, f"{name}-s{seed}", task)
        if any(folder.glob("*.json")):
            value = read_value(folder, task.read, models)
            found[seed] = 100 * value if task.percent else value
    if found:
        table.setdefault(key, {})[task.name] = Cell(found)


class Pairing(NamedTuple):
    """Differences of two variants at equal seeds."""

    differences: list[float]

    @property
    def higher(self) -> int:
        return sum(d > 0 for d in self.differences)

    def text(self, digits: int) -> str:
        n, mean = len(self.differences), statistics.fmean(self.differences)
        std = f" ± {statistics.stdev(self.differences):.{digits}f}" if n > 1 else ""
        return f"{_signed(mean, digits)}{std}, higher in {self.higher} of {n}"


def pair(a: Cell, b: Cell) -> Pairing | None:
    """a - b at the seeds that both have; None if there are none."""
    shared = sorted(a.by_seed.keys() & b.by_seed.keys())
    return Pairing([a.by_seed[s] - b.by_seed[s] for s in shared]) if shared else None


RULE = (
    "A gain over the base method counts as shown if it is positive in every one of at least three seeds, the base"
    " method beats random weights in all of them, and a variant with AugSelf also beats AugSelf's loss alone in all of"
    " them."
)


class Finding(NamedTuple):
    """The verdict of RULE on one variant in one task. gain: the difference from the base method, as text."""

    method: str
    part: str
    task: str
    gain: str
    verdict: str


def verdicts(table: Table) -> list[Finding]:
    """The verdict of RULE on every variant and task that can be compared with the base method, for and against."""
    found = []
    random, alone = table.get(("none", RANDOM), {}), table.get(("none", ALONE), {})
    for (method, part), row in table.items():
        base = table.get((method, "base"), {})
        for task in TASKS:
            gain = pair(row[task.name], base[task.name]) if task.name in row and task.name in base else None
            if part != "base" and gain is not None:
                control = alone if "augself" in part else {}
                verdict = _judge(task.name, gain, row, base, random, control)
                found.append(Finding(method, part, task.name, gain.text(2 if task.percent else 3), verdict))
    return found


def _judge(
    task: str,
    gain: Pairing,
    row: Mapping[str, Cell],
    base: Mapping[str, Cell],
    random: Mapping[str, Cell],
    alone: Mapping[str, Cell],
) -> str:
    seeds = len(gain.differences)
    if seeds < 3:
        return f"{seeds} seed{'s' if seeds > 1 else ''}: nothing can be claimed"
    if gain.higher == 0:
        return "Lower in every seed: refuted here" if max(gain.differences) < 0 else "No gain"
    if gain.higher < seeds:
        return "Not in every seed: not shown"
    if task not in random:
        return "Without random weights as a control, nothing can be claimed"
    over = pair(base[task], random[task])
    if over is None or over.higher < len(over.differences):
        return "The base method is no better than random weights here: a gain over it proves nothing"
    if task in alone:
        more = pair(row[task], alone[task])
        if more is None or more.higher < len(more.differences):
            return "AugSelf's loss alone does as well: it is not shown that the combination helps"
    return "Shown at this scale"


def _html(
    record: Mapping[str, Any], table: Table, findings: Sequence[Finding], figure: Mapping[str, Mapping[str, float]]
) -> str:
    study, environment = record["study"], record["environment"]
    tuned = len(study["lrs"]) > 1
    detail = (
        f"{study['epochs']} epochs, {study['size']} px, {record['seeds']} seeds, learning rates "
        f"{'tuned over' if tuned else 'fixed at'} {', '.join(f'{lr:g}' for lr in study['lrs'])}; "
        f"{environment['cpu']}, {environment['device']}, commit {environment['commit']}"
    )
    if study["options"]:
        detail += f"; with {' '.join(study['options'])}"
    if study["limit"]:
        detail += f"; at most {study['limit']} samples of each split"
    items = "".join(f"<li>{line}</li>" for line in _grouped(findings))
    columns = "".join(f"<li><b>{escape(task.name)}</b>: {escape(task.metric)}</li>" for task in TASKS)
    return (
        f'{STYLE}<h1>What the representations retain</h1>\n<p class="eyebrow">{escape(detail)}</p>\n'
        '<p class="lead">Pretrained on imagenette128 without labels, then frozen. Each cell: the mean over seeds with '
        "its standard deviation, and below it the mean difference from the base method at equal seeds.</p>\n"
        f"{_table_html(table)}\n<ul>{columns}</ul>\n"
        f"<h2>Verdicts</h2>\n<p>{escape(RULE)}</p>\n"
        f"<ul>{items or '<li>There are no results to compare yet.</li>'}</ul>\n"
        + (
            "<h2>Invariance</h2>\n<p>Whitened cosine similarity of an image and its transformed copy, debiased, "
            f"mean over seeds: 1 is invariant.</p>\n{matrix(figure)}"
            if figure
            else ""
        )
    )


def _grouped(findings: Sequence[Finding]) -> list[str]:
    """HTML lines, one per variant, with its tasks grouped by verdict."""
    lines = []
    for method, part in dict.fromkeys((f.method, f.part) for f in findings):
        own = [f for f in findings if (f.method, f.part) == (method, part)]
        by_verdict = {f.verdict: [g for g in own if g.verdict == f.verdict] for f in own}
        said = [
            f"<i>{escape(verdict)}</i>: " + ", ".join(f"{escape(f.task)} ({escape(f.gain)})" for f in same)
            for verdict, same in by_verdict.items()
        ]
        lines.append(f"<b>{escape(method)}, {escape(part)}</b>. " + ". ".join(said) + ".")
    return lines


def _table_html(table: Table) -> str:
    head = "".join(f'<th class="number">{escape(task.name)}</th>' for task in TASKS)
    rows, last = [], ""
    for (method, part), row in table.items():
        base = table.get((method, "base"), {})
        cells = "".join(f'<td class="number">{_cell(task, row, base if part != "base" else {})}</td>' for task in TASKS)
        first = ' class="first"' if method != last else ""
        rows.append(
            f"<tr{first}><td>{escape(method if method != 'none' else '')}</td><td>{escape(part)}</td>{cells}</tr>"
        )
        last = method
    return (
        f'<div class="scroll"><table class="study"><thead><tr><th>method</th><th>variant</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(task: Task, row: Mapping[str, Cell], base: Mapping[str, Cell]) -> str:
    if task.name not in row:
        return ""
    cell, digits = row[task.name], 1 if task.percent else 3
    std = f" ± {cell.std:.{digits}f}" if len(cell.by_seed) > 1 else ""
    gain = pair(cell, base[task.name]) if task.name in base else None
    below = f"<small>{_signed(statistics.fmean(gain.differences), digits)}</small>" if gain else ""
    return f"{_number(cell.mean, digits)}{std}{below}"


def _invariances(run: Path, study: Mapping[str, Any], seeds: int) -> dict[str, dict[str, float]]:
    """The mean debiased invariance over seeds, as [variant][transform]."""
    rows = [(v, v.name) for v in variants(tuple(study["methods"]), tuple(study["parts"]), bool(study["invariances"]))]
    rows.append((Variant("none", RANDOM, ()), "none-random-weights"))
    figure: dict[str, dict[str, float]] = {}
    for variant, name in rows:
        values: dict[str, list[float]] = {}
        for seed in range(seeds):
            for path in (run / "results" / f"{name}-s{seed}" / "invariance").glob("*.json"):
                try:
                    for entry in json.loads(path.read_text())["rows"]:
                        values.setdefault(entry["metric"].removesuffix(" (debiased)"), []).append(entry["value"])
                except (OSError, ValueError, KeyError, TypeError) as error:
                    raise RunError(f"{path} is no valid result ({error}); remove it and run the study again") from None
        if values:
            label = variant.part if variant.method == "none" else f"{variant.method}, {variant.part}"
            figure[label] = {transform: statistics.fmean(found) for transform, found in values.items()}
    return figure


def _number(value: float, digits: int) -> str:
    return f"{MINUS if value < 0 else ''}{abs(value):.{digits}f}"


def _signed(value: float, digits: int = 2) -> str:
    return f"{MINUS if value < 0 else '+'}{abs(value):.{digits}f}"
