"""Views of the Triton kernels, run by Triton's interpreter on the CPU (helpers/interpreter.py), against the oracle."""

import itertools
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from interpreter import EVERYTHING, INTERPRETING, MARKS, TURNED, interpreted, photos

from fastaugself_kernels import ViewPolicy, augment, sample_params
from fastaugself_kernels.backends import Options
from fastaugself_kernels.params import (
    BRIGHTNESS,
    COLUMNS,
    IDENTITY_ORDER,
    ORDER,
    SATURATION,
    SOLARIZE,
    SOLARIZE_OFF,
)

pytestmark = MARKS

UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # errors in fractions of the whole range
EXACT = {**UNIT, "rounding": "none"}


def rows(sizes_B2, **columns):
    """One view of the whole image that does nothing but what `columns` say: params_VBP with V = 1."""
    params_VBP = torch.zeros(1, len(sizes_B2), len(COLUMNS))
    params_VBP[..., 2:4] = sizes_B2
    params_VBP[..., ORDER] = IDENTITY_ORDER
    params_VBP[..., BRIGHTNESS : SATURATION + 1] = 1
    params_VBP[..., SOLARIZE] = SOLARIZE_OFF
    for name, value in columns.items():
        params_VBP[..., COLUMNS.index(name)] = value
    return params_VBP


def both(pixels, offsets_B, sizes_B2, params_VBP, size, **options):
    """Views and colour shift of the oracle and of Triton, float32."""
    pair = []
    for backend in ("reference", "triton"):
        views, shift = augment(
            pixels, offsets_B, sizes_B2, params_VBP, size=size, backend=backend, color_shift=True, **options
        )
        assert all(view.is_contiguous(memory_format=torch.channels_last) for view in views)
        assert not views.isnan().any() and not shift.isnan().any()
        pair.append((views.float(), shift))
    return pair


def assert_exact(*arguments, **options):
    """Errors within 1e-5, except where solarize's step turns an ulp into a flip."""
    (expected, expected_shift), (got, shift) = both(*arguments, **options)
    params_VBP = arguments[3]
    error = (got - expected).abs()
    continuous = (params_VBP[..., SOLARIZE] > 1)[..., None, None, None]
    assert (error * continuous).max() <= 1e-5
    assert (error > 1e-5).float().mean() <= 2e-4
    assert (shift - expected_shift).abs().max() <= 1e-6
    return got


# ---- every operation alone, in one launch (32 px) and in two (40 px)

OPERATIONS = {
    "resize": {},
    "crop": {"top": 3, "left": 5, "height": 17, "width": 23},
    "flip": {"flip": 1},
    "quarter turn": {"rotation": 1},
    "half turn, flipped": {"rotation": 2, "flip": 1},
    "three quarters, flipped": {"rotation": 3, "flip": 1, "height": 21, "width": 30},
    "brightness": {"jitter": 1, "brightness": 1.4},
    "contrast": {"jitter": 1, "contrast": 0.3},
    "saturation": {"jitter": 1, "saturation": 1.8},
    "hue": {"jitter": 1, "hue": -0.35},
    "factors without jitter": {"jitter": 0, "brightness": 1.4, "contrast": 0.3, "saturation": 1.8, "hue": 0.2},
    "gray": {"gray": 1},
    "narrow blur": {"sigma": 0.1},
    "wide blur": {"sigma": 2.0},
    "solarize": {"solarize": 0.5},
}


@interpreted
@pytest.mark.parametrize("size", [32, 40])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_alone(operation, size):
    pixels, offsets, sizes = photos((36, 44), (52, 33))
    views = assert_exact(pixels, offsets, sizes, rows(sizes, **OPERATIONS[operation]), size, **EXACT)
    plain = augment(pixels, offsets, sizes, rows(sizes), size=size, backend="reference", **EXACT)
    idle = operation in ("resize", "factors without jitter", "narrow blur")
    assert ((views - plain).abs().max() < 1e-5) == idle  # else the test shows nothing


