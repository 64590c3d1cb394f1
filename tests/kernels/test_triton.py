"""The Triton kernels, run by Triton's interpreter on the CPU, against the oracle and the torch mirror of the sampler.

Triton reads TRITON_INTERPRET when it is imported, and must not have been imported otherwise in the same process. The
tests marked `interpreted` therefore run in one process of their own, started by the first of them; here only their
outcomes are read. `TRITON_INTERPRET=1 pytest tests/kernels/test_triton.py` runs them directly.
"""

import functools
import importlib.util
import inspect
import itertools
import multiprocessing
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fastaugself_kernels import ViewPolicy, augment, augself_targets, sample_params
from fastaugself_kernels.backends import Options
from fastaugself_kernels.params import (
    BRIGHTNESS,
    COLUMNS,
    IDENTITY_ORDER,
    ORDER,
    ROTATION,
    SATURATION,
    SOLARIZE,
    SOLARIZE_OFF,
    pack_policies,
    packed,
)
from fastaugself_kernels.sampling import sample_params_torch
from fastaugself_kernels.targets import CASSLE_PARTS, TRITON_PARTS

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton: pip install triton"),
    pytest.mark.xdist_group("triton"),  # one worker, so that the interpreter's process starts once
    pytest.mark.timeout(900),  # the first test waits for all of them
]

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # errors in fractions of the whole range
EXACT = {**UNIT, "rounding": "none"}
EVERYTHING = ViewPolicy(jitter=0.9, gray=0.3, blur=0.8, solarize=0.4, solarize_threshold=(0.1, 0.9))
TURNED = replace(EVERYTHING, rotation=0.8, scale=(0.05, 1.0))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, ElementTree.Element]:
    """What each test of this file gave in a process in which Triton interprets."""
    report = tmp_path_factory.mktemp("triton") / "report.xml"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-P", "-m", "pytest", __file__, "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    environment |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert report.exists(), result.stdout + result.stderr
    return {case.attrib["name"]: case for case in ElementTree.parse(report).iter("testcase")}


def interpreted(test):
    """Runs a test where Triton interprets, and elsewhere reports how it went there."""
    if INTERPRETING:
        return test

    @functools.wraps(test)
    def elsewhere(request, outcomes, **_):
        case = outcomes[request.node.name]
        for problem in itertools.chain(case.iter("failure"), case.iter("error")):
            pytest.fail(problem.text, pytrace=False)
        for reason in case.iter("skipped"):
            pytest.skip(reason.attrib.get("message", ""))

    own = inspect.signature(test).parameters
    extra = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("request", "outcomes")]
    elsewhere.__signature__ = inspect.Signature([*own.values(), *extra])
    return elsewhere


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """New memory holds NaN or 205, so that what a kernel does not write cannot pass for what it should have."""
    fresh = torch.empty

    def empty(*size, **options):
        x = fresh(*size, **options)
        return x.fill_(float("nan") if x.is_floating_point() else 205)

    monkeypatch.setattr(torch, "empty", empty)


def photos(*sizes, seed=0):
    """Packed images with smooth and noisy parts: (pixels, offsets_B, sizes_B2)."""
    random = torch.Generator().manual_seed(seed)
    images = []
    for h, w in sizes:
        smooth = F.interpolate(torch.rand(1, 3, 7, 9, generator=random), size=(h, w), mode="bicubic")[0]
        image = 0.8 * smooth + 0.1 + 0.06 * torch.randn(3, h, w, generator=random)
        images.append((image.clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).reshape(-1))
    lengths = torch.tensor([len(image) for image in images])
    return torch.cat(images), lengths.cumsum(0) - lengths, torch.tensor(sizes, dtype=torch.int32)


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


# ---- parameters


@interpreted
@pytest.mark.parametrize("seed,epoch", [(0, 0), (-5, 1), (2**64 - 1, 2**32 - 1), (2**63, 77)], ids=str)
def test_parameters_have_the_bits_of_the_torch_mirror(seed, epoch):
    from fastaugself_kernels.triton.sampling import sample_params_triton

    random = torch.Generator().manual_seed(0)
    ids = torch.randint(-(2**63), 2**63 - 1, (150,), generator=random)
    ids[:5] = torch.tensor([0, 1, 2**33 + 1, -1, 2**62])
    sizes = torch.randint(1, 700, (150, 2), generator=random)
    policies = (
        replace(TURNED, scale=(0.2, 1.0)),
        ViewPolicy.byol(0),
        replace(ViewPolicy(), scale=(0.9, 1.0), ratio=(3.0, 4.0)),  # mostly the central box
    )
    table = pack_policies(policies)
    expected = sample_params_torch(ids, sizes, table, seed=seed, epoch=epoch)
    assert expected[0, :, ROTATION].unique().tolist() == [0, 1, 2, 3] and len(expected[0, :, ORDER].unique()) == 24
    assert torch.equal(sample_params_triton(ids, sizes, table, seed=seed, epoch=epoch), expected)
    assert torch.equal(sample_params_triton(ids[:3], sizes.int()[:3], table, seed=seed, epoch=epoch), expected[:, :3])


