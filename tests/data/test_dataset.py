"""A data set is found once, hashed once, and each of its images is decoded once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from five import CLASSES
from leuko.data.audit.background import ring_features
from leuko.data.audit.duplicates import thumbnail
from leuko.data.dataset import Dataset, ImageFacts, Pictures
from leuko.data.reading import read_csv, read_folder
from leuko.errors import DataError, ImageError, UsageError
from leuko.imaging.decode import read_image
from leuko.manifest import Manifest
from leuko.support.reporter import Reporter
from tiny import write_dataset, write_picture


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Three slides in Train, one in Test."""
    write_dataset(tmp_path / "set" / "Train", each=3, slides=3)
    write_dataset(tmp_path / "set" / "Test", each=2, slides=1)
    return tmp_path / "set"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV that deals its own splits: of each class four images, one of them without a split."""
    write_dataset(tmp_path / "cells", each=4)
    rows = [
        f"cells/{file.parent.name}/{file.name},{file.parent.name},{split}"
        for name in CLASSES
        for file, split in zip(
            sorted((tmp_path / "cells" / name).iterdir()), ("train", "", "val", "test"), strict=True
        )
    ]
    (tmp_path / "cells.csv").write_text("\n".join(["path,label,split", *rows]))
    return tmp_path / "cells.csv"


def test_a_folder_is_read_when_it_is_asked_for(place: Path) -> None:
    opened = Dataset.open(place)
    assert opened.splits == ("train", "test")
    assert opened.root == place.resolve()
    write_picture(place / "Train" / "Monocyte" / "95-8-9-1_1_1.jpg", "Monocyte")
    rows = opened.rows("train")
    assert len(rows) == 16
    assert rows.samples == tuple(opened.training_rows.samples)
    assert {sample.split for sample in opened.rows("test").samples} == {"test"}
    write_picture(place / "Train" / "Monocyte" / "95-8-9-1_2_1.jpg", "Monocyte")
    assert opened.rows("train") is rows
    assert list(opened.manifests) == ["train", "test"]


def test_the_first_split_decides_the_classes_of_all(tmp_path: Path) -> None:
    for split, names in (("Train", ("Blast", "Band")), ("Test", ("Blast",))):
        for name in names:
            write_picture(tmp_path / split / name / "S1_1_1.jpg", "Monocyte")
    opened = Dataset.open(tmp_path)
    assert opened.rows("test").scheme.names == opened.scheme.names == ("Band", "Blast")


def test_a_table_deals_its_own_splits(table: Path) -> None:
    opened = Dataset.open(table)
    assert opened.splits == ("train", "validation", "test")
    assert [len(rows) for rows in opened.manifests.values()] == [10, 5, 5]
    assert opened.rows("test").labels.tolist() == [0, 1, 2, 3, 4]
    rows = opened.training_rows
    assert len(rows) == 15
    assert rows.notes[-1] == "5 test rows of the table are not trained on."
    assert Dataset.of(read_csv(table)).training_rows.digest == rows.digest


def test_a_table_without_splits_is_for_training(tmp_path: Path) -> None:
    write_dataset(tmp_path / "cells", each=1)
    lines = [f"cells/{name}/95-8-1-1_0_1.jpg,{name}" for name in CLASSES]
    (tmp_path / "cells.csv").write_text("\n".join(["path,label", *lines]))
    opened = Dataset.open(tmp_path / "cells.csv")
    assert opened.splits == ("train",)
    assert opened.training_rows is opened.rows("train")


def test_a_table_is_audited(table: Path, leuko: Callable[..., Any]) -> None:
    document = json.loads(leuko("data", "info", table, "--no-background", "--json").out)
    assert [part["n"] for part in document["splits"].values()] == [10, 5, 5]
    assert document["classes"]["test"] == dict.fromkeys(CLASSES, 1)
    assert document["shared_slides"]["names"] == ["95-8-2-1"]


def test_what_is_open_stays_open(place: Path) -> None:
    opened = Dataset.open(place)
    assert Dataset.of(opened) is opened
    assert Dataset.of(place).rows("test") == opened.rows("test")


def test_what_is_not_there_is_said(place: Path, table: Path) -> None:
    with pytest.raises(DataError, match="set has no validation folder, so it cannot be read"):
        Dataset.open(place).rows("validation")
    only = read_csv(table).subset([0], split="test")
    with pytest.raises(DataError, match="no training rows, so nothing can be trained"):
        Dataset.of(only).require("train", "nothing can be trained on it")
    with pytest.raises(DataError, match="does not exist"):
        Dataset.open(place / "nowhere")
    with pytest.raises(UsageError, match="at least 1"):
        Dataset.open(place, workers=0)


def test_held_out_rows_are_not_trained_on(place: Path) -> None:
    for rows in (Dataset.open(place).rows("test"), read_folder(place / "Test")):
        with pytest.raises(DataError, match="must not be trained on"):
            _ = Dataset.of(rows).training_rows
    with pytest.raises(DataError, match="is the test folder of its data set"):
        _ = Dataset.open(place / "Test").training_rows
    train = read_folder(place / "Train")
    rest = Manifest(train.root, train.samples[3:], scheme=train.scheme)
    with pytest.raises(DataError, match="no image of Basophil"):
        _ = Dataset.of(rest).training_rows


def test_decoding_tells_what_audit_and_training_ask(place: Path) -> None:
    files = Dataset.open(place).rows("test").files()
    for facts, file in zip(Pictures(2, rings=True).facts(files), files, strict=True):
        image = read_image(file)
        assert isinstance(facts, ImageFacts)
        assert (facts.size, facts.mode, facts.format) == ("32x40", image.mode, "JPEG")
        assert np.array_equal(facts.thumbnail, thumbnail(image.pixels))
        assert facts.ring is not None
        assert np.array_equal(facts.ring, ring_features(image.pixels))


def test_each_image_is_decoded_once(place: Path) -> None:
    files = Dataset.open(place).rows("train").files()
    files[1].write_bytes(b"no image")
    pictures, told = Pictures(2), []
    first = pictures.facts(files[:4], reporter=Reporter(lambda *step: told.append(step)), stage="a")
    assert isinstance(first[1], ImageError)
    assert not pictures.readable(files[1])
    for file in files[:4]:
        file.unlink()
    every = pictures.facts(files, reporter=Reporter(lambda *step: told.append(step)), stage="b")
    assert every[:4] == first
    assert all(one is two for one, two in zip(first, every, strict=False))
    assert told == [("a", 4, 4), ("b", 15, 15)]
    again = pictures.facts(files[4:], rings=True)  # more is asked than was kept
    assert [one.ring is not None for one in again if isinstance(one, ImageFacts)] == [True] * 11
    assert isinstance(pictures.facts(files[:1], rings=True)[0], ImageError)  # it is gone by now
