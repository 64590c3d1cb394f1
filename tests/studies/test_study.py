"""The study: the commands it runs, that it resumes, and that its verdicts follow from the numbers."""

import json
import re
import sys
import time
from pathlib import Path

import pytest

import page
import plan
from fastaugself.errors import RunError, UsageError
from jobs import Runner, Step
from page import Cell, pair, verdicts
from study import Study, main
from study_table import about, block, study_table
from study_table import page as tables_page


@pytest.fixture
def data(tmp_path, photo_folder):
    """The data folders of the study; these tests read only the training photos."""
    for name in ("produce50", "signdigits10", "omniglot8", "imagenette128"):
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data" / "imagenette128" / "train").symlink_to(photo_folder)
    return tmp_path / "data"


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "recipe.py").write_text("")
    return tmp_path / "recipe.py"


def option(command, name):
    return command[command.index(name) + 1]


@pytest.fixture
def ran(monkeypatch):
    """Records the commands instead of running them; an evaluation writes a score that depends on the model's name."""
    commands = []

    def run(self, step, slot, output):
        commands.append(step)
        if "eval" not in step.command:
            return 0
        out, labels = Path(option(step.command, "--out")), [part.split("@")[0] for part in step.command if "@" in part]
        value = 0.2 + 0.1 * ("augself" in labels[0]) + 0.01 * len(labels)
        value += 0.05 * ("lr0.1" in labels[0]) - 0.1 * ("random" in labels[0]) - 0.05 * ("alone" in labels[0])
        row = {"models": labels, "metric": "hue (debiased)", "value": value}
        row["details"] = {"groups": {"crop": value, "color": value}}
        out.mkdir(parents=True, exist_ok=True)
        (out / "result.json").write_text(json.dumps({"rows": [{**row, "models": labels[:1]}, row]}))
        return 0

    monkeypatch.setattr(Runner, "_run", run)
    return commands


def study(tmp_path, data, recipe, **options):
    return Study(tmp_path / "study", data=data, recipe=recipe, methods=("moco",), lrs=(0.03, 0.1), **options)


def test_the_study_tunes_trains_and_measures_every_variant_alike(tmp_path, data, recipe, ran):
    study(tmp_path, data, recipe, options=("max-steps=5",))()
    trained = [step for step in ran if "--optim.lr" in step.command]
    names = {variant.name for variant in plan.variants(("moco",), tuple(plan.PARTS), True)} | {"none-augself-alone"}
    assert len(names) == 7
    tuning = [step for step in trained if option(step.command, "--seed") == "1000"]
    assert {step.name for step in tuning} == {f"tune-{name}-lr{lr}" for name in names for lr in ("0.03", "0.1")}
    assert {option(s.command, "--data.train").rsplit("/", 1)[1] for s in tuning} == {"tuning.beton"}
    final = [step for step in trained if step not in tuning]
    assert {step.name for step in final} == {f"{name}-s{seed}" for name in names for seed in range(3)}
    assert {option(step.command, "--optim.lr") for step in final} == {"0.1"}
    for key in ("--epochs", "--view.size", "--max-steps", "--augment.blur-kernel"):
        assert len({option(step.command, key) for step in trained}) == 1
    (ventral,) = (step.command for step in final if step.name == "moco-ventral-s0")
    assert option(ventral, "--view.jitter") == "0" and option(ventral, "--preset") == "moco"
    (alone,) = (step.command for step in final if step.name == "none-augself-alone-s1")
    assert "--augself-only" in alone
    (fused,) = (step.command for step in ran if step.name == "moco-fused-s2-produce50")
    assert [part.split("@")[0] for part in fused if "@" in part] == ["default", "ventral", "dorsal"]
    tuned = set((tmp_path / "study/data/tuning/train").rglob("*.jpg"))
    held_out = set((tmp_path / "study/data/tuning/test").rglob("*.jpg"))
    assert (
        len(tuned) == 56 and len(held_out) == 8 and not {p.resolve() for p in tuned} & {p.resolve() for p in held_out}
    )


def test_the_same_command_resumes_and_another_study_is_refused(tmp_path, data, recipe, ran):
    study(tmp_path, data, recipe, seeds=1)()
    first = len(ran)
    study(tmp_path, data, recipe, seeds=1)()
    assert len(ran) == first
    study(tmp_path, data, recipe, seeds=2)()
    assert {re.search(r"s(\d)", step.name)[1] for step in ran[first:]} == {"1"}
    with pytest.raises(UsageError, match="holds a study with --epochs 200, this command has 3"):
        study(tmp_path, data, recipe, epochs=3)()


def test_the_page_shows_means_differences_and_the_verdicts(tmp_path, data, recipe, ran):
    study(tmp_path, data, recipe)()
    html = (tmp_path / "study" / "study.html").read_text()
    for text in (
        "moco",
        "augself alone",
        "random weights",
        "default + ventral + dorsal",
        "+10.0",
        "<i>Shown at this scale</i>: produce50 (+10.00",
    ):
        assert text in html, text
    numbers = json.loads((tmp_path / "study" / "numbers.json").read_text())
    assert numbers["numbers"]["moco augself"]["produce50"] == {str(s): pytest.approx(31.0) for s in range(3)}
    assert numbers["numbers"]["moco base"]["crop"]["0"] == pytest.approx(0.21)
    assert numbers["numbers"]["moco default + ventral + dorsal"]["produce50"]["0"] == pytest.approx(23.0)
    assert numbers["invariance"]["random weights"]["hue"] == pytest.approx(0.11)
    with pytest.raises(UsageError, match="holds no study"):
        page.write_page(tmp_path)


