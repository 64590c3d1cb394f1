"""What the native decoder cannot decode is a fault of the sample, whatever simplejpeg raises."""

import numpy as np
import pytest
import simplejpeg

from fastaugself.data.beton.format import Beton
from fastaugself.data.beton.verify import verify_beton
from fastaugself.data.loader import Loader
from fastaugself.data.readers.native import decode_into
from fastaugself.errors import RunError


@pytest.fixture
def unknown_subsampling(beton, tmp_path):
    """A file without a manifest whose sample 3 has a subsampling that simplejpeg does not know."""
    data = bytearray(beton.read_bytes())
    with Beton(beton) as opened:
        frame = data.index(b"\xff\xc0", int(opened.pointers_N[3]))
    assert data[frame + 11] == 0x22
    data[frame + 11] = 0x14
    (tmp_path / "x.beton").write_bytes(data)
    return tmp_path / "x.beton"


def test_a_key_error_of_simplejpeg_is_a_fault_of_the_sample(unknown_subsampling):
    with Beton(unknown_subsampling) as opened:
        with pytest.raises(KeyError):
            simplejpeg.decode_jpeg_header(opened.read(3))
        pixels = np.empty(3 * int(opened.sizes_N2[3].prod()), np.uint8)
        assert decode_into(opened, 3, pixels) == "KeyError: 6"
    faults = verify_beton(unknown_subsampling).faults
    assert len(faults) == 1 and "sample 3 " in str(faults[0])
    with (
        Loader(unknown_subsampling, batch_size=8, source="native", order="sequential") as loader,
        pytest.raises(RunError, match="sample 3 cannot be decoded: KeyError: 6; 1 of 64 samples"),
    ):
        list(loader.epoch(0))


def test_the_accurate_transform_differs_slightly_from_the_fast_one(beton):
    with Beton(beton) as opened:
        height, width = opened.sizes_N2[0].tolist()
        found = {exact: np.empty(3 * height * width, np.uint8) for exact in (False, True)}
        for exact, out in found.items():
            assert decode_into(opened, 0, out, exact=exact) is None
    assert 0 < np.abs(found[False].astype(int) - found[True]).max() <= 16
