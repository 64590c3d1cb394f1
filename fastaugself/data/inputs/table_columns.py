"""The columns of a table: which one holds the photos and which one the labels, and what the labels mean.

Every file of a collection is asked, so that the answer does not depend on their order.
"""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UsageError
from ..beton.sidecar import difference

_LABELS = ("label", "labels")  # default label columns if Hugging Face's schema does not name one


class Schema(NamedTuple):
    """The columns of one file.

    names: all columns. photos: those that can hold photos. types: all columns with their types, for messages.
    features: Hugging Face's feature types by column.
    """

    file: Path
    names: list[str]
    photos: list[str]
    types: str
    features: dict[str, Any]

    def called(self, kind: str, able: list[str]) -> list[str]:
        """The columns among `able` that have this feature type."""
        return [name for name in able if self.features.get(name, {}).get("_type") == kind]


def describe(file: Path, schema: Any) -> Schema:
    """The columns of an Arrow schema. Raises ValueError for a damaged schema whose names cannot be read."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        features = {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        features = {}
    photos = [field.name for field in schema if _holds_photos(field.type)]
    types = ", ".join(f"{field.name} ({str(field.type)[:60]})" for field in schema)
    return Schema(file, list(schema.names), photos, types, features)


def _holds_photos(kind: Any) -> bool:
    """Whether an Arrow type is binary, or Hugging Face's struct {bytes, path}."""
    from pyarrow import types

    if types.is_struct(kind):
        inside = [(kind.field(i).name, kind.field(i).type) for i in range(kind.num_fields)]
        return any(name == "bytes" and _holds_photos(value) for name, value in inside)
    return any((types.is_binary(kind), types.is_large_binary(kind), types.is_binary_view(kind)))


def image_column(schemas: list[Schema], wanted: str) -> str:
    """The column with photos, which every file has. Raises UsageError if there is none, or several."""
    found: dict[str, Path] = {}
    for schema in schemas:
        if wanted and wanted not in schema.photos:
            raise UsageError(
                f"{schema.file}: no column {wanted!r} with photos; {_remedy('image', schema.photos, schema)}"
            )
        named = [wanted] if wanted else schema.called("Image", schema.photos) or schema.photos
        if len(named) != 1:
            how_many = "several columns hold" if named else "no column holds"
            others = [f", unlike {other.file}" for other in schemas if other.photos and not named][:1]
            remedy = _remedy("image", named, schema)
            if not named:
                remedy = f"expected a column of bytes, so embed the photos, or leave this file out; {remedy}"
            raise UsageError(f"{schema.file}: {how_many} photos{''.join(others)}; {remedy}")
        found.setdefault(named[0], schema.file)
    return _agreed("image", "photos", found)


def label_column(schemas: list[Schema], image: str, wanted: str) -> str:
    """The column with labels, which every file has; "" for none. Raises UsageError if there are several.

    image: the column with photos. wanted: as in Columns.
    """
    if wanted == "none":
        return ""
    found: dict[str, Path] = {}
    for schema in schemas:
        able = [name for name in schema.names if name != image]
        if wanted and wanted not in able:
            raise UsageError(f"{schema.file}: no column {wanted!r} with labels; {_remedy('label', able, schema)}")
        named = [wanted] if wanted else schema.called("ClassLabel", able) or [name for name in _LABELS if name in able]
        if len(named) > 1:
            remedy = _remedy("label", [*named, "none"], schema)
            raise UsageError(f"{schema.file}: several columns hold labels; {remedy}")
        for name in named:
            found.setdefault(name, schema.file)
    if not found:
        return ""
    label = _agreed("label", "labels", found)
    for schema in schemas:
        if label not in schema.names:
            remedy = _remedy("label", ["none"], schema)
            raise UsageError(f"{schema.file} has no column {label!r}, unlike {found[label]}; {remedy}")
    return label


def _agreed(option: str, what: str, found: dict[str, Path]) -> str:
    """The only column found, by its name, with the first file that has it."""
    if len(found) > 1:
        (a, in_a), (b, in_b) = list(found.items())[:2]
        raise UsageError(
            f"the {what} are in column {a!r} of {in_a}, but in column {b!r} of {in_b}: pass --{option}-column with the "
            f"name of a column that all files have to `fastaugself write`, or write the files one by one"
        )
    return next(iter(found))


def _remedy(option: str, able: list[str], schema: Schema) -> str:
    choices = f"pass --{option}-column {' or '.join(able)} to `fastaugself write`; " if able else ""
    return f"{choices}its columns are {schema.types}"


def class_names(schemas: list[Schema], label: str) -> list[str]:
    """Hugging Face's class names of the label column; empty without. Raises UsageError if files disagree."""
    known: tuple[Path, list[str]] | None = None
    for schema in schemas:
        names = schema.features.get(label, {}).get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            continue
        if known is not None and names != known[1]:
            raise UsageError(
                f"{known[0]} and {schema.file} disagree about the classes of column {label!r} "
                f"({difference(known[1], names)}): write files with the same class names in the same order, or pass "
                f"--label-column none to `fastaugself write`"
            )
        known = schema.file, names
    return known[1] if known else []


def read_label(place: str, value: Any) -> int | str | None:
    """A label from a table's value: a whole number of any type (False is 0, True is 1), a name, or None.

    A list of one label is that label. NaN is None: pandas stores missing whole numbers so.
    """
    found = value
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    if found is None or found == "" or found != found:
        return None
    if isinstance(found, bytes):
        try:
            return found.decode("utf-8")
        except UnicodeDecodeError:
            pass
    if isinstance(found, str):
        return found
    if isinstance(found, int | float | Decimal) and found % 1 == 0:  # not of an infinite number
        return int(found)
    raise UsageError(
        f"{place} is {str(value)[:80]!r}, expected a whole number or a name: pass another --label-column to "
        f"`fastaugself write`, or --label-column none to write the photos without labels"
    )
