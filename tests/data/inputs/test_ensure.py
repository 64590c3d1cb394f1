"""A folder given for data: written once to the .beton beside it, which is never another's."""

import errno
import logging
import os
import shutil
import threading
from pathlib import Path

import pytest
import simplejpeg
from pictures import save

from fastaugself.data.beton import writer
from fastaugself.data.beton.format import Beton
from fastaugself.data.beton.writer import BetonWriter
from fastaugself.data.inputs.convert import ensure_beton, write_beton
from fastaugself.errors import UsageError


def decoded(path):
    with Beton(path) as beton:
        return [simplejpeg.decode_jpeg(beton.read(i)) for i in range(len(beton))]


@pytest.fixture
def own_folder(photo, tmp_path):
    folder = tmp_path / "photos"
    for i in range(4):
        save(photo, folder / "abcd"[i] / "x.jpg", "JPEG")
    return folder


def test_a_folder_is_written_next_to_itself_once(own_folder, caplog):
    caplog.set_level(logging.INFO)
    out = ensure_beton(own_folder)
    assert out == own_folder.parent / "photos.beton"
    assert f"writing once: {out} from the photos in {own_folder}" in caplog.text
    written = out.stat()  # without the access time, which reading changes
    caplog.clear()
    assert ensure_beton(Path(f"{own_folder}/")) == out
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert "written earlier" in caplog.text


def test_a_folder_that_changed_is_written_again(own_folder, photo, caplog):
    caplog.set_level(logging.INFO)
    out = ensure_beton(own_folder)
    save(photo, own_folder / "b" / "new.jpg", "JPEG")
    ensure_beton(own_folder)
    assert "the photos or options changed: writing again" in caplog.text
    assert len(decoded(out)) == 5
    save(photo.rotate(90), own_folder / "b" / "new.jpg", "JPEG")
    os.utime(own_folder / "b" / "new.jpg", ns=(1, 1))
    before = out.read_bytes()
    ensure_beton(own_folder)
    assert out.read_bytes() != before
    ensure_beton(own_folder, max_side=64)
    assert max(max(image.shape) for image in decoded(out)) == 64


def test_a_damaged_file_next_to_the_folder_is_written_again(own_folder, caplog):
    out = ensure_beton(own_folder)
    whole = out.read_bytes()
    out.write_bytes(whole[:-10])
    assert ensure_beton(own_folder) == out
    assert "truncated in its allocation table" in caplog.text
    assert out.read_bytes() == whole


@pytest.mark.parametrize(
    "other", ["options", "source", "classes", "text", "empty", "folder", "link", "moved", "no sidecar", "damaged index"]
)
def test_a_file_that_training_did_not_write_is_never_replaced(other, own_folder, photo_folder, photo, tmp_path):
    out = tmp_path / "photos.beton"
    if other == "options":
        write_beton(own_folder, out, quality=50, progress=False)
    elif other == "source":
        write_beton(photo_folder, out, progress=False)
    elif other == "classes":
        (tmp_path / "names.txt").write_text("b\n")
        write_beton(own_folder, out, classes=str(tmp_path / "names.txt"), progress=False)
    elif other in ("text", "empty"):
        out.write_text("my notes" if other == "text" else "")
    elif other == "folder":
        out.mkdir()
    elif other == "link":
        out.symlink_to(tmp_path / "elsewhere")
    elif other == "moved":  # written by training, for another folder
        shutil.copytree(own_folder, tmp_path / "before")
        save(photo, tmp_path / "before" / "a" / "new.jpg", "JPEG")
        for path in ensure_beton(tmp_path / "before").parent.glob("before.beton*"):
            path.rename(path.with_name(path.name.replace("before", "photos")))
    else:
        ensure_beton(own_folder)
        save(photo, own_folder / "b" / "new.jpg", "JPEG")
        if other == "no sidecar":
            (tmp_path / "photos.beton.json").unlink()
        else:
            out.write_bytes(b"x" * 2000 + out.read_bytes()[2000:])

    def state():
        return {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}

    before = state()
    with pytest.raises(UsageError, match=rf"^{out} exists .* pass --data\.train {out} .*, or remove it"):
        ensure_beton(own_folder)
    assert state() == before
    if other in ("options", "source", "classes", "moved"):  # the first remedy
        assert ensure_beton(out) == out
    (out.rmdir if other == "folder" else out.unlink)()  # the second one
    assert ensure_beton(own_folder) == out
    assert len(decoded(out)) == (5 if other in ("no sidecar", "damaged index") else 4)


def test_a_file_of_the_same_photos_and_options_is_used_as_it_is(own_folder, tmp_path):
    out = tmp_path / "photos.beton"
    write_beton(own_folder, out, progress=False)
    written = out.stat()
    assert ensure_beton(own_folder) == out
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def test_an_interrupted_write_with_other_options_is_not_lost_to_training(own_folder, tmp_path, monkeypatch):
    out = tmp_path / "photos.beton"
    add = BetonWriter.add

    def interrupted(self, *values, **named):
        if self.counts.samples == 2:
            raise KeyboardInterrupt
        return add(self, *values, **named)

    monkeypatch.setattr(BetonWriter, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_beton(own_folder, out, max_side=30, progress=False)
    monkeypatch.undo()
    kept = (tmp_path / "photos.beton.partial").read_bytes()
    with pytest.raises(UsageError, match="interrupted `fastaugself write` with other options: finish it"):
        ensure_beton(own_folder)
    assert (tmp_path / "photos.beton.partial").read_bytes() == kept
    assert write_beton(own_folder, out, max_side=30, progress=False).resumed == 2


def test_concurrent_callers_write_once(own_folder, caplog):
    caplog.set_level(logging.INFO)
    results = []
    threads = [threading.Thread(target=lambda: results.append(ensure_beton(own_folder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [own_folder.parent / "photos.beton"] * 4
    assert caplog.text.count("writing once:") == 1
    files = ["photos", "photos.beton", "photos.beton.json", "photos.beton.manifest.jsonl"]
    assert sorted(os.listdir(own_folder.parent)) == files


def test_an_unwritable_place_names_the_remedy(own_folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(writer.os, "open", refuse)  # the tests may run as root, who has all permissions
    with pytest.raises(
        UsageError, match=rf"Permission denied.*`fastaugself write {own_folder} OUT.beton` and pass that"
    ):
        ensure_beton(own_folder)


def test_a_file_is_returned_unchanged_and_a_missing_path_is_refused(beton, tmp_path):
    assert ensure_beton(beton) == beton
    with pytest.raises(UsageError, match="none: no such file or folder; pass a"):
        ensure_beton(tmp_path / "none")
