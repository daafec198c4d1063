"""Accuracy of what a model stands by, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from leuko.errors import DataError
from leuko.evaluation.report import evaluate_predictions
from leuko.evaluation.selective import COVERAGES, accuracy_at_coverage, decided
from leuko.render.evaluation import evaluation_summary


def answers(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """The surer the answer, the oftener it is right: the least confident tenth is wrong."""
    labels = np.arange(n) % 5
    told = np.where(np.arange(n) < n // 10, (labels + 1) % 5, labels)
    confidence = 0.5 + 0.4 * np.arange(n) / n
    table = np.repeat((1 - confidence[:, None]) / 4, 5, axis=1)
    table[np.arange(n), told] = confidence
    return labels, table


def test_the_most_confident_answers_are_counted() -> None:
    labels, table = answers()
    found = accuracy_at_coverage(labels, table)
    assert [one.n for one in found] == [int(c * 200) for c in COVERAGES]
    assert [one.accuracy for one in found] == pytest.approx([1, 1, 180 / 190, 180 / 198])
    assert found[1].confidence == pytest.approx(0.5 + 0.4 * 20 / 200)


def test_decisions_are_counted_and_what_stands_is_measured() -> None:
    labels, table = answers()
    decisions = ["unsure"] * 30 + ["unlike-training"] * 10 + ["class"] * 160
    slides = [str(row % 8) for row in range(200)]
    found = decided(labels, table.argmax(axis=1), slides, decisions, seed=0, resamples=50)
    assert found.counts == {
        "class": 160,
        "unsure": 30,
        "not-a-cell": 0,
        "unlike-training": 10,
        "duplicate": 0,
        "set-aside": 0,
    }
    assert found.answered is not None
    assert (found.answered.n, found.answered.accuracy) == (160, 1.0)
    # All right, and still not certain: 20 a slide, a fifth of which the others tell.
    assert found.answered.low == pytest.approx(160 / 4.8 / (160 / 4.8 + 1.96**2), abs=1e-4)


def test_nothing_that_stands_has_no_accuracy() -> None:
    labels, table = answers()
    found = decided(labels, table.argmax(axis=1), [""] * 200, ["unsure"] * 200, seed=0, resamples=9)
    assert found.answered is None
    with pytest.raises(DataError, match="for each of 200 images"):
        decided(labels, table.argmax(axis=1), [""] * 200, ["maybe"] * 200, seed=0, resamples=9)


def test_the_report_tells_it() -> None:
    labels, table = answers()
    slides = [str(row % 8) for row in range(200)]
    decisions = ["unsure"] * 20 + ["class"] * 180
    report = evaluate_predictions(labels, table, slides, decisions=decisions, resamples=50)
    text = evaluation_summary(report)
    assert "most confident 95%  0.9474" in text
    assert "accepted            1.0000" in text
    assert "decisions           class 90.0%, unsure 10.0%" in text
    document = report.to_dict(warnings=())
    assert document["decisions"]["counts"]["class"] == 180
    assert [one["coverage"] for one in document["selective"]] == list(COVERAGES)
    assert (
        evaluate_predictions(labels, table, slides, resamples=9).to_dict(warnings=())["decisions"]
        is None
    )
