from __future__ import annotations

import csv
import io
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from leuko.artifacts import RESEARCH_USE
from leuko.errors import DataError
from leuko.evaluation.differential import (
    REFERENCE_RANGES,
    UNDECIDED,
    Tally,
    differential,
    flag_of,
)
from leuko.evaluation.differential_adjust import adjust_shares, adjusted_draws
from leuko.evaluation.differential_limits import cells_for_half_width, exact_interval, share_limits
from leuko.evaluation.intervals import OVER_SLIDES, WILSON, wilson_interval
from leuko.prediction import Prediction, PredictionTable
from leuko.taxonomy import CLASSES

CONFUSION = [
    [48, 0, 1, 0, 0],
    [0, 148, 0, 1, 0],
    [0, 1, 562, 12, 0],
    [0, 0, 6, 162, 0],
    [0, 25, 3, 2, 1254],
]
VALIDATION = {"split": "slide", "n": 2225, "n_slides": 14, "confusion": CONFUSION}
COUNTS = (1, 8, 60, 15, 116)
NUMBERS = itertools.count()


def answer(name, decision="class", *, certainty=0.96):
    """One row that takes an image for a class."""
    values = np.full(5, (1 - certainty) / 4)
    values[CLASSES.index(name)] = certainty
    row = Prediction.answered("a.png", values.round(6), f"{next(NUMBERS):064x}", "abc123abc123")
    return replace(row, decision=decision)


def table(counts=COUNTS, *others):
    """A table with so many sorted rows of each class."""
    rows = [answer(name) for name, count in zip(CLASSES, counts) for _ in range(count)]
    return PredictionTable((*rows, *others))


REJECTED = Prediction("b.png", "rejected", reason="truncated", model="abc123abc123")


# What is counted


def test_only_rows_decided_class_are_sorted_and_the_others_are_told():
    others = [answer("Monocyte", "unsure") for _ in range(3)] + [
        answer("Basophil", "unlike-training")
    ]
    result = differential(table(COUNTS, *others, answer("Basophil", "not-a-cell"), REJECTED))
    assert [row.count for row in result.rows] == list(COUNTS)
    assert result.total == 200
    assert result.found == 206
    assert result.unsorted == {"not-a-cell": 1, "unlike-training": 1, "unsure": 3}
    assert result.rejected == {"truncated": 1}
    assert result.sorted_sentence() == (
        "Sorted into classes: 200 of 206 images; not sorted: 1 not-a-cell, 1 unlike-training, "
        "3 unsure, 1 rejected (truncated)."
    )
    assert result.sorted_sentence() in " ".join(result.summary().split())


def test_an_image_is_counted_once_however_often_it_is_given():
    """The same cells twice would narrow the limits."""
    once = table(COUNTS, answer("Monocyte", "unsure"), REJECTED)
    twice = PredictionTable((*once.rows, *once.rows))
    plain, result = differential(once), differential(twice)
    assert [row.to_dict() for row in result.rows] == [row.to_dict() for row in plain.rows]
    assert result.unsorted == plain.unsorted
    assert (result.found, result.repeated) == (2 * plain.found, 201)
    assert result.rejected == {"truncated": 2}  # what could not be read has no digest
    assert result.sorted_sentence().endswith("201 repeated (the same cell as an earlier one).")
    assert result.to_dict()["repeated"] == 201
    assert (plain.repeated, "repeated" in plain.sorted_sentence()) == (0, False)
    for name in ("cell 7", ""):  # somebody's own table may name images otherwise, or not at all
        rows = [replace(answer("Monocyte"), sha256=name)] * 3
        assert Tally.of(rows).total == (1 if name else 3)


def test_unsure_rows_are_counted_when_asked():
    rows = table(COUNTS, answer("Monocyte", "unsure"), answer("Monocyte", "not-a-cell"))
    tally = Tally.of(rows, count_unsure=True)
    assert tally.counts == (1, 8, 60, 16, 116)
    assert tally.unsorted == {"not-a-cell": 1}


