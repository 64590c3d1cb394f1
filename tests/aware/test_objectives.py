"""What every aware objective must do: join any method and CASSLE, compile, resume, and cost nothing if it is off.

Every objective of `tiny_aware.OBJECTIVES` is tested; `list_aware` must know no others.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
import torch
from method_cases import SMALL
from syncs import counted_syncs
from tiny_aware import BACKBONES, OBJECTIVES, OFF, config_of, learner_of, step_of, views_of

from fastaugself import CASSLE, SimSiam, list_aware
from fastaugself.aware import AWARE, CONDITIONS
from fastaugself.config.serialize import from_dict, to_dict
from fastaugself.errors import UsageError
from fastaugself.training import batch as batch_module

# Prototypes are trained from the first step on, so that every parameter gets a gradient.
METHODS = {
    name: dataclasses.replace(options, freeze_steps=0) if hasattr(options, "freeze_steps") else options
    for name, options in SMALL.items()
}


@pytest.fixture(autouse=True)
def backbones(request):
    """timm, for the objectives that need one of its models."""
    name = getattr(getattr(request.node, "callspec", None), "params", {}).get("name")
    if name in BACKBONES or name is None:
        request.getfixturevalue("timm")


def finite_gradients(learner):
    return all(p.grad is None or bool(p.grad.isfinite().all()) for p in learner.parameters())


def test_every_registered_objective_is_tested_here():
    assert set(AWARE) == set(OBJECTIVES) and set(list_aware()) == {*AWARE, *CONDITIONS}
    assert all(options.name == name and options.title for name, options in AWARE.items())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_joins_a_method_with_its_weights(name, method):
    if OBJECTIVES[name].needs_projector and not METHODS[method].has_projector:
        with pytest.raises(UsageError, match="needs the projector"):
            config_of(name, method=METHODS[method])
        return
    config = config_of(name, method=METHODS[method])
    learner = learner_of(config)
    output = learner(views_of(config))
    weights = OBJECTIVES[name].weights
    losses = {key.removeprefix("loss_"): float(value) for key, value in output.metrics.items()}
    assert weights.keys() <= losses.keys()
    expected = losses["ssl"] + sum(weight * losses[key] for key, weight in weights.items())
    assert float(output.loss.detach()) == pytest.approx(expected, rel=1e-5)
    output.loss.backward()
    assert finite_gradients(learner) and all(torch.isfinite(value) for value in output.metrics.values())
    trained = [p for p in learner.aware[name].parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_joins_cassle(name):
    config = config_of(name, cassle=CASSLE(conditioning="concat", width=8, depth=2))
    learner = learner_of(config)
    output = learner(views_of(config))
    output.loss.backward()
    assert finite_gradients(learner)


def test_all_objectives_together():
    names = [name for name in OBJECTIVES if name not in BACKBONES]
    config = config_of(*names)
    views = views_of(config)
    assert len(views.extra) == len(set(views_requests(config)))
    learner = learner_of(config)
    output = learner(views)
    output.loss.backward()
    assert finite_gradients(learner) and list(learner.aware) == sorted(names, key=list(OBJECTIVES).index)


def views_requests(config):
    return [request for wanted in config.requests.values() for request in wanted]


def test_equal_requests_are_made_and_encoded_once():
    first, second = OBJECTIVES["essl"], dataclasses.replace(OBJECTIVES["essl"], hidden=32)
    learner = learner_of(config_of("essl"))
    other = second.build(_context(learner))
    requests = {
        "essl": first.requests(config_of("essl").policies),
        "again": second.requests(config_of("essl").policies),
    }
    both = type(learner)(learner.method, {"essl": learner.aware["essl"], "again": other}, requests=requests)
    assert len(both.requests) == 1
    calls = []
    learner.method.backbone.register_forward_hook(lambda *_: calls.append(1))
    both.forward(views_of(config_of("essl")))
    assert len(calls) == 3  # two global views, and the small views once


def _context(learner):
    from fastaugself.aware.base import AwareContext

    return AwareContext(learner.method, learner.method.backbone.num_features, config_of().policies)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_alone(name):
    options = dataclasses.replace(OBJECTIVES[name], only=True)
    changes = {"augself": options} if name == "augself" else {"aware": (options,)}
    if OBJECTIVES[name].needs_projector:
        with pytest.raises(UsageError, match=rf"--{name}\.no-only"):
            config_of(name, **changes)
        return
    config = config_of(name, **changes)
    learner = learner_of(config)
    output = learner(views_of(config))
    assert "loss_ssl" not in output.metrics and list(learner.method.children()) == [learner.method.backbone]
    output.loss.backward()
    assert finite_gradients(learner)
    assert any(float(p.grad.abs().sum()) > 0 for p in learner.method.backbone.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_bf16_autocast_is_close_to_float32(name):
    """Losses are computed in float32; what remains is the rounding of the features."""
    config = config_of(name)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        learner = learner_of(config)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            output = learner(views_of(config))
        assert output.loss.dtype == torch.float32
        assert all(value.dtype == torch.float32 for value in output.metrics.values())
        found.append({key: float(value) for key, value in output.metrics.items() if key.startswith("loss_")})
    assert found[0] == pytest.approx(found[1], rel=0.05, abs=0.03)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_compiles_in_one_graph(name):
    config = config_of(name)
    learner, views = learner_of(config), views_of(config)
    expected = learner(views)
    torch._dynamo.reset()
    again = learner_of(config)
    compiled = torch.compile(again, backend="aot_eager", fullgraph=True, dynamic=False)
    output = compiled(views)
    output.loss.backward()
    torch.testing.assert_close(output.loss, expected.loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_has_no_host_sync(name, monkeypatch):
    config = config_of(name)
    step, views = step_of(config), views_of(config)
    for i in range(2):
        step(views, global_step=i, progress=0.1)
    with counted_syncs(monkeypatch) as found:
        step(views, global_step=2, progress=0.2)
    assert found == []


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_accumulation_is_exact_or_refused(name):
    """Without batch norm: the mean over micro-batches is the gradient of the whole batch where the options say so."""
    method = SimSiam(dim=16, predictor_hidden=8)
    if not OBJECTIVES[name].per_sample_loss:
        with pytest.raises(UsageError, match=r"--accumulate 2.*--accumulate 1"):
            config_of(name, method=method, accumulate=2)
        return
    config = config_of(name, method=method, accumulate=2)
    gradients = []
    for count in (1, 2):
        learner = learner_of(config).eval()  # running statistics: samples do not see each other
        step_of(config, learner, accumulate=count).forward_backward(views_of(config))
        gradients.append([p.grad for p in learner.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_resumed_run_has_the_same_bits(name, beton, tmp_path):
    options = {"augself": OFF} | config_options(name)
    whole = tiny_runs.train(tiny_runs.config(beton, tmp_path / "whole", max_steps=5, **options))
    tiny_runs.train(tiny_runs.config(beton, tmp_path / "parts", max_steps=2, **options))
    tiny_runs.train(tiny_runs.config(beton, tmp_path / "parts", max_steps=5, **options))
    states = [tiny_runs.saved_weights(tmp_path / run) for run in ("whole", "parts")]
    assert states[0].keys() == states[1].keys()
    assert name == "care" or any(key.startswith(f"objectives.{name}.") for key in states[0])  # CARE has no weights
    for key, value in states[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, states[1][key]), key
    baseline = whole.baseline_losses()
    logged = tiny_runs.metrics(tmp_path / "whole")[-1]
    assert {"loss_" + key for key in baseline} <= logged.keys()


def config_options(name):
    config = config_of(name)
    return {"augself": config.augself, "aware": config.aware, "method": config.method, "backbone": config.backbone,
            "view": config.view}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_configuration_survives_json(name):
    config = config_of(name)
    again = from_dict(type(config), to_dict(config))
    assert again == config and again.objectives == {name: OBJECTIVES[name]}


def test_an_objective_that_is_off_costs_nothing(monkeypatch):
    """The same calls of the kernels, the same inputs and the same operations as without it."""
    calls = []
    for name in ("sample_params", "augment", "descriptors", "share_params", "same_across_views"):
        original = getattr(batch_module, name)

        def counted(*args, name=name, original=original, **kwargs):
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(batch_module, name, counted)
    plain = config_of()
    off = dataclasses.replace(
        plain, aware=tuple(type(options).off() for n, options in OBJECTIVES.items() if n != "augself")
    )
    found = []
    for config in (plain, off):
        calls.clear()
        views, learner = views_of(config), learner_of(config)
        with torch.profiler.profile() as profile:
            learner(views).loss.backward()
        launched = sorted((event.key, event.count) for event in profile.key_averages())
        found.append((list(calls), len(views.extra), launched, sum(p.numel() for p in learner.parameters())))
    assert found[0] == found[1]
    assert found[0][0] == ["sample_params", "augment"] and found[0][1] == 0


WORKER = """
import dataclasses, sys
sys.path.insert(0, sys.argv[4])
import torch
import torch.distributed as dist
from tiny_aware import BACKBONES, OBJECTIVES, config_of, learner_of, part, photos, views_of

folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world)
results = {}
for name in OBJECTIVES:
    if name in BACKBONES:
        continue
    config = config_of(name, B=16)
    config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, batch_norm="sync"))
    own = 16 // world
    batch = part(photos(16), slice(rank * own, (rank + 1) * own))
    learner = learner_of(config, micro_batch=own)
    views = views_of(config, batch)
    output = learner(views)
    (output.loss / world).backward()
    gradients = torch.cat([p.grad.flatten() for p in learner.method.backbone.parameters() if p.grad is not None])
    dist.all_reduce(gradients)
    losses = {key: value for key, value in output.metrics.items() if key.startswith("loss")}
    results[name] = (losses, gradients, views.params_VBP)
torch.save(results, f"{folder}/{world}-{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_losses_and_gradients_do_not_depend_on_the_number_of_processes(tmp_path):
    """One, two and four processes with the same global batch: parameters, losses and the encoder's gradients."""
    helpers = str(Path(__file__).parents[1] / "helpers")
    for world in (1, 2, 4):
        command = [sys.executable, "-c", WORKER, str(tmp_path)]
        started = [subprocess.Popen([*command, str(rank), str(world), helpers]) for rank in range(world)]
        assert [process.wait(timeout=300) for process in started] == [0] * world
    one = torch.load(tmp_path / "1-0.pt", weights_only=False)
    for world in (2, 4):
        parts = [torch.load(tmp_path / f"{world}-{rank}.pt", weights_only=False) for rank in range(world)]
        for name, (losses, gradients, params_VBP) in one.items():
            assert torch.equal(torch.cat([p[name][2] for p in parts], 1), params_VBP), name
            mean = {key: float(sum(p[name][0][key] for p in parts)) / world for key in losses}
            assert mean == pytest.approx({key: float(value) for key, value in losses.items()}, rel=2e-3, abs=1e-4), name
            assert (parts[0][name][1] - gradients).norm() < 1e-2 * gradients.norm(), name
