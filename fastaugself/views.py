"""Photos with their two views and every augmentation parameter in words: `fastaugself views`.

The parameters are those that training draws for the same sample id, seed, epoch and policy, and the pixels pass
through the same kernels. The pieces serve the report of a run too.

Shape suffixes: V views, B photos, C channels, H W, P parameter columns, 2 = (height, width).
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastaugself_kernels import COLUMNS, ViewPolicy, augment, augself_targets, sample_params

from .data.beton import Beton
from .data.canvas import Canvas
from .data.inputs.folder import list_photos
from .data.native import decode_into
from .data.photo import load_photo
from .errors import RunError, UsageError
from .words import Difference, Policies, Word, differences, words

POLICY_NAMES = ("moco_v2", "simclr", "byol", "spatial", "appearance", "none")
MAX_SMALL_VIEWS = 12


class Sample(NamedTuple):
    """name: what to call the photo. id: its position in its data, which addresses its randomness."""

    name: str
    id: int
    pixels_HWC: Tensor


Box = tuple[float, float, float, float]  # top, left, height, width in pixels of the photo


class Small(NamedTuple):
    """A small view of multi-crop, with its crop box on the photo and its parameters in words."""

    box: Box
    view_HWC: NDArray[np.uint8]
    words: list[Word]


class Pair(NamedTuple):
    """A photo and its two views, ready to be drawn; boxes: the crop of each view."""

    name: str
    photo_HWC: NDArray[np.uint8]
    boxes: tuple[Box, ...]
    views_HWC: tuple[NDArray[np.uint8], ...]
    words: tuple[list[Word], ...]
    differences: dict[str, list[Difference]]
    small: tuple[Small, ...] = ()


class Group(NamedTuple):
    """Pairs of one policy, with its name."""

    name: str
    policies: Policies
    pairs: list[Pair]


def write_views(
    source: Path,
    out: Path,
    *,
    policy: str = "moco_v2",
    count: int = 4,
    size: int = 224,
    seed: int = 0,
    epoch: int = 0,
    small_views: int = 0,
    columns: bool = False,
) -> Path:
    """Draws photos of `source` with their views and parameters to `out`, a .png, .webp or .html file.

    source: a photo, a folder of photos or a .beton file; of many, `count` evenly spread ones. policy: a name, or "all"
    for one after the other. size: of the views in pixels. small_views: further small views of each photo (multi-crop).
    columns: what every column of the parameter tensor does, on the first of the photos, instead of `count` of them.
    Returns `out`. Raises UsageError for a source or option that cannot be used, RunError for damaged photos.
    """
    kind = out.suffix.lower().removeprefix(".")
    if kind not in ("png", "webp", "html"):
        raise UsageError(f"--out must end in .png, .webp or .html, got {out}")
    if count < 1:
        raise UsageError(f"--count must be at least 1, got {count}")
    if size < 8:
        raise UsageError(f"--size must be at least 8 pixels, got {size}")
    if not 0 <= small_views <= MAX_SMALL_VIEWS:
        raise UsageError(f"--small-views must be from 0 to {MAX_SMALL_VIEWS}, got {small_views}")
    if not 0 <= epoch < 1 << 32:
        raise UsageError(f"--epoch must be in [0, 2**32), got {epoch}")
    if not -(1 << 63) <= seed < 1 << 64:
        raise UsageError(f"--seed must fit 64 bits, got {seed}")
    if columns and (policy == "all" or small_views):
        raise UsageError("--columns draws two views of one policy; leave out --small-views and --policy all")
    drawn = POLICY_NAMES if policy == "all" else (policy,)
    policies = {name: named_policies(name, size) for name in drawn}
    samples = read_samples(source, 1 if columns else count)
    detail = f"{size} px, seed {seed}, epoch {epoch}"
    if columns:
        content = _columns_file(samples[0], policy, policies[policy], detail, kind, seed=seed, epoch=epoch)
    else:
        groups = [
            Group(name, policies[name], make_pairs(samples, policies[name], seed=seed, epoch=epoch, small=small_views))
            for name in drawn
        ]
        content = _views_file(groups, f"Views of {source.resolve().name}", detail, kind)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(content)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror}") from error
    return out


def _views_file(groups: Sequence[Group], heading: str, detail: str, kind: str) -> bytes:
    if kind == "html":
        from .views_html import views_page

        return views_page(groups, heading, detail).encode()
    from .views_png import views_picture

    return views_picture(groups, detail, "webp" if kind == "webp" else "png")


def _columns_file(
    sample: Sample, policy: str, policies: Policies, detail: str, kind: str, *, seed: int, epoch: int
) -> bytes:
    from .columns import make_content

    content = make_content(sample, policies, seed=seed, epoch=epoch)
    line = f"{content.name}. The pair of views: policy {policy}, {detail}."
    if kind == "html":
        from .columns.html import columns_page

        return columns_page(content, line).encode()
    from .columns.png import columns_picture

    return columns_picture(content, line, "webp" if kind == "webp" else "png")


def named_policies(name: str, size: int) -> Policies:
    """The policies of both views; UsageError for an unknown name."""
    if name == "byol":
        return ViewPolicy.byol(0, size), ViewPolicy.byol(1, size)
    if name not in POLICY_NAMES:
        raise UsageError(f"--policy {name} is unknown; known are all, {', '.join(POLICY_NAMES)}")
    policy: ViewPolicy = getattr(ViewPolicy, name)(size)
    return policy, policy


def small_policy(policies: Policies) -> ViewPolicy:
    """The small views that go with two views: SwAV's 96 px and areas beside 224 px (Caron 2020, arXiv 2006.09882)."""
    return replace(policies[0], size=max(8, round(policies[0].size * 96 / 224)), scale=(0.05, 0.14))


