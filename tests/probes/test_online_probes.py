"""The probes of the checks during training: ridge regression and k-NN against plain formulas, whole and in shares."""

import math
import threading

import pytest
import torch

from fastaugself.probes.knn import knn_accuracy, knn_predict
from fastaugself.probes.ridge import ridge_accuracy, ridge_r2


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_ridge(train, targets, test, penalty):
    """Standardised features, one solve with the whole matrix, in float64."""
    x, y = train.double(), targets.double()
    mean, std = x.mean(0), x.std(0).clamp(min=1e-8)
    x, x_test = (x - mean) / std, (test.double() - mean) / std
    weights = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1]), x.T @ (y - y.mean(0)))
    return x_test @ weights + y.mean(0)


def data(samples=203, width=17):
    """Features of very different scales, one of them constant, with labels and targets that they tell something of."""
    x = random(samples, width) * torch.logspace(-3, 3, width) + 10
    x[:, 4] = 2.5
    labels = (random(samples, 1, seed=1).squeeze(1) + x[:, 9] / x[:, 9].std() > 3).long() * 70_000 + 5
    labels[::7] = 11
    return x, labels, torch.stack([x[:, 2] * 3 + random(samples, seed=2) * 0.1, random(samples, seed=3)], 1)


@pytest.mark.parametrize("penalty", [1e-3, 1.0, 100.0])
def test_ridge_is_the_plain_formula(penalty):
    x, labels, y = data()
    predicted = plain_ridge(x[:120], y[:120], x[120:], penalty)
    truth = y[120:].double()
    expected = 1 - (predicted - truth).square().sum(0) / (truth - truth.mean(0)).square().sum(0)
    assert ridge_r2(x[:120], y[:120], x[120:], y[120:], penalty=penalty) == pytest.approx(
        float(expected.mean()), rel=1e-9
    )
    values = labels[:120].unique()
    one_hot = (labels[:120, None] == values).double()
    right = values[plain_ridge(x[:120], one_hot, x[120:], 1.0).argmax(1)] == labels[120:]
    assert ridge_accuracy(x[:120], labels[:120], x[120:], labels[120:]) == float(right.double().mean())


class Processes:
    """Sums over threads that stand for processes."""

    def __init__(self, count):
        self.barrier, self.parts = threading.Barrier(count), [None] * count

    def of(self, rank):
        def total(x):
            self.parts[rank] = x
            self.barrier.wait()
            summed = torch.stack([part.clone() for part in self.parts]).sum(0)
            self.barrier.wait()
            return summed

        return total

    def run(self, work):
        results = [None] * len(self.parts)

        def call(rank):
            results[rank] = work(rank, self.of(rank))

        threads = [threading.Thread(target=call, args=(rank,)) for rank in range(len(self.parts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return results


@pytest.mark.parametrize("train_ends", [(0, 60, 120), (0, 0, 120), (0, 1, 7, 120)])
def test_shares_of_the_samples_give_the_results_of_all(train_ends):
    """Also where a process has no sample, or not all classes."""
    x, labels, y = data()
    count = len(train_ends) - 1
    test_ends = [120, *(150, 180)[: count - 1], 203]
    values = labels[:120].unique()

    def work(rank, total):
        a, b = slice(*train_ends[rank : rank + 2]), slice(*test_ends[rank : rank + 2])
        return (
            ridge_accuracy(x[a], labels[a], x[b], labels[b], values_C=values, total=total),
            ridge_r2(x[a], y[a], x[b], y[b], total=total),
        )

    alone = ridge_accuracy(x[:120], labels[:120], x[120:], labels[120:]), ridge_r2(x[:120], y[:120], x[120:], y[120:])
    for found in Processes(count).run(work):
        assert found == pytest.approx(alone, rel=1e-9)


def test_a_single_training_sample_predicts_its_own_class():
    x, labels, _ = data()
    assert ridge_accuracy(x[:1], labels[:1], x[1:], labels[1:]) == float((labels[1:] == labels[0]).double().mean())


def looped_knn(bank, labels, queries, neighbors, temperature):
    """Weighted votes by a plain loop in float64; of equal votes the smallest label."""
    found = []
    bank, queries = bank.double().tolist(), queries.double().tolist()

    def cosine(a, b):
        dot = sum(p * q for p, q in zip(a, b, strict=True))
        return dot / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))

    for query in queries:
        nearest = sorted(((cosine(query, row), i) for i, row in enumerate(bank)), reverse=True)[:neighbors]
        votes = {}
        for similarity, i in nearest:
            votes[int(labels[i])] = votes.get(int(labels[i]), 0.0) + math.exp((similarity - 1) / temperature)
        best = max(votes.values())
        found.append(min(label for label, vote in votes.items() if vote > best * (1 - 1e-9)))
    return torch.tensor(found)


def test_knn_is_a_plain_loop():
    bank, queries = random(60, 9), random(33, 9, seed=1)
    labels = torch.randint(4, (60,), generator=torch.Generator().manual_seed(2)) * 1000
    expected = looped_knn(bank, labels, queries, 7, 0.1)
    assert torch.equal(knn_predict(bank, labels, queries, neighbors=7, temperature=0.1), expected)
    assert knn_accuracy(bank, labels, queries, expected, neighbors=7, temperature=0.1) == 1


@pytest.mark.parametrize("chunk", [7, 32])
def test_ties_of_the_knn_do_not_depend_on_how_chunks_are_divided(chunk):
    """Every photo of the bank three times under different labels: more equally near ones than neighbours."""
    rows = torch.randint(-2, 3, (50, 8), generator=torch.Generator().manual_seed(0)).float()
    rows[:, 0] += 0.5
    bank, labels = rows.repeat(3, 1), torch.arange(150) % 7
    queries = torch.cat([rows, random(21, 8, seed=1)])
    whole = knn_predict(bank, labels, queries, neighbors=4, chunk=chunk)
    for sizes in ([chunk, 71 - chunk], [0, 71], [2 * chunk, 71 - 2 * chunk]):
        parts = [part for part in queries.split(sizes) if len(part)]
        assert torch.equal(torch.cat([knn_predict(bank, labels, x, neighbors=4, chunk=chunk) for x in parts]), whole)


def test_equal_votes_go_to_the_smallest_label():
    bank = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    assert knn_predict(bank, torch.tensor([9, 4, 1]), torch.tensor([[1.0, 0]]), neighbors=2).tolist() == [4]
