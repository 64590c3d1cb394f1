"""STL and CARE: rows that photos share, and the losses against plain formulas."""

import copy
import dataclasses

import pytest
import torch
from tiny_aware import OBJECTIVES, config_of, cross_entropy_of_pairs, exact, inputs_of, learner_of, run_mlp, views_of

from fastaugself import BYOL, CASSLE, Supervised, ViewPolicy
from fastaugself.errors import UsageError
from fastaugself_kernels import COLUMNS

FLIP, SIGMA = COLUMNS.index("flip"), COLUMNS.index("sigma")
COLOR = [COLUMNS.index(name) for name in ("jitter", "order", "brightness", "contrast", "saturation", "hue", "gray")]


def boxes(views_params, sizes):
    """Crop boxes as fractions of the photos."""
    H, W = sizes.float().unbind(1)
    return views_params[..., :4] / torch.stack([H, W, H, W], 1)


def test_neighbours_share_crop_and_colours_and_nothing_else():
    config = config_of("stl", B=32)
    views = views_of(config)
    even, odd = views.params_VBP[:, ::2], views.params_VBP[:, 1::2]
    assert torch.equal(even[..., COLOR], odd[..., COLOR])
    for column in (FLIP, SIGMA):
        assert 0.1 < (even[..., column] == odd[..., column]).float().mean() < 0.9
    first, second = (boxes(views.params_VBP, views.sizes_B2)[:, s] for s in (slice(0, None, 2), slice(1, None, 2)))
    assert (first - second).abs().max() < 0.051  # half a pixel at both edges of photos of 20 to 40 px
    plain = views_of(config_of(B=32))
    assert not torch.equal(plain.params_VBP[:, ::2][..., COLOR], plain.params_VBP[:, 1::2][..., COLOR])
    assert torch.equal(plain.params_VBP[:, ::2], even)  # the first of a pair keeps its own


@pytest.mark.parametrize("rank", [0, 2])
def test_stl_is_the_formula_in_float64(rank):
    config = config_of("stl", aware=(dataclasses.replace(OBJECTIVES["stl"], rank=rank),))
    learner, views = learner_of(config), views_of(config)
    inputs = inputs_of(learner, views, "stl")
    objective, (h1, h2), _ = exact(learner, "stl", inputs)
    t12, t21 = (run_mlp(objective.transformation, torch.cat(pair, 1)) for pair in ((h1, h2), (h2, h1)))

    def moved(t, h):
        D = len(h)
        W = torch.eye(D).double() if rank else torch.zeros(D, D).double()
        for k in range(128):
            part = objective.up_TDR[k] @ objective.down_TDR[k].T if rank else objective.matrices_TDD[k]
            W = W + t[k] * part
        return W @ h

    partner = [1, 0, 3, 2, 5, 4, 7, 6]
    moved1 = torch.stack([moved(t21[partner[i]], h2[i]) for i in range(8)])
    moved2 = torch.stack([moved(t12[partner[i]], h1[i]) for i in range(8)])
    head = [run_mlp(objective.head, torch.cat(pair)) for pair in ((h1, h2), (moved1, moved2))]
    q = run_mlp(objective.transformation_head, torch.cat([t12, t21]))
    output = learner.aware["stl"](inputs)
    expected = {
        "stl": cross_entropy_of_pairs(*head, 0.2),
        "stl_transform": cross_entropy_of_pairs(q[::2], q[1::2], 0.2),
    }
    assert output.losses.keys() == expected.keys()
    for name, value in expected.items():
        assert output.losses[name].item() == pytest.approx(value.item(), rel=1e-4), name
    assert objective.config.weights == {"stl": 1.0, "stl_transform": 0.1}


def test_transformations_that_are_equal_are_found():
    """Features whose transformation is the same for both photos of a pair, and different between pairs."""
    from fastaugself.aware.stl import partner_accuracy, swapped

    codes = torch.eye(6)
    assert partner_accuracy(codes, codes) == 1 and partner_accuracy(codes, codes.roll(1, 0)) == 0
    assert swapped(torch.arange(6.0)[:, None]).flatten().tolist() == [1, 0, 3, 2, 5, 4]


