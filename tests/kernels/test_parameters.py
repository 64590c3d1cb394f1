"""The drawn parameters: known answers, distributions, addresses; and what is made of them."""

import math

import pytest
import torch

from fastaugself_kernels import (
    CASSLE_PARTS,
    COLUMNS,
    DESCRIPTORS,
    ViewPolicy,
    augself_targets,
    descriptors,
    sample_params,
)
from fastaugself_kernels.params import CROP_ATTEMPTS, DRAWS, POLICY, SLOTS_PER_VIEW, pack_policies
from fastaugself_kernels.philox import philox4x32, uniform

TWO = (ViewPolicy.moco_v2(),) * 2
COLUMN = {name: i for i, name in enumerate(COLUMNS)}
KNOWN = [
    [19.0, 29.0, 345.0, 448.0, 0.0, 0.0, 0.0, 177.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.3589478731155396, 2.0, 0.0],
    [143.0, 73.0, 218.0, 271.0, 0.0, 3.0, 1.0, 177.0, 0.9454067945480347, 0.6245994567871094, 0.7918843030929565,
     -0.034133922308683395, 0.0, 1.8100517988204956, 0.39282891154289246, 0.0],
]  # fmt: skip


def draw(count=20_000, policies=TWO, size=(375, 500), seed=0, epoch=0):
    sizes = torch.tensor([size] * count, dtype=torch.int32)
    return sample_params(torch.arange(count), sizes, policies, seed=seed, epoch=epoch), sizes


# Known-answer vectors of Philox4x32-10 as published with Random123 (Salmon 2011): counter, key, result.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, 0xFFFFFFFFFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_gives_the_known_answers(counter, key, expected):
    words = philox4x32(key, *(torch.tensor([c]) for c in counter))
    assert tuple(int(w) for w in words) == expected


def test_uniform_is_the_top_24_bits():
    words = torch.tensor([0, 255, 256, 0xFFFFFFFF])
    assert uniform(words).tolist() == [0.0, 0.0, 2.0**-24, 1 - 2.0**-24]


def test_a_draw_depends_on_seed_epoch_id_and_view_and_on_nothing_else():
    ids = torch.tensor([5, 900, 2**33 + 1, 17, -4, 3])
    sizes = torch.tensor([[40, 48], [300, 200], [7, 900], [64, 64], [1, 1], [500, 375]], dtype=torch.int32)
    whole = sample_params(ids, sizes, TWO, seed=9, epoch=2)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert torch.equal(sample_params(ids[order], sizes[order], TWO, seed=9, epoch=2), whole[:, order])
    for world in (2, 3):
        shards = [sample_params(ids[r::world], sizes[r::world], TWO, seed=9, epoch=2) for r in range(world)]
        assert all(torch.equal(shard, whole[:, r::world]) for r, shard in enumerate(shards))
    assert torch.equal(sample_params(ids, sizes, TWO[:1], seed=9, epoch=2), whole[:1])
    for other in ({"seed": 10, "epoch": 2}, {"seed": 9, "epoch": 3}, {"seed": 9 + 2**32, "epoch": 2}):
        changed = sample_params(ids, sizes, TWO, **other)
        assert (changed[:, :, COLUMN["brightness"]] != whole[:, :, COLUMN["brightness"]]).any()
    assert not torch.equal(whole[0], whole[1])


def test_the_draws_of_a_known_address_are_known():
    """The values of one photo in two views, so that no change of the code can move the draws of an address."""
    policies = (ViewPolicy.moco_v2(), ViewPolicy(rotation=0.9, solarize=0.9, solarize_threshold=(0.2, 0.8)))
    params = sample_params(torch.tensor([2**33 + 5]), torch.tensor([[375, 500]]), policies, seed=9, epoch=2)
    assert params[:, 0].tolist() == KNOWN


