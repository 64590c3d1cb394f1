"""Launch configurations: one JSON file per device, and a default for every device that has none.

They are measured beforehand and shipped, so nothing is tuned when a training run starts.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Tile:
    """Rows and columns that one program works on at a time, and its warps."""

    rows: int
    columns: int
    warps: int
    steps: int = 1
    """How many tiles, next to each other in a row, one program works on."""
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


def file_of(device_name: str) -> Path:
    """The file of a device's configuration: the driver's name for it, in lower case and with dashes."""
    return FOLDER / f"{'-'.join(device_name.lower().split())}.json"


@lru_cache(maxsize=32)
def config(device: torch.device) -> Config:
    """The configuration of `device`, of any like it, or its vendor's default."""
    default = FOLDER / f"default-{'rocm' if torch.version.hip else 'cuda'}.json"
    path = file_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else default
    return Config.read(path if path.is_file() else default)


def shipped() -> dict[str, Config]:
    """Every configuration in the package, by the name of its file."""
    return {path.stem: Config.read(path) for path in sorted(FOLDER.glob("*.json"))}
