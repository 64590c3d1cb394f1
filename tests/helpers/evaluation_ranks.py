"""Runs commands of `fastaugself eval` on two ranks over gloo, which are forks of one process that has imported all.

Usage: evaluation_ranks.py BETON COMMANDS.json, a list with the words of each command after `fastaugself eval`. BETON:
photos for the kernels' first call, which compiles.
"""

import json
import sys
from pathlib import Path

import tiny_runs
import torch
from killed_runs import warm_up
from ranks import on_ranks

from fastaugself.cli.main import main as cli
from fastaugself.evaluation import commands_finetune, commands_linear_sgd  # noqa: F401

if __name__ == "__main__":
    torch.set_num_threads(1)
    warm_up(tiny_runs.config(Path(sys.argv[1]), Path("unused")))
    for words in json.loads(Path(sys.argv[2]).read_text()):
        on_ranks(2, lambda world, words=words: cli(["eval", *words]))
