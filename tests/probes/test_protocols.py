"""Protocols of the evaluation against independent computations: scikit-learn, torchvision, plain loops, definitions."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fastaugself.errors import UsageError
from fastaugself.evaluation import invariance
from fastaugself.evaluation.pixels import prepare
from fastaugself.evaluation.prepare import to_frame
from fastaugself.evaluation.transforms import transforms
from fastaugself.probes import fewshot, linear, logistic, ridge
from fastaugself.probes.information import Histogram, infonce_bound
from fastaugself.probes.intervals import accuracy_score, normal_score
from fastaugself.probes.localization import frame_boxes, iou
from fastaugself.probes.retrieval import average_precision, nearest


def clouds(samples=300, width=12, classes=4, spread=1.0, seed=0):
    """Features around a centre for each class, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % classes
    centers = torch.randn(classes, width, generator=generator)
    return centers[labels] + spread * torch.randn(samples, width, generator=generator) + 0.5, labels


def fit(x, y, penalty):
    """The linear probe at one penalty."""
    return linear.Axes(x, x.device).probe(y, int(y.max()) + 1, penalty)


@pytest.mark.parametrize("penalty", [1e-3, 1.0, 100.0])
def test_the_linear_probe_finds_scikit_learns_optimum(penalty):
    from sklearn.linear_model import LogisticRegression

    x, y = clouds()
    probe = fit(x, y, penalty)
    ones = np.concatenate([x.double().numpy(), np.ones((len(x), 1))], 1)  # the published penalty is on the bias too
    model = LogisticRegression(C=1 / (2 * penalty), fit_intercept=False, tol=1e-10, max_iter=10_000).fit(ones, y)

    def objective(weights):
        return F.cross_entropy(torch.from_numpy(ones) @ weights, y, reduction="sum") + penalty * weights.square().sum()

    mine = torch.cat([probe.weights_DC, probe.bias_C[None]])
    theirs = torch.from_numpy(model.coef_.T)
    theirs = theirs - theirs.mean(1, keepdim=True)  # the penalty's solution along the direction that softmax ignores
    assert float(objective(mine)) <= float(objective(theirs)) * (1 + 1e-7)
    torch.testing.assert_close(mine, theirs, rtol=2e-3, atol=2e-3 * float(theirs.abs().max()))


def test_the_path_has_the_published_penalties_and_the_best_is_refit_on_both_splits():
    x, y = clouds(240, spread=2.0)
    choice = linear.choose_probe(x[:160], y[:160], x[160:], y[160:])
    penalties = [penalty for penalty, _ in choice.path]
    assert len(penalties) == 45 and penalties[0] == pytest.approx(1e-6) and penalties[-1] == pytest.approx(1e5)
    for penalty, validated in choice.path[::11]:
        alone = fit(x[:160], y[:160], penalty)
        assert float((alone.logits(x[160:]).argmax(1) == y[160:]).double().mean()) == pytest.approx(
            validated, abs=0.013
        )
    best = max(accuracy for _, accuracy in choice.path)
    assert dict(choice.path)[choice.penalty] == best
    refitted = fit(x, y, choice.penalty)
    torch.testing.assert_close(choice.probe.weights_DC, refitted.weights_DC)


def newton(x_NA, y, penalty, weights):
    """The minimum of the objective by Newton steps with backtracking, from `weights`."""

    def objective(w):
        w = w.view(weights.shape)
        return F.cross_entropy(x_NA @ w, y, reduction="sum") + penalty * w.square().sum()

    w = weights.flatten()
    for _ in range(60):
        gradient = torch.autograd.functional.jacobian(objective, w)
        step = torch.linalg.solve(torch.autograd.functional.hessian(objective, w), gradient)
        if float(gradient @ step) < 1e-13 * float(objective(w)):
            break
        length = 1.0
        while objective(w - length * step) > objective(w):
            length /= 2
        w = w - length * step
    return w.view(weights.shape), float(objective(w))


