"""The promises of the packaging: two packages and no more, dependencies that point one way, one version."""

import ast
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"fastaugself": ROOT / "fastaugself", "fastaugself_kernels": ROOT / "kernels" / "fastaugself_kernels"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Import names that differ from the name of the distribution.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "huggingface_hub": "huggingface-hub",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}
# Used where they are found and declared nowhere: NVIDIA's apex is not on PyPI, FFCV's sdist and imagecorruptions-imaug
# cannot be requirements (pyproject.toml says why), torchvision must match the build of torch that is there, NVIDIA's
# codecs that of CUDA, and a notebook brings IPython.
FOUND_NOT_REQUIRED = {"apex", "ffcv", "imagecorruptions", "torchvision", "nvidia", "IPython"}
# Measured against by the benchmarks where they are installed.
PEERS = {"albumentations", "cvcuda", "kornia", "nvidia", "triton_augment"}


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every absolute import in a file, wherever in it: lazy imports count."""
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


def foreign_imports(folder: Path, allowed: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(folder)
        for line, name in imported(path)
        if name not in allowed and name not in sys.stdlib_module_names
    ]


def declared() -> set[str]:
    """Names of all distributions in the metadata, core and extras."""
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in chain.from_iterable(lists)}


def test_kernels_import_only_torch_triton_numba_and_numpy():
    # llvmlite is numba's code generator, installed with it.
    allowed = {"fastaugself_kernels", "torch", "triton", "numba", "llvmlite", "numpy"}
    assert foreign_imports(PACKAGES["fastaugself_kernels"], allowed) == []


def test_the_package_imports_only_kernels_and_what_the_metadata_declares():
    names = {name for path in sources(PACKAGES["fastaugself"]) for _, name in imported(path)}
    known = {name for name in names if DISTRIBUTIONS.get(name, name).lower() in declared()}
    allowed = {"fastaugself", "fastaugself_kernels"} | known | FOUND_NOT_REQUIRED
    found = foreign_imports(PACKAGES["fastaugself"], allowed)
    assert [line for line in found if not (line.startswith("fastaugself/bench/") and line.split()[-1] in PEERS)] == []


def test_recipes_import_only_the_two_packages_and_torch():
    assert foreign_imports(ROOT / "recipes", {"fastaugself", "fastaugself_kernels", "torch"}) == []


def test_the_package_reaches_for_no_folder_of_the_checkout():
    """They do not exist after `pip install`. The environment record asks git for the commit, if there is one."""
    above = {
        str(path.relative_to(ROOT))
        for path in sources(PACKAGES["fastaugself"])
        for up in re.findall(r"__file__\)(?:\.resolve\(\))?\.parents\[(\d+)\]", path.read_text())
        if int(up) >= len(path.relative_to(PACKAGES["fastaugself"]).parts)
    }
    assert above == {"fastaugself/environment.py"}


# From the ground up: a room may import what stands before it, and nothing else. `__init__` and others import by
# name, on use.
LAYERS = (
    *("errors", "files", "environment", "network", "distributed"),
    *("html", "models", "data", "probes", "methods", "aware", "config", "runs", "training"),
    *("export", "report", "views", "evaluation", "pretraining", "bench", "cli"),
)
LAZY = {"__init__", "__main__", "api"}
LINKS = {"recipes"}  # to the folder beside the package, which the wheel holds inside


def internal_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and room of every import from fastaugself in a file of it, wherever in it: lazy imports count."""
    package = ("fastaugself", *path.relative_to(PACKAGES["fastaugself"]).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            found = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            found = [[*base, alias.name] for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name[1]) for name in found if name[0] == "fastaugself" and len(name) > 1)


