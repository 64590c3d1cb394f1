"""What a result depends on besides the configuration."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("fastaugself", "torch", "triton", "numba", "numpy", "ffcv", "simplejpeg", "timm")


@functools.cache
def versions() -> dict[str, str | None]:
    """The version of each package that is installed, by name."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and commit, as JSON values."""
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
    return record


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the checkout this package runs from, with + where it is changed.

    Outside a checkout it is $FASTAUGSELF_COMMIT, or None.
    """
    named = os.environ.get("FASTAUGSELF_COMMIT")
    root = Path(__file__).parents[1]
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        if head.returncode:
            return named
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return named
    return head.stdout.strip() + ("+" if dirty else "")
