"""Collections of every kind come in with the same bytes, labels and names; what they should not hold is refused."""

import io
import json
import os
import re
import sys
import tarfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fastaugself.data import manifest, sidecar
from fastaugself.data.beton import Beton
from fastaugself.data.inputs import open_samples
from fastaugself.data.inputs.patterns import expand_braces
from fastaugself.data.inputs.samples import Columns
from fastaugself.data.write import write_photos
from fastaugself.errors import RunError, UsageError


@pytest.fixture(scope="module")
def photos(photo_folder):
    """12 JPEGs, three of each of four classes: (bytes, number of the class, its name)."""
    folders = sorted(photo_folder.iterdir())
    found = [
        (path.read_bytes(), i, folder.name) for i, folder in enumerate(folders) for path in sorted(folder.iterdir())
    ]
    return found[::5][:12]


def written(source, tmp_path, **columns):
    """What is stored of a source: bytes, labels, source names, class names."""
    out = tmp_path / "out.beton"
    result = write_photos(source, out, progress=False, overwrite=True, columns=Columns(**columns))
    with Beton(out) as beton:
        names = [manifest.source_name(beton, i) for i in range(len(beton))]
        described = sidecar.read(beton)
        return [beton.read(i) for i in range(len(beton))], beton.labels_N.tolist(), names, described.classes, result


