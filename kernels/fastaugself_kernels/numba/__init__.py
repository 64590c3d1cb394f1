"""The fused CPU back-end: every operation of a view while its pixels are in the cache, one view per thread."""

from .augment import augment_numba as augment_numba
from .augment import rows_fit as rows_fit
from .sampling import sample_params_numba as sample_params_numba
