from __future__ import annotations

import csv
import io
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leuko.errors import DataError
from leuko.evaluation.counting.correction import (
    adjusted_draws,
    adjusted_shares,
    split_confusion,
)
from leuko.evaluation.counting.differential import (
    LEAST_ACCEPTED,
    UNDECIDED,
    differential,
    flag_of,
)
from leuko.evaluation.counting.limits import exact_interval
from leuko.evaluation.counting.tally import Tally, answers_of
from leuko.evaluation.intervals import OVER_SLIDES, WILSON
from leuko.prediction import Judgement, Prediction, PredictionTable
from leuko.render.counts import (
    accepted_sentence,
    count_csv,
    count_document,
    count_notes,
    format_count,
    left_sentence,
    width_sentence,
)
from leuko.scheme import load_scheme, scheme_of
from leuko.support.artifacts import RESEARCH_USE

SCHEME = load_scheme("differential-5")
CLASSES = SCHEME.names
CONFUSION = [
    [48, 0, 1, 0, 0],
    [0, 148, 0, 1, 0],
    [0, 1, 562, 12, 0],
    [0, 0, 6, 162, 0],
    [0, 25, 3, 2, 1254],
]
TRUST = {"decisions": {"shares": {"class": 0.87, "low-confidence": 0.13}, "accuracy": 0.997}}
VALIDATION = {
    "split": "slide", "n": 2225, "n_slides": 14, "confusion": CONFUSION, "trust": TRUST,
}  # fmt: skip
COUNTS = (1, 8, 60, 15, 116)
NUMBERS = itertools.count()
FIVE = [
    (0.008874052677765846, 0.0, 0.03247853116850875, 43),
    (0.053107650952744, 0.019239481151496915, 0.13286776574744533, 350),
    (0.2760957137997851, 0.21578280771250058, 0.3505350599300626, 468),
    (0.08453204245135847, 0.0432521210909777, 0.15180113611787413, 290),
    (0.5773905401183466, 0.49196582854728205, 0.6749997022716803, None),
]


def answer(name, decision="class", *, certainty=0.96):
    """One row that takes an image for a class."""
    values = np.full(5, (1 - certainty) / 4)
    values[CLASSES.index(name)] = certainty
    row = Prediction.answered("a.png", values.round(6), f"{next(NUMBERS):064x}", "abc123abc123")
    return replace(row, decision=decision)


def table(counts=COUNTS, *others):
    """A table with so many accepted rows of each class."""
    rows = [answer(name) for name, count in zip(CLASSES, counts) for _ in range(count)]
    return PredictionTable((*rows, *others))


def left_open(counts, decision="unsure"):
    """Rows of each class whose answer is not accepted."""
    return [
        answer(name, decision, certainty=0.6)
        for name, count in zip(CLASSES, counts)
        for _ in range(count)
    ]


def count(*arguments, **settings):
    return differential(*arguments, **{"validation": VALIDATION, **settings})


REJECTED = Prediction("b.png", "rejected", reason="truncated", model="abc123abc123")


# What is counted


def test_every_cell_counts_and_the_rest_is_told():
    others = [*left_open((0, 0, 0, 3, 0)), *left_open((1, 0, 0, 0, 0), "unlike-training")]
    result = count(table(COUNTS, *others, answer("Basophil", "not-a-cell"), REJECTED))
    assert [row.accepted for row in result.rows] == list(COUNTS)
    assert [row.others for row in result.rows] == [1, 0, 0, 3, 0]
    assert (result.accepted, result.total, result.found) == (200, 204, 206)
    assert result.left_out == {"not-a-cell": 1}
    assert result.rejected == {"truncated": 1}
    lines = format_count(result).splitlines()
    assert (
        " ".join(lines[:2]).rstrip()
        == accepted_sentence(result)
        == ("The model accepts 200 of 204 cells (98.0%); the limits hold what the other 4 may be.")
    )
    assert left_sentence(result) == (
        "Not counted, of 206 images: 1 not a cell, 1 rejected (truncated)."
    )
    assert left_sentence(result) in " ".join(format_count(result).split())
    assert left_sentence(count(table())) == "All of 200 images are counted."


