"""The notebook runs from its first cell to its last, on drawn data and without a network."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "experiment.ipynb"


def test_it_is_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_runs_on_drawn_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    backbone = resources.files("leuko") / "zoo" / "mobilenetv2-leuko.npz"
    for name, value in {
        "LEUKO_WEIGHTS": "leuko" if backbone.is_file() else "none",
        "LEUKO_DATASET": str(tmp_path / "absent"),
        "LEUKO_OUT": str(tmp_path / "out"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "PYTHONPATH": str(NOTEBOOK.parent.parent / "src"),
    }.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=420, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    printed = "".join(o["text"] for o in outputs if o.output_type == "stream")
    assert len(pictures) >= 6
    assert "McNemar" in printed
    assert (tmp_path / "out" / "cnn" / "bundle").is_dir()
    assert (tmp_path / "out" / "mobilenetv2" / "bundle").is_dir()
