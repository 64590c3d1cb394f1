"""Versions, hardware and git commit, which results depend on besides the configuration."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import torch

PACKAGES = ("fastaugself", "torch", "triton", "numba", "numpy", "ffcv", "simplejpeg", "timm")


@functools.cache
def versions() -> dict[str, str | None]:
    """The installed version of each of `PACKAGES`, None if it is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and git commit as JSON values, for environment.json and benchmark records."""
    record: dict[str, Any] = {
        "python": platform.python_version(),
        "versions": dict(versions()),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "commit": commit(),
    }
    if device.type == "cuda":
        record["gpu"] = torch.cuda.get_device_name(device)
        record["cuda"] = torch.version.cuda
        record["cudnn"] = torch.backends.cudnn.version()
        if (shapes := launch_shapes(device)) is not None:
            record["launch_shapes"] = {"file": shapes.file, "note": shapes.note}
    return record


class LaunchShapes(NamedTuple):
    """file: name of the file with the launch shapes in use. note: why it is not one measured here, "" if it is."""

    file: str
    note: str
    remedy: str


def launch_shapes(device: torch.device) -> LaunchShapes | None:
    """The launch shapes of the Triton kernels on a CUDA device; None on another, and without Triton."""
    if device.type != "cuda":
        return None
    try:
        from fastaugself_kernels.triton.configs import REMEDY, chosen
    except ImportError:
        return None
    found = chosen(device)
    return LaunchShapes(found.path.name, found.note, REMEDY)


def cpu_name() -> str:
    """The CPU's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The git commit of the checkout that this package runs from, with a + if tracked files are modified.

    Outside a checkout: the value of $FASTAUGSELF_COMMIT, or None.
    """
    fallback = os.environ.get("FASTAUGSELF_COMMIT")
    root = Path(__file__).parents[1]
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        if head.returncode:
            return fallback
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return fallback
    return head.stdout.strip() + ("+" if dirty else "")
