"""What an import may cost and may do: little, and nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import leuko

SOURCE = Path(leuko.__file__).resolve().parent.parent

# Packages that only an extra brings, and those that a plain `import leuko` has no need of yet.
EXTRAS = (
    "keras",
    "tensorflow",
    "tf2onnx",
    "onnx",
    "h5py",
    "matplotlib",
    "sklearn",
    "scipy",
    "ray",
    "pyarrow",
    "pandas",
    "openvino",
)
HEAVY = (*EXTRAS, "cv2", "onnxruntime", "PIL", "jinja2")

# Modules that only an extra makes useful; the commands that open them say which extra.
NEED_EXTRAS = (
    "leuko.training",
    "leuko.render",
    "leuko.workflows.compare",
    "leuko.workflows.demo",
    "leuko.__main__",
)

# The strict limit, 0.3 s, is measured by `make bench`; a busy CI machine gets three times that.
IMPORT_LIMIT_S = 0.9


def run_python(code: str, folder: Path) -> str:
    """Run code in a fresh interpreter that sees this Leuko, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(SOURCE)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_quick(tmp_path: Path) -> None:
    code = "import time; t = time.perf_counter(); import leuko; print(time.perf_counter() - t)"
    seconds = [float(run_python(code, tmp_path)) for _ in range(3)]
    assert min(seconds) < IMPORT_LIMIT_S


def test_import_brings_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import json, sys, leuko; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    )
    loaded = set(json.loads(run_python(code, tmp_path)))
    assert loaded.isdisjoint(HEAVY), sorted(loaded.intersection(HEAVY))


def test_import_has_no_effects(tmp_path: Path) -> None:
    code = """
import json, logging, os, random, signal, sys, threading, warnings

def state():
    return {
        "handlers": [repr(h) for h in logging.getLogger().handlers],
        "leuko handlers": [
            repr(h) for h in logging.getLogger("leuko").handlers
            if not isinstance(h, logging.NullHandler)
        ],
        "level": logging.getLogger().level,
        "filters": [repr(f) for f in warnings.filters],
        "environment": dict(os.environ),
        "signals": [repr(signal.getsignal(s)) for s in sorted(signal.valid_signals())],
        "threads": threading.active_count(),
        "hook": repr(sys.excepthook),
        "random": repr(random.getstate()),
        "folder": os.getcwd(),
        "files": sorted(os.listdir(".")),
    }

before = state()
import leuko
after = state()
print(json.dumps([name for name in before if before[name] != after[name]]))
"""
    assert json.loads(run_python(code, tmp_path)) == []


@pytest.mark.slow
def test_every_name_that_is_exported_exists() -> None:
    missing = [name for name in leuko.__all__ if not hasattr(leuko, name)]
    assert missing == []


def test_base_modules_import_without_the_extras(tmp_path: Path) -> None:
    """All but what the extras are for, with the extras' packages made unimportable."""
    code = f"""
import importlib, json, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None

sys.meta_path.insert(0, Absent())
import leuko

def walk(package):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name in {NEED_EXTRAS!r}:
            continue
        loaded = importlib.import_module(module.name)
        yield module.name
        if module.ispkg:
            yield from walk(loaded)

print(json.dumps(list(walk(leuko))))
"""
    names = json.loads(run_python(code, tmp_path))
    assert "leuko.scheme" in names
    assert "leuko.evaluation" in names


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_command_line_starts_light(arguments: list[str], tmp_path: Path) -> None:
    code = f"""
import json, sys
from leuko.cli.main import main
sys.argv = ["leuko", *{arguments!r}]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print()
print(json.dumps(sorted({{m.split(".")[0] for m in sys.modules}})))
"""
    printed = run_python(code, tmp_path).splitlines()
    loaded = set(json.loads(printed[-1]))
    heavy = loaded.intersection((*EXTRAS, "onnxruntime"))
    assert heavy == set()
