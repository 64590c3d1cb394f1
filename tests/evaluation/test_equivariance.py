"""`fastaugself eval equivariance`: the views, their cache, the results, the page and its errors."""

import copy
import json

import numpy as np
import pytest
import tiny_runs
import torch

from fastaugself import SEN, SIE, AugSelf, EquiMod, SeqJEPA, SimCLR, ViewPolicy
from fastaugself.errors import UsageError
from fastaugself.evaluation import equivariance
from fastaugself.evaluation.commands_equivariance import Equivariance
from fastaugself.evaluation.datasets import read_dataset
from fastaugself.evaluation.encoder import Encoder
from fastaugself.evaluation.encoders import load_encoder
from fastaugself.evaluation.equivariance import encode, policies
from fastaugself.evaluation.features import Extractor
from fastaugself.evaluation.fusion import fuse
from fastaugself.evaluation.own_predictor import own_predictor
from fastaugself.probes.equivariance import score_photos
from fastaugself_kernels import augment, sample_params

BLACK = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class Pooled(torch.nn.Module):
    """Features of a view: its mean color in the four quarters."""

    def forward(self, x_BCHW):
        return torch.nn.functional.adaptive_avg_pool2d(x_BCHW, 2).flatten(1)


@pytest.fixture
def encoder():
    return Encoder("pooled", "", Pooled().eval(), 24, *BLACK, digest="pooled")


