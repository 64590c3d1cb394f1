"""Writing a folder: listing and counts, and that no partial file is ever left under the final name."""

import errno
import io
import logging
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from pictures import save
from PIL import Image

from fastaugself.data import progress
from fastaugself.data.beton import manifest, sidecar
from fastaugself.data.beton.format import Beton
from fastaugself.data.beton.writer import BetonWriter
from fastaugself.data.inputs.convert import write_beton
from fastaugself.data.inputs.folder import list_photos
from fastaugself.data.readers import ffcv as ffcv_source
from fastaugself.errors import RunError, UsageError


def difference(a, b):
    return np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean()


# --- folders ----------------------------------------------------------------------------------------------------------


def test_folders_are_classes_and_an_empty_one_keeps_its_number(photo, tmp_path):
    for name in ("b/1.jpg", "b/deep/er/2.PNG", "a-c/3.jpeg", ".hidden/4.jpg", "b/.5.jpg", "b/notes.txt"):
        save(photo, tmp_path / name, "JPEG")
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "link").symlink_to(tmp_path / "b")
    found = list_photos(tmp_path)
    assert found.files == ["a-c/3.jpeg", "b/1.jpg", "b/deep/er/2.PNG"]
    assert found.classes == ["a", "a-c", "b"]
    assert found.labels == [1, 2, 2]
    assert found.ignored == 1


def test_names_of_any_bytes_are_kept(photo, tmp_path):
    names = ["caf\u00e9.jpg", os.fsdecode(b"caf\xe9.jpg"), 'line\nand "quote".jpg']
    for name in names:
        save(photo, tmp_path / "in" / "a" / name, "JPEG")
    written = write_beton(tmp_path / "in", tmp_path / "out.beton", progress=False)
    with Beton(written.path) as beton:
        assert [manifest.source_name(beton, i) for i in range(3)] == sorted(f"a/{name}" for name in names)
        assert sidecar.read(beton, columns=False).classes == ["a"]


def test_a_flat_folder_has_no_labels(photo, tmp_path):
    save(photo, tmp_path / "photos" / "1.jpg", "JPEG")
    written = write_beton(tmp_path / "photos", tmp_path / "out.beton", progress=False)
    with Beton(written.path) as beton:
        assert beton.labels_N.tolist() == [-1]
        assert sidecar.read(beton).classes == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"holds no photos \(0 other files\)"),
        (["a/x.txt"], r"holds no photos \(1 other files\)"),
        (["train/a/1.jpg", "val/a/1.jpg"], r"holds splits \(train, val\), not classes: pass one of them"),
        (["a/1.jpg", "2.jpg"], r"holds photos \(2.jpg, 1 in total\) next to folders \(a, ...\)"),
    ],
)
def test_folders_that_mean_something_else_are_refused(names, message, photo, tmp_path):
    for name in names:
        save(photo, tmp_path / name, "JPEG")
    with pytest.raises(UsageError, match=message):
        list_photos(tmp_path)


def test_missing_folder_and_wrong_options_are_refused(photo_folder, beton, tmp_path):
    out = tmp_path / "out.beton"
    for source, arguments, message in [
        (tmp_path / "none", {}, "none: no such file or folder"),
        (beton, {}, "is a .beton file already"),
        (photo_folder, {"max_side": -1}, "--max-side must be .* got -1"),
        (photo_folder, {"quality": 0}, "--quality must be .* got 0"),
        (photo_folder, {"workers": -1}, "--workers must be .* got -1"),
    ]:
        with pytest.raises(UsageError, match=message):
            write_beton(source, out, progress=False, **arguments)
    with pytest.raises(UsageError, match="exists: pass --overwrite"):
        write_beton(photo_folder, beton, progress=False)
    with pytest.raises(UsageError, match="is a folder: pass the name of the file"):
        write_beton(photo_folder, tmp_path, progress=False)
    with pytest.raises(UsageError, match=r"No such file or directory; create the folder .*none first"):
        write_beton(photo_folder, tmp_path / "none" / "out.beton", progress=False)
    assert os.listdir(tmp_path) == []


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_same_folder_gives_the_same_bytes_on_any_number_of_threads(photo_folder, tmp_path):
    files = []
    for workers in (1, 3):
        out = tmp_path / f"{workers}.beton"
        write_beton(photo_folder, out, max_side=40, workers=workers, progress=False)
        files.append([path.read_bytes() for path in (out, sidecar.path_of(out), manifest.path_of(out))])
    assert files[0] == files[1]


