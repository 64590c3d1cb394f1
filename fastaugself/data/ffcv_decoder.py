"""FFCV's loader with our decoder: every photo of a batch decoded once, whole, into one packed buffer.

Imports FFCV, and therefore is imported only by who needs it. Importing FFCV and making a Loader set the number of
threads of torch and numba for the whole process; ffcv_source.py undoes that.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import ffcv.loader.loader
import numpy as np
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.libffcv import imdecode, memcpy
from ffcv.loader import Loader, OrderOption
from ffcv.memory_managers.os_cache import OSCacheContext, OSCacheManager
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.state import State
from ffcv.reader import Reader

from .beton import JPEG, Beton

# FFCV's compiled code by (parallel, index of the image field). Nothing in it belongs to one file. It is kept for good
# also because numba complains on stderr of compiled functions that are thrown away.
_compiled: dict[tuple[bool, int], Any] = {}


def make_loader(beton: Beton, workers: int) -> Loader:
    """An `ffcv.Loader` of `beton` whose one pipeline is PackedDecoder; fields other than the image are left out."""
    pipelines: dict[str, list[PackedDecoder] | None] = dict.fromkeys(beton.field_names)
    pipelines[beton.image_field] = [PackedDecoder()]
    original = ffcv.loader.loader.OSCacheManager
    ffcv.loader.loader.OSCacheManager = _LeanManager
    try:
        return _Loader(
            str(beton.path),
            batch_size=1,  # says only how FFCV would cut its own order into batches
            num_workers=workers,
            os_cache=True,
            order=OrderOption.SEQUENTIAL,
            seed=0,
            drop_last=False,
            pipelines=pipelines,
        )
    finally:
        ffcv.loader.loader.OSCacheManager = original


class _Loader(Loader):  # type: ignore[misc]
    """FFCV's, compiling once a process and not once a loader."""

    code: Any

    def generate_code(self) -> None:
        key = self.num_workers > 1, self.field_name_to_f_ix[next(iter(self.pipeline_specs))]
        if key not in _compiled:
            super().generate_code()
            _compiled[key] = self.code
        self.code = _compiled[key]


class PackedDecoder(SimpleRGBImageDecoder):  # type: ignore[misc]
    """FFCV operation: decodes samples into (pixels uint8 [N], offsets_B int64, intact_B bool), given as its memory.

    The caller allocates, since FFCV would reserve the largest batch imaginable several times over. intact_B tells which
    images were decoded; FFCV's own decoders ignore what libjpeg-turbo reports.
    """

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        return replace(previous_state, jit_mode=True, shape=(1,), dtype=np.dtype("u1")), None

    def generate_code(self) -> Any:
        read = self.memory_read
        decode_jpeg, copy, stated_size = (Compiler.compile(f) for f in (imdecode, memcpy, jpeg_size))
        prange = Compiler.get_iterator()

        def decode(batch_indices, memory, metadata, storage_state):  # type: ignore[no-untyped-def]
            pixels, offsets_B, intact_B = memory
            for i in prange(len(batch_indices)):
                sample = metadata[batch_indices[i]]
                height, width = np.int64(sample["height"]), np.int64(sample["width"])
                data = read(sample["data_ptr"], storage_state)
                image = pixels[offsets_B[i] : offsets_B[i] + height * width * 3]
                if sample["mode"] != JPEG:
                    copy(data, image)
                    intact_B[i] = True
                elif stated_size(data) == (height, width):
                    h, w = np.uint32(height), np.uint32(width)
                    code = decode_jpeg(data, image, h, w, h, w, 0, 0, 1, 1, False, False)
                    intact_B[i] = code == 0
            return intact_B

        decode.is_parallel = True  # type: ignore[attr-defined]
        return decode


def jpeg_size(data):  # type: ignore[no-untyped-def]
    """(height, width) in a JPEG's frame header, (0, 0) if there is none.

    libjpeg-turbo would scale an image whose own size is not the one it is asked for, without a word.
    """
    i = np.int64(2)
    while i + 9 < len(data):
        if data[i] != 0xFF:
            i += 1  # stray bytes between segments
        elif data[i + 1] in (0xFF, 0x00, 0x01) or 0xD0 <= data[i + 1] <= 0xD8:
            i += 1 if data[i + 1] == 0xFF else 2  # fill byte; markers without a length
        elif 0xC0 <= data[i + 1] <= 0xCF and data[i + 1] not in (0xC4, 0xC8, 0xCC):
            height = np.int64(data[i + 5]) << 8 | np.int64(data[i + 6])
            width = np.int64(data[i + 7]) << 8 | np.int64(data[i + 8])
            return (height, width)
        elif data[i + 1] in (0xD9, 0xDA):
            break
        else:
            i += 2 + (np.int64(data[i + 2]) << 8 | np.int64(data[i + 3]))
    return (np.int64(0), np.int64(0))


class _LeanManager(OSCacheManager):  # type: ignore[misc]
    """FFCV's, without its three dictionaries over all samples, which only reading by pages uses.

    For 1.28 million samples they would be 607 MB and 2.9 s in every process.
    """

    def __init__(self, reader: Reader):
        order = np.argsort(reader.alloc_table["ptr"], kind="stable")
        self.reader = reader
        self.ptrs = reader.alloc_table["ptr"][order]
        self.sizes = reader.alloc_table["size"][order]
        self.context = OSCacheContext(self)

    def compile_reader(self) -> Any:
        return _compile_reader()


@cache
def _compile_reader() -> Any:
    return OSCacheManager.compile_reader(_AnyFile())


class _AnyFile(OSCacheManager):  # type: ignore[misc]
    """What compiling needs of a manager, which is nothing of its file."""

    def __init__(self) -> None:
        pass
