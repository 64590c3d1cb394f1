"""Features of frozen encoders, and the cache that keeps them."""

import dataclasses
import math
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation import cache
from fastaugself.evaluation.datasets import read_dataset
from fastaugself.evaluation.encoders import load_encoder
from fastaugself.evaluation.features import Extractor, Frozen


def test_features_are_the_models_outputs_with_the_published_preprocessing(run, photos, torchvision):
    from torchvision.transforms import v2

    encoder, dataset = load_encoder(str(run)), read_dataset(photos)
    split = dataset.splits["train"]
    resize, crop = v2.Resize(40, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(32)
    x = torch.stack([v2.functional.pil_to_tensor(crop(resize(split.images.open(i)))) for i in range(len(split))])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (encoder.mean, encoder.std))
    expected = encoder.module((x / 255 - mean) / std)
    found = Extractor(resize=40, batch_size=5)(encoder, split, "train")
    torch.testing.assert_close(found.x_ND, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def counted(monkeypatch):
    """Batch sizes of all forward passes."""
    seen = []
    original = Frozen.__call__
    monkeypatch.setattr(Frozen, "__call__", lambda self, x: seen.append(len(x)) or original(self, x))
    return seen


def test_features_are_extracted_once_per_model_and_images(run, other, photos, tmp_path, counted):
    split, extract = read_dataset(photos).splits["train"], Extractor(folder=tmp_path / "cache")
    first = extract(load_encoder(str(run)), split, "train")
    again = extract(load_encoder(str(run)), split, "train")
    assert torch.equal(first.x_ND, again.x_ND) and sum(counted) == 16
    extract(load_encoder(str(other)), split, "train")
    assert sum(counted) == 32
    dataclasses.replace(extract, resize=40)(load_encoder(str(run)), split, "train")
    assert sum(counted) == 48


def test_a_damaged_cache_is_computed_again(run, photos, tmp_path, counted):
    split, extract = read_dataset(photos).splits["test"], Extractor(folder=tmp_path / "cache")
    encoder = load_encoder(str(run))
    whole = extract(encoder, split, "test").x_ND
    (path,) = (tmp_path / "cache").glob("*.npy")
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[-5] ^= 1
    for damaged in (data[:-100], bytes(flipped), b""):
        path.write_bytes(damaged)
        assert torch.equal(extract(encoder, split, "test").x_ND, whole)
    assert sum(counted) == 8 * 4
    assert path.read_bytes() == data


def test_an_interrupted_write_leaves_no_cache_file(tmp_path):
    def batches():
        yield np.ones((2, 3), np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.write(tmp_path, "key", 4, batches())
    assert list(tmp_path.iterdir()) == [] and cache.read(tmp_path, "key", 4) is None
    with pytest.raises(RunError, match="got 2 rows of features for 4 samples"):
        cache.write(tmp_path, "key", 4, [np.ones((2, 3), np.float32)])


def test_a_changed_photo_is_noticed_even_with_equal_size_and_time(run, photos, tmp_path, counted):
    extract, encoder = Extractor(folder=tmp_path / "cache"), load_encoder(str(run))
    before = extract(encoder, read_dataset(photos).splits["test"], "test").x_ND
    path = photos / "test" / "coffee" / "8.jpg"
    data, status = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 16
    path.write_bytes(bytes(data))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = extract(encoder, read_dataset(photos).splits["test"], "test").x_ND
    assert sum(counted) == 16 and not torch.equal(before, after)


def test_features_with_nan_are_refused_and_not_cached(run, photos, tmp_path):
    encoder = load_encoder(str(run))
    encoder.module.bn1.weight[0] = math.nan
    extract = Extractor(folder=tmp_path / "cache")
    with pytest.raises(RunError, match=r"features of tiny on test contain NaN or Inf \(first: sample 0\)"):
        extract(encoder, read_dataset(photos).splits["test"], "test")
    assert list((tmp_path / "cache").glob("*.npy*")) == []


@pytest.mark.parametrize("home", ["none", "missing", "unwritable", "usual"])
def test_the_cache_of_a_user_without_a_home_is_in_a_folder_of_this_user(home, tmp_path, monkeypatch):
    for name in ("FASTAUGSELF_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    if home == "none":  # of a user who is not in /etc/passwd
        monkeypatch.setattr(Path, "home", lambda: Path("~none-such").expanduser())
    else:
        folder = {"missing": "/proc/none", "unwritable": tmp_path / "home", "usual": tmp_path / "home"}[home]
        monkeypatch.setenv("HOME", str(folder))
    if home == "unwritable":
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = cache.default_folder()
    assert found.is_dir()
    if home == "usual":
        assert found == tmp_path / "home" / ".cache" / "fastaugself"
        return
    assert found == tmp_path / "tmp" / f"fastaugself-{os.getuid()}"
    assert found.stat().st_mode & 0o777 == 0o700
    assert cache.default_folder() == found
    found.rmdir()
    found.symlink_to(tmp_path)
    with pytest.raises(UsageError, match="belongs to another user: pass --cache FOLDER, or export FASTAUGSELF_CACHE="):
        cache.default_folder()
    monkeypatch.setenv("FASTAUGSELF_CACHE", str(tmp_path / "own"))
    assert cache.default_folder() == tmp_path / "own"
