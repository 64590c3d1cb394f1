"""The HTML page of `fastaugself eval robustness`: a heatmap of test sets x models, and a table of all scores."""

from collections.abc import Sequence
from pathlib import Path

from ..html.page import escape
from .invariance_page import matrix
from .results import Row, number, write_html

PREFIXES = ("accuracy on ", "accuracy under ", "accuracy ")


def write_page(path: Path, data: str, rows: Sequence[Row], about: str) -> Path:
    """Writes the page of the rows, and returns its path. about: the foot of the page."""
    heading = f"Robustness on {data}"
    models = list(dict.fromkeys(row.label for row in rows))
    metrics = list(dict.fromkeys(row.metric for row in rows))
    accuracies = {
        model: {_short(row.metric): row.score.value for row in rows if row.label == model and "accuracy" in row.metric}
        for model in models
    }
    body = (
        f"<h1>{escape(heading)}</h1>\n"
        '<p class="lead">A linear probe is trained on the features of clean images, and tested on shifted and '
        "corrupted ones. Accuracies under a corruption are means over its severities. mCE: mean error over "
        "corruptions; mFR: mean share of the frames of a sequence whose predicted class flips; of both, lower is "
        "better.</p>\n"
        f"<h2>Accuracy</h2>\n{matrix(accuracies, 'accuracy')}\n"
        f"<h2>All scores, with 95 % intervals over images</h2>\n{_table(rows, models, metrics)}\n"
        f'<p class="note">{escape(about)}</p>'
    )
    return write_html(path, heading, body)


def _short(metric: str) -> str:
    """What an accuracy is measured on, as the heatmap names it."""
    name = next((metric.removeprefix(prefix) for prefix in PREFIXES if metric.startswith(prefix)), metric)
    return name.strip("()").replace(" (imagenet-c", "").replace("_", " ")


def _table(rows: Sequence[Row], models: Sequence[str], metrics: Sequence[str]) -> str:
    by_place = {(row.metric, row.label): row.score for row in rows}
    head = "".join(f'<th class="number">{escape(model)}</th>' for model in models)
    lines = []
    for metric in metrics:
        cells = ""
        for model in models:
            score = by_place.get((metric, model))
            text = (
                f"{number(score.value)}<br><small>{number(score.low)} to {number(score.high)}</small>" if score else ""
            )
            cells += f'<td class="number">{text}</td>'
        lines.append(f"<tr><td>{escape(metric)}</td>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th>score</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody>'
        "</table></div>"
    )
