"""Result files: one JSON file per evaluation, and one table of all of them.

A row is the score of one model, or of a fusion of several, in one protocol on one data set.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..environment import environment
from ..errors import UsageError
from ..files import replace_file, utf8
from ..html.page import page
from ..probes.intervals import CONFIDENCE, Score
from .cache import key_of

COLUMNS = ("protocol", "data", "models", "fusion", "metric", "value", "low", "high", "seed", "samples", "file")


@dataclass(frozen=True)
class Row:
    """models: their names. fusion: kind of fusion, "" for a single model. details: further results as JSON values."""

    models: tuple[str, ...]
    fusion: str
    metric: str
    score: Score
    samples: int
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The row's label in tables, see `label`."""
        return label(" + ".join(self.models), self.fusion)

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        score = {"value": self.score.value, "low": self.score.low, "high": self.score.high}
        return {**asdict(self), "models": list(self.models), "score": None, **score}


def write_result(
    out: Path,
    *,
    protocol: str,
    data: str,
    rows: Sequence[Row],
    seed: int,
    options: dict[str, Any],
    adds: dict[str, float] | None = None,
    details: dict[str, Any] | None = None,
    device: torch.device,
    seconds: float,
) -> Path:
    """Writes `out/PROTOCOL-DATA-MODELS-KEY.json`, updates `results.csv` and `results.md`; returns the JSON's path.

    The key is a hash of the options: the same evaluation replaces its result, another one does not. adds: see
    `run.Result`. details: further entries of the file. Raises UsageError if `out` cannot be written.
    """
    written = []
    for row in rows:
        values = row.to_json()
        values.pop("score")
        written.append(values)
    models = dict.fromkeys(name for row in rows for name in row.models)
    record = {
        "protocol": protocol,
        "data": data,
        "seed": seed,
        "confidence": CONFIDENCE,
        "options": options,
        "rows": written,
        **({"adds": adds} if adds else {}),
        **(details or {}),
        "seconds": seconds,
        "environment": environment(device),
    }
    key = key_of(json.dumps([protocol, data, seed, options], sort_keys=True, default=str))[:8]
    stem = re.sub(r"[^\w.+-]+", "_", f"{protocol}-{data}-{'+'.join(models)}")[:120]
    path = out / f"{stem}-{key}.json"
    try:
        replace_file(path, utf8(json.dumps(record, indent=2, default=str) + "\n"))
        write_tables(out)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror}): pass another folder") from error
    return path


def write_html(path: Path, heading: str, body: str) -> Path:
    """Writes an HTML page, and returns its path; UsageError if it cannot be written."""
    try:
        replace_file(path, utf8(page(heading, body)))
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): pass another --out") from error
    return path


def read_results(out: Path) -> list[dict[str, Any]]:
    """The rows of all result files of a folder, sorted, each a dictionary with the keys COLUMNS."""
    rows = []
    for path in sorted(out.glob("*.json")):
        try:
            record = json.loads(path.read_text())
            for row in record["rows"]:
                values = {**row, **{name: record[name] for name in ("protocol", "data", "seed")}, "file": path.name}
                values["models"] = " + ".join(row["models"])
                rows.append({name: values[name] for name in COLUMNS})
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another kind of file
    return sorted(rows, key=lambda row: (row["protocol"], row["data"], row["metric"], row["models"]))


def write_tables(out: Path) -> None:
    """Writes `results.csv` and `results.md` from the JSON files in the folder."""
    rows = read_results(out)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(out / "results.csv", utf8(text.getvalue()))
    head = "| protocol | data | models | metric | value | 95 % interval |\n|---|---|---|---|---|---|\n"
    lines = [
        f"| {r['protocol']} | {r['data']} | {label(r['models'], r['fusion'])} | {r['metric']} | {number(r['value'])} | "
        f"{number(r['low'])} to {number(r['high'])} |\n"
        for r in rows
    ]
    replace_file(out / "results.md", utf8(head + "".join(lines)))


def label(models: str, fusion: str) -> str:
    """Label of a row: the models, and the kind of fusion unless it is concatenation."""
    return f"{models} ({fusion})" if fusion not in ("", "concat") else models


def number(value: float) -> str:
    """A score as text: four decimals, fewer for large numbers, more for small ones."""
    size = abs(value)
    if size and size < 0.01:
        return f"{value:.6f}"
    return f"{value:.4f}" if size < 10 else f"{value:.2f}"


def table(rows: Sequence[Row]) -> str:
    """The rows as text for the console."""
    lines = []
    width = max(len(row.label) for row in rows)
    for row in rows:
        low, high = number(row.score.low), number(row.score.high)
        lines.append(f"{row.label:<{width}}  {row.metric} {number(row.score.value)}  ({low} to {high})")
    return "\n".join(lines)
