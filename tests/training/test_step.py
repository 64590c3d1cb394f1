"""The training step: no host sync, no recompilation, one graph, eager fallback, gradient accumulation, prefetching."""

import contextlib
import copy
import logging

import pytest
import torch
from syncs import counted_syncs
from tiny_steps import CPU, METHODS, B, assert_same, batch, learner_of, step_of, take, tensors

from fastaugself import CASSLE, Backbone, SwAV
from fastaugself.config.optim import Optim
from fastaugself.methods.base import Views
from fastaugself.models.build import build_backbone
from fastaugself.training.compile import keep_compiled_code
from fastaugself.training.optim import make_optimizer, set_learning_rate
from fastaugself.training.prefetch import prefetch
from fastaugself.training.step import TrainStep


def test_the_counter_of_syncs_counts(monkeypatch):
    x = torch.arange(3.0)
    waits = (
        x[0].item,
        lambda: bool(x[0] > 1),
        lambda: x.tolist(),
        lambda: x.nonzero(),
        lambda: x[x > 1],
        x[1].__float__,
    )
    for wait in waits:
        with counted_syncs(monkeypatch) as found:
            wait()
        assert found
    with counted_syncs(monkeypatch) as found:
        x.mul(2).sum()
    assert found == []


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_a_step_has_no_host_sync(name, optimizer, monkeypatch):
    assert_no_host_sync(METHODS[name], optimizer, torch.float32, monkeypatch)


@pytest.mark.parametrize("optimizer", ["lars", "lamb"])  # torch's fused optimizers need CUDA for it
def test_a_step_with_loss_scaling_has_no_host_sync(optimizer, monkeypatch):
    assert_no_host_sync(METHODS["moco"], optimizer, torch.float16, monkeypatch)


@pytest.mark.parametrize("by", ["global", "parameter"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_clipped_step_has_no_host_sync(by, dtype, monkeypatch):
    assert_no_host_sync(METHODS["moco"], "lars", dtype, monkeypatch, clip_grad=0.1, clip_by=by)


def assert_no_host_sync(method, optimizer, dtype, monkeypatch, **options):
    """Runs three steps, the last of which must have no host sync."""
    learner = learner_of(method)
    step = TrainStep(learner, make_optimizer(learner, Optim(name=optimizer)), device=CPU, dtype=dtype, **options)
    take(step, 2)
    made = batch(2)
    with counted_syncs(monkeypatch) as found:
        set_learning_rate(step.optimizer, 0.01, 0.1)
        result = step(made, global_step=2, progress=0.3)
        torch.stack([value.float() for value in result.metrics.values()])
    assert found == []


@pytest.mark.parametrize("name", METHODS)
def test_forward_and_loss_are_one_graph_compiled_once(name, monkeypatch):
    from torch._dynamo.utils import counters

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, **k: compile_(m, backend="eager", fullgraph=True, dynamic=False))
    torch._dynamo.reset()
    counters.clear()
    cassle = None if name == "supervised" else CASSLE(conditioning="concat", depth=1, width=4)
    plain, step = (step_of(learner_of(METHODS[name], cassle=cassle), compile=c) for c in ("off", "on"))
    take(step, 2, cassle=cassle)
    assert counters["stats"]["unique_graphs"] == 1
    with torch._dynamo.config.patch(error_on_recompile=True):
        take(step, 3, first=2, cassle=cassle)
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    take(plain, 5, cassle=cassle)
    assert_same(tensors(plain), tensors(step))


def test_swav_is_compiled_once_more_when_its_queue_is_full(monkeypatch):
    from torch._dynamo.utils import counters

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, **k: compile_(m, backend="eager", fullgraph=True, dynamic=False))
    torch._dynamo.reset()
    counters.clear()
    options = SwAV(dim=8, hidden=16, prototypes=6, queue=3 * B, queue_start=0.0)
    graphs, step = [], step_of(learner_of(options), compile="on")
    for i in range(6):
        take(step, 1, first=i)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_compiler_failure_is_logged_once_and_training_continues_in_eager_mode(where, monkeypatch):
    from torch._dynamo.backends.common import aot_autograd

    def broken(graph, inputs):
        raise RuntimeError("no compiler here\nand more lines")

    def whole(graph, inputs):
        return graph

    parts = {"fw_compiler": broken if where == "forward" else whole, "bw_compiler": broken}
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, **k: compile_(m, backend=aot_autograd(**parts), dynamic=False))
    torch._dynamo.reset()
    expected = step_of(learner_of(METHODS["moco"]), compile="off")
    insisting = step_of(learner_of(METHODS["moco"]), compile="on")
    with pytest.raises(Exception, match="no compiler here"):
        take(insisting, 1)
    torch._dynamo.reset()
    step = step_of(learner_of(METHODS["moco"]), compile="on")
    step.must_compile = False  # as with "auto" on CUDA
    lines = []
    logger = logging.getLogger("fastaugself.training.compile")
    monkeypatch.setattr(logger, "warning", lambda text, *values: lines.append(text % values))
    step.probe(batch())
    take(step, 3)
    (line,) = lines
    assert "torch.compile failed" in line and "no compiler here" in line and "\n" not in line
    assert not step.compiled
    take(expected, 3)
    assert_same(tensors(expected), tensors(step), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["moco", "supervised", "dino"])
