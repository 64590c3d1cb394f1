"""Files that are written whole or not at all, and the question whether they can be before there is anything to lose."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .errors import UsageError, of_the_system


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
    name = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(name, "xb") as file:
            yield Partial(file, name)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(name)):
            error.filename = str(path)  # messages name the file that was meant
        raise
    finally:
        with contextlib.suppress(OSError):  # on a full disk it would be in its own way
            name.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, whoever else writes it at the same time. Raises OSError where it cannot be."""
    with partial_file(path) as partial:
        partial.file.write(data)
        partial.become(path)


def remove_leftovers(folder: Path) -> None:
    """Removes what writers that were killed have left in the folder. Nobody may be writing there."""
    for left in folder.glob("*.partial"):
        left.unlink(missing_ok=True)


def check_outputs(*paths: Path | None) -> None:
    """Makes the folders of files that will be written; UsageError now rather than when the work is done."""
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise UsageError(f"{path} cannot be written, since it is a folder: pass a file")
        try:
            with partial_file(path):
                pass
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({of_the_system(error)}): pass another place") from None
