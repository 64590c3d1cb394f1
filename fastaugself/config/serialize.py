"""Configurations to and from `config.json`, and the differences between two of them.

A run's identity is its configuration without the options in RESUMABLE: everything that decides what the run computes.
It is written into every checkpoint. A run only resumes from a checkpoint with the same identity, and all ranks must
start with the same one; `differences` lists the options that violate this. To make a new option resumable, add it to
RESUMABLE; it must not change the weights that a run ends with, apart from rounding.
"""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from ..aware import AWARE, AwareConfig
from ..errors import UsageError
from ..methods import METHODS

T = TypeVar("T")

# Paths may differ because data sets are compared by a fingerprint of their samples.
_FILES = ("data.train", "data.val", "data.source", "data.workers", "data.max_corrupt")
_SPEED = ("compile", "cuda_graphs", "batched_views", "cudnn_benchmark")
RESUMABLE = ("run", "max_steps", "extend", "log", "checkpoint", *_FILES, *_SPEED)
"""Options that may change when a run is resumed: where, how long and how fast it runs, not what it computes. A name
stands for all options under it."""


class UnknownMethod(UsageError):
    """A method or objective of a configuration is neither in this package nor registered by an imported recipe."""


def to_dict(config: Any) -> Any:
    """The configuration as JSON values: dataclasses as objects (methods with their name as `kind`), paths as text, and
    objectives (`Pretrain.aware`) by their names."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        values = {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
        kinds: dict[type, str] = {method: name for name, method in METHODS.items()}
        return {"kind": kinds[type(config)], **values} if type(config) in kinds else values
    if isinstance(config, tuple):
        if config and all(isinstance(value, AwareConfig) for value in config):
            return {value.name: to_dict(value) for value in config}
        return [to_dict(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """The configuration from the values that `to_dict` returned.

    Raises UsageError for an unknown field, UnknownMethod for a method that is not registered.
    """
    hints = typing.get_type_hints(cls)
    if isinstance(values.get("aware"), dict):
        values = {**values, "aware": [_objective(name, options) for name, options in values["aware"].items()]}
    unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})  # type: ignore[arg-type]
    if unknown:
        raise UsageError(f"{cls.__name__} has no {', '.join(unknown)}; was the file written by another version?")
    return cls(**{name: _restore(hints[name], value) for name, value in values.items()})


def _objective(name: str, values: dict[str, Any]) -> AwareConfig:
    if name not in AWARE:
        raise UnknownMethod(
            f"unknown objective {name}; known: {', '.join(AWARE)}; pass --recipe with the file that registers it"
        )
    return from_dict(AWARE[name], values)


def _restore(hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None:
            return None
        if isinstance(value, dict) and "kind" in value:
            if value["kind"] not in METHODS:
                known = ", ".join(METHODS)
                raise UnknownMethod(
                    f"unknown method {value['kind']}; known: {known}; pass --recipe with the file that registers it"
                )
            kind, value = value["kind"], {name: v for name, v in value.items() if name != "kind"}
            return from_dict(METHODS[kind], value)
        kinds = [h for h in typing.get_args(hint) if h is not type(None)]
        hint = next(h for h in kinds if not isinstance(value, list) or typing.get_origin(h) is tuple)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value)
    if hint is Path:
        return Path(value)
    if isinstance(value, AwareConfig):
        return value
    if isinstance(value, list):
        return tuple(_restore(typing.get_args(hint)[0], item) for item in value)
    return value


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(option, old value, new value) for every option of the run's identity in which two `to_dict` results differ."""
    found: list[tuple[str, Any, Any]] = []
    for name in sorted(old.keys() | new.keys()):
        option, a, b = prefix + name, old.get(name), new.get(name)
        if option in RESUMABLE:
            continue
        if option == "aware":  # by name, [] without objectives
            a, b = a or {}, b or {}
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, option + ".")
        elif a != b:
            found.append((option.removeprefix("aware.").replace("_", "-"), a, b))
    return found
