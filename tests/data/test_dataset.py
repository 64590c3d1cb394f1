"""Data sets of several files, damaged files, and the read-ahead of blocks."""

import gc
import importlib.util
import io
import itertools
import logging
import os
import resource
import shutil

import numpy as np
import pytest
import torch
from left_behind import working

from fastaugself.data.beton import sidecar
from fastaugself.data.beton.format import Beton
from fastaugself.data.beton.sidecar import Sidecar
from fastaugself.data.beton.writer import BetonWriter
from fastaugself.data.dataset import Dataset, expand
from fastaugself.data.demo import load_photos
from fastaugself.data.loader import Loader
from fastaugself.data.order import BLOCK, epoch_batches
from fastaugself.data.readahead import read_ahead, runs
from fastaugself.errors import RunError, UsageError

needs_ffcv = pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="FFCV is not installed")
SOURCES = ["native", pytest.param("ffcv", marks=needs_ffcv)]
pytestmark = pytest.mark.xdist_group("ffcv")  # FFCV compiles for seconds in every process that uses it

SIZES = (7, 1, 20, 12)  # samples per file
TOTAL = sum(SIZES)


@pytest.fixture(scope="module")
def photos():
    """TOTAL small photos of different sizes: JPEGs, and some raw ones."""
    random, sources = np.random.default_rng(0), list(load_photos().values())
    found = []
    for i in range(TOTAL):
        image = sources[i % len(sources)].resize(tuple(random.integers(9, 60, 2).tolist()))
        out = io.BytesIO()
        image.save(out, "JPEG")
        found.append(np.asarray(image) if i % 11 == 3 else out.getvalue())
    return found


def write(path, photos, first=0, classes=("a", "b", "c")):
    with BetonWriter(path, len(photos)) as writer:
        for i, photo in enumerate(photos, first):
            writer.add(photo, i % 3)
        writer.sidecar = Sidecar(
            classes=list(classes), columns={"number": [float(first + i) for i in range(len(photos))]}
        )


@pytest.fixture(scope="module")
def shards(photos, tmp_path_factory):
    """The photos in one file, and in four files whose names sort in the order of the photos."""
    folder = tmp_path_factory.mktemp("shards")
    write(folder / "whole.beton", photos)
    (folder / "parts").mkdir()
    starts = [0, *itertools.accumulate(SIZES)]
    for k, (start, stop) in enumerate(itertools.pairwise(starts)):
        write(folder / "parts" / f"part-{k}.beton", photos[start:stop], start)
    (folder / "parts" / "notes.txt").write_text("not data")
    return folder


@pytest.fixture
def parts(shards, tmp_path):
    """A copy of the four files that a test may damage."""
    return shutil.copytree(shards / "parts", tmp_path / "parts")


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    assert working() == []


def corrupt(path, *samples):
    """Zeroes the JPEG headers of samples of a file."""
    with Beton(path) as beton, path.open("r+b") as stream:
        for sample in samples:
            stream.seek(int(beton.pointers_N[sample]))
            stream.write(bytes(min(60, int(beton.bytes_N[sample]))))


# --- one set of samples -----------------------------------------------------------------------------------------------


def test_ids_are_consecutive_over_the_files(shards, photos):
    with Dataset(shards / "parts" / "*.beton") as data, Dataset(shards / "whole.beton") as whole:
        assert (len(data), len(data.shards)) == (TOTAL, 4)
        assert np.array_equal(data.sizes_N2, whole.sizes_N2)
        assert np.array_equal(data.labels_N, whole.labels_N)
        assert np.array_equal(data.modes_N, whole.modes_N)
        assert data.classes == whole.classes == ["a", "b", "c"]
        assert data.columns == whole.columns == {"number": [float(i) for i in range(TOTAL)]}
        assert data.fingerprint == whole.fingerprint
        for i, photo in enumerate(photos):
            shard, local = data.locate(i)
            assert shard.read(local) == (photo if isinstance(photo, bytes) else photo.tobytes())
        assert [data.shard_range(i) for i in (0, 6, 7, 8, TOTAL - 1)] == [(0, 7), (0, 7), (7, 8), (8, 28), (28, TOTAL)]
        fds, starts, lengths = data.where(np.arange(TOTAL))
        for i in range(TOTAL):
            assert os.pread(fds[i], lengths[i], starts[i]) == data.locate(i)[0].read(data.locate(i)[1])


