"""`fastaugself verify`: every kind of damage is identified, with the sample id and the name of the photo."""

import shutil
import time

import numpy as np
import pytest

from fastaugself.cli.main import main as cli
from fastaugself.data.beton import manifest, sidecar
from fastaugself.data.beton.format import ALLOCATION, FIELD, HEADER, Beton, metadata_type
from fastaugself.data.beton.verify import verify_beton
from fastaugself.data.beton.writer import BetonWriter

METADATA_START = HEADER.itemsize + 2 * FIELD.itemsize
RECORD = metadata_type([2, 1])  # image, label
SAMPLE, NAME = 37, "sample 37 (coffee/05.jpg) "
OTHER = 10


@pytest.fixture
def copy(beton, tmp_path):
    """A copy of the 64 photos, sidecar and manifest that a test may damage."""
    for path_of in (sidecar.path_of, manifest.path_of):
        shutil.copy(path_of(beton), path_of(tmp_path / "copy.beton"))
    return shutil.copy(beton, tmp_path / "copy.beton")


class File:
    """A file's bytes, and its parts as arrays through which to change them."""

    def __init__(self, path):
        self.bytes = bytearray(path.read_bytes())

    @property
    def header(self):
        return np.frombuffer(self.bytes, HEADER, 1)

    @property
    def records(self):
        return np.frombuffer(self.bytes, RECORD, int(self.header["num_samples"][0]), METADATA_START)

    @property
    def table(self):
        start = int(self.header["alloc_table_ptr"][0])
        return np.frombuffer(self.bytes, ALLOCATION, int(self.header["num_samples"][0]), start)

    def photo(self, sample=SAMPLE):
        """A view of the bytes of one photo."""
        _, start, size = (int(x) for x in self.table[sample])
        return memoryview(self.bytes)[start : start + size]


def set_image(column, value):
    def damage(file):
        file.records["f0"][column][SAMPLE] = value

    return damage


def set_table(column, value):
    def damage(file):
        file.table[column][SAMPLE] = value

    return damage


def set_label(file):
    file.records["f1"][SAMPLE] = 3


def set_page_size(file):
    file.header["page_size"] = 1 << 22


def zero_jpeg_header(file):
    file.photo()[:100] = bytes(100)


def random_in_scan(file):
    file.photo()[-300:-240] = np.random.default_rng(0).bytes(60)


def zeros_in_scan(file):
    file.photo()[-300:-296] = bytes(4)


def one_bit(file):
    file.photo()[-40] ^= 1


def bytes_of_another(file):
    """As if a disk had written to the wrong place."""
    file.photo()[:512] = file.photo(OTHER)[:512]


def swap_sides(file):
    image = file.records["f0"]
    image["height"][SAMPLE], image["width"][SAMPLE] = image["width"][SAMPLE].copy(), image["height"][SAMPLE].copy()


def point_to_another(file):
    file.records["f0"]["data_ptr"][SAMPLE] = file.table["ptr"][OTHER]


def two_faults(file):
    one_bit(file)
    set_label(file)


def set_version(file):
    file.header["version"] = 1


def cut(stop):
    def damage(file):
        del file.bytes[stop:]

    return damage


