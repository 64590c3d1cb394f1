"""The size of the views over a run: `--view.schedule 0:128 0.5:160 0.9:224`, low resolution first (FastDINOv2: Zhang
2025, arXiv 2507.03779; progressive resizing is older).

Blur is in pixels of the view, so its sigma and kernel shrink with the size; crops, colours, targets and descriptors are
those of views of full size.
"""

import math
import re
from typing import NamedTuple

from ..errors import UsageError

MOST = 8  # stages: one compilation each, and torch.compile keeps eight
_STAGE = re.compile(r"(\d+(?:\.\d*)?|\.\d+):(\d+)")


class Stage(NamedTuple):
    """A part of a run. start: fraction of the run, in [0, 1). size: of the global views, in pixels."""

    start: float
    size: int

    def __str__(self) -> str:
        return f"{self.start:g}:{self.size}"


class Sizes:
    """The stages of a run. schedule: as on the command line, empty for views of one size. full: size at the end.

    Raises UsageError for a schedule that is not one.
    """

    def __init__(self, schedule: tuple[str, ...], full: int) -> None:
        self.full = full
        self.stages = tuple(_stage(text, full) for text in schedule) or (Stage(0.0, full),)
        starts = [stage.start for stage in self.stages]
        text = " ".join(map(str, self.stages))
        if len(self.stages) > MOST:
            raise UsageError(
                f"--view.schedule has {len(self.stages)} stages; pass --view.schedule 0:{full // 2} 0.5:{full}"
            )
        if starts[0] != 0:
            raise UsageError(
                f"--view.schedule {text} must begin at 0; pass --view.schedule 0:{self.stages[0].size} "
                f"{' '.join(map(str, self.stages[1:]))}".rstrip()
            )
        if starts != sorted(set(starts)) or starts[-1] >= 1:
            ordered = sorted({stage.start: stage for stage in self.stages if stage.start < 1}.values())
            instead = " ".join(map(str, [*ordered[:-1], ordered[-1]._replace(size=full)]))
            raise UsageError(
                f"--view.schedule {text}: stages must start one after the other and before 1; pass --view.schedule "
                f"{instead}"
            )
        if self.stages[-1].size != full:
            instead = " ".join(map(str, [*self.stages[:-1], self.stages[-1]._replace(size=full)]))
            raise UsageError(f"--view.schedule {text} must end with --view.size {full}; pass --view.schedule {instead}")

    def __str__(self) -> str:
        first, *others = self.stages
        return ", ".join([f"{first.size} px", *(f"{size} px from {start:.0%} of the run" for start, size in others)])

    def at(self, step: int, total: int) -> int:
        """The size of the global views of a step, counted from 0. total: steps of the run."""
        return next(stage.size for stage in reversed(self.stages) if step >= first_step(stage, total))

    def between(self, start: int, end: int, total: int) -> list[int]:
        """The sizes of the steps from `start` to before `end`, in order. total: steps of the run."""
        firsts = [step for stage in self.stages if start < (step := first_step(stage, total)) < end]
        return list(dict.fromkeys(self.at(step, total) for step in (start, *firsts))) if start < end else []

    def shares(self) -> dict[int, float]:
        """The fraction of the run at each size."""
        ends = [*(stage.start for stage in self.stages[1:]), 1.0]
        found: dict[int, float] = {}
        for stage, end in zip(self.stages, ends, strict=True):
            found[stage.size] = found.get(stage.size, 0.0) + end - stage.start
        return found

    def scaled(self, size: int, now: int) -> int:
        """The size of other views, such as local crops, while global views of full size are `now` pixels.

        In proportion, and a multiple of the greatest common divisor of both full sizes, so that patches still fit.
        """
        if now == self.full:
            return size
        grid = math.gcd(size, self.full)
        return max(1, round(size * now / self.full / grid)) * grid

    def scaled_kernel(self, kernel: int, now: int) -> int:
        """An odd blur kernel in proportion."""
        return 2 * round((kernel - 1) / 2 * now / self.full) + 1


def first_step(stage: Stage, total: int) -> int:
    """The first step of a stage, counted from 0. total: steps of the run."""
    return math.ceil(stage.start * total - 1e-9)


def _stage(text: str, full: int) -> Stage:
    found = _STAGE.fullmatch(text)
    if found is None or not int(found[2]):
        raise UsageError(
            f"--view.schedule takes stages START:SIZE, such as 0.5:160 (160 px from half of the run on), got {text!r}; "
            f"pass --view.schedule 0:{max(1, full // 2)} 0.5:{full}"
        )
    return Stage(float(found[1]), int(found[2]))
