"""The columns as an HTML page."""

from content import Content
from fastaugself.html.page import data_uri, escape, page
from fastaugself.report.pair_html import pair_html
from fastaugself_kernels import COLUMNS
from learned import Color, Entry, Learned
from sweeps import Band, Sweep, Tile
from texts import INTRODUCTION, LEARNED, ORDERS, PIPELINE

SLOTS = 7  # tiles per row
TILE, SMALL = 208, 128  # stored size in pixels, at most, of a tile and of an order's tile


def columns_page(content: Content, detail: str) -> str:
    """The content as a complete HTML document; `detail` is the line below its heading."""
    return page(
        f"Parameter columns on {content.name}",
        "\n".join(
            [
                _photo_definition(content),
                f'<h1>The parameter tensor, column by column</h1>\n<p class="eyebrow">{escape(detail)}</p>',
                *(f'<p class="lead">{text}</p>' for text in INTRODUCTION),
                _cells_html(content.identity),
                f'<p class="note">{PIPELINE}</p>',
                *(_sweep_html(content, sweep) for sweep in content.sweeps),
                _learned_html(content.learned),
            ]
        ),
    )


def _photo_definition(content: Content) -> str:
    """The photo, embedded once; every crop box is drawn on a reference to it."""
    height, width = content.photo_HWC.shape[:2]
    uri = data_uri(content.photo_HWC, max_side=256, quality=80, kind="webp")
    return (
        '<svg class="definition" aria-hidden="true"><defs>'
        f'<image id="photo" href="{uri}" width="{width}" height="{height}" preserveAspectRatio="none"/></defs></svg>'
    )


def _cells_html(identity: tuple[str, ...]) -> str:
    """The sixteen columns with their identity values, each a link to its sweep."""
    cells = []
    for i, (name, value) in enumerate(zip(COLUMNS, identity, strict=True)):
        inner = f"<small>{i}</small><span>{name}</span><b>{value}</b>"
        cells.append(f"<div>{inner}</div>" if name == "spare" else f'<a href="#{name}">{inner}</a>')
    return f'<nav class="cells" aria-label="columns">{"".join(cells)}</nav>'


def _sweep_html(content: Content, sweep: Sweep) -> str:
    index = COLUMNS.index(sweep.title) if sweep.title in COLUMNS else None
    number = "" if index is None else f'<span class="index">{index}</span>'
    anchor = "" if index is None else f' id="{sweep.title}"'
    tiles = "".join(_tile_html(content, sweep, tile) for tile in sweep.tiles)
    bands = "".join(_band_html(band) for band in sweep.bands)
    orders = _orders_html(content) if sweep.title == "order" else ""
    return (
        f'<section class="sweep"{anchor}>\n<div class="about"><h3>{number}{sweep.title}</h3>'
        f'<p class="unit">{escape(sweep.unit)}</p><p>{escape(sweep.text)}</p><p class="facts">{escape(sweep.facts)}</p>'
        f'</div>\n<div class="shown"><div class="strip"><div class="tiles7">{tiles}{bands}</div></div>'
        f'<pre class="row">{_row_html(sweep)}</pre>{orders}</div>\n</section>'
    )


def _row_html(sweep: Sweep) -> str:
    cells = (
        f"<mark>{cell}</mark>" if name in sweep.swept else cell for name, cell in zip(COLUMNS, sweep.cells, strict=True)
    )
    return f"[{', '.join(cells)}]"


def _tile_html(content: Content, sweep: Sweep, tile: Tile) -> str:
    box = _box_html(content, tile) if sweep.boxes else ""
    name = "tile identity" if tile.identity else "tile"
    text = f"{sweep.title} {tile.label}"
    return f'<figure class="{name}">{box}{_image_html(tile, text, TILE)}<figcaption>{tile.label}</figcaption></figure>'


