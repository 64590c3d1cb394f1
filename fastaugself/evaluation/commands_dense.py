"""The command `fastaugself eval segmentation`.

Shape suffixes: K classes.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..files import check_outputs
from ..probes.intervals import bootstrap
from ..probes.segmentation import PixelCounts, class_iou, mean_iou, pixel_accuracy
from . import segmentation
from .datasets.masks import ClassValues, MaskData, read_masks
from .features import Extractor
from .options import Options
from .pixels import prepare
from .results import Row, table
from .segmentation import Choice, DenseEncoder, Frame, Samples

log = logging.getLogger("fastaugself")


@dataclass(frozen=True)
class Segmentation(Options):
    """Semantic segmentation: a linear layer on frozen patch tokens or feature maps, scored by mIoU and pixel accuracy.

    --data: VOC2012, or folders of photos and masks (listed by `fastaugself eval datasets`). Each model is evaluated
    alone. The learning rate is chosen on val, and the head is refit on train and val.
    """

    layer: str = ""
    """Layer of the feature maps, such as layer3 or block9; default: the last one."""
    ignore: tuple[int, ...] = (255,)
    """Mask values of pixels without a class; -1: none."""
    frame: Frame = "crop"
    """What the encoder sees: the central square of the photo (crop), or the whole photo squeezed to a square (whole),
    which is scored at the mask's own size."""
    epochs: int = 20
    """Epochs of training the head."""
    lrs: tuple[float, ...] = (0.001, 0.01, 0.1)
    """Learning rates of the heads (AdamW), of which the best on val is taken."""
    weight_decay: float = 0.0001
    """Weight decay of the heads."""
    head_batch: int = 16
    """Photos per step of training the heads."""
    shown: int = 8
    """Number of test photos on the page; 0 = no page."""

    name: ClassVar[str] = "segmentation"
    least: ClassVar[dict[str, float]] = {
        **Options.least, "epochs": 1, "weight_decay": 0, "head_batch": 1, "shown": 0,
    }  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lrs or not all(math.isfinite(lr) and lr > 0 for lr in self.lrs):
            raise UsageError(f"--lrs takes learning rates above 0, got {' '.join(map(str, self.lrs)) or 'none'}")
        wrong = [value for value in self.ignore if not -1 <= value <= 255]
        if wrong:
            raise UsageError(f"--ignore takes mask values from 0 to 255, or -1 for none, got {wrong[0]}")
        if self.frame == "whole" and self.resize:
            raise UsageError(
                f"--resize {self.resize} is for the central crop, and --frame whole has none: pass --size instead, or "
                f"--frame crop"
            )

    def __call__(self) -> list[Row]:
        """Trains and scores the heads; prints and writes the results."""
        began = time.perf_counter()
        check_outputs(self.out / "results.csv")
        encoders, data, extract = self.encoders(), self.read_masks(), self.extractor()
        models = [segmentation.dense(encoder, self.layer) for encoder in encoders]
        for model in models:
            extract.side(model.encoder)  # raises for a crop that does not fit
        log.info("%s: %s", data.name, data.how)
        classes = segmentation.check_masks(data, extract, self.ignore)
        shown = np.sort(np.random.default_rng(self.seed).permutation(len(data.splits["test"]))[: self.shown])
        rows: list[Row] = []
        predicted: dict[str, list[NDArray[np.int64]]] = {}
        for model in models:
            choice, test = self._train(data, extract, model, classes)
            whole = data.splits["test"] if self.frame == "whole" else None
            counts = PixelCounts.of(segmentation.confusions(choice.head, model, test, classes, whole))
            rows += self._rows(model, choice, counts, classes)
            sizes = [segmentation.truth(test, classes, i, whole).shape for i in shown]
            found = segmentation.predictions(choice.head, test.rows_ND[shown], model.shape, sizes)
            predicted[model.encoder.name] = list(found)
        details = {"splits": data.how, "sizes": {name: len(split) for name, split in data.splits.items()}}
        path = self.write(data, encoders, rows, details=details, began=began)
        print(table(rows))
        if self.shown:
            print(self._page(path, data, extract, models[0], classes, shown, predicted, rows))
        print(path)
        return rows

    def read_masks(self) -> MaskData:
        """Reads the photos and masks, with a validation split, at most --limit of each and --labelled to learn from."""
        data = read_masks(self.data, self.dataset).with_val(seed=self.seed, resplit=self.resplit)
        most = dict.fromkeys(data.splits, self.limit) if self.limit else {}
        if self.labelled:
            held_out = max(1, self.labelled // 5)
            few = {"train": max(1, self.labelled - held_out), "val": held_out}
            most |= {name: min(count, most.get(name, count)) for name, count in few.items()}
        return data.limited(most, seed=self.seed)

    def _train(
        self, data: MaskData, extract: Extractor, model: DenseEncoder, classes: ClassValues
    ) -> tuple[Choice, Samples]:
        """The chosen head of a model, and the test samples."""
        train, val, test = (
            segmentation.samples(extract, model, data.splits[name], name, self.frame)
            for name in ("train", "val", "test")
        )
        choice = segmentation.choose_head(
            train,
            val,
            model,
            classes,
            self.lrs,
            epochs=self.epochs,
            batch_size=self.head_batch,
            weight_decay=self.weight_decay,
            seed=self.seed,
            device=self.torch_device(),
        )
        return choice, test

    def _rows(self, model: DenseEncoder, choice: Choice, counts: PixelCounts, classes: ClassValues) -> list[Row]:
        images = len(counts.hit_NK)
        by_class = class_iou(*(count_NK.sum(0) for count_NK in counts))
        details = {
            "layer": model.layer,
            "map": list(model.shape),
            "lr": choice.head.lr,
            "val": dict(choice.path),
            "iou": {name: None if np.isnan(v) else float(v) for name, v in zip(classes.names, by_class, strict=True)},
            "pixels": dict(zip(classes.names, counts.truth_NK.sum(0).tolist(), strict=True)),
        }
        scores = {"mIoU": mean_iou, "pixel accuracy": pixel_accuracy}
        return [
            Row(
                (model.encoder.name,),
                "",
                metric,
                bootstrap(lambda index, of=statistic: of(counts, index), images, seed=self.seed),  # type: ignore[misc]
                images,
                details if metric == "mIoU" else {},
            )
            for metric, statistic in scores.items()
        ]

    def _page(
        self,
        path: Path,
        data: MaskData,
        extract: Extractor,
        model: DenseEncoder,
        classes: ClassValues,
        shown: NDArray[np.int64],
        predicted: Mapping[str, Sequence[NDArray[np.int64]]],
        rows: Sequence[Row],
    ) -> Path:
        """Writes the page of the photos at `shown`; pictures are as large as the input of the first model."""
        from .segmentation_page import Shown, write_page

        test, size = data.splits["test"], model.encoder.size
        photos = []
        for position, index in enumerate(shown.tolist()):
            photo, mask = test.photos.images.open(index), test.mask(index)
            if self.frame == "whole":
                pixels, values = np.asarray(photo), np.asarray(mask)
            else:
                side = extract.side(model.encoder)
                pixels = prepare(photo, size, side)
                values = segmentation.frame_mask(mask, size, side, self.frame)
            found = {name: classes_[position] for name, classes_ in predicted.items()}
            found = {name: at_size(classes_, values.shape) for name, classes_ in found.items()}
            photos.append(Shown(test.photos.name(index), pixels, classes.table[values], found))
        about = dataclasses.replace(self, fuse="none").words(
            f"{len(test)} test photos, {len(classes.names)} classes ({data.how})",
            f"head: one 1×1 convolution, {self.epochs} epochs, learning rate chosen on val",
            "the central square of each photo" if self.frame == "crop" else "the whole photo squeezed to a square",
        )
        return write_page(path.with_suffix(".html"), data.name, photos, classes.names, rows, about)


def at_size(classes_HW: NDArray[np.int64], size: tuple[int, ...]) -> NDArray[np.int64]:
    """Classes at another size, by nearest pixels: models of other input sizes see the same square."""
    height, width = size
    rows, columns = (np.arange(n) * m // n for n, m in zip((height, width), classes_HW.shape, strict=True))
    return classes_HW[rows[:, None], columns]
