"""Segmentation: the head against a plain PyTorch loop, and mIoU by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fastaugself.probes import segmentation
from fastaugself.probes.segmentation import IGNORED, Head, PixelCounts, class_iou, confusion, mean_iou, pixel_accuracy


def made_batches(seed=0, steps=3):
    """Three batches of an epoch with odd sizes; some pixels ignored, and all of one image."""
    found = []
    for step in range(steps):
        generator = torch.Generator().manual_seed(seed * 100 + step)
        x = torch.randn(2 + step % 2, 5, 3, 4, generator=generator)
        y = torch.randint(0, 3, (len(x), 11, 13), generator=generator)
        y[torch.rand(y.shape, generator=generator) < 0.2] = IGNORED
        y[0] = IGNORED
        found.append((x, y))
    return found


@pytest.mark.parametrize("standardised", [False, True])
def test_the_head_is_that_of_a_plain_loop_for_every_learning_rate(standardised):
    lrs, epochs, decay = (0.003, 0.1), 4, 0.02
    mean, std = (
        (torch.tensor([3.0, -2, 0, 9, 0.1]), torch.tensor([2.0, 0.5, 1, 7, 0.02])) if standardised else (None, None)
    )
    shift, scale = (mean.view(5, 1, 1), std.view(5, 1, 1)) if standardised else (0.0, 1.0)

    def batches(epoch):
        return [(x * scale + shift, y) for x, y in made_batches(epoch)]

    options = {"channels": 5, "classes": 3, "weight_decay": decay, "epochs": epochs, "device": torch.device("cpu")}
    heads = segmentation.train_heads(batches, 3, lrs=lrs, mean_C=mean, std_C=std, **options)
    for lr, head in zip(lrs, heads, strict=True):
        conv = nn.Conv2d(5, 3, 1)
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
        optimizer = torch.optim.AdamW(conv.parameters(), lr=lr, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / 12)) / 2)
        for epoch in range(epochs):
            for x, y in made_batches(epoch):  # of mean 0 and deviation 1
                up = nn.Upsample(size=(11, 13), mode="bilinear")
                loss = nn.CrossEntropyLoss(ignore_index=-100)(up(conv(x)), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        x = torch.randn(2, 5, 4, 3)
        with torch.no_grad():
            expected = nn.functional.interpolate(conv(x), (9, 7), mode="bilinear")
        torch.testing.assert_close(head.logits(x * scale + shift, (9, 7)), expected, rtol=1e-3, atol=1e-3)
        assert head.lr == lr
        if not standardised:
            torch.testing.assert_close(head.weight_KC, conv.weight.detach()[:, :, 0, 0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(head.bias_K, conv.bias.detach(), rtol=1e-4, atol=1e-5)


def test_channel_statistics_are_those_of_all_positions():
    maps = (
        torch.randn(9, 4, 3, 5) * torch.tensor([1.0, 1e-3, 0, 1e3])[:, None, None]
        + torch.tensor([0.0, 5, 3, 1])[:, None, None]
    )
    mean, std = segmentation.channel_statistics(maps.split(4))
    values = maps.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean, values.mean(1))
    torch.testing.assert_close(std[[0, 1, 3]], values.std(1, correction=0)[[0, 1, 3]], rtol=1e-5, atol=0)
    assert std[2] == 1  # a channel that is always the same


def test_a_batch_without_any_class_has_a_loss_of_zero_and_moves_nothing():
    y = torch.full((2, 6, 5), IGNORED)
    assert segmentation.pixel_loss(torch.randn(2, 3, 6, 5), y).item() == 0
    options = {"channels": 4, "classes": 3, "lrs": (0.1,), "weight_decay": 0.0, "device": torch.device("cpu")}
    (head,) = segmentation.train_heads(lambda epoch: [(torch.randn(2, 4, 3, 3), y)], 1, epochs=2, **options)
    assert not head.weight_KC.any() and not head.bias_K.any()


def test_logits_are_upsampled_between_pixel_centres():
    head = Head(torch.tensor([[1.0]]), torch.tensor([0.5]), 0.0)
    x = torch.tensor([[[[0.0, 4.0]]]])
    assert head.logits(x, (1, 4)).tolist() == [[[[0.5, 1.5, 3.5, 4.5]]]]  # 0, 1, 3, 4 by hand


def test_iou_and_accuracy_by_hand():
    """Two images of six pixels, four classes; class 2 is predicted only, class 3 nowhere."""
    truth = [np.array([[0, 0, 1], [1, 1, IGNORED]]), np.array([[1, 1, 1], [IGNORED, 0, 0]])]
    predicted = [np.array([[0, 1, 1], [1, 2, 3]]), np.array([[1, 0, 1], [0, 0, 0]])]
    matrices = [confusion(p, t, 4) for p, t in zip(predicted, truth, strict=True)]
    assert matrices[0].tolist() == [[1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    counts = PixelCounts.of(matrices)
    # class 0: 1 + 2 right of a union of 2 + 3; class 1: 2 + 2 right of a union of 4 + 3; class 2: none of 1
    iou = class_iou(*(c.sum(0) for c in counts))
    assert iou[:3].tolist() == [3 / 5, 4 / 7, 0.0] and math.isnan(iou[3])
    assert mean_iou(counts) == pytest.approx((3 / 5 + 4 / 7 + 0) / 3)
    assert pixel_accuracy(counts) == 7 / 10
    # the second image, twice: class 2 is gone
    again = np.array([1, 1])
    assert mean_iou(counts, again) == pytest.approx((4 / 6 + 4 / 6) / 2)
    assert pixel_accuracy(counts, again) == 8 / 10


def test_iou_is_that_of_scikit_learn():
    from sklearn.metrics import confusion_matrix, jaccard_score

    generator = np.random.default_rng(3)
    truth, predicted = generator.integers(0, 7, (2, 5, 17, 9))
    matrices = [confusion(p, t, 7) for p, t in zip(predicted, truth, strict=True)]
    assert np.array_equal(sum(matrices), confusion_matrix(truth.ravel(), predicted.ravel()))
    expected = jaccard_score(truth.ravel(), predicted.ravel(), average=None)
    np.testing.assert_allclose(class_iou(*(c.sum(0) for c in PixelCounts.of(matrices))), expected)
