"""Lists of photos, patterns of files, custom kinds of collections, and the options named in the documentation."""

import re
from pathlib import Path

import numpy as np
import pytest
from stored import written

from fastaugself.data.inputs import open_samples
from fastaugself.data.inputs.patterns import expand_braces
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
        (b"a.jpg\nnone.jpg\n", r"list.txt, line 2: .*none\.jpg: No such file"),
        (b"a.jpg\t1\nb.jpg\n", "line 2: expected a path, one tab and a label"),
        (b"a.jpg\0", "is not a text file"),
        (b"a.jpg\t-7\n", "label -7, expected numbers from 0"),
    ],
)
def test_invalid_lists_are_refused_with_the_line(text, message, photos, tmp_path):
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
