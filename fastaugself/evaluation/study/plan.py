"""What the study trains and measures."""

from dataclasses import dataclass
from pathlib import Path

PARTS = {  # of the recipe's presets, and further options
    "base": "",
    "augself": "-augself",
    "cassle": "-cassle",
    "augself+cassle": "-augself-cassle",
}
ALONE = "augself alone"  # its loss without the base method: what the loss does by itself
RANDOM = "random weights"
INVARIANCES = {  # Ericsson 2021 (arXiv 2111.11398): which augmentations the base method learns to ignore
    "ventral": ("--view.jitter", "0", "--view.gray", "0", "--view.blur", "0"),
    "dorsal": ("--view.scale", "1", "1", "--view.ratio", "1", "1", "--view.flip", "0"),
}
FUSED = "default + ventral + dorsal"


@dataclass(frozen=True)
class Variant:
    """One row of the study: a method and what is done to it. options: of the recipe, beside those of every run."""

    method: str
    part: str
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        """For folders and tables."""
        return f"{self.method}-{self.part}".replace(" ", "-").replace("+", "-")


@dataclass(frozen=True)
class Task:
    """One column: a command of `fastaugself eval` on a folder of the study's data.

    higher: whether more is better. metric: in words. read: where the number stands in a row of the result.
    """

    name: str
    command: tuple[str, ...]
    data: str
    metric: str
    read: tuple[str, ...] = ("value",)
    percent: bool = False


PRETRAIN = "imagenette128"
TASKS = (
    Task("produce50", ("linear", "--resplit"), "produce50", "colour: top-1 of a linear probe, %", percent=True),
    Task("signdigits10", ("linear",), "signdigits10", "shape: top-1 of a linear probe, %", percent=True),
    Task("omniglot8", ("linear",), "omniglot8", "shape: top-1 of a linear probe, %", percent=True),
    Task(PRETRAIN, ("linear",), PRETRAIN, "the photos of the pretraining: top-1 of a linear probe, %", percent=True),
    Task("crop", ("parameters",), PRETRAIN, "crop position and scale: R2", ("details", "groups", "crop")),
    Task("jitter", ("parameters",), PRETRAIN, "jitter strength: R2", ("details", "groups", "color")),
)
FUSION_TASKS = tuple(task for task in TASKS if task.command[0] == "linear")


def variants(methods: tuple[str, ...], parts: tuple[str, ...], invariances: bool) -> list[Variant]:
    """Everything that is trained: each method with each part, AugSelf alone once, and the invariances of the first."""
    found = []
    for method in methods:
        for part in parts:
            if part in PARTS:
                found.append(Variant(method, part, ("--preset", method + PARTS[part])))
    if ALONE in parts:
        # The base method of the preset takes no part; it only says which heads there are.
        found.append(Variant("none", ALONE, ("--preset", methods[0] + "-augself", "--augself-only")))
    if invariances:
        found += [Variant(methods[0], name, ("--preset", methods[0], *o)) for name, o in INVARIANCES.items()]
    return found


def default_recipe() -> Path:
    """The study's recipe in the checkout that this package runs from."""
    return Path(__file__).parents[3] / "recipes" / "study.py"
