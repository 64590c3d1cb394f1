"""Changelog, citation and notices keep step with the package: its version, its papers and what it depends on."""

import importlib.metadata
import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTICE = (ROOT / "NOTICE").read_text(encoding="utf-8")
# Installed by set-up or where they are found, declared nowhere.
BESIDE = {"ffcv", "imagecorruptions-imaug", "kernels", "torchvision"}


def noticed():
    """Licence by distribution, as NOTICE has them."""
    return dict(re.findall(r"^  ([a-z][\w-]+)  +(.+)$", NOTICE, re.MULTILINE))


def declared():
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return {re.split(r"[^\w.-]", line)[0].lower() for line in chain.from_iterable(lists)} - {"fastaugself"}


def test_the_changelog_begins_with_the_version_of_the_package():
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == PROJECT["version"] == importlib.metadata.version("fastaugself")
    assert len(set(versions)) == len(versions)


def test_the_citation_has_the_packages_version_licence_and_papers():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    papers = {reference["url"].removeprefix("https://arxiv.org/abs/") for reference in citation["references"]}
    assert papers == {"2111.09613", "2306.06082", "2111.11398", "2003.04297", "2306.12517"}
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= reference.keys()
        assert all(author.keys() == {"given-names", "family-names"} for author in reference["authors"])
        # arXiv's numbers begin with the year and month of the first version.
        assert f"20{reference['url'].split('/')[-1][:2]}" == str(reference["year"])


def test_every_dependency_is_in_the_notice_and_nothing_else():
    assert noticed().keys() == declared() | BESIDE


@pytest.mark.parametrize("name", sorted(declared() | BESIDE))
def test_the_licence_of_a_dependency_is_the_one_its_metadata_states(name):
    try:
        about = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    stated = " ".join([about["License-Expression"] or "", (about["License"] or "")[:400]])
    stated += " ".join(line for line in about.get_all("Classifier") or [] if line.startswith("License"))
    if not stated.strip():
        pytest.skip(f"{name} states no licence in its metadata")
    family = re.match(r"Apache|BSD|MIT-CMU|MIT|MPL|PSF", noticed()[name])[0]
    words = {"PSF": ("PSF", "Python Software Foundation")}.get(family, (family,))
    assert any(word in stated for word in words), stated


def test_licence_and_notice_travel_with_the_package():
    assert PROJECT["license-files"] == ["LICENSE", "NOTICE"]
