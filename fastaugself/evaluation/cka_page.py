"""The HTML page of `fastaugself eval cka`: heatmaps of models x models, or of layers x layers for each pair of them."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from ..html.page import escape
from ..probes.intervals import Score
from .invariance_page import matrix
from .results import write_html

Keys = Sequence[tuple[str, str]]


def write_page(path: Path, data: str, keys: Keys, scores: Sequence[Sequence[Score]], about: str) -> Path:
    """Writes the page of the similarities of all (model, layer) pairs, and returns its path. about: its foot."""
    heading = f"Similarity of representations on {data}"
    body = (
        f"<h1>{escape(heading)}</h1>\n"
        '<p class="lead">Linear CKA of the features of the same photos: 1 is the same up to a rotation and a factor, 0 '
        "is linearly unrelated. The intervals over photos are in the result file.</p>\n"
        f'{_figures(keys, scores)}\n<p class="note">{escape(about)}</p>'
    )
    return write_html(path, heading, body)


def _figures(keys: Keys, scores: Sequence[Sequence[Score]]) -> str:
    models = list(dict.fromkeys(model for model, _ in keys))
    if len(keys) == len(models):  # one representation each
        return matrix(_block(keys, scores, keys, keys, by=0), "CKA")
    parts = []
    for a, b in itertools.combinations_with_replacement(models, 2):
        rows, columns = ([key for key in keys if key[0] == model] for model in (a, b))
        title = f"Layers of {a}" if a == b else f"Layers of {a} (rows) and {b} (columns)"
        parts.append(f"<h2>{escape(title)}</h2>\n{matrix(_block(keys, scores, rows, columns, by=1), 'CKA')}")
    return "\n".join(parts)


def _block(
    keys: Keys, scores: Sequence[Sequence[Score]], rows: Keys, columns: Keys, *, by: int
) -> dict[str, dict[str, float]]:
    """The values [column][row] of a part of the matrix, named by the model (0) or the layer (1)."""
    place = {key: i for i, key in enumerate(keys)}
    return {column[by]: {row[by]: scores[place[row]][place[column]].value for row in rows} for column in columns}
