"""A recipe file is loaded with its presets, and no run starts."""

import sys

import pytest

from fastaugself.cli.recipe_file import open_recipe
from fastaugself.errors import UsageError

RECIPE = """
from recipe_neighbour import LR
from fastaugself import Optim, Pretrain, run

def recipe():
    return Pretrain(optim=Optim(lr=LR))

def short():
    return Pretrain(epochs=1)

if __name__ == "__main__":
    run(recipe, short=short)
"""


def test_a_recipe_is_loaded_with_its_presets_and_its_neighbours(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    main_module = sys.modules["__main__"]
    (tmp_path / "recipe_neighbour.py").write_text("LR = 0.25")
    (tmp_path / "mine.py").write_text(RECIPE)
    loaded = open_recipe(tmp_path / "mine.py")
    assert loaded.recipe().optim.lr == 0.25 and {name: f().epochs for name, f in loaded.presets.items()} == {"short": 1}
    assert sys.modules["__main__"] is main_module
    del sys.modules["recipe_neighbour"]


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no such recipe"), ("1 / 0", "ZeroDivisionError"), ("print", "does not call fastaugself.run")],
    ids=["missing", "raises", "no run"],
)
def test_another_file_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "other.py").write_text(text)
    main_module = sys.modules["__main__"]
    with pytest.raises(UsageError, match=message):
        open_recipe(tmp_path / "other.py")
    assert sys.modules["__main__"] is main_module
