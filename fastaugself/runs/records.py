"""Reads the JSON records of a run."""

import json
import math
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file, sorted by step. The last object of a step counts; damaged lines are skipped."""
    found: dict[int, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
                found[int(record["step"])] = record
            except (ValueError, KeyError, TypeError):
                continue
    return [found[step] for step in sorted(found)]


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Flattens nested values to text by dotted option name, as on the command line."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            found[(prefix + name).replace("_", "-")] = text
    return found


def final_mean(points: list[tuple[int, float]]) -> float:
    """The mean over the last tenth of the steps. points: (step, mean value since the previous point)."""
    start, total, weight, before = 0.9 * points[-1][0], 0.0, 0.0, 0
    for step, value in points:
        within = max(0.0, step - max(before, start))
        total, weight, before = total + within * value, weight + within, step
    return total / weight


def without_stub(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of metrics.jsonl, without a noisy last record that covers far fewer steps than the others."""
    steps = [0, *(r["step"] for r in records)]
    spans = [b - a for a, b in pairwise(steps)]
    return records[:-1] if len(spans) > 2 and spans[-1] < 0.5 * median(spans) else records
