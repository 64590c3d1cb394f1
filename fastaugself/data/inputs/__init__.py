"""Where photos come from: one module for each kind of collection, all of them Samples to the writer."""

import os

from ...errors import UsageError
from .folder import EXTENSIONS, open_folder
from .listing import open_listing
from .samples import Columns, Samples
from .shards import open_shards
from .stl10 import open_stl10
from .tables import open_tables

# The first whose it is; any folder is open_folder's.
_KINDS = (open_shards, open_tables, open_listing, open_stl10, open_folder)
_KNOWN = "a folder of photos or of one folder a class, .tar shards, .parquet files, a .txt list of paths, stl10_binary"


def open_samples(source: str | os.PathLike[str], columns: Columns | None = None) -> Samples:
    """The collection of photos at `source`: a path, or a pattern of several files.

    columns: which to read, of a collection that has columns.

    Raises UsageError where there is nothing, or nothing that is known, and RunError for a damaged collection.
    """
    source = os.fspath(source)
    for open_kind in _KINDS:
        found = open_kind(source, columns or Columns())
        if found is not None:
            return found
    raise UsageError(f"{source}: {_why(source)}; pass {_KNOWN}")


def _why(source: str) -> str:
    suffix = os.path.splitext(source)[1].lower()
    if not os.path.exists(source):
        return "no such file or folder"
    if suffix == ".beton":
        return "is a .beton file already, which training takes as it is"
    if suffix == ".zip":
        return "is a zip archive: unpack it first"
    if suffix in EXTENSIONS:
        return "is one photo"
    return "not a kind of collection that is known"
