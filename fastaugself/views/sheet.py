"""A white sheet to draw on with Pillow and its built-in font."""

import io
import re
import unicodedata
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..errors import UsageError
from ..report.words import MINUS

INK, SOFT, FAINT, GRID = "#1b1c1d", "#5c5f63", "#a3a7ab", "#e2e2de"
BODY, LINE = 13, 18  # size of the text and its line height
MAX_WEBP = 16383  # rows

Align = Literal["left", "middle", "right"]


class Sheet:
    """A white sheet; all coordinates and sizes are in layout units.

    scale: pixels of the file per unit. Letters are placed on whole pixels, so text widths depend slightly on it.
    """

    def __init__(self, width: int, height: int, scale: float = 2.0) -> None:
        self._scale = scale
        self._image = Image.new("RGB", (round(width * scale), round(height * scale)), "white")
        self._draw = ImageDraw.Draw(self._image, "RGBA")

    def image(self, x: float, y: float, width: float, height: float, image_HWC: NDArray[np.uint8]) -> None:
        image = Image.fromarray(image_HWC)
        left, top, right, bottom = self._corners(x, y, width, height)
        show_pixels = max(image.size) <= 96  # too few to smooth: show each pixel as a square
        filter = Image.Resampling.NEAREST if show_pixels else Image.Resampling.LANCZOS
        self._image.paste(image.resize((max(1, right - left), max(1, bottom - top)), filter), (left, top))

    def box(self, x: float, y: float, width: float, height: float, color: str, thickness: float = 2.5) -> None:
        left, top, right, bottom = self._corners(x, y, width, height)
        right, bottom = max(right, left + 1), max(bottom, top + 1)  # a box of less than a pixel is drawn as one
        line = round(thickness * self._scale)
        # A dark edge around the colour keeps it visible on any photo.
        self._draw.rectangle(
            (left - 1, top - 1, right, bottom), outline="#00000090", width=line + round(1.5 * self._scale)
        )
        self._draw.rectangle((left, top, right - 1, bottom - 1), outline=color, width=line)

    def block(self, x: float, y: float, width: float, height: float, color: str) -> None:
        left, top, right, bottom = self._corners(x, y, width, height)
        if right > left and bottom > top:
            self._draw.rectangle((left, top, right - 1, bottom - 1), fill=color)

    def frame(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """An outline one unit thick, with rounded corners."""
        corners = self._corners(x, y, width, height)
        self._draw.rounded_rectangle(corners, radius=5 * self._scale, outline=color, width=round(self._scale))

    def line(self, x0: float, y0: float, x1: float, y1: float, color: str) -> None:
        self._draw.line([round(c * self._scale) for c in (x0, y0, x1, y1)], fill=color, width=round(self._scale))

    def _corners(self, x: float, y: float, width: float, height: float) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in pixels, the last two exclusive."""
        left, top, right, bottom = (round(c * self._scale) for c in (x, y, x + width, y + height))
        return left, top, right, bottom

    def text(self, x: float, y: float, text: str, color: str, *, size: int = BODY, align: Align = "left") -> None:
        """A line of text; y: top of its line box."""
        font = _font(size * self._scale)
        left = x - {"left": 0.0, "middle": 0.5, "right": 1.0}[align] * self.text_width(text, size)
        base = y + LINE - 4
        for piece in _STROKES.split(_plain(text)):
            width = self._width(piece, size)
            if piece in ("×", MINUS):
                self._stroke(piece, left + width / 2, base - size * 0.34, size, color)
            else:
                self._draw.text((left * self._scale, base * self._scale), piece, fill=color, font=font, anchor="ls")
            left += width

    def text_width(self, text: str, size: int = BODY) -> float:
        """The width of a line of text in layout units."""
        return sum(self._width(piece, size) for piece in _STROKES.split(_plain(text)))

    def _width(self, piece: str, size: int) -> float:
        strokes = piece in ("×", MINUS)
        return size * 0.62 if strokes else _font(size * self._scale).getlength(piece) / self._scale

    def wrap(self, text: str, width: float, size: int = BODY) -> list[str]:
        """Breaks the text into lines of at most `width`."""
        lines: list[str] = []
        for word in text.split(" "):
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.text_width(longer, size) <= width:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines

    def paragraph(self, x: float, y: float, width: float, text: str, color: str, *, size: int = BODY) -> float:
        """Draws text in lines of at most `width`; returns the y below it."""
        for line in self.wrap(text, width, size):
            self.text(x, y, line, color, size=size)
            y += LINE
        return y

    def _stroke(self, sign: str, x: float, y: float, size: float, color: str) -> None:
        reach = size * (0.24 if sign == MINUS else 0.18)
        ends = [(reach, 0.0)] if sign == MINUS else [(reach, reach), (reach, -reach)]
        width = max(1, round(size * 0.07 * self._scale))
        for dx, dy in ends:
            ends_in_pixels = [c * self._scale for c in (x - dx, y - dy, x + dx, y + dy)]
            self._draw.line(ends_in_pixels, fill=color, width=width)

    def encode(self, kind: Literal["png", "webp"], quality: int = 85) -> bytes:
        """The encoded image file; WebP is about a tenth of the size of PNG for photos.

        Raises UsageError for a sheet higher than WebP allows.
        """
        if kind == "webp" and self._image.height > MAX_WEBP:
            raise UsageError(
                f"the picture has {self._image.height} rows, WebP at most {MAX_WEBP}; pass --out with .png or .html"
            )
        out = io.BytesIO()
        self._image.save(out, kind, optimize=True, quality=quality, method=6)  # each format ignores the other's options
        return out.getvalue()


@cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _plain(text: str) -> str:
    """The text with only the characters of Pillow's built-in font and the two signs that _stroke draws."""
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if c.isascii() or c in f"°·×{MINUS}" else "?" for c in text)


_STROKES = re.compile(f"([×{MINUS}])")
