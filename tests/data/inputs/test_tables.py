"""Tables of photos: bytes, labels and names are kept, and damaged or ambiguous tables are refused."""

import json
import sys

import numpy as np
import pytest
from stored import written

from fastaugself.data.inputs import open_samples
from fastaugself.data.inputs.convert import write_beton
from fastaugself.data.inputs.samples import Columns
from fastaugself.errors import RunError, UsageError


@pytest.fixture
def table(photos):
    """The photos in Hugging Face's format: {bytes, path}, with the class names in the schema."""
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


def arrow(table, path, *, footer=False, compression=None):
    """A stream as of save_to_disk; footer: an IPC file, which Feather is too."""
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    new, options = pa.ipc.new_file if footer else pa.ipc.new_stream, pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=5)
    return path


@pytest.mark.parametrize(
    "kind", ["parquet", "arrow", "file", "lz4", "feather", "shards of a hub repository", "small row groups"]
)
def test_tables_of_hugging_face_bring_their_class_names(kind, table, photos, tmp_path):
    if kind == "parquet":
        source = save(table, tmp_path / "train.parquet")
    elif kind == "arrow":
        source = arrow(table, tmp_path / "set" / "data-00000-of-00001.arrow").parent
    elif kind in ("file", "lz4"):
        source = arrow(table, tmp_path / "a.arrow", footer=True, compression="lz4" if kind == "lz4" else None)
    elif kind == "feather":
        source = tmp_path / "a.feather"
        pytest.importorskip("pyarrow.feather").write_feather(table, str(source))
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
def test_tables_resume_at_any_row(start, table, photos, tmp_path):
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
        UsageError, match=r"no column 'x' with photos; pass --image-column jpg to `.*`; its columns are id \(int"
    ):
        open_samples(source, Columns(image="x"))
    with pytest.raises(UsageError, match="no column 'jpg' with labels; pass --label-column id or what"):
        open_samples(source, Columns(label="jpg"))


def test_ambiguous_columns_are_named(table, tmp_path):
    two = table.append_column("second", table.column("image")).replace_schema_metadata(None)
    two = two.append_column("labels", table.column("label"))
    source = save(two, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="several columns hold photos; pass --image-column image or second"):
        open_samples(source)
    with pytest.raises(UsageError, match="several columns hold labels; pass --label-column label or labels or none"):
        open_samples(source, Columns(image="second"))
    assert open_samples(source, Columns("second", "none")).classes == []
    with pytest.raises(UsageError, match=r"no column holds photos; .*of bytes.*; its columns are label"):
        open_samples(save(table.select(["label"]), tmp_path / "b.parquet"))


def test_a_row_without_bytes_is_not_followed_elsewhere(table, tmp_path):
    import pyarrow as pa

    (tmp_path / "secret.jpg").write_bytes(table.column("image")[0]["bytes"].as_py())
    rows = [{"bytes": None, "path": str(tmp_path / "secret.jpg")}, table.column("image")[1].as_py(), None]
    source = save(pa.table({"image": pa.array(rows, table.schema.field("image").type)}), tmp_path / "a.parquet")
    with pytest.raises(RunError, match="row 0 has no photo data"):
        write_beton(source, tmp_path / "out.beton", progress=False)
    result = write_beton(source, tmp_path / "out.beton", progress=False, skip_unreadable=True)
    assert (result.samples, result.unreadable) == (1, 2)


