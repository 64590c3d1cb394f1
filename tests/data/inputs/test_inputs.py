"""Lists of photos, patterns of files, custom kinds of collections, and the options named in the documentation."""

import logging
import os
import re
from pathlib import Path

import numpy as np
import pytest
from stored import written

from fastaugself.data.beton.format import Beton
from fastaugself.data.inputs import open_samples
from fastaugself.data.inputs.convert import write_beton
from fastaugself.data.inputs.patterns import expand_braces
from fastaugself.data.inputs.samples import UnreadablePhoto
from fastaugself.errors import UsageError

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
        (b"none.jpg\ngone.jpg\n", r"list.txt, line 1: .*none\.jpg: No such file.*none of its 2 photos can be read"),
        (b"a.jpg\t1\nb.jpg\n", "line 2: expected a path, one tab and a label"),
        (b"a.jpg\0", "is not a text file"),
        (b"a.jpg\t-7\n", "label -7, expected numbers from 0"),
        (
            b"a.jpg\t7\na.jpg\t1.0\n",
            "line 2: label 1.0, expected numbers from 0 to 2147483647, or -1 or nothing for none",
        ),
        (b"a.jpg\t1.0\na.jpg\t2.0\n", "line 1: label 1.0, expected numbers"),
        (b"a.jpg\t7\n\na.jpg\t12345678901\n", "line 3: label 12345678901, expected numbers"),
        (b"a.jpg\t7\na.jpg\t2147483648\n", "line 2: label 2147483648, expected numbers"),
        (b"a.jpg\t7\na.jpg\t+3\n", r"line 2: label \+3, expected numbers"),
        (b"a.jpg\t7\na.jpg\t1e3\n", "line 2: label 1e3, expected numbers"),
        (b"a.jpg\t7\na.jpg\t2\na.jpg\tcat\n", "line 3: the label is 'cat', but '7' in line 1: expected whole numbers"),
        (
            b"a.jpg\tcat\na.jpg\tdog\na.jpg\t7\n",
            "line 3: the label is '7', but 'cat' in line 1: expected whole numbers",
        ),
        (b"a.jpg 7\na.jpg 1.0\n", "line 2: 'a.jpg 1.0', expected a path, a space and a whole number"),
        (b"a.jpg 7\na.jpg cat\n", "line 2: 'a.jpg cat', expected a path, a space and a whole number"),
        (b"a.jpg 1.0\na.jpg 7\n", "line 1: 'a.jpg 1.0', expected a path, a space and a whole number"),
        (b"a.jpg 7\na.jpg 12345678901\n", "line 2: label 12345678901, expected numbers"),
        (b"a.jpg 7\na.jpg -2\n", "line 2: label -2, expected numbers"),
    ],
)
def test_invalid_lists_are_refused_with_the_line(text, message, photos, tmp_path):
    (tmp_path / "a.jpg").write_bytes(photos[0][0])
    (tmp_path / "list.txt").write_bytes(text)
    with pytest.raises(UsageError, match=message):
        open_samples(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (b"a.jpg\t7\nb.jpg\t\nc.jpg\t10\nd.jpg\t2\n", [7, -1, 10, 2]),
        (b"a.jpg\t7\nb.jpg\t  \nc.jpg\t010\nd.jpg\t-1\n", [7, -1, 10, -1]),
        (b"a.jpg 7\nb.jpg\nc.jpg 10\nd.jpg 2147483647\n", [7, -1, 10, 2147483647]),
        (b"a.jpg\r\nb.jpg 3\r\nc.jpg 10 \r\nd.jpg \r\n", [-1, 3, 10, -1]),
        (b"a.jpg\tcat\nb.jpg\t\nc.jpg\tant\nd.jpg\tcat\n", [1, -1, 0, 1]),
    ],
)
def test_a_blank_label_is_none_and_the_others_keep_their_numbers(text, labels, photos, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("fastaugself"), "propagate", True)
    for name in "abcd":
        (tmp_path / f"{name}.jpg").write_bytes(photos[0][0])
    (tmp_path / "list.txt").write_bytes(text)
    _, found, names, _, _ = written(tmp_path / "list.txt", tmp_path)
    assert (found, names) == (labels, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    assert "of 4 photos have no label and get the label -1" in caplog.text


def test_without_labels_any_labels_will_do(photos, tmp_path):
    (tmp_path / "a.jpg").write_bytes(photos[0][0])
    (tmp_path / "list.txt").write_bytes(b"a.jpg\t7\na.jpg\tcat\na.jpg\t1.0\n")
    assert written(tmp_path / "list.txt", tmp_path, label="none")[1] == [-1] * 3


def test_photos_may_be_called_like_a_path_with_a_number(photos, tmp_path):
    for name in ("photo 1", "photo 2"):
        (tmp_path / name).write_bytes(photos[0][0])
    (tmp_path / "list.txt").write_bytes(b"photo 1\nphoto 2\n")
    assert written(tmp_path / "list.txt", tmp_path)[1:3] == ([-1, -1], ["photo 1", "photo 2"])


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "dead link", "device"])
@pytest.mark.parametrize("form", ["{}\t{}\n", "{} {}\n", "{}\n"])
def test_what_cannot_be_read_is_named_at_once_or_left_out(kind, form, photos, tmp_path):
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(photos[0][0])
    bad, message = tmp_path / "b.jpg", "No such file or directory"
    if kind == "folder":
        bad.mkdir()
        message = "it is a folder, not a file"
    elif kind == "pipe":
        os.mkfifo(bad)
        message = "it is a pipe, not a file"
    elif kind == "dead link":
        bad.symlink_to("gone.jpg")
    elif kind == "device":
        bad.symlink_to("/dev/zero")
        message = "it is a device, not a file"
    lines = [form.format(name, label) for name, label in (("b.jpg", 2), ("a.jpg", 7), ("b.jpg", 3), ("c.jpg", 10))]
    (tmp_path / "list.txt").write_text("".join(lines))
    out = tmp_path / "out.beton"
    with pytest.raises(
        UnreadablePhoto, match=rf"list\.txt, line 1: .*b\.jpg: {message}; replace it .*1 more like this"
    ):
        write_beton(tmp_path / "list.txt", out, progress=False)
    assert not list(tmp_path.glob("*.beton*"))
    result = write_beton(tmp_path / "list.txt", out, progress=False, skip_unreadable=True)
    assert (result.samples, result.unreadable) == (2, 2)
    assert [line.split(": ")[0][-6:] for line in result.report.read_text().splitlines()] == ["line 1", "line 3"]
    with Beton(out) as beton:
        assert beton.labels_N.tolist() == ([7, 10] if "{}" in form[2:] else [-1, -1])


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
def test_braces_expand_as_in_a_shell(pattern, names):
    assert expand_braces(pattern) == names


