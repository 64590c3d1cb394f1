"""The table of a suite: models x scores, with intervals, ranks and mean ranks, as Markdown, CSV and a page.

Shape suffixes: M models.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import replace_file, utf8
from ..html.page import escape, page
from ..probes.intervals import Score
from .results import number

SMALLER = ("mean square error", "PRE", "mCE", "mFR", "flip rate")  # metrics that begin so are better if smaller


@dataclass(frozen=True)
class Column:
    """A score of a data set. name: for the head of the table."""

    data: str
    protocol: str
    metric: str

    @property
    def smaller_is_better(self) -> bool:
        return self.metric.startswith(SMALLER)


@dataclass(frozen=True)
class Cell:
    """A score of a model, and the result file that it is from."""

    score: Score
    samples: int
    file: str


@dataclass
class Table:
    """models: names. cells: by column and model. failed: reasons by data set and model."""

    models: Sequence[str]
    cells: dict[Column, dict[str, Cell]] = field(default_factory=dict)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, model: str, data: str, protocol: str, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Adds the rows of a result file of one model."""
        for row in rows:
            score = Score(row["value"], row["low"], row["high"])
            column = Column(data, protocol, row["metric"])
            self.cells.setdefault(column, {})[model] = Cell(score, row["samples"], file)

    def ranks(self, column: Column) -> dict[str, float]:
        """The rank of each model in a column, 1 the best, equal ones sharing their mean; {} if one lacks a score."""
        cells = self.cells[column]
        if any(model not in cells or math.isnan(cells[model].score.value) for model in self.models):
            return {}
        values_M = np.array([cells[model].score.value for model in self.models])
        ranks_M = ranks(values_M if column.smaller_is_better else -values_M)
        return dict(zip(self.models, ranks_M.tolist(), strict=True))

    def mean_ranks(self) -> tuple[dict[str, float], int]:
        """The mean rank of each model over the data sets that all have, and the number of these; {} without one.

        Several scores of a data set count as one, by their mean rank.
        """
        by_data: dict[str, list[dict[str, float]]] = {}
        for column in self.cells:
            if found := self.ranks(column):
                by_data.setdefault(column.data, []).append(found)
        if not by_data:
            return {}, 0
        means = {model: fmean(fmean(r[model] for r in found) for found in by_data.values()) for model in self.models}
        return means, len(by_data)

    def heads(self) -> dict[Column, str]:
        """The head of each column: the data set, and what tells its columns apart."""
        several = {c.data for c in self.cells if sum(o.data == c.data for o in self.cells) > 1}
        return {c: f"{c.data} {c.metric}" if c.data in several else c.data for c in self.cells}

    def best(self, column: Column) -> float:
        """The best value of a column."""
        values = [cell.score.value for cell in self.cells[column].values()]
        return min(values) if column.smaller_is_better else max(values)


def ranks(values_M: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value from the smallest, 1, to the largest; equal values share the mean of their ranks."""
    smaller_M = (values_M[None] < values_M[:, None]).sum(1)
    equal_M = (values_M[None] == values_M[:, None]).sum(1)
    return np.asarray(smaller_M + (equal_M + 1) / 2, np.float64)


def write_suite(stem: Path, table: Table, title: str, about: str) -> list[Path]:
    """Writes the table as .md, .csv and .html beside each other; returns the paths. about: the foot."""
    texts = {".md": markdown(table, title, about), ".csv": comma_separated(table), ".html": html(table, title, about)}
    for suffix, text in texts.items():
        replace_file(stem.with_suffix(suffix), utf8(text))
    return [stem.with_suffix(suffix) for suffix in texts]


def comma_separated(table: Table) -> str:
    """A row for each model and score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("data", "protocol", "metric", "model", "value", "low", "high", "samples", "rank", "file"))
    for column, cells in table.cells.items():
        found = table.ranks(column)
        for model, cell in cells.items():
            values = (*cell.score, cell.samples, found.get(model, ""), cell.file)
            writer.writerow((column.data, column.protocol, column.metric, model, *values))
    return text.getvalue()


