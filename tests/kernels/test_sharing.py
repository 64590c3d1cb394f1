"""Rows that share columns among samples or views: exact fractions of each photo, and nothing else changes."""

from fractions import Fraction

import pytest
import torch

from fastaugself_kernels import COLUMNS, ViewPolicy, augment, same_across_views, sample_params, share_params
from fastaugself_kernels.augment import check_rows

COLORS = ("jitter", "order", "brightness", "contrast", "saturation", "hue")
PARTS = {
    "crop": ("top", "left", "height", "width"),
    "flip": ("flip",),
    "rotation": ("rotation",),
    "color": COLORS,
    "grayscale": ("gray",),
    "blur": ("sigma",),
    "solarize": ("solarize",),
}
POLICIES = (
    ViewPolicy(rotation=0.9, solarize=0.5, solarize_threshold=(0.0, 1.0), scale=(0.01, 1.0)),
    ViewPolicy(rotation=0.9, scale=(0.3, 1.0)),
    ViewPolicy.simclr(),
)
TINY = [
    [375, 500],
    [1, 1],
    [3, 200],
    [211, 97],
    [1, 1],
    [641, 479],
    [200, 3],
    [2, 5],
    [3, 200],
    [64, 65],
    [7, 1],
    [1, 9],
]


def draw(sizes, policies=POLICIES, seed=5):
    sizes_B2 = torch.tensor(sizes, dtype=torch.int32)
    return sample_params(torch.arange(len(sizes)), sizes_B2, policies, seed=seed, epoch=3), sizes_B2


def mixed(count=240):
    """Photos of all sizes, many of them odd, with tiny ones in between."""
    sizes = torch.randint(1, 700, (count, 2), generator=torch.Generator().manual_seed(0)).tolist()
    sizes[::5] = (TINY * count)[: len(sizes[::5])]
    return draw(sizes)


def columns(*parts):
    return [COLUMNS.index(name) for part in parts for name in PARTS[part]]


def exact_edges(row, of, on):
    """Edges (start, end) of both axes of a box on a photo of size `of`, on one of size `on`, without rounding."""
    box = [int(value) for value in row[:4]]
    return [(Fraction(box[i] * on[i], of[i]), Fraction((box[i] + box[2 + i]) * on[i], of[i])) for i in (0, 1)]


def union_and_overlap(first, second):
    overlap = max(Fraction(0), min(first[1], second[1]) - max(first[0], second[0]))
    return first[1] - first[0] + second[1] - second[0] - overlap, overlap


@pytest.mark.parametrize("chunk", [2, 8, 240])
def test_a_shared_crop_is_the_leaders_fractions_to_half_a_pixel(chunk):
    params_VBP, sizes_B2 = mixed()
    shared_VBP = share_params(params_VBP, sizes_B2, chunk=chunk, parts=("crop",))
    sizes, small, whole = sizes_B2.tolist(), 0, 0
    for rows, boxes in zip(params_VBP.tolist(), shared_VBP[..., :4].tolist(), strict=True):
        for b, box in enumerate(boxes):
            leader = b - b % chunk
            assert all(value == int(value) for value in box)
            got = exact_edges(box, sizes[b], sizes[b])
            for axis, exact in enumerate(exact_edges(rows[leader], sizes[leader], sizes[b])):
                union, overlap = union_and_overlap(got[axis], exact)
                assert 0 <= got[axis][0] < got[axis][1] <= sizes[b][axis] and overlap > 0
                if exact[1] - exact[0] >= 1:
                    assert all(abs(x - y) <= Fraction(1, 2) for x, y in zip(got[axis], exact, strict=True))
                    assert overlap / union >= 1 - 1 / union  # half a pixel at either edge
                    whole += 1
                else:  # at least one pixel is needed
                    assert got[axis][1] - got[axis][0] == 1 and overlap * 2 >= exact[1] - exact[0]
                    small += 1
    assert whole > 1000 and small > 20