# Kind of damage, then the messages about sample 37, or about the file if they do not start with its name.
DAMAGED = {
    "header of a JPEG zeroed": (
        zero_jpeg_header,
        [NAME + "has different bytes than", "it cannot be decoded"],
    ),
    "random bytes in a scan": (
        random_in_scan,
        [NAME + "has different bytes than", "it cannot be decoded"],
    ),
    "zeros inside a scan": (
        zeros_in_scan,
        [NAME + "has different bytes than", "it still decodes"],
    ),
    "one bit of a photo": (one_bit, [NAME + "has different bytes than were written (CRC-32 "]),
    "another photo's bytes": (bytes_of_another, [NAME + "has different bytes than were written"]),
    "another label": (set_label, [NAME + "has a label in the index that differs from what was written: 3, not 2"]),
    "sides swapped": (swap_sides, [NAME + "has a height in the index", NAME + "has a width in the index"]),
    "wild pointer": (set_image("data_ptr", 2**40), [NAME + "points to byte 1099511627776, where no data was stored"]),
    "pointer to another": (
        point_to_another,
        [NAME + "has different bytes", NAME + "overlaps with the data of sample 10"],
    ),
    "unknown mode": (set_image("mode", 7), [NAME + "has an unknown storage mode"]),
    "zero width": (set_image("width", 0), [NAME + "has a side of zero pixels"]),
    "pixel bomb": (set_image("width", 65535), [NAME + "claims more pixels than its bytes can hold"]),
    "too long in the table": (set_table("size", 10**6), [NAME + "has an invalid extent (1000000 bytes at byte"]),
    "too short in the table": (set_table("size", 300), [NAME + "has a number of bytes in the index"]),
    "another id in the table": (set_table("sample_id", 7), [NAME + "has the id 7 in the allocation table"]),
    "two faults of a sample": (
        two_faults,
        [NAME + "has different bytes", NAME + "has a label in the index"],
    ),
    "page size": (set_page_size, ["the index (header, field descriptors and metadata"]),
    "version": (set_version, ["is a .beton file of version 1"]),
    "cut in the metadata": (cut(3000), ["truncated in its metadata: it has 3000 bytes"]),
    "cut in the images": (cut(9000), ["truncated in its image data: it has 9000 bytes"]),
    "cut by a byte": (cut(-1), ["truncated in its allocation table: 63 records for 64 samples"]),
    "longer by some bytes": (
        lambda file: file.bytes.extend(b"more"),
        ["were written", "the allocation table (from"],
    ),
    "empty": (cut(0), ["is empty (0 bytes)"]),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_named_as_what_it_is(kind, copy, capsys):
    damage, messages = DAMAGED[kind]
    file = File(copy)
    damage(file)
    copy.write_bytes(file.bytes)
    began = time.monotonic()
    with pytest.raises(SystemExit) as end:
        cli(["verify", str(copy), "--workers", "2"])
    assert time.monotonic() - began < 5
    assert end.value.code == 1
    faults = capsys.readouterr().out.splitlines()[:-1]
    for message in messages:
        assert [fault for fault in faults if message in fault], faults
    named = [fault for fault in faults if fault.startswith("sample ")]
    assert [fault for fault in named if not fault.startswith(NAME)] == []  # no other sample is reported
    assert bool(named) == (NAME in messages[0])


def test_no_changed_byte_anywhere_escapes(tmp_path):
    """Every 7th byte of a file of five photos, one with pixels as they are and one page of zeros, changed in turn."""
    out = tmp_path / "small.beton"
    random = np.random.default_rng(0)
    import simplejpeg

    with BetonWriter(out, 6) as writer:  # capacity 6, of which one stays unused: a gap
        for i in range(5):
            pixels = random.integers(0, 256, (9, 5 + i, 3), np.uint8)
            writer.add(pixels if i == 2 else simplejpeg.encode_jpeg(pixels), i, name=f"photo {i}")
    whole = out.read_bytes()
    assert verify_beton(out).faults == []
    with Beton(out) as beton:
        spans = list(zip(beton.pointers_N.tolist(), (beton.pointers_N + beton.bytes_N).tolist(), strict=True))
    missed, misnamed = [], []
    for i in range(0, len(whole), 7):
        out.write_bytes(whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :])
        try:
            faults = verify_beton(out, workers=1).faults
        except ValueError:  # the header no longer looks like a .beton file
            continue
        owner = [sample for sample, (start, stop) in enumerate(spans) if start <= i < stop]
        if not faults:
            missed.append(i)
        if owner and not (len(faults) == 1 and faults[0].startswith(f"sample {owner[0]} (photo {owner[0]}) has diff")):
            misnamed.append((i, faults))
    assert missed == []
    assert misnamed == []


def test_a_whole_file_has_no_fault(beton, capsys):
    with pytest.raises(SystemExit) as end:
        cli(["verify", str(beton)])
    assert end.value.code == 0
    assert "no faults; 64 photos, 64 compared with their checksums" in capsys.readouterr().out


def test_without_a_manifest_photos_are_decoded(copy):
    manifest.path_of(copy).unlink()
    verified = verify_beton(copy)
    assert verified.faults == []
    assert "64 photos, 64 decoded, without a manifest" in str(verified)
    file = File(copy)
    random_in_scan(file)
    copy.write_bytes(file.bytes)
    assert len(found := verify_beton(copy).faults) == 1
    assert found[0].startswith("sample 37 cannot be decoded: Corrupt JPEG data")


def lines_changed(old, new):
    def damage(path):
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new, 1))

    return damage


BESIDE = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:2000]), "is damaged in line"),
    "cut at a line": (lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(True)[:9])), "is incomplete"),
    "a name changed": (lines_changed(b"coffee/05", b"coffee/06"), "the checksum of its lines does not match"),
    "garbage": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "is damaged in line 1"),
    "another type": (lines_changed(b'"label": 2', b'"label": "2"'), "is damaged in line 34: "),
    "empty": (lambda path: path.write_bytes(b""), "is incomplete: it lists 0 of 64 samples"),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_a_damaged_manifest_is_reported_and_the_rest_decoded(kind, copy):
    damage, message = BESIDE[kind]
    damage(manifest.path_of(copy))
    verified = verify_beton(copy)
    assert len(verified.faults) == 1
    assert message in verified.faults[0]
    assert verified.samples == 64


def test_a_manifest_and_sidecar_of_other_data_are_reported(copy, tmp_path):
    with BetonWriter(tmp_path / "other.beton", 1) as writer:
        writer.add(np.zeros((4, 4, 3), np.uint8))
    shutil.copy(manifest.path_of(tmp_path / "other.beton"), manifest.path_of(copy))
    assert "lists 1 of 64 samples" in verify_beton(copy).faults[0]
    manifest.path_of(copy).unlink()
    text = sidecar.path_of(copy).read_text()
    sidecar.path_of(copy).write_text(text.replace('"index_crc32": ', '"index_crc32": 1'))
    assert verify_beton(copy).faults == [f"{sidecar.path_of(copy)} is damaged or belongs to other data"]


def test_what_is_no_beton_is_wrong_use(tmp_path, capsys):
    (tmp_path / "x.beton").write_text("words" * 1000)
    with pytest.raises(SystemExit) as end:
        cli(["verify", str(tmp_path / "x.beton")])
    assert end.value.code == 2
    assert "not a .beton file" in capsys.readouterr().err
