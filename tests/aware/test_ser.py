"""SER: maps are carried to the frame of the other view exactly, and patches are compared with those of other photos."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_aware import OBJECTIVES, config_of, learner_of, photos, views_of

from fastaugself import SER, Backbone, MoCo, MoCoV3, SimCLR, ViewPolicy
from fastaugself.aware.ser import patch_loss, transported
from fastaugself.errors import UsageError
from fastaugself.models.inner import forward_inner
from fastaugself.training.setup import check_installation
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


def test_the_views_of_a_batch_are_carried_as_their_pixels():
    """The same for the views that a batch has, without colours, of an odd number of patches per side."""
    every = (dataclasses.replace(OBJECTIVES["ser"], fraction=1.0),)
    for size, patch in ((48, 16), (35, 7), (16, 16)):
        config = config_of("ser", B=48, aware=every, view=ViewPolicy.spatial(size))
        made = views_of(config).extra[0]
        maps = [F.avg_pool2d(x, patch) for x in made.x_VBCHW]
        first, second = made.params_VBP
        for a, b in ((0, 1), (1, 0)):
            carried = transported(maps[a], made.params_VBP[a], made.params_VBP[b])
            torch.testing.assert_close(carried, maps[b], rtol=1e-4, atol=1e-4)
        if size > patch:
            assert (maps[0] - maps[1]).abs().amax((1, 2, 3)).gt(0.1).sum() > 24
        pairs = {(*x.tolist(), *y.tolist()) for x, y in zip(first[:, 4:6], second[:, 4:6], strict=True)}
        assert len(pairs) > 20  # of 64


def test_rotations_and_flips_are_uniform():
    every = (dataclasses.replace(OBJECTIVES["ser"], fraction=1.0),)
    rows = views_of(config_of("ser", B=512, aware=every, view=ViewPolicy.moco_v2(16))).extra[0].params_VBP
    for view in rows:
        shares = torch.bincount((view[:, 4] * 4 + view[:, 5]).long(), minlength=8) / 512
        assert shares.shape == (8,) and (shares - 1 / 8).abs().max() < 0.06  # four standard deviations


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


def carried_by_hand(map_CHW, before, after):
    """The map of a view, turned and flipped back to the crop, then turned and flipped as the other view."""
    if before[4]:
        map_CHW = map_CHW.flip(2)
    map_CHW = torch.rot90(map_CHW, int(after[5]) - int(before[5]), (1, 2))
    return map_CHW.flip(2) if after[4] else map_CHW


@pytest.mark.parametrize("method", [SimCLR(dim=8), MoCoV3(dim=8, hidden=16)])
def test_the_objective_is_the_formula_in_float64(timm, method):
    """From the maps of both encoders: the losses, and their gradients in both uses of the head."""
    config = config_of("ser", method=method)
    learner, views = learner_of(config), views_of(config)
    if learner.method.momentum_backbone is not None:  # as after some steps
        torch.manual_seed(1)
        for p in learner.method.momentum_backbone.parameters():
            p.data += 0.2 * p.std(unbiased=False) * torch.randn_like(p)
    made, encoder = views.extra[0], learner.method.backbone
    momentum = learner.method.momentum_backbone or encoder
    objective = learner.aware["ser"]
    weights = [objective.head[i].weight.detach().double()[:, :, 0, 0].requires_grad_() for i in (0, 2)]

    def embedded(backbone, view):
        with torch.no_grad():
            maps = forward_inner(backbone, made.x_VBCHW[view], ("block2",))[1]["block2"].double()
        hidden = torch.einsum("hc,bcyx->bhyx", weights[0], maps)
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        out = torch.einsum("oh,bhyx->boyx", weights[1], hidden)
        return out / out.norm(dim=1, keepdim=True)

    losses, right, cosines = [], [], []
    for a, b in ((0, 1), (1, 0)):
        keys, rows = embedded(momentum, a), made.params_VBP
        keys = torch.stack([carried_by_hand(keys[i], rows[a, i], rows[b, i]) for i in range(4)]).flatten(2)
        queries = embedded(encoder, b).flatten(2)
        for photo in range(4):
            for j in range(9):
                u = queries[photo, :, j]
                own = u @ keys[photo, :, j]
                others = torch.cat([u @ keys[i] for i in range(4) if i != photo])
                losses.append(((own / 0.5).exp() + (others / 0.5).exp().sum()).log() - own / 0.5)
                right.append(float(own > others.max()))
                cosines.append(own.detach().item())
    output = learner(views)
    expected = torch.stack(losses).mean()
    assert output.metrics["loss_ser"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert output.metrics["ser_accuracy"].item() == pytest.approx(sum(right) / 72, abs=1e-6)
    assert output.metrics["ser_cosine"].item() == pytest.approx(sum(cosines) / 72, abs=1e-4)
    output.loss.backward()
    expected.backward()
    for i, weight in zip((0, 2), weights, strict=True):
        found = objective.head[i].weight.grad[:, :, 0, 0].double()
        torch.testing.assert_close(found, weight.grad, rtol=1e-3, atol=1e-6)
        assert weight.grad.abs().max() > 1e-5


def test_metrics_of_known_maps():
    patches = torch.eye(12).reshape(3, 2, 2, 12).permute(0, 3, 1, 2)  # three photos of four patches, all orthogonal
    loss, accuracy, cosine = patch_loss(patches, patches, 0.5)
    assert accuracy == 1 and cosine == 1 and loss.item() == pytest.approx(math.log(math.exp(2) + 8) - 2)
    turned = patches.flip(3)  # the keys are at other places of the same photo: neither right, nor negatives
    _, accuracy, cosine = patch_loss(patches, turned, 0.5)
    assert accuracy < 1 and cosine == 0
    loss, accuracy, cosine = patch_loss(patches, patches.roll(1, 0), 0.5)
    assert accuracy == 0 and cosine == 0 and loss.item() == pytest.approx(math.log(8 + math.exp(2)))


def test_equal_patches_have_the_baseline_loss(timm):
    for fraction, others in ((0.5, 3 * 9), (0.01, 9)):
        config = config_of("ser", aware=(dataclasses.replace(OBJECTIVES["ser"], fraction=fraction),))
        learner, views = learner_of(config), views_of(config)
        objective = learner.aware["ser"]
        torch.nn.init.zeros_(objective.head[2].weight)
        baseline = objective.baseline_losses(views.params_VBP, views.sizes_B2)
        assert baseline.keys() == {"ser"} and baseline["ser"].item() == pytest.approx(math.log(1 + others))
        assert learner(views).metrics["loss_ser"].item() == pytest.approx(math.log(1 + others), rel=1e-5)


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
    config = config_of("ser", method=MoCoV3(dim=8, hidden=16))
    learner, views = learner_of(config), views_of(config)
    calls = []
    learner.method.key_backbone.register_forward_hook(lambda *_: calls.append("key"))
    original = learner.method.key_backbone.forward_intermediates
    learner.method.key_backbone.forward_intermediates = lambda *a, **k: (calls.append("maps"), original(*a, **k))[1]
    output = learner(views)
    assert calls.count("maps") == 1
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


def test_the_global_views_are_encoded_as_without_it(timm):
    """Maps are taken of the further views alone, in one pass; the momentum encoder may see shuffled global views."""
    config = config_of("ser", method=MoCo(queue=32, dim=8, shuffle=True))
    learner, views = learner_of(config), views_of(config)
    calls = []
    for name in ("backbone", "momentum_backbone"):
        encoder = getattr(learner.method, name)
        original = encoder.forward_intermediates
        encoder.forward_intermediates = lambda x, name=name, original=original, **k: (
            calls.append((name, len(x))), original(x, **k))[1]  # fmt: skip
    learner(views)
    assert sorted(calls) == [("backbone", 8), ("momentum_backbone", 8)]


@pytest.mark.slow
def test_a_step_with_a_momentum_encoder_compiles_in_one_graph(timm):
    config = config_of("ser", method=MoCoV3(dim=8, hidden=16))
    learner, views = learner_of(config), views_of(config)
    torch._dynamo.reset()
    compiled = torch.compile(learner_of(config), backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(views).loss, learner(views).loss, rtol=1e-4, atol=1e-5)


WORKER = """
import sys
sys.path.insert(0, sys.argv[4])
import dataclasses
import torch
import torch.distributed as dist
from tiny_aware import OBJECTIVES, config_of, learner_of, part, photos, views_of

