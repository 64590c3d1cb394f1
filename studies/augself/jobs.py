"""Runs commands in parallel, one per GPU or several that share the CPU; a command that has succeeded is skipped."""

import contextlib
import json
import logging
import os
import queue
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastaugself.data.cores import available_cores
from fastaugself.errors import RunError
from fastaugself.evaluation.cache import key_of
from fastaugself.files import replace_file

log = logging.getLogger("fastaugself")


@dataclass(frozen=True)
class Step:
    """A command of the study. name: of its record and log file. out: result folder, cleared of old results first."""

    name: str
    command: tuple[str, ...]
    out: Path | None = None


class Runner:
    """Runs steps in `folder` and skips those whose record there holds the same command.

    slots: environment variables of the steps that run in parallel: one per GPU, or `jobs` that share the CPU cores.
    """

    def __init__(self, folder: Path, *, jobs: int = 1) -> None:
        self.folder = folder
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        self.slots: list[dict[str, str]] = [{"CUDA_VISIBLE_DEVICES": str(i)} for i in range(gpus)]
        if not gpus:
            threads = max(1, available_cores() // jobs)
            self.slots = [{"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"} for _ in range(jobs)]
        self._free: queue.Queue[dict[str, str]] = queue.Queue()
        for slot in self.slots:
            self._free.put(slot)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def all(self, work: Sequence[Callable[[], Any]]) -> list[Any]:
        """Runs functions, each of which calls `step`, in as many threads as there are slots; returns their results.

        The first failure, or Ctrl-C, terminates the commands that are still running.
        """
        with ThreadPoolExecutor(len(self.slots)) as pool:
            futures = [pool.submit(piece) for piece in work]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                failed = [future for future in futures if future.done() and future.exception() is not None]
                if failed:
                    raise failed[0].exception() or RunError("a step failed")
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.stop()
                raise

    def step(self, step: Step) -> None:
        """Runs a step unless it is done; RunError with the last line of its log if it fails."""
        key = key_of(*step.command)
        record = self.folder / "steps" / f"{step.name}.json"
        if self.is_done(step):
            return
        path = self.folder / "logs" / f"{step.name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in step.out.glob("*.json") if step.out else ():
            old.unlink()
        began = time.time()
        with self._slot() as slot, open(path, "ab") as output:
            log.info("start  %s", step.name)
            output.write(f"$ {shlex.join(step.command)}\n".encode())
            output.flush()
            code = self._run(step, slot, output)
        if code:
            lines = path.read_text(errors="replace").strip().splitlines()
            raise RunError(f"{step.name} failed ({code}): {lines[-1] if lines else 'no output'}; its log is {path}")
        values = {"key": key, "command": shlex.join(step.command), "seconds": round(time.time() - began, 1)}
        replace_file(record, (json.dumps(values, indent=2) + "\n").encode())
        log.info("done   %s (%.0f s)", step.name, values["seconds"])

    def is_done(self, step: Step) -> bool:
        """Whether the step has succeeded with the same command."""
        try:
            found = json.loads((self.folder / "steps" / f"{step.name}.json").read_text())
            return bool(found["key"] == key_of(*step.command))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _run(self, step: Step, slot: dict[str, str], output: Any) -> int:
        with self._lock:
            if self._stopped:
                raise RunError(f"{step.name} was not started: another step failed")
            process = subprocess.Popen(step.command, stdout=output, stderr=output, env={**os.environ, **slot})
            self._running.add(process)
        try:
            return process.wait()
        finally:
            with self._lock:
                self._running.discard(process)

    def stop(self) -> None:
        """Sends SIGTERM to the running commands (a training run saves a checkpoint) and starts no others."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()

    @contextlib.contextmanager
    def _slot(self) -> Iterator[dict[str, str]]:
        slot = self._free.get()
        try:
            yield slot
        finally:
            self._free.put(slot)