def test_every_column_is_drawn_once_and_no_word_serves_two_draws():
    assert [*COLUMNS[:4], *(draw.column for draw in DRAWS)] == list(COLUMNS)  # the box is drawn by the crop's attempts
    words = [draw.word for draw in DRAWS if draw.word] + list({draw.gate.word for draw in DRAWS if draw.gate})
    assert len(words) == len(set(words))
    assert all(CROP_ATTEMPTS <= slot < SLOTS_PER_VIEW and 0 <= i < 4 for slot, i in words)


def test_the_packed_policy_has_every_field_where_its_name_says():
    policy = ViewPolicy(scale=(0.1, 0.9), ratio=(0.5, 2.0), hue=0.3, blur=0.25, sigma=(1.0, 3.0), solarize=0.125)
    (row,) = pack_policies((policy,)).tolist()
    for name, bounds in {"scale": (0.1, 0.9), "ratio": (0.5, 2.0), "hue": (-0.3, 0.3), "sigma": (1.0, 3.0)}.items():
        assert tuple(row[POLICY[name] : POLICY[name] + 2]) == bounds
    assert (row[POLICY["blur"]], row[POLICY["solarize"]]) == (0.25, 0.125)
    assert row[POLICY["log_ratio"]] == math.log(0.5) and max(POLICY.values()) < len(row)


def test_crops_lie_inside_and_follow_scale_and_ratio():
    params, sizes = draw()
    top, left, height, width = params[..., :4].unbind(-1)
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 375).all() and (left + width <= 500).all()
    area = height * width / (375 * 500)
    ratio = width / height
    assert area.min() >= 0.2 - 0.01 and area.max() <= 1.0
    assert ratio.min() >= 0.75 - 0.02 and ratio.max() <= 4 / 3 + 0.02
    # Where an attempt always fits (small areas), area is uniform and ratio log-uniform.
    policy = ViewPolicy(scale=(0.1, 0.3))
    small, _ = draw(policies=(policy,))
    area = small[0, :, 2] * small[0, :, 3] / (375 * 500)
    assert area.mean().item() == pytest.approx(0.2, abs=0.002)
    assert area.std().item() == pytest.approx(0.2 / math.sqrt(12), abs=0.002)
    log_ratio = torch.log(small[0, :, 3] / small[0, :, 2])
    assert log_ratio.mean().item() == pytest.approx(0, abs=0.01)
    assert log_ratio.std().item() == pytest.approx(2 * math.log(4 / 3) / math.sqrt(12), abs=0.005)


@pytest.mark.parametrize(
    ("size", "box"),
    [((100, 400), (0, 133, 100, 133)), ((400, 100), (133, 0, 133, 100)), ((100, 100), (0, 0, 100, 100))],
    ids=["wide", "tall", "square"],
)
def test_where_no_attempt_fits_the_crop_is_torchvisions_central_one(size, box):
    # A scale of 1 fits only the exact aspect ratio: ten attempts fail almost surely unless the image is square.
    policy = ViewPolicy(scale=(1.0, 1.0))
    params, _ = draw(200, (policy,), size)
    boxes = params[0, :, :4].long().tolist()
    assert boxes.count(list(box)) > 150


