"""CONTRIBUTING.md's table of the files that a new point operation touches, held to by adding one to a copy."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fastaugself_kernels
from fastaugself_kernels import COLUMNS, ViewPolicy, sample_params

ROOT = Path(__file__).resolve()
while not (ROOT / "CONTRIBUTING.md").exists():
    ROOT = ROOT.parent
PACKAGE = Path(fastaugself_kernels.__file__).parent
HEADING = "### A point operation\n"

# A toy: "fade" blends with white, x + (1 - x) * amount, drawn with a probability and a range of its own; it takes the
# column "spare". For each file, (text, what takes its place, text before it that the place comes after).
EDITS = {
    "params.py": [
        ('    "spare",  # 0\n', '    "fade",  # fraction of white, 0 = off\n', ""),
        ("SOLARIZE, SPARE =", "SOLARIZE, FADE =", ""),
        ('"solarize")', '"solarize", "fade")', "PROBABILITIES = "),
        (
            "    def __post_init__",
            "    fade: float = 0.0\n    fade_amount: tuple[float, float] = (0.2, 0.6)\n\n    def __post_init__",
            "class ViewPolicy",
        ),
        ("        **{name:", '        "fade_amount": policy.fade_amount,\n        **{name:', "def _packed_fields"),
        (
            'Draw("spare", CONSTANT)',
            'Draw("fade", UNIFORM, (13, 3), "fade_amount", gate=Gate((13, 2), "fade"))',
            "DRAWS = ",
        ),
    ],
    "reference.py": [
        ("    CONTRAST,\n", "    CONTRAST,\n    FADE,\n", "from .params import"),
        ("    return x_CHW", "    return x_CHW + (1 - x_CHW) * row_P[FADE]", "def after_blur"),
    ],
    "numba/color.py": [
        ("    CONTRAST,\n", "    CONTRAST,\n    FADE,\n", "from ..params import"),
        (
            "def after_blur",
            "def fade(x, amount):\n    widest_vectors()\n    for i in range(x.size):\n"
            "        x[i] += (_ONE - x[i]) * amount\n\n\n@njit(**EXACT)\ndef after_blur",
            "",
        ),
        (
            '    """',
            '    """Fade."""\n    if row[FADE] > 0:\n        for c in range(channels):\n'
            '            fade(planes[start + c * plane : start + c * plane + n], row[FADE])\n    """',
            "def after_blur",
        ),
    ],
    "triton/color.py": [
        ("SOLARIZE = ", "FADE = tl.constexpr(params.FADE)\nSOLARIZE = ", ""),
        ("(tl.load(p_row + SOLARIZE),)", "(tl.load(p_row + SOLARIZE), tl.load(p_row + FADE))", "def load_points"),
        (
            "    return r, g, b",
            "    a = points[1]\n    return r + (1.0 - r) * a, g + (1.0 - g) * a, b + (1.0 - b) * a",
            "def after_blur",
        ),
    ],
}

# Runs with the edited copy; solarize is off, so that fade is the last operation and the values are continuous.
CHECKS = """
import sys
import torch
from fastaugself_kernels import COLUMNS, ViewPolicy, augment, sample_params
from fastaugself_kernels.params import pack_policies
from fastaugself_kernels.sampling import sample_params_torch
from fastaugself_kernels.triton.sampling import sample_params_triton

ids = torch.arange(3000)
sizes = torch.tensor([[40, 52], [61, 33], [48, 48]] * 1000)
policies = (ViewPolicy(fade=0.3), ViewPolicy(fade=1.0, fade_amount=(0.5, 0.9), rotation=0.5))
numba = sample_params(ids, sizes, policies, seed=7, epoch=1)
draw = dict(seed=7, epoch=1)
assert torch.equal(numba, sample_params_torch(ids, sizes, pack_policies(policies), **draw))
few = sample_params_triton(ids[:200], sizes[:200], pack_policies(policies), **draw)
assert torch.equal(numba[:, :200], few)
torch.save(numba, sys.argv[1])

photos = torch.randint(0, 256, (3, 61, 52, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
params = numba[:, :3].clone()
params[0, :, COLUMNS.index("fade")] = torch.tensor([0.0, 0.25, 1.0])
plain = params.clone()
plain[..., COLUMNS.index("fade")] = 0
amount = params[..., COLUMNS.index("fade"), None, None, None]
for size in (24, 40):  # Triton: one launch, two launches
    options = dict(size=size, blur_kernel=5, rounding="none", mean=(0, 0, 0), std=(1, 1, 1))
    before = augment(photos, None, sizes[:3], plain, backend="reference", **options)
    faded = before + (1 - before) * amount
    assert (faded - before).abs().max() > 0.2
    for backend in ("reference", "numba", "triton"):
        got = augment(photos, None, sizes[:3], params, backend=backend, **options)
        assert (got - faded).abs().max() <= 1e-5, backend
"""


def listed_files() -> list[str]:
    """Paths of the first column of the table in CONTRIBUTING.md, relative to the package."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split(HEADING)[1].split("\n#")[0]
    paths = re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)
    assert all((ROOT / path).is_file() for path in paths)
    return [Path(path).relative_to("kernels/fastaugself_kernels").as_posix() for path in paths]


def edited_copy(folder: Path, files: list[str]) -> Path:
    """A copy of the kernels in `folder` that knows the operation as far as `files` do."""
    copy = folder / "fastaugself_kernels"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name in files:
        text = (copy / name).read_text()
        for old, new, after in EDITS[name]:
            start = text.index(after)
            assert old in text[start:], f"{name} has changed: no {old!r} after {after!r}; change EDITS"
            text = text[:start] + text[start:].replace(old, new, 1)
        (copy / name).write_text(text)
    return copy


def test_the_table_lists_the_files_of_a_new_point_operation():
    assert sorted(listed_files()) == sorted(EDITS)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("numba", "triton")), reason="needs numba and triton"
)
def test_edits_to_the_listed_files_add_an_operation_to_all_back_ends(tmp_path):
    edited_copy(tmp_path, listed_files())
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "TRITON_INTERPRET": "1", "NUMBA_OPT": "1"}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path / "numba")
    command = [sys.executable, "-P", "-c", CHECKS, tmp_path / "params.pt"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr

    drawn, fade = torch.load(tmp_path / "params.pt"), COLUMNS.index("spare")
    policies = (ViewPolicy(), ViewPolicy(rotation=0.5))
    sizes = torch.tensor([[40, 52], [61, 33], [48, 48]] * 1000)
    before = sample_params(torch.arange(3000), sizes, policies, seed=7, epoch=1)
    others = [i for i in range(len(COLUMNS)) if i != fade]
    assert torch.equal(drawn[..., others], before[..., others])  # no other draw moved
    applied = drawn[0, :, fade] > 0
    assert applied.float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert drawn[0, applied, fade].min() >= 0.2 and drawn[0, applied, fade].max() < 0.6
    assert drawn[1, :, fade].min() >= 0.5 and drawn[1, :, fade].max() < 0.9
