"""Where photos come from: one module for each kind of collection, all of them Samples to the writer."""

import os

from ...errors import UsageError
from .folder import open_folder
from .samples import Columns, Samples

_KINDS = (open_folder,)


def open_samples(source: str | os.PathLike[str], columns: Columns | None = None) -> Samples:
    """The collection of photos at `source`.

    columns: which to read, of a collection that has columns.

    Raises UsageError where there is nothing, or nothing that is known, and RunError for a damaged collection.
    """
    source = os.fspath(source)
    for open_kind in _KINDS:
        found = open_kind(source, columns or Columns())
        if found is not None:
            return found
    what = "not a kind of collection that is known" if os.path.exists(source) else "no such file or folder"
    raise UsageError(f"{source}: {what}; pass a folder of photos, or one folder a class in a folder")
