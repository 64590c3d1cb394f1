"""The columns as a picture: the content of the page on one white sheet."""

import re
from typing import Literal

from content import Content
from fastaugself.html.page import VIEW_COLORS
from fastaugself.report.pairs import outlines
from fastaugself.views.sheet import BODY, FAINT, GRID, INK, LINE, SOFT, Sheet
from fastaugself_kernels import COLUMNS
from learned import Entry
from sweeps import Sweep, Tile
from texts import INTRODUCTION, LEARNED, ORDERS, PIPELINE

MARGIN, LABEL, GAP = 30, 244, 28
TILE, SPACE, SLOTS = 92, 8, 7  # side of a tile, gap, tiles per row
SMALL = 50  # side of the orders' tiles, twelve per row
STRIP = SLOTS * TILE + (SLOTS - 1) * SPACE
RIGHT = MARGIN + LABEL + GAP  # left edge of the tiles
WIDTH = RIGHT + STRIP + MARGIN
INNER = WIDTH - 2 * MARGIN
SEPARATION = 30  # between two sweeps
NOTE, FINE = 12, 10  # sizes of text smaller than the body's
VIEW = 150  # side of the drawn views
WEBP = (1.0, 45)  # pixels per unit, quality: text stays crisp, and a photo's sheet stays below 400 KB for a repository
ACCENT, BOX, VEIL = "#0b7a75", "#3d9bff", "#ffffffa0"


def columns_picture(content: Content, detail: str, kind: Literal["png", "webp"]) -> bytes:
    """The content as a picture; `detail` is the line below its heading."""
    scale, quality = {"png": (2.0, 0), "webp": WEBP}[kind]
    height = _draw(Sheet(WIDTH, 1, scale), content, detail)  # the first pass only measures it
    sheet = Sheet(WIDTH, int(height) + MARGIN, scale)
    _draw(sheet, content, detail)
    return sheet.encode(kind, quality)


def _draw(sheet: Sheet, content: Content, detail: str) -> float:
    """Everything from the top, and the y below it."""
    sheet.text(MARGIN, MARGIN, "The parameter tensor, column by column", INK, size=20)
    sheet.text(MARGIN, MARGIN + 26, detail, SOFT)
    y: float = MARGIN + 54
    for text in INTRODUCTION:
        y = sheet.paragraph(MARGIN, y, INNER - 120, _plain(text), INK) + 6
    y = _draw_cells(sheet, content, y + 4) + 10
    y = sheet.paragraph(MARGIN, y, INNER, PIPELINE, SOFT) + 16
    for sweep in content.sweeps:
        sheet.line(MARGIN, y, WIDTH - MARGIN, y, GRID)
        y += SEPARATION / 2
        below = _draw_about(sheet, sweep, y)
        y = max(below, _draw_tiles(sheet, content, sweep, y)) + SEPARATION / 2
    sheet.line(MARGIN, y, WIDTH - MARGIN, y, GRID)
    return _draw_learned(sheet, content, y + SEPARATION)


def _plain(text: str) -> str:
    return re.sub(r"</?code>", "", text)


def _draw_cells(sheet: Sheet, content: Content, y: float) -> float:
    """The sixteen columns with their identity values."""
    width = INNER / len(COLUMNS)
    sheet.frame(MARGIN, y, INNER, 54, GRID)
    for i, (name, value) in enumerate(zip(COLUMNS, content.identity, strict=True)):
        x = MARGIN + width * i
        if i:
            sheet.line(x, y, x, y + 54, GRID)
        sheet.text(x + width / 2, y + 2, str(i), FAINT, size=FINE, align="middle")
        sheet.text(x + width / 2, y + 15, name, SOFT, size=FINE, align="middle")
        sheet.text(x + width / 2, y + 31, value, INK, size=14, align="middle")
    return y + 54


def _draw_about(sheet: Sheet, sweep: Sweep, y: float) -> float:
    x = MARGIN
    if sweep.title in COLUMNS:
        index = str(COLUMNS.index(sweep.title))
        sheet.text(x, y - 1, index, ACCENT, size=NOTE)
        x += round(sheet.text_width(index, NOTE)) + 7
    sheet.text(x, y, sweep.title, INK, size=15)
    sheet.text(MARGIN, y + 19, sweep.unit, SOFT, size=NOTE)
    y = sheet.paragraph(MARGIN, y + 41, LABEL, sweep.text, INK, size=NOTE)
    return sheet.paragraph(MARGIN, y + 4, LABEL, sweep.facts, SOFT, size=NOTE)


