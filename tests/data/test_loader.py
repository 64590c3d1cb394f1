"""The loader: both readers give equal pixels in the same order, and no leaked threads, hangs or silent corruption."""

import gc
import importlib.util
import io
import itertools
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import simplejpeg
import torch
from left_behind import working

from fastaugself.data.beton import manifest, sidecar
from fastaugself.data.beton.format import HEADER, Beton
from fastaugself.data.beton.sidecar import Sidecar
from fastaugself.data.beton.writer import BetonWriter
from fastaugself.data.demo import load_photos
from fastaugself.data.loader import Loader
from fastaugself.data.order import epoch_batches
from fastaugself.data.readers import ffcv as ffcv_source
from fastaugself.data.readers import pooled
from fastaugself.data.readers.base import OwnMemory, allocate
from fastaugself.errors import RunError, UsageError

needs_ffcv = pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="FFCV is not installed")
SOURCES = ["native", pytest.param("ffcv", marks=needs_ffcv)]
pytestmark = pytest.mark.xdist_group("ffcv")  # FFCV compiles for seconds in every process that uses it


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """30 real photos of every kind that can be stored: sizes from 1 x 1, gray, progressive, all subsamplings, raw."""
    path = tmp_path_factory.mktemp("varied") / "varied.beton"
    photos, random = list(load_photos().values()), np.random.default_rng(0)
    kinds = [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"subsampling": "4:2:2"}, {"quality": 100}]
    with BetonWriter(path, 30) as writer:
        for i in range(30):
            height, width = (1, 1) if i == 7 else (300, 5) if i == 11 else random.integers(2, 300, 2).tolist()
            image = photos[i % 8].resize((width, height))
            if i % 9 == 4:
                writer.add(np.asarray(image), i, name=f"folder/{i}.jpg")
                continue
            out = io.BytesIO()
            (image.convert("L") if i % 6 == 5 else image).save(out, "JPEG", **kinds[i % 5])
            writer.add(out.getvalue(), i, name=f"folder/{i}.jpg")
        writer.sidecar = Sidecar(classes=[f"class {i}" for i in range(30)])
    return path


@pytest.fixture
def copy(varied, tmp_path):
    """A copy of `varied`, with its sidecar and manifest, that a test may damage."""
    for path_of in (sidecar.path_of, manifest.path_of):
        shutil.copy(path_of(varied), path_of(tmp_path / "copy.beton"))
    return shutil.copy(varied, tmp_path / "copy.beton")


def images(batch):
    """The images of a batch as uint8 [H, W, 3] arrays."""
    pixels = batch.pixels.numpy()
    return [
        pixels[offset : offset + h * w * 3].reshape(h, w, 3).copy()
        for offset, (h, w) in zip(batch.offsets_B.tolist(), batch.sizes_B2.tolist(), strict=True)
    ]


def ids(batches):
    return [batch.ids_B.tolist() for batch in batches]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert working() == []


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("workers", [1, 2])
def test_every_image_is_the_decoded_photo(source, workers, varied):
    with (
        Beton(varied) as beton,
        Loader(varied, batch_size=7, source=source, workers=workers, drop_last=False) as loader,
    ):
        assert (loader.source, loader.source_reason, loader.num_samples, loader.batches) == (source, "", 30, 5)
        assert loader.classes[:2] == ["class 0", "class 1"]
        seen = []
        for batch in loader.epoch(0):
            assert [t.dtype for t in batch] == [torch.uint8, torch.int64, torch.int32, torch.int64, torch.int64]
            assert torch.equal(batch.labels_B, batch.ids_B)
            assert np.array_equal(batch.sizes_B2, loader.sizes_N2[batch.ids_B])
            for sample, image in zip(batch.ids_B.tolist(), images(batch), strict=True):
                stored = beton.read(sample)
                raw = sample % 9 == 4
                expected = np.frombuffer(stored, np.uint8) if raw else simplejpeg.decode_jpeg(stored, fastdct=True)
                assert np.array_equal(image, expected.reshape(image.shape)), sample
                seen.append(sample)
        assert sorted(seen) == list(range(30))


@needs_ffcv
def test_both_sources_give_equal_bits_in_the_same_order(varied):
    with (
        Loader(varied, batch_size=4, seed=3, source="ffcv") as a,
        Loader(varied, batch_size=4, seed=3, source="native") as b,
    ):
        for epoch in (0, 1):
            count = 0
            for x, y in zip(a.epoch(epoch), b.epoch(epoch), strict=True):
                assert all(torch.equal(s, t) for s, t in zip(x, y, strict=True))
                count += 1
            assert count == a.batches == 7


@pytest.mark.parametrize("source", SOURCES)
def test_order_is_that_of_sample_at_and_an_epoch_can_start_at_any_batch(source, varied):
    with Loader(varied, batch_size=4, seed=9, source=source) as loader:
        whole = ids(loader.epoch(5))
        assert whole == [b.tolist() for b in epoch_batches(30, 4, seed=9, epoch=5)]
        assert ids(loader.epoch(5, start=3)) == whole[3:]
        assert ids(loader.epoch(5, start=7)) == []
        assert ids(loader.epoch(6)) != whole


