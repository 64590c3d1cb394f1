"""Time of the check's scores on synthetic features: by one process while the others wait, and divided among all.

    python scripts/check_cost.py [--bank 20000] [--queries 50000] [--width 2048] [--classes 1000] [--rounds 3]
    torchrun --nproc-per-node=2 scripts/check_cost.py ...

Prints a table with the median of each part in both ways, measured in turns in the same run, and their ratio; then the
operations and the bytes that a process of 8 would have. On CUDA if available. --json FILE also writes the numbers.
"before" computes k-NN, RankMe and ridge regression on one process with a general solver and one-hot targets, as before
they were divided; accuracies of both ways must agree.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fastaugself import distributed
from fastaugself.distributed import World, all_gather, sum_over_processes
from fastaugself.probes.extract import BATCH
from fastaugself.probes.knn import knn_predict
from fastaugself.probes.rankme import rankme
from fastaugself.probes.ridge import ridge_accuracy

RANKED = 2048


def features(count: int, width: int, labels: Tensor, device: torch.device, seed: int) -> Tensor:
    """Features around a random centre for each class, as those of a network in training."""
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(int(labels.max()) + 1, width, generator=random) * torch.arange(1, width + 1) ** -0.5
    noise = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return (centres[labels] + 0.3 * noise).to(device)


def plain_ridge(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Accuracy of a ridge regression on one process, with a general solver."""
    x, y = bank.double(), torch.nn.functional.one_hot(labels).double()
    mean, std = x.mean(0), x.std(0).clamp(min=1e-8)
    x, x_test = (x - mean) / std, (queries.double() - mean) / std
    gram = x.T @ x + torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    predicted = (x_test @ torch.linalg.solve(gram, x.T @ (y - y.mean(0))) + y.mean(0)).argmax(1)
    return float((predicted == truth).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("bank", 20_000), ("queries", 50_000), ("width", 2048), ("classes", 1000), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with distributed.joined("auto") as world:
        measure(options, world)


def measure(options: argparse.Namespace, world: World) -> None:
    random = torch.Generator().manual_seed(1)
    labels = torch.cat(
        [torch.arange(options.classes), torch.randint(options.classes, (options.bank,), generator=random)]
    )
    labels = labels[: options.bank]
    truth = torch.randint(options.classes, (options.queries,), generator=random)
    bank = features(options.bank, options.width, labels, world.device, 2)
    queries = features(options.queries, options.width, truth, world.device, 3)
    labels, truth = labels.to(world.device), truth.to(world.device)
    own_bank = slice(options.bank * world.rank // world.size, options.bank * (world.rank + 1) // world.size)
    places = [-(-options.queries // BATCH) * r // world.size * BATCH for r in range(world.size + 1)]
    own = slice(places[world.rank], min(places[world.rank + 1], options.queries))

    def share_knn() -> float:
        padded = torch.zeros(-(-options.bank // world.size), options.width, device=world.device)
        padded[: own_bank.stop - own_bank.start] = bank[own_bank]
        all_gather(padded)  # what gathering the bank costs; the bank itself is already here
        right = (knn_predict(bank, labels, queries[own], chunk=BATCH) == truth[own]).sum()
        return int(sum_over_processes(right)) / options.queries

    def share_rankme() -> float:
        found = torch.zeros((), dtype=torch.float64, device=world.device)
        if world.is_main:
            found += rankme(queries[:RANKED])
        return float(sum_over_processes(found))

    def share_ridge() -> float:
        return ridge_accuracy(
            bank[own_bank],
            labels[own_bank],
            queries[own],
            truth[own],
            values_C=labels.unique(),
            total=sum_over_processes,
        )

    parts: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "knn": (lambda: float((knn_predict(bank, labels, queries) == truth).double().mean()), share_knn),
        "rankme": (lambda: rankme(queries[:RANKED]), share_rankme),
        "ridge": (lambda: plain_ridge(bank, labels, queries, truth), share_ridge),
    }
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in parts}
    values: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, (before, after) in parts.items():
            for i, work in enumerate((before if world.is_main else lambda: float("nan"), after)):
                spent, value = timed(work, world)
                seconds[name][i].append(spent)
                values.setdefault(name, [0.0, 0.0])[i] = value
    if world.is_main:
        report(options, world, seconds, values)


def timed(work: Callable[[], float], world: World) -> tuple[float, float]:
    """Seconds until all processes have finished, and the result."""
    distributed.barrier()
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)
    began = time.perf_counter()
    value = work()
    distributed.barrier()
    return time.perf_counter() - began, value


def report(
    options: argparse.Namespace,
    world: World,
    seconds: dict[str, tuple[list[float], list[float]]],
    values: dict[str, list[float]],
) -> None:
    print(
        f"{options.bank:,} bank, {options.queries:,} queries, {options.width:,} features, {options.classes:,} classes"
    )
    print(f"{world.size} x {world.device.type}, {torch.get_num_threads()} thread(s) each, {options.rounds} rounds\n")
    print(f"{'':<8} {'before':>9} {'after':>9} {'before / after, by round'}")
    ratios = {}
    for name, (before, after) in seconds.items():
        ratios[name] = [b / a for b, a in zip(before, after, strict=True)]
        shown = " ".join(f"{ratio:.2f}" for ratio in ratios[name])
        print(f"{name:<8} {statistics.median(before):8.2f}s {statistics.median(after):8.2f}s {shown}")
        if abs(values[name][0] - values[name][1]) > 1e-6 * abs(values[name][0]):
            raise SystemExit(f"{name}: {values[name][0]} before, {values[name][1]} after")
    bank, queries, width, classes = options.bank, options.queries, options.width, options.classes
    knn, gram, solve = 2 * bank * queries * width, 2 * bank * width**2, width**3 // 3
    print(
        f"\nof 8 processes, each: k-NN {knn / 8 / 1e12:.2f} TFLOP in float32; ridge {gram / 8 / 1e9:.0f} + "
        f"{2 * queries * width * classes / 8 / 1e9:.0f} GFLOP divided and {solve / 1e9:.0f} GFLOP not, in float64;"
    )
    print(f"the bank of {bank * width * 4 / 1e6:.0f} MB is gathered, a matrix of {width**2 * 8 / 1e6:.0f} MB is summed")
    if options.json:
        record = {"config": vars(options) | {"json": str(options.json)}, "processes": world.size}
        rows = [{"name": n, "before": b, "after": a, "ratio": ratios[n]} for n, (b, a) in seconds.items()]
        options.json.write_text(json.dumps({**record, "device": world.device.type, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
