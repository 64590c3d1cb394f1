"""Counts of compiled code: control flow is read from a disassembly, the workload's figures are right, growth fails."""

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch

from fastaugself_kernels import counts, sass
from fastaugself_kernels.counts import Counts

# As nvdisasm prints it: a loop over rows (3 + 2 instructions) with a loop over taps (4) and a fork (1 or 3) inside.
LISTING = """
.section	.text.kernel,"ax",@progbits
kernel:
.text.kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   S2R R0, SR_TID.X ;
.L_x_0:
        /*0020*/                   IADD3 R2, R2, 0x1, RZ ;
        /*0030*/                   MOV R3, RZ ;
        /*0040*/              @!P0 CALL.REL.NOINC `(.L_x_2) ;
.L_x_1:
        /*0050*/                   LDG.E.U8 R4, desc[UR4][R6.64] ;
        /*0060*/                   LDG.E.U8.CONSTANT R5, desc[UR4][R6.64+0x1] ;
        /*0070*/                   LDG.E.U8 R8, desc[UR4][R6.64+0x2] ;
        /*0080*/               @P1 BRA `(.L_x_1) ;
.L_x_2:
        /*0090*/               @P3 BRA P4, `(.L_x_3) ;
        /*00a0*/                   FADD R4, R4, R5 ;
        /*00b0*/                   FADD R4, R4, R5 ;
        /*00c0*/                   FADD R4, R4, R5 ;
.L_x_3:
        /*00d0*/                   ISETP.NE.AND P2, PT, R2, R9, PT ;
        /*00e0*/               @P2 BRA `(.L_x_0) ;
        /*00f0*/               @P5 EXIT ;
        /*0100*/                   STG.E desc[UR4][R6.64], R4 ;
        /*0110*/                   EXIT ;
.L_x_4:
        /*0120*/                   BRA `(.L_x_4);
        /*0130*/                   NOP;
"""


def test_loops_are_found_and_the_trap_at_the_end_is_none():
    code = sass.blocks(LISTING)
    assert Counter(op for block in code for op in block.opcodes)["LDG.E.U8"] == 2
    (rows,) = sass.loops(code)
    assert rows.shape == "[[]]" and len(rows.blocks) == 5
    (taps,) = rows.inner
    assert [code[block].opcodes[-1] for block in taps.blocks] == ["BRA"]


@pytest.mark.parametrize(("rows", "taps"), [(1, 1), (7, 2.5), (10, 0)])
def test_the_longest_way_takes_loops_as_often_as_told_and_the_longer_side_of_forks(rows, taps):
    code = sass.blocks(LISTING)
    assert sass.longest(code, (rows, taps)) == 2 + rows * (3 + taps * 4 + 1 + 3 + 2) + 3
    assert sass.longest(code, (rows, taps), counts.byte_loads) == rows * taps * 3
    assert counts.per_tap(code) == 4


def test_a_block_that_rarely_runs_counts_its_share():
    code = sass.blocks(LISTING)
    (fork,) = [i for i, block in enumerate(code) if block.opcodes[0] == "FADD"]
    assert sass.longest(code, (2, 3), shares={fork: 0.25}) == 2 + 2 * (3 + 3 * 4 + 1 + 3 * 0.25 + 2) + 3


def test_another_number_of_loops_is_an_error():
    with pytest.raises(ValueError, match=r"2 loops, \[\[\]\], and there are 3"):
        sass.longest(sass.blocks(LISTING), (1, 2, 3))


def test_code_without_loops_and_without_byte_loads():
    code = sass.blocks("   /*0000*/   MOV R1, R2 ;\n   /*0010*/   @P0 EXIT ;\n   /*0020*/   EXIT ;\n")
    assert sass.loops(code) == () and sass.longest(code, ()) == 3 and counts.per_tap(code) is None


