"""Several `.beton` files as one set of samples: how a collection outgrows one file and one disk.

Sample ids count through the files in their order: sample k of the first file is k, sample k of the second is k plus the
number of samples of the first, and so on. A file added at the end leaves the ids before it as they were.

Shape suffixes: B samples of a batch, N samples, 2 = (height, width).
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

log = logging.getLogger(__name__)

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_OPENERS = 3  # files opened at a time: on a network disk each costs several round trips
_MAX_PIXELS = 1 << 28  # of a photo, 0.8 GB decoded; what claims more is refused before anything is allocated


class Dataset:
    """Open `.beton` files, in order.

    paths: a file, a pattern such as `shards/*.beton` (its matches that end in .beton, sorted by name), or several.

    shards: the files. num_samples: of all of them. sizes_N2, labels_N, modes_N: as of Beton, by sample id.
    classes: names by label. name: for messages.

    Raises UsageError for paths that match nothing or a file twice, and for files whose classes differ; RunError for a
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
            self.classes = self._read_classes()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return self.num_samples

    def _join(self, name: str) -> Any:
        """One array for all files, of which theirs become parts."""
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
                f"{shard.path}: sample {sample} claims {height} x {width} pixels, more than the {_MAX_PIXELS} that are "
                f"decoded; write it again with `fastaugself write ... --max-side 500`"
            )

    def locate(self, sample: int) -> tuple[Beton, int]:
        """The file of a sample, and its number there."""
        shard = bisect.bisect_right(self._starts, sample) - 1
        return self.shards[shard], sample - self._starts[shard]

    def where(self, ids_B: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """(file descriptor, byte, length in bytes) of the stored data of each sample."""
        fds = np.array([shard.fileno() for shard in self.shards], np.int32)
        return fds[self._shards_of(ids_B)], self._pointers_N[ids_B], self._bytes_N[ids_B]

    def _shards_of(self, ids_B: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self.starts, ids_B, side="right") - 1

    def shard_range(self, sample: int) -> tuple[int, int]:
        """The first sample id of the file that holds `sample`, and the first after it."""
        shard = bisect.bisect_right(self._starts, sample) - 1
        return self._starts[shard], self._starts[shard + 1]

    def describe(self, sample: int) -> str:
        """A sample by all its names, for messages."""
        shard, local = self.locate(sample)
        name = manifest.source_name(shard, local)
        source = f" ({name})" if name else ""
        several = f", sample {sample} of the data" if len(self.shards) > 1 else ""
        return f"{shard.path}: sample {local}{source}{several}"

    def check_unchanged(self, ids_B: NDArray[np.int64] | None = None) -> None:
        """Raises RunError if a file was cut, rewritten or lost since it was opened.

        ids_B: of the files of these samples only, and by their open descriptors: what another file of the same name
        holds by now cannot disturb those who read the old one.
        """
        if ids_B is None:
            for shard in self.shards:
                shard.check_unchanged()
        else:
            for i in np.unique(self._shards_of(ids_B)):
                self.shards[i].check_open_file()

    @property
    def fingerprint(self) -> int:
        """Changes with the order, the sizes and the labels of the samples, and not with their division into files."""
        return zlib.crc32(self.labels_N.data, zlib.crc32(self.sizes_N2.data))

    @property
    def columns(self) -> dict[str, list[float]]:
        """Further known values by name and sample id: those that the sidecars of all files have."""
        parts = [found.columns if (found := sidecar.read(shard)) else {} for shard in self.shards]
        names = [name for name in parts[0] if all(name in part for part in parts)]
        return {name: [value for part in parts for value in part[name]] for name in names}

    def _read_classes(self) -> list[str]:
        """Names by label; without a sidecar that has them, the labels as text."""
        known: tuple[Beton, list[str]] | None = None
        for shard in self.shards:
            found = sidecar.read(shard, columns=False)
            if found is None or not found.classes:
                continue
            if known is not None and found.classes != known[1]:
                raise UsageError(_disagreement(known[0].path, known[1], shard.path, found.classes))
            known = shard, found.classes
        highest = int(self.labels_N.max())
        if known is not None and len(known[1]) > highest:
            return known[1]
        return [str(label) for label in range(highest + 1)]

    def close(self) -> None:
        """Lets go of the files; the arrays stay."""
        for shard in self.shards:
            shard.close()

    def __enter__(self) -> "Dataset":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def expand(paths: Paths) -> list[Path]:
    """The files that `paths` names, patterns replaced by their sorted matches. Raises UsageError where one has none."""
    several = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not several:
        raise UsageError("no .beton file was named: pass a file, a pattern such as 'shards/*.beton', or several")
    files: list[Path] = []
    for path in several:
        if is_pattern(path):
            found = sorted(name for name in glob.glob(os.fspath(path), recursive=True) if name.endswith(".beton"))
            if not found:
                raise UsageError(f"{os.fspath(path)} matches no .beton file; `fastaugself write` makes them")
            files += map(Path, found)
        else:
            files.append(Path(path))
    return files


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Whether it has wildcards and is not the name of something."""
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
            raise UsageError(f"{shard.path} is named twice (as {other.path}): every photo counts once in an epoch")


def _disagreement(a: Path, classes_a: list[str], b: Path, classes_b: list[str]) -> str:
    which = next((i for i, (x, y) in enumerate(zip(classes_a, classes_b, strict=False)) if x != y), None)
    if which is None:
        what = f"{len(classes_a)} and {len(classes_b)} classes"
    else:
        what = f"class {which} is '{classes_a[which]}' in one and '{classes_b[which]}' in the other"
    return f"{a} and {b} disagree about the classes ({what}): write all files of one data set with the same classes"
