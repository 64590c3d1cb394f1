"""Fixtures that several test files share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory) -> Path:
    """Four classes of 16 real JPEG crops of odd sizes, from the photos inside scikit-image."""
    import numpy as np
    from PIL import Image

    data = pytest.importorskip("skimage.data")

    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        photo = getattr(data, name)()
        (folder / name).mkdir()
        for i in range(16):
            height, width = random.integers(33, 61, 2)
            y = int(random.integers(0, photo.shape[0] - 4 * height))
            x = int(random.integers(0, photo.shape[1] - 4 * width))
            crop = Image.fromarray(photo[y : y + 4 * height, x : x + 4 * width]).resize((int(width), int(height)))
            crop.save(folder / name / f"{i:02d}.jpg", quality=92)
    return folder


@pytest.fixture(scope="session")
def beton(photo_folder, tmp_path_factory) -> Path:
    """The photos of `photo_folder` as a `.beton` file of 64 samples."""
    from fastaugself.data.write import write_photos

    out = tmp_path_factory.mktemp("beton") / "photos.beton"
    write_photos(photo_folder, out, progress=False)
    return out


@pytest.fixture
def torchvision():
    """torchvision, whose compiled part does not load beside a CPU build of torch."""
    import torch

    if not hasattr(torch.ops.torchvision, "nms"):
        kept = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            kept.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return pytest.importorskip("torchvision")
