"""`eval robustness`: clean and shifted accuracies, mCE and flip rates of whole commands, classes by name, refusals."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from tiny_eval import call
from trees import photo

from fastaugself.errors import UsageError
from fastaugself.evaluation import robustness
from fastaugself.evaluation.corruptions import Corrupted, corrupt
from fastaugself.evaluation.datasets import read_dataset
from fastaugself.evaluation.encoders import load_encoder
from fastaugself.evaluation.features import Extractor
from fastaugself.evaluation.robustness import ScoredSet, read_baseline, train_labels
from fastaugself.evaluation.splits import with_val
from fastaugself.probes.linear import Probe, choose_probe

FISH, GOLDFISH = "n01440764", "n01443537"


@pytest.fixture
def imagenet(photos, tmp_path):
    """The photos of two classes with WordNet ids as names."""
    for split in ("train", "test"):
        for name, wordnet_id in (("chelsea", FISH), ("coffee", GOLDFISH)):
            shutil.move(photos / split / name, tmp_path / "imagenet" / split / wordnet_id)
    return tmp_path / "imagenet"


def dark(root, imagenet, classes=(FISH, GOLDFISH), light=0.2):
    """Copies of the test photos with less light."""
    for name in classes:
        for path in sorted((imagenet / "test" / name).iterdir()):
            (root / name).mkdir(parents=True, exist_ok=True)
            ImageEnhance.Brightness(Image.open(path)).enhance(light).save(root / name / path.name, quality=95)
    return root


def rows_of(folder):
    (path,) = folder.glob("*.json")
    return {(" + ".join(row["models"]), row["metric"]): row for row in json.loads(path.read_text())["rows"]}


def options(imagenet, tmp_path):
    return ("--data", imagenet, "--out", tmp_path / "out", "--cache", tmp_path / "cache", "--device", "cpu")


def fitted(run, imagenet, resize=0):
    """The encoder, and the probe on clean photos."""
    encoder = load_encoder(run, device="cpu")
    dataset = with_val(read_dataset(imagenet), seed=0)
    extract = Extractor(resize=resize)
    train, val = (extract(encoder, dataset.split(name), name).x_ND for name in ("train", "val"))
    labels, val_labels = (torch.from_numpy(dataset.split(name).labels_N) for name in ("train", "val"))
    return encoder, choose_probe(train, labels, val, val_labels).probe


@pytest.fixture
def probe(run, imagenet):
    return fitted(run, imagenet)


def predicted(probe, pictures):
    encoder, of = probe
    return of.logits(encoder.embed(pictures)).argmax(1).numpy()


# Whole commands


def test_accuracies_are_those_of_the_probe_on_each_set(run, other, imagenet, probe, tmp_path):
    dark(tmp_path / "night", imagenet)
    arguments = (f"imagenet-r={tmp_path / 'night'}", tmp_path / "night")
    assert call("robustness", run, other, "--shifted", *arguments, *options(imagenet, tmp_path)) == 0
    rows = rows_of(tmp_path / "out")
    files = [path for name in (FISH, GOLDFISH) for path in sorted((imagenet / "test" / name).iterdir())]
    truth = np.array([0] * 4 + [1] * 4)
    clean = (predicted(probe, files) == truth).mean()
    night = [Image.open(tmp_path / "night" / path.parent.name / path.name) for path in files]
    shifted = (predicted(probe, night) == truth).mean()
    assert rows["tiny", "accuracy (clean)"]["value"] == clean
    assert rows["tiny", "accuracy on imagenet-r"]["value"] == rows["tiny", "accuracy on night"]["value"] == shifted
    assert rows["tiny", "accuracy (clean)"]["low"] <= clean <= rows["tiny", "accuracy (clean)"]["high"]
    models = ["tiny", "other", "tiny + other"]
    assert {model for model, _ in rows} == set(models) and len(rows) == 9
    page = next((tmp_path / "out").glob("*.html")).read_text()
    assert all(f">{model}</th>" in page for model in models) and page.count("<tr><td>accuracy") == 3


def test_corruptions_are_computed_and_their_errors_averaged(run, imagenet, probe, tmp_path):
    own = ("--corruptions", "contrast", "gaussian_noise", "--severities", 5, 2, "--corruption-size", 48)
    assert call("robustness", run, *own, "--baseline", "tiny", *options(imagenet, tmp_path)) == 0
    rows = rows_of(tmp_path / "out")
    truth, errors = np.array([0] * 4 + [1] * 4), []
    for name in ("contrast", "gaussian_noise"):
        right = {}
        for severity in (2, 5):
            pictures = []
            for kind in (FISH, GOLDFISH):
                for path in sorted((imagenet / "test" / kind).iterdir()):
                    square = Image.open(path)
                    width, height = square.size
                    short = min(width, height)
                    resized = square.resize(
                        (int(48 * width / short), int(48 * height / short)), Image.Resampling.BICUBIC
                    )
                    left, top = round((resized.width - 48) / 2), round((resized.height - 48) / 2)
                    crop = np.asarray(resized.crop((left, top, left + 48, top + 48)))
                    made = tmp_path / "made.jpg"
                    Image.fromarray(corrupt(crop, name, severity, seed=0)).save(made, quality=85)
                    pictures.append(Image.open(made).convert("RGB"))
            right[severity] = predicted(probe, pictures) == truth
        row = rows["tiny", f"accuracy under {name}"]
        assert row["details"]["by_severity"] == {str(s): right[s].mean() for s in (2, 5)}
        assert row["value"] == pytest.approx((right[2].mean() + right[5].mean()) / 2)
        errors.append(1 - row["value"])
    assert rows["tiny", "mCE"]["value"] == pytest.approx(np.mean(errors))
    if min(errors) > 0:
        assert rows["tiny", "mCE relative to tiny"]["value"] == pytest.approx(1)
    assert len(rows) == 4 + (min(errors) > 0)


def test_imagenet_c_and_p_are_tested_on_their_own_files(run, imagenet, tmp_path):
    """Files of noise: the accuracies, errors relative to a file, and flips are those of the probe's predictions."""
    generator = np.random.default_rng(1)
    probe = fitted(run, imagenet, resize=40)  # of photos only: the files are cropped already, and seen whole
    pictures = {}
    for severity in (1, 3):
        for kind in (FISH, GOLDFISH):
            for i in range(3):
                path = tmp_path / "c" / "weather" / "fog" / str(severity) / kind / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = pictures[severity, kind, i] = Image.fromarray(
                    generator.integers(0, 255, (32, 32, 3), np.uint8)
                )
                picture.save(path)
    clips = {}
    for name in ("gaussian_noise", "tilt"):
        for kind in (FISH, GOLDFISH):
            folder = tmp_path / "p" / name / kind / "clip"
            folder.mkdir(parents=True)
            clips[name, kind] = [Image.fromarray(generator.integers(0, 255, (32, 32, 3), np.uint8)) for _ in range(7)]
            for i, frame in enumerate(clips[name, kind]):
                frame.save(folder / f"{i}.png")
    baseline = tmp_path / "base.json"
    baseline.write_text(json.dumps({"fog": 0.25, "imagenet-p/gaussian_noise": 0.5, "imagenet-p/tilt": 1.0}))
    own = ("--corruptions", "fog", "--severities", 1, 3, "--baseline", baseline, "--resize", 40)
    sets = ("--shifted", f"imagenet-c={tmp_path / 'c'}", f"imagenet-p={tmp_path / 'p'}")
    assert call("robustness", run, *sets, *own, *options(imagenet, tmp_path)) == 0
    rows = rows_of(tmp_path / "out")
    truth = np.array([0, 0, 0, 1, 1, 1])
    right = [
        (predicted(probe, [pictures[s, kind, i] for kind in (FISH, GOLDFISH) for i in range(3)]) == truth).mean()
        for s in (1, 3)
    ]
    assert rows["tiny", "accuracy under fog (imagenet-c)"]["value"] == pytest.approx(np.mean(right))
    assert rows["tiny", "mCE (imagenet-c)"]["value"] == pytest.approx(1 - np.mean(right))
    assert rows["tiny", "mCE (imagenet-c) relative to base"]["value"] == pytest.approx((1 - np.mean(right)) / 0.25)
    rates = {}
    for name in ("gaussian_noise", "tilt"):
        flips = []
        for kind in (FISH, GOLDFISH):
            found = predicted(probe, clips[name, kind])
            flips.append(np.mean([found[i] != found[0 if name == "gaussian_noise" else i - 1] for i in range(1, 7)]))
        rates[name] = np.mean(flips)
        assert rows["tiny", f"flip rate under {name} (imagenet-p)"]["value"] == pytest.approx(rates[name])
    assert rows["tiny", "mFR (imagenet-p)"]["value"] == pytest.approx(np.mean(list(rates.values())))
    relative = (rates["gaussian_noise"] / 0.5 + rates["tilt"] / 1.0) / 2
    assert rows["tiny", "mFR (imagenet-p) relative to base"]["value"] == pytest.approx(relative)


