"""The visible rotation, found by turning pixels; and the parts of the descriptors that CASSLE does not use."""

import itertools
import math

import numpy as np
import pytest
import torch

from fastaugself_kernels import (
    COLUMNS,
    DESCRIPTORS,
    ViewPolicy,
    augment,
    augself_targets,
    descriptors,
    sample_params,
    visible_rotation,
)
from fastaugself_kernels.params import IDENTITY_ORDER, SOLARIZE_OFF
from fastaugself_kernels.targets import columns_of_parts

COLUMN = {name: i for i, name in enumerate(COLUMNS)}
NOTHING = (ViewPolicy.none(),) * 2
SIDE = 33


def identity_rows(sizes_B2, views=2):
    """Rows that crop the whole image and apply nothing, [V, B, P]."""
    params_VBP = torch.zeros(views, len(sizes_B2), len(COLUMNS))
    params_VBP[..., 2:4] = sizes_B2
    params_VBP[..., COLUMN["order"]] = IDENTITY_ORDER
    params_VBP[..., COLUMN["brightness"] : COLUMN["saturation"] + 1] = 1
    params_VBP[..., COLUMN["solarize"]] = SOLARIZE_OFF
    return params_VBP


# --- the visible rotation ---------------------------------------------------------------------------------------------


def turned_pairs(photo_HWC, backend):
    """Both views of `photo_HWC` for every pair of (rotation, flip): views [2, 64, H, W, C], rows, sizes."""
    kinds = list(itertools.product(range(4), (0, 1)))
    pairs = torch.tensor(list(itertools.product(kinds, kinds)), dtype=torch.float32)  # [64, 2 views, 2 columns]
    sizes_B2 = torch.tensor([[SIDE, SIDE]] * len(pairs))
    params_VBP = identity_rows(sizes_B2)
    params_VBP[..., COLUMN["rotation"]], params_VBP[..., COLUMN["flip"]] = pairs.permute(2, 1, 0)
    pixels = torch.from_numpy(photo_HWC).expand(len(pairs), -1, -1, -1).contiguous()
    views_VBCHW = augment(pixels, None, sizes_B2, params_VBP, size=SIDE, mean=(0, 0, 0), std=(1, 1, 1), backend=backend)
    return views_VBCHW.permute(0, 1, 3, 4, 2).numpy() * 255, params_VBP, sizes_B2


def only(found):
    (one,) = found
    return one


def equal(first, second):
    return np.abs(first - second).max() < 0.01


@pytest.fixture(params=["reference", "numba"])
def backend(request):
    if request.param == "numba":
        pytest.importorskip("numba")
    return request.param


def test_the_rotation_class_is_that_which_turns_the_second_view_into_the_first(backend):
    """Of a photo that equals its mirror image, so that no flip is visible: what turns is only the rotation."""
    half = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE // 2 + 1, 3), dtype=np.uint8)
    views, params_VBP, sizes_B2 = turned_pairs(np.concatenate([half, half[:, -2::-1]], 1), backend)
    ab, ba = augself_targets(params_VBP, sizes_B2, NOTHING)
    for b, (first, second) in enumerate(zip(*views, strict=True)):
        assert ab.rotation_B[b] == only(r for r in range(4) if equal(np.rot90(second, r), first))
        assert ba.rotation_B[b] == only(r for r in range(4) if equal(np.rot90(first, r), second))
    assert ab.rotation_B.dtype == torch.int64 and ab.rotation_B.bincount().tolist() == [16] * 4
    columns_2B = params_VBP[..., COLUMN["rotation"]].long()
    assert (ab.rotation_B != (columns_2B[0] - columns_2B[1]) % 4).sum() == 24  # which the columns alone get wrong


def test_each_view_shows_its_flip_and_its_visible_rotation(backend):
    """Of a photo without symmetry: exactly one flip, then rotation, makes the view, and the classes follow."""
    photo = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    views, params_VBP, sizes_B2 = turned_pairs(photo, backend)
    flipped_first = {(r, f): np.rot90(np.fliplr(photo) if f else photo, r) for r in range(4) for f in (0, 1)}
    seen = [[only(key for key, made in flipped_first.items() if equal(made, view)) for view in row] for row in views]
    turns_VB, flips_VB = torch.tensor(seen).unbind(-1)
    assert torch.equal(visible_rotation(params_VBP), turns_VB) and turns_VB.dtype == torch.int64
    assert torch.equal(params_VBP[..., COLUMN["flip"]].long(), flips_VB)
    for order, targets in enumerate(augself_targets(params_VBP, sizes_B2, NOTHING)):
        assert torch.equal(targets.rotation_B, (turns_VB[order] - turns_VB[1 - order]) % 4)
        assert torch.equal(targets.flip_B1[:, 0], (flips_VB[0] == flips_VB[1]).float())


# --- descriptors beyond CASSLE's --------------------------------------------------------------------------------------


def packed_order(*ids):
    return float(sum(op << 2 * place for place, op in enumerate(ids)))


