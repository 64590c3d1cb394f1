"""The command line: its output, its error messages and its exit codes."""

import contextlib
import errno
import io
import json
import os
import pkgutil
import pty
import select
import shlex
import shutil
import subprocess
import sys
import termios
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from fastaugself import Pretrain
from fastaugself.bench.cli import COMMANDS as benchmarks
from fastaugself.cli import pretrain
from fastaugself.cli.main import COMMANDS
from fastaugself.cli.main import main as cli
from fastaugself.evaluation.cli import COMMANDS as evaluations

ROOT = Path(__file__).parents[2]


def call(*arguments):
    """Runs the command in this process and returns its exit code; capsys has its output."""
    try:
        cli([str(a) for a in arguments])
    except SystemExit as end:
        return 0 if end.code is None else end.code
    return 0


def test_write_then_info_then_views(photo_folder, tmp_path, capsys):
    out = tmp_path / "photos.beton"
    assert call("write", photo_folder, out) == 0
    assert "64 photos, 4 classes" in capsys.readouterr().out
    assert call("info", out) == 0
    assert "4 classes: astronaut, chelsea, coffee, rocket" in capsys.readouterr().out
    assert call("views", out, "--out", tmp_path / "views.png", "--count", "2", "--size", "32") == 0
    assert (tmp_path / "views.png").read_bytes().startswith(b"\x89PNG")


