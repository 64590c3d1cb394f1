"""The module that makes the views of batches, alone and inside DataLoaders with workers."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch
from pictures import POLICIES, Collate, InWorker, Pictures, Repeated, arrays, two_threads
from torch import nn
from torch.utils.data import DataLoader

from fastaugself_kernels import (
    AugmentViews,
    ViewPolicy,
    WithIndex,
    augment,
    augself_targets,
    collate_images,
    descriptors,
    sample_params,
)


def expected(batch, ids, epoch, *, seed=0, policies=POLICIES, **options):
    params = sample_params(torch.tensor(ids), batch.sizes_B2, policies, seed=seed, epoch=epoch)
    return augment(batch.pixels, batch.offsets_B, batch.sizes_B2, params, size=16, blur_kernel=3, **options), params


def test_views_are_those_of_the_two_calls():
    batch = collate_images([WithIndex(arrays())[i] for i in (4, 0, 6)])
    views, params = AugmentViews(POLICIES, seed=5)(batch, epoch=3)
    x, p = expected(batch, [4, 0, 6], 3, seed=5)
    torch.testing.assert_close(views, x, rtol=0, atol=0)
    torch.testing.assert_close(params, p, rtol=0, atol=0)
    *_, shift = AugmentViews(POLICIES, seed=5, color_shift=True)(batch, epoch=3)
    torch.testing.assert_close(shift, expected(batch, [4, 0, 6], 3, seed=5, color_shift=True)[0][1], rtol=0, atol=0)


def test_every_form_of_input_gives_the_same_views():
    x = torch.from_numpy(np.stack([arrays(1)[0]] * 4))
    module = AugmentViews(ViewPolicy.moco_v2(16))
    first, _ = module(x, ids=[5, 6, 7, 8], epoch=2)
    for images in (x.permute(0, 3, 1, 2), [*x.numpy()], collate_images([*x])):
        again, _ = module(images, ids=torch.arange(5, 9, dtype=torch.int32), epoch=2)
        torch.testing.assert_close(again, first, rtol=0, atol=0)


def test_policies_of_several_sizes_give_one_tensor_each():
    policies = (
        ViewPolicy.moco_v2(16),
        ViewPolicy.moco_v2(16),
        dataclasses.replace(ViewPolicy.moco_v2(8), scale=(0.05, 0.2)),
    )
    batch = collate_images([WithIndex(arrays())[i] for i in range(5)])
    views, params, shift = AugmentViews(policies, color_shift=True)(batch, epoch=0)
    assert [x.shape[-1] for x in views] == [16, 16, 8] and params.shape == (3, 5, 16) and shift.shape == (3, 5, 3)
    alone, _, shift_alone = AugmentViews(policies[:2], color_shift=True)(batch, epoch=0)
    torch.testing.assert_close(torch.stack(views[:2]), alone, rtol=0, atol=0)
    torch.testing.assert_close(shift[:2], shift_alone, rtol=0, atol=0)


def test_size_stands_in_one_place():
    """That of the policies, or `size` in their place, also in what is learned from them; rows are the same."""
    module = AugmentViews(ViewPolicy.moco_v2(224), size=12)
    assert [policy.size for policy in module.policies] == [12, 12]
    views, params = module([arrays(1)[0]], epoch=1)
    assert views.shape == (2, 1, 3, 12, 12)
    again, rows = AugmentViews(ViewPolicy.moco_v2(12))([arrays(1)[0]], epoch=1)
    assert torch.equal(again, views) and torch.equal(rows, params)
    assert torch.equal(AugmentViews(ViewPolicy.moco_v2(224))([arrays(1)[0]], epoch=1)[1], params)


def test_the_blur_reaches_as_far_as_published_at_each_size():
    sharp = dataclasses.replace(ViewPolicy.none(96), blur=1.0, sigma=(8.0, 8.0))
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    params = sample_params(torch.zeros(1, dtype=torch.int64), torch.tensor([[96, 96]]), (sharp,), seed=0, epoch=0)
    for given, taps in ((None, 9), (23, 23)):
        x = augment(torch.from_numpy(image)[None], None, torch.tensor([[96, 96]]), params, size=96, blur_kernel=taps)
        assert torch.equal(AugmentViews((sharp,), blur_kernel=given)([image], ids=[0], epoch=0)[0], x)


def test_what_is_learned_from_the_parameters_comes_from_the_same_objects():
    batch = collate_images([WithIndex(arrays())[i] for i in range(5)])
    module = AugmentViews(POLICIES, color_shift=True)
    _, params, shift = module(batch)
    assert augself_targets(params, batch.sizes_B2, module.policies)[0].crop_B4.shape == (5, 4)
    assert descriptors(params, batch.sizes_B2, module.policies, shift).shape == (2, 5, 14)
    for call in (augself_targets, descriptors):
        with pytest.raises(ValueError, match=r"got a single one; pass \(policy, policy\)"):
            call(params, batch.sizes_B2, ViewPolicy())


def test_options_reach_the_kernel():
    options = {
        "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "dtype": torch.bfloat16, "channels": 4, "rounding": "none",
        "antialias": False, "solarize_before_gray": True, "saturation": "hsv", "backend": "reference",
    }  # fmt: skip
    batch = collate_images([WithIndex(arrays())[i] for i in range(4)])
    views, _ = AugmentViews(POLICIES, **options)(batch, epoch=0)
    assert views.dtype == torch.bfloat16 and views.shape == (2, 4, 4, 16, 16)
    assert torch.equal(views, expected(batch, range(4), 0, **options)[0])


def test_without_ids_and_epoch_every_call_has_its_own_views_and_a_program_repeats_them():
    batch = collate_images(arrays())
    one, other = AugmentViews(POLICIES), AugmentViews(POLICIES)
    calls = [[module(batch)[1] for _ in range(3)] for module in (one, other)]
    for a, b in zip(*calls, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(calls[0][0], calls[0][1]) and not torch.equal(calls[0][1], calls[0][2])
    later = AugmentViews(POLICIES)
    later.load_state_dict(one.state_dict())
    torch.testing.assert_close(later(batch)[1], one(batch)[1], rtol=0, atol=0)


def test_the_state_is_a_tensor_and_may_be_missing_from_a_checkpoint(tmp_path):
    """Exports to safetensors and averages of weights take tensors; weights without counters are loaded as ever."""
    from safetensors.torch import load_file, save_file

    def model():
        return nn.ModuleDict({"views": AugmentViews(POLICIES), "encoder": nn.Linear(2, 2)})

    trained, batch = model(), collate_images(arrays())
    trained["views"].set_epoch(3)
    trained["views"](batch)
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    resumed = model()
    resumed.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert resumed["views"].epoch == 3
    assert torch.equal(resumed["views"](batch)[1], trained["views"](batch)[1])
    without = {name: value for name, value in trained.state_dict().items() if name.startswith("encoder")}
    fresh = model()
    fresh.load_state_dict(without)
    assert fresh["views"].epoch is None and torch.equal(fresh["encoder"].weight, trained["encoder"].weight)
    with pytest.raises(RuntimeError, match=r"Missing key.*encoder\.bias"):
        fresh.load_state_dict({"encoder.weight": without["encoder.weight"]})
    assert [*AugmentViews(POLICIES).parameters()] == []


def test_images_are_numbered_apart_on_every_process(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    seen = []

    def sample(ids_B, *rest, **options):
        seen.append(ids_B.tolist())
        return sample_params(ids_B, *rest, **options)

    monkeypatch.setattr(importlib.import_module("fastaugself_kernels.augment_views"), "sample_params", sample)
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        module = AugmentViews(POLICIES)
        for count in (3, 2):
            module(collate_images(arrays(count)))
    assert seen == [[0, 2, 4], [6, 8], [1, 3, 5], [7, 9]]


def test_views_are_made_where_the_module_is_and_where_images_on_a_gpu_are(monkeypatch):
    """On the device without values, which stands for a GPU."""

    def sample(ids_B, sizes_B2, policies, **_):  # which reads sizes, except on CUDA
        assert ids_B.device == sizes_B2.device
        return torch.empty(len(policies), len(ids_B), 16, device=ids_B.device)

    batch = collate_images([WithIndex(arrays())[i] for i in range(3)])
    module = AugmentViews(POLICIES)
    made = []
    monkeypatch.setattr(importlib.import_module("fastaugself_kernels.augment_views"), "sample_params", sample)
    module._views = lambda batch, params: (made.append((batch.pixels.device.type, params.device.type)), None)
    module(batch)
    module(batch.to("meta"))
    module.to("meta")(batch)
    assert made == [("cpu", "cpu"), ("meta", "meta"), ("meta", "meta")]


def test_train_and_eval_make_no_difference_and_no_gradient_is_recorded():
    batch = collate_images([WithIndex(arrays())[i] for i in range(3)])
    module = AugmentViews(POLICIES)
    views, _ = module.train()(batch, epoch=0)
    assert torch.equal(views, module.eval()(batch, epoch=0)[0]) and not views.requires_grad


def test_the_epoch_is_set_once_or_given():
    batch = collate_images([WithIndex(arrays())[i] for i in range(3)])
    module = AugmentViews(POLICIES)
    module.set_epoch(7)
    torch.testing.assert_close(module(batch)[1], module(batch)[1], rtol=0, atol=0)
    torch.testing.assert_close(module(batch)[1], AugmentViews(POLICIES)(batch, epoch=7)[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("images", "ids", "message"),
    [(np.zeros((2, 4, 4, 3), np.uint8), None, r"got ndarray; pass collate_fn=.* or torch.from_numpy\(images\)"),
     (torch.zeros(2, 3, 4, 4), None, r"uint8 tensor \[B, H, W, 3\] or \[B, 3, H, W\]"),
     (torch.zeros(2, 3, 4, 3, dtype=torch.uint8), None, "can be channels first or last"),
     (torch.zeros(4, 4, 3, dtype=torch.uint8), None, r"got torch.uint8 \[4, 4, 3\]"),
     (torch.zeros(0, 4, 4, 3, dtype=torch.uint8), None, r"got torch.uint8 \[0, 4, 4, 3\]"),
     ([], None, "at least one image"),
     ([np.zeros((4, 4, 3), np.uint8)], [1, 2], "ids must be 1 whole numbers, one per image, got torch.int64"),
     ([np.zeros((4, 4, 3), np.uint8)], [1.5], "whole numbers")],
)  # fmt: skip
def test_wrong_input_is_named(images, ids, message):
    with pytest.raises(ValueError, match=message):
        AugmentViews(POLICIES)(images, ids)


def test_wrong_policies_are_named():
    with pytest.raises(ValueError, match="one ViewPolicy per view"):
        AugmentViews([224])
    sizes = torch.tensor([[4, 4]])
    with pytest.raises(ValueError, match=r"pass \(policy, policy\) for two views"):
        sample_params(torch.arange(1), sizes, ViewPolicy(), seed=0, epoch=0)
    with pytest.raises(ValueError, match=r"sample_ids_B must be a tensor, got list; pass torch.as_tensor"):
        sample_params([1], sizes, (ViewPolicy(),), seed=0, epoch=0)
    params = sample_params(torch.arange(1), sizes, (ViewPolicy(),), seed=0, epoch=0)
    with pytest.raises(ValueError, match="pixels must be a tensor, got ndarray"):
        augment(np.zeros((1, 4, 4, 3), np.uint8), None, sizes, params, size=16)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_views_made_in_workers_are_those_of_the_main_process(context):
    here = [InWorker()[i] for i in range(4)]  # the parent has run the kernels, with threads, before the fork
    loader = DataLoader(InWorker(), batch_size=None, num_workers=2, multiprocessing_context=context)
    for a, b in zip(here, loader, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_copies_in_workers_do_not_repeat_an_epoch_that_nobody_set():
    """Workers are started anew for every epoch, from a module whose counters have not moved."""
    module = AugmentViews(POLICIES)
    loader = DataLoader(
        WithIndex(Pictures(6)), batch_size=3, num_workers=2, multiprocessing_context="fork",
        collate_fn=Collate(module),
    )  # fmt: skip
    torch.manual_seed(0)
    first, second = [*loader], [*loader]
    torch.manual_seed(0)
    again = [*loader]
    for a, b, c in zip(first, second, again, strict=True):
        assert not torch.equal(a, b) and torch.equal(a, c)


def test_two_threads_of_a_forked_worker_make_views_after_two_threads_of_its_parent(monkeypatch):
    """The kernels' threads of the parent are not in the child, which starts its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        batch = collate_images([WithIndex(arrays(64))[i] for i in range(64)])
        views, _ = AugmentViews(POLICIES)(batch, epoch=0)
        loader = DataLoader(
            Repeated(batch), batch_size=None, num_workers=2, multiprocessing_context="fork", worker_init_fn=two_threads,
            timeout=60,
        )  # fmt: skip
        assert all(torch.equal(x, views) for x in loader)
    finally:
        torch.set_num_threads(before)
