"""The compile check without a GPU: it passes what is shipped, and refuses a spill and narrow stores.

Quick parts only, on one target; `make check-kernels` compiles everything for all of them.
"""

import importlib.metadata
import importlib.util
import os
import re
import struct
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

import fastaugself_kernels

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton: pip install triton"),
    pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="interpreted kernels cannot be compiled"),
    pytest.mark.xdist_group("check-kernels"),
]


@pytest.fixture(scope="module")
def check():
    from fastaugself_kernels import check

    return check


@pytest.fixture(scope="module")
def cuda(check):
    return check.shipped()["default-cuda"]


def verdict(check, launch, *, wide=True, target="sm_90"):
    """Faults and report of a launch compiled for a target."""
    report = check.compile_for(launch, check.TARGETS[target])
    return check.faults(check.Case("", launch, wide), report), report


def test_the_main_path_is_shipped_without_a_fault(check, cuda):
    """224 px in bfloat16: no spill, and six 16-byte stores of three words on two branches."""
    resize, finish = check.launches(cuda, 224, torch.bfloat16)
    assert verdict(check, resize, wide=False)[0] == []
    found, report = verdict(check, finish)
    assert found == [] and report.wide_stores == 6 and report.narrow_stores == 0


def test_a_whole_96_px_view_in_one_program_is_refused_for_its_spills(check, cuda):
    (launch,) = check.launches(replace(cuda, small=((96, 16),)), 96, torch.float16)
    found, report = verdict(check, launch)
    assert report.spilled > 0 and any("spills" in fault for fault in found)


def test_narrow_stores_are_refused(check, cuda):
    """Widths that are no multiple of 8 fall back to stores of one value; where they could be wide, that is a fault."""
    (launch,) = check.launches(cuda, 30, torch.float16)
    found, _ = verdict(check, launch)
    assert any("no 16-byte stores" in fault for fault in found)
    assert any("of 1 or 2 bytes" in fault for fault in found)


def test_rocm_assembly_is_read(check):
    """A wave of 64 on AMD: registers, spills and wide stores come out of the assembly text."""
    (launch,) = check.launches(check.shipped()["default-rocm"], 32, torch.float16)
    found, report = verdict(check, launch, target="gfx942")
    assert found == [] and report.wide_stores == 3 and 0 < report.registers <= 512


def test_the_parameter_kernel_multiplies_and_adds_apart(check, cuda):
    """A fused multiply-add rounds once where the CPU rounds twice, and its parameters would differ in the last bit."""
    (sample,) = [case.launch for case in check.cases(cuda) if case.kernel == "sample"]
    fused = replace(sample, options={**sample.options, "enable_fp_fusion": True})
    apart, together = (check.compile_for(x, check.TARGETS["sm_90"]).opcodes["DFMA"] for x in (sample, fused))
    assert apart < together  # what remains are the insides of exp, sqrt and the division


def test_every_kernel_and_option_is_among_the_cases(check, cuda):
    listed = list(check.cases(cuda))
    kernels = {"resize", "finish", "small", "shift", "sample", "targets", "descriptors"}
    assert {case.kernel for case in listed} == kernels
    finishes = [case.launch.constants for case in listed if case.kernel == "finish"]
    for option in ("SHIFT", "BEFORE_GRAY", "HSV", "ROUND"):
        assert {constants[option] for constants in finishes} == {True, False}, option
    named = {target for shapes in check.shipped().values() for target in shapes.targets}
    assert named == set(check.TARGETS)


