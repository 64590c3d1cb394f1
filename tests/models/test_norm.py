"""Batch norm by groups (batched views, ghost batches) against torch's own batch norm on each group."""

import copy
import dataclasses
import subprocess
import sys
import types

import pytest
import torch
from method_cases import SMALL
from torch import nn

from fastaugself import (
    Backbone,
    MoCo,
)
from fastaugself.errors import UsageError
from fastaugself.methods.base import BuildContext, Views
from fastaugself.methods.encoder_only import EncoderOnly
from fastaugself.methods.hashing import permutation
from fastaugself.models.build import build_backbone
from fastaugself.models.norm import (
    BatchNorm1d,
    BatchNorm2d,
    NativeSyncBatchNorm,
    _training_forward,
    synchronised,
    use_native_sync,
)
from fastaugself.models.norm_function import batch_norm, keep_in_graph
from fastaugself.models.resnet import ResNet
from fastaugself.training.apex import apex_sync_batch_norm


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_groups_are_normalised_like_separate_inputs(layout):
    ours, theirs = BatchNorm2d(3, group_size=4), nn.BatchNorm2d(3)
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
    assert torch.equal(ours(x), theirs.eval()(x))  # evaluation mode has no groups


@pytest.mark.parametrize("kind", ["one pass", "plain", "compiled"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 3, 4)])
@pytest.mark.parametrize("groups", [1, 3])
def test_the_explicit_gradient_is_that_of_autograd(groups, shape, affine, kind):
    if kind == "one pass" and groups > 1:
        pytest.skip("eager code normalises groups one by one")
    norms = [nn.functional.batch_norm, lambda x, *weights: batch_norm(x, *weights, 1e-5, groups, False, plain)[0]]
    plain = kind != "one pass"
    if kind == "compiled":
        keep_in_graph()
        norms[1] = torch.compile(norms[1], fullgraph=True)
    x, direction = torch.randn(shape) * 2 + 1, torch.randn(shape)
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    found = []
    for i, norm in enumerate(norms):
        leaves = [x.clone().requires_grad_(), torch.randn(5).requires_grad_(), torch.randn(5).requires_grad_()]
        with torch.no_grad():
            leaves[1].copy_(torch.arange(5) - 1.5)
            leaves[2].copy_(torch.arange(5) / 3)
        weights = leaves[1:] if affine else [None, None]
        if i:
            y = norm(leaves[0], *weights)
        else:
            parts = leaves[0].chunk(groups)
            y = torch.cat([norm(part, None, None, *weights, training=True, eps=1e-5) for part in parts])
        (y * direction).sum().backward()
        found.append([y, *(leaf.grad for leaf in (leaves if affine else leaves[:1]))])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=2e-5)
    assert found[1][0].stride() == x.stride() and found[1][1].stride() == x.stride()


