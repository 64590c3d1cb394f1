"""E-SSL: the label is the rotation that is visible, the loss is the formula."""

import numpy as np
import pytest
import torch
from tiny_aware import config_of, learner_of, photos, views_of

from fastaugself import ESSL, ViewPolicy
from fastaugself.aware.base import AwareInputs, Extra, ViewRequest
from fastaugself.errors import UsageError
from fastaugself.training.batch import copied
from fastaugself_kernels import augment, sample_params


def test_the_copies_of_a_view_are_its_rotations_by_the_label():
    """np.rot90 of the first copy is the k-th copy, for flipped views too."""
    config = config_of("essl")
    small = views_of(config, photos(6)).extra[0]
    x_BKHWC = small.x_VBCHW[0].unflatten(0, (6, 4)).permute(0, 1, 3, 4, 2).numpy()
    flips_B = small.params_VBP[0, ::4, 4]
    assert 0 < flips_B.sum() < 6, "no view is flipped, or all are"
    for copies in x_BKHWC:
        for k in range(4):
            np.testing.assert_allclose(np.rot90(copies[0], k), copies[k], atol=1e-5)
        assert np.abs(copies[0] - copies[1]).max() > 0.1


def test_the_copies_differ_in_the_rotation_only():
    batch = photos(5)
    policy = ViewPolicy(size=12)
    params = sample_params(batch.ids_B, batch.sizes_B2, (policy,), seed=3, epoch=1)
    copies = copied(params, "rotation", (0, 1, 2, 3))[0].unflatten(0, (5, 4))
    others = [c for c in range(16) if c != 5]
    assert torch.equal(copies[..., others], params[0, :, None][..., others].expand(-1, 4, -1))
    plain = augment(batch.pixels, batch.offsets_B, batch.sizes_B2, params, size=12, blur_kernel=3)
    unturned = copies[:, 0][None]
    again = augment(batch.pixels, batch.offsets_B, batch.sizes_B2, unturned.contiguous(), size=12, blur_kernel=3)
    assert torch.equal(plain, again)


def test_copies_can_differ_in_any_column():
    batch, policy = photos(5), ViewPolicy(size=12, jitter=1.0)
    params = sample_params(batch.ids_B, batch.sizes_B2, (policy,), seed=3, epoch=1)
    copies = copied(params, "hue", (-0.25, 0.25))[0].unflatten(0, (5, 2))
    assert torch.equal(copies[..., 11], torch.tensor([[-0.25, 0.25]] * 5))
    assert torch.equal(copies[..., [c for c in range(16) if c != 11]][:, 1], params[0][:, [*range(11), *range(12, 16)]])
    with pytest.raises(ValueError, match=r"copied must be one of top, left.*, got 'elephant'"):
        ViewRequest(policy, copies=(0.0,), copied="elephant")


def test_the_loss_is_the_formula_in_float64():
    config = config_of("essl")
    learner, views = learner_of(config), views_of(config)
    objective = learner.aware["essl"].double()
    f_SD = torch.randn(32, learner.method.backbone.num_features, dtype=torch.float64)
    inputs = AwareInputs(
        (f_SD, f_SD), views.params_VBP, views.sizes_B2, ({}, {}), (Extra(views.extra[0], f_SD[None]),), views,
        learner.method,
    )  # fmt: skip
    x = f_SD
    linears = [m for m in objective.head if isinstance(m, torch.nn.Linear)]
    norms = [m for m in objective.head if isinstance(m, torch.nn.LayerNorm)]
    assert [m.out_features for m in linears] == [16, 16, 8, 4] and len(norms) == 3
    for i, linear in enumerate(linears):
        x = x @ linear.weight.T + linear.bias
        if i < 3:
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + norms[i].eps).sqrt()
            x = x * norms[i].weight + norms[i].bias
        if i < 2:
            x = x.clamp(min=0)
    log_p = x - x.exp().sum(1, keepdim=True).log()
    expected = -torch.stack([log_p[i, i % 4] for i in range(32)]).mean()
    output = objective(inputs)
    assert output.losses["essl"].item() == pytest.approx(expected.item(), abs=1e-6)
    accuracy = (x.argmax(1) == torch.arange(32) % 4).double().mean()
    assert output.metrics["essl_accuracy"].item() == pytest.approx(accuracy.item())


def test_the_encoder_sees_all_rotations_in_one_pass():
    """Batch statistics of one rotation alone would tell which it is."""
    config = config_of("essl")
    learner, seen = learner_of(config), []
    learner.method.backbone.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    learner(views_of(config))
    assert seen == [(8, 3, 16, 16), (8, 3, 16, 16), (32, 3, 12, 12)]


def test_a_rotated_small_view_is_refused():
    with pytest.raises(UsageError, match=r"--essl\.view\.rotation must be 0, got 0\.5.*--essl\.view\.rotation 0$"):
        ESSL(view=ViewPolicy(rotation=0.5))
