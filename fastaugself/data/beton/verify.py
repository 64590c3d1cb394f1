"""`fastaugself verify`: finds every structural fault of a `.beton` file and, with its manifest, every changed byte.

Shape suffixes: N samples, A allocation records.
"""

import os
import time
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import RunError, UsageError
from ..cores import available_cores
from ..parallel import ordered_map
from ..progress import progress
from ..readers.native import decode_into
from . import manifest, sidecar
from .format import ALLOCATION, Beton, Fault
from .manifest import End, Entry

_SAMPLES_A_TASK = 64
_TASKS_AHEAD = 4  # per thread
_ZEROS_AT_ONCE = 1 << 20  # bytes
_OF_THE_FILE = -1  # sample number of a fault that concerns the whole file


class Verified(NamedTuple):
    """The result of `verify_beton`.

    path: the file. samples: number of samples in the file. by_checksum: number of samples compared with the checksums
    of the manifest; the others were decoded. bytes: size of the file. faults: one message per fault, faults of the
    whole file first, then by sample. seconds: duration.
    """

    path: Path
    samples: int
    by_checksum: int
    bytes: int
    faults: list[str]
    seconds: float

    def __str__(self) -> str:
        decoded = self.samples - self.by_checksum
        how = [f"{self.by_checksum} compared with their checksums"] if self.by_checksum else []
        how += [f"{decoded} decoded, without a manifest"] if decoded else []
        found = f"{len(self.faults)} fault{'s' if len(self.faults) > 1 else ''}" if self.faults else "no faults"
        return f"{self.path}: {found}; {self.samples} photos, {', '.join(how)}; {self.seconds:.1f} s"


def verify_beton(
    path: str | os.PathLike[str],
    *,
    manifest_path: str | os.PathLike[str] | None = None,
    workers: int = 0,
    show_progress: bool = False,
) -> Verified:
    """Checks the structure of a `.beton` file, all its bytes against the manifest, and its sidecar.

    manifest_path: default: the manifest next to the file. Without a manifest every photo is decoded. This finds
    truncated and corrupt photos, but not a change after which a photo still decodes. workers: threads, 0 for one per
    core. show_progress: show a progress bar, or lines in the log.

    Raises UsageError if the file is not a `.beton` file and for a negative number of threads. A file whose index cannot
    be read gives a single fault, not an error.
    """
    if workers < 0:
        raise UsageError(f"--workers must be a number of threads, or 0 for one per core, got {workers}")
    began = time.perf_counter()
    path = Path(path)
    in_index: list[Fault] = []
    try:
        beton = Beton(path, faults=in_index)
    except RunError as error:
        return Verified(path, 0, 0, path.stat().st_size, [str(error)], time.perf_counter() - began)
    with beton:
        checked = _Check(beton, Path(manifest_path or manifest.path_of(path)), workers or available_cores())
        checked.run(in_index, show_progress)
        size = path.stat().st_size
    return Verified(path, len(beton), checked.by_checksum, size, checked.report(), time.perf_counter() - began)


