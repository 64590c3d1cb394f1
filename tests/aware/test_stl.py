"""STL: rows that neighbours share, and the losses against plain formulas in float64."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_aware import OBJECTIVES, config_of, cross_entropy_of_pairs, exact, inputs_of, learner_of, run_mlp, views_of

from fastaugself import STL, ViewPolicy
from fastaugself.aware.base import AwareContext
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


def learner_with(B=8, **changes):
    """A learner with STL's tiny options, some of them changed; the configuration and the options are returned too."""
    options = dataclasses.replace(OBJECTIVES["stl"], **changes)
    config = config_of("stl", B=B, aware=(options,))
    return learner_of(config), config, options


@pytest.mark.parametrize("rank", [0, 2])
def test_stl_is_the_formula_in_float64(rank):
    """Losses, and their gradients with respect to the features and the matrices, which are written out as D x D."""
    learner, config, options = learner_with(rank=rank)
    inputs = inputs_of(learner, views_of(config), "stl")
    objective, features, _ = exact(learner, "stl", inputs)
    h1, h2 = (h.requires_grad_() for h in features)
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
    expected = {
        "stl": cross_entropy_of_pairs(*head, 0.2),
        "stl_transform": cross_entropy_of_pairs(q[::2], q[1::2], 0.2),
    }
    output = learner.aware["stl"](inputs)
    assert output.losses.keys() == expected.keys() == options.weights.keys()
    for name, value in expected.items():
        assert output.losses[name].item() == pytest.approx(value.item(), rel=1e-4), name
    for losses in (output.losses, expected):
        sum(weight * losses[name] for name, weight in options.weights.items()).backward()
    wanted = [h1.grad, h2.grad, *(p.grad for p in objective.parameters())]
    found = [*(h.grad for h in inputs.features), *(p.grad for p in learner.aware["stl"].parameters())]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-5)
        assert other.abs().max() > 1e-4


@pytest.mark.parametrize("rank", [0, 3])
def test_features_are_moved_by_explicit_matrices(rank):
    learner, _, _ = learner_with(rank=rank)
    objective, random = learner.aware["stl"], torch.Generator().manual_seed(1)
    t, h = torch.randn(5, 128, generator=random), torch.randn(5, 32, generator=random)
    if rank:
        G = torch.einsum("tdr,ter->tde", objective.up_TDR.double(), objective.down_TDR.double())
    else:
        G = objective.matrices_TDD.double()
    W = (G.permute(1, 2, 0).reshape(32 * 32, 128) @ t.double().T).T.reshape(5, 32, 32)
    if rank:
        W = W + torch.eye(32).double()
        assert objective.move(torch.zeros(5, 128), h).equal(h)
    expected = torch.stack([W[i] @ h[i].double() for i in range(5)])
    torch.testing.assert_close(objective.move(t, h).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("found", "odd"), [(1.0, [0, 1, 2, 3]), (0.0, [1, 2, 3, 0]), (0.5, [0, 1, 3, 2])])
def test_accuracy_is_the_share_of_partners_that_are_nearest(found, odd):
    """Features of the second view are those of the first plus a step; photos of pair p have step p, or that of odd."""
    learner, config, _ = learner_with()
    objective = learner.aware["stl"]
    objective.transformation = torch.nn.Linear(64, 128, bias=False)
    objective.transformation_head = torch.nn.Identity()
    with torch.no_grad():
        objective.transformation.weight.zero_()
        objective.transformation.weight[:32] = torch.cat([-torch.eye(32), torch.eye(32)], 1)
    steps = torch.eye(32)[torch.tensor([range(4), odd]).T.flatten()]
    inputs = inputs_of(learner, views_of(config), "stl")
    h1 = inputs.features[0].detach()
    output = objective(inputs._replace(features=(h1, h1 + steps)))
    assert output.metrics["stl_accuracy"] == found and not output.metrics["stl_accuracy"].requires_grad


def test_equal_embeddings_have_the_baseline_losses():
    learner, config, options = learner_with()
    inputs = inputs_of(learner, views_of(config), "stl")
    zero = torch.zeros(8, 32)
    objective = learner.aware["stl"]
    losses = objective(inputs._replace(features=(zero, zero))).losses
    baseline = objective.baseline_losses(inputs.params_VBP, inputs.sizes_B2)
    assert baseline.keys() == losses.keys() == options.weights.keys()
    for name, negatives in {"stl": 31, "stl_transform": 15}.items():
        assert losses[name].item() == pytest.approx(math.log(negatives), rel=1e-5)
        assert baseline[name].item() == pytest.approx(math.log(negatives), rel=1e-6)


