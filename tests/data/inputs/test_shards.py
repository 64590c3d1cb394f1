"""WebDataset archives: bytes, labels and names are kept, and unsafe or damaged archives are refused."""

import io
import json
import os
import tarfile
import time
import tracemalloc

import pytest
from stored import written

from fastaugself.data.inputs import open_samples
from fastaugself.data.inputs.convert import write_beton
from fastaugself.data.inputs.samples import Columns
from fastaugself.errors import RunError, UsageError


def add(archive, name, data, **attributes):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in attributes.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data))


def shard(path, members, format=tarfile.PAX_FORMAT):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in members:
            add(archive, name, data)
    return path


@pytest.fixture
def shards(photos, tmp_path):
    """Three shards of four photos, labelled by number in .cls files."""
    for k in range(3):
        members = []
        for i, (data, label, _) in enumerate(photos[4 * k : 4 * k + 4], 4 * k):
            members += [(f"{i:04d}.jpg", data), (f"{i:04d}.cls", str(label).encode()), (f"{i:04d}.txt", b"words")]
        shard(tmp_path / "shards" / f"train-{k:03d}.tar", members)
    return tmp_path / "shards"


@pytest.mark.parametrize(
    "source", ["", "/train-{000..002}.tar", "/train-*.tar", "/train-00{0,1}.tar", "/train-001.tar"]
)
def test_shards_come_in_order_however_they_are_named(source, shards, photos, tmp_path):
    data, labels, names, classes, result = written(f"{shards}{source}", tmp_path)
    chosen = {"/train-00{0,1}.tar": photos[:8], "/train-001.tar": photos[4:8]}.get(source, photos)
    assert data == [photo for photo, _, _ in chosen]
    assert labels == [label for _, label, _ in chosen]
    assert classes == []
    assert result.classes == len(set(labels))  # without names
    assert result.ignored == len(chosen)
    assert names[-1] == ("train-001.tar:0007.jpg" if len(chosen) < 12 else "train-002.tar:0011.jpg")


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_classes_folders_and_long_names_in_every_tar_format(format, photos, tmp_path):
    members = []
    for i, (data, _, name) in enumerate(photos):
        long = f"{'folder/' * 10}a{i:02d}" if format == tarfile.USTAR_FORMAT else f"{'folder/' * 40}ü{i:02d}"
        members += [(f"{long}.json", json.dumps({"cls": name, "x": 1}).encode()), (f"{long}.JPEG", data)]
    path = shard(tmp_path / "a.tar", [("notes", b"x"), ("._0.jpg", b"x"), *members], format)
    data, labels, names, classes, _ = written(path, tmp_path)
    assert data == [photo for photo, _, _ in photos]
    assert classes == ["astronaut", "chelsea", "coffee", "rocket"]
    assert labels == [label for _, label, _ in photos]
    assert names[3].startswith("a.tar:folder/folder/")


LABELS = {
    "none": ([None, None], {}, [-1, -1]),
    "number in json": (['{"label": 7}', "3"], {}, [7, 3]),
    "named key": (['{"y": 7, "label": 1}', '{"y": 2}'], {"label": "y"}, [7, 2]),
    "not wanted": (['{"label": 7}', "3"], {"label": "none"}, [-1, -1]),
    "some without": (['{"label": 7}', '{"caption": "words"}'], {}, [7, -1]),
}


@pytest.mark.parametrize("kind", ["cls", "json"])
def test_labels_may_start_with_a_byte_order_mark(kind, photos, tmp_path):
    text = {"cls": b"\xef\xbb\xbf7\r\n", "json": b'\xef\xbb\xbf{"label": 7}'}[kind]
    source = shard(tmp_path / "a.tar", [("0.jpg", photos[0][0]), (f"0.{kind}", text)])
    assert [sample.label for sample in open_samples(source).samples()] == [7]


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_json_are_optional(kind, photos, tmp_path):
    texts, columns, expected = LABELS[kind]
    members = []
    for i, text in enumerate(texts):
        members += [(f"{i}.jpg", photos[i][0])] + ([(f"{i}.json", text.encode())] if text else [])
    assert written(shard(tmp_path / "a.tar", members), tmp_path, **columns)[1] == expected


def listed(photos, *names):
    """Members of an archive: photos and labels in the order of these names; the label of a photo is its number."""
    numbers: dict[str, int] = {}
    members = []
    for name in names:
        stem, kind = os.path.splitext(name)
        number = numbers.setdefault(stem, len(numbers))
        members.append(
            (name, {".cls": b"%d" % number, ".json": b'{"label": %d}' % number}.get(kind, photos[number][0]))
        )
    return members


