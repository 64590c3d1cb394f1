"""Conversion of one photo to its stored bytes: a JPEG is copied unchanged if possible, anything else re-encoded."""

import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from ..beton.format import MAX_SIDE
from .opening import opened, orientation, read_whole, upright_rgb
from .samples import UnreadablePhoto

_MAX_JPEG_SIDE = 65500  # pixels, of libjpeg
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
    return convert(str(path), read_whole(path), max_side=max_side, quality=quality)


def convert(place: str, data: bytes, *, max_side: int = 0, quality: int = 90) -> Photo:
    """Converts the bytes of an image file, and decodes them once, so that every stored photo is known to decode.

    place: name of the photo in messages. max_side: maximum length of the longer side in pixels, 0 for no limit.
    quality: JPEG quality if the photo has to be re-encoded, because it is larger than max_side, not an 8-bit RGB or
    gray JPEG, rotated by its EXIF tag, or has an unusual subsampling.

    Raises UnreadablePhoto if the photo is not an image, truncated, or too large.
    """
    with opened(place, data) as image:
        return _convert(place, data, image, max_side, quality)


def convert_pixels(place: str, pixels: NDArray[np.uint8], *, max_side: int = 0) -> Photo:
    """Converts uint8 pixels [H, W, 3], which are stored raw, and downscaled if a side is longer than max_side."""
    side, reason = max(pixels.shape[:2]), None
    if side > (max_side or MAX_SIDE):
        if not max_side:
            raise UnreadablePhoto(_too_long(place, side, MAX_SIDE))
        pixels, reason = np.asarray(_shrink(Image.fromarray(pixels), max_side)), "larger than max-side"
    return Photo(pixels, pixels.shape[0], pixels.shape[1], reason)


def _convert(place: str, data: bytes, image: Image.Image, max_side: int, quality: int) -> Photo:
    width, height = image.size
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
    rgb = upright_rgb(image)
    if (side := max(rgb.size)) > min(max_side or _MAX_JPEG_SIDE, _MAX_JPEG_SIDE):
        if not max_side:
            raise UnreadablePhoto(_too_long(place, side, _MAX_JPEG_SIDE))
        rgb = _shrink(rgb, min(max_side, _MAX_JPEG_SIDE))
    out = io.BytesIO()
    rgb.save(out, "JPEG", quality=quality)
    return Photo(out.getvalue(), rgb.height, rgb.width, reason, warning)


def _too_long(place: str, side: int, most: int) -> str:
    return (
        f"{place} has a side of {side} pixels, more than the format allows ({most}): make it smaller, as "
        f"`fastaugself write SOURCE OUT.beton --max-side {most}` does"
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
    if orientation(image) != 1:
        return "EXIF rotation", ""
    if max_side and max(image.size) > max_side:
        return "larger than max-side", ""
    try:
        subsampling = simplejpeg.decode_jpeg_header(data)[3]
    except KeyError:  # simplejpeg does not know this subsampling, such as 4:4:1
        return "unusual JPEG", "unknown subsampling"
    except ValueError as error:
        return "unusual JPEG", str(error)
    return (None, "") if subsampling in _SUBSAMPLINGS else ("unusual JPEG", f"subsampling {subsampling}")


def _deep(image: Image.Image) -> bool:
    """Whether the image has more than 8 bits per channel; for 16-bit colour, Pillow shows this only in `tile`."""
    return image.mode.startswith("I") or any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
