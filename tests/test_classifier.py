"""Every classifier answers alike, with a bundle or without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from five import CLASSES
from in_memory import InMemory
from leuko.batch.partition import Piece, answer_piece, decode_answers
from leuko.classifier import Classifier
from leuko.prediction_files import read_predictions
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.sources import expand
from leuko.source import bytes_source
from leuko.workflows.predict import answer_images, written
from tiny import SIDE, paint, write_picture


@pytest.fixture(params=["onnx", "memory"])
def classifier(request: pytest.FixtureRequest) -> Classifier:
    """A bundle that is open, and none at all."""
    if request.param == "memory":
        return InMemory()
    bundled: OnnxClassifier = request.getfixturevalue("tiny_classifier")
    return bundled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A picture of each class, the last one twice, and one that is none."""
    for number, name in enumerate([*CLASSES, CLASSES[-1]]):
        write_picture(tmp_path / "cells" / f"{number}.png", name)
    (tmp_path / "cells" / "9.png").write_bytes(b"junk")
    return tmp_path / "cells"


def test_answers_are_in_order(classifier: Classifier, folder: Path) -> None:
    rows = list(classifier.stream(expand([str(folder)])))
    assert [row.label for row in rows] == [*CLASSES, CLASSES[-1], ""]
    assert [Path(row.path).name for row in rows] == [f"{n}.png" for n in (0, 1, 2, 3, 4, 5, 9)]
    assert rows[-1].reason == "not-an-image"
    assert {row.model for row in rows} == {classifier.digest[:12]}
    assert classifier.accepts
    assert classifier.threads >= 1


def test_nothing_in_nothing_out(classifier: Classifier) -> None:
    assert list(classifier.stream([])) == []
    none = np.zeros((0, 1, SIDE, SIDE, 3), np.uint8)
    assert classifier.predict_views(none).shape == (0, 5)


def test_views_of_one_picture_are_one_answer(classifier: Classifier) -> None:
    views = np.stack(
        [[paint(name, seed=k, shape=(SIDE, SIDE)) for k in (0, 1)] for name in CLASSES]
    )
    both = classifier.predict_views(views)
    assert both.argmax(axis=1).tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(both.sum(axis=1), 1, atol=5e-6)
    alone = classifier.predict_views(views[:, 0])
    np.testing.assert_array_equal(alone, classifier.predict_views(views[:, :1]))
    assert not np.array_equal(alone, both)


def test_with_a_bundle_and_without(tiny_classifier: OnnxClassifier) -> None:
    views = np.stack(
        [[paint(name, seed=k, shape=(SIDE, SIDE)) for k in (0, 1)] for name in CLASSES]
    )
    np.testing.assert_allclose(
        InMemory().predict_views(views), tiny_classifier.predict_views(views), atol=2e-5
    )


def test_a_cell_counts_once(classifier: Classifier, folder: Path) -> None:
    rows = list(answer_images([str(folder)], classifier.stream))
    assert [row.decision for row in rows] == [*["class"] * 5, "duplicate", ""]
    assert rows[5].reason == f"same cell as {folder}/4.png"


def test_files_are_written_as_answers_pass(
    classifier: Classifier, folder: Path, tmp_path: Path
) -> None:
    csv, parquet = tmp_path / "p.csv", tmp_path / "p.parquet"
    pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
    answers = answer_images([str(folder)], classifier.stream)
    passing = written(answers, classifier, csv=csv, parquet=parquet)
    first = next(passing)
    assert not csv.exists()
    rows = [first, *passing]
    for file in (csv, parquet):
        told = read_predictions(file, classifier.scheme).rows
        assert [(row.path, row.label, row.decision) for row in told] == [
            (row.path, row.label, row.decision) for row in rows
        ]


def test_what_is_stopped_leaves_no_file(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("old")
    passing = written(
        classifier.stream([bytes_source("a", b"")]), classifier, csv=tmp_path / "p.csv"
    )
    assert next(passing).reason == "empty-file"
    passing.close()
    assert [place.name for place in tmp_path.iterdir()] == ["p.csv"]
    assert (tmp_path / "p.csv").read_text() == "old"


def test_a_worker_takes_any(classifier: Classifier, folder: Path) -> None:
    sources = tuple(expand([str(folder)]))
    answer = answer_piece(Piece(0, 0, sources), classifier)
    rows = decode_answers(answer.payload, "here", classifier.scheme)
    assert [row.label for row in rows] == [*CLASSES, CLASSES[-1], ""]
