"""The saturation of HSV: the oracle against kornia's definition in float64, numba against the oracle.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns.
"""

import importlib.util
import itertools

import numpy as np
import pytest
import torch

from fastaugself_kernels import COLUMNS, AugmentViews, RaggedBatch, ViewPolicy, augment, reference, sample_params

FACTORS = (0.0, 0.6, 1.0, 1.4, 3.0)
ULP = 2**-23  # of 1
EXACT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "rounding": "none"}
COLUMN = {name: i for i, name in enumerate(COLUMNS)}
LUMA = np.array([0.2989, 0.587, 0.114])
ORDERS = [sum(op << (2 * i) for i, op in enumerate(order)) for order in itertools.permutations(range(4))]
BACKENDS = [
    "reference",
    pytest.param("numba", marks=pytest.mark.skipif(not importlib.util.find_spec("numba"), reason="needs numba")),
]


def through_hsv(x_CHW: np.ndarray, factor: float = 1.0, turns: float = 0.0) -> np.ndarray:
    """kornia 0.4.1's saturation and hue in float64: RGB to (H, S, V), S * factor clamped, H turned, and back.

    H is in sixths of a turn; V (1 - S) and two values between it and V are the other channels of each of six sectors.
    """
    r, g, b = x_CHW
    v, low = x_CHW.max(0), x_CHW.min(0)
    delta = v - low
    safe = np.where(delta == 0, 1, delta)
    h = np.select([v == r, v == g], [(g - b) / safe, 2 + (b - r) / safe], 4 + (r - g) / safe)
    s = np.clip(delta / np.where(v == 0, 1, v) * factor, 0, 1)
    h = (h + 6 * turns) % 6
    sector, f = np.floor(h).astype(int) % 6, h - np.floor(h)
    p, q, t = v * (1 - s), v * (1 - f * s), v * (1 - (1 - f) * s)
    return np.stack([np.choose(sector, c) for c in ((v, q, p, p, t, v), (t, v, v, q, p, p), (p, p, t, v, v, q))])


def jitter(
    x_CHW: np.ndarray, order: int, brightness: float, contrast: float, factor: float, turns: float
) -> np.ndarray:
    """The four operations in float64, in the order of the four 2-bit ids."""
    for i in range(4):
        op = (order >> (2 * i)) & 3
        if op == 0:
            x_CHW = np.clip(brightness * x_CHW, 0, 1)
        elif op == 1:
            mean = np.tensordot(LUMA, x_CHW, 1).mean()
            x_CHW = np.clip(contrast * x_CHW + (1 - contrast) * mean, 0, 1)
        else:
            x_CHW = through_hsv(x_CHW, factor if op == 2 else 1.0, turns if op == 3 else 0.0)
    return x_CHW


