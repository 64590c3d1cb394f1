"""CARE: chunks of photos with the same augmentation, and the loss against a plain formula in float64."""

import copy
import dataclasses

import pytest
import torch
from tiny_aware import config_of, inputs_of, learner_of, part, photos, views_of

from fastaugself import BYOL, CARE, CASSLE, MoCo, Supervised, ViewPolicy
from fastaugself.errors import UsageError

BOX = slice(0, 4)


def test_care_shares_everything_within_a_chunk():
    config = config_of("care", B=16, view=dataclasses.replace(ViewPolicy.moco_v2(16), rotation=0.5, solarize=0.5))
    views = views_of(config)
    rows, sizes = views.extra[0].params_VBP, views.sizes_B2.float()
    assert rows.shape[:2] == (2, 16) and len(views.extra) == 1
    chunks = rows.unflatten(1, (4, 4))
    assert (chunks[..., 4:] == chunks[:, :, :1, 4:]).all()
    fractions = (rows[..., BOX] / torch.cat([sizes, sizes], 1)).unflatten(1, (4, 4))
    assert (fractions - fractions[:, :, :1]).abs().max() < 0.051  # half a pixel at both edges of photos of 20 to 40 px
    assert not torch.equal(chunks[0], chunks[1])  # each view has its own
    for column in range(4, 16):
        values = chunks[:, :, 0, column].flatten()
        assert (values == values[0]).all() or len(values.unique()) > 1
    assert all(len(chunks[v, :, 0, 8].unique()) > 1 for v in (0, 1))  # and each chunk
    own = views.params_VBP.unflatten(1, (4, 4))
    assert not torch.equal(own[:, :, 0], own[:, :, 1])  # the global views share nothing


def test_two_halves_of_a_batch_are_the_whole_batch():
    """What two processes do, as no process sees the chunks of another: the same rows, and the mean of both losses."""
    config = config_of("care", B=16)
    learner = learner_of(config).eval()  # running statistics: batch norm does not see the split
    found = []
    for batch in (photos(16), part(photos(16), slice(0, 8)), part(photos(16), slice(8, 16))):
        views = views_of(config, batch)
        output = learner(views)
        found.append((views.extra[0].params_VBP, output.metrics["loss_care"], output.metrics["care_similarity"]))
    whole, *halves = found
    assert torch.equal(torch.cat([half[0] for half in halves], 1), whole[0])
    for i in (1, 2):
        assert halves[0][i] != halves[1][i]
        torch.testing.assert_close((halves[0][i] + halves[1][i]) / 2, whole[i])


def test_care_gives_each_policy_its_view():
    config = config_of("care", method=BYOL(dim=8, hidden=16, predictor_hidden=16), view=ViewPolicy.byol(0, 16),
                       view2=ViewPolicy.byol(1, 16))  # fmt: skip
    assert [request.policy for request in config.requests["care"]] == [config.view, config.view2]
    views, learner = views_of(config), learner_of(config)
    first, second = (extra.params_VBP[0] for extra in views.extra)
    assert not torch.equal(first[:, BOX], second[:, BOX])
    output = learner(views)
    assert torch.isfinite(output.loss) and output.metrics["loss_care"] > 0


def distances(z, chunks):
    """The loss of L2-normalised embeddings of both views, written out."""
    total = 0.0
    for chunk in chunks:
        rows = [sum((z[0][i] @ z[0][j] - z[1][i] @ z[1][j]) ** 2 for j in chunk if j != i) for i in chunk]
        total = total + 2 * sum(rows) / len(rows)
    return total / len(chunks)


CHUNKS = ([0, 1, 2, 3], [4, 5, 6, 7])


