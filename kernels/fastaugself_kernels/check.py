"""Compiles every shipped kernel for several GPUs, none of which is needed, and fails on slow code.

    python -m fastaugself_kernels.check [--targets sm_90,gfx942] [--only TEXT] [--jobs N]

ptxas, the disassemblers and AMD's code generator are inside the Triton wheel, so neither a GPU, a driver nor a CUDA
toolkit is needed. A kernel fails the check if registers spill, if it uses local memory, if the stores of its output are
narrower than 16 bytes, or if a count of its code has grown by more than 5 % over the record (`counts.json`, which
`--record` writes anew; counts of another version of Triton are not compared). The exit code is then 1.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from . import counts, sass
from .backends import Options
from .counts import Counts
from .params import POLICY_COLUMNS, P
from .targets import CASSLE_PARTS, columns_of_parts
from .triton.augment import augment_launches
from .triton.configs import Config, shipped
from .triton.launch import Launch
from .triton.sampling import sample_launch
from .triton.targets import descriptors_launch, empty_targets, targets_launch

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),  # A100
    "sm_90": GPUTarget("cuda", 90, 32),  # H100, H200
    "sm_100": GPUTarget("cuda", 100, 32),  # B200
    "gfx90a": GPUTarget("hip", "gfx90a", 64),  # MI210, MI250
    "gfx942": GPUTarget("hip", "gfx942", 64),  # MI300
}
POINTERS = {
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}
NVIDIA_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
RECORD = Path(__file__).parents[1] / "counts.json"
"""Beside the package in a checkout; an installed one has none, and compares nothing."""


@dataclass(frozen=True)
class Report:
    """Resources of a compiled kernel, per thread unless said otherwise."""

    registers: int
    spilled: int
    """Bytes of local memory (CUDA), or spilled registers and bytes of scratch (ROCm)."""
    shared: int
    """Bytes of shared memory per program."""
    instructions: int
    opcodes: Counter = field(repr=False)
    code: tuple[sass.Block, ...] = field(default=(), repr=False)
    """Basic blocks (CUDA)."""
    ttgir: str = field(default="", repr=False)
    """Triton's intermediate code, which names the layouts."""

    @property
    def wide_stores(self) -> int:
        """Stores of 16 bytes to global memory."""
        pattern = r"STG.*\.128|(global|buffer)_store_(dwordx4|b128)"
        return sum(n for op, n in self.opcodes.items() if re.match(pattern, op))

    @property
    def narrow_stores(self) -> int:
        """Stores of 1 or 2 bytes to global memory."""
        pattern = r"STG.*\.[US](8|16)\b|(global|buffer)_store_(byte|short|b8|b16)"
        return sum(n for op, n in self.opcodes.items() if re.match(pattern, op))


@dataclass(frozen=True)
class Case:
    """One compilation: a launch, and the `augment` call that makes it."""

    name: str
    launch: Launch
    stores_views: bool
    """Whether this launch writes views whose width allows 16-byte stores."""

    @property
    def kernel(self) -> str:
        return self.launch.kernel.__name__.removesuffix("_kernel")


def launches(
    shapes: Config,
    size: int | tuple[int, int],
    dtype: torch.dtype = torch.bfloat16,
    options: Options | None = None,
    *,
    shift: bool = False,
    channels: int = 3,
) -> list[Launch]:
    """The launches of one `augment` call, on meta tensors."""
    V, B = 2, 256
    height, width = (size, size) if isinstance(size, int) else size
    with torch.device("meta"):
        return augment_launches(
            shapes,
            torch.empty(1 << 20, dtype=torch.uint8),
            torch.empty(B, dtype=torch.int64),
            torch.empty(B, dtype=torch.int32),
            torch.empty(V, B, P),
            torch.empty(V, B, height, width, channels, dtype=dtype).permute(0, 1, 4, 2, 3),
            torch.empty(V, B, 3) if shift else None,
            norm=[0.5] * 6,
            options=options or Options(),
        )