def test_every_fit_of_the_path_is_within_a_thousandth_of_its_optimum():
    x, y = clouds(90, width=9, classes=5, spread=0.6)  # separable: weak penalties are the hardest to fit
    axes = linear.Axes(x, torch.device("cpu"))
    descent = logistic.Descent(axes.x_NA.float(), y, 5)
    best = torch.zeros(10, 5, dtype=torch.float64)
    for place, penalty in enumerate(sorted(linear.PENALTIES, reverse=True)):
        descent.fit(penalty, tolerance=linear.PATH_TOLERANCE, max_iterations=linear.MAX_ITERATIONS)
        if place % 4:
            continue
        best, least = newton(axes.x_NA, y, penalty, best)
        found = descent.weights_AC.double()
        value = float(F.cross_entropy(axes.x_NA @ found, y, reduction="sum") + penalty * found.square().sum())
        assert value <= least * (1 + 1e-3), penalty
        if penalty >= 1:  # below it the objective is too flat for a comparison of weights
            torch.testing.assert_close(found, best, rtol=0, atol=0.01 * float(best.abs().max()))


def test_the_gradient_is_accurate_for_confident_predictions():
    logits = torch.tensor([[0.0, 30.0, 3.0], [-20.0, 5.0, 1.0], [0.2, 0.1, 90.0]])
    labels = torch.tensor([1, 1, 0])
    found, gradient = logistic.cross_entropy(logits, labels[:, None])
    exact = logits.double().softmax(1) - F.one_hot(labels, 3)
    torch.testing.assert_close(gradient, exact.float(), rtol=1e-3, atol=logistic.TINY)
    assert float(gradient[0, 1]) == pytest.approx(-math.exp(-27) - math.exp(-30), rel=1e-5)
    assert found == pytest.approx(float(F.cross_entropy(logits.double(), labels, reduction="sum")), rel=1e-6)


@pytest.mark.parametrize("shots", [1, 5])
def test_few_shot_episodes_agree_with_a_plain_loop_over_liblinear(shots):
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    x, y = clouds(400, width=40, classes=8, spread=3.0)
    support, query = fewshot.draw_episodes(y.numpy(), shots=shots, ways=5, queries=16, episodes=12, seed=3)
    found = fewshot.episode_accuracies(x, support, query)
    expected = []
    for s, q in zip(support, query, strict=True):
        assert len(set(y[s.ravel()].tolist())) == 5 and not set(s.ravel()) & set(q.ravel())
        model = OneVsRestClassifier(LogisticRegression(solver="liblinear", C=1.0, tol=1e-8))
        model.fit(x[s.ravel()].double().numpy(), np.repeat(range(5), shots))
        expected.append((model.predict(x[q.ravel()].double().numpy()) == np.repeat(range(5), 16)).mean())
    np.testing.assert_allclose(found, expected, atol=1e-12)
    score = normal_score(found)
    assert score.high - score.value == pytest.approx(1.96 * np.std(expected) / 12**0.5)


def test_too_few_samples_for_an_episode_are_refused():
    with pytest.raises(UsageError, match="3 of 4 classes have the 21 samples"):
        fewshot.draw_episodes(np.array([0] * 30 + [1] * 30 + [2] * 30 + [3] * 20), shots=5, seed=0)


def test_ridge_regression_agrees_with_scikit_learn():
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    x, _ = clouds(200, width=9)
    y = x[:, :2] @ torch.randn(2, 3, generator=torch.Generator().manual_seed(1)) + 0.1 * x[:, 3:6] ** 2
    found = ridge.choose_ridge(x[:100], y[:100], x[100:150], y[100:150], penalties=[2.5])
    theirs = Ridge(alpha=2.5).fit(x[:150].double().numpy(), y[:150].double().numpy())
    predicted = theirs.predict(x[150:].double().numpy())
    np.testing.assert_allclose(found.predict(x[150:]).numpy(), predicted, rtol=1e-6, atol=1e-8)
    expected = r2_score(y[150:].double().numpy(), predicted, multioutput="raw_values")
    np.testing.assert_allclose(ridge.r2(found.predict(x[150:]), y[150:]), expected)
    with pytest.raises(UsageError, match="target 1 is the same for all 50"):
        ridge.r2(torch.zeros(50, 2), torch.stack([torch.arange(50.0), torch.ones(50)], 1))


