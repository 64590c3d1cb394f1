"""The .beton reader: written data are read back, and every kind of damage is reported on opening."""

import shutil
import struct
import time
import tracemalloc

import numpy as np
import pytest
import simplejpeg

from fastaugself.data.beton import sidecar
from fastaugself.data.beton.format import ALLOCATION, FIELD, HEADER, JPEG, RAW, Beton, metadata_type
from fastaugself.data.beton.info import describe, facts
from fastaugself.data.beton.sidecar import Sidecar
from fastaugself.data.beton.writer import BetonWriter
from fastaugself.data.readers import ffcv as ffcv_source
from fastaugself.errors import RunError, UsageError

METADATA_START = HEADER.itemsize + 2 * FIELD.itemsize
RECORD = metadata_type([2, 1])  # image, label


@pytest.fixture
def copy(beton, tmp_path):
    """A copy of the 64 photos that a test may damage."""
    return shutil.copy(beton, tmp_path / "copy.beton")


def parts(data):
    """Views of a file's bytes that can be written to: header, metadata, allocation table."""
    header = np.frombuffer(data, HEADER, 1)
    n, table = int(header["num_samples"][0]), int(header["alloc_table_ptr"][0])
    return header, np.frombuffer(data, RECORD, n, METADATA_START), np.frombuffer(data, ALLOCATION, n, table)


# --- what is written comes back ---------------------------------------------------------------------------------------


