"""Folders: what may be photos but is not read is named, and unreadable photos are refused before any work."""

import logging
import os
import shlex

import pytest
from PIL import Image

from fastaugself.cli.main import main as cli
from fastaugself.data.beton.format import Beton
from fastaugself.data.inputs.convert import ensure_beton, write_beton
from fastaugself.data.inputs.folder import list_photos
from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation.datasets import read_dataset


@pytest.fixture
def folder(tmp_path):
    """Two classes of two photos."""
    for name in ("a/0.jpg", "a/1.png", "b/0.jpg", "b/1.webp"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8)).save(path)
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def logged(monkeypatch):
    """The command line changes where the log goes."""
    monkeypatch.setattr(logging.getLogger("fastaugself"), "propagate", True)


def jpeg(folder):
    return (folder / "a" / "0.jpg").read_bytes()


def repeat(folder):
    (folder / "a" / "again").symlink_to(folder / "b")


LEFT_OUT = {
    "ending": (
        lambda folder: (folder / "a" / "x.HEIC").write_bytes(b"?"),
        "a/x.HEIC (photos of this kind are not read)",
    ),
    "jpg_large": (lambda folder: (folder / "a" / "x.jpg_large").write_bytes(jpeg(folder)), "a/x.jpg_large (photos of"),
    "no ending": (
        lambda folder: (folder / "b" / "x").write_bytes(jpeg(folder)),
        "b/x (a JPEG without the ending of one)",
    ),
    "backup": (lambda folder: (folder / "b" / "0.jpg~").write_bytes(jpeg(folder)), "b/0.jpg~ (a JPEG without"),
    "webp": (lambda folder: os.link(folder / "b" / "1.webp", folder / "b" / "1"), "b/1 (a WebP without"),
    "dead link": (lambda folder: (folder / "b" / "x").symlink_to("gone"), "b/x (is a link that leads nowhere (gone))"),
    "own link": (lambda folder: (folder / "b" / "x").symlink_to("x"), "b/x (is a link that leads nowhere (x))"),
    "pipe": (lambda folder: os.mkfifo(folder / "b" / "x"), "b/x (is a pipe, not a file)"),
    "folder twice": (repeat, "a/again (the same folder as b)"),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_what_may_be_photos_is_named_in_every_summary(kind, folder, tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.setattr("fastaugself.cli.main.start_logging", lambda *_, **__: None)  # it would keep lines from caplog
    caplog.set_level(logging.INFO)
    make, named = LEFT_OUT[kind]
    make(folder)
    (folder / "a" / "notes.txt").write_text("no photo")
    text = str(write_beton(folder, tmp_path / "x.beton", progress=False))
    assert f"1 not read, which may be photos: {named}" in text and "x.beton: 4 photos, 2 classes" in text
    assert "notes.txt" not in text
    for _ in range(2):  # written, and used again
        caplog.clear()
        ensure_beton(folder)
        assert f"1 not read, which may be photos: {named}" in caplog.text
    assert any(named in note for note in read_dataset(folder).notes)


def test_a_text_that_starts_like_a_photo_is_none(folder):
    (folder / "a" / "notes.txt").write_bytes(b"GIF is a format; BM, II and MM are letters")
    (folder / "a" / "empty").write_bytes(b"")
    found = list_photos(folder)
    assert (found.ignored, found.left_out) == (2, [])


def test_many_names_are_counted(folder):
    for i in range(30):
        (folder / "a" / f"{i:02d}.heic").write_bytes(b"?")
    written = write_beton(folder, folder.parent / "x.beton", progress=False)
    assert len(written.left_out) == 30 and "30 not read, which may be photos: a/00.heic (" in str(written)
    assert "and 20 more; 30 other files ignored" in str(written)


def test_a_folder_of_such_photos_alone_is_refused_with_their_names(tmp_path):
    (tmp_path / "x.heic").write_bytes(b"?")
    with pytest.raises(
        UsageError, match=r"holds no photos \(1 other files\).*convert or rename what is there: x\.heic"
    ):
        list_photos(tmp_path)


def one_folder_twice(folder):
    (folder / "c").symlink_to(folder / "a")


def one_folder_from_elsewhere_twice(folder):
    (folder / "a").rename(folder.parent / "elsewhere")
    for name in ("a", "c"):
        (folder / name).symlink_to(folder.parent / "elsewhere")


def part_of_another(folder):
    (folder / "b" / "part").mkdir()
    (folder / "aa").symlink_to(folder / "b" / "part")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (one_folder_twice, r"photos/c is the same folder as .*photos/a, so the class"),
        (one_folder_from_elsewhere_twice, r"photos/c is the same folder as .*photos/a, so the class"),
        (part_of_another, r"photos/aa is the same folder as .*photos/b/part, so"),
        (lambda folder: (folder / "c").symlink_to("."), r"photos/c is the same folder as .*photos, so"),
        (
            lambda folder: (folder / "c").symlink_to("gone"),
            r"photos/c is a link that leads nowhere \(gone\), so a class",
        ),
    ],
)
def test_classes_that_links_make_ambiguous_are_refused(make, message, folder, tmp_path):
    make(folder)
    for use in (
        lambda: write_beton(folder, tmp_path / "x.beton", progress=False),
        lambda: ensure_beton(folder),
        lambda: read_dataset(folder),
    ):
        with pytest.raises(UsageError, match=message):
            use()


