"""Converts folders of photos, and the demo, to `.beton` files before training."""

import dataclasses
import logging
import os
from pathlib import Path
from typing import Literal

from .. import distributed
from ..config.check_sets import CheckPhotos
from ..config.schema import Photos, Pretrain
from ..data.dataset import is_pattern
from ..data.demo import write_demo
from ..data.inputs.convert import ensure_beton
from ..data.inputs.folder import split_of
from ..data.inputs.walk import Walk, is_output, is_visible
from ..distributed import World
from ..errors import UsageError
from .progress import console

log = logging.getLogger(__name__)

DEMO = Path("demo")


def prepare_data(config: Pretrain, world: World) -> Pretrain:
    """Replaces folders and `demo` in the configuration by .beton files.

    Rank 0 writes the files that are missing; the other ranks wait for it as long as it works.
    """

    def prepare() -> Pretrain:
        return dataclasses.replace(
            config,
            data=dataclasses.replace(
                config.data,
                train=_beton(config.data.train, config.run, "train"),
                val=_beton(config.data.val, config.run, "val"),
            ),
            log=dataclasses.replace(
                config.log, check=tuple(str(split_folders(photos).mapped(_file)) for photos in config.log.check_photos)
            ),
        )

    def tell(line: str) -> None:
        if os.environ.get("LOCAL_RANK") == "0":  # the first process of another node: rank 0's console is elsewhere
            console.print(line)

    return distributed.on_main(prepare, what="writing the photos to .beton files", tell=tell) or prepare()


def check_run_folder(config: Pretrain) -> None:
    """Raises UsageError for a --run that is the folder of photos itself, or a folder of photos in it.

    A run anywhere else in the folder of photos is not taken for a class (data/inputs/walk.py).
    """
    run = config.run.resolve()
    others = ((f"--log.check {found.name}", (found.train, found.val)) for found in config.log.check_photos)
    for name, photos in (("--data.train", config.data.train), ("--data.val", config.data.val), *others):
        for folder in photos if isinstance(photos, tuple) else (photos,):
            if folder is None or not folder.is_dir() or not run.is_relative_to(folder.resolve()):
                continue
            if run == folder.resolve():
                what = f"is the folder of photos of {name}"
            elif run.is_dir() and not is_output(set(os.listdir(run))) and Walk(run).found:
                what = f"holds photos of {name} {folder}"
            else:
                continue
            raise UsageError(f"--run {config.run} {what}; pass --run {Path('runs', run.name)}")


def split_folders(photos: CheckPhotos) -> CheckPhotos:
    """The check of a folder with one folder for each split: of `train` and `val`, or of `train` and `test`."""
    if photos.val is not None or not photos.train.is_dir():
        return photos
    folders = [entry.name for entry in os.scandir(photos.train) if is_visible(entry.name) and entry.is_dir()]
    found = {split_of(name): photos.train / name for name in folders}
    val = found.get("val") or found.get("test")
    if None in found or "train" not in found or val is None:
        return photos
    return dataclasses.replace(photos, train=found["train"], val=val)


def _file(path: Path) -> Path:
    return path if is_pattern(path) else ensure_beton(path)


def _beton(path: Photos | None, run: Path, split: Literal["train", "val"]) -> Photos | None:
    if isinstance(path, tuple):
        return tuple(ensure_beton(part) if part.is_dir() else part for part in path)
    if path is None or is_pattern(path):
        return path
    if path != DEMO or path.exists():
        return ensure_beton(path)
    written = run / "data" / f"{split}.beton"
    if not written.exists():
        log.info("writing the demo photos to %s", written)
        written.parent.mkdir(parents=True, exist_ok=True)
        write_demo(written, split=split)
    return written