def test_ranks_divide_an_epoch(varied):
    for world in (1, 2, 4):
        parts = []
        for rank in range(world):
            with Loader(varied, batch_size=8 // world, rank=rank, world=world, source="native") as loader:
                parts.append(ids(loader.epoch(1)))
        union = [sorted(itertools.chain(*batch)) for batch in zip(*parts, strict=True)]
        assert union == [sorted(b.tolist()) for b in epoch_batches(30, 8, epoch=1)]


@pytest.mark.parametrize("source", SOURCES)
def test_the_consumer_owns_its_batches(source, varied):
    """FFCV's own loader overwrites a batch when the batch after the next is requested."""
    with Loader(varied, batch_size=3, source=source) as loader:
        kept, snapshots = [], []
        for batch in loader.epoch(0):
            kept.append(batch)
            snapshots.append(batch.pixels.clone())
        for batch, snapshot in zip(kept, snapshots, strict=True):
            assert torch.equal(batch.pixels, snapshot)
            batch.pixels.zero_()  # and may modify them


def test_memory_of_a_batch_is_reused_only_without_references():
    """Fresh pages cost a third of the decoding time; 2 MB, since small tensors come from PyTorch's allocator."""
    sizes = np.full((4, 2), 420, np.int32)
    memory = OwnMemory()
    first, _ = allocate(sizes, memory)
    second, _ = allocate(sizes, memory)
    image, address = first[420:].numpy(), first.data_ptr()
    del first  # `image` still needs it
    third, _ = allocate(sizes - 1, memory)
    assert len({address, second.data_ptr(), third.data_ptr()}) == 3
    del image
    fourth, offsets = allocate(sizes - 1, memory)  # slightly smaller: batches of photos differ in size
    assert fourth.data_ptr() == address
    for start in offsets:
        end = int(start) + 419 * 419 * 3
        assert not fourth[end : -(-end // 16) * 16].any()


def test_labels_without_a_sidecar_are_named_by_number(copy):
    sidecar.path_of(copy).unlink()
    with Loader(copy, batch_size=4, source="native") as loader:
        assert loader.classes == [str(i) for i in range(30)]


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_break_exception_interrupt_and_close_end_every_thread(source, varied):
    with Loader(varied, batch_size=2, source=source, workers=2) as loader:
        for batch in loader.epoch(0):
            assert len(batch.ids_B) == 2
            break
        gc.collect()
        assert working() == []

        with pytest.raises(ZeroDivisionError):
            for _ in loader.epoch(0):
                raise ZeroDivisionError
        gc.collect()
        assert working() == []

        batches = loader.epoch(0)
        next(batches)
        with pytest.raises(KeyboardInterrupt):
            batches.throw(KeyboardInterrupt)
        assert working() == []

        abandoned = loader.epoch(0)
        next(abandoned)
        unstarted = loader.epoch(0)
    assert working() == []
    assert [*abandoned, *unstarted] == []


@pytest.mark.parametrize("source", SOURCES)
def test_many_abandoned_epochs_leave_no_threads(source, varied):
    with Loader(varied, batch_size=2, source=source, workers=2) as loader:
        for epoch in range(30):
            batches = loader.epoch(epoch)
            next(batches)
            batches.close()
            assert working() == []


@pytest.mark.parametrize("source", SOURCES)
def test_an_exception_in_a_thread_reaches_the_consumer(source, varied, monkeypatch):
    """FFCV's own loader prints the exception and hangs."""
    calls = itertools.count()

    def allocate(sizes_B2, buffers):
        if next(calls) == 2:
            raise MemoryError("no more")
        return original(sizes_B2, buffers)

    original = pooled.allocate
    monkeypatch.setattr(pooled, "allocate", allocate)
    with Loader(varied, batch_size=2, source=source) as loader, pytest.raises(MemoryError, match="no more"):
        list(loader.epoch(0))


@pytest.mark.slow
@needs_ffcv
def test_using_ffcv_does_not_change_the_threads_of_torch_and_numba(varied):
    """Importing FFCV sets torch to one thread; each of its loaders sets another number."""
    script = (
        "import torch, numba\n"
        "torch.set_num_threads(3)\n"
        "before = torch.get_num_threads(), numba.get_num_threads()\n"
        "from fastaugself.data.loader import Loader\n"
        f"with Loader({str(varied)!r}, batch_size=4, source='ffcv', workers=1) as loader:\n"
        "    list(loader.epoch(0))\n"
        "after = torch.get_num_threads(), numba.get_num_threads()\n"
        "assert before == after == (3, numba.config.NUMBA_NUM_THREADS), (before, after)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_a_process_may_end_in_the_middle_of_an_epoch(source, varied):
    script = (
        "from fastaugself.data.loader import Loader\n"
        f"batches = Loader({str(varied)!r}, batch_size=4, source={source!r}).epoch(0)\n"
        "next(batches)\n"
        "raise SystemExit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (3, "")


# --- damage -----------------------------------------------------------------------------------------------------------


def zero_header(data, start, length):
    data[start : start + 200] = bytes(200)


def random_scan(data, start, length):
    data[start + length // 2 : start + length // 2 + 100] = np.random.default_rng(0).bytes(100)


def other_photo(data, start, length):
    jpeg = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))
    data[start : start + len(jpeg)] = jpeg


DAMAGED = {
    "header zeroed": (zero_header, "Could not determine subsampling"),
    "scan corrupt": (random_scan, "Corrupt JPEG data"),
    "another size": (other_photo, "its JPEG is 16 x 16 pixels, the index says"),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_sample_that_cannot_be_decoded_is_named(kind, source, copy):
    damage, message = DAMAGED[kind]
    with Beton(copy) as beton:
        start, length = int(beton.pointers_N[20]), int(beton.bytes_N[20])
    data = bytearray(copy.read_bytes())
    damage(data, start, length)
    copy.write_bytes(data)
    with Loader(copy, batch_size=5, order="sequential", source=source) as loader:
        batches = loader.epoch(0)
        assert [next(batches).ids_B[0].item() for _ in range(4)] == [0, 5, 10, 15]
        with pytest.raises(RunError) as caught:
            next(batches)
    assert f"{copy}: sample 20 (folder/20.jpg) cannot be decoded: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("source", SOURCES)
def test_a_file_cut_while_it_is_read_is_an_error_and_not_a_crash(source, copy):
    """Reading a memory map beyond the end of its file raises SIGBUS, which kills the process silently."""
    with Loader(copy, batch_size=1, order="sequential", source=source) as loader:
        batches = loader.epoch(0)
        next(batches)
        os.truncate(copy, HEADER.itemsize + 5000)
        with pytest.raises(RunError, match=r"copy.beton (changed|became shorter) while it was in use"):
            list(batches)
        with pytest.raises(RunError, match="changed while it was in use"):
            next(loader.epoch(1))


# --- wrong use --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 31}, r"a batch of 31 is larger than the 30 photos of .*: pass a batch size of 30 or less"),
        ({"batch_size": 1, "world": 31}, r"\(1 on each of 31 ranks\) is larger .*: pass at least 31 photos, one"),
        ({"batch_size": 8, "world": 4}, r"a batch of 32 \(8 on each of 4 ranks\) is larger.*: pass a batch size of 7"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 4, "rank": 4, "world": 4}, "rank is 4 of 4 ranks"),
        ({"batch_size": 4, "workers": -2}, "workers is -2"),
        ({"batch_size": 4, "order": "shuffled"}, "order is 'shuffled', expected random, quasi-random, sequential"),
        ({"batch_size": 4, "source": "dali"}, "source is 'dali', expected auto, ffcv or native"),
    ],
)
def test_wrong_use_is_named_before_anything_is_read(arguments, message, varied):
    with pytest.raises(UsageError, match=message):
        Loader(varied, **{"source": "native", **arguments})


@needs_ffcv
def test_ffcv_decodes_on_the_same_threads_in_every_epoch(varied):
    """FFCV keeps memory for every thread that has decoded."""

    def threads_after_an_epoch():
        with Loader(varied, batch_size=4, source="ffcv", workers=2) as loader:
            list(loader.epoch(0))
        return {t.ident for t in threading.enumerate() if t.name.startswith("fastaugself-ffcv")}

    first = threads_after_an_epoch()
    assert len(first) >= 2 and all(threads_after_an_epoch() == first for _ in range(3))


@pytest.mark.parametrize("source", SOURCES)
def test_an_order_of_ones_own_may_go_on_for_ever(source, varied):
    ids = ((start + np.arange(4)) % 30 for start in itertools.count(0, 4))
    with Loader(varied, batch_size=4, source=source, workers=2) as loader:
        for n, batch in enumerate(loader.batches_of(ids)):
            expected = loader.take(batch.ids_B.numpy())
            assert batch.ids_B.tolist() == [i % 30 for i in range(4 * n, 4 * n + 4)]
            assert all(torch.equal(a, b) for a, b in zip(batch, expected, strict=True))
            if n == 20:
                break
    assert not working()
    with Loader(varied, batch_size=4, source=source) as loader, pytest.raises(UsageError, match="0 to 29, not 30"):
        list(loader.batches_of([np.arange(4), np.array([3, 30])]))


def test_a_start_outside_the_epoch_is_refused_at_once(varied):
    with Loader(varied, batch_size=4, source="native") as loader, pytest.raises(UsageError, match="start is 8"):
        loader.epoch(0, start=8)


def test_without_ffcv_auto_reads_natively_and_says_why(varied, monkeypatch):
    monkeypatch.setattr(ffcv_source.importlib.util, "find_spec", lambda name: None)
    with Loader(varied, batch_size=4) as loader:
        assert (loader.source, loader.source_reason) == ("native", "ffcv is not installed (`make setup` builds it)")
        assert len(ids(loader.epoch(0))) == 7
    with pytest.raises(UsageError, match=r"FFCV cannot be used: ffcv is not installed.*`native` reads"):
        Loader(varied, batch_size=4, source="ffcv")


def test_without_simplejpeg_the_remedy_is_named(varied, monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(UsageError, match="pip install simplejpeg"):
        Loader(varied, batch_size=4, source="native")