def _draw_tiles(sheet: Sheet, content: Content, sweep: Sweep, y: float) -> float:
    if sweep.boxes:
        heights = [_draw_box(sheet, content, tile, _left(i), y) for i, tile in enumerate(sweep.tiles)]
        y += max(heights) + 4
    lines = 1
    for i, tile in enumerate(sweep.tiles):
        sheet.image(_left(i), y, TILE, TILE, tile.image_HWC)
        lines = max(lines, _draw_label(sheet, tile, _left(i) + TILE / 2, y + TILE + 3))
    y += TILE + 3 + lines * LINE
    for band in sweep.bands:
        y = _draw_band(sheet, band.name, _middle(band.first), _middle(band.last), y)
    y = _draw_row(sheet, sweep, y + 5)
    return _draw_orders(sheet, content, y + 10) if sweep.title == "order" else y


def _left(slot: int) -> float:
    return RIGHT + slot * (TILE + SPACE)


def _middle(slot: int) -> float:
    return _left(slot) + TILE / 2


def _draw_label(sheet: Sheet, tile: Tile, x: float, y: float) -> int:
    """Writes the value below a tile, framed if it is the identity; returns its number of lines."""
    if tile.identity:
        width = sheet.text_width(tile.label) + 22
        sheet.frame(x - width / 2, y, width, LINE, ACCENT)
    lines = sheet.wrap(tile.label, TILE + SPACE - 2, NOTE) if sheet.text_width(tile.label) > TILE else [tile.label]
    size = NOTE if len(lines) > 1 else BODY
    for i, line in enumerate(lines):
        sheet.text(x, y + i * (LINE - 3), line, ACCENT if tile.identity else INK, size=size, align="middle")
    return len(lines)


def _draw_box(sheet: Sheet, content: Content, tile: Tile, x: float, y: float) -> float:
    """Draws the crop box of a tile on the photo, at most as wide as a tile; returns the height."""
    height, width = content.photo_HWC.shape[:2]
    scale = min(TILE / width, 1.5 * TILE / height)
    across, below = width * scale, height * scale
    x += (TILE - across) / 2
    sheet.image(x, y, across, below, content.photo_HWC)
    top, left, h, w = ((tile.row_P or ())[i] * scale for i in range(4))
    for veil in (
        (0, 0, across, top),
        (0, top, left, h),
        (left + w, top, across - left - w, h),
        (0, top + h, across, below - top - h),
    ):
        sheet.block(x + veil[0], y + veil[1], veil[2], veil[3], VEIL)
    sheet.box(x + left, y + top, w, h, BOX, thickness=1.5)
    return below


def _draw_band(sheet: Sheet, name: str, start: float, end: float, y: float) -> float:
    """Draws a published range as a line between two ticks, with its name; a single value as one tick."""
    middle = y + LINE / 2
    width = sheet.text_width(name, NOTE) + 14
    sheet.line(start, middle - 3, start, middle + 3, ACCENT)
    if end > start:
        sheet.line(end, middle - 3, end, middle + 3, ACCENT)
        for x0, x1 in ((start, (start + end - width) / 2), ((start + end + width) / 2, end)):
            if x1 > x0:
                sheet.line(x0, middle, x1, middle, ACCENT)
        sheet.text((start + end) / 2, y - 1, name, SOFT, size=NOTE, align="middle")
    else:
        sheet.text(start + 7, y - 1, name, SOFT, size=NOTE)
    return y + LINE - 2


def _draw_row(sheet: Sheet, sweep: Sweep, y: float) -> float:
    """Writes the row of the tensor, with the swept columns in colour."""
    x = float(RIGHT)
    for i, (name, cell) in enumerate(zip(COLUMNS, sweep.cells, strict=True)):
        last = i == len(COLUMNS) - 1
        for text, color in (("[" if i == 0 else "", SOFT), (cell, ACCENT if name in sweep.swept else SOFT)):
            sheet.text(x, y, text, color, size=NOTE)
            x += sheet.text_width(text, NOTE)
        sheet.text(x, y, "]" if last else ",", SOFT, size=NOTE)
        x += 9
    return y + LINE