def test_a_list_keeps_its_order_and_a_pattern_sorts(shards):
    part = shards / "parts"
    assert expand([part / "part-3.beton", part / "part-[01].beton"]) == [part / f"part-{k}.beton" for k in (3, 0, 1)]
    with Dataset([part / "part-3.beton", part / "part-0.beton"]) as data:
        assert data.shard_range(0) == (0, 12)
        assert data.name == f"{part / 'part-3.beton'} and 1 more"


def test_a_file_whose_name_has_brackets_is_no_pattern(shards, tmp_path):
    odd = shutil.copy(shards / "whole.beton", tmp_path / "a[1].beton")
    with Dataset(odd) as data:
        assert len(data) == TOTAL


def test_files_that_do_not_belong_together_are_refused(shards, tmp_path, photos):
    part = shards / "parts" / "part-0.beton"
    with pytest.raises(UsageError, match=r"\*\.none matches no \.beton file"):
        Dataset(str(shards / "parts" / "*.none"))
    with pytest.raises(UsageError, match=r"no \.beton file was named"):
        Dataset([])
    os.link(part, tmp_path / "again.beton")
    with pytest.raises(UsageError, match="is named twice"):
        Dataset([part, tmp_path / "again.beton"])
    write(tmp_path / "other.beton", photos[:3], classes=("a", "z", "c"))
    with pytest.raises(UsageError, match=r"disagree about the classes \(class 1 is .b. in one and .z. in the other\)"):
        Dataset([part, tmp_path / "other.beton"])
    write(tmp_path / "fewer.beton", photos[:3], classes=("a", "b"))
    with pytest.raises(UsageError, match=r"disagree about the classes \(3 and 2 classes\)"):
        Dataset([part, tmp_path / "fewer.beton"])
    with pytest.raises(UsageError, match="no such file"):
        Dataset([part, tmp_path / "missing.beton"])


def test_a_photo_of_a_hundred_thousand_pixels_a_side_is_refused_before_anything_is_allocated(tmp_path):
    """The index allows sides up to 65,535; 8 MB of zeros pass its check of one bit per block."""
    with BetonWriter(tmp_path / "bomb.beton", 1) as writer:
        writer.add(np.zeros((1700, 1700, 3), np.uint8))
    with Beton(tmp_path / "bomb.beton") as beton:
        start = beton.pointers_N[0] and 0
    data = bytearray((tmp_path / "bomb.beton").read_bytes())
    from fastaugself.data.beton.format import FIELD, HEADER, metadata_type

    records = np.frombuffer(data, metadata_type([2, 1]), 1, HEADER.itemsize + 2 * FIELD.itemsize + start)
    records["f0"]["mode"], records["f0"]["width"], records["f0"]["height"] = 0, 65535, 65535
    (tmp_path / "bomb.beton").write_bytes(data)
    with pytest.raises((UsageError, RunError), match=r"claims (65535 x 65535 pixels|more pixels)"):
        Dataset(tmp_path / "bomb.beton")


def test_more_files_than_may_be_open_are_refused_with_the_remedy(shards, tmp_path):
    for i in range(40):
        shutil.copy(shards / "parts" / "part-1.beton", tmp_path / f"{i:02d}.beton")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 20, hard))
    try:
        with pytest.raises(UsageError, match=r"Too many open files.*ulimit -n 296"):
            Dataset(tmp_path / "*.beton")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) <= opened + 1


# --- through the loader -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("order", ["random", "quasi-random", "sequential"])
def test_many_files_give_the_batches_of_one(source, order, shards):
    pattern = str(shards / "parts" / "*.beton")
    with (
        Loader(shards / "whole.beton", batch_size=6, seed=2, order=order, source="native") as one,
        Loader(pattern, batch_size=6, seed=2, order=order, source=source, workers=2) as many,
    ):
        for epoch, start in ((0, 0), (1, 3)):
            pairs = list(zip(one.epoch(epoch, start), many.epoch(epoch, start), strict=True))
            assert len(pairs) == TOTAL // 6 - start
            for a, b in pairs:
                assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_quasi_random_ranks_divide_an_epoch_and_resume_on_a_different_number(world, shards):
    def batches(world, start):
        ranks = []
        for rank in range(world):
            with Loader(
                shards / "parts" / "*.beton", batch_size=8 // world, rank=rank, world=world, order="quasi-random",
                source="native",
            ) as loader:  # fmt: skip
                ranks.append([batch.ids_B.tolist() for batch in loader.epoch(1, start)])
        return [sorted(itertools.chain(*batch)) for batch in zip(*ranks, strict=True)]

    expected = [sorted(b.tolist()) for b in epoch_batches(TOTAL, 8, epoch=1, order="quasi-random")]
    assert batches(world, 2) == expected[2:]


