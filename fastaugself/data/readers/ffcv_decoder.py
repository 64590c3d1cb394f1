"""An FFCV pipeline with our decoder: every photo of a batch is decoded once, in full, into one packed buffer.

FFCV compiles a pipeline of operations on top of a memory manager. The operation here is PackedDecoder. The memory
manager reads from several files by `pread`. FFCV's own reads one file through a memory map, where a file that is
truncated during a read kills the process, and its index takes 607 MB for 1.28 million samples.

This module imports FFCV, so import it only when FFCV is used. Importing FFCV and creating a Loader change the number of
threads of torch and numba for the whole process; ffcv.py restores it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ffcv.loader.loader
import numpy as np
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.libffcv import imdecode, memcpy, read
from ffcv.loader import Loader, OrderOption
from ffcv.memory_managers.base import MemoryManager
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.state import State
from ffcv.reader import Reader

from ..beton.format import IMAGE, JPEG, Beton

# FFCV's compiled code, which does not depend on the file. It is kept until the process ends, also because numba prints
# warnings to stderr when compiled functions are freed.
_compiled: list[Callable[..., None]] = []


def compiled_decoder(beton: Beton) -> Callable[..., None]:
    """Returns the compiled `decode(records_B, fds_N, pointers_N, bytes_N, pixels, offsets_B, intact_B)`.

    beton: any file; its field names define the pipeline.
    records_B: of dtype IMAGE; data_ptr is an index into the next three arrays. fds_N, pointers_N, bytes_N: uint32,
    uint64 and uint64; file descriptor, byte offset and length of the stored data. pixels, offsets_B, intact_B: see
    PackedDecoder. The function is thread-safe.
    """
    if not _compiled:
        _compiled.append(_compile(beton))
    return _compiled[0]


def _compile(beton: Beton) -> Callable[..., None]:
    pipelines: dict[str, list[PackedDecoder] | None] = dict.fromkeys(beton.field_names)
    pipelines[beton.image_field] = [PackedDecoder()]
    with _in_ffcv(OSCacheManager=ManyFiles, Reader=_LeanReader):
        loader = Loader(
            str(beton.path),
            batch_size=1,  # only affects FFCV's own iterator, which is not used
            num_workers=1,  # otherwise the code is a parallel loop, which waits for its slowest thread
            os_cache=True,
            order=OrderOption.SEQUENTIAL,
            seed=0,
            drop_last=False,
            pipelines=pipelines,
        )
    (stage, (node,)), *_ = loader.code[0]
    field = f"f{loader.field_name_to_f_ix[beton.image_field]}"

    def decode(records_B, fds_B, pointers_B, bytes_B, pixels, offsets_B, intact_B):  # type: ignore[no-untyped-def]
        metadata_B = np.zeros(len(records_B), [(field, IMAGE)])
        metadata_B[field] = records_B
        memory = {f"memory_{node}": (pixels, offsets_B, intact_B), f"shared_memory_{node}": None}
        stage(
            batch_indices=np.arange(len(records_B)),
            metadata=metadata_B,
            storage_state=(fds_B, pointers_B, bytes_B),
            **memory,
        )

    return decode


class PackedDecoder(SimpleRGBImageDecoder):  # type: ignore[misc]
    """FFCV operation that decodes samples into its memory: (pixels uint8 [N], offsets_B int64, intact_B bool).

    The caller allocates the memory, since FFCV would reserve several times the largest possible batch. intact_B is set
    to True for each image that was read and decoded; FFCV's own decoders ignore the errors of libjpeg-turbo.
    """

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        return replace(previous_state, jit_mode=True, shape=(1,), dtype=np.dtype("u1")), None

    def generate_code(self) -> Any:
        stored = self.memory_read
        decode_jpeg, copy, stated_size = (Compiler.compile(f) for f in (imdecode, memcpy, jpeg_size))

        def decode(batch_indices, memory, metadata, storage_state):  # type: ignore[no-untyped-def]
            pixels, offsets_B, intact_B = memory
            for i in range(len(batch_indices)):
                sample = metadata[batch_indices[i]]
                height, width = np.int64(sample["height"]), np.int64(sample["width"])
                data = stored(sample["data_ptr"], storage_state)
                image = pixels[offsets_B[i] : offsets_B[i] + height * width * 3]
                if sample["mode"] != JPEG:
                    if len(data) == len(image):
                        copy(data, image)
                        intact_B[i] = True
                elif stated_size(data) == (height, width):
                    h, w = np.uint32(height), np.uint32(width)
                    code = decode_jpeg(data, image, h, w, h, w, 0, 0, 1, 1, False, False)
                    intact_B[i] = code == 0
            return intact_B

        return decode


def jpeg_size(data):  # type: ignore[no-untyped-def]
    """(height, width) in a JPEG's frame header, (0, 0) if there is none.

    libjpeg-turbo would silently scale an image whose size differs from the requested one.
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


class ManyFiles(MemoryManager):  # type: ignore[misc]
    """FFCV memory manager for several files; its state maps an address (a position in the batch) to the stored data."""

    def __init__(self, reader: Reader):
        """Does not call the base class, which would index the samples of one file."""

    def schedule_epoch(self, batches: Any) -> Any:
        raise NotImplementedError("only FFCV's own iterator calls this")

    @property
    def state_type(self) -> Any:
        import numba

        return numba.types.Tuple([numba.uint32[::1], numba.uint64[::1], numba.uint64[::1]])

    def compile_reader(self) -> Any:
        read_at = Compiler.compile(read)

        def stored(address, state):  # type: ignore[no-untyped-def]
            fds_B, pointers_B, bytes_B = state
            data = np.empty(bytes_B[address], np.uint8)
            found = read_at(fds_B[address], data, pointers_B[address])
            return data[: max(found, 0)]

        return Compiler.compile(stored)


class _LeanReader(Reader):  # type: ignore[misc]
    """FFCV's Reader, restricted to the header and the fields."""

    def read_metadata(self) -> None:
        self.metadata = np.zeros(0, self.metadata_type)
        self.num_samples = 0

    def read_allocation_table(self) -> None:
        """Skipped: Beton has read and validated the table."""


@contextmanager
def _in_ffcv(**replaced: type) -> Iterator[None]:
    """Temporarily replaces classes that FFCV's Loader uses."""
    module = ffcv.loader.loader
    original = {name: getattr(module, name) for name in replaced}
    try:
        for name, other in replaced.items():
            setattr(module, name, other)
        yield
    finally:
        for name, other in original.items():
            setattr(module, name, other)
