"""Lays the kernels out as a repository of the Hugging Face Hub, for the `kernels` library to load.

    python kernels/export_hub.py OUT [--name fastaugself-kernels] [--version 1]

OUT then holds build/torch-{cpu,cuda,rocm}/ with the package and its metadata.json, the licence and a card. Try it with
`kernels.get_local_kernel(Path("OUT"))`, publish it with `hf upload ORGANISATION/NAME OUT`.

The package is fit for this because it imports itself relatively, needs nothing but torch to be imported, and
registers its operations under one name, which is replaced here by one of the copy's own: a copy from the Hub, another
one and an installed package can be loaded in the same process.
"""

import argparse
import ast
import base64
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "fastaugself_kernels"
BACKENDS = ("cpu", "cuda", "rocm")
IGNORED = shutil.ignore_patterns(
    "__pycache__", "*.pyc", "*.nbi", "*.nbc", "check.py", "counts.py", "precompile.py", "sass.py", "tune.py"
)
NAMESPACE = re.compile(r'^NAMESPACE = ".*"$', re.MULTILINE)
CARD = """---
license: apache-2.0
tags:
- kernels
- data-augmentation
- self-supervised-learning
---

"""


def export(out: Path, name: str, version: int) -> list[Path]:
    """Writes the repository to `out` and returns the folders of its variants.

    Raises ValueError for a name that the Hub's kernels do not have, a version below 1, or an `out` that holds
    something else.
    """
    if not re.fullmatch(r"[a-z][-a-z0-9]*[a-z0-9]", name):
        raise ValueError(f"--name must be small letters, digits and dashes, got {name!r}; pass fastaugself-kernels")
    if version < 1:
        raise ValueError(f"--version must be at least 1, got {version}")
    if out.exists() and any(out.iterdir()) and not (out / "build").is_dir():
        raise ValueError(f"{out} holds something else than an export; pass a new folder")
    shutil.rmtree(out / "build", ignore_errors=True)
    variants = [_export_variant(out / "build" / f"torch-{backend}", name, version, backend) for backend in BACKENDS]
    shutil.copy(HERE.parent / "LICENSE", out / "LICENSE")
    (out / "README.md").write_text(CARD + (HERE / "README.md").read_text())
    return variants


def _export_variant(folder: Path, name: str, version: int, backend: str) -> Path:
    shutil.copytree(PACKAGE, folder, ignore=IGNORED)
    content = hashlib.sha256("".join(_digests(folder).values()).encode()).hexdigest()
    identity = f"_{name.replace('-', '_')}_{backend}_{content[:7]}"

    operations = folder / "_ops.py"
    text, replaced = NAMESPACE.subn(f'NAMESPACE = "{identity}"', operations.read_text())
    if replaced != 1:
        raise RuntimeError(f"{PACKAGE / '_ops.py'} must hold one line of the form {NAMESPACE.pattern}")
    operations.write_text(text)

    interface = folder / "__init__.py"
    names = json.dumps(_public_names(interface.read_text()), indent=4)
    interface.write_text(f"{interface.read_text()}\n__all__ = {names}\n")

    metadata = {
        "id": identity,
        "name": name,
        "version": version,
        "license": "Apache-2.0",
        "python-depends": [],
        "backend": {"type": backend},
        "digest": {"algorithm": "sha256", "files": _digests(folder)},
    }
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
    return folder


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, in base64, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
        for path in files
    }


def _public_names(source: str) -> list[str]:
    """What an `__init__.py` of the form `from .x import y as y` offers."""
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)]
    return [alias.asname for node in imports for alias in node.names if alias.asname]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write, new or an earlier export")
    parser.add_argument("--name", default="fastaugself-kernels", help="name of the repository on the Hub")
    parser.add_argument("--version", type=int, default=1, help="major version: raised when the interface changes")
    options = parser.parse_args(arguments)
    try:
        variants = export(options.out, options.name, options.version)
    except ValueError as error:
        parser.error(str(error))
    print("\n".join(str(folder) for folder in variants))
    return 0


if __name__ == "__main__":
    sys.exit(main())