def cases(shapes: Config) -> Iterator[Case]:
    """Every kernel, output dtype and option, at the sizes of the published recipes."""
    half, bfloat16, single = torch.float16, torch.bfloat16, torch.float32
    hsv = {"options": Options(hsv_saturation=True), "shift": True}
    defaults = Options()._asdict()
    switched = [
        (f"{name.replace('_', ' ')} {'off' if default else 'on'}", Options(**defaults | {name: not default}))
        for name, default in defaults.items()
        if isinstance(default, bool) and name != "rounding"  # which has cases of its own
    ]
    calls: list[tuple[str, int | tuple[int, int], torch.dtype, dict[str, Any]]] = [
        ("224 bf16", 224, bfloat16, {}),
        ("224 fp16", 224, half, {}),
        ("224 fp32", 224, single, {}),
        ("224 fp32, not rounded", 224, single, {"options": Options(rounding=False)}),
        ("224 bf16, shift", 224, bfloat16, {"shift": True}),
        ("224 fp32, shift", 224, single, {"shift": True}),
        *((f"224 bf16, {name}", 224, bfloat16, {"options": options}) for name, options in switched),
        ("224 bf16, 33 taps", 224, bfloat16, {"options": Options(blur_kernel=33)}),
        ("96 bf16, 9 taps, shift", 96, bfloat16, {"options": Options(blur_kernel=9), "shift": True}),
        ("225x150 bf16, shift", (225, 150), bfloat16, {"shift": True}),
        ("224 bf16, 4 channels", 224, bfloat16, {"channels": 4}),
        ("224 fp32, 4 channels", 224, single, {"channels": 4}),
        ("64 bf16, shift", 64, bfloat16, {"shift": True}),
        ("64 fp32, shift", 64, single, {"shift": True}),
        ("32 bf16, shift", 32, bfloat16, {"shift": True}),
        ("32 fp32, shift", 32, single, {"shift": True}),
        ("32 fp16, 4 channels", 32, half, {"channels": 4}),
        ("32 bf16, not rounded", 32, bfloat16, {"options": Options(rounding=False)}),
        ("224 fp32, hsv saturation, shift", 224, single, hsv),
        ("64 bf16, hsv saturation, shift", 64, bfloat16, hsv),
        ("32 fp32, hsv saturation, shift", 32, single, hsv),
    ]
    seen = set()
    for name, size, dtype, options in calls:
        width = size if isinstance(size, int) else size[1]
        for launch in launches(shapes, size, dtype, **options):
            kernel = launch.kernel.__name__
            key = (kernel, str(signature(launch)))
            if key not in seen:
                seen.add(key)
                yield Case(name, launch, width % 8 == 0 and kernel in ("finish_kernel", "small_kernel"))
    with torch.device("meta"):
        V, B = 2, 256
        ids_B, sizes_B2 = torch.empty(B, dtype=torch.int64), torch.empty(B, 2, dtype=torch.int32)
        policies_V32 = torch.empty(V, POLICY_COLUMNS, dtype=torch.float64)
        launch = sample_launch(shapes, ids_B, sizes_B2, policies_V32, torch.empty(V, B, P), 0, 0)
        yield Case("any size", launch, False)
        targets = empty_targets(B, ids_B.device)
        rows = (torch.empty(V, B, P), sizes_B2, policies_V32)
        yield Case("any size", targets_launch(*rows, targets, fixed=True), False)
        starts, width = columns_of_parts(CASSLE_PARTS)
        omega_VBn, shift_VB3 = torch.empty(V, B, width), torch.empty(V, B, 3)
        yield Case("any size", descriptors_launch(*rows, shift_VB3, omega_VBn, starts), False)


def signature(launch: Launch) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int, ...], list[list[Any]]]]:
    """Types, constants and alignments of a kernel's parameters, as the JIT would find them at the launch."""
    types: dict[str, str] = {}
    constants = dict(launch.constants)
    alignments: dict[tuple[int, ...], list[list[Any]]] = {}
    names = launch.kernel.arg_names
    for i, (name, value) in enumerate(zip(names, launch.arguments, strict=False)):
        if value is None:
            constants[name] = None
        elif isinstance(value, torch.Tensor):
            types[name] = POINTERS[value.dtype]
            alignments[(i,)] = [["tt.divisibility", 16]]  # what allocators give, and 16-byte accesses need
        else:
            types[name] = "fp32" if isinstance(value, float) else "i32"
    types |= dict.fromkeys(constants, "constexpr")
    return {name: types[name] for name in names}, constants, alignments


def compile_for(launch: Launch, target: GPUTarget) -> Report:
    """Compiles a launch and reads its resources from the machine code."""
    types, constants, alignments = signature(launch)
    source = ASTSource(fn=launch.kernel, signature=types, constexprs=constants, attrs=alignments)
    compiled = triton.compile(source, target=target, options=launch.options)
    if target.backend == "cuda":
        return _read_cubin(compiled)
    return _read_amdgcn(compiled)