def _draw_orders(sheet: Sheet, content: Content, y: float) -> float:
    y = sheet.paragraph(RIGHT, y, STRIP, ORDERS, SOFT, size=NOTE) + 4
    step = (STRIP - SMALL) / 11
    for i, tile in enumerate(content.orders):
        x, top = RIGHT + step * (i % 12), y + (SMALL + 38) * (i // 12)
        sheet.image(x, top, SMALL, SMALL, tile.image_HWC)
        for line, text in enumerate(tile.label.split()):
            sheet.text(x + SMALL / 2, top + SMALL + 13 * line, text, SOFT, size=FINE, align="middle")
    return y + 2 * (SMALL + 38) - 8


def _draw_learned(sheet: Sheet, content: Content, y: float) -> float:
    learned = content.learned
    sheet.text(MARGIN, y, "Targets and conditions", INK, size=17)
    sheet.text(MARGIN, y + 24, _plain(LEARNED["pair"]), SOFT)
    y += 54
    below = _draw_photo(sheet, content, y)
    for v in (0, 1):
        below = max(below, _draw_view(sheet, content, v, RIGHT + v * (STRIP + SPACE) / 2, y))
    y = below + 16
    for v, row in enumerate(learned.rows):
        sheet.block(MARGIN, y + 5, 9, 9, VIEW_COLORS[v])
        sheet.text(MARGIN + 16, y, f"[{', '.join(row)}]", SOFT, size=NOTE)
        y += LINE
    for title, text, titles, entries in (
        ("AugSelf: targets", LEARNED["augself"], ("1, 2", "2, 1"), learned.targets),
        ("CASSLE: descriptors", LEARNED["cassle"], ("view 1", "view 2"), learned.descriptors),
    ):
        sheet.text(MARGIN, y + 24, title, INK, size=15)
        y = sheet.paragraph(MARGIN, y + 46, INNER, _plain(text), INK) + 6
        y = _draw_table(sheet, entries, titles, y)
    x = float(MARGIN)
    for v, colors in enumerate(learned.means, 1):
        for color, when in zip(colors, ("before", "after"), strict=True):
            sheet.block(x, y + 10, 22, 12, "#{:02x}{:02x}{:02x}".format(*color))
            text = f"mean colour of view {v} {when} the jitter"
            sheet.text(x + 28, y + 7, text, SOFT, size=NOTE)
            x += INNER / 4
    return y + 7 + LINE


def _draw_photo(sheet: Sheet, content: Content, y: float) -> float:
    height, width = content.photo_HWC.shape[:2]
    scale = min(LABEL / width, LABEL * 1.2 / height)
    sheet.image(MARGIN, y, width * scale, height * scale, content.photo_HWC)
    for (top, left, h, w), color in zip(outlines(content.learned.pair), VIEW_COLORS, strict=True):
        sheet.box(MARGIN + left * scale, y + top * scale, w * scale, h * scale, color)
    return y + height * scale


def _draw_view(sheet: Sheet, content: Content, v: int, x: float, y: float) -> float:
    pair = content.learned.pair
    sheet.image(x, y, VIEW, VIEW, pair.views_HWC[v])
    sheet.block(x + VIEW + 12, y + 3, 9, 9, VIEW_COLORS[v])
    sheet.text(x + VIEW + 28, y - 2, f"View {v + 1}", INK, size=14)
    line = y + 22
    for word in pair.words[v]:
        sheet.text(x + VIEW + 12, line, word.label, SOFT, size=NOTE)
        for text in (part for whole in word.lines for part in sheet.wrap(whole, 122, NOTE)):
            sheet.text(x + VIEW + 74, line, text, INK if word.applied else FAINT, size=NOTE)
            line += LINE - 1
    return max(y + VIEW, line)


def _draw_table(sheet: Sheet, entries: list[Entry], titles: tuple[str, str], y: float) -> float:
    number, group, name, first, second, source = (MARGIN + x for x in (16, 28, 128, 268, 330, 356))
    for x, title in ((first, titles[0]), (second, titles[1])):
        sheet.text(x, y, title, SOFT, size=NOTE, align="right")
    sheet.text(source, y, "from", SOFT, size=NOTE)
    y += LINE
    previous = ""
    for i, entry in enumerate(entries):
        if entry.group != previous:
            sheet.line(MARGIN, y, WIDTH - MARGIN, y, GRID)
            sheet.text(group, y, entry.group, SOFT, size=NOTE)
        previous = entry.group
        sheet.text(number, y, str(i), FAINT, size=NOTE, align="right")
        sheet.text(name, y, entry.name, INK, size=NOTE)
        for x, value in zip((first, second), entry.values, strict=True):
            sheet.text(x, y, value, INK, size=NOTE, align="right")
        sheet.text(source, y, entry.text, SOFT, size=NOTE)
        y += LINE
    return y
