"""The names that `import fastaugself` offers."""

from fastaugself_kernels import ViewPolicy as ViewPolicy

from .config import Augment as Augment
from .config import Checkpoint as Checkpoint
from .config import Data as Data
from .config import Log as Log
from .config import Pretrain as Pretrain
from .methods import BarlowTwins as BarlowTwins
from .methods import Byol as Byol
from .methods import MoCo as MoCo
from .methods import MoCoV3 as MoCoV3
from .methods import SimClr as SimClr
from .methods import SimSiam as SimSiam
from .methods import Supervised as Supervised
from .methods import SwAV as SwAV
from .methods.augself import AugSelf as AugSelf
from .methods.cassle import Cassle as Cassle
from .models.build import Backbone as Backbone
from .pretrain import run as run
from .training.optim import Optim as Optim