# --- WebDataset -------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_json_are_optional(kind, photos, tmp_path):
    texts, columns, expected = LABELS[kind]
    members = []
    for i, text in enumerate(texts):
        members += [(f"{i}.jpg", photos[i][0])] + ([(f"{i}.json", text.encode())] if text else [])
    assert written(shard(tmp_path / "a.tar", members), tmp_path, **columns)[1] == expected


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
    """A member whose header says it has another size, with the checksum of a right header."""

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
    "out by dots": (with_member("../../0.jpg"), r"member '../../0.jpg' leads out of the archive"),
    "out inside": (with_member("a/../../0.jpg"), "leads out of the archive"),
    "absolute": (with_member("/etc/0.jpg"), "member '/etc/0.jpg' leads out of the archive"),
    "backslashes": (with_member("..\\..\\0.jpg"), "leads out of the archive"),
    "drive": (with_member("C:\\0.jpg"), "leads out of the archive"),
    "symbolic link": (with_member(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a symbolic link"),
    "hard link": (with_member(type=tarfile.LNKTYPE, linkname="/etc/passwd"), "is a hard link"),
    "device": (with_member(type=tarfile.CHRTYPE), "is a device"),
    "pipe": (with_member(type=tarfile.FIFOTYPE), "is a pipe"),
    "sparse": (with_member(type=tarfile.GNUTYPE_SPARSE), "no ordinary file"),
    "8 GB in 10 kB": (
        with_size(b"77777777777\0"),
        "is said to be 8589934591 bytes at byte 512, but the file has 10240",
    ),
    "exabytes": (with_size(b"\x80\0\0\0\x7f" + bytes(7)), "is said to be 9151314442816847872 bytes"),
    "negative size": (with_size(b"\xff" * 12), "is said to be -1 bytes|not a whole tar"),
    "header of 8 GB": (with_extended_header(b"77777777777\0"), "has a header that is said to be 8589934592 bytes"),
    "negative header": (
        with_extended_header(b"\xff" * 10 + b"\0\0"),
        "has a header that is said to be -65536 bytes",
    ),
    "cut in a member": (cut(514), "is said to be 5 bytes at byte 512"),
    "cut in a header": (cut(1500), "unexpected end of data|stands neither a member nor the end"),
    "damaged header": (with_damaged_header, "at byte 1024 stands neither a member nor the end of the archive"),
    "no archive": (lambda path: path.write_bytes(b"words" * 500), "is not a whole tar archive"),
    "empty": (lambda path: path.write_bytes(b""), "is not a whole tar archive: empty file"),
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
            write_photos(source, tmp_path / "out.beton", progress=False)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_a_compressed_archive_and_other_files_name_the_remedy(tmp_path):
    for name, message in [
        ("a.tar.gz", "is compressed.*decompress it to a .tar first"),
        ("a.zip", "is a zip archive: unpack it first"),
        ("a.jpg", "is one photo"),
        ("a.bin", "not a kind of collection that is known; pass a folder of photos"),
    ]:
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(UsageError, match=message):
            open_samples(tmp_path / name)


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(photos):
    """The photos as Hugging Face has them: {bytes, path} with the names of the classes in the schema."""
    pa = pytest.importorskip("pyarrow")
    features = {
        "image": {"_type": "Image"},
        "label": {"names": ["astronaut", "chelsea", "coffee", "rocket"], "_type": "ClassLabel"},
    }
    images = pa.array(
        [{"bytes": data, "path": f"{i}.jpg"} for i, (data, _, _) in enumerate(photos)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    made = pa.table({"image": images, "label": pa.array([label for _, label, _ in photos], pa.int64())})
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def save(table, path, **options):
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, **options)
    return path


def arrow(table, path):
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return path


@pytest.mark.parametrize("kind", ["parquet", "arrow", "shards of a hub repository", "small row groups"])
def test_tables_of_hugging_face_bring_their_class_names(kind, table, photos, tmp_path):
    if kind == "parquet":
        source = save(table, tmp_path / "train.parquet")
    elif kind == "arrow":
        source = arrow(table, tmp_path / "set" / "data-00000-of-00001.arrow").parent
    elif kind == "small row groups":
        source = save(table, tmp_path / "train.parquet", row_group_size=5)
    else:
        source = tmp_path / "repository"
        for i in range(2):
            save(table.slice(6 * i, 6), source / "data" / f"train-{i:05d}-of-00002.parquet")
    data, labels, names, classes, _ = written(source, tmp_path)
    assert data == [photo for photo, _, _ in photos]
    assert labels == [label for _, label, _ in photos]
    assert classes == ["astronaut", "chelsea", "coffee", "rocket"]
    assert names[-1] == {"shards of a hub repository": "train-00001-of-00002.parquet:5"}.get(kind, names[-1])
    assert names[-1].endswith(":5" if "hub" in kind else ":11")


@pytest.mark.parametrize("start", [0, 1, 5, 6, 11, 12])
def test_tables_go_on_from_any_row(start, table, photos, tmp_path):
    for i in range(2):
        save(table.slice(6 * i, 6), tmp_path / f"{i}.parquet", row_group_size=4)
    found = list(open_samples(tmp_path).samples(start))
    assert [sample.read() for sample in found] == [data for data, _, _ in photos[start:]]
    assert [sample.label for sample in found] == [label for _, label, _ in photos[start:]]


def test_plain_binary_columns_and_labels_by_name(table, photos, tmp_path):
    import pyarrow as pa

    plain = pa.table(
        {
            "id": list(range(12)),
            "jpg": pa.array([data for data, _, _ in photos], pa.large_binary()),
            "what": [name for _, _, name in photos],
        }
    )
    source = save(plain, tmp_path / "a.parquet")
    assert written(source, tmp_path)[1] == [-1] * 12
    data, labels, _, classes, _ = written(source, tmp_path, label="what")
    assert data == [photo for photo, _, _ in photos]
    assert (labels, classes) == ([label for _, label, _ in photos], ["astronaut", "chelsea", "coffee", "rocket"])
    with pytest.raises(
        UsageError, match=r"no photos in a column 'x'; pass --image-column jpg; its columns are id \(int"
    ):
        open_samples(source, Columns(image="x"))
    with pytest.raises(UsageError, match="no labels in a column 'jpg'; pass --label-column id or what"):
        open_samples(source, Columns(label="jpg"))


def test_several_columns_that_could_be_it_are_named(table, tmp_path):
    two = table.append_column("second", table.column("image")).replace_schema_metadata(None)
    two = two.append_column("labels", table.column("label"))
    source = save(two, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="several columns hold photos; pass --image-column image or second"):
        open_samples(source)
    with pytest.raises(UsageError, match="several columns hold labels; pass --label-column label or labels or none"):
        open_samples(source, Columns(image="second"))
    assert open_samples(source, Columns("second", "none")).classes == []
    with pytest.raises(UsageError, match="no column holds photos; its columns are label"):
        open_samples(save(table.select(["label"]), tmp_path / "b.parquet"))


def test_a_row_without_bytes_is_not_followed_elsewhere(table, tmp_path):
    import pyarrow as pa

    (tmp_path / "secret.jpg").write_bytes(table.column("image")[0]["bytes"].as_py())
    rows = [{"bytes": None, "path": str(tmp_path / "secret.jpg")}, table.column("image")[1].as_py(), None]
    source = save(pa.table({"image": pa.array(rows, table.schema.field("image").type)}), tmp_path / "a.parquet")
    with pytest.raises(RunError, match="row 0 holds no bytes of a photo"):
        write_photos(source, tmp_path / "out.beton", progress=False)
    result = write_photos(source, tmp_path / "out.beton", progress=False, skip_unreadable=True)
    assert (result.samples, result.unreadable) == (1, 2)


def test_damaged_tables_are_named(table, tmp_path):
    whole = save(table, tmp_path / "a.parquet", compression="none").read_bytes()
    streamed = arrow(table, tmp_path / "a.arrow").read_bytes()
    damaged = {
        "a.parquet": [b"", b"words" * 9, whole[:-20], whole[:20] + whole[-2000:]],
        "a.arrow": [b"words" * 9, streamed[: len(streamed) // 2]],
    }
    for name, versions in damaged.items():
        for data in versions:
            (tmp_path / name).write_bytes(data)
            with pytest.raises(RunError, match=rf"{name} is (not a table that can be read|damaged)"):
                for sample in open_samples(tmp_path / name).samples():
                    sample.read()


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_no_changed_byte_of_a_table_does_more_than_refuse_it(kind, table, tmp_path):
    """300 changes of a byte where tables say how they are read; no crash of pyarrow, no other kind of exception."""
    path = tmp_path / f"a.{kind}"
    whole = (save if kind == "parquet" else arrow)(table, path).read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        at = int(random.integers(0, 900)) if kind == "arrow" else -1 - int(random.integers(0, 1500))
        data[at] = random.integers(0, 256)
        path.write_bytes(data)
        try:
            for sample in open_samples(path).samples():
                sample.read()
        except (UsageError, RunError):
            refused += 1
    assert refused > 30


def test_a_table_with_checksums_is_held_to_them(table, tmp_path):
    source = save(table, tmp_path / "a.parquet", compression="none", write_page_checksum=True)
    data = bytearray(source.read_bytes())
    data[len(data) // 3] ^= 1
    source.write_bytes(data)
    with pytest.raises(RunError, match=r"a\.parquet is not a table that can be read: .*CRC"):
        write_photos(source, tmp_path / "out.beton", progress=False)


def test_a_label_beyond_the_names_is_refused(table, tmp_path):
    few = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["a"], "_type": "ClassLabel"}}}}
    source = save(table.replace_schema_metadata({"huggingface": json.dumps(few)}), tmp_path / "a.parquet")
    with pytest.raises(RunError, match="label 3 in column 'label', but only 1 names"):
        open_samples(source)


def test_without_pyarrow_the_remedy_is_named(table, tmp_path, monkeypatch):
    source = save(table, tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"needs pyarrow.*pip install pyarrow"):
        open_samples(source)


# --- lists ------------------------------------------------------------------------------------------------------------

LISTS = {
    "paths": ("{}\n", None),
    "windows": ("{}\r\n", None),
    "tab and number": ("{}\t{label}\n", "number"),
    "tab and name": ("{}\t{name}\n", "name"),
    "space and number": ("{} {label}\n", "number"),
    "blank lines": ("\n{}\n\n", None),
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_name_photos_with_or_without_labels(kind, photo_folder, photos, tmp_path):
    form, labelled = LISTS[kind]
    chosen = sorted(photo_folder.rglob("*.jpg"))[::5][:12]
    folder = tmp_path / "with space"
    folder.mkdir()
    text = "\ufeff" if kind == "windows" else ""
    for path, (_, label, name) in zip(chosen, photos, strict=True):
        (folder / f"{name} {path.name}").write_bytes(path.read_bytes())
        text += form.format(f"with space/{name} {path.name}", label=label, name=name)
    (tmp_path / "list.txt").write_text(text, newline="")
    data, labels, names, classes, _ = written(tmp_path / "list.txt", tmp_path)
    assert data == [photo for photo, _, _ in photos]
    assert labels == ([label for _, label, _ in photos] if labelled else [-1] * 12)
    assert classes == (["astronaut", "chelsea", "coffee", "rocket"] if labelled == "name" else [])
    assert names[0] == "with space/astronaut 00.jpg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty: expected a list of paths"),
        (b"a.jpg\nnone.jpg\n", r"list.txt, line 2: .*none\.jpg: No such file"),
        (b"a.jpg\t1\nb.jpg\n", "line 2: expected a path, one tab and a label"),
        (b"a.jpg\0", "is no text"),
        (b"a.jpg\t-7\n", "label -7, expected numbers from 0"),
    ],
)
def test_lists_that_cannot_be_meant_are_refused_by_line(text, message, photos, tmp_path):
    (tmp_path / "a.jpg").write_bytes(photos[0][0])
    (tmp_path / "list.txt").write_bytes(text)
    with pytest.raises(UsageError, match=message):
        open_samples(tmp_path / "list.txt")