@pytest.fixture
def photos(photo_folder, tmp_path):
    """Train and test folders of two classes, nine and three photos each."""
    for split, numbers in (("train", range(9)), ("test", range(9, 12))):
        for name in ("chelsea", "coffee"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in numbers:
                data = (photo_folder / name / f"{i:02d}.jpg").read_bytes()
                (tmp_path / "photos" / split / name / f"{i}.jpg").write_bytes(data)
    return tmp_path / "photos"


def test_views_are_addressed_by_seed_photo_and_number(encoder, photos):
    split, policy = read_dataset(photos).splits["train"], policies(24)["all"]
    found = encode(Extractor(batch_size=5), encoder, split, policy, views=3, seed=7)
    for photo, view in ((0, 0), (4, 2), (13, 1)):
        image = np.array(split.images.open(photo))
        sizes = torch.tensor([image.shape[:2]], dtype=torch.int32)
        params = sample_params(torch.tensor([photo]), sizes, (policy,) * 3, seed=7, epoch=0)
        x = augment(
            torch.from_numpy(image).reshape(-1), torch.tensor([0]), sizes, params, size=24, mean=BLACK[0], std=BLACK[1],
            blur_kernel=5,
        )  # fmt: skip
        expected = Pooled()(x[view])[0]
        torch.testing.assert_close(found.features.x_ND[photo * 3 + view], expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(found.params_KNP[view, photo], params[view, 0])
        assert found.sizes_N2[photo].tolist() == list(image.shape[:2])
    more = encode(Extractor(), encoder, split, policy, views=5, seed=7)
    assert torch.equal(more.params_KNP[:3], found.params_KNP)
    other = encode(Extractor(), encoder, split, policy, views=3, seed=8)
    assert not (other.params_KNP[..., :4] == found.params_KNP[..., :4]).all(-1).any()


def test_models_of_other_sizes_have_views_with_the_same_parameters(encoder, photos):
    split = read_dataset(photos).splits["test"]
    large = copy.copy(encoder)
    large.size = 32
    first, second = (encode(Extractor(), m, split, policies(m.size)["all"], views=2, seed=0) for m in (encoder, large))
    assert torch.equal(first.params_KNP, second.params_KNP)
    assert fuse([first.features, second.features]).x_ND.shape == (12, 24)
    other = encode(Extractor(), large, split, policies(32)["all"], views=2, seed=1)
    with pytest.raises(UsageError, match="different images"):
        fuse([first.features, other.features])


def test_views_are_encoded_once(encoder, photos, tmp_path, monkeypatch):
    split, extract = read_dataset(photos).splits["test"], Extractor(folder=tmp_path / "cache")
    first = encode(extract, encoder, split, policies(24)["crop"], views=2, seed=0)

    def fails(self, x_BCHW):
        raise RuntimeError("encoded again")

    monkeypatch.setattr(Pooled, "forward", fails)
    again = encode(extract, encoder, split, policies(24)["crop"], views=2, seed=0)
    assert torch.equal(first.features.x_ND, again.features.x_ND) and torch.equal(first.params_KNP, again.params_KNP)
    assert torch.equal(first.shift_KN3, again.shift_KN3) and torch.equal(first.sizes_N2, again.sizes_N2)
    for changed in ({"views": 3, "seed": 0}, {"views": 2, "seed": 1}):
        with pytest.raises(RuntimeError, match="encoded again"):
            encode(extract, encoder, split, policies(24)["crop"], **changed)
    with pytest.raises(RuntimeError, match="encoded again"):
        encode(extract, encoder, split, policies(24)["color"], views=2, seed=0)


@pytest.mark.parametrize(
    ("name", "varies"),
    [
        ("crop", {"top", "left", "height", "width"}),
        ("color", {"order", "brightness", "contrast", "saturation", "hue"}),
        ("blur", {"sigma"}),
        ("flip", {"flip"}),
        ("grayscale", {"gray"}),
        ("rotation", {"rotation"}),
    ],
)
def test_a_policy_varies_one_augmentation_only(name, varies, encoder, photos):
    from fastaugself_kernels.params import COLUMNS

    split = read_dataset(photos).splits["train"]
    found = encode(Extractor(), encoder, split, policies(24)[name], views=8, seed=0)
    different = (found.params_KNP != found.params_KNP[:1]).any(0).any(0)
    # The order of the jitter is drawn whether or not there is jitter, and then has no effect.
    assert {c for c, d in zip(COLUMNS, different.tolist(), strict=True) if d} - {"order"} == varies - {"order"}
    a_NKn = found.parameters(policies(24)[name])
    assert a_NKn.shape[:2] == (18, 8) and bool((a_NKn != a_NKn[:, :1]).any())
    if name == "rotation":
        turns = found.params_KNP[..., COLUMNS.index("rotation")].T
        same = (a_NKn[:, :, None] == a_NKn[:, None]).all(-1)
        assert torch.equal(same, turns[:, :, None] == turns[:, None]) and len(turns.unique()) == 4


@pytest.mark.parametrize("size", [(96, 97), (97, 96), (60, 60), (50, 80)])
def test_a_crop_that_does_not_vary_is_the_same_in_all_views(size):
    from fastaugself.evaluation.views import centred

    sizes = torch.tensor([size] * 40, dtype=torch.int32)
    fixed, free = (policies(24)["flip"],) * 2, (policies(24)["crop"],) * 2
    params = centred(sample_params(torch.arange(40), sizes, fixed, seed=0, epoch=0), sizes, fixed)
    H, W = size
    side = min(size)
    box = torch.tensor([(H - side) // 2, (W - side) // 2, side, side], dtype=torch.float32)
    assert torch.equal(params[..., :4], box.expand(2, 40, 4))
    drawn = sample_params(torch.arange(40), sizes, free, seed=0, epoch=0)
    assert torch.equal(centred(drawn, sizes, free), drawn)


def test_what_an_encoder_sees_is_scored_above_chance_and_what_it_ignores_is_not(encoder, photos):
    extract, dataset = Extractor(), read_dataset(photos)

    def score(module, name):
        model = Encoder("m", "", module, 24, *BLACK, digest="m")
        policy = policies(24)[name]
        f, a = [], []
        for split, seed in (("train", 0), ("test", 1)):
            found = encode(extract, model, dataset.splits[split], policy, views=8, seed=seed)
            f.append(found.features.x_ND.unflatten(0, (-1, 8)))
            a.append(found.parameters(policy))
        predictor = equivariance.fit_predictor(f[0], a[0], epochs=60, batch_size=32, hidden=64)
        unit = equivariance.Standard(a[0].flatten(0, 1))
        return equivariance.summary(equivariance.measure(predictor, f[1], a[1], unit(a[1])), unit(a[1]), seed=0)

    color = score(Pooled(), "color")
    assert color.scores["MRR"].low > color.chance["MRR"] and color.scores["PRE"].high < color.chance["PRE"]
    assert color.scores["gain"].low > 0

    class Mirrored(torch.nn.Module):
        def forward(self, x_BCHW):
            return Pooled()(x_BCHW) + Pooled()(x_BCHW.flip(3))

    ignored = score(Mirrored(), "flip")
    for metric, chance in (("MRR", 761 / 280 / 8), ("H@1", 1 / 8), ("H@5", 5 / 8)):  # 761 / 280 = 1 + 1/2 + ... + 1/8
        assert ignored.scores[metric].value == pytest.approx(chance) == ignored.chance[metric]
    assert ignored.scores["PRE"].value == pytest.approx(ignored.chance["PRE"]) and ignored.ceiling["MRR"] < 0.7


def test_the_command_writes_rows_and_a_page_and_repeats_them(photos, tmp_path, capsys):
    def call(out):
        command = Equivariance(
            ("a@random:resnet18", "b@random:resnet34"),
            photos,
            augmentations=("color", "flip"),
            views=6,
            train_views=3,
            epochs=2,
            size=32,
            out=tmp_path / out,
            cache=tmp_path / "cache",
            device="cpu",
        )
        return command()

    rows = call("out")
    assert [row.models for row in rows[::10]] == [("a",), ("b",), ("a", "b")] and len(rows) == 3 * 2 * 5
    assert [row.metric for row in rows[:10]] == [
        f"{metric} under {name}" for name in ("color", "flip") for metric in ("MRR", "H@1", "H@5", "PRE", "gain")
    ]
    assert all(row.score.low <= row.score.value <= row.score.high and row.samples == 6 for row in rows)
    (path,) = (tmp_path / "out").glob("*.json")
    record = json.loads(path.read_text())
    details = {row["metric"]: row["details"] for row in record["rows"]}
    assert details["MRR under color"] == {"chance": pytest.approx(2.45 / 6), "ceiling": 1.0}
    assert details["H@1 under flip"]["chance"] == pytest.approx(1 / 6) and details["H@1 under flip"]["ceiling"] < 0.8
    printed = capsys.readouterr().out
    assert "MRR under color 0." in printed and "chance 0.4083" in printed and "at most" in printed
    page = path.with_suffix(".html").read_text()
    assert "a, color: 0." in page and "a + b, flip: 0." in page and "at most" in page and ">0.408<" in page
    again = call("again")
    assert [row.score for row in again] == [row.score for row in rows]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 1}, "--views must be at least 2, got 1"),
        ({"train_views": 1}, "--train-views must be at least 2, got 1"),
        ({"augmentations": ("crop", "zoom")}, "unknown augmentation zoom; pass --augmentations with some of all, crop"),
        ({"augmentations": ()}, "no augmentation given; pass --augmentations with some of all, crop"),
        ({"limit": 5}, r"5 photos in the train split.* at least 8: pass --data with more photos, or a larger --limit"),
    ],
)
def test_bad_options_are_refused(options, message, photos, tmp_path):
    with pytest.raises(ValueError, match=message):
        Equivariance(("random:resnet18",), photos, out=tmp_path / "out", size=32, **options)()
    assert not list((tmp_path / "out").glob("*.json"))


