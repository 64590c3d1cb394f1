"""The encoder as Python users have it: a module with its transform, and features of images of any kind."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastaugself import load_encoder
from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation.pixels import prepare


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("random:resnet18", device="cpu", size=32)


def images(count=5):
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*random.integers(20, 60, 2), 3), dtype=np.uint8) for _ in range(count)]


def test_it_is_a_module_whose_features_are_those_of_its_backbone(encoder):
    assert (
        encoder.num_features == 512
        and not encoder.training
        and repr(encoder) == ("Encoder('random-resnet18', 'random:resnet18', size=32)")
    )
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    x = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(x), encoder.module(x), rtol=0, atol=0)


def test_the_transform_is_that_of_evaluation(encoder):
    image = images(1)[0]
    expected = torch.from_numpy(prepare(Image.fromarray(image), 32, 32).copy()).permute(2, 0, 1).float() / 255
    expected = (expected - torch.tensor(encoder.mean)[:, None, None]) / torch.tensor(encoder.std)[:, None, None]
    torch.testing.assert_close(encoder.transform(image), expected)


def test_features_of_images_of_every_kind(encoder, tmp_path):
    arrays = images()
    with torch.inference_mode():
        expected = encoder.module(torch.stack([encoder.transform(x) for x in arrays]))
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{i}.png")
    kinds = (
        arrays, [Image.fromarray(x) for x in arrays], [torch.from_numpy(x) for x in arrays],
        [torch.from_numpy(x).permute(2, 0, 1) for x in arrays], sorted(tmp_path.glob("*.png")),
        (str(path) for path in sorted(tmp_path.glob("*.png"))), torch.stack([encoder.transform(x) for x in arrays]),
    )  # fmt: skip
    for kind in kinds:
        found = encoder.embed(kind, batch_size=2)
        assert found.dtype == torch.float32 and found.shape == (5, 512)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert encoder.embed([]).shape == (0, 512)
    grey = arrays[0][..., 0]
    torch.testing.assert_close(encoder.embed([grey]), encoder.embed([np.repeat(grey[..., None], 3, 2)]))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [("photo.jpg", UsageError, r"takes several images, got one str: pass \[image\]"),
     ([3], UsageError, "an image must be a path, a PIL image, an array or a tensor, got int"),
     ([np.zeros((4, 4, 3))], UsageError, r"must be uint8 \[H, W, 3\] or \[H, W\], got float64 \[4, 4, 3\]"),
     ([np.zeros((4, 4, 2), np.uint8)], UsageError, "must be uint8"),
     (torch.zeros(3, 8, 8), UsageError, r"normalised images must be \[N, 3, H, W\], got \[3, 8, 8\]"),
     (3, UsageError, "embed takes images, got int"),
     (["nothing.jpg"], RunError, "nothing.jpg cannot be read")],
)  # fmt: skip
def test_what_is_no_image_is_named(wrong, error, message, encoder):
    with pytest.raises(error, match=message):
        encoder.embed(wrong)
