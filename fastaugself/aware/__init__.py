"""Methods that learn from augmentation parameters, one per file, beside any base method (see base.py)."""

from .augself import AugSelf as AugSelf
from .base import AWARE as AWARE
from .base import AwareConfig as AwareConfig
from .base import register_aware as register_aware
from .cassle import CASSLE as CASSLE
from .essl import ESSL as ESSL

CONDITIONS = ("cassle",)
"""Names of the methods that condition a part of the base method instead of adding a loss."""
