"""Removes from the bytes of a photo what does not change its pixels.

Pillow parses all metadata of a photo, and refuses the whole photo if some are odd or large. Only the orientation is
needed, which is kept.
"""

import zlib
from collections.abc import Iterator
from typing import Literal

_PNG = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTED_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # from which Pillow reads the orientation
_MAX_TEXT = 1 << 20  # unpacked bytes, Pillow's limit for one text
_ORIENTED_APP1 = (b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0")
_ORIENTATION = 0x0112  # tag of EXIF
_LENGTHS = {1: 1, 3: 2, 4: 4}  # bytes of a whole number by its type
_LAST_OF_PIXELS = 532  # of the tags in the TIFF specification, version 6; the later ones are metadata
_LERC = 50674  # parameters of a compression
_TIFF_WORDS = frozenset((*range(269, 273), *range(280, 284), *range(285, 290), *range(296, 298), *range(305, 317)))
_NEUTRAL_OFFSET = b"\xf0\xff\xff\xff"  # of the first directory of EXIF: behind its end in either byte order


def without_metadata(data: bytes, *, orientation: bool) -> bytes:
    """The bytes of a JPEG, PNG, TIFF or AVIF file without its metadata; other bytes, and unexpected ones, are kept.

    orientation: keep the metadata that may hold the orientation.
    """
    if data.startswith(_PNG):
        return _PNG + b"".join(_png_chunks(data, orientation))
    if data.startswith(b"\xff\xd8"):
        return data[:2] + b"".join(_jpeg_segments(data, orientation))
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _without_tiff_tags(data, orientation)
    if data[4:12] in (b"ftypavif", b"ftypavis") and not orientation:
        return _without_avif_exif(data)
    return data


def exif_orientation(exif: bytes) -> int | None:
    """The orientation in EXIF, a whole number in its first directory; None without one.

    Pillow's parser does not find it behind an entry of an impossible size.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"] = "little" if exif.startswith(b"II") else "big"

    def number(start: int, length: int) -> int:
        return int.from_bytes(exif[start : start + length], order)

    first = number(4, 4)
    for entry in range(first + 2, min(first + 2 + 12 * number(first, 2), len(exif) - 11), 12):
        if number(entry, 2) == _ORIENTATION and number(entry + 2, 2) in _LENGTHS:
            return number(entry + 8, _LENGTHS[number(entry + 2, 2)])
    return None


def _png_chunks(data: bytes, orientation: bool) -> Iterator[bytes]:
    """The critical chunks, whose names start with a capital (PNG specification, section 5.4)."""
    start, kept = len(_PNG), set()
    while len(data) - start >= 12:
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            break
        kind = data[start + 4 : start + 8]
        wanted = kind == b"eXIf"
        if kind in _TEXTS:
            name = data[start + 8 : min(start + 88, end - 4)].split(b"\0")[0]
            wanted = name in _ORIENTED_TEXTS and name not in kept and _is_short(kind, data[start + 8 : end - 4])
            kept.add(name)
        if kind[:1].isupper() or (wanted and orientation):
            yield data[start:end]
        start = end
        if kind == b"IEND":
            return
    yield data[start:]


def _is_short(kind: bytes, text: bytes) -> bool:
    """Whether the text of a chunk has at most _MAX_TEXT bytes, also when it is unpacked."""
    parts = text.split(b"\0", 1)[-1]  # behind the name
    packed = None
    if kind == b"zTXt":
        packed = parts[1:]
    elif kind == b"iTXt" and parts[:1] == b"\1":
        packed = parts[2:].split(b"\0", 2)[-1]  # behind the language and the translated name
    if packed is None:
        return len(text) <= _MAX_TEXT
    try:
        return len(zlib.decompressobj().decompress(packed, _MAX_TEXT + 1)) <= _MAX_TEXT
    except zlib.error:
        return False


def _jpeg_segments(data: bytes, orientation: bool) -> Iterator[bytes]:
    """Everything but the comments and application data that do not change the colours (APP0 and APP14 do)."""
    start = 2
    while len(data) - start >= 4 and data[start] == 0xFF and 0xC0 <= data[start + 1] < 0xFF:
        marker = data[start + 1]
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if marker == 0xDA or 0xD0 <= marker <= 0xD9 or end < start + 4 or end > len(data):
            break
        oriented = marker == 0xE1 and data.startswith(_ORIENTED_APP1, start + 4)
        metadata = marker == 0xFE or (0xE1 <= marker <= 0xEF and marker != 0xEE)
        if not metadata or (oriented and orientation):
            yield data[start:end]
        start = end
    yield data[start:]


def _without_tiff_tags(data: bytes, orientation: bool) -> bytes:
    """The bytes with only those entries of the first directory that describe pixels, and without further pages."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    first = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[first : first + 2], order)
    end = first + 2 + 12 * count
    if end + 4 > len(data):
        return data
    entries = [data[start : start + 12] for start in range(first + 2, end, 12)]
    tags = [int.from_bytes(entry[:2], order) for entry in entries]
    kept = [
        entry
        for tag, entry in zip(tags, entries, strict=True)
        if tag == _LERC or (tag <= _LAST_OF_PIXELS and tag not in _TIFF_WORDS and (orientation or tag != _ORIENTATION))
    ]
    directory = len(kept).to_bytes(2, order) + b"".join(kept) + bytes(4)
    return b"".join((data[:first], directory, data[first + len(directory) :]))


def _without_avif_exif(data: bytes) -> bytes:
    """The bytes with EXIF that has no entries; the orientation of AVIF is a property of the image, not in EXIF."""
    for header in (b"II*\0", b"MM\0*"):
        start = data.find(header)
        while start >= 0 and start + 8 <= len(data):
            data = data[: start + 4] + _NEUTRAL_OFFSET + data[start + 8 :]
            start = data.find(header, start + 8)
    return data
