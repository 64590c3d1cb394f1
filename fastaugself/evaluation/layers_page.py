"""The HTML page of `fastaugself eval layers`: a heatmap of layers x models for each augmentation."""

from collections.abc import Mapping
from pathlib import Path

from ..html.page import escape
from .invariance_page import matrix
from .results import write_html


def write_page(path: Path, data: str, split: str, cosines: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Path:
    """Writes the page of the mean cosine similarities [augmentation][model][layer], and returns its path."""
    heading = f"Invariance by layer on {data}"
    figures = "\n".join(
        f"<h2>{escape(augmentation)}</h2>\n{matrix(by_model)}" for augmentation, by_model in cosines.items()
    )
    body = (
        f'<h1>{escape(heading)}</h1>\n<p class="eyebrow">images of the {escape(split)} split</p>\n'
        '<p class="lead">Cosine similarity of the activations of an image and its augmented version, from the input to '
        "the features and, for runs, the projector: near 1 the layer is invariant to the augmentation. The JSON file "
        f"also has the similarity of different images, as <code>other</code>.</p>\n{figures}"
    )
    return write_html(path, heading, body)
