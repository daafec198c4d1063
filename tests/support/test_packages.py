"""Packages of the base install that are missing or broken, in real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import leuko as package
from leuko.support.packages import fault_behind
from tiny import write_dataset

pytestmark = pytest.mark.slow

SOURCE = Path(package.__file__).resolve().parent.parent

BROKEN = {
    "emptied": "",
    "missing": "raise ModuleNotFoundError(\"No module named 'it'\", name='it')",
    "torn": "raise ImportError('libGL.so.1: cannot open shared object file')",
}
PREDICT = "predict Cells -m ./tiny.zip"
EVALUATE = "evaluate ./tiny.zip Cells --resamples 100 --out report"
NEEDED = [
    *(("cv2", "opencv-python-headless", kind, PREDICT) for kind in BROKEN),
    *(("cv2", "opencv-python-headless", "emptied", words) for words in ("--version", "--help")),
    ("numpy", "numpy", "torn", PREDICT),
    ("onnxruntime", "onnxruntime", "emptied", PREDICT),
    ("onnxruntime", "onnxruntime", "torn", PREDICT),
    ("PIL", "pillow", "missing", PREDICT),
    ("simplejpeg", "simplejpeg", "emptied", PREDICT),
    ("jinja2", "jinja2", "missing", EVALUATE),
    ("typer", "typer", "missing", "--version"),
    ("rich", "rich", "torn", "--help"),
]


def run(folder: Path, words: list[str], name: str, kind: str) -> subprocess.CompletedProcess[str]:
    """Run Python where a package is broken."""
    broken = folder / "broken" / name
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(BROKEN[kind])
    path = os.pathsep.join(map(str, (broken.parent, SOURCE)))
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def here(tiny_model: Path, tmp_path: Path) -> Path:
    """A folder with class folders in Cells and the tiny model."""
    write_dataset(tmp_path / "Cells", each=1)
    (tmp_path / "tiny.zip").symlink_to(tiny_model)
    return tmp_path


@pytest.mark.parametrize(("name", "called", "kind", "command"), NEEDED)
def test_the_command_line_names_it(
    here: Path, name: str, called: str, kind: str, command: str
) -> None:
    done = run(here, ["-m", "leuko", *command.split()], name, kind)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith(f"Error: The package {called} is missing or broken (")
    assert last.endswith(f". Install it anew: pip install --force-reinstall {called}")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["onnxruntime", "jinja2"])
def test_what_needs_it_not_works(here: Path, name: str) -> None:
    command = ["-m", "leuko", *(PREDICT if name == "jinja2" else "--version").split()]
    assert run(here, command, name, "missing").returncode == 0


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("cv2", "leuko.load"),
        ("numpy", "leuko.read_folder"),
        ("PIL", "leuko.audit_dataset"),
        ("onnxruntime", "leuko.load('./tiny.zip')"),
        ("simplejpeg", "leuko.load"),
    ],
)
def test_a_program_gets_an_error_of_ours(here: Path, name: str, call: str) -> None:
    code = f"import leuko\ntry:\n    {call}\nexcept leuko.LeukoError as error:\n    print(error)"
    done = run(here, ["-c", code], name, "emptied")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The package ")
    assert done.stdout.count("pip install --force-reinstall") == 1


def test_another_fault_is_no_packages() -> None:
    assert fault_behind(AttributeError("module 'cv2' has no attribute 'bogus'")) is None
