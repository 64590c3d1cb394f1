"""Removes the metadata of half-installed distributions from this environment, so that pip installs them again.

pip takes a distribution as installed if its *.dist-info folder exists. A wheel that holds this folder before its other
files leaves it behind when pip is killed during the installation, and the next `pip install` then reports success for
a package without its files (reproduced with pip killed after 60 to 95 % of the time). Files are compared by size only,
which takes about a second for 40,000 of them.
"""

import shutil
import sysconfig
from importlib.metadata import Distribution
from pathlib import Path


def is_whole(distribution: Distribution) -> bool:
    """Whether every file that the distribution's RECORD lists exists with its size; False without a RECORD."""
    files = distribution.files
    if not files or distribution.metadata["Name"] is None:
        return False
    for file in files:
        # pip compiles *.pyc itself, and changes its own metadata files after it has written RECORD.
        if file.size is None or ".dist-info" in str(file.parent):
            continue
        path = Path(file.locate())
        if not path.is_file() or path.stat().st_size != file.size:
            return False
    return True


def drop_broken(site_packages: Path) -> None:
    """Removes incomplete distributions' metadata, and the ~name folders of upgrades that did not finish."""
    for leftover in site_packages.glob("~*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    for metadata in site_packages.glob("*.dist-info"):
        if not is_whole(Distribution.at(metadata)):
            print(f"{metadata.name}: incomplete, will be installed again")
            shutil.rmtree(metadata)


if __name__ == "__main__":
    for folder in {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}:
        drop_broken(folder)