def test_the_way_to_a_loop_can_be_longer_than_through_a_fork_around_it():
    """A loop that goes round less than once, as of taps that few images have, costs its share."""
    text = LISTING.replace("@!P0 CALL.REL.NOINC `(.L_x_2)", "MOV R3, RZ")
    assert sass.longest(sass.blocks(text), (1, 0.25)) == 2 + 3 + 1 + 4 + 2 + 3


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "resident"),
    [
        (32, 0, 1, 32),  # 32 programs at most
        (128, 0, 1, 16),  # 65536 / (128 * 32)
        (168, 0, 4, 12),  # three programs of 4 * 5376 registers
        (255, 0, 4, 8),  # given out by 8 registers a thread: 256
        (114, 0, 1, 16),  # four of 3840 in each quarter of the file, though the whole has room for 17
        (40, 40 * 1024, 4, 20),  # 228 KiB hold five of 41 KiB
        (32, 0, 4, 64),
    ],
)
def test_occupancy_is_that_of_nvidias_table(registers, shared, warps, resident):
    assert counts.idle_warps("sm_90", registers, shared, warps) == 64 - resident
    assert counts.idle_warps("gfx942", registers, shared, warps) is None


def test_lines_of_a_load_are_those_of_its_addresses():
    """Against a loop over the lanes of every warp of every crop."""
    constants = {"OH": 64, "OW": 64, "CB": 128, "ANTIALIAS": 1}
    layout = "#blocked = #ttg.blocked<{sizePerThread = [%d], threadsPerWarp = [32], warpsPerCTA = [1], order = [0]}>\n"
    load = "%9 = tt.load %8 : tensor<128x!tt.ptr<i8>, #blocked> loc(#loc1)\n"
    crops, found = counts.workload(64), []
    for top, left, width in zip(crops.top.tolist(), crops.left.tolist(), crops.width.tolist(), strict=True):
        scale = width / 64
        for first in (0, 32):
            lines = set()
            for x in range(first, first + 32):
                start = max(int(scale * (x + 0.5) - max(scale, 1.0) + 0.5), 0)
                lines.add((int(top) * 500 + int(left) + start) * 3 // 128)
            found.append(len(lines))
    expected = sum(found) / len(found)
    assert counts.lines_per_load(layout % 1 + load, constants) == pytest.approx(expected, rel=1e-12)
    assert counts.lines_per_load(layout % 4 + load, constants) > 1.2 * expected
    with pytest.raises(ValueError, match="2 layouts"):
        other = layout.replace("#blocked ", "#blocked1 ") % 2 + load.replace("#blocked>", "#blocked1>")
        counts.lines_per_load(layout % 1 + load + other, constants)


ROW = Counts(1000, 96, 512, 44, 9.0, 150.0, 13.5, 1.9)


@pytest.mark.parametrize("field", ["instructions", "registers", "shared", "idle_warps", "per_tap", "per_pixel"])
def test_growth_of_more_than_five_percent_fails_with_the_row_named(field):
    old = getattr(ROW, field)
    assert counts.compare("resize 224", replace(ROW, **{field: old * 1.05}), ROW) == []
    assert counts.compare("resize 224", replace(ROW, **{field: old * 0.5}), ROW) == []
    (fault,) = counts.compare("resize 224", replace(ROW, **{field: old * 1.051}), ROW)
    assert fault.startswith(f"{field} of resize 224 grew from {old:g}")


def test_rows_and_figures_that_the_record_has_not_fail():
    assert "--record" in counts.compare("small 32", ROW, None)[0]
    assert counts.compare("x", ROW, replace(ROW, per_tap=None)) == ["per_tap of x is 9.0, in the record None"]
    (fault,) = counts.compare("x", ROW, replace(ROW, shared=0))
    assert "grew from 0 to 512" in fault


def test_a_record_is_read_as_it_was_written_and_not_by_another_triton(tmp_path):
    path = tmp_path / "counts.json"
    rows = {"b, resize": ROW, "a, sample": Counts(2808, 128, 0)}
    counts.write(path, "3.7.1", rows)
    assert counts.read(path, "3.7.1") == rows
    assert counts.read(path, "3.6.0") is None
    assert [*json.loads(path.read_text())["rows"]] == ["a, sample", "b, resize"]


def test_trips_are_the_means_of_the_crops():
    """Of two outputs of the same crops: of a loop for columns, then rows of a tile, source rows, taps, colour steps."""
    code = [
        sass.Block(("BRA",), (0, 1)),  # columns
        *(sass.Block(("BRA",), successors) for successors in ((2,), (3,), (3, 4), (2, 5), (5, 1, 6), ())),
    ]
    assert "".join(loop.shape for loop in sass.loops(code)) == "[][[[]][]]"
    constants = {"OH": 224, "OW": 224, "RB": 32, "ANTIALIAS": False}
    columns, tile, rate, further, steps = counts.resize_trips(code, constants)
    crops = counts.workload(224)
    assert columns == 1 and further == 0 and tile == 32 and steps == pytest.approx(1.2)
    assert rate == pytest.approx(float((crops.height / 224).clamp(max=2).mean()) + 1 / 32)
    first, *shrunk = counts.resize_trips(code, constants | {"ANTIALIAS": True})
    taps = (crops.width / 224 * 2).clamp(min=2).ceil()
    assert first == pytest.approx(float(taps.mean()) - 1)
    assert shrunk[1] == pytest.approx(float((crops.height / 224)[crops.height > 224].mean()) * 33 / 32)
    for block, loads in ((2, 18), (3, 6), (4, 6)):  # two columns a thread: taps 0 to 2, a loop of taps, tap 3
        code[block] = sass.Block(("LDG.E.U8",) * loads, code[block].successors)
    shares = counts.resize_shares(code, constants | {"ANTIALIAS": True, "CB": 64}, 1)
    assert shares == {2: 1.0, 4: pytest.approx(float((taps > 3).double().mean()))} and 0 < shares[4] < 1
    with pytest.raises(ValueError, match="whose trips are not known"):
        counts.resize_trips(sass.blocks(LISTING), constants)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton: pip install triton")
@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="interpreted kernels cannot be compiled")
@pytest.mark.xdist_group("check-kernels")
def test_the_check_fails_where_the_record_is_surpassed(tmp_path):
    """The command, on a record of its own whose row is then made smaller than what is compiled."""
    import triton

    from fastaugself_kernels import check

    path = tmp_path / "counts.json"
    case = next(case for case in check.cases(check.shipped()["default-cuda"]) if case.kernel == "shift")
    name = f"default-cuda, shift {case.name}, sm_90"
    row = check.count(case, check.compile_for(case.launch, check.TARGETS["sm_90"]), "sm_90")
    command = [sys.executable, "-P", "-m", "fastaugself_kernels.check", "--targets", "sm_90", "--jobs", "1"]
    command += ["--only", f"shift {case.name}", "--counts", str(path)]
    for instructions, status in ((row.instructions, 0), (row.instructions // 2, 1)):
        counts.write(path, triton.__version__, {name: replace(row, instructions=instructions)})
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == status, result.stdout + result.stderr
        assert (f"instructions of {name} grew" in result.stdout) == bool(status)
    refused = subprocess.run([*command, "--record"], capture_output=True, text=True)
    assert refused.returncode == 2 and "leave out --only and --targets" in refused.stderr


def test_the_shipped_record_has_the_figures_of_the_main_path():
    path = counts.Path(counts.__file__).parents[1] / "counts.json"
    rows = json.loads(path.read_text())["rows"]
    for target in counts.MULTIPROCESSORS:
        row = Counts(**rows[f"default-cuda, resize 224 bf16, {target}"])
        assert None not in (row.per_pixel, row.loads_per_pixel, row.lines_per_load, row.per_tap, row.idle_warps)
    assert torch.tensor([row["registers"] for row in rows.values()]).max() <= 512
