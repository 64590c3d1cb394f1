"""The GPU round without a GPU: its commands are parsed as they stand, and every part runs in its small form.

It fails where a round would: a missing file or package, an option that does not exist, a record of another form, or
budgets that do not add up.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from gpu_parts import ROOT, Folders, Machine, Part, calls, parts
from gpu_round import LIMIT, RESERVE, Round, go, make_parser, probe

CALLS = 3  # that a round on one GPU may take at most
PARSE = """
import contextlib, importlib, io, json, runpy, sys
from pathlib import Path
from fastaugself.bench.cli import COMMANDS
from fastaugself.cli.parser import choose
from fastaugself.cli.pretrain import parse
from fastaugself.cli.recipe_file import open_recipe

def parsed(words):
    if words[:3] == ["-m", "fastaugself", "bench"]:
        choose(COMMANDS, words[3:], prog="fastaugself bench")
    elif words[0] == "-m" and words[1].startswith("fastaugself_kernels."):
        importlib.import_module(words[1]).make_parser().parse_args(words[2:])
    elif words[:2] == ["-m", "pytest"]:
        missing = [word for word in words if word.startswith("tests/") and not Path(word).is_file()]
        if missing:
            raise SystemExit(f"there is no {missing[0]}")
    elif Path(words[0]).parent.name == "recipes":
        loaded = open_recipe(Path(words[0]))
        parse(loaded.recipe, loaded.presets, words[1:])
    else:
        runpy.run_path(words[0])["make_parser"]().parse_args(words[1:])

faults = []
for words in json.load(sys.stdin):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed(words)
    except (Exception, SystemExit) as error:
        why = (said.getvalue().strip().splitlines() or [str(error)])[-1]
        faults.append(f"python {' '.join(words)}: {why}")
print(json.dumps(faults))
"""


def rehearse(options: argparse.Namespace, python: str) -> int:
    """The round on a CPU, in a temporary folder unless --out names one; returns the exit status."""
    begun = time.monotonic()
    machine = probe(python, cuda=False)
    with tempfile.TemporaryDirectory() as folder:
        out = (options.out or Path(folder) / "results" / "rehearsal").absolute()
        out.mkdir(parents=True, exist_ok=True)
        tables = out.parents[1] if out.parent.name == "results" else None
        if tables and not (tables / "README.md").exists():
            (tables / "README.md").write_text("# rehearsal\n")
        photos = options.photos.absolute() if options.photos else Path(folder) / "photos.beton"
        if not options.photos:
            write = f"from fastaugself.data.demo import write_demo; write_demo({str(photos)!r}, count=64)"
            if (made := _python(python, write)).returncode:
                raise SystemExit(f"the photos of the demo cannot be written: {_last(made.stderr)}; pass a .beton file")
        at = Folders(photos, out, Path(folder) / "run", tables)
        faults = [*plan_faults(at), *command_faults(at, python)]
        for fault in faults:
            print(f"plan      failed   {fault}")
        print(f"plan      {'failed' if faults else 'done'}", flush=True)
        planned = [rehearsed(part) for part in parts(machine, at)]
        status = go(Round(planned, out, "cpu", python), make_parser(), options.parts, begun + options.limit - RESERVE)
    return 1 if faults else status


def rehearsed(part: Part) -> Part:
    """The part on one thread; a rehearsal leaves nothing out, so what would be skipped fails with the reason."""
    part = replace(part, environment={"OMP_NUM_THREADS": "1", **part.environment})
    return replace(part, skipped="", command=("-c", f"raise SystemExit({part.skipped!r})")) if part.skipped else part


def plan_faults(at: Folders) -> list[str]:
    """What is wrong with the budgets of a round on one GPU and on several."""
    found = []
    for gpus in (1, 8):
        planned = parts(a_machine(gpus), at)
        too_long = [part.name for part in planned if part.seconds > LIMIT - RESERVE]
        found += [f"the budget of {name} exceeds a call of {LIMIT:g} s" for name in too_long]
    needed = calls(parts(a_machine(1), at), LIMIT - RESERVE)
    if len(needed) > CALLS:
        found.append(f"the budgets need {len(needed)} calls of {LIMIT:g} s, more than {CALLS}: {needed}")
    return found


def command_faults(at: Folders, python: str) -> list[str]:
    """What is wrong with the commands of a round on GPUs, parsed by the programs that they start."""
    planned = [part for gpus in (1, 8) for part in parts(a_machine(gpus), at)]
    commands = [[str(word) for word in part.command] for part in planned]
    head = _python(python, HEAD, str(at.photos), str(at.run))
    if head.returncode:
        return [f"scripts/head_to_head.py: {_last(head.stderr)}"]
    done = _python(python, PARSE, given=json.dumps(commands + json.loads(head.stdout)))
    return [_last(done.stderr)] if done.returncode else [*dict.fromkeys(json.loads(_last(done.stdout)))]


def _python(python: str, code: str, *words: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])])
    command, environment = [python, "-c", code, *words], {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, input=given, capture_output=True, text=True, cwd=ROOT, env=environment)


def _last(text: str) -> str:
    return " ".join(text.strip().splitlines()[-1:])


HEAD = """
import json, sys
from pathlib import Path
sys.path.insert(0, "scripts")
import head_to_head as head
print(json.dumps([[str(word) for word in head.command(Path(sys.argv[1]), Path(sys.argv[2]), precision, tiny=False)]
                  for precision in ("fp16", "bf16")]))
"""


def a_machine(gpus: int) -> Machine:
    """A machine with this many GPUs, 16 cores and all packages."""
    return Machine("GPU", gpus, 16, frozenset({"timm", "triton", "xdist"}))
