"""Rounds of small commands, and what they left, for the tests of the GPU round."""

import json
import sys
import time
from pathlib import Path

import gpu_round
from gpu_parts import Folders

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu_round.py"
NAMES = ["compile", "tests", "tune", "augment", "training", "head", "step", "e2e", "cudnn", "scale", "tables"]


def folders(path):
    return Folders(path / "x.beton", path / "out", path / "run", None)


def say(text, status=0):
    return ("-c", f"print({text!r}); raise SystemExit({status})")


def a_round(tmp_path, *planned, device="GPU"):
    (tmp_path / "out").mkdir(exist_ok=True)
    return gpu_round.Round(planned, tmp_path / "out", device, sys.executable)


def go(round_, *wanted, seconds=100.0, fresh=False):
    return gpu_round.go(round_, gpu_round.make_parser(), wanted, time.monotonic() + seconds, fresh=fresh)


def verdicts(tmp_path):
    return {part["name"]: part for part in json.loads((tmp_path / "out" / "round.json").read_text())["parts"]}