@interpreted
def test_no_samples_have_no_parameters():
    from fastaugself_kernels.triton.sampling import sample_params_triton

    none = torch.zeros(0, dtype=torch.int64)
    table = pack_policies((ViewPolicy(),))
    assert sample_params_triton(none, none.view(0, 2), table, seed=0, epoch=0).shape == (1, 0, len(COLUMNS))


# ---- what the methods learn from parameters


def rows_of_all_kinds():
    """Parameters, sizes and policies whose targets and descriptors take every branch."""
    sizes = torch.randint(1, 700, (150, 2), generator=torch.Generator().manual_seed(1))
    policies = (replace(TURNED, solarize=0.5), replace(TURNED, brightness=0.0, sigma=(0.1, 3.0)))
    return sample_params(torch.arange(150), sizes, policies, seed=4, epoch=0), sizes, policies


@interpreted
@pytest.mark.parametrize("mode", ["published", "fixed"])
def test_targets_have_the_bits_of_the_plain_formulas(mode):
    from fastaugself_kernels.triton.targets import targets_triton

    params, sizes, policies = rows_of_all_kinds()
    fields = targets_triton(params, sizes.int(), pack_policies(policies), fixed=mode == "fixed")
    for order, expected in enumerate(augself_targets(params, sizes, policies, mode=mode)):
        for field, got, want in zip(expected._fields, fields, expected, strict=True):
            assert got.dtype == want.dtype and torch.equal(got[order], want), field


@interpreted
@pytest.mark.parametrize("include", [None, ["crop", "color"], sorted(set(CASSLE_PARTS) - {"flip"})], ids=str)
def test_descriptors_have_the_bits_of_the_plain_formulas(include, monkeypatch):
    from fastaugself_kernels import targets

    params, sizes, policies = rows_of_all_kinds()
    shift = torch.rand(2, 150, 3, generator=torch.Generator().manual_seed(0))
    expected = targets.descriptors(params, sizes, policies, shift, include=include)
    monkeypatch.setattr(targets, "_in_one_launch", lambda params_VBP: True)
    assert torch.equal(targets.descriptors(params, sizes, policies, shift, include=include), expected)


@interpreted
def test_the_kernel_serves_its_own_parts_and_the_formulas_all_others(monkeypatch):
    from fastaugself_kernels import targets
    from fastaugself_kernels.triton import targets as triton_targets

    params, sizes, policies = rows_of_all_kinds()
    launched = []
    monkeypatch.setattr(targets, "_in_one_launch", lambda params_VBP: True)
    monkeypatch.setattr(triton_targets, "run", lambda launches, device: launched.extend(launches))
    assert set(triton_targets.PARTS.values()) == TRITON_PARTS and set(targets.DESCRIPTORS) > TRITON_PARTS
    shift = torch.zeros(2, 150, 3)
    for part in targets.DESCRIPTORS:
        launched.clear()
        made = targets.descriptors(params, sizes, policies, shift, include=["crop", part])
        assert len(launched) == (part in TRITON_PARTS), part
        assert part in TRITON_PARTS or not made.isnan().any(), part


def test_a_batch_on_a_gpu_takes_few_launches_and_reads_nothing(monkeypatch):
    """Everything that runs on the device for views with parameters, targets and descriptors, counted without one."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from fastaugself_kernels import targets
    from fastaugself_kernels.triton import augment as backend
    from fastaugself_kernels.triton import sampling
    from fastaugself_kernels.triton import targets as triton_targets

    monkeypatch.undo()  # the poison would be counted
    free = ("aten.select", "aten.slice", "aten.view", "aten.unsqueeze", "aten.permute", "aten.detach", "aten.empty",
            "aten.alias", "aten.as_strided", "aten.expand", "aten._unsafe_view", "aten.t.")  # fmt: skip
    calls = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            if not str(function).startswith(free):
                calls.append(str(function))
            return function(*arguments, **(keywords or {}))

    for module in (backend, triton_targets, sampling):
        monkeypatch.setattr(module, "require_device", lambda *_: None)
        monkeypatch.setattr(module, "run", lambda launches, _: calls.extend(x.kernel.__name__ for x in launches))
    operation = importlib.import_module("fastaugself_kernels.augment")
    monkeypatch.setattr(operation, "check_rows", lambda *_: None)  # which a GPU leaves out
    monkeypatch.setattr(operation, "augment_op", operation._augment)  # registered, it hides what it does
    monkeypatch.setattr(targets, "_in_one_launch", lambda _: True)
    pixels, offsets, sizes = photos((36, 44), (52, 33))
    policies = (ViewPolicy.byol(0), ViewPolicy.byol(1))
    table, ids = packed(policies, pixels.device), torch.arange(2)
    with Count():
        params = sampling.sample_params_triton(ids, sizes, table, seed=0, epoch=0)
        options = {"size": 224, "dtype": torch.bfloat16, "color_shift": True, "backend": "triton"}
        _, shift = operation.augment(pixels, offsets, sizes, params, **options)
        targets.augself_targets(params, sizes, policies)
        targets.descriptors(params, sizes, policies, shift)
    assert calls == [
        "sample_kernel",
        "aten.mul.Tensor",  # bytes per row from the widths
        "resize_kernel",
        "finish_kernel",
        "shift_kernel",
        "targets_kernel",
        "descriptors_kernel",
    ]


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
