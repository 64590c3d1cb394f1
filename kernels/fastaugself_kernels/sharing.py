"""Rows that share parameters: among consecutive samples, or among the views of a sample.

Methods that compare what one augmentation does to several photos need rows with equal columns: STL (Yu et al. 2024,
arXiv 2501.08712) in pairs of photos, CARE (Gupta et al. 2023, arXiv 2306.13924) in chunks of a batch.

Shape suffixes: V views, B batch, G chunks, c samples of a chunk, P parameter columns, 2 = (height, width).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .params import FLIP, GRAY, HUE, JITTER, ROTATION, SIGMA, SOLARIZE, TOP, WIDTH, P

# Neighbouring columns: an index of a list would be copied to the GPU, and the host would wait for it.
SHARED_COLUMNS: dict[str, slice] = {
    "crop": slice(TOP, WIDTH + 1),
    "flip": slice(FLIP, FLIP + 1),
    "rotation": slice(ROTATION, ROTATION + 1),
    "color": slice(JITTER, HUE + 1),
    "grayscale": slice(GRAY, GRAY + 1),
    "blur": slice(SIGMA, SIGMA + 1),
    "solarize": slice(SOLARIZE, SOLARIZE + 1),
}
"""The columns of each part that rows can share; "color" is the jitter, its order and its four factors."""


def share_params(params_VBP: Tensor, sizes_B2: Tensor, *, chunk: int, parts: Sequence[str]) -> Tensor:
    """Rows of `chunk` consecutive samples take the columns of `parts` from the first of them, in every view.

    params_VBP: float32 [V, B, 16], left unchanged. sizes_B2: int32 or int64 [B, 2], (height, width) of the decoded
    images in pixels.
    chunk: samples that share; it divides B. So the rows of a process do not depend on the number of processes where
        it divides their batches too.
    parts: some of "crop", "flip", "rotation", "color", "grayscale", "blur", "solarize" (`SHARED_COLUMNS`). The crop is
        shared as fractions of each photo: every edge of the box is rounded to the nearest whole pixel, and a box
        of less than a pixel becomes the pixel of its centre. "rotation" is the turn before the flip: name "flip" too
        for an equal visible rotation.
    Returns a new float32 tensor on the same device, without a host sync.
    Raises ValueError for a chunk that does not divide B, an unknown part, or wrong shapes or dtypes.
    """
    _check(params_VBP, parts)
    V, B, _ = params_VBP.shape
    if sizes_B2.shape != (B, 2) or sizes_B2.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"sizes_B2 must be int32 or int64 [{B}, 2], got {sizes_B2.dtype} {list(sizes_B2.shape)}; pass the (height, "
            "width) of each photo"
        )
    if chunk < 1 or B % chunk:
        remedy = f"pass one of {', '.join(str(n) for n in range(1, B + 1) if B % n == 0)}" if B else "pass chunk=1"
        raise ValueError(f"chunk must be at least 1 and divide the {B} samples, got {chunk}; {remedy}")
    shared_VBP = params_VBP.clone(memory_format=torch.contiguous_format)
    if chunk == 1:
        return shared_VBP
    own_VGcP = shared_VBP.view(V, B // chunk, chunk, P)
    first_VG1P = params_VBP.unflatten(1, (B // chunk, chunk))[:, :, :1]
    for part in parts:
        columns = SHARED_COLUMNS[part]
        if part == "crop":
            own_VGcP[..., columns] = _same_fractions(first_VG1P[..., columns], sizes_B2.view(-1, chunk, 2))
        else:
            own_VGcP[..., columns] = first_VG1P[..., columns]
    return shared_VBP


def same_across_views(params_VBP: Tensor, parts: Sequence[str]) -> Tensor:
    """All views of a sample take the columns of `parts` from its first view.

    params_VBP: float32 [V, B, 16], left unchanged. parts: as in `share_params`.
    Returns a new float32 tensor on the same device, without a host sync.
    Raises ValueError for an unknown part, or a wrong shape or dtype.
    """
    _check(params_VBP, parts)
    same_VBP = params_VBP.clone(memory_format=torch.contiguous_format)
    for part in parts:
        same_VBP[..., SHARED_COLUMNS[part]] = params_VBP[:1, :, SHARED_COLUMNS[part]]
    return same_VBP


def _same_fractions(box_VG14: Tensor, sizes_Gc2: Tensor) -> Tensor:
    """The box (top, left, height, width) of the first photo of each chunk on every photo of it, float32 [V, G, c, 4].

    In whole numbers, so that no device rounds an edge differently; `augment` truncates boxes likewise.
    """
    box = box_VG14.to(torch.int64)
    sizes = sizes_Gc2.to(torch.int64)
    first = sizes[:, :1]  # of the photo whose box it is
    start, end = box[..., :2], box[..., :2] + box[..., 2:]

    def nearest(edge: Tensor) -> Tensor:
        return (2 * edge * sizes + first) // (2 * first)

    low, high = nearest(start), nearest(end)
    middle = (start + end) * sizes // (2 * first)
    low = torch.minimum(torch.where(low < high, low, middle), sizes - 1).clamp(min=0)
    high = torch.minimum(torch.maximum(high, low + 1), sizes)
    return torch.cat([low, high - low], -1).to(torch.float32)


def _check(params_VBP: Tensor, parts: Sequence[str]) -> None:
    if params_VBP.dim() != 3 or params_VBP.shape[2] != P or params_VBP.dtype is not torch.float32:
        raise ValueError(
            f"params_VBP must be float32 [views, batch, {P}], got {params_VBP.dtype} {list(params_VBP.shape)}; "
            "pass rows as `sample_params` draws them"
        )
    unknown = [part for part in parts if part not in SHARED_COLUMNS]
    if unknown or isinstance(parts, str):
        raise ValueError(
            f"parts must be a sequence of some of {', '.join(SHARED_COLUMNS)}, got {parts!r}; pass "
            f'parts=("crop", "color")'
        )
