"""5,000 mutated images and archives through a classifier: an answer or a named reason for each."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from called import called
from leuko.errors import DataError
from leuko.imaging.decode import REJECT_REASONS, refuse_bombs
from leuko.prediction import Prediction
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.sources import expand
from mutated import mutated_archive, mutated_image, whole_archives, whole_images

IMAGES, ARCHIVES = 4_000, 1_000
SLOWEST = 10.0


@pytest.fixture(autouse=True)
def as_on_the_command_line() -> Iterator[None]:
    with warnings.catch_warnings():
        refuse_bombs()
        yield


def check(row: Prediction) -> str:
    """One row has an answer, or a reason with a sentence: which."""
    if row.status == "ok":
        assert abs(sum(row.probabilities) - 1) < 1e-4
        return "ok"
    assert row.reason in REJECT_REASONS
    assert row.detail
    return row.reason


@pytest.mark.slow
def test_images(tiny_classifier: OnnxClassifier) -> None:
    images = whole_images()
    sources = (called(str(seed), partial(mutated_image, seed, images)) for seed in range(IMAGES))
    met: Counter[str] = Counter()
    slowest, before = 0.0, time.perf_counter()
    for number, row in enumerate(tiny_classifier.stream(sources)):
        assert row.path == str(number)
        met[check(row)] += 1
        now = time.perf_counter()
        slowest, before = max(slowest, now - before), now
    assert sum(met.values()) == IMAGES
    assert met["ok"] > IMAGES / 10
    assert {"truncated", "corrupt", "not-an-image", "too-large"} <= set(met), met
    assert slowest < SLOWEST


@pytest.mark.slow
def test_archives(tiny_classifier: OnnxClassifier, tmp_path: Path) -> None:
    archives = whole_archives(whole_images())
    met: Counter[str] = Counter()
    slowest, refusals = 0.0, []
    for seed in range(ARCHIVES):
        path = mutated_archive(seed, archives, tmp_path / "cells.zip")
        started = time.perf_counter()
        rows = []
        try:
            for row in tiny_classifier.stream(expand([str(path)])):
                rows.append(check(row))
        except DataError as error:
            refusals.append(str(error))
            rows.append("refused")
        assert rows
        met.update(rows)
        slowest = max(slowest, time.perf_counter() - started)
    assert met["ok"] > ARCHIVES / 2
    assert {"refused", "unreadable"} <= set(met), met
    assert all("cells.zip" in sentence and sentence.endswith(".") for sentence in refusals)
    assert slowest < SLOWEST
    assert [place.name for place in tmp_path.iterdir()] == ["cells.zip"]
