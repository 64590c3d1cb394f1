"""Kernels compiled before there is a GPU: what a later launch asks Triton's cache for is there."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from fastaugself_kernels import ViewPolicy, sample_params
from fastaugself_kernels.backends import Options

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton: pip install triton"),
    pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="interpreted kernels cannot be compiled"),
    pytest.mark.xdist_group("check-kernels"),
]


@pytest.fixture
def precompile():
    from fastaugself_kernels import precompile

    return precompile


def entries(cache):
    return sorted(path.name for path in Path(cache).iterdir())


def launches_of_training(shapes, count):
    """What `augment` launches for a batch of `count` photos in real memory, of sizes that no case of the list has."""
    from fastaugself_kernels.triton.augment import augment_launches

    sizes_B2 = torch.full((count, 2), 41, dtype=torch.int32)
    pixels = torch.zeros(count * 41 * 41 * 3, dtype=torch.uint8)
    return augment_launches(
        shapes,
        pixels,
        torch.arange(count) * (41 * 41 * 3),
        torch.full((count,), 123, dtype=torch.int32),
        sample_params(torch.arange(count), sizes_B2, (ViewPolicy.moco_v2(32),) * 2, seed=0, epoch=0),
        torch.empty(2, count, 32, 32, 3, dtype=torch.bfloat16).permute(0, 1, 4, 2, 3),
        torch.empty(2, count, 3),
        norm=[4.4, 4.5, 4.6, -2.1, -2.2, -2.3],
        options=Options(),
    )


def test_a_launch_finds_what_was_compiled_without_a_gpu(precompile, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    shapes = precompile.shapes_here("sm_90")
    (launch,) = launches_of_training(shapes, 7)
    launch.kernel.device_caches.clear()
    assert precompile.main(["--target", "sm_90", "--jobs", "1", "--only", "small, 32 bf16, shift"]) == 0
    assert "1 kernels, 0 failed" in capsys.readouterr().out
    before = entries(tmp_path)
    launch.kernel.device_caches.clear()  # as in another process
    with precompile.as_if_on(precompile.TARGETS["sm_90"]):
        for count in (7, 48):  # no multiple of 16, and one
            for launch in launches_of_training(shapes, count):
                precompile.compile_launch(launch)
        assert entries(tmp_path) == before and before
        (other,) = launches_of_training(shapes, 7)
        other.options["num_warps"] *= 2
        precompile.compile_launch(other)
    assert entries(tmp_path) != before  # the comparison above can fail


def test_the_driver_of_before_is_active_again_after_an_error(precompile):
    import triton

    before = triton.runtime.driver._active
    with pytest.raises(ZeroDivisionError), precompile.as_if_on(precompile.TARGETS["sm_90"]):
        assert triton.runtime.driver.active.get_current_target().arch == 90
        raise ZeroDivisionError
    assert triton.runtime.driver._active is before


def test_every_case_of_the_check_and_every_shape_of_the_search_is_listed_once(precompile):
    from fastaugself_kernels import check, tune

    shapes = check.shipped()["default-cuda"]
    listed = precompile.launches(shapes, tuned=True)
    assert len({precompile._key(launch) for _, launch in listed}) == len(listed)
    assert {precompile._key(case.launch) for case in check.cases(shapes)} <= {precompile._key(x) for _, x in listed}
    measured = [launch for name, launch in listed if launch.kernel.__name__ == "resize_kernel"]
    assert {(x.constants["RB"], x.options["num_warps"], x.options.get("maxnreg")) for x in measured} >= {
        (tile.rows, tile.warps, tile.registers) for tile in tune.RESIZE
    }
    assert len(precompile.launches(shapes, tuned=False)) < len(listed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "sm_90", "--only", "qwerty"), "no kernel's line contains 'qwerty'"),
        (("--target", "sm_90", "--jobs", "0"), "--jobs must be at least 1, got 0"),
        ((), "this machine has no GPU among sm_80"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(precompile, arguments, message, capsys):
    if not arguments and torch.cuda.is_available():
        pytest.skip("it would compile")
    with pytest.raises(SystemExit):
        precompile.main(arguments)
    assert message in capsys.readouterr().err