@pytest.mark.parametrize("cassle", [CASSLE(), CASSLE(conditioning="concat", width=8, depth=1)])
def test_care_is_the_formula_in_float64(cassle):
    config = config_of("care", cassle=cassle)
    learner, views = learner_of(config), views_of(config)
    learner.method.projector.eval()
    inputs = inputs_of(learner, views, "care")
    projector = copy.deepcopy(learner.method.projector).double()
    features = inputs.extra[0].features_VBD.detach().double().requires_grad_()
    z = []
    for view, f in enumerate(features):
        condition = views.extra[0].condition(view)
        assert (condition is None) == (cassle.conditioning == "none")
        e = projector(f, None if condition is None else condition.double())
        z.append(e / e.norm(dim=1, keepdim=True))
    expected = distances(z, CHUNKS)
    output = learner.aware["care"](inputs)
    assert expected > 1e-3 and output.losses["care"].item() == pytest.approx(expected.item(), rel=1e-5)
    similar = [z[0][i] @ z[0][j] for chunk in CHUNKS for i in chunk for j in chunk if i != j]
    assert output.metrics["care_similarity"].item() == pytest.approx(torch.stack(similar).mean().item(), abs=1e-6)
    expected.backward()
    output.losses["care"].backward()
    found = inputs.extra[0].features_VBD.grad
    torch.testing.assert_close(found.double(), features.grad, rtol=1e-3, atol=1e-6)
    assert all(found[view].abs().max() > 1e-4 for view in (0, 1))
    assert all(h.grad is None for h in inputs.features)


def with_embeddings(first, second):
    """CARE's output if the projector returns its input, and these are the features of the further views."""
    config = config_of("care")
    learner = learner_of(config)
    learner.method.projector = torch.nn.Module()
    learner.method.projector.forward = lambda f_BD, condition_Bn: f_BD
    inputs = inputs_of(learner, views_of(config), "care")
    extra = inputs.extra[0]._replace(features_VBD=torch.stack([first, second]))
    return learner.aware["care"](inputs._replace(extra=(extra,)))


def test_care_ignores_rotations_of_the_sphere_and_lengths_only():
    random = torch.Generator().manual_seed(0)
    z, other = torch.randn(2, 8, 6, generator=random)
    Q, _ = torch.linalg.qr(torch.randn(6, 6, generator=random))
    lengths = torch.rand(8, 1, generator=random) + 0.5
    assert with_embeddings(z, z @ Q * lengths).losses["care"] < 1e-10
    assert with_embeddings(z, other).losses["care"] > 0.5


def test_other_chunks_do_not_matter():
    """The loss compares photos of one chunk: each chunk may be rotated in its own way."""
    random = torch.Generator().manual_seed(0)
    z = torch.randn(8, 6, generator=random)
    Q, _ = torch.linalg.qr(torch.randn(6, 6, generator=random))
    assert with_embeddings(z, torch.cat([z[:4], z[4:] @ Q])).losses["care"] < 1e-10
    assert with_embeddings(z, torch.cat([z[:2], z[2:] @ Q])).losses["care"] > 0.1


def test_collapse_has_a_loss_of_zero_and_a_similarity_of_one():
    """The loss cannot show collapse, the metric does."""
    equal = torch.ones(8, 6)
    output = with_embeddings(equal, equal)
    assert output.losses["care"] == 0 and output.metrics["care_similarity"].item() == pytest.approx(1, abs=1e-5)
    apart = with_embeddings(torch.eye(8), torch.eye(8))
    assert apart.metrics["care_similarity"].item() == pytest.approx(0, abs=1e-6)


def test_the_trained_encoder_and_projector_learn_from_both_views():
    """With a momentum encoder too: no gradient reaches its copies."""
    config = config_of("care", method=MoCo(queue=32, dim=8))
    learner = learner_of(config)
    views = views_of(config)
    x = views.extra[0].x_VBCHW.requires_grad_()
    learner.method.requires_grad_(True)
    features = torch.stack([learner.method.backbone(view) for view in x])
    inputs = inputs_of(learner, views, "care")
    loss = learner.aware["care"](inputs._replace(extra=(inputs.extra[0]._replace(features_VBD=features),))).losses
    loss["care"].backward()
    assert all(x.grad[view].abs().max() > 0 for view in (0, 1))
    learned = {name.split(".")[0] for name, p in learner.method.named_parameters() if p.grad is not None}
    assert learned == {"backbone", "projector"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"B": 6}, r"CARE shares parameters in chunks of 4 samples, which do not divide the 6.*--batch-size 8"),
        ({"method": Supervised()}, r"needs the projector.*Supervised.*--care\.weight 0"),
        ({"aware": (CARE(only=True),), "B": 32}, r"--care\.only trains without one; pass --care\.no-only"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        config_of("care", **changes)


def test_a_chunk_of_one_is_refused():
    with pytest.raises(UsageError, match=r"--care\.chunk must be at least 2, got 1; pass --care\.chunk 32"):
        CARE(chunk=1)
