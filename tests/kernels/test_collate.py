"""Batches of images of any kind, the module that makes their views, and both inside DataLoaders with workers."""

import functools

import numpy as np
import pytest
import torch
from pictures import POLICIES, Pictures, arrays
from PIL import Image
from torch.utils.data import DataLoader, Subset
from torch.utils.data._utils.pin_memory import pin_memory

from fastaugself_kernels import (
    AugmentViews,
    RaggedBatch,
    WithIndex,
    collate_images,
)


def image_of(batch, i):
    H, W = batch.sizes_B2[i].tolist()
    start = int(batch.offsets_B[i])
    return batch.pixels[start : start + H * W * 3].view(H, W, 3).numpy()


@pytest.mark.parametrize(
    "kind",
    [Image.fromarray, np.asarray, torch.from_numpy, lambda x: torch.from_numpy(x).permute(2, 0, 1),
     lambda x: np.concatenate([x, x[..., :1]], 2), lambda x: np.asfortranarray(x),
     lambda x: Image.fromarray(np.concatenate([x, x[..., :1]], 2)), lambda x: x.astype(np.uint16) * 257,
     lambda x: torch.from_numpy(x.astype(np.uint16) * 257).permute(2, 0, 1)],
    ids=["PIL", "array", "HWC", "CHW", "alpha", "fortran", "RGBA", "16-bit", "16-bit CHW"],
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


def test_16_bit_gray_becomes_8_bit_by_its_range():
    deep = np.array([[0, 128, 129, 65535], [257, 32768, 65406, 65407]], np.uint16)
    expected = np.array([[0, 0, 1, 255], [1, 128, 254, 255]])
    for image in (deep, Image.fromarray(deep), Image.fromarray(deep.astype(np.int32)), torch.from_numpy(deep)):
        np.testing.assert_array_equal(image_of(collate_images([image]), 0)[..., 1], expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode_of_pillow_is_what_pillow_makes_of_it(mode):
    image = Image.fromarray(arrays(1)[0])
    image = image.convert("LA").convert(mode) if mode == "PA" else image.convert("RGB")
    if mode == "LAB":
        image = Image.frombytes("LAB", image.size, image.tobytes())
    elif mode != "PA":
        image = image.convert(mode)
    np.testing.assert_array_equal(image_of(collate_images([image]), 0), np.asarray(image.convert("RGB")))


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


def test_ids_of_every_form_of_item():
    x = arrays(1)[0]
    assert collate_images([(x, 3, 70), (x, 4, np.int64(2**40))]).ids_B.tolist() == [70, 2**40]
    assert collate_images([{"image": x, "id": torch.tensor(9)}]).ids_B.tolist() == [9]
    assert collate_images([{"image": x, "row": 9}], id="row").ids_B.tolist() == [9]
    batch = collate_images([(x, 3, "a.jpg"), (x, 4, "b.jpg")])  # lightly's
    assert batch.ids_B is None and batch.labels_B.tolist() == [3, 4]
    named = WithIndex([(x, 3, "a.jpg"), (x, 4, 70)])
    assert collate_images([named[1], named[0]]).ids_B.tolist() == [1, 0]  # the index goes before another id


def test_a_part_of_an_indexed_data_set_keeps_the_ids_of_the_whole():
    part = Subset(WithIndex(Pictures()), [20, 3, 11])
    (batch,) = DataLoader(part, batch_size=3, collate_fn=collate_images)
    assert batch.ids_B.tolist() == [20, 3, 11] and batch.labels_B.tolist() == [0, 1, 1]


def test_the_items_of_a_batch_are_fetched_at_once_where_the_data_set_can():
    class Table(list):
        fetched = ()

        def __getitems__(self, indices):
            self.fetched = (*self.fetched, tuple(indices))
            return [self[index] for index in indices]

    table = Table({"image": x, "label": i} for i, x in enumerate(arrays(5)))
    batches = [*DataLoader(WithIndex(table), batch_size=2, collate_fn=collate_images)]
    assert table.fetched == ((0, 1), (2, 3), (4,))
    assert [batch.ids_B.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert [batch.labels_B.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]


def test_a_data_set_without_indices_is_refused_with_the_remedy():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield arrays(1)[0]

    for stream in (Stream(), iter([1])):
        with pytest.raises(ValueError, match=r"needs a data set with __getitem__, got .* \(image, label, id\)"):
            WithIndex(stream)


def test_a_batch_moves_whole():
    for items in (arrays(3), [WithIndex(arrays(3))[i] for i in range(3)]):
        batch = collate_images(items)
        moved = batch.to("meta", non_blocking=True)
        assert isinstance(moved, RaggedBatch) and (moved.ids_B is None) == (batch.ids_B is None)
        assert all(t.device.type == "meta" for t in moved if t is not None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_batch_is_pinned_by_the_data_loader():
    batch = next(iter(DataLoader(WithIndex(Pictures()), 4, collate_fn=collate_images, pin_memory=True)))
    assert isinstance(batch, RaggedBatch) and all(tensor.is_pinned() for tensor in batch)
    views, params = AugmentViews(POLICIES).cuda()(batch)
    assert views.is_cuda and params.is_cuda


def test_pinning_reaches_every_tensor(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *_: self + 1)  # a copy that can be told apart
    batch = collate_images([WithIndex([*np.zeros((3, 4, 4, 3), np.uint8)])[i] for i in range(3)])
    for pinned in (batch.pin_memory(), pin_memory(batch)):  # the latter is what a DataLoader does
        assert isinstance(pinned, RaggedBatch)
        assert all(torch.equal(b, a + 1) for a, b in zip(batch, pinned, strict=True))
    assert collate_images([*np.zeros((3, 4, 4, 3), np.uint8)]).pin_memory().ids_B is None


@pytest.mark.parametrize(
    ("items", "message"),
    [([], "at least one image"),
     ([np.zeros((4, 4, 3))], r"uint8 pixels from 0 to 255, got float64 \[4, 4, 3\]: leave out ToTensor"),
     ([torch.zeros(3, 4, 4)], r"uint8 pixels from 0 to 255, got torch.float32"),
     ([torch.zeros(3, 4, 3, dtype=torch.uint8)], r"can be \[C, H, W\] or \[H, W, C\]"),
     ([np.zeros((4, 4, 2), np.uint8)], r"must be \[H, W, 3\] or \[H, W\]"),
     ([np.zeros((0, 4, 3), np.uint8)], "at least one pixel"),
     ([np.zeros((3, 4, 5), np.uint8)], r"channels last, got \[3, 4, 5\]; pass image.transpose\(1, 2, 0\)"),
     ([np.zeros((2, 4, 4, 3), np.uint8)], r"got \[2, 4, 4, 3\]; a batch of images goes to AugmentViews"),
     ([np.zeros((4, 4, 3), bool)], "got bool"),
     ([torch.zeros(1, 4, 3, dtype=torch.uint8)], r"can be \[C, H, W\] or \[H, W, C\]"),
     ([Image.fromarray(np.array([[70000]], np.int32))], "mode I has values from 70000 to 70000, which do not fit 16"),
     ([Image.new("F", (4, 4))], "mode F has pixels of an unknown range"),
     (["photo.jpg"], "got str: open files in the data set"),
     ([(np.zeros((4, 4, 3), np.uint8), "cat")], "a label must be a whole number or None, got str 'cat'"),
     ([(np.zeros((4, 4, 3), np.uint8), 1.5)], "a label must be a whole number"),
     ([(np.zeros((4, 4, 3), np.uint8), True)], "a label must be a whole number"),
     ([(np.zeros((4, 4, 3), np.uint8), [1, 2])], "a label must be a whole number"),
     ([(np.zeros((4, 4, 3), np.uint8), 1, 2, 3)], "got 4 values"),
     ([(np.zeros((4, 4, 3), np.uint8), 1, 2), (np.zeros((4, 4, 3), np.uint8), 1)], "1 of 2 items have an id"),
     ([{"img": 1}], "no key 'image' but img: name the image's with functools.partial"),
     ([WithIndex(arrays(1))[0], arrays(1)[0]], r"wrap the whole data set: WithIndex\(dataset\)")],
)  # fmt: skip
def test_what_is_no_image_is_refused_with_the_remedy(items, message):
    with pytest.raises(ValueError, match=message):
        collate_images(items)


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
        assert there.pixels.is_shared() and there.pixels.untyped_storage().nbytes() == len(here.pixels)
        for a, b in zip(here, there, strict=True):
            assert torch.equal(a, b)
