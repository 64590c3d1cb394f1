"""Functions that numba compiles at their first call, once per machine."""

import logging
import threading
import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from .. import backends, params, philox

log = logging.getLogger(__name__)
_compiling = threading.RLock()


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
    began = time.perf_counter()
    try:
        function = make(_sources(), keep=True)
    except RuntimeError as error:  # numba found no folder that it may write to
        log.info("the CPU kernels are compiled anew in every process: %s", error)
        function = make(_sources(), keep=False)
    function.compile(signature)
    function.disable_compile()
    seconds = time.perf_counter() - began
    if seconds > 2:
        log.info("compiled the CPU kernels in %.0f s, once for this machine", seconds)
    return function


@cache
def _sources() -> int:
    """A digest of the sources and of the module's name: a cached function loads only under its old name."""
    here = Path(__file__).resolve()
    files = [*sorted(here.parent.glob("*.py")), *map(Path, (backends.__file__, params.__file__, philox.__file__))]
    return zlib.crc32(b"".join(path.read_bytes() for path in files), zlib.crc32(__name__.encode()))