@interpreted
@pytest.mark.parametrize("size,count", [(32, 24), (40, 4)])
def test_jitter_in_every_order(size, count):
    """Orders as views in the same launches; in 4 of them each step comes first once."""
    pixels, offsets, sizes = photos((36, 44))
    factors = {"jitter": 1, "brightness": 1.3, "contrast": 0.6, "saturation": 1.5, "hue": 0.3}
    permutations = list(itertools.permutations(range(4)))[:: 24 // count]
    orders = [sum(op << (2 * i) for i, op in enumerate(permutation)) for permutation in permutations]
    params = torch.cat([rows(sizes, **factors, order=order) for order in orders])
    views = assert_exact(pixels, offsets, sizes, params, size, **EXACT)
    distances = torch.cdist(views.flatten(1), views.flatten(1), p=torch.inf)
    assert (distances > 1e-3).float().mean() > 0.7  # some orders commute where nothing is clamped


@interpreted
@pytest.mark.parametrize("size", [(17, 29), (41, 37)], ids=["one launch", "two"])
def test_saturation_of_hsv(size):
    """Extreme factors before and after the other steps, on photos and on black, white, gray and pure colours."""
    pixels, offsets, sizes = photos((36, 44), (20, 24))
    colours = torch.tensor([[0, 0, 0], [255, 255, 255], [77, 77, 77], [255, 0, 0], [0, 9, 9], [254, 255, 255]])
    pixels[-20 * 24 * 3 :] = colours.to(torch.uint8).repeat_interleave(80, 0).reshape(-1)
    orders = (0b00_01_11_10, 0b10_11_00_01, 0b11_10_01_00)  # saturation first, last and in between
    params = torch.cat(
        [
            rows(sizes, jitter=1, order=order, saturation=factor, brightness=1.2, contrast=0.7, hue=0.1)
            for order, factor in zip((*orders, orders[0]), (0.0, 3.0, 1.4, 1.0), strict=True)
        ]
        + [rows(sizes, gray=1), rows(sizes, jitter=1, saturation=1.4, gray=1, sigma=0.8, solarize=0.6)]
    )
    options = {"blur_kernel": 5, "solarize_before_gray": size == (41, 37), **EXACT}
    views = assert_exact(pixels, offsets, sizes, params, size, saturation="hsv", **options)
    blend = augment(pixels, offsets, sizes, params, size=size, backend="reference", **options)
    differs = (views - blend).abs().amax((1, 2, 3, 4)) > 0.02
    assert differs.tolist() == [True, True, True, False, False, True]  # not with a factor of 1, nor in gray


# ---- everything together


def test_the_tests_of_this_file_are_in_one_process(request):
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("about `--dist loadgroup`")
    assert request.node.nodeid.endswith("@triton"), "xdist does not group with this pytest; see constraints.txt"


@interpreted
@pytest.mark.parametrize("antialias", [True, False])
def test_a_march_over_several_tiles(antialias):
    """Two tiles of rows and two of columns; more than four taps, a single row, shrunk in one direction only."""
    pixels, offsets, sizes = photos((60, 380), (1, 7), (20, 160))
    odd = torch.arange(3.0)[None] % 2
    params = rows(sizes, jitter=1, contrast=0.6, order=0b11100001, flip=1 - odd, rotation=2 - 2 * odd)
    assert_exact(pixels, offsets, sizes, params, (36, 130), blur_kernel=1, antialias=antialias, **EXACT)


@interpreted
@pytest.mark.parametrize(
    "size,blur_kernel,dtype",
    [
        (32, 23, torch.float32),
        ((17, 29), 5, torch.float32),
        (16, 9, torch.float32),
        (7, 3, torch.float32),
        (40, 23, torch.float32),
        ((72, 56), 33, torch.float32),
        ((75, 51), 11, torch.float32),
        ((9, 130), 1, torch.float32),
        (64, 23, torch.float16),
        ((50, 61), 13, torch.float16),
        (72, 23, torch.float16),
        (72, 9, torch.bfloat16),
    ],
    ids=lambda x: str(x).replace("torch.", ""),
)
def test_everything_together(size, blur_kernel, dtype):
    policies = (EVERYTHING, TURNED, ViewPolicy.byol(1)) if isinstance(size, int) else (EVERYTHING, ViewPolicy.byol(1))
    if dtype != torch.float32:
        policies = policies[-2:]  # each view takes seconds
    pixels, offsets, sizes = photos((90, 71), (20, 24))
    params = sample_params(torch.tensor([5, 9]), sizes, policies, seed=8, epoch=0)
    if dtype == torch.float32:
        assert_exact(pixels, offsets, sizes, params, size, blur_kernel=blur_kernel, **EXACT)
    else:
        (expected, _), (got, _) = both(
            pixels, offsets, sizes, params, size, blur_kernel=blur_kernel, dtype=dtype, **EXACT
        )
        continuous = (params[..., SOLARIZE] > 1)[..., None, None, None]
        # Half of the last place of [0.5, 1], and the blur's in float16.
        tolerance = {torch.float16: 1.5e-3, torch.bfloat16: 6e-3}[dtype]
        assert ((got - expected).abs() * continuous).max() <= tolerance


@interpreted
@pytest.mark.parametrize(
    "size,dtype", [(32, torch.float16), ((17, 29), torch.float32), ((40, 45), torch.bfloat16), (72, torch.float32)]
)
def test_a_fourth_channel_is_of_zeros_and_changes_no_other(size, dtype):
    pixels, offsets, sizes = photos((90, 71), (20, 24))
    params = sample_params(torch.tensor([5, 9]), sizes, (replace(EVERYTHING, rotation=0.0),) * 2, seed=8, epoch=0)
    options = dict(size=size, dtype=dtype, blur_kernel=9, backend="triton")
    views = augment(pixels, offsets, sizes, params, channels=4, **options)
    assert views.shape[2] == 4 and views[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(views[:, :, :3], augment(pixels, offsets, sizes, params, **options))
    assert (views[:, :, 3] == 0).all()


@interpreted
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [24, 40])
def test_shrinking_by_much(size, antialias):
    pixels, offsets, sizes = photos((150, 133), (97, 210))
    params = torch.cat([rows(sizes), rows(sizes, flip=1, rotation=3)])
    assert_exact(pixels, offsets, sizes, params, size, antialias=antialias, **EXACT)


@interpreted
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("size", [32, 40])
def test_solarize_in_either_place(size, before):
    pixels, offsets, sizes = photos((36, 44), (52, 33))
    params = torch.cat([rows(sizes, gray=1, solarize=0.4), rows(sizes, jitter=1, contrast=1.3, gray=1, sigma=0.7)])
    assert_exact(pixels, offsets, sizes, params, size, blur_kernel=9, solarize_before_gray=before, **EXACT)


@interpreted
@pytest.mark.parametrize("size", [32, 40])
def test_rounding_to_whole_levels_differs_at_ties_only(size):
    pixels, offsets, sizes = photos((36, 44), (52, 33), (77, 80))
    params = torch.cat([rows(sizes), rows(sizes, flip=1, gray=1)])
    (expected, _), (got, _) = both(pixels, offsets, sizes, params, size, rounding="uint8", **UNIT)
    error = (got - expected).abs()
    assert error.max() <= 1 / 255 + 1e-6 and (error > 1e-5).float().mean() <= 2e-3
    params = sample_params(torch.arange(3), sizes, (replace(EVERYTHING, solarize=0.0),), seed=1, epoch=0)
    (expected, _), (got, _) = both(pixels, offsets, sizes, params, size, rounding="uint8", blur_kernel=9, **UNIT)
    assert (got - expected).abs().max() <= 3 / 255


@interpreted
@pytest.mark.parametrize("size", [32, 40])
def test_normalises_as_the_oracle(size):
    pixels, offsets, sizes = photos((36, 44))
    (expected, _), (got, _) = both(pixels, offsets, sizes, rows(sizes, jitter=1, hue=0.2), size, rounding="none")
    assert (got - expected).abs().max() <= 1e-5 / 0.224


@interpreted
@pytest.mark.parametrize("size", [32, 72])
def test_color_shift_is_zero_without_jitter_and_optional(size):
    pixels, offsets, sizes = photos((36, 44), (52, 33))
    params = torch.cat([rows(sizes, gray=1, sigma=1.0), rows(sizes, jitter=1, brightness=0.7)])
    (_, expected), (views, shift) = both(pixels, offsets, sizes, params, size, dtype=torch.float16, **EXACT)
    assert (shift[0] == 0).all()
    assert (shift[1] - expected[1]).abs().max() <= 1e-6 and shift[1].min() > 0.05
    alone = augment(pixels, offsets, sizes, params, size=size, dtype=torch.float16, backend="triton", **EXACT)
    assert torch.equal(alone.float(), views)


# ---- borders, addresses, order


@interpreted
@pytest.mark.parametrize("size", [16, 40])
def test_crops_of_single_pixels(size):
    pixels, offsets, sizes = photos((1, 1), (1, 9), (7, 1), (3, 2))
    turned = [rows(sizes, rotation=turns, flip=turns % 2) for turns in range(4)]
    corner = rows(sizes, height=1, width=1)
    corner[..., :2] = sizes - 1
    params = torch.cat([*turned, corner])
    assert_exact(pixels, offsets, sizes, params, size, blur_kernel=3, **EXACT)


def _augment_between_guards(size, antialias):
    """Images that fill their memory to its last byte, and start at its first, with nothing readable around it."""
    import ctypes
    import mmap

    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 3 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    middle = torch.frombuffer(memory, dtype=torch.uint8)[page : 2 * page]
    for start in (address, address + 2 * page):
        assert protect(ctypes.c_void_p(start), ctypes.c_size_t(page), 0) == 0
    for h, w in ((13, 11), (1, 1), (2, 40), (36, 37)):
        sizes = torch.tensor([[h, w], [h, w]], dtype=torch.int32)
        offsets = torch.tensor([0, page - 3 * h * w])
        views = [rows(sizes, rotation=turns, flip=turns % 2) for turns in (0, 3)]
        ends = rows(sizes, height=1, width=1)
        ends[0, 1, :2] = sizes[1] - 1
        params = torch.cat([*views, ends])
        augment(middle, offsets, sizes, params, size=size, blur_kernel=3, antialias=antialias, backend="triton")


@interpreted
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [16, 40])
def test_reads_nothing_outside_the_images(size, antialias):
    child = multiprocessing.get_context("fork").Process(target=_augment_between_guards, args=(size, antialias))
    child.start()
    child.join()
    assert child.exitcode == 0  # a fault is -11


