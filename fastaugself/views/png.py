"""The picture of `fastaugself views`: the content of the HTML page, drawn with Pillow on white, for papers."""

from collections.abc import Sequence
from typing import Literal

from ..html.page import VIEW_COLORS
from ..report.pairs import Group, Pair, outlines
from ..report.words import GROUPS, MINUS, policy_words
from .sheet import FAINT, GRID, INK, LINE, SOFT, Sheet

MARGIN, GAP = 32, 30
PHOTO, VIEW, BARS = 372, 222, 236  # widths of the columns
WIDTH = 2 * MARGIN + PHOTO + VIEW + BARS + VIEW + 3 * GAP
HEAD = LINE + 8  # height of a column's title
PAIR_GAP = 44  # between two photos
LOCAL_CROP, LOCAL_CROP_GAP, LOCAL_CROP_COLUMNS = 120, 26, 6  # side, gap and number per row of the local crops
NOTE = 12  # size of the text below the local crops
WEBP_QUALITY = 88


def views_picture(groups: Sequence[Group], detail: str, kind: Literal["png", "webp"]) -> bytes:
    """The encoded picture of the pairs of each policy; detail: the line below them."""
    height = _draw_groups(Sheet(WIDTH, 1), groups, detail)  # drawing outside a sheet is ignored
    sheet = Sheet(WIDTH, int(height) + MARGIN)
    _draw_groups(sheet, groups, detail)
    return sheet.encode(kind, WEBP_QUALITY)


def _draw_groups(sheet: Sheet, groups: Sequence[Group], detail: str) -> float:
    """Draws all groups; returns the y below them."""
    y: float = MARGIN
    for i, group in enumerate(groups):
        if len(groups) > 1:
            y = _draw_heading(sheet, group, y + (PAIR_GAP if i else 0))
        for k, pair in enumerate(group.pairs):
            if k:
                sheet.line(MARGIN, y + PAIR_GAP / 2, WIDTH - MARGIN, y + PAIR_GAP / 2, GRID)
                y += PAIR_GAP
            _draw(sheet, pair, y)
            y += _height(pair)
            y = _draw_local_crops(sheet, pair, y)
    named = detail if len(groups) > 1 else f"policy {groups[0].name}, {detail}"
    sheet.text(MARGIN, y + LINE, f"{named}. Crops: width × height at (left, top).", SOFT)
    return y + 2 * LINE


def _draw_heading(sheet: Sheet, group: Group, y: float) -> float:
    sheet.text(MARGIN, y, f"Policy {group.name}", INK, size=17)
    y += 28
    for line in policy_words(group.policies):
        y = sheet.paragraph(MARGIN, y, WIDTH - 2 * MARGIN, line, SOFT)
    return y + 16


def _draw_local_crops(sheet: Sheet, pair: Pair, y: float) -> float:
    """Draws the local crops in rows of six, with their parameters; returns the y below them."""
    step = (WIDTH - 2 * MARGIN + LOCAL_CROP_GAP) / LOCAL_CROP_COLUMNS
    for start in range(0, len(pair.local_crops), LOCAL_CROP_COLUMNS):
        y += 22
        below = y
        for i, crop in enumerate(pair.local_crops[start : start + LOCAL_CROP_COLUMNS]):
            x = MARGIN + i * step
            sheet.text(x, y, f"Local crop {start + i + 1}", INK)
            sheet.image(x, y + LINE + 4, LOCAL_CROP, LOCAL_CROP, crop.view_HWC)
            line = y + LINE + LOCAL_CROP + 10
            for word in crop.words:
                sheet.text(x, line, word.label, SOFT, size=NOTE)
                width = step - LOCAL_CROP_GAP - 60
                for text in (part for value in word.lines for part in sheet.wrap(value, width, NOTE)):
                    sheet.text(x + 62, line, text, INK if word.applied else FAINT, size=NOTE)
                    line += LINE - 2
            below = max(below, line)
        y = below
    return y


def _photo_size(pair: Pair) -> tuple[int, int]:
    """(width, height) of the photo on the sheet."""
    height, width = pair.photo_HWC.shape[:2]
    scale = min(PHOTO / width, PHOTO / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _height(pair: Pair) -> int:
    """The height of a pair on the sheet, without local crops."""
    lines = max(sum(len(word.lines) for word in words) for words in pair.words)
    return max(_photo_size(pair)[1] + HEAD, HEAD + VIEW + 12 + lines * LINE, _bars_height(pair))


def _bars_height(pair: Pair) -> int:
    return HEAD - 2 + sum((len(entries) + 1) * LINE + 10 for entries in pair.differences.values())


def _draw(sheet: Sheet, pair: Pair, y: float) -> None:
    """Draws the photo, both views and their differences side by side."""
    width, height = _photo_size(pair)
    sheet.text(MARGIN, y, pair.name, SOFT)
    sheet.image(MARGIN, y + HEAD, width, height, pair.photo_HWC)
    boxes = [(crop.box, "white", 1.0) for crop in pair.local_crops]
    boxes += [(box, color, 2.5) for box, color in zip(outlines(pair), VIEW_COLORS, strict=True)]
    down, right = height / pair.photo_HWC.shape[0], width / pair.photo_HWC.shape[1]
    for (top, left, h, w), color, thickness in boxes:
        sheet.box(MARGIN + left * right, y + HEAD + top * down, w * right, h * down, color, thickness)
    first = MARGIN + PHOTO + GAP
    middle = first + VIEW + GAP
    _draw_view(sheet, pair, 0, first, y)
    _draw_bars(sheet, pair, middle, y)
    _draw_view(sheet, pair, 1, middle + BARS + GAP, y)


def _draw_view(sheet: Sheet, pair: Pair, v: int, x: float, y: float) -> None:
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


def _draw_bars(sheet: Sheet, pair: Pair, x: float, y: float) -> None:
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
            sheet.text(right, y, text, INK, align="right")
            y += LINE
        sheet.line(zero, top + 1, zero, y - 1, FAINT)
        y += 10