def test_whitened_cosines_agree_with_the_direct_computation():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator)
    clean = torch.relu(torch.randn(500, 6, generator=generator) @ mixing + 0.5)
    changed = clean[:7, None] + 0.3 * torch.randn(7, 4, 6, generator=generator)
    changed[:, 0] = clean[:7]
    found = invariance.measure(invariance.whitening(clean), clean[:7], changed, (0,), seed=0)
    mean = clean.double().mean(0).numpy()
    precision = np.linalg.inv(np.cov(clean.double().numpy(), rowvar=False))
    cosines, distances = np.empty((7, 4)), np.empty((7, 4))
    for i in range(7):
        for j in range(4):
            a, b = clean[i].double().numpy() - mean, changed[i, j].double().numpy() - mean
            cosines[i, j] = a @ precision @ b / math.sqrt((a @ precision @ a) * (b @ precision @ b))
            distances[i, j] = math.sqrt((a - b) @ precision @ (a - b))
    assert found.published.value == pytest.approx(cosines.mean())
    assert found.debiased.value == pytest.approx(cosines[:, 1:].mean())
    assert found.distance == pytest.approx(distances.mean())
    np.testing.assert_allclose(found.by_value, cosines.mean(0))
    with pytest.raises(UsageError, match="6 images cannot whiten 6 features"):
        invariance.whitening(clean[:6])


def test_the_invariance_of_views_with_and_without_the_diagonal():
    x, _ = clouds(120, width=5)
    objects = torch.arange(120) // 3
    white = invariance.whitening(x)
    found = invariance.measure_views(white, x, objects, seed=0)
    u = white(x)
    pairs = [
        [F.cosine_similarity(u[a], u[b], 0).item() for a in range(i, i + 3) for b in range(i, i + 3)]
        for i in range(0, 120, 3)
    ]
    assert found.published.value == pytest.approx(np.mean(pairs))
    assert found.debiased.value == pytest.approx(np.mean([(sum(p) - 3) / 6 for p in pairs]))
    with pytest.raises(UsageError, match="no object has two views"):
        invariance.measure_views(white, x, torch.arange(120), seed=0)


def test_transforms_match_torchvision(torchvision):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as FT

    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (61, 83, 3), dtype=np.uint8)).resize((166, 122))
    made = {t.name: t for t in transforms(16, size=48, resize=56)}
    assert len(made) == 18
    same = {
        "rotation": lambda v: FT.rotate(image, v[0]),
        "translation": lambda v: FT.affine(image, 0, v, 1, 1.0),
        "scale": lambda v: FT.affine(image, 0, [0, 0], v[0], 1.0),
        "shear": lambda v: FT.affine(image, 0, [0, 0], 1, v),
        "resized_crop": lambda v: FT.resized_crop(image, *(int(p) for p in v), [48, 48], InterpolationMode.BILINEAR),
        "h_flip": lambda v: FT.hflip(image) if v[0] else image,
        "v_flip": lambda v: FT.vflip(image) if v[0] else image,
        "grayscale": lambda v: FT.rgb_to_grayscale(image, 3) if v[0] else image,
        "brightness": lambda v: FT.adjust_brightness(image, v[0]),
        "contrast": lambda v: FT.adjust_contrast(image, v[0]),
        "saturation": lambda v: FT.adjust_saturation(image, v[0]),
        "hue": lambda v: FT.adjust_hue(image, v[0]),
        "sharpness": lambda v: FT.adjust_sharpness(image, v[0]),
        "invert": lambda v: FT.invert(image) if v[0] else image,
        "equalize": lambda v: FT.equalize(image) if v[0] else image,
        "posterize": lambda v: FT.posterize(image, int(v[0])),
    }
    for name, expected in same.items():
        transform = made[name]
        for value in transform.values:
            found, wanted = (np.asarray(i, np.int16) for i in (transform.apply(image, value), expected(value)))
            assert (found != wanted).mean() < 0.002, (name, value)  # pixels at a boundary may round differently
    for value in made["blur"].values:
        wanted = np.asarray(FT.gaussian_blur(image, [5, 5], [value[0]] * 2), np.int16)
        assert np.abs(np.asarray(made["blur"].apply(image, value), np.int16) - wanted).max() <= 1
    assert not np.array_equal(
        np.asarray(made["deform"].apply(image, (0.0,))), np.asarray(made["deform"].apply(image, (1.0,)))
    )
    for name, identity in (("rotation", (0,)), ("h_flip", (0,)), ("sharpness", (0,)), ("brightness", ())):
        assert made[name].identity == identity
    clean = prepare(image, 48, 56, "bilinear")
    for name in ("h_flip", "rotation", "shear"):
        assert np.array_equal(made[name](image, made[name].identity[0], size=48, resize=56), clean), name


