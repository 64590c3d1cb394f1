"""The HTML page of `fastaugself eval invariance`: a heatmap and a table of transforms x models.

The colours are a sequential scale that varies in lightness, so that it is readable in greyscale and with any colour
vision; every cell also shows its number.
"""

from collections.abc import Mapping
from pathlib import Path

from ..html.page import escape
from ..probes.intervals import Score
from .invariance import Invariance
from .results import write_html

CELL, LABEL, HEAD = 66, 128, 34
CHARACTER = 5.8  # width of a character of a label in pixels
LOW, HIGH = (247, 244, 236), (11, 72, 92)  # colours of cosine 0 and 1


def write_page(path: Path, data: str, found: Mapping[str, Mapping[str, Invariance]], about: str) -> Path:
    """Writes the page of the invariances [model][transform], and returns its path. about: the foot of the page."""
    heading = f"Invariances on {data}"
    body = (
        f"<h1>{escape(heading)}</h1>\n"
        '<p class="lead">Cosine similarity of an image and its transformed version, with features whitened over clean '
        "images: 1 is invariant, 0 is as different as two different images. Debiased: without the identity values of a "
        "transform, and without pairs of a view with itself.</p>\n"
        f"<h2>Debiased</h2>\n{heatmap(found)}\n"
        f"<h2>As published, with 95 % intervals</h2>\n{_table(found)}\n"
        f'<p class="note">{escape(about)}</p>'
    )
    return write_html(path, heading, body)


def heatmap(found: Mapping[str, Mapping[str, Invariance]]) -> str:
    """SVG heatmap of the debiased cosine similarity: one row per transform, one column per model."""
    return matrix({model: {t: v.debiased.value for t, v in by_name.items()} for model, by_name in found.items()})


def matrix(
    values: Mapping[str, Mapping[str, float]], what: str = "cosine", lowest: Mapping[str, float] | None = None
) -> str:
    """SVG heatmap of values[column][row] in [0, 1], with numbers; columns with long names are numbered.

    what: name of the values. lowest: value of each row at which the colours begin, default 0.
    """
    rows = list(dict.fromkeys(name for column in values.values() for name in column))
    models = list(values)
    long = any(len(model) > 10 for model in models)
    heads = [str(i + 1) if long else model for i, model in enumerate(models)]
    margin = max(LABEL, round(CHARACTER * max((len(row) for row in rows), default=0)) + 14)
    width, height = margin + CELL * len(models), HEAD + 26 * len(rows)
    parts = [
        f'<text x="{margin + CELL * (i + 0.5):.0f}" y="{HEAD - 10}" text-anchor="middle">{escape(head)}</text>'
        for i, head in enumerate(heads)
    ]
    for j, row in enumerate(rows):
        y = HEAD + 26 * j
        parts.append(f'<text x="{margin - 10}" y="{y + 17}" text-anchor="end">{escape(row)}</text>')
        for i, model in enumerate(models):
            if row not in values[model]:
                continue
            value = values[model][row]
            least = lowest[row] if lowest else 0.0
            position = min(max((value - least) / (1 - least), 0.0), 1.0)
            color = tuple(round(a + (b - a) * position) for a, b in zip(LOW, HIGH, strict=True))
            ink = "#fff" if position > 0.5 else "#1b1c1d"
            x = margin + CELL * i
            label = escape(f"{model}, {row}: {value:.3f}")
            parts.append(
                f'<rect x="{x + 1}" y="{y + 1}" width="{CELL - 2}" height="24" rx="3" fill="rgb{color}">'
                f"<title>{label}</title></rect>"
                f'<text x="{x + CELL / 2}" y="{y + 17}" text-anchor="middle" style="fill:{ink}">{value:.2f}</text>'
            )
    key = "".join(f"<li>{escape(model)}</li>" for model in models)
    numbered = f'<ol class="note">{key}</ol>' if long else ""
    return (
        f'<div class="scroll"><svg class="chart" viewBox="0 0 {width} {height}" style="width:{width}px;max-width:none" '
        f'role="img" aria-label="{escape(what)} of each row and model">{"".join(parts)}</svg></div>{numbered}'
    )


def _table(found: Mapping[str, Mapping[str, Invariance]]) -> str:
    head = "".join(f'<th class="number">{escape(model)}</th>' for model in found)
    rows = []
    for name in dict.fromkeys(name for by_name in found.values() for name in by_name):
        cells = "".join(
            f'<td class="number">{_score(by_name[name].published)}</td>' if name in by_name else "<td></td>"
            for by_name in found.values()
        )
        rows.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th>transform</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
    )


def _score(score: Score) -> str:
    return f"{score.value:.3f}<br><small>{score.low:.3f} to {score.high:.3f}</small>"
