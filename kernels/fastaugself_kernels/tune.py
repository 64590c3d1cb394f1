"""Measures launch shapes on the GPU of this machine and writes the best as its configuration.

    python -m fastaugself_kernels.tune [--out FOLDER] [--seconds LIMIT]

Workload: two views of 256 images of 375 x 500, MoCo v2's policy. It takes a few minutes, mostly for compiling, or
seconds after `python -m fastaugself_kernels.precompile --tune`; with a time limit, shapes that were not measured keep
their values. The file goes to `triton/configs/`, where it is found by the names of the device and of Triton's version;
`make check-kernels` compiles it like the others. `--device cpu` walks through the search in Triton's interpreter, as a
test of it.
"""

import argparse
import datetime
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from .backends import Options
from .params import ViewPolicy
from .sampling import sample_params
from .triton.augment import augment_launches
from .triton.configs import FOLDER, Config, Tile, config, file_of
from .triton.launch import Launch, run

Timer = Callable[[Launch], float]
"""Microseconds of one launch; raises where it cannot run."""

RESIZE = [
    Tile(rows, columns, warps, registers)
    for rows, (columns, warps), registers in itertools.product(
        (16, 32, 56), ((64, 1), (128, 1), (128, 2), (256, 2)), (None, 96)
    )
]
FINISH = [
    Tile(rows, columns, warps, registers)
    for (rows, columns, warps), registers in itertools.product(
        ((64, 16, 4), (64, 32, 4), (64, 32, 8), (128, 16, 8), (128, 32, 8)), (None, 128)
    )
]
FINISH_FLOAT32 = [Tile(64, 16, 4), Tile(64, 16, 8), Tile(64, 32, 8), Tile(128, 16, 8)]
SMALL_WARPS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Workload:
    """photos of height x width pixels; size of the large views and sizes of the small ones, in pixels."""

    photos: int = 256
    height: int = 375
    width: int = 500
    size: int = 224
    small: tuple[int, ...] = (32, 64)


INTERPRETED = Workload(photos=1, height=20, width=24, size=24, small=(16,))


def search(
    start: Config, timer: Timer, device: torch.device, work: Workload = Workload()
) -> tuple[Config, dict[str, float]]:
    """The fastest configuration found from `start`, kernel after kernel, and the microseconds of its launches.

    The kernels with the fewest shapes come first, so that a limited time is enough for most of them.
    """
    best, measured = _with(start, small=(), small_float32=()), {}

    for field, tiles, dtype, index in (
        ("finish", FINISH, torch.bfloat16, 1),
        ("finish_float32", FINISH_FLOAT32, torch.float32, 1),
        ("resize", RESIZE, torch.bfloat16, 0),
    ):
        options = [_with(best, **{field: tile}) for tile in tiles]
        times = [_time(timer, _launches(option, work, work.size, dtype, device)[index]) for option in options]
        if min(times) < math.inf:
            measured[field] = min(times)
            best = options[times.index(measured[field])]

    for field, dtype in (("small", torch.bfloat16), ("small_float32", torch.float32)):
        entries, tried = [], False
        for size in work.small:
            options = [_with(best, **{field: ((size, warps),)}) for warps in SMALL_WARPS]
            times = [_time(timer, _launches(option, work, size, dtype, device)[0]) for option in options]
            tried |= min(times) < math.inf
            if min(times) < sum(_time(timer, launch) for launch in _launches(best, work, size, dtype, device)):
                entries.append((size, SMALL_WARPS[times.index(min(times))]))
                measured[f"{field} {size}"] = min(times)
        best = _with(best, **{field: tuple(entries) if tried else getattr(start, field)})
    return best, measured


def _with(shapes: Config, **fields: Any) -> Config:
    return replace(shapes, **fields)


def _time(timer: Timer, launch: Launch) -> float:
    """The time of one launch in microseconds; infinite if its shape does not compile or fit the device."""
    try:
        return timer(launch)
    except TimeoutError:  # Limited
        return math.inf
    except Exception as error:  # triton raises a different class for every way not to fit
        print(f"  left out: {launch.options} {launch.constants}: {type(error).__name__}", file=sys.stderr)
        return math.inf


class Limited:
    """A timer that refuses to measure once `seconds` have passed since it was made."""

    def __init__(self, timer: Timer, seconds: float) -> None:
        self.timer, self.seconds, self.end = timer, seconds, time.monotonic() + seconds

    def __call__(self, launch: Launch) -> float:
        if time.monotonic() > self.end:
            raise TimeoutError(f"the {self.seconds:g} s of --seconds are over")
        return self.timer(launch)


