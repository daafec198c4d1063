"""Evaluations in words: what each caution says, and the summary of a terminal."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from five import CLASSES
from leuko.evaluation.report import Caution, EvaluationReport, evaluate_predictions
from leuko.render.evaluation import (
    evaluation_document,
    evaluation_summary,
    evaluation_warnings,
    no_better,
)

SURE = np.eye(5)
FIFTHS = np.tile(np.arange(5), 20)
DAYS = [f"s{row // 10}" for row in range(100)]


def a_report(
    answers: np.ndarray, slides: list[str], labels: np.ndarray = FIFTHS
) -> EvaluationReport:
    """One-hot answers to images of all classes in turn."""
    return evaluate_predictions(labels, SURE[answers], slides, resamples=50)


def some_wrong(labels: np.ndarray = FIFTHS) -> np.ndarray:
    """Every seventh answer is the next class."""
    return np.where(np.arange(len(labels)) % 7 == 0, (labels + 1) % 5, labels)


def test_without_a_caution_nothing_is_said() -> None:
    report = a_report(some_wrong(), DAYS)
    assert evaluation_warnings(report) == []
    assert evaluation_document(report)["warnings"] == []


def test_remarks_stand_after_the_cautions() -> None:
    report = a_report(some_wrong(), ["one"] * 100).with_context({}, remarks=["Two are damaged."])
    told = evaluation_warnings(report)
    assert told == [
        "All images count as one slide, so intervals are over images; they take cells for "
        "independent and are too narrow.",
        "Two are damaged.",
    ]
    assert evaluation_document(report)["warnings"] == told


def test_what_knows_nothing() -> None:
    labels = np.array([0] * 4 + [4] * 36)
    report = a_report(np.full(40, 4), [f"s{row}" for row in range(40)], labels)
    told = evaluation_warnings(report)
    assert told[0] == (
        "No better than always answering Neutrophil, as far as these 40 images show: accuracy "
        "90.0% where that gives 90.0%, balanced accuracy 50.0% where that gives 50.0%."
    )
    assert told[0] == no_better(report.confusion, CLASSES)
    assert f"Warning: {told[0]}" in evaluation_summary(report)


@pytest.mark.parametrize(
    ("kept", "present"), [([0, 4], "the 2 classes present"), ([4], "the 1 class present")]
)
def test_absent_classes_are_named(kept: list[int], present: str) -> None:
    rows = np.isin(FIFTHS, kept)
    slides = [DAYS[row] for row in np.flatnonzero(rows)]
    report = a_report(some_wrong()[rows], slides, FIFTHS[rows])
    told = next(one for one in evaluation_warnings(report) if "n = 0" in one)
    names = [name for place, name in enumerate(CLASSES) if place not in kept]
    assert told.startswith(f"No image of {', '.join(names[:-1])} and {names[-1]} is in this set")
    assert told.endswith(f"are means over {present}.")
    text = evaluation_summary(report)
    assert re.search(r"Monocyte +- +- +absent", text)
    assert "Means are over the classes present." in text


@pytest.mark.parametrize(
    ("slides", "told"),
    [
        ([f"{row:03}" for row in range(100)], "Every image has a slide of its own"),
        (["a", "b", "c", "c"] * 25, "There are only 3 slides; an interval over so few is rough"),
    ],
)
def test_slides_that_tell_little(slides: list[str], told: str) -> None:
    assert evaluation_warnings(a_report(some_wrong(), slides))[0].startswith(told)


def test_classes_on_few_slides_are_named() -> None:
    slides = [
        f"alone-{row % 2}" if label < 2 else f"s{row % 9}" for row, label in enumerate(FIFTHS)
    ]
    slides[1] = "alone-0"
    report = a_report(some_wrong(), slides)
    assert Caution.FEW_SLIDES_OF_CLASSES in report.cautions
    (told,) = (one for one in evaluation_warnings(report) if one.startswith("Too few slides"))
    assert "Basophil (2 slides) and Eosinophil (2 slides). The intervals" in told
    assert "too few slides" in evaluation_summary(report)


def test_no_mistake_does_not_claim_certainty() -> None:
    by_slide = a_report(FIFTHS, DAYS)
    told = next(one for one in evaluation_warnings(by_slide) if "no mistake" in one)
    assert told.startswith("There is no mistake among 100 images")
    assert "those of a slide are taken to be alike" in told
    told = evaluation_warnings(a_report(FIFTHS, [""] * 100))[1]
    assert "no mistake" in told
    assert "alike" not in told
    assert "1.0000 [1.0000" not in evaluation_summary(by_slide)


def test_intervals_without_a_spread_are_named() -> None:
    """Ten slides, four images of each class on each; monocytes are all taken for neutrophils."""
    labels = np.tile(np.repeat(np.arange(5), 4), 10)
    answers = np.where(labels == 3, 4, labels)
    answers[:3] = 1
    (told,) = evaluation_warnings(
        a_report(answers, [f"s{row // 20}" for row in range(200)], labels)
    )
    assert "sensitivity of Eosinophil, Lymphocyte, Monocyte and Neutrophil" in told
    assert "Basophil" not in told.partition("specificity")[0]
    assert told.endswith("where those of a slide are taken to be alike.")


def test_the_summary_reads_like_a_classification_report(sklearn_metrics: Any) -> None:
    answers = some_wrong()
    text = evaluation_summary(a_report(answers, DAYS))
    theirs = sklearn_metrics.classification_report(FIFTHS, answers, target_names=CLASSES, digits=4)
    for name in (*CLASSES, "macro avg", "weighted avg"):
        found = re.search(rf"{name} +([\d.]+) +([\d.]+) +([\d.]+)", theirs)
        assert found is not None
        ours = name.replace("avg", "average")
        row = next(line for line in text.splitlines() if line.startswith(ours))
        cells = re.sub(r"\[.*?\]", "", row.removeprefix(ours)).split()
        assert (cells[0], cells[1], cells[3]) == found.groups()
    assert "100 images, 10 slides" in text
    for title in ("accuracy  ", "balanced accuracy", "macro-F1", "majority baseline", "ECE"):
        assert title in text
    assert "Research use only" in text
    assert max(map(len, text.splitlines()[:10])) <= 96


def test_one_image() -> None:
    report = evaluate_predictions([3], [[0.1, 0.1, 0.1, 0.4, 0.3]], ["s"], resamples=10)
    assert evaluation_summary(report).startswith("1 image, 1 slide\n")
