"""The reader that needs no FFCV: simplejpeg in a pool of threads, straight into the packed buffer.

libjpeg-turbo decodes with the settings that FFCV gives it (fast DCT, smooth upsampling), so the pixels are FFCV's, bit
for bit. Python's lock is released while a photo is read and decoded.
"""

import itertools
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .background import PATIENCE, log_waiting
from .beton import JPEG, Beton
from .dataset import Dataset
from .source import AHEAD, Buffers, Packed, allocate


class NativeSource:
    """Decodes the samples of `dataset` with `workers` threads.

    Raises UsageError where simplejpeg is missing.
    """

    def __init__(self, dataset: Dataset, *, workers: int):
        try:
            import simplejpeg  # noqa: F401
        except ImportError as error:
            raise UsageError(f"simplejpeg cannot be imported ({error}): pip install simplejpeg") from error
        self._dataset, self._workers = dataset, workers

    def batches(self, ids: Iterator[NDArray[np.int64]], buffers: Buffers) -> Generator[Packed]:
        """See source.Source."""
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="decode")
        ahead: deque[tuple[Packed, list[Future[None]]]] = deque()
        try:
            for ids_B in ids:
                ahead.append(self._submit(pool, ids_B, buffers))
                if len(ahead) > AHEAD:
                    yield self._completed(*ahead.popleft())
            while ahead:
                yield self._completed(*ahead.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _submit(
        self, pool: ThreadPoolExecutor, ids_B: NDArray[np.int64], buffers: Buffers
    ) -> tuple[Packed, list[Future[None]]]:
        packed = Packed(*allocate(self._dataset.sizes_N2[ids_B], buffers), ids_B, [])
        turn = itertools.count()  # the workers of a batch take turns, so that none is left with the largest photos
        return packed, [pool.submit(self._decode, packed, turn) for _ in range(min(self._workers, len(ids_B)))]

    def _decode(self, packed: Packed, turn: Iterator[int]) -> None:
        pixels = packed.pixels.numpy()
        while (i := next(turn)) < len(packed.ids_B):
            if decode_into(*self._dataset.locate(int(packed.ids_B[i])), pixels[packed.offsets_B[i] :]):
                packed.failed.append(i)

    def _completed(self, packed: Packed, futures: list[Future[None]]) -> Packed:
        for future in futures:
            while True:
                try:
                    future.result(PATIENCE)
                    break
                except FutureTimeoutError:
                    if future.done():
                        raise
                    log_waiting(f"a batch of {self._dataset.name}")
        packed.failed.sort()
        return packed


def decode_into(beton: Beton, sample: int, out: NDArray[np.uint8]) -> str | None:
    """Decodes a sample to the start of `out` (uint8, contiguous); returns what is wrong with it, None if nothing is."""
    import simplejpeg

    height, width = (int(side) for side in beton.sizes_N2[sample])
    data = beton.read(sample)
    out = out[: height * width * 3]
    if beton.modes_N[sample] != JPEG:
        out[:] = np.frombuffer(data, np.uint8)
        return None
    try:
        found = simplejpeg.decode_jpeg_header(data)[:2]
        if found != (height, width):
            return f"its JPEG is {found[0]} x {found[1]} pixels, the index says {height} x {width}"
        simplejpeg.decode_jpeg(data, fastdct=True, fastupsample=False, buffer=out)
    except ValueError as error:
        return str(error)
    return None
