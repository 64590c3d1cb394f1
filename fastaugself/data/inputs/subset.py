"""Subsets of the classes of a collection: the hundred classes of ImageNet-100, or those listed in a file."""

from collections.abc import Generator
from pathlib import Path

from ...errors import UsageError
from ...files import read_text
from .samples import Sample, Samples, fingerprint

LISTS = {"imagenet100": Path(__file__).parent / "imagenet100.txt"}


class ClassSamples(Samples):
    """The samples of the classes `kept`, with labels from 0 in alphabetical order of the classes."""

    def __init__(self, whole: Samples, kept: list[str]):
        missing = sorted(set(kept) - set(whole.classes))
        if missing:
            raise UsageError(
                f"{whole.source} lacks {len(missing)} of the {len(kept)} classes of --classes ({missing[0]}, ...); "
                f"it has {len(whole.classes)}" + (f" ({whole.classes[0]}, ...)" if whole.classes else "")
            )
        self._whole, self.source = whole, whole.source
        self.ignored, self.left_out = whole.ignored, whole.left_out
        self.classes = sorted(kept)
        self._label = {whole.classes.index(name): i for i, name in enumerate(self.classes)}
        self._numbers = [i for i, sample in enumerate(whole.samples()) if sample.label in self._label]
        self.count = len(self._numbers)
        if not self.count:
            raise UsageError(f"{whole.source} has no photo of the classes of --classes")
        self.faults = {i: whole.faults[n] for i, n in enumerate(self._numbers) if n in whole.faults}
        self.fingerprint = fingerprint([whole.fingerprint, *self.classes])

    def samples(self, start: int = 0) -> Generator[Sample]:
        if start >= self.count:
            return
        for sample in self._whole.samples(self._numbers[start]):
            if sample.label in self._label:
                yield sample._replace(label=self._label[sample.label])


def read_classes(classes: str) -> list[str]:
    """Reads class names from a list in `LISTS`, by its name, or from a file with one name per line.

    Raises UsageError if there is neither, a name occurs twice, or the file is empty.
    """
    path = LISTS.get(classes, Path(classes))
    try:
        names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"--classes {classes} is neither {', '.join(LISTS)} nor a readable file ({error})") from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise UsageError(f"--classes {classes}: " + (f"{twice[0]} occurs twice" if twice else "the file is empty"))
    return names
