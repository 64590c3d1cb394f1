"""Joins the photos of an archive with their labels by name.

Members that follow each other and have the same WebDataset key (the name up to its first dot) form a group. A photo
takes the label of its own name, `IMG_1.edited.cls` for `IMG_1.edited.jpg`, else that of the name without its last
words, `IMG_1.cls`: from its group, else from its archive. Labels in another archive than their photo are refused,
because many archives number their members from zero.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import RunError, UsageError

_REMEDY = (
    "put each label next to its photo in the archive, or pass --label-column none to `fastaugself write` to write the "
    "photos without labels"
)


class Photo(NamedTuple):
    """Location of a photo: shard number, part of the shard, member name, byte offset and size.

    stem: member name without its extension.
    """

    shard: int
    part: int
    member: str
    stem: str
    start: int
    size: int


class Label(NamedTuple):
    """A label.

    place: where it is, for messages. rank: of several labels of one photo the one of the lowest rank counts.
    value: None without, or the error to raise if a photo needs it.
    """

    place: str
    stem: str
    rank: int
    value: int | str | UsageError | RunError | None


class Joined:
    """Photos in the order of the archives, with their labels.

    photos, labels: parallel lists; a label is None without. extra: photos that are further images of another photo's
    sample, such as the mask `1.seg.png` of `1.jpg`, and so are left out. unused: labels that no photo has.
    """

    def __init__(self, shards: list[Path]) -> None:
        self._shards = shards
        self.photos: list[Photo] = []
        self.labels: list[int | str | None] = []
        self.extra: list[Photo] = []
        self.unused: list[Label] = []
        self._own: list[bool] = []  # whether the label has the photo's own name
        self._key, self._part_start, self._group_start = "", 0, 0
        self._group: list[Label] = []
        self._left: list[Label] = []  # of this archive

    def add(self, member: Photo | Label) -> None:
        """Adds a photo or a label, in the order of the archive."""
        *_, key = _stems(member.stem)
        if key != self._key:
            self._end_group()
            self._key = key
        if isinstance(member, Label):
            self._group.append(member)
            return
        for other in self.photos[self._group_start :]:
            if other.stem == member.stem:
                raise UsageError(
                    f"{self._place(other)} and {member.member} are two photos of one sample: expected one, so "
                    f"rename or remove the other"
                )
        self.photos.append(member)
        self.labels.append(None)
        self._own.append(False)

    def _place(self, photo: Photo) -> str:
        return f"{self._shards[photo.shard]}: {photo.member}"

    def _end_group(self) -> None:
        self._left += self._join(range(self._group_start, len(self.photos)), self._group)
        self._group, self._group_start = [], len(self.photos)

    def end_archive(self) -> None:
        self._end_group()
        self.unused += self._join(range(self._part_start, len(self.photos)), self._left)
        self._left, self._part_start, self._key = [], len(self.photos), ""

    def finish(self) -> None:
        """Compares what is left over in all archives, and takes out the images that belong to another photo."""
        left = {label.stem: label for label in self.unused}
        for photo, found in zip(self.photos, self.labels, strict=True):
            if found is None and photo.stem in left:
                raise UsageError(
                    f"{left[photo.stem].place} is a label without a photo, and {self._place(photo)} in another archive "
                    f"is a photo without a label: {_REMEDY}"
                )
        names = {(photo.shard, photo.part, photo.stem) for photo in self.photos}
        extra = [
            not own and any((photo.shard, photo.part, stem) in names for stem in list(_stems(photo.stem))[1:])
            for photo, own in zip(self.photos, self._own, strict=True)
        ]
        self.extra = [photo for photo, out in zip(self.photos, extra, strict=True) if out]
        self.labels = [label for label, out in zip(self.labels, extra, strict=True) if not out]
        self.photos = [photo for photo, out in zip(self.photos, extra, strict=True) if not out]

    def _join(self, numbers: Iterable[int], labels: list[Label]) -> list[Label]:
        """Gives the photos of these numbers that have no label yet one of `labels`; returns those not taken."""
        by_stem: dict[str, list[Label]] = {}
        for label in labels:
            by_stem.setdefault(label.stem, []).append(label)
        named: set[str] = set()  # stems of photos
        used: set[str] = set()  # stems of labels
        for i in numbers if labels else ():
            photo = self.photos[i]
            stem = next((stem for stem in _stems(photo.stem) if stem in by_stem), None)
            if self.labels[i] is not None or stem is None:
                continue
            if photo.stem in named:
                place = by_stem[stem][0].place
                raise UsageError(f"{place} could be the label of several photos named {self._place(photo)}: {_REMEDY}")
            named.add(photo.stem)
            self.labels[i], self._own[i] = _only(by_stem[stem]), stem == photo.stem
            used.add(stem)
        return [label for label in labels if label.stem not in used]


def _only(labels: list[Label]) -> int | str | None:
    """The value of labels of one name, such as 1.cls and 1.json."""
    found: Label | None = None
    for label in labels:
        if isinstance(label.value, Exception):
            raise label.value
        if label.value is None:
            continue
        if found is not None and found.rank == label.rank and found.value != label.value:
            raise UsageError(
                f"{found.place} is {found.value!r}, but {label.place} is {label.value!r}, for one photo: {_REMEDY}"
            )
        if found is None or label.rank < found.rank:
            found = label
    return None if found is None or isinstance(found.value, Exception) else found.value


def _stems(stem: str) -> Iterator[str]:
    """A name, then the same name without its last words: a/b.c.d, a/b.c, a/b."""
    folder, slash, base = stem.rpartition("/")
    words = base.split(".")
    for count in range(len(words), 0, -1):
        yield f"{folder}{slash}{'.'.join(words[:count])}"
