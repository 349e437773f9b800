"""The notebooks run from top to bottom without a warning, and are kept without what they print.

The installed package is what is tested, so that a wheel without the notebooks fails here.
"""

from importlib.resources import files

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = files("contextem") / "examples" / "notebooks"
STAGES = ("1_read_and_calibrate", "2_find_columns", "3_moments_and_invariants", "4_classify", "5_simulate_and_train")


def test_every_stage_has_its_notebook():
    assert sorted(path.name for path in FOLDER.iterdir()) == [f"{stage}.ipynb" for stage in STAGES]


@pytest.mark.parametrize("stage", STAGES)
def test_notebook_runs(stage, tmp_path, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))  # nothing of whoever runs the test
    notebook = nbformat.reads((FOLDER / f"{stage}.ipynb").read_text(encoding="utf-8"), as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.cells[0].source.startswith(f"# {stage[0]}. ")
    strict = nbformat.v4.new_code_cell("import warnings\nwarnings.simplefilter('error')")
    lenient = nbformat.v4.new_code_cell("warnings.resetwarnings()")  # what ends the kernel is not ours
    notebook.cells = [strict, *notebook.cells, lenient]
    NotebookClient(notebook, timeout=120).execute()
    outputs = [output for cell in code for output in cell.outputs]
    assert all(output.get("name") != "stderr" for output in outputs)
    shown = [output.data for output in outputs if "data" in output]
    assert any("image/png" in data or "text/html" in data for data in shown)
    assert not any(data["text/plain"].startswith("<Figure") and "image/png" not in data for data in shown)
