"""The classes of a data set, and the classes of one data set in the numbering of another.

Shape suffixes: N all samples, C classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .beton import sidecar
from .beton.format import Beton
from .inputs.samples import some

# Labels without names are class numbers up to here. Larger ones are names such as customer numbers, so only those that
# occur become classes: nothing may allocate as many classes as the largest.
_LARGEST_NUMBER = 65_535


class Classes(NamedTuple):
    """Names by class number; the classes that photos have; and whether the names are more than numbers as text."""

    names: list[str]
    used: list[int]
    named: bool = True


def read_classes(shards: Sequence[Beton], labels_N: NDArray[np.int64]) -> tuple[Classes, NDArray[np.int64]]:
    """The classes of one or several files, and the class number of each sample, -1 without a label.

    labels_N: stored labels of all files. Raises UsageError for files whose classes differ.
    """
    known: tuple[Beton, list[str]] | None = None
    for shard in shards:
        found = sidecar.read(shard, columns=False)
        if found is None or not found.classes:
            continue
        if known is not None and found.classes != known[1]:
            raise UsageError(
                f"{known[0].path} and {shard.path} disagree about the classes "
                f"({sidecar.difference(known[1], found.classes)}): write all files of a data set with the same "
                f"classes"
            )
        known = shard, found.classes
    highest = int(labels_N.max())
    if highest > max(_LARGEST_NUMBER, len(known[1]) - 1 if known is not None else 0):
        values_C = np.unique(labels_N[labels_N >= 0])
        numbers_N = np.where(labels_N >= 0, np.searchsorted(values_C, labels_N), -1)
        return Classes([str(value) for value in values_C.tolist()], list(range(len(values_C))), named=False), numbers_N
    used = np.flatnonzero(np.bincount(labels_N[labels_N >= 0])).tolist()
    if known is not None and len(known[1]) > highest:
        return Classes(known[1], used), labels_N
    return Classes([str(number) for number in range(highest + 1)], used, named=False), labels_N


class Match(NamedTuple):
    """numbers_C: for each class of one data set its number in the other, -1 for a class without photos that the other
    lacks. assumed: what was assumed because one of the two has no names, "" if the classes were matched by name."""

    numbers_C: NDArray[np.int64]
    assumed: str = ""


def match_classes(
    train: Classes, val: Classes, *, names: tuple[str, str], options: tuple[str, str] = ("--data.train", "--data.val")
) -> Match:
    """The classes of `val` in the numbering of `train`: by name; by number if only one of the two has names.

    names: of the two data sets, for messages. options: with which they were given. Raises UsageError if photos of `val`
    have classes that `train` lacks, unless no photo of `train` has a class.
    """
    if not train.used:
        return Match(np.arange(len(val.names)))
    index = {name: number for number, name in enumerate(train.names)}
    numbers_C = np.array([index.get(name, -1) for name in val.names], np.int64)
    unknown = [number for number in val.used if numbers_C[number] < 0]
    if not unknown:
        return Match(numbers_C)
    if train.named != val.named and val.used[-1] < len(train.names):
        named, side = (train, 0) if train.named else (val, 1)
        last = len(named.names) - 1
        return Match(
            np.where(np.arange(len(val.names)) < len(train.names), np.arange(len(val.names)), -1),
            f"{names[1 - side]} has no class names, so its labels are taken as the numbers of the classes of "
            f"{names[side]}: 0 is {named.names[0]}, {last} is {named.names[last]}",
        )
    raise UsageError(
        f"{options[1]} {names[1]} has photos of classes that {options[0]} {names[0]} lacks "
        f"({some([val.names[number] for number in unknown], 5)}; those of {options[0]} are {some(train.names, 5)}): "
        + (
            "list the classes that both have in a file, one per line, for `fastaugself write PHOTOS VAL.beton "
            f"--classes FILE` and pass {options[1]} VAL.beton, or leave out {options[1]}"
            if len(unknown) < len(val.used) and val.named
            else f"pass {options[1]} with photos of the same classes, or leave it out"
        )
    )
