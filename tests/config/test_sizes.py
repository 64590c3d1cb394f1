"""The schedule of the size of the views: which size at which step, and what has it in proportion."""

import pytest
import torch

from fastaugself import Backbone, Pretrain, SimCLR, ViewPolicy
from fastaugself.aware import ESSL
from fastaugself.config.sizes import Sizes
from fastaugself.methods.base import Views
from fastaugself.runs.build import build_learner
from fastaugself_kernels import sample_params

THREE = Sizes(("0:128", "0.5:160", "0.9:224"), 224)


def test_each_stage_begins_at_its_fraction_of_the_run():
    assert [THREE.at(step, 100) for step in (0, 49, 50, 89, 90, 99)] == [128, 128, 160, 160, 224, 224]
    # The first step of which that fraction is done: 0.9 of 7 steps are 6.3.
    assert [THREE.at(step, 7) for step in range(7)] == [128] * 4 + [160] * 3
    assert Sizes((), 96).at(5, 10) == 96
    thirds = Sizes(("0:8", "0.1:9", "0.3:10"), 10)
    assert [thirds.at(step, 10) for step in range(5)] == [8, 9, 9, 10, 10]  # 0.3 * 10 is a little above 3 in floats


def test_the_sizes_of_a_part_of_a_run_are_those_that_its_steps_have():
    assert THREE.between(0, 100, 100) == [128, 160, 224]
    assert THREE.between(50, 90, 100) == [160] and THREE.between(49, 91, 100) == [128, 160, 224]
    assert THREE.between(95, 100, 100) == [224] and THREE.between(100, 100, 100) == []
    for start in range(8):
        for end in range(start, 8):
            assert THREE.between(start, end, 7) == list(dict.fromkeys(THREE.at(step, 7) for step in range(start, end)))


def test_shares_add_up():
    assert THREE.shares() == pytest.approx({128: 0.5, 160: 0.4, 224: 0.1})
    assert Sizes(("0:8", "0.25:4", "0.5:8"), 8).shares() == pytest.approx({8: 0.75, 4: 0.25})


@pytest.mark.parametrize(
    ("size", "full", "now", "expected"),
    [
        (96, 224, 128, 64),
        (96, 224, 160, 64),
        (98, 224, 128, 56),
        (98, 224, 160, 70),
        (97, 224, 128, 55),
        (16, 32, 16, 16),
    ],
)
def test_other_views_have_the_size_in_proportion_on_the_grid_of_both(size, full, now, expected):
    """Whatever patch divides both full sizes divides the result."""
    assert Sizes((), full).scaled(size, now) == expected
    assert Sizes((), full).scaled(size, full) == size


def test_kernels_stay_odd():
    assert [Sizes((), 224).scaled_kernel(23, now) for now in (224, 128, 112, 16)] == [23, 13, 13, 3]


def test_the_backbone_must_take_every_stage_and_the_local_crops():
    config = Pretrain(
        view=ViewPolicy.moco_v2(224), size_schedule=("0:128", "0.5:224"), num_local_crops=2, method=SimCLR(),
        backbone=Backbone(name="resnet18"), aware=(ESSL(weight=1.0),),
    )  # fmt: skip
    assert config.other_sizes["--view.schedule 0:{} 0.5:224"] == 128
    assert config.other_sizes["--local-crop.size {}"] == 96


def test_a_vit_takes_the_sizes_of_all_stages(timm):
    config = Pretrain(
        view=ViewPolicy.moco_v2(64), size_schedule=("0:32", "0.5:64"),
        backbone=Backbone(name="timm:vit_tiny_patch16_224"), method=SimCLR(dim=8),
    )  # fmt: skip
    learner = build_learner(config)
    for size in (32, 64):
        policies, sizes_B2 = config.policies, torch.tensor([[70, 80]] * 2, dtype=torch.int32)
        params_VBP = sample_params(torch.arange(2), sizes_B2, policies, seed=0, epoch=0)
        views = Views(torch.rand(2, 2, 3, size, size), torch.zeros(2).long(), params_VBP=params_VBP, sizes_B2=sizes_B2)
        learner(views).loss.backward()
