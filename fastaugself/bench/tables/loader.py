"""The tables of `bench loader`."""

from ..harness import Record
from .rates import ratios_table
from .table import Table, ratio_range, with_origin

LOADER_RATIOS = {
    "decode_vs_ffcv_twice": "decoded photos; FFCV decodes for each view",
    "decode_vs_ffcv_twice_with_crops": "decoded photos; FFCV decodes and crops for each view",
    "views_vs_ffcv_ssl": "two views; FFCV-SSL's design",
    "views_vs_dataloader_albumentationsx": "two views; PyTorch's DataLoader with AlbumentationsX",
    "views_vs_dataloader_pil": "two views; PyTorch's DataLoader with PIL",
}


def loader_table(result: Record) -> Table:
    """All rows of `bench loader`, and the contestants left out."""
    rows: list[tuple[str, ...]] = []
    for row in result["rows"]:
        memory = "" if row["memory_mb"] is None else f"{row['memory_mb']:,.0f}"
        speed = (f"{row[key]:,.0f}" for key in ("samples_per_s_per_core", "samples_per_s", "mb_per_s"))
        rows.append((row["contestant"], row["job"], row["storage"], str(row["workers"]), *speed, memory))
    rows += [(peer["name"], *("",) * 6, f"left out: {peer['reason']}") for peer in result["left_out"]]
    return Table(("", "makes", "stored", "cores", "photos/s per core", "photos/s", "MB/s", "memory, MB"), rows)


def loader_summary(result: Record) -> Table:
    """The ratios of `bench loader` for JPEG on one core, with the compared rates."""
    rates = {
        row["contestant"]: f"{row['samples_per_s_per_core']:,.0f}"
        for row in result["rows"]
        if (row["storage"], row["workers"]) == ("jpeg", 1)
    }
    rows: list[tuple[str, ...]] = []
    for name, words in LOADER_RATIOS.items():
        if name in result["ratios"]:
            ratio = result["ratios"][name]
            rows.append((words, rates[ratio["ours"]], rates[ratio["other"]], ratio_range(result, name)))
    return Table(("job; peer", "ours, photos/s", "peer", "speed-up of ours (lowest to highest)"), rows)


def block(result: Record, path: str) -> str:
    """The most important rows for README.md; path: of the record, from the repository's root."""
    return with_origin(loader_summary(result).markdown(), result, path)


def page(result: Record) -> str:
    """All tables of the record."""
    return f"{loader_table(result).markdown()}\n{ratios_table(result).markdown()}"
