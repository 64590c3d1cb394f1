"""`eval segmentation`: masks and photos in one frame, folders with masks, whole results, and its refusals."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_eval import call
from trees import text

from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation import segmentation
from fastaugself.evaluation.commands_dense import Segmentation
from fastaugself.evaluation.datasets.masks import class_values, read_masks
from fastaugself.evaluation.encoder import Encoder
from fastaugself.evaluation.encoders import load_encoder
from fastaugself.evaluation.features import Extractor
from fastaugself.evaluation.pixels import prepare
from fastaugself.probes.segmentation import IGNORED


def sample(root, images, masks, name, seed, size=(37, 44), values=(0, 1, 2)):
    """A photo of two colours above each other, and its mask: the last row has no class."""
    generator = np.random.default_rng(seed)
    width, height = size
    split = generator.integers(height // 4, 3 * height // 4)
    top, bottom = generator.choice(len(values), 2, replace=False)
    mask = np.full((height, width), values[top], np.uint8)
    mask[split:] = values[bottom]
    palette = np.array([[200, 20, 20], [20, 200, 20], [20, 20, 200]], np.float64)
    kind = np.where(np.arange(height)[:, None] < split, top, bottom) + np.zeros((1, width), int)
    photo = (palette[kind] + generator.normal(0, 20, (height, width, 3))).clip(0, 255).astype(np.uint8)
    mask[-1] = 255
    for folder in (images, masks):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo).save(root / images / f"{name}.jpg", quality=95)
    Image.fromarray(mask).save(root / masks / f"{name}.png")


@pytest.fixture
def masked(tmp_path):
    """Eight photos to train with and four to test with, with masks."""
    for split, numbers in (("train", range(8)), ("test", range(8, 12))):
        for i in numbers:
            sample(tmp_path / "masked" / split, "images", "masks", f"{i}", i)
    return tmp_path / "masked"


# Geometry


@pytest.mark.parametrize(
    ("width", "height", "size", "resize"), [(7, 5, 4, 4), (5, 9, 3, 6), (9, 9, 9, 9), (13, 11, 5, 7)]
)
def test_a_mask_takes_the_nearest_pixel_of_each_place_of_the_crop(width, height, size, resize):
    values = np.arange(width * height, dtype=np.uint8).reshape(height, width)
    scale = resize / min(width, height)
    new_width, new_height = int(width * scale), int(height * scale)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    expected = [
        [
            values[int((top + y + 0.5) * height / new_height), int((left + x + 0.5) * width / new_width)]
            for x in range(size)
        ]
        for y in range(size)
    ]
    assert segmentation.frame_mask(Image.fromarray(values), size, resize, "crop").tolist() == expected


def test_an_edge_is_at_the_same_place_in_the_photo_and_its_mask():
    for edge in range(25, 55, 3):
        mask = np.zeros((50, 81), np.uint8)
        mask[:, edge:] = 1
        photo = Image.fromarray(np.repeat(mask[..., None] * 255, 3, 2))
        seen = prepare(photo, 32, 40)[16, :, 0] > 127
        framed = segmentation.frame_mask(Image.fromarray(mask), 32, 40, "crop")[16] == 1
        # 50 pixels become 40, of which the central 32 of 64 are seen: 0.8 of a pixel each, from 16 on
        assert (
            abs(int(framed.argmax()) - (edge * 64 / 81 - 16)) <= 0.5 and abs(int(seen.sum()) - int(framed.sum())) <= 1
        )


def test_a_whole_mask_is_squeezed_like_its_photo():
    values = np.arange(6 * 4, dtype=np.uint8).reshape(4, 6)
    framed = segmentation.frame_mask(Image.fromarray(values), 2, 2, "whole")
    assert framed.tolist() == [[values[1, 1], values[1, 4]], [values[3, 1], values[3, 4]]]


# Feature maps


@pytest.mark.parametrize("name", ["resnet18", "timm:vit_tiny_patch16_224", "timm:resnet18"])
def test_maps_are_those_of_the_last_layer(name, timm):
    encoder = load_encoder(f"random:{name}", device="cpu", size=64)
    of = segmentation.dense(encoder)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        found = of.encoder(x).unflatten(1, of.shape)
        if "vit" in name:
            tokens = encoder.module.forward_features(x)[:, 1:]  # after the norm, whose weights are still 1 and 0
            expected = tokens.transpose(1, 2).unflatten(2, (4, 4))
        else:
            expected = []
            hook = encoder.module.layer4.register_forward_hook(lambda *given: expected.append(given[2]))
            encoder.module(x)
            hook.remove()
            expected = expected[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_an_inner_layer_is_taken_and_others_are_refused(run):
    encoder = load_encoder(run, device="cpu")
    assert segmentation.dense(encoder).shape == (64, 1, 1)
    assert segmentation.dense(encoder, "layer2").shape == (16, 4, 4)
    assert segmentation.dense(encoder, "layer2").encoder.digest != segmentation.dense(encoder).encoder.digest
    with pytest.raises(UsageError, match="tiny: --layer layer5: the backbone has no such layer, its layers are layer1"):
        segmentation.dense(encoder, "layer5")
    pooled = Encoder("pooled", "", torch.nn.Flatten(), 32, (0, 0, 0), (1, 1, 1), "x")
    with pytest.raises(UsageError, match="pooled has neither patch tokens nor feature maps: pass a run, an export"):
        segmentation.dense(pooled)


# Results


@pytest.mark.parametrize("frame", ["crop", "whole"])
def test_the_scores_are_those_of_the_formula(frame, run, masked, tmp_path):
    from sklearn.metrics import accuracy_score, jaccard_score

    options = ("--data", masked, "--out", tmp_path / "out", "--cache", tmp_path / "cache", "--device", "cpu")
    own = ("--layer", "layer1", "--lrs", 0.3, "--epochs", 30, "--head-batch", 3, "--frame", frame, "--shown", 2)
    assert call("segmentation", run, *own, *options) == 0
    (path,) = (tmp_path / "out").glob("*.json")
    result = json.loads(path.read_text())
    iou, accuracy = result["rows"]
    assert (iou["metric"], accuracy["metric"]) == ("mIoU", "pixel accuracy")
    assert iou["details"]["map"] == [8, 8, 8] and result["sizes"] == {"train": 7, "test": 4, "val": 1}
    assert iou["low"] <= iou["value"] <= iou["high"] and iou["value"] > 0.5  # chance is below 0.3
    page = path.with_suffix(".html").read_text()
    assert page.count("<section") == 2 and page.count("<figure") == 6

    # Again with the head's own weights, but everything else written out.
    encoder = load_encoder(run, device="cpu")
    data = read_masks(masked).with_val(seed=0, resplit=False)
    extract = Extractor()
    of = segmentation.dense(encoder, "layer1")
    classes = class_values((0, 1, 2), (), (255,), ignored=IGNORED)
    train, val = (segmentation.samples(extract, of, data.splits[name], name, frame) for name in ("train", "val"))
    fit = {"epochs": 30, "batch_size": 3, "weight_decay": 1e-4, "seed": 0, "device": torch.device("cpu")}
    head = segmentation.choose_head(train, val, of, classes, [0.3], **fit).head
    truths, predictions = [], []
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (encoder.mean, encoder.std))
    for i in range(8, 12):
        photo = Image.open(masked / "test" / "images" / f"{i}.jpg")
        mask = Image.open(masked / "test" / "masks" / f"{i}.png")
        if frame == "crop":
            photo, mask = photo.resize((32, 38), 3).crop((0, 3, 32, 35)), mask.resize((32, 38), 0).crop((0, 3, 32, 35))
        else:
            photo = photo.resize((32, 32), 3)
        x = (torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255 - mean) / std
        with torch.no_grad():
            f = encoder.module.forward_layers(x[None], ("layer1",))[1]["layer1"]
        logits = torch.einsum("kc,bchw->bkhw", head.weight_KC, f) + head.bias_K.view(1, -1, 1, 1)
        logits = F.interpolate(logits, mask.size[::-1], mode="bilinear")
        truth = np.asarray(mask)
        truths.append(truth[truth != 255])
        predictions.append(logits[0].argmax(0).numpy()[truth != 255])
    truth, predicted = np.concatenate(truths), np.concatenate(predictions)
    np.testing.assert_allclose(list(iou["details"]["iou"].values()), jaccard_score(truth, predicted, average=None))
    assert iou["value"] == pytest.approx(jaccard_score(truth, predicted, average="macro"))
    assert accuracy["value"] == pytest.approx(accuracy_score(truth, predicted))


def test_the_same_command_has_the_same_result_and_another_seed_another(run, masked, tmp_path):
    values = []
    for seed in (0, 0, 1):
        out = tmp_path / f"out{len(values)}"
        options = ("--data", masked, "--out", out, "--cache", tmp_path / "cache", "--device", "cpu", "--seed", seed)
        assert (
            call("segmentation", run, "--layer", "layer1", "--epochs", 2, "--shown", 0, "--head-batch", 2, *options)
            == 0
        )
        values.append(json.loads(next(out.glob("*.json")).read_text())["rows"][0]["details"])
        assert not list(out.glob("*.html"))
    assert values[0] == values[1] != values[2]


# Data


def test_vocs_own_layout_is_read_with_its_official_splits(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name, seed in (("2007_a", 0), ("2007_b", 1), ("2007_c", 2)):
        sample(root, "JPEGImages", "SegmentationClass", name, seed)
    mask = Image.open(root / "SegmentationClass" / "2007_a.png").convert("P")
    mask.putpalette([v for i in range(256) for v in (i, 255 - i, 7)])
    mask.save(root / "SegmentationClass" / "2007_a.png")
    text(root / "ImageSets" / "Segmentation" / "train.txt", "2007_a", "2007_b")
    text(root / "ImageSets" / "Segmentation" / "val.txt", "2007_c")
    data = read_masks(tmp_path)
    assert data.name == "voc-segmentation" and len(data.classes) == 21 and data.classes[15] == "person"
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 2, "test": 1}
    assert set(np.unique(data.splits["train"].mask(0))) <= {0, 1, 2, 255}  # the palette's index, not its colour
    assert data.splits["test"].photos.names == ["JPEGImages/2007_c.jpg"]


def test_folders_without_splits_and_folders_of_splits_inside_are_read(tmp_path):
    for i in range(10):
        sample(tmp_path / "plain", "images", "masks", f"{i}", i)
        sample(tmp_path / "inside", f"images/{'training' if i < 7 else 'validation'}", "masks/" + "tv"[0], f"{i}", i)
    shutil.rmtree(tmp_path / "inside" / "masks")
    for i in range(10):
        sample(tmp_path / "inside", "other", f"masks/{'training' if i < 7 else 'validation'}", f"{i}", i)
    plain, inside = read_masks(tmp_path / "plain"), read_masks(tmp_path / "inside")
    assert {name: len(split) for name, split in plain.splits.items()} == {"train": 8, "test": 2}
    both = [*plain.splits["train"].photos.names, *plain.splits["test"].photos.names]
    assert sorted(both) == [f"images/{i}.jpg" for i in range(10)]
    assert {name: len(split) for name, split in inside.splits.items()} == {"train": 7, "test": 3}
    valid = plain.with_val(seed=0, resplit=False)
    assert len(valid.splits["val"]) == 1 and len(valid.splits["train"]) == 7
    again = valid.with_val(seed=1, resplit=True)
    assert sorted(again.splits["train"].masks.names + again.splits["val"].masks.names) == sorted(
        plain.splits["train"].masks.names
    )


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"limit": 3}, {"train": 3, "val": 1, "test": 3}),
        ({"labelled": 5}, {"train": 4, "val": 1, "test": 4}),
        ({"labelled": 3}, {"train": 2, "val": 1, "test": 4}),
        ({"labelled": 5, "limit": 2}, {"train": 2, "val": 1, "test": 2}),
        ({}, {"train": 7, "val": 1, "test": 4}),
    ],
)
def test_limits_hold_for_masks_and_photos_alike(options, sizes, masked):
    command = Segmentation(("random:resnet18",), data=masked, **options)
    data, whole = command.read_masks(), read_masks(masked)
    assert {name: len(split) for name, split in data.splits.items()} == sizes
    for split in data.splits.values():
        pairs = list(zip(split.photos.names, split.masks.names, strict=True))
        assert all(mask == photo.replace("images", "masks").replace(".jpg", ".png") for photo, mask in pairs)
        assert all(
            (masked / photo).read_bytes() and split.mask(i).size == (37, 44) for i, (photo, _) in enumerate(pairs)
        )
    assert command.read_masks().splits["test"].masks.names == data.splits["test"].masks.names
    assert set(data.splits["test"].masks.names) <= set(whole.splits["test"].masks.names)


def test_classes_are_named_or_the_values_that_occur():
    found = class_values((0, 7, 255), (), (), ignored=IGNORED)
    assert found.names == ("0", "7", "255") and found.table[[0, 7, 255, 3]].tolist() == [0, 1, 2, IGNORED]
    found = class_values((0, 2), ("other", "cat", "dog"), (0,), ignored=IGNORED)
    assert found.names == ("cat", "dog") and found.table[:4].tolist() == [IGNORED, 0, 1, IGNORED]
    with pytest.raises(UsageError, match=r"the masks have one class \(0\) besides the ignored values 255"):
        class_values((0, 255), (), (255,), ignored=IGNORED)
    beyond = r"mask value 3 is beyond the 3 classes \(0 to 2\): if its pixels have no class, pass --ignore 255 3"
    with pytest.raises(UsageError, match=beyond):
        class_values((0, 3, 255), ("a", "b", "c"), (255,), ignored=IGNORED)
    assert class_values((0, 3, 255), ("a", "b", "c"), (255, 3), ignored=IGNORED).names == ("a", "b", "c")


def refused(arguments, capsys):
    capsys.readouterr()
    assert call("segmentation", *arguments) in (1, 2)
    return " ".join(capsys.readouterr().err.split())


def test_bad_masks_are_refused_before_a_feature_is_extracted(run, masked, tmp_path, capsys, monkeypatch):
    def no_features(*_):
        raise AssertionError("features were extracted")

    monkeypatch.setattr(Extractor, "rows", no_features)
    options = (run, "--data", masked, "--out", tmp_path / "out", "--cache", tmp_path / "cache", "--device", "cpu")
    mask = masked / "train" / "masks" / "3.png"
    right = mask.read_bytes()
    Image.new("L", (37, 43)).save(mask)
    message = refused(options, capsys)
    assert "masks/3.png has 37 x 43 pixels and its photo 37 x 44 (1 of " in message and "as large as" in message
    Image.new("RGB", (37, 44)).save(mask)
    assert "3.png has pixels of mode RGB, not one class value for each: convert it" in refused(options, capsys)
    mask.unlink()
    message = refused(options, capsys)
    assert "masks/3.png is missing, the mask of train/images/3.jpg: add it, or remove the photo" in message
    mask.write_bytes(right)
    text(masked / "classes.txt", "red", "green")
    message = refused(options, capsys)
    assert "mask value 2 is beyond the 2 classes (0 to 1): if its pixels have no class, pass --ignore 255 2" in message
    shutil.rmtree(masked / "test")
    assert "has no images/, nor both train/ and test/; expected" in refused(options, capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lrs", "0"), "--lrs takes learning rates above 0, got 0.0"),
        (("--ignore", "256"), "--ignore takes mask values from 0 to 255, or -1 for none, got 256"),
        (("--frame", "whole", "--resize", "40"), "pass --size instead, or --frame crop"),
        (("--dataset", "cub200"), "--dataset cub200 has no masks: pass --dataset masks or --dataset voc-segmentation"),
        (("--epochs", "0"), "--epochs must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_refused(options, message, run, masked, capsys):
    assert message in refused((run, "--data", masked, *options), capsys)


def test_a_class_that_training_lacks_is_told(run, masked, tmp_path, caplog):
    mask = masked / "test" / "masks" / "9.png"
    Image.fromarray(np.full((44, 37), 9, np.uint8)).save(mask)
    data = read_masks(masked).with_val(seed=0, resplit=False)
    with caplog.at_level("WARNING"):
        assert segmentation.check_masks(data, Extractor(), (255,)).names == ("0", "1", "2", "9")
    assert "no training mask has 9, which cannot be learned" in caplog.text


def test_a_damaged_mask_is_named(masked):
    path = masked / "test" / "masks" / "8.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(RunError, match=r"8\.png"):
        segmentation.check_masks(read_masks(masked), Extractor(), (255,))
