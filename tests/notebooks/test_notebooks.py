"""Every notebook runs from its first cell to its last, and is stored as it ran."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.filterwarnings("ignore:.*kernel.*:RuntimeWarning")

LOCAL_PATH = re.compile(r"(?:/(?:home|root|tmp|work|Users|mnt|var|private)/|[A-Z]:\\\\)[^\s\"']*")


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def text_of(cell):
    """What a cell shows as text: streams, and texts of results; pictures are left out."""
    parts = []
    for output in cell.outputs:
        parts.append(output.get("text", ""))
        parts += [data for kind, data in output.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join("".join(part) for part in parts)


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all notebooks run, so that the demo is scored once; with the tables that lie beside them."""
    folder = tmp_path_factory.mktemp("notebooks")
    for table in (Path(__file__).parents[2] / "notebooks").glob("*.csv"):
        shutil.copy(table, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_and_shows_as_many_pictures_as_are_stored(path, folder, monkeypatch):
    monkeypatch.chdir(folder)
    notebook = nbformat.read(path, as_version=4)
    stored = [pictures(cell) for cell in notebook.cells if cell.cell_type == "code"]
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute()
    assert [pictures(cell) for cell in notebook.cells if cell.cell_type == "code"] == stored


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_stored_with_all_outputs_in_order_and_no_local_path_or_error(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(pictures(cell) for cell in cells)
    for cell in cells:
        assert not [output for output in cell.outputs if output.output_type == "error"]
        assert not LOCAL_PATH.search(text_of(cell) + cell.source)


def pictures(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)