def test_a_row_that_is_not_accepted_counts_by_its_likeliest_class():
    rows = left_open((0, 2, 0, 0, 1))
    assert {row.label for row in rows} == {""}
    assert Tally.of(rows).others == (0, 2, 0, 0, 1)


def test_an_image_is_counted_once_however_often_it_is_given():
    """The same cells twice would narrow the limits."""
    once = table(COUNTS, *left_open((0, 0, 0, 1, 0)), REJECTED)
    twice = PredictionTable((*once.rows, *once.rows))
    plain, result = count(once), count(twice)
    assert result.rows == plain.rows
    assert (result.found, result.repeated) == (2 * plain.found, 201)
    assert result.rejected == {"truncated": 2}  # what could not be read has no digest
    assert left_sentence(result).endswith("201 repeated (the same cell as an earlier one).")
    assert count_document(result)["repeated"] == 201
    assert (plain.repeated, "repeated" in left_sentence(plain)) == (0, False)
    for name in ("cell 7", ""):  # somebody's own table may name images otherwise, or not at all
        rows = [replace(answer("Monocyte"), sha256=name)] * 3
        assert Tally.of(rows).total == (1 if name else 3)
    other_copy = Tally.of([*table().rows, answer("Monocyte", "duplicate")])
    assert (other_copy.total, other_copy.repeated) == (200, 1)


def test_no_cell_is_an_error_that_says_why():
    with pytest.raises(DataError, match=r"Not one of 2 images .*1 not-a-cell, 1 truncated"):
        differential(PredictionTable((answer("Basophil", "not-a-cell"), REJECTED)))
    with pytest.raises(DataError, match="Not one of 0 images shows a cell;"):
        differential(PredictionTable(()))


# Too few accepted


def test_where_few_are_accepted_nothing_is_said_of_the_shares():
    """46 of 343 cells, as on a microscope that the model does not know."""
    rows = table((0, 14, 8, 8, 16), *left_open((6, 40, 47, 67, 137)))
    result = count(rows, manual=[(3, 88, 33, 20, 207)])
    assert result.refused == "few-accepted"
    assert accepted_sentence(result) == (
        "This model cannot count this microscope: it accepts 46 of 343 cells (13.4%); with fewer "
        "than 60% there are no percentages and no limits."
    )
    assert format_count(result).startswith("This model cannot count this microscope")
    text = " ".join(format_count(result).split())
    for step in ("leuko adapt", "--labels", "leuko models calibrate", "count by hand"):
        assert step in text
    for absent in ("limits 95%", "95% limits", "within", UNDECIDED, "allow", "Reference"):
        assert absent not in text
    assert "It is not compared with the manual count." in text
    document = json.loads(json.dumps(count_document(result)))
    assert (document["refused"], document["cells"], document["accepted"]) == (
        "few-accepted", 343, 46,
    )  # fmt: skip
    assert document["accepted_percent"] == pytest.approx(100 * 46 / 343)
    assert (document["accepted_least"], document["manual"]) == (60, None)
    for row in document["classes"].values():
        assert {row[key] for key in ("percent", "low", "high", "flag", "cells_needed")} == {None}
    lines = list(csv.DictReader(io.StringIO(count_csv(result))))
    assert [line["others"] for line in lines] == ["6", "40", "47", "67", "137"]
    assert {(line["percent"], line["low"], line["flag"], line["refused"]) for line in lines} == {
        ("", "", "", "few-accepted")
    }


def test_the_stated_share_is_where_limits_begin():
    enough = round(LEAST_ACCEPTED * 100)
    below = count(table((0, 0, 0, 0, enough - 1), *left_open((0, 0, 0, 0, 101 - enough))))
    at = count(table((0, 0, 0, 0, enough), *left_open((0, 0, 0, 0, 100 - enough))))
    assert (below.refused, at.refused) == ("few-accepted", "")
    assert count(PredictionTable(tuple(left_open(COUNTS)))).accepted_share == 0


def test_without_a_confusion_matrix_there_are_no_limits():
    for validation, reason in (
        ({}, "imported models have none"),
        (
            {**VALIDATION, "confusion": np.diag([0, 9, 9, 0, 9]).tolist()},
            "without a single Basophil or Monocyte.",
        ),
        ({**VALIDATION, "split": "random-file"}, "copies of cells that it was trained on"),
    ):
        result = differential(table(), validation=validation, manual=[COUNTS])
        assert result.refused == "no-validation"
        assert result.manual is None
        assert reason in count_notes(result)[0]
        assert "How often this model is wrong was never measured" in accepted_sentence(result)
        assert {row.low for row in result.rows} == {None}
        assert "95% limits" not in format_count(result)


