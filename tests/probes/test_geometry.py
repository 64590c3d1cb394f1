"""LiDAR, alpha-ReQ, CKA and the jackknife against their formulas in float64, written plainly, and in known cases."""

import math

import numpy as np
import pytest
import torch

from fastaugself.evaluation import geometry
from fastaugself.probes.alpha_req import LEAST, alpha_req, slope
from fastaugself.probes.cka import gram, linear_cka, without
from fastaugself.probes.intervals import jackknife_groups, jackknife_score
from fastaugself.probes.lidar import DELTA, EPSILON, lidar, lidar_of_scatter, scatter
from fastaugself.probes.rankme import rankme


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_lidar(x_NQD):
    """LiDAR by its definition: sums over photos and views, and a symmetric inverse square root."""
    x = x_NQD.double().numpy()
    count, views, width = x.shape
    means = [sum(x[i, q] for q in range(views)) / views for i in range(count)]
    grand = sum(means) / count
    between = sum(np.outer(m - grand, m - grand) for m in means) / (count - 1)
    within = sum(np.outer(x[i, q] - means[i], x[i, q] - means[i]) for i in range(count) for q in range(views))
    within = within / (count * (views - 1)) + DELTA * np.eye(width)
    values, axes = np.linalg.eigh(within)
    root = axes @ np.diag(values**-0.5) @ axes.T
    eigenvalues = np.clip(np.linalg.eigvalsh(root @ between @ root), 0, None)
    p = eigenvalues / eigenvalues.sum() + EPSILON
    return math.exp(-(p * np.log(p)).sum())


@pytest.mark.parametrize(("photos", "views", "width"), [(40, 3, 7), (2, 2, 5), (9, 11, 9), (301, 2, 4)])
def test_lidar_is_its_formula(photos, views, width):
    x = random(photos, 1, width) * torch.arange(1, width + 1) + 0.3 * random(photos, views, width, seed=1)
    expected = plain_lidar(x)
    # With fewer photos than features, the definition also adds EPSILON for directions that have no photos.
    assert lidar(x) == pytest.approx(expected, rel=1e-9 if photos >= width else 1e-4)


def test_lidar_counts_the_directions_that_views_do_not_change():
    base = torch.zeros(600, 6)
    base[:, :3] = random(600, 3)
    noise = 1e-2 * random(600, 8, 6, seed=1)
    noise[..., 3:] *= 1000  # large variation, but of the views
    x = base[:, None] + noise
    assert lidar(x) == pytest.approx(3, rel=0.01) and rankme(x.flatten(0, 1)) > 4
    assert lidar(base[:, None].expand(-1, 4, -1)) == pytest.approx(3, rel=0.01)  # views all alike


def test_the_scatter_of_parts_adds_up():
    x = random(700, 3, 5)
    means, within = zip(*(scatter(part) for part in x.split([1, 299, 400])), strict=True)
    assert lidar_of_scatter(torch.cat(means), sum(within), views=3) == pytest.approx(lidar(x), rel=1e-12)


@pytest.mark.parametrize("shape", [(3, 1, 4), (12, 4)])
def test_lidar_refuses_single_views(shape):
    with pytest.raises(ValueError, match="at least two views"):
        lidar(torch.zeros(shape))


def test_lidar_refuses_one_photo_and_nan():
    with pytest.raises(ValueError, match="two photos, got 1"):
        lidar(torch.zeros(1, 2, 3))
    for score, shape in ((lidar, (4, 2, 3)), (alpha_req, (40, 30)), (gram, (4, 3))):
        with pytest.raises(ValueError, match="NaN or Inf"):
            score(torch.full(shape, float("inf")))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_alpha_is_the_exponent_of_a_power_law(alpha):
    assert slope(torch.arange(1, 300, dtype=torch.float64) ** -alpha * 7) == pytest.approx(alpha, abs=1e-10)