def test_weights_multiply_and_a_loss_that_is_off_is_not_built():
    assert STL().weights == {"stl": 1.0, "stl_transform": 0.1}
    assert STL(weight=2.0, transform_weight=0.5).weights == {"stl": 2.0, "stl_transform": 1.0}
    assert STL.off().weights == {}
    learner, config, options = learner_with(transform_weight=0.0)
    output = learner.aware["stl"](inputs_of(learner, views_of(config), "stl"))
    assert options.weights.keys() == output.losses.keys() == {"stl"} and not output.metrics
    assert not any("transformation_head" in name for name, _ in learner.named_parameters())


@pytest.mark.parametrize(("rank", "D", "millions"), [(0, 512, 33.6), (0, 2048, 537), (8, 512, 1.0), (8, 2048, 4.2)])
def test_the_number_of_weights_is_the_documented_one(rank, D, millions):
    learner, config, _ = learner_with()
    with torch.device("meta"):
        objective = STL(rank=rank).build(AwareContext(learner.method, D, config.policies))
    count = sum(p.numel() for name, p in objective.named_parameters() if name.endswith(("_TDD", "_TDR")))
    assert count / 1e6 == pytest.approx(millions, rel=0.05)


WORKER = """
import sys
sys.path.insert(0, sys.argv[4])
import dataclasses
import torch
import torch.distributed as dist
from tiny_aware import OBJECTIVES, config_of, inputs_of, learner_of, part, photos, views_of

folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world)
own = slice(rank * 12 // world, (rank + 1) * 12 // world)
results = {}
for R in (0, 2):
    config = config_of("stl", B=12, aware=(dataclasses.replace(OBJECTIVES["stl"], rank=R),))
    config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, batch_norm="sync"))
    learner = learner_of(config, micro_batch=12 // world)
    objective = learner.aware["stl"]
    inputs = inputs_of(learner, views_of(config, part(photos(12), own)), "stl")
    random = torch.Generator().manual_seed(5)
    common = torch.randn(12, 32, generator=random)  # similar pairs, so that the accuracy is neither 0 nor 1
    step = torch.randn(6, 32, generator=random).repeat_interleave(2, 0) + 0.7 * torch.randn(12, 32, generator=random)
    features = tuple(h[own].clone().requires_grad_() for h in (common, common + step))
    output = objective(inputs._replace(features=features))
    (sum(output.losses.values()) / world).backward()  # DDP averages over processes
    shared = torch.cat([p.grad.flatten() for p in objective.parameters()])
    dist.all_reduce(shared)
    values = [*output.losses.values(), output.metrics["stl_accuracy"]]
    base = objective.baseline_losses(inputs.params_VBP, inputs.sizes_B2)
    results[R] = torch.stack(values).detach(), [h.grad for h in features], shared, torch.stack([*base.values()])
torch.save(results, f"{folder}/{world}-{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """Losses, accuracy, and gradients of the features and of all weights; batch norms of heads are synchronised."""
    helpers = str(Path(__file__).parents[1] / "helpers")
    found = {}
    for world in (1, 2):
        command = [sys.executable, "-c", WORKER, str(tmp_path)]
        started = [subprocess.Popen([*command, str(rank), str(world), helpers]) for rank in range(world)]
        assert [process.wait(timeout=300) for process in started] == [0] * world
        found[world] = [torch.load(tmp_path / f"{world}-{rank}.pt") for rank in range(world)]
    for rank, (values, features, weights, baseline) in found[1][0].items():
        assert 0.2 < values[2] < 0.9
        parts = [part[rank] for part in found[2]]
        torch.testing.assert_close((parts[0][0] + parts[1][0]) / 2, values, rtol=1e-4, atol=1e-5)
        for view in (0, 1):
            gradient = torch.cat([part[1][view] for part in parts])
            torch.testing.assert_close(gradient, features[view], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(parts[0][2], weights, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(parts[0][3], baseline)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"B": 7}, r"STL shares parameters in chunks of 2 samples, which do not divide the 7.*--batch-size 8"),
        ({"view": ViewPolicy(size=16, scale=(1, 1))}, r"--stl\.weight 1 needs random crops"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        config_of("stl", **changes)


def test_objectives_that_share_differently_are_refused():
    class Quads(type(OBJECTIVES["stl"])):
        name = "quads"
        share = property(lambda self: dataclasses.replace(OBJECTIVES["stl"].share, chunk=4))

    with pytest.raises(UsageError, match="share the parameters of the views in different ways"):
        config_of(aware=(OBJECTIVES["stl"], Quads()))
