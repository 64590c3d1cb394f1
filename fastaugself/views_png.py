"""The picture of `fastaugself views`: the same content as its page, drawn with Pillow alone, on white, for papers."""

import io
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .page import VIEW_COLORS
from .views import GROUPS, MINUS, Pair, outlines

SCALE = 2  # pixels of the file per unit of the layout
MARGIN, GAP = 32, 30
PHOTO, VIEW, BARS = 372, 222, 236  # widths of the columns
INK, SOFT, FAINT, GRID = "#1b1c1d", "#5c5f63", "#a3a7ab", "#e2e2de"
BODY, LINE = 13, 18  # size of the text and its line height
WIDTH = 2 * MARGIN + PHOTO + VIEW + BARS + VIEW + 3 * GAP
HEAD = LINE + 8  # a column's title
ALONE = 44  # between two photos


def views_png(pairs: Sequence[Pair], detail: str) -> bytes:
    """The pairs as a PNG file; `detail` is the line below them."""
    heights = [_height(pair) for pair in pairs]
    total = 2 * MARGIN + sum(heights) + ALONE * (len(pairs) - 1) + 2 * LINE
    sheet = _Sheet(WIDTH, total)
    y = MARGIN
    for i, (pair, height) in enumerate(zip(pairs, heights, strict=True)):
        if i:
            sheet.line(MARGIN, y - ALONE // 2, WIDTH - MARGIN, y - ALONE // 2, GRID)
        _draw(sheet, pair, y)
        y += height + ALONE
    sheet.text(MARGIN, y - ALONE + LINE, f"{detail}. Crops: width × height at (left, top).", SOFT)
    return sheet.png()


def _photo_size(pair: Pair) -> tuple[int, int]:
    height, width = pair.photo_HWC.shape[:2]
    scale = min(PHOTO / width, PHOTO / height)
    return round(width * scale), round(height * scale)


def _height(pair: Pair) -> int:
    lines = max(sum(len(word.lines) for word in words) for words in pair.words)
    return max(_photo_size(pair)[1] + HEAD, HEAD + VIEW + 12 + lines * LINE, _bars_height(pair))


def _bars_height(pair: Pair) -> int:
    return HEAD - 2 + sum((len(entries) + 1) * LINE + 10 for entries in pair.differences.values())


def _draw(sheet: "_Sheet", pair: Pair, y: int) -> None:
    width, height = _photo_size(pair)
    sheet.text(MARGIN, y, pair.name, SOFT)
    sheet.image(MARGIN, y + HEAD, width, height, pair.photo_HWC)
    scale = width / pair.photo_HWC.shape[1]
    for (top, left, h, w), color in zip(outlines(pair), VIEW_COLORS, strict=True):
        sheet.box(MARGIN + left * scale, y + HEAD + top * scale, w * scale, h * scale, color)
    first = MARGIN + PHOTO + GAP
    middle = first + VIEW + GAP
    _draw_view(sheet, pair, 0, first, y)
    _draw_bars(sheet, pair, middle, y)
    _draw_view(sheet, pair, 1, middle + BARS + GAP, y)


def _draw_view(sheet: "_Sheet", pair: Pair, v: int, x: int, y: int) -> None:
    sheet.block(x, y + 4, 10, 10, VIEW_COLORS[v])
    sheet.text(x + 17, y, f"View {v + 1}", INK, size=14)
    y += HEAD
    sheet.image(x, y, VIEW, VIEW, pair.views_HWC[v])
    y += VIEW + 12
    for word in pair.words[v]:
        sheet.text(x, y, word.label, SOFT)
        for line in word.lines:
            sheet.text(x + 67, y, line, INK if word.applied else FAINT)
            y += LINE


def _draw_bars(sheet: "_Sheet", pair: Pair, x: int, y: int) -> None:
    sheet.text(x, y, f"View 1 {MINUS} view 2", INK, size=14)
    y += HEAD - 2
    half, zero, right = 42, x + 132, x + BARS
    for group, entries in pair.differences.items():
        sheet.text(x, y, GROUPS[group], SOFT)
        y += LINE
        top = y
        for label, value, text in entries:
            sheet.text(x, y, label, INK)
            length = max(-1.0, min(1.0, value)) * half
            sheet.block(zero + min(length, 0), y + 6, abs(length), 6, SOFT)
            sheet.text(right, y, text, INK, right=True)
            y += LINE
        sheet.line(zero, top + 1, zero, y - 1, FAINT)
        y += 10


class _Sheet:
    """A white sheet in units of the layout."""

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width * SCALE, height * SCALE), "white")
        self._draw = ImageDraw.Draw(self._image, "RGBA")

    def image(self, x: float, y: float, width: int, height: int, image_HWC: NDArray[np.uint8]) -> None:
        image = Image.fromarray(image_HWC)
        size = (width * SCALE, height * SCALE)
        small = max(image.size) <= 96  # the pixels themselves are what there is to see
        resized = image.resize(size, Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
        self._image.paste(resized, (round(x * SCALE), round(y * SCALE)))

    def box(self, x: float, y: float, width: float, height: float, color: str) -> None:
        left, top = round(x * SCALE), round(y * SCALE)
        right, bottom = round((x + width) * SCALE) - 1, round((y + height) * SCALE) - 1
        # A dark edge around the colour keeps it visible on any photo.
        self._draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="#00000090", width=8)
        self._draw.rectangle((left, top, right, bottom), outline=color, width=5)

    def block(self, x: float, y: float, width: float, height: float, color: str) -> None:
        if width * SCALE >= 1:
            left, top = round(x * SCALE), round(y * SCALE)
            right, bottom = round((x + width) * SCALE) - 1, round((y + height) * SCALE) - 1
            self._draw.rectangle((left, top, max(left, right), bottom), fill=color)

    def line(self, x0: float, y0: float, x1: float, y1: float, color: str) -> None:
        self._draw.line([round(c * SCALE) for c in (x0, y0, x1, y1)], fill=color, width=SCALE)

    def text(self, x: float, y: float, text: str, color: str, *, size: int = BODY, right: bool = False) -> None:
        font = ImageFont.load_default(size * SCALE)
        pieces = _STROKES.split(_plain(text))
        widths = [size * SCALE * 0.62 if piece in ("×", MINUS) else font.getlength(piece) for piece in pieces]
        left, base = x * SCALE - (sum(widths) if right else 0), (y + LINE - 4) * SCALE
        for piece, width in zip(pieces, widths, strict=True):
            if piece in ("×", MINUS):
                self._stroke(piece, left + width / 2, base - size * SCALE * 0.34, size * SCALE, color)
            else:
                self._draw.text((left, base), piece, fill=color, font=font, anchor="ls")
            left += width

    def _stroke(self, sign: str, x: float, y: float, size: float, color: str) -> None:
        reach = size * (0.24 if sign == MINUS else 0.18)
        ends = [(reach, 0.0)] if sign == MINUS else [(reach, reach), (reach, -reach)]
        for dx, dy in ends:
            self._draw.line((x - dx, y - dy, x + dx, y + dy), fill=color, width=max(1, round(size * 0.07)))

    def png(self) -> bytes:
        out = io.BytesIO()
        self._image.save(out, "png", optimize=True)
        return out.getvalue()


def _plain(text: str) -> str:
    """The text in the characters that Pillow's own font has, plus the two signs that are drawn by hand."""
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if c.isascii() or c in f"°·×{MINUS}" else "?" for c in text)


_STROKES = re.compile(f"([×{MINUS}])")