@pytest.mark.parametrize(("samples", "width"), [(400, 130), (60, 200), (500, 40)])
def test_alpha_is_numpys_weighted_fit_of_the_covariance_spectrum(samples, width):
    x = random(samples, width) * torch.arange(1, width + 1) ** -0.7 + 5
    values = np.sort(np.linalg.eigvalsh(np.cov(x.double().numpy().T)))[::-1]
    values = values[: min(width, samples - 1)]
    ranks = np.arange(12, min(100, len(values)) + 1)
    fitted = np.polyfit(np.log(ranks), np.log(values[ranks - 1]), 1, w=ranks**-0.5)[0]  # squared by polyfit
    assert alpha_req(x) == pytest.approx(-fitted, rel=1e-7)


def test_alpha_needs_enough_eigenvalues():
    assert math.isnan(alpha_req(random(500, 11 + LEAST - 1))) and not math.isnan(alpha_req(random(500, 11 + LEAST)))
    assert math.isnan(alpha_req(torch.ones(50, 60)))


def plain_cka(x, y):
    """Kornblith's equation with feature space norms."""
    x, y = (z.double().numpy() - z.double().numpy().mean(0) for z in (x, y))
    return np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def test_cka_is_its_formula_and_ignores_rotation_and_scale():
    parts = [random(31, 5), random(31, 12, seed=1), random(31, 40, seed=2) + 3]
    rotation = torch.linalg.qr(random(12, 12, seed=3)).Q
    parts.append(parts[1] @ rotation * 7 + 1)
    found = linear_cka([gram(x) for x in parts])
    assert found.numpy() == pytest.approx(np.array([[plain_cka(x, y) for y in parts] for x in parts]), abs=1e-9)
    assert float(found[1, 3]) == pytest.approx(1, abs=1e-6)
    assert linear_cka([gram(parts[0]), gram(torch.ones(31, 4))])[0, 1] == 0


def test_a_gram_without_samples_is_that_of_the_others():
    x, left_out = random(23, 6), torch.tensor([0, 7, 22])
    keep = [i for i in range(23) if i not in left_out.tolist()]
    assert torch.allclose(without(gram(x), left_out), gram(x[keep]), atol=1e-10)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = random(57).double().numpy()
    groups = jackknife_groups(57, seed=0, groups=57)
    assert sorted(np.concatenate(groups).tolist()) == list(range(57))
    score = jackknife_score(values.mean(), [np.delete(values, group).mean() for group in groups])
    assert (score.high - score.low) / 2 == pytest.approx(1.96 * values.std(ddof=1) / math.sqrt(57), rel=1e-9)


def test_groups_of_the_jackknife_leave_out_what_is_left_out():
    """Replicates from downdated sums are those of the remaining photos."""
    x, views = random(90, 40) * torch.arange(1, 41) ** -0.5 + 1, random(45, 3, 6)
    groups = jackknife_groups(90, seed=3)
    ranks, slopes, lidars = [], [], []
    for group in groups:
        rest = torch.from_numpy(np.delete(x.numpy(), group, 0))
        ranks.append(rankme(rest))
        slopes.append(alpha_req(rest))
    for group in jackknife_groups(45, seed=3):
        lidars.append(lidar(torch.from_numpy(np.delete(views.numpy(), group, 0))))
    rank, alpha = geometry.rankme_and_alpha(x, seed=3)
    assert tuple(rank) == pytest.approx(tuple(jackknife_score(rankme(x), ranks)), rel=1e-6)
    assert tuple(alpha) == pytest.approx(tuple(jackknife_score(alpha_req(x), slopes)), rel=1e-6)
    expected = jackknife_score(lidar(views), lidars)
    assert tuple(geometry.lidar_score(views, seed=3)) == pytest.approx(tuple(expected), rel=1e-9)


def test_intervals_of_cka_are_over_photos():
    parts = [random(40, 5), random(40, 7, seed=1)]
    scores = geometry.cka_scores(parts, seed=0)
    replicates = [plain_cka(*(np_delete(x, group) for x in parts)) for group in jackknife_groups(40, seed=0)]
    assert tuple(scores[0][1]) == pytest.approx(tuple(jackknife_score(plain_cka(*parts), replicates)), rel=1e-9)
    assert tuple(scores[1][1]) == pytest.approx((1, 1, 1))


def np_delete(x, group):
    return torch.from_numpy(np.delete(x.numpy(), group, 0))
