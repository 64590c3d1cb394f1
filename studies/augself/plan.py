"""The study's variants (what is trained) and tasks (what is measured)."""

from dataclasses import dataclass
from pathlib import Path

PARTS = {  # the suffix of the recipe's preset
    "base": "",
    "augself": "-augself",
    "cassle": "-cassle",
    "augself+cassle": "-augself-cassle",
}
ALONE = "augself alone"  # control: AugSelf's loss without the base method
RANDOM = "random weights"
INVARIANCES = {  # Ericsson 2021 (arXiv 2111.11398): fewer augmentations, so fewer learned invariances
    "ventral": ("--view.jitter", "0", "--view.gray", "0", "--view.blur", "0"),
    "dorsal": ("--view.scale", "1", "1", "--view.ratio", "1", "1", "--view.flip", "0"),
}
FUSED = "default + ventral + dorsal"


@dataclass(frozen=True)
class Variant:
    """A row of the study's table: a base method and its variant. options: those of the recipe for this variant."""

    method: str
    part: str
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the variant in folders and tables."""
        return f"{self.method}-{self.part}".replace(" ", "-").replace("+", "-")


@dataclass(frozen=True)
class Task:
    """A column of the study's table: a command of `fastaugself eval` on a folder of the study's data.

    metric: a description for the page. read: path of keys to the value in a row of the result. percent: whether the
    value is a fraction that is shown in percent.
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
    Task(PRETRAIN, ("linear",), PRETRAIN, "the data set of the pretraining: top-1 of a linear probe, %", percent=True),
    Task("crop", ("parameters",), PRETRAIN, "crop position and scale: R2", ("details", "groups", "crop")),
    Task("jitter", ("parameters",), PRETRAIN, "jitter strength: R2", ("details", "groups", "color")),
)
FUSION_TASKS = tuple(task for task in TASKS if task.command[0] == "linear")


def variants(methods: tuple[str, ...], parts: tuple[str, ...], invariances: bool) -> list[Variant]:
    """Variants to train: each part of each method, AugSelf alone once, ventral and dorsal of the first method."""
    found = []
    for method in methods:
        for part in parts:
            if part in PARTS:
                found.append(Variant(method, part, ("--preset", method + PARTS[part])))
    if ALONE in parts:
        # The loss of the preset's base method is not used; the preset only decides which heads there are.
        found.append(Variant("none", ALONE, ("--preset", methods[0] + "-augself", "--augself-only")))
    if invariances:
        found += [Variant(methods[0], name, ("--preset", methods[0], *o)) for name, o in INVARIANCES.items()]
    return found


def default_recipe() -> Path:
    """The recipe that every run trains: recipes/study.py of this checkout."""
    return Path(__file__).resolve().parents[2] / "recipes" / "study.py"
