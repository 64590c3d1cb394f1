"""The AugSelf section of a report: a table of prediction errors and a gallery of pairs."""

from ..html.page import escape
from ..report.pair_html import bar_html, image_html, photo_html, view_html
from .predictions import Case, Predictions, Score
from .words import GROUPS, HEADS, MINUS, signed


def predictions_html(predictions: Predictions) -> str:
    """Prediction errors over many pairs, then a few pairs; without heads, only pairs with their parameters."""
    split = "validation" if predictions.held_out else "training"
    if not predictions.scores:
        views = "\n".join(map(_pair_html, predictions.cases[:4]))
        return (
            "<h2>Pairs of views</h2>\n<p>This run has no AugSelf heads, so there are no predictions to compare with. "
            f"These are views of its {split} photos.</p>\n{views}"
        )
    return (
        f'<h2>Predictions of the AugSelf heads</h2>\n<p class="lead">Mean squared errors over {predictions.total:,} '
        f"pairs of {split} photos, with views of epoch {predictions.epoch}, which training does not reach. The "
        "baseline is a head that always outputs 0. The last column is the fraction of the baseline error that the "
        "head removes (R²): 100% is a perfect head, a negative value is worse than the baseline.</p>\n"
        '<div class="scroll"><table class="scores"><tr><th>difference of</th><th class="number">error of the head</th>'
        '<th class="number">baseline error</th><th>error removed</th></tr>'
        f"{''.join(map(_score_html, predictions.scores))}</table></div>\n"
        f"<p>{len(predictions.cases)} pairs, evenly spaced over the classes by sample id, not hand-picked:</p>\n"
        f'<p><span class="key">true difference, view 1 {MINUS} view 2</span>'
        f'<span class="key guess">predicted difference</span></p>\n{"".join(map(_case_html, predictions.cases))}'
    )


def _pair_html(case: Case) -> str:
    pair = case.pair
    return (
        f'<section class="pair plain"><div class="photo"><h3>{escape(pair.name)}</h3>{photo_html(pair)}</div>'
        f"{view_html(pair, 0)}{view_html(pair, 1)}</section>"
    )


def _score_html(score: Score) -> str:
    """One row of the table of prediction errors."""
    if not score.regression:
        return (
            f'<tr><td>{score.label}</td><td class="number">{score.error:.1%} correct</td>'
            f'<td class="number">{score.baseline:.1%} for the most frequent class</td><td></td></tr>'
        )
    width = max(0.0, min(1.0, score.removed)) * 120
    bar = (
        '<svg class="share" viewBox="0 0 120 9" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="whole" width="120" height="9" rx="2"/>'
        f'<rect class="part" width="{width:.1f}" height="9" rx="2"/></svg>'
    )
    return (
        f'<tr><td>{HEADS[score.head]}: {score.label}</td><td class="number">{score.error:.4f}</td>'
        f'<td class="number">{score.baseline:.4f}</td><td>{bar} {_percent(score.removed)}</td></tr>'
    )


def _percent(fraction: float) -> str:
    text = f"{abs(fraction):.0%}"
    return f"{MINUS}{text}" if fraction < 0 and text != "0%" else text


def _case_html(case: Case) -> str:
    """One pair of the gallery: the photo, its views, and the true and predicted differences."""
    pair = case.pair
    images = f'<div>{photo_html(pair, 320)}<p class="name">{escape(pair.name.split(",")[0])}</p></div>'
    for v in (0, 1):
        name = f'<p class="name"><span class="swatch"></span>view {v + 1}</p>'
        images += f'<div class="view v{v + 1}">{image_html(pair, v)}{name}</div>'
    groups = []
    for head, rows in case.values.items():
        lines = "".join(
            f'<div class="bar"><span>{label}</span>{bar_html(((true, "true"), (guess, "guess")))}'
            f'<span class="number">{signed(true)}</span><span class="number"><b>{signed(guess)}</b></span></div>'
            for label, true, guess in rows
        )
        groups.append(f'<div class="bars"><p class="group">{GROUPS.get(head, head)}</p>{lines}</div>')
    for label, true, predicted in case.classes:
        groups.append(f'<div class="bars"><p class="group">{label}: {true}, predicted <b>{predicted}</b></p></div>')
    return f'<section class="case"><div class="images">{images}</div>{"".join(groups)}</section>'
