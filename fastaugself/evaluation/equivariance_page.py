"""The HTML page of `fastaugself eval equivariance`: a heatmap of augmentations x models, and a table of all scores."""

from collections.abc import Mapping
from pathlib import Path

from ..html.page import escape
from ..probes.equivariance import TIE
from ..probes.intervals import Score
from .equivariance import METRICS, Measured
from .invariance_page import matrix
from .results import write_html


def write_page(
    path: Path,
    data: str,
    found: Mapping[str, Mapping[str, Measured]],
    about: str,
    *,
    views: int,
) -> Path:
    """Writes the page of the scores [model][augmentation], and returns its path. about: the foot of the page."""
    heading = f"Equivariance on {data}"
    mrr = {model: {name: m.scores["MRR"].value for name, m in by_name.items()} for model, by_name in found.items()}
    levels = {name: m.chance["MRR"] for by_name in found.values() for name, m in by_name.items()}
    body = (
        f"<h1>{escape(heading)}</h1>\n"
        f'<p class="lead">The features of one view of a photo are predicted from those of another view and the '
        f"difference of the views' augmentation parameters. All {views} views of the photo, the source view among "
        "them, are ranked by cosine distance to the prediction.</p>\n"
        "<h2>Mean reciprocal rank of the predicted view</h2>\n"
        f'<p class="note">1: always nearest. The colours begin at chance ({next(iter(levels.values())):.2f}), where '
        f"features say nothing about the augmentation.</p>\n{matrix(mrr, 'MRR', levels)}\n"
        f"<h2>All scores, with 95 % intervals over photos</h2>\n{_table(found)}\n"
        "<ul>"
        "<li><b>MRR, H@1, H@5</b>: mean reciprocal rank of the predicted view; share of pairs where its rank is at "
        "most 1, at most 5.</li>"
        "<li><b>PRE</b>: distance of the (standardised) parameters of the nearest view and the predicted view; lower "
        "is better.</li>"
        "<li><b>gain</b>: cosine similarity of the prediction and the view minus that of the source and the view; "
        "above 0 where the prediction does more than copy.</li>"
        f"<li>Views at the same distance (up to {TIE:g}) are in random order, and the scores are expectations over it. "
        "Views with the same parameters, such as two that are not flipped, cannot be told apart: the best possible "
        "score is then below 1, and is given as <i>at most</i>.</li></ul>\n"
        f'<p class="note">{escape(about)}</p>'
    )
    return write_html(path, heading, body)


def _table(found: Mapping[str, Mapping[str, Measured]]) -> str:
    head = "".join(f'<th class="number">{escape(metric)}</th>' for metric in METRICS)
    rows = []
    for name in dict.fromkeys(name for by_name in found.values() for name in by_name):
        measured = [(model, by_name[name]) for model, by_name in found.items()]
        for model, of in measured:
            cells = "".join(f'<td class="number">{_score(of.scores[metric])}</td>' for metric in METRICS)
            rows.append(f"<tr><td>{escape(name)}</td><td>{escape(model)}</td>{cells}</tr>")
        levels = "".join(f'<td class="number"><small>{_level(measured[0][1], m)}</small></td>' for m in METRICS)
        rows.append(f"<tr><td></td><td><small>chance</small></td>{levels}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th>augmentation</th><th>model</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _level(measured: Measured, metric: str) -> str:
    text = f"{measured.chance[metric]:.3f}"
    best = measured.ceiling.get(metric, 1.0)
    return text if best in (0.0, 1.0) else f"{text}<br>at most {best:.3f}"


def _score(score: Score) -> str:
    return f"{score.value:.3f}<br><small>{score.low:.3f} to {score.high:.3f}</small>"
