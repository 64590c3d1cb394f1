"""Methods that learn from augmentation parameters, one per file, beside any base method (see base.py)."""

from .augself import AugSelf as AugSelf
from .base import AWARE as AWARE
from .base import AwareConfig as AwareConfig
from .base import register_aware as register_aware
from .care import CARE as CARE
from .cassle import CASSLE as CASSLE
from .equimod import EquiMod as EquiMod
from .essl import ESSL as ESSL
from .predictor import ConditionalPredictor as ConditionalPredictor
from .sen import SEN as SEN
from .seqjepa import SeqJEPA as SeqJEPA
from .ser import SER as SER
from .sie import SIE as SIE
from .stl import STL as STL

CONDITIONS = ("cassle", "predictor")
"""Names of the methods that condition a part of the base method instead of adding a loss."""
