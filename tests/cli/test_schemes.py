"""Any set of classes goes through every command: 2, 5, 8 and 21 of them, drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leuko.bundle import ModelBundle
from leuko.data.synth import draw_cell, draw_slide_style
from leuko.data.synth.kinds import KINDS
from leuko.imaging.decode import encode_png
from leuko.recipe import load_recipe

# Raised inside TensorFlow, by NumPy's newer ways.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SCHEMES = {
    "own": ("Blast", "Zelle 细胞"),
    "differential-5": ("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil"),
    "pbc-8": (
        "Basophil", "Eosinophil", "Erythroblast", "Immature granulocyte", "Lymphocyte", "Monocyte",
        "Neutrophil", "Platelet",
    ),
    "twenty-one": tuple(f"{kind} of kind {number}" for number, kind in enumerate(KINDS[:21] * 2))[
        :21
    ],
}  # fmt: skip


def draw(folder: Path, names: tuple[str, ...], *, each: int, first: int) -> None:
    """Small drawn cells in class folders, on slides of their own."""
    styles = [draw_slide_style(np.random.default_rng(slide)) for slide in range(3)]
    for label, name in enumerate(names):
        kind = KINDS[label % len(KINDS)]
        for number in range(each):
            rng = np.random.default_rng([label, first + number])
            cell = draw_cell(kind, rng, styles[number % 3], size=64)
            file = folder / name / f"S{first + number % 3}_{number}_{label}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode_png(cell.pixels))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_command(scheme: str, tmp_path: Path, leuko: Any) -> None:
    names = SCHEMES[scheme]
    data = tmp_path / "data"
    draw(data / "Train", names, each=9, first=0)
    draw(data / "Test", names, each=4, first=10)
    small = load_recipe("cnn")
    small = replace(
        small, name="tiny", published={},
        preprocess=replace(small.preprocess, size=(32, 32), crop=1.0),
        train=replace(small.train, epochs=1, steps=4, batch=8),
    )  # fmt: skip
    (tmp_path / "tiny.toml").write_text(small.to_toml(), encoding="utf-8")
    audit = json.loads(leuko("data", "info", data, "--no-background", "--json").out)
    ordered = list(audit["classes"]["train"])
    assert sorted(ordered) == sorted(names)
    assert leuko("balance", data / "Train", tmp_path / "Balanced").code == 0
    run = tmp_path / "run"
    done = leuko("train", data, "--recipe", tmp_path / "tiny.toml", "--out", run)
    assert done.code == 0, done.err
    bundle = ModelBundle.load(run)
    assert list(bundle.scheme.names) == ordered
    done = leuko("evaluate", run, data / "Test", "--out", tmp_path / "e", "--json")
    report = json.loads(done.out)
    assert report["classes"] == ordered
    assert (tmp_path / "e" / "report.html").is_file()
    cells = data / "Test"
    table = tmp_path / "p.csv"
    done = leuko(
        "predict", cells, "--model", run, "--csv", table, "--picture", tmp_path / "sheet.png"
    )
    assert done.code == 0, done.err
    header = table.read_text(encoding="utf-8").splitlines()[0]
    assert header.count(",p_") == len(names)
    first = next((cells / ordered[0]).iterdir())
    assert leuko("predict", first, "--model", run, "--explain", tmp_path / "heat").code == 0
    fitted = tmp_path / "fitted.zip"
    done = leuko("models", "calibrate", run, data / "Train", "--out", fitted, "--accuracy", 0.5)
    assert done.code in (0, 1), done.err
    counted = leuko("count", cells, "--model", run, "--json")
    assert counted.code in (0, 1), counted.err
    assert "Traceback" not in counted.err
    assert leuko("models", "show", run).code == 0
    out = tmp_path / "exported"
    done = leuko("export", run, "--format", "onnx", "--float16", "--out", out)
    assert done.code == 0, done.err
