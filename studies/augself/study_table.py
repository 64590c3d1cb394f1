"""The study's part of results/DEVICE/README.md, as Markdown."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from fastaugself.bench.harness import Record
from fastaugself.bench.tables.table import Table
from page import RULE
from plan import TASKS

INVARIANCE = (
    "Whitened cosine similarity of an image and its transformed copy, debiased, mean over seeds; 1 is invariant."
)


def study_table(result: Record) -> Table:
    """Every variant in every task: mean and standard deviation over its seeds."""
    rows: list[tuple[str, ...]] = []
    for name, row in result["numbers"].items():
        cells = (_over_seeds(list(row[task.name].values()), task.percent) if task.name in row else "" for task in TASKS)
        rows.append((name.removeprefix("none "), *cells))
    return Table(("", *(task.name for task in TASKS)), rows)


def _over_seeds(values: Sequence[float], percent: bool) -> str:
    digits = 1 if percent else 3
    std = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{std}"


def about(result: Record) -> str:
    """Settings, machine, date and commit of the study, in one line."""
    study, environment = result["study"], result["environment"]
    further = f", {' '.join(study['options'])}" if study["options"] else ""
    return (
        f"{result['seeds']} seeds, {study['epochs']} epochs at {study['size']} px{further}; "
        f"{environment['cpu']}, {result['date']}, commit {environment['commit']}"
    )


def page(result: Record) -> str:
    """All tables of the study."""
    tasks = "\n".join(f"- {task.name}: {task.metric}" for task in TASKS)
    gains = Table(
        ("", "task", "difference from the base method", "verdict"),
        [(f"{f['method']} {f['part']}", f["task"], f["gain"], f["verdict"]) for f in result["reading"]],
    )
    invariance = f"{INVARIANCE}\n\n{invariance_table(result).markdown()}" if result["invariance"] else ""
    return f"{study_table(result).markdown()}\n{tasks}\n\n{RULE}\n\n{gains.markdown()}\n{invariance}"


def invariance_table(result: Record) -> Table:
    """The mean invariance of every variant to every transform."""
    figure: dict[str, dict[str, float]] = result["invariance"]
    transforms = dict.fromkeys(name for column in figure.values() for name in column)
    rows: list[tuple[str, ...]] = [
        (name, *(f"{column[name]:.2f}" if name in column else "" for column in figure.values())) for name in transforms
    ]
    return Table(("invariance to", *figure), rows)


def block(result: Record, path: str) -> str:
    """The table of scores for README.md, with a link to the rest; path: of the record, from the repository's root."""
    where = f"[{Path(path).parent}]({Path(path).parent}/README.md#study)"
    return f"{study_table(result).markdown()}\n<sub>{about(result)}. Verdict on each cell: {where}.</sub>\n"
