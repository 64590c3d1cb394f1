"""`fastaugself write`: converts a collection of photos to one `.beton` file."""

import logging
import os
import shlex
import time
from collections.abc import Generator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import PIL
from PIL import features

from ...errors import RunError, UsageError
from ..beton import manifest, sidecar
from ..beton.format import MAX_SIDE, Beton
from ..beton.sidecar import Sidecar
from ..beton.writer import BetonWriter, claim, partial_path, release
from ..cores import available_cores
from ..parallel import ordered_map
from ..progress import progress as show_progress
from . import open_samples
from .photo import Photo, convert, convert_pixels
from .samples import Columns, Sample, Samples, UnreadablePhoto, some
from .subset import ClassSamples, read_classes

log = logging.getLogger(__name__)

_LARGE = 1_500_000  # pixels per photo above which decoding dominates the time of a training step
_AHEAD = 4  # photos per thread that are read and decoded before they are written


class _Options(NamedTuple):
    """The options of the conversion; photos and options together determine the written bytes."""

    max_side: int = 0
    quality: int = 90


class Written(NamedTuple):
    """The result of `write_beton`.

    path: the file. samples, classes: their numbers. bytes: size of the file.
    passed_through: photos copied unchanged. reencoded: number per reason, such as {"PNG": 3, "EXIF rotation": 1}.
    warnings: name and decoder message of photos that were decoded with a warning.
    unreadable: number of skipped photos, listed in the file `report` (None if there are none).
    ignored: files that are not photos. left_out: what may be photos but was not read, with reasons.
    resumed: photos taken over from an interrupted run.
    mean_pixels: average number of pixels per photo. seconds: duration of this run.
    """

    path: Path
    samples: int
    classes: int
    bytes: int
    passed_through: int
    reencoded: dict[str, int]
    warnings: list[str]
    unreadable: int
    report: Path | None
    ignored: int
    left_out: list[str]
    resumed: int
    mean_pixels: int
    seconds: float

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.reencoded.items())
        return (
            f"{self.path}: {self.samples} photos, {self.classes or 'no'} classes, {self.bytes / 1e6:.1f} MB; "
            f"{self.passed_through} copied unchanged, {self.samples - self.passed_through} re-encoded"
            f"{f' ({reasons})' if reasons else ''}"
            f"{f'; {self.unreadable} skipped, see {self.report}' if self.unreadable else ''}"
            f"{f'; {len(self.left_out)} not read, which may be photos: {some(self.left_out)}' if self.left_out else ''}"
            f"{f'; {self.ignored} other files ignored' if self.ignored else ''}"
            f"{f'; {self.resumed} resumed from an earlier run' if self.resumed else ''}; {self.seconds:.1f} s"
        )


def write_beton(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    max_side: int = 0,
    quality: int = 90,
    workers: int = 0,
    progress: bool = True,
    overwrite: bool = False,
    skip_unreadable: bool = False,
    columns: Columns | None = None,
    classes: str = "",
) -> Written:
    """Writes the photos of `source` to the `.beton` file `out`, with OUT.beton.json and OUT.beton.manifest.jsonl.

    source: a folder whose subfolders are the classes, a folder of photos (label -1), or another kind of collection
    supported by inputs/. max_side: maximum length of the longer side in pixels, larger photos are downscaled; 0 for no
    limit. quality: JPEG quality of re-encoded photos. workers: threads, 0 for one per core. progress: show progress.
    overwrite: replace an existing `out`. skip_unreadable: skip photos that cannot be read, and list them in
    OUT.beton.unreadable.txt. columns: columns to read, for collections that have columns. classes: classes to keep: a
    file with one name per line, or `imagenet100`; "" for all.

    Every photo is decoded once. JPEG bytes are copied unchanged if possible (see photo.py). The output is
    deterministic: equal collections and options give equal bytes. `out` appears only when it is complete and verified.
    An interrupted run is resumed by the next call with the same collection and options.

    Returns a summary. Raises UsageError for invalid arguments, UnreadablePhoto (a RunError) for a photo that cannot be
    read, RunError if the disk fails.
    """
    out = Path(out)
    _check_options(max_side, quality, workers)
    if out.is_dir():
        raise UsageError(f"{out} is a folder: pass the name of the file to write, such as {out / 'train.beton'}")
    if out.suffix != ".beton":
        raise UsageError(f"the file to write must end in .beton, got {out}; pass the photos first, then the file")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists: pass --overwrite to replace it, or another name")
    options = _Options(max_side, quality)
    kept = read_classes(classes) if classes else None
    samples = open_samples(source, columns)
    if kept is not None:
        samples = ClassSamples(samples, kept)
    remedy = None if skip_unreadable else "pass --skip-unreadable to skip such photos"
    _refuse_faults(samples, remedy)
    return _write(samples, out, options, workers=workers, progress=progress, remedy=remedy)


