"""eval on a damaged .beton: the sample is named, and an error of the photos is not taken for one of the cache."""

import io

import numpy as np
import pytest
from PIL import Image

from fastaugself.data.beton.format import Beton
from fastaugself.data.beton.writer import BetonWriter
from fastaugself.data.inputs.convert import write_beton
from fastaugself.errors import RunError
from fastaugself.evaluation import cache
from fastaugself.evaluation.datasets import read_dataset
from fastaugself.evaluation.encoder import Encoder
from fastaugself.evaluation.features import Extractor


def damage(beton, sample, out, how):
    """A copy of the file in which one sample is damaged."""
    data = bytearray(beton.read_bytes())
    with Beton(beton) as opened:
        start, length = int(opened.pointers_N[sample]), int(opened.bytes_N[sample])
    part = {"all": (0, length), "start": (0, 4), "scan": (length // 2, length // 2 + 64), "end": (length - 80, length)}
    first, last = part[how]
    random = np.random.default_rng(1).bytes(last - first)
    data[start + first : start + last] = random if how == "scan" else bytes(last - first)
    out.write_bytes(data)
    return out


def mean_colour():
    import torch

    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    return Encoder("mean", "mean", Mean(), 16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "digest")


@pytest.mark.parametrize("how", ["all", "start", "scan", "end"])
@pytest.mark.parametrize("cached", [True, False])
def test_the_damaged_sample_is_named(how, cached, beton, tmp_path):
    damaged = damage(beton, 5, tmp_path / "damaged.beton", how)
    dataset = read_dataset(damaged)
    extract = Extractor(folder=tmp_path / "cache" if cached else None)
    with pytest.raises(RunError, match=r"damaged\.beton: sample 5 cannot be decoded \(.*copy or write") as caught:
        extract(mean_colour(), dataset.splits["all"], "all")
    assert "cache" not in str(caught.value)


def test_intact_photos_have_pillows_pixels(beton, photo_folder):
    images = read_dataset(beton).splits["all"].images
    paths = sorted(photo_folder.rglob("*.jpg"))
    for i in (0, 17, 63):
        assert np.array_equal(images.open(i), Image.open(paths[i]).convert("RGB"))


def test_gray_and_raw_samples_are_rgb(photo_folder, tmp_path):
    photo = Image.open(photo_folder / "coffee" / "00.jpg")
    out = io.BytesIO()
    photo.convert("L").save(out, "JPEG")
    with BetonWriter(tmp_path / "x.beton", 2) as writer:
        writer.add(out.getvalue())
        writer.add(np.asarray(photo))
    images = read_dataset(tmp_path / "x.beton").splits["all"].images
    assert np.array_equal(images.open(0), Image.open(out).convert("RGB"))
    assert np.array_equal(images.open(1), photo)


def test_only_errors_of_its_own_folder_are_errors_of_the_cache(tmp_path):
    def failing(error):
        yield np.zeros((1, 2), np.float32)
        raise error

    for error in (
        OSError("broken data stream"),
        OSError(5, "Input/output error"),
        FileNotFoundError(2, "gone", "x.jpg"),
    ):
        with pytest.raises(OSError) as caught:
            cache.write(tmp_path / "cache", "key", 2, failing(error))
        assert caught.value is error and error.filename in (None, "x.jpg")
    assert not list((tmp_path / "cache").glob("*"))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"features cannot be written to .*file: .*pass another --cache"):
        cache.write(tmp_path / "file", "key", 1, [np.zeros((1, 2), np.float32)])


def test_an_emptied_file_is_named(photo_folder, tmp_path):
    """A file that becomes shorter while it is open."""
    out = write_beton(photo_folder, tmp_path / "x.beton", progress=False).path
    images = read_dataset(out).splits["all"].images
    images.open(0)
    with open(out, "r+b") as stream:
        stream.truncate(200)
    with pytest.raises(RunError, match=r"x\.beton"):
        images.open(40)
