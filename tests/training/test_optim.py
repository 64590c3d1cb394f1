"""The optimizer's parameter groups, its state, and the schedule of its weight decay."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from fastaugself.config.optim import Optim
from fastaugself.errors import UsageError
from fastaugself.training.optim import (
    load_state,
    make_optimizer,
    set_learning_rate,
    set_weight_decay,
    weight_decay,
)


@pytest.mark.parametrize("name", ["lars", "lamb", "sgd", "adamw"])
def test_a_step_after_saving_and_loading_is_the_same_step(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    config = Optim(name=name, weight_decay=0.1)

    def step(model, optimizer):
        set_learning_rate(optimizer, 0.1, 0.1)
        optimizer.zero_grad()
        model(torch.linspace(-1, 1, 15).view(3, 5)).square().sum().backward()
        optimizer.step()

    optimizer = make_optimizer(model, config)
    step(model, optimizer)
    again = copy.deepcopy(model)
    resumed = make_optimizer(again, config)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    step(again, resumed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_state_in_another_memory_format_gives_the_same_steps(name):
    """A channels-last weight whose optimizer state was saved in contiguous format."""
    layouts = (torch.contiguous_format, torch.channels_last)
    plain, last = (nn.Conv2d(4, 6, 3, bias=False).to(memory_format=layout) for layout in layouts)
    optimizers = [make_optimizer(model, Optim(name=name, weight_decay=0.1)) for model in (plain, last)]

    def step(model, optimizer, gradient):
        set_learning_rate(optimizer, 0.1, 0.1)
        model.weight.grad = torch.empty_like(model.weight).copy_(gradient)
        optimizer.step()

    first, second = torch.randn(2, 6, 4, 3, 3)
    step(plain, optimizers[0], first)
    last.load_state_dict(plain.state_dict())
    load_state(optimizers[1], copy.deepcopy(optimizers[0].state_dict()))
    for model, optimizer in zip((plain, last), optimizers, strict=True):
        step(model, optimizer, second)
    torch.testing.assert_close(last.weight, plain.weight)


@pytest.mark.parametrize("decay_norm_bias", [True, False])
def test_norms_and_biases_are_never_scaled_and_decay_only_if_requested(decay_norm_bias):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = make_optimizer(model, Optim(name="lars", weight_decay=0.1, decay_norm_bias=decay_norm_bias))
    groups = {len(group["params"]): group for group in optimizer.param_groups}
    assert groups[1]["adapt"] and groups[1]["weight_decay"] == 0.1  # the convolution's weight
    assert not groups[3]["adapt"] and groups[3]["weight_decay"] == (0.1 if decay_norm_bias else 0.0)


def test_a_predictor_keeps_the_peak_while_the_rest_follows_the_schedule():
    from fastaugself import Backbone, Pretrain, SimSiam
    from fastaugself.runs.build import build_learner

    backbone = Backbone(name="resnet18", width=4, stem="small")
    learner = build_learner(Pretrain(backbone=backbone, method=SimSiam(dim=16, predictor_hidden=8)))
    optimizer = make_optimizer(learner, Optim(norm_bias_lr_scale=0.5), constant_lr=learner.method.constant_lr)
    set_learning_rate(optimizer, 0.01, 0.1)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, p in learner.named_parameters():
        peak = 0.1 if name.startswith("method.predictor.") else 0.01
        assert rates[p] == pytest.approx(peak * (0.5 if p.ndim == 1 else 1.0)), name


# --- schedules and clipping -------------------------------------------------------------------------------------------


def test_weight_decay_follows_half_a_cosine_and_spares_norms_and_biases():
    """DINO's: 0.04 to 0.4; in the middle their mean."""
    dino = Optim(name="adamw", weight_decay=0.04, weight_decay_end=0.4, decay_norm_bias=False)
    assert [weight_decay(dino, p) for p in (0, 0.5, 1)] == pytest.approx([0.04, 0.22, 0.4])
    assert weight_decay(dino, 0.25) == pytest.approx(0.4 - 0.36 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert weight_decay(Optim(weight_decay=0.3), 0.7) == 0.3
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    for start in (0.04, 0.0):
        optimizer = make_optimizer(model, dataclasses.replace(dino, weight_decay=start))
        load_state(optimizer, optimizer.state_dict())
        for value in (0.0, 0.1):
            set_weight_decay(optimizer, value)
            found = {p: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
            assert found[model[0].weight] == value and found[model[1].weight] == found[model[0].bias] == 0


def test_a_state_from_before_there_were_schedules_of_weight_decay_is_loaded():
    model = nn.Linear(3, 4)
    optimizer = make_optimizer(model, Optim(weight_decay=0.1, decay_norm_bias=False))
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        del group["decays"]
    load_state(optimizer, state)
    set_weight_decay(optimizer, 0.2)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.2]


def test_floors_and_clipping_that_cannot_be_are_refused():
    for options, remedy in (
        ({"lr": 0.1, "min_lr": 0.2}, "above --optim.lr 0.1, the peak; pass --optim.min-lr 0.0001"),
        ({"min_lr": 0.01, "schedule": "constant"}, "pass --optim.min-lr 0, or --optim.schedule cosine"),
        ({"min_lr": -1.0}, "--optim.min-lr must be at least 0"),
        ({"weight_decay_end": math.nan}, "--optim.weight-decay-end must be at least 0"),
        ({"clip_grad": 3.0, "implementation": "apex"}, "pass --optim.implementation torch, or --optim.clip-grad 0"),
        ({"clip_grad": -3.0}, "--optim.clip-grad must be at least 0"),
        ({"lr_in_velocity": True}, "pass --optim.no-lr-in-velocity"),
    ):
        with pytest.raises(UsageError) as error:
            Optim(**options)
        assert remedy in str(error.value)
