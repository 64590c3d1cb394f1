"""From torch tensors to the compiled kernel: scratch memory, threads, compilation.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns.
"""

import logging
import math
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import params as columns
from . import view
from .finish import BFLOAT16, FLOAT16, FLOAT32, ROWS, SPAN
from .pool import Pool
from .resize import CHUNK, STRIP, TILE
from .simd import LANES, WIDE

log = logging.getLogger(__name__)
KINDS = {torch.float32: FLOAT32, torch.float16: FLOAT16, torch.bfloat16: BFLOAT16}
CHUNK_MICROSECONDS = 2000.0  # work that a thread takes at a time: much longer than taking it costs
STREAMED_BYTES = 16 << 20  # views beyond this size are not read again from a cache

_pool = Pool()
_compiling = threading.Lock()
_thread = threading.local()


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
    antialias: bool,
    rounding: bool,
    blur_kernel: int,
    solarize_before_gray: bool,
) -> None:
    """Fills `views_VBCHW` (float32, float16 or bfloat16 in channels-last memory) and `shift_VB3`, on the CPU.

    Uses torch.get_num_threads() threads; neither their number nor the rest of the batch changes a bit of the result.
    Arguments as in `augment_reference`. Raises ValueError for another memory layout of the views.
    """
    V, B, _, H, W = views_VBCHW.shape
    views_VBHWC = views_VBCHW.permute(0, 1, 3, 4, 2)
    if not views_VBHWC.is_contiguous():
        raise ValueError(f"views must be contiguous as [V, B, H, W, 3], got strides {views_VBHWC.stride()}")
    kind = KINDS[views_VBCHW.dtype]
    output = views_VBHWC.reshape(-1)
    floats = output.numpy() if kind == FLOAT32 else np.empty(0, np.float32)
    halves = np.empty(0, np.uint16) if kind == FLOAT32 else output.view(torch.uint16).numpy()
    shift = np.empty(0, np.float32) if shift_VB3 is None else shift_VB3.view(-1).numpy()
    height, width = params_VBP[..., [columns.HEIGHT, columns.WIDTH]].amax((0, 1)).tolist()
    scratch = _plan(H, W, blur_kernel, int(height), int(width))
    deviation = np.asarray(std, np.float64)
    arguments = (
        pixels.numpy(),
        offsets_B.contiguous().numpy(),
        strides_B.to(torch.int64).contiguous().numpy(),
        params_VBP.contiguous().view(-1).numpy(),
        floats,
        halves,
        shift,
        np.array([V, B, H, W, blur_kernel, kind, *scratch.geometry], np.int64),
        np.array([antialias, rounding, solarize_before_gray, shift_VB3 is not None, _streams(output, H * W)]),
        np.repeat(1 / deviation, LANES).astype(np.float32),
        np.repeat(-np.asarray(mean, np.float64) / deviation, LANES).astype(np.float32),
    )
    kernel = _kernel()

    def work(first: int, last: int) -> None:
        kernel(first, last, *arguments, *_buffers(scratch.floats, scratch.side), scratch.layout)

    threads = torch.get_num_threads()
    _pool.run(work, V * B, _chunk(V, B, H * W, threads), threads)


def _streams(output: Tensor, size: int) -> bool:
    """Whether to write past the caches: where they could not keep the views anyway, and whole vectors line up."""
    return output.nbytes >= STREAMED_BYTES and output.data_ptr() % 64 == 0 and size % LANES == 0


def _chunk(V: int, B: int, size: int, threads: int) -> int:
    """Views that a thread takes at a time: whole images, enough to be worth it, few enough to share them evenly."""
    if threads == 1:
        return V * B
    per_image = V * (3.0 + 0.004 * size)  # microseconds, roughly
    return V * max(1, min(int(CHUNK_MICROSECONDS / per_image), B // (4 * threads)))


class _Plan(NamedTuple):
    """The scratch memory of one thread: its geometry, where each buffer starts, and how much there is of it."""

    geometry: tuple[int, int, int, int]
    layout: np.ndarray
    floats: int
    side: int


def _plan(H: int, W: int, blur_kernel: int, height: int, width: int) -> _Plan:
    """Scratch for H x W outputs from crops of up to height x width pixels."""
    side = -(-max(H, W) // STRIP) * STRIP
    ratio = max(height, width) / min(H, W)
    taps = 2 * math.ceil(max(ratio, 1.0)) + 1
    group_floats = max(CHUNK, (math.ceil(TILE * ratio) + taps) * 3) + 2 * SPAN
    reach = blur_kernel // 2
    margin = -(-reach // WIDE) * WIDE
    plane = -(-((side + 2 * (reach + ROWS)) * W + SPAN) // WIDE) * WIDE + WIDE
    strip_plane = STRIP * W + SPAN
    sizes = {
        view.ROWS_WEIGHTS: side * (taps + 2),
        view.COLUMNS_WEIGHTS: side * (taps + 2),
        view.MIXED: STRIP * group_floats,
        view.COLUMNS: STRIP * group_floats,
        view.TILE: TILE * 3 * STRIP,
        view.BLOCK: TILE * STRIP,
        view.STRIPS: 3 * strip_plane,
        view.PADDED: STRIP * (2 * margin + -(-W // WIDE) * WIDE + SPAN) + SPAN,
        view.GAUSSIAN: 2 * (reach + ROWS) + 1,
        view.SPARE: 3 * LANES,
        view.PLANES: 3 * plane,
    }
    starts = [0]
    for buffer in range(view.END):
        starts.append(starts[-1] + -(-sizes[buffer] // WIDE) * WIDE)
    geometry = (margin, reach + ROWS, plane, strip_plane)
    return _Plan(geometry, np.array(starts, np.int64), starts[-1], side)


def _buffers(floats: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """This thread's scratch, made once and grown when a batch needs more. Zeroed: unused lanes must be finite."""
    if getattr(_thread, "floats", 0) < floats:
        memory = np.zeros(floats * 4 + 64, np.uint8)
        start = -memory.ctypes.data % 64  # whole cache lines
        _thread.memory, _thread.floats = memory[start : start + floats * 4].view(np.float32), floats
    if getattr(_thread, "side", 0) < side:
        _thread.rows, _thread.columns, _thread.side = np.zeros(side, np.int64), np.zeros(side, np.int64), side
    return _thread.memory, _thread.rows, _thread.columns


def _kernel() -> Callable[..., Any]:
    with _compiling:
        return _compiled()


@cache
def _compiled() -> Callable[..., Any]:
    """The kernel, compiled or read from numba's cache on disk."""
    began = time.perf_counter()
    here = Path(__file__).resolve()
    sources = zlib.crc32(b"".join(p.read_bytes() for p in sorted(here.parent.glob("*.py"))))
    sources = zlib.crc32(Path(columns.__file__).read_bytes(), sources)
    try:
        kernel = view.make_kernel(sources, keep=True)
    except RuntimeError as error:  # numba found no folder that it may write to
        log.info("the CPU kernels are compiled anew in every process: %s", error)
        kernel = view.make_kernel(sources, keep=False)
    kernel.compile(view.SIGNATURE)
    kernel.disable_compile()
    seconds = time.perf_counter() - began
    if seconds > 2:
        log.info("compiled the CPU kernels in %.0f s, once for this machine", seconds)
    return kernel
