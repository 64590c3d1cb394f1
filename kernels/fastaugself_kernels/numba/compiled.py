"""Functions that numba compiles at their first call, once per machine."""

import contextlib
import logging
import os
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from numba.core import event

from .. import backends, params, philox

log = logging.getLogger(__name__)
_compiling = threading.RLock()
# A fork waits for a thread that compiles: the child would have its locks, numba's too, and nobody to release them.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_compiling.acquire, after_in_parent=_compiling.release, after_in_child=_compiling.release
    )


class Make(Protocol):
    """Makes a function that is not yet compiled; with `keep`, numba will cache it on disk.

    Numba notices changes of one source file only. `sources` is a non-negative digest of all of them; because the
    function refers to it, it becomes part of the cache's key.
    """

    def __call__(self, sources: int, *, keep: bool) -> Any: ...


def compiled(make: Make, signature: str) -> Callable[[], Callable[..., Any]]:
    """A getter of the function of `make`, compiled for `signature` (or loaded from numba's cache) at its first call."""
    made: list[Callable[..., Any]] = []

    @cache
    def get() -> Callable[..., Any]:
        with _compiling:  # threads that come at once: the first compiles
            if not made:
                made.append(_compile(make, signature))
            return made[0]

    return get


def _compile(make: Make, signature: str) -> Callable[..., Any]:
    try:
        function = make(_sources(), keep=True)
        folder = Path(function.stats.cache_path)
        kept = f"once for this machine: half a minute or so; kept in {folder}"
    except RuntimeError as error:  # numba found no folder that it may write to
        log.info("no folder to keep compiled kernels in: %s", error)
        function, folder = make(_sources(), keep=False), None
        kept = "anew in every process, half a minute or so: set NUMBA_CACHE_DIR to a folder that can be written to"
    with _alone(folder, function.py_func.__name__), event.install_listener("numba:compile", _Announce(function, kept)):
        function.compile(signature)
    function.disable_compile()
    return function


class _Announce(event.Listener):
    """Says in one line that kernels are compiled, when numba begins to, and only then: loading them takes no time."""

    said = False

    def __init__(self, function: Any, kept: str) -> None:
        self._function, self._kept = function, kept

    def on_start(self, event: Any) -> None:
        if event.data["dispatcher"] is self._function and not _Announce.said:
            _Announce.said = True
            # A warning, because without any set-up of logging those are what reaches stderr.
            log.warning("compiling the CPU kernels, %s", self._kept)

    def on_end(self, event: Any) -> None:
        pass


@contextlib.contextmanager
def _alone(folder: Path | None, name: str) -> Iterator[None]:
    """While no other process is in here for the same function: of workers that start at once, one compiles and tells
    so, and the others load what it has kept. Does nothing where files cannot be locked."""
    if folder is None or sys.platform == "win32":
        yield
        return
    import fcntl

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file = stack.enter_context(open(folder / f"{name}.lock", "w"))
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, also by the end of the process
        yield


@cache
def _sources() -> int:
    """A digest of the sources and of the module's name: a cached function loads only under its old name."""
    here = Path(__file__).resolve()
    files = [*sorted(here.parent.glob("*.py")), *map(Path, (backends.__file__, params.__file__, philox.__file__))]
    return zlib.crc32(b"".join(path.read_bytes() for path in files), zlib.crc32(__name__.encode()))
