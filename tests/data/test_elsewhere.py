"""The advice for paths that hold something else than was expected works when it is taken."""

import re
import shlex
import shutil

import pytest

from fastaugself.cli.main import main
from fastaugself.data.beton.format import Beton
from fastaugself.data.elsewhere import instead_of_folder
from fastaugself.data.inputs.convert import ensure_beton, write_beton
from fastaugself.errors import UsageError

pa = pytest.importorskip("pyarrow")


@pytest.fixture()
def root(tmp_path, photos, photo_folder, beton):
    """One of each kind, under names with a space."""
    from pyarrow import feather, parquet

    root = tmp_path / "my data"
    table = pa.table({"image": [data for data, _, _ in photos], "label": [number for _, number, _ in photos]})
    for folder in ("hub/default", "datasets/train", "datasets/test", "deep/a/b", "shards/x", "betons", "one/inside"):
        (root / folder).mkdir(parents=True)
    parquet.write_table(table, root / "hub" / "default" / "0000.parquet")
    parquet.write_table(table, root / "deep" / "a" / "b" / "0000.parquet")
    for split in ("train", "test"):
        path = root / "datasets" / split / "data-00000-of-00001.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    (root / "datasets" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    feather.write_feather(table, str(root / "table.feather"))
    for path in ("betons/a.beton", "betons/b.beton", "one/inside/a.beton"):
        for end in ("", ".json", ".manifest.jsonl"):
            shutil.copy(f"{beton}{end}", f"{root / path}{end}")
    shutil.copytree(photo_folder, root / "photos")
    return root


def said(capsys, *arguments):
    try:
        main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out + captured.err


@pytest.mark.parametrize("command", ["info", "verify"])
@pytest.mark.parametrize(
    "path",
    ["hub", "datasets", "deep", "table.feather", "hub/default/0000.parquet", "photos", "photos/rocket/00.jpg",
     "betons", "one", "betons/a.beton.json", "betons/*.beton"],
)  # fmt: skip
def test_the_advice_of_info_and_verify_works(command, path, root, tmp_path, capsys):
    code, message = said(capsys, command, root / path)
    assert code == 2 and message.count("\n") == 1
    out = tmp_path / "OUT.beton"
    if written := re.search("`(fastaugself write .*) OUT.beton` and pass OUT.beton$", message.strip()):
        _, *words = shlex.split(written[1])
        assert said(capsys, *words, out)[0] == 0
    else:
        given = re.search(r"(?:pass its .beton file |such as |belongs to )(.*?\.beton)(?=: pass that|$)", message)
        out = given[1]
    assert said(capsys, command, out)[0] == 0


@pytest.mark.parametrize("path", ["hub", "datasets", "deep", "one", "betons"])
def test_the_advice_for_training_works(path, root, tmp_path):
    with pytest.raises(UsageError, match="holds no photos") as refusal:
        ensure_beton(root / path)
    if written := re.search("`fastaugself write (.*) OUT.beton`", str(refusal.value)):
        (source,) = shlex.split(written[1])
        assert write_beton(source, tmp_path / "OUT.beton", progress=False).samples == 12
        assert source.endswith({"hub": "hub/default", "datasets": "datasets/train", "deep": "deep/a/b"}[path])
    elif path == "one":
        assert instead_of_folder(root / path) == f"pass its .beton file {root / 'one' / 'inside' / 'a.beton'}"
    else:
        assert str(refusal.value).endswith(f"or for training '{root / path}/*.beton', all as one data set")


def test_a_folder_with_nothing_to_read_keeps_its_message(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    assert instead_of_folder(tmp_path) == ""
    with pytest.raises(UsageError, match=r"holds no photos \(1 other files\): expected files such as \.jpg"):
        ensure_beton(tmp_path)
    with pytest.raises(UsageError, match=r"is a folder, not a \.beton file: run `fastaugself write"):
        Beton(tmp_path)