def read_samples(source: Path, count: int) -> list[Sample]:
    """At most `count` photos of a photo, folder or .beton file, evenly spread over it."""
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder; pass a photo, a folder of photos or a .beton file")
    if source.is_dir():
        folder = list_photos(source)
        chosen = spread(folder.labels, count)
        return [Sample(folder.files[i], i, read_photo(folder.root / folder.files[i])) for i in chosen]
    if source.suffix.lower() == ".beton":
        with Beton(source) as beton:
            chosen = spread(beton.labels_N, count)
            return [Sample(f"{source.name}, sample {i}", i, read_stored(beton, i)) for i in chosen]
    try:
        return [Sample(source.name, 0, read_photo(source))]
    except RunError as error:
        raise UsageError(f"{error}; expected a photo, a folder of photos or a .beton file") from error


def spread(labels_N: Sequence[int] | NDArray[np.int64], count: int) -> list[int]:
    """At most `count` sample ids, evenly spaced over the samples in the order of their classes."""
    order = np.argsort(np.asarray(labels_N), kind="stable")
    count = min(count, len(order))
    return [int(order[i * len(order) // count]) for i in range(count)]


def read_photo(path: Path) -> Tensor:
    """The pixels of a photo as `fastaugself write` would store and training decode them, uint8 [H, W, 3]."""
    photo = load_photo(path)
    with Image.open(io.BytesIO(bytes(photo.image))) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))


def read_stored(beton: Beton, sample: int) -> Tensor:
    """The pixels of one sample of a .beton file, uint8 [H, W, 3]; RunError where they cannot be decoded."""
    height, width = beton.sizes_N2[sample].tolist()
    pixels = np.empty(height * width * 3, np.uint8)
    fault = decode_into(beton, sample, pixels)
    if fault is not None:
        raise RunError(f"{beton.path}: sample {sample} cannot be decoded ({fault}); copy or write the file again")
    return torch.from_numpy(pixels).view(height, width, 3)


def pack(samples: Sequence[Sample]) -> Canvas:
    """The samples as one batch."""
    flat = [sample.pixels_HWC.reshape(-1) for sample in samples]
    ends = torch.tensor([len(pixels) for pixels in flat]).cumsum(0)
    return Canvas(
        pixels=torch.cat(flat),
        offsets_B=torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]]),
        sizes_B2=torch.tensor([sample.pixels_HWC.shape[:2] for sample in samples], dtype=torch.int32),
        labels_B=torch.full((len(samples),), -1),
        ids_B=torch.tensor([sample.id for sample in samples]),
    )