# --- several files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("{a}.tar", ["{a}.tar"]),
        ("plain", ["plain"]),
    ],
)
def test_braces_mean_what_they_mean_in_a_shell(pattern, names):
    assert expand_braces(pattern) == names


@pytest.mark.parametrize("pattern", ["{0..99999999}", "{5..1}", "{0..999}{0..999}{0..999}", "{1.." + "9" * 5000 + "}"])
def test_patterns_of_too_many_files_are_refused(pattern):
    with pytest.raises(UsageError, match=r"stands for \d+ files|does not count up"):
        expand_braces(pattern)


def test_missing_shards_splits_and_mixtures_are_refused(shards, photos, tmp_path):
    with pytest.raises(UsageError, match=r"train-003.tar is missing"):
        open_samples(f"{shards}/train-{{000..003}}.tar")
    with pytest.raises(UsageError, match="no file fits this pattern"):
        open_samples(f"{shards}/val-*.tar")
    shard(shards / "val-000.tar", [("0.jpg", photos[0][0])])
    with pytest.raises(
        UsageError, match=r"holds splits \(train, val\): pass one of them as a pattern, such as '.*-\*.tar"
    ):
        open_samples(shards)
    (shards / "val-000.tar").unlink()
    (shards / "a").mkdir()
    with pytest.raises(UsageError, match=r"beside a, so what is meant is ambiguous"):
        open_samples(shards)


def test_a_new_kind_needs_samples_alone(tmp_path):
    """Pixels as they are, from a collection that is no file at all."""
    from functools import partial

    from fastaugself.data import inputs
    from fastaugself.data.inputs import _KINDS, samples

    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 3), np.uint8)

    class Random(samples.Samples):
        source, count, classes, fingerprint = "random", 5, ["a"], "0"

        def samples(self, start=0):
            for i in range(start, 5):
                yield samples.Sample(f"{i}", 0, f"random {i}", partial(np.copy, pixels[i]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "_KINDS", (lambda source, columns: Random() if source == "random" else None, *_KINDS))
        data, labels, names, classes, _ = written("random", tmp_path)
    assert data == [image.tobytes() for image in pixels]
    assert (labels, names, classes) == ([0] * 5, list("01234"), ["a"])


def test_the_options_in_the_documentation_are_real(capsys):
    from fastaugself import cli

    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        cli.main(["write", "--help"])
    known = capsys.readouterr().out
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--data"}  # of training
    assert len(named) >= 5
    assert [option for option in named if option not in known] == []
