"""Training steps of every method on random views."""

import dataclasses

import torch
from method_cases import SMALL
from torch import Tensor, nn

from fastaugself import (
    CASSLE,
    AugSelf,
    Optim,
)
from fastaugself.aware.augself import AugSelfLoss
from fastaugself.aware.cassle import projector_type
from fastaugself.aware.learner import Learner
from fastaugself.methods.base import BuildContext, Views
from fastaugself.training.optim import make_optimizer, set_learning_rate
from fastaugself.training.step import TrainStep
from fastaugself_kernels import ViewPolicy, descriptors, sample_params

B, D = 8, 12
METHODS = {
    **SMALL,
    "moco-shuffle": dataclasses.replace(SMALL["moco"], shuffle=True),
    "swav": dataclasses.replace(SMALL["swav"], queue=0),
}
POLICIES = (ViewPolicy.moco_v2(16),) * 2
CPU = torch.device("cpu")


class Small(nn.Sequential):
    """A backbone of one convolution."""

    def __init__(self, *, norm=True):
        super().__init__(
            nn.Conv2d(3, D, 3), nn.BatchNorm2d(D) if norm else nn.Identity(), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )  # fmt: skip


def learner_of(method, *, norm=True, cassle=None, weights=None):
    torch.manual_seed(0)
    augself = AugSelf(hidden=8, **({"crop": 0.5, "color": 0.5} if weights is None else weights))
    parts = BuildContext(Small(norm=norm), D, num_classes=4, projector_type=projector_type(cassle or CASSLE()))
    objectives = {"augself": AugSelfLoss(augself, D, policies=POLICIES)} if augself.weights else {}
    return Learner(method.build(parts), objectives)


def batch(seed=0, cassle=None):
    random = torch.Generator().manual_seed(seed)
    policies, sizes = POLICIES, torch.tensor([[40, 30]] * B, dtype=torch.int32)
    params = sample_params(torch.arange(B) + seed * B, sizes, policies, seed=0, epoch=0)
    x = torch.randn(2, B, 3, 16, 16, generator=random)
    condition = None
    if cassle:
        condition = descriptors(params, sizes, policies, torch.zeros(2, B, 3), include=cassle.include)
    labels = torch.randint(4, (B,), generator=random)
    return Views(x, labels, condition, params_VBP=params, sizes_B2=sizes)


def step_of(learner, **options):
    optimizer = make_optimizer(learner, Optim(lr=0.1), constant_lr=learner.method.constant_lr)
    return TrainStep(learner, optimizer, device=CPU, **options)


def take(step, count, first=0, cassle=None):
    results = []
    for i in range(first, first + count):
        set_learning_rate(step.optimizer, 0.1 / (i + 1), 0.1)
        results.append(step(batch(i, cassle), global_step=i, progress=(i + 1) / 10))
    return results


def tensors(step):
    return {name: value for name, value in step.learner.state_dict().items() if isinstance(value, Tensor)}


def assert_same(a, b, **tolerance):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance)
