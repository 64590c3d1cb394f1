"""Half-installed distributions are removed from the metadata, whole ones are kept."""

import pytest

from drop_broken import drop_broken


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda site: None, True),
        (lambda site: (site / "big" / "part.txt").unlink(), False),
        (lambda site: (site / "big" / "part.txt").write_text(""), False),
        (lambda site: (site / "big-1.0.dist-info" / "RECORD").unlink(), False),
    ],
    ids=["whole", "a file is missing", "a file is empty", "no RECORD"],
)
def test_metadata_without_its_files_is_removed(tmp_path, damage, kept):
    metadata = tmp_path / "big-1.0.dist-info"
    metadata.mkdir()
    (tmp_path / "big").mkdir()
    (tmp_path / "~ig").mkdir()  # of an upgrade that did not finish
    (tmp_path / "big" / "part.txt").write_text("words")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: big\nVersion: 1.0\n")
    (metadata / "RECORD").write_text("big/part.txt,sha256=x,5\nbig-1.0.dist-info/METADATA,,\n")
    damage(tmp_path)
    drop_broken(tmp_path)
    assert metadata.exists() == kept and not (tmp_path / "~ig").exists()