def test_damaged_tables_are_named(table, tmp_path):
    whole = save(table, tmp_path / "a.parquet", compression="none").read_bytes()
    streamed = arrow(table, tmp_path / "a.arrow").read_bytes()
    footed = arrow(table, tmp_path / "a.arrow", footer=True).read_bytes()
    damaged = {
        "a.parquet": [b"", b"words" * 9, whole[:-20], whole[:20] + whole[-2000:]],
        "a.arrow": [b"words" * 9, streamed[: len(streamed) // 2], footed[: len(footed) // 2], b"ARROW1", b""],
    }
    for name, versions in damaged.items():
        for data in versions:
            (tmp_path / name).write_bytes(data)
            with pytest.raises(RunError, match=rf"{name} is (not a readable table|damaged)"):
                for sample in open_samples(tmp_path / name).samples():
                    sample.read()


def test_a_feather_file_of_version_1_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.feather").write_bytes(b"FEA1" + bytes(40))
    with pytest.raises(
        UsageError, match=r"a\.feather is a Feather file of version 1: write it as version 2 with pyarrow"
    ):
        open_samples(tmp_path / "a.feather")


@pytest.mark.parametrize("kind", ["parquet", "arrow", "file"])
def test_no_changed_byte_of_a_table_does_more_than_refuse_it(kind, table, tmp_path):
    """300 changed bytes in the metadata of tables: pyarrow never crashes, and no other exception occurs."""
    path = tmp_path / ("a.parquet" if kind == "parquet" else "a.arrow")
    whole = (save(table, path) if kind == "parquet" else arrow(table, path, footer=kind == "file")).read_bytes()
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


def test_checksums_of_a_table_are_verified(table, tmp_path):
    source = save(table, tmp_path / "a.parquet", compression="none", write_page_checksum=True)
    data = bytearray(source.read_bytes())
    data[len(data) // 3] ^= 1
    source.write_bytes(data)
    with pytest.raises(RunError, match=r"a\.parquet is not a readable table: .*CRC"):
        write_beton(source, tmp_path / "out.beton", progress=False)


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


def label_kinds():
    """Label columns of three rows (two photos of a, one of b, or without), and the labels and classes expected."""
    pa = pytest.importorskip("pyarrow")
    names = ["a", "a", "b"]
    return {
        "bool": (pa.array([False, False, True]), [0, 0, 1], []),
        "float": (pa.array([0.0, 0.0, 7.0]), [0, 0, 7], []),
        "half": (pa.array(np.array([0, 0, 7], np.float16)), [0, 0, 7], []),
        "float of pandas, one missing": (pa.array([0.0, float("nan"), 7.0]), [0, -1, 7], []),
        "decimal": (pa.array([0, 0, 7], pa.decimal128(9, 2)), [0, 0, 7], []),
        "unsigned": (pa.array([0, 0, 7], pa.uint64()), [0, 0, 7], []),
        "categories": (pa.array(names).dictionary_encode(), [0, 0, 1], ["a", "b"]),
        "categories of numbers": (pa.array([5, 5, 3]).dictionary_encode(), [5, 5, 3], []),
        "large string": (pa.array(names, pa.large_string()), [0, 0, 1], ["a", "b"]),
        "string view": (pa.array(names, pa.string_view()), [0, 0, 1], ["a", "b"]),
        "one-element lists": (pa.array([[0], [0], [7]]), [0, 0, 7], []),
        "lists of fixed size": (pa.array([["a"], ["a"], ["b"]], pa.list_(pa.string(), 1)), [0, 0, 1], ["a", "b"]),
        "empty name": (pa.array(["a", "", "b"]), [0, -1, 1], ["a", "b"]),
        "nothing": (pa.nulls(3), [-1, -1, -1], []),
    }  # fmt: skip


def images(table, rows=3):
    return table.select(["image"]).slice(0, rows).replace_schema_metadata(None)


@pytest.mark.parametrize("name", ["label", "labels", "species"])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_labels_of_any_type_are_read_by_their_values(form, name, table, tmp_path, caplog):
    for kind, (column, labels, classes) in label_kinds().items():
        made = images(table).append_column(name, column)
        source = (save if form == "parquet" else arrow)(made, tmp_path / f"a.{form}")
        caplog.clear()
        found = open_samples(source, Columns(label=name if name == "species" else ""))
        assert ([sample.label for sample in found.samples()], found.classes) == (labels, classes), kind
        missing = labels.count(-1)
        told = "has no values" in caplog.text if missing == 3 else "1 of 3 photos have no label" in caplog.text
        assert told == bool(missing), kind


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.0, 0.5, 1.0], r"0\.5"),
        ([0.0, float("inf"), 1.0], "inf"),
        ([[1], [1, 2], [3]], r"\[1, 2\]"),
        ([[1], [], [3]], r"\[\]"),
        ([{"id": 3}] * 3, "'id': 3"),
    ],
)
def test_values_that_are_no_label_are_refused_and_the_remedy_works(values, shown, table, tmp_path):
    import pyarrow as pa

    made = images(table).append_column("label", pa.array(values)).append_column("id", pa.array([3, 4, 5]))
    source = save(made, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=rf"a\.parquet: row [01], column 'label' is .*{shown}.*--label-column none"):
        open_samples(source)
    assert [sample.label for sample in open_samples(source, Columns(label="none")).samples()] == [-1] * 3
    assert [sample.label for sample in open_samples(source, Columns(label="id")).samples()] == [3, 4, 5]


