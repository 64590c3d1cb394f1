"""One photo file to the JPEG bytes that are stored: untouched where they can be, re-encoded where they must be."""

import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import RunError
from .beton import MAX_SIDE

MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs
_ORIENTATION = 0x0112  # EXIF tag
_SUBSAMPLINGS = frozenset({"444", "422", "420", "440", "411", "Gray"})  # what every libjpeg-turbo decodes


class Photo(NamedTuple):
    """jpeg: bytes to store, known to decode. height, width: pixels.

    reencoded: why the bytes are not the file's own, None where they are. warning: of the decoder, "" if none.
    """

    jpeg: bytes
    height: int
    width: int
    reencoded: str | None
    warning: str = ""


def load_photo(path: Path, *, max_side: int = 0, quality: int = 90) -> Photo:
    """Reads a photo and decodes it once, so that what is stored is known to be whole.

    max_side: longest side in pixels, 0 for no limit. quality: of JPEG, where the photo must be encoded again: larger
    than max_side, no 8-bit RGB or gray JPEG, rotated by its EXIF tag, unusual subsampling. Transparency is dropped, as
    torchvision's ImageFolder does; of an animation the first frame is taken.

    Raises RunError naming the file if it is unreadable, truncated or too large.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _convert(path, data, image, max_side, quality)
    except UnidentifiedImageError:
        raise RunError(f"{path} is not an image that can be read ({_what(data)}): replace or remove it") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise RunError(f"{path} cannot be decoded: {error}; replace or remove it") from error


def _what(data: bytes) -> str:
    return "it is empty" if not data else f"{len(data)} bytes, starting with {data[:4].hex(' ')}"


def _convert(path: Path, data: bytes, image: Image.Image, max_side: int, quality: int) -> Photo:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise RunError(
            f"{path} has {width} x {height} pixels, more than the limit of {MAX_PIXELS // 10**6} million: "
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
    if (side := max(rgb.size)) > (limit := max_side or MAX_SIDE):
        if not max_side:
            raise RunError(
                f"{path} has a side of {side} pixels, more than the format holds ({MAX_SIDE}): pass "
                f"--max-side {MAX_SIDE} or less"
            )
        size = tuple(max(1, math.floor(s * limit / side + 0.5)) for s in rgb.size)
        rgb = rgb.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    rgb.save(out, "JPEG", quality=quality)
    return Photo(out.getvalue(), rgb.height, rgb.width, reason, warning)


def _must_reencode(data: bytes, image: Image.Image, max_side: int) -> tuple[str | None, str]:
    """Why the bytes cannot be stored as they are, if so, and what the decoder said."""
    if image.format not in ("JPEG", "MPO"):
        return image.format or "unknown format", ""
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
