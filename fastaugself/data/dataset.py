"""One data set from one or several `.beton` files.

Sample ids are numbered consecutively over the files in their order: sample k of the first file has id k, sample k of
the second has id k plus the number of samples in the first, and so on. Appending a file does not change earlier ids.

Shape suffixes: B batch, N all samples, 2 = (height, width).
"""

import bisect
import glob
import logging
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .beton import manifest, sidecar
from .beton.format import Beton
from .classes import read_classes

log = logging.getLogger(__name__)

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_OPENERS = 3  # files opened concurrently: on a network disk each takes several round trips
_MAX_PIXELS = 1 << 28  # per photo, 0.8 GB decoded; larger sizes in the index are refused before anything is allocated


class Dataset:
    """One or several open `.beton` files as one data set.

    paths: a file, a pattern such as `shards/*.beton` (its matches that end in .beton, sorted by name), or a list of
    these.

    Attributes. shards: the open files, in order. num_samples: total number of samples. sizes_N2, labels_N, modes_N: the
    arrays of Beton, indexed by sample id, labels as class numbers. classes: class names, indexed by label; those that
    occur are in known_classes. name: name of the data set, for messages.

    Raises UsageError for a pattern without a match, a file named twice, and files whose classes differ; RunError for a
    damaged file.
    """

    def __init__(self, paths: Paths):
        files = expand(paths)
        self.name = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        self.shards = _open_all(files)
        try:
            _refuse_twice(self.shards)
            self.starts = np.cumsum([0, *(len(shard) for shard in self.shards)])
            self._starts = self.starts.tolist()
            self.num_samples = self._starts[-1]
            self.modes_N: NDArray[np.uint8] = self._join("modes_N")
            self.sizes_N2: NDArray[np.int32] = self._join("sizes_N2")
            self.labels_N: NDArray[np.int64] = self._join("labels_N")
            self._pointers_N: NDArray[np.int64] = self._join("pointers_N")
            self._bytes_N: NDArray[np.int64] = self._join("bytes_N")
            self._check_sizes()
            self._stored_N = self.labels_N
            self.known_classes, self.labels_N = read_classes(self.shards, self._stored_N)
            self.classes = self.known_classes.names
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return self.num_samples

    def _join(self, name: str) -> Any:
        """The concatenation of an array over all files; the arrays of the single files become views of it."""
        if len(self.shards) == 1:
            return getattr(self.shards[0], name)
        whole = np.concatenate([getattr(shard, name) for shard in self.shards])
        for shard, start in zip(self.shards, self._starts, strict=False):
            setattr(shard, name, whole[start : start + len(shard)])
        return whole

    def _check_sizes(self) -> None:
        pixels_N = self.sizes_N2[:, 0].astype(np.int64) * self.sizes_N2[:, 1]
        largest = int(pixels_N.argmax())
        if pixels_N[largest] > _MAX_PIXELS:
            shard, sample = self.locate(largest)
            height, width = self.sizes_N2[largest].tolist()
            raise UsageError(
                f"{shard.path}: sample {sample} claims {height} x {width} pixels, more than the limit of "
                f"{_MAX_PIXELS}; write the file again with `fastaugself write ... --max-side 500`"
            )

    def locate(self, sample: int) -> tuple[Beton, int]:
        """The file that holds a sample, and the index of the sample in that file."""
        shard = bisect.bisect_right(self._starts, sample) - 1
        return self.shards[shard], sample - self._starts[shard]

    def where(self, ids_B: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Location of the stored data of each sample: (file descriptor, byte offset, length in bytes)."""
        fds = np.array([shard.fileno() for shard in self.shards], np.int32)
        return fds[self._shards_of(ids_B)], self._pointers_N[ids_B], self._bytes_N[ids_B]

    def _shards_of(self, ids_B: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self.starts, ids_B, side="right") - 1

    def shard_range(self, sample: int) -> tuple[int, int]:
        """The half-open range (start, stop) of sample ids in the file that holds `sample`."""
        shard = bisect.bisect_right(self._starts, sample) - 1
        return self._starts[shard], self._starts[shard + 1]

    def describe(self, sample: int) -> str:
        """A sample's file, index in the file and name in the source collection, for messages."""
        shard, local = self.locate(sample)
        name = manifest.source_name(shard, local)
        source = f" ({name})" if name else ""
        several = f", sample {sample} of the data" if len(self.shards) > 1 else ""
        return f"{shard.path}: sample {local}{source}{several}"

    def check_unchanged(self, ids_B: NDArray[np.int64] | None = None) -> None:
        """Raises RunError if a file was truncated, rewritten or lost since it was opened.

        ids_B: if given, check only the files that hold these samples, by their open file descriptors: a new file under
        the same name does not affect readers of the old one.
        """
        if ids_B is None:
            for shard in self.shards:
                shard.check_unchanged()
        else:
            for i in np.unique(self._shards_of(ids_B)):
                self.shards[i].check_open_file()

    @property
    def fingerprint(self) -> int:
        """CRC-32 of the sizes and labels in order; does not depend on how the samples are divided into files."""
        return zlib.crc32(self._stored_N.data, zlib.crc32(self.sizes_N2.data))

    @property
    def columns(self) -> dict[str, list[float]]:
        """Additional per-sample values by column name, indexed by sample id: the columns that all sidecars have."""
        parts = [found.columns if (found := sidecar.read(shard)) else {} for shard in self.shards]
        names = [name for name in parts[0] if all(name in part for part in parts)]
        return {name: [value for part in parts for value in part[name]] for name in names}

    def close(self) -> None:
        """Closes the files; the arrays stay available."""
        for shard in self.shards:
            shard.close()

    def __enter__(self) -> "Dataset":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def expand(paths: Paths) -> list[Path]:
    """The files in `paths`, with patterns replaced by their sorted matches. Raises UsageError if one has no match."""
    several = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not several:
        raise UsageError("no .beton file was named: pass a file, a pattern such as 'shards/*.beton', or several")
    files: list[Path] = []
    for path in several:
        if is_pattern(path):
            found = sorted(name for name in glob.glob(os.fspath(path), recursive=True) if name.endswith(".beton"))
            if not found:
                raise UsageError(f"{os.fspath(path)} matches no .beton file; create one with `fastaugself write`")
            files += map(Path, found)
        else:
            files.append(Path(path))
    return files


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Whether `path` has wildcards and does not exist literally."""
    return glob.has_magic(os.fspath(path)) and not os.path.lexists(path)


def _open_all(files: list[Path]) -> list[Beton]:
    opened: list[Beton] = []
    try:
        if len(files) == 1:
            opened.append(Beton(files[0]))
            return opened
        with ThreadPoolExecutor(min(_OPENERS, len(files)), thread_name_prefix="open") as pool:
            futures = [pool.submit(Beton, path) for path in files]
            try:
                for future in futures:
                    opened.append(future.result())
            except BaseException:
                for future in futures[len(opened) :]:
                    if not future.cancel() and future.exception() is None:
                        opened.append(future.result())
                raise
        return opened
    except BaseException as error:
        for beton in opened:
            beton.close()
        if isinstance(error, UsageError) and "Too many open files" in str(error):
            raise UsageError(f"{error}: {len(files)} files at once need `ulimit -n {len(files) + 256}`") from None
        raise


def _refuse_twice(shards: list[Beton]) -> None:
    seen: dict[tuple[int, int], Beton] = {}
    for shard in shards:
        other = seen.setdefault(shard.identity, shard)
        if other is not shard:
            raise UsageError(f"{shard.path} is named twice (as {other.path}): pass every file once")
