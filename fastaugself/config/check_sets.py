"""The data sets of `--log.check`: NAME=PATH, or NAME=TRAIN:VAL.

Only the text is looked at here, before any data is opened, except whether a path with a colon exists.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError

NAME = r"[A-Za-z][\w.-]*"


@dataclass(frozen=True)
class CheckPhotos:
    """Photos for checks of their own. val: those that are classified, None for a part of `train`."""

    name: str
    train: Path
    val: Path | None = None

    def __str__(self) -> str:
        """As on the command line."""
        return f"{self.name}={self.train}" + ("" if self.val is None else f":{self.val}")

    def mapped(self, change: Callable[[Path], Path]) -> "CheckPhotos":
        """The same check of changed paths."""
        val = None if self.val is None else change(self.val)
        return dataclasses.replace(self, train=change(self.train), val=val)


def check_photos(texts: Sequence[str]) -> tuple[CheckPhotos, ...]:
    """Parses the values of `--log.check`; UsageError for what is no NAME=PATH, and for a name that is given twice."""
    found: dict[str, CheckPhotos] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not path or not re.fullmatch(NAME, name):
            path = path or (text if not equals else "")
            stem = re.sub(r"\W", "", Path(path).stem) if path else ""
            instead = f"{stem if re.fullmatch(NAME, stem) else 'photos'}={path or 'photos/'}"
            raise UsageError(
                f"--log.check {text!r} must be NAME=PATH or NAME=TRAIN:VAL, with a name of letters, digits, - and _ "
                f"that begins with a letter; pass --log.check {instead}"
            )
        if name in found:
            raise UsageError(f"--log.check {name} is given twice; pass --log.check {name}2={path}")
        train, colon, val = path.partition(":")
        if colon and train and val and not Path(path).exists():
            found[name] = CheckPhotos(name, Path(train), Path(val))
        else:
            found[name] = CheckPhotos(name, Path(path))
    return tuple(found.values())
