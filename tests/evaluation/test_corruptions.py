"""Corruptions: the same in every order, those of the package, and the published formulas where they are short."""

import colorsys
import importlib.metadata
import io

import numpy as np
import pytest
from PIL import Image

from fastaugself.data.parallel import ordered_map
from fastaugself.errors import UsageError
from fastaugself.evaluation import corruptions
from fastaugself.evaluation.corruptions import Corrupted, check_names, corrupt
from fastaugself.evaluation.splits import Arrays
from fastaugself.probes.robustness import CORRUPTIONS

RANDOM = [
    name
    for name in CORRUPTIONS
    if name not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
]


@pytest.fixture(scope="module")
def pixels():
    """A smooth picture with some noise, 37 x 41."""
    y, x = np.mgrid[:37, :41]
    base = np.stack([x * 6, y * 6, 255 - x * 3 - y * 2], -1).clip(0, 255)
    return (0.9 * base + np.random.default_rng(0).integers(0, 25, base.shape)).astype(np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_depends_on_its_address_alone(name, pixels):
    state = np.random.get_state()[1].copy()
    jobs = [(severity, seed) for severity in (1, 5) for seed in (0, 1)] * 3
    alone = [corrupt(pixels, name, severity, seed=seed) for severity, seed in jobs]
    assert np.array_equal(np.random.get_state()[1], state)  # the global generator is as it was
    np.random.random(5)

    def at_once(job):
        return corrupt(pixels, name, job[0], seed=job[1])

    threads = list(ordered_map(at_once, jobs[::-1], workers=4, ahead=12))[::-1]
    for a, b in zip(alone, threads, strict=True):
        assert np.array_equal(a, b) and a.shape == pixels.shape and a.dtype == np.uint8
    assert not np.array_equal(alone[0], alone[2])  # severities differ
    assert (name in RANDOM) != np.array_equal(alone[0], alone[1])  # and seeds, where anything is drawn
    assert not np.array_equal(alone[0], pixels)


def drawn(pixels, name, severity, seed):
    """The seed of the package's generator, written out again."""
    import hashlib

    text = f"{seed} {name} {severity} {pixels.shape}".encode()
    return np.frombuffer(hashlib.blake2b(text + pixels.tobytes(), digest_size=16).digest(), np.uint32)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_are_those_of_the_package(name, pixels):
    import imagecorruptions

    for severity in (1, 3, 5):
        words = drawn(pixels, name, severity, 7)
        own = {"seed": int(words[0] >> 1)} if name in ("impulse_noise", "glass_blur") else {}
        np.random.seed(words)
        expected = imagecorruptions.corrupt(pixels, corruption_name=name, severity=severity, **own)
        assert np.array_equal(corrupt(pixels, name, severity, seed=7), expected)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_short_formulas_of_the_paper(severity, pixels):
    """Gaussian and shot noise, contrast, brightness, pixelate and JPEG, with the published constants."""
    x = pixels / 255
    place = severity - 1

    def same(name, expected, off=0):
        difference = np.abs(corrupt(pixels, name, severity, seed=3).astype(int) - expected.astype(int))
        assert difference.max() <= off, name

    random = np.random.RandomState(drawn(pixels, "gaussian_noise", severity, 3))
    scale = (0.08, 0.12, 0.18, 0.26, 0.38)[place]
    same("gaussian_noise", ((x + random.normal(size=x.shape, scale=scale)).clip(0, 1) * 255).astype(np.uint8))
    random = np.random.RandomState(drawn(pixels, "shot_noise", severity, 3))
    photons = (60, 25, 12, 5, 3)[place]
    same("shot_noise", ((random.poisson(x * photons) / photons).clip(0, 1) * 255).astype(np.uint8))
    mean = x.mean((0, 1))
    same("contrast", (((x - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[place] + mean).clip(0, 1) * 255).astype(np.uint8))
    lift = (0.1, 0.2, 0.3, 0.4, 0.5)[place]
    bright = [
        [colorsys.hsv_to_rgb(h, s, min(1, v + lift)) for h, s, v in (colorsys.rgb_to_hsv(*p) for p in row)] for row in x
    ]
    same("brightness", (np.array(bright) * 255).astype(np.uint8), off=1)  # where both round at a whole number
    image, share = Image.fromarray(pixels), (0.6, 0.5, 0.4, 0.3, 0.25)[place]
    small = image.resize((int(41 * share), int(37 * share)), Image.Resampling.BOX)
    same("pixelate", np.asarray(small.resize((41, 37), Image.Resampling.NEAREST)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=(25, 18, 15, 10, 7)[place])
    same("jpeg_compression", np.asarray(Image.open(file)))


def test_impulse_noise_hits_its_share_of_the_values():
    gray = np.full((100, 100, 3), 128, np.uint8)
    for severity, share in zip((1, 2, 3, 4, 5), (0.03, 0.06, 0.09, 0.17, 0.27), strict=True):
        hit = np.isin(corrupt(gray, "impulse_noise", severity, seed=0), (0, 255)).mean()
        assert hit == pytest.approx(share, abs=4 * (share / 30_000) ** 0.5)


def test_corrupted_photos_are_cropped_corrupted_and_saved_like_imagenet_c(pixels, monkeypatch):
    images = Arrays(np.stack([pixels, pixels[::-1]]))
    made = Corrupted(images, "fog", 2, 5, 32, 36)
    file = io.BytesIO()
    crop = images.open(1).resize((39, 36), Image.Resampling.BICUBIC).crop((4, 2, 36, 34))
    Image.fromarray(corrupt(np.asarray(crop), "fog", 2, seed=5)).save(file, "JPEG", quality=85)
    assert np.array_equal(np.asarray(made.open(1)), np.asarray(Image.open(file)))
    assert len(made) == 2 and made.open(0).size == (32, 32)
    kept = {}
    keeping = Corrupted(images, "fog", 2, 5, 32, 36, "bicubic", kept)
    first = np.asarray(keeping.open(1))
    monkeypatch.setattr(corruptions, "corrupt", None)  # not called again
    assert list(kept) == [1] and np.array_equal(np.asarray(keeping.open(1)), first)
    assert np.array_equal(first, np.asarray(Image.open(file))) and keeping.digest(None) == made.digest(None)
    others = [
        ("snow", 2, 5, 32, 36),
        ("fog", 3, 5, 32, 36),
        ("fog", 2, 6, 32, 36),
        ("fog", 2, 5, 34, 36),
        ("fog", 2, 5, 32, 37),
    ]
    digests = {made.digest(None), *(Corrupted(images, *options).digest(None) for options in others)}
    digests |= {Corrupted(Arrays(pixels[None]), "fog", 2, 5, 32, 36).digest(None)}
    assert len(digests) == 7 and made.digest(None) == Corrupted(images, "fog", 2, 5, 32, 36).digest(None)


def test_an_unknown_corruption_is_refused_and_all_is_all():
    assert check_names(("all",)) == CORRUPTIONS and check_names(("fog", "fog")) == ("fog",) and check_names(()) == ()
    with pytest.raises(UsageError, match="unknown corruption mist: pass --corruptions all, or some of gaussian_noise"):
        check_names(("fog", "mist"))


def test_a_missing_package_is_told_with_what_to_install(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    corruptions.package.cache_clear()
    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(UsageError, match=r"pip install 'fastaugself\[robustness\]' && pip install --no-deps imagecorr"):
        corruptions.package()
