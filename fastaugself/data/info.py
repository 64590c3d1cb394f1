"""`fastaugself info`: what a `.beton` file holds, from its index and its sidecar alone."""

import os

import numpy as np

from . import sidecar
from .beton import RAW, Beton


def describe(path: str | os.PathLike[str]) -> str:
    """Several lines of text: samples, classes, sizes in pixels, bytes.

    Raises UsageError for what is not a `.beton` file, RunError for a damaged one.
    """
    with Beton(path) as beton:
        found = sidecar.read(beton, samples=False)
        labels = np.unique(beton.labels_N)
        pixels_N = beton.sizes_N2.astype(np.int64).prod(1)
        raw, stored, decoded = int((beton.modes_N == RAW).sum()), beton.bytes_N.mean(), 3 * pixels_N.mean()
        heights, widths = beton.sizes_N2[:, 0], beton.sizes_N2[:, 1]
        lines = [
            f"{path}: {beton.num_samples} photos, {beton.path.stat().st_size / 1e6:.1f} MB",
            f"stored   {beton.num_samples - raw} JPEG, {raw} raw, {stored / 1e3:.1f} kB a photo on average",
            f"sizes    height {heights.min()} to {heights.max()}, width {widths.min()} to {widths.max()}, "
            f"median {np.median(pixels_N) / 1e3:.0f} thousand pixels, decoded {decoded / 1e6:.2f} MB a photo",
            f"labels   {_labels(labels, found.classes if found else [])}",
        ]
        if found is not None:
            lines.append(f"source   {found.source}")
            again = found.counts.get("reencoded", {})
            if "passed_through" in found.counts:
                reasons = "".join(f", {count} encoded again: {why}" for why, count in again.items())
                lines.append(f"written  {found.counts['passed_through']} stored as they were{reasons}")
        return "\n".join(lines)


def _labels(labels: np.ndarray, classes: list[str]) -> str:
    if labels.max() < 0:
        return "none"
    names = f": {', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''}" if classes else ", without names"
    return f"{len(labels)} classes{names}"