JOINED = {
    "labels after all photos": ("0.jpg 1.jpg 2.jpg 0.cls 1.cls 2.cls", {"0.jpg": 0, "1.jpg": 1, "2.jpg": 2}),
    "labels before all photos": ("0.cls 1.cls 2.cls 2.jpg 0.jpg 1.jpg", {"2.jpg": 2, "0.jpg": 0, "1.jpg": 1}),
    "json after all photos": ("0.jpg 1.jpg 1.json 0.json", {"0.jpg": 0, "1.jpg": 1}),
    "some beside, some after": ("0.jpg 0.cls 1.jpg 2.jpg 2.cls 1.cls", {"0.jpg": 0, "1.jpg": 1, "2.jpg": 2}),
    "other members between": ("0.jpg 0.txt 0.cls 1.npy 1.jpg 1.cls", {"0.jpg": 0, "1.jpg": 1}),
    "folders": ("a/0.jpg b/0.jpg b/0.cls a/0.cls", {"a/0.jpg": 0, "b/0.jpg": 1}),
    "second dots": ("0.jpg 1.edited.jpg 0.cls 1.edited.cls", {"0.jpg": 0, "1.edited.jpg": 1}),
    "second dots of both": ("0.jpg 0.cls 0.b.jpg 0.b.cls", {"0.jpg": 0, "0.b.jpg": 1}),
    "several of one label": ("0.cls 0.a.jpg 0.b.jpg", {"0.a.jpg": 0, "0.b.jpg": 0}),
    "dots in every name": ("I.20.1.jpg I.20.1.cls I.20.2.jpg I.20.2.cls", {"I.20.1.jpg": 0, "I.20.2.jpg": 1}),
    "without labels": ("0.a.jpg 0.b.jpg", {"0.a.jpg": -1, "0.b.jpg": -1}),
}


@pytest.mark.parametrize("kind", JOINED)
def test_labels_are_joined_by_name_wherever_they_stand(kind, photos, tmp_path):
    names, expected = JOINED[kind]
    found = open_samples(shard(tmp_path / "a.tar", listed(photos, *names.split())))
    assert {sample.name.removeprefix("a.tar:"): sample.label for sample in found.samples()} == expected
    assert [sample.name for sample in found.samples()] == [f"a.tar:{name}" for name in expected]
    assert open_samples(tmp_path / "a.tar", Columns(label="none")).count >= len(expected) - 1


@pytest.mark.parametrize("joined_by_cat", [False, True])
def test_labels_in_another_archive_than_their_photo_are_refused(joined_by_cat, photos, tmp_path):
    """Archives that each number their members from zero would get each other's labels."""
    parts = [
        shard(tmp_path / "parts" / "0.tar", listed(photos, "0.jpg", "1.jpg")),
        shard(tmp_path / "parts" / "1.tar", listed(photos, "0.cls", "1.cls")),
    ]
    if joined_by_cat:
        (tmp_path / "a.tar").write_bytes(b"".join(part.read_bytes() for part in parts))
    source = tmp_path / "a.tar" if joined_by_cat else parts[0].parent
    with pytest.raises(UsageError, match=r"\.cls is a label without a photo, and .*\.jpg in another archive .*none"):
        open_samples(source)
    assert [sample.label for sample in open_samples(source, Columns(label="none")).samples()] == [-1, -1]


def test_images_of_another_photo_and_labels_without_one_are_counted(photos, tmp_path, caplog):
    caplog.set_level("INFO", "fastaugself")
    members = listed(photos, "0.jpg", "0.seg.png", "0.cls", "1.jpg", "1.cls", "2.heic", "2.cls", "0.meta.json")
    result = written(shard(tmp_path / "a.tar", members), tmp_path)[-1]
    assert (result.samples, result.ignored) == (2, 2)
    assert "2 other files ignored" in str(result)
    assert "left out 1 images that belong to another photo, such as 0.seg.png" in caplog.text
    assert "2 labels have no photo of their name, such as" in caplog.text
    assert "a.tar: 2.cls" in caplog.text
    assert "1 members are neither photos nor labels; it has 1 .heic" in caplog.text


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG", "PNG", "WEBP"])
def test_shards_take_every_kind_of_photo_that_folders_take(format, photos, tmp_path):
    from PIL import Image

    if format == "AVIF" and "AVIF" not in Image.registered_extensions().values():
        pytest.skip("this Pillow has no AVIF")
    kinds = {"JPEG": ("jpg", "JPEG", "jpe", "jfif"), "TIFF": ("tif", "tiff", "TIF"), "PPM": ("ppm", "pgm")}
    image = Image.open(io.BytesIO(photos[0][0]))
    for kind in kinds.get(format, (format.lower(),)):
        stream = io.BytesIO()
        image.save(stream, format)
        source = shard(tmp_path / f"{kind}.tar", [(f"0.{kind}", stream.getvalue()), ("0.cls", b"7")])
        assert written(source, tmp_path)[1] == [7], kind
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"0.{kind}").write_bytes(stream.getvalue())
        assert open_samples(tmp_path / kind).count == 1, kind


