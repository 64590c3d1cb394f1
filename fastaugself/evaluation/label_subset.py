"""A part of the labelled photos for fine-tuning: a stratified fraction drawn by seed, or those listed in a file.

Shape suffixes: N photos.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from ..errors import UsageError
from ..files import read_text
from .embed import photo_names
from .splits import Dataset, Split


def fraction_of(dataset: Dataset, split: Split, fraction: float, *, seed: int) -> Split:
    """A fraction of each class's photos, rounded, drawn at random.

    Raises UsageError for a fraction that would leave a class without a photo.
    """
    if fraction == 1:
        return split
    classes, counts = np.unique(split.labels_N, return_counts=True)
    short = [(int(n), dataset.classes[c]) for c, n in zip(classes, counts, strict=True) if round(fraction * n) < 1]
    if short:
        count, name = min(short)
        more = f" (and {len(short) - 1} more classes)" if len(short) > 1 else ""
        # Half a photo is rounded to the even number 0, so a little more is asked for.
        least = -(-501 // count) / 1000
        raise UsageError(
            f"--fraction {fraction:g} leaves class {name} of {dataset.name} without a photo, it has {count}{more}: "
            f"pass --fraction {min(1.0, least):g} or more, or --subset with a list of photos"
        )
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label, count in zip(classes, counts, strict=True):
        drawn = torch.randperm(int(count), generator=generator)[: round(fraction * int(count))]
        chosen.append(np.flatnonzero(split.labels_N == label)[drawn.numpy()])
    return split.take(np.sort(np.concatenate(chosen)))


def listed(dataset: Dataset, split: Split, path: Path, root: Path) -> Split:
    """The photos that a file lists, one name a line: a path as in the collection, or the file's name alone.

    root: of the data set. Raises UsageError for a file that cannot be read, photos without names, and a name that is
    missing or belongs to several photos.
    """
    try:
        wanted = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--subset {path} cannot be read ({error}): pass a text file with a photo's name a line"
        ) from None
    names = photo_names(split.images, root)
    if not names:
        raise UsageError(
            f"the photos of {dataset.name} have no names to be found by: pass --fraction instead of --subset"
        )
    places = {name: i for i, name in enumerate(names)}
    short = [name.rpartition("/")[2] for name in names]
    counts = Counter(short)
    by_short = {name: i for i, name in enumerate(short) if counts[name] == 1}
    found = []
    for name in wanted:
        place = places.get(name, by_short.get(name))
        if place is None:
            several = f"names {counts[name]} photos, not one" if counts.get(name) else "is none of the training photos"
            raise UsageError(f"--subset {path}: {name} {several} of {dataset.name}, whose first is {names[0]}")
        found.append(place)
    if len(found) < 2:
        raise UsageError(f"--subset {path} lists {len(found)} photos: expected at least one of each class")
    return split.take(np.unique(np.array(found, np.int64)))
