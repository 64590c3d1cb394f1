"""The documentation: its pages build without a broken link or reference, and their Python runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
ELSEWHERE = ("new-method.md",)  # run by a test of its own
PYTHON = {
    str(path.relative_to(ROOT)): re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)
    for path in PAGES
    if path.name not in ELSEWHERE
}


@pytest.mark.parametrize("page", [name for name, blocks in PYTHON.items() if blocks])
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """One block after the other, as a reader would."""
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "page"}
    for block in PYTHON[page]:
        exec(compile(block, page, "exec"), scope)


def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason='pip install "fastaugself[docs]"')
    command = [sys.executable, "-P", "-m", "sphinx", "-W", "--keep-going", "-q", str(ROOT / "docs"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    for page in PAGES:
        assert (tmp_path / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), page