OWN = {
    "equimod": EquiMod(hidden=16, dim=8, condition_dim=6),
    "experts": EquiMod(experts=2, residual=True, condition_dim=6),
    "sen": SEN(hidden=16, dim=8),
    "sie": SIE(hidden=16, dim=8),
    "seqjepa": SeqJEPA(action_dim=8, depth=1, hidden=16),
}


@pytest.mark.parametrize("name", OWN)
def test_a_run_is_also_measured_by_its_own_predictor(name, beton, photos, tmp_path):
    run = tmp_path / name
    off = AugSelf(crop=0, color=0)
    tiny_runs.train(tiny_runs.config(beton, run, method=SimCLR(dim=8), augself=off, aware=(OWN[name],), max_steps=2))
    options = {"models": (str(run),), "data": photos, "augmentations": ("crop",), "views": 3, "train_views": 2}
    rows = Equivariance(**options, epochs=1, out=tmp_path / "out", cache=tmp_path / "cache")()
    title = OWN[name].title
    found = {row.metric: row for row in rows}
    assert f"MRR by {title} under crop" in found and "MRR under crop" in found
    assert f"{title}&#x27;s own predictor" in next((tmp_path / "out").glob("equivariance-*.html")).read_text()

    encoder = load_encoder(str(run))
    own = own_predictor(encoder)
    every, split = policies(encoder.size), read_dataset(photos).splits["test"]
    views = encode(Extractor(), encoder, split, every["crop"], views=3, seed=1)
    f = views.features.x_ND.unflatten(0, (-1, 3))
    plain = encode(Extractor(), encoder, split, ViewPolicy.none(encoder.size), views=1, seed=0).features.x_ND
    a = own.condition(views.params_KNP, views.sizes_N2)
    y = torch.stack([own.embed_view(f[:, k]) for k in range(3)], 1)
    sources = [plain] * 3 if name in ("equimod", "experts") else [f[:, k] for k in range(3)]
    yhat = torch.stack([
        torch.stack([own.predict_view(sources[i], a[:, i], a[:, j]) for j in range(3)], 1) for i in range(3)
    ], 1)  # fmt: skip
    parameters = views.parameters(every["crop"])
    scores = score_photos(y, yhat, equivariance.Standard(parameters.flatten(0, 1))(parameters))
    assert found[f"MRR by {title} under crop"].score.value == pytest.approx(float(scores.mrr_N.mean()), abs=1e-6)
    assert found[f"gain by {title} under crop"].score.value == pytest.approx(float(scores.gain_N.mean()), abs=1e-5)


def test_models_without_a_predictor_have_none(beton, tmp_path, encoder):
    assert own_predictor(encoder) is None
    tiny_runs.train(tiny_runs.config(beton, tmp_path / "run", max_steps=1))
    assert own_predictor(load_encoder(str(tmp_path / "run"))) is None


def test_features_that_cannot_be_fused_are_refused_before_a_predictor_is_trained(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(equivariance, "fit_predictor", lambda *_, **__: pytest.fail("a predictor was trained"))
    options = {"size": 32, "fuse": "mean", "augmentations": ("flip",), "views": 2, "cache": tmp_path / "cache"}
    with pytest.raises(UsageError, match="cannot be fused by mean; pass --fuse concat"):
        Equivariance(("random:resnet18", "random:resnet50"), photos, out=tmp_path / "out", **options)()
