"""`fastaugself info`: summary of a `.beton` file, and its decoding rate on this machine."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..readers.native import decode_into
from . import manifest, sidecar
from .format import RAW, Beton

_EDGES = (0, 64, 128, 256, 384, 512, 768, 1024, 2048, 4096, 65536)  # histogram of the longer side, pixels
_BAR = 40  # characters
_DECODED = 200  # photos decoded at most to measure the rate
_SECONDS = 1.0  # time limit of that measurement


def facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Summary of a `.beton` file as plain values: samples, classes, sizes in pixels, bytes, and the decoding rate.

    The rate is in photos per second on one core, measured on photos taken evenly from the whole file. Everything else
    comes from the index and the sidecar. `source` and `counts` are those recorded by the writer, if there is a sidecar.

    Raises UsageError if the file is not a `.beton` file, RunError if it is damaged.
    """
    with Beton(path) as beton:
        found = sidecar.read(beton, columns=False)
        pixels_N = beton.sizes_N2.astype(np.int64).prod(1)
        labels, photos = np.unique(beton.labels_N[beton.labels_N >= 0], return_counts=True)
        raw = int((beton.modes_N == RAW).sum())
        rate, measured, fault = _rate(beton)
        return {
            "path": str(path),
            "samples": beton.num_samples,
            "bytes": beton.path.stat().st_size,
            "jpeg": beton.num_samples - raw,
            "raw": raw,
            "stored_bytes": _min_mean_max(beton.bytes_N),
            "decoded_bytes": float(3 * pixels_N.mean()),
            "height": _min_mean_max(beton.sizes_N2[:, 0]),
            "width": _min_mean_max(beton.sizes_N2[:, 1]),
            "median_pixels": float(np.median(pixels_N)),
            "longer_sides": _histogram(beton.sizes_N2.max(1)),
            "classes": found.classes if found else [],
            "photos_per_label": dict(zip(map(str, labels.tolist()), photos.tolist(), strict=True)),
            "without_label": beton.num_samples - int(photos.sum()),
            "source": found.source if found else None,
            "counts": found.counts if found else {},
            "manifest": manifest.read_end(path) is not None,
            "decoded_per_second": rate,
            "decoded": measured,
            "decode_fault": fault,
        }


def describe(known: Mapping[str, Any]) -> str:
    """Formats the result of `facts` as lines of text."""
    stored, height, width = known["stored_bytes"], known["height"], known["width"]
    lines = [
        f"{known['path']}: {known['samples']} photos, {known['bytes'] / 1e6:.1f} MB",
        f"stored   {known['jpeg']} JPEG, {known['raw']} raw, {stored['mean'] / 1e3:.1f} kB per photo on average, "
        f"{stored['min'] / 1e3:.1f} to {stored['max'] / 1e3:.1f}",
        f"sizes    height {height['min']} to {height['max']}, width {width['min']} to {width['max']}, "
        f"median {known['median_pixels'] / 1e3:.0f} thousand pixels, "
        f"decoded {known['decoded_bytes'] / 1e6:.2f} MB per photo",
        *_bars(known["longer_sides"]),
        f"labels   {_labels(known)}",
    ]
    if known["source"] is not None:
        lines += _origin(known["source"], known["counts"])
    lines.append(f"manifest {'present' if known['manifest'] else 'none: verify can only decode the photos'}")
    lines.append(
        f"decode   about {known['decoded_per_second']:,.0f} photos per second and core on this machine (measured on "
        f"{known['decoded']})"
        if known["decode_fault"] is None
        else f"decode   {known['decode_fault']}; `fastaugself verify {known['path']}` finds all faults"
    )
    return "\n".join(lines)


def _min_mean_max(values_N: NDArray[np.integer]) -> dict[str, float]:
    return {"min": values_N.min().item(), "mean": float(values_N.mean()), "max": values_N.max().item()}


def _histogram(sides_N: NDArray[np.int32]) -> list[dict[str, int]]:
    """Number of photos per range of the longer side in pixels, without empty ranges at either end."""
    counts = np.histogram(sides_N, _EDGES)[0].tolist()
    filled = np.flatnonzero(counts)
    ranges = range(int(filled[0]), int(filled[-1]) + 1)
    return [{"from": _EDGES[i], "to": _EDGES[i + 1] - 1, "photos": counts[i]} for i in ranges]


def _bars(histogram: Sequence[Mapping[str, int]]) -> list[str]:
    most = max(row["photos"] for row in histogram)
    return [
        f"         longer side {row['from']:5d} to {row['to']:5d}  {row['photos']:9d}  "
        f"{'#' * -(-_BAR * row['photos'] // most)}".rstrip()
        for row in histogram
    ]


def _labels(known: Mapping[str, Any]) -> str:
    classes, photos = known["classes"], known["photos_per_label"].values()
    if not photos:
        return "none"
    names = f": {', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''}" if classes else ", without names"
    without = f", {known['without_label']} without a label" if known["without_label"] else ""
    return f"{len(photos)} classes{names}; {min(photos)} to {max(photos)} photos each{without}"


def _origin(source: str, counts: Mapping[str, Any]) -> list[str]:
    lines = [f"source   {source}"]
    if "passed_through" in counts:
        reasons = "".join(f", {count} re-encoded: {why}" for why, count in counts.get("reencoded", {}).items())
        left_out = counts.get("unreadable", 0)
        skipped = f", {left_out} skipped as unreadable" if left_out else ""
        lines.append(f"written  {counts['passed_through']} copied unchanged{reasons}{skipped}")
    return lines


def _rate(beton: Beton) -> tuple[float | None, int, str | None]:
    """Photos per second on one core, number of photos measured, fault of a photo or None; decodes one to warm up."""
    chosen = np.linspace(0, beton.num_samples - 1, min(_DECODED, beton.num_samples)).astype(int).tolist()
    out = np.empty(int(beton.sizes_N2[chosen].astype(np.int64).prod(1).max()) * 3, np.uint8)
    began, done = 0.0, -1
    for sample in [chosen[0], *chosen]:
        if why := decode_into(beton, sample, out):
            return None, max(done, 0), f"sample {sample} cannot be decoded: {why}"
        done += 1
        began = began or time.process_time()
        if time.process_time() - began > _SECONDS:
            break
    return done / max(time.process_time() - began, 1e-9), done, None