@pytest.mark.slow
@pytest.mark.parametrize(("source", "cycles"), [("native", 1000), pytest.param("ffcv", 300, marks=needs_ffcv)])
def test_a_thousand_interrupted_epochs_leave_no_thread_and_no_memory(source, cycles, shards):
    def rss():
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[1]) * 4096

    with Loader(shards / "parts" / "*.beton", batch_size=2, order="quasi-random", source=source, workers=2) as loader:
        for cycle in range(cycles):
            batches = loader.epoch(cycle)
            next(batches)
            batches.close()
            if cycle == 100:
                gc.collect()
                before, descriptors = rss(), len(os.listdir("/proc/self/fd"))
    assert working() == []
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert rss() - before < 20e6


def test_opening_and_closing_many_files_leaves_no_descriptor(shards):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with Loader(shards / "parts" / "*.beton", batch_size=4, source="native") as loader:
            next(loader.epoch(0))
    assert len(os.listdir("/proc/self/fd")) == before


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_corrupt_samples_are_replaced_counted_and_named(source, parts, caplog):
    """Samples 8 to 10 of the data are the first of part-2, samples 39 the last of part-3."""
    corrupt(parts / "part-2.beton", 0, 1, 2)
    corrupt(parts / "part-3.beton", 11)
    with caplog.at_level(logging.WARNING), Dataset(parts / "*.beton") as data, Loader(
        parts / "*.beton", batch_size=5, order="sequential", source=source, max_corrupt=0.1
    ) as loader:  # fmt: skip
        stored = {}
        for epoch in (0, 1):
            seen = []
            for batch in loader.epoch(epoch):
                assert torch.equal(batch.sizes_B2, torch.from_numpy(data.sizes_N2[batch.ids_B]))
                assert torch.equal(batch.labels_B, batch.ids_B % 3)
                for i, sample in enumerate(batch.ids_B.tolist()):
                    start, size = int(batch.offsets_B[i]), int(batch.sizes_B2[i].prod()) * 3
                    image = batch.pixels[start : start + size].clone()
                    assert torch.equal(image, stored.setdefault(sample, image))
                    seen.append(sample)
            expected = [11 if i in (8, 9, 10) else 28 if i == 39 else i for i in range(TOTAL)]
            assert seen == expected
            assert loader.corrupt == 4
    warnings = [record.getMessage() for record in caplog.records if "replaced by sample" in record.getMessage()]
    assert len(warnings) == 4, "each is named once"
    assert "part-2.beton: sample 1" in warnings[1]
    assert "sample 9 of the data" in warnings[1]
    assert warnings[1].endswith("replaced by sample 3")


@pytest.mark.parametrize("source", SOURCES)
def test_more_corrupt_samples_than_allowed_end_the_epoch(source, parts):
    corrupt(parts / "part-2.beton", 4, 9, 15)
    with Loader(parts / "*.beton", batch_size=4, order="sequential", source=source, max_corrupt=2 / TOTAL) as loader:
        batches = loader.epoch(0)
        with pytest.raises(RunError) as caught:
            list(batches)
        assert "part-2.beton: sample 15, sample 23 of the data cannot be decoded: " in str(caught.value)
        assert "3 of 40 samples (7.50%) are corrupt, more than --data.max-corrupt 0.05 allows" in str(caught.value)


