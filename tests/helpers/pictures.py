"""Small images: data sets of random ones, which spawned workers can import, and files."""

import dataclasses

import numpy as np
import torch
from PIL import Image

from fastaugself_kernels import AugmentViews, ViewPolicy, WithIndex, collate_images

POLICIES = (ViewPolicy.moco_v2(16), dataclasses.replace(ViewPolicy.moco_v2(16), solarize=0.5))


def arrays(count=7, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (*random.integers(5, 30, 2), 3), dtype=np.uint8) for _ in range(count)]


class Pictures:
    """A data set of PIL images with labels, as torchvision's."""

    classes = ("a", "b")

    def __init__(self, count=23):
        self.arrays = arrays(count)

    def __len__(self):
        return len(self.arrays)

    def __getitem__(self, index):
        return Image.fromarray(self.arrays[index]), index % 2


class InWorker(torch.utils.data.Dataset):
    """Makes views inside a worker, in which several threads must not hang after a fork."""

    def __getitem__(self, index):
        return AugmentViews(POLICIES)(collate_images([WithIndex(arrays())[index]]), epoch=0)[0]

    def __len__(self):
        return 4


class Collate:
    """A collate function that makes the views already in the worker; returns their parameters."""

    def __init__(self, module):
        self.module = module

    def __call__(self, items):
        return self.module(collate_images(items))[1]


class Repeated(torch.utils.data.Dataset):
    """Makes the views of one batch in the worker, four times."""

    def __init__(self, batch):
        self.batch = batch

    def __getitem__(self, index):
        assert torch.get_num_threads() == 2
        return AugmentViews(POLICIES)(self.batch, epoch=0)[0]

    def __len__(self):
        return 4


def two_threads(_):
    """For `worker_init_fn`: a worker has one thread otherwise."""
    torch.set_num_threads(2)


def save(image, path, *args, **kwargs):
    """Saves a PIL image in a folder that is made; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, *args, **kwargs)
    return path
