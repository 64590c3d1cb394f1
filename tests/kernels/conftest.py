"""Memory in which nothing passes for a result, and the process in which Triton interprets."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from interpreter import INTERPRETED


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory) -> dict[str, ElementTree.Element]:
    """What each test gave in a process in which Triton interprets."""
    report = tmp_path_factory.mktemp("triton") / "report.xml"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    files = [str(Path(__file__).parent / name) for name in INTERPRETED]
    command = [sys.executable, "-P", "-m", "pytest", *files, "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    environment |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert report.exists(), result.stdout + result.stderr
    return {case.attrib["name"]: case for case in ElementTree.parse(report).iter("testcase")}


@pytest.fixture
def poisoned(monkeypatch):
    """New memory holds NaN or 205, so that what a kernel does not write cannot pass for what it should have."""
    fresh = torch.empty

    def empty(*size, **options):
        x = fresh(*size, **options)
        return x.fill_(float("nan") if x.is_floating_point() else 205)

    monkeypatch.setattr(torch, "empty", empty)
