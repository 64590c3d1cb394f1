"""Triton's sampler, targets and descriptors, run by its interpreter, against the torch mirror and plain formulas."""

import importlib.util
from dataclasses import replace

import pytest
import torch
from interpreter import MARKS, TURNED, interpreted, photos

from fastaugself_kernels import ViewPolicy, augself_targets, sample_params
from fastaugself_kernels.params import (
    COLUMNS,
    ORDER,
    ROTATION,
    pack_policies,
    packed,
)
from fastaugself_kernels.sampling import sample_params_torch
from fastaugself_kernels.targets import CASSLE_PARTS, TRITON_PARTS

pytestmark = MARKS


@interpreted
@pytest.mark.parametrize("seed,epoch", [(0, 0), (-5, 1), (2**64 - 1, 2**32 - 1), (2**63, 77)], ids=str)
def test_parameters_have_the_bits_of_the_torch_mirror(seed, epoch):
    from fastaugself_kernels.triton.sampling import sample_params_triton

    random = torch.Generator().manual_seed(0)
    ids = torch.randint(-(2**63), 2**63 - 1, (150,), generator=random)
    ids[:5] = torch.tensor([0, 1, 2**33 + 1, -1, 2**62])
    sizes = torch.randint(1, 700, (150, 2), generator=random)
    policies = (
        replace(TURNED, scale=(0.2, 1.0)),
        ViewPolicy.byol(0),
        replace(ViewPolicy(), scale=(0.9, 1.0), ratio=(3.0, 4.0)),  # mostly the central box
    )
    table = pack_policies(policies)
    expected = sample_params_torch(ids, sizes, table, seed=seed, epoch=epoch)
    assert expected[0, :, ROTATION].unique().tolist() == [0, 1, 2, 3] and len(expected[0, :, ORDER].unique()) == 24
    assert torch.equal(sample_params_triton(ids, sizes, table, seed=seed, epoch=epoch), expected)
    assert torch.equal(sample_params_triton(ids[:3], sizes.int()[:3], table, seed=seed, epoch=epoch), expected[:, :3])


@interpreted
def test_no_samples_have_no_parameters():
    from fastaugself_kernels.triton.sampling import sample_params_triton

    none = torch.zeros(0, dtype=torch.int64)
    table = pack_policies((ViewPolicy(),))
    assert sample_params_triton(none, none.view(0, 2), table, seed=0, epoch=0).shape == (1, 0, len(COLUMNS))


def rows_of_all_kinds():
    """Parameters, sizes and policies whose targets and descriptors take every branch."""
    sizes = torch.randint(1, 700, (150, 2), generator=torch.Generator().manual_seed(1))
    policies = (replace(TURNED, solarize=0.5), replace(TURNED, brightness=0.0, sigma=(0.1, 3.0)))
    return sample_params(torch.arange(150), sizes, policies, seed=4, epoch=0), sizes, policies


@interpreted
@pytest.mark.parametrize("mode", ["published", "fixed"])
def test_targets_have_the_bits_of_the_plain_formulas(mode):
    from fastaugself_kernels.triton.targets import targets_triton

    params, sizes, policies = rows_of_all_kinds()
    fields = targets_triton(params, sizes.int(), pack_policies(policies), fixed=mode == "fixed")
    for order, expected in enumerate(augself_targets(params, sizes, policies, mode=mode)):
        for field, got, want in zip(expected._fields, fields, expected, strict=True):
            assert got.dtype == want.dtype and torch.equal(got[order], want), field


@interpreted
@pytest.mark.parametrize("include", [None, ["crop", "color"], sorted(set(CASSLE_PARTS) - {"flip"})], ids=str)
def test_descriptors_have_the_bits_of_the_plain_formulas(include, monkeypatch):
    from fastaugself_kernels import targets

    params, sizes, policies = rows_of_all_kinds()
    shift = torch.rand(2, 150, 3, generator=torch.Generator().manual_seed(0))
    expected = targets.descriptors(params, sizes, policies, shift, include=include)
    monkeypatch.setattr(targets, "_in_one_launch", lambda params_VBP: True)
    assert torch.equal(targets.descriptors(params, sizes, policies, shift, include=include), expected)


@interpreted
def test_the_kernel_serves_its_own_parts_and_the_formulas_all_others(monkeypatch):
    from fastaugself_kernels import targets
    from fastaugself_kernels.triton import targets as triton_targets

    params, sizes, policies = rows_of_all_kinds()
    launched = []
    monkeypatch.setattr(targets, "_in_one_launch", lambda params_VBP: True)
    monkeypatch.setattr(triton_targets, "run", lambda launches, device: launched.extend(launches))
    assert set(triton_targets.PARTS.values()) == TRITON_PARTS and set(targets.DESCRIPTORS) > TRITON_PARTS
    shift = torch.zeros(2, 150, 3)
    for part in targets.DESCRIPTORS:
        launched.clear()
        made = targets.descriptors(params, sizes, policies, shift, include=["crop", part])
        assert len(launched) == (part in TRITON_PARTS), part
        assert part in TRITON_PARTS or not made.isnan().any(), part


def test_a_batch_on_a_gpu_takes_few_launches_and_reads_nothing(monkeypatch):
    """Everything that runs on the device for views with parameters, targets and descriptors, counted without one."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from fastaugself_kernels import targets
    from fastaugself_kernels.triton import augment as backend
    from fastaugself_kernels.triton import sampling
    from fastaugself_kernels.triton import targets as triton_targets

    monkeypatch.undo()  # the poison would be counted
    free = ("aten.select", "aten.slice", "aten.view", "aten.unsqueeze", "aten.permute", "aten.detach", "aten.empty",
            "aten.alias", "aten.as_strided", "aten.expand", "aten._unsafe_view", "aten.t.")  # fmt: skip
    calls = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            if not str(function).startswith(free):
                calls.append(str(function))
            return function(*arguments, **(keywords or {}))

    for module in (backend, triton_targets, sampling):
        monkeypatch.setattr(module, "require_device", lambda *_: None)
        monkeypatch.setattr(module, "run", lambda launches, _: calls.extend(x.kernel.__name__ for x in launches))
    operation = importlib.import_module("fastaugself_kernels.augment")
    monkeypatch.setattr(operation, "check_rows", lambda *_: None)  # which a GPU leaves out
    monkeypatch.setattr(operation, "augment_op", operation._augment)  # registered, it hides what it does
    monkeypatch.setattr(targets, "_in_one_launch", lambda _: True)
    pixels, offsets, sizes = photos((36, 44), (52, 33))
    policies = (ViewPolicy.byol(0), ViewPolicy.byol(1))
    table, ids = packed(policies, pixels.device), torch.arange(2)
    with Count():
        params = sampling.sample_params_triton(ids, sizes, table, seed=0, epoch=0)
        options = {"size": 224, "dtype": torch.bfloat16, "color_shift": True, "backend": "triton"}
        _, shift = operation.augment(pixels, offsets, sizes, params, **options)
        targets.augself_targets(params, sizes, policies)
        targets.descriptors(params, sizes, policies, shift)
    assert calls == [
        "sample_kernel",
        "aten.mul.Tensor",  # bytes per row from the widths
        "resize_kernel",
        "finish_kernel",
        "shift_kernel",
        "targets_kernel",
        "descriptors_kernel",
    ]
