"""Compiles the Triton kernels for a GPU before it is there, in parallel, into Triton's cache.

    TRITON_CACHE_DIR=FOLDER python -m fastaugself_kernels.precompile --target sm_90 [--tune] [--jobs N]

Without it, each process compiles what it needs when it needs it, one kernel after the other. For a container image, or
for a machine with many cores and a GPU that is paid by the minute. The kernels are those of `check`, with the launch
shapes of this machine's GPU, else of the target's vendor; with `--tune` also the shapes that `tune` measures. Triton
finds the code by its own version, the target and the types of the arguments: train with the same Triton and cache.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from .check import TARGETS, cases
from .triton.configs import Config, config, shipped
from .triton.launch import Launch
from .tune import search


class AbsentDriver:
    """Stands for the driver of a GPU that need not be here: Triton asks it only for what it compiles for."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 1000 + [*TARGETS.values()].index(self._target)  # kernels keep what they compiled by this number

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def as_if_on(target: GPUTarget) -> Iterator[None]:
    """Context manager in which Triton compiles for `target`; nothing can be launched in it."""
    driver: Any = triton.runtime.driver
    before = driver._active  # asking for the active driver would look for one
    driver.set_active(AbsentDriver(target))
    try:
        yield
    finally:
        driver.set_active(before)


def compile_launch(launch: Launch) -> None:
    """Compiles what `run([launch])` would launch; inside `as_if_on`, where Triton stops before the launch itself."""
    launch.kernel.run(*launch.arguments, grid=launch.grid, warmup=True, **launch.constants, **launch.options)


def shapes_here(target: str) -> Config:
    """The launch shapes of this machine's GPU if it is of this target, else the default of the target's vendor."""
    if torch.cuda.is_available():
        found = config(torch.device("cuda", torch.cuda.current_device()))
        if target in found.targets:
            return found
    vendor = "rocm" if TARGETS[target].backend == "hip" else "cuda"
    return shipped()[f"default-{vendor}"]


@lru_cache(maxsize=2)
def launches(shapes: Config, *, tuned: bool) -> list[tuple[str, Launch]]:
    """The launches to compile and what they are for, without doubles; tuned: with those that `tune` measures."""
    found = [(f"{case.kernel}, {case.name}", case.launch) for case in cases(shapes)]
    if tuned:

        def note(launch: Launch) -> float:
            found.append((f"{launch.kernel.__name__.removesuffix('_kernel')}, to be measured", launch))
            return 1.0

        search(shapes, note, torch.device("meta"))
    return [*{_key(launch): (name, launch) for name, launch in reversed(found)}.values()][::-1]


def _key(launch: Launch) -> str:
    dtypes = [value.dtype if isinstance(value, torch.Tensor) else value for value in launch.arguments]
    return str((launch.kernel.__name__, dtypes, launch.constants, launch.options))


def _do(job: tuple[Config, bool, int, str]) -> tuple[str, float, str]:
    shapes, tuned, index, target = job
    name, launch = launches(shapes, tuned=tuned)[index]
    began = time.perf_counter()
    try:
        with as_if_on(TARGETS[target]):
            compile_launch(launch)
        fault = ""
    except Exception as error:  # triton raises a different class for every way not to compile
        fault = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return name, time.perf_counter() - began, fault


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastaugself_kernels.precompile", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--target", choices=TARGETS, help="architecture (default: that of this machine's GPU)")
    parser.add_argument("--tune", action="store_true", help="also the shapes that fastaugself_kernels.tune measures")
    parser.add_argument("--only", default="", help="kernels whose line contains this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilations at a time")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all compiled, 1 if a kernel that is shipped did not. A shape to be measured may fail."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET"):
        parser.error("TRITON_INTERPRET is set, and interpreted kernels are not compiled; unset it")
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {options.jobs}")
    target = options.target or _target_here()
    if target is None:
        parser.error(f"this machine has no GPU among {', '.join(TARGETS)}; pass --target with one of them")
    shapes = shapes_here(target)
    listed = launches(shapes, tuned=options.tune)
    jobs = [(shapes, options.tune, i, target) for i, (name, _) in enumerate(listed) if options.only in name]
    if not jobs:
        parser.error(f"no kernel's line contains {options.only!r}")
    print(f"triton {triton.__version__}, {target}, {len(jobs)} kernels, {options.jobs} at a time")
    began, spent, failed = time.perf_counter(), 0.0, 0
    with _mapping(options.jobs) as mapped:
        for name, seconds, fault in mapped(_do, jobs):
            spent += seconds
            failed += bool(fault) and not name.endswith("to be measured")
            print(f"{seconds:6.1f} s  {name}" + (f"  {fault}" if fault else ""), flush=True)
    print(f"{len(jobs)} kernels, {failed} failed, {spent:.0f} s of compiling in {time.perf_counter() - began:.0f} s")
    return int(failed > 0)


@contextmanager
def _mapping(jobs: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """`map` on this many processes."""
    if jobs == 1:
        yield map
        return
    # Spawned, not forked: this process may have used CUDA.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield pool.map


def _target_here() -> str | None:
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    found = getattr(properties, "gcnArchName", f"sm_{properties.major}{properties.minor}").split(":")[0]
    return found if found in TARGETS else None


if __name__ == "__main__":
    sys.exit(main())
