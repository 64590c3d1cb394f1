"""`fastaugself eval suite`: its table against single commands and SciPy's ranks, resuming, and early refusals."""

import csv
import itertools
import re

import numpy as np
import pytest
from tiny_eval import call
from trees import photo
from vtab_trees import VTAB as TREES

from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation.commands import Knn, Linear
from fastaugself.evaluation.commands_suite import Suite
from fastaugself.evaluation.datasets import readers
from fastaugself.evaluation.suite_table import Table, comma_separated, html, markdown, ranks
from fastaugself.evaluation.suites import ABOUT, PAPERS, VTAB, suite


@pytest.fixture
def listed(photos, tmp_path):
    """A suite of two protocols on one folder of photos."""
    path = tmp_path / "two.toml"
    path.write_text(
        'protocol = "knn"\n[data.near]\npath = "photos"\nneighbors = 3\n'
        '[data.shots]\npath = "photos"\nprotocol = "fewshot"\nways = 2\nshots = 1\nqueries = 2\nepisodes = 20\n'
    )
    return path


def options(run, other, listed, tmp_path, *more):
    out = ["--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    return [f"a@{run}", f"b@{other}", "--suite", listed, *out, *more]


def counted(monkeypatch, fails=()):
    """Counts the evaluations of a k-NN; those with a number in `fails` raise an error."""
    calls, evaluate = itertools.count(), Knn.__call__

    def call(self):
        if (number := next(calls)) in fails:
            raise RunError(f"no power in evaluation {number}")
        return evaluate(self)

    monkeypatch.setattr(Knn, "__call__", call)
    return calls


def rows(out):
    with open(next(out.glob("suite-*.csv"))) as file:
        return {(row["data"], row["model"]): row for row in csv.DictReader(file)}


@pytest.mark.parametrize("seed", range(4))
def test_ranks_are_scipys(seed):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(seed).integers(0, 6, 9).astype(float)
    assert ranks(values).tolist() == stats.rankdata(values).tolist()
    assert ranks(np.array([0.3, 0.1, 0.3, 0.2])).tolist() == [3.5, 1, 3.5, 2]


def filled():
    table = Table(["a", "b", "c"])
    for data, metric, values in (
        ("x", "top1", (0.5, 0.75, 0.5)),
        ("y", "mean square error", (0.1, 0.2, 0.05)),
        ("y", "R2", (0.9, 0.8, 0.7)),
    ):
        for model, value in zip("abc", values, strict=True):
            row = {"metric": metric, "value": value, "low": value - 0.05, "high": value + 0.05, "samples": 9}
            table.add(model, data, "p", [row], f"{data}-{model}.json")
    table.add("a", "z", "p", [{"metric": "top1", "value": 0.4, "low": 0.3, "high": 0.5, "samples": 9}], "z.json")
    table.failed["z", "b"] = table.failed["z", "c"] = "no <photos>"
    return table


def test_mean_ranks_are_over_the_data_sets_that_all_models_have_and_errors_count_the_other_way():
    """Several scores of a data set count as one."""
    table = filled()
    means, count = table.mean_ranks()
    assert count == 2
    assert means == pytest.approx(
        {"a": (2.5 + (2 + 1) / 2) / 2, "b": (1 + (3 + 2) / 2) / 2, "c": (2.5 + (1 + 3) / 2) / 2}
    )
    text = markdown(table, "Suite x", "about")
    assert "| y | mean square error (p) | 0.1000 (0.0500 to 0.1500) | 0.2000 (0.1500 to 0.2500) | **0.0500** (" in text
    assert "| mean rank | of 2 | 2.00 | 1.75 | 2.25 |" in text and "b failed on z: no <photos>" in text
    page = html(table, "Suite x", "about")
    assert page.count("failed</td>") == 2 and "no &lt;photos&gt;" in page and "rank 2.5" in page
    assert "y mean square error" in page and "smaller is better" in page
    found = list(csv.DictReader(comma_separated(table).splitlines()))
    assert [row["rank"] for row in found if row["data"] == "x"] == ["2.5", "1.0", "2.5"]
    assert next(row for row in found if row["data"] == "z")["rank"] == "" and len(found) == 10


def test_the_table_has_the_scores_of_the_single_commands(run, other, photos, listed, tmp_path, capsys):
    assert call("suite", *options(run, other, listed, tmp_path)) == 0
    printed = capsys.readouterr().out
    found = rows(tmp_path / "out")
    assert set(found) == {(data, model) for data in ("near", "shots") for model in "ab"}
    common = {"data": photos, "fuse": "none", "out": tmp_path / "single", "cache": tmp_path / "cache"}
    for row in Knn(models=(f"a@{run}", f"b@{other}"), neighbors=3, **common)():
        cell = found["near", row.models[0]]
        assert tuple(float(cell[name]) for name in ("value", "low", "high")) == tuple(row.score)
        assert cell["samples"] == "8" and (tmp_path / "out" / cell["file"]).exists()
    assert "mean rank" in printed and "suite-two.html" in printed and "top1" not in printed.split("near")[0]


def test_finished_scores_are_kept_and_failed_ones_are_repeated(run, other, listed, tmp_path, monkeypatch, capsys):
    calls = counted(monkeypatch, fails={1})
    arguments = options(run, other, listed, tmp_path)
    assert call("suite", *arguments) == 1
    said = capsys.readouterr()
    assert "b could not be evaluated on near: no power in evaluation 1" in said.err and "b failed" in said.out
    first = rows(tmp_path / "out")
    assert ("near", "b") not in first and len(first) == 3
    assert call("suite", *arguments) == 0 and next(calls) == 3  # one more evaluation
    complete = rows(tmp_path / "out")
    assert {key: complete[key]["file"] for key in first} == {key: row["file"] for key, row in first.items()}
    assert call("suite", *arguments) == 0 and next(calls) == 4 and rows(tmp_path / "out") == complete
    assert call("suite", *arguments, "--again") == 0 and next(calls) == 7


def test_results_of_other_options_and_other_weights_are_not_kept(run, other, listed, tmp_path, monkeypatch):
    calls = counted(monkeypatch)
    assert call("suite", *options(run, other, listed, tmp_path, "--only", "near")) == 0 and next(calls) == 2
    assert (
        call("suite", *options(run, other, listed, tmp_path, "--only", "near", "--limit", 3)) == 0 and next(calls) == 5
    )
    assert (
        call("suite", *options(run, other, listed, tmp_path, "--only", "near", "--seed", 1)) == 0 and next(calls) == 8
    )
    assert call("suite", *options(other, other.parent, listed, tmp_path, "--only", "near")) == 2  # equal names are not
    assert call("suite", f"a@{other}", *options(run, other, listed, tmp_path, "--only", "near")[2:]) == 0
    assert next(calls) == 9  # the weights of b, which were evaluated, under the name of a
    assert rows(tmp_path / "out")["near", "a"]["value"]


def test_results_of_a_command_with_several_models_are_used(run, other, photos, listed, tmp_path, monkeypatch):
    common = {"data": photos, "out": tmp_path / "out", "cache": tmp_path / "cache", "neighbors": 3}
    expected = Knn(models=(f"x@{run}", f"y@{other}"), **common)()
    calls = counted(monkeypatch)
    assert call("suite", *options(run, other, listed, tmp_path, "--only", "near")) == 0 and next(calls) == 0
    found = rows(tmp_path / "out")
    assert [float(found["near", model]["value"]) for model in "ab"] == [row.score.value for row in expected[:2]]


def test_missing_data_sets_are_all_named_before_anything_runs(run, tmp_path, capsys):
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    where = ["--root", tmp_path / "data", "--out", tmp_path / "out"]
    assert call("suite", "nowhere", "--suite", "papers", *where) == 2
    error = capsys.readouterr().err
    assert "10 of 11 data sets are missing" in error and all(f"{name}: " in error for name in PAPERS[1:])
    assert (
        re.search(r"pass --at NAME=PATH .* or pass --only cifar10$", error.strip()) and not (tmp_path / "out").exists()
    )
    assert call("suite", "nowhere", "--suite", "papers", "--out", tmp_path / "out") == 2
    assert "pass --root" in capsys.readouterr().err
    assert call("suite", "nowhere", "--suite", "vtab", "--only", "cifar10", *where) == 2
    assert "--only cifar10 is not in the suite, which has caltech101, cifar100" in capsys.readouterr().err


def test_named_suites_are_complete_and_tasks_of_one_data_set_share_its_folder(tmp_path):
    assert len(PAPERS) == 11 and len(VTAB) == 19 and {*PAPERS, *VTAB} <= readers().keys() and len(ABOUT) == 3
    (tmp_path / "clevr").mkdir()
    found = {
        entry.name: entry for entry in suite("vtab", tmp_path, {"dsprites": tmp_path / "d", "svhn": tmp_path / "s"})
    }
    assert found["clevr-count"].path == found["clevr-distance"].path == tmp_path / "clevr"
    assert found["dsprites-location"].path == tmp_path / "d" and found["svhn"].path == tmp_path / "s"
    assert found["dtd"].path == tmp_path / "dtd" and found["dtd"].options == {"labelled": 1000}
    (robust,) = suite("robustness", tmp_path, {"imagenet-r": tmp_path / "r"})
    assert robust.options["shifted"][1] == f"imagenet-r={tmp_path / 'r'}" and len(robust.paths) == 5


def test_a_task_of_vtab_learns_from_a_thousand_samples(tmp_path, run):
    command = Linear(models=(str(run),), data=tmp_path, labelled=1000)
    TREES["eurosat"][0](tmp_path)
    for i in range(10, 130):
        for c in range(10):
            (tmp_path / "2750" / f"class{c:02d}" / f"{i}.jpg").symlink_to(tmp_path / "2750" / "class00" / "0.jpg")
    dataset = command.limited(readers()["eurosat"](tmp_path))
    sizes = {name: len(dataset.splits[name]) for name in ("train", "val", "test")}
    assert sizes == {"train": 780, "val": 200, "test": 260}  # there are no more than 780
    for name in ("train", "val"):
        assert len(np.unique(dataset.splits[name].labels_N)) == 10
    assert "800 of train and 200 of val" in dataset.how
    few = Linear(models=(str(run),), data=tmp_path, labelled=100, limit=50).limited(readers()["eurosat"](tmp_path))
    assert [len(few.splits[name]) for name in ("train", "val", "test")] == [50, 20, 50]


def test_a_list_of_folders_is_a_suite(run, photos, tmp_path):
    (tmp_path / "some.txt").write_text(f"# photos\nfirst = photos\n\nsecond={photos}  # the same\n")
    table = Suite(
        models=(f"m@{run}",), suite=str(tmp_path / "some.txt"), out=tmp_path / "out", cache=tmp_path / "cache"
    )()
    assert [column.data for column in table.cells] == ["first", "second"]
    assert {column.protocol for column in table.cells} == {"linear"} and table.mean_ranks()[0] == {"m": 1.0}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "photos\n", r"a.txt, line 1: expected NAME=PATH, got 'photos'"),
        ("a.txt", "# nothing\n", "a.txt names no data set"),
        ("a.txt", "x=a\nx=b\n", "names x twice"),
        ("a.toml", "[data.x\n", "is not TOML"),
        ("a.toml", "[sets.x]\npath='a'\n", "has sets: expected `protocol` and tables"),
        ("a.toml", "[data.x]\n", r"\[data.x\] needs path"),
        ("a.toml", "[data.x]\npath='a'\ndataset='cifar11'\n", "dataset cifar11 is unknown; known: folders, beton"),
        ("a.toml", "[data.x]\npath='a'\nprotocol='svm'\n", "protocol svm is unknown; known: knn, linear"),
        (
            "a.toml",
            "[data.x]\npath='a'\nprotocol='knn'\nshots=2\n",
            "knn has no option shots; it has labelled, limit, nei",
        ),
        ("a.toml", "[data.x]\npath='a'\nseed=2\n", "linear has no option seed"),
        ("a.toml", "[data.x]\npath='a'\nprotocol='knn'\nneighbors=0\n", "--neighbors must be at least 1, got 0"),
        ("a.toml", "[data.x]\npath='a'\n", r"1 of 1 data sets are missing \(x: .*a\)$"),
    ],
)
def test_a_suite_that_cannot_be_evaluated_is_refused_first(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    if "neighbors" in text:
        photo(tmp_path / "a" / "x" / "1.jpg")
    with pytest.raises(UsageError, match=message):
        Suite(models=("nowhere",), suite=str(tmp_path / name), out=tmp_path / "out")()
    assert not (tmp_path / "out").exists()


def test_an_unknown_suite_names_the_known_ones(tmp_path):
    with pytest.raises(UsageError, match="--suite vtob is unknown: pass --suite papers, vtab, robustness, or a file"):
        suite("vtob", tmp_path, {})
