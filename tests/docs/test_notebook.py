"""The notebook runs from its first cell to its last in a Jupyter kernel of this environment."""

import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "first-steps.ipynb"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="pip install nbformat nbclient ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="pip install nbformat nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="pip install nbformat nbclient ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells), "strip the outputs"
    client = nbclient.NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [o for o in shown if o.output_type == "error"] == []
    text = "".join(o.text for o in shown if o.output_type == "stream" and o.name == "stdout")
    assert "schedule  3 epochs of 16 steps" in text  # the log is no error
    (bar,) = (o for o in shown if "progress" in o.get("data", {}).get("text/html", ""))
    assert bar.data["text/plain"].startswith("step 48/48  loss ")
    accuracy = float(re.findall(r"linear probe: ([\d.]+)% of 8 classes", text)[0])
    assert accuracy > 50
    assert (tmp_path / "runs" / "first-steps" / "report.html").exists()
