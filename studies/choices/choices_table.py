"""The table of choices.json for results/<machine>/README.md."""

import statistics
from typing import Any

from fastaugself.bench.tables.table import Table

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # two-sided 95 % of Student's t for a mean of that many differences


def page(result: dict[str, Any]) -> str:
    """Accuracies of every choice, and their differences to the baseline at the same seed."""
    c = result["config"]
    about = (
        f"MoCo v3, ResNet-18 of half the width at {c['size']} px, {c['epochs']} epochs of {c['photos']} at a batch of "
        "256; accuracies in percent. Cost: processor time of a step on one thread, relative to the baseline's. "
        "Differences are paired by seed, with a 95 % t interval."
    )
    return f"{about}\n\n{choices_table(result).markdown()}"


def choices_table(result: dict[str, Any]) -> Table:
    """A row for the baseline, and one for every choice and budget."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in result["rows"]:
        found.setdefault((row["choice"], row["budget"]), {})[row["seed"]] = row
    base = found["baseline", "pairs"]
    head = ("", "equal", "cost", "epochs", "seeds", "k-NN", "difference", "linear", "difference", "RankMe")
    rows = []
    order = {name: i for i, name in enumerate(result["costs"]["cost"])}
    for (choice, budget), seeds in sorted(found.items(), key=lambda item: (order[item[0][0]], item[0][1])):
        cells = [choice, "" if choice == "baseline" else budget, f"{result['costs']['cost'][choice]:.2f}"]
        cells += [str(next(iter(seeds.values()))["epochs"]), str(len(seeds))]
        for metric in ("knn", "linear"):
            cells.append(f"{100 * statistics.mean(row[metric] for row in seeds.values()):.1f}")
            shared = sorted(seeds.keys() & base.keys()) if choice != "baseline" else []
            cells.append(difference([100 * (seeds[s][metric] - base[s][metric]) for s in shared]))
        cells.append(f"{statistics.mean(row['rankme'] for row in seeds.values()):.0f}")
        rows.append(tuple(cells))
    return Table(head, rows)


def difference(values: list[float]) -> str:
    """The mean of paired differences with its interval; no interval for a single pair."""
    if not values:
        return ""
    mean = statistics.mean(values)
    if len(values) not in T_95:
        return f"{mean:+.1f}"
    half = T_95[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"
