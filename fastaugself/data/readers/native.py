"""The native reader, which does not need FFCV: simplejpeg in a thread pool decodes directly into the packed buffer.

libjpeg-turbo runs with the same settings as in FFCV (fast DCT, smooth upsampling), so the pixels are identical, bit for
bit. The GIL is released while a photo is read and decoded.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ..beton.format import JPEG, Beton
from ..dataset import Dataset
from ..ragged import RaggedBatch
from .pooled import PooledSource


class NativeSource(PooledSource):
    """Decodes the samples of `dataset` with `workers` threads.

    Raises UsageError if simplejpeg is missing.
    """

    def __init__(self, dataset: Dataset, *, workers: int):
        try:
            import simplejpeg  # noqa: F401
        except ImportError as error:
            raise UsageError(f"simplejpeg cannot be imported ({error}): pip install simplejpeg") from error
        super().__init__(dataset, workers=workers)

    def _decoder(self, batch: RaggedBatch) -> Callable[[int, int], Sequence[int]]:
        pixels, offsets, ids = batch.pixels.numpy(), batch.offsets_B.tolist(), batch.ids_B.tolist()

        def decode(first: int, last: int) -> Sequence[int]:
            return [i for i in range(first, last) if decode_into(*self._dataset.locate(ids[i]), pixels[offsets[i] :])]

        return decode


def decode_into(beton: Beton, sample: int, out: NDArray[np.uint8], *, exact: bool = False) -> str | None:
    """Decodes a sample to the start of `out`, uint8 [N]; returns why it cannot be decoded, None if it can.

    exact: with the accurate DCT, which gives the pixels of Pillow.
    """
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
        simplejpeg.decode_jpeg(data, fastdct=not exact, fastupsample=False, buffer=out)
    except Exception as error:  # damaged data make simplejpeg raise KeyError and others, too
        return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return None