def _read_cubin(compiled: Any) -> Report:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _tool("cuobjdump", "-res-usage", file.name)
        code = _tool("nvdisasm", "-c", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump said nothing about resources: {usage!r}")
    opcodes = Counter(re.findall(r"^\s+(?:/\*[0-9a-f]+\*/)?\s*(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]+)", code, re.M))
    spilled = int(found[2]) + int(found[4])
    blocks, ttgir = tuple(sass.blocks(code)), compiled.asm["ttgir"]
    return Report(int(found[1]), spilled, compiled.metadata.shared, opcodes.total(), opcodes, blocks, ttgir)


def _read_amdgcn(compiled: Any) -> Report:
    code = compiled.asm["amdgcn"]

    def entry(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", code)
        if found is None:
            raise RuntimeError(f"the code object says nothing about {name}")
        return int(found[1])

    spilled = entry("vgpr_spill_count") + entry("sgpr_spill_count") + entry("private_segment_fixed_size")
    opcodes = Counter(re.findall(r"^\t([a-z]\w+)", code, re.M))
    return Report(entry("vgpr_count"), spilled, compiled.metadata.shared, opcodes.total(), opcodes)


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run([NVIDIA_TOOLS / name, *arguments], check=True, capture_output=True, text=True).stdout


def faults(case: Case, report: Report) -> list[str]:
    """Reasons why a compiled kernel must not be shipped."""
    found = []
    if report.spilled:
        found.append(f"spills ({report.spilled})")
    if case.stores_views and not report.wide_stores:
        found.append("no 16-byte stores")
    if case.stores_views and report.narrow_stores:
        found.append(f"{report.narrow_stores} stores of 1 or 2 bytes")
    return found


def count(case: Case, report: Report, target: str) -> Counts:
    """The figures of a compiled kernel that the record holds."""
    warps, constants = case.launch.options["num_warps"], case.launch.constants
    cuda = TARGETS[target].backend == "cuda"
    pixel = counts.count_resize(report.code, report.ttgir, constants, warps) if cuda and case.kernel == "resize" else {}
    return Counts(
        report.instructions,
        report.registers,
        report.shared,
        counts.idle_warps(target, report.registers, report.shared, warps),
        counts.per_tap(report.code) if case.kernel in ("resize", "small") else None,
        **pixel,
    )


@dataclass(frozen=True)
class _Job:
    configuration: str
    index: int
    target: str


def _do(job: _Job) -> tuple[_Job, Report, Counts, float]:
    started = time.perf_counter()
    case = list(cases(shipped()[job.configuration]))[job.index]
    report = compile_for(case.launch, TARGETS[job.target])
    return job, report, count(case, report, job.target), time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fastaugself_kernels.check", description=__doc__.splitlines()[0])
    parser.add_argument("--targets", default=",".join(TARGETS), help="which of these, where a configuration names them")
    parser.add_argument("--only", default="", help="cases whose line contains this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilations at a time")
    parser.add_argument("--counts", type=Path, default=RECORD, help="the record (default: counts.json of the checkout)")
    parser.add_argument("--record", action="store_true", help="write the counts instead of comparing with them")
    options = parser.parse_args(arguments)
    targets = options.targets.split(",")
    unknown = [t for t in targets if t not in TARGETS]
    if unknown:
        parser.error(f"unknown target {unknown[0]!r}; known are {', '.join(TARGETS)}")
    if os.environ.get("TRITON_INTERPRET"):
        parser.error("TRITON_INTERPRET is set, and interpreted kernels cannot be compiled; unset it")

    all_cases = {name: list(cases(shapes)) for name, shapes in shipped().items()}
    jobs = [
        _Job(configuration, index, target)
        for configuration, listed in all_cases.items()
        for index, case in enumerate(listed)
        for target in targets
        if target in shipped()[configuration].targets
        if options.only in f"{configuration} {case.kernel} {case.name}"
    ]
    if not jobs:
        parser.error(f"no case contains {options.only!r}")
    if options.record and (options.only or targets != [*TARGETS]):
        parser.error("--record writes the record of all kernels and targets; leave out --only and --targets")
    record = _record(options.counts) if not options.record else None
    print(
        f"{'configuration':14s} {'kernel':11s} {'call':34s} {'target':7s} {'registers':>9s} {'warps':>5s} "
        f"{'shared':>7s} {'instructions':>12s} {'a pixel':>7s} {'a tap':>5s} {'16-byte stores':>14s} {'seconds':>7s}"
    )
    failed, counted = 0, {}
    with ProcessPoolExecutor(max_workers=options.jobs) as pool:
        for job, report, row, seconds in pool.map(_do, jobs):
            case = all_cases[job.configuration][job.index]
            name = f"{job.configuration}, {case.kernel} {case.name}, {job.target}"
            counted[name] = row
            wrong = faults(case, report)
            if record is not None:
                wrong += counts.compare(name, row, record.get(name))
            failed += bool(wrong)
            print(
                f"{job.configuration:14s} {case.kernel:11s} {case.name:34s} {job.target:7s} {report.registers:9d} "
                f"{case.launch.options['num_warps']:5d} {report.shared:7d} {report.instructions:12d} "
                f"{_figure(row.per_pixel):>7} {_figure(row.per_tap):>5} "
                f"{report.wide_stores if case.stores_views else '-':>14} {seconds:7.1f}  "
                f"{'FAILS: ' + ', '.join(wrong) if wrong else 'ok'}",
                flush=True,
            )
    print(f"{len(jobs)} compilations, {failed} failed")
    if options.record:
        counts.write(options.counts, triton.__version__, counted)
        print(options.counts)
    return int(failed > 0)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _record(path: Path) -> dict[str, Counts] | None:
    """The record that counts are compared with; says so where there is none of this Triton."""
    record = counts.read(path, triton.__version__) if path.is_file() else None
    compared = "with the record" if record is not None else f"with nothing: {path} has no counts of this version"
    print(f"triton {triton.__version__}, counts compared {compared}")
    return record


if __name__ == "__main__":
    sys.exit(main())
