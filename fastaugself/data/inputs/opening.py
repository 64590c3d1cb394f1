"""Opens a photo, in the same way for every command: a fixed list of formats, upright, as 8-bit RGB."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from .metadata import exif_orientation, without_metadata
from .samples import UnreadablePhoto, read_file

MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs
_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow's warnings are about metadata, which are not used, and about sizes, which have a limit here.
warnings.filterwarnings("ignore", module=r"PIL\.")
_SPEAKING = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)  # with a message in words


def read_rgb(path: Path) -> Image.Image:
    """The photo in a file as 8-bit RGB, upright by its EXIF orientation. Raises UnreadablePhoto and RunError."""
    return decode_rgb(str(path), read_whole(path))


def decode_rgb(place: str, data: bytes) -> Image.Image:
    """The photo in `data`, as `read_rgb`; place: its name in messages."""
    with opened(place, data) as image:
        return upright_rgb(image)


def read_whole(path: Path) -> bytes:
    """The bytes of a photo's file, see `read_file`."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UnreadablePhoto(f"{path} cannot be read: {error.strerror}") from error
    return read_file(path, size)


@contextmanager
def opened(place: str, data: bytes) -> Iterator[Image.Image]:
    """Opens the photo in `data`; no pixels are allocated before its size has been compared with MAX_PIXELS.

    Whatever is raised in the block is a fault of this photo: decoders raise arbitrary exceptions for damaged data.
    Odd metadata are no fault. Raises UnreadablePhoto, with `place` as the name of the photo.
    """
    try:
        with _open(data) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnreadablePhoto(
                    f"{place} has {width} x {height} pixels, more than the limit of {MAX_PIXELS // 10**6} million: "
                    f"make it smaller or remove it"
                )
            yield image
    except UnreadablePhoto:
        raise
    except UnidentifiedImageError:
        raise UnreadablePhoto(
            f"{place} is not an image that can be read ({_describe_bytes(data)}): replace or remove it"
        ) from None
    except Exception as error:
        raise UnreadablePhoto(f"{place} cannot be decoded: {_describe(error)}; replace or remove it") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image as 8-bit RGB, turned and mirrored by its EXIF orientation.

    Transparency is dropped, as in torchvision's ImageFolder. An animation gives its first frame. Raises ValueError for
    pixels of an unknown range.
    """
    image.load()
    turn = _UPRIGHT.get(orientation(image))
    # Not ImageOps.exif_transpose: that writes the other EXIF tags again, and fails if one of them is odd.
    upright = image if turn is None else image.transpose(turn)
    if upright.mode.startswith("I"):  # 16-bit gray: Pillow's own conversion would clip values above 255
        pixels = np.asarray(upright).astype(np.float64)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError(f"values from {pixels.min():g} to {pixels.max():g} do not fit 16 bits")
        return Image.fromarray(np.round(pixels / 257).astype(np.uint8)).convert("RGB")
    if upright.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    return upright.convert("RGB")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation from 1 (upright) to 8; 1 without one."""
    try:
        found = exif_orientation(image.info.get("exif", b"")) or image.getexif().get(_ORIENTATION, 1)
        return int(found) if found in _UPRIGHT else 1
    except Exception:  # Pillow's parser raises arbitrary exceptions; broken metadata do not make a photo unreadable
        return 1


def _open(data: bytes) -> Image.Image:
    oriented = without_metadata(data, orientation=True)
    try:
        return _identify(oriented)
    except Exception:
        bare = without_metadata(data, orientation=False)
        if bare == oriented:
            raise
        return _identify(bare)


def _identify(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """The formats that Pillow may detect: otherwise it would pass PostScript in a file.jpg to Ghostscript."""
    Image.init()
    return tuple(
        name for name in ("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF") if name in Image.OPEN
    )


def _describe_bytes(data: bytes) -> str:
    return "it is empty" if not data else f"{len(data)} bytes, starting with {data[:4].hex(' ')}"


def _describe(error: Exception) -> str:
    words = str(error).splitlines()[:1]
    kind = type(error).__name__
    return words[0] if words and isinstance(error, _SPEAKING) else ": ".join([kind, *words])
