"""``leuko models calibrate``, and what ``leuko predict`` says of a picture that is no cell."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leuko.bundle import ModelBundle
from leuko.data.reading import read_folder
from leuko.imaging.decode import encode_png
from tiny import write_dataset, write_picture


def test_a_bundle_learns_to_doubt(
    leuko: Callable[..., Any], tiny_model: Path, tmp_path: Path
) -> None:
    rows = write_dataset(tmp_path / "Validation", each=30, slides=6, suffix=".png")
    out = tmp_path / "doubting.zip"
    done = leuko("models", "calibrate", tiny_model, rows, "--out", out, "--accuracy", 0.9,
                 "--coverage", 0.9, "--alarms", 0.05)  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.startswith("## Trust")
    assert "Fitted on 150 images of 6 slides" in done.out
    bundle = ModelBundle.load(out)
    assert f"digest {bundle.digest[:12]}" in done.out
    shown = leuko("models", "calibrate", tiny_model, rows, "--out", out, "--json", "--accuracy",
                  0.9, "--coverage", 0.9, "--alarms", 0.05)  # fmt: skip
    document = json.loads(shown.out)
    assert next(iter(document.items())) == ("schema", "leuko.calibration/1")
    assert document["digest"] == bundle.digest
    assert document["thresholds"] == bundle.thresholds
    assert document["trust"] == bundle.validation["trust"]

    cell = write_picture(tmp_path / "cell.png", "Monocyte")
    blank = tmp_path / "blank.png"
    blank.write_bytes(encode_png(np.full((40, 40, 3), 222, np.uint8)))
    told = leuko("predict", cell, blank, "--model", out).out.splitlines()
    assert told[0].split("\t")[1] == "Monocyte"
    assert told[1].split("\t")[1:3] == ["not a cell", "nothing is in the picture"]
    assert "likeliest: " in told[1]


@pytest.mark.slow
def test_few_images_take_no_safeguard_away(
    leuko: Callable[..., Any], tiny_model: Path, tmp_path: Path
) -> None:
    rows = write_dataset(tmp_path / "Validation", each=30, slides=6, suffix=".png")
    first, then = tmp_path / "first.zip", tmp_path / "then.zip"
    promised = ("--accuracy", 0.9, "--coverage", 0.9, "--alarms", 0.05)
    assert leuko("models", "calibrate", tiny_model, rows, "--out", first, *promised).code == 0
    few = write_dataset(tmp_path / "Few", each=6)
    done = leuko("models", "calibrate", first, few, "--out", then)
    assert done.code == 0, done.err
    for words in ("Labels are unsure below", "The bundle's own are kept", "with their space"):
        assert words in done.out
        assert words in done.err
    assert set(ModelBundle.load(then).thresholds) == set(ModelBundle.load(first).thresholds)
    blank = tmp_path / "white.png"
    blank.write_bytes(encode_png(np.full((40, 40, 3), 255, np.uint8)))
    told = leuko("predict", blank, "--model", then).out.split("\t")
    assert told[1:3] == ["not a cell", "nothing is in the picture"]


def test_what_cannot_be_calibrated(
    leuko: Callable[..., Any], tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    rows = write_dataset(tmp_path / "Train", each=4)
    model = tmp_path / "m.zip"
    replace(tiny_bundle, provenance={"source_digest": read_folder(rows).digest}).save(model)
    refused = leuko("models", "calibrate", model, rows, "--out", tmp_path / "x.zip")
    assert refused.code == 1
    assert "was trained on the images" in refused.err
    assert not (tmp_path / "x.zip").exists()
    few = leuko("models", "calibrate", tmp_path / "m.zip", write_dataset(tmp_path / "few", each=2),
                "--out", tmp_path / "x.zip")  # fmt: skip
    assert few.code == 1
    assert "received 10 of 5" in few.err
    assert not (tmp_path / "x.zip").exists()
    wrong = leuko("models", "calibrate", model, rows, "--out", tmp_path / "x.zip",
                  "--accuracy", 1.5)  # fmt: skip
    assert wrong.code == 2
    missing = leuko("models", "calibrate", model, tmp_path / "no", "--out", tmp_path / "x.zip")
    assert missing.code == 1
