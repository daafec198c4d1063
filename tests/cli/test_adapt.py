"""``leuko adapt``: what it prints, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leuko.bundle import ModelBundle
from tiny import write_dataset


def test_a_model_that_needs_nothing(
    leuko: Callable[..., Any], tiny_model: Path, tmp_path: Path
) -> None:
    images = write_dataset(tmp_path / "images", each=5)
    out = tmp_path / "out.zip"
    done = leuko("adapt", tiny_model, images, "--out", out)
    assert done.code == 0, done.err
    assert "kept as it was" in done.out
    assert [line.split(":")[0] for line in done.out.splitlines()[:3]] == [
        "- scale", "- looks", "- statistics",
    ]  # fmt: skip
    assert ModelBundle.load(out).members() == ModelBundle.load(tiny_model).members()
    shown = leuko("adapt", tiny_model, images, "--out", out, "--json", "--quiet")
    document = json.loads(shown.out)
    assert document["schema"] == "leuko.adaptation/1"
    assert (document["images"], document["changed"], document["labels"]) == (25, False, None)
    assert document["digest"] == ModelBundle.load(tiny_model).digest


def test_what_is_refused(leuko: Callable[..., Any], tiny_model: Path, tmp_path: Path) -> None:
    images = write_dataset(tmp_path / "images", each=3)
    out = tmp_path / "out.zip"
    few = leuko("adapt", tiny_model, images, "--out", out)
    assert (few.code, few.out) == (1, "")
    assert "needs 20 different images" in few.err
    assert leuko("adapt", tiny_model, tmp_path / "no", "--out", out).code == 1
    table = tmp_path / "few.csv"
    table.write_text("path,label\n95-8-1-1_0_1.jpg,blast\n")
    wrong = leuko("adapt", tiny_model, images, "--out", out, "--labels", table)
    assert wrong.code == 1
    assert "names no class" in wrong.err
    assert leuko("adapt", tiny_model, images).code == 2
    assert not out.exists()
