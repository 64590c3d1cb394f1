"""Reuse: the examples of kernels/README.md run, and a copy laid out for the Hugging Face Hub works beside the installed
package."""

import base64
import hashlib
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fastaugself_kernels

ROOT = Path(__file__).parents[2]
README = (ROOT / "kernels" / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
BACKENDS = {"torch-cpu", "torch-cuda", "torch-rocm"}


def run(code, **options):
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, **options)


# --- kernels/README.md ------------------------------------------------------------------------------------------------


def test_the_loop_of_the_readme_runs():
    (code,) = (text for text in PYTHON if "sample_params" in text and "ffcv" not in text)
    scope = {}
    exec(compile(code, "kernels/README.md", "exec"), scope)
    for view in (scope["first"], scope["second"]):
        assert view.shape == (16, 3, 224, 224) and view.is_contiguous(memory_format=torch.channels_last)
    assert scope["loss"].isfinite() and all(weight.grad is not None for weight in scope["encoder"].parameters())
    assert len(code.split("for epoch")[1].splitlines()) <= 10


def test_the_data_loader_of_the_readme_runs():
    (code,) = (text for text in PYTHON if "DataLoader" in text)
    scope = {}
    exec(compile(code, "kernels/README.md", "exec"), scope)
    for view in (scope["first"], scope["second"]):
        assert view.shape == (16, 3, 224, 224) and view.is_contiguous(memory_format=torch.channels_last)
    assert scope["params"].shape == (2, 16, 16)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="needs ffcv: make setup")
def test_the_ffcv_loader_of_the_readme_runs(beton, tmp_path):
    (tmp_path / "train.beton").symlink_to(beton)
    (code,) = (text for text in PYTHON if "ffcv" in text)
    # FFCV sets the threads of torch and numba for a whole process.
    result = run(code + "\nassert first.shape == second.shape == (16, 3, 224, 224) and step == 3", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_readme_names_every_column_and_every_public_operation():
    public = [name for name, value in vars(fastaugself_kernels).items() if callable(value)]
    assert len(public) > 10
    for name in (*fastaugself_kernels.COLUMNS, *public):
        assert f"`{name}" in README or name == "Targets", name
    assert f"| {fastaugself_kernels.params.IDENTITY_ORDER} |" in README


def test_importing_the_kernels_imports_torch_numpy_and_nothing_else(tmp_path):
    """Not even the back-ends that are installed: each waits for its first use."""
    code = """
import sys, numpy, torch
before = {name.split(".")[0] for name in sys.modules}
import fastaugself_kernels
print(*sorted({name.split(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names)))
"""
    result = run(code, cwd=tmp_path)
    assert result.returncode == 0 and result.stdout.split() == ["fastaugself_kernels"], result.stderr + result.stdout


# --- the Hub's layout -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("hub") / "repository"
    script = ROOT / "kernels" / "export_hub.py"
    result = subprocess.run([sys.executable, script, out], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert {Path(line).name for line in result.stdout.split()} == BACKENDS
    return out


def metadata(variant: Path) -> dict:
    return json.loads((variant / "metadata.json").read_text())


def load(variant: Path):
    """The module of a variant, as the Hub's library imports it: from its path, under its id."""
    identity = metadata(variant)["id"]
    if identity in sys.modules:
        return sys.modules[identity]
    spec = importlib.util.spec_from_file_location(identity, variant / "__init__.py")
    module = sys.modules[identity] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inputs(kernels):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 40, 50, 3), dtype=torch.uint8, generator=random)
    sizes = torch.tensor([[40, 50]] * 3)
    policies = (kernels.ViewPolicy.simclr(size=32),) * 2
    return images, None, sizes, kernels.sample_params(torch.arange(3), sizes, policies, seed=1, epoch=0)


def views_of(kernels):
    return kernels.augment(*inputs(kernels), size=32, blur_kernel=5, backend="reference")


