"""The feature cache: arrays on disk, keyed by a hash of their inputs and verified by a checksum when read.

Shape suffixes: N samples, D features.
"""

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError, UsageError, of_the_system
from ..files import partial_file, utf8

log = logging.getLogger(__name__)


def default_folder() -> Path:
    """`$FASTAUGSELF_CACHE`, else `fastaugself` in the user's cache folder, else a folder of this user in /tmp.

    The last one is for users without a home, as in `docker run --user 12345`. Raises UsageError if it belongs to
    another user, who could put other features there.
    """
    if folder := os.environ.get("FASTAUGSELF_CACHE"):
        return Path(folder)
    try:
        usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastaugself"
        usual.mkdir(parents=True, exist_ok=True)
        if os.access(usual, os.W_OK):
            return usual
        reason = f"{usual} cannot be written"
    except RuntimeError:
        reason = "this user has no home"
    except OSError as error:
        reason = of_the_system(error)
    own = Path(tempfile.gettempdir()) / f"fastaugself-{os.getuid()}"
    remedy = "pass --cache FOLDER, or export FASTAUGSELF_CACHE=FOLDER"
    try:
        own.mkdir(mode=0o700, exist_ok=True)
        mine = own.is_dir() and not own.is_symlink() and os.stat(own).st_uid == os.getuid()
    except OSError as error:
        raise UsageError(
            f"there is no folder for the feature cache ({reason}; {of_the_system(error)}): {remedy}"
        ) from None
    if not mine:
        raise UsageError(f"{reason}, and {own} belongs to another user: {remedy}")
    log.info("features are cached in %s (%s): for another folder, %s", own, reason, remedy)
    return own


def key_of(*parts: str) -> str:
    """The cache key of a result that depends on `parts` only."""
    return hashlib.blake2b(utf8("\0".join(parts)), digest_size=16).hexdigest()


def read(folder: Path, key: str, count: int) -> NDArray[np.float32] | None:
    """The cached float32 features [count, D] of a key, memory-mapped; None if there is no valid file.

    The file name contains the checksum of the content. A truncated or damaged file is removed and counts as missing.
    """
    for path in sorted(folder.glob(f"{key}-*.npy")):
        try:
            if _digest_of(path) == path.stem.split("-", 1)[1]:
                found: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
                if found.ndim == 2 and len(found) == count and found.dtype == np.float32:
                    return found
        except (OSError, ValueError):
            pass
        with contextlib.suppress(OSError):
            path.unlink()
    return None


def write(folder: Path, key: str, count: int, batches: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Writes batches [B, D] to the cache one by one, and returns the features [count, D] memory-mapped.

    Raises RunError if the batches do not have `count` rows in all, or the folder cannot be written; and whatever
    `batches` raises.
    """
    target = folder / f"{key}.npy"  # written as a partial file, then renamed with its checksum
    try:
        with partial_file(target) as partial:
            file, digest, rows, width = partial.file, hashlib.blake2b(digest_size=16), 0, -1
            for batch in _carried(batches):
                if width < 0:
                    width = batch.shape[1]
                    header = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
                    np.lib.format.write_array_header_1_0(file, header)
                    file.flush()
                    digest.update(partial.path.read_bytes())
                data = np.ascontiguousarray(batch, "<f4").tobytes()
                digest.update(data)
                file.write(data)
                rows += len(batch)
            if rows != count:
                raise RunError(f"got {rows} rows of features for {count} samples")
            path = folder / f"{key}-{digest.hexdigest()}.npy"
            partial.become(path)
    except _OfTheBatches as carrier:
        raise carrier.error from None
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"features cannot be written to {folder}: {reason}; pass another --cache") from None
    return np.load(path, mmap_mode="r", allow_pickle=False)


class _OfTheBatches(Exception):
    """Carries an OSError of the batches, such as one of the photos' disk, past the handler of the cache's own."""

    def __init__(self, error: OSError):
        self.error = error


def _carried(batches: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    try:
        yield from batches
    except OSError as error:
        raise _OfTheBatches(error) from None


def _digest_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