def test_gradient_accumulation_is_exact_without_batch_norm(name):
    options = {"norm": False, "weights": {"crop": 0.0, "color": 0.0}}
    whole, parts = (step_of(learner_of(METHODS[name], **options), accumulate=n) for n in (1, 4))
    for a, b in zip(take(whole, 3), take(parts, 3), strict=True):
        assert b.metrics.keys() == a.metrics.keys()
        torch.testing.assert_close(b.loss, a.loss)
    assert_same(tensors(whole), tensors(parts))  # the queue too: every key of the batch, in order


def part(views, s):
    """The samples `s` of a batch."""
    x_VBCHW, params_VBP = views.x_VBCHW[:, s], views.params_VBP[:, s]
    return Views(x_VBCHW, views.labels_B[s], params_VBP=params_VBP, sizes_B2=views.sizes_B2[s])


def test_batch_norm_statistics_are_per_micro_batch():
    """Gradients are the mean over micro-batches, as with one process per micro-batch and plain batch norm."""
    step = step_of(learner_of(METHODS["simsiam"]), accumulate=2)
    alone = copy.deepcopy(step.learner)
    views = batch()
    step.forward_backward(views)
    expected = None
    for s in (slice(0, 4), slice(4, 8)):
        own = copy.deepcopy(alone)
        own(part(views, s)).loss.backward()
        grads = [p.grad for p in own.parameters() if p.grad is not None]
        expected = grads if expected is None else [a + b for a, b in zip(expected, grads, strict=True)]
    got = [p.grad for p in step.learner.parameters() if p.grad is not None]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b / 2)


@pytest.mark.parametrize("name", METHODS)
def test_per_sample_loss_is_set_for_exactly_the_losses_that_are_means_over_samples(name):
    """Without batch norm, the mean over two halves equals the loss of the batch exactly if per_sample_loss is set."""
    learner = learner_of(METHODS[name], weights={"crop": 0.0, "color": 0.0}).eval()
    views = batch()
    views = views._replace(x_VBCHW=30 * views.x_VBCHW)  # large inputs, where a nonlinear loss is not close to linear
    halves = [learner(part(views, s)).loss for s in (slice(0, 4), slice(4, 8))]
    same = torch.isclose(learner(views).loss, sum(halves) / 2, rtol=1e-4)
    assert bool(same) == METHODS[name].per_sample_loss


class Recorder:
    """A stream that records its calls."""

    def __init__(self, events):
        self.events = events

    def enter(self):
        @contextlib.contextmanager
        def inside():
            self.events.append("enter")
            yield
            self.events.append("leave")

        return inside()

    def hand_over(self, tensors):
        self.events.append(f"hand over {sorted(int(t[0]) for t in tensors)}")


def test_batches_are_fetched_and_made_inside_the_stream_and_handed_over_outside():
    events, closed = [], []

    def items():
        try:
            for i in range(3):
                events.append(f"take {i}")
                yield i
        finally:
            closed.append(True)

    def make(i):
        events.append(f"make {i}")
        return (i, torch.tensor([i]), (torch.tensor([10 + i]), None))

    for i, *_ in prefetch(items(), make, Recorder(events)):
        events.append(f"step {i}")
        if i == 1:
            break
    each = ["enter", "take {i}", "make {i}", "leave", "hand over [{i}, 1{i}]", "step {i}"]
    assert events == [line.format(i=i) for i in range(2) for line in each]
    assert closed == [True]
    events.clear()
    assert [i for i, *_ in prefetch(items(), make, None)] == [0, 1, 2]
    assert events == [f"{what} {i}" for i in range(3) for what in ("take", "make")]


def test_compiled_code_is_cached_in_the_run_folder_unless_the_environment_sets_a_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", "elsewhere")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    keep_compiled_code(tmp_path)
    import os

    assert os.environ["TRITON_CACHE_DIR"] == "elsewhere"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "inductor")


def test_a_resnet_is_one_graph_too(monkeypatch):
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    model, _ = build_backbone(Backbone(name="resnet18", width=8, stem="small"))
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    for _ in range(3):
        compiled(torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last))
    assert counters["stats"]["unique_graphs"] == 1