def test_computed_corruptions_score_as_the_same_files_in_imagenet_cs_folders(run, other, imagenet, tmp_path):
    clean = read_dataset(imagenet).splits["test"]
    for severity in (1, 4):
        kept = {}
        images = Corrupted(clean.images, "impulse_noise", severity, 0, 40, 40, "bicubic", kept)
        for i in range(len(clean)):
            images.open(i)
            path = tmp_path / "c" / "noise" / "impulse_noise" / str(severity) / clean.names[i]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(kept[i])
    own = ("--corruptions", "impulse_noise", "--severities", 1, 4, "--corruption-size", 40)
    found = []
    for name, shifted in (("computed", ()), ("files", ("--shifted", f"imagenet-c={tmp_path / 'c'}"))):
        where = ("--data", imagenet, "--out", tmp_path / name, "--cache", tmp_path / "cache", "--device", "cpu")
        assert call("robustness", run, other, *own, *shifted, *where) == 0
        rows = rows_of(tmp_path / name).items()
        found.append([(*models, metric.replace(" (imagenet-c)", ""), row["value"]) for (*models, metric), row in rows])
    assert found[0] == found[1] and len(found[0]) == 9


def test_a_set_with_some_classes_is_chosen_among_these_and_beside_the_clean_photos_of_these(run, imagenet, tmp_path):
    """The set has one of two classes and one that the training data lacks."""
    dark(tmp_path / "art", imagenet, (GOLDFISH,), light=1.0)
    (tmp_path / "art" / GOLDFISH).rename(tmp_path / "art" / FISH)  # photos that would be taken for the other class
    photo(tmp_path / "art" / "n09999999" / "a.jpg", size=(40, 40))
    arguments = (run, "--shifted", f"imagenet-r={tmp_path / 'art'}", *options(imagenet, tmp_path))
    assert call("robustness", *arguments) == 2
    assert call("robustness", *arguments, "--shared-classes") == 0  # the remedy of the message
    rows = rows_of(tmp_path / "out")
    assert rows["tiny", "accuracy (clean, classes of imagenet-r)"]["samples"] == 4
    assert rows["tiny", "accuracy on imagenet-r"]["samples"] == 4
    assert rows["tiny", "accuracy on imagenet-r"]["value"] == 1  # the only class to choose from
    assert rows["tiny", "accuracy on imagenet-r"]["details"]["classes"] == 1


