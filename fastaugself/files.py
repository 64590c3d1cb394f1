"""Files that are written whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple


class Partial(NamedTuple):
    """A file that is being written, under a name that no other writer has."""

    file: BinaryIO
    path: Path

    def become(self, path: Path) -> None:
        """Gives what was written its name: a reader, or a crash, sees the old content or the new, never half of one."""
        self.file.flush()
        os.fsync(self.file.fileno())
        os.replace(self.path, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name too outlives a power failure
        finally:
            os.close(folder)


@contextlib.contextmanager
def partial_file(path: Path) -> Iterator[Partial]:
    """A new file beside `path`, whose folder is made where it is missing; gone at the end unless it got a name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    with open(name, "xb") as file:
        try:
            yield Partial(file, name)
        finally:
            name.unlink(missing_ok=True)  # on a full disk it would be in its own way


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, whoever else writes it at the same time. Raises OSError where it cannot be."""
    with partial_file(path) as partial:
        partial.file.write(data)
        partial.become(path)
