"""What a compiled kernel costs, counted from its code without a GPU, and the record that later counts are held to.

The counts are of instructions and memory transactions, not of time. Those of a pixel are for a stated workload: MoCo
v2's crops of photos of 375 x 500, as `ViewPolicy.moco_v2` draws them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path

import torch

from . import sass
from .params import HEIGHT, LEFT, TOP, WIDTH, ViewPolicy
from .sampling import sample_params

PHOTO = (375, 500)
TOLERANCE = 0.05
STEPS_BEFORE_CONTRAST = 0.8 * 1.5
"""Colour steps of a pixel in the resize kernel: 80 % of MoCo v2's views, contrast equally often at each of 4 places."""

# Warps, programs, registers and bytes of shared memory of a multiprocessor, from the table of technical specifications
# in NVIDIA's CUDA C++ Programming Guide. Registers are given to a warp by 256, from one of four equal parts, and a
# program takes 1 KiB of shared memory more than it asks for.
MULTIPROCESSORS = {
    "sm_80": (64, 32, 65536, 164 << 10),
    "sm_90": (64, 32, 65536, 228 << 10),
    "sm_100": (64, 32, 65536, 228 << 10),
}


@dataclass(frozen=True)
class Counts:
    """What a kernel costs; None where a figure does not apply."""

    instructions: int
    """In the whole code."""
    registers: int
    """Of a thread."""
    shared: int
    """Bytes of a program."""
    idle_warps: int | None = None
    """Of a multiprocessor's, how many find no room beside the others (occupancy, from the other side)."""
    per_tap: float | None = None
    """Instructions for a source pixel of an output pixel, in the best of the inner loops."""
    per_pixel: float | None = None
    """Instructions of a thread for an output pixel, on the longest way through the code but for taps that few crops
    have: the colour steps count as if all were the dearest. Columns of a tile past the output's width count too."""
    loads_per_pixel: float | None = None
    """Loads of single bytes, counted alike."""
    lines_per_load: float | None = None
    """Cache lines of 128 bytes that such a load of a warp touches: wavefronts of the L1 cache."""


