"""The notebook runs from top to bottom, on fewer steps than a reader would take."""

import nbformat
from nbclient import NotebookClient

from helpers.paths import ROOT


NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


def test_it_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # not the user's, whose startup files would run
    monkeypatch.setenv("NOTEBOOK_STEPS", "2")
    monkeypatch.setenv("NOTEBOOK_HELD_OUT", "32")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2  # heatmaps, and the run
    printed = "".join(output.get("text", "") for output in outputs if output.output_type == "stream")
    assert "0 moved without ever being selected" in printed and "gain" in printed


def test_it_is_committed_without_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs") and not cell.get("execution_count")