@pytest.mark.parametrize("padding", [0, 512, 1024, 1 << 21])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_joined_by_cat_are_read_to_their_end(padding, format, photos, tmp_path):
    whole = b""
    for k in range(3):  # every archive numbers its members from zero
        members = [m for i in range(2) for m in ((f"{i}.jpg", photos[2 * k + i][0]), (f"{i}.cls", b"%d" % (2 * k + i)))]
        whole += shard(tmp_path / "part", members, format).read_bytes() + bytes(padding)
    (tmp_path / "a.tar").write_bytes(whole)
    data, labels, *_ = written(tmp_path / "a.tar", tmp_path)
    assert data == [photo for photo, _, _ in photos[:6]]
    assert labels == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("tail", [b"x", b"words" * 900, bytes(511) + b"x", bytes(1 << 20) + b"x" * 600])
def test_other_bytes_after_the_end_of_an_archive_are_refused(tail, photos, tmp_path):
    whole = shard(tmp_path / "a.tar", listed(photos, "0.jpg", "0.cls")).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole + tail)
    with pytest.raises(RunError, match=r"a\.tar (is damaged: at byte \d+|: member|claims)"):
        open_samples(tmp_path / "a.tar")


@pytest.mark.parametrize(("column", "label"), [("", 5), ("y", 7)])
def test_of_two_labels_of_a_photo_the_one_asked_for_counts(column, label, photos, tmp_path):
    for order in (1, -1):
        labels = [("0.cls", b"5"), ("0.json", b'{"label": 6, "y": 7}')][::order]
        source = shard(tmp_path / "a.tar", [("0.jpg", photos[0][0]), *labels])
        assert [s.label for s in open_samples(source, Columns(label=column)).samples()] == [label]
    source = shard(tmp_path / "a.tar", [("0.jpg", photos[0][0]), ("0.cls", b"5"), ("0.cls", b"6")])
    with pytest.raises(UsageError, match=r"0\.cls is 5, but .*0\.cls is 6, for one photo"):
        open_samples(source)
    twice = [("0.jpg", b""), ("1.jpg", b""), ("0.jpg", b""), ("2.jpg", b""), ("0.cls", b"1")]
    with pytest.raises(UsageError, match=r"0\.cls could be the label of several photos named .*0\.jpg"):
        open_samples(shard(tmp_path / "a.tar", twice))


