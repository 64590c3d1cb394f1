"""The oracle against torchvision's own functions and Pillow, operation by operation and chained."""

import importlib.util
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from fastaugself_kernels import ViewPolicy, augment, reference, sample_params
from fastaugself_kernels.params import P


@pytest.fixture(scope="session")
def tv():
    """torchvision's functions on tensors, loaded as a file: its compiled part does not load beside a CPU build."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        pytest.skip("torchvision is not installed: pip install --no-deps torchvision==0.28.0")
    path = spec.origin.replace("__init__.py", "transforms/_functional_tensor.py")
    file = importlib.util.spec_from_file_location("torchvision_functional_tensor", path)
    module = importlib.util.module_from_spec(file)
    file.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def photos():
    """Real photos as uint8 HWC, one of them of odd size, and the extremes: black, white, pure colours, noise."""
    from skimage import data

    random = np.random.default_rng(0)
    extremes = np.zeros((31, 45, 3), np.uint8)
    extremes[:, 9:18], extremes[:, 18:27, 0], extremes[:, 27:36, 1], extremes[:, 36:, 2] = 255, 255, 255, 255
    noise = random.integers(0, 256, (63, 100, 3), dtype=np.uint8)
    images = [data.astronaut()[:201, :307], data.chelsea()[40:251, 20:400], extremes, noise]
    return [torch.from_numpy(np.ascontiguousarray(image)) for image in images]


def chw(image):
    return image.permute(2, 0, 1).float() / 255


FACTORS = (0.0, 0.3, 0.6, 1.0, 1.4, 3.0)


@pytest.mark.parametrize("name", ["adjust_brightness", "adjust_contrast", "adjust_saturation"])
def test_blends_equal_torchvisions(name, tv, photos):
    for image, factor in itertools.product(photos, FACTORS):
        x = chw(image)
        expected = getattr(tv, name)(x, factor)
        assert (getattr(reference, name)(x, factor) - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.0, 0.03, 0.1, 0.5])
def test_hue_equals_torchvisions(turns, tv, photos):
    for image in photos:
        x = chw(image)
        assert (reference.adjust_hue(x, turns) - tv.adjust_hue(x, turns)).abs().max() <= 1e-5


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_gray_and_solarize_equal_torchvisions(threshold, tv, photos):
    for image in photos:
        x = chw(image)
        assert (reference.grayscale(x) - tv.rgb_to_grayscale(x)).abs().max() <= 1e-6
        assert torch.equal(reference.solarize(x, threshold), tv.solarize(x, threshold))


@pytest.mark.parametrize(("kernel", "sigma"), [(5, 0.1), (9, 0.7), (23, 2.0), (23, 0.1), (3, 5.0)])
def test_blur_equals_torchvisions(kernel, sigma, tv, photos):
    for image in photos:
        x = chw(image)
        expected = tv.gaussian_blur(x, [kernel, kernel], [sigma, sigma])
        assert (reference.gaussian_blur(x, sigma, kernel) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (224, 224), (17, 61), (300, 20)])
def test_resize_equals_torchvisions(size, antialias, tv, photos):
    for image in photos:
        box = (3, 5, image.shape[0] - 7, image.shape[1] - 6)
        crop = chw(image)[:, 3 : 3 + box[2], 5 : 5 + box[3]]
        expected = tv.resize(crop, list(size), interpolation="bilinear", antialias=antialias)
        got = reference.resize_crop(image, box, size, antialias=antialias, rounding=False)
        assert (got - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("size", [(32, 32), (96, 96), (224, 224)])
def test_rounded_resize_is_pillows_within_its_two_roundings(size, photos):
    for image in photos:
        box = (3, 5, image.shape[0] - 7, image.shape[1] - 6)
        got = reference.resize_crop(image, box, size, antialias=True, rounding=True) * 255
        crop = Image.fromarray(image.numpy()).crop((5, 3, 5 + box[3], 3 + box[2]))
        pillow = torch.from_numpy(np.array(crop.resize(size[::-1], Image.Resampling.BILINEAR))).permute(2, 0, 1)
        assert torch.equal(got, got.round())
        assert (got - pillow).abs().max() <= 1.001  # Pillow rounds between its two passes as well


def test_a_chain_of_everything_equals_torchvisions(tv, photos):
    policy = ViewPolicy(size=40, rotation=0.5, jitter=1.0, gray=0.3, blur=0.7, solarize=0.4)
    image = photos[1]
    sizes = torch.tensor([image.shape[:2]] * 40, dtype=torch.int32)
    params = sample_params(torch.arange(40), sizes, (policy,), seed=5, epoch=2)
    options = dict(size=40, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), rounding="none", blur_kernel=9)
    batch = image[None].expand(40, -1, -1, -1).contiguous()
    got = augment(batch, None, sizes, params, backend="reference", **options)[0]
    ops = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    flips = 0
    for b, row in enumerate(params[0].tolist()):
        top, left, height, width = map(int, row[:4])
        x = chw(image)[:, top : top + height, left : left + width]
        x = tv.resize(x, [40, 40], interpolation="bilinear", antialias=True)
        x = torch.rot90(x, int(row[5]), (1, 2))
        x = tv.hflip(x) if row[4] else x
        for k in range(4):
            op = (int(row[7]) >> (2 * k)) & 3
            x = ops[op](x, row[8 + op])
        x = tv.rgb_to_grayscale(x, 3) if row[12] else x
        x = tv.gaussian_blur(x, [9, 9], [row[13], row[13]]) if row[13] > 0 else x
        smooth = x
        x = tv.solarize(x, row[14]) if row[14] <= 1 else x
        error = (got[b] - x).abs()
        near = (smooth - row[14]).abs() < 1e-4  # the threshold's side is a matter of an ulp
        flips += int(near.sum())
        assert error[~near].max() <= 1e-4
    assert flips < 100


def test_solarize_before_gray_is_another_picture(photos):
    row = torch.zeros(1, 1, P)
    row[0, 0, :4] = torch.tensor([0.0, 0.0, 31.0, 45.0])
    row[0, 0, 8:11], row[0, 0, 12], row[0, 0, 14] = 1.0, 1.0, 0.5
    options = dict(size=24, backend="reference", mean=(0, 0, 0), std=(1, 1, 1), rounding="none", blur_kernel=3)
    sizes = torch.tensor([[31, 45]])
    after, before = (
        augment(photos[2][None], None, sizes, row, solarize_before_gray=first, **options) for first in (False, True)
    )
    x = reference.resize_crop(photos[2], (0, 0, 31, 45), (24, 24), antialias=True, rounding=False)
    gray = reference.grayscale(x)
    torch.testing.assert_close(after[0, 0], reference.solarize(gray, 0.5).expand(3, -1, -1))
    torch.testing.assert_close(before[0, 0], reference.grayscale(reference.solarize(x, 0.5)).expand(3, -1, -1))


def test_color_shift_is_the_mean_before_minus_after_the_jitter(photos):
    image = photos[0]
    sizes = torch.tensor([image.shape[:2]] * 30, dtype=torch.int32)
    params = sample_params(torch.arange(30), sizes, (ViewPolicy(size=24),), seed=0, epoch=0)
    plain = params.clone()
    plain[..., 6], plain[..., 12], plain[..., 13] = 0, 0, 0
    jitter_only = params.clone()
    jitter_only[..., 12], jitter_only[..., 13] = 0, 0
    options = dict(size=24, backend="reference", mean=(0, 0, 0), std=(1, 1, 1), blur_kernel=3)
    batch = image[None].expand(30, -1, -1, -1).contiguous()
    _, shift = augment(batch, None, sizes, params, color_shift=True, **options)
    before, after = (augment(batch, None, sizes, rows, **options).mean((3, 4)) for rows in (plain, jitter_only))
    torch.testing.assert_close(shift, before - after, atol=1e-6, rtol=0)
    assert (shift[params[..., 6] == 0] == 0).all() and (params[..., 6] == 0).any()
