"""Tables with a column of photos: Parquet files, and Arrow files written by Hugging Face's `save_to_disk`.

A photo is a binary value, or Hugging Face's struct {bytes, path}. Class names come from Hugging Face's feature types,
which are stored in the schema.
"""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ...errors import RunError, UsageError
from .patterns import find_files, identity
from .samples import Columns, Sample, Samples, UnreadablePhoto, fingerprint, number_classes

_SUFFIXES = (".parquet", ".arrow")
_ROWS = 32  # rows in memory at a time, in addition to those being converted
_LABELS = ("label", "labels")  # default label columns if Hugging Face's schema does not name one
_MAX_RATIO = 64  # maximum ratio of uncompressed to compressed size: photos are compressed already


class _Table(Protocol):
    """One file. rows: number of rows. schema: Arrow schema."""

    rows: int
    schema: Any

    def batches(self, start: int, columns: list[str]) -> Iterator[Any]:
        """Yields record batches of these columns, starting at row `start`."""
        ...


class TableSamples(Samples):
    """The rows of one or several tables with the same columns, in the order of the files."""

    def __init__(self, source: str, files: list[Path], columns: Columns):
        self.source, self._files = source, files
        self._tables = [_open(file) for file in files]
        schema = self._tables[0].schema
        features = _features(schema)
        self._image = _image_column(source, schema, features, columns.image)
        label = _label_column(source, schema, features, columns.label)
        needed = {self._image, label} - {""}
        for file, table in zip(files, self._tables, strict=True):
            if missing := needed - set(table.schema.names):
                raise UsageError(
                    f"{file} has no column {min(missing)!r}, unlike {files[0]}; its columns: {_columns(table.schema)}"
                )
        self.count = sum(table.rows for table in self._tables)
        if not self.count:
            raise UsageError(f"{source} has no rows")
        self._labels, self.classes = self._read_labels(label, features)
        self.fingerprint = fingerprint([*identity(files), self._image, label])

    def _read_labels(self, label: str, features: dict[str, Any]) -> tuple[list[int], list[str]]:
        if not label:
            return [-1] * self.count, []
        found: list[int | str | None] = []
        for file, table in zip(self._files, self._tables, strict=True):
            with _errors_name(file):
                for batch in table.batches(0, [label]):
                    found += batch.column(0).to_pylist()
        labels, classes = number_classes(found, f"{self.source}, column {label!r}")
        names = features.get(label, {}).get("names")
        if not classes and isinstance(names, list) and all(isinstance(name, str) for name in names):
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
    """Opens .parquet or .arrow files: a file, a pattern, or a folder with the files or with a `data` folder of them."""
    files = find_files(source, _SUFFIXES, folders=("", "data"))
    return None if files is None else TableSamples(source, files, columns)


def _open(file: Path) -> _Table:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{file} needs pyarrow, which cannot be imported ({error}): pip install pyarrow") from error
    with _errors_name(file):
        table: _Table = _Parquet(file) if file.name.lower().endswith(".parquet") else _Arrow(file)
        for field in table.schema:  # finds invalid names here, where the file is known
            _holds_photos(field.type)
        _columns(table.schema)
        return table


class _Parquet:
    def __init__(self, file: Path):
        from pyarrow import parquet

        self._file = parquet.ParquetFile(file, page_checksum_verification=True)
        self.schema, self._meta = self._file.schema_arrow, self._file.metadata
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

        self._table = pyarrow.ipc.open_stream(pyarrow.memory_map(str(file))).read_all()  # memory-mapped, not read yet
        self.schema, self.rows = self._table.schema, self._table.num_rows

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


def _features(schema: Any) -> dict[str, Any]:
    """Hugging Face's feature types by column, from the schema's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _holds_photos(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        inside = [(kind.field(i).name, kind.field(i).type) for i in range(kind.num_fields)]
        return any(name == "bytes" and _holds_photos(value) for name, value in inside)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _image_column(source: str, schema: Any, features: dict[str, Any], wanted: str) -> str:
    able = [field.name for field in schema if _holds_photos(field.type)]
    if wanted:
        if wanted not in able:
            raise UsageError(f"{source}: no column {wanted!r} with photos; {_remedy('image', able, schema)}")
        return wanted
    named = [name for name in able if features.get(name, {}).get("_type") == "Image"] or able
    if len(named) != 1:
        how_many = "several columns hold" if named else "no column holds"
        raise UsageError(f"{source}: {how_many} photos; {_remedy('image', named, schema)}")
    return named[0]


def _label_column(source: str, schema: Any, features: dict[str, Any], wanted: str) -> str:
    """The name of the label column, "" for none."""
    from pyarrow import types

    able = [
        field.name
        for field in schema
        if types.is_integer(field.type) or types.is_string(field.type) or types.is_large_string(field.type)
    ]
    if wanted == "none":
        return ""
    if wanted:
        if wanted not in able:
            raise UsageError(f"{source}: no column {wanted!r} with labels; {_remedy('label', able, schema)}")
        return wanted
    named = [name for name in able if features.get(name, {}).get("_type") == "ClassLabel"]
    named = named or [name for name in _LABELS if name in able]
    if len(named) > 1:
        raise UsageError(f"{source}: several columns hold labels; {_remedy('label', [*named, 'none'], schema)}")
    return named[0] if named else ""


def _remedy(what: str, able: list[str], schema: Any) -> str:
    choices = f"pass --{what}-column {' or '.join(able)}; " if able else ""
    return f"{choices}its columns are {_columns(schema)}"


def _columns(schema: Any) -> str:
    return ", ".join(f"{field.name} ({str(field.type)[:60]})" for field in schema)


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
