"""SER: maps are carried to the frame of the other view exactly, and patches are compared with those of other photos."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from tiny_aware import OBJECTIVES, config_of, learner_of, photos, views_of

from fastaugself import SER, SimCLR, ViewPolicy
from fastaugself.aware.ser import patch_loss, transported
from fastaugself.errors import UsageError
from fastaugself_kernels import augment, sample_params

SIZE = 24


def test_transport_is_what_the_pixels_do():
    """The means of 4 x 4 patches of view 1, transported, are those of view 2, for all pairs of elements."""
    batch = photos(4)
    plain = sample_params(batch.ids_B, batch.sizes_B2, (ViewPolicy.spatial(SIZE),), seed=0, epoch=0)
    every = []
    for flip in (0.0, 1.0):
        for turns in range(4):
            row = plain.clone()
            row[..., 4], row[..., 5] = flip, turns  # the kernels' own columns: rotation before flip
            every.append(row[0])
    rows = torch.stack(every)
    x = augment(batch.pixels, batch.offsets_B, batch.sizes_B2, rows, size=SIZE, blur_kernel=3)
    maps = torch.stack([F.avg_pool2d(view, 4) for view in x])
    different = 0
    for a in range(8):
        for b in range(8):
            carried = transported(maps[a], rows[a], rows[b])
            torch.testing.assert_close(carried, maps[b], rtol=1e-4, atol=1e-4)
            different += int(not torch.allclose(maps[a], maps[b], atol=1e-2))
    assert different == 56


def test_each_sample_has_its_own_element():
    torch.manual_seed(0)
    maps, a, b = torch.randn(16, 5, 6, 6), torch.zeros(16, 16), torch.zeros(16, 16)
    for rows in (a, b):
        rows[:, 4], rows[:, 5] = torch.randint(2, (16,)).float(), torch.randint(4, (16,)).float()
    together = transported(maps, a, b)
    for i in range(16):
        s = slice(i, i + 1)
        assert torch.equal(together[s], transported(maps[s], a[s], b[s]))
        assert torch.equal(transported(together[s], b[s], a[s]), maps[s])  # and back


def test_the_patch_loss_is_the_formula_in_float64():
    torch.manual_seed(0)
    q, k = (F.normalize(torch.randn(3, 7, 2, 2).double(), dim=1) for _ in range(2))
    loss, accuracy, cosine = patch_loss(q, k, 0.5)
    total, right, similar = 0.0, 0, 0.0
    for photo in range(3):
        for y in range(2):
            for x in range(2):
                own = q[photo, :, y, x] @ k[photo, :, y, x] / 0.5
                others = [
                    q[photo, :, y, x] @ k[p, :, v, u] / 0.5
                    for p in range(3) if p != photo for v in range(2) for u in range(2)
                ]  # fmt: skip
                total = total + (own.exp() + sum(o.exp() for o in others)).log() - own
                right += int(all(own > o for o in others))
                similar = similar + own * 0.5
    assert loss.item() == pytest.approx(total.item() / 12)
    assert accuracy.item() == pytest.approx(right / 12) and cosine.item() == pytest.approx(similar.item() / 12)


def test_the_views_have_one_crop_and_their_own_colours_and_elements(timm):
    config = config_of("ser", B=16)
    made = views_of(config).extra[0]
    assert made.x_VBCHW.shape[:2] == (2, 8)  # half of the photos
    first, second = made.params_VBP
    assert torch.equal(first[:, :4], second[:, :4])
    for column in (4, 5, 8):
        assert not torch.equal(first[:, column], second[:, column])
    few = dataclasses.replace(OBJECTIVES["ser"], fraction=0.01)
    assert views_of(config_of("ser", B=16, aware=(few,))).extra[0].x_VBCHW.shape[1] == 2


def test_keys_come_from_the_momentum_encoder_where_there_is_one(timm):
    from fastaugself import MoCoV3

    config = config_of("ser", method=MoCoV3(dim=8, hidden=16))
    learner, views = learner_of(config), views_of(config)
    calls = []
    learner.method.key_backbone.register_forward_hook(lambda *_: calls.append("key"))
    original = learner.method.key_backbone.forward_intermediates
    learner.method.key_backbone.forward_intermediates = lambda *a, **k: (calls.append("maps"), original(*a, **k))[1]
    output = learner(views)
    assert calls.count("maps") == 2
    output.loss.backward()
    assert all(p.grad is None for p in learner.method.key_backbone.parameters())
    assert learner.aware["ser"].head[0].weight.grad.abs().sum() > 0


def test_the_loss_reaches_the_tapped_blocks_and_no_later_ones(timm):
    config = config_of("ser", aware=(dataclasses.replace(OBJECTIVES["ser"], only=True),))
    learner = learner_of(config)
    learner(views_of(config)).loss.backward()
    blocks = learner.method.backbone.blocks
    grads = [any(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters()) for block in blocks]
    assert grads == [True, True, False, False, False, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 2.0}, r"--ser\.fraction must be at most 1, got 2\.0; pass --ser\.fraction 0\.01"),
        ({"fraction": 0.0}, r"--ser\.fraction must be above 0"),
        ({"temperature": 0.0}, r"--ser\.temperature must be above 0"),
    ],
)
def test_bad_values_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        SER(**options)


def test_a_resnet_is_refused():
    with pytest.raises(UsageError, match=r"needs a ViT, got --backbone\.name resnet18; pass .*--ser\.weight 0"):
        config_of(aware=(SER(),), method=SimCLR(dim=8))
