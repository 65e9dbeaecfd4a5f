"""The notebook runs from its first cell to its last, and is kept without its outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.server import ROOT

NOTEBOOK = ROOT / "examples/folder_to_served_model.ipynb"


def read_notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call,no-any-return]


@pytest.mark.timeout(1800)  # two minutes on two quiet cores
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of the notebook's kernel client
def test_the_notebook_goes_from_a_folder_to_the_answers_of_a_served_model(
    test_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAMPLE_DATA", str((test_data / "pneumonia").resolve()))
    notebook = read_notebook()
    client = NotebookClient(notebook, timeout=1700, resources={"metadata": {"path": str(ROOT)}})
    client.execute()

    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert "the service ended with status 0" in printed
    assert len(pictures) == 2


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = read_notebook()
    assert [cell.outputs for cell in notebook.cells if cell.get("outputs")] == []
    assert {cell.execution_count for cell in notebook.cells if "execution_count" in cell} == {None}
