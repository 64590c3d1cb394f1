"""Files whole or not at all: what a reader, a second writer and a failure see."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastaugself.errors import UsageError
from fastaugself.files import check_outputs, partial_file, read_text, replace_file, utf8


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
    assert (tmp_path / "new").is_dir()
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
