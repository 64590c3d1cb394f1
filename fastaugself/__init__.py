"""Augmentation-aware pretraining of image encoders."""

from fastaugself_kernels import ViewPolicy as ViewPolicy

from .config import Augment as Augment
from .config import Checkpoint as Checkpoint
from .config import Data as Data
from .config import Log as Log
from .config import Pretrain as Pretrain
from .methods.augself import AugSelf as AugSelf
from .methods.moco import MoCo as MoCo
from .models.build import Backbone as Backbone
from .pretrain import run as run
from .training.optim import Optim as Optim