def run(*arguments):
    command = [sys.executable, "-P", "-m", "fastaugself_kernels.check", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_prints_a_line_per_compilation_and_succeeds():
    result = run("--targets", "sm_90", "--only", "shift 224", "--jobs", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 compilations, 0 failed" in result.stdout and "registers" in result.stdout


@pytest.mark.parametrize(
    "arguments,message",
    [(("--targets", "sm_1"), "unknown target 'sm_1'; known are sm_80"), (("--only", "qwerty"), "no case contains")],
    ids=["target", "case"],
)
def test_the_command_refuses_what_it_does_not_know(arguments, message):
    result = run(*arguments)
    assert result.returncode == 2 and message in result.stderr


# --- python -m fastaugself_kernels.tune -------------------------------------------------------------------------------


def test_the_search_finds_what_is_fastest_and_writes_what_can_be_read(check, cuda, tmp_path):
    """Against a clock whose optimum is known: no GPU is asked, and nothing is compiled."""
    from fastaugself_kernels import tune

    def clock(launch):
        kernel, constants, warps = launch.kernel.__name__, launch.constants, launch.options["num_warps"]
        if kernel == "resize_kernel":
            limit = launch.options.get("maxnreg", 255)
            return abs(constants["RB"] - 56) + abs(constants["CB"] - 128) + abs(limit - 96) + warps
        if kernel == "finish_kernel":
            if constants["RB"] == 64 and warps == 4:
                raise RuntimeError("does not fit")
            return constants["RB"] + constants["CB"] + 8 / warps
        return constants["CB"] * abs(warps - 2) + (1000 if constants["CB"] == 64 else 1)

    best, measured = tune.search(cuda, clock, torch.device("meta"))
    assert best.resize == tune.Tile(56, 128, 1, 96)
    assert (best.finish.rows, best.finish.columns, best.finish.warps) == (64, 32, 8)
    assert (best.finish_float32.rows, best.finish_float32.columns, best.finish_float32.warps) == (64, 16, 8)
    assert best.small == best.small_float32 == ((32, 2),)  # at 64 the two launches are faster
    assert set(measured) == {"resize", "finish", "finish_float32", "small 32", "small_float32 32"}
    path = tune.write(best, measured, "NVIDIA H100 80GB HBM3", "sm_90", tmp_path)
    version = ".".join(importlib.metadata.version("triton").split("+")[0].split(".")[:3])
    assert path.name == f"nvidia-h100-80gb-hbm3.triton-{version}.json"
    assert check.Config.read(path) == replace(best, targets=("sm_90",))


def test_what_there_is_no_time_for_stays_as_it_was(check, cuda):
    from fastaugself_kernels import tune

    start = replace(cuda, small=((64, 8),), small_float32=((32, 4),))
    untouched, measured = tune.search(start, tune.Limited(lambda launch: 1.0, -1), torch.device("meta"))
    assert untouched == start and measured == {}
    calls = iter(range(len(tune.FINISH)))

    def clock(launch):
        return 100.0 - next(calls)  # the last shape is the best, and then it is over

    best, measured = tune.search(start, clock, torch.device("meta"))
    assert best == replace(start, finish=tune.FINISH[-1]) and set(measured) == {"finish"}


def test_the_search_says_what_it_needs():
    if torch.cuda.is_available():
        pytest.skip("it would search")
    command = [sys.executable, "-P", "-m", "fastaugself_kernels.tune"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and "a CUDA or ROCm device is needed" in result.stderr


def test_the_inlined_ptx_gives_what_a_division_by_255_gives():
    """The constants of finish.py's multiply-add, in exact arithmetic rounded once."""
    source = (Path(fastaugself_kernels.__file__).parent / "triton" / "finish.py").read_text()
    pairs = set(re.findall(r"fma\.rn\.f32 \$(\d), \$\1, 0f(\w{8}), 0f(\w{8});", source))
    assert {index for index, *_ in pairs} == set("0123")
    ((factor, offset),) = {tuple(struct.unpack(">f", bytes.fromhex(word))[0] for word in pair[1:]) for pair in pairs}
    unit = torch.tensor(1.0) / 255
    for byte in range(256):
        magic = struct.unpack(">f", struct.pack(">I", 0x47000000 | byte << 8))[0]
        exact = Fraction(magic) * Fraction(factor) + Fraction(offset)
        assert torch.tensor(float(exact)) == byte * unit