def make_pairs(samples: Sequence[Sample], policies: Policies, *, seed: int, epoch: int, small: int = 0) -> list[Pair]:
    """The views of each sample, as training with this seed draws them in this epoch; small: how many small ones."""
    canvas = pack(samples)
    every = (*policies, *[small_policy(policies)] * small)
    params_VBP = sample_params(canvas.ids_B, canvas.sizes_B2, every, seed=seed, epoch=epoch)
    views_VBHWC = make_views(canvas, params_VBP[:2], policies[0].size)
    pairs = describe(samples, views_VBHWC, params_VBP[:2], policies)
    if not small:
        return pairs
    small_VBHWC = make_views(canvas, params_VBP[2:].contiguous(), every[2].size)
    return [
        pair._replace(
            small=tuple(
                Small(box_of(row), small_VBHWC[v, b], words(row, pair.photo_HWC.shape[:2], every[2]))
                for v, row in enumerate(rows_of(params_VBP[2:, b]))
            )
        )
        for b, pair in enumerate(pairs)
    ]


def make_views(canvas: Canvas, params_VBP: Tensor, size: int) -> NDArray[np.uint8]:
    """The views of every row, uint8 [V, B, H, W, C]."""
    x_VBCHW = augment(
        canvas.pixels,
        canvas.offsets_B,
        canvas.sizes_B2,
        params_VBP,
        size=size,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        blur_kernel=blur_kernel(size),
    )
    return to_uint8(x_VBCHW)


def rows_of(params_VP: Tensor) -> list[dict[str, float]]:
    """The rows of some views of one photo, by column name."""
    return [dict(zip(COLUMNS, row, strict=True)) for row in params_VP.tolist()]


def box_of(row: dict[str, float]) -> Box:
    return row["top"], row["left"], row["height"], row["width"]


def blur_kernel(size: int) -> int:
    """Taps of the blur: 23 at 224 px and 9 at 96 px, as published."""
    return max(5, size // 10 | 1)


def outlines(pair: Pair) -> tuple[Box, ...]:
    """The boxes as they are drawn: where both are the same, the second a little inside the first."""
    first, second = pair.boxes
    if first != second:
        return pair.boxes
    top, left, height, width = second
    inset = 0.012 * max(pair.photo_HWC.shape)
    return first, (top + inset, left + inset, max(0.0, height - 2 * inset), max(0.0, width - 2 * inset))


def to_uint8(x_VBCHW: Tensor) -> NDArray[np.uint8]:
    """Images in [0, 1] as uint8 [V, B, H, W, C]."""
    x_VBHWC = (x_VBCHW.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
    return np.ascontiguousarray(x_VBHWC.cpu().numpy())


def describe(
    samples: Sequence[Sample], views_VBHWC: NDArray[np.uint8], params_VBP: Tensor, policies: Policies
) -> list[Pair]:
    """Views and their parameters as pairs to draw."""
    sizes_B2 = torch.tensor([sample.pixels_HWC.shape[:2] for sample in samples], dtype=torch.int32)
    targets, _ = augself_targets(params_VBP, sizes_B2, policies, mode="fixed")
    pairs = []
    for b, sample in enumerate(samples):
        rows = rows_of(params_VBP[:2, b])
        height, width = sample.pixels_HWC.shape[:2]
        pairs.append(
            Pair(
                name=f"{sample.name}, {width} × {height} px",
                photo_HWC=sample.pixels_HWC.numpy(),
                boxes=tuple(box_of(row) for row in rows),
                views_HWC=(views_VBHWC[0, b], views_VBHWC[1, b]),
                words=tuple(words(row, (height, width), policy) for row, policy in zip(rows, policies, strict=True)),
                differences=differences(targets, b, policies),
            )
        )
    return pairs