def test_limit_takes_whole_sequences(run, imagenet, tmp_path):
    for i in range(5):
        for frame in range(3):
            photo(tmp_path / "p" / "tilt" / FISH / f"clip{i}" / f"{frame}.png", color=40 * i + frame, size=(33, 33))
    arguments = ("--shifted", f"imagenet-p={tmp_path / 'p'}", "--limit", 2, *options(imagenet, tmp_path))
    assert call("robustness", run, *arguments) == 0
    assert rows_of(tmp_path / "out")["tiny", "flip rate under tilt (imagenet-p)"]["samples"] == 2


# Classes


def test_classes_are_matched_by_name_whatever_their_order(tmp_path):
    for name in ("b", "d", "a"):
        photo(tmp_path / "set" / name / "x.jpg")
    dataset = read_dataset(tmp_path / "set")
    _, labels = train_labels("set", dataset, ["a", "b", "c", "d"], shared=False)
    assert dataset.classes == ("a", "b", "d") and labels.tolist() == [0, 1, 3]
    with pytest.raises(
        UsageError, match=r"set: class b \(2 in all\) is not a class of the training data: pass --shared"
    ):
        train_labels("set", dataset, ["a", "c"], shared=False)
    kept, labels = train_labels("set", dataset, ["c", "a"], shared=True)
    assert labels[kept.splits["all"].labels_N].tolist() == [1]
    with pytest.raises(UsageError, match=r"has no class of the training data: its classes are a, \.\.\., those .* x, "):
        train_labels("set", dataset, ["x", "y"], shared=True)


def test_v2s_positions_are_those_of_the_sorted_wordnet_ids(tmp_path, timm):
    for name in (0, 1, 217, 999):
        photo(tmp_path / str(name) / "x.jpg")
    dataset = read_dataset(tmp_path, "imagenet-v2")
    thousand = [f"n{10**7 + i}" for i in range(1000)]
    assert train_labels("v2", dataset, thousand, shared=False)[1].tolist() == [0, 1, 217, 999]
    some = ["n02102040", GOLDFISH, FISH]  # English springer is 217, as in ImageNet's list
    _, labels = train_labels("v2", dataset, some, shared=True)
    assert labels.tolist() == [2, 1, 0, -1]