def test_answers_of_another_model_are_refused():
    answers_of(Tally.of(table()), "mine", "abc123abc123ffff", SCHEME)
    answers_of(Tally.of([replace(answer("Monocyte"), model="")]), "mine", "0" * 16, SCHEME)
    with pytest.raises(DataError, match=r"made by the model abc123abc123, not by mine .*--model"):
        answers_of(Tally.of(table()), "mine", "0" * 16, SCHEME)


# Shares and limits


def test_simultaneous_limits_are_wider():
    one = count(table())
    all_five = count(table(), simultaneous=True)
    for narrow, wide in zip(one.rows, all_five.rows):
        assert wide.low <= narrow.low
        assert wide.high > narrow.high
    assert "hold at once" in format_count(all_five)


def test_shares_are_the_adjusted_ones_with_the_limits_of_the_draws():
    others = (1, 6, 4, 5, 14)
    result = count(table(COUNTS, *left_open(others)), seed=5)
    tables = split_confusion(VALIDATION, np.array(CONFUSION, dtype=float))
    shares = adjusted_shares(COUNTS, others, tables)
    draws = adjusted_draws(COUNTS, others, tables.accepted, seed=5)
    low, high = draws.limits()
    np.testing.assert_allclose([row.share for row in result.rows], shares)
    np.testing.assert_allclose([row.low for row in result.rows], np.minimum(low, shares))
    np.testing.assert_allclose([row.high for row in result.rows], np.maximum(high, shares))
    assert sum(row.share for row in result.rows) == pytest.approx(1)


def test_cells_left_open_widen_the_limits():
    sure, unsure = count(table()), count(table(COUNTS, *left_open((0, 2, 14, 3, 31))))
    for k in (2, 4):
        known, left = sure.rows[k], unsure.rows[k]
        low, high = exact_interval(COUNTS[k], 200)
        assert known.high - known.low > 0.95 * (high - low)
        assert left.high - left.low > 1.1 * (known.high - known.low)


def test_the_spread_between_slides_widens_the_limits_and_is_told():
    accuracy = {"value": 0.977, "low": 0.955, "high": 0.99, "method": OVER_SLIDES}
    validation = {**VALIDATION, "metrics": {"accuracy": accuracy}}
    steady = differential(table(), validation=VALIDATION)
    spread = differential(table(), validation=validation)
    assert steady.effect == 1
    assert spread.effect == pytest.approx(7.7, abs=0.1)
    assert spread.rows[1].low < steady.rows[1].low
    assert "The validation cells from 14 slides are alike within a slide: they count as 1/7." in (
        " ".join(count_notes(spread))
    )
    assert "alike within a slide" not in " ".join(count_notes(steady))


def test_a_model_that_tells_no_slides_is_told_of():
    known = differential(table(), validation=VALIDATION)
    assert "does not tell which slides" not in " ".join(count_notes(known))
    for slides in (None, 1, 2225):
        result = differential(table(), validation={**VALIDATION, "n_slides": slides})
        assert result.effect == 1
        assert "does not tell which slides" in " ".join(count_notes(result))
    stated = differential(table(), validation={**VALIDATION, "n_slides": None, "effect": 3.0})
    assert stated.effect == 3
    assert "does not tell which slides" not in " ".join(count_notes(stated))
    assert "count as 1/3.0" in " ".join(count_notes(stated))


def test_the_best_model_has_not_the_surest_limits():
    """No mistake on 14 slides: its limits are no narrower than of one with fifty mistakes."""
    right = np.diag(np.sum(CONFUSION, axis=1)).tolist()
    accuracy = {"value": 1.0, "low": 0.998, "high": 1.0, "method": WILSON}
    faultless = {**VALIDATION, "confusion": right, "metrics": {"accuracy": accuracy}}
    result = differential(table(), validation=faultless)
    assert result.effect == pytest.approx(1 + (2225 / 14 - 1) * 0.2)
    assert "count as 1/32.6" in " ".join(count_notes(result))
    usual = differential(table(), validation=VALIDATION)
    for one, other in zip(result.rows, usual.rows):
        assert one.high - one.low > other.high - other.low


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
    assert flag_of(SCHEME.classes[SCHEME.find(name)].range, low, high) == flag


