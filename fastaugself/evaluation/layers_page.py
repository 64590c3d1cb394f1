"""The figure of `fastaugself eval layers`: at which layer each model forgets which augmentation, as one HTML page."""

from collections.abc import Mapping
from pathlib import Path

from ..html.page import escape
from .invariance_page import matrix
from .results import write_html


def write_page(path: Path, data: str, split: str, cosines: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Path:
    """Writes the mean cosines of [augmentation][model][layer], a figure of layers x models for each augmentation."""
    heading = f"What layers forget on {data}"
    figures = "\n".join(
        f"<h2>{escape(augmentation)}</h2>\n{matrix(by_model)}" for augmentation, by_model in cosines.items()
    )
    body = (
        f'<h1>{escape(heading)}</h1>\n<p class="eyebrow">images of the {escape(split)} split</p>\n'
        '<p class="lead">Cosine of the activations of an image and its augmented self, from the input to the features '
        "and, of a run, its projector: near 1 the augmentation is forgotten. How alike different images are there "
        f"stands in the JSON file as <code>other</code>.</p>\n{figures}"
    )
    return write_html(path, heading, body)