def test_shared_crops_on_photos_of_known_sizes():
    sizes = [[100, 200], [200, 400], [50, 100], [10, 10], [3, 3], [1, 1]]
    params_VBP, sizes_B2 = draw(sizes, POLICIES[:1])
    params_VBP[0, 0, :4] = torch.tensor([30.0, 120.0, 10.0, 20.0])  # 0.3 to 0.4 of the height, 0.6 to 0.7 of the width
    boxes = share_params(params_VBP, sizes_B2, chunk=6, parts=["crop"])[0, :, :4]
    expected = [[30, 120, 10, 20], [60, 240, 20, 40], [15, 60, 5, 10], [3, 6, 1, 1],
                [1, 1, 1, 1],  # rows 0.9 to 1.2 round to 1 to 1, and their centre is in row 1; columns 1.8 to 2.1: 1
                [0, 0, 1, 1]]  # fmt: skip
    assert boxes.tolist() == expected


def test_the_boxes_can_be_applied_to_every_photo():
    params_VBP, sizes_B2 = draw(TINY)
    shared_VBP = share_params(params_VBP, sizes_B2, chunk=len(TINY), parts=tuple(PARTS))
    lengths_B = sizes_B2.prod(1).long() * 3
    pixels = torch.randint(0, 256, (int(lengths_B.sum()),), dtype=torch.uint8)
    offsets_B = lengths_B.cumsum(0) - lengths_B
    check_rows(pixels, offsets_B, sizes_B2[:, 1] * 3, sizes_B2, shared_VBP, 24, 24)
    views_VBCHW = augment(pixels, offsets_B, sizes_B2, shared_VBP, size=24, blur_kernel=3, backend="reference")
    assert views_VBCHW.isfinite().all()
    everything = share_params(params_VBP, sizes_B2, chunk=4, parts=("crop",))
    assert not torch.equal(everything, shared_VBP)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("chunk", [3, 8, 240])
def test_every_part_is_shared_alone_and_nothing_else_changes(part, chunk):
    params_VBP, sizes_B2 = mixed()
    before_VBP = params_VBP.clone()
    shared_VBP = share_params(params_VBP, sizes_B2, chunk=chunk, parts=[part])
    assert torch.equal(params_VBP, before_VBP) and shared_VBP.dtype == torch.float32
    others = sorted(set(range(len(COLUMNS))) - set(columns(part)))
    assert torch.equal(shared_VBP[..., others], params_VBP[..., others])
    leaders_B = torch.arange(240) // chunk * chunk
    if part != "crop":
        assert torch.equal(shared_VBP[..., columns(part)], params_VBP[:, leaders_B][..., columns(part)])
        assert not torch.equal(shared_VBP, params_VBP)
    assert torch.equal(shared_VBP[:, ::chunk], params_VBP[:, ::chunk])  # the leaders keep their rows


def test_all_parts_together_are_each_part_alone():
    params_VBP, sizes_B2 = mixed()
    together_VBP, one_by_one_VBP = share_params(params_VBP, sizes_B2, chunk=8, parts=tuple(PARTS)), params_VBP
    for part in reversed(PARTS):
        one_by_one_VBP = share_params(one_by_one_VBP, sizes_B2.long(), chunk=8, parts=(part,))
    assert torch.equal(together_VBP, one_by_one_VBP)
    assert torch.equal(share_params(together_VBP, sizes_B2, chunk=8, parts=tuple(PARTS)), together_VBP)


def test_photos_of_one_size_share_their_rows_bit_for_bit():
    params_VBP, sizes_B2 = draw([[375, 501]] * 30)
    shared_VBP = share_params(params_VBP, sizes_B2, chunk=15, parts=tuple(PARTS))
    assert torch.equal(shared_VBP, params_VBP[:, [0] * 15 + [15] * 15])


