"""Conversion of one photo: JPEGs are copied, other photos converted, unreadable ones stop the job with their name."""

import os
import threading

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from fastaugself.data.demo import load_photos
from fastaugself.data.inputs.convert import write_beton
from fastaugself.data.inputs.photo import load_photo
from fastaugself.errors import RunError


@pytest.fixture(scope="module")
def photo():
    """A real photo, 90 x 120."""
    return load_photos()["cat"].resize((120, 90))


def save(image, path, *args, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, *args, **kwargs)
    return path


def difference(a, b):
    return np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # display rotated by 90 degrees clockwise
    return {"exif": exif}


PASSED = {
    "baseline": lambda photo, path: save(photo, path, "JPEG", quality=90),
    "progressive": lambda photo, path: save(photo, path, "JPEG", progressive=True),
    "gray": lambda photo, path: save(photo.convert("L"), path, "JPEG"),
    "4:4:4": lambda photo, path: save(photo, path, "JPEG", subsampling="4:4:4"),
    "five wide": lambda photo, path: save(photo.resize((5, 90)), path, "JPEG"),
    "one pixel": lambda photo, path: save(photo.resize((1, 1)), path, "JPEG"),
    "bytes behind the end": lambda photo, path: path.write_bytes(save(photo, path, "JPEG").read_bytes() + b"more"),
}


@pytest.mark.parametrize("kind", PASSED)
def test_jpeg_bytes_pass_through(kind, photo, tmp_path):
    path = tmp_path / "x.jpg"
    PASSED[kind](photo, path)
    result = load_photo(path, max_side=120)
    assert result.image == path.read_bytes()
    assert result.reencoded is None
    assert (result.width, result.height) == Image.open(path).size


def deep(photo, path):
    gray = np.asarray(photo.convert("L"), np.uint16) * 257
    save(Image.fromarray(gray), path, "PNG")


CONVERTED = {
    "png": (lambda photo, path: save(photo, path, "PNG"), "PNG"),
    "png called jpg": (lambda photo, path: save(photo, path, "PNG"), "PNG"),
    "webp": (lambda photo, path: save(photo, path, "WEBP", lossless=True), "WEBP"),
    "rgba": (lambda photo, path: save(photo.convert("RGBA"), path, "PNG"), "PNG"),
    "gray with alpha": (lambda photo, path: save(photo.convert("LA"), path, "PNG"), "PNG"),
    "palette": (lambda photo, path: save(photo.quantize(256), path, "PNG"), "PNG"),
    "16 bit": (deep, "16-bit PNG"),
    "black and white": (lambda photo, path: save(photo.convert("1"), path, "PNG"), "PNG"),
    "cmyk": (lambda photo, path: save(photo.convert("CMYK"), path, "JPEG", quality=95), "CMYK"),
    "exif rotation": (lambda photo, path: save(photo, path, "JPEG", quality=95, **turned()), "EXIF rotation"),
}


@pytest.mark.parametrize("kind", CONVERTED)
def test_other_photos_become_rgb_jpegs_that_look_the_same(kind, photo, tmp_path):
    make, reason = CONVERTED[kind]
    path = tmp_path / "x.jpg"
    make(photo, path)
    result = load_photo(path, quality=95)
    pixels = simplejpeg.decode_jpeg(result.image)
    expected = photo.transpose(Image.Transpose.ROTATE_270) if kind == "exif rotation" else photo
    if kind in ("gray with alpha", "16 bit", "black and white"):
        expected = expected.convert("1" if kind == "black and white" else "L").convert("RGB")
    assert result.reencoded == reason
    assert simplejpeg.decode_jpeg_header(result.image)[2:] == ("YCbCr", "420")
    assert pixels.shape == (result.height, result.width, 3) == (expected.height, expected.width, 3)
    # JPEG at quality 95 moves a pixel of this photo by 2 levels; a palette, or dots of pure black and white, by more.
    assert difference(pixels, expected) < {"palette": 8, "black and white": 20}.get(kind, 4)


def test_a_photo_larger_than_max_side_is_made_smaller(photo, tmp_path):
    path = save(photo, tmp_path / "x.jpg", "JPEG", quality=95)
    result = load_photo(path, max_side=100, quality=95)
    assert (result.height, result.width, result.reencoded) == (75, 100, "larger than max-side")
    smaller = photo.resize((100, 75), Image.Resampling.LANCZOS)
    assert difference(simplejpeg.decode_jpeg(result.image), smaller) < 4


def test_a_harmless_decoder_warning_is_reported_and_the_photo_reencoded(photo, tmp_path):
    path = save(photo, tmp_path / "x.jpg", "JPEG", quality=95)
    data = path.read_bytes()
    tables = data.index(b"\xff\xdb")
    path.write_bytes(data[:tables] + bytes(3) + data[tables:])  # libjpeg: "extraneous bytes before marker"
    result = load_photo(path, quality=95)
    assert result.reencoded == "unusual JPEG"
    assert "extraneous bytes" in result.warning
    assert difference(simplejpeg.decode_jpeg(result.image), photo) < 4


def truncated_jpeg(photo, path):
    path.write_bytes(save(photo, path, "JPEG").read_bytes()[:-500])


def corrupt_scan(photo, path):
    data = bytearray(save(photo, path, "JPEG", quality=95).read_bytes())
    data[-2000:-1800] = np.random.default_rng(0).bytes(200)
    path.write_bytes(data)


def float_tiff(photo, path):
    save(Image.fromarray(np.zeros((4, 4), np.float32)), path, "TIFF")


UNREADABLE = {
    "empty": (lambda photo, path: path.write_bytes(b""), "it is empty"),
    "text": (lambda photo, path: path.write_text("not a photo"), r"11 bytes, starting with 6e 6f 74 20"),
    "truncated jpeg": (truncated_jpeg, "cannot be decoded: Premature end of JPEG file"),
    "corrupt scan": (corrupt_scan, "cannot be decoded: Corrupt JPEG data"),
    "truncated png": (lambda photo, path: path.write_bytes(save(photo, path, "PNG").read_bytes()[:5000]), "truncated"),
    "float": (float_tiff, "floating-point pixels have no known range"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_photo_stops_the_job_with_its_name_and_no_output(kind, photo, tmp_path):
    make, message = UNREADABLE[kind]
    for i in range(20):
        save(photo, tmp_path / "photos" / f"{i:02d}.jpg", "JPEG")
    make(photo, tmp_path / "photos" / "07.jpg")
    with pytest.raises(RunError, match=message) as caught:
        write_beton(tmp_path / "photos", tmp_path / "out.beton", progress=False)
    assert str(tmp_path / "photos" / "07.jpg") in str(caught.value)
    # No output file; the seven photos before it are kept for a resumed run (beton/test_resume.py).
    assert sorted(os.listdir(tmp_path)) == ["out.beton.manifest.jsonl.partial", "out.beton.partial", "photos"]
    assert not [t for t in threading.enumerate() if t.name.startswith("ordered-map")]
