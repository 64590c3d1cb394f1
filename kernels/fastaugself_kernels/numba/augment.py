"""Calls the compiled kernel on torch tensors: checks of the parameter rows, scratch memory, threads.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns.
"""

import math
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ..backends import Options
from ..params import HEIGHT, LEFT, ROTATION, TOP, WIDTH, P
from . import view
from .blur import ROWS, SPAN
from .compiled import compiled
from .pool import Pool
from .resize import CHUNK, STRIP, TILE
from .simd import LANES, WIDE
from .store import BFLOAT16, FLOAT16, FLOAT32

KINDS = {torch.float32: FLOAT32, torch.float16: FLOAT16, torch.bfloat16: BFLOAT16}
CHUNK_MICROSECONDS = 2000.0  # work that a thread takes at a time: much longer than taking it costs
PLANS_KEPT = 4  # layouts of the scratch memory that a thread keeps
STRIP_PIXELS = 2048  # about the pixels to which a colour operation is applied at a time
STREAMED_BYTES = 16 << 20  # views beyond this size are not read again from a cache

_pool = Pool()
_thread = threading.local()
_kernel = compiled(view.make_kernel, view.SIGNATURE)


def augment_numba(
    pixels: Tensor,
    offsets_B: Tensor,
    strides_B: Tensor,
    params_VBP: Tensor,
    views_VBCHW: Tensor,
    shift_VB3: Tensor | None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    options: Options,
) -> None:
    """Fills `views_VBCHW` (float32, float16 or bfloat16 in channels-last memory) and `shift_VB3`, on the CPU.

    Uses torch.get_num_threads() threads; neither their number nor the rest of the batch changes a bit of the result.
    Arguments as in `augment_reference`. Raises ValueError for another memory layout of the views.
    """
    V, B, C, H, W = views_VBCHW.shape
    views_VBHWC = views_VBCHW.permute(0, 1, 3, 4, 2)
    if not views_VBHWC.is_contiguous():
        raise ValueError(f"views must be contiguous as [V, B, H, W, C], got strides {views_VBHWC.stride()}")
    kind = KINDS[views_VBCHW.dtype]
    output = views_VBHWC.reshape(-1)
    floats = output.numpy() if kind == FLOAT32 else np.empty(0, np.float32)
    halves = np.empty(0, np.uint16) if kind == FLOAT32 else output.view(torch.uint16).numpy()
    shift = np.empty(0, np.float32) if shift_VB3 is None else shift_VB3.view(-1).numpy()
    height, width = params_VBP[..., [HEIGHT, WIDTH]].amax((0, 1)).tolist()
    scratch = _plan(H, W, options.blur_kernel, int(height), int(width))
    deviation = np.asarray(std, np.float64)
    arguments = (
        pixels.numpy(),
        offsets_B.contiguous().numpy(),
        strides_B.to(torch.int64).contiguous().numpy(),
        params_VBP.contiguous().view(-1).numpy(),
        floats,
        halves,
        shift,
        np.array([V, B, H, W, kind, *scratch.geometry, C], np.int64),
        np.array([shift_VB3 is not None, _streams(output, H * W)]),
        np.array(options, np.int64),
        np.repeat(1 / deviation, LANES).astype(np.float32),
        np.repeat(-np.asarray(mean, np.float64) / deviation, LANES).astype(np.float32),
    )
    kernel = _kernel()

    def work(first: int, last: int) -> None:
        kernel(first, last, *arguments, *_buffers(scratch))

    threads = torch.get_num_threads()
    if threads == 1:
        work(0, V * B)
    else:
        _pool.run(work, V * B, _chunk(V, B, H * W, threads), threads)


def rows_fit(
    pixels: Tensor,
    offsets_B: Tensor,
    strides_B: Tensor,
    sizes_B2: Tensor,
    params_VBP: Tensor,
    height: int,
    width: int,
) -> bool:
    """Whether `check_rows` would accept these arguments; it is slower and names what is wrong."""
    return _fits()(
        pixels.numel(),
        pixels.shape[1] if pixels.ndim == 4 else pixels.numel(),
        offsets_B.contiguous().numpy(),
        strides_B.to(torch.int64).contiguous().numpy(),
        sizes_B2.to(torch.int64).contiguous().numpy(),
        params_VBP.contiguous().numpy(),
        height == width,
    )