# Columns of a row, and what each part of its descriptors is by hand.
BY_HAND = [
    ({}, {"jitter": [0], "order": [0, 1, 2, 3], "rotation": [1, 0], "solarize": [1]}),
    (
        {"jitter": 1, "order": packed_order(3, 1, 0, 2), "rotation": 1, "solarize": 0.25},
        {"jitter": [1], "order": [3, 1, 0, 2], "rotation": [0, 1], "solarize": [0.25]},
    ),
    (  # not jittered: the order that was drawn is not applied; flipped: turned the other way round
        {"order": packed_order(3, 2, 1, 0), "rotation": 1, "flip": 1, "solarize": 0},
        {"jitter": [0], "order": [0, 1, 2, 3], "rotation": [0, -1], "solarize": [0]},
    ),
    (
        {"jitter": 1, "order": packed_order(0, 1, 2, 3), "rotation": 3, "flip": 1, "solarize": 1},
        {"jitter": [1], "order": [0, 1, 2, 3], "rotation": [0, 1], "solarize": [1]},
    ),
    (
        {"jitter": 1, "order": packed_order(2, 3, 0, 1), "rotation": 3},
        {"jitter": [1], "order": [2, 3, 0, 1], "rotation": [0, -1], "solarize": [1]},
    ),
    ({"rotation": 2, "flip": 1}, {"jitter": [0], "order": [0, 1, 2, 3], "rotation": [-1, 0], "solarize": [1]}),
    ({"flip": 1}, {"jitter": [0], "order": [0, 1, 2, 3], "rotation": [1, 0], "solarize": [1]}),
]


@pytest.fixture
def by_hand():
    """Rows [2, B, P] of photos of odd sizes, view 2 in reverse order, and the sizes."""
    sizes_B2 = torch.tensor([[33, 47], [1, 1], [5, 300], [211, 97], [7, 7], [375, 500], [3, 1]])
    params_VBP = identity_rows(sizes_B2)
    for b, (values, _) in enumerate(BY_HAND):
        for name, value in values.items():
            params_VBP[0, b, COLUMN[name]] = params_VBP[1, -1 - b, COLUMN[name]] = value
    return params_VBP, sizes_B2


@pytest.mark.parametrize("part", ["jitter", "order", "rotation", "solarize"])
def test_each_further_part_is_what_the_row_says(by_hand, part):
    found_VBn = descriptors(*by_hand, NOTHING, include=[part])
    expected = torch.tensor([parts[part] for _, parts in BY_HAND], dtype=torch.float32)
    assert found_VBn.dtype == torch.float32 and found_VBn.shape[2] == DESCRIPTORS[part]
    assert torch.equal(found_VBn, torch.stack([expected, expected.flip(0)]))


def test_parts_are_concatenated_in_one_order_whatever_the_order_of_their_names(by_hand):
    shift_VB3 = torch.rand(2, len(BY_HAND), 3)
    whole_VBn = descriptors(*by_hand, NOTHING, shift_VB3, include=sorted(DESCRIPTORS, reverse=True))
    alone = [descriptors(*by_hand, NOTHING, shift_VB3, include=[part]) for part in DESCRIPTORS]
    assert list(DESCRIPTORS)[-4:] == ["jitter", "order", "rotation", "solarize"]
    assert [part.shape[2] for part in alone] == list(DESCRIPTORS.values())
    assert torch.equal(whole_VBn, torch.cat(alone, 2)) and whole_VBn.shape[2] == 22
    assert torch.equal(descriptors(*by_hand, NOTHING, shift_VB3), whole_VBn[..., :14])  # the default is CASSLE's
    starts, n = columns_of_parts(["rotation", "crop", "order"])
    assert (starts, n) == ({"crop": 0, "order": 4, "rotation": 8}, 10)
    chosen_VBn = descriptors(*by_hand, NOTHING, include=["rotation", "crop", "order"])
    for part, start in starts.items():
        alone_VBn = descriptors(*by_hand, NOTHING, include=[part])
        assert torch.equal(chosen_VBn[..., start : start + DESCRIPTORS[part]], alone_VBn), part


def test_the_further_parts_of_drawn_rows_agree_with_what_the_oracle_applies():
    """The order in which `color_jitter` reads the column, and the angle by which pixels turn."""
    policy = ViewPolicy(rotation=0.8, jitter=0.5, solarize=0.5, solarize_threshold=(0.0, 1.0))
    sizes_B2 = torch.tensor([[33, 47], [97, 211]] * 200)
    params_VBP = sample_params(torch.arange(400), sizes_B2, (policy, policy), seed=3, epoch=1)
    include = ["jitter", "order", "rotation", "solarize"]
    found_VB8 = descriptors(params_VBP, sizes_B2, (policy, policy), include=include)
    for row_BP, found_B8 in zip(params_VBP, found_VB8, strict=True):
        for row, (jitter, *order, cosine, sine, threshold) in zip(row_BP.tolist(), found_B8.tolist(), strict=True):
            r = dict(zip(COLUMNS, row, strict=True))
            ids, left = [], int(r["order"]) if r["jitter"] else IDENTITY_ORDER
            for _ in range(4):
                left, op = divmod(left, 4)
                ids.append(op)
            angle = math.radians(90 * r["rotation"]) * (-1 if r["flip"] else 1)
            assert jitter == r["jitter"] and order == ids and threshold == min(1, r["solarize"])
            assert (cosine, sine) == pytest.approx((math.cos(angle), math.sin(angle)), abs=1e-6)
    assert len(params_VBP[..., COLUMN["order"]].unique()) == 24


def test_descriptors_with_every_part_read_no_value():
    params_VBP, sizes_B2 = torch.empty(2, 5, len(COLUMNS), device="meta"), torch.empty(5, 2, device="meta")
    shift_VB3 = torch.empty(2, 5, 3, device="meta")
    assert descriptors(params_VBP, sizes_B2, NOTHING, shift_VB3, include=tuple(DESCRIPTORS)).shape == (2, 5, 22)