def test_probabilities_and_ranges_are_the_policys():
    policy = ViewPolicy(
        rotation=0.4,
        solarize=0.3,
        solarize_threshold=(0.2, 0.8),
        brightness=0.3,
        contrast=1.5,
        saturation=0.2,
        hue=0.05,
    )
    params = draw(policies=(policy,))[0][0]
    column = {name: params[:, i] for name, i in COLUMN.items()}
    on = column["jitter"] == 1
    for name, expected in (("flip", 0.5), ("jitter", 0.8), ("gray", 0.2)):
        assert column[name].mean().item() == pytest.approx(expected, abs=0.015), name
        assert set(column[name].tolist()) == {0.0, 1.0}
    assert (column["sigma"] > 0).float().mean().item() == pytest.approx(0.5, abs=0.015)
    assert (column["solarize"] <= 1).float().mean().item() == pytest.approx(0.3, abs=0.015)
    assert (column["rotation"] > 0).float().mean().item() == pytest.approx(0.4 * 3 / 4, abs=0.015)
    ranges = {"brightness": (0.7, 1.3), "contrast": (0.0, 2.5), "saturation": (0.8, 1.2), "hue": (-0.05, 0.05)}
    for name, (low, high) in ranges.items():
        values = column[name][on]
        assert values.min() >= low - 1e-6 and values.max() <= high + 1e-6
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.01 * (high - low))
        assert (column[name][~on] == (0.0 if name == "hue" else 1.0)).all()
    sigma, threshold = column["sigma"][column["sigma"] > 0], column["solarize"][column["solarize"] <= 1]
    assert sigma.min() >= 0.1 and sigma.max() < 2 and sigma.mean().item() == pytest.approx(1.05, abs=0.02)
    assert threshold.min() >= 0.2 and threshold.max() < 0.8
    assert (column["spare"] == 0).all()


