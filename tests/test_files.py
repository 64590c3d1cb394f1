"""Files whole or not at all: what a reader, a second writer and a failure see."""

import errno
import fcntl
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastaugself import files
from fastaugself.data.inputs.convert import ensure_beton, write_beton
from fastaugself.errors import UsageError
from fastaugself.files import check_outputs, lock, partial_file, read_text, replace_file, utf8


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "made" / "file.json"
    replace_file(path, b"old")
    with pytest.raises(OSError, match=r"No space left on device: '.*file\.json'"), partial_file(path) as partial:
        partial.file.write(b"new")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert path.read_bytes() == b"old" and os.listdir(path.parent) == ["file.json"]
    with pytest.raises(KeyboardInterrupt), partial_file(path) as partial:
        raise KeyboardInterrupt
    assert os.listdir(path.parent) == ["file.json"]


def test_many_writers_at_a_time_leave_the_whole_content_of_one(tmp_path):
    path, contents = tmp_path / "file", [bytes([i]) * 100_000 for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: replace_file(path, data), contents))
    assert path.read_bytes() in contents and os.listdir(tmp_path) == ["file"]


def test_an_output_that_cannot_be_is_refused_and_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    check_outputs(None, tmp_path / "new" / "out.json", tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    for path in (tmp_path / "file" / "out.json", tmp_path / "folder"):
        with pytest.raises(UsageError, match=rf"^{path} cannot be written.*: pass a"):
            check_outputs(path)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text_of_users_is_read_with_and_without_a_byte_order_mark(mark, tmp_path):
    path = tmp_path / "text"
    path.write_bytes(mark + "ü\r\ny\n".encode() + b"\xe9")
    assert read_text(path) == "ü\ny\n" + os.fsdecode(b"\xe9")
    path.write_bytes("ü".encode("utf-16"))
    with pytest.raises(ValueError, match="UTF-16 text: save it as UTF-8"):
        read_text(path)
    assert utf8("ü" + os.fsdecode(b"\xe9")) == b"\xc3\xbc\\udce9"


NO_LOCKS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, 524]


@pytest.fixture
def poor_disk(monkeypatch):
    """Makes the file system refuse locks, and to flush folders, with these error numbers."""

    def refuse(no_lock, no_sync):
        def flock(fd, how):
            raise OSError(no_lock, os.strerror(no_lock))

        def fsync(fd, fsync=os.fsync):
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                raise OSError(no_sync, os.strerror(no_sync))
            fsync(fd)

        monkeypatch.setattr(fcntl, "flock", flock)
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(files, "_without_locks", set())

    return refuse


@pytest.mark.parametrize("no_lock", NO_LOCKS)
def test_file_systems_without_locks_are_used_with_one_warning(no_lock, poor_disk, photo_folder, tmp_path, caplog):
    poor_disk(no_lock, errno.EINVAL)
    shutil.copytree(photo_folder, tmp_path / "photos")
    written = write_beton(photo_folder, tmp_path / "out.beton", progress=False)
    assert written.samples == 64
    assert ensure_beton(tmp_path / "photos", progress=False).read_bytes() == (tmp_path / "out.beton").read_bytes()
    assert ensure_beton(tmp_path / "photos", progress=False) == tmp_path / "photos.beton"
    replace_file(tmp_path / "a" / "file", b"new")
    assert (tmp_path / "a" / "file").read_bytes() == b"new"
    assert caplog.text.count("has no locks") == 1
    assert not list(tmp_path.rglob("*.partial"))


def test_other_failures_of_locks_and_flushes_are_not_hidden(poor_disk, tmp_path):
    poor_disk(errno.EIO, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        replace_file(tmp_path / "file", b"new")
    with open(tmp_path / "file", "wb") as file, pytest.raises(OSError, match="Input/output error"):
        lock(file.fileno(), tmp_path / "file")
    poor_disk(errno.EAGAIN, errno.EINVAL)
    with open(tmp_path / "file", "wb") as file, pytest.raises(BlockingIOError):
        lock(file.fileno(), tmp_path / "file")
