#!/usr/bin/env python3
"""The GPU round: correctness, launch shapes, speed beside peers and training on photos, in calls of nine minutes.

    scripts/gpu_round.py PHOTOS.beton [--out results/DEVICE] [--limit 540]    # repeat it until nothing is left
    scripts/gpu_round.py --plan                                               # parts, budgets and calls
    scripts/gpu_round.py --rehearse                                           # all of it on a CPU, in a minute or two

Every part has a budget in seconds, after which it is terminated; the other parts run all the same. A call begins no
part whose budget exceeds what is left of --limit, and ends. Results and round.json, which has the verdict of every
part as soon as it ends, are in --out; the same command goes on with the parts that have no verdict, also after the
round was killed. `--parts NAME ...` runs these again, `--fresh` all.
Exit status: 0 all parts are done, 1 a part failed, 2 wrong use, 75 parts are left for another call.

Needs torch with CUDA, numba, simplejpeg, tyro, rich and pytest; the project need not be installed, and peers (and timm)
are included if they are. $PYTHON names another interpreter, and outside a checkout $FASTAUGSELF_COMMIT the commit for
the records. To write the photos (31 MB) from fastai's Imagenette or another folder of photos:

    fastaugself write imagenette2/train photos.beton --max-side 96 --quality 80
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gpu_parts import ROOT, Folders, Machine, Part, parts, slug
from gpu_verdicts import RESERVE, Verdict, print_verdict, show_plan

CACHE = ROOT / ".cache"
LIMIT = 540.0  # seconds of a call
LEFT = 75  # exit status
PROBE = """
import importlib.util, json, os, sys, torch
cuda = sys.argv[1] == "cuda"
print(json.dumps({
    "name": torch.cuda.get_device_name() if cuda else "cpu",
    "gpus": torch.cuda.device_count() if cuda else 0,
    "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    "packages": [name for name in ("timm", "triton", "xdist") if importlib.util.find_spec(name)],
}))
"""


class Cut(BaseException):
    """A signal asked the round to end."""


class Round:
    """The parts of a round and their verdicts, which `round.json` keeps."""

    def __init__(self, planned: Sequence[Part], out: Path, device: str, python: str) -> None:
        self.planned, self.out, self.device, self.python = planned, out, device, python
        self._path = out / "round.json"
        found = json.loads(self._path.read_text()) if self._path.exists() else {}
        same = found.get("device") == device
        self.verdicts: dict[str, Verdict] = {v["name"]: v for v in found.get("parts", ())} if same else {}

    def missing(self) -> list[Part]:
        """The parts without a verdict: never begun, or cut off."""
        found = [part for part in self.planned if self.verdicts.get(part.name, {}).get("state") not in _FINAL]
        compiled = next((part for part in self.planned if part.name == "compile"), None)
        if found and compiled and compiled not in found and not any(_triton_cache().glob("*")):
            return [compiled, *found]  # the verdict has come to another machine, the cache has not
        return found

    def run(self, part: Part) -> Verdict:
        """Runs a part and keeps its verdict; while it runs, round.json says so."""
        if part.skipped:
            return self._keep(part, {"state": "skipped", "reason": part.skipped})
        self._keep(part, {"state": "running", "budget": part.seconds})
        began, worked = time.monotonic(), _cpu_seconds()
        try:
            verdict = execute(part, self.python, self.out)
        except Cut as cut:
            self._keep(part, {"state": "cut off", "reason": str(cut), "seconds": round(time.monotonic() - began, 1)})
            raise
        finally:
            for folder, pattern, name in part.kept:
                for path in folder.glob(pattern):
                    shutil.copy(path, self.out / (name or path.name))
        if verdict["state"] == "done":
            verdict |= _verified(part)
        spent = {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(_cpu_seconds() - worked, 1)}
        return self._keep(part, verdict | spent | {"budget": part.seconds})

    def _keep(self, part: Part, verdict: Verdict) -> Verdict:
        kept = {"name": part.name, **verdict}
        self.verdicts[part.name] = kept
        known = [self.verdicts[p.name] for p in self.planned if p.name in self.verdicts]
        text = json.dumps({"device": self.device, "parts": known}, indent=2) + "\n"
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(self._path)  # whole at any time
        return kept


_FINAL = ("done", "failed", "skipped")


def _verified(part: Part) -> Verdict:
    try:
        return {"figures": part.verify()}
    except (ValueError, KeyError, TypeError, OSError) as error:
        what = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__} {error}"
        return {"state": "failed", "reason": f"its results: {what}"}


def execute(part: Part, python: str, out: Path) -> Verdict:
    """Runs the command of a part within its budget; its output goes to `out`/NAME.log."""
    command = [python, *map(str, part.command)]
    # scripts/ is not added: what a part imports from there it finds as the script's own folder.
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])])
    # All parts share compiled code; training would otherwise cache it in its run folder.
    caches = {f"{name}_CACHE_DIR": str(CACHE / name.lower()) for name in ("NUMBA", "TRITON", "TORCHINDUCTOR")}
    environment = {**caches, **os.environ, "PYTHONPATH": path, **part.environment}
    with (out / f"{part.name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status: int | None = process.wait(part.seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    if status is None:
        return {"state": "failed", "reason": f"terminated after its budget of {part.seconds:g} s"}
    return (
        {"state": "failed", "reason": f"exit status {status}: {_last_line(log.name)}"} if status else {"state": "done"}
    )


def _last_line(path: str) -> str:
    lines = Path(path).read_text(errors="replace").strip().splitlines()
    return lines[-1].strip()[:200] if lines else "no output"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminates a process and its children, which form a session."""
    for kind, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            return
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        if kind == signal.SIGTERM:
            time.sleep(0.1)  # for its children


