"""Batch norm by groups: two views in one input, ghost batches, and torch's own norm on each part as the yardstick."""

import dataclasses

import pytest
import torch
from torch import nn

from fastaugself import Backbone, BarlowTwins, Byol, Cassle, MoCo, MoCoV3, SimClr, SimSiam, Supervised, SwAV
from fastaugself.errors import UsageError
from fastaugself.methods.base import Parts, Views, encode
from fastaugself.models.build import build_backbone
from fastaugself.models.norm import BatchNorm2d, NativeSyncBatchNorm, set_group, use_native_sync
from fastaugself.models.resnet import ResNet


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_groups_are_normalised_as_inputs_of_their_own(layout):
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3)
    set_group(ours, 4)
    x = (torch.randn(12, 3, 5, 7) * 3 + 1).contiguous(memory_format=layout)
    inputs = [x.clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2)]
    got = ours(inputs[0])
    expected = torch.cat([theirs(inputs[1][i : i + 4]) for i in (0, 4, 8)])
    assert torch.equal(got, expected) and got.is_contiguous(memory_format=layout)
    weight = torch.randn(x.shape)
    (got * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.equal(inputs[0].grad, inputs[1].grad) and torch.equal(ours.weight.grad, theirs.weight.grad)
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), theirs.buffers(), strict=True))
    assert ours.num_batches_tracked == 3
    ours.eval()
    assert torch.equal(ours(x), theirs.eval()(x))  # running averages know no groups


METHODS = {
    "simsiam": SimSiam(dim=16, predictor_hidden=8), "simclr": SimClr(dim=8), "byol": Byol(dim=8, hidden=16),
    "mocov3": MoCoV3(dim=8, hidden=16), "barlow": BarlowTwins(dim=16), "supervised": Supervised(),
    "swav": SwAV(dim=8, hidden=16, prototypes=6, queue=0), "moco": MoCo(queue=16, dim=8),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_both_views_in_one_pass_are_the_same_step(name):
    """Loss, gradients and running averages; MoCo's encoders see one view each, so nothing changes there."""
    found = []
    for joint in (False, True):
        torch.manual_seed(0)
        backbone, width = build_backbone(Backbone(name="resnet18", width=4, stem="small"))
        method = METHODS[name].build(Parts(backbone, width, False, Cassle(), 4))
        calls = []
        for module in method.modules():
            if isinstance(module, ResNet):
                module.joint = joint
                set_group(module, 6 if joint else 0)
                module.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        views = Views(torch.randn(2, 6, 3, 12, 12), torch.arange(6) % 4)
        output = method(views)
        output.loss.backward()
        grads = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
        found.append((output.loss, *output.features, grads, dict(method.named_buffers()), len(calls)))
    separate, together = found
    torch.testing.assert_close(separate[:5], together[:5], rtol=1e-3, atol=1e-4)
    if name == "moco":
        assert together[5] == separate[5] == 2
    else:
        assert together[5] == separate[5] // 2


def test_encoding_keeps_channels_last_and_copies_nothing():
    seen = []
    backbone = nn.Flatten()
    backbone.joint = True
    backbone.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    x = torch.randn(2, 3, 8, 8, 3).permute(0, 1, 4, 2, 3)  # as augment gives it: channels last
    encode(backbone, x)
    assert seen[0].is_contiguous(memory_format=torch.channels_last) and seen[0].data_ptr() == x.data_ptr()


def test_native_sync_keeps_names_values_and_groups():
    backbone, _ = build_backbone(Backbone(name="resnet18", width=4, batch_norm="sync"))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    use_native_sync(backbone)
    set_group(backbone, 5)
    norms = [m for m in backbone.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert norms and all(type(m) is NativeSyncBatchNorm and m.group == 5 for m in norms)
    assert not [m for m in backbone.modules() if isinstance(m, BatchNorm2d)]
    after = backbone.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)


def test_split_statistics_are_those_of_groups_and_must_fit(beton, tmp_path):
    from fastaugself import Augment, AugSelf, Data, Log, Pretrain, ViewPolicy
    from fastaugself.training.distributed import World
    from fastaugself.training.trainer import Trainer

    config = Pretrain(
        data=Data(train=beton, source="native", workers=1), view=ViewPolicy.moco_v2(16), augment=Augment(blur_kernel=5),
        backbone=Backbone(name="resnet18", width=4, stem="small", batch_norm="split", split=4),
        method=MoCo(queue=16, dim=8), augself=AugSelf(hidden=8), log=Log(every=1, tensorboard=False), run=tmp_path,
        epochs=1, batch_size=16,
    )  # fmt: skip
    alone = World(0, 1, torch.device("cpu"))
    trainer = Trainer(config, alone)
    trainer.close()
    groups = {m.group for m in trainer.learner.modules() if isinstance(m, BatchNorm2d)}
    assert groups == {4}
    with pytest.raises(UsageError, match=r"--backbone.split 4 must be at least 2 and divide the 2 samples"):
        Trainer(dataclasses.replace(config, accumulate=8), alone)