def test_corrupt_samples_of_all_ranks_are_added(parts):
    corrupt(parts / "part-2.beton", 4, 9, 15)
    loaders = [
        Loader(parts / "*.beton", batch_size=4, rank=rank, world=2, source="native", max_corrupt=2 / TOTAL)
        for rank in (0, 1)
    ]
    for loader in loaders:
        list(loader.epoch(3))
    total = sum(loader.corrupt for loader in loaders)
    assert total == 3
    for loader in loaders:
        loader.check_corrupt(2)
        with pytest.raises(RunError, match="3 of 40 samples"):
            loader.check_corrupt(total)
        loader.close()


def test_a_file_without_an_intact_sample_is_named(parts):
    corrupt(parts / "part-1.beton", 0)
    with (
        Loader(parts / "*.beton", batch_size=4, source="native", max_corrupt=0.5) as loader,
        pytest.raises(RunError, match=r"part-1\.beton: none of its samples can be decoded"),
    ):
        list(loader.epoch(0))


@pytest.mark.parametrize("allowed", [-0.1, 1.5])
def test_a_fraction_outside_0_to_1_is_refused(allowed, shards):
    with pytest.raises(UsageError, match=f"max_corrupt is {allowed}"):
        Loader(shards / "whole.beton", batch_size=4, source="native", max_corrupt=allowed)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("order", ["random", "quasi-random"])
def test_a_file_cut_while_it_is_read_is_named(source, order, parts):
    with Loader(parts / "*.beton", batch_size=1, order=order, source=source) as loader:
        batches = loader.epoch(0)
        next(batches)
        os.truncate(parts / "part-2.beton", 3000)
        with pytest.raises(RunError, match=r"part-2.beton (changed|became shorter) while it was in use"):
            list(batches)


@pytest.mark.parametrize("source", SOURCES)
def test_a_replaced_file_does_not_affect_the_current_epoch(source, parts, shards):
    with Loader(parts / "*.beton", batch_size=1, order="sequential", source=source) as loader:
        batches = loader.epoch(0)
        next(batches)
        os.replace(parts / "part-1.beton", parts / "part-2.beton")
        assert len(list(batches)) == TOTAL - 1  # from the file that is open
        with pytest.raises(RunError, match=r"part-\d.beton (is gone|changed) while it was in use"):
            next(loader.epoch(1))


@pytest.mark.parametrize("source", SOURCES)
def test_a_disk_that_fails_is_an_error_that_names_the_file(source, parts, monkeypatch):
    """A closed descriptor behaves like a lost disk: every read fails."""
    with Loader(parts / "*.beton", batch_size=1, order="sequential", source=source) as loader:
        batches = loader.epoch(0)
        next(batches)
        loader._dataset.shards[2].close()
        with pytest.raises(RunError, match=r"part-2.beton cannot be read \(Bad file descriptor\)"):
            list(batches)


# --- reading ahead ----------------------------------------------------------------------------------------------------


def test_runs_join_neighbours_and_skip_gaps():
    pointers = np.array([500_000, 100, 400, 900_000, 300])
    lengths = np.array([10, 200, 50, 20, 90])
    assert runs(pointers, lengths) == [(100, 450), (500_000, 500_010), (900_000, 900_020)]


def test_a_block_is_read_whole_once_and_before_its_batches(shards, monkeypatch):
    from fastaugself.data import readahead

    read = []
    monkeypatch.setattr(readahead, "_read", lambda shard, start, stop, buffer: read.append((shard.path, start, stop)))
    with Dataset(shards / "parts" / "*.beton") as data:
        ids = epoch_batches(TOTAL, 8, order="quasi-random", seed=1, epoch=2)
        batches = list(read_ahead(data, ids, seed=1, epoch=2))
        assert [b.tolist() for b in batches] == [
            b.tolist() for b in epoch_batches(TOTAL, 8, order="quasi-random", seed=1, epoch=2)
        ]
        assert TOTAL < BLOCK  # one block, in four files
        assert len(read) == len(set(read)) == 4
        for path, start, stop in read:
            with Beton(path) as beton:
                assert (start, stop) == (beton.pointers_N[0], beton.pointers_N[-1] + beton.bytes_N[-1])


def test_sidecars_are_not_needed(parts):
    for path in parts.glob("*.json"):
        path.unlink()
    with Dataset(parts / "*.beton") as data:
        assert data.classes == ["0", "1", "2"]
        assert data.columns == {}
        assert sidecar.read(data.shards[0]) is None