@contextmanager
def _signals() -> Iterator[None]:
    """Context manager in which SIGTERM, SIGHUP and SIGINT raise Cut."""

    def cut(number: int, _: object) -> None:
        raise Cut(f"the round was ended by {signal.Signals(number).name}")

    kinds = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.signal(kind, cut) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _cpu_seconds() -> float:
    """Processor time of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _triton_cache() -> Path:
    return Path(os.environ.get("TRITON_CACHE_DIR") or CACHE / "triton")


def probe(python: str, *, cuda: bool) -> Machine:
    """What the interpreter of the parts finds: GPUs, cores and packages. Ends the round where it finds no GPU."""
    command = [python, "-c", PROBE, "cuda" if cuda else "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise SystemExit(f"no GPU found: {last}\n(--rehearse walks through the round on a CPU)")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Machine(found["name"], found["gpus"], found["cores"], frozenset(found["packages"]))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?", help="a .beton file (with --rehearse: the demo's by default)")
    parser.add_argument("--out", type=Path, help="folder of the results (default: results/DEVICE)")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds of this call (default: {LIMIT:g})")
    parser.add_argument("--parts", nargs="+", default=[], metavar="PART", help="run these parts, again if they ran")
    parser.add_argument("--fresh", action="store_true", help="run all parts again")
    parser.add_argument("--plan", action="store_true", help="print the parts of a GPU, their budgets, and the calls")
    parser.add_argument("--rehearse", action="store_true", help="run small versions of all parts on a CPU")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts that have no verdict; returns the exit status."""
    end = time.monotonic()
    parser = make_parser()
    options = parser.parse_args(arguments)
    end += options.limit - RESERVE
    if options.plan:
        return show_plan(options.limit)
    if options.photos is None and not options.rehearse:
        parser.error("pass the photos as a .beton file; the head of scripts/gpu_round.py says how to write one")
    if options.photos is not None and not options.photos.is_file():
        parser.error(f"there is no {options.photos}; the head of scripts/gpu_round.py says how to write one")
    local = ROOT / ".venv" / "bin" / "python"
    python = os.environ.get("PYTHON") or (str(local) if local.exists() else sys.executable)
    if options.rehearse:
        from gpu_rehearsal import rehearse

        return rehearse(options, python)
    machine = probe(python, cuda=True)
    out = (options.out or ROOT / "results" / slug(machine.name)).absolute()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tables = ROOT if out.resolve().is_relative_to(ROOT / "results") else None
        at = Folders(options.photos.absolute(), out, Path(folder) / "run", tables)
        a_round = Round(parts(machine, at), out, machine.name, python)
        status = go(a_round, parser, options.parts, end, fresh=options.fresh)
    print(f"results are in {out}")
    return status


def go(
    a_round: Round, parser: argparse.ArgumentParser, wanted: Sequence[str], end: float, *, fresh: bool = False
) -> int:
    """Runs the wanted parts, else those without a verdict, until `end`; prints the verdicts; returns the exit status.

    wanted: names of parts. end: on the clock of time.monotonic. Parsing errors are raised by `parser`.
    """
    names = [part.name for part in a_round.planned]
    if unknown := sorted(set(wanted) - set(names)):
        parser.error(f"--parts takes {', '.join(names)}, got {', '.join(unknown)}")
    chosen = [part for part in a_round.planned if part.name in wanted]
    todo = chosen or (list(a_round.planned) if fresh else a_round.missing())
    longest = max((part for part in todo if not part.skipped), key=lambda part: part.seconds, default=None)
    if longest and longest.seconds > end - time.monotonic():
        needed = longest.seconds + RESERVE
        others = [part.name for part in todo if part.seconds <= end - time.monotonic()]
        remedy = f", or --parts {' '.join(others)}" if others else ""
        parser.error(f"--limit is too short for the {longest.name} part: pass --limit {needed + 15:g} or more{remedy}")
    for part in a_round.planned:
        if part not in todo and part.name in a_round.verdicts:
            print_verdict(a_round.verdicts[part.name], "before: ")
    left: list[str] = []
    try:
        with _signals():
            for i, part in enumerate(todo):
                if not part.skipped and part.seconds > end - time.monotonic():
                    left = [p.name for p in todo[i:]]
                    break
                print_verdict(a_round.run(part))
    except Cut as cut:
        print(f"{cut}; round.json has the verdicts so far, and the same command goes on", flush=True)
        return LEFT
    if left:
        print(f"left for the next call: {', '.join(left)}; run the same command again (without --fresh)")
    if any(a_round.verdicts.get(name, {}).get("state") == "failed" for name in names):
        return 1
    return LEFT if left else 0


if __name__ == "__main__":
    sys.exit(main())
