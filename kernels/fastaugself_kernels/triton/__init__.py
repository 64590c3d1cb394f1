"""The CUDA and ROCm back-end."""

from .augment import augment_triton as augment_triton