def test_a_chunk_of_one_sample_or_no_parts_change_nothing_and_give_a_new_tensor():
    params_VBP, sizes_B2 = mixed()
    params_VBP[0, 0, :4] = torch.tensor([0.5, 0.25, 1.0, 1.0])  # which `augment` truncates: still to the bit
    for shared_VBP in (
        share_params(params_VBP, sizes_B2, chunk=1, parts=tuple(PARTS)),
        share_params(params_VBP, sizes_B2, chunk=8, parts=()),
        same_across_views(params_VBP, ()),
        same_across_views(params_VBP[:1], tuple(PARTS)),
    ):
        assert torch.equal(shared_VBP, params_VBP[: len(shared_VBP)])
        assert shared_VBP.data_ptr() != params_VBP.data_ptr()
    nothing_VBP = share_params(params_VBP[:, :0], sizes_B2[:0], chunk=4, parts=tuple(PARTS))
    assert nothing_VBP.shape == (3, 0, len(COLUMNS))


@pytest.mark.parametrize("processes", [2, 3, 10])
def test_the_processes_make_the_rows_of_the_whole_batch(processes):
    params_VBP, sizes_B2 = mixed()
    whole_VBP = share_params(params_VBP, sizes_B2, chunk=8, parts=tuple(PARTS))
    assert not torch.equal(whole_VBP, params_VBP)
    slices = zip(params_VBP.chunk(processes, 1), sizes_B2.chunk(processes), strict=True)
    own = [share_params(rows, sizes, chunk=8, parts=tuple(PARTS)) for rows, sizes in slices]  # rows: not contiguous
    assert len(own) == processes and torch.equal(torch.cat(own, 1), whole_VBP)


@pytest.mark.parametrize("part", PARTS)
def test_all_views_take_a_part_from_the_first(part):
    params_VBP, _ = mixed()
    before_VBP = params_VBP.clone()
    same_VBP = same_across_views(params_VBP, [part])
    others = sorted(set(range(len(COLUMNS))) - set(columns(part)))
    assert torch.equal(params_VBP, before_VBP) and not torch.equal(same_VBP, params_VBP)
    assert torch.equal(same_VBP[..., others], params_VBP[..., others])
    for v in range(3):
        assert torch.equal(same_VBP[v][:, columns(part)], params_VBP[0][:, columns(part)])


def test_neither_reads_a_value():
    """On the meta device there are no values, so reading one would fail."""
    params_VBP, sizes_B2 = torch.empty(2, 12, len(COLUMNS), device="meta"), torch.empty(12, 2, device="meta").long()
    assert share_params(params_VBP, sizes_B2, chunk=4, parts=tuple(PARTS)).shape == params_VBP.shape
    assert same_across_views(params_VBP, tuple(PARTS)).shape == params_VBP.shape


ROWS, SIZES = torch.zeros(2, 12, len(COLUMNS)), torch.ones(12, 2, dtype=torch.int32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: share_params(ROWS, SIZES, chunk=0, parts=("crop",)), "the 12 samples, got 0; pass one of 1, 2, 3, 4"),
        (lambda: share_params(ROWS, SIZES, chunk=5, parts=("crop",)), "divide the 12 samples, got 5; pass one of 1"),
        (lambda: share_params(ROWS, SIZES, chunk=24, parts=("crop",)), "got 24; pass one of .*12"),
        (lambda: share_params(ROWS, SIZES, chunk=4, parts=("crop", "hue")), r"some of crop, .* got \('crop', 'hue'\);"),
        (lambda: share_params(ROWS, SIZES, chunk=4, parts="crop"), "sequence .* got 'crop'; pass parts="),
        (lambda: share_params(ROWS, SIZES[:6], chunk=4, parts=("crop",)), r"\[12, 2\], got torch.int32 \[6, 2\]; pass"),
        (lambda: share_params(ROWS, SIZES.float(), chunk=4, parts=("crop",)), "int64 .*got torch.float32"),
        (
            lambda: share_params(ROWS[..., :15], SIZES, chunk=4, parts=("crop",)),
            r"16\], got torch.float32 .*15\]; pass",
        ),
        (lambda: share_params(ROWS[0], SIZES, chunk=4, parts=("crop",)), r"got torch.float32 \[12, 16\]; pass rows"),
        (lambda: same_across_views(ROWS.double(), ("crop",)), "float32 .* got torch.float64"),
        (lambda: same_across_views(ROWS, ("sigma",)), r"got \('sigma',\)"),
    ],
)
def test_bad_input_is_named_with_a_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()
