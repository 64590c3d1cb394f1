"""Scores of equivariance against slow loops, and for features whose scores are known."""

import itertools
import math

import pytest
import torch

from fastaugself.evaluation.equivariance import Standard, fit_predictor, measure, summary
from fastaugself.probes.equivariance import ceiling, chance, score_photos


def looped(y, yhat, a):
    """MRR, H@1, H@5, PRE and gain of one photo by definition, without ties; y [K][E], yhat [K][K][E], a [K][n]."""
    K = len(y)

    def cosine(u, v):
        dot = sum(p * q for p, q in zip(u, v, strict=True))
        return dot / math.sqrt(sum(p * p for p in u) * sum(q * q for q in v))

    sums = [0.0] * 5
    for i in range(K):
        for j in range(K):
            if i == j:
                continue
            order = sorted(range(K), key=lambda k: 1 - cosine(yhat[i][j], y[k]))
            rank = order.index(j) + 1
            sums[0] += 1 / rank
            sums[1] += rank <= 1
            sums[2] += rank <= 5
            sums[3] += math.dist(a[order[0]], a[j])
            sums[4] += cosine(y[j], yhat[i][j]) - cosine(y[j], y[i])
    return [value / (K * (K - 1)) for value in sums]


def over_orders(tied_before, tied):
    """Mean of 1/r, r <= 1 and r <= 5 over all orders of the tied views, for one of them."""
    ranks = [tied_before + order.index(0) + 1 for order in itertools.permutations(range(tied))]
    return [sum(f(r) for r in ranks) / len(ranks) for f in (lambda r: 1 / r, lambda r: r <= 1, lambda r: r <= 5)]


@pytest.mark.parametrize(("K", "E", "n"), [(2, 1, 1), (3, 5, 2), (9, 7, 13)])
def test_scores_agree_with_a_loop_over_pairs(K, E, n):
    generator = torch.Generator().manual_seed(K + E)
    y = torch.randn(5, K, E + 1, generator=generator) * torch.tensor(10.0).pow(torch.arange(5) - 2)[:, None, None]
    yhat, a = torch.randn(5, K, K, E + 1, generator=generator), torch.randn(5, K, n, generator=generator)
    yhat = yhat + y[:, None] / y.norm(dim=-1)[:, None, :, None]  # so that ranks are neither all at chance nor all first
    expected = [looped(*(t[photo].double().tolist() for t in (y, yhat, a))) for photo in range(5)]
    found = torch.stack(list(score_photos(y, yhat, a)), 1)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert found.shape == (5, 5) and not torch.equal(found[0], found[1])


def test_ties_are_in_random_order():
    y = torch.tensor([[[1.0, 0], [0, 1], [0, 1], [0, 1]]])  # views 1, 2 and 3 are equal
    a = torch.tensor([[[0.0], [1], [3], [5]]])
    yhat = y[:, None].expand(1, 4, 4, 2)  # perfect predictions
    found = [float(value) for value in score_photos(y, yhat, a)]
    first, tied = over_orders(0, 1), over_orders(0, 3)
    pairs = 3 * [first] + 9 * [tied]  # target 0 from three sources, targets 1, 2 and 3 from three each
    assert found[:3] == pytest.approx([sum(pair[m] for pair in pairs) / 12 for m in range(3)])
    # The nearest view of target 0 is itself, that of the others any of the three.
    distance = {1: (0 + 2 + 4) / 3, 2: (2 + 0 + 2) / 3, 3: (4 + 2 + 0) / 3}
    assert found[3] == pytest.approx(3 * sum(distance.values()) / 12)
    assert found[4] == pytest.approx(6 / 12)  # 1 for the pairs of orthogonal views, 0 for those of equal ones

    best = [float(value) for value in ceiling(torch.tensor([[[0.0], [1], [1], [1]]]))]
    assert best[:3] == pytest.approx(found[:3]) and best[3] == 0
    assert [float(value) for value in ceiling(a)][:4] == [1, 1, 1, 0]


