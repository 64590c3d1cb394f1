"""Opening a photo: odd metadata are no fault, any error of a decoder is the photo's, and eval sees what write does."""

import io
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from fastaugself.data.demo import load_photos
from fastaugself.data.inputs import opening
from fastaugself.data.inputs.convert import write_beton
from fastaugself.data.inputs.opening import decode_rgb
from fastaugself.data.inputs.photo import convert
from fastaugself.data.inputs.samples import UnreadablePhoto
from fastaugself.errors import RunError
from fastaugself.evaluation.datasets import read_dataset

# How the upright photo follows from the stored one, [H, W, 3], for each orientation of EXIF (TIFF 6.0, tag 274).
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x),
}


@pytest.fixture(scope="module")
def photo():
    """A real photo, 64 x 96."""
    return load_photos()["cat"].resize((96, 64))


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


ODD = {
    "width of letters": (0x0100, 2, 3, b"ab\0\0"),
    "bits as a fraction": (0x0102, 5, 1, b"\x08\0\0\0"),
    "compression of letters": (0x0103, 2, 4, b"jpg\0"),
    "no resolution": (0x011A, 2, 2, b"x\0\0\0"),
    "software as a number": (0x0131, 11, 1, b"\0\0\x80\x3f"),
    "impossible size": (0x010E, 2, 0x7FFFFFFF, b"\x08\0\0\0"),
    "unknown type": (0x010F, 99, 1, bytes(4)),
    "directory nowhere": (0x8769, 4, 1, b"\xff\xff\0\0"),
    "directory of letters": (0x8825, 2, 4, b"gps\0"),
    "xmp as a number": (0x02BC, 4, 1, b"\1\0\0\0"),
}


def directory(*entries):
    rows = [struct.pack("<HHI", *entry[:3]) + entry[3] for entry in sorted(entries)]
    return struct.pack("<H", len(rows)) + b"".join(rows) + bytes(4)


def odd_exif(odd, orientation):
    return b"II*\0\x08\0\0\0" + directory(ODD[odd], (0x0112, 3, 1, struct.pack("<HH", orientation, 0)))


def jpeg_with(segment, kind, data):
    return data[:2] + bytes([0xFF, kind]) + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def png_with(data, *chunks):
    """The chunks (name, body) behind the header, and again behind the pixels."""
    block = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return data[:33] + block + data[33:-12] + block + data[-12:]


def tiff(pixels_HWC, odd, orientation):
    height, width = pixels_HWC.shape[:2]
    data = pixels_HWC.tobytes()
    numbers = {0x100: width, 0x101: height, 0x103: 1, 0x106: 2, 0x111: 8, 0x115: 3, 0x116: height, 0x117: len(data)}
    numbers |= {0x102: 8, 0x112: orientation}
    entries = {tag: (tag, 4, 1, struct.pack("<I", value)) for tag, value in numbers.items()}
    if ODD[odd][0] not in numbers:
        entries[ODD[odd][0]] = ODD[odd]
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory(*entries.values())


@pytest.mark.parametrize("odd", ODD)
def test_odd_exif_turns_the_photo_and_does_no_harm(odd, photo):
    pixels = np.asarray(photo)
    for orientation, turn in UPRIGHT.items():
        exif, upright = odd_exif(odd, orientation), turn(pixels)
        files = {
            "PNG": png_with(encoded(photo, "PNG"), (b"eXIf", exif)),
            "WEBP": encoded(photo, "WEBP", lossless=True, exif=exif),
            "TIFF": tiff(pixels, odd, orientation),
            "JPEG": jpeg_with(b"Exif\0\0" + exif, 0xE1, encoded(photo, "JPEG", quality=95)),
        }
        for kind, data in files.items():
            found = np.asarray(decode_rgb("x", data))
            assert found.shape == upright.shape, (kind, orientation)
            assert np.abs(found - upright.astype(float)).max() <= (60 if kind == "JPEG" else 0), (kind, orientation)
            stored = convert("x", data, quality=95)
            assert (stored.height, stored.width) == upright.shape[:2]
            kept = np.asarray(Image.open(io.BytesIO(stored.image)))
            assert np.abs(kept - upright.astype(float)).mean() < 4, (kind, orientation)


