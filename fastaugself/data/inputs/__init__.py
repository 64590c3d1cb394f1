"""Sources of photos: one module per kind of collection; each presents it to the writer as Samples."""

import os

from ...errors import UsageError
from .folder import open_folder
from .listing import open_listing
from .samples import Columns, Samples
from .shards import open_shards
from .stl10 import open_stl10
from .tables import open_tables
from .walk import EXTENSIONS

# Tried in this order; open_folder accepts any folder.
KINDS = (open_shards, open_tables, open_listing, open_stl10, open_folder)
_KNOWN = (
    "a folder of photos or of one folder per class, .tar shards, .parquet, .arrow or .feather files, a .txt list of "
    "paths, stl10_binary"
)


def open_samples(source: str | os.PathLike[str], columns: Columns | None = None) -> Samples:
    """Opens the collection of photos at `source`.

    source: a path, or a pattern of several files. columns: the columns to read, for collections that have columns.

    Raises UsageError if there is nothing at `source` or its kind is unknown, RunError for a damaged collection.
    """
    source = os.fspath(source)
    for open_kind in KINDS:
        found = open_kind(source, columns or Columns())
        if found is not None:
            return found
    why = _why_unknown(source)
    raise UsageError(f"{source}: {why}" + ("" if ":" in why else f"; pass {_KNOWN}"))


def _why_unknown(source: str) -> str:
    suffix = os.path.splitext(source)[1].lower()
    if not os.path.exists(source):
        return "no such file or folder"
    if suffix == ".beton":
        return "is a .beton file already: pass it to training directly"
    if suffix == ".zip":
        return "is a zip archive: unpack it first"
    if suffix in EXTENSIONS:
        return f"is a single photo: pass its folder, {os.path.dirname(source) or '.'}"
    return "unknown kind of collection"