@pytest.mark.parametrize("pattern", ["{0..99999999}", "{5..1}", "{0..999}{0..999}{0..999}", "{1.." + "9" * 5000 + "}"])
def test_patterns_of_too_many_files_are_refused(pattern):
    with pytest.raises(UsageError, match=r"expands to \d+ files|is not an increasing range"):
        expand_braces(pattern)


def test_a_new_kind_needs_samples_alone(tmp_path):
    """A custom collection that is not a file, and yields pixels."""
    from functools import partial

    from fastaugself.data import inputs
    from fastaugself.data.inputs import KINDS, samples

    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 3), np.uint8)

    class Random(samples.Samples):
        source, count, classes, fingerprint = "random", 5, ["a"], "0"

        def samples(self, start=0):
            for i in range(start, 5):
                yield samples.Sample(f"{i}", 0, f"random {i}", partial(np.copy, pixels[i]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "KINDS", (lambda source, columns: Random() if source == "random" else None, *KINDS))
        data, labels, names, classes, _ = written("random", tmp_path)
    assert data == [image.tobytes() for image in pixels]
    assert (labels, names, classes) == ([0] * 5, list("01234"), ["a"])


def test_the_options_in_the_documentation_are_real(capsys):
    from fastaugself.cli.main import main as cli

    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        cli(["write", "--help"])
    known = capsys.readouterr().out
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--data"}  # option of training
    assert len(named) >= 5
    assert [option for option in named if option not in known] == []


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_list_of_classes_may_start_with_a_byte_order_mark(mark, photo_folder, tmp_path):
    from fastaugself.data.inputs.subset import read_classes

    (tmp_path / "classes.txt").write_bytes(mark + b"chelsea\r\nastronaut\r\n")
    assert read_classes(str(tmp_path / "classes.txt")) == ["chelsea", "astronaut"]
    (tmp_path / "classes.txt").write_bytes("chelsea".encode("utf-16"))
    with pytest.raises(UsageError, match=r"--classes .* UTF-16 text: save it as UTF-8"):
        read_classes(str(tmp_path / "classes.txt"))
