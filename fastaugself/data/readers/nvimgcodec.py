"""The nvImageCodec reader: decodes JPEGs on the GPU, for machines with few CPU cores per GPU.

Samples and packed layout are the same as from the CPU readers. Pixels differ by rounding, since the arithmetic of
nvJPEG differs from libjpeg-turbo. Images that it cannot decode are decoded or reported on the CPU (faults.py). Python
interface of nvImageCodec 0.8, https://docs.nvidia.com/cuda/nvimagecodec/py_api.html.

Shape suffixes: B batch.
"""

import importlib
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import UsageError
from ..background import Background
from ..beton.format import JPEG
from ..dataset import Dataset
from ..ragged import RaggedBatch
from ..transfer import CudaLink, Event, pack_rest, unpack_rest
from .base import AHEAD, Buffers, Decoded, layout, ragged_batch


def why_not(device: torch.device) -> str | None:
    """Why nvImageCodec cannot decode on `device`, with the remedy; None if it can."""
    if device.type != "cuda":
        return f"it decodes on CUDA devices, and the device of the batches is {device}; pass --data.decode cpu"
    try:
        importlib.import_module("nvidia.nvimgcodec")
    except (ImportError, OSError) as error:
        major = (torch.version.cuda or "12").split(".")[0]
        return (
            f"nvidia.nvimgcodec cannot be imported ({error}): pip install 'nvidia-nvimgcodec-cu{major}[nvjpeg]', "
            f"or pass --data.decode cpu"
        )
    return None


class NvimgcodecSource:
    """Decodes the samples of `dataset` on `device`; `workers` threads read the stored bytes.

    Decoding runs on the current stream of the thread that iterates. Raises UsageError if nvImageCodec cannot be used.
    """

    def __init__(self, dataset: Dataset, *, workers: int, device: torch.device):
        if reason := why_not(device):
            raise UsageError(f"nvImageCodec cannot be used: {reason}")
        codec = importlib.import_module("nvidia.nvimgcodec")
        self._dataset, self._workers, self._device = dataset, workers, device
        self._stream_of = codec.CodeStream
        # As in libjpeg-turbo: smooth chroma upsampling, and no EXIF rotation.
        self._decoder = codec.Decoder(device_id=device.index or 0, options=":fancy_upsampling=1")
        self._params = codec.DecodeParams(apply_exif_orientation=False)

    def batches(self, ids: Iterator[NDArray[np.int64]], buffers: Buffers) -> Generator[Decoded]:
        """See base.Source. Iterate in one thread; decoding runs on its current stream."""
        about = f"a batch of {self._dataset.name}"
        with closing(iter(Background(self._read_all(ids), depth=AHEAD, name="decode-read", about=about))) as read:
            for ids_B, stored_B in read:
                yield self._decode(ids_B, stored_B, buffers)

    def _read_all(self, ids: Iterator[NDArray[np.int64]]) -> Generator[tuple[NDArray[np.int64], list[bytes]]]:
        with ThreadPoolExecutor(self._workers, thread_name_prefix="decode") as pool:
            for ids_B in ids:
                yield ids_B, list(pool.map(self._read, ids_B.tolist()))

    def _read(self, sample: int) -> bytes:
        beton, local = self._dataset.locate(sample)
        return beton.read(local)

    def _decode(self, ids_B: NDArray[np.int64], stored_B: list[bytes], buffers: Buffers) -> Decoded:
        sizes_B2, modes_B = self._dataset.sizes_N2[ids_B], self._dataset.modes_N[ids_B]
        offsets_B, bytes_B, count = layout(sizes_B2)
        pixels = buffers.empty(count)
        pixels.zero_()
        images = [pixels[start : start + length] for start, length in zip(offsets_B, bytes_B, strict=True)]
        compressed, failed = [], []
        for i, (stored, (height, width)) in enumerate(zip(stored_B, sizes_B2.tolist(), strict=True)):
            if modes_B[i] != JPEG:
                images[i].copy_(torch.frombuffer(bytearray(stored), dtype=torch.uint8))
            elif _stated_size(stored) == (height, width):
                compressed.append(i)
            else:
                failed.append(i)
        failed += self._decode_jpegs([stored_B[i] for i in compressed], [images[i] for i in compressed], compressed)
        return Decoded(ragged_batch(self._dataset, ids_B, pixels, offsets_B), sorted(failed))

    def _decode_jpegs(self, stored: list[bytes], images: list[Tensor], places: list[int]) -> list[int]:
        """Decodes into `images`; returns the elements of `places` whose images could not be decoded."""
        stream = torch.cuda.current_stream(self._device).cuda_stream
        sources = [self._parse(data) for data in stored]  # None gives None
        decoded = self._decoder.decode(sources, params=self._params, cuda_stream=stream)
        failed = []
        for place, image, found in zip(places, images, decoded, strict=True):
            # The memory of `found` is freed in stream order, after the copy.
            if found is None or torch.as_tensor(found, device=self._device).numel() != len(image):
                failed.append(place)
            else:
                image.copy_(torch.as_tensor(found, device=self._device).reshape(-1))
        return failed

    def _parse(self, stored: bytes) -> Any:
        try:
            return self._stream_of(stored)
        except (RuntimeError, ValueError):
            return None


def _stated_size(stored: bytes) -> tuple[int, int] | None:
    try:
        height, width = simplejpeg.decode_jpeg_header(stored)[:2]
    except (ValueError, KeyError):  # KeyError: a subsampling that it does not know
        return None
    return height, width


class DeviceMemory:
    """A transfer.Sender for pixels that are decoded on the device: it copies only the other tensors."""

    def __init__(self, link: CudaLink, device: torch.device):
        self._link, self._device = link, device

    def empty(self, count: int) -> Tensor:
        """Device memory, uint8 [count], allocated on the current stream."""
        return torch.empty(count, dtype=torch.uint8, device=self._device)

    def exchange(self, old: Tensor, count: int) -> Tensor:
        """See base.Buffers."""
        return self.empty(count)

    def send(self, batch: RaggedBatch) -> tuple[RaggedBatch, list[Tensor], Event]:
        """See transfer.Ring."""
        host = self._link.host(sum(tensor.nbytes for tensor in batch[1:]))
        pack_rest(host, 0, batch)
        sent, arrived = self._link.send(host)  # PyTorch keeps `host` until the copy has finished
        return unpack_rest(batch.pixels, sent, 0, batch), [batch.pixels, sent], arrived

    def close(self) -> None:
        """See transfer.Sender; there are no waits to end."""
