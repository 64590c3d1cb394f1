"""`fastaugself features`: the features of all photos of a data set in one file, .npz or .parquet.

Shape suffixes: N samples, D features, B batch.
"""

import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..data.beton import manifest
from ..distributed import DeviceName, resolve_device
from ..errors import RunError, UsageError, of_the_system
from ..files import check_outputs, partial_file, utf8
from . import cache
from .datasets import read_dataset
from .datasets.folders import BetonImages
from .encoder import Encoder
from .encoders import load_encoder
from .features import Extractor
from .splits import Dataset, Files, Images, Joined, Subset

log = logging.getLogger("fastaugself")

ROWS = 8192  # rows that are written at once


@dataclass(frozen=True)
class Table:
    """The features of a data set with what identifies each photo.

    parts: float32 features [n, D], one after another. labels_N: int64 classes, -1 if unlabelled. ids_N: int64 position
    of each photo in its source, see `_ids`. names, splits: of the photos, empty if the source has none. classes: names
    by label. about: encoder and source, as JSON values.
    """

    parts: Sequence[NDArray[np.float32]]
    labels_N: NDArray[np.int64]
    ids_N: NDArray[np.int64]
    names: list[str]
    splits: list[str]
    classes: tuple[str, ...]
    about: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)"""
        return sum(len(part) for part in self.parts), self.parts[0].shape[1]

    def chunks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """The rows in pieces of at most ROWS, with their places in the columns."""
        start = 0
        for part in self.parts:
            for first in range(0, len(part), ROWS):
                rows = np.ascontiguousarray(part[first : first + ROWS])
                yield slice(start + first, start + first + len(rows)), rows
            start += len(part)


def write_features(
    spec: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dataset: str = "",
    split: str = "",
    size: int = 0,
    resize: int = 0,
    seed: int = 0,
    device: DeviceName = "auto",
    batch_size: int = 64,
    workers: int = 0,
    cache_folder: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the features of a data set to `out` (.npz or .parquet) atomically, and returns its path.

    spec: of the encoder, see `load_encoder`. data, dataset: see `read_dataset`. split: its name; default: the whole
    data set. The other options are those of `fastaugself eval`. Raises UsageError, before anything is encoded, for an
    output that cannot be written; RunError for photos that cannot be read and features with NaN or Inf.
    """
    path = Path(out)
    write = _writer(path, overwrite=overwrite)
    for option, value, least in (
        ("size", size, 0),
        ("resize", resize, 0),
        ("workers", workers, 0),
        ("batch-size", batch_size, 1),
    ):
        if value < least:
            raise UsageError(f"--{option} must be at least {least}, got {value}; omit it for the default")
    extract = Extractor(resolve_device(device), resize, cache_folder or cache.default_folder(), batch_size, workers)
    found = read_dataset(Path(data), dataset)
    names = _splits(found, split)
    encoder = load_encoder(spec, device="cpu", size=size or None, seed=seed)
    for note in found.notes:
        log.info("%s: %s", found.name, note)
    table = _table(encoder, found, names, extract, Path(data))
    try:
        with partial_file(path) as partial:
            write(partial.file, table)
            partial.become(path)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({of_the_system(error)}): free space, or pass another --out"
        ) from None
    log.info("%d x %d features of %s by %s", *table.shape, found.name, encoder.name)
    return path


def _writer(path: Path, *, overwrite: bool) -> Callable[[IO[bytes], Table], None]:
    """The function that writes this kind of file; UsageError if it cannot be written."""
    known: dict[str, Callable[[IO[bytes], Table], None]] = {".npz": write_npz, ".parquet": write_parquet}
    if path.suffix.lower() not in known:
        raise UsageError(f"--out {path} must end in .npz or .parquet: pass --out {path.with_suffix('.npz')}")
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise UsageError(f"--out {path} needs pyarrow: pip install pyarrow, or pass --out {path.with_suffix('.npz')}")
    check_outputs(path)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists: pass --overwrite to replace it, or another --out")
    return known[path.suffix.lower()]


def _splits(dataset: Dataset, split: str) -> tuple[str, ...]:
    """The splits to encode: the one that is asked for, else the undivided data, else all."""
    if split and split not in dataset.splits:
        raise UsageError(f"{dataset.name} has no split {split}: pass --split {' or '.join(dataset.splits)}")
    if split:
        return (split,)
    return ("all",) if "all" in dataset.splits else tuple(dataset.splits)