def test_all_24_orders_are_permutations_and_equally_likely():
    order = draw()[0][..., COLUMN["order"]].long().flatten()
    values, counts = order.unique(return_counts=True)
    assert len(values) == 24
    for value in values.tolist():
        assert sorted((value >> (2 * k)) & 3 for k in range(4)) == [0, 1, 2, 3]
    expected = len(order) / 24
    assert ((counts - expected) ** 2 / expected).sum() < 50  # chi-square, 23 degrees of freedom: 1 in 1000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ViewPolicy(scale=(0.5, 1.4)), r"ViewPolicy.scale must satisfy .* got \(0.5, 1.4\)"),
        (lambda: ViewPolicy(flip=-0.1), r"ViewPolicy.flip .* got -0.1"),
        (lambda: ViewPolicy(hue=0.6), r"ViewPolicy.hue"),
        (lambda: ViewPolicy(size=0), r"ViewPolicy.size"),
        (lambda: ViewPolicy.byol(2), r"view 0 or 1, got 2"),
        (lambda: draw(3, ()), "one ViewPolicy per view"),
        (lambda: draw(3, epoch=-1), "epoch must be in"),
        (lambda: draw(3, seed=1 << 64), "seed must fit 64 bits"),
        (lambda: draw(3, size=(0, 5)), "at least 1 pixel"),
        (lambda: sample_params(torch.arange(3).int(), torch.ones(3, 2).int(), TWO, seed=0, epoch=0), "int64"),
        (lambda: sample_params(torch.arange(3), torch.ones(2, 2).int(), TWO, seed=0, epoch=0), r"\[3, 2\]"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_heads_that_predict_zero_have_the_published_losses():
    # SPEC: 0.133 for colour, 0.032 for the crop on square images, 0.030 on 500 x 375.
    for size, crop in (((224, 224), 0.032), ((375, 500), 0.030)):
        params, sizes = draw(40_000, size=size)
        targets, _ = augself_targets(params, sizes, TWO)
        assert targets.color_B4.square().mean().item() == pytest.approx(0.133, abs=0.002)
        assert targets.crop_B4.square().mean().item() == pytest.approx(crop, abs=0.001)
    blur = augself_targets(params, sizes, TWO)[0].blur_B1
    assert (blur.abs() > 1).float().mean().item() == pytest.approx(0.32, abs=0.01)  # beyond a tanh head's reach


def test_targets_are_the_published_differences_row_by_row():
    policy = ViewPolicy(rotation=0.7, solarize=0.5, solarize_threshold=(0.0, 1.0))
    params, sizes = draw(300, (policy, policy))
    ab, ba = augself_targets(params, sizes, (policy, policy))
    fixed, _ = augself_targets(params, sizes, (policy, policy), mode="fixed")
    rows = [[dict(zip(COLUMNS, row, strict=True)) for row in view] for view in params.tolist()]
    for i in range(300):
        for targets, (a, b) in ((ab, (rows[0][i], rows[1][i])), (ba, (rows[1][i], rows[0][i]))):
            center = [((r["top"] + r["height"] / 2) / 375, (r["left"] + r["width"] / 2) / 500) for r in (a, b)]
            x = [1 - c[1] if a["flip"] else c[1] for c in center]  # in a's frame: both mirrored if a is
            crop = [center[0][0] - center[1][0], x[0] - x[1], (a["height"] - b["height"]) / 375,
                    (a["width"] - b["width"]) / 500]  # fmt: skip
            assert targets.crop_B4[i].tolist() == pytest.approx(crop, abs=1e-5)
            units = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
            color = [(a[name] - b[name]) / unit for name, unit in units.items()]
            assert targets.color_B4[i].tolist() == pytest.approx(color, abs=1e-5)
            assert targets.flip_B1[i].item() == (a["flip"] == b["flip"])
            assert targets.blur_B1[i].item() == pytest.approx(a["sigma"] - b["sigma"], abs=1e-6)
            turns = [-r["rotation"] if r["flip"] else r["rotation"] for r in (a, b)]  # the flip comes after it
            assert targets.rotation_B[i].item() == (turns[0] - turns[1]) % 4
            thresholds = [min(r["solarize"], 1.0) for r in (a, b)]
            assert targets.solarize_B1[i].item() == pytest.approx(thresholds[0] - thresholds[1], abs=1e-6)
    torch.testing.assert_close(fixed.blur_B1, ab.blur_B1 / 2)
    assert torch.equal(fixed.crop_B4, ab.crop_B4)


def test_swapping_the_views_negates_all_but_the_mirrored_axis():
    params, sizes = draw(500)
    ab, ba = augself_targets(params, sizes, TWO)
    torch.testing.assert_close(ab.color_B4, -ba.color_B4)
    torch.testing.assert_close(ab.crop_B4[:, [0, 2, 3]], -ba.crop_B4[:, [0, 2, 3]])
    same_flip = (params[0, :, COLUMN["flip"]] == params[1, :, COLUMN["flip"]])[:, None]
    dx = torch.where(same_flip, -ba.crop_B4[:, 1:2], ba.crop_B4[:, 1:2])
    torch.testing.assert_close(ab.crop_B4[:, 1:2], dx)


def test_descriptors_are_cassles_omega_in_alphabetical_order():
    params, sizes = draw(200)
    shift = torch.randn(2, 200, 3)
    omega = descriptors(params, sizes, TWO, shift)
    assert omega.shape == (2, 200, 14) and sum(DESCRIPTORS[name] for name in CASSLE_PARTS) == 14
    assert list(CASSLE_PARTS) == sorted(CASSLE_PARTS) == list(DESCRIPTORS)[:6]
    for v in (0, 1):
        for i, row in enumerate(params[v].tolist()):
            r = dict(zip(COLUMNS, row, strict=True))
            x = (r["left"] + r["width"] / 2) / 500
            expected = [
                r["sigma"],
                *[(r[n] - 1) / 0.8 for n in ("brightness", "contrast", "saturation")],
                r["hue"] / 0.2,
                *shift[v, i].tolist(),
                (r["top"] + r["height"] / 2) / 375,
                1 - x if r["flip"] else x,  # in its own frame
                r["height"] / 375,
                r["width"] / 500,
                r["flip"],
                r["gray"],
            ]
            assert omega[v, i].tolist() == pytest.approx(expected, abs=1e-5)
    published = [name for name in CASSLE_PARTS if name != "flip"]
    assert descriptors(params, sizes, TWO, shift, include=published).shape[-1] == 13
    assert descriptors(params, sizes, TWO).shape[-1] == 11
    with pytest.raises(ValueError, match="color_shift=True"):
        descriptors(params, sizes, TWO, include=["color_diff"])
    with pytest.raises(ValueError, match="hue"):
        descriptors(params, sizes, TWO, include=["hue"])
