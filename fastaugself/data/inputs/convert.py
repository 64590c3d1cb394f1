"""`fastaugself write`: a collection of photos to one `.beton` file."""

import logging
import os
import time
import warnings
from collections.abc import Generator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import PIL
from PIL import features

from ...errors import RunError, UsageError
from ..beton import sidecar
from ..beton.format import MAX_SIDE, Beton
from ..beton.sidecar import Sidecar
from ..beton.writer import BetonWriter, claim, partial_path, release
from ..cores import available_cores
from ..parallel import ordered_map
from ..progress import progress as show_progress
from . import open_samples
from .photo import Photo, convert, convert_pixels
from .samples import Columns, Sample, Samples, UnreadablePhoto
from .subset import ClassSamples, read_classes

log = logging.getLogger(__name__)

_LARGE = 1_500_000  # pixels a photo, beyond which decoding takes longer than anything else in a step
_AHEAD = 4  # photos per thread that are read and decoded before they are written


class _Options(NamedTuple):
    """How photos are converted: what the same bytes depend on beside the photos."""

    max_side: int = 0
    quality: int = 90


class Written(NamedTuple):
    """path: the file. samples, classes: how many. bytes: of the file.

    passed_through: photos stored as they were. reencoded: count by reason, such as {"PNG": 3, "EXIF rotation": 1}.
    warnings: name and message where a decoder complained of a photo that it could nevertheless decode.
    unreadable: photos left out, which the file `report` lists (None if none were). ignored: files that are no photos.
    resumed: photos that an earlier run had done, which did not come to its end.
    mean_pixels: a photo. seconds: of this run.
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
    resumed: int
    mean_pixels: int
    seconds: float

    def __str__(self) -> str:
        again = ", ".join(f"{count} {reason}" for reason, count in self.reencoded.items())
        return (
            f"{self.path}: {self.samples} photos, {self.classes or 'no'} classes, {self.bytes / 1e6:.1f} MB; "
            f"{self.passed_through} stored as they were, {self.samples - self.passed_through} encoded again"
            f"{f' ({again})' if again else ''}"
            f"{f'; {self.unreadable} left out, see {self.report}' if self.unreadable else ''}"
            f"{f'; {self.resumed} done earlier' if self.resumed else ''}; {self.seconds:.1f} s"
        )


def write_photos(
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

    source: a folder whose subfolders are the classes, a folder of photos (label -1), or another kind of collection that
    inputs/ knows. max_side: longest side in pixels, larger photos are made smaller; 0 for no limit. quality: JPEG
    quality of what must be encoded again. workers: threads, 0 for one a core. progress: say how far it is.
    overwrite: replace `out`. skip_unreadable: leave photos out that cannot be read, and list them in
    OUT.beton.unreadable.txt. columns: which to read, of a collection that has columns. classes: which to keep, a file
    with a name a line or `imagenet100`; "" for all.

    Every photo is decoded once; JPEG bytes are stored untouched where they can be (photo.py says when). The same
    collection gives the same bytes. Nothing stands under the name `out` before it is whole and was read back. A run
    that was stopped, however, is continued by the next one with the same collection and options.

    Raises UsageError for wrong use, UnreadablePhoto (a RunError) naming the photo that cannot be read.
    """
    out = Path(out)
    _check_options(max_side, quality, workers)
    if out.is_dir():
        raise UsageError(f"{out} is a folder: give the name of the file to write, such as {out / 'train.beton'}")
    if out.suffix != ".beton":
        raise UsageError(f"the file to write must end in .beton, got {out}; the photos come first, then the file")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists: pass --overwrite to replace it, or another name")
    options = _Options(max_side, quality)
    kept = read_classes(classes) if classes else None
    samples = open_samples(source, columns)
    if kept is not None:
        samples = ClassSamples(samples, kept)
    return _write(samples, out, options, workers=workers, progress=progress, skip_unreadable=skip_unreadable)