def idle_warps(target: str, registers: int, shared: int, warps: int) -> int | None:
    """Warps that a multiprocessor could have more of if programs took fewer registers and less shared memory."""
    if target not in MULTIPROCESSORS:
        return None
    most, programs, file, memory = MULTIPROCESSORS[target]
    with_registers = 4 * (file // 4 // (-(-registers * 32 // 256) * 256))
    return most - warps * min(most // warps, programs, with_registers // warps, memory // (shared + 1024))


def per_tap(code: Sequence[sass.Block]) -> float | None:
    """Instructions for three loaded bytes in the block that has the fewest; None if no block has three."""
    loads = [(len(block.opcodes), byte_loads(block)) for block in code]
    return min((3 * length / count for length, count in loads if count >= 3), default=None)


def byte_loads(block: sass.Block) -> int:
    return sum(bool(re.match(r"LDG\b.*\.U8", opcode)) for opcode in block.opcodes)


@dataclass(frozen=True)
class Rows:
    """The workload's crops: of float64 [N], their places and sizes in pixels."""

    top: torch.Tensor
    left: torch.Tensor
    height: torch.Tensor
    width: torch.Tensor


@lru_cache(maxsize=8)
def workload(size: int) -> Rows:
    """Crops of 256 photos for two views of `size` pixels."""
    ids, sizes = torch.arange(256), torch.tensor([PHOTO] * 256)
    rows = sample_params(ids, sizes, (ViewPolicy.moco_v2(size),) * 2, seed=0, epoch=0).flatten(0, 1).double()
    return Rows(*(rows[:, column] for column in (TOP, LEFT, HEIGHT, WIDTH)))


def resize_shares(code: Sequence[sass.Block], constants: Mapping[str, int], warps: int) -> dict[int, float]:
    """How often the blocks of `resize_kernel` run that hold one of the first taps, of which crops have two to four."""
    taps = _taps(constants)
    loads_of_a_tap = 3 * constants["CB"] / (32 * warps)
    shares = {}
    for march in sass.loops(code):
        for row in march.inner:
            further = frozenset().union(*(loop.blocks for loop in row.inner))
            before = 0.0
            for block in sorted(row.blocks - further):
                if loads := byte_loads(code[block]):
                    shares[block] = float((taps > before / loads_of_a_tap).double().mean())
                    before += loads
    return shares


def _taps(constants: Mapping[str, int]) -> torch.Tensor:
    """Taps of each crop of the workload along a row."""
    scale = workload(max(constants["OH"], constants["OW"])).width / constants["OW"]
    return (2 * scale.clamp(min=1)).ceil() if constants["ANTIALIAS"] else torch.full_like(scale, 2.0)


def resize_trips(code: Sequence[sass.Block], constants: Mapping[str, int]) -> list[float]:
    """How often each loop of `resize_kernel` goes round on average, outer loops before the loops inside them.

    Raises ValueError where the loops are not those of output rows, source rows, further taps and colour steps.
    """
    scale_y = workload(max(constants["OH"], constants["OW"])).height / constants["OH"]
    taps, tile = _taps(constants), constants["RB"]
    shrinks = scale_y > 1
    columns = float(taps.mean()) - 1
    further = float((taps - 4).clamp(min=0).mean())
    # A tile visits some source rows of its neighbours too: one output row's where it shrinks, else one.
    shrunk = _mean(scale_y[shrinks]) * (1 + 1 / tile)
    between = _mean(scale_y[~shrinks] if constants["ANTIALIAS"] else scale_y.clamp(max=2)) + 1 / tile
    marches = [(tile, rate, further, STEPS_BEFORE_CONTRAST) for rate in (shrunk, between)]
    trips: list[float] = []
    for loop in sass.loops(code):
        if not loop.inner:  # that over a column's weights, or the parts it was unrolled into
            trips.append(columns)
        elif loop.shape == "[[[]][]]" and marches:
            trips.extend(marches.pop(0 if constants["ANTIALIAS"] else 1))
        else:
            raise ValueError(f"resize_kernel has a loop {loop.shape} whose trips are not known")
    return trips


def _mean(values: torch.Tensor) -> float:
    """0 where there are none."""
    return float(values.sum()) / max(len(values), 1)


def lines_per_load(ttgir: str, constants: Mapping[str, int]) -> float:
    """Lines of 128 bytes that one lane each of a warp's neighbouring columns touches, at the workload's mean.

    ttgir: Triton's intermediate code, which names the layout of the loads: which columns the lanes of a warp have.
    """
    columns = constants["CB"]
    loads = re.findall(rf"tt\.load .*tensor<{columns}x!tt\.ptr<i8>, (#\w+)>", ttgir)
    layouts = dict(re.findall(r"^(#\w+) = #ttg\.blocked<\{sizePerThread = \[(\d+)\]", ttgir, re.M))
    apart = {int(layouts[name]) for name in loads}  # columns between the lanes of a warp
    if len(apart) != 1:
        raise ValueError(f"the loads of single bytes have {len(apart)} layouts, {sorted(apart)}; one is counted")
    rows = workload(max(constants["OH"], constants["OW"]))
    lane = torch.arange(32, dtype=torch.float64) * apart.pop()
    x = torch.arange(0, constants["OW"] - 31, 32, dtype=torch.float64)[:, None] + lane
    scale = (rows.width / constants["OW"])[:, None, None]
    reach = scale.clamp(min=1) if constants["ANTIALIAS"] else torch.ones_like(scale)
    first = (scale * (x.clamp(max=constants["OW"] - 1) + 0.5) - reach + 0.5).floor().clamp(min=0)
    corner = (rows.top * PHOTO[1] + rows.left)[:, None, None]
    lines = ((corner + first) * 3 // 128).long().sort(-1).values
    return float(1 + (lines.diff(dim=-1) > 0).double().sum(-1).mean())


def count_resize(code: Sequence[sass.Block], ttgir: str, constants: Mapping[str, int], warps: int) -> dict[str, float]:
    """The figures of a pixel of `resize_kernel`; ValueError where its loops are not those that are counted."""
    trips = resize_trips(code, constants)
    shares = resize_shares(code, constants, warps)
    pixels = constants["OH"] * constants["OW"] / (constants["TILES"] * 32 * warps)
    return {
        "per_pixel": sass.longest(code, trips, shares=shares) / pixels,
        "loads_per_pixel": sass.longest(code, trips, byte_loads, shares) / pixels,
        "lines_per_load": lines_per_load(ttgir, constants),
    }


def compare(name: str, now: Counts, before: Counts | None) -> list[str]:
    """What became dearer than in the record by more than TOLERANCE; a row that the record has not is a fault too."""
    if before is None:
        return [f"{name} is not in the record; --record writes it"]
    found = []
    for field in fields(Counts):
        old, new = getattr(before, field.name), getattr(now, field.name)
        if (old is None) != (new is None):
            found.append(f"{field.name} of {name} is {new}, in the record {old}")
        elif old is not None and new > old * (1 + TOLERANCE):
            found.append(f"{field.name} of {name} grew from {old:g} to {new:g}, more than {TOLERANCE:.0%}")
    return found


def read(path: Path, version: str) -> dict[str, Counts] | None:
    """The record at `path`, or None if it is of another version of Triton, whose counts are not comparable."""
    record = json.loads(path.read_text())
    if record["triton"] != version:
        return None
    return {name: Counts(**row) for name, row in record["rows"].items()}


def write(path: Path, version: str, rows: Mapping[str, Counts]) -> None:
    """Writes the record, a line a row."""
    lines = []
    for name, counts in sorted(rows.items()):
        figures = {k: round(v, 2) for k, v in asdict(counts).items() if v is not None}
        lines.append(f"    {json.dumps(name)}: {json.dumps(figures)}")
    body = ",\n".join(lines)
    path.write_text(f'{{\n  "triton": {json.dumps(version)},\n  "rows": {{\n{body}\n  }}\n}}\n')