def test_the_orientation_of_an_avif_is_the_images_whatever_its_exif(photo):
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "someone with a long name" * 9
    data = encoded(photo, "AVIF", quality=95, exif=exif)
    start = max(data.find(b"II*\0"), data.find(b"MM\0*"))
    assert start > 0
    odd = odd_exif("width of letters", 1)
    data = data[:start] + odd + data[start + len(odd) :]
    assert np.abs(np.asarray(decode_rgb("x", data)) - np.rot90(np.asarray(photo), -1).astype(float)).mean() < 6


@pytest.mark.parametrize("kind", ["one text", "many texts", "packed text", "profile", "xmp", "wrong checksum"])
def test_pngs_with_large_or_damaged_metadata_have_their_pixels(kind, photo):
    large = bytes(2 << 20)
    chunks = {
        "one text": [(b"tEXt", b"Comment\0" + b"a" * (2 << 20))],
        "many texts": [(b"zTXt", b"Comment\0\0" + zlib.compress(large[: 1 << 20]))] * 70,
        "packed text": [(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(large))],
        "profile": [(b"iCCP", b"icc\0\0" + zlib.compress(large))],
        "xmp": [(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(large))] * 3,
        "wrong checksum": [(b"tEXt", b"Comment\0intact")],
    }[kind]
    data = png_with(encoded(photo, "PNG"), *chunks)
    if kind == "wrong checksum":
        data = data.replace(b"intact", b"broken")
    elif kind != "one text":
        with pytest.raises(ValueError, match=r"too large|Too much"):  # the photo would be lost
            Image.open(io.BytesIO(data)).load()
    assert np.array_equal(decode_rgb("x", data), photo)
    assert convert("x", data).reencoded == "PNG"


@pytest.mark.parametrize("packed", [False, True])
def test_the_orientation_in_xmp_is_kept(packed, photo):
    xmp = b'<x tiff:Orientation="6"/>'
    body = b"XML:com.adobe.xmp\0" + (b"\1\0\0\0" + zlib.compress(xmp) if packed else b"\0\0\0\0" + xmp)
    upright = np.rot90(np.asarray(photo), -1)
    assert np.array_equal(decode_rgb("x", png_with(encoded(photo, "PNG"), (b"iTXt", body))), upright)
    data = jpeg_with(b"http://ns.adobe.com/xap/1.0/\0" + xmp, 0xE1, encoded(photo, "JPEG", quality=95))
    assert convert("x", data).reencoded == "EXIF rotation"


@pytest.mark.parametrize("kind", [0xE2, 0xED, 0xEF, 0xFE])
def test_a_jpeg_with_odd_application_data_is_copied(kind, photo):
    plain = encoded(photo, "JPEG")
    for segment in (b"MPF\0II*\0\x08\0\0\0\xff\xff", b"Photoshop 3.0\0008BIM", b"ICC_PROFILE\0\1\2", b""):
        data = jpeg_with(segment, kind, plain)
        assert np.array_equal(decode_rgb("x", data), Image.open(io.BytesIO(plain)))
        if not segment.startswith(b"ICC"):  # of which libjpeg warns
            assert convert("x", data).image == data