def test_the_number_of_weights_is_the_documented_one():
    for rank, D, millions in ((0, 512, 33.6), (8, 512, 1.0), (8, 2048, 4.2)):
        count = 128 * D * D if rank == 0 else 2 * 128 * D * rank
        assert count / 1e6 == pytest.approx(millions, abs=0.06)
    learner = learner_of(config_of("stl"))
    assert learner.aware["stl"].matrices_TDD.numel() == 128 * 32 * 32


def test_care_shares_everything_within_a_chunk():
    config = config_of("care", B=16)
    rows = views_of(config).extra[0].params_VBP
    assert rows.shape[:2] == (2, 16)
    chunks = rows.unflatten(1, (4, 4))
    assert (chunks[..., 4:] == chunks[:, :, :1, 4:]).all()  # all but the crop, which depends on the photo's size
    assert len(chunks[0, :, 0, 8].unique()) > 1 and not torch.equal(chunks[0], chunks[1])


def test_care_gives_each_policy_its_view():
    config = config_of("care", method=BYOL(dim=8, hidden=16, predictor_hidden=16), view=ViewPolicy.byol(0, 16),
                       view2=ViewPolicy.byol(1, 16))  # fmt: skip
    assert [request.policy for request in config.requests["care"]] == [config.view, config.view2]
    assert torch.isfinite(learner_of(config)(views_of(config)).loss)


@pytest.mark.parametrize("cassle", [CASSLE(), CASSLE(conditioning="concat", width=8, depth=1)])
def test_care_is_the_formula_in_float64(cassle):
    config = config_of("care", cassle=cassle)
    learner, views = learner_of(config), views_of(config)
    learner.method.projector.eval()
    inputs = inputs_of(learner, views, "care")
    projector = copy.deepcopy(learner.method.projector).double()
    z = []
    for view, f in enumerate(inputs.extra[0].features_VBD.detach().double()):
        condition = views.extra[0].condition(view)
        e = projector(f, None if condition is None else condition.double())
        z.append(e / e.norm(dim=1, keepdim=True))
    total = 0.0
    for chunk in ([0, 1, 2, 3], [4, 5, 6, 7]):
        rows = [sum((z[0][i] @ z[0][j] - z[1][i] @ z[1][j]) ** 2 for j in chunk if j != i) for i in chunk]
        total = total + 2 * sum(rows) / len(rows)
    output = learner.aware["care"](inputs)
    assert output.losses["care"].item() == pytest.approx((total / 2).item(), rel=1e-5)
    similar = [z[0][i] @ z[0][j] for c in ([0, 1, 2, 3], [4, 5, 6, 7]) for i in c for j in c if i != j]
    assert output.metrics["care_similarity"].item() == pytest.approx(torch.stack(similar).mean().item(), abs=1e-6)
    output.losses["care"].backward()
    assert inputs.extra[0].features_VBD.grad.abs().sum() > 0 and inputs.features[0].grad is None


def test_care_ignores_rotations_of_the_sphere():
    """Embeddings of the second view that are the first's, rotated, have a loss of 0."""
    z = torch.nn.functional.normalize(torch.randn(8, 6).double(), dim=1)
    Q, _ = torch.linalg.qr(torch.randn(6, 6).double())
    a, b = z @ z.T, (z @ Q) @ (z @ Q).T
    assert (a - b).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("stl", {"B": 7}, r"STL shares parameters in chunks of 2 samples, which do not divide the 7.*--batch-size 8"),
        ("care", {"B": 6}, r"CARE shares parameters in chunks of 4 samples, which do not divide the 6.*--batch-size 8"),
        ("care", {"method": Supervised()}, r"needs the projector.*Supervised.*--care\.weight 0"),
        ("stl", {"view": ViewPolicy(size=16, scale=(1, 1))}, r"--stl\.weight 1 needs random crops"),
    ],
)
def test_what_cannot_work_is_refused(name, changes, message):
    with pytest.raises(UsageError, match=message):
        config_of(name, **changes)


def test_objectives_that_share_differently_are_refused():
    class Quads(type(OBJECTIVES["stl"])):
        name = "quads"
        share = property(lambda self: dataclasses.replace(OBJECTIVES["stl"].share, chunk=4))

    with pytest.raises(UsageError, match="share the parameters of the views in different ways"):
        config_of(aware=(OBJECTIVES["stl"], Quads()))
