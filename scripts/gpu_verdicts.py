"""What a GPU round prints: its plan, and the verdicts of its parts."""

import os
from pathlib import Path
from typing import Any

from gpu_parts import ROOT, Folders, Machine, calls, parts

RESERVE = 15.0  # seconds of a call for its start and its end

Verdict = dict[str, Any]


def print_verdict(verdict: Verdict, before: str = "") -> None:
    """One line for a verdict, and one for each kind of figure."""
    spent = f"{verdict['seconds']:g} of {verdict['budget']:g} s" if "budget" in verdict and "seconds" in verdict else ""
    line = f"{before}{verdict['name']:9} {verdict['state']:8} {spent:14} {verdict.get('reason', '')}"
    print(line.rstrip(), flush=True)
    for name, value in verdict.get("figures", {}).items():
        print(f"    {name.replace('_', ' ')}: {_short(value)}", flush=True)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def show_plan(limit: float) -> int:
    """Prints the parts on one GPU with their budgets, and how many calls they take at most."""
    machine = Machine("GPU", 1, os.cpu_count() or 1, frozenset({"timm", "triton", "xdist"}))
    planned = parts(machine, Folders(Path("PHOTOS.beton"), Path("OUT"), Path("RUN"), ROOT))
    for part in planned:
        print(f"{part.name:9} {part.skipped or f'{part.seconds:4g} s'}")
    needed = calls(planned, limit - RESERVE)
    total = sum(part.seconds for part in planned if not part.skipped)
    print(
        f"at most {total:g} s in {len(needed)} calls of {limit:g} s: {'; '.join(' '.join(names) for names in needed)}"
    )
    return 0