def _table(encoder: Encoder, dataset: Dataset, names: Sequence[str], extract: Extractor, data: Path) -> Table:
    parts, labels, ids, photos, splits = [], [], [], [], []
    for name in names:
        split = dataset.split(name)
        parts.append(extract.rows(encoder, split, name))
        labels.append(split.labels_N)
        ids.append(_ids(split.images))
        photos += photo_names(split.images, data)
        splits += [name] * len(split)
    complete = photos if len(photos) == len(splits) else []
    about = {
        "encoder": encoder.name, "spec": encoder.source, "digest": encoder.digest, "size": encoder.size,
        "resize": extract.side(encoder), "data": str(data), "dataset": dataset.name, "classes": list(dataset.classes),
    }  # fmt: skip
    return Table(
        parts, np.concatenate(labels), np.concatenate(ids), complete, splits if names != ("all",) else [],
        dataset.classes, about,
    )  # fmt: skip


def _ids(images: Images) -> NDArray[np.int64]:
    """Positions of the photos in what they were read from: a .beton file, a folder, an official split."""
    if isinstance(images, Subset):
        return _ids(images.images)[images.indices]
    return np.arange(len(images), dtype=np.int64)


def photo_names(images: Images, data: Path) -> list[str]:
    """Paths of the photos relative to `data`, or their names in the collection that a .beton was written from.

    Empty if there are none: photos in memory, and .beton files without names.
    """
    if isinstance(images, Subset):
        inner = photo_names(images.images, data)
        return [inner[i] for i in images.indices] if inner else []
    if isinstance(images, Joined):
        first, second = (photo_names(part, data) for part in (images.first, images.second))
        return [*first, *second] if first and second else []
    if isinstance(images, Files):
        return [_relative(images.root / name, data) for name in images.names]
    if isinstance(images, BetonImages):
        end = manifest.read_end(images.path)
        if end is None or end.index_crc32 != images.beton.index_crc32 or end.samples != len(images):
            return []
        lines = manifest.Lines(manifest.path_of(images.path))
        found = {line.sample: line.name for line in lines if isinstance(line, manifest.Entry)}
        listed = [found.get(i, "") for i in range(len(images))]
        return listed if all(listed) else []
    return []


def _relative(path: Path, data: Path) -> str:
    return str(path.relative_to(data)) if path.is_relative_to(data) else str(path)


def write_npz(file: IO[bytes], table: Table) -> None:
    """Writes the arrays features [N, D], labels, ids, classes, and where known names and splits; about is JSON."""
    count, width = table.shape
    others = {"labels": table.labels_N, "ids": table.ids_N, "classes": _text(table.classes)}
    others |= {"names": _text(table.names)} if table.names else {}
    others |= {"splits": _text(table.splits)} if table.splits else {}
    others["about"] = _text(json.dumps(table.about))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as entry:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
            np.lib.format.write_array_header_1_0(entry, header)
            for _, rows in table.chunks():
                entry.write(rows.astype("<f4", copy=False).tobytes())
        for name, values in others.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, values, allow_pickle=False)


def _text(values: str | Sequence[str]) -> NDArray[Any]:
    """Text as an array; bytes of file names that are not UTF-8 are written escaped."""
    return np.array(_utf8(values) if isinstance(values, str) else [_utf8(value) for value in values], np.str_)


def _utf8(text: str) -> str:
    return utf8(text).decode()


def write_parquet(file: IO[bytes], table: Table) -> None:
    """Writes a row per photo: id, label, class, features (a list of D floats), and where known name and split.

    The schema's metadata `fastaugself` is JSON with the classes, the encoder and the source.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _, width = table.shape
    columns: dict[str, Any] = {"id": pa.int64(), "label": pa.int64(), "class": pa.string()}
    columns |= {"name": pa.string()} if table.names else {}
    columns |= {"split": pa.string()} if table.splits else {}
    columns["features"] = pa.list_(pa.float32(), width)
    schema = pa.schema(list(columns.items()), metadata={"fastaugself": json.dumps(table.about)})
    with pq.ParquetWriter(file, schema) as writer:
        for place, rows in table.chunks():
            labels = table.labels_N[place].tolist()
            values: dict[str, Any] = {
                "id": table.ids_N[place],
                "label": table.labels_N[place],
                "class": [_utf8(table.classes[i]) if 0 <= i < len(table.classes) else None for i in labels],
                "name": [_utf8(name) for name in table.names[place]],
                "split": table.splits[place],
                "features": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), width),
            }
            arrays = [
                values[name] if name == "features" else pa.array(values[name], kind) for name, kind in columns.items()
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
