"""Tables of photos: bytes, labels and names are kept, and damaged or ambiguous tables are refused."""

import json
import sys

import numpy as np
import pytest
from stored import written

from fastaugself.data.inputs import open_samples
from fastaugself.data.inputs.convert import write_photos
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
        UsageError, match=r"no column 'x' with photos; pass --image-column jpg; its columns are id \(int"
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
    with pytest.raises(UsageError, match="no column holds photos; its columns are label"):
        open_samples(save(table.select(["label"]), tmp_path / "b.parquet"))


def test_a_row_without_bytes_is_not_followed_elsewhere(table, tmp_path):
    import pyarrow as pa

    (tmp_path / "secret.jpg").write_bytes(table.column("image")[0]["bytes"].as_py())
    rows = [{"bytes": None, "path": str(tmp_path / "secret.jpg")}, table.column("image")[1].as_py(), None]
    source = save(pa.table({"image": pa.array(rows, table.schema.field("image").type)}), tmp_path / "a.parquet")
    with pytest.raises(RunError, match="row 0 has no photo data"):
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
            with pytest.raises(RunError, match=rf"{name} is (not a readable table|damaged)"):
                for sample in open_samples(tmp_path / name).samples():
                    sample.read()


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_no_changed_byte_of_a_table_does_more_than_refuse_it(kind, table, tmp_path):
    """300 changed bytes in the metadata of tables: pyarrow never crashes, and no other exception occurs."""
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


def test_checksums_of_a_table_are_verified(table, tmp_path):
    source = save(table, tmp_path / "a.parquet", compression="none", write_page_checksum=True)
    data = bytearray(source.read_bytes())
    data[len(data) // 3] ^= 1
    source.write_bytes(data)
    with pytest.raises(RunError, match=r"a\.parquet is not a readable table: .*CRC"):
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
