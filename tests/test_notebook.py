"""The tutorial runs from a fresh copy of the project: from top to bottom, and in any order after its first cell."""

import os
import re

import nbformat
import numpy as np
import pytest
from conftest import REPOSITORY
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from projects import link_project

TUTORIAL = REPOSITORY / "notebooks" / "tutorial.ipynb"


@pytest.fixture
def project(tmp_path):
    """A folder with the scripts and a place for the notebook in it, and nothing made yet."""
    (tmp_path / "notebooks").mkdir()
    return link_project(tmp_path)


def run(notebook, project, monkeypatch):
    for name in [name for name in os.environ if name.startswith("ECG_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("MPLBACKEND", raising=False)  # another test's choice would show no figure
    settings = {"OMP_NUM_THREADS": "1", "ECG_TRAINING__THREADS": "1", "IPYTHONDIR": str(project / "ipython")}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    place = {"metadata": {"path": str(project / "notebooks")}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def shown(cell):
    return [kind for output in cell.outputs for kind in output.get("data", ()) if kind != "text/plain"]


def test_notebook_is_kept_without_outputs():
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(project, monkeypatch):
    notebook = nbformat.read(TUTORIAL, as_version=4)
    run(notebook, project, monkeypatch)
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    assert "signal (12, 5000) in mV, 500 Hz" in printed(cells["signal"])
    assert shown(cells["signal"]) == ["image/png"]
    assert shown(cells["inspect"]) == ["image/png"] * 2
    score = float(re.search(r"[Mm]acro.F1[^0-9]*([01]\.\d+)", printed(cells["report"]))[1])
    assert score > 0.6, "the text says that ten epochs are enough to see the score rise"
    assert shown(cells["figures"]) == ["text/markdown", "image/png", "image/png"]
    assert shown(cells["test_record"]) == ["image/png"]
    assert len(re.findall("present from", printed(cells["predict"]))) == 6
    assert sorted(path.name for path in project.iterdir() if not path.is_symlink()) == [
        "ipython", "notebooks", "prepared", "raw", "runs",
    ]  # fmt: skip


@pytest.mark.slow
def test_cells_run_in_any_order_and_twice(project, monkeypatch):
    """From the last cell up, so that the first of them makes all by itself; then as lots decide."""
    notebook = nbformat.read(TUTORIAL, as_version=4)
    first, *others = [cell for cell in notebook.cells if cell.cell_type == "code"]
    first.source, changed = re.subn(r'= "tutorial", \d+, \d+', '= "tutorial", 40, 1', first.source)
    assert changed == 1
    order = [first, *others[::-1], *np.random.default_rng(0).permutation(others)]
    notebook.cells = [new_code_cell(cell["source"]) for cell in order]
    run(notebook, project, monkeypatch)
    assert [cell for cell in notebook.cells if cell.execution_count is None] == []