def test_write_replaces_a_file_only_with_overwrite(photo_folder, tmp_path, capsys):
    out = tmp_path / "photos.beton"
    assert call("write", photo_folder, out) == 0
    before = out.read_bytes()
    assert call("write", photo_folder, out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert call("write", photo_folder, out, "--overwrite") == 0
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["write", "{tmp}/missing", "{tmp}/x.beton"], 2, "missing"),
        (["write", "{tmp}/empty", "{tmp}/x.beton"], 2, "empty"),
        (["write", "{tmp}/broken", "{tmp}/x.beton"], 1, "cut.jpg"),
        (["info", "{tmp}/text.beton"], 2, "text.beton"),
        (["info", "{tmp}/cut.beton"], 1, "cut.beton"),
        (["views", "{tmp}/missing.jpg"], 2, "missing.jpg"),
        (["export", "{tmp}/empty"], 2, "empty: holds no config.json; pass a run folder"),
        (["report", "{tmp}/missing"], 2, "missing: no such folder; pass a run folder"),
        (["write", "{tmp}/broken", "{tmp}/x.txt"], 2, "must end in .beton, got {tmp}/x.txt"),
        (["write", "{tmp}/broken", "{tmp}/none/x.beton"], 2, "create the folder {tmp}/none first"),
        (["views", "{tmp}/missing.jpg", "--size", "100000"], 2, "--size must be from 8 to 2048"),
        (["replay", "{tmp}/missing"], 2, "missing: no such file; pass the not-finite.json of a run folder"),
        (["completion", "bash", "{tmp}/text.beton"], 2, "text.beton is not a recipe: SyntaxError"),
        (["doctor", "--config", "{tmp}/missing.json"], 2, "--config {tmp}/missing.json: no such file"),
    ],
    ids=lambda value: " ".join(value).replace("{tmp}/", "") if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_with_its_exit_code(arguments, code, message, beton, photo_folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken" / "a").mkdir(parents=True)
    whole = next(photo_folder.rglob("*.jpg")).read_bytes()
    (tmp_path / "broken" / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.beton").write_text("no photos here, only words\n" * 20)
    (tmp_path / "cut.beton").write_bytes(beton.read_bytes()[:-500])
    assert call(*[a.format(tmp=tmp_path) for a in arguments]) == code
    error = capsys.readouterr().err
    assert message.format(tmp=tmp_path) in error and error.count("\n") == 1, error
    assert not (tmp_path / "x.beton").exists() and not list(tmp_path.glob("*.partial"))


def test_export_of_a_run_equals_what_training_exported(beton, tmp_path):
    from safetensors.torch import load_file
    from tiny_runs import config, train

    from fastaugself.export.backbone import export_backbone

    trainer = train(config(beton, tmp_path, epochs=1))
    first = load_file(export_backbone(trainer.learner, trainer.config, tmp_path / "export", step=trainer.global_step))
    assert call("export", tmp_path, "--out", tmp_path / "again") == 0
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)
    backbone = trainer.learner.method.backbone.state_dict()
    assert first.keys() == backbone.keys()


def test_a_closed_standard_output_ends_the_command_without_a_message():
    command = subprocess.Popen(
        [sys.executable, "-m", "fastaugself", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    command.stdout.close()
    assert (command.stderr.read(), command.wait(60)) == (b"", 141)
    command.stderr.close()


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "fastaugself", "wirte"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "got wirte; did you mean write?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "fastaugself takes one of doctor, pretrain, "),
        (["eval"], "fastaugself eval takes one of knn, linear, "),
        (["evla", "knn"], "did you mean eval?"),
        (["bench", "agument"], "did you mean augment?"),
        (["info"], "all options: fastaugself info --help"),
        (["info", "x.beton", "--workers", "2"], "--workers"),
        (["views", "x.beton", "--policy", "moco"], "moco_v2"),
        (["views", "x.beton", "--count", "two"], "two"),
        (["eval", "knn", "run"], "--data"),
        (["eval", "knn", "run", "--data", "x", "--sede", "1"], "did you mean --seed?"),
        (["bench", "augment", "--quik"], "did you mean --quick?"),
        (["write", "photos"], "OUT.beton must be given"),
        (["verify", "x.beton", "--workers", "two"], "--workers takes a whole number, got 'two'"),
        (["eval", "knn", "run", "--data", "x", "--temperature", "warm"], "--temperature takes a number, got 'warm'"),
        (["eval", "knn", "run", "--data", "x", "--neighbors", "0"], "--neighbors must be at least 1, got 0"),
        (["eval", "information", "run", "--data", "x", "--bins", "1"], "--bins must be at least 2, got 1"),
        (["bench", "augment", "--plot", "x.txt"], "--plot must end in .png"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistyped_command_line_is_one_line_with_the_remedy(arguments, message, capsys):
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1, error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optim.lr", "much"], "--optim.lr takes a number, got 'much'"),
        (["--epochs", "1.5"], "--epochs takes a whole number, got '1.5'"),
        (["photos"], "unknown option photos; if it is the photos, pass --data.train photos"),
        (["--seed", str(1 << 64)], "--seed must be a 64-bit integer"),
        (["--data.workers", "-1"], "--data.workers must be a number of threads"),
        (["--data.max-corrupt", "2"], "--data.max-corrupt must be a fraction of the photos from 0 to 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistyped_recipe_is_one_line_with_the_remedy(arguments, message, capsys):
    assert pretrain.main(Pretrain, {}, arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1, error


def test_too_little_memory_is_one_line_with_the_remedy(monkeypatch, capsys):
    def train(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")

    monkeypatch.setattr(pretrain, "run_pretraining", train)
    assert pretrain.main(Pretrain, {}, []) == 1
    error = capsys.readouterr().err
    assert "Tried to allocate 2.00 GiB" in error and "--accumulate 2" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "command", [("verify", "--workers", "-2"), ("verify", "--show", "-1"), ("write", "--workers", "-1")]
)
def test_numbers_out_of_range_are_refused_by_their_option(command, beton, photo_folder, tmp_path, capsys):
    name, option, value = command
    where = [beton] if name == "verify" else [photo_folder, tmp_path / "x.beton"]
    assert call(name, *where, option, value) == 2
    assert f"error: {option} must be" in capsys.readouterr().err


def test_json_has_the_content_of_the_text(photo_folder, tmp_path, capsys):
    def printed(code, *arguments):
        assert call(*arguments, "--json") == code
        return json.loads(capsys.readouterr().out)

    out = tmp_path / "photos.beton"
    written = printed(0, "write", photo_folder, out)
    assert written["path"] == str(out) and written["samples"] == 64 and written["reencoded"] == {}
    known = printed(0, "info", out)
    assert known["samples"] == 64 and known["classes"] == ["astronaut", "chelsea", "coffee", "rocket"]
    assert known["photos_per_label"] == {str(label): 16 for label in range(4)} and known["without_label"] == 0
    assert sum(row["photos"] for row in known["longer_sides"]) == 64 and known["bytes"] == out.stat().st_size
    assert 33 <= known["height"]["min"] <= known["height"]["mean"] <= known["height"]["max"] <= 60
    assert known["manifest"] and known["decoded_per_second"] > 0 and known["decode_fault"] is None
    assert printed(0, "verify", out)["faults"] == []
    data = bytearray(out.read_bytes())
    data[len(data) // 2] ^= 1
    out.write_bytes(data)
    (fault,) = printed(1, "verify", out)["faults"]
    assert "has different bytes than were written" in fault


def test_version_is_the_installed_one(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"fastaugself {version('fastaugself')}\n"


WITHOUT_TORCH = """
import contextlib, sys
from fastaugself.cli.main import COMMANDS
from fastaugself.cli.main import main as cli

for line in sys.stdin.read().splitlines():
    with contextlib.suppress(SystemExit):
        cli(line.split())
    assert "torch" not in sys.modules and "numba" not in sys.modules, line
"""


def test_commands_that_need_no_torch_do_not_import_it(beton):
    """Importing it takes seconds."""
    lines = ["--help", "--version", "wirte", "write --help", "eval", "eval knnn", "bench agument", "report /no/such"]
    lines += [f"info {beton}", f"verify {beton}", f"export {beton}", f"write {beton.parent} {beton}"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], input="\n".join(lines), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "64 photos" in done.stdout and "no fault" in done.stdout


@pytest.mark.parametrize("place", [*evaluations.items(), *benchmarks.items()], ids=lambda item: item[0])
def test_the_locations_of_subcommands_are_correct(place):
    name, where = place
    command = pkgutil.resolve_name(where)
    assert callable(command) and getattr(command, "name", name) == name


def test_an_error_of_the_system_is_one_line(beton, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    monkeypatch.setattr("fastaugself.data.beton.info.facts", full)
    assert call("info", beton) == 1
    assert capsys.readouterr().err == "error: somewhere: No space left on device\n"


def test_help_names_every_command_and_exits_with_0(capsys):
    assert call("--help") == 0
    helped = capsys.readouterr().out
    for name in COMMANDS:
        assert f"• {name}" in helped
    assert "Exit codes: 0" in helped


# --- completion -------------------------------------------------------------------------------------------------------


def completed(script, *words):
    """The completions that bash offers for the last word."""
    quoted = " ".join(map(shlex.quote, words))
    code = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _fastaugself; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f"source {shlex.quote(str(script))}; {code}"], capture_output=True, text=True, env={"PATH": path}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def completions(tmp_path_factory):
    """The completion script for bash, with two recipes."""
    out = tmp_path_factory.mktemp("completion") / "fastaugself.bash"
    recipes = [ROOT / "recipes" / f"imagenet_{name}_augself.py" for name in ("moco", "simclr")]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert call("completion", "bash", *recipes) == 0
    out.write_text(printed.getvalue())
    assert subprocess.run(["bash", "-n", out]).returncode == 0
    return out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fastaugself", ""], {"write", "info", "verify", "views", "export", "report", "doctor", "eval", "bench"}),
        (["fastaugself", "ev"], {"eval"}),
        (["fastaugself", "eval", "l"], {"linear", "linear-sgd", "localize", "layers"}),
        (["fastaugself", "eval", "knn", "run", "--fuse", ""], {"concat", "mean", "add", "none"}),
        (["fastaugself", "views", "--policy", "mo"], {"moco_v2"}),
        (["fastaugself", "info", ""], set()),  # nothing but files, which bash offers itself
        (["python", "-m", "fastaugself", "bench", "au"], {"augment"}),
        (["python", "recipes/imagenet_moco_augself.py", "--preset", ""], {"paper", "demo", "shuffle"}),
        (["python", "recipes/imagenet_moco_augself.py", "--data.tra"], {"--data.train"}),
        (["torchrun", "--nproc-per-node", "2", "imagenet_simclr_augself.py", "--method.te"], {"--method.temperature"}),
        (["python", "recipes/imagenet_simclr_augself.py", "--dry"], {"--dry-run"}),
        (["python", "another.py", "--data.tra"], set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bash_completes_commands_options_values_and_recipes(words, expected, completions):
    found = set(completed(completions, *words))
    assert expected <= found if words == ["fastaugself", ""] else expected == found


def in_a_terminal(shell, script, folder, keys, expected, seconds=30):
    """The output of an interactive shell in `folder` after these keys, up to `expected`."""
    start = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}[shell]
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TERM": "dumb", "HOME": str(folder)}
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 200))  # rows, columns: nothing is scrolled
    with subprocess.Popen(
        [shell, *start], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment, start_new_session=True
    ) as process:
        os.close(theirs)
        os.write(ours, f"source {shlex.quote(str(script))}; echo re'ady'\r".encode())
        shown, wanted, end = "", "\nready", time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([ours], [], [], 0.1)[0]:
                shown += os.read(ours, 65536).decode(errors="replace").replace("\r", "")
            if wanted in shown:
                if wanted == expected:
                    break
                shown, wanted = "", expected
                os.write(ours, keys.encode())
        process.kill()
    os.close(ours)
    return shown


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("fastaugself ev\t", "eval "),
        ("fastaugself eval knn run --fus\t", "--fuse "),
        ("fastaugself info my-ph\t", "my-photos.beton "),
        ("fastaugself views --out pic\t", "pictures/"),
        ("torchrun --nproc-per-node 2 imagenet_simclr_augself.py --method.te\t", "--method.temperature "),
        ("python imagenet_moco_augself.py --data.train my-ph\t", "my-photos.beton "),
    ],
    ids=["command", "option", "file", "folder", "recipe", "recipe's file"],
)
def test_tab_completes_in_a_terminal(shell, keys, expected, completions, tmp_path, capsys):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "my-photos.beton").touch()
    (tmp_path / "pictures").mkdir()
    if shell == "zsh":
        script = tmp_path / "zsh"
        assert call("completion", "zsh") == 0
        head = capsys.readouterr().out.split("_tyro_")[0]
        script.write_text(head + completions.read_text())
    else:
        script = completions
    line = keys.rsplit(maxsplit=1)[0] + " " + expected
    assert line in in_a_terminal(shell, script, tmp_path, keys, line)


def test_completion_of_a_file_that_is_not_a_recipe(tmp_path, capsys):
    (tmp_path / "other.py").write_text("print")
    assert call("completion", "bash", tmp_path / "other.py") == 2
    assert "does not call fastaugself.run" in capsys.readouterr().err
    assert call("completion", "bash", tmp_path / "missing.py") == 2
    assert "no such recipe" in capsys.readouterr().err