@pytest.mark.parametrize("K", [2, 4, 8])
def test_features_without_any_variation_have_the_scores_of_chance(K):
    generator = torch.Generator().manual_seed(0)
    photo = torch.randn(6, 1, 9, generator=generator)
    y = photo.expand(6, K, 9) * (1 + 1e-7 * torch.randn(6, K, 9, generator=generator))  # rounding errors of float32
    yhat, a = torch.randn(6, K, K, 9, generator=generator), torch.randn(6, K, 3, generator=generator)
    found, expected = score_photos(y, yhat, a), chance(a)
    for name in ("mrr_N", "h1_N", "h5_N", "pre_N"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    assert float(expected.mrr_N[0]) == pytest.approx(sum(1 / r for r in range(1, K + 1)) / K)
    assert float(expected.h1_N[0]) == 1 / K and float(expected.h5_N[0]) == min(1, 5 / K)
    zero = score_photos(torch.zeros(6, K, 9), yhat, a)  # a collapsed encoder after standardisation
    torch.testing.assert_close(zero.mrr_N, expected.mrr_N)
    assert float(zero.gain_N.abs().max()) == 0


def test_random_features_have_the_scores_of_chance_within_the_interval():
    generator = torch.Generator().manual_seed(4)
    f, a = torch.randn(500, 8, 16, generator=generator), torch.rand(500, 8, 4, generator=generator)
    predictor = fit_predictor(f[:200], a[:200], epochs=5, hidden=64)
    unit = Standard(a[:200].flatten(0, 1))
    found = summary(measure(predictor, f[200:], a[200:], unit(a[200:])), unit(a[200:]), seed=0)
    # The source is ranked too. A prediction that copies it ranks it first, and the target at random among the others;
    # one that ignores it ranks all K at random, which is chance.
    copied = (found.chance["MRR"] * 8 - 1) / 7
    score = found.scores["MRR"]
    assert score.low <= found.chance["MRR"] and score.high >= copied and score.high - score.low < 0.03
    independent = torch.randn(300, 8, 8, 16, generator=generator)
    found = summary(score_photos(f[200:], independent, unit(a[200:])), unit(a[200:]), seed=0)
    for metric in ("MRR", "H@1", "H@5", "PRE"):
        assert found.scores[metric].low <= found.chance[metric] <= found.scores[metric].high, metric


def test_features_that_are_the_parameters_are_predicted():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(700, 6, 3, generator=generator)
    f = torch.cat([a, torch.ones(700, 6, 1)], 2)  # and a feature without variation
    predictor = fit_predictor(f[:500], a[:500], epochs=15, hidden=128)
    found = summary(measure(predictor, f[500:], a[500:], a[500:], chunk=33), a[500:], seed=0)
    assert found.scores["MRR"].low > 0.9 and found.scores["gain"].low > 0.3
    assert found.scores["PRE"].high < 0.1 * found.chance["PRE"] and found.ceiling["MRR"] == 1
    whole = measure(predictor, f[500:], a[500:], a[500:], chunk=1000)
    parts = measure(predictor, f[500:], a[500:], a[500:], chunk=33)
    torch.testing.assert_close(torch.stack(list(whole)), torch.stack(list(parts)), rtol=1e-3, atol=1e-4)


def test_a_predictor_of_any_kind_is_ranked_and_gets_both_views_parameters():
    class Own:
        """Embeds the first feature's angle, and turns by the difference of the parameters; f is a photo's own angle."""

        def embed_view(self, f_BD):
            return torch.stack([f_BD[:, 0].cos(), f_BD[:, 0].sin()], 1)

        def predict_view(self, f_BD, a_from_Bn, a_to_Bn):
            return self.embed_view(f_BD + a_to_Bn - a_from_Bn)

    generator = torch.Generator().manual_seed(0)
    a = torch.rand(20, 5, 1, generator=generator)
    f = 6 * torch.rand(20, 1, 1, generator=generator) + a
    found = measure(Own(), f, a, a, chunk=7)
    assert float(found.mrr_N.min()) == 1 and float(found.pre_N.max()) == 0
    # From i to j, and not from j to i: mirrored parameters predict wrong views.
    assert float(measure(Own(), f, -a, a).mrr_N.mean()) < 0.6
    cosines = (a[:, :, None, 0] - a[:, None, :, 0]).cos()
    expected = 1 - (cosines.sum((1, 2)) - 5) / 20
    torch.testing.assert_close(found.gain_N, expected.double(), rtol=1e-5, atol=1e-6)


def test_columns_without_variation_are_zero_and_others_standardised():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=generator, dtype=torch.float64).float() * torch.tensor([2.0, 0.01, 1e-7]) + 5
    found = Standard(x)(x)
    assert torch.equal(found[:, 2], torch.zeros(400))
    torch.testing.assert_close(found[:, :2].mean(0), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(found[:, :2].std(0), torch.ones(2), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("y", "yhat", "a", "message"),
    [
        (torch.ones(3, 1, 4), torch.ones(3, 1, 1, 4), torch.ones(3, 1, 2), "K >= 2"),
        (torch.ones(3, 2, 4), torch.ones(3, 2, 4), torch.ones(3, 2, 2), r"got \(3, 2, 4\), \(3, 2, 4\)"),
        (torch.ones(3, 2, 4), torch.ones(3, 2, 2, 4) * math.nan, torch.ones(3, 2, 2), "NaN or Inf"),
    ],
)
def test_wrong_shapes_and_nan_are_refused(y, yhat, a, message):
    with pytest.raises(ValueError, match=message):
        score_photos(y, yhat, a)