operators = torch.library.Library("torchvision", "FRAGMENT")  # as in tests/conftest.py
if not hasattr(torch.ops.torchvision, "nms"):
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world)
config = config_of("ser", aware=(dataclasses.replace(OBJECTIVES["ser"], fraction=1.0, only=True),))
own = slice(rank * 8 // world, (rank + 1) * 8 // world)
learner = learner_of(config, micro_batch=8 // world)
views = views_of(config, part(photos(8), own))
output = learner(views)
(output.loss / world).backward()  # DDP averages over processes
weights = dict(learner.named_parameters())
gradients = {name: p.grad for name, p in weights.items() if p.grad is not None}
for gradient in gradients.values():
    dist.all_reduce(gradient)
values = {name: output.metrics[name] for name in ("loss_ser", "ser_accuracy", "ser_cosine")}
baseline = learner.aware["ser"].baseline_losses(views.params_VBP, views.sizes_B2)["ser"]
torch.save((values, gradients, baseline), f"{folder}/{world}-{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_equal_one(timm, tmp_path):
    """Loss, metrics, and gradients of the encoder and the head, with keys of all processes."""
    helpers = str(Path(__file__).parents[1] / "helpers")
    for world in (1, 2):
        command = [sys.executable, "-c", WORKER, str(tmp_path)]
        started = [subprocess.Popen([*command, str(rank), str(world), helpers]) for rank in range(world)]
        assert [process.wait(timeout=300) for process in started] == [0] * world
    one, *parts = (torch.load(tmp_path / f"{run}.pt") for run in ("1-0", "2-0", "2-1"))
    for name, value in one[0].items():
        assert float(sum(part[0][name] for part in parts)) / 2 == pytest.approx(float(value), rel=1e-4), name
    assert one[1].keys() == parts[0][1].keys() and "objectives.ser.head.0.weight" in one[1]
    for name, gradient in one[1].items():
        torch.testing.assert_close(parts[0][1][name], gradient, rtol=1e-3, atol=1e-5)
    assert max(float(g.abs().max()) for name, g in one[1].items() if ".blocks.0." in name) > 1e-4
    assert all(float(part[2]) == pytest.approx(math.log(1 + 7 * 9)) == float(one[2]) for part in parts)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": Backbone(name="timm:test_resnet")}, r"needs a ViT, and timm:test_resnet has no blocks.*; pass "
         r"--backbone\.name timm:vit_small_patch16_224, or --ser\.weight 0$"),
        ({"backbone": Backbone(name="timm:hiera_tiny_224"), "view": ViewPolicy.moco_v2(224)}, "needs a ViT"),
        ({"view": ViewPolicy.moco_v2(50)}, r"views of 50 pixels are no whole number of patches of 16.*; pass "
         r"--view\.size 48, or --ser\.weight 0$"),
        ({"aware": (SER(layer="block7"),)}, r"--ser\.layer block7: the backbone has no such layer, its layers are "
         r"block1, .*; pass --ser\.layer block5, or --ser\.weight 0$"),
        ({"aware": (SER(layer="last"),)}, r"--ser\.layer last: the backbone has no such layer"),
    ],
)  # fmt: skip
def test_backbones_without_patches_are_refused_before_data_is_opened(timm, changes, message):
    check_installation(config_of("ser"), torch.device("cpu"))
    with pytest.raises(UsageError, match=message):
        check_installation(config_of("ser", **changes), torch.device("cpu"))
