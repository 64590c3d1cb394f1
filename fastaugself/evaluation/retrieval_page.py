"""The HTML page of `fastaugself eval retrieval`: query images and their nearest neighbours for each model.

Shape suffixes: N samples, D features, K neighbours.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ..html.page import data_uri, escape
from ..probes.retrieval import Neighbors, nearest
from .results import write_html
from .splits import Dataset, Split

STYLE = """<style>
.found { display: grid; grid-template-columns: minmax(72px, 132px) minmax(0, 1fr); gap: 8px 22px; padding: 18px 0;
  border-top: 1px solid var(--line); align-items: start; }
.found .rows { display: grid; gap: 10px; min-width: 0; }
.found .row { display: grid; grid-template-columns: 9.5em minmax(0, 1fr); gap: 12px; align-items: center; }
.found .row > span { font-size: 0.84rem; color: var(--soft); overflow-wrap: anywhere; }
.found .thumbs { display: flex; flex-wrap: wrap; gap: 8px; }
.found img { width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 3px; display: block; }
.found figure { width: 88px; }
.found figure img { border: 3px solid var(--faint); }
.found figure.same img { border-color: var(--accent); }
.found figcaption { font-size: 0.72rem; line-height: 1.3; overflow-wrap: anywhere; }
.sign { display: inline-block; width: 12px; height: 12px; border-radius: 3px; border: 3px solid var(--faint); }
.sign.same { border-color: var(--accent); }
@media (max-width: 520px) { .found, .found .row { grid-template-columns: 1fr; } .found figure { width: 62px; }
  .found > div > img { width: 132px; } }
</style>
"""


def write_page(
    path: Path,
    dataset: Dataset,
    split: str,
    features: Sequence[tuple[str, Tensor]],
    *,
    neighbors: int,
    shown: int,
    seed: int,
) -> Path:
    """Writes a page of the nearest neighbours of `shown` queries, and returns its path.

    features: (name, features [N, D]) of each model. seed: of the queries, which are balanced over the classes.
    """
    samples = dataset.split(split)
    queries = balanced_queries(samples.labels_N, shown, seed=seed)
    found = [(name, nearest(x_ND, neighbors=neighbors)) for name, x_ND in features]
    blocks = "\n".join(_block(dataset, samples, query, found) for query in queries)
    heading = f"Nearest neighbours in {dataset.name}"
    body = (
        f'{STYLE}<h1>{escape(heading)}</h1>\n<p class="eyebrow">{len(samples)} images of the {escape(split)} split, '
        f"cosine similarity of raw features, {len(queries)} random queries (seed {seed})</p>\n"
        '<p class="lead"><span class="sign same"></span> the class of the query &nbsp; <span class="sign"></span> '
        f"another class. Below each image: its class and cosine similarity.</p>\n{blocks}"
    )
    return write_html(path, heading, body)


def balanced_queries(labels_N: np.ndarray, shown: int, *, seed: int) -> list[int]:
    """Positions of at most `shown` random samples, balanced over the classes."""
    random = np.random.default_rng(seed)
    members = [random.permutation(np.flatnonzero(labels_N == label)).tolist() for label in np.unique(labels_N)]
    random.shuffle(members)
    deep = max(map(len, members))
    turns = [group[i] for i in range(deep) for group in members if i < len(group)]
    return turns[:shown]


def _block(dataset: Dataset, samples: Split, query: int, found: Sequence[tuple[str, Neighbors]]) -> str:
    own = int(samples.labels_N[query])
    rows = []
    for name, neighbors in found:
        thumbs = []
        for index, cosine in zip(
            neighbors.index_NK[query].tolist(), neighbors.similarity_NK[query].tolist(), strict=True
        ):
            label = int(samples.labels_N[index])
            same = ' class="same"' if label == own else ""
            caption = f"{escape(dataset.classes[label])}<br>{cosine:.3f}"
            thumbs.append(f"<figure{same}>{_image(samples, index)}<figcaption>{caption}</figcaption></figure>")
        rows.append(f'<div class="row"><span>{escape(name)}</span><div class="thumbs">{"".join(thumbs)}</div></div>')
    caption = f"<b>{escape(dataset.classes[own])}</b><br>{escape(samples.name(query))}"
    return (
        f'<section class="found"><div>{_image(samples, query)}<p class="note">{caption}</p></div>'
        f'<div class="rows">{"".join(rows)}</div></section>'
    )


def _image(samples: Split, index: int) -> str:
    pixels = np.asarray(samples.images.open(index))
    return f'<img src="{data_uri(pixels, max_side=120)}" alt="{escape(samples.name(index))}" loading="lazy">'
