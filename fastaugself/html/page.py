"""Template of the HTML pages: self-contained, no network, no scripts, light and dark themes, phone and desktop."""

import base64
import html
import io
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

VIEW_COLORS = (
    "#e8710a",
    "#1f78d1",
)  # views 1 and 2, distinguishable under common colour-vision deficiencies


def page(title: str, body: str) -> str:
    """A complete HTML document. title: plain text. body: HTML."""
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
    """Escapes text for element content and quoted attributes."""
    return html.escape(str(text))


def data_uri(
    image_HWC: NDArray[np.uint8], *, max_side: int = 480, quality: int = 88, kind: Literal["jpeg", "webp"] = "jpeg"
) -> str:
    """A data URI of an image, shrunk to `max_side` pixels: PNG up to 96 px (lossless), `kind` above."""
    image = Image.fromarray(image_HWC)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    form = "png" if max(image.size) <= 96 else kind
    image.save(out, form, optimize=True, quality=quality, method=6)  # formats ignore options they do not have
    return f"data:image/{form};base64,{base64.b64encode(out.getvalue()).decode()}"