BASE, MORE, LESS = (Cell({0: v, 1: v + 1, 2: v + 2}) for v in (20.0, 25.0, 12.0))
MIXED = Cell({0: 26.0, 1: 19.0, 2: 27.0})


@pytest.mark.parametrize(
    ("row", "base", "random", "alone", "verdict"),
    [
        (MORE, BASE, LESS, LESS, "Shown at this scale"),
        (MORE, BASE, LESS, MORE, "AugSelf's loss alone does as well"),
        (MORE, BASE, BASE, LESS, "no better than random weights"),
        (MORE, BASE, None, LESS, "Without random weights"),
        (MIXED, BASE, LESS, LESS, "Not in every seed"),
        (LESS, BASE, LESS, LESS, "refuted here"),
        (Cell({0: 30.0}), BASE, LESS, LESS, "1 seed: nothing can be claimed"),
    ],
)
def test_the_verdict_follows_from_the_numbers(row, base, random, alone, verdict):
    table = {("moco", "base"): {"produce50": base}, ("moco", "augself"): {"produce50": row}}
    table[("none", plan.ALONE)] = {"produce50": alone}
    if random is not None:
        table[("none", plan.RANDOM)] = {"produce50": random}
    (found,) = verdicts(table)
    assert verdict in found.verdict and found[:3] == ("moco", "augself", "produce50")


def test_augself_alone_is_a_control_only_of_variants_with_augself():
    controls = {("none", plan.ALONE): {"produce50": MORE}, ("none", plan.RANDOM): {"produce50": LESS}}
    table = {("moco", "base"): {"produce50": BASE}, ("moco", "cassle"): {"produce50": MORE}, **controls}
    assert [found.verdict for found in verdicts(table)] == ["Shown at this scale"]


def test_differences_are_between_equal_seeds():
    found = pair(Cell({0: 3.0, 2: 5.0}), Cell({1: 1.0, 2: 4.0}))
    assert found.differences == [1.0] and found.higher == 1
    assert pair(Cell({0: 1.0}), Cell({1: 1.0})) is None


def test_a_failed_step_is_named_with_its_log_and_terminates_the_others(tmp_path):
    runner = Runner(tmp_path, jobs=2)
    slow = Step("slow", (sys.executable, "-c", "import time; time.sleep(60)"))
    bad = Step("bad", (sys.executable, "-c", "import time; time.sleep(0.3); raise SystemExit('no disk left')"))
    began = time.perf_counter()
    with pytest.raises(RunError, match=r"bad failed \(1\): no disk left; its log is "):
        runner.all([lambda: runner.step(slow), lambda: runner.step(bad)])
    assert time.perf_counter() - began < 30
    assert not runner.is_done(slow) and not runner.is_done(bad)


def test_a_step_runs_once_and_again_when_its_command_changes(tmp_path):
    runner = Runner(tmp_path)
    for text in ("a", "a", "b"):
        code = f"open({str(tmp_path / 'log')!r}, 'a').write({text!r})"
        runner.step(Step("write", (sys.executable, "-c", code)))
    assert (tmp_path / "log").read_text() == "ab"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": ("base", "augsel")}, "--parts augsel is unknown"),
        ({"parts": ("augself",)}, "base in --parts"),
        ({"seeds": 0}, "--seeds must be at least 1"),
    ],
)
def test_invalid_settings_are_refused(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        Study(tmp_path, **options)


def test_missing_data_are_refused(tmp_path, recipe):
    (tmp_path / "produce50").mkdir()
    with pytest.raises(UsageError, match="lacks imagenette128, omniglot8, signdigits10"):
        Study(tmp_path / "study", data=tmp_path, recipe=recipe)()


def test_the_command_line_has_run_and_page_and_their_exit_codes(tmp_path, capsys):
    for words in (["--help"], ["run", "--help"]):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 0
    assert "--tune-epochs" in capsys.readouterr().out
    assert main(["page", str(tmp_path)]) == 2 and "holds no study" in capsys.readouterr().err
    assert main(["rnu", str(tmp_path)]) == 2 and "did you mean run?" in capsys.readouterr().err


def test_the_default_recipe_is_that_of_the_checkout():
    assert plan.default_recipe() == Path(__file__).parents[2] / "recipes" / "study.py"
    assert plan.default_recipe().is_file()


def test_the_study_has_a_table_of_means_over_seeds():
    record = {
        "study": {"epochs": 6, "size": 32, "options": ["batch-size=64"]},
        "seeds": 3,
        "date": "2026-01-02",
        "environment": {"cpu": "a CPU", "commit": "abc"},
        "numbers": {
            "moco base": {"produce50": {"0": 10.0, "1": 11.0, "2": 12.0}},
            "none random weights": {"crop": {"0": 0.5}},
        },
        "reading": [{"method": "moco", "part": "augself", "task": "crop", "gain": "+1.00", "verdict": "not shown"}],
        "invariance": {"moco, base": {"hue": 0.25}},
    }
    table = study_table(record)
    assert table.rows[0][:2] == ("moco base", "11.0 ± 1.0")
    assert table.rows[1][0] == "random weights" and table.rows[1][table.head.index("crop")] == "0.500"
    text = tables_page(record)
    assert "| moco augself | crop | +1.00 | not shown |" in text and "| hue | 0.25 |" in text
    assert about(record) in block(record, "results/box/study.json")
    assert "3 seeds, 6 epochs at 32 px, batch-size=64; a CPU, 2026-01-02, commit abc" in about(record)
