"""The tables of `eval study`."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from ...evaluation.study.page import RULE
from ...evaluation.study.plan import TASKS
from ..harness import Record
from .table import Table

INVARIANCE = "Whitened cosine of a photo and its transformed self, debiased, mean over seeds: 1 is invariant."


def study_table(result: Record) -> Table:
    """Every variant of `eval study` in every task: mean and standard deviation over its seeds."""
    rows: list[tuple[str, ...]] = []
    for name, row in result["numbers"].items():
        cells = (_over_seeds(list(row[task.name].values()), task.percent) if task.name in row else "" for task in TASKS)
        rows.append((name.removeprefix("none "), *cells))
    return Table(("", *(task.name for task in TASKS)), rows)


def _over_seeds(values: Sequence[float], percent: bool) -> str:
    digits = 1 if percent else 3
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"


def about(result: Record) -> str:
    study, environment = result["study"], result["environment"]
    further = f", {' '.join(study['options'])}" if study["options"] else ""
    return (
        f"{result['seeds']} seeds, {study['epochs']} epochs at {study['size']} px{further}; "
        f"{environment['cpu']}, {result['date']}, commit {environment['commit']}"
    )


def page(result: Record) -> str:
    """See documents.Tables."""
    tasks = "\n".join(f"- {task.name}: {task.metric}" for task in TASKS)
    gains = Table(
        ("", "task", "against the base", "reading"),
        [(f"{f['method']} {f['part']}", f["task"], f["gain"], f["verdict"]) for f in result["reading"]],
    )
    invariance = f"{INVARIANCE}\n\n{invariance_table(result).markdown()}" if result["invariance"] else ""
    return f"{study_table(result).markdown()}\n{tasks}\n\n{RULE}\n\n{gains.markdown()}\n{invariance}"


def invariance_table(result: Record) -> Table:
    """The mean invariance of every variant of `eval study` to every transform."""
    figure: dict[str, dict[str, float]] = result["invariance"]
    transforms = dict.fromkeys(name for column in figure.values() for name in column)
    rows: list[tuple[str, ...]] = [
        (name, *(f"{column[name]:.2f}" if name in column else "" for column in figure.values())) for name in transforms
    ]
    return Table(("invariance to", *figure), rows)


def block(result: Record, path: str) -> str:
    """See documents.Tables."""
    where = f"[{Path(path).parent}]({Path(path).parent}/README.md#eval-study)"
    return f"{study_table(result).markdown()}\n<sub>{about(result)}. What it says of each cell: {where}.</sub>\n"