@lru_cache(maxsize=1)
def _source(work: Workload, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels, offsets, strides and sizes of the images."""
    B, height, width = work.photos, work.height, work.width
    pixels = torch.randint(0, 256, (B * height * width * 3,), dtype=torch.uint8, device=device)
    offsets_B = torch.arange(B, device=device) * (height * width * 3)
    strides_B = torch.full((B,), width * 3, dtype=torch.int32, device=device)
    return pixels, offsets_B, strides_B, torch.tensor([[height, width]] * B, dtype=torch.int32)


def _launches(shapes: Config, work: Workload, size: int, dtype: torch.dtype, device: torch.device) -> list[Launch]:
    pixels, offsets_B, strides_B, sizes_B2 = _source(work, device)
    V, B = 2, len(offsets_B)
    params_VBP = sample_params(torch.arange(B), sizes_B2, (ViewPolicy.moco_v2(size),) * V, seed=0, epoch=0)
    views_VBHWC = torch.empty(V, B, size, size, 3, dtype=dtype, device=device)
    return augment_launches(
        shapes,
        pixels,
        offsets_B,
        strides_B,
        params_VBP.to(device),
        views_VBHWC.permute(0, 1, 4, 2, 3),
        None,
        norm=[4.0, 4.0, 4.0, -2.0, -2.0, -2.0],
        options=Options(blur_kernel=2 * min(11, size // 4) + 1),
    )


LAUNCHES = 20  # between two events


def cuda_microseconds(launch: Launch) -> float:
    """Median time of a launch, of 30 groups of 20 between events, after 5 groups that warm up.

    A single launch on an empty queue would take longer to arrive than the kernel runs.
    """
    device = torch.device("cuda", torch.cuda.current_device())
    times = []
    for round_ in range(35):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run([launch] * LAUNCHES, device)
        end.record()
        end.synchronize()
        if round_ >= 5:
            times.append(begin.elapsed_time(end) * 1000 / LAUNCHES)
    return statistics.median(times)


def interpreted_microseconds(launch: Launch) -> float:
    """The time of one launch in Triton's interpreter, which says nothing about a GPU."""
    began = time.perf_counter()
    run([launch], torch.device("cpu"))
    return (time.perf_counter() - began) * 1e6


def write(
    shapes: Config, measured: dict[str, float], device_name: str, target: str, folder: Path, work: Workload = Workload()
) -> Path:
    """Writes a configuration for `Config.read`, with the measured times beside it."""

    def small(entries: tuple[tuple[int, int], ...]) -> list[dict[str, int]]:
        return [{"up_to": longest, "warps": warps} for longest, warps in entries]

    content: dict[str, Any] = asdict(shapes) | {
        "targets": [target],
        "small": small(shapes.small),
        "small_float32": small(shapes.small_float32),
        "measured": {
            "device": device_name,
            "date": datetime.date.today().isoformat(),
            "torch": torch.__version__,
            "triton": triton.__version__,
            f"microseconds for {2 * work.photos} views": {name: round(time, 1) for name, time in measured.items()},
        },
    }
    path = folder / file_of(device_name, triton.__version__).name
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fastaugself_kernels.tune", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the configuration (default: the package's)")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="time to measure in (default: as long as it takes)"
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: in Triton's interpreter, a test"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 a configuration was written, 1 nothing could be measured."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.device == "cpu":
        return _rehearse(parser, options)
    if not torch.cuda.is_available():
        parser.error("a CUDA or ROCm device is needed, and torch sees none")
    device = torch.device("cuda", torch.cuda.current_device())
    properties = torch.cuda.get_device_properties(device)
    target = getattr(properties, "gcnArchName", f"sm_{properties.major}{properties.minor}").split(":")[0]
    best, measured = search(config(device), Limited(cuda_microseconds, options.seconds), device)
    path = write(best, measured, torch.cuda.get_device_name(device), target, options.out)
    print(path.read_text(), end="")
    print(path, file=sys.stderr)
    return int(not measured)


def _rehearse(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """The search on tiny images in Triton's interpreter: what it writes is no configuration of any device."""
    if not os.environ.get("TRITON_INTERPRET"):
        parser.error("--device cpu runs in Triton's interpreter: set TRITON_INTERPRET=1 before Python starts")
    if options.out == FOLDER:
        parser.error("--device cpu measures no device; pass --out with a folder for what it writes")
    device = torch.device("cpu")
    timer = Limited(interpreted_microseconds, options.seconds)
    best, measured = search(config(device), timer, device, INTERPRETED)
    path = write(best, measured, "interpreter", "interpreter", options.out, INTERPRETED)
    Config.read(path)
    print(path)
    return int(not measured)


if __name__ == "__main__":
    sys.exit(main())
