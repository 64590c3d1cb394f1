"""The documentation: its pages build without a broken link or reference, and their Python runs."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
LAUNCHERS = {"--nproc-per-node", "--nnodes", "--node-rank", "--master-addr", "--max-restarts"}  # torchrun's
INSTALLERS = {"--no-deps", "--no-cache-dir", "--no-install-recommends"}  # pip's and apt-get's
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


def test_every_option_and_command_in_the_pages_exists():
    from fastaugself.aware import AWARE
    from fastaugself.cli.completion import completion
    from fastaugself.cli.main import COMMANDS
    from gpu_round import make_parser
    from study import Study

    script = completion("bash", sorted((ROOT / "recipes").glob("*.py")), COMMANDS)  # which names all there is
    known = set(re.findall(r"--[a-z][\w.-]*\w", script)) | LAUNCHERS | INSTALLERS | {"--version"}
    known |= {"--method.weight", "--view2"}  # of a method that a page makes; of recipes whose views differ
    known |= {"--" + field.name.replace("_", "-") for field in dataclasses.fields(Study)}
    known |= {f"--{name}-only" for name in (*AWARE, "position")} | {"--position.weight", "--position.hidden"}
    known |= {"--check", "--target", "--record"}  # of readme_tables.py, and of fastaugself_kernels.precompile and check
    known |= {option for action in make_parser()._actions for option in action.option_strings}
    for path in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "kernels" / "README.md"):
        text = path.read_text(encoding="utf-8")
        unknown = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", text)) - known
        assert not unknown, f"{path.name} names {', '.join(sorted(unknown))}"
        for name, follower in re.findall(r"`?fastaugself ([a-z]+)(?: ([a-z][a-z-]*))?", "\n".join(code_of(text))):
            assert name in COMMANDS, f"{path.name}: fastaugself {name}"
            if name in ("eval", "bench") and follower:
                assert follower in COMMANDS[name].commands, f"{path.name}: fastaugself {name} {follower}"


def code_of(text):
    """Blocks of shell, and what stands between backticks in the text."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    return blocks + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason='pip install "fastaugself[docs]"')
    command = [sys.executable, "-P", "-m", "sphinx", "-W", "--keep-going", "-q", str(ROOT / "docs"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    for page in PAGES:
        assert (tmp_path / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), page
