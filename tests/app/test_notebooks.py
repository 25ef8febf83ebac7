"""The notebooks: each is what its source says, and runs, as a script and cell by cell."""

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

SOURCES = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.py"))
NAMES = [path.stem for path in SOURCES]


def test_there_are_notebooks() -> None:
    assert {"01_first_backtest", "03_sweep_and_honesty"} <= set(NAMES)


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_notebook_is_made_from_its_source(source: Path) -> None:
    made = jupytext.read(source)
    kept = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert [(c.cell_type, c.source) for c in kept.cells] == [(c.cell_type, c.source) for c in made.cells]
    assert not any(c.get("outputs") for c in kept.cells), "outputs are not kept: jupytext --to ipynb writes none"


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_runs_as_a_script(source: Path, place: Path, root: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, str(source)], cwd=place, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "make ui" in done.stdout
    assert ("causality" if source.stem == "01_first_backtest" else "Out of sample") in done.stdout
    assert "sent no order" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_runs_cell_by_cell(source: Path, place: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a real Jupyter kernel, where classes have no file."""
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(root))
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(place)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in shown if output.output_type == "error"]
    kinds = {kind for output in shown if output.output_type != "stream" for kind in output.data}
    assert {"text/html", "application/vnd.plotly.v1+json"} <= kinds
    # A page that nbconvert makes of it knows HTML only, and has no network: the script comes along.
    texts = [output.data.get("text/html", "") for output in shown if output.output_type != "stream"]
    figures = [output for output in shown if "application/vnd.plotly.v1+json" in output.get("data", ())]
    assert all("Plotly.newPlot" in output.data["text/html"] for output in figures)
    assert any(len(text) > 1_000_000 for text in texts)
