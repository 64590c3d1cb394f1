"""Conversion of one photo to its stored bytes: a JPEG is copied unchanged if possible, anything else re-encoded."""

import io
import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..beton.format import MAX_SIDE
from .samples import UnreadablePhoto, read_file

MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs
_ORIENTATION = 0x0112  # EXIF tag
_SUBSAMPLINGS = frozenset({"444", "422", "420", "440", "411", "Gray"})  # supported by every libjpeg-turbo


class Photo(NamedTuple):
    """A photo to be stored.

    image: JPEG bytes that have been decoded successfully, or uint8 pixels [H, W, 3]. height, width: pixels.
    reencoded: why the photo was re-encoded, None if it was not. warning: warning of the decoder, "" if none.
    """

    image: bytes | NDArray[np.uint8]
    height: int
    width: int
    reencoded: str | None
    warning: str = ""


def load_photo(path: Path, *, max_side: int = 0, quality: int = 90) -> Photo:
    """Reads and converts the photo in a file, see `convert`."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UnreadablePhoto(f"{path} cannot be read: {error.strerror}") from error
    return convert(str(path), read_file(path, size), max_side=max_side, quality=quality)


def convert(place: str, data: bytes, *, max_side: int = 0, quality: int = 90) -> Photo:
    """Converts the bytes of an image file, and decodes them once, so that every stored photo is known to decode.

    place: name of the photo in messages. max_side: maximum length of the longer side in pixels, 0 for no limit.
    quality: JPEG quality if the photo has to be re-encoded, because it is larger than max_side, not an 8-bit RGB or
    gray JPEG, rotated by its EXIF tag, or has an unusual subsampling. Transparency is dropped, as in torchvision's
    ImageFolder. An animation gives its first frame.

    Raises UnreadablePhoto if the photo is not an image, truncated, or too large. No pixels are allocated before the
    size in the header has been compared with MAX_PIXELS.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            return _convert(place, data, image, max_side, quality)
    except UnidentifiedImageError:
        raise UnreadablePhoto(
            f"{place} is not an image that can be read ({_describe_bytes(data)}): replace or remove it"
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadablePhoto(f"{place} cannot be decoded: {error}; replace or remove it") from error


def convert_pixels(place: str, pixels: NDArray[np.uint8], *, max_side: int = 0) -> Photo:
    """Converts uint8 pixels [H, W, 3], which are stored raw, and downscaled if a side is longer than max_side."""
    side, reason = max(pixels.shape[:2]), None
    if side > (max_side or MAX_SIDE):
        if not max_side:
            raise UnreadablePhoto(_too_long(place, side))
        pixels, reason = np.asarray(_shrink(Image.fromarray(pixels), max_side)), "larger than max-side"
    return Photo(pixels, pixels.shape[0], pixels.shape[1], reason)


@cache
def _formats() -> tuple[str, ...]:
    """The formats that Pillow may detect: otherwise it would pass PostScript in a file.jpg to Ghostscript."""
    Image.init()
    return tuple(
        name for name in ("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF") if name in Image.OPEN
    )


def _describe_bytes(data: bytes) -> str:
    return "it is empty" if not data else f"{len(data)} bytes, starting with {data[:4].hex(' ')}"


def _convert(place: str, data: bytes, image: Image.Image, max_side: int, quality: int) -> Photo:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadablePhoto(
            f"{place} has {width} x {height} pixels, more than the limit of {MAX_PIXELS // 10**6} million: "
            f"make it smaller or remove it"
        )
    reason, warning = _must_reencode(data, image, max_side)
    if reason is None:
        try:
            simplejpeg.decode_jpeg(data, fastdct=True)
            return Photo(data, height, width, None)
        except ValueError as error:
            # A truncated or corrupt scan gives many different warnings. So every warning is an error, except the one
            # that is known to leave the pixels intact. Stray bytes before the scan were detected above, in the header.
            if "Invalid SOS parameters" not in str(error):
                raise
            reason, warning = "unusual JPEG", str(error)
    rgb = _rgb(image)
    if (side := max(rgb.size)) > (max_side or MAX_SIDE):
        if not max_side:
            raise UnreadablePhoto(_too_long(place, side))
        rgb = _shrink(rgb, max_side)
    out = io.BytesIO()
    rgb.save(out, "JPEG", quality=quality)
    return Photo(out.getvalue(), rgb.height, rgb.width, reason, warning)


def _too_long(place: str, side: int) -> str:
    return (
        f"{place} has a side of {side} pixels, more than the format allows ({MAX_SIDE}): pass "
        f"--max-side {MAX_SIDE} or less"
    )


def _shrink(rgb: Image.Image, max_side: int) -> Image.Image:
    side = max(rgb.size)
    width, height = (max(1, math.floor(s * max_side / side + 0.5)) for s in rgb.size)
    return rgb.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _must_reencode(data: bytes, image: Image.Image, max_side: int) -> tuple[str | None, str]:
    """Why a photo has to be re-encoded (None if it does not), and the warning of the decoder."""
    if image.format not in ("JPEG", "MPO"):
        return f"{'16-bit ' if _deep(image) else ''}{image.format or 'unknown format'}", ""
    if image.mode not in ("RGB", "L"):
        return image.mode, ""
    if _rotated(image):
        return "EXIF rotation", ""
    if max_side and max(image.size) > max_side:
        return "larger than max-side", ""
    try:
        subsampling = simplejpeg.decode_jpeg_header(data)[3]
    except ValueError as error:
        return "unusual JPEG", str(error)
    return (None, "") if subsampling in _SUBSAMPLINGS else ("unusual JPEG", f"subsampling {subsampling}")


def _deep(image: Image.Image) -> bool:
    """Whether the image has more than 8 bits per channel; for 16-bit colour, Pillow shows this only in `tile`."""
    return image.mode.startswith("I") or any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _rotated(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # Pillow's parser raises arbitrary exceptions; broken metadata do not make a photo unreadable
        return False


def _rgb(image: Image.Image) -> Image.Image:
    """The image as 8-bit RGB, rotated according to its EXIF tag."""
    image.load()
    upright = ImageOps.exif_transpose(image) if _rotated(image) else image
    if upright.mode.startswith("I"):  # 16-bit gray: Pillow's own conversion would clip values above 255
        pixels = np.asarray(upright).astype(np.float64)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError(f"values from {pixels.min():g} to {pixels.max():g} do not fit 16 bits")
        return Image.fromarray(np.round(pixels / 257).astype(np.uint8)).convert("RGB")
    if upright.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    return upright.convert("RGB")