def palette() -> np.ndarray:
    """uint8 [21, 45, 3]: black, white, grays, pure and pale colours, two equal channels, and noise."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (21, 45, 3), dtype=np.uint8)
    corners = np.array(list(itertools.product((0, 255), repeat=3)), np.uint8)
    image[0, :40] = corners.repeat(5, 0)
    image[1:4] = np.arange(3 * 45, dtype=np.uint8).reshape(3, 45, 1)  # gray
    image[4] = [254, 255, 255]
    image[5] = [0, 0, 1]
    image[6] = [7, 7, 200]
    image[7] = [200, 7, 200]
    return image


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """uint8 HWC of odd sizes: photos and extremes."""
    from skimage import data

    return [data.astronaut()[:101, :177], data.chelsea()[40:131, 20:333], palette()]


def chw(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("factor", FACTORS)
def test_the_oracle_is_kornias_definition(factor, images):
    for image in images:
        x = chw(image)
        got, expected = reference.adjust_saturation_hsv(x, factor), through_hsv(x.double().numpy(), factor)
        assert (got - torch.from_numpy(expected)).abs().max() <= 2e-6
        assert (got.amax(0) - x.amax(0)).abs().max() <= ULP and got.min() >= 0  # V stays, S is at most 1
        if factor == 1:
            assert torch.equal(got, x)
        else:
            assert (got - reference.adjust_saturation(x, factor)).abs().max() > 0.05


def test_gray_pixels_stay_and_saturated_ones_saturate_no_further():
    gray = torch.arange(256).float().div(255).expand(3, 1, 256)
    pure = chw(np.array([[[255, 0, 0], [9, 9, 0], [0, 200, 100]]], np.uint8))
    for factor in FACTORS:
        assert torch.equal(reference.adjust_saturation_hsv(gray, factor), gray)
    assert (reference.adjust_saturation_hsv(pure, 3.0) - pure).abs().max() <= 1e-7
    # Without saturation a pixel is its V in all channels, not its luma.
    for factor in (0.0, -1.0):
        assert (reference.adjust_saturation_hsv(pure, factor) - pure.amax(0)).abs().max() <= ULP


def whole(image: np.ndarray, rows: int, **columns: float) -> tuple[torch.Tensor, None, torch.Tensor, torch.Tensor]:
    """`rows` times the image, unmoved and jittered as the columns say: the source of `augment`, V = 1."""
    H, W, _ = image.shape
    params = torch.zeros(1, rows, len(COLUMNS))
    params[..., 2], params[..., 3], params[..., COLUMN["solarize"]] = H, W, 2
    for name, value in {"jitter": 1, "order": 0b11100100, "brightness": 1, "contrast": 1, **columns}.items():
        params[..., COLUMN[name]] = value
    pixels = torch.from_numpy(np.ascontiguousarray(image))[None].expand(rows, -1, -1, -1).contiguous()
    return pixels, None, torch.tensor([[H, W]] * rows), params


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("factor", FACTORS)
def test_all_orders_and_the_colour_shift_equal_the_formula(factor, backend, images):
    """Without resizing, so that only the colours are computed."""
    for image, turns in zip(images, (0.5, -0.1, 0.03), strict=True):
        factors = {"brightness": 1.4, "contrast": 0.6, "saturation": factor, "hue": turns}
        source = whole(image, 24, **factors)
        source[3][0, :, COLUMN["order"]] = torch.tensor(ORDERS, dtype=torch.float32)
        options = dict(size=image.shape[:2], blur_kernel=3, backend=backend, color_shift=True, **EXACT)
        views, shift = augment(*source, saturation="hsv", **options)
        x = chw(image).double().numpy()
        expected = np.stack([jitter(x, order, *factors.values()) for order in ORDERS])
        shifts = x.mean((1, 2)) - expected.mean((2, 3))
        # Three steps that multiply turn an ulp into several.
        assert np.abs(views[0].double().numpy() - expected).max() <= 2e-5
        assert np.abs(shift[0].double().numpy() - shifts).max() <= 2e-6
        blend, blend_shift = augment(*source, **options)
        if factor != 1:
            assert (views - blend).abs().max() > 0.05 and (shift - blend_shift).abs().max() > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_factor_of_one_changes_nothing_and_gray_is_the_luma_in_both(backend, images):
    for image in images:
        options = dict(size=image.shape[:2], blur_kernel=3, backend=backend, **EXACT)
        x = chw(image)
        one = augment(*whole(image, 1, saturation=1), saturation="hsv", **options)[0, 0]
        assert (one - x).abs().max() <= 1e-6
        gray = [augment(*whole(image, 1, jitter=0, gray=1), saturation=mode, **options) for mode in ("blend", "hsv")]
        assert torch.equal(*gray)
        assert (gray[0][0, 0] - reference.grayscale(x)).abs().max() <= 1e-6


EVERYTHING = ViewPolicy(
    rotation=0.6, jitter=0.9, saturation=1.0, gray=0.3, blur=0.6, solarize=0.4, solarize_threshold=(0.1, 0.9)
)


@pytest.mark.parametrize("before", [True, False], ids=["solarize-first", "solarize-last"])
@pytest.mark.parametrize("size", [1, 7, 33, 64, 97])
def test_numba_equals_the_oracle_with_everything_else(size, before, images):
    pytest.importorskip("numba")
    lengths = np.array([image.size for image in images] * 3)
    pixels = torch.from_numpy(np.concatenate([image.reshape(-1) for image in images] * 3))
    offsets = torch.from_numpy(np.cumsum(lengths) - lengths)
    sizes = torch.tensor([image.shape[:2] for image in images] * 3)
    params = sample_params(torch.arange(9), sizes, (EVERYTHING,) * 2, seed=1, epoch=0)
    options = dict(size=size, blur_kernel=min(9, 2 * size - 1), solarize_before_gray=before, color_shift=True, **EXACT)
    source = (pixels, offsets, sizes, params)
    got, shift = augment(*source, backend="numba", saturation="hsv", **options)
    expected, expected_shift = augment(*source, backend="reference", saturation="hsv", **options)
    error, smooth = (got - expected).abs(), params[..., COLUMN["solarize"]] > 1
    assert error[smooth].max() <= 1e-5 and (error > 1e-5).float().mean() <= 1e-3
    assert (shift - expected_shift).abs().max() <= 1e-5
    assert (got - augment(*source, backend="numba", **options)[0]).abs().max() > 0.01


def test_the_module_passes_it_on_and_other_names_are_refused():
    image = torch.from_numpy(palette())
    batch = RaggedBatch(image.reshape(-1), torch.zeros(1, dtype=torch.int64), torch.tensor([[21, 45]]), torch.zeros(1))
    policies = (ViewPolicy(size=16, jitter=1.0),) * 2
    options = {"blur_kernel": 3, "backend": "reference"}
    params = sample_params(torch.tensor([0]), batch.sizes_B2, policies, seed=0, epoch=0)
    for mode in ("blend", "hsv"):
        views, _ = AugmentViews(policies, saturation=mode, **options)(batch, ids=[0], epoch=0)
        assert torch.equal(views, augment(*batch[:3], params, size=16, saturation=mode, **options))
    with pytest.raises(ValueError, match=r'saturation must be "blend" \(torchvision\) or "hsv" .*got \'HSV\''):
        augment(*batch[:3], params, size=16, saturation="HSV", **options)