def test_every_photo_comes_back_byte_for_byte(photo_folder, beton):
    files = sorted(photo_folder.rglob("*.jpg"))
    with Beton(beton) as read:
        assert len(read) == len(files) == 64
        assert [read.read(i) for i in range(64)] == [path.read_bytes() for path in files]
        assert read.labels_N.tolist() == [i // 16 for i in range(64)]
        assert set(read.modes_N.tolist()) == {JPEG}
        for i, path in enumerate(files):
            assert tuple(read.sizes_N2[i]) == simplejpeg.decode_jpeg_header(path.read_bytes())[:2]


def test_raw_pixels_and_missing_labels_come_back(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (31, 17, 3), np.uint8)
    with BetonWriter(tmp_path / "raw.beton", capacity=5) as writer:
        assert [writer.add(pixels), writer.add(pixels[:, ::-1], label=2**40)] == [0, 1]
    with Beton(tmp_path / "raw.beton") as read:
        assert len(read) == 2  # fewer than the capacity is allowed
        assert read.modes_N.tolist() == [RAW, RAW]
        assert read.read(1) == pixels[:, ::-1].tobytes()
        assert read.labels_N.tolist() == [-1, 2**40]


def test_no_sample_crosses_a_page_even_when_one_outgrows_the_usual_page(tmp_path):
    random = np.random.default_rng(0)
    sizes = [(900, 1000), (1400, 2000), (1700, 2000), (800, 900), (10, 10)]  # 2.7, 8.4, 10.2, 2.2 MB; pages are 8 MiB
    images = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    with BetonWriter(tmp_path / "pages.beton", capacity=len(images)) as writer:
        for image in images:
            writer.add(image)
    with Beton(tmp_path / "pages.beton") as read:
        assert read.page_size == 1 << 24
        assert np.array_equal(read.pointers_N // read.page_size, (read.pointers_N + read.bytes_N - 1) // read.page_size)
        assert all(read.read(i) == image.tobytes() for i, image in enumerate(images))


def test_a_table_in_another_order_than_the_samples_is_read_alike(copy):
    """FFCV with several workers writes the table in another order."""
    with Beton(copy) as read:
        stored = [read.read(i) for i in range(64)]
    data = bytearray(copy.read_bytes())
    table = parts(data)[2]
    table[:] = table[np.random.default_rng(0).permutation(64)].copy()
    copy.write_bytes(data)
    with Beton(copy) as read:
        assert [read.read(i) for i in range(64)] == stored


def test_opening_imagenet_sized_data_takes_little_time_and_memory(tmp_path):
    """1.28 million samples; FFCV's index takes 2.9 s and 607 MB."""
    n, path = 1_281_167, tmp_path / "large.beton"
    record = metadata_type([2, 1])
    start = METADATA_START + n * record.itemsize
    header, metadata, table = np.zeros(1, HEADER), np.zeros(n, record), np.zeros(n, ALLOCATION)
    fields = np.zeros(2, FIELD)
    fields["type_id"], fields["name"][:, :5] = [2, 1], [list(b"image"), list(b"label")]
    header[0] = (2, 2, 1 << 23, n, start + 1000 * n)
    table["ptr"], table["size"] = start + 1000 * np.arange(n), 1000
    metadata["f0"]["data_ptr"], metadata["f0"]["width"], metadata["f0"]["height"] = table["ptr"], 500, 375
    with path.open("wb") as stream:
        stream.write(header.tobytes() + fields.tobytes() + metadata.tobytes())
        stream.seek(int(header["alloc_table_ptr"][0]))  # the images are a hole in the file
        stream.write(table.tobytes())
    tracemalloc.start()
    began = time.perf_counter()
    with Beton(path) as read:
        seconds, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(read) == n
    assert peak < 100e6
    assert seconds < 5  # 0.2 s on an idle machine


# --- damage -----------------------------------------------------------------------------------------------------------


def cut(data, size):
    del data[size:]


def cut_in_metadata(data):
    cut(data, METADATA_START + 100)


def cut_in_images(data):
    cut(data, parts(data)[0]["alloc_table_ptr"][0] // 2)


def cut_before_table(data):
    cut(data, parts(data)[0]["alloc_table_ptr"][0])


def set_header(name, value):
    def damage(data):
        parts(data)[0][name] = value

    return damage


def set_image(name, value, sample=5):
    def damage(data):
        parts(data)[1]["f0"][name][sample] = value

    return damage


def set_table(name, value, sample=5):
    def damage(data):
        parts(data)[2][name][sample] = value

    return damage


def set_field_type(data):
    data[HEADER.itemsize] = 255


def no_image_field(data):
    data[HEADER.itemsize] = 1


DAMAGED = {
    "empty": (lambda data: cut(data, 0), "is empty"),
    "cut in the header": (lambda data: cut(data, 500), "truncated: 500 bytes end inside its header"),
    "cut in the metadata": (cut_in_metadata, "truncated in its metadata"),
    "cut in the images": (cut_in_images, "truncated in its image data"),
    "cut before the table": (cut_before_table, "truncated in its allocation table"),
    "cut in the table": (lambda data: cut(data, -1000), "truncated in its allocation table: 22 records for 64 samples"),
    "cut by a byte": (lambda data: cut(data, -1), "truncated in its allocation table: 63 records for 64 samples"),
    "incomplete": (set_header("alloc_table_ptr", 0), "incomplete"),
    "other version": (set_header("version", 1), "of version 1: only version 2"),
    "no samples": (set_header("num_samples", 0), "holds no samples"),
    "wild sample count": (set_header("num_samples", 2**60), "damaged: according to its header, the allocation"),
    "table inside metadata": (set_header("alloc_table_ptr", 3000), "damaged: according to its header, the allocation"),
    "table beyond the end": (set_header("alloc_table_ptr", 2**63), "truncated in its image data"),
    "custom field": (set_field_type, "field 'image' is a custom FFCV field"),
    "no image field": (no_image_field, "has no image field"),
    "wild pointer": (set_image("data_ptr", 2**62), "damaged: sample 5 points to byte"),
    "pointer past the end": (set_image("data_ptr", 2**64 - 1), "damaged: sample 5 points to byte"),
    "shifted pointer": (
        lambda data: set_image("data_ptr", parts(data)[1]["f0"]["data_ptr"][5] + 1)(data),
        "sample 5 po",
    ),
    "image longer than the file": (
        set_table("size", 2**40),
        "sample 5 has an invalid extent (1099511627776 bytes",
    ),
    "length that overflows": (set_table("size", 2**64 - 8), "damaged: sample 5 has an invalid extent (-8 bytes"),
    "image of no bytes": (set_table("size", 0), "damaged: sample 5 has an invalid extent (0 bytes"),
    "unknown mode": (set_image("mode", 7), "sample 5 has an unknown storage mode"),
    "zero width": (set_image("width", 0), "sample 5 has a side of zero pixels"),
    "raw of the wrong length": (set_image("mode", RAW), "sample 5 is stored raw with a length that does not match"),
    "pixel bomb": (
        lambda data: (set_image("width", 65535)(data), set_image("height", 65535)(data)),
        "sample 5 claims more pixels than its bytes can hold",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_named_at_open(kind, copy):
    damage, message = DAMAGED[kind]
    data = bytearray(copy.read_bytes())
    damage(data)
    copy.write_bytes(data)
    with pytest.raises(RunError) as caught:
        Beton(copy)
    assert message in str(caught.value)
    assert str(copy) in str(caught.value)
    assert "write" in str(caught.value)  # every message names a remedy
    assert "\n" not in str(caught.value)


NOT_BETON = {
    "text": (b"epoch,loss\n" * 500, "not a .beton file"),
    "zeros": (bytes(5000), r"not a .beton file \(version field 0"),
    "ten bytes": (b"0123456789", "10 bytes are fewer than its header"),
    "photo": (simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8)), "not a .beton file but a JPEG image"),
    "archive": (b"PK\x03\x04" + bytes(100), "but a zip archive"),
}


@pytest.mark.parametrize("kind", NOT_BETON)
def test_what_is_no_beton_is_wrong_use(kind, tmp_path):
    data, message = NOT_BETON[kind]
    (tmp_path / "x.beton").write_bytes(data)
    with pytest.raises(UsageError, match=message):
        Beton(tmp_path / "x.beton")


def test_missing_file_and_folder_say_how_to_make_one(tmp_path):
    with pytest.raises(UsageError, match=r"no such file; `fastaugself write FOLDER"):
        Beton(tmp_path / "none.beton")
    with pytest.raises(UsageError, match=r"is a folder, not a .beton file: run `fastaugself write"):
        Beton(tmp_path)


def test_a_file_cut_or_replaced_after_opening_is_noticed(copy):
    with Beton(copy) as read:
        read.check_unchanged()
        with copy.open("r+b") as stream:
            stream.truncate(METADATA_START + 64 * RECORD.itemsize + 10)
        with pytest.raises(RunError, match="changed while it was in use"):
            read.check_unchanged()
        with pytest.raises(RunError, match="became shorter while it was in use"):
            read.read(63)
        copy.unlink()
        with pytest.raises(RunError, match="is gone while it was in use"):
            read.check_unchanged()


# --- the sidecar ------------------------------------------------------------------------------------------------------


def test_sidecar_gives_names_and_its_head_alone(photo_folder, beton):
    with Beton(beton) as read:
        whole, head = sidecar.read(read), sidecar.read(read, columns=False)
    assert whole.classes == head.classes == ["astronaut", "chelsea", "coffee", "rocket"]
    assert whole == head
    assert {"samples": 64, "passed_through": 64, "reencoded": {}, "unreadable": 0}.items() <= whole.counts.items()


def test_sidecar_of_other_data_is_not_used(tmp_path, caplog):
    image = np.zeros((4, 4, 3), np.uint8)
    for name, count in (("a", 1), ("b", 2)):
        with BetonWriter(tmp_path / f"{name}.beton", count) as writer:
            for label in range(count):
                writer.add(image, label)
            writer.sidecar = Sidecar(classes=[f"{name}{label}" for label in range(count)])
    shutil.copy(tmp_path / "b.beton.json", tmp_path / "a.beton.json")
    with Beton(tmp_path / "a.beton") as read:
        assert sidecar.read(read) is None
    assert "was written for other data" in caplog.text


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "other-9"}', '{"format": "fastaugself-sidecar-2", "x": 1}']
)
def test_unreadable_sidecar_is_reported_and_not_used(text, copy, caplog):
    sidecar.path_of(copy).write_text(text)
    with Beton(copy) as read:
        assert sidecar.read(read) is None
    assert "is ignored" in caplog.text


def test_info_tells_what_is_inside(beton):
    text = describe(facts(beton))
    assert "64 photos" in text
    assert "64 JPEG, 0 raw" in text
    assert "4 classes: astronaut, chelsea, coffee, rocket" in text


def test_layout_is_that_of_ffcv():
    if reason := ffcv_source.why_not():  # imports FFCV, and undoes what that does to torch
        pytest.skip(reason)
    from ffcv import fields, types

    assert (types.HeaderType, types.FieldDescType, types.ALLOC_TABLE_TYPE) == (HEADER, FIELD, ALLOCATION)
    assert types.get_metadata_type([fields.RGBImageField(), fields.IntField()]) == RECORD
    assert struct.calcsize("<HHIQQ") == HEADER.itemsize
