"""The rows of a training: usable images, dealt by slide, from what is decoded already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from five import CLASSES
from leuko.data.dataset import Dataset
from leuko.recipe import DataSettings, load_recipe
from leuko.support.reporter import Reporter
from tiny import write_dataset, write_picture

pytest.importorskip("keras", reason="needs the extra 'train'")

from leuko.training.rows import Rows, split_rows
from leuko.training.run_folder import Clock

RECIPE = replace(load_recipe("cnn"), data=DataSettings(validation=0.25))


def deal(opened: Dataset, run: Path) -> tuple[Rows, list[str]]:
    """Rows, and what was said."""
    said: list[str] = []
    clock = Clock(run, resume=False)
    rows = split_rows(opened, RECIPE, clock, reporter=Reporter(say=said.append))
    assert set(clock.seconds) == {"data"}
    return rows, said


def test_rows_are_dealt_by_slide(tmp_path: Path) -> None:
    opened = Dataset.open(write_dataset(tmp_path / "set", each=8, slides=4))
    rows, said = deal(opened, tmp_path / "run")
    assert (len(rows.train), len(rows.validation)) == (30, 10)
    assert not {*rows.train.slides} & {*rows.validation.slides}
    assert rows.both.samples == (*rows.train.samples, *rows.validation.samples)
    assert rows.source_digest == opened.training_rows.digest
    assert rows.hashes.shape == (40,)
    assert said == []
    again, _ = deal(Dataset.open(tmp_path / "set"), tmp_path / "run")
    assert again.both.digest == rows.both.digest


def test_what_was_decoded_is_not_decoded_again(tmp_path: Path) -> None:
    opened = Dataset.open(write_dataset(tmp_path / "set", each=8, slides=4))
    files = opened.training_rows.files()
    files[3].write_bytes(b"no image")
    opened.pictures.facts(files)
    for file in files:
        file.unlink()
    rows, said = deal(opened, tmp_path / "run")
    assert len(rows.both) == len(rows.hashes) == 39
    assert said[0].startswith(f"Rejected {opened.training_rows.samples[3].path} (")
    assert said[1] == "1 of 40 images were rejected."


def test_a_table_keeps_its_own_validation_rows(tmp_path: Path) -> None:
    lines = ["path,label,split"]
    for number, split in enumerate(("train", "train", "val", "test")):
        for name in CLASSES:
            file = write_picture(tmp_path / f"{name}-{number}.jpg", name, seed=number)
            lines.append(f"{file.name},{name},{split}")
    (tmp_path / "cells.csv").write_text("\n".join(lines))
    rows, said = deal(Dataset.open(tmp_path / "cells.csv"), tmp_path / "run")
    assert (len(rows.train), len(rows.validation)) == (10, 5)
    assert {sample.path[-6:] for sample in rows.validation.samples} == {"-2.jpg"}
    assert said == ["Validated on the 5 rows that the table keeps for it."]