def test_a_folder_outside_may_be_a_class(folder, tmp_path):
    (folder / "b").rename(tmp_path / "elsewhere")
    (folder / "b").symlink_to(tmp_path / "elsewhere")
    found = list_photos(folder)
    assert (found.classes, found.labels, found.left_out) == (["a", "b"], [0, 0, 1, 1], [])


UNREADABLE = {
    "dead link": (lambda path: path.symlink_to("gone.jpg"), r"is a link that leads nowhere \(gone\.jpg\)"),
    "own link": (lambda path: path.symlink_to(path), r"is a link that leads nowhere \(.*\.jpg\)"),
    "pipe": (os.mkfifo, "is a pipe, not a file"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_photo_that_cannot_be_read_is_refused_early_and_the_remedies_work(
    kind, folder, tmp_path, monkeypatch, capsys
):
    make, message = UNREADABLE[kind]
    make(folder / "b" / "x.jpg")
    make(folder / "b" / "y.jpg")
    for use in (
        lambda: write_beton(folder, tmp_path / "x.beton", progress=False),
        lambda: ensure_beton(folder, progress=False),
    ):
        with pytest.raises(RunError, match=rf"b/x\.jpg {message}: replace or remove it \(1 more like this\)") as caught:
            use()
        assert sorted(os.listdir(tmp_path)) == ["photos"]
    with pytest.raises(RunError, match=rf"b/x\.jpg {message}"):
        read_dataset(folder)
    command = str(caught.value).split("`")[1]  # of recipes, which have no --skip-unreadable
    assert command == f"fastaugself write {folder} OUT.beton --skip-unreadable"
    monkeypatch.chdir(tmp_path)
    cli(shlex.split(command)[1:])
    assert "4 photos" in (text := capsys.readouterr().out) and "2 skipped, see OUT.beton.unreadable.txt" in text
    assert "x.jpg" in (tmp_path / "OUT.beton.unreadable.txt").read_text()
    with Beton("OUT.beton") as beton:
        assert beton.labels_N.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("resumed", [False, True])
def test_the_remedy_is_one_of_the_command(resumed, folder, tmp_path):
    """A folder given to a recipe: there is no --skip-unreadable, and the path has a space."""
    spaced = folder.rename(tmp_path / "my photos")
    (spaced / "b" / "0.jpg").write_text("no photo")
    if resumed:
        (spaced / "b" / "1.webp").write_text("no photo")
        with pytest.raises(RunError):
            ensure_beton(spaced, progress=False)
    with pytest.raises(RunError, match=r"b/0\.jpg is not an image") as caught:
        ensure_beton(spaced, progress=False)
    assert "pass --skip-unreadable" not in str(caught.value)
    command = shlex.split(str(caught.value).split("`")[1])
    assert command == ["fastaugself", "write", str(spaced), "OUT.beton", "--skip-unreadable"]
    with pytest.raises(RunError, match=r"or pass --skip-unreadable to skip such photos$"):
        write_beton(spaced, tmp_path / "x.beton", progress=False)


@pytest.mark.parametrize("side", [65501, 65536])
def test_a_side_that_the_format_does_not_allow_names_a_command_that_makes_it_smaller(side, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    Image.new("L", (side, 1)).save(tmp_path / "photos" / "long.png")
    monkeypatch.chdir(tmp_path)
    for use in (ensure_beton, lambda path: write_beton(path, "x.beton", progress=False)):
        with pytest.raises(RunError, match=f"a side of {side} pixels, more than the format allows") as caught:
            use("photos")
    command = shlex.split(str(caught.value).split("`")[1].replace("SOURCE", "photos"))
    cli([*command[1:]])
    with Beton("OUT.beton") as beton:
        assert beton.sizes_N2.tolist() == [[1, 65500]]
