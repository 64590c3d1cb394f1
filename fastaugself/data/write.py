"""`fastaugself write`: a folder of photos to one `.beton` file."""

import logging
import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from ..errors import RunError, UsageError
from . import sidecar
from .beton import MAX_SIDE, Beton
from .cores import available_cores
from .inputs import open_samples
from .inputs.samples import Sample, Samples
from .photo import Photo, convert, convert_pixels
from .sidecar import Sidecar
from .writer import BetonWriter, claim, partial_path, release

log = logging.getLogger(__name__)

_LARGE = 1_500_000  # pixels a photo, beyond which decoding takes longer than anything else in a step


class Written(NamedTuple):
    """path: the file. samples, classes: how many. bytes: of the file.

    passed_through: JPEGs stored as they were. reencoded: count by reason, such as {"PNG": 3, "EXIF rotation": 1}.
    warnings: file name and message where a decoder complained of a photo that it could nevertheless decode.
    ignored: files that are no photos by their names. mean_pixels: a photo. seconds: of the job.
    """

    path: Path
    samples: int
    classes: int
    bytes: int
    passed_through: int
    reencoded: dict[str, int]
    warnings: list[str]
    ignored: int
    mean_pixels: int
    seconds: float

    def __str__(self) -> str:
        again = ", ".join(f"{count} {reason}" for reason, count in self.reencoded.items())
        return (
            f"{self.path}: {self.samples} photos, {self.classes or 'no'} classes, {self.bytes / 1e6:.1f} MB; "
            f"{self.passed_through} stored as they were, {self.samples - self.passed_through} encoded again"
            f"{f' ({again})' if again else ''}; {self.seconds:.1f} s"
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
) -> Written:
    """Writes the photos below `source` to the `.beton` file `out`, and their names and classes to `OUT.beton.json`.

    source: a folder whose subfolders are the classes, or a folder of photos (label -1). max_side: longest side in
    pixels, larger photos are made smaller; 0 for no limit. quality: JPEG quality of what must be encoded again.
    workers: threads, 0 for one a core. progress: show a bar, where stderr is a terminal. overwrite: replace `out`.

    Every photo is decoded once; JPEG bytes are stored untouched where they can be (photo.py says when). The same folder
    gives the same bytes. Nothing stands under the name `out` before it is whole.

    Raises UsageError for wrong use, RunError naming the photo that cannot be read.
    """
    out = Path(out)
    _check_options(max_side, quality, workers)
    if out.is_dir():
        raise UsageError(f"{out} is a folder: give the name of the file to write, such as {out / 'train.beton'}")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists: pass --overwrite to replace it, or another name")
    return _write(open_samples(source), out, max_side=max_side, quality=quality, workers=workers, progress=progress)


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
    options = {"max_side": max_side, "quality": 90}
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
    log.info("%s", _write(samples, out, **options, progress=progress, claimed=fd))
    return out


def _is_current(out: Path, samples: Samples, options: dict[str, int]) -> bool:
    if not out.exists():
        return False
    try:
        with Beton(out) as beton:
            found = sidecar.read(beton, samples=False)
    except (UsageError, RunError) as error:
        log.warning("%s; it is written again", error)
        return False
    return found is not None and found.fingerprint == samples.fingerprint and found.options == options


def _write(
    samples: Samples,
    out: Path,
    *,
    max_side: int,
    quality: int,
    progress: bool,
    workers: int = 0,
    claimed: int | None = None,
) -> Written:
    start = time.perf_counter()
    reasons: Counter[str] = Counter()
    complaints: list[str] = []
    names: list[str] = []
    pixels = 0
    with BetonWriter(out, samples.count, claimed=claimed) as writer, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
        for sample, photo in _load_all(samples, max_side, quality, workers or available_cores(), progress):
            writer.add(photo.image, sample.label)
            names.append(sample.name)
            pixels += photo.height * photo.width
            if photo.reencoded:
                reasons[photo.reencoded] += 1
            if photo.warning:
                complaints.append(f"{sample.name}: {photo.warning}")
                log.warning("%s: encoded again, because its decoder says: %s", sample.place, photo.warning)
        passed_through = samples.count - reasons.total()
        again = dict(sorted(reasons.items()))
        writer.sidecar = Sidecar(
            classes=samples.classes,
            source=samples.source,
            options={"max_side": max_side, "quality": quality},
            fingerprint=samples.fingerprint,
            counts={"samples": samples.count, "passed_through": passed_through, "reencoded": again},
            files=names,
        )
    written = Written(
        path=out,
        samples=samples.count,
        classes=len(samples.classes),
        bytes=out.stat().st_size,
        passed_through=passed_through,
        reencoded=again,
        warnings=complaints,
        ignored=samples.ignored,
        mean_pixels=pixels // samples.count,
        seconds=time.perf_counter() - start,
    )
    if written.mean_pixels > _LARGE and not max_side:
        log.warning(
            "%s: photos have %.1f million pixels on average, all of them decoded every epoch: with "
            "`fastaugself write %s OUT.beton --max-side 500` loading is many times faster",
            out,
            written.mean_pixels / 1e6,
            samples.source,
        )
    return written


def _load_all(
    samples: Samples, max_side: int, quality: int, workers: int, progress: bool
) -> Iterator[tuple[Sample, Photo]]:
    """Every photo in order, read and decoded by `workers` threads that run at most a few photos ahead."""
    ahead: deque[tuple[Sample, Future[Photo]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="write")
    with _progress(progress) as bar, closing(samples.samples()) as todo:
        task = bar.add_task("writing", total=samples.count)
        try:
            for sample in todo:
                ahead.append((sample, pool.submit(_load, sample, max_side, quality)))
                if len(ahead) > 4 * workers:
                    sample, future = ahead.popleft()
                    yield sample, future.result()
                    bar.advance(task)
            while ahead:
                sample, future = ahead.popleft()
                yield sample, future.result()
                bar.advance(task)
        finally:
            pool.shutdown(cancel_futures=True)


def _load(sample: Sample, max_side: int, quality: int) -> Photo:
    data = sample.read()
    if isinstance(data, bytes):
        return convert(sample.place, data, max_side=max_side, quality=quality)
    return convert_pixels(sample.place, data, max_side=max_side)


class _Rate(ProgressColumn):
    """Photos a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} photos/s" if task.speed else "", style="progress.data.speed")


def _progress(wanted: bool) -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not (wanted and console.is_terminal), transient=True)


def _check_options(max_side: int, quality: int, workers: int) -> None:
    if not 0 <= max_side <= MAX_SIDE:
        raise UsageError(f"max_side is {max_side}, expected 1 to {MAX_SIDE} pixels, or 0 for no limit")
    if not 1 <= quality <= 100:
        raise UsageError(f"quality is {quality}, expected 1 to 100")
    if workers < 0:
        raise UsageError(f"workers is {workers}, expected a number of threads, or 0 for one a core")
