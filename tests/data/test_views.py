"""ViewLoader: views, parameters and targets for any loop, from every kind of photos, in an addressed order."""

import dataclasses
import os
import shutil

import numpy as np
import pytest
import torch
from pictures import Pictures
from PIL import Image

from fastaugself import ViewLoader, ViewPolicy
from fastaugself.data.inputs.convert import write_beton
from fastaugself.data.inputs.opening import read_rgb
from fastaugself.errors import RunError, UsageError
from fastaugself_kernels import augment, augself_targets, descriptors, sample_params

POLICIES = (ViewPolicy.moco_v2(16), dataclasses.replace(ViewPolicy.moco_v2(16), solarize=0.5))


def by_id(loader, epoch=None):
    """Views of each photo over an epoch, by its id."""
    if epoch is not None:
        loader.set_epoch(epoch)
    return {int(i): batch.views_VBCHW[:, b] for batch in loader for b, i in enumerate(batch.ids_B)}


def test_a_batch_holds_views_parameters_targets_and_descriptors(beton):
    with ViewLoader(beton, POLICIES, batch_size=8, seed=3, source="native", color_shift=True, device="cpu") as loader:
        loader.set_epoch(2)
        batch = next(iter(loader))
        photos = loader.photos.take(batch.ids_B.numpy())
        assert len(loader) == 8 and loader.classes == ["astronaut", "chelsea", "coffee", "rocket"]
    params = sample_params(batch.ids_B, photos.sizes_B2, POLICIES, seed=3, epoch=2)
    x, shift = augment(*photos[:3], params, size=16, blur_kernel=3, color_shift=True)
    torch.testing.assert_close(batch.params_VBP, params, rtol=0, atol=0)
    torch.testing.assert_close(batch.views_VBCHW, x, rtol=0, atol=0)
    torch.testing.assert_close(torch.stack(batch.views), x, rtol=0, atol=0)
    assert torch.equal(batch.labels_B, photos.labels_B) and torch.equal(batch.sizes_B2, photos.sizes_B2)
    for a, b in zip(
        batch.targets(mode="fixed"), augself_targets(params, photos.sizes_B2, POLICIES, mode="fixed"), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    expected = descriptors(params, photos.sizes_B2, POLICIES, shift)
    torch.testing.assert_close(batch.descriptors(), expected, rtol=0, atol=0)


def test_every_iteration_is_the_next_epoch_and_can_start_anywhere(beton):
    with ViewLoader(beton, POLICIES, batch_size=10, source="native", device="cpu") as loader:
        first, second = [[b.ids_B.tolist() for b in loader] for _ in range(2)]
        assert loader.epoch == 2 and len(first) == len(second) == 6 and first != second
        loader.set_epoch(1, start=4)
        assert [b.ids_B.tolist() for b in loader] == second[4:]
        assert not torch.equal(by_id(loader, 0)[first[0][0]], by_id(loader, 1)[first[0][0]])


@pytest.mark.parametrize("kind", ["beton", "paths", "dataset"])
def test_any_number_of_processes_has_the_same_views(kind, beton, photo_folder):
    paths = [str(path) for path in sorted(photo_folder.glob("*/*.jpg"))[:24]]
    photos = {"beton": beton, "paths": paths, "dataset": Pictures(24)}[kind]
    options = {"seed": 5, "device": "cpu", "source": "native"}
    whole = by_id(ViewLoader(photos, POLICIES, batch_size=12, **options), epoch=1)
    parts = [by_id(ViewLoader(photos, POLICIES, batch_size=4, rank=r, world=3, **options), epoch=1) for r in range(3)]
    assert sum(map(len, parts)) == len(whole) > 20
    for part in parts:
        for i, views in part.items():
            torch.testing.assert_close(views, whole[i], rtol=0, atol=0)


def test_a_folder_a_file_and_a_list_of_paths_give_the_same_views(tmp_path):
    random = np.random.default_rng(0)
    for name in ("a/0.png", "a/1.png", "b/0.png"):  # without loss, so that every decoder gives the same pixels
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (24, 33, 3), dtype=np.uint8)).save(tmp_path / "photos" / name)
    write_beton(tmp_path / "photos", tmp_path / "file.beton", quality=100, progress=False)
    shutil.copytree(tmp_path / "photos", tmp_path / "other")
    options = {"batch_size": 3, "device": "cpu", "order": "sequential", "source": "native"}
    folder = ViewLoader(str(tmp_path / "other"), POLICIES, **options)
    assert (tmp_path / "other.beton").exists() and folder.classes == ["a", "b"]
    file = ViewLoader(tmp_path / "file.beton", POLICIES, **options)
    listed = ViewLoader(sorted((tmp_path / "photos").glob("*/*.png")), POLICIES, **options)
    batches = [next(iter(loader)) for loader in (folder, file, listed)]
    assert [batch.labels_B.tolist() for batch in batches] == [[0, 0, 1], [0, 0, 1], [-1, -1, -1]]
    for batch in batches:
        torch.testing.assert_close(batch.params_VBP, batches[0].params_VBP, rtol=0, atol=0)
    pixels = torch.from_numpy(
        np.stack([np.asarray(read_rgb(p)) for p in sorted((tmp_path / "photos").glob("*/*.png"))])
    )
    x = augment(pixels, None, batches[2].sizes_B2, batches[2].params_VBP, size=16, blur_kernel=3)
    torch.testing.assert_close(batches[2].views_VBCHW, x, rtol=0, atol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_of_ones_own(workers):
    photos = Pictures(23)
    options = {"batch_size": 5, "workers": workers, "device": "cpu"}
    loader = ViewLoader(photos, ViewPolicy.moco_v2(224), size=12, drop_last=False, **options)
    batches = [*loader]
    assert [len(batch.ids_B) for batch in batches] == [5, 5, 5, 5, 3] and len(loader) == 5
    assert sorted(i for batch in batches for i in batch.ids_B.tolist()) == list(range(23))
    assert all(batch.labels_B.tolist() == [i % 2 for i in batch.ids_B.tolist()] for batch in batches)
    assert batches[0].views_VBCHW.shape == (2, 5, 3, 12, 12) and loader.classes == ["a", "b"]
    assert all(
        batch.sizes_B2.tolist() == [list(photos.arrays[i].shape[:2]) for i in batch.ids_B.tolist()] for batch in batches
    )


def test_local_crops_are_views_of_another_size():
    policies = (*POLICIES, ViewPolicy(size=8, scale=(0.05, 0.2)))
    batch = next(iter(ViewLoader(Pictures(), policies, batch_size=4, device="cpu")))
    assert [x.shape for x in batch.views] == [(4, 3, 16, 16)] * 2 + [(4, 3, 8, 8)]
    with pytest.raises(ValueError, match=r"different sizes \(16, 16, 8 pixels\); use batch.views"):
        batch.views_VBCHW  # noqa: B018


@pytest.mark.parametrize(
    ("photos", "options", "message"),
    [("{tmp}/nothing", {}, "no such file or folder"),
     ("{tmp}/photo.jpg", {}, r"is not a .beton file; pass \['.*photo.jpg', ...\] for photos"),
     (3, {}, "photos are int; pass a folder"),
     ([], {}, "photos are empty"),
     (Pictures(4), {"batch_size": 5}, "a batch of 5 on each of 1 processes is larger than the 4 photos"),
     (Pictures(4), {"order": "quasi-random"}, "is for .beton files")],
)  # fmt: skip
def test_what_cannot_work_is_refused(photos, options, message, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"1")
    photos = photos.replace("{tmp}", str(tmp_path)) if isinstance(photos, str) else photos
    with pytest.raises(UsageError, match=message):
        ViewLoader(photos, POLICIES, **{"batch_size": 2, "device": "cpu", **options})


def test_an_unreadable_photo_is_named(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"no photo")
    with pytest.raises(RunError, match=r"photo\.jpg"):
        next(iter(ViewLoader([tmp_path / "photo.jpg"], POLICIES, batch_size=1, device="cpu")))
    with pytest.raises(UsageError, match="epoch must be at least 0 and start from 0 to 4"):
        ViewLoader(Pictures(4), POLICIES, batch_size=1, device="cpu").set_epoch(0, start=5)


def test_an_epoch_that_is_left_early_leaves_no_thread(beton):
    import threading

    before = threading.active_count()
    with ViewLoader(beton, POLICIES, batch_size=4, source="native", device="cpu") as loader:
        for _ in loader:
            break
    assert threading.active_count() == before and os.path.exists(beton)