def test_a_tally_keeps_rows_only_for_em():
    assert Tally.of(table()).probabilities is None
    kept = Tally.of(table((1, 0, 0, 0, 2), answer("Monocyte", "unsure")), keep_probabilities=True)
    np.testing.assert_allclose(kept.probabilities[:, [0, 4]],
                               [[0.96, 0.01], [0.01, 0.96], [0.01, 0.96]], atol=1e-6)  # fmt: skip


def test_nothing_sorted_is_an_error_that_says_why():
    with pytest.raises(DataError, match=r"Not one of 2 images .*1 unsure, 1 truncated"):
        differential(PredictionTable((answer("Basophil", "unsure"), REJECTED)))
    with pytest.raises(DataError, match="Not one of 0 images was sorted into a class;"):
        differential(PredictionTable(()))


# Shares and limits


def test_raw_shares_have_exact_or_wilson_limits():
    for kind, interval in (("exact", exact_interval), ("wilson", wilson_interval)):
        result = differential(table(), method="raw", limits=kind)
        for row, count in zip(result.rows, COUNTS):
            assert row.share == row.estimate == count / 200
            assert (row.low, row.high) == interval(count, 200)
            assert (row.estimate_low, row.estimate_high) == (row.low, row.high)


def test_simultaneous_limits_are_wider():
    one = differential(table(), validation=VALIDATION)
    all_five = differential(table(), validation=VALIDATION, simultaneous=True)
    assert [(row.low, row.high) for row in all_five.rows] == share_limits(COUNTS, level=0.99)
    for narrow, wide in zip(one.rows, all_five.rows):
        assert wide.estimate_low <= narrow.estimate_low
        assert wide.estimate_high > narrow.estimate_high
    assert "hold at once" in all_five.summary()


def test_corrected_shares_are_the_adjusted_ones_with_the_limits_of_the_draws():
    result = differential(table(), validation=VALIDATION, seed=5)
    assert result.method == "corrected"
    shares = adjust_shares(COUNTS, CONFUSION)
    low, high = adjusted_draws(COUNTS, CONFUSION, seed=5).limits()
    np.testing.assert_allclose([row.estimate for row in result.rows], shares)
    np.testing.assert_allclose([row.estimate_low for row in result.rows], low)
    np.testing.assert_allclose([row.estimate_high for row in result.rows], high)
    # Two in a hundred neutrophils are called eosinophils: the correction takes one point off.
    assert result.rows[1].share - result.rows[1].estimate == pytest.approx(0.012, abs=0.001)


def test_the_spread_between_slides_widens_the_limits_and_is_told():
    accuracy = {"value": 0.977, "low": 0.955, "high": 0.99, "method": OVER_SLIDES}
    validation = {**VALIDATION, "metrics": {"accuracy": accuracy}}
    steady = differential(table(), validation=VALIDATION)
    spread = differential(table(), validation=validation)
    assert steady.effect == 1
    assert spread.effect == pytest.approx(7.7, abs=0.1)
    assert spread.rows[1].estimate_high > steady.rows[1].estimate_high
    assert "The validation cells from 14 slides are alike within a slide: they count as 1/7." in (
        " ".join(spread.notes)
    )
    assert "alike within a slide" not in " ".join(steady.notes)


def test_em_uses_the_probabilities():
    provenance = {"recipe": {"data": {"balance": "fixed"}}}
    result = differential(table(), validation=VALIDATION, provenance=provenance, method="em")
    # Every row says 0.96 of one class and 0.01 of each other, under even shares.
    wanted = (np.array(COUNTS) / 200 - 0.01) / 0.95
    wanted = np.maximum(wanted, 0) / np.maximum(wanted, 0).sum()
    np.testing.assert_allclose([row.estimate for row in result.rows], wanted, atol=0.002)
    for row in result.rows:
        assert row.estimate_low <= row.estimate <= row.estimate_high
    with pytest.raises(DataError, match="this tally kept none"):
        differential(Tally.of(table()), validation=VALIDATION, method="em")