def test_reference_ranges_can_hold_together():
    ranges = [one.range for one in SCHEME.classes]
    assert sum(low for low, _ in ranges) < 100
    assert sum(high for _, high in ranges) > 100


def test_how_many_more_cells_a_count_needs():
    width = 0.05
    first = count(table(), width=width)
    assert first.cells_needed == max(row.cells_needed for row in first.rows)
    assert width_sentence(first) == (
        f"For limits of ±5 points in every class, count about {first.cells_needed:,} cells: "
        f"{first.cells_needed - 200:,} more (Neutrophil decides)."
    )
    times = first.cells_needed / 200
    then = count(table(tuple(round(times * cells) for cells in COUNTS)))
    widest = max((row.high - row.low) / 2 for row in then.rows)
    assert widest == pytest.approx(width, rel=0.06)
    assert width_sentence(count(table(), width=0.2)) == (
        "Every class is known to ±20 points or better."
    )
    hopeless = count(table(), width=0.005)
    assert hopeless.cells_needed is None
    assert width_sentence(hopeless).startswith("No number of cells gives limits of ±0.5 points")
    assert "its errors alone leave ±" in width_sentence(hopeless)


# The document


def test_document_csv_and_summary_say_the_same():
    result = count(table(), manual=[(1, 6, 62, 14, 117)])
    document = json.loads(json.dumps(count_document(result, context={"seed": 0})))
    assert document["schema"] == "leuko.count/2"
    assert document["research_use"] == RESEARCH_USE
    assert (document["found"], document["cells"], document["accepted"]) == (200, 200, 200)
    assert (document["refused"], document["seed"]) == (None, 0)
    eosinophils = document["classes"]["Eosinophil"]
    assert (eosinophils["accepted"], eosinophils["others"]) == (8, 0)
    assert eosinophils["low"] < eosinophils["percent"] < eosinophils["high"]
    assert (eosinophils["reference_low"], eosinophils["reference_high"]) == (1, 6)
    assert document["manual"]["classes"]["Eosinophil"]["percent"] == pytest.approx(3)
    rows = list(csv.DictReader(io.StringIO(count_csv(result))))
    assert [row["class"] for row in rows] == list(CLASSES)
    assert (rows[1]["accepted"], rows[1]["manual_count"]) == ("8", "6")
    assert rows[1]["percent"] == f"{eosinophils['percent']:.2f}"
    lines = format_count(result).splitlines()
    assert max(map(len, lines)) <= 80
    line = next(line for line in lines if line.startswith("Eosinophil"))
    assert line.split()[:4] == ["Eosinophil", "8", "0", f"{eosinophils['percent']:.1f}"]
    assert "Dacie and Lewis" in " ".join(lines)
    assert " ".join(format_count(result).split()).endswith(RESEARCH_USE)


def test_the_same_seed_gives_the_same_document():
    one, again, other = (
        count_document(count(table(), manual=[COUNTS], seed=seed)) for seed in (1, 1, 2)
    )
    assert one == again != other


def test_five_classes_give_the_figures_that_they_always_gave():
    result = count(
        table(COUNTS, *left_open((1, 6, 4, 5, 14))), seed=5, manual=[(1, 6, 62, 14, 117)]
    )
    found = [(row.share, row.low, row.high, row.cells_needed) for row in result.rows]
    for row, wanted in zip(found, FIVE):
        assert row[:3] == pytest.approx(wanted[:3], rel=1e-9)
        assert row[3] == wanted[3]


# Other schemes

PBC = load_scheme("pbc-8")
PBC_COUNTS = (1, 6, 6, 2, 58, 14, 113, 12)
"""3% erythroblasts."""


def answers(scheme, counts, decision="class"):
    """A table with so many rows of each class of a scheme."""
    return PredictionTable(
        tuple(
            Prediction.answered(
                "a.png", np.eye(len(scheme))[k], f"{next(NUMBERS):064x}", "abc123abc123",
                Judgement(decision), scheme,
            )
            for k, count in enumerate(counts)
            for _ in range(count)
        ),
        scheme,
    )  # fmt: skip


