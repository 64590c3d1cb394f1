"""Fixtures that several test files share."""

import contextlib
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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
def photos(photo_folder):
    """12 JPEGs, three of each of four classes: (bytes, number of the class, its name)."""
    folders = sorted(photo_folder.iterdir())
    found = [
        (path.read_bytes(), i, folder.name) for i, folder in enumerate(folders) for path in sorted(folder.iterdir())
    ]
    return found[::5][:12]


@pytest.fixture(scope="session")
def beton(photo_folder, tmp_path_factory) -> Path:
    """The photos of `photo_folder` as a `.beton` file of 64 samples."""
    from fastaugself.data.inputs.convert import write_beton

    out = tmp_path_factory.mktemp("beton") / "photos.beton"
    write_beton(photo_folder, out, progress=False)
    return out


def installed_by_setup(name: str):
    """A package that set-up installs without its dependencies; in another environment its tests may be skipped."""
    return importlib.import_module(name) if Path(sys.prefix) == ROOT / ".venv" else pytest.importorskip(name)


@pytest.fixture(scope="session")
def torchvision():
    """torchvision, without what its compiled part defines: that does not load beside a CPU build of torch."""
    from fastaugself.models.beside import import_torchvision

    with contextlib.suppress(ImportError):
        import_torchvision()
    return installed_by_setup("torchvision")


@pytest.fixture(scope="session")
def lightly_loss(torchvision):
    """lightly's losses, which set-up does not install: pip install --no-deps lightly lightly_utils."""
    return pytest.importorskip("lightly.loss", reason="needs lightly", exc_type=ImportError)


@pytest.fixture(scope="session")
def timm(torchvision):
    return installed_by_setup("timm")
