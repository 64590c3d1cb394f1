"""The part of a report about what the AugSelf heads predict: a table of scores and a gallery of pairs."""

from ..html.page import escape
from ..report.pair_html import bar_html, image_html, photo_html, view_html
from .predictions import HEADS, Case, Predictions, Score
from .words import GROUPS, MINUS, signed


def predictions_html(judged: Predictions) -> str:
    """The table over many pairs, then the pairs that are shown; without heads, just pairs with their parameters."""
    whose = "validation" if judged.held_out else "training"
    if not judged.scores:
        views = "\n".join(map(_pair_html, judged.cases[:4]))
        return (
            "<h2>Pairs of views</h2>\n<p>This run has no AugSelf heads, so nothing predicts how the views were made. "
            f"These are views of its {whose} photos.</p>\n{views}"
        )
    return (
        f'<h2>What the heads predict</h2>\n<p class="lead">Over {judged.total:,} pairs of {whose} photos, with views '
        f"drawn for epoch {judged.epoch}, to which training never comes. Predicting nothing means always answering 0: "
        "a head that removes all of that error is perfect, one with a negative share is worse than nothing.</p>\n"
        '<div class="scroll"><table class="scores"><tr><th>difference of</th><th class="number">error of the head</th>'
        '<th class="number">of predicting nothing</th><th>share of the error removed</th></tr>'
        f"{''.join(map(_score_html, judged.scores))}</table></div>\n"
        f"<p>{len(judged.cases)} pairs, evenly spaced over the classes by sample id and not selected:</p>\n"
        f'<p><span class="key">true difference, view 1 {MINUS} view 2</span>'
        f'<span class="key guess">what the head predicts</span></p>\n{"".join(map(_case_html, judged.cases))}'
    )


def _pair_html(case: Case) -> str:
    pair = case.pair
    return (
        f'<section class="pair plain"><div class="photo"><h3>{escape(pair.name)}</h3>{photo_html(pair)}</div>'
        f"{view_html(pair, 0)}{view_html(pair, 1)}</section>"
    )


def _score_html(score: Score) -> str:
    """A row of the table of scores."""
    if not score.regression:
        return (
            f'<tr><td>{score.label}</td><td class="number">{score.error:.1%} right</td>'
            f'<td class="number">{score.nothing:.1%} by naming the most frequent</td><td></td></tr>'
        )
    width = max(0.0, min(1.0, score.removed)) * 120
    bar = (
        '<svg class="share" viewBox="0 0 120 9" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="whole" width="120" height="9" rx="2"/>'
        f'<rect class="part" width="{width:.1f}" height="9" rx="2"/></svg>'
    )
    return (
        f'<tr><td>{HEADS[score.head]}: {score.label}</td><td class="number">{score.error:.4f}</td>'
        f'<td class="number">{score.nothing:.4f}</td><td>{bar} {_percent(score.removed)}</td></tr>'
    )


def _percent(share: float) -> str:
    return f"{abs(share):.0%}" if share >= 0 else f"{MINUS}{abs(share):.0%}"


def _case_html(case: Case) -> str:
    """One pair of the gallery: the photo, its views, and each true difference beside the predicted one."""
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
    for label, true, said in case.classes:
        groups.append(f'<div class="bars"><p class="group">{label}: {true}, predicted <b>{said}</b></p></div>')
    return f'<section class="case"><div class="images">{images}</div>{"".join(groups)}</section>'
