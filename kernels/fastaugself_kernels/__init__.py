"""Fused augmentation of image batches with explicit, exact parameters.

`sample_params` draws one row per view and sample, `share_params` makes samples share parts of their rows, `augment`
applies rows to decoded uint8 images, `augself_targets` and `descriptors` turn rows into what augmentation-aware methods
learn. `collate_images` and `AugmentViews` put this into any DataLoader and loop. Importing needs torch and numpy only.
"""

from .augment import augment as augment
from .augment_views import AugmentViews as AugmentViews
from .collate import WithIndex as WithIndex
from .collate import collate_images as collate_images
from .infonce import infonce as infonce
from .params import COLUMNS as COLUMNS
from .params import ViewPolicy as ViewPolicy
from .ragged import RaggedBatch as RaggedBatch
from .sampling import sample_params as sample_params
from .sharing import same_across_views as same_across_views
from .sharing import share_params as share_params
from .targets import CASSLE_PARTS as CASSLE_PARTS
from .targets import DESCRIPTORS as DESCRIPTORS
from .targets import Targets as Targets
from .targets import augself_targets as augself_targets
from .targets import descriptors as descriptors
from .targets import visible_rotation as visible_rotation
from .warm_up import warm_up as warm_up
