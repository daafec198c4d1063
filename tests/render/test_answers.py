"""The words for what was decided, and the one next step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from five import CLASSES
from leuko.imaging.decode import REJECT_REASONS
from leuko.prediction import DECISIONS, Prediction
from leuko.render.answers import all_rejected, next_step, question, tally_text, title, why
from leuko.runtime.trust.decide import REASONS

ROW = Prediction.answered("a.jpg", np.array([0.01, 0.02, 0.62, 0.33, 0.02]), "ab" * 32, "cd" * 6)


def doubted(decision: str, reason: str, **more: float) -> Prediction:
    return replace(ROW, decision=decision, reason=reason, **more)


def test_the_class_is_said_only_where_it_is_accepted() -> None:
    assert (title(ROW), question(ROW), why(ROW)) == ("Lymphocyte", "", "")
    assert title(Prediction("a.jpg", "rejected", reason="corrupt")) == "Rejected"
    for decision in (*DECISIONS[1:], "duplicate", "something-new"):
        said = title(replace(ROW, decision=decision))
        assert said
        assert not any(name in said for name in CLASSES)


def test_low_confidence_asks_and_says_the_limit() -> None:
    row = doubted("unsure", "low-confidence", limit=0.93)
    assert question(row) == "Lymphocyte or Monocyte?"
    assert question(row, short=True) == "LYMPH or MONO?"
    assert why(row) == "62.0%, accepted from 93.0% on"
    assert why(replace(row, limit=None)) == "62.0% is too little"
    assert (
        why(replace(row, confidence=0.98001, limit=0.98004)) == "98.001%, accepted from 98.004% on"
    )
    assert why(replace(row, limit=0.99996)) == "62.000%, accepted from 99.996% on"
    assert why(replace(row, confidence=0.5, limit=0.5)).startswith("50.")


def test_the_other_reasons() -> None:
    row = doubted("unlike-training", "far-from-training", distance=2.312, limit=1.9)
    assert why(row) == "distance 2.31, at most 1.90"
    assert why(replace(row, limit=None)) == "far from every cell of training"
    assert why(doubted("unsure", "blurred")) == "blurred"
    assert why(doubted("duplicate", "the same cell as x.jpg")) == "the same cell as x.jpg"
    for decision, reasons in REASONS.items():
        for reason in reasons:
            assert why(doubted(decision, reason)) not in ("", "no-nucleus", "few-pixels")


def test_the_tally_adds_up() -> None:
    outcomes = {
        ("class", ""): 1200,
        ("unsure", "low-confidence"): 5,
        ("unsure", "blurred"): 3,
        ("not-a-cell", "blank"): 2,
        ("unlike-training", "far-from-training"): 1,
        ("duplicate", ""): 4,
        ("rejected", "corrupt"): 1,
    }
    assert tally_text(outcomes) == (
        "1,216 images: 1,200 accepted, 8 unsure, 2 not a cell, 1 unlike training, 4 seen before, "
        "1 rejected."
    )
    assert tally_text({("class", ""): 1}) == "1 image: 1 accepted."
    assert tally_text({("something-new", ""): 2}) == "2 images: 2 something-new."


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        ({("class", ""): 5}, ""),
        ({("class", ""): 9, ("unsure", "low-confidence"): 1}, "name them by eye"),
        ({("class", ""): 9, ("unsure", "blurred"): 1}, "in focus"),
        ({("class", ""): 9, ("unsure", "overexposed"): 1}, "less light"),
        ({("class", ""): 9, ("unsure", "underexposed"): 1}, "more light"),
        ({("class", ""): 9, ("unsure", "few-pixels"): 1}, "higher magnification"),
        ({("class", ""): 9, ("unsure", "new-doubt"): 1}, "name them by eye"),
        ({("unsure", "unproven"): 30}, "leuko models calibrate"),
        ({("class", ""): 9, ("unlike-training", "far-from-training"): 1}, "the stain"),
        ({("class", ""): 9, ("not-a-cell", "blank"): 1}, "one white cell in its middle"),
        ({("class", ""): 9, ("duplicate", ""): 1}, "not counted again"),
        ({("class", ""): 9, ("rejected", "corrupt"): 1}, "rejected file"),
        # The largest part decides; of equal ones the gravest.
        ({("unsure", "blurred"): 2, ("unsure", "low-confidence"): 3, ("class", ""): 9}, "by eye"),
        ({("unsure", "blurred"): 2, ("not-a-cell", "blank"): 2, ("class", ""): 9}, "white cell"),
        # Most of ten answers or more: it is the model. Rejected files are no answers.
        ({("class", ""): 4, ("unlike-training", "far-from-training"): 4,
          ("unsure", "low-confidence"): 2, ("rejected", "corrupt"): 30}, "leuko adapt --labels"),
        ({("class", ""): 5, ("unlike-training", "far-from-training"): 5}, "the stain"),
        ({("unlike-training", "far-from-training"): 9}, "the stain"),
    ],
)  # fmt: skip
def test_the_next_step(outcomes: dict[tuple[str, str], int], told: str) -> None:
    step = next_step(outcomes)
    assert told in step
    assert step.count(".") <= 2
    assert bool(step) == (set(outcomes) != {("class", "")})


def test_no_answer_at_all() -> None:
    assert all_rejected({("rejected", "corrupt"): 3, ("class", ""): 1}) == ""
    assert all_rejected({}) == ""
    assert all_rejected({("rejected", reason): 1 for reason in REJECT_REASONS}).count(",") == len(
        REJECT_REASONS
    )
    assert all_rejected({("rejected", "corrupt"): 1}) == (
        "The image could not be read (corrupt), so there is no answer."
    )