def test_imports_inside_the_package_point_down():
    rooms = {path.name.removesuffix(".py") for path in PACKAGES["fastaugself"].iterdir() if path.suffix in ("", ".py")}
    assert rooms - {"__pycache__"} == {*LAYERS, *LAZY, *LINKS}, "a new room needs its place among the layers"
    upward = [
        f"{path.relative_to(ROOT)}:{line} imports {room}"
        for path in sources(PACKAGES["fastaugself"])
        if (own := path.relative_to(PACKAGES["fastaugself"]).parts[0].removesuffix(".py")) not in LAZY
        for line, room in internal_imports(path)
        if room not in LAYERS[: LAYERS.index(own) + 1]
    ]
    assert upward == []


def test_the_layers_are_those_of_the_contributors_guide():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (diagram,) = re.findall(r"^<!-- layers -->\n```\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert [word for line in diagram.splitlines() for word in line[:40].split()] == [*LAYERS]


@pytest.mark.parametrize("name", ["MoCo", "AugSelf", "ViewPolicy"])
def test_a_public_name_loads_little(name):
    """A dataclass of options needs the registries of methods and objectives, and not what opens data or trains."""
    code = (
        f"from fastaugself import {name}; import sys; print(*(m for m in sys.modules if m.startswith('fastaugself')))"
    )
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    loaded = [module for module in result.stdout.split() if module.startswith("fastaugself")]
    rooms = {module.split(".")[1] for module in loaded if module.startswith("fastaugself.")}
    assert rooms <= {"errors", "network", "distributed", "models", "methods", "aware"} and len(loaded) < 65


@pytest.mark.parametrize("module", ["fastaugself", "fastaugself.api"])
def test_every_public_name_is_there(module):
    """The names that are imported on use, and those that type checkers see."""
    loaded = importlib.import_module(module)
    assert all(getattr(loaded, name) is not None for name in loaded.__all__)
    text = Path(loaded.__file__).read_text()
    typed = set(re.findall(r"import (\w+) as \1$", text, flags=re.MULTILINE))
    assert typed == set(loaded.__all__) - {"__version__", "list_aware", "list_methods"}
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(loaded, "nothing")  # noqa: B009


@pytest.mark.parametrize("package", PACKAGES)
def test_relative_imports_stay_inside_their_package(package):
    """`from ..x import y` in a top-level module would reach beyond the package, and is an error only once it runs."""
    for path in sources(PACKAGES[package]):
        depth = len(path.relative_to(PACKAGES[package]).parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= depth, f"{path.relative_to(ROOT)}:{node.lineno}"


WITHOUT = """
import sys

absent = {absent!r}

class Without:
    '''A finder in place of another that does not find the absent packages, as if they were not installed.'''
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in absent else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path if hasattr(finder, "find_spec")]
sys.path.insert(0, {path!r})
{code}
"""


def run_without(absent: set[str], code: str) -> subprocess.CompletedProcess[str]:
    script = WITHOUT.format(absent=absent, path=str(ROOT / "kernels"), code=code)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT.parent)


OPTIONAL = {"triton", "numba", "ffcv", "timm", "tyro", "rich", "PIL", "cv2", "simplejpeg", "safetensors", "sklearn"}


def test_kernels_import_with_torch_and_numpy_alone():
    result = run_without(OPTIONAL | {"fastaugself"}, "import fastaugself_kernels; fastaugself_kernels.ViewPolicy()")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_a_missing_backend_is_named_with_its_remedy(backend):
    code = f"""
import torch, fastaugself_kernels as kernels
pixels, sizes = torch.zeros(1, 9, 7, 3, dtype=torch.uint8), torch.tensor([[9, 7]], dtype=torch.int32)
policies = [kernels.ViewPolicy(size=16)]
params = kernels.sample_params(torch.zeros(1, dtype=torch.int64), sizes, policies, seed=0, epoch=0)
kernels.augment(pixels, None, sizes, params, size=16, mean=(0, 0, 0), std=(1, 1, 1), backend="{backend}")
"""
    result = run_without(OPTIONAL, code)
    assert result.returncode != 0
    assert f"pip install {backend}" in result.stderr.splitlines()[-1], result.stderr


def test_the_kernels_folder_is_not_a_package(tmp_path):
    """A package called kernels would shadow Hugging Face's; neither may the editable installation offer the folder."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    code = "import importlib.util; print(importlib.util.find_spec('kernels'))"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(ROOT / "kernels") not in result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel of this tree, built in a copy without the network."""
    copy = tmp_path_factory.mktemp("wheel") / "tree"
    for folder in ("fastaugself", "kernels", "recipes", "scripts", "studies", "docs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "NOTICE", "README.md"):
        shutil.copy(ROOT / name, copy)
    command = "-m pip wheel --no-deps --no-build-isolation --no-index -w out ."
    result = subprocess.run([sys.executable, *command.split()], cwd=copy, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = (copy / "out").glob("fastaugself-*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_two_packages_whole_and_nothing_else(wheel):
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    written = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    written |= {f"fastaugself/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.py")}
    assert packed == written, "a new kind of file needs its pattern in pyproject.toml, a new folder its __init__.py"
    assert {f"{package}/py.typed" for package in PACKAGES} <= packed, "types are ours to promise in both packages"
    outside = (
        "studies/augself/study.py",
        "study_table.py",
        "readme_tables.py",
        "columns_page.py",
        "draw.py",
    )  # need the checkout
    assert not [name for name in packed if name.endswith(outside)]
    licences = {name.split("/", 2)[2] for name in wheel.namelist() if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}


@pytest.mark.slow
def test_the_wheel_alone_writes_trains_evaluates_exports_and_loads(wheel, photo_folder, tmp_path):
    """Installed beside nothing of the checkout: recipes are found by name, by one process and by torchrun."""
    pip = "-m pip install --quiet --no-deps --no-index --target"
    subprocess.run([sys.executable, *pip.split(), str(tmp_path / "site"), wheel.filename], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    small = "--backbone.name resnet18 --backbone.width 4 --view.size 16 --batch-size 16 --method.queue 32"
    train = f"pretrain imagenet_moco_augself --data.train photos.beton {small} --log.no-tensorboard"
    code = """
import sys, fastaugself as fa
assert fa.__file__.startswith(sys.argv[1]), fa.__file__
print(fa.load_encoder("run", device="cpu").num_features, fa.open_run("two").step, len(fa.list_recipes()))
"""
    for command in (
        f"-m fastaugself write {photo_folder} photos.beton",
        f"-m fastaugself {train} --max-steps 2 --run run",
        f"-m torch.distributed.run --standalone --nproc-per-node=2 -m fastaugself {train} --max-steps 1 --run-dir two",
        "-m fastaugself eval knn run --data photos.beton --device cpu",
        "-m fastaugself export run --out export",
    ):
        arguments = [sys.executable, "-P", *command.split()]
        result = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, command + result.stdout[-2000:] + result.stderr[-2000:]
    command = [sys.executable, "-P", "-c", code, str(tmp_path / "site")]
    loaded = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert loaded.split() == ["32", "1", str(len([*(ROOT / "recipes").glob("*.py")]))]


def test_the_wheel_forces_neither_cuda_nor_torchvision_nor_a_gui(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    required = re.findall(r"^Requires-Dist: (.+)$", wheel.read(name).decode(), flags=re.MULTILINE)
    core = {re.split(r"[^\w.-]", line)[0] for line in required if "extra ==" not in line}
    assert core == {"torch", "numpy", "numba", "simplejpeg", "pillow", "tyro", "rich", "safetensors"}
    assert not [line for line in required if re.match(r"(torchvision|opencv-python|nvidia-\S+)\b(?!-headless)", line)]
    assert not [line for line in required if "==" in line.split(";")[0]], "exact versions belong in constraints.txt"


def test_the_version_stands_in_one_place():
    assert importlib.metadata.version("fastaugself") == PROJECT["version"]
    literal = re.compile(r"^__version__\s*=\s*[\"']", flags=re.MULTILINE)
    assert [path for folder in PACKAGES.values() for path in sources(folder) if literal.search(path.read_text())] == []


def test_constraints_pin_every_declared_distribution():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0] for line in lines if line and not line.startswith("#")}
    assert declared() - {"fastaugself"} <= pinned
