"""Stand-ins for other libraries, with the few hooks that the pages of docs/how-to/ use, for machines without them.

Each is a function that returns the modules by name, to be put into sys.modules.
"""

from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image


def modules(**contents):
    """Modules by dotted name; `__` in a keyword stands for the dot."""
    found = {}
    for name, names in contents.items():
        parts = name.split("__")
        for i in range(1, len(parts) + 1):
            found.setdefault(".".join(parts[:i]), ModuleType(".".join(parts[:i])))
        vars(found[".".join(parts)]).update(names)
    return found


def folder(path):
    """Images and classes of a folder with one subfolder per class."""
    classes = sorted(entry.name for entry in Path(path).iterdir())
    return [(file, classes.index(file.parent.name)) for file in sorted(Path(path).rglob("*.jpg"))]


def lightning():
    """A trainer that calls the hooks of Lightning 2's `fit` in its order, and moves batches as it does."""

    class LightningModule(torch.nn.Module):
        current_epoch = 0

        def log(self, name, value, *, batch_size):
            self.logged = (name, float(value.detach()), batch_size)

        def on_train_epoch_start(self):
            pass

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch

    class Trainer:
        def __init__(self, *, max_epochs, accelerator, logger, enable_checkpointing):
            self.max_epochs, self.callback_metrics = max_epochs, {}

        def fit(self, model, loader):
            optimizer = model.configure_optimizers()
            for model.current_epoch in range(self.max_epochs):
                model.train()
                model.on_train_epoch_start()
                for i, batch in enumerate(loader):
                    moved = batch.to(torch.device("cpu"))
                    loss = model.training_step(model.on_after_batch_transfer(moved, 0), i)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            self.callback_metrics[model.logged[0]] = torch.tensor(model.logged[1])

    return modules(lightning={"LightningModule": LightningModule, "Trainer": Trainer})


def lightly():
    """Its data set, whose items are (image, label, file name), and a contrastive loss."""

    class LightlyDataset:
        def __init__(self, input_dir):
            self.samples, self.root = folder(input_dir), Path(input_dir)

        def __len__(self):
            return len(self.samples)

        def __getitem__(self, index):
            file, label = self.samples[index]
            return Image.open(file).convert("RGB"), label, str(file.relative_to(self.root))

        def get_filenames(self):
            return [str(file.relative_to(self.root)) for file, _ in self.samples]

    class NTXentLoss:
        def __call__(self, a, b):
            a, b = torch.nn.functional.normalize(a), torch.nn.functional.normalize(b)
            return torch.nn.functional.cross_entropy(a @ b.T / 0.5, torch.arange(len(a), device=a.device))

    return modules(lightly__data={"LightlyDataset": LightlyDataset}, lightly__loss={"NTXentLoss": NTXentLoss})


def datasets():
    """A table with an image column, whose rows are fetched by lists, in the formats that the page uses."""

    class Dataset:
        def __init__(self, columns, transform=None, tensors=False):
            self.columns, self.transform, self.tensors = columns, transform, tensors

        def __len__(self):
            return len(next(iter(self.columns.values())))

        def __getitem__(self, index):
            return self.__getitems__([index])[0]

        def __getitems__(self, indices):
            rows = {name: [values[i] for i in indices] for name, values in self.columns.items()}
            if self.transform is not None:
                rows = self.transform(rows)
            if self.tensors:
                rows = {name: [tensor(value) for value in values] for name, values in rows.items()}
            return [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]

        def rename_columns(self, names):
            return Dataset({names.get(name, name): values for name, values in self.columns.items()})

        def with_transform(self, transform):
            return Dataset(self.columns, transform=transform)

        def with_format(self, kind):
            assert kind == "torch"
            return Dataset(self.columns, tensors=True)

    def tensor(value):
        if isinstance(value, Image.Image):
            return torch.from_numpy(np.array(value)).permute(2, 0, 1)
        return torch.tensor(value)

    def load_dataset(path, *, data_dir, split):
        assert (path, split) == ("imagefolder", "train")
        samples = folder(data_dir)
        images = [Image.open(file) for file, _ in samples]
        return Dataset({"image": images, "label": [label for _, label in samples]})

    return modules(datasets={"load_dataset": load_dataset})


def ffcv():
    """A loader of uint8 batches [B, H, W, 3] that hands out the same memory again."""

    class CenterCropRGBImageDecoder:
        def __init__(self, output_size, ratio):
            self.shape = output_size

    class ToTensor:
        pass

    class OrderOption:
        RANDOM = "random"

    class Loader:
        def __init__(self, fname, batch_size, num_workers, *, order, drop_last, pipelines):
            assert pipelines["label"] is None and isinstance(pipelines["image"][1], ToTensor) and drop_last
            self.memory = torch.empty(batch_size, *pipelines["image"][0].shape, 3, dtype=torch.uint8)

        def __iter__(self):
            for step in range(4):
                torch.randint(0, 256, self.memory.shape, generator=torch.Generator().manual_seed(step), out=self.memory)
                yield (self.memory,)

    return modules(
        ffcv__fields__rgb_image={"CenterCropRGBImageDecoder": CenterCropRGBImageDecoder},
        ffcv__loader={"Loader": Loader, "OrderOption": OrderOption},
        ffcv__transforms={"ToTensor": ToTensor},
    )