JPG = ("0.jpg", b"photo")
UNUSABLE = {
    "no photos": ([("0.txt", b"words")], {}, UsageError, "holds no photos: expected members such as"),
    "two photos": ([JPG, ("0.png", b"x")], {}, UsageError, "0.jpg and 0.png are two photos of one sample"),
    "label of two kinds": (
        [JPG, ("0.cls", b"1"), ("1.jpg", b""), ("1.cls", b"cat")],
        {},
        UsageError,
        "some labels are",
    ),
    "label a list": ([JPG, ("0.json", b"[1]")], {}, UsageError, r"label is '\[1\]', expected a whole number or a name"),
    "label true": ([JPG, ("0.json", b"true")], {}, UsageError, "the label is 'True'"),
    "negative label": ([JPG, ("0.cls", b"-5")], {}, UsageError, "label -5, expected numbers from 0"),
    "no such key": ([JPG, ("0.json", b'{"a": 1}')], {"label": "y"}, UsageError, "has no 'y', only 'a': pass another"),
    "json cut": ([JPG, ("0.json", b'{"label": ')], {}, RunError, "0.json is not a label"),
    "json nested": ([JPG, ("0.json", b"[" * 100_000)], {}, RunError, "0.json is not a label"),
    "no text": ([JPG, ("0.cls", b"\xff\xfe")], {}, RunError, "0.cls is not a label"),
    "huge label": ([JPG, ("0.cls", bytes(1 << 21))], {}, RunError, "expected a label of at most"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_unusable_shards_say_why(kind, tmp_path):
    members, columns, error, message = UNUSABLE[kind]
    with pytest.raises(error, match=message):
        open_samples(shard(tmp_path / "a.tar", members), Columns(**columns))


def with_member(name="0.jpg", **attributes):
    def make(path):
        with tarfile.open(path, "w") as archive:
            add(archive, name, b"", **attributes)

    return make


def with_size(digits):
    """A member whose header states a wrong size, with a valid header checksum."""

    def make(path):
        data = bytearray(shard(path, [JPG, ("1.jpg", b"photo")], tarfile.USTAR_FORMAT).read_bytes())
        data[124:136] = digits
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
        path.write_bytes(data)

    return make


def with_extended_header(size):
    def make(path):
        with tarfile.open(path, "w") as archive:
            add(archive, "x", b"", type=tarfile.XHDTYPE)
            add(archive, "0.jpg", b"")
        data = bytearray(path.read_bytes())
        data[124:136] = size
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
        path.write_bytes(data)

    return make


def cut(size):
    def make(path):
        path.write_bytes(shard(path, [JPG, ("1.jpg", b"photo")]).read_bytes()[:size])

    return make


def with_damaged_header(path):
    data = bytearray(shard(path, [JPG, ("1.jpg", b"photo")]).read_bytes())
    data[1024] ^= 255
    path.write_bytes(data)


HOSTILE = {
    "out by dots": (with_member("../../0.jpg"), r"member '../../0.jpg' points outside the archive"),
    "out inside": (with_member("a/../../0.jpg"), "points outside the archive"),
    "absolute": (with_member("/etc/0.jpg"), "member '/etc/0.jpg' points outside the archive"),
    "backslashes": (with_member("..\\..\\0.jpg"), "points outside the archive"),
    "drive": (with_member("C:\\0.jpg"), "points outside the archive"),
    "symbolic link": (with_member(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a symbolic link"),
    "hard link": (with_member(type=tarfile.LNKTYPE, linkname="/etc/passwd"), "is a hard link"),
    "device": (with_member(type=tarfile.CHRTYPE), "is a device"),
    "pipe": (with_member(type=tarfile.FIFOTYPE), "is a pipe"),
    "sparse": (with_member(type=tarfile.GNUTYPE_SPARSE), "not a regular file"),
    "8 GB in 10 kB": (
        with_size(b"77777777777\0"),
        "claims 8589934591 bytes at byte 512, but the file has 10240",
    ),
    "exabytes": (with_size(b"\x80\0\0\0\x7f" + bytes(7)), "claims 9151314442816847872 bytes"),
    "negative size": (with_size(b"\xff" * 12), "claims -1 bytes|not a complete tar"),
    "header of 8 GB": (with_extended_header(b"77777777777\0"), "claims a header of 8589934592 bytes"),
    "negative header": (
        with_extended_header(b"\xff" * 10 + b"\0\0"),
        "claims a header of -65536 bytes",
    ),
    "cut in a member": (cut(514), "claims 5 bytes at byte 512"),
    "cut in a header": (cut(1500), "unexpected end of data|there is neither a member nor the end"),
    "damaged header": (with_damaged_header, "at byte 1024 there is neither a member nor the end of the archive"),
    "no archive": (lambda path: path.write_bytes(b"words" * 500), "is not a complete tar archive"),
    "empty": (lambda path: path.write_bytes(b""), "is not a complete tar archive: empty file"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_archives_that_reach_out_or_promise_too_much_are_refused_at_once(kind, tmp_path):
    make, message = HOSTILE[kind]
    make(tmp_path / "a.tar")
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(RunError, match=message) as caught:
            open_samples(tmp_path / "a.tar")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(tmp_path / "a.tar") in str(caught.value)
    assert peak < 20e6
    assert time.monotonic() - began < 5
    assert os.listdir(tmp_path) == ["a.tar"]


def test_a_photo_that_promises_more_pixels_than_anyone_has_is_refused(tmp_path):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    source = shard(tmp_path / "a.tar", [("0.png", png)])
    tracemalloc.start()
    try:
        with pytest.raises(RunError, match=r"a\.tar: 0\.png .*(10000000000 pixels|100000 x 100000)"):
            write_beton(source, tmp_path / "out.beton", progress=False)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_a_compressed_archive_and_other_files_name_the_remedy(tmp_path):
    for name, message in [
        ("a.tar.gz", "is compressed.*decompress it to a .tar first"),
        ("a.zip", "is a zip archive: unpack it first"),
        ("a.jpg", "is a single photo"),
        ("a.bin", "unknown kind of collection; pass a folder of photos"),
    ]:
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(UsageError, match=message):
            open_samples(tmp_path / name)


def test_missing_shards_splits_and_mixtures_are_refused(shards, photos, tmp_path):
    with pytest.raises(UsageError, match=r"train-003.tar is missing"):
        open_samples(f"{shards}/train-{{000..003}}.tar")
    with pytest.raises(UsageError, match="no file matches this pattern"):
        open_samples(f"{shards}/val-*.tar")
    shard(shards / "val-000.tar", [("0.jpg", photos[0][0])])
    with pytest.raises(
        UsageError, match=r"holds splits \(train, val\): pass one of them as a pattern, such as '.*-\*.tar"
    ):
        open_samples(shards)
    (shards / "val-000.tar").unlink()
    (shards / "a").mkdir()
    with pytest.raises(UsageError, match=r"next to a, so the source is ambiguous"):
        open_samples(shards)
