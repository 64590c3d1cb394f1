"""The tables of `bench augment`."""

import re

from ..harness import Record
from .table import Table, feature_std, with_origin

ABOUT_PEERS = """\
`albumentationsx` as it comes and `kornia` do not antialias, `albumentationsx-area` averages areas where it shrinks.
`dali` and `cv-cuda` have a linear map of colours in place of the jitter, and `no resize` is the set of operations that
triton-augment has. `oracle` is the readable PyTorch that ours is held to, view by view, on batches, and compiled.
"""


def augment_table(result: Record) -> Table:
    """Every row of `bench augment`, and who was left out."""
    counted = any(row["launches"] is not None for row in result["rows"])
    rows: list[tuple[str, ...]] = []
    for row in result["rows"]:
        launches = (f"{row['launches'] or ''}",) if counted else ()
        speed = (f"{row['views_per_s']:,.0f}", f"{row['gb_per_s']:.2f}", f"{row['percent_of_copy']:.1f}")
        rows.append((row["name"], *speed, *launches, feature_std(result, row["name"])))
    for peer in result["left_out"]:
        rows.append((peer["name"], "", "", "", *(("",) if counted else ()), f"left out: {peer['reason']}"))
    launches = ("launches",) if counted else ()
    return Table(("", "views/s", "GB/s", "% of copy", *launches, "ours is faster by (lowest to highest)"), rows)


def augment_summary(result: Record) -> Table:
    """Ours and the fastest row of each library in the main case of `bench augment`; of a GPU in its other cases too."""
    on_gpu = result["environment"]["device"] != "cpu"
    best: dict[tuple[str, str], Record] = {}
    for row in result["rows"]:
        library = row["name"] if row["name"].startswith("fastaugself") else re.split("[-,]", row["name"])[0]
        key = (library, row["case"])
        shown = row["case"] == "" or (on_gpu and row["case"] != ", 1 view")
        if shown and library != "oracle" and row["views_per_s"] > best.get(key, {"views_per_s": 0})["views_per_s"]:
            best[key] = row
    rows: list[tuple[str, ...]] = [
        (row["name"], f"{row['views_per_s']:,.0f}", feature_std(result, row["name"])) for row in best.values()
    ]
    return Table(("", "views/s", "ours is faster by (lowest to highest)"), rows)


def emission_table(result: Record) -> Table:
    """What targets and descriptors cost."""
    rows: list[tuple[str, ...]] = []
    for row in result["emission"]:
        low, high = row["percent"]["quartiles"]
        rows.append((row["name"] + row["case"], f"{row['percent']['median']:+.2f} %", f"{low:+.2f} to {high:+.2f} %"))
    return Table(("emitted beside the parameters", "time", "half of the pairs"), rows)


def block(result: Record, path: str) -> str:
    """See documents.Tables."""
    return with_origin(augment_summary(result).markdown(), result, path)


def page(result: Record) -> str:
    """See documents.Tables."""
    return f"{augment_table(result).markdown()}\n{ABOUT_PEERS}\n{emission_table(result).markdown()}"