def named(table, names, column="label"):
    features = {"image": {"_type": "Image"}, column: {"_type": "ClassLabel", "names": names}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def test_files_whose_class_names_differ_are_refused_whatever_their_order(table, tmp_path):
    names = ["astronaut", "chelsea", "coffee", "rocket"]
    for other, what in [
        (["chelsea", "astronaut", "coffee", "rocket"], "class 0 is"),
        ([*names, "x"], "[45] and [45] classes"),
    ]:
        for order in (0, 1):
            save(named(table, names), tmp_path / f"{order}.parquet")
            save(named(table, other), tmp_path / f"{1 - order}.parquet")
            with pytest.raises(UsageError, match=rf"0\.parquet and .*1\.parquet disagree .*{what}"):
                open_samples(tmp_path)
            assert open_samples(tmp_path, Columns(label="none")).count == 24
    save(table.replace_schema_metadata(None), tmp_path / "1.parquet")
    save(named(table, names), tmp_path / "0.parquet")
    save(named(table, names), tmp_path / "2.parquet")
    assert open_samples(tmp_path).classes == names  # files without names are silent about them, as .beton files are


@pytest.mark.parametrize("order", [0, 1])
def test_a_file_with_other_columns_is_named_whatever_its_position(order, table, tmp_path):
    import pyarrow as pa

    first, second = tmp_path / f"{order}.parquet", tmp_path / f"{1 - order}.parquet"
    save(table, first)
    paths = pa.array([f"{i}.jpg" for i in range(12)])
    save(table.set_column(0, "image", paths), second)
    with pytest.raises(
        UsageError, match=rf"{second.name}: no column holds photos, unlike .*{first.name}; .*image \(str"
    ):
        open_samples(tmp_path)
    with pytest.raises(UsageError, match=rf"{second.name}: no column 'image' with photos"):
        open_samples(tmp_path, Columns(image="image"))
    save(table.select(["image"]), second)
    with pytest.raises(UsageError, match=rf"{second.name} has no column 'label', unlike .*{first.name}; .*column none"):
        open_samples(tmp_path)
    assert open_samples(tmp_path, Columns(label="none")).count == 24
    renamed = table.rename_columns(["image", "labels"]).append_column("label", table.column("label"))
    save(named(renamed, ["a", "b", "c", "d"], "labels"), second)
    with pytest.raises(
        UsageError, match=r"the labels are in column 'labels?' of .*but in column 'labels?' of .*--label-col"
    ):
        open_samples(tmp_path)
    assert open_samples(tmp_path, Columns(label="label")).count == 24
    view = table.column("image").combine_chunks().field("bytes").cast(pa.binary_view())
    save(table.set_column(0, "image", view), second)  # photos of another type are photos
    assert len({sample.read() for sample in open_samples(tmp_path).samples()}) == 12
