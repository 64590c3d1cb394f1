"""Augmentation-aware pretraining of image encoders.

From a notebook or script: `pretrain(load_recipe("imagenet_moco_augself", preset="demo"))`, `open_run`, `load_encoder`,
`ViewLoader`, `write_beton`; the configuration's dataclasses are `Pretrain` and its parts. docs/python.md shows each.

Each public name is imported from its module when it is first used, so that `import fastaugself` takes no time and the
commands that need no torch start without it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastaugself_kernels import ViewPolicy as ViewPolicy

    from .aware.augself import AugSelf as AugSelf
    from .aware.care import CARE as CARE
    from .aware.cassle import CASSLE as CASSLE
    from .aware.equimod import EquiMod as EquiMod
    from .aware.essl import ESSL as ESSL
    from .aware.predictor import ConditionalPredictor as ConditionalPredictor
    from .aware.sen import SEN as SEN
    from .aware.seqjepa import SeqJEPA as SeqJEPA
    from .aware.ser import SER as SER
    from .aware.sie import SIE as SIE
    from .aware.stl import STL as STL
    from .cli.pretrain import run as run
    from .cli.recipe_file import list_recipes as list_recipes
    from .cli.recipe_file import load_recipe as load_recipe
    from .config.optim import Optim as Optim
    from .config.schema import Augment as Augment
    from .config.schema import Checkpoint as Checkpoint
    from .config.schema import Data as Data
    from .config.schema import Log as Log
    from .config.schema import Pretrain as Pretrain
    from .data.inputs.convert import write_beton as write_beton
    from .data.views import ViewLoader as ViewLoader
    from .errors import RunError as RunError
    from .errors import UsageError as UsageError
    from .evaluation.encoder import Encoder as Encoder
    from .evaluation.encoders import load_encoder as load_encoder
    from .methods.barlow import BarlowTwins as BarlowTwins
    from .methods.byol import BYOL as BYOL
    from .methods.dino import DINO as DINO
    from .methods.lejepa import LeJEPA as LeJEPA
    from .methods.moco import MoCo as MoCo
    from .methods.mocov3 import MoCoV3 as MoCoV3
    from .methods.nnclr import NNCLR as NNCLR
    from .methods.simclr import SimCLR as SimCLR
    from .methods.simsiam import SimSiam as SimSiam
    from .methods.supervised import Supervised as Supervised
    from .methods.swav import SwAV as SwAV
    from .methods.vicreg import VICReg as VICReg
    from .models.build import Backbone as Backbone
    from .pretraining import Run as Run
    from .pretraining import open_run as open_run
    from .pretraining import pretrain as pretrain
    from .training.callbacks import Callback as Callback

_MODULES = {
    "ViewPolicy": "fastaugself_kernels",
    "AugSelf": "fastaugself.aware.augself",
    "CARE": "fastaugself.aware.care",
    "CASSLE": "fastaugself.aware.cassle",
    "EquiMod": "fastaugself.aware.equimod",
    "ESSL": "fastaugself.aware.essl",
    "ConditionalPredictor": "fastaugself.aware.predictor",
    "SEN": "fastaugself.aware.sen",
    "SeqJEPA": "fastaugself.aware.seqjepa",
    "SER": "fastaugself.aware.ser",
    "SIE": "fastaugself.aware.sie",
    "STL": "fastaugself.aware.stl",
    "run": "fastaugself.cli.pretrain",
    **dict.fromkeys(("list_recipes", "load_recipe"), "fastaugself.cli.recipe_file"),
    "write_beton": "fastaugself.data.inputs.convert",
    "ViewLoader": "fastaugself.data.views",
    **dict.fromkeys(("RunError", "UsageError"), "fastaugself.errors"),
    "Encoder": "fastaugself.evaluation.encoder",
    "load_encoder": "fastaugself.evaluation.encoders",
    **dict.fromkeys(("Run", "open_run", "pretrain"), "fastaugself.pretraining"),
    "Callback": "fastaugself.training.callbacks",
    "Optim": "fastaugself.config.optim",
    **dict.fromkeys(("Augment", "Checkpoint", "Data", "Log", "Pretrain"), "fastaugself.config.schema"),
    "BarlowTwins": "fastaugself.methods.barlow",
    "BYOL": "fastaugself.methods.byol",
    "DINO": "fastaugself.methods.dino",
    "LeJEPA": "fastaugself.methods.lejepa",
    "MoCo": "fastaugself.methods.moco",
    "MoCoV3": "fastaugself.methods.mocov3",
    "NNCLR": "fastaugself.methods.nnclr",
    "SimCLR": "fastaugself.methods.simclr",
    "SimSiam": "fastaugself.methods.simsiam",
    "Supervised": "fastaugself.methods.supervised",
    "SwAV": "fastaugself.methods.swav",
    "VICReg": "fastaugself.methods.vicreg",
    "Backbone": "fastaugself.models.build",
}
__all__ = [*_MODULES, "__version__", "list_aware", "list_methods"]


def list_methods() -> tuple[str, ...]:
    """Names of the base methods, as in config.json; also those that `register` added."""
    from .methods import METHODS

    return tuple(METHODS)


def list_aware() -> tuple[str, ...]:
    """Names of everything that learns from augmentation parameters, as on the command line: objectives, and what
    conditions a part of the base method; also those that `register_aware` added."""
    from .aware import AWARE, CONDITIONS

    return (*AWARE, *CONDITIONS)


def __getattr__(name: str) -> Any:  # called for what is not there yet (PEP 562)
    if name == "__version__":
        from importlib.metadata import version

        return version("fastaugself")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
