"""`fastaugself views`: boxes, views and words match the parameters that training draws."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fastaugself.data.beton.format import Beton
from fastaugself.data.inputs.photo import load_photo
from fastaugself.errors import RunError, UsageError
from fastaugself.report.pairs import make_pairs
from fastaugself.report.policies import local_policy, named_policies
from fastaugself.report.samples import evenly_spaced, read_samples
from fastaugself.report.words import MINUS, signed, words
from fastaugself.views.command import write_views
from fastaugself_kernels import COLUMNS, ViewPolicy, augment, sample_params

POLICIES = ("moco_v2", "simclr", "byol", "spatial", "appearance", "none")


@pytest.fixture(scope="module")
def photo(photo_folder):
    return photo_folder / "chelsea" / "03.jpg"


def row(**values):
    identity = dict.fromkeys(COLUMNS, 0.0)
    identity |= {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "solarize": 2.0, "order": 0b11100100}
    return identity | values


# --- words ------------------------------------------------------------------------------------------------------------


def test_words_say_every_parameter_with_its_unit():
    # Order: saturation, hue, brightness, contrast (op ids 2, 3, 0, 1; the first in the low bits).
    order = 2 | 3 << 2 | 0 << 4 | 1 << 6
    values = row(
        top=12, left=40, height=180, width=213, flip=1, jitter=1, order=order, brightness=1.21, contrast=0.7,
        saturation=1.0, hue=-0.06, gray=1, sigma=1.3,
    )  # fmt: skip
    found = words(values, (300, 426), ViewPolicy())
    assert [(w.label, w.lines, w.applied) for w in found] == [
        ("crop", ("213 × 180 px at (40,\N{NO-BREAK SPACE}12)", "30% of the photo"), True),
        ("flip", ("left to right",), True),
        (
            "jitter",
            ("1. saturation ×1.00", f"2. hue {MINUS}0.06 turns", "3. brightness ×1.21", "4. contrast ×0.70"),
            True,
        ),
        ("grayscale", ("yes",), True),
        ("blur", ("sigma 1.30 px",), True),
    ]


def test_words_say_no_for_what_is_not_applied():
    found = words(row(height=10, width=10), (10, 10), ViewPolicy())
    assert [(w.label, w.applied) for w in found] == [
        ("crop", True), ("flip", False), ("jitter", False), ("grayscale", False), ("blur", False),
    ]  # fmt: skip
    assert all(w.lines == ("no",) for w in found[1:])


def test_words_mention_rotation_and_solarization_where_the_policy_has_them():
    policy = replace(ViewPolicy(), rotation=0.5, solarize=0.5)
    turned = {w.label: w for w in words(row(height=9, width=9, rotation=3, solarize=0.25), (9, 9), policy)}
    assert turned["rotation"].lines == ("270° to the left",) and turned["rotation"].applied
    assert turned["solarize"].lines == ("from 0.25 up",) and turned["solarize"].applied
    still = {w.label: w for w in words(row(height=9, width=9), (9, 9), policy)}
    assert not still["rotation"].applied and not still["solarize"].applied


@pytest.mark.parametrize(
    ("value", "text"), [(0.123, "+0.12"), (-0.5, f"{MINUS}0.50"), (0.0, "0.00"), (-0.001, "0.00"), (1.0, "+1.00")]
)
def test_signed_numbers_show_their_sign_and_zero_has_none(value, text):
    assert signed(value) == text


# --- the views are training's -----------------------------------------------------------------------------------------


def test_the_views_are_those_of_training_with_the_same_seed_epoch_and_sample_id(beton):
    samples = read_samples(beton, 5)
    pairs = make_pairs(samples, named_policies("moco_v2", 32), seed=7, epoch=3)
    policies = (ViewPolicy.moco_v2(32),) * 2
    for sample, pair in zip(samples, pairs, strict=True):
        sizes_B2 = torch.tensor([sample.pixels_HWC.shape[:2]])
        params_VBP = sample_params(torch.tensor([sample.id]), sizes_B2, policies, seed=7, epoch=3)
        x_VBCHW = augment(
            sample.pixels_HWC.reshape(-1), torch.zeros(1, dtype=torch.int64), sizes_B2, params_VBP, size=32,
            mean=(0, 0, 0), std=(1, 1, 1), blur_kernel=3, backend="reference",
        )  # fmt: skip
        for v in (0, 1):
            shown = pair.views_HWC[v].astype(float) / 255
            # Up to 2.5 of 255 for the rounding; at ties of the resize, which hue amplifies, a few pixels may exceed it.
            error = np.abs(shown - x_VBCHW[v, 0].permute(1, 2, 0).numpy())
            assert (error > 2.5 / 255).mean() <= 1e-3 and error.max() < 8 / 255
            assert pair.boxes[v] == tuple(params_VBP[v, 0, :4].tolist())


def test_without_randomness_a_view_is_the_central_square():
    gradient = np.linspace(0, 255, 60 * 90 * 3).reshape(60, 90, 3).astype(np.uint8)
    from fastaugself.report.samples import Sample

    (pair,) = make_pairs([Sample("g", 0, torch.from_numpy(gradient))], named_policies("none", 60), seed=0, epoch=0)
    assert pair.boxes == ((0, 15, 60, 60),) * 2
    for view_HWC in pair.views_HWC:
        np.testing.assert_allclose(view_HWC.astype(int), gradient[:, 15:75].astype(int), atol=1)
    assert all(d.value == 0 for group in pair.differences.values() for d in group)


def test_differences_are_of_the_boxes_in_the_frame_of_view_1(beton):
    pairs = make_pairs(read_samples(beton, 16), named_policies("moco_v2", 24), seed=1, epoch=0)
    flips = set()
    for pair in pairs:
        height, width = pair.photo_HWC.shape[:2]
        (top1, left1, h1, w1), (top2, left2, h2, w2) = pair.boxes
        flip = pair.words[0][1].applied
        dx = ((left1 + w1 / 2) - (left2 + w2 / 2)) / width * (-1 if flip else 1)
        expected = [((top1 + h1 / 2) - (top2 + h2 / 2)) / height, dx, (h1 - h2) / height, (w1 - w2) / width]
        np.testing.assert_allclose([d.value for d in pair.differences["crop"]], expected, atol=1e-6)
        flips.add(flip)
    assert flips == {False, True}


def test_photos_are_evenly_spaced_over_the_classes(beton):
    with Beton(beton) as opened:
        labels = opened.labels_N[evenly_spaced(opened.labels_N, 4)]
    assert sorted(labels.tolist()) == [0, 1, 2, 3]
    interleaved = [i % 8 for i in range(64)]
    assert [interleaved[i] for i in evenly_spaced(interleaved, 8)] == list(range(8))
    assert evenly_spaced([-1, -1, -1], 8) == [0, 1, 2]


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_page_is_self_contained_and_draws_the_boxes_it_names(photo, tmp_path):
    out = write_views(photo, tmp_path / "deep" / "views.html", size=48, seed=5)
    text = out.read_text()
    assert not re.search(r"https?:|<script|<link|@import|url\(", text)
    embedded = re.findall(r"data:image/(?:png|jpeg);base64,([^\"]+)", text)
    sizes = [Image.open(io.BytesIO(base64.b64decode(data))).size for data in embedded]
    stored = load_photo(photo)
    assert sizes == [(stored.width, stored.height), (48, 48), (48, 48)]
    drawn = re.findall(r'class="v[12]" x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', text)
    named = re.findall(r"(\d+) × (\d+) px at \((\d+),\N{NO-BREAK SPACE}(\d+)\)", text)
    assert [(w, h, x, y) for x, y, w, h in drawn] == named and len(named) == 2


@pytest.mark.parametrize("policy", POLICIES)
def test_a_picture_of_every_policy(photo_folder, tmp_path, policy):
    out = write_views(photo_folder, tmp_path / "views.png", policy=policy, count=2, size=32)
    with Image.open(out) as image:
        image.load()
        assert image.mode == "RGB" and image.width == 2412 and image.height > 1400
        pixels = np.asarray(image).reshape(-1, 3)
    for color in ((0xE8, 0x71, 0x0A), (0x1F, 0x78, 0xD1)):
        assert (pixels == color).all(1).sum() > 1000  # both boxes are there


@pytest.mark.parametrize("size", [(1, 1), (1, 51), (1, 4000), (4000, 1), (2, 3000), (60, 1)])
def test_photos_with_a_side_of_one_pixel_are_drawn_with_their_boxes(size, tmp_path):
    Image.new("RGB", size, (30, 200, 90)).save(tmp_path / "thin.png")
    for name in ("views.png", "views.webp", "views.html"):
        out = write_views(tmp_path / "thin.png", tmp_path / name, policy="simclr", size=32, seed=3, num_local_crops=2)
        assert out.stat().st_size > 1000
    with Image.open(tmp_path / "views.png") as image:
        photo = np.asarray(image)[:, 40:820].reshape(-1, 3)  # the column of the photo
    for color in ((0xE8, 0x71, 0x0A), (0x1F, 0x78, 0xD1)):
        assert (photo == color).all(1).any()


def test_all_policies_on_one_page_each_with_its_ranges(photo, tmp_path):
    text = write_views(photo, tmp_path / "views.html", policy="all", size=16).read_text()
    assert re.findall(r"<h2>Policy (\w+)</h2>", text) == list(POLICIES)
    assert "crop 20% to 100% of the photo, flip 50%, jitter 80% (brightness 0.4, contrast 0.4" in text
    assert "View 2: crop 8%" in text and "blur 10% (sigma 0.1 to 2 px), solarize 20% (from 0.5)" in text
    with Image.open(write_views(photo, tmp_path / "views.webp", policy="all", size=16)) as image:
        assert image.format == "WEBP" and image.width == 2412


def test_local_crops_are_those_of_multi_crop_training(beton):
    samples = read_samples(beton, 2)
    policies = named_policies("simclr", 56)
    pairs = make_pairs(samples, policies, seed=4, epoch=1, local=3)
    local = local_policy(policies)
    assert (local.size, local.scale, local.brightness) == (24, (0.05, 0.14), 0.8)
    for sample, pair in zip(samples, pairs, strict=True):
        sizes_B2 = torch.tensor([sample.pixels_HWC.shape[:2]])
        params_VBP = sample_params(torch.tensor([sample.id]), sizes_B2, (*policies, *[local] * 3), seed=4, epoch=1)
        assert pair.boxes == tuple(tuple(row[:4]) for row in params_VBP[:2, 0].tolist())
        assert [crop.box for crop in pair.local_crops] == [tuple(row[:4]) for row in params_VBP[2:, 0].tolist()]
        x_VBCHW = augment(
            sample.pixels_HWC.reshape(-1), torch.zeros(1, dtype=torch.int64), sizes_B2, params_VBP[2:].contiguous(),
            size=24, mean=(0, 0, 0), std=(1, 1, 1), blur_kernel=3, backend="reference",
        )  # fmt: skip
        for v, shown in enumerate(pair.local_crops):
            error = np.abs(shown.view_HWC / 255 - x_VBCHW[v, 0].permute(1, 2, 0).numpy())
            assert (error > 2.5 / 255).mean() <= 5e-3
            assert [word.label for word in shown.words][:3] == ["crop", "flip", "jitter"]


def test_local_crops_are_drawn_in_every_format(photo, tmp_path):
    text = write_views(photo, tmp_path / "views.html", size=56, num_local_crops=7).read_text()
    assert len(re.findall(r'alt="local crop \d"', text)) == 7 and text.count('<rect class="local-crop"') == 7
    heights = []
    for count in (0, 6, 7):
        with Image.open(write_views(photo, tmp_path / "views.png", size=56, num_local_crops=count)) as image:
            heights.append(image.height)
    assert heights[0] < heights[1] < heights[2]


def test_a_picture_that_webp_cannot_hold_is_refused_with_the_remedy(beton, tmp_path):
    with pytest.raises(UsageError, match=r"WebP at most 16383.*\.png or \.html"):
        write_views(beton, tmp_path / "views.webp", size=16, count=20)
    assert list(tmp_path.iterdir()) == []


def test_names_that_the_font_does_not_have_are_drawn_anyway(photo, tmp_path):
    odd = tmp_path / "été <b>&amp; 写真.jpg"
    odd.write_bytes(photo.read_bytes())
    write_views(odd, tmp_path / "views.png", size=16)
    page = write_views(odd, tmp_path / "views.html", size=16).read_text()
    assert "<b>&amp; 写真" not in page and "été &lt;b&gt;" in page


def test_the_same_call_gives_the_same_bytes_and_another_epoch_others(photo, tmp_path):
    first = write_views(photo, tmp_path / "a.png", size=32).read_bytes()
    assert first == write_views(photo, tmp_path / "b.png", size=32).read_bytes()
    assert first != write_views(photo, tmp_path / "c.png", size=32, epoch=1).read_bytes()


# --- wrong use --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "moco"}, "--policy moco is unknown"),
        ({"count": 0}, "--count must be at least 1"),
        ({"size": 4}, "--size must be from 8 to 2048"),
        ({"num_local_crops": 13}, "--num-local-crops must be from 0 to 12, got 13"),
        ({"num_local_crops": -1}, "--num-local-crops must be from 0 to 12, got -1"),
        ({"epoch": -1}, "--epoch must be in"),
        ({"seed": 1 << 64}, "--seed must fit 64 bits"),
    ],
)
def test_wrong_options_are_refused_by_name(photo, tmp_path, options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        write_views(photo, tmp_path / "views.png", **options)
    assert list(tmp_path.iterdir()) == []


def test_wrong_sources_are_refused_by_name(photo_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.jpg").write_text("no photo")
    (tmp_path / "photo.beton").write_bytes((photo_folder / "rocket" / "00.jpg").read_bytes())
    for source, message in (
        ("missing.png", "no such file"),
        ("empty", "holds no photos"),
        ("notes.jpg", "not an image"),
        ("photo.beton", "not a .beton file"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            write_views(tmp_path / source, tmp_path / "views.png")
        assert source in str(caught.value)
    with pytest.raises(UsageError, match=r"must end in \.png, \.webp or \.html"):
        write_views(photo_folder, tmp_path / "views.pdf")
    assert not (tmp_path / "views.png").exists()


def test_an_out_that_cannot_be_written_is_refused_by_name(photo, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_views(photo, tmp_path / "file" / "views.png", size=16)


def test_a_damaged_photo_in_a_beton_is_named(beton, tmp_path):
    damaged = tmp_path / "damaged.beton"
    with Beton(beton) as opened:
        start, length = int(opened.pointers_N[0]), int(opened.bytes_N[0])
    data = bytearray(beton.read_bytes())
    data[start : start + length] = bytes(length)
    damaged.write_bytes(data)
    with pytest.raises(RunError, match="sample 0 cannot be decoded"):
        write_views(damaged, tmp_path / "views.png", count=4)