def ensure_beton(path: str | os.PathLike[str], *, max_side: int = 0, progress: bool = True) -> Path:
    """The `.beton` file of `path`: itself if it is a file; for a folder of photos, `FOLDER.beton` beside it.

    The folder is written once. Later calls reuse the file if names, sizes and times of the photos are what they were,
    else it is written again. Processes that ask at the same time wait for the one that writes.

    Raises UsageError where there is nothing at `path` or the place beside it may not be written.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder; pass a .beton file or a folder of photos")
        return path
    samples = open_samples(path)
    out = Path(f"{os.path.abspath(path)}.beton")
    options = _Options(max_side)
    if _is_current(out, samples, options):
        log.info("using %s, written earlier from %s (%d photos)", out, path, samples.count)
        return out
    try:
        fd = claim(partial_path(out), wait=True)
    except UsageError as error:
        raise UsageError(
            f"{out} cannot be written beside the photos ({error}): write it to another place with "
            f"`fastaugself write {path} OUT.beton` and pass that"
        ) from error
    if _is_current(out, samples, options):  # written by another process while this one waited
        release(partial_path(out), fd)
        return out
    what = "the photos or options changed: writing again" if out.exists() else "writing, once,"
    log.info("%s %s from the photos in %s", what, out, path)
    written = _write(samples, out, options, workers=0, progress=progress, skip_unreadable=False, claimed=fd)
    log.info("%s", written)
    return out


def _is_current(out: Path, samples: Samples, options: _Options) -> bool:
    if not out.exists():
        return False
    try:
        with Beton(out) as beton:
            found = sidecar.read(beton, columns=False)
    except (UsageError, RunError) as error:
        log.warning("%s; it is written again", error)
        return False
    return found is not None and found.fingerprint == samples.fingerprint and found.options == options._asdict()


def _write(
    samples: Samples,
    out: Path,
    options: _Options,
    *,
    workers: int,
    progress: bool,
    skip_unreadable: bool,
    claimed: int | None = None,
) -> Written:
    start = time.perf_counter()
    made_from = {"fingerprint": samples.fingerprint, "options": options._asdict(), "encoder": _encoder()}
    with BetonWriter(out, samples.count, claimed=claimed, made_from=made_from) as writer, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
        counts = writer.counts
        resumed = counts.samples + len(counts.unreadable)
        if resumed:
            log.info("%s: going on after %d of %d photos, written earlier", out, resumed, samples.count)
        if counts.unreadable and not skip_unreadable:
            raise UnreadablePhoto(_skippable(counts.unreadable[0].unreadable))
        try:
            with (
                show_progress("writing", samples.count, wanted=progress, done=resumed) as advance,
                closing(_load_all(samples, resumed, options, workers or available_cores())) as loaded,
            ):
                for sample, photo in loaded:
                    _add(writer, sample, photo, skip_unreadable)
                    advance(1)
        finally:
            kept = counts.samples
            if kept and kept + len(counts.unreadable) < samples.count:
                log.info("up to %d photos stay in %s: the same command goes on from there", kept, partial_path(out))
        writer.sidecar = Sidecar(
            classes=samples.classes,
            source=samples.source,
            options=options._asdict(),
            fingerprint=samples.fingerprint,
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
        resumed=resumed,
        mean_pixels=counts.pixels // counts.samples,
        seconds=time.perf_counter() - start,
    )
    if written.mean_pixels > _LARGE and not options.max_side:
        log.warning(
            "%s: photos have %.1f million pixels on average, all of them decoded every epoch: with "
            "`fastaugself write %s OUT.beton --max-side 500` loading is many times faster",
            out,
            written.mean_pixels / 1e6,
            samples.source,
        )
    return written


def _add(writer: BetonWriter, sample: Sample, photo: Photo | UnreadablePhoto, skip_unreadable: bool) -> None:
    if isinstance(photo, UnreadablePhoto):
        if not skip_unreadable:
            raise UnreadablePhoto(_skippable(str(photo))) from photo
        log.warning("left out: %s", photo)
        writer.leave_out(sample.name, str(photo))
        return
    if photo.warning:
        log.warning("%s: encoded again, because its decoder says: %s", sample.place, photo.warning)
    reencoded = photo.reencoded or ""
    writer.add(photo.image, sample.label, name=sample.name, reencoded=reencoded, warning=photo.warning)


def _skippable(message: str) -> str:
    return f"{message}, or pass --skip-unreadable to leave such photos out"


def _report(out: Path, unreadable: list[str]) -> Path | None:
    """Lists the photos that were left out beside the data, or removes an older list."""
    path = Path(f"{out}.unreadable.txt")
    if not unreadable:
        path.unlink(missing_ok=True)
        return None
    lines = [line.encode("utf-8", "backslashreplace").replace(b"\n", b" ") + b"\n" for line in unreadable]
    path.write_bytes(b"".join(lines))
    return path


def _encoder() -> str:
    """The versions on which the bytes of photos that are encoded again depend."""
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
        raise UsageError(f"--workers must be a number of threads, or 0 for one a core, got {workers}")
