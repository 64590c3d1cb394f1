"""Batches of images of any kind, the module that makes their views, and both inside DataLoaders with workers."""

import dataclasses
import functools
import subprocess
import sys

import numpy as np
import pytest
import torch
from pictures import POLICIES, InWorker, Pictures, arrays
from PIL import Image
from torch.utils.data import DataLoader

from fastaugself_kernels import (
    AugmentViews,
    RaggedBatch,
    ViewPolicy,
    WithIndex,
    augment,
    collate_images,
    sample_params,
)


def image_of(batch, i):
    H, W = batch.sizes_B2[i].tolist()
    start = int(batch.offsets_B[i])
    return batch.pixels[start : start + H * W * 3].view(H, W, 3).numpy()


@pytest.mark.parametrize(
    "kind",
    [Image.fromarray, np.asarray, torch.from_numpy, lambda x: torch.from_numpy(x).permute(2, 0, 1),
     lambda x: np.concatenate([x, x[..., :1]], 2), lambda x: np.asfortranarray(x),
     lambda x: Image.fromarray(np.concatenate([x, x[..., :1]], 2))],
    ids=["PIL", "array", "HWC", "CHW", "alpha", "fortran", "RGBA"],
)  # fmt: skip
def test_images_of_any_size_are_packed_unchanged(kind):
    images = arrays()
    batch = collate_images([kind(image) for image in images])
    assert batch.ids_B is None and batch.labels_B.tolist() == [-1] * 7
    assert batch.pixels.dtype == torch.uint8 and batch.pixels.numel() == sum(image.size for image in images)
    for i, image in enumerate(images):
        np.testing.assert_array_equal(image_of(batch, i), image)


def test_grey_images_get_three_channels():
    grey = np.random.default_rng(0).integers(0, 256, (9, 5), dtype=np.uint8)
    for image in (grey, grey[..., None], Image.fromarray(grey), torch.from_numpy(grey), torch.from_numpy(grey)[None]):
        np.testing.assert_array_equal(image_of(collate_images([image]), 0), np.repeat(grey[..., None], 3, 2))


def test_labels_and_indices_of_every_form_of_item():
    x = arrays(1)[0]
    for label in (3, np.int32(3), np.array(3), torch.tensor(3)):
        assert collate_images([(x, label)]).labels_B.tolist() == [3]
    assert collate_images([(x, None), [x, 2]]).labels_B.tolist() == [-1, 2]
    assert collate_images([{"image": x, "label": 5}, {"image": x}]).labels_B.tolist() == [5, -1]
    named = functools.partial(collate_images, image="img", label="fine_label")
    assert named([{"img": x, "fine_label": 1, "coarse_label": 4}]).labels_B.tolist() == [1]
    indexed = WithIndex([(x, 3), (x, 4)])
    batch = collate_images([indexed[1], indexed[0]])
    assert batch.ids_B.tolist() == [1, 0] and batch.labels_B.tolist() == [4, 3]
    assert WithIndex(Pictures()).classes == ("a", "b") and len(indexed) == 2


@pytest.mark.parametrize(
    ("items", "message"),
    [([], "at least one image"),
     ([np.zeros((4, 4, 3))], r"uint8 pixels from 0 to 255, got float64 \[4, 4, 3\]: leave out ToTensor"),
     ([torch.zeros(3, 4, 4)], r"uint8 pixels from 0 to 255, got torch.float32"),
     ([torch.zeros(3, 4, 3, dtype=torch.uint8)], r"can be \[C, H, W\] or \[H, W, C\]"),
     ([np.zeros((4, 4, 2), np.uint8)], r"must be \[H, W, 3\] or \[H, W\]"),
     ([np.zeros((0, 4, 3), np.uint8)], "at least one pixel"),
     ([Image.new("I;16", (4, 4))], "mode I;16 has more than 8 bits"),
     ([Image.new("F", (4, 4))], "mode F has more than 8 bits"),
     (["photo.jpg"], "got str: open files in the data set"),
     ([(np.zeros((4, 4, 3), np.uint8), "cat")], "a label must be a whole number or None, got str 'cat'"),
     ([(np.zeros((4, 4, 3), np.uint8), 1.5)], "a label must be a whole number"),
     ([(np.zeros((4, 4, 3), np.uint8), 1, 2)], "got 3 values"),
     ([{"img": 1}], "no key 'image' but img: name the image's with functools.partial"),
     ([WithIndex(arrays(1))[0], arrays(1)[0]], "1 of 2 items have an index")],
)  # fmt: skip
def test_what_is_no_image_is_refused_with_the_remedy(items, message):
    with pytest.raises(ValueError, match=message):
        collate_images(items)


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
    module = AugmentViews(ViewPolicy.moco_v2(224), size=12)
    assert [policy.size for policy in module.policies] == [12, 12]
    assert module([arrays(1)[0]])[0].shape == (2, 1, 3, 12, 12)


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


def test_the_epoch_is_set_once_or_given():
    batch = collate_images([WithIndex(arrays())[i] for i in range(3)])
    module = AugmentViews(POLICIES)
    module.set_epoch(7)
    torch.testing.assert_close(module(batch)[1], module(batch)[1], rtol=0, atol=0)
    torch.testing.assert_close(module(batch)[1], AugmentViews(POLICIES)(batch, epoch=7)[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("images", "ids", "message"),
    [(np.zeros((2, 4, 4, 3), np.uint8), None, "must be a RaggedBatch, a uint8 tensor or a list of images, got ndarray"),
     (torch.zeros(2, 3, 4, 4), None, r"uint8 tensor \[B, H, W, 3\] or \[B, 3, H, W\]"),
     (torch.zeros(2, 3, 4, 3, dtype=torch.uint8), None, "can be channels-first or last"),
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


def batches_of(workers, context=None):
    loader = DataLoader(
        WithIndex(Pictures()), batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(0),
        collate_fn=collate_images, num_workers=workers, multiprocessing_context=context,
    )  # fmt: skip
    return [*loader]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_batches_of_workers_are_those_of_the_main_process(context):
    for here, there in zip(batches_of(0), batches_of(2, context), strict=True):
        assert isinstance(there, RaggedBatch)
        for a, b in zip(here, there, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_views_made_in_workers_are_those_of_the_main_process(context):
    here = [InWorker()[i] for i in range(4)]  # the parent has run the kernels, with threads, before the fork
    loader = DataLoader(InWorker(), batch_size=None, num_workers=2, multiprocessing_context=context)
    for a, b in zip(here, loader, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_first_call_imports_no_compiler():
    code = """
import sys, torch
from fastaugself_kernels import AugmentViews, ViewPolicy, infonce
AugmentViews(ViewPolicy.moco_v2(16))(torch.zeros(2, 20, 20, 3, dtype=torch.uint8))
q = torch.randn(4, 8, requires_grad=True)
infonce(q, torch.randn(4, 8), torch.randn(16, 8), 0.2).sum().backward()
print(q.grad.abs().sum().item() > 0, "torch._dynamo" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]
