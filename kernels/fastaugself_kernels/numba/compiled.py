"""Functions that numba compiles once for a machine, when they are first called."""

import logging
import threading
import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from .. import params

log = logging.getLogger(__name__)
_compiling = threading.RLock()


class Make(Protocol):
    """Makes a function that is not yet compiled; `keep` caches it on disk.

    Numba's cache looks at one file only. `sources`, a non-negative digest of all of them, becomes part of its key when
    the function mentions it.
    """

    def __call__(self, sources: int, *, keep: bool) -> Any: ...


class Compiled:
    """Calling it gives the function that `make` makes, compiled for `signature` or read from numba's cache on disk."""

    def __init__(self, make: Make, signature: str):
        self._make, self._signature = make, signature
        self._function: Callable[..., Any] | None = None

    def __call__(self) -> Callable[..., Any]:
        if self._function is None:
            with _compiling:
                self._function = self._function or self._compile()
        return self._function

    def _compile(self) -> Callable[..., Any]:
        began = time.perf_counter()
        try:
            function = self._make(_sources(), keep=True)
        except RuntimeError as error:  # numba found no folder that it may write to
            log.info("the CPU kernels are compiled anew in every process: %s", error)
            function = self._make(_sources(), keep=False)
        function.compile(self._signature)
        function.disable_compile()
        seconds = time.perf_counter() - began
        if seconds > 2:
            log.info("compiled the CPU kernels in %.0f s, once for this machine", seconds)
        return function


@cache
def _sources() -> int:
    """A digest of the code, and of its name: what is cached can only be loaded under the name it had."""
    here = Path(__file__).resolve()
    files = [*sorted(here.parent.glob("*.py")), Path(params.__file__)]
    return zlib.crc32(b"".join(path.read_bytes() for path in files), zlib.crc32(__name__.encode()))
