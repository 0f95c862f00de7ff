"""The notebook, from its first cell to its last, as somebody who opens it would run it."""

from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.notebook
@pytest.mark.filterwarnings("default")  # Jupyter's own
def test_the_tour_runs_and_ends_with_a_student_nearer_to_its_teacher():
    import nbclient
    import nbformat

    notebook = nbformat.read(DOCS / "tour.ipynb", as_version=4)
    # A cell that raises ends this with its traceback.
    nbclient.NotebookClient(
        notebook, timeout=1200, resources={"metadata": {"path": DOCS}}
    ).execute()
    printed = [
        "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    assert len(printed) == 10
    assert "steps" in printed[7] and "Traceback" not in "".join(printed)
    before, after = (float(word) for word in printed[9].split() if word.startswith("0."))
    assert after < before
