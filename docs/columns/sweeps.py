"""Sweeps: rows of views that differ in one column of the parameter tensor, with the published ranges.

Shape suffixes: P parameter columns, V views (one per row), B batch (one photo), H W C.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fastaugself.report.pairs import make_views
from fastaugself.report.samples import Sample, pack
from fastaugself.report.words import MINUS, OPERATIONS, Policies
from fastaugself_kernels import COLUMNS, ViewPolicy
from fastaugself_kernels.params import IDENTITY_ORDER, SOLARIZE_OFF
from texts import FACTS, TEXTS, UNITS

Row = dict[str, float]  # values by column, in the order of COLUMNS

PUBLISHED: dict[str, Policies] = {
    "MoCo v2": (ViewPolicy.moco_v2(),) * 2,  # AugSelf's and CASSLE's too
    "SimCLR": (ViewPolicy.simclr(),) * 2,
    "BYOL": (ViewPolicy.byol(0), ViewPolicy.byol(1)),
}
BOX = COLUMNS[:4]
LOCAL_CROPS = (0.05, 0.14)  # areas of SwAV's local crops (Caron 2020, arXiv 2006.09882)
AMPLIFICATION = 3  # of the difference of two orders
# Strong enough that the clipping between two steps shows, and within SimCLR's ranges.
ORDER_FACTORS = {"brightness": 0.7, "contrast": 1.8, "saturation": 1.8, "hue": 0.06}


class Tile(NamedTuple):
    """A view of a sweep. row_P: its parameters, None for a difference of views. identity: whether row_P is one."""

    label: str
    row_P: tuple[float, ...] | None
    image_HWC: NDArray[np.uint8]
    identity: bool = False


class Band(NamedTuple):
    """The range of one or more published recipes: from the value of tile `first` to that of tile `last`."""

    name: str
    first: int
    last: int


class Sweep(NamedTuple):
    """Views that differ in the columns `swept` only.

    text: what the column does. facts: how recipes draw it. cells: the row that all tiles share, with letters for the
    swept columns. boxes: whether to draw the crop box above each tile.
    """

    title: str
    swept: tuple[str, ...]
    unit: str
    text: str
    facts: str
    cells: tuple[str, ...]
    tiles: list[Tile]
    bands: list[Band]
    boxes: bool


class Plan(NamedTuple):
    """A sweep without its views.

    letters: the letter for each swept column in the printed row. magnified: tiles show the middle 1 / magnified of the
    view. compare: add a third tile with the difference of the first two.
    """

    title: str
    letters: dict[str, str]
    rows: list[Row]
    labels: list[str]
    bands: Sequence[Band] = ()
    facts: str = ""
    boxes: bool = False
    magnified: int = 1
    compare: bool = False

    def sweep(self, views_HWC: Sequence[NDArray[np.uint8]]) -> Sweep:
        """The sweep with the view of each row."""
        tiles = [
            Tile(label, tuple(row.values()), _middle(view_HWC, self.magnified), self._is_identity(row))
            for label, row, view_HWC in zip(self.labels, self.rows, views_HWC, strict=True)
        ]
        if self.compare:
            difference = np.abs(views_HWC[0].astype(int) - views_HWC[1].astype(int)) * AMPLIFICATION
            tiles.append(Tile(f"difference × {AMPLIFICATION}", None, difference.clip(0, 255).astype(np.uint8)))
        cells = dict(zip(COLUMNS, row_text(self.rows[0]), strict=True)) | self.letters
        return Sweep(
            title=self.title,
            swept=tuple(self.letters),
            unit=UNITS[self.title],
            text=TEXTS[self.title],
            facts=" ".join(filter(None, (self.facts, FACTS.get(self.title, "")))),
            cells=tuple(cells.values()),
            tiles=tiles,
            bands=list(self.bands),
            boxes=self.boxes,
        )

    def _is_identity(self, row: Row) -> bool:
        """Whether the row leaves the photo unchanged, including jitter with a factor of 1."""
        if self.boxes or self.compare:
            return False
        identity = identity_row(int(row["height"]), int(row["width"]))
        return all(row[column] == identity[column] for column in self.letters)


def identity_row(height: int, width: int) -> Row:
    """The row that only resizes the whole photo."""
    row = dict.fromkeys(COLUMNS, 0.0)
    row |= {"height": float(height), "width": float(width), "order": float(IDENTITY_ORDER)}
    return row | {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "solarize": SOLARIZE_OFF}


def row_text(row: Mapping[str, float]) -> tuple[str, ...]:
    """The values of a row, each with the fewest digits that round to the same float32."""
    return tuple(np.format_float_positional(np.float32(value), trim="-") for value in row.values())


def number(value: float) -> str:
    """A whole number in full, any other to four significant digits."""
    return f"{value:.0f}" if value == int(value) else f"{value:.4g}"


def signed_number(value: float) -> str:
    """A number with its sign; zero has none."""
    return f"{'+' if value > 0 else MINUS if value < 0 else ''}{number(abs(value))}"


def views_of(sample: Sample, rows: Sequence[Row], size: int) -> list[NDArray[np.uint8]]:
    """The view of every row, uint8 HWC."""
    params_VP = torch.tensor([list(row.values()) for row in rows], dtype=torch.float32)
    return list(make_views(pack([sample]), params_VP[:, None], size)[:, 0])


def plan_sweeps(height: int, width: int) -> list[Plan]:
    """Every sweep of a photo of this size, in the order of the columns."""
    identity = identity_row(height, width)
    return [
        *_crops(height, width),
        _switch("flip", identity),
        Plan("rotation", {"rotation": "v"}, [identity | {"rotation": float(k)} for k in range(4)], list("0123")),
        _switch("jitter", identity | {"brightness": 1.3, "contrast": 0.7, "saturation": 1.4, "hue": 0.1}),
        _two_orders(identity),
        _factor("brightness", identity, (0.2, 0.6, 0.8, 1.0, 1.2, 1.4, 1.8)),
        _factor("contrast", identity, (0.0, 0.2, 0.6, 1.0, 1.4, 1.8, 3.0)),
        _factor("saturation", identity, (0.2, 0.6, 0.8, 1.0, 1.2, 1.4, 1.8)),
        _factor("hue", identity, (-0.5, -0.2, -0.1, 0.0, 0.1, 0.2, 0.5)),
        _switch("gray", identity),
        _blurs(identity),
        _thresholds(identity),
    ]


def order_tiles(height: int, width: int) -> list[tuple[str, Row]]:
    """Label and row of each of the 24 orders of the colour jitter."""
    base = identity_row(height, width) | {"jitter": 1.0} | ORDER_FACTORS
    found = []
    for order in permutations(range(4)):
        letters = "".join(OPERATIONS[op][0].upper() for op in order)
        found.append((f"{letters} {packed(order)}", base | {"order": float(packed(order))}))
    return found


def packed(order: Sequence[int]) -> int:
    """Four op ids as the `order` column holds them."""
    return sum(op << 2 * place for place, op in enumerate(order))


def _crops(height: int, width: int) -> list[Plan]:
    h, w = max(1, height // 2), max(1, width // 2)
    top, left = height // 16, (width - w) // 2  # subjects tend to be in the upper middle
    base = identity_row(height, width) | dict(zip(BOX, map(float, (top, left, h, w)), strict=True))

    def moved(column: str, room: int) -> Plan:
        return swept(column, [round(room * part) for part in (0, 0.25, 0.5, 0.75, 1)])

    def sized(column: str, whole: int, start: int) -> Plan:
        return swept(column, [max(1, int(min(whole * part, whole - start))) for part in (0.2, 0.35, 0.5, 0.65, 0.9)])

    def swept(column: str, values: list[int]) -> Plan:
        rows = [base | {column: float(value)} for value in values]
        return Plan(column, {column: "v"}, rows, [str(value) for value in values], boxes=True)

    areas = (0.05, 0.08, 0.14, 0.2, 0.4, 0.7, 1.0)
    ranges = {name: policies[0].scale for name, policies in PUBLISHED.items()} | {"SwAV's local crops": LOCAL_CROPS}
    area = Plan(
        "height × width",
        dict(zip(BOX, "tlhw", strict=True)),
        [identity_row(height, width) | _central_box(height, width, area) for area in areas],
        [f"{area:.0%}" for area in areas],
        _bands(areas, ranges),
        boxes=True,
    )
    return [
        moved("top", height - h),
        moved("left", width - w),
        sized("height", height, top),
        sized("width", width, left),
        area,
    ]


def _central_box(height: int, width: int, area: float) -> Row:
    """The central box with the given fraction of the photo's area and the photo's aspect ratio."""
    h, w = (max(1, round(side * area**0.5)) for side in (height, width))
    return dict(zip(BOX, map(float, ((height - h) // 2, (width - w) // 2, h, w)), strict=True))


def _switch(column: str, base: Row) -> Plan:
    rows = [base | {column: value} for value in (0.0, 1.0)]
    return Plan(column, {column: "v"}, rows, ["0", "1"], facts=_chances(column))


def _two_orders(identity: Row) -> Plan:
    orders = ((0, 1, 2, 3), (1, 0, 2, 3))
    base = identity | {"jitter": 1.0, "brightness": 1.4, "contrast": 0.6}
    rows = [base | {"order": float(packed(order))} for order in orders]
    labels = [f"{packed(order)}: {OPERATIONS[order[0]]}, then {OPERATIONS[order[1]]}" for order in orders]
    return Plan("order", {"order": "v"}, rows, labels, compare=True)


def _factor(column: str, identity: Row, values: Sequence[float]) -> Plan:
    ranges = {name: policies[0].factor_ranges()[OPERATIONS.index(column)] for name, policies in PUBLISHED.items()}
    form = signed_number if column == "hue" else number
    rows = [identity | {"jitter": 1.0, column: value} for value in values]
    return Plan(column, {column: "v"}, rows, [form(value) for value in values], _bands(values, ranges))


def _blurs(identity: Row) -> Plan:
    values = (0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 4.0)
    bands = _bands(values, {name: policies[0].sigma for name, policies in PUBLISHED.items()})
    rows = [identity | {"sigma": value} for value in values]
    labels = [number(value) for value in values]
    return Plan("sigma", {"sigma": "v"}, rows, labels, bands, _chances("blur"), magnified=2)


def _thresholds(identity: Row) -> Plan:
    values = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0, SOLARIZE_OFF)
    ranges = {"BYOL": PUBLISHED["BYOL"][1].solarize_threshold, "AugSelf's ablation": (0.0, 1.0)}
    rows = [identity | {"solarize": value} for value in values]
    labels = [number(value) for value in values]
    return Plan("solarize", {"solarize": "v"}, rows, labels, _bands(values, ranges), _chances("solarize"))


def _bands(values: Sequence[float], ranges: dict[str, tuple[float, float]]) -> list[Band]:
    """One band per range, equal ranges merged, widest first; ValueError if a bound is no tile's value."""
    names: dict[tuple[float, float], list[str]] = {}
    for name, (low, high) in ranges.items():
        names.setdefault((round(low, 6), round(high, 6)), []).append(name)
    widest_first = sorted(names.items(), key=lambda item: item[0][0] - item[0][1])
    return [Band(_listed(recipes), values.index(low), values.index(high)) for (low, high), recipes in widest_first]


def _chances(field: str) -> str:
    """A sentence with the probability of an operation in each recipe."""
    found: dict[str, list[str]] = {}
    for name, policies in PUBLISHED.items():
        first, second = (getattr(policy, field) for policy in policies)
        text = number(first) if first == second else f"{number(first)} in view 1 and {number(second)} in view 2"
        found.setdefault(text, []).append(name)
    if len(found) == 1:
        return f"On with probability {next(iter(found))} in all three recipes."
    never = found.pop("0", [])
    parts = [f"probability {text} ({_listed(recipes)})" for text, recipes in found.items()]
    return f"On with {'; '.join(parts)}{f'; never in {_listed(never)}' if never else ''}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _middle(image_HWC: NDArray[np.uint8], times: int) -> NDArray[np.uint8]:
    """The middle of an image, 1 / times as wide and high."""
    height, width = image_HWC.shape[:2]
    h, w = height // times, width // times
    top, left = (height - h) // 2, (width - w) // 2
    return np.ascontiguousarray(image_HWC[top : top + h, left : left + w])
