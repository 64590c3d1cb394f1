"""The tables of README.md and results/*/README.md: regenerated from the records, and checked against them."""

import json
from pathlib import Path

import pytest

from fastaugself.errors import RunError, UsageError
from readme_tables import ROOT, TABLES, main, results_page, update, with_tables

RECORDS = ROOT / "results" / "intel-xeon-2-cores"


@pytest.fixture
def repository(tmp_path):
    """A README with one marked block, and the record that it needs."""
    (tmp_path / "results" / "box").mkdir(parents=True)
    (tmp_path / "results" / "box" / "augment.json").write_bytes((RECORDS / "augment.json").read_bytes())
    text = "before\n<!-- table augment results/box/augment.json -->\nold\n<!-- end of table -->\nafter\n"
    (tmp_path / "README.md").write_text(text)
    return tmp_path


def test_marked_blocks_and_only_they_are_rewritten_and_a_difference_is_found(repository):
    with pytest.raises(RunError, match=r"README\.md.*differ from the records; run python scripts/readme_tables\.py"):
        update(repository, check=True)
    changed = [repository / "README.md", repository / "results" / "box" / "README.md"]
    assert update(repository) == changed
    made = changed[0].read_text()
    assert made.startswith("before\n<!-- table") and made.endswith("<!-- end of table -->\nafter\n")
    assert "old" not in made
    result = json.loads((repository / "results" / "box" / "augment.json").read_text())
    rate = result["rows"][0]["views_per_s"]
    assert f"| fastaugself-numba | {rate:,.0f} | |" in made and result["environment"]["cpu"] in made
    assert "fastaugself-numba, 1 view" not in made and "oracle" not in made
    whole = changed[1].read_text()
    assert "fastaugself-numba, 1 view" in whole and "AugSelf's targets" in whole
    assert update(repository, check=True) == []


def test_exit_codes(repository, capsys):
    assert main(["--root", str(repository), "--check"]) == 1
    assert main(["--root", str(repository)]) == 0
    assert main(["--root", str(repository), "--check"]) == 0
    assert main(["--root", str(repository / "results")]) == 2
    assert "results has no README.md; pass the folder of the repository with --root" in capsys.readouterr().err


def test_a_block_without_its_record_is_refused(tmp_path):
    block = "<!-- table {} results/none/{}.json -->\n<!-- end of table -->\n"
    with pytest.raises(UsageError, match=r"none/augment\.json, which does not exist"):
        with_tables(block.format("augment", "augment"), tmp_path)
    with pytest.raises(UsageError, match="the table magic, which is unknown; known: augment, loader"):
        with_tables(block.format("magic", "magic"), tmp_path)


def test_the_study_has_a_block_and_a_section():
    record = json.loads((RECORDS / "study.json").read_text())
    block = TABLES["study"].block(record, "results/box/study.json")
    assert "| moco base |" in block and block.rstrip().endswith("[results/box](results/box/README.md#study).</sub>")
    assert "\n## study\n" in results_page(RECORDS)


def test_the_tables_of_this_repository_are_those_of_its_records():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_tables(readme, ROOT) == readme
    folders: set[Path] = {path.parent for name in TABLES for path in ROOT.glob(f"results/*/{name}.json")}
    assert folders
    for folder in folders:
        assert (folder / "README.md").read_text(encoding="utf-8") == results_page(folder), (
            "run python scripts/readme_tables.py"
        )
