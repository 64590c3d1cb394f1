"""Tables with a column of photos: Parquet, Arrow (as of Hugging Face's `save_to_disk`) and Feather files.

A photo is a binary value, or Hugging Face's struct {bytes, path}. Class names come from Hugging Face's feature types,
which are stored in the schema.
"""

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ...errors import RunError, UsageError
from .patterns import find_files, identity
from .samples import Columns, Sample, Samples, UnreadablePhoto, fingerprint, number_classes
from .table_columns import Schema, class_names, describe, image_column, label_column, read_label

log = logging.getLogger(__name__)

_SUFFIXES = (".parquet", ".arrow", ".feather")
_ROWS = 32  # rows in memory at a time, in addition to those being converted
_MAX_RATIO = 64  # maximum ratio of uncompressed to compressed size: photos are compressed already


class _Table(Protocol):
    """One file. rows: number of rows. schema: its columns."""

    rows: int
    schema: Schema

    def batches(self, start: int, columns: list[str]) -> Iterator[Any]:
        """Yields record batches of these columns, starting at row `start`."""
        ...


class TableSamples(Samples):
    """The rows of one or several tables with the same columns, in the order of the files."""

    def __init__(self, source: str, files: list[Path], columns: Columns):
        self.source, self._files = source, files
        self._tables = [_open(file) for file in files]
        schemas = [table.schema for table in self._tables]
        self._image = image_column(schemas, columns.image)
        label = label_column(schemas, self._image, columns.label)
        self.count = sum(table.rows for table in self._tables)
        if not self.count:
            raise UsageError(f"{source} has no rows")
        self._labels, self.classes = self._read_labels(label, class_names(schemas, label))
        self.fingerprint = fingerprint([*identity(files), self._image, label, self._labels, self.classes])

    def _read_labels(self, label: str, names: list[str]) -> tuple[list[int], list[str]]:
        if not label:
            return [-1] * self.count, []
        found: list[int | str | None] = []
        for file, table in zip(self._files, self._tables, strict=True):
            row = 0
            with _errors_name(file):
                for batch in table.batches(0, [label]):
                    for value in batch.column(0).to_pylist():
                        found.append(read_label(f"{file}: row {row}, column {label!r}", value))
                        row += 1
        labels, classes = number_classes(found, f"{self.source}, column {label!r}")
        if found.count(None) == self.count:
            log.warning("%s: column %r has no values, so no photo has a label", self.source, label)
        if names and not classes:
            if max(labels) >= len(names):
                raise RunError(f"{self.source}: label {max(labels)} in column {label!r}, but only {len(names)} names")
            classes = names
        return labels, classes

    def samples(self, start: int = 0) -> Generator[Sample]:
        first = 0
        for file, table in zip(self._files, self._tables, strict=True):
            row = max(0, start - first)
            if row < table.rows:
                with _errors_name(file):
                    for batch in table.batches(row, [self._image]):
                        for value in _values(batch.column(0)):
                            place = f"{file}: row {row}"
                            yield Sample(
                                f"{file.name}:{row}", self._labels[first + row], place, partial(_read, place, value)
                            )
                            row += 1
                if row != table.rows:
                    raise RunError(f"{file} is damaged: {row} rows, but its metadata state {table.rows}")
            first += table.rows


def open_tables(source: str, columns: Columns) -> Samples | None:
    """Opens .parquet, .arrow and .feather files: a file, a pattern, or a folder with the files or data/ with them."""
    files = find_files(source, _SUFFIXES, folders=("", "data"))
    return None if files is None else TableSamples(source, files, columns)


def _open(file: Path) -> _Table:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{file} needs pyarrow, which cannot be imported ({error}): pip install pyarrow") from error
    with _errors_name(file):
        return _Parquet(file) if file.name.lower().endswith(".parquet") else _Arrow(file)


class _Parquet:
    def __init__(self, file: Path):
        from pyarrow import parquet

        self._file = parquet.ParquetFile(file, page_checksum_verification=True)
        self.schema, self._meta = describe(file, self._file.schema_arrow), self._file.metadata
        self.rows: int = self._meta.num_rows
        size = file.stat().st_size
        groups = [self._meta.row_group(i) for i in range(self._meta.num_row_groups)]
        self._rows = [group.num_rows for group in groups]
        if not 0 <= self.rows <= size or min(self._rows, default=0) < 0 or sum(self._rows) != self.rows:
            raise ValueError(f"its metadata state {self.rows} rows in {size} bytes")
        # The metadata of single columns are not read: pyarrow 26 aborts the process if they are damaged.
        uncompressed = sum(group.total_byte_size for group in groups)
        if not 0 <= uncompressed <= _MAX_RATIO * size + (1 << 26):
            raise ValueError(f"its metadata state that its {size} bytes decompress to {uncompressed}")

    def batches(self, start: int, columns: list[str]) -> Iterator[Any]:
        groups, skip = list(range(len(self._rows))), start
        while groups and skip >= self._rows[groups[0]]:
            skip -= self._rows[groups.pop(0)]
        for batch in self._file.iter_batches(_ROWS, row_groups=groups, columns=columns, use_threads=False):
            if skip < len(batch):
                yield batch.slice(skip)
            skip = max(0, skip - len(batch))


class _Arrow:
    def __init__(self, file: Path):
        import pyarrow

        mapped = pyarrow.memory_map(str(file))
        start = mapped.read(6)
        mapped.seek(0)
        if start.startswith(b"FEA1"):
            raise UsageError(
                f"{file} is a Feather file of version 1: write it as version 2 with "
                "pyarrow.feather.write_feather(pyarrow.feather.read_table(FILE), NEW)"
            )
        # A file with a footer (IPC file, Feather), or a stream, as of save_to_disk. Memory-mapped, not read yet.
        reader = pyarrow.ipc.open_file(mapped) if start == b"ARROW1" else pyarrow.ipc.open_stream(mapped)
        self._table = reader.read_all()
        self.schema, self.rows = describe(file, self._table.schema), self._table.num_rows

    def batches(self, start: int, columns: list[str]) -> Iterator[Any]:
        for batch in self._table.select(columns).slice(start).to_batches(_ROWS):
            batch.validate(full=True)  # offsets beyond the data would be followed otherwise
            yield batch


@contextmanager
def _errors_name(file: Path) -> Iterator[None]:
    """Turns errors of pyarrow into RunErrors that name the file."""
    try:
        yield
    except (OSError, ValueError, ArithmeticError, KeyError, NotImplementedError, MemoryError) as error:
        if isinstance(error, UsageError):
            raise
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"{file} is not a readable table: {what}") from error


def _values(column: Any) -> Iterator[bytes | None]:
    from pyarrow import types

    if types.is_struct(column.type):
        whole = column.is_valid().to_pylist()
        column = column.field("bytes")
    else:
        whole = [True] * len(column)
    for i, there in enumerate(whole):
        yield column[i].as_py() if there else None


def _read(place: str, value: bytes | None) -> bytes:
    if value is None:
        raise UnreadablePhoto(
            f"{place} has no photo data (paths to other files are not followed): embed the photos, as "
            f"Hugging Face's save_to_disk and to_parquet do"
        )
    return value
