"""All data of one page or picture."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastaugself.report.samples import Sample
from fastaugself.report.words import Policies
from learned import Learned, learn
from sweeps import Sweep, Tile, identity_row, order_tiles, plan_sweeps, row_text, views_of


class Content(NamedTuple):
    """A photo with its sweeps and a pair of views.

    size: of the views in pixels. identity: the row that only resizes the whole photo, as text. orders: a tile for
    each of the 24 orders of the colour jitter.
    """

    name: str
    photo_HWC: NDArray[np.uint8]
    size: int
    identity: tuple[str, ...]
    sweeps: list[Sweep]
    orders: list[Tile]
    learned: Learned


def make_content(sample: Sample, policies: Policies, *, seed: int, epoch: int) -> Content:
    """The sweeps of a photo, and the pair of views that the policies draw for it with this seed in this epoch."""
    height, width = sample.pixels_HWC.shape[:2]
    size = policies[0].size
    plans, orders = plan_sweeps(height, width), order_tiles(height, width)
    rows = [row for plan in plans for row in plan.rows] + [row for _, row in orders]
    views = iter(views_of(sample, rows, size))
    return Content(
        name=f"{sample.name}, {width} × {height} px",
        photo_HWC=sample.pixels_HWC.numpy(),
        size=size,
        identity=row_text(identity_row(height, width)),
        sweeps=[plan.sweep([next(views) for _ in plan.rows]) for plan in plans],
        orders=[Tile(label, tuple(row.values()), next(views)) for label, row in orders],
        learned=learn(sample, policies, seed=seed, epoch=epoch),
    )
