"""`fastaugself views`: draw photos with their views as a picture or an HTML page."""

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError, of_the_system
from ..files import utf8
from ..report.pairs import Group, make_pairs
from ..report.policies import POLICY_NAMES, named_policies
from ..report.samples import read_samples

MAX_LOCAL_CROPS = 12
MAX_SIZE = 2048  # views are drawn smaller


def write_views(
    source: Path,
    out: Path,
    *,
    policy: str = "moco_v2",
    count: int = 4,
    size: int = 224,
    seed: int = 0,
    epoch: int = 0,
    num_local_crops: int = 0,
) -> Path:
    """Draws photos of `source` with their views and parameters to `out`, a .png, .webp or .html file.

    source: a photo, a folder of photos or a .beton file; `count` of them, evenly spaced over the classes. policy:
    a name, or "all" for every policy. size: of the views in pixels. num_local_crops: per photo (multi-crop).
    Returns `out`. Raises UsageError for a source or option that cannot be used, RunError for damaged photos.
    """
    kind = out.suffix.lower().removeprefix(".")
    if kind not in ("png", "webp", "html"):
        raise UsageError(f"--out must end in .png, .webp or .html, got {out}")
    if count < 1:
        raise UsageError(f"--count must be at least 1, got {count}")
    if not 8 <= size <= MAX_SIZE:
        raise UsageError(f"--size must be from 8 to {MAX_SIZE} pixels, got {size}")
    if not 0 <= num_local_crops <= MAX_LOCAL_CROPS:
        raise UsageError(f"--num-local-crops must be from 0 to {MAX_LOCAL_CROPS}, got {num_local_crops}")
    if not 0 <= epoch < 1 << 32:
        raise UsageError(f"--epoch must be in [0, 2**32), got {epoch}")
    if not -(1 << 63) <= seed < 1 << 64:
        raise UsageError(f"--seed must fit 64 bits, got {seed}")
    _refuse_among_photos(source, out)
    drawn = POLICY_NAMES if policy == "all" else (policy,)
    policies = {name: named_policies(name, size) for name in drawn}
    samples = read_samples(source, count)
    detail = f"{size} px, seed {seed}, epoch {epoch}"
    groups = [
        Group(name, policies[name], make_pairs(samples, policies[name], seed=seed, epoch=epoch, local=num_local_crops))
        for name in drawn
    ]
    content = _views_file(groups, f"Views of {source.resolve().name}", detail, kind)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(content)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({of_the_system(error)}); pass another file") from error
    return out


def _refuse_among_photos(source: Path, out: Path) -> None:
    """Raises UsageError if `out` would become a photo or a class of the folder `source`."""
    there = out.resolve()
    if not source.is_dir() or not there.is_relative_to(source.resolve()):
        return
    if out.suffix.lower() == ".html" and there.parent.is_dir():
        return
    beside = os.path.relpath(source.resolve().parent / out.name)
    raise UsageError(
        f"--out {out} is in the folder of photos {source}, where it would be one of them; pass --out {beside}"
    )


def _views_file(groups: Sequence[Group], heading: str, detail: str, kind: str) -> bytes:
    if kind == "html":
        from .page import views_page

        return utf8(views_page(groups, heading, detail))
    from .png import views_picture

    return views_picture(groups, detail, "webp" if kind == "webp" else "png")
