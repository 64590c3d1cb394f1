"""Decoding on the GPU: with a simulated codec on the CPU, and with the real one if there is a GPU."""

import importlib
import io
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest
import simplejpeg
import torch

from fastaugself.data.beton.format import Beton
from fastaugself.data.beton.writer import BetonWriter
from fastaugself.data.dataset import Dataset
from fastaugself.data.demo import load_photos
from fastaugself.data.loader import Loader
from fastaugself.data.readers import nvimgcodec as nvimgcodec_source
from fastaugself.data.readers.base import OwnMemory
from fastaugself.data.readers.nvimgcodec import NvimgcodecSource, why_not
from fastaugself.errors import UsageError

CUDA = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """18 photos of different sizes, also gray and raw ones; the size in number 5 differs from the index."""
    path = tmp_path_factory.mktemp("codec") / "photos.beton"
    random, sources = np.random.default_rng(0), list(load_photos().values())
    with BetonWriter(path, 18) as writer:
        for i in range(18):
            image = sources[i % 8].resize(tuple(random.integers(20, 90, 2).tolist()))
            out = io.BytesIO()
            (image.convert("L") if i == 7 else image).save(out, "JPEG")
            writer.add(np.asarray(image) if i % 6 == 4 else out.getvalue(), i)
    with Beton(path) as beton:
        start = int(beton.pointers_N[5])
    with path.open("r+b") as stream:
        stream.seek(start)
        stream.write(simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8)))
    return path


class Decoder:
    """Decodes on the CPU, and returns None for undecodable images, as nvImageCodec does."""

    def __init__(self, **options):
        self.options = options

    def decode(self, sources, *, params, cuda_stream):
        assert (params.apply_exif_orientation, cuda_stream) == (False, 1234)
        return [None if s is None else simplejpeg.decode_jpeg(s.data, fastdct=True) for s in sources]


def code_stream(data):
    if len(data) % 5 == 0:
        raise RuntimeError("unknown format")
    return SimpleNamespace(data=data)


@pytest.fixture
def codec(monkeypatch):
    """A simulated nvidia.nvimgcodec on the CPU."""
    module = types.ModuleType("nvidia.nvimgcodec")
    module.CodeStream, module.Decoder = code_stream, Decoder
    module.DecodeParams = lambda apply_exif_orientation: SimpleNamespace(apply_exif_orientation=apply_exif_orientation)
    monkeypatch.setitem(sys.modules, "nvidia", types.ModuleType("nvidia"))
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", module)
    monkeypatch.setattr(nvimgcodec_source, "why_not", lambda device: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=1234))
    return module


def test_the_packed_batch_is_that_of_the_cpu_and_what_fails_is_told(codec, photos):
    with Dataset(photos) as data, Loader(photos, batch_size=6, source="native", max_corrupt=1.0) as loader:
        source = NvimgcodecSource(data, workers=2, device=torch.device("cpu"))
        assert source._decoder.options == {"device_id": 0, "options": ":fancy_upsampling=1"}
        ids = [np.arange(0, 6), np.arange(6, 12), np.arange(12, 18)]
        batches = list(source.batches(iter(ids), OwnMemory()))
        assert [decoded.batch.ids_B.tolist() for decoded in batches] == [i.tolist() for i in ids]
        for decoded in batches:
            batch = decoded.batch
            expected = {5} | {int(i) for i in batch.ids_B if data.modes_N[i] == 0 and len(stored(data, i)) % 5 == 0}
            assert {int(batch.ids_B[i]) for i in decoded.failed} == expected & set(batch.ids_B.tolist())
            repaired = loader._faults.repair(decoded, OwnMemory())
            packed = next(loader._source.batches(iter([repaired.ids_B.numpy()]), OwnMemory())).batch
            assert torch.equal(repaired.pixels, packed.pixels)
            assert torch.equal(repaired.offsets_B, packed.offsets_B)
        assert loader.corrupt == 1  # number 5; the CPU decodes the image that only this codec cannot decode


def stored(data, sample):
    shard, local = data.locate(int(sample))
    return shard.read(local)


def test_without_a_gpu_it_is_refused_with_the_reason(photos):
    with pytest.raises(UsageError, match=r"decodes on CUDA devices.*batches is cpu; pass --data\.decode cpu"):
        Loader(photos, batch_size=4, decode="nvimgcodec")
    with pytest.raises(UsageError, match=r"FFCV decodes on the CPU: pass --data\.source native, or --data\.decode cpu"):
        Loader(photos, batch_size=4, decode="nvimgcodec", source="ffcv")
    with pytest.raises(UsageError, match="decode is 'gpu', expected cpu or nvimgcodec"):
        Loader(photos, batch_size=4, decode="gpu")


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", None)
    assert "pip install 'nvidia-nvimgcodec-cu1" in why_not(CUDA)


needs_cuda = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


class TestOnTheDevice:
    """The loader on a CUDA device."""

    pytestmark = needs_cuda

    def test_batches_are_those_of_the_cpu(self, photos):
        with (
            Loader(photos, batch_size=4, source="native", max_corrupt=1.0) as cpu,
            Loader(photos, batch_size=4, source="native", max_corrupt=1.0, device=CUDA) as gpu,
        ):
            for epoch in range(20):
                kept = list(gpu.epoch(epoch))
                for a, b in zip(cpu.epoch(epoch), kept, strict=True):
                    assert all(torch.equal(x, y.cpu()) for x, y in zip(a, b, strict=True))

    def test_a_thousand_broken_epochs_leave_no_memory_on_the_device(self, photos):
        with Loader(photos, batch_size=4, source="native", max_corrupt=1.0, device=CUDA) as loader:
            for epoch in range(1000):
                batches = loader.epoch(epoch)
                next(batches)
                batches.close()
                if epoch == 10:
                    torch.cuda.synchronize()
                    before = torch.cuda.memory_reserved()
            torch.cuda.synchronize()
            assert torch.cuda.memory_reserved() <= before + (8 << 20)

    def test_nvimgcodec_gives_the_same_samples_and_nearly_the_same_pixels(self, photos):
        if reason := why_not(CUDA):
            pytest.skip(reason)
        importlib.import_module("nvidia.nvimgcodec")
        with (
            Loader(photos, batch_size=6, source="native", max_corrupt=1.0) as cpu,
            Loader(photos, batch_size=6, decode="nvimgcodec", max_corrupt=1.0, device=CUDA) as gpu,
        ):
            for a, b in zip(cpu.epoch(0), gpu.epoch(0), strict=True):
                assert all(torch.equal(x, y.cpu()) for x, y in zip(a[1:], b[1:], strict=True))
                difference = (a.pixels.int() - b.pixels.cpu().int()).abs().float()
                assert difference.mean() < 1.5