def _image_html(tile: Tile, text: str, side: int) -> str:
    height, width = tile.image_HWC.shape[:2]
    uri = data_uri(tile.image_HWC, max_side=side, quality=76, kind="webp")
    row = f' title="[{", ".join(f"{value:g}" for value in tile.row_P)}]"' if tile.row_P else ""
    return f'<img src="{uri}" width="{width}" height="{height}" alt="{escape(text)}"{row}>'


def _box_html(content: Content, tile: Tile) -> str:
    """The crop box of a tile on the photo."""
    height, width = content.photo_HWC.shape[:2]
    top, left, h, w = (tile.row_P or ())[:4]
    shape = f'x="{left:g}" y="{top:g}" width="{w:g}" height="{h:g}"'
    return (
        f'<svg class="boxes" viewBox="0 0 {width} {height}" aria-hidden="true"><use href="#photo"/>'
        f'<path class="veil" d="M0 0H{width}V{height}H0ZM{left:g} {top:g}v{h:g}h{w:g}v-{h:g}Z"/>'
        f'<rect class="v2" {shape}/></svg>'
    )


def _band_html(band: Band) -> str:
    """A published range, from the centre of its first tile to that of its last."""
    point = band.first == band.last
    start, end = 2 * band.first + 2, 2 * SLOTS + 1 if point else 2 * band.last + 2
    kind = "band point" if point else "band"
    return f'<div class="{kind}" style="grid-column: {start} / {end}"><span>{escape(band.name)}</span></div>'


def _orders_html(content: Content) -> str:
    tiles = []
    for tile in content.orders:
        letters, value = tile.label.split()
        image = _image_html(tile, f"order {tile.label}", SMALL)
        tiles.append(f"<figure>{image}<figcaption>{letters}<br>{value}</figcaption></figure>")
    return f'<p class="facts">{ORDERS}</p><div class="orders">{"".join(tiles)}</div>'


def _learned_html(learned: Learned) -> str:
    rows = "".join(
        f'<div class="view v{v}"><h3>View {v}</h3><pre class="row">[{", ".join(row)}]</pre></div>'
        for v, row in enumerate(learned.rows, 1)
    )
    swatches = "".join(
        f'<p class="facts">View {v}: {_swatch(before)} before the jitter, {_swatch(after)} after it.</p>'
        for v, (before, after) in enumerate(learned.means, 1)
    )
    return (
        f'<h2 id="learned">Targets and conditions</h2>\n<p class="lead">{LEARNED["pair"]}</p>\n'
        f'{pair_html(learned.pair)}\n<div class="drawn">{rows}</div>\n<div class="entries">\n'
        f"<div><h3>AugSelf: targets</h3><p>{LEARNED['augself']}</p>"
        f"{_table_html(learned.targets, ('1, 2', '2, 1'))}</div>\n"
        f"<div><h3>CASSLE: descriptors</h3><p>{LEARNED['cassle']}</p>"
        f"{_table_html(learned.descriptors, ('view 1', 'view 2'))}{swatches}</div>\n</div>"
    )


def _swatch(color: Color) -> str:
    r, g, b = color
    return f'<span class="color" style="background: rgb({r} {g} {b})"></span>({r}, {g}, {b})'


def _table_html(entries: list[Entry], titles: tuple[str, str]) -> str:
    head = "".join(f'<th class="number">{title}</th>' for title in titles)
    rows = []
    previous = ""
    for i, entry in enumerate(entries):
        group = f"<code>{entry.group}</code>" if entry.group != previous else ""
        previous = entry.group
        values = "".join(f'<td class="number">{value}</td>' for value in entry.values)
        rows.append(
            f'<tr{" class=first" if group else ""}><td class="number">{i}</td><td>{group}</td><th>{entry.name}</th>'
            f'{values}<td class="from">{escape(entry.text)}</td></tr>'
        )
    return (
        f'<div class="scroll"><table class="learned"><thead><tr><th></th><th></th><th></th>{head}<th>from</th></tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