def test_one_norm_over_all_groups_is_compiled_as_the_norms_one_by_one():
    """Running averages too; only the input in bf16 is saved for the backward pass, nothing in float32."""
    keep_in_graph()
    block = nn.Sequential(BatchNorm2d(4, group_size=4), nn.ReLU(inplace=True))
    other, x = copy.deepcopy(block), torch.randn(8, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    inputs = [x.bfloat16().requires_grad_() for _ in range(2)]
    expected = block(inputs[0])
    saved = []
    compiled = torch.compile(other, fullgraph=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        got = compiled(inputs[1])
    for y in (expected, got):
        y.square().sum().backward()
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
    torch.testing.assert_close(dict(other.named_buffers()), dict(block.named_buffers()))
    assert {t.dtype for t in saved if t.numel() >= x.numel()} == {torch.bfloat16, torch.bool}  # and the ReLU's mask


METHODS = {**SMALL, "swav": dataclasses.replace(SMALL["swav"], queue=0)}


@pytest.mark.parametrize("name", METHODS)
def test_both_views_in_one_pass_are_the_same_step(name):
    """Equal loss, gradients and running averages; MoCo's encoders see one view each, so batching has no effect."""
    found = []
    for batched in (False, True):
        torch.manual_seed(0)
        small = Backbone(name="resnet18", width=4, stem="small")
        backbone, width = build_backbone(small, bn_group_size=6 if batched else 0)
        method = METHODS[name].build(BuildContext(backbone, width, num_classes=4, batched_views=batched))
        calls = []
        for module in method.modules():
            if isinstance(module, ResNet):
                module.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        local = torch.randn(2, 6, 3, 8, 8) if METHODS[name].multi_crop else None
        views = Views(torch.randn(2, 6, 3, 12, 12), torch.arange(6) % 4, local_LBCHW=local)
        output = method(views)
        output.loss.backward()
        grads = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
        found.append((output.loss, *output.features, grads, dict(method.named_buffers()), len(calls)))
    separate, together = found
    torch.testing.assert_close(separate[:5], together[:5], rtol=1e-3, atol=1e-4)
    if name == "moco":  # each encoder sees one view; the two local crops are batched
        assert (together[5], separate[5]) == (3, 4)
    else:
        assert together[5] == separate[5] // 2


def test_encoding_keeps_channels_last_and_copies_nothing():
    seen = []
    backbone = nn.Flatten()
    backbone.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    x = torch.randn(2, 3, 8, 8, 3).permute(0, 1, 4, 2, 3)  # channels-last, like the output of augment
    EncoderOnly(BuildContext(backbone, 192, batched_views=True))(Views(x, torch.zeros(3, dtype=torch.int64)))
    assert seen[0].is_contiguous(memory_format=torch.channels_last) and seen[0].data_ptr() == x.data_ptr()


def test_native_sync_keeps_names_values_and_groups():
    backbone, _ = build_backbone(Backbone(name="resnet18", width=4, batch_norm="sync"), bn_group_size=5)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    use_native_sync(backbone)
    norms = [m for m in backbone.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert norms and all(type(m) is NativeSyncBatchNorm and m.group_size == 5 for m in norms)
    assert not [m for m in backbone.modules() if isinstance(m, BatchNorm2d)]
    after = backbone.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)


def test_any_model_is_synchronised_with_its_own_norms_values():
    class Other(nn.BatchNorm2d):
        """As timm's, which includes an activation."""

    model = nn.ModuleDict(
        {
            "a": nn.Sequential(nn.BatchNorm2d(3, eps=0.1, momentum=0.4), nn.BatchNorm1d(5, affine=False)),
            "b": BatchNorm2d(2, sync=False),
            "c": Other(4),
        }
    )
    with torch.no_grad():
        for i, tensor in enumerate(model.state_dict().values()):
            tensor.copy_(torch.full_like(tensor, i + 1))
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(6, 3, 2, 2)
    expected = copy.deepcopy(model)["a"][0](x)
    found = synchronised(model)["a"]
    assert [type(m) for m in found] == [BatchNorm2d, BatchNorm1d] and type(model["c"]) is Other
    assert all(m.sync for m in (*found, model["b"])) and (found[0].eps, found[0].momentum) == (0.1, 0.4)
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    torch.testing.assert_close(found[0](x), expected)


def test_split_statistics_are_those_of_groups_and_must_fit(beton, tmp_path):
    from tiny_runs import ALONE, config

    from fastaugself.training.trainer import Trainer

    backbone = Backbone(name="resnet18", width=4, stem="small", batch_norm="split", bn_group_size=4)
    split = config(beton, tmp_path, backbone=backbone)
    trainer = Trainer(split, ALONE)
    trainer.close()
    groups = {m.group_size for m in trainer.learner.modules() if isinstance(m, BatchNorm2d)}
    assert groups == {4}
    with pytest.raises(UsageError, match=r"--backbone.bn-group-size 4 must be at least 2 and divide the 2 samples"):
        dataclasses.replace(split, accumulate=8)


def moco(shuffle):
    torch.manual_seed(0)
    backbone, width = build_backbone(Backbone(name="resnet18", width=4, stem="small"), bn_group_size=12)
    return MoCo(queue=24, dim=8, shuffle=shuffle).build(BuildContext(backbone, width, num_classes=4))


def test_shuffled_keys_are_encoded_in_other_groups_and_returned_in_order():
    views = Views(torch.randn(2, 12, 3, 12, 12), torch.arange(12))
    plain, shuffled = moco(False), moco(True)
    outputs = [method(views) for method in (plain, shuffled)]
    torch.testing.assert_close(outputs[0].loss, outputs[1].loss)  # one group: its statistics do not depend on the order
    for norm in (m for method in (plain, shuffled) for m in method.key_backbone.modules()):
        if isinstance(norm, BatchNorm2d):
            norm.group_size = 4
    apart, mixed = (method(views).features[1] for method in (plain, shuffled))
    assert not torch.allclose(apart, mixed, atol=1e-4)
    order = permutation(12, shuffled.shuffles)
    expected = torch.empty_like(mixed)
    expected[order] = plain.key_backbone(views.x_VBCHW[1][order])
    torch.testing.assert_close(mixed, expected)
    shuffled.update_queue(outputs[1].queue_update, 0.0)
    assert not torch.equal(permutation(12, shuffled.shuffles), order)


def test_permutations_differ_and_are_uniform():
    drawn = torch.stack([permutation(6, torch.tensor(i)) for i in range(6000)])
    assert torch.equal(drawn.sort(1).values, torch.arange(6).expand(6000, 6))
    counts = torch.stack([(drawn == value).sum(0) for value in range(6)]).double()
    assert ((counts - 1000).abs() < 150).all()  # 5 standard deviations of 29
    assert len({tuple(row) for row in drawn.tolist()}) == 720


SHUFFLED = """
import sys
import types
import torch
import torch.distributed as dist
from fastaugself import Backbone, CASSLE, MoCo
from fastaugself.methods.base import BuildContext, Views
from fastaugself.models.build import build_backbone

folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
torch.manual_seed(0)
backbone, width = build_backbone(Backbone(name="resnet18", width=4, stem="small"), bn_group_size=6)
method = MoCo(queue=24, dim=8, shuffle=True).build(BuildContext(backbone, width, num_classes=4))
x = torch.randn(24, 3, 12, 12).contiguous(memory_format=torch.channels_last).unflatten(0, (2, 12))
x = x.chunk(world, 1)[rank]
features = method(Views(x, torch.arange(12 // world))).features
torch.save(features, f"{folder}/{world}-{rank}.pt")
"""


@pytest.mark.slow
def test_shuffling_among_processes_is_shuffling_among_groups(tmp_path):
    """Two processes with 6 samples each, against one process with two groups of 6."""
    commands = [[sys.executable, "-c", SHUFFLED, str(tmp_path), str(r), str(w)] for r, w in ((0, 1), (0, 2), (1, 2))]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in started:
        assert process.communicate(timeout=120)[1] is not None and process.returncode == 0
    one, two = torch.load(tmp_path / "1-0.pt"), [torch.load(tmp_path / f"2-{r}.pt") for r in (0, 1)]
    for view in (0, 1):
        torch.testing.assert_close(torch.cat([part[view] for part in two]), one[view], rtol=1e-4, atol=1e-5)


class FakeApexNorm(nn.modules.batchnorm._BatchNorm):
    """A stand-in for NVIDIA apex's SyncBatchNorm: with channel_last, inputs and outputs are [B, H, W, C]."""

    def __init__(self, *options, channel_last=False):
        super().__init__(*options)
        self.channel_last = channel_last

    def _check_input_dim(self, input):
        assert self.channel_last and input.shape[-1] == self.num_features and input.is_contiguous()

    def forward(self, input):
        self._check_input_dim(input)
        return super().forward(input) if input.ndim == 2 else self._images(input)

    def _images(self, x):
        momentum, training = self.momentum, self.training
        x = x.permute(0, 3, 1, 2)
        y = nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training, momentum, self.eps
        )
        return y.permute(0, 2, 3, 1)


def test_apex_norms_replace_ours_if_nvidias_apex_is_installed(monkeypatch):
    apex, parallel = types.ModuleType("apex"), types.ModuleType("apex.parallel")
    apex.__path__, parallel.SyncBatchNorm = [], FakeApexNorm
    monkeypatch.setitem(sys.modules, "apex", apex)
    monkeypatch.setitem(sys.modules, "apex.parallel", parallel)
    torch.manual_seed(0)
    ours, _ = build_backbone(Backbone(name="resnet18", width=4, batch_norm="sync"), bn_group_size=3)
    theirs = copy.deepcopy(ours)
    use_native_sync(theirs, apex_sync_batch_norm())
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert sum(isinstance(m, FakeApexNorm) for m in theirs.modules()) == 20
    x = torch.randn(6, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(theirs(x), ours(x))
    monkeypatch.delitem(sys.modules, "apex.parallel")
    with pytest.raises(UsageError, match=r"--backbone.sync-by apex: the `apex` at .* is PyPI's unrelated package"):
        apex_sync_batch_norm()


def test_an_nvidia_apex_without_this_module_is_not_mistaken_for_pypis(monkeypatch, tmp_path):
    """NVIDIA's releases after 25.05 have no apex.parallel."""
    (tmp_path / "apex" / "optimizers").mkdir(parents=True)
    for folder in ("apex", "apex/optimizers"):
        (tmp_path / folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    message = (
        r"sync-by apex: NVIDIA's apex is installed without its module apex.parallel .* pass --backbone.sync-by torch"
    )
    try:
        with pytest.raises(UsageError, match=message):
            apex_sync_batch_norm()
    finally:
        for name in ("apex", "apex.optimizers"):
            sys.modules.pop(name, None)


def test_a_norm_without_weights_over_one_process_is_torchs():
    ours, theirs = BatchNorm1d(6, affine=False, sync=True), nn.BatchNorm1d(6, affine=False)
    x = torch.randn(9, 6)
    torch.testing.assert_close(_training_forward(ours, x, 1, sync=True), theirs(x))
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))


def test_synchronised_statistics_do_not_cancel_where_the_mean_is_large():
    """One process, so the expected values, gradients and running averages are those of torch's norm."""
    x = torch.randn(8, 3, 4, 4) * 0.01 + torch.tensor([100.0, -3.0, 0.0]).view(1, 3, 1, 1)
    ours, theirs = BatchNorm2d(3, sync=True), nn.BatchNorm2d(3)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    weight = torch.randn(x.shape)
    got, expected = _training_forward(ours, inputs[0], 1, sync=True), theirs(inputs[1])
    (got * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-2)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=2e-2, atol=1e-1)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-4, atol=0)