def test_what_is_written_is_counted(photo, tmp_path):
    save(photo, tmp_path / "in" / "a" / "1.jpg", "JPEG")
    save(photo, tmp_path / "in" / "a" / "2.png", "PNG")
    save(photo.convert("CMYK"), tmp_path / "in" / "b" / "3.jpg", "JPEG")
    (tmp_path / "in" / "readme.txt").touch()
    written = write_beton(tmp_path / "in", tmp_path / "out.beton", progress=False)
    assert (written.samples, written.classes, written.passed_through, written.ignored) == (3, 2, 1, 1)
    assert written.reencoded == {"CMYK": 1, "PNG": 1}
    assert "3 photos, 2 classes" in str(written)
    assert "1 copied unchanged, 2 re-encoded (1 CMYK, 1 PNG)" in str(written)


def test_stock_ffcv_loader_reads_it(photo_folder, beton):
    """FFCV's own decoders and loader read a file that FFCV did not write."""
    if reason := ffcv_source.why_not():
        pytest.skip(reason)
    from ffcv.fields.decoders import CenterCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption

    with ffcv_source.threads_kept():
        for os_cache in (True, False):
            pipelines = {"image": [CenterCropRGBImageDecoder((24, 24), ratio=1)]}
            options = {"order": OrderOption.SEQUENTIAL, "num_workers": 1, "os_cache": os_cache}
            stock = Loader(str(beton), batch_size=16, pipelines=pipelines, **options)
            batches = iter(stock)
            images, labels = [], []
            try:
                for image, label in batches:
                    images += [np.array(image)]
                    labels += label[:, 0].tolist()
            finally:
                batches.close()
            assert labels == [i // 16 for i in range(64)]
            for pixels, path in zip(np.concatenate(images), sorted(photo_folder.rglob("*.jpg")), strict=True):
                image = Image.open(path)
                side = min(image.size)
                left, top = (image.width - side) // 2, (image.height - side) // 2
                crop = image.crop((left, top, left + side, top + side)).resize((24, 24), Image.Resampling.BOX)
                assert difference(pixels, crop) < 8  # OpenCV resamples differently; another photo differs by 60


def test_without_a_terminal_the_log_says_how_far_it_is(photo_folder, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    write_beton(photo_folder, tmp_path / "out.beton")
    assert re.search(r"writing: 32 of 64 photos, \d+ photos/s, \d+\.\d minutes left", caplog.text)


# --- atomicity --------------------------------------------------------------------------------------------------------


def test_an_exception_while_writing_keeps_the_old_file(photo_folder, beton, tmp_path):
    out = tmp_path / "out.beton"
    write_beton(photo_folder, out, progress=False)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    with pytest.raises(KeyboardInterrupt), BetonWriter(out, 10) as unfinished:
        unfinished.add(np.zeros((4, 4, 3), np.uint8))
        raise KeyboardInterrupt
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_a_killed_writer_leaves_no_file_under_the_name_and_blocks_nobody(photo_folder, tmp_path):
    out = tmp_path / "out.beton"
    script = (
        "import os, signal, numpy as np\n"
        "from fastaugself.data.beton.writer import BetonWriter\n"
        f"with BetonWriter({str(out)!r}, 10) as writer:\n"
        "    writer.add(np.zeros((1000, 1000, 3), np.uint8))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == -9
    assert sorted(os.listdir(tmp_path)) == ["out.beton.manifest.jsonl.partial", "out.beton.partial"]
    assert write_beton(photo_folder, out, progress=False).samples == 64
    assert sorted(os.listdir(tmp_path)) == ["out.beton", "out.beton.json", "out.beton.manifest.jsonl"]


def test_two_writers_of_one_file_do_not_mix(photo_folder, tmp_path):
    out = tmp_path / "out.beton"
    with BetonWriter(out, 1) as first:
        with pytest.raises(UsageError, match="is being written by another process"):
            write_beton(photo_folder, out, progress=False)
        first.add(np.zeros((4, 4, 3), np.uint8))
    assert len(decoded_raw(out)) == 1


def decoded_raw(path):
    with Beton(path) as beton:
        return [beton.read(i) for i in range(len(beton))]


def test_a_full_disk_is_named_and_leaves_no_file(tmp_path):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.raises(RunError, match=r"out.beton could not be written: No space left on device; no files were left"),
        BetonWriter(tmp_path / "out.beton", 1) as unfinished,
    ):
        unfinished._stream.close()
        unfinished._stream = Full()
        unfinished.add(np.zeros((4, 4, 3), np.uint8))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "no sample was added"),
        ([np.zeros((4, 4, 3), np.uint8)] * 2, "more samples than the capacity of 1"),
        ([np.zeros((4, 4), np.uint8)], r"pixels are uint8 \(4, 4\), expected uint8 \[H, W, 3\]"),
        ([np.zeros((0, 4, 3), np.uint8)], "0 x 4 pixels"),
    ],
)
def test_wrong_use_of_the_writer_is_named(samples, message, tmp_path):
    with pytest.raises(UsageError, match=message), BetonWriter(tmp_path / "out.beton", 1) as unfinished:
        for sample in samples:
            unfinished.add(sample)
    assert os.listdir(tmp_path) == []
