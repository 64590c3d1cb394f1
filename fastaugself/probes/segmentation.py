"""Linear segmentation: one 1x1 convolution on frozen feature maps, and the scores of its predictions.

The head is that of DINOv2's linear protocol (Oquab 2023, arXiv 2304.07193, section 7.4) without its batch norm: the
logits of every position are upsampled to the mask by bilinear interpolation, and the loss is the cross-entropy over all
pixels that are not ignored. Channels are standardised by the training features' statistics, which are part of the
weights of the finished head: learning rates then mean the same for features of any scale. The objective is convex, so
that heads start at zero.

Shape suffixes: L heads, B batch, C channels, K classes, H W of the mask, h w of the feature map, N images.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

log = logging.getLogger("fastaugself")

IGNORED = -100
"""Class of the pixels that are neither learned nor scored (cross-entropy's own default)."""
REPORT_SECONDS = 15.0

Counts = NDArray[np.int64]
Batches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]


class Head(NamedTuple):
    """A 1x1 convolution: weights [K, C] and bias [K], float32. lr: learning rate that it was trained with."""

    weight_KC: Tensor
    bias_K: Tensor
    lr: float

    def logits(self, x_BChw: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits [B, K, H, W] at `size` = (H, W), bilinear without aligned corners."""
        return upsampled(F.conv2d(x_BChw, self.weight_KC[:, :, None, None], self.bias_K), size)


def upsampled(logits_BKhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits at `size` = (H, W), by bilinear interpolation without aligned corners."""
    return F.interpolate(logits_BKhw, size, mode="bilinear", align_corners=False)


def pixel_loss(logits_BKHW: Tensor, y_BHW: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels that are not IGNORED; 0 where all are."""
    total = F.cross_entropy(logits_BKHW, y_BHW, ignore_index=IGNORED, reduction="sum")
    return total / (y_BHW != IGNORED).sum().clamp(min=1)


def train_heads(
    batches: Batches,
    steps: int,
    *,
    channels: int,
    classes: int,
    lrs: Sequence[float],
    weight_decay: float,
    epochs: int,
    device: torch.device,
    mean_C: Tensor | None = None,
    std_C: Tensor | None = None,
) -> list[Head]:
    """Trains one head for each learning rate, all on the same batches: AdamW, learning rates decayed by a cosine.

    batches: of an epoch, as pairs of features [B, C, h, w] and int64 classes [B, H, W] (IGNORED: no class). steps:
    batches per epoch. mean_C, std_C: by which features are standardised, default not at all; heads take features that
    are not. Heads do not influence each other: each is the same as if it were trained alone.
    """
    mean = torch.zeros(channels) if mean_C is None else mean_C.float()
    std = torch.ones(channels) if std_C is None else std_C.float()
    mean, std = mean.to(device), std.to(device)
    weights = [torch.zeros(classes, channels, device=device, requires_grad=True) for _ in lrs]
    biases = [torch.zeros(classes, device=device, requires_grad=True) for _ in lrs]
    groups = [{"params": [w, b], "lr": lr} for w, b, lr in zip(weights, biases, lrs, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay)
    total, step, reported = epochs * steps, 0, time.monotonic()
    for epoch in range(epochs):
        for x_BChw, y_BHW in batches(epoch):
            x, y = x_BChw.to(device, torch.float32), y_BHW.to(device)
            x = (x - mean[:, None, None]) / std[:, None, None]
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr * (1 + math.cos(math.pi * step / total)) / 2
            optimizer.zero_grad(set_to_none=True)
            for weight, bias in zip(weights, biases, strict=True):  # one graph at a time: logits are the largest tensor
                pixel_loss(Head(weight, bias, 0.0).logits(x, (y.shape[1], y.shape[2])), y).backward()
            optimizer.step()
            step += 1
            if time.monotonic() > reported + REPORT_SECONDS:
                log.info("segmentation: step %d of %d", step, total)
                reported = time.monotonic()
    return [
        Head((w / std).detach(), (b - (w / std) @ mean).detach(), lr)
        for w, b, lr in zip(weights, biases, lrs, strict=True)
    ]


def channel_statistics(maps: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel over all positions, float64 [C]; 1 for constant channels.

    maps: batches of features [B, C, h, w].
    """
    count, total, square = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for x_BChw in maps:
        x_CM = x_BChw.double().movedim(1, 0).flatten(1)
        count, total, square = count + x_CM.shape[1], total + x_CM.sum(1), square + x_CM.square().sum(1)
    mean_C = total / count
    std_C = (square / count - mean_C.square()).clamp(min=0).sqrt()
    return mean_C, torch.where(std_C > 1e-6 * mean_C.abs(), std_C, 1.0)


def confusion(predicted: NDArray[np.int64], truth: NDArray[np.int64], classes: int) -> Counts:
    """Pixels by true class (rows) and predicted class (columns), int64 [K, K], without IGNORED pixels.

    predicted, truth: int64 classes, of equal shapes.
    """
    known = truth != IGNORED
    index = truth[known] * classes + predicted[known]
    return np.bincount(index, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


class PixelCounts(NamedTuple):
    """Numbers of pixels of each class in each image: predicted rightly, of the truth, predicted; int64 [N, K]."""

    hit_NK: Counts
    truth_NK: Counts
    predicted_NK: Counts

    @classmethod
    def of(cls, confusions: Sequence[Counts]) -> "PixelCounts":
        """From the confusion matrix of each image."""
        return cls(*(np.stack([count(m) for m in confusions]) for count in (np.diag, _rows, _columns)))


def _rows(confusion_KK: Counts) -> Counts:
    return confusion_KK.sum(1)


def _columns(confusion_KK: Counts) -> Counts:
    return confusion_KK.sum(0)


def class_iou(hit_K: Counts, truth_K: Counts, predicted_K: Counts) -> NDArray[np.float64]:
    """Intersection over union of each class over a whole data set; NaN for classes in neither truth nor prediction."""
    union_K = truth_K + predicted_K - hit_K
    return np.where(union_K > 0, hit_K / np.maximum(union_K, 1), np.nan)


def mean_iou(counts: PixelCounts, index_N: NDArray[np.int64] | None = None) -> float:
    """mIoU in [0, 1]: the mean over classes of the IoU from the pixels of all images (or of those of `index_N`).

    Classes that are in neither the masks nor the predictions are left out.
    """
    return float(np.nanmean(class_iou(*(_total(c_NK, index_N) for c_NK in counts))))


def pixel_accuracy(counts: PixelCounts, index_N: NDArray[np.int64] | None = None) -> float:
    """Share of the pixels that are predicted rightly."""
    return float(_total(counts.hit_NK, index_N).sum() / max(1, _total(counts.truth_NK, index_N).sum()))


def _total(count_NK: Counts, index_N: NDArray[np.int64] | None) -> Counts:
    if index_N is None:
        return count_NK.sum(0)
    return np.bincount(index_N, minlength=len(count_NK)) @ count_NK