@pytest.mark.parametrize(
    ("split", "whose"),
    [
        ("check", ", which were given to leuko export --check,"),
        ("cross-validated", ", which were labelled for leuko adapt,"),
        (None, " do not tell"),
    ],
)
def test_em_is_refused_where_training_shares_are_not_known(split, whose):
    validation = {**VALIDATION, "split": split}
    with pytest.raises(DataError, match="EM needs the class shares") as error:
        differential(table(), validation=validation, method="em")
    assert whose in str(error.value)
    assert "--method corrected" in str(error.value)
    assert differential(table(), validation=validation).method == "corrected"
    # Another precision of a network has the shares of the network.
    provenance = {"variant": {"source": {"validation": VALIDATION}}}
    if split == "check":
        one = differential(table(), validation=validation, provenance=provenance, method="em")
        other = differential(table(), validation=VALIDATION, method="em")
        assert [row.estimate for row in one.rows] == [row.estimate for row in other.rows]


def test_a_model_that_tells_no_slides_is_told_of():
    known = differential(table(), validation=VALIDATION)
    assert "does not tell which slides" not in " ".join(known.notes)
    for slides in (None, 1, 2225):
        result = differential(table(), validation={**VALIDATION, "n_slides": slides})
        assert result.effect == 1
        assert "does not tell which slides" in " ".join(result.notes)
    stated = differential(table(), validation={**VALIDATION, "n_slides": None, "effect": 3.0})
    assert stated.effect == 3
    assert "does not tell which slides" not in " ".join(stated.notes)
    assert "count as 1/3.0" in " ".join(stated.notes)


def test_the_best_model_has_not_the_surest_limits():
    """No mistake on 14 slides: its limits are no narrower than of one with fifty mistakes."""
    right = np.diag(np.sum(CONFUSION, axis=1)).tolist()
    accuracy = {"value": 1.0, "low": 0.998, "high": 1.0, "method": WILSON}
    faultless = {**VALIDATION, "confusion": right, "metrics": {"accuracy": accuracy}}
    result = differential(table(), validation=faultless)
    assert result.effect == pytest.approx(1 + (2225 / 14 - 1) * 0.2)
    assert "count as 1/32.6" in " ".join(result.notes)
    usual = differential(table(), validation=VALIDATION)
    for one, other in zip(result.rows, usual.rows):
        assert one.estimate_high - one.estimate_low > other.estimate_high - other.estimate_low


def test_without_a_confusion_matrix_the_count_is_raw_and_says_so():
    result = differential(table(), validation={})
    assert result.method == "raw"
    assert "imported models have none" in result.notes[0]
    assert "not corrected" in result.notes[0]
    assert "corrected %" not in result.summary()
    for method in ("corrected", "em"):
        with pytest.raises(DataError, match=r"imported models have none\).*--method raw"):
            differential(table(), validation={}, method=method)
    with pytest.raises(DataError, match="Received method 'magic'"):
        differential(table(), method="magic")


def test_what_the_correction_assumes_of_unsure_cells_is_told():
    rows = table(COUNTS, *[answer("Monocyte", "unsure") for _ in range(30)])
    left_out = differential(rows, validation=VALIDATION)
    assert "measured with no cell left unsure, 30 were here" in " ".join(left_out.notes)
    counted = differential(Tally.of(rows, count_unsure=True), validation=VALIDATION)
    assert "left unsure" not in " ".join(counted.notes)


# Flags and widths