def _make_fits(sources: int, *, keep: bool) -> Any:
    @njit(cache=keep, nogil=True)
    def fits(size, rows, offsets, strides, sizes, params, square):
        if sources < 0:
            return False
        for b in range(offsets.size):
            H, W = sizes[b, 0], sizes[b, 1]
            if offsets[b] < 0 or min(H, W) < 1 or offsets[b] + strides[b] * (H - 1) + W * 3 > size:
                return False
            if rows < H or strides[b] < W * 3:
                return False
            for v in range(params.shape[0]):
                row = params[v, b]
                for p in range(P):
                    if not math.isfinite(row[p]):
                        return False
                y, x, h, w = row[TOP], row[LEFT], row[HEIGHT], row[WIDTH]
                if y < 0 or x < 0 or h < 1 or w < 1 or y + h > H or x + w > W:
                    return False
                if not square and int(row[ROTATION]) % 2 != 0:
                    return False
        return True

    return fits


_fits = compiled(
    _make_fits, "boolean(int64, int64, int64[::1], int64[::1], int64[:, ::1], float32[:, :, ::1], boolean)"
)


def _streams(output: Tensor, size: int) -> bool:
    """Whether to write past the caches: if the views are too large for them, and whole vectors are aligned."""
    return output.nbytes >= STREAMED_BYTES and output.data_ptr() % 64 == 0 and size % WIDE == 0


def _chunk(V: int, B: int, size: int, threads: int) -> int:
    """Number of views that a thread takes at a time: all views of some images, and several chunks per thread."""
    per_image = V * (3.0 + 0.004 * size)  # microseconds, roughly
    return V * max(1, min(int(CHUNK_MICROSECONDS / per_image), B // (4 * threads)))


class _Plan(NamedTuple):
    """Scratch memory of one thread: the numbers that the kernel needs to know about it, and the floats of each buffer.

    `side` is the length of the two tables of first taps; `sizes` are in the order of the kernel's arguments.
    """

    geometry: tuple[int, int, int, int, int]
    side: int
    sizes: tuple[int, ...]


def _plan(H: int, W: int, blur_kernel: int, height: int, width: int) -> _Plan:
    """Scratch memory for H x W outputs of crops of up to height x width pixels; nearly equal crops share a plan."""
    side = -(-max(H, W) // STRIP) * STRIP
    ratio = -(-max(height, width) // min(H, W))
    taps = 2 * ratio + 1
    group = max(CHUNK, (TILE * ratio + taps) * 3) + 2 * SPAN
    reach = blur_kernel // 2
    margin = -(-reach // WIDE) * WIDE
    plane = -(-((side + 2 * (reach + ROWS)) * W + SPAN) // WIDE) * WIDE + WIDE
    strip_plane = STRIP * W + SPAN
    strip_rows = STRIP * max(1, STRIP_PIXELS // (STRIP * W))
    return _Plan(
        geometry=(margin, reach + ROWS, plane, strip_plane, strip_rows),
        side=side,
        sizes=(
            side * (taps + 2),  # weights of the rows' taps
            side * (taps + 2),  # weights of the columns' taps
            STRIP * group,  # rows mixed by the vertical pass
            STRIP * group,  # those rows transposed
            TILE * 3 * STRIP,  # a tile of the output
            TILE * STRIP,  # one channel of a tile at the edge
            3 * plane,
            3 * strip_plane,  # a strip after the blur
            STRIP * (2 * margin + -(-W // WIDE) * WIDE + SPAN) + SPAN,  # rows with reflected borders
            2 * (reach + ROWS) + 1,  # the Gaussian
            4 * WIDE,  # a few pixels of the output
        ),
    )


def _buffers(plan: _Plan) -> tuple[np.ndarray, ...]:
    """The scratch memory of this thread for a plan; it keeps that of a few plans, for views of several sizes."""
    kept: dict[_Plan, tuple[np.ndarray, ...]] = _thread.__dict__.setdefault("buffers", {})
    if plan not in kept:
        if len(kept) == PLANS_KEPT:
            kept.clear()
        starts = [0]
        for size in plan.sizes:
            starts.append(starts[-1] + -(-size // WIDE) * WIDE)
        # Zeros, because lanes that are computed and not used must be finite. The start is that of a cache line.
        memory = np.zeros(starts[-1] * 4 + 64, np.uint8)
        aligned = memory[-memory.ctypes.data % 64 :][: starts[-1] * 4].view(np.float32)
        rows, columns, *others = (aligned[a : a + n] for a, n in zip(starts[:-1], plan.sizes, strict=True))
        firsts = np.zeros((2, plan.side), np.int64)
        kept[plan] = (firsts[0], rows, firsts[1], columns, *others, np.zeros(9))
    return kept[plan]
