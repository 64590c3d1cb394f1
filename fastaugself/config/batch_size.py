"""Batch sizes that a configuration can have, for the advice of error messages."""

import math
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from .schema import Pretrain

_FEW_STEPS = 8  # per epoch
_LEAST = 16  # a smaller batch is not advised: batch norm and contrastive losses need more


def batch_options(config: "Pretrain", processes: int, *, photos: int | None = None) -> str:
    """Options with a batch size that works on this many processes, and the other options that have to change with it.

    The batch size is the next above the configured one, or the largest possible with `photos` photos. One up to twice
    (or half) as large is preferred if the method's queue can stay as it is. Returns "" if there are too few photos.
    """
    return _nearest(config, processes, photos)[1]


def few_steps(config: "Pretrain", processes: int, photos: int) -> str:
    """A hint for an epoch of few steps, with options for more of them; "" if there is nothing to advise."""
    steps, left = divmod(photos, config.batch_size)
    size, options = _nearest(config, processes, photos // _FEW_STEPS) if steps < _FEW_STEPS else (0, "")
    if not _LEAST <= size < config.batch_size:
        return ""
    return (
        f"an epoch has only {'one step' if steps == 1 else f'{steps} steps'}"
        f"{f', without {left} of the {photos} photos' if left else ''}: pass {options} for {photos // size} steps"
    )


def _nearest(config: "Pretrain", processes: int, photos: int | None) -> tuple[int, str]:
    """The batch size of `batch_options` and the options; (0, "") if there are too few photos."""
    split = config.backbone.batch_norm == "split"
    group = max(2, config.backbone.bn_group_size) if split else 1
    # (accumulate, batch-norm group, options that change): gives up accumulation, then groups, if photos are too few.
    attempts = [(config.accumulate, group, "")]
    if config.accumulate > 1:
        attempts.append((1, group, " --accumulate 1"))
    if split:
        attempts.append((1, 1, attempts[-1][2] + " --backbone.batch-norm plain"))
    for accumulate, group_size, changed in attempts:
        group_size = math.lcm(group_size, config.chunk)
        unit = processes * accumulate * group_size
        smallest = unit * -(-2 // group_size)
        if photos is None:
            first = max(smallest, -(-config.batch_size // unit) * unit)
            sizes = range(first, 2 * first, unit)
        else:
            first = photos // unit * unit
            sizes = range(first, max(smallest, first // 2) - 1, -unit)
        if sizes:
            size = next((size for size in sizes if _method_accepts(config, size)), first)
            queue: int | None = getattr(config.method, "queue", None)
            if queue is not None and not _method_accepts(config, size):
                changed = f" --method.queue {max(1, queue // size) * size}{changed}"
            return size, f"--batch-size {size}{changed}"
    return 0, ""


def _method_accepts(config: "Pretrain", batch_size: int) -> bool:
    try:
        config.method.check(batch_size)
    except UsageError:
        return False
    return True
