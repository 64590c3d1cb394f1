"""Files of small data sets: photos of one colour, and text."""

from PIL import Image


def photo(path, color=0, size=(12, 10)):
    """A photo of one colour; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (color, 255 - color, 7)).save(path)
    return path


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
