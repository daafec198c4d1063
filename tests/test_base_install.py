"""The base install, for real: a wheel in an environment of its own, with no extra.

It must be small, know nothing of TensorFlow, and still predict and evaluate.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import leuko
from five import CLASSES

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints" / f"py{sys.version_info.major}{sys.version_info.minor}.txt"
SIZE_LIMIT_MB = 400
# Every virtual environment brings these, with or without Leuko.
OF_THE_ENVIRONMENT = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-")
ABSENT = ("keras", "tensorflow", "matplotlib", "sklearn", "scipy", "tf2onnx", "h5py")

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(900)]


def call(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command outside the repository, with nothing of this environment on its path."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV") and not name.startswith("LEUKO_")
    }
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    return subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def draw_cell(path: Path, label: int, seed: int) -> None:
    """A disc on a pale ground: no real cell, but a real image file."""
    rng = np.random.default_rng((seed, label))
    image = Image.new("RGB", (120, 120), (235, 225, 230))
    draw = ImageDraw.Draw(image)
    row, column = rng.integers(55, 66, size=2)
    draw.ellipse((column - 40, row - 40, column + 40, row + 40), fill=(200, 180, 210))
    radius = 20 + 3 * label
    draw.ellipse(
        (column - radius, row - radius, column + radius, row + radius),
        fill=(90 + 10 * label, 60, 130),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=90)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    built = call(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", *isolation, "-w", folder, ROOT),
        folder=folder,
    )
    if built.returncode != 0 and not isolation and "CI" not in os.environ:
        pytest.skip("hatchling is not installed and no package index answers")
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("leuko-*.whl")
    return found


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the second environment."""
    folder = tmp_path_factory.mktemp("base")
    venv.create(folder, with_pip=True, symlinks=sys.platform != "win32")
    command = [python(folder), "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    installed = call(*command, "-c", CONSTRAINTS, wheel, folder=folder)
    silence = r"No matching distribution|connection|resolve host|retrying"
    unreachable = re.search(silence, installed.stderr, re.IGNORECASE)
    if installed.returncode != 0 and unreachable and "CI" not in os.environ:
        pytest.skip("no package index answers, so the base install cannot be made")
    assert installed.returncode == 0, installed.stderr
    return folder


def python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def script(folder: Path) -> Path:
    return folder / ("Scripts/leuko.exe" if sys.platform == "win32" else "bin/leuko")


def has_default_model() -> bool:
    zoo = Path(leuko.__file__).parent / "zoo"
    return any(zoo.rglob("*.zip"))


needs_model = pytest.mark.skipif(
    not has_default_model(), reason="this build of Leuko bundles no model yet"
)


def test_wheel_holds_the_package_and_its_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    source = Path(leuko.__file__).parent
    expected = {
        f"leuko/{file.relative_to(source).as_posix()}"
        for file in source.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc"
    }
    assert expected - names == set()
    assert "leuko/py.typed" in names
    outside = {name for name in names if not name.startswith("leuko/")}
    assert all(".dist-info/" in name for name in outside), outside


def test_extras_are_absent_and_size_is_small(base: Path) -> None:
    code = (
        "import importlib.util, json, sysconfig;"
        f"names = {ABSENT!r};"
        "print(json.dumps([[n for n in names if importlib.util.find_spec(n)],"
        " sysconfig.get_path('purelib'), sysconfig.get_path('platlib')]))"
    )
    done = call(python(base), "-c", code, folder=base)
    assert done.returncode == 0, done.stderr
    found, *folders = json.loads(done.stdout)
    assert found == []
    size = sum(
        file.stat().st_size
        for folder in set(folders)
        for file in Path(folder).rglob("*")
        if file.is_file()
        and not file.is_symlink()
        and not file.relative_to(folder).parts[0].startswith(OF_THE_ENVIRONMENT)
    )
    print(f"the base install takes {size / 1e6:.0f} MB")
    assert size < SIZE_LIMIT_MB * 1e6


def test_version(base: Path) -> None:
    done = call(script(base), "--version", folder=base)
    assert done.returncode == 0, done.stderr
    assert leuko.__version__ in done.stdout


def test_training_names_its_extra(base: Path, tmp_path: Path) -> None:
    for label, name in enumerate(CLASSES):
        for split in ("Train", "Test"):
            for number in range(4):
                draw_cell(
                    tmp_path / "Dataset" / split / name / f"{split}{number}_1_{label}.jpg",
                    label,
                    number,
                )
    done = call(
        *(script(base), "train", "Dataset", "--recipe", "cnn", "--out", "run"), folder=tmp_path
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "pip install '.[train]'" in done.stderr
    assert "Traceback" not in done.stderr


@needs_model
def test_predict(base: Path, tmp_path: Path) -> None:
    draw_cell(tmp_path / "cell.jpg", 2, seed=0)
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    done = call(
        *(script(base), "predict", "cell.jpg", "broken.jpg", "--csv", "table.csv"),
        *("--picture", "out.png"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ok", "rejected"]
    shares = [float(rows[0][f"p_{name.lower()}"]) for name in CLASSES]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert rows[0]["label"] == CLASSES[int(np.argmax(shares))]
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size[0] >= 120


@needs_model
def test_evaluate(base: Path, tmp_path: Path) -> None:
    for label, name in enumerate(CLASSES):
        for number in range(3):
            draw_cell(tmp_path / "Test" / name / f"s{number}_1_{label}.jpg", label, number)
    done = call(script(base), "evaluate", "default", "Test", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["schema"] == "leuko.evaluation/1"
    assert report["n"] == 15
    assert report["n_slides"] == 3
    accuracy = report["metrics"]["accuracy"]
    assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert report["baselines"]["majority"]["accuracy"] == pytest.approx(0.2)
    assert np.array(report["confusion"]).sum(axis=1).tolist() == [3, 3, 3, 3, 3]
