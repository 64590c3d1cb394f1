"""`fastaugself info`: what a `.beton` file holds, and how fast it decodes on this machine."""

import os
import time

import numpy as np
from numpy.typing import NDArray

from . import manifest, sidecar
from .beton import RAW, Beton
from .native import decode_into

_EDGES = (0, 64, 128, 256, 384, 512, 768, 1024, 2048, 4096, 65536)  # of the longer side, pixels
_BAR = 40  # characters
_DECODED = 200  # photos at most, to tell the rate
_SECONDS = 1.0  # spent on that at most


def describe(path: str | os.PathLike[str]) -> str:
    """Several lines of text: samples, classes, sizes in pixels, bytes, what was encoded again, and the decode rate.

    The rate is that of one core, measured on photos spread evenly over the file; everything else is read from its
    index and its sidecar.

    Raises UsageError for what is not a `.beton` file, RunError for a damaged one.
    """
    with Beton(path) as beton:
        found = sidecar.read(beton, columns=False)
        pixels_N = beton.sizes_N2[:, 0].astype(np.int64) * beton.sizes_N2[:, 1]
        raw, stored, decoded = int((beton.modes_N == RAW).sum()), beton.bytes_N.mean(), 3 * pixels_N.mean()
        heights, widths = beton.sizes_N2[:, 0], beton.sizes_N2[:, 1]
        size = beton.path.stat().st_size
        lines = [
            f"{path}: {beton.num_samples} photos, {size / 1e6:.1f} MB",
            f"stored   {beton.num_samples - raw} JPEG, {raw} raw, {stored / 1e3:.1f} kB a photo on average, "
            f"{beton.bytes_N.min() / 1e3:.1f} to {beton.bytes_N.max() / 1e3:.1f}",
            f"sizes    height {heights.min()} to {heights.max()}, width {widths.min()} to {widths.max()}, "
            f"median {np.median(pixels_N) / 1e3:.0f} thousand pixels, decoded {decoded / 1e6:.2f} MB a photo",
            *_histogram(beton.sizes_N2.max(1)),
            f"labels   {_labels(beton.labels_N, found.classes if found else [])}",
        ]
        if found is not None:
            lines += _origin(found)
        described = "beside it" if manifest.read_end(path) else "none: verify can only decode"
        lines.append(f"manifest {described}")
        lines.append(f"decode   {_rate(beton)}")
        return "\n".join(lines)


def _histogram(sides_N: NDArray[np.int32]) -> list[str]:
    counts = np.histogram(sides_N, _EDGES)[0]
    filled = np.flatnonzero(counts)
    lines = []
    for i in range(filled[0], filled[-1] + 1):
        bar = "#" * -(-_BAR * int(counts[i]) // int(counts.max()))
        lines.append(f"         longer side {_EDGES[i]:5d} to {_EDGES[i + 1] - 1:5d}  {counts[i]:9d}  {bar}".rstrip())
    return lines


def _labels(labels_N: NDArray[np.int64], classes: list[str]) -> str:
    labels, counts = np.unique(labels_N[labels_N >= 0], return_counts=True)
    if not len(labels):
        return "none"
    names = f": {', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''}" if classes else ", without names"
    without = f", {len(labels_N) - counts.sum()} without a label" if counts.sum() < len(labels_N) else ""
    return f"{len(labels)} classes{names}; {counts.min()} to {counts.max()} photos each{without}"


def _origin(found: sidecar.Sidecar) -> list[str]:
    lines = [f"source   {found.source}"]
    if "passed_through" in found.counts:
        again = found.counts.get("reencoded", {})
        reasons = "".join(f", {count} encoded again: {why}" for why, count in again.items())
        left_out = found.counts.get("unreadable", 0)
        skipped = f", {left_out} left out as unreadable" if left_out else ""
        lines.append(f"written  {found.counts['passed_through']} stored as they were{reasons}{skipped}")
    return lines


def _rate(beton: Beton) -> str:
    """Photos a second on one core, from a few of them; the first is decoded once before, to warm up."""
    chosen = np.linspace(0, beton.num_samples - 1, min(_DECODED, beton.num_samples)).astype(int).tolist()
    out = np.empty(int(beton.sizes_N2[chosen].astype(np.int64).prod(1).max()) * 3, np.uint8)
    began, done = 0.0, -1
    for sample in [chosen[0], *chosen]:
        if why := decode_into(beton, sample, out):
            return f"sample {sample} cannot be decoded: {why}; `fastaugself verify {beton.path}` finds all such"
        done += 1
        began = began or time.process_time()
        if time.process_time() - began > _SECONDS:
            break
    seconds = max(time.process_time() - began, 1e-9)
    return f"about {done / seconds:,.0f} photos a second and core on this machine (measured on {done})"