def test_the_layout_is_whole_and_its_digest_right(exported):
    assert {path.name for path in exported.iterdir()} == {"build", "LICENSE", "README.md"}
    assert {path.name for path in (exported / "build").iterdir()} == BACKENDS
    assert (exported / "README.md").read_text().startswith("---\nlicense: apache-2.0\n")
    identities = set()
    for variant in (exported / "build").iterdir():
        about = metadata(variant)
        assert about["name"] == "fastaugself-kernels" and about["license"] == "Apache-2.0"
        assert about["backend"]["type"] == variant.name.removeprefix("torch-")
        identities.add(about["id"])
        files = {path.relative_to(variant).as_posix() for path in variant.rglob("*") if path.is_file()}
        assert files - {"metadata.json"} == set(about["digest"]["files"])
        assert {"__init__.py", "triton/resize.py", "triton/configs/default-cuda.json"} <= files
        assert not [name for name in files if "__pycache__" in name]
        for name, digest in about["digest"]["files"].items():
            assert base64.b64decode(digest) == hashlib.sha256((variant / name).read_bytes()).digest()
    assert len(identities) == len(BACKENDS)  # operations of two variants may not collide


def test_an_export_is_the_same_twice_and_refuses_what_it_would_harm(exported, tmp_path):
    script = [sys.executable, ROOT / "kernels" / "export_hub.py"]
    again = tmp_path / "again"
    for _ in range(2):  # the second replaces the first
        subprocess.run([*script, again], check=True, capture_output=True)
    for variant in BACKENDS:
        assert metadata(again / "build" / variant) == metadata(exported / "build" / variant)
    for wrong, message in (
        ([ROOT / "tests"], "holds something else"),
        ([tmp_path / "x", "--name", "Fast_Augself"], "got 'Fast_Augself'"),
        ([tmp_path / "x", "--version", "0"], "at least 1, got 0"),
    ):
        result = subprocess.run([*script, *wrong], capture_output=True, text=True)
        assert result.returncode == 2 and message in result.stderr
    assert Path(__file__).exists() and not (tmp_path / "x").exists()


@pytest.mark.slow
def test_an_exported_variant_needs_no_installed_package(exported, tmp_path):
    code = f"""
import importlib.util, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("fastaugself_kernels", "fastaugself"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
spec = importlib.util.spec_from_file_location("copy_from_the_hub", {str(exported / "build/torch-cpu/__init__.py")!r})
module = sys.modules["copy_from_the_hub"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import torch
sizes = torch.tensor([[9, 9]])
params = module.sample_params(torch.arange(1), sizes, [module.ViewPolicy()], seed=0, epoch=0)
images = torch.zeros(1, 9, 9, 3, dtype=torch.uint8)
print(module.augment(images, None, sizes, params, size=16, blur_kernel=5, backend="reference").shape)
"""
    result = run(code, cwd=tmp_path)
    assert result.returncode == 0 and "[1, 1, 3, 16, 16]" in result.stdout, result.stderr


def test_a_variant_works_beside_the_installed_package(exported):
    copy = load(exported / "build" / "torch-cpu")
    assert set(copy.__all__) == {name for name in vars(fastaugself_kernels) if name in copy.__all__}
    assert {"augment", "sample_params", "ViewPolicy", "infonce"} <= set(copy.__all__)
    identity = metadata(exported / "build" / "torch-cpu")["id"]
    assert getattr(torch.ops, identity).augment is not torch.ops.fastaugself.augment
    assert torch.equal(views_of(copy), views_of(fastaugself_kernels))
    for backend in ("triton", "numba"):
        if importlib.util.find_spec(backend) is not None:
            assert importlib.import_module(f"{identity}.{backend}").__name__.startswith(identity)


def test_a_variant_compiles_whole(exported):
    copy = load(exported / "build" / "torch-cpu")

    given = inputs(copy)

    def energy(params):
        views = copy.augment(*given[:3], params, size=32, blur_kernel=5, backend="reference")
        return views.square().mean()

    compiled = torch.compile(energy, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(given[3]), energy(given[3]))


def test_hugging_faces_library_loads_it(exported):
    spec = importlib.util.find_spec("kernels")
    if spec is None or spec.origin is None:  # None: this repository's own folder of that name
        pytest.skip("needs Hugging Face's library: pip install kernels")
    from kernels import get_local_kernel

    copy = get_local_kernel(exported, backend="cpu")
    assert copy.__name__ == metadata(exported / "build" / "torch-cpu")["id"]
    assert torch.equal(views_of(copy), views_of(fastaugself_kernels))