@pytest.mark.parametrize(
    ("name", "low", "high", "flag"),
    [
        ("Eosinophil", 0.0, 0.009, "below"),
        ("Eosinophil", 0.0, 0.01, UNDECIDED),
        ("Eosinophil", 0.01, 0.06, "within"),
        ("Eosinophil", 0.061, 0.2, "above"),
        ("Eosinophil", 0.06, 0.2, UNDECIDED),
        ("Basophil", 0.0, 0.019, "within"),
        ("Neutrophil", 0.3, 0.9, UNDECIDED),
    ],
)
def test_flags_need_limits_that_exclude_the_edge(name, low, high, flag):
    assert flag_of(name, low, high) == flag


def test_reference_ranges_can_hold_together():
    assert tuple(REFERENCE_RANGES) == CLASSES
    assert sum(low for low, _ in REFERENCE_RANGES.values()) < 100
    assert sum(high for _, high in REFERENCE_RANGES.values()) > 100


def test_how_many_more_cells_a_raw_count_needs():
    result = differential(table(), method="raw", width=0.05)
    assert result.rows[4].cells_needed == cells_for_half_width(0.58, 0.05)
    assert result.cells_needed == max(row.cells_needed for row in result.rows)
    more = result.cells_needed - 200
    assert result.width_sentence() == (
        f"For limits of ±5 points in every class, sort about {result.cells_needed} cells: {more} "
        "more (Neutrophil decides)."
    )
    known = differential(table(), method="raw", width=0.2)
    assert known.width_sentence() == "Every class is known to ±20 points or better."
    out_of_reach = differential(table(), method="raw", width=0.0001)
    assert "more cells than can be counted" in out_of_reach.width_sentence()


def test_how_many_more_cells_a_corrected_count_needs():
    width = 0.03
    first = differential(table(), validation=VALIDATION, width=width)
    times = first.cells_needed / 200
    counts = tuple(round(times * count) for count in COUNTS)
    then = differential(table(counts), validation=VALIDATION)
    widest = max((row.estimate_high - row.estimate_low) / 2 for row in then.rows)
    assert widest == pytest.approx(width, rel=0.05)
    hopeless = differential(table(), validation=VALIDATION, width=0.005)
    assert hopeless.cells_needed is None
    assert hopeless.width_sentence().startswith("No number of cells gives limits of ±0.5 points")
    assert "its validation alone leaves ±" in hopeless.width_sentence()


# The document


def test_document_csv_and_summary_say_the_same():
    result = differential(table(), validation=VALIDATION, manual=[(1, 6, 62, 14, 117)],
                          context={"seed": 0})  # fmt: skip
    document = json.loads(json.dumps(result.to_dict()))
    assert document["schema"] == "leuko.count/1"
    assert document["research_use"] == RESEARCH_USE
    assert (document["found"], document["sorted"], document["seed"]) == (200, 200, 0)
    eosinophils = document["classes"]["Eosinophil"]
    assert eosinophils["count"] == 8
    assert eosinophils["percent"] == pytest.approx(4)
    assert (eosinophils["reference_low"], eosinophils["reference_high"]) == (1, 6)
    assert document["manual"]["classes"]["Eosinophil"]["percent"] == pytest.approx(3)
    rows = list(csv.DictReader(io.StringIO(result.csv_text())))
    assert [row["class"] for row in rows] == list(CLASSES)
    assert (rows[1]["count"], rows[1]["percent"], rows[1]["manual_count"]) == ("8", "4.00", "6")
    assert rows[1]["estimate"] == f"{eosinophils['estimate']:.2f}"
    lines = result.summary().splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[2].split()[:3] == ["Eosinophil", "8", "4.0"]
    assert "Dacie and Lewis" in result.summary()
    assert " ".join(result.summary().split()).endswith(RESEARCH_USE)


def test_the_same_seed_gives_the_same_document():
    one, again, other = (
        differential(table(), validation=VALIDATION, manual=[COUNTS], seed=seed).to_dict()
        for seed in (1, 1, 2)
    )
    assert one == again != other
