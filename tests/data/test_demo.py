"""The demo data set: crops of real photos, with the factors recorded in the sidecar."""

import importlib.util

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from fastaugself.data.beton import sidecar
from fastaugself.data.beton.format import Beton
from fastaugself.data.demo import load_photos, write_demo
from fastaugself.errors import UsageError


def test_factors_of_every_crop_are_those_of_the_sidecar(tmp_path):
    """Cropping the photo again with the recorded factors gives the stored pixels."""
    photos = load_photos()
    with Beton(write_demo(tmp_path / "demo.beton", count=48, size=64)) as beton:
        described = sidecar.read(beton)
        assert described.classes == list(photos)
        columns = {name: np.array(values) for name, values in described.columns.items()}
        assert set(columns) == {"photo", "centre_y", "centre_x", "scale", "hue"}
        assert np.array_equal(columns["photo"], beton.labels_N)
        assert np.bincount(beton.labels_N).tolist() == [6] * 8
        assert np.all((columns["scale"] >= 0.35) & (columns["scale"] < 0.8))
        assert np.all((columns["hue"] >= -0.5) & (columns["hue"] < 0.5))
        assert len(set(described.columns["hue"])) > 30
        for i in range(48):
            photo = photos[described.classes[beton.labels_N[i]]]
            centre_y, centre_x = columns["centre_y"][i] * photo.height, columns["centre_x"][i] * photo.width
            half = columns["scale"][i] * min(photo.size) / 2
            box = (round(centre_x - half), round(centre_y - half), round(centre_x + half), round(centre_y + half))
            assert box[0] >= 0 and box[1] >= 0 and box[2] <= photo.width and box[3] <= photo.height
            expected = np.asarray(photo.crop(box).resize((64, 64), Image.Resampling.LANCZOS).convert("HSV")).copy()
            expected[..., 0] += np.uint8(int(columns["hue"][i] * 256) % 256)
            expected = np.asarray(Image.fromarray(expected, "HSV").convert("RGB"), np.float32)
            stored = simplejpeg.decode_jpeg(beton.read(i)).astype(np.float32)
            # JPEG and a box rounded to pixels; the crop of another place or hue differs by 20 to 100 levels. The
            # telescope's stars are points, which half a pixel moves a good deal.
            assert np.abs(stored - expected).mean() < (12 if described.classes[beton.labels_N[i]] == "hubble" else 8), i


def test_the_same_arguments_give_the_same_bytes_and_splits_are_other_crops(tmp_path):
    def columns(name, **arguments):
        with Beton(write_demo(tmp_path / name, count=64, size=16, **arguments)) as beton:
            return beton.path.read_bytes(), sidecar.read(beton).columns

    first, train = columns("a.beton")
    again, _ = columns("b.beton")
    _, val = columns("c.beton", split="val")
    _, seeded = columns("d.beton", seed=1)
    assert first == again
    for other in (val, seeded):
        assert not set(zip(*train.values(), strict=True)) & set(zip(*other.values(), strict=True))


def test_missing_packages_are_named_with_the_remedy(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else found(name))
    with pytest.raises(UsageError, match="sklearn is not installed: pip install scikit-image scikit-learn"):
        write_demo(tmp_path / "demo.beton", count=8)


@pytest.mark.parametrize("arguments", [{"split": "test"}, {"count": 0}, {"size": 4}])
def test_wrong_use_is_named(arguments, tmp_path):
    with pytest.raises(UsageError, match="expected"):
        write_demo(tmp_path / "demo.beton", **arguments)