class _Check:
    """One verification of a file; collects the faults and the names of the samples that have them."""

    def __init__(self, beton: Beton, lines: Path, workers: int):
        self._beton, self._lines, self._workers = beton, lines, workers
        self._faults: list[Fault] = []
        self._names: dict[int, str] = {}
        self._end: End | None = None
        self.by_checksum = 0

    def run(self, in_index: list[Fault], show_progress: bool) -> None:
        self._faults += in_index
        unusable = {fault.sample for fault in in_index}
        self._check_overlaps()
        with (
            progress("verifying", len(self._beton), wanted=show_progress) as advance,
            closing(self._check_all(unusable)) as checked,
        ):
            for count, faults, names in checked:
                self._faults += faults
                self._names |= names
                advance(count)
        self._check_sidecar()
        if self._end is not None:
            self._check_end(self._end)
            self._check_gaps()
        self._name_the_rest()

    def report(self) -> list[str]:
        """One message per distinct fault."""
        found: dict[str, None] = {}
        for sample, what in sorted(self._faults, key=lambda fault: fault.sample):
            name = f" ({self._names[sample]})" if self._names.get(sample) else ""
            found[what if sample == _OF_THE_FILE else f"sample {sample}{name} {what}"] = None
        return list(found)

    def _check_all(self, unusable: set[int]) -> Generator[tuple[int, list[Fault], dict[int, str]]]:
        """For every group of samples: their number, their faults, and the names of the samples that have one."""
        entries = self._entries()
        groups = iter(lambda: list(islice(entries, _SAMPLES_A_TASK)), [])
        check = partial(self._check_samples, unusable=unusable)
        return ordered_map(check, groups, workers=self._workers, ahead=_TASKS_AHEAD * self._workers)

    def _entries(self) -> Iterator[tuple[int, Entry | None]]:
        """Yields each sample id with its manifest entry, None for a sample that is not in the manifest."""
        listed = 0
        try:
            for line in manifest.Lines(self._lines):
                if isinstance(line, Entry) and line.sample == listed < len(self._beton):
                    yield listed, line
                    listed += 1
                elif isinstance(line, Entry):
                    raise RunError(f"{self._lines} lists sample {line.sample} where {listed} was expected")
                elif isinstance(line, End):
                    self._end = line
            if self._end is None or self._end.samples != len(self._beton):
                raise RunError(f"{self._lines} is incomplete: it lists {listed} of {len(self._beton)} samples")
        except FileNotFoundError:
            pass
        except (RunError, OSError) as error:
            self._faults.append(Fault(_OF_THE_FILE, f"the manifest is not usable: {error}"))
        self.by_checksum = listed
        for sample in range(listed, len(self._beton)):
            yield sample, None

    def _check_samples(
        self, group: list[tuple[int, Entry | None]], unusable: set[int]
    ) -> tuple[int, list[Fault], dict[int, str]]:
        faults: list[Fault] = []
        names: dict[int, str] = {}
        for sample, entry in group:
            found = [Fault(sample, what) for what in self._compare(sample, entry, sample not in unusable)]
            faults += found
            if entry is not None and (found or sample in unusable):
                names[sample] = entry.name
        return len(group), faults, names

    def _compare(self, sample: int, entry: Entry | None, readable: bool) -> Iterator[str]:
        beton = self._beton
        if entry is not None:
            stated = {
                "label": (beton.labels_N[sample], entry.label),
                "height": (beton.sizes_N2[sample, 0], entry.height),
                "width": (beton.sizes_N2[sample, 1], entry.width),
                "number of bytes": (beton.bytes_N[sample] if readable else entry.bytes, entry.bytes),
            }
            for what, (found, expected) in stated.items():
                if found != expected:
                    yield f"has a {what} in the index that differs from what was written: {found}, not {expected}"
        if not readable:
            return
        try:
            data = beton.read(sample)
        except RunError as error:
            yield f"cannot be read: {error}"
            return
        if entry is None:
            why = _undecodable(beton, sample)
            if why:
                yield f"cannot be decoded: {why}"
        elif (crc32 := zlib.crc32(data)) != entry.crc32:
            why = _undecodable(beton, sample)
            effect = f"it cannot be decoded ({why})" if why else "it still decodes, to different pixels"
            yield f"has different bytes than were written (CRC-32 {crc32:08x}, expected {entry.crc32:08x}); {effect}"

    def _check_overlaps(self) -> None:
        """Finds samples whose data overlap."""
        beton = self._beton
        order_N = np.argsort(beton.pointers_N, kind="stable")
        starts_N, ends_N = beton.pointers_N[order_N], (beton.pointers_N + beton.bytes_N)[order_N]
        for i in np.flatnonzero(ends_N[:-1] > starts_N[1:])[:1000]:
            first, second = int(order_N[i]), int(order_N[i + 1])
            self._faults.append(Fault(second, f"overlaps with the data of sample {first}"))

    def _check_end(self, end: End) -> None:
        """Compares file size, index and allocation table with the last line of the manifest."""
        beton = self._beton
        size = beton.path.stat().st_size
        if size != end.bytes:
            self._of_the_file(f"the file has {size} bytes, {end.bytes} were written")
        if beton.index_crc32 != end.index_crc32:
            self._of_the_file(
                f"the index (header, field descriptors and metadata, the first {beton.data_start} bytes) differs from "
                f"what was written (CRC-32 {beton.index_crc32:08x}, expected {end.index_crc32:08x})"
            )
        table = np.fromfile(beton.path, np.uint8, offset=beton.table_start)
        if zlib.crc32(table.data) == end.table_crc32:
            return
        self._of_the_file(f"the allocation table (from byte {beton.table_start}) differs from what was written")
        records_A = table[: len(table) // ALLOCATION.itemsize * ALLOCATION.itemsize].view(ALLOCATION)
        ids_A = records_A["sample_id"][: len(beton)]
        for i in np.flatnonzero(ids_A != np.arange(len(ids_A)))[:1000]:
            self._faults.append(Fault(int(i), f"has the id {ids_A[i]} in the allocation table"))

    def _check_gaps(self) -> None:
        """Checks that the gaps between images contain only zeros."""
        beton = self._beton
        order_N = np.argsort(beton.pointers_N, kind="stable")
        starts = [*beton.pointers_N[order_N].tolist(), beton.table_start]
        ends = [beton.data_start, *(beton.pointers_N + beton.bytes_N)[order_N].tolist()]
        with beton.path.open("rb") as stream:
            for end, start in zip(ends, starts, strict=True):
                for at in range(end, start, _ZEROS_AT_ONCE):
                    stream.seek(at)
                    if stream.read(min(_ZEROS_AT_ONCE, start - at)).strip(b"\0"):
                        self._of_the_file(f"bytes {end} to {start}, between two images, are not all zero")
                        break

    def _name_the_rest(self) -> None:
        """Looks up the names of samples whose faults were found without their manifest entry."""
        unnamed = {sample for sample, _ in self._faults} - {_OF_THE_FILE} - self._names.keys()
        with suppress(RunError, OSError):
            for line in manifest.Lines(self._lines) if unnamed else ():
                if isinstance(line, Entry) and line.sample in unnamed:
                    self._names[line.sample] = line.name

    def _check_sidecar(self) -> None:
        path = sidecar.path_of(self._beton.path)
        if path.exists() and sidecar.read(self._beton, columns=False) is None:
            self._of_the_file(f"{path} is damaged or belongs to other data")

    def _of_the_file(self, what: str) -> None:
        self._faults.append(Fault(_OF_THE_FILE, what))


def _undecodable(beton: Beton, sample: int) -> str | None:
    """Why a sample cannot be decoded, None if it can."""
    return decode_into(beton, sample, np.empty(3 * int(beton.sizes_N2[sample].astype(np.int64).prod()), np.uint8))
