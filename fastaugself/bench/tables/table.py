"""Shared by the tables of all benchmarks."""

from dataclasses import dataclass
from pathlib import Path

from ..harness import Record

LIBRARIES = {
    "torch": "torch",
    "triton": "Triton",
    "numba": "numba",
    "pillow": "Pillow",
    "torchvision": "torchvision",
    "FFCV": "FFCV",
    "opencv-python-headless": "OpenCV",
    "albumentationsx": "AlbumentationsX",
    "kornia": "Kornia",
    "triton-augment": "triton-augment",
    "nvidia-dali-cuda120": "DALI",
    "cvcuda-cu12": "CV-CUDA",
}


@dataclass(frozen=True)
class Table:
    """head: names of the columns. rows: one cell per column; first a name, then numbers or a reason."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        rule = ("---", *("--:" for _ in self.head[1:]))
        lines = [f"| {' | '.join(cells)} |" for cells in (self.head, rule, *self.rows)]
        return "\n".join(lines).replace("|  |", "| |") + "\n"


def number(value: float) -> str:
    """About three significant digits; whole numbers from 100."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"


def ratio_range(result: Record, name: str) -> str:
    """A ratio with the lowest and highest of its rounds; empty if the record has no ratio of this name."""
    ratio = result["ratios"].get(name)
    return f"{ratio['median']:.1f}x ({ratio['min']:.1f} to {ratio['max']:.1f})" if ratio else ""


def machine(result: Record) -> str:
    """Machine, date, commit and versions of a record, in one line."""
    environment = result["environment"]
    versions = {**environment["versions"], **result["config"].get("peers", {})}
    named = [f"{name} {versions[key]}" for key, name in LIBRARIES.items() if versions.get(key)]
    if environment["device"] == "cpu":
        where = f"{environment['cpu']}, {result['config'].get('threads')} of {environment['cores']} cores"
    else:
        where = environment["gpu"]
    return f"{where}, {result['date']}, commit {environment['commit']}; {', '.join(named)}"


def with_origin(text: str, result: Record, path: str) -> str:
    """Adds a line below a table for README.md: machine, date, commit, and a link to all rows."""
    where = machine(result).split(";")[0]
    return f"{text}\n<sub>{where}. All rows and versions: [{Path(path).parent}]({Path(path).parent}/README.md).</sub>\n"