def test_boxes_are_in_the_coordinates_of_the_encoders_input():
    box = (60.0, 24.0, 90.0, 48.0)
    image = Image.new("RGB", (150, 100))
    image.paste((255, 255, 255), tuple(int(v) for v in box))
    for size, resize in ((64, 64), (56, 64)):
        seen = np.asarray(prepare(image, size, resize))[..., 0] > 127
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        framed = to_frame(np.array([box]), np.array([[150.0, 100.0]]), size, resize)[0] * size
        expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(framed, expected, atol=1.0)
    a = frame_boxes(np.array([[0.2, 0.2, 0.6, 0.6], [-0.5, 0.0, 0.5, 1.0]]))
    torch.testing.assert_close(a, torch.tensor([[0.4, 0.4, 0.4, 0.4], [0.25, 0.5, 0.5, 1.0]]).double())
    assert iou(a[:1], frame_boxes(np.array([[0.4, 0.2, 0.8, 0.6]]))).item() == pytest.approx(1 / 3)
    with pytest.raises(UsageError, match="1 boxes are empty or outside"):
        frame_boxes(np.array([[1.1, 0.2, 1.6, 0.6]]))


def test_nearest_and_average_precision_agree_with_a_loop():
    from sklearn.metrics import average_precision_score

    x, y = clouds(60, spread=2.0)
    unit = F.normalize(x, dim=1).numpy()
    found, ap = nearest(x, neighbors=3), average_precision(x, y)
    for i in range(60):
        similarity = unit @ unit[i]
        others = np.array([j for j in np.argsort(-similarity) if j != i])
        assert found.index_NK[i].tolist() == others[:3].tolist()
        expected = average_precision_score((y[others] == y[i]).numpy(), similarity[others])
        assert float(ap[i]) == pytest.approx(expected, abs=1e-6)


def test_the_information_bound_distinguishes_dependence_from_independence():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1200, 8, generator=generator)
    noise = torch.randn(1200, 8, generator=generator)
    dependent, ceiling = infonce_bound(
        (z[:800], z[:800] + 0.1 * noise[:800]), (z[800:], z[800:] + 0.1 * noise[800:]), batch_size=100, epochs=8
    )
    independent, _ = infonce_bound((z[:800], noise[:800]), (z[800:], noise[800:]), batch_size=100, epochs=8)
    assert ceiling == pytest.approx(math.log(100))
    assert 2.5 < float(dependent.mean()) <= ceiling
    assert float(independent.mean()) < 0.05


def test_the_histogram_counts_pixels_per_cell():
    x = torch.zeros(1, 3, 2, 2)
    x[0, :, 0, 0] = torch.tensor([1.0, 0.3, 0.6])
    counts = Histogram(4)(x)[0]
    assert counts.shape == (64,) and counts[0] == 0.75 and counts[(3 * 4 + 1) * 4 + 2] == 0.25


def test_accuracy_is_over_samples_or_over_classes():
    correct, labels = np.array([True] * 90 + [False] * 10), np.array([0] * 90 + [1] * 10)
    assert accuracy_score(correct, labels, "top1", seed=0).value == pytest.approx(0.9)
    mean_class = accuracy_score(correct, labels, "mean_class", seed=0)
    assert mean_class.value == pytest.approx(0.5) and (mean_class.low, mean_class.high) == (0.5, 0.5)
    score = accuracy_score(np.arange(400) % 4 > 0, np.zeros(400, np.int64), "top1", seed=0)
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert score.low == pytest.approx(0.75 - half, abs=0.01) and score.high == pytest.approx(0.75 + half, abs=0.01)
