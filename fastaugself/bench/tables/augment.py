"""The tables of `bench augment`."""

import re

from ..harness import Record
from .table import Table, ratio_range, with_origin

ABOUT_PEERS = """\
`albumentationsx` (its defaults) and `kornia` do not antialias; `albumentationsx-area` averages areas when it shrinks.
`dali` and `cv-cuda` have a linear map of colours instead of the jitter, and `no resize` is the set of operations that
triton-augment has. `oracle` is our PyTorch reference: view by view, on batches, and compiled.
"""


def augment_table(result: Record) -> Table:
    """All rows of `bench augment`, and the contestants left out."""
    counted = any(row["launches"] is not None for row in result["rows"])
    rows: list[tuple[str, ...]] = []
    for row in result["rows"]:
        launches = (f"{row['launches'] or ''}",) if counted else ()
        speed = (f"{row['views_per_s']:,.0f}", f"{row['gb_per_s']:.2f}", f"{row['percent_of_copy']:.1f}")
        rows.append((row["name"], *speed, *launches, ratio_range(result, row["name"])))
    for peer in result["left_out"]:
        rows.append((peer["name"], "", "", "", *(("",) if counted else ()), f"left out: {peer['reason']}"))
    launches = ("launches",) if counted else ()
    return Table(("", "views/s", "GB/s", "% of copy", *launches, "speed-up of ours (lowest to highest)"), rows)


def augment_summary(result: Record) -> Table:
    """Ours and the fastest row of each library in the main case of `bench augment`; on a GPU, in other cases too."""
    on_gpu = result["environment"]["device"] != "cpu"
    best: dict[tuple[str, str], Record] = {}
    for row in result["rows"]:
        library = row["name"] if row["name"].startswith("fastaugself") else re.split("[-,]", row["name"])[0]
        key = (library, row["case"])
        shown = row["case"] == "" or (on_gpu and row["case"] != ", 1 view")
        if shown and library != "oracle" and row["views_per_s"] > best.get(key, {"views_per_s": 0})["views_per_s"]:
            best[key] = row
    rows: list[tuple[str, ...]] = [
        (row["name"], f"{row['views_per_s']:,.0f}", ratio_range(result, row["name"])) for row in best.values()
    ]
    return Table(("", "views/s", "speed-up of ours (lowest to highest)"), rows)


def emission_table(result: Record) -> Table:
    """Additional time for targets and descriptors."""
    rows: list[tuple[str, ...]] = []
    for row in result["emission"]:
        low, high = row["percent"]["quartiles"]
        rows.append((row["name"] + row["case"], f"{row['percent']['median']:+.2f} %", f"{low:+.2f} to {high:+.2f} %"))
    return Table(("computed in addition", "additional time", "quartiles"), rows)


def block(result: Record, path: str) -> str:
    """The most important rows for README.md; path: of the record, from the repository's root."""
    return with_origin(augment_summary(result).markdown(), result, path)


def page(result: Record) -> str:
    """All tables of the record."""
    return f"{augment_table(result).markdown()}\n{ABOUT_PEERS}\n{emission_table(result).markdown()}"
