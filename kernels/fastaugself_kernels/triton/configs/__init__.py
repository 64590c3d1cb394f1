"""Launch configurations: one JSON file per device and version of Triton, and a default for every device without one.

They are measured beforehand and shipped, so nothing is tuned when a training run starts. Compilers differ: the same
shape of the same kernel takes 168 registers with one version of Triton and 96 with another.
"""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import triton

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
REMEDY = "python -m fastaugself_kernels.tune measures them in a few minutes"


@dataclass(frozen=True)
class Tile:
    """Rows and columns that one program works on, and its warps; of a resize the most columns."""

    rows: int
    columns: int
    warps: int
    registers: int | None = None
    """Maximum number of registers per thread; None: the compiler's choice."""

    def constants(self) -> dict[str, int]:
        return {"RB": self.rows, "CB": self.columns}

    def options(self) -> dict[str, int]:
        limit = {} if self.registers is None else {"maxnreg": self.registers}
        return {"num_warps": self.warps, **limit}


@dataclass(frozen=True)
class Config:
    """Shapes of the kernels on one device."""

    targets: tuple[str, ...]
    """Architectures that the file is meant for; `make check-kernels` compiles it for them."""
    ptx: bool
    """Whether the kernels may inline PTX."""
    resize: Tile
    finish: Tile
    finish_float32: Tile
    """For float32 outputs, whose blur takes more registers."""
    float32_products: str
    """Triton's `input_precision` for them: "tf32x3" (three products on NVIDIA's tensor cores, about 1e-6) or "ieee"."""
    small: tuple[tuple[int, int], ...]
    """(longest side of the output, warps) of the single-launch kernel, ascending; longer outputs take two launches."""
    small_float32: tuple[tuple[int, int], ...]
    params_block: int
    """Samples per program of the parameter kernel."""
    params_warps: int

    @classmethod
    def read(cls, path: Path) -> "Config":
        """Reads a file of `configs/`; TypeError or KeyError where its keys are not those of this class."""
        raw = json.loads(path.read_text())

        def small(name: str) -> tuple[tuple[int, int], ...]:
            return tuple((entry["up_to"], entry["warps"]) for entry in raw[name])

        return cls(
            targets=tuple(raw["targets"]),
            ptx=raw["ptx"],
            resize=Tile(**raw["resize"]),
            finish=Tile(**raw["finish"]),
            finish_float32=Tile(**raw["finish_float32"]),
            float32_products=raw["float32_products"],
            small=small("small"),
            small_float32=small("small_float32"),
            params_block=raw["params_block"],
            params_warps=raw["params_warps"],
        )


def name_of(device_name: str) -> str:
    """The driver's name of a device in lower case and with dashes, as in names of files."""
    return "-".join(re.findall(r"[a-z0-9.]+", device_name.lower()))


def file_of(device_name: str, version: str) -> Path:
    """The file of a device's configuration, measured with this version of Triton."""
    return FOLDER / f"{name_of(device_name)}.triton-{'.'.join(map(str, _numbers(version)))}.json"


def nearest(versions: Sequence[str], version: str) -> str:
    """The version nearest to `version`: by major, then minor, then patch number; of two equally near, the newer."""

    def far(other: str) -> tuple[int, ...]:
        return tuple(abs(a - b) for a, b in zip(_numbers(other), _numbers(version), strict=True))

    return min(sorted(versions, key=_numbers, reverse=True), key=far)


def _numbers(version: str) -> tuple[int, int, int]:
    """Major, minor and patch number; those that are missing are 0, and what follows (`3.6.0+git...`) does not count."""
    found = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", version)
    if found is None:
        raise ValueError(f"{version!r} is no version of Triton, which begins with a number such as 3.6.0")
    major, minor, patch = (int(number or 0) for number in found.groups())
    return major, minor, patch


@dataclass(frozen=True)
class Chosen:
    """path: of the configuration in use. note: why it is not one measured here with this Triton, "" if it is."""

    path: Path
    note: str = ""


def choose(device_name: str, version: str, default: Path) -> Chosen:
    """The file for a device and a version of Triton: its own, that of the nearest version, or `default`."""
    own = file_of(device_name, version)
    if own.is_file():
        return Chosen(own)
    stem = f"{name_of(device_name)}.triton-"
    others = {path.stem.removeprefix(stem): path for path in own.parent.glob("*.json") if path.stem.startswith(stem)}
    if not others:
        return Chosen(default, f"no launch shapes were measured on {device_name}, {default.stem} is used")
    near = nearest([*others], version)
    note = f"the launch shapes of {device_name} were measured with Triton {near}, and this is {version}"
    return Chosen(others[near], note)


@lru_cache(maxsize=32)
def chosen(device: torch.device) -> Chosen:
    """The configuration in use on `device`; the log has the note, once."""
    default = FOLDER / f"default-{'rocm' if torch.version.hip else 'cuda'}.json"
    if device.type != "cuda":
        return Chosen(default)
    found = choose(torch.cuda.get_device_name(device), triton.__version__, default)
    if found.note:
        log.info("%s; %s", found.note, REMEDY)
    return found


@lru_cache(maxsize=32)
def config(device: torch.device) -> Config:
    """The configuration of `device` and this version of Triton, or the nearest that there is."""
    return Config.read(chosen(device).path)


def shipped() -> dict[str, Config]:
    """Every configuration in the package, by the name of its file."""
    return {path.stem: Config.read(path) for path in sorted(FOLDER.glob("*.json"))}
