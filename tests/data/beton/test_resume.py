"""An interrupted writer resumes, and its result is byte for byte that of an uninterrupted one."""

import errno
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from fastaugself.data.beton import manifest, writer
from fastaugself.data.beton.format import Beton
from fastaugself.data.demo import load_photos
from fastaugself.data.inputs.convert import write_beton
from fastaugself.errors import RunError

OUTPUTS = ("", ".json", ".manifest.jsonl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 photos, every fifth of which has to be re-encoded."""
    root = tmp_path_factory.mktemp("resume") / "photos"
    photo = load_photos()["cat"]
    for i in range(40):
        path = root / "ab"[i // 20] / f"{i:02d}{'.png' if i % 5 == 0 else '.jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((i, i, i + 200, i + 150)).save(path)
    return root


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """What an uninterrupted run writes."""
    out = tmp_path_factory.mktemp("whole") / "out.beton"
    write_beton(folder, out, max_side=180, progress=False)
    return contents(out)


def contents(out):
    return [out.with_name(out.name + suffix).read_bytes() for suffix in OUTPUTS]


def stop_after(monkeypatch, count, error):
    """The next writer raises `error` once it has `count` samples."""
    add = writer.BetonWriter.add

    def stopping(self, *args, **kwargs):
        if self.counts.samples == count:
            raise error
        return add(self, *args, **kwargs)

    monkeypatch.setattr(writer.BetonWriter, "add", stopping)


def stop(folder, out, monkeypatch, count=23, error=KeyboardInterrupt, **options):
    with monkeypatch.context() as patch:
        stop_after(patch, count, error)
        with pytest.raises(error):
            write_beton(folder, out, max_side=180, progress=False, **options)
    assert not out.exists()


@pytest.mark.parametrize("count", [1, 23, 39])
def test_an_interrupted_run_resumes_to_the_same_bytes(count, folder, whole, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    out = tmp_path / "out.beton"
    stop(folder, out, monkeypatch, count)
    assert f"up to {count} photos are kept in {out}.partial: run the command again to resume" in caplog.text
    written = write_beton(folder, out, max_side=180, progress=False)
    assert written.resumed == count
    assert contents(out) == whole
    assert written.reencoded == {"PNG": 8, "larger than max-side": 32}
    assert sorted(os.listdir(tmp_path)) == sorted("out.beton" + suffix for suffix in OUTPUTS)


def test_a_run_killed_at_any_time_resumes_to_the_same_bytes(folder, whole, tmp_path):
    """kill -9 as soon as some photos are written, twice, then a run to the end."""
    out = tmp_path / "out.beton"
    lines = writer.partial_path(manifest.path_of(out))
    script = (
        "import time\n"
        "from fastaugself.data.beton import writer\n"
        "from fastaugself.data.inputs.convert import write_beton\n"
        "add = writer.BetonWriter.add\n"
        "def slow(self, *args, **kwargs):\n"
        "    sample = add(self, *args, **kwargs)\n"
        "    self._stream.flush(); self._lines.flush(); time.sleep(0.05)\n"
        "    return sample\n"
        "writer.BetonWriter.add = slow\n"
        f"write_beton({str(folder)!r}, {str(out)!r}, max_side=180, progress=False)\n"
    )
    seen = 0
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", script])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (not lines.exists() or lines.read_bytes().count(b"\n") < seen + 4):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        seen = lines.read_bytes().count(b"\n")
    assert 6 < seen < 40
    written = write_beton(folder, out, max_side=180, progress=False)
    assert written.resumed >= 6
    assert contents(out) == whole


@pytest.mark.parametrize("stage", ["replace", "link"])
def test_a_run_killed_during_the_renames_resumes(stage, folder, whole, tmp_path, monkeypatch):
    """The data are renamed last, so that no finished photo is lost."""

    class Killed(BaseException):
        pass

    def kill(source, target):
        if stage == "link" or str(target) == str(tmp_path / "out.beton"):
            raise Killed
        os.rename(source, target)

    out = tmp_path / "out.beton"
    with monkeypatch.context() as patch:
        patch.setattr(writer.os, stage, kill)
        with pytest.raises(Killed):
            write_beton(folder, out, max_side=180, progress=False)
    assert not out.exists()
    assert write_beton(folder, out, max_side=180, progress=False).resumed == 40
    assert contents(out) == whole


DAMAGED = {
    "data cut": ("", lambda data: data[:-3000]),
    "data changed": ("", lambda data: data[:-3000] + b"x" + data[-2999:]),
    "lines cut": (".manifest.jsonl", lambda data: data[:-10]),
    "line changed": (".manifest.jsonl", lambda data: data[:-200].replace(b'"crc32": ', b'"crc32": 1', 1) + data[-200:]),
    "lines gone": (".manifest.jsonl", lambda data: b""),
    "no lines but words": (".manifest.jsonl", lambda data: b"what is this\n"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_partial_data_are_written_again(kind, folder, whole, tmp_path, monkeypatch):
    """After a power failure, any part of the last writes may be missing."""
    suffix, damage = DAMAGED[kind]
    out = tmp_path / "out.beton"
    stop(folder, out, monkeypatch)
    path = tmp_path / f"out.beton{suffix}.partial"
    path.write_bytes(damage(path.read_bytes()))
    assert write_beton(folder, out, max_side=180, progress=False).resumed < 23
    assert contents(out) == whole


def test_a_source_or_options_that_changed_are_noticed(folder, tmp_path, monkeypatch, caplog):
    source, out = shutil.copytree(folder, tmp_path / "photos"), tmp_path / "out.beton"
    stop(source, out, monkeypatch)
    assert write_beton(source, out, max_side=170, progress=False).resumed == 0
    assert "was written from other data or with other options: starting over" in caplog.text
    out.unlink()
    stop(source, out, monkeypatch)
    Image.new("RGB", (30, 30)).save(source / "a" / "00.jpg")  # sorts before photos that are already written
    caplog.clear()
    written = write_beton(source, out, max_side=180, progress=False)
    assert (written.resumed, written.samples) == (0, 41)
    assert "starting over" in caplog.text
    with Beton(out) as beton:
        assert manifest.source_name(beton, 0) == "a/00.jpg"


def test_unreadable_photos_are_skipped_and_listed_also_after_an_interruption(folder, tmp_path, caplog):
    source, out = shutil.copytree(folder, tmp_path / "photos"), tmp_path / "out.beton"
    (source / "a" / "11.jpg").write_bytes(b"not a photo")
    (source / "b" / "36.jpg").write_bytes((source / "b" / "36.jpg").read_bytes()[:-100])
    with pytest.raises(RunError, match=r"11\.jpg is not an image.*or pass --skip-unreadable to skip such photos"):
        write_beton(source, out, progress=False)
    written = write_beton(source, out, skip_unreadable=True, progress=False)
    assert (written.resumed, written.samples, written.unreadable) == (11, 38, 2)
    report = (tmp_path / "out.beton.unreadable.txt").read_text()
    assert written.report == tmp_path / "out.beton.unreadable.txt"
    assert str(written).count("2 skipped, see ") == 1
    assert [line.split(" ")[0] for line in report.splitlines()] == [
        str(source / "a" / "11.jpg"),
        str(source / "b" / "36.jpg"),
    ]
    with Beton(out) as beton:
        names = [manifest.source_name(beton, i) for i in range(38)]
        assert names == [name for name in every_name(source) if name not in ("a/11.jpg", "b/36.jpg")]
        stored = beton.read(11)
    assert stored == (source / "a" / "12.jpg").read_bytes()
    lines = [json.loads(line) for line in manifest.path_of(out).read_bytes().splitlines()]
    assert [line["name"] for line in lines[1:-1]] == every_name(source)
    (tmp_path / "again").mkdir()
    again = tmp_path / "again" / "out.beton"
    write_beton(source, again, skip_unreadable=True, progress=False)
    assert contents(again) == contents(out)


def every_name(source):
    return sorted(path.relative_to(source).as_posix() for path in source.rglob("*.*"))


def test_resuming_without_skip_unreadable_names_the_photo(folder, tmp_path, monkeypatch):
    source, out = shutil.copytree(folder, tmp_path / "photos"), tmp_path / "out.beton"
    (source / "a" / "11.jpg").write_bytes(b"not a photo")
    stop(source, out, monkeypatch, skip_unreadable=True)
    with pytest.raises(RunError, match=r"11\.jpg is not an image"):
        write_beton(source, out, max_side=180, progress=False)
    assert write_beton(source, out, max_side=180, progress=False, skip_unreadable=True).resumed == 24


def test_a_photo_that_changes_while_it_is_written_stops_the_job(folder, tmp_path, monkeypatch):
    from fastaugself.data.inputs import open_samples

    source = shutil.copytree(folder, tmp_path / "photos")
    samples = list(open_samples(source).samples())
    (source / "a" / "03.jpg").write_bytes(b"shorter")
    with pytest.raises(RunError, match=r"03\.jpg changed while it was being written .* run the command again"):
        samples[3].read()


def test_a_full_disk_keeps_what_was_written(folder, whole, tmp_path, monkeypatch):
    """Also when there is no room for the manifest: some image data are discarded to make room."""
    out, opened = tmp_path / "out.beton", writer.BetonWriter._open

    class OnSmallDisk(io.FileIO):
        def write(self, data):
            if sum(path.stat().st_size for path in tmp_path.iterdir()) + len(data) > 150_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    def on_small_disk(self):
        opened(self)
        for name in ("_stream", "_lines"):
            stream = getattr(self, name)
            stream.flush()
            position = stream.tell()
            raw = OnSmallDisk(os.dup(stream.fileno()), "r+b")
            raw.seek(position)
            setattr(self, name, io.BufferedWriter(raw, 5000))
            stream.close()

    with monkeypatch.context() as patch:
        patch.setattr(writer.BetonWriter, "_open", on_small_disk)
        patch.setattr(writer, "_ROOM", 20_000)
        with pytest.raises(RunError, match=r"No space left on device; the photos so far are kept in .*\.partial"):
            write_beton(folder, out, max_side=180, progress=False)
    assert not out.exists()
    assert write_beton(folder, out, max_side=180, progress=False).resumed > 5
    assert contents(out) == whole


def test_data_that_differ_on_disk_are_not_renamed(folder, tmp_path, monkeypatch):
    out = tmp_path / "out.beton"
    check = writer.BetonWriter._check

    def flip(self):
        with open(self._partial, "r+b") as stream:
            stream.seek(50_000)
            stream.write(bytes(1) if stream.read(1) != bytes(1) else b"\1")
        check(self)

    with monkeypatch.context() as patch:
        patch.setattr(writer.BetonWriter, "_check", flip)
        with pytest.raises(RunError, match=r"differs on disk from what was written: sample \d+ .*is the disk"):
            write_beton(folder, out, progress=False)
    assert not out.exists()
