"""docs/columns: every tile is the view of its row, every published range is that of a policy, and targets and
descriptors are those of the kernels."""

import base64
import io
import re
from html.parser import HTMLParser
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from columns_page import columns_page
from columns_picture import columns_picture
from content import make_content
from draw import draw, main
from fastaugself.report.policies import named_policies
from fastaugself.report.samples import Sample, read_samples
from fastaugself_kernels import CASSLE_PARTS, COLUMNS, DESCRIPTORS, augment, augself_targets, descriptors, sample_params
from fastaugself_kernels.params import default_blur_kernel
from sweeps import PUBLISHED, packed

ROOT = Path(__file__).parents[2]
SIZE = 40


@pytest.fixture(scope="module")
def sample(photo_folder):
    return read_samples(photo_folder / "chelsea" / "03.jpg", 1)[0]


@pytest.fixture(scope="module")
def content(sample):
    return make_content(sample, named_policies("byol", SIZE), seed=3, epoch=2)


def sweeps(content):
    return {sweep.title: sweep for sweep in content.sweeps}


def reference(sample, row_P):
    """The view of a row by the reference back-end, uint8 HWC."""
    x_VBCHW = augment(
        sample.pixels_HWC[None].contiguous(), None, torch.tensor([sample.pixels_HWC.shape[:2]]),
        torch.tensor(row_P)[None, None], size=SIZE, mean=(0, 0, 0), std=(1, 1, 1),
        blur_kernel=default_blur_kernel(SIZE), backend="reference",
    )  # fmt: skip
    return (x_VBCHW[0, 0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy().astype(int)


# --- sweeps -----------------------------------------------------------------------------------------------------------


def test_every_column_but_the_spare_one_has_its_sweep(content):
    titles = [sweep.title for sweep in content.sweeps]
    assert [title for title in titles if title in COLUMNS] == list(COLUMNS[:-1])
    assert all(sweep.text and sweep.unit for sweep in content.sweeps)


def test_every_tile_is_the_view_that_the_reference_makes_from_its_row(sample, content):
    for sweep in content.sweeps:
        for tile in filter(lambda tile: tile.row_P, sweep.tiles):
            expected = reference(sample, tile.row_P)
            if sweep.title == "sigma":
                expected = expected[SIZE // 4 : SIZE // 4 + SIZE // 2, SIZE // 4 : SIZE // 4 + SIZE // 2]
            error = np.abs(tile.image_HWC.astype(int) - expected)
            # At ties of the resize, which contrast 3 and hue amplify, a few pixels may be off by more than rounding.
            assert (error > 2).mean() <= 2e-3, (sweep.title, tile.label)


def test_a_sweep_varies_the_columns_it_names_only(content):
    for sweep in content.sweeps:
        rows = [tile.row_P for tile in sweep.tiles if tile.row_P]
        moved = {name for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True) if len(set(values)) > 1}
        assert moved == set(sweep.swept), sweep.title
        for name, cell, value in zip(COLUMNS, sweep.cells, rows[0], strict=True):
            assert name in sweep.swept or float(cell) == pytest.approx(value, abs=1e-7)


def test_labels_are_the_values_of_the_swept_column(content):
    for sweep in content.sweeps:
        if sweep.title not in COLUMNS:
            continue
        for tile in filter(lambda tile: tile.row_P, sweep.tiles):
            value = tile.row_P[COLUMNS.index(sweep.title)]
            label = re.match(r"[−+]?[\d.]+", tile.label)[0].replace("\N{MINUS SIGN}", "-")
            assert float(label) == value, (sweep.title, tile.label)


def test_only_the_tiles_framed_as_identity_are_the_photo_itself(sample, content):
    photo = reference(sample, [float(value) for value in content.identity])
    for sweep in content.sweeps:
        if sweep.boxes or sweep.title == "sigma":
            continue
        for tile in sweep.tiles:
            same = np.abs(tile.image_HWC.astype(int) - photo).max() <= 1
            unreached = sweep.title == "solarize" and photo.max() < 255 * float(tile.label)
            assert same == (tile.identity or unreached), (sweep.title, tile.label)


def test_the_lines_under_the_tiles_are_the_ranges_of_the_policies(content):
    found = sweeps(content)
    for op, column in enumerate(("brightness", "contrast", "saturation", "hue")):
        spans = {}
        for band in found[column].bands:
            ends = [found[column].tiles[i].row_P[COLUMNS.index(column)] for i in (band.first, band.last)]
            spans |= dict.fromkeys(re.split(r", | and ", band.name), ends)
        for name, policies in PUBLISHED.items():
            assert spans[name] == pytest.approx(policies[0].factor_ranges()[op]), (column, name)
    areas = {band.name: found["height × width"].tiles[band.first].label for band in found["height × width"].bands}
    assert areas == {"SimCLR and BYOL": "8%", "MoCo v2": "20%", "SwAV's local crops": "5%"}
    (blur,) = found["sigma"].bands
    assert [found["sigma"].tiles[i].label for i in (blur.first, blur.last)] == ["0.1", "2"]


def test_the_text_has_the_probabilities_of_the_policies(content):
    found = sweeps(content)
    assert found["flip"].facts == "On with probability 0.5 in all three recipes."
    assert "0.8" in found["jitter"].facts and "0.2" in found["gray"].facts
    assert "1 in view 1 and 0.1 in view 2 (BYOL)" in found["sigma"].facts
    assert "0.2 in view 2 (BYOL); never in MoCo v2 and SimCLR" in found["solarize"].facts


def test_all_24_orders_are_drawn_under_their_value(content):
    read = []
    for tile in content.orders:
        letters, value = tile.label.split()
        order = [int(value) >> 2 * i & 3 for i in range(4)]  # as the page says
        assert "".join("BCSH"[op] for op in order) == letters and packed(order) == int(value)
        assert tile.row_P[COLUMNS.index("order")] == int(value)
        read.append(tuple(order))
    assert sorted(read) == sorted(permutations(range(4)))


@pytest.mark.parametrize("shape", [(1, 1), (40, 2)])
def test_odd_photos_have_boxes_inside_them(shape):
    pixels_HWC = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    content = make_content(Sample("odd", 0, pixels_HWC), named_policies("moco_v2", 16), seed=0, epoch=0)
    for tile in (tile for sweep in content.sweeps for tile in sweep.tiles if tile.row_P):
        top, left, height, width = tile.row_P[:4]
        assert min(top, left) >= 0 and min(height, width) >= 1
        assert top + height <= shape[0] and left + width <= shape[1]
    columns_page(content, "")
    columns_picture(content, "", "png")


# --- targets and descriptors ------------------------------------------------------------------------------------------


def test_the_rows_repeat_the_draw_to_the_bit(sample, content):
    policies = named_policies("byol", SIZE)
    sizes_B2 = torch.tensor([sample.pixels_HWC.shape[:2]])
    params_VBP = sample_params(torch.tensor([sample.id]), sizes_B2, policies, seed=3, epoch=2)
    assert torch.equal(torch.tensor([[float(v) for v in row] for row in content.learned.rows]), params_VBP[:, 0])


def test_targets_and_descriptors_are_those_of_the_kernels(sample, content):
    policies, learned = named_policies("byol", SIZE), content.learned
    sizes_B2 = torch.tensor([sample.pixels_HWC.shape[:2]])
    params_VBP = torch.tensor([[float(v) for v in row] for row in learned.rows])[:, None]
    assert [entry.group for entry in learned.descriptors] == [
        part for part in CASSLE_PARTS for _ in range(DESCRIPTORS[part])
    ]
    for side, targets in enumerate(augself_targets(params_VBP, sizes_B2, policies)):
        flat = torch.cat([getattr(targets, name)[0].reshape(-1).float() for name in targets._fields]).tolist()
        assert value_of(learned.targets, side) == pytest.approx(flat, abs=5.1e-4)
    pixels = sample.pixels_HWC[None].contiguous()
    _, shift_VB3 = augment(
        pixels, None, sizes_B2, params_VBP, size=SIZE, color_shift=True, blur_kernel=5, backend="reference"
    )
    for v, omega in enumerate(descriptors(params_VBP, sizes_B2, policies, shift_VB3)[:, 0].tolist()):
        assert value_of(learned.descriptors, v) == pytest.approx(omega, abs=6e-4)
        before, after = (np.array(color) / 255 for color in learned.means[v])
        np.testing.assert_allclose(before - after, shift_VB3[v, 0].numpy(), atol=1 / 255)


def value_of(entries, side):
    return [float(entry.values[side].replace("\N{MINUS SIGN}", "-")) for entry in entries]


# --- files ------------------------------------------------------------------------------------------------------------


class Balance(HTMLParser):
    """Collects the open tags, the ids and the local links of a page."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links = [], set(), set()

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        values = dict(attributes)
        self.ids |= {values["id"]} if "id" in values else set()
        if (link := values.get("href", "")).startswith("#"):
            self.links.add(link[1:])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_self_contained_and_escapes_names(sample, tmp_path):
    name = 'a "b" <i>&.png'
    Image.fromarray(sample.pixels_HWC.numpy()).save(tmp_path / name)
    draw(tmp_path / name, tmp_path / "out.html", size=24)
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\(", text)
    assert "<i>" not in text and "&lt;i&gt;&amp;.png" in text
    page = Balance()
    page.feed(text)
    assert page.open == [] and page.links <= page.ids and set(COLUMNS[:-1]) < page.ids
    for kind, data in re.findall(r"data:image/(png|jpeg|webp);base64,([^\"]+)", text):
        assert Image.open(io.BytesIO(base64.b64decode(data))).format.lower() == kind


def test_the_committed_picture_is_what_its_command_draws_and_both_forms_stay_small():
    skimage = pytest.importorskip("skimage")
    readme = (ROOT / "kernels" / "README.md").read_text(encoding="utf-8")
    seed = re.search(r"python docs/columns astronaut\.png --out docs/columns\.webp --seed (\d+)", readme)[1]
    assert "](../docs/columns.webp)" in readme
    (photo,) = read_samples(Path(skimage.__file__).parent / "data" / "astronaut.png", 1)
    content = make_content(photo, named_policies("moco_v2", 224), seed=int(seed), epoch=0)
    assert 300_000 < len(columns_page(content, "")) < 1_500_000
    line = f"{content.name}. The pair of views: policy moco_v2, 224 px, seed {seed}, epoch 0."
    new, old = columns_picture(content, line, "webp"), (ROOT / "docs" / "columns.webp").read_bytes()
    assert len(old) < 400_000
    first, second = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int) for data in (new, old))
    assert first.shape == second.shape
    assert np.abs(first - second).mean() < 1.0  # other versions of Pillow may place letters a little differently


def test_the_command_writes_the_three_kinds_of_files_and_refuses_others(photo_folder, tmp_path, capsys):
    photo = str(photo_folder / "chelsea" / "03.jpg")
    for kind, begin in (("png", b"\x89PNG"), ("webp", b"RIFF"), ("html", b"<!doctype html>")):
        out = tmp_path / f"out.{kind}"
        assert main(None, [photo, "--out", str(out), "--size", "16", "--policy", "byol"]) == 0
        assert out.read_bytes().startswith(begin)
    assert main(None, [photo, "--out", str(tmp_path / "out.gif"), "--size", "16"]) == 2
    assert "must end in .png, .webp or .html" in capsys.readouterr().err
    assert main(None, [str(tmp_path / "missing.jpg"), "--out", str(tmp_path / "out.png")]) == 2