def validated(classes, wrong=0.02):
    """A validation with 500 cells of each class."""
    confusion = 500 * ((1 - wrong) * np.eye(classes) + wrong / classes)
    return {"split": "slide", "n": 500 * classes, "n_slides": None, "trust": TRUST,
            "confusion": confusion.tolist()}  # fmt: skip


def test_what_is_no_white_cell_is_given_per_100_of_them():
    rows = answers(PBC, PBC_COUNTS).rows + answers(PBC, (0, 1, 1, 0, 1, 0, 3, 1), "unsure").rows
    result = differential(PredictionTable(rows, PBC), validation=validated(8))
    assert (result.accepted, result.total, result.found) == (194, 199, 219)
    assert [row.name for row in result.uncounted] == ["Erythroblast", "Platelet"]
    assert sum(row.share for row in result.counted) == pytest.approx(1)
    for name, cells in (("Erythroblast", 7), ("Platelet", 13)):
        row = count_document(result)["classes"][name]
        assert row["percent"] is row["flag"] is row["cells_needed"] is None
        assert row["low"] < row["per_100_wbc"] < row["high"]
        assert row["per_100_wbc"] == pytest.approx(100 * cells / 199, abs=0.5)
    lymphocytes = count_document(result)["classes"]["Lymphocyte"]
    assert lymphocytes["per_100_wbc"] is None
    assert lymphocytes["percent"] == pytest.approx(100 * 59 / 199, abs=0.5)
    assert result.rows[3].flag is None  # no range is known
    assert left_sentence(result) == "Not counted, of 219 images: 7 Erythroblast, 13 Platelet."
    told = "Not counted among the white cells, and given per 100 of them (WBC): "
    assert f"{told}Erythroblast, Platelet." in count_document(result)["sentences"]
    lines = list(csv.DictReader(io.StringIO(count_csv(result))))
    assert [line["counted"] for line in lines].count("false") == 2
    assert (lines[2]["percent"], lines[2]["per_100_wbc"]) == (
        "",
        f"{100 * result.rows[2].share:.2f}",
    )
    text = format_count(result)
    assert max(map(len, text.splitlines())) <= 80
    assert "per 100 WBC" in text
    assert "\nImmature granulocyte\n" in text  # no room beside its figures


def test_limits_without_errors_are_exact_of_counted_cells_and_of_ratios():
    result = differential(answers(PBC, PBC_COUNTS), validation=validated(8, 1e-9))
    for k in (4, 6):
        low, high = exact_interval(PBC_COUNTS[k], 194)
        assert result.rows[k].low == pytest.approx(low, abs=0.012)
        assert result.rows[k].high == pytest.approx(high, abs=0.012)
    low, high = exact_interval(6, 200)
    assert result.rows[2].low == pytest.approx(low / (1 - low), abs=0.006)
    assert result.rows[2].high == pytest.approx(high / (1 - high), abs=0.012)


def test_a_manual_count_is_compared_among_counted_classes():
    result = differential(
        answers(PBC, PBC_COUNTS), validation=validated(8), manual=[(*PBC_COUNTS[:7], 90)]
    )
    assert result.manual.names == tuple(row.name for row in result.counted)
    assert (result.manual.total, set(result.manual.differs)) == (194, {False})
    lines = list(csv.DictReader(io.StringIO(count_csv(result))))
    assert (lines[7]["manual_count"], lines[6]["manual_count"]) == ("", "113")


def test_many_platelets_do_not_hide_that_white_cells_are_left_open():
    white = answers(PBC, (0, 0, 0, 0, 0, 0, 30, 0), "unsure").rows
    platelets = answers(PBC, (0, 0, 0, 0, 0, 0, 10, 300)).rows
    result = differential(PredictionTable(white + platelets, PBC), validation=validated(8))
    assert result.refused == "few-accepted"
    assert "accepts 10 of 40 cells" in accepted_sentence(result)
    hidden = answers(PBC, (0, 0, 0, 0, 0, 0, 0, 300), "unsure").rows
    sure = answers(PBC, (0, 0, 0, 0, 0, 0, 100, 0)).rows
    result = differential(PredictionTable(sure + hidden, PBC), validation=validated(8))
    assert "accepts 100 of 400 cells" in accepted_sentence(result)


