"""Suites of `fastaugself eval suite`: named lists of data sets with their protocols, or a user's file.

A file is TOML, or has a line NAME=PATH for each data set. In TOML, a table [data.NAME] has `path`, and optionally
`dataset` (a reader; default NAME if it is one), `protocol` and options of the protocol; `protocol` at the top is the
default.
"""

import dataclasses
import pkgutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import read_text
from .datasets import readers
from .options import Options

PROTOCOLS = {
    "knn": "commands:Knn",
    "linear": "commands:Linear",
    "linear-sgd": "commands_linear_sgd:LinearSgd",
    "finetune": "commands_finetune:Finetune",
    "fewshot": "commands:FewShot",
    "retrieval": "commands:Retrieval",
    "localize": "commands:Localize",
    "regression": "commands:Regression",
    "robustness": "commands_robustness:Robustness",
}
PAPERS = (
    "cifar10", "cifar100", "food101", "mit67", "pets", "flowers102", "caltech101", "cars", "aircraft", "dtd", "sun397",
)  # fmt: skip
VTAB = (
    "caltech101", "cifar100", "dtd", "flowers102", "pets", "svhn", "sun397",
    "patch-camelyon", "eurosat", "resisc45", "retinopathy",
    "clevr-count", "clevr-distance", "dmlab", "kitti-distance", "dsprites-location", "dsprites-orientation",
    "smallnorb-azimuth", "smallnorb-elevation",
)  # fmt: skip
SHIFTED = ("imagenet-v2", "imagenet-r", "imagenet-sketch", "imagenet-a")
ABOUT = {
    "papers": "the eleven transfer data sets of AugSelf, linear probe",
    "vtab": "the 19 tasks of VTAB-1k, linear probe on 800 training and 200 validation samples",
    "robustness": "a linear probe on ImageNet, tested on ImageNet-V2, -R, -Sketch and -A",
}


@dataclass(frozen=True)
class Entry:
    """One column of a suite, or several where its protocol has several scores.

    name: of the data set. path: of its files. dataset: its reader, "" for class folders and .beton. options: of the
    protocol, by field name.
    """

    name: str
    path: Path
    dataset: str = ""
    protocol: str = "linear"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> type[Options]:
        """The class of the protocol's command."""
        found: type[Options] = pkgutil.resolve_name(f"{__package__}.{PROTOCOLS[self.protocol]}")
        return found

    @property
    def paths(self) -> list[Path]:
        """All files and folders that must exist."""
        return [self.path, *(Path(text.partition("=")[2]) for text in self.options.get("shifted", ()))]


def suite(name: str, root: Path | None, places: dict[str, Path]) -> list[Entry]:
    """The entries of a suite, without looking at the data.

    name: papers, vtab, robustness, or a file. root: folder with a folder for each data set of a named suite. places:
    where data sets are that are not there. Raises UsageError for an unknown suite and for a file that cannot be read.
    """
    if name not in ABOUT:
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"--suite {name} is unknown: pass --suite {', '.join(ABOUT)}, or a file")
        return _from_toml(path) if path.suffix.lower() == ".toml" else _from_list(path)
    if root is None and not places:
        raise UsageError(f"--suite {name} needs its data sets: pass --root with the folder that holds a folder of each")

    def place(data: str) -> Path:
        shared = data.split("-")[0]  # the tasks of one data set read the same files
        inside = [root / part for part in (data, shared) if root is not None and (root / part).exists()]
        default = inside[0] if inside else (root or Path()) / data
        return places.get(data, places.get(shared, default))

    if name == "robustness":
        options = {"shifted": tuple(f"{data}={place(data)}" for data in SHIFTED)}
        return [Entry("imagenet", place("imagenet"), protocol="robustness", options=options)]
    if name == "papers":
        return [Entry(data, place(data), data) for data in PAPERS]
    return [Entry(data, place(data), data, options={"labelled": 1000}) for data in VTAB]


def _from_list(path: Path) -> list[Entry]:
    entries = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        name, equals, where = (part.strip() for part in line.partition("="))
        if not (name and equals and where):
            raise UsageError(f"{path}, line {number}: expected NAME=PATH, got {line!r}")
        entries.append(Entry(name, path.parent / where, name if name in readers() else ""))
    return _checked(entries, path)


def _from_toml(path: Path) -> list[Entry]:
    try:
        found = tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f'{path} is not TOML ({error}): expected tables [data.NAME] with path = "..."') from None
    default = found.pop("protocol", "linear")
    tables = found.pop("data", {})
    if found or not isinstance(tables, dict):
        raise UsageError(f"{path} has {', '.join(found) or 'no tables'}: expected `protocol` and tables [data.NAME]")
    entries = []
    for name, values in tables.items():
        values = dict(values) if isinstance(values, dict) else {}
        if not isinstance(where := values.pop("path", None), str):
            raise UsageError(f'{path}: [data.{name}] needs path = "..."')
        reader = values.pop("dataset", name if name in readers() else "")
        protocol = values.pop("protocol", default)
        options = {key.replace("-", "_"): tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        entries.append(Entry(name, path.parent / where, reader, protocol, options))
    return _checked(entries, path)


def _checked(entries: Sequence[Entry], path: Path) -> list[Entry]:
    """Raises UsageError for no entry, a name that is there twice, and unknown readers, protocols and options."""
    if not entries:
        raise UsageError(f"{path} names no data set: expected lines NAME=PATH, or tables [data.NAME] in a .toml file")
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise UsageError(f"{path} names {entry.name} twice: give one another name, with `dataset` in a .toml file")
        seen.add(entry.name)
        if entry.dataset and entry.dataset not in readers():
            raise UsageError(f"{path}: dataset {entry.dataset} is unknown; known: {', '.join(readers())}")
        if entry.protocol not in PROTOCOLS:
            raise UsageError(f"{path}: protocol {entry.protocol} is unknown; known: {', '.join(PROTOCOLS)}")
        own = {f.name: f for f in dataclasses.fields(entry.command)}.keys() - COMMON
        if unknown := sorted(entry.options.keys() - own):
            known = ", ".join(sorted(own))
            raise UsageError(f"{path}: {entry.protocol} has no option {unknown[0]}; it has {known}")
    return list(entries)


COMMON = frozenset(
    ("models", "data", "dataset", "fuse", "size", "resize", "seed", "out", "cache", "device", "workers", "batch_size")
)  # options of the suite itself


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"--suite {path} cannot be read ({error})") from None


def check_paths(entries: Sequence[Entry], suite_name: str) -> None:
    """Raises UsageError that names every data set whose files are missing."""
    missing = {entry.name: [path for path in entry.paths if not path.exists()] for entry in entries}
    lines = [f"{name}: {', '.join(map(str, paths))}" for name, paths in missing.items() if paths]
    if not lines:
        return
    there = [name for name, paths in missing.items() if not paths]
    only = f", or pass --only {' '.join(there)}" if there else ""
    at = ""
    if suite_name in ABOUT:
        at = "; `fastaugself eval datasets` lists the files of each: add them, pass --at NAME=PATH for other places"
    raise UsageError(f"{len(lines)} of {len(missing)} data sets are missing ({'; '.join(lines)}){at}{only}")
