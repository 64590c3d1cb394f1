"""The first call in a process: what it imports, and that the operations survive a second import."""

import subprocess
import sys

import pytest
import torch

import fastaugself_kernels

CALLS = """
import sys, torch
from fastaugself_kernels import ViewPolicy, augment, infonce, sample_params
sizes = torch.tensor([[20, 30]] * 3)
params = sample_params(torch.arange(3), sizes, (ViewPolicy.moco_v2(16),) * 2, seed=0, epoch=0)
images = torch.full((3, 20, 30, 3), 200, dtype=torch.uint8)
views, shift = augment(images, None, sizes, params, size=16, blur_kernel=3, color_shift=True)
q = torch.ones(2, 4, requires_grad=True)
infonce(q, torch.ones(2, 4), torch.ones(5, 4), 0.2).sum().backward()
assert views.shape == (2, 3, 3, 16, 16) and q.grad.shape == (2, 4)
"""


def run(code):
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)


def test_the_first_call_does_not_import_the_compiler_of_torch():
    result = run(CALLS + 'print(*sorted({"torch._dynamo", "torch._inductor"} & set(sys.modules)))')
    assert result.returncode == 0 and result.stdout.strip() == "", result.stderr + result.stdout


def test_the_package_can_be_imported_a_second_time_and_reloaded():
    """By importlib under another name, as some test runners do, and in a notebook."""
    code = f"""
{CALLS}
import importlib, importlib.util, fastaugself_kernels
spec = importlib.util.spec_from_file_location("second", {fastaugself_kernels.__file__!r})
second = sys.modules["second"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(second)
assert second.augment is not augment
again = second.augment(images, None, sizes, params, size=16, blur_kernel=3)
assert torch.equal(again, views)
for name in ("_ops", "augment", "infonce"):
    module = sys.modules["fastaugself_kernels." + name]
    importlib.reload(module)
module = sys.modules["fastaugself_kernels.augment"]
assert torch.equal(module.augment(images, None, sizes, params, size=16, blur_kernel=3), views)
assert torch.equal(augment(images, None, sizes, params, size=16, blur_kernel=3), views)  # the one imported before
print("fine")
"""
    result = run(code)
    assert result.stdout.strip() == "fine", result.stderr


def test_an_operation_of_other_arguments_under_the_same_name_is_refused():
    from fastaugself_kernels._ops import register

    def other(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    with pytest.raises(RuntimeError, match="another version of fastaugself_kernels is loaded"):
        register("infonce", other, torch.empty_like)


def test_parameters_that_require_a_gradient_are_refused_where_one_would_be_missed():
    sizes, policies = torch.tensor([[9, 9]]), (fastaugself_kernels.ViewPolicy.none(8),)
    params = fastaugself_kernels.sample_params(torch.arange(1), sizes, policies, seed=0, epoch=0).requires_grad_()
    images = torch.full((1, 9, 9, 3), 255, dtype=torch.uint8)
    options = {"size": 8, "blur_kernel": 3, "mean": (0, 0, 0), "std": (1, 1, 1)}
    with pytest.raises(ValueError, match=r"pass params_VBP.detach\(\)"):
        fastaugself_kernels.augment(images, None, sizes, params, **options)
    with torch.no_grad():
        assert fastaugself_kernels.augment(images, None, sizes, params, **options).eq(1).all()