def markdown(table: Table, title: str, about: str) -> str:
    """The table with a row for each score and a column for each model, then the mean ranks."""
    lines = [
        f"# {title}",
        "",
        f"| data | metric | {' | '.join(table.models)} |",
        f"|---|---|{'---|' * len(table.models)}",
    ]
    for column, cells in table.cells.items():
        values = [_markdown_cell(cells.get(model), table.best(column)) for model in table.models]
        lines.append(f"| {column.data} | {column.metric} ({column.protocol}) | {' | '.join(values)} |")
    means, count = table.mean_ranks()
    if means:
        lines.append(f"| mean rank | of {count} | {' | '.join(f'{means[model]:.2f}' for model in table.models)} |")
    lines += ["", about, *(f"\n{model} failed on {data}: {why}" for (data, model), why in table.failed.items())]
    return "\n".join(lines) + "\n"


def _markdown_cell(cell: Cell | None, best: float) -> str:
    if cell is None:
        return ""
    value = number(cell.score.value)
    value = f"**{value}**" if cell.score.value == best else value
    return f"{value} ({number(cell.score.low)} to {number(cell.score.high)})"


def html(table: Table, title: str, about: str) -> str:
    """The same as a page."""
    head = "".join(f'<th class="number">{escape(model)}</th>' for model in table.models)
    rows = []
    for column, name in table.heads().items():
        found, best = table.ranks(column), table.best(column)
        cells = "".join(
            _html_cell(table.cells[column].get(model), found.get(model), best, len(table.models))
            for model in table.models
        )
        rows.append(f"<tr><td>{escape(name)}<br><small>{escape(_small(column, name))}</small></td>{cells}</tr>")
    means, count = table.mean_ranks()
    if means and len(table.models) > 1:
        best = min(means.values())
        cells = "".join(
            f'<td class="number">{f"<b>{means[m]:.2f}</b>" if means[m] == best else f"{means[m]:.2f}"}</td>'
            for m in table.models
        )
        rows.append(f"<tr><td>mean rank<br><small>of {count} data sets, 1 is the best</small></td>{cells}</tr>")
    failed = "".join(
        f'<p class="warning">{escape(f"{model} failed on {data}: {why}")}</p>'
        for (data, model), why in table.failed.items()
    )
    body = (
        f"<h1>{escape(title)}</h1>\n"
        '<p class="lead">Scores with 95 % intervals over the test samples; they do not include the randomness of '
        f"pretraining. The best of each row is bold.</p>\n{failed}"
        f'<div class="scroll"><table><thead><tr><th>data</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f'</div>\n<p class="note">{escape(about)}</p>'
    )
    return page(title, body)


def _small(column: Column, name: str) -> str:
    metric = "" if column.metric in name else f"{column.metric}, "
    return f"{metric}{column.protocol}" + (", smaller is better" if column.smaller_is_better else "")


def _html_cell(cell: Cell | None, rank: float | None, best: float, models: int) -> str:
    if cell is None:
        return '<td class="number">failed</td>'
    value = number(cell.score.value)
    value = f"<b>{value}</b>" if cell.score.value == best and models > 1 else value
    of = f", rank {rank:g}" if rank is not None and models > 1 else ""
    interval = f"{number(cell.score.low)} to {number(cell.score.high)}{of}"
    return f'<td class="number">{value}<br><small>{interval}</small></td>'


def plain(table: Table) -> str:
    """The table as text for the console."""
    lines = []
    width = max((len(name) for name in table.heads().values()), default=0)
    for column, name in table.heads().items():
        cells = table.cells[column]
        found = [f"{m} {number(cells[m].score.value)}" if m in cells else f"{m} failed" for m in table.models]
        lines.append(f"{name:<{width}}  {'  '.join(found)}")
    means, _ = table.mean_ranks()
    if means and len(table.models) > 1:
        lines.append(f"{'mean rank':<{width}}  {'  '.join(f'{m} {means[m]:.2f}' for m in table.models)}")
    return "\n".join(lines)