def test_platelets_alone_are_no_count():
    with pytest.raises(DataError, match=r"shows a white cell \(9 Platelet\)"):
        differential(answers(PBC, (0, 0, 0, 0, 0, 0, 0, 9)), validation=validated(8))
    few = answers(PBC, (0, 0, 0, 0, 0, 0, 2, 2000))
    result = differential(few, validation=validated(8, 0.3))
    assert result.refused == "all-explained"
    assert "errors alone explain the 2 cells" in format_count(result)
    assert "per 100 WBC" not in format_count(result)
    # One in a hundred may be none at all: then there is no upper limit, and JSON has no infinity.
    result = differential(answers(PBC, (0, 0, 0, 0, 0, 0, 30, 1000)), validation=validated(8))
    assert result.rows[7].high is None
    assert "or more" in format_count(result)
    json.dumps(count_document(result), allow_nan=False)


@pytest.mark.parametrize(
    "name", ["round", "Lymphocytes of the reactive kind " * 3, "中性粒细胞" * 4]
)
def test_two_classes_of_any_name(name):
    scheme = scheme_of([name.strip(), "sickle"])
    result = differential(answers(scheme, (60, 40)), validation=validated(2), manual=[(30, 70)])
    assert result.rows[0].low < 0.6 < result.rows[0].high
    assert sum(row.share for row in result.rows) == pytest.approx(1)
    assert result.manual.differs == (True, True)
    assert {row.flag for row in result.rows} == {None}
    assert "Reference ranges" not in format_count(result)
    assert max(map(len, format_count(result).splitlines())) <= 80


def test_two_classes_whose_errors_are_many_still_have_limits():
    scheme = scheme_of(["round", "sickle"])
    result = differential(
        answers(scheme, (60, 40)), validation={**validated(2, 0.9), "trust": None}
    )
    assert result.rows[0].high - result.rows[0].low > 0.8


def test_answers_and_validation_of_other_classes_are_refused():
    with pytest.raises(
        DataError, match=r"a\.png is among the classes Basophil, .*Platelet; expected"
    ):
        Tally(SCHEME).add(answers(PBC, PBC_COUNTS).rows[0])
    tally = Tally.of(answers(PBC, PBC_COUNTS))
    answers_of(tally, "mine", "abc123abc123", PBC)
    with pytest.raises(DataError, match=r"with the model mine is among .*Platelet; expected Bas"):
        answers_of(tally, "mine", "abc123abc123", SCHEME)
    result = differential(tally, validation=VALIDATION)
    assert result.refused == "no-validation"
    assert "is not 8 x 8 counts, of the classes Basophil" in count_notes(result)[0]


@pytest.mark.slow
@pytest.mark.data
def test_of_real_cells_of_the_training_laboratory_limits_are_printed_and_of_use():
    """250 pictures of Test-A, 200 drawn of them: median width at most 1.5 of the exact limits."""
    from leuko.runtime.zoo import load
    from leuko.source import file_source

    root = Path(os.environ.get("LEUKO_DATA", "no such folder")) / "raabin-wbc-288" / "Test"
    if not root.is_dir():
        pytest.skip("LEUKO_DATA does not point to a folder that holds raabin-wbc-288/Test")
    pictures = map(file_source, sorted(root.glob("*/*"))[::18])
    classifier = load("default")
    answers = list(classifier.stream(pictures))
    rng, ratios, held = np.random.default_rng(0), [], []
    for seed in range(15):
        rows = [answers[k] for k in rng.choice(len(answers), 200, replace=False)]
        result = differential(
            PredictionTable(tuple(rows)), validation=classifier.bundle.validation, seed=seed
        )
        assert not result.refused
        true = [sum(Path(row.path).parent.name == name for row in rows) for name in CLASSES]
        for row, cells in zip(result.rows, true):
            low, high = exact_interval(cells, 200)
            ratios.append((row.high - row.low) / (high - low))
            held.append(row.low <= cells / 200 <= row.high)
    assert np.median(ratios) <= 1.5
    assert all(held)