def test_predictions_are_restricted_to_the_classes_of_a_set():
    probe = Probe(torch.eye(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), 0.0, 0)
    x = torch.tensor([[5.0, 1, 2, 0], [0, 1, 0, 3]])
    assert robustness.predict(probe, x).tolist() == [0, 3]
    assert robustness.predict(probe, x, (2, 1)).tolist() == [2, 1]


# Baselines


def sets(names, severities=(1, 2, 3, 4, 5), computed=False):
    return [
        ScoredSet(n, None, np.zeros(1, np.int64), "corruption", s, computed=computed) for n in names for s in severities
    ]


def test_alexnet_is_for_imagenet_cs_own_files_and_classes():
    assert read_baseline("alexnet", sets(["fog"]), 1000).values["fog"] == 0.819324
    for tests, classes in ((sets(["fog"]), 10), (sets(["fog"], computed=True), 1000), ([], 1000)):
        with pytest.raises(
            UsageError, match=r"AlexNet's errors are published for the files of ImageNet-C .* pass --base"
        ):
            read_baseline("alexnet", tests, classes)
    with pytest.raises(UsageError, match="means over severities 1 to 5, got 1 3: pass --severities 1 2 3 4 5"):
        read_baseline("alexnet", sets(["fog"], (1, 3)), 1000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            None,
            "neither alexnet, nor one of the models, nor a file: pass --baseline with the name of a model, or a JSON",
        ),
        ("[1]", "is not a JSON file of numbers by name"),
        ("{", "is not a JSON file of numbers by name"),
        ('{"snow": 0.5}', "lacks fog: add it, as an error from 0 to 1"),
        ('{"fog": 0}', "fog is 0, expected an error above 0 and at most 1"),
        ('{"fog": 86}', "fog is 86, expected an error above 0 and at most 1"),
    ],
)
def test_a_wrong_baseline_file_is_refused(content, message, tmp_path):
    if content is not None:
        (tmp_path / "base.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_baseline(str(tmp_path / "base.json"), sets(["fog"]), 10)


# Refusals


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (("--corruptions", "mist"), "unknown corruption mist: pass --corruptions all, or some of gaussian_noise, "),
        (("--severities", "6"), "--severities takes numbers from 1 to 5, got 6: pass --severities 1 2 3 4 5"),
        (("--corruption-size", "31"), "--corruption-size must be at least 32, got 31"),
        (
            ("--shifted", "imagenet-q=x"),
            "--shifted imagenet-q=x: there is no data set imagenet-q; did you mean imagenet-",
        ),
        (("--shifted", "imagenet-r="), "nothing follows =; pass --shifted NAME=PATH, such as imagenet-r=imagenet-r"),
        (("--shifted", "imagenet-c=x"), "x: no such file or folder"),
        (("--shifted", "{night}", "{night}"), "night is there twice: pass each set once"),
        (("--shifted", "{night}", "--baseline", "tiny"), "there are none: pass --corruptions all, or omit --baseline"),
        (
            ("--shifted", "imagenet-a={art}"),
            "imagenet-a: class n09999999 (1 in all) is not a class of the training data",
        ),
        (
            ("--corruptions", "all", "--baseline", "alexnet"),
            "AlexNet's errors are published for the files of ImageNet-C",
        ),
        (
            ("--corruptions", "all", "--baseline", "vgg"),
            "--baseline vgg is neither alexnet, nor one of the models, nor",
        ),
    ],
)
def test_wrong_options_and_classes_are_refused_before_a_feature_is_extracted(
    own, message, run, imagenet, tmp_path, capsys, monkeypatch
):
    def no_features(*_):
        raise AssertionError("features were extracted")

    monkeypatch.setattr(Extractor, "rows", no_features)
    dark(tmp_path / "night", imagenet)
    dark(tmp_path / "art", imagenet, (FISH,))
    photo(tmp_path / "art" / "n09999999" / "a.jpg")
    own = [text.replace("{night}", str(tmp_path / "night")).replace("{art}", str(tmp_path / "art")) for text in own]
    capsys.readouterr()
    assert call("robustness", run, *own, *options(imagenet, tmp_path)) == 2
    assert message in " ".join(capsys.readouterr().err.split())