def test_adobes_marker_decides_the_colours_of_a_jpeg(photo):
    inverted = encoded(photo.convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in inverted  # APP14: values are stored inverted
    assert np.abs(np.asarray(decode_rgb("x", inverted)) - np.asarray(photo, float)).mean() < 4


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"])
def test_tiffs_without_their_metadata_have_pillows_pixels(compression, photo):
    modes = ["1"] if compression == "group4" else ["RGB", "L", "CMYK"] + ["P", "RGBA"] * (compression != "jpeg")
    for mode in modes:
        words = {270: "a description", 315: "someone", 274: 8}
        data = encoded(photo.convert(mode), "TIFF", compression=compression, tiffinfo=words)
        expected = Image.open(io.BytesIO(data)).convert("RGB")
        assert expected.size == (64, 96) and np.array_equal(decode_rgb("x", data), expected), mode


def test_a_jpeg_of_a_subsampling_that_simplejpeg_does_not_know_is_encoded_again(photo):
    data = bytearray(simplejpeg.encode_jpeg(np.asarray(photo), colorsubsampling="411"))
    frame = data.index(b"\xff\xc0")
    assert data[frame + 11] == 0x41
    data[frame + 11] = 0x14  # 4:4:1, with as many blocks as 4:1:1, so that it decodes
    with pytest.raises(KeyError):
        simplejpeg.decode_jpeg_header(bytes(data))
    stored = convert("x", bytes(data), quality=95)
    assert (stored.reencoded, stored.warning) == ("unusual JPEG", "unknown subsampling")
    shown = np.asarray(Image.open(io.BytesIO(data)), float)
    assert np.abs(simplejpeg.decode_jpeg(stored.image) - shown).mean() < 6


ERRORS = [KeyError(6), RuntimeError("no"), struct.error("odd"), AttributeError("x"), MemoryError(), IndexError("i")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_a_decoder_raises_is_a_fault_of_the_photo(error, photo, tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / "in" / name).mkdir(parents=True)
        photo.save(tmp_path / "in" / name / "x.png")
    load, calls = opening._identify, []

    def fail(data):
        calls.append(data)
        if len(calls) == 2:
            raise error
        return load(data)

    monkeypatch.setattr(opening, "_identify", fail)
    written = write_beton(tmp_path / "in", tmp_path / "a.beton", progress=False, skip_unreadable=True, workers=1)
    assert (written.samples, written.unreadable) == (2, 1)
    assert f"b/x.png cannot be decoded: {type(error).__name__}" in written.report.read_text()
    calls.clear()
    with pytest.raises(UnreadablePhoto, match=r"b/x\.png cannot be decoded"):
        write_beton(tmp_path / "in", tmp_path / "b.beton", progress=False, workers=1)


# --- eval sees what write stores --------------------------------------------------------------------------------------


def test_eval_scales_16_bits_and_turns_photos_as_write_does(photo, tmp_path):
    gray = np.asarray(photo.convert("L"), np.uint16)
    gray16 = Image.fromarray(gray * 257 + 100)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    gray16.save(tmp_path / "a" / "x.png")
    gray16.save(tmp_path / "b" / "x.tif")
    (tmp_path / "b" / "y.png").write_bytes(png_with(encoded(photo, "PNG"), (b"eXIf", odd_exif("no resolution", 6))))
    images = read_dataset(tmp_path).splits["all"].images
    for i in (0, 1):
        assert np.array_equal(images.open(i), np.repeat(gray[..., None], 3, 2))
    assert np.array_equal(images.open(2), np.rot90(np.asarray(photo), -1))


@pytest.mark.parametrize("kind", ["float", "32 bits", "PostScript", "text"])
def test_eval_refuses_what_write_refuses(kind, photo, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        photo.save(tmp_path / name / "0.png")
    path = tmp_path / "a" / "x.jpg"
    if kind == "float":
        Image.fromarray(np.ones((4, 4), np.float32)).save(path, "TIFF")
    elif kind == "32 bits":
        Image.fromarray(np.full((4, 4), 70000, np.int32)).save(path, "TIFF")
    else:
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" if kind == "PostScript" else b"text")
    messages = []
    for refused in (
        lambda: write_beton(tmp_path, tmp_path / "x.beton", progress=False),
        lambda: read_dataset(tmp_path).splits["all"].images.open(1),
    ):
        with pytest.raises(RunError, match=r"x\.jpg (is not an image|cannot be decoded)") as caught:
            refused()
        messages.append(str(caught.value))
    assert messages[0].startswith(messages[1])
