"""The tables of the training benchmarks: `bench step`, `e2e` and `scale`."""

from ..harness import Record
from .table import Table, number, with_origin


def rates_table(result: Record) -> Table:
    """The rows of any benchmark: the rate, with the lowest and highest of its rounds."""
    unit = next(key for key in result["rows"][0] if key.endswith("_per_s"))
    rows: list[tuple[str, ...]] = [
        (row["name"], number(row[unit]), f"{number(min(row['rounds']))} to {number(max(row['rounds']))}")
        for row in result["rows"]
    ]
    rows += [(peer["name"], "", f"left out: {peer['reason']}") for peer in result.get("left_out", ())]
    return Table(("", unit.replace("_per_s", "/s").replace("_", " "), "rounds"), rows)


def ratios_table(result: Record) -> Table:
    """The ratios of any benchmark."""
    rows: list[tuple[str, ...]] = []
    for name, ratio in result["ratios"].items():
        if isinstance(ratio, dict) and "median" in ratio:
            rows.append((name, number(ratio["median"]), f"{number(ratio['min'])} to {number(ratio['max'])}"))
        elif isinstance(ratio, int | float):
            rows.append((name, number(ratio), ""))
    return Table(("ratio", "", "rounds"), rows)


def block(result: Record, path: str) -> str:
    """All tables, for README.md; path: of the record, from the repository's root."""
    return with_origin(page(result), result, path)


def page(result: Record) -> str:
    """All tables of the record."""
    tables = [rates_table(result), ratios_table(result), *breakdown_tables(result)]
    return "\n".join([_setup(result), *(table.markdown() for table in tables if table.rows), *_sentences(result)])


def _setup(result: Record) -> str:
    """The setting, and the meaning of the ratios."""
    c = result["config"]
    if "bound" in result:
        ratio = "the speed-up of the default over the row"
    elif "data_wait" in result:
        ratio = "the rate of whole training relative to its steps alone"
    else:
        ratio = "the rate per process relative to that of the first row"
    trained = f"{c['method']}, {c['backbone']} of width {c['width']} at {c['size']} px, batches of {c['batch']} pairs"
    return f"{trained}. A ratio is {ratio}.\n"


def breakdown_tables(result: Record) -> list[Table]:
    """The breakdown of a step: by kind of step for `bench step`, by number of processes for `bench scale`."""
    kinds = result.get("breakdown") or {row["name"]: row["breakdown"] for row in result["rows"] if "breakdown" in row}
    names = list(dict.fromkeys(part for parts in kinds.values() for part in parts))
    rows: list[tuple[str, ...]] = []
    for name in names:
        cells = [f"{parts[name] * 1e3:,.1f} ({parts[name] / sum(parts.values()):.0%})" if name in parts else ""
                 for parts in kinds.values()]  # fmt: skip
        rows.append((name, *cells))
    return [Table(("part of a step, ms", *kinds), rows)] if rows else []


def _sentences(result: Record) -> list[str]:
    found = []
    if result.get("bound"):
        bound = result["bound"]
        found.append(
            f"The default reaches {bound['share']:.0%} of the bound of {bound['samples_per_s']:,.0f} samples/s.\n"
        )
    if "data_wait" in result:
        idle = result["device_idle"]
        rest = "" if idle is None else f", and the device was idle for {idle:.1%}"
        found.append(f"Training waited for data for {result['data_wait']:.1%} of the time{rest}.\n")
    return found
