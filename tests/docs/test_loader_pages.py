"""The pages on other people's loaders: their Python runs, with the library of the page and with a stand-in for it.

The stand-ins hold the hooks everywhere; with the library itself a page runs where it is installed.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import other_loaders
import pytest
import torch
from PIL import Image

from fastaugself_kernels import AugmentViews, RaggedBatch

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
INSTALL = {
    "lightning": "pip install --no-deps lightning lightning-utilities torchmetrics",
    "lightly": "pip install --no-deps lightly",
    "datasets": "pip install datasets",
    "ffcv": "make setup",
}


def blocks(page):
    found = re.findall(r"^```py\n(.*?)^```", (PAGES / page).read_text(encoding="utf-8"), re.M | re.S)
    assert found, page
    return found


def pictures(count=32):
    random = np.random.default_rng(0)
    return [
        (Image.fromarray(random.integers(0, 256, (*random.integers(30, 60, 2), 3), dtype=np.uint8)), i % 2)
        for i in range(count)
    ]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder `photos` of two classes in the working directory, with images of many sizes."""
    monkeypatch.chdir(tmp_path)
    for i, (image, label) in enumerate(pictures()):
        file = tmp_path / "photos" / f"class{label}" / f"{i:02d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)
    return tmp_path / "photos"


@pytest.fixture(params=["stand-in", "library"])
def library(request, monkeypatch):
    """Puts a library's stand-in, or itself, where the page imports it."""

    def provide(name):
        if request.param == "library":
            if importlib.util.find_spec(name) is None:
                pytest.skip(f"needs {name}: {INSTALL[name]}")
            request.getfixturevalue("torchvision")  # which these libraries import
            return
        for loaded in [module for module in sys.modules if module.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)
        for module, content in getattr(other_loaders, name)().items():
            monkeypatch.setitem(sys.modules, module, content)

    return provide


@pytest.fixture
def calls(monkeypatch):
    """Of `AugmentViews` in what the page runs: (module, batch, epoch, parameters)."""
    seen, forward = [], AugmentViews.forward

    def noted(self, images, ids=None, epoch=None):
        views = forward(self, images, ids, epoch)
        seen.append((self, images, self.epoch, views[1]))
        return views

    monkeypatch.setattr(AugmentViews, "forward", noted)
    return seen


def run(page, **scope):
    scope["__name__"] = "page"
    for block in blocks(page):
        exec(compile(block, page, "exec"), scope)
    return scope


def assert_two_epochs(calls, count):
    """Every image was seen once in each of two epochs, by its id, with views of its own."""
    ids = [torch.cat([batch.ids_B for _, batch, at, _ in calls if at == epoch]) for epoch in (0, 1)]
    assert all(seen.sort().values.tolist() == list(range(count)) for seen in ids)
    rows = [torch.cat([params for *_, at, params in calls if at == epoch], 1) for epoch in (0, 1)]
    rows = [params[:, seen.argsort()] for params, seen in zip(rows, ids, strict=True)]
    assert not (rows[0] == rows[1]).all(-1).any()


@pytest.mark.filterwarnings("ignore::UserWarning")  # on few workers, and the like
def test_lightning(library, calls):
    library("lightning")
    scope = run("lightning.md", dataset=pictures())
    assert all(isinstance(batch, RaggedBatch) for _, batch, *_ in calls)
    assert_two_epochs([call for call in calls if call[2] is not None], 32)
    assert torch.isfinite(scope["trainer"].callback_metrics["loss"])


def test_lightly(library, calls, photos):
    library("lightly")
    scope = run("lightly.md")
    assert_two_epochs(calls, 32)
    assert scope["loss"].isfinite() and scope["first"].shape == (16, 3, 32, 32)
    names = scope["loader"].dataset.get_filenames()
    assert [names[id] for id in (0, 31)] == ["class0/00.jpg", "class1/31.jpg"]


def test_hugging_face(library, calls, photos, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    library("datasets")
    scope = run("hugging-face.md")
    assert_two_epochs([call for call in calls if call[2] is not None][:4], 32)
    assert scope["batch"].labels_B.tolist() == [0] * 16 and scope["batch"].ids_B.tolist() == [*range(16)]
    assert len(calls) == 6  # and one batch of either format
    (_, transformed, *_), (_, tensors, *_) = calls[-2:]
    assert torch.equal(transformed.pixels, tensors.pixels) and torch.equal(transformed.sizes_B2, tensors.sizes_B2)


def test_an_ffcv_loader_stand_in(calls, monkeypatch):
    for module, content in other_loaders.ffcv().items():
        monkeypatch.setitem(sys.modules, module, content)
    scope = run("ffcv-loader.md")
    assert [epoch for _, _, epoch, _ in calls] == [0] * 4 + [1] * 4
    assert scope["first"].shape == (16, 3, 96, 96)
    rows = torch.cat([params for *_, params in calls], 1)
    assert len(rows[0].unique(dim=0)) == 16 * 8  # no image has the views of another


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason=f"needs ffcv: {INSTALL['ffcv']}")
def test_an_ffcv_loader(beton, tmp_path):
    """In a process of its own, because FFCV sets the threads of torch and numba."""
    (tmp_path / "train.beton").symlink_to(beton)
    code = "\n".join(blocks("ffcv-loader.md")) + "\nassert first.shape == second.shape == (16, 3, 96, 96)"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_every_page_on_a_loader_is_run_here_or_by_the_test_of_all_pages():
    mine = set(re.findall(r'(?:run|blocks)\("([\w-]+\.md)"', Path(__file__).read_text(encoding="utf-8")))
    for page in PAGES.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        if "fastaugself_kernels import" in text and "```py\n" in text:
            assert page.name in mine or page.name == "other-trainers.md", page.name  # tests/docs/test_readme.py
