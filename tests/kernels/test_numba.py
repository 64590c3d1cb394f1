"""The fused CPU back-end against the oracle: values, bits, layouts, and what `augment` refuses."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from fastaugself_kernels import COLUMNS, ViewPolicy, augment, memory, sample_params
from fastaugself_kernels.augment import check_rows
from fastaugself_kernels.params import pack_policies
from fastaugself_kernels.sampling import sample_params_torch

pytest.importorskip("numba")
rows_fit = pytest.importorskip("fastaugself_kernels.numba").rows_fit

COLUMN = {name: i for i, name in enumerate(COLUMNS)}
UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
NOTHING = ViewPolicy.none()
EVERYTHING = ViewPolicy(rotation=0.6, jitter=0.9, gray=0.3, blur=0.7, solarize=0.4, solarize_threshold=(0.0, 1.0))


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """Memory for results is NaN, fresh or used again: an element that a kernel leaves out shows."""
    empty, reused = torch.empty, memory.empty

    def poisoned(*shape, **options):
        fresh = empty(*shape, **options)
        return fresh.fill_(float("nan")) if fresh.is_floating_point() else fresh

    monkeypatch.setattr(torch, "empty", poisoned)
    monkeypatch.setattr(memory, "empty", lambda *shape, dtype: reused(*shape, dtype=dtype).fill_(float("nan")))


@pytest.fixture(scope="module")
def batch():
    """Real photos of odd sizes and the extremes, packed: (pixels, offsets_B, sizes_B2)."""
    from skimage import data

    random = np.random.default_rng(0)
    colours = np.zeros((31, 45, 3), np.uint8)
    colours[:, 9:18], colours[:, 18:27, 0], colours[:, 27:36, 1], colours[:, 36:, 2] = 255, 255, 255, 255
    images = [
        data.astronaut()[:201, :307],
        data.chelsea()[40:251, 20:400],
        colours,
        random.integers(0, 256, (63, 100, 3), dtype=np.uint8),
        np.full((40, 40, 3), 255, np.uint8),
        np.zeros((33, 70, 3), np.uint8),
        random.integers(0, 256, (1, 1, 3), dtype=np.uint8),
        random.integers(0, 256, (5, 300, 3), dtype=np.uint8),
    ]
    lengths = np.array([image.size for image in images])
    pixels = torch.from_numpy(np.concatenate([image.reshape(-1) for image in images]))
    offsets = torch.from_numpy(np.cumsum(lengths) - lengths)
    return pixels, offsets, torch.tensor([image.shape[:2] for image in images], dtype=torch.int32)


def draw(batch, policy, views=2, repeats=1, seed=3):
    """The batch repeated, and parameters of every copy."""
    pixels, offsets, sizes = batch
    offsets, sizes = offsets.repeat(repeats), sizes.repeat(repeats, 1)
    params = sample_params(torch.arange(len(offsets)), sizes, (policy,) * views, seed=seed, epoch=1)
    return pixels, offsets, sizes, params


def both(source, **options):
    options = {**UNIT, "rounding": "none", "color_shift": True, **options}
    return augment(*source, backend="numba", **options), augment(*source, backend="reference", **options)


def assert_close(got, expected, params, tolerance=1e-5):
    """Within the tolerance, but for the few values that a solarization throws to either side of its threshold."""
    assert torch.isfinite(got).all()
    error = (got - expected).abs()
    smooth = (params[..., COLUMN["solarize"]] > 1)[..., None, None, None]
    assert (error * smooth).max() <= tolerance
    assert (error > tolerance).float().mean() <= 1e-3


ALONE = {
    "crop": NOTHING,
    "random-crop": dataclasses.replace(NOTHING, scale=(0.05, 1.0), ratio=(0.5, 2.0)),
    "flip": dataclasses.replace(NOTHING, flip=1.0),
    "rotation": dataclasses.replace(NOTHING, rotation=1.0),
    "brightness": dataclasses.replace(NOTHING, jitter=1.0, contrast=0.0, saturation=0.0, hue=0.0, brightness=2.0),
    "contrast": dataclasses.replace(NOTHING, jitter=1.0, brightness=0.0, saturation=0.0, hue=0.0, contrast=2.0),
    "saturation": dataclasses.replace(NOTHING, jitter=1.0, brightness=0.0, contrast=0.0, hue=0.0, saturation=2.0),
    "hue": dataclasses.replace(NOTHING, jitter=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.5),
    "jitter": dataclasses.replace(NOTHING, jitter=1.0),
    "gray": dataclasses.replace(NOTHING, gray=1.0),
    "blur": dataclasses.replace(NOTHING, blur=1.0),
    "solarize": dataclasses.replace(NOTHING, solarize=1.0, solarize_threshold=(0.0, 1.0)),
    "everything": EVERYTHING,
}


@pytest.mark.parametrize("name", list(ALONE))
def test_every_operation_matches_the_oracle(name, batch):
    source = draw(batch, ALONE[name], repeats=3)
    for size, kernel in ((32, 5), (57, 23)):
        (got, got_shift), (expected, shift) = both(source, size=size, blur_kernel=kernel)
        assert_close(got, expected, source[3])
        assert (got_shift - shift).abs().max() <= 1e-5


@pytest.mark.parametrize("size", [1, 2, 7, 8, 16, 31, 33, 64, 96, 224, (72, 88), (17, 61), (130, 20)], ids=str)
def test_every_size_matches_the_oracle(size, batch):
    smallest = size if isinstance(size, int) else min(size)
    policy = EVERYTHING if isinstance(size, int) else dataclasses.replace(EVERYTHING, rotation=0.0)
    source = draw(batch, policy)
    kernel = min(23, 2 * smallest - 1)
    (got, shift), (expected, expected_shift) = both(source, size=size, blur_kernel=kernel)
    assert_close(got, expected, source[3])
    assert (shift - expected_shift).abs().max() <= 1e-5


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("before", [True, False], ids=["solarize-first", "solarize-last"])
def test_options_match_the_oracle(antialias, before, batch):
    source = draw(batch, EVERYTHING, repeats=2)
    (got, _), (expected, _) = both(source, size=40, blur_kernel=9, antialias=antialias, solarize_before_gray=before)
    assert_close(got, expected, source[3])


def test_extreme_rows_match_the_oracle(batch):
    pixels, offsets, sizes = batch
    rows = []
    for factor, hue, threshold in itertools.product((0.0, 1.0, 3.0), (-0.5, 0.5), (0.0, 2.0)):
        row = torch.zeros(len(sizes), len(COLUMNS))
        row[:, COLUMN["height"]], row[:, COLUMN["width"]] = sizes[:, 0].float(), sizes[:, 1].float()
        row[:, COLUMN["jitter"]], row[:, COLUMN["order"]] = 1.0, 0b00_11_10_01
        row[:, COLUMN["brightness"]] = row[:, COLUMN["contrast"]] = row[:, COLUMN["saturation"]] = factor
        row[:, COLUMN["hue"]], row[:, COLUMN["solarize"]], row[:, COLUMN["sigma"]] = hue, threshold, 0.0
        rows.append(row)
    params = torch.stack(rows)
    (got, shift), (expected, expected_shift) = both((pixels, offsets, sizes, params), size=24, blur_kernel=3)
    # Three factors of 3 in a row turn one ulp of the resize into many.
    assert_close(got, expected, params, tolerance=3e-5)
    assert (shift - expected_shift).abs().max() <= 3e-5


def test_rounding_differs_from_the_oracle_at_ties_only(batch):
    source = draw(batch, dataclasses.replace(NOTHING, scale=(0.1, 1.0), ratio=(0.5, 2.0)), repeats=8)
    got = augment(*source, size=64, backend="numba", **UNIT)
    expected = augment(*source, size=64, backend="reference", **UNIT)
    steps = (got - expected).abs() * 255
    assert steps.max() <= 1.001
    assert (steps > 0.5).float().mean() <= 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_the_rounded_float32(dtype, batch):
    source = draw(batch, EVERYTHING)
    whole = augment(*source, size=51, backend="numba")
    half = augment(*source, size=51, backend="numba", dtype=dtype)
    assert half.dtype == dtype and half[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(half, whole.to(dtype))


@pytest.mark.parametrize("size", [1, 5, 51, 64, 224], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_fourth_channel_is_of_zeros_and_changes_no_other(size, dtype, batch):
    source = draw(batch, EVERYTHING, repeats=8)  # at 224 pixels larger than a cache
    options = dict(size=size, dtype=dtype, blur_kernel=min(23, 2 * size - 1), backend="numba")
    views = augment(*source, channels=4, **options)
    assert views.shape[2] == 4 and views[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(views[:, :, :3], augment(*source, **options))
    assert (views[:, :, 3] == 0).all()


def test_bits_do_not_depend_on_threads_batch_order_or_shard(batch):
    pixels, offsets, sizes, params = draw(batch, EVERYTHING, repeats=4)
    whole = augment(pixels, offsets, sizes, params, size=48, backend="numba")
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(augment(pixels, offsets, sizes, params, size=48, backend="numba"), whole)
    finally:
        torch.set_num_threads(threads)
    order = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(0))
    shuffled = augment(pixels, offsets[order], sizes[order], params[:, order].contiguous(), size=48, backend="numba")
    assert torch.equal(shuffled, whole[:, order])
    for r in range(3):
        shard = params[:, r::3].contiguous()
        assert torch.equal(augment(pixels, offsets[r::3], sizes[r::3], shard, size=48, backend="numba"), whole[:, r::3])


def test_padded_images_give_the_views_of_packed_ones(batch):
    pixels, offsets, sizes = batch
    padded = torch.randint(0, 256, (len(sizes), 220, 390, 3), dtype=torch.uint8)
    for b, (offset, (h, w)) in enumerate(zip(offsets.tolist(), sizes.tolist(), strict=True)):
        padded[b, :h, :w] = pixels[offset : offset + h * w * 3].view(h, w, 3)
    params = draw(batch, EVERYTHING)[3]
    packed = augment(pixels, offsets, sizes, params, size=40, backend="numba")
    assert torch.equal(augment(padded, None, sizes, params, size=40, backend="numba"), packed)


def test_views_stay_the_callers_when_later_batches_are_made(batch):
    source = draw(batch, EVERYTHING, repeats=2)
    kept = augment(*source, size=96, backend="numba")
    copy = kept.clone()
    for seed in range(8):
        augment(*draw(batch, EVERYTHING, repeats=2, seed=seed), size=96, backend="numba")
    assert torch.equal(kept, copy)


def test_the_operation_is_registered_as_pytorch_wants_it(batch):
    from fastaugself_kernels.augment import augment_op

    pixels, offsets, sizes, params = draw(batch, NOTHING)
    strides = sizes[:, 1] * 3
    arguments = (pixels, offsets, strides, sizes, params, 24, 24, [0.5] * 3, [0.5] * 3, torch.float32, 3, True, True,
                 True, 5, False, True)  # fmt: skip
    for backend in ("numba", "reference"):
        torch.library.opcheck(augment_op, (*arguments, backend))


def test_augment_compiles_into_one_graph(batch):
    pixels, offsets, sizes, params = draw(batch, EVERYTHING)

    def energy(params):
        views, shift = augment(pixels, offsets, sizes, params, size=32, color_shift=True, blur_kernel=9)
        return views.square().mean() + shift.sum()

    compiled = torch.compile(energy, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(params), energy(params))


def changed(tensor, index, value):
    copy = tensor.clone()
    copy[index] = value
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": lambda s: s[0].float()}, "pixels must be uint8"),
        ({"pixels": lambda s: s[0][::2]}, "contiguous"),
        ({"pixels": lambda s: s[0].view(1, -1)}, "pass pixels.view"),
        ({"pixels": lambda s: s[0][:1000]}, "does not fit the 1000 bytes"),
        ({"pixels": lambda s: s[0].numpy()}, r"pixels must be a tensor, got ndarray; pass torch.as_tensor\(pixels\)"),
        ({"sizes": lambda s: s[2].tolist()}, r"sizes_B2 must be a tensor, got list; pass torch.as_tensor\(sizes_B2\)"),
        ({"sizes": lambda s: None}, "sizes_B2 must be a tensor, got NoneType"),
        ({"params": lambda s: s[3].tolist()}, "params_VBP must be a tensor, got list"),
        ({"offsets": lambda s: s[1].int()}, r"offsets_B must be int64 \[8\]"),
        ({"offsets": lambda s: None}, r"without offsets_B, pixels must be \[8, H, W, 3\]"),
        ({"sizes": lambda s: s[2].float()}, "sizes_B2 must be int32 or int64"),
        ({"sizes": lambda s: s[2][:3]}, r"\[8, 2\]"),
        ({"sizes": lambda s: changed(s[2], (0, 0), 0)}, "does not fit|at least"),
        ({"params": lambda s: s[3].double()}, r"float32 \[V, B, 16\]"),
        ({"params": lambda s: s[3][:, :0]}, "at least one of each"),
        ({"params": lambda s: changed(s[3], (1, 2, 9), float("nan"))}, r"params_VBP\[1, 2, 9\] is nan"),
        ({"params": lambda s: changed(s[3], (0, 1, 1), 500.0)}, r"params_VBP\[0, 1\] crops .* outside"),
        ({"params": lambda s: changed(s[3], (0, 1, 2), 0.0)}, "outside"),
        ({"size": lambda s: 0}, "size must be at least 1"),
        ({"blur_kernel": lambda s: 8}, "blur_kernel must be odd"),
        ({"blur_kernel": lambda s: 65}, "blur_kernel must be odd and below twice"),
        ({"dtype": lambda s: torch.float64}, "dtype must be one of"),
        ({"std": lambda s: (1, 0, 1)}, "std above 0"),
        ({"channels": lambda s: 5}, "channels must be 3"),
        ({"rounding": lambda s: "up"}, '"uint8" or "none"'),
        ({"backend": lambda s: "cuda"}, "backend must be"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_is_a_value_error_that_names_it(change, message, batch):
    source = draw(batch, NOTHING)
    options = dict(zip(("pixels", "offsets", "sizes", "params"), source, strict=True))
    options |= {"size": 32} | {name: make(source) for name, make in change.items()}
    positional = [options.pop(name) for name in ("pixels", "offsets", "sizes", "params")]
    with pytest.raises(ValueError, match=message):
        augment(*positional, **options)


@pytest.mark.parametrize("swapped", [(30, 20), (21, 20), (20, 31)], ids=str)
def test_sizes_that_are_exchanged_are_refused_where_padded_pixels_show_it(swapped):
    """The last image would fit the bytes of the others."""
    pixels = torch.zeros(3, 20, 30, 3, dtype=torch.uint8)
    sizes = torch.tensor([[20, 30], swapped, [20, 30]])
    params = sample_params(torch.arange(3), sizes, (NOTHING,), seed=0, epoch=0)
    for backend in ("numba", "reference"):
        with pytest.raises(
            ValueError, match=r"does not fit its place in pixels, \[20, 30\]; pass sizes_B2 as \(height"
        ):
            augment(pixels, None, sizes, params, size=8, blur_kernel=3, backend=backend)
    sizes = torch.tensor([[20, 30], [20, 30], [19, 29]])
    params = sample_params(torch.arange(3), sizes, (NOTHING,), seed=0, epoch=0)
    assert augment(pixels, None, sizes, params, size=8, blur_kernel=3).shape == (1, 3, 3, 8, 8)


def test_a_quarter_turn_needs_a_square(batch):
    source = draw(batch, dataclasses.replace(NOTHING, rotation=1.0))
    with pytest.raises(ValueError, match="a quarter turn needs a square output"):
        augment(*source, size=(32, 40))


def test_the_checks_of_the_debug_mode_read_nothing_from_another_device(monkeypatch):
    asserted = []
    monkeypatch.setattr(torch, "_assert_async", lambda condition, message: asserted.append((condition.device, message)))
    # Tensors without values: whatever reads one raises.
    pixels, sizes = torch.empty(768, dtype=torch.uint8), torch.full((4, 2), 8)
    source = (pixels, torch.arange(4), sizes[:, 1] * 3, sizes, torch.ones(2, 4, len(COLUMNS)))
    check_rows(*(tensor.to("meta") for tensor in source), 4, 5)
    assert len(asserted) == 5 and all(device.type == "meta" for device, _ in asserted)
    assert "a row of params_VBP crops outside its image" in asserted[3][1]


@pytest.mark.parametrize("seed,epoch", [(0, 0), (-5, 1), (2**64 - 1, 2**32 - 1), (2**63, 77)], ids=str)
def test_parameters_have_the_bits_of_the_torch_mirror(seed, epoch):
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(-(2**63), 2**63 - 1, (5000,), generator=random)
    ids[:5] = torch.tensor([0, 1, 2**33 + 1, -1, 2**62])
    sizes = torch.randint(1, 700, (5000, 2), generator=random)
    central = ViewPolicy(scale=(0.9, 1.0), ratio=(3.0, 4.0))  # mostly the central box
    policies = (EVERYTHING, ViewPolicy.byol(0), ViewPolicy.byol(1), central, NOTHING)
    expected = sample_params_torch(ids, sizes, pack_policies(policies), seed=seed, epoch=epoch)
    assert len(expected[0, :, COLUMN["order"]].unique()) == 24 and len(expected[0, :, COLUMN["rotation"]].unique()) == 4
    assert torch.equal(sample_params(ids, sizes, policies, seed=seed, epoch=epoch), expected)
    assert torch.equal(sample_params(ids[::2], sizes.int()[::2], policies, seed=seed, epoch=epoch), expected[:, ::2])
    none = sample_params(ids[:0], sizes[:0], policies, seed=seed, epoch=epoch)
    assert none.shape == (5, 0, len(COLUMNS))


def test_rows_are_refused_exactly_where_the_explaining_check_refuses_them(batch):
    source = draw(batch, EVERYTHING)
    random = np.random.default_rng(0)
    pixels, offsets, sizes, params = source
    values = [float("nan"), float("inf"), -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 45.0, 1e6]
    refused = []
    for _ in range(500):
        rows, starts, length, strides = params.clone(), offsets.clone(), len(pixels), sizes[:, 1] * 3
        kind = random.integers(5)
        if kind == 0:
            starts[random.integers(len(starts))] += random.integers(-300, 300)
        elif kind == 1:
            length -= random.integers(2000)
        elif kind == 4:
            strides[random.integers(len(strides))] += random.integers(-2, 1)
        for _ in range(random.integers(1 + 2 * (kind > 1))):
            rows[tuple(random.integers(rows.shape))] = random.choice(values)
        arguments = (pixels[:length], starts, strides.int(), sizes, rows, 32, 32 + 8 * (kind == 3))
        try:
            check_rows(*arguments)
            refused.append(False)
        except ValueError:
            refused.append(True)
        assert rows_fit(*arguments) is not refused[-1]
    assert 0.2 < np.mean(refused) < 0.9