def ensure_beton(path: str | os.PathLike[str], *, max_side: int = 0, progress: bool = True) -> Path:
    """Returns a `.beton` file for `path`: `path` itself if it is a file, `FOLDER.beton` next to a folder of photos.

    The folder is converted once. Later calls reuse the file as long as the names, sizes and modification times of the
    photos are unchanged; otherwise it is written again. Concurrent processes wait for the one that writes.
    max_side, progress: see `write_beton`.

    Raises UsageError if `path` does not exist, if FOLDER.beton cannot be created, and if there is another FOLDER.beton
    that this function did not write from the same folder.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder; pass a .beton file or a folder of photos")
        return path
    samples = open_samples(path)
    out = Path(f"{os.path.abspath(path)}.beton")
    remedy = f"run `fastaugself write {shlex.quote(str(path))} OUT.beton --skip-unreadable` and pass that"
    options = _Options(max_side)
    if _is_current(out, samples, options):
        log.info("using %s, written earlier from %s (%d photos)", out, path, samples.count)
        if samples.left_out:
            log.warning("%s: %d not read, which may be photos: %s", path, len(samples.left_out), some(samples.left_out))
        return out
    _refuse_foreign(out, path, options)
    _refuse_faults(samples, remedy)
    try:
        fd = claim(partial_path(out), wait=True)
    except UsageError as error:
        raise UsageError(
            f"{out} cannot be written next to the photos ({error}): write it to another folder with "
            f"`fastaugself write {path} OUT.beton` and pass that"
        ) from error
    if _is_current(out, samples, options):  # written by another process in the meantime
        release(partial_path(out), fd)
        return out
    try:
        _refuse_foreign(out, path, options)  # for the same reason
    except BaseException:
        os.close(fd)
        raise
    what = "the photos or options changed: writing again" if out.exists() else "writing once:"
    log.info("%s %s from the photos in %s", what, out, path)
    written = _write(samples, out, options, workers=0, progress=progress, remedy=remedy, claimed=fd, automatic=True)
    log.info("%s", written)
    return out


def _refuse_foreign(out: Path, folder: Path, options: _Options) -> None:
    """Raises UsageError if `out`, or the file that an interrupted writer left, is not what `ensure_beton` wrote."""
    if os.path.lexists(out) and sidecar.made_for(out) != os.path.abspath(folder):
        raise UsageError(
            f"{out} exists and training did not write it from the photos now in {folder}, so it is not replaced: pass "
            f"--data.train {shlex.quote(str(out))} to train on that file, or remove it to train on the photos"
        )
    begun = manifest.begun(partial_path(manifest.path_of(out)))
    if begun is not None and begun.get("options") != options._asdict():
        raise UsageError(
            f"{partial_path(out)} holds the photos of an interrupted `fastaugself write` with other options: finish it "
            "with the same command, or remove it"
        )


def _is_current(out: Path, samples: Samples, options: _Options) -> bool:
    if not out.exists():
        return False
    try:
        with Beton(out) as beton:
            found = sidecar.read(beton, columns=False)
    except (UsageError, RunError) as error:
        log.warning("%s; writing it again", error)
        return False
    return found is not None and found.fingerprint == samples.fingerprint and found.options == options._asdict()


def _write(
    samples: Samples,
    out: Path,
    options: _Options,
    *,
    workers: int,
    progress: bool,
    remedy: str | None,
    claimed: int | None = None,
    automatic: bool = False,
) -> Written:
    """Writes the samples. remedy: what to do about a photo that cannot be read; None to skip such photos."""
    start = time.perf_counter()
    made_from = {"fingerprint": samples.fingerprint, "options": options._asdict(), "encoder": _encoder()}
    with BetonWriter(out, samples.count, claimed=claimed, made_from=made_from) as writer:
        counts = writer.counts
        resumed = counts.samples + len(counts.unreadable)
        if resumed:
            log.info("%s: resuming after %d of %d photos", out, resumed, samples.count)
        if counts.unreadable and remedy:
            raise UnreadablePhoto(f"{counts.unreadable[0].unreadable}, or {remedy}")
        try:
            with (
                show_progress("writing", samples.count, wanted=progress, done=resumed) as advance,
                closing(_load_all(samples, resumed, options, workers or available_cores())) as loaded,
            ):
                for sample, photo in loaded:
                    _add(writer, sample, photo, remedy)
                    advance(1)
        finally:
            kept = counts.samples
            if kept and kept + len(counts.unreadable) < samples.count:
                log.info("up to %d photos are kept in %s: run the command again to resume", kept, partial_path(out))
        writer.sidecar = Sidecar(
            classes=samples.classes,
            source=samples.source,
            options=options._asdict(),
            fingerprint=samples.fingerprint,
            made_for=os.path.abspath(samples.source) if automatic else "",
            counts={
                "samples": counts.samples,
                "passed_through": counts.samples - counts.reencoded.total(),
                "reencoded": dict(sorted(counts.reencoded.items())),
                "unreadable": len(counts.unreadable),
                "pixels": counts.pixels,
            },
        )
    report = _report(out, [line.unreadable for line in counts.unreadable])
    written = Written(
        path=out,
        samples=counts.samples,
        classes=len(samples.classes) or len(counts.labels),
        bytes=out.stat().st_size,
        passed_through=counts.samples - counts.reencoded.total(),
        reencoded=dict(sorted(counts.reencoded.items())),
        warnings=counts.warnings,
        unreadable=len(counts.unreadable),
        report=report,
        ignored=samples.ignored,
        left_out=list(samples.left_out),
        resumed=resumed,
        mean_pixels=counts.pixels // counts.samples,
        seconds=time.perf_counter() - start,
    )
    if written.mean_pixels > _LARGE and not options.max_side:
        log.warning(
            "%s: photos have %.1f million pixels on average, which are all decoded in every epoch: with "
            "`fastaugself write %s OUT.beton --max-side 500` loading is many times faster",
            out,
            written.mean_pixels / 1e6,
            samples.source,
        )
    return written


def _add(writer: BetonWriter, sample: Sample, photo: Photo | UnreadablePhoto, remedy: str | None) -> None:
    if isinstance(photo, UnreadablePhoto):
        if remedy:
            raise UnreadablePhoto(f"{photo}, or {remedy}") from photo
        log.warning("skipped: %s", photo)
        writer.leave_out(sample.name, str(photo))
        return
    if photo.warning:
        log.warning("%s: re-encoded because of a decoder warning: %s", sample.place, photo.warning)
    reencoded = photo.reencoded or ""
    writer.add(photo.image, sample.label, name=sample.name, reencoded=reencoded, warning=photo.warning)


def _refuse_faults(samples: Samples, remedy: str | None) -> None:
    """Raises UnreadablePhoto for the first sample that is known to be unreadable, before anything is written."""
    if samples.faults and remedy:
        number = min(samples.faults)
        others = len(samples.faults) - 1
        raise UnreadablePhoto(f"{samples.faults[number]}{f' ({others} more like this)' if others else ''}, or {remedy}")


def _report(out: Path, unreadable: list[str]) -> Path | None:
    """Writes the list of skipped photos next to the data; removes an older list if there are none."""
    path = Path(f"{out}.unreadable.txt")
    if not unreadable:
        path.unlink(missing_ok=True)
        return None
    lines = [line.encode("utf-8", "backslashreplace").replace(b"\n", b" ") + b"\n" for line in unreadable]
    path.write_bytes(b"".join(lines))
    return path


def _encoder() -> str:
    """Versions of the libraries that determine the bytes of re-encoded photos."""
    jpeg = features.version("libjpeg_turbo") or features.version("jpg")
    return f"Pillow {PIL.__version__}, libjpeg {jpeg}, simplejpeg {version('simplejpeg')}"


def _load_all(
    samples: Samples, start: int, options: _Options, workers: int
) -> Generator[tuple[Sample, Photo | UnreadablePhoto]]:
    """All photos from number `start`, in order, read and decoded by `workers` threads a few photos ahead."""

    def load(sample: Sample) -> tuple[Sample, Photo | UnreadablePhoto]:
        return sample, _load(sample, options)

    return ordered_map(load, samples.samples(start), workers=workers, ahead=_AHEAD * workers)


def _load(sample: Sample, options: _Options) -> Photo | UnreadablePhoto:
    try:
        data = sample.read()
        if isinstance(data, bytes):
            return convert(sample.place, data, max_side=options.max_side, quality=options.quality)
        return convert_pixels(sample.place, data, max_side=options.max_side)
    except UnreadablePhoto as error:
        return error


def _check_options(max_side: int, quality: int, workers: int) -> None:
    if not 0 <= max_side <= MAX_SIDE:
        raise UsageError(f"--max-side must be from 1 to {MAX_SIDE} pixels, or 0 for no limit, got {max_side}")
    if not 1 <= quality <= 100:
        raise UsageError(f"--quality must be from 1 to 100, got {quality}")
    if workers < 0:
        raise UsageError(f"--workers must be a number of threads, or 0 for one per core, got {workers}")
