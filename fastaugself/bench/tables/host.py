"""The table of `bench step --host`."""

from statistics import median

from ..harness import Record
from .table import Table, number, with_origin


def host_table(result: Record) -> Table:
    """Host time and collectives of every method, by number of processes."""
    head = ("", "processes", "host ms per step", "rounds", "gathers", "reductions", "gradient buckets")
    rows: list[tuple[str, ...]] = []
    for row in result["rows"]:
        times, counts = row["milliseconds"], row["collectives"]
        spread = f"{number(min(times))} to {number(max(times))}"
        values = (row["processes"], number(median(times)), spread, counts["gather"], counts["reduce"], row["buckets"])
        rows.append((row["name"], *map(str, values)))
    return Table(head, rows)


def page(result: Record) -> str:
    """The setting and the table."""
    c = result["config"]
    kind = "compiled" if c["compile"] else "eager"
    about = (
        f"{c['backbone']} of width {c['width']} at {c['size']} px, batches of {c['batch']} per process, {kind}: every "
        "operation of the full width, whose kernels take next to no time here. Other ranks are a fake process group."
    )
    return f"{about}\n\n{host_table(result).markdown()}"


def block(result: Record, path: str) -> str:
    """The table for README.md; path: of the record, from the repository's root."""
    return with_origin(page(result), result, path)
