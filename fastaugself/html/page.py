"""The frame of this project's HTML pages: one file, no network, no script, light and dark, phone and desktop."""

import base64
import html
import io
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

VIEW_COLORS = ("#e8710a", "#1f78d1")  # of view 1 and view 2, told apart by every common kind of colour vision


def page(title: str, body: str) -> str:
    """A complete document around `body`, which is HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_css()}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


@cache
def _css() -> str:
    return (Path(__file__).parent / "page.css").read_text(encoding="utf-8")


def escape(text: object) -> str:
    """Text for use between tags and inside quoted attributes."""
    return html.escape(str(text))


def data_uri(
    image_HWC: NDArray[np.uint8], *, max_side: int = 480, quality: int = 88, kind: Literal["jpeg", "webp"] = "jpeg"
) -> str:
    """An image as the value of `src`: PNG below 97 px, where every pixel shows, `kind` above, shrunk to `max_side`."""
    image = Image.fromarray(image_HWC)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    form = "png" if max(image.size) <= 96 else kind
    image.save(out, form, optimize=True, quality=quality, method=6)  # each format takes what it knows
    return f"data:image/{form};base64,{base64.b64encode(out.getvalue()).decode()}"