@interpreted
@pytest.mark.parametrize("size", [32, 40])
def test_offsets_beyond_two_gigabytes(size, monkeypatch):
    monkeypatch.undo()  # poisoning would touch every page
    image, _, sizes = photos((20, 31), (20, 31))
    pixels = torch.empty(2**31 + 10_000, dtype=torch.uint8)
    offsets = torch.tensor([7, 2**31 + 1001])
    for offset, part in zip(offsets.tolist(), image.view(2, -1), strict=True):
        pixels[offset : offset + len(part)] = part
    assert_exact(pixels, offsets, sizes, rows(sizes, flip=1, top=1, height=19), size, **EXACT)


@interpreted
def test_padded_images_and_given_strides():
    images = torch.randint(0, 256, (3, 30, 41, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([[30, 41], [22, 17], [9, 40]], dtype=torch.int32)
    params = sample_params(torch.arange(3), sizes, (EVERYTHING, EVERYTHING), seed=1, epoch=1)
    assert_exact(images, None, sizes, params, 32, blur_kernel=9, **EXACT)


@interpreted
@pytest.mark.parametrize("size", [32, 72])
def test_bits_do_not_depend_on_batch_order_or_shard(size):
    pixels, offsets, sizes = photos((36, 44), (52, 33), (40, 40))
    ids = torch.tensor([5, 2**33 + 1, 17])
    policies = (TURNED, ViewPolicy.byol(1))

    def make(chosen):
        params = sample_params(ids[chosen], sizes[chosen], policies, seed=9, epoch=2)
        return augment(
            pixels, offsets[chosen], sizes[chosen], params, size=size, dtype=torch.float16, blur_kernel=9,
            backend="triton",
        )  # fmt: skip

    whole = make([0, 1, 2])
    assert torch.equal(make([2, 0, 1]), whole[:, [2, 0, 1]])
    assert torch.equal(torch.cat([make([0, 2]), make([1])], 1), whole[:, [0, 2, 1]])


# ---- refusals and configurations


@interpreted
def test_refuses_what_the_kernels_do_not_take():
    pixels, offsets, sizes = photos((36, 44))
    with pytest.raises(ValueError, match=r'at most 33 with backend="triton", got 35; .*backend="reference"'):
        augment(pixels, offsets, sizes, rows(sizes), size=40, blur_kernel=35, backend="triton")
    from fastaugself_kernels.triton import augment_triton

    with pytest.raises(ValueError, match=r"channels-last contiguous, got strides .*permute\(0, 1, 4, 2, 3\)"):
        augment_triton(
            pixels, offsets, sizes[:, 1] * 3, rows(sizes), torch.empty(1, 1, 3, 8, 8), None, mean=(0, 0, 0),
            std=(1, 1, 1), options=Options(blur_kernel=3),
        )  # fmt: skip


@pytest.mark.skipif(INTERPRETING, reason="about compiled kernels")
def test_cpu_tensors_are_refused_with_the_remedy_where_nothing_interprets():
    code = """
import torch
from fastaugself_kernels import ViewPolicy, augment, augself_targets, sample_params
sizes = torch.tensor([[9, 9]])
params = sample_params(torch.zeros(1, dtype=torch.int64), sizes, [ViewPolicy(size=8)], seed=0, epoch=0)
augment(torch.zeros(1, 9, 9, 3, dtype=torch.uint8), None, sizes, params, size=8, blur_kernel=3, backend="triton")
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError") and "got cpu" in last and "TRITON_INTERPRET=1" in last


@interpreted
def test_shipped_configurations_are_complete():
    from fastaugself_kernels.triton.augment import MAX_RADIUS
    from fastaugself_kernels.triton.configs import config, file_of, shipped

    for name, shapes in shipped().items():
        assert shapes.targets, name
        for finish in (shapes.finish, shapes.finish_float32):
            assert finish.columns >= MAX_RADIUS and finish.rows > 2 * MAX_RADIUS, name
        for small in (shapes.small, shapes.small_float32):
            assert list(small) == sorted(small), name
        assert shapes.resize.columns % (32 * shapes.resize.warps) == 0, name
    assert config(torch.device("cpu")) == shipped()["default-cuda"]
    assert file_of("NVIDIA H100 80GB HBM3", "3.7.1").name == "nvidia-h100-80gb-hbm3.triton-3.7.1.json"
