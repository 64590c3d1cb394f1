"""One photo to the bytes that are stored: a JPEG untouched where it can be, re-encoded where it must be."""

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
_SUBSAMPLINGS = frozenset({"444", "422", "420", "440", "411", "Gray"})  # what every libjpeg-turbo decodes


class Photo(NamedTuple):
    """image: what to store, JPEG bytes that are known to decode, or uint8 pixels [H, W, 3]. height, width: pixels.

    reencoded: why that is not what came, None where it is. warning: of the decoder, "" if none.
    """

    image: bytes | NDArray[np.uint8]
    height: int
    width: int
    reencoded: str | None
    warning: str = ""


def load_photo(path: Path, *, max_side: int = 0, quality: int = 90) -> Photo:
    """The photo in a file, see `convert`."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UnreadablePhoto(f"{path} cannot be read: {error.strerror}") from error
    return convert(str(path), read_file(path, size), max_side=max_side, quality=quality)


def convert(place: str, data: bytes, *, max_side: int = 0, quality: int = 90) -> Photo:
    """Decodes the bytes of an image file once, so that what is stored is known to be whole.

    place: what to call it in messages. max_side: longest side in pixels, 0 for no limit. quality: of JPEG, where the
    photo must be encoded again: larger than max_side, no 8-bit RGB or gray JPEG, rotated by its EXIF tag, unusual
    subsampling. Transparency is dropped, as torchvision's ImageFolder does; of an animation the first frame is taken.

    Raises UnreadablePhoto naming the place if it is no image, truncated or too large; no pixel is allocated before
    the size in its header is known to be within MAX_PIXELS.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            return _convert(place, data, image, max_side, quality)
    except UnidentifiedImageError:
        raise UnreadablePhoto(
            f"{place} is not an image that can be read ({_what(data)}): replace or remove it"
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadablePhoto(f"{place} cannot be decoded: {error}; replace or remove it") from error


def convert_pixels(place: str, pixels: NDArray[np.uint8], *, max_side: int = 0) -> Photo:
    """Pixels [H, W, 3] to be stored as they are, unless a side is longer than max_side."""
    side, reason = max(pixels.shape[:2]), None
    if side > (max_side or MAX_SIDE):
        if not max_side:
            raise UnreadablePhoto(_too_long(place, side))
        pixels, reason = np.asarray(_shrink(Image.fromarray(pixels), max_side)), "larger than max-side"
    return Photo(pixels, pixels.shape[0], pixels.shape[1], reason)


@cache
def _formats() -> tuple[str, ...]:
    """What Pillow may take a file for, whatever its name: it would hand PostScript in a file.jpg to Ghostscript."""
    Image.init()
    return tuple(
        name for name in ("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF") if name in Image.OPEN
    )


def _what(data: bytes) -> str:
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
            # A scan that is cut or corrupt shows itself in many words, so all but the one warning known to leave the
            # pixels intact end the job. Stray bytes before the scan were found above, with the header.
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
        f"{place} has a side of {side} pixels, more than the format holds ({MAX_SIDE}): pass "
        f"--max-side {MAX_SIDE} or less"
    )


def _shrink(rgb: Image.Image, max_side: int) -> Image.Image:
    side = max(rgb.size)
    width, height = (max(1, math.floor(s * max_side / side + 0.5)) for s in rgb.size)
    return rgb.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _must_reencode(data: bytes, image: Image.Image, max_side: int) -> tuple[str | None, str]:
    """Why the bytes cannot be stored as they are, if so, and what the decoder said."""
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
    """More than 8 bits a channel; Pillow calls 16-bit colour plainly RGB, and tells only where it unpacks it."""
    return image.mode.startswith("I") or any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _rotated(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # Pillow's parser raises whatever it trips over; broken metadata does not make a photo unreadable
        return False


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB, the right way up."""
    image.load()
    upright = ImageOps.exif_transpose(image) if _rotated(image) else image
    if upright.mode.startswith("I"):  # 16-bit gray: Pillow's own conversion would clip it to its lowest 8 bits
        pixels = np.asarray(upright).astype(np.float64)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError(f"values from {pixels.min():g} to {pixels.max():g} do not fit 16 bits")
        return Image.fromarray(np.round(pixels / 257).astype(np.uint8)).convert("RGB")
    if upright.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    return upright.convert("RGB")
