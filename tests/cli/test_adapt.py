"""``leuko adapt``: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from five import CLASSES
from leuko.bundle import ModelBundle
from leuko.imaging.decode import encode_png
from tiny import COLOURS, SIDE, write_dataset


@pytest.mark.slow
def test_a_model_is_fitted_and_written(
    leuko: Callable[..., Any], tiny_model: Path, tmp_path: Path
) -> None:
    """Cells of another camera; the table lies beside none of them."""
    rng, cells, table = np.random.default_rng(3), tmp_path / "cells", tmp_path / "t" / "few.csv"
    cells.mkdir()
    table.parent.mkdir()
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        for number in range(60):
            pixels = COLOURS[number % 5] + [70, -35, -70] + rng.normal(0, 9, (SIDE, SIDE, 3))
            data = encode_png(np.clip(np.round(pixels), 0, 255).astype(np.uint8))
            (cells / f"{number}.png").write_bytes(data)
            rows.writerow([f"{number}.png", CLASSES[number % 5]])
    out = tmp_path / "out.zip"
    done = leuko("adapt", tiny_model, cells, "--labels", table, "--out", out)
    assert done.code == 0, done.err
    digest = ModelBundle.load(out).digest
    assert done.out.splitlines()[0].startswith("60 labelled cells, 5 folds of single cells")
    assert done.out.splitlines()[-1] == f"{out}: digest {digest[:12]}."
    told = leuko("adapt", tiny_model, cells, "--labels", table, "--out", out, "--json", "--quiet")
    document = json.loads(told.out)
    assert (document["schema"], document["labels"]["n"]) == ("leuko.adaptation/2", 60)
    assert document["digest"] == digest != ModelBundle.load(tiny_model).digest


def test_what_is_refused(leuko: Callable[..., Any], tiny_model: Path, tmp_path: Path) -> None:
    images = write_dataset(tmp_path / "images", each=3)
    out = tmp_path / "out.zip"
    bare = leuko("adapt", tiny_model, images, "--out", out)
    assert (bare.code, bare.out) == (2, "")
    assert "needs --labels" in bare.err
    assert "nothing tells a better model from a worse one" in bare.err
    table = tmp_path / "few.csv"
    table.write_text("path,label\n95-8-1-1_0_1.jpg,blast\n")
    wrong = leuko("adapt", tiny_model, images, "--out", out, "--labels", table)
    assert wrong.code == 1
    assert "names no class" in wrong.err
    missing = leuko("adapt", tiny_model, tmp_path / "no", "--out", out, "--labels", table)
    assert missing.code == 1
    assert "is no folder" in missing.err
    assert leuko("adapt", tiny_model, images).code == 2
    assert not out.exists()
