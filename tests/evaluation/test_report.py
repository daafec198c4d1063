from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from five import CLASSES
from leuko.errors import DataError
from leuko.evaluation import intervals, metrics
from leuko.evaluation.report import Caution, evaluate_predictions
from leuko.render.evaluation import evaluation_document
from leuko.support.artifacts import atomic_write_json, read_json


def answers_for(labels, seed=0, signal=2.0):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(len(labels), 5))
    logits[np.arange(len(labels)), labels] += signal
    table = np.exp(logits)
    return np.round(table / table.sum(axis=1, keepdims=True), 6)


@pytest.fixture(scope="module")
def spread():
    """400 images on ten slides, every class on every slide."""
    labels = np.tile(np.arange(5), 80)
    slides = [f"day-{row // 40}" for row in range(400)]
    return labels, answers_for(labels), slides


def test_document_has_the_promised_shape(spread, tmp_path):
    labels, table, slides = spread
    report = evaluate_predictions(
        labels,
        table,
        slides,
        paths=[f"{row}.jpg" for row in range(400)],
        seed=3,
        resamples=200,
    ).with_context(
        {"command": "leuko evaluate m Test", "data": {"folder": "Test", "digest": "0"}},
        remarks=["Two files were rejected."],
    )
    written = evaluation_document(report)
    atomic_write_json(tmp_path / "evaluation.json", written)
    document = read_json(tmp_path / "evaluation.json", "evaluation")
    assert document == json.loads(json.dumps(written, allow_nan=False))
    assert document["schema"] == "leuko.evaluation/1"
    assert document["research_use"].startswith("Research use only")
    assert document["classes"] == list(CLASSES)
    assert (document["n"], document["n_slides"]) == (400, 10)
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        one = document["metrics"][name]
        assert 0 < one["low"] < one["value"] < one["high"] < 1
        assert one["method"] == "percentile bootstrap over slides"
    assert document["intervals"]["too_few_slides"] is False
    assert document["intervals"]["resamples"] == 200
    assert document["command"] == "leuko evaluate m Test"
    assert document["warnings"] == ["Two files were rejected."]
    assert np.shape(document["confusion"]) == (5, 5)
    np.testing.assert_allclose(np.sum(document["confusion_percent"], axis=1), 100)
    assert len(document["calibration"]["bins"]) == 15
    assert sum(slide["n"] for slide in document["by_slide"]) == 400
    np.testing.assert_array_equal(
        np.sum([slide["confusion"] for slide in document["by_slide"]], axis=0),
        document["confusion"],
    )
    assert document["absent_classes"] == []


def test_values_agree_with_scikit_learn(spread, sklearn_metrics):
    labels, table, slides = spread
    document = evaluate_predictions(labels, table, slides, resamples=50).to_dict(warnings=())
    answers = table.argmax(axis=1)
    theirs = sklearn_metrics.classification_report(
        labels, answers, target_names=CLASSES, output_dict=True
    )
    for name in CLASSES:
        ours = document["per_class"][name]
        assert ours["precision"] == pytest.approx(theirs[name]["precision"])
        assert ours["sensitivity"] == pytest.approx(theirs[name]["recall"])
        assert ours["f1"] == pytest.approx(theirs[name]["f1-score"])
        assert ours["n"] == theirs[name]["support"]
        positive, score = labels == CLASSES.index(name), table[:, CLASSES.index(name)]
        assert document["roc"][name]["auc"] == pytest.approx(
            sklearn_metrics.roc_auc_score(positive, score)
        )
        assert document["pr"][name]["average_precision"] == pytest.approx(
            sklearn_metrics.average_precision_score(positive, score)
        )
        assert len(document["roc"][name]["fpr"]) == len(document["roc"][name]["tpr"]) <= 200
    assert document["metrics"]["macro_f1"]["value"] == pytest.approx(
        theirs["macro avg"]["f1-score"]
    )


def test_interval_agrees_with_a_plain_bootstrap_of_rows(spread):
    labels, table, slides = spread
    one = evaluate_predictions(labels, table, slides, resamples=4000).estimates["macro_f1"]
    generator = np.random.default_rng(12)
    groups = np.arange(400).reshape(10, 40)
    answers = table.argmax(axis=1)
    values = []
    for _ in range(1500):
        rows = groups[generator.integers(0, 10, size=10)].ravel()
        hit = (answers[rows] == labels[rows]) & (labels[rows] == np.arange(5)[:, np.newaxis])
        size = (labels[rows] == np.arange(5)[:, np.newaxis]).sum(axis=1)
        called = (answers[rows] == np.arange(5)[:, np.newaxis]).sum(axis=1)
        values.append(np.mean(2 * hit.sum(axis=1) / (size + called)))
    low, high = np.quantile(values, [0.025, 0.975])
    assert (one.low, one.high) == pytest.approx((low, high), abs=0.004)


def test_same_seed_same_document_and_row_order_does_not_matter(spread):
    labels, table, slides = spread
    rows = np.random.default_rng(1).permutation(400)
    names = [f"{row}.jpg" for row in range(400)]
    first = evaluate_predictions(labels, table, slides, paths=names, resamples=100)
    again = evaluate_predictions(labels, table, slides, paths=names, resamples=100)
    mixed = evaluate_predictions(
        labels[rows],
        table[rows],
        [slides[row] for row in rows],
        paths=[names[row] for row in rows],
        resamples=100,
    )
    other = evaluate_predictions(labels, table, slides, paths=names, seed=1, resamples=100)
    assert first.to_dict(warnings=()) == again.to_dict(warnings=())
    assert first.to_dict(warnings=())["metrics"] == mixed.to_dict(warnings=())["metrics"]
    assert first.to_dict(warnings=())["worst"] == mixed.to_dict(warnings=())["worst"]
    assert first.estimates["accuracy"].low != other.estimates["accuracy"].low


def test_absent_class_is_a_warning_and_means_are_over_those_present():
    labels = np.array([0, 0, 4, 4] * 10)
    answers = np.array([0, 4, 4, 4] * 10)
    report = evaluate_predictions(
        labels, np.eye(5)[answers], [f"s{row % 8}" for row in range(40)], resamples=50
    )
    document = report.to_dict(warnings=())
    assert document["absent_classes"] == ["Eosinophil", "Lymphocyte", "Monocyte"]
    assert report.cautions[1] == Caution.ABSENT_CLASSES
    assert document["metrics"]["balanced_accuracy"]["value"] == pytest.approx(0.75)
    # Basophil 2*10/(20+10), neutrophil 2*20/(20+30).
    assert document["metrics"]["macro_f1"]["value"] == pytest.approx((2 / 3 + 0.8) / 2)
    one = document["per_class"]["Monocyte"]
    assert (one["n"], one["slides"], one["note"]) == (0, 0, "absent")
    assert one["sensitivity"] is None
    assert one["f1"] is None
    assert document["roc"]["Monocyte"] == {"fpr": [], "tpr": [], "auc": None}
    assert document["confusion_percent"][3] == [None] * 5


def test_what_knows_nothing_is_said_first():
    labels = np.array([0] * 4 + [4] * 36)
    slides = [f"s{row}" for row in range(40)]
    report = evaluate_predictions(labels, np.eye(5)[np.full(40, 4)], slides, resamples=20)
    assert report.to_dict(warnings=())["baselines"]["majority"]["beaten"] is False
    assert report.cautions[0] == Caution.NO_BETTER
    report = evaluate_predictions(labels, np.eye(5)[labels], slides, resamples=20)
    assert report.to_dict(warnings=())["baselines"]["majority"]["beaten"] is True
    assert Caution.NO_BETTER not in report.cautions


def test_only_one_class_can_be_evaluated():
    report = evaluate_predictions(
        [4] * 12, answers_for(np.full(12, 4)), ["a", "b"] * 6, resamples=20
    )
    document = report.to_dict(warnings=())
    assert document["roc"]["Neutrophil"]["auc"] is None
    assert document["per_class"]["Neutrophil"]["specificity"] is None
    assert document["baselines"]["majority"] == {
        "class": "Neutrophil", "accuracy": 1.0, "beaten": False,
    }  # fmt: skip
    assert Caution.NO_BETTER not in report.cautions  # nor could it be


def test_class_under_five_slides_says_so_and_the_whole_keeps_its_interval():
    # Shaped like Raabin's Test-A: basophils on four slides of their own, eosinophils on one.
    labels, slides = [], []
    for number in range(12):
        labels += [2] * 5 + [3] * 4 + [4] * 15
        slides += [f"common-{number}"] * 24
    for number in range(4):
        labels += [0] * 6
        slides += [f"basophils-{number}"] * 6
    labels += [1] * 30
    slides += ["common-0"] * 30
    labels = np.array(labels)
    report = evaluate_predictions(labels, answers_for(labels), slides, resamples=500)
    document = report.to_dict(warnings=())
    for name, count in (("Basophil", 4), ("Eosinophil", 1)):
        one = document["per_class"][name]
        assert one["slides"] == count
        assert one["sensitivity_interval"] is None
        assert one["note"] == "too few slides"
    monocyte = document["per_class"]["Monocyte"]
    assert monocyte["note"] is None
    span = monocyte["sensitivity_interval"]
    assert span["low"] <= monocyte["sensitivity"] <= span["high"]
    one = document["metrics"]["accuracy"]
    assert one["low"] < one["value"] < one["high"]
    assert document["intervals"]["too_few_slides"] is True
    # A resample of 16 slides has the eosinophils with probability 1 - (15/16)^16 = 0.644 and, of
    # the rest, nearly always a basophil.
    assert 150 < document["intervals"]["redrawn"] < 450
    assert Caution.FEW_SLIDES_OF_CLASSES in report.cautions


@pytest.mark.parametrize("name", ["", "20190527"])
def test_one_slide_in_all_falls_back_to_images_and_says_so(name):
    labels = np.tile(np.arange(5), 20)
    table = np.eye(5)[np.where(np.arange(100) < 10, 4, labels)]
    report = evaluate_predictions(labels, table, [name] * 100, resamples=300)
    one = report.estimates["accuracy"]
    assert one.value == pytest.approx(0.92)
    assert (one.low, one.high) == intervals.wilson_interval(92, 100)
    assert one.method == "Wilson score interval over images"
    assert report.estimates["macro_f1"].method == "percentile bootstrap over images"
    assert report.to_dict(warnings=())["by_slide"] == []
    assert report.cautions[0] == Caution.ONE_SLIDE
    assert {entry.note for entry in report.per_class} == {"too few slides"}


def test_slide_for_every_image_is_read_as_no_slides():
    labels = np.tile(np.arange(5), 20)
    report = evaluate_predictions(
        labels, answers_for(labels), [f"{row:03}" for row in range(100)], resamples=300
    )
    assert report.method == "percentile bootstrap over images"
    assert report.cautions[0] == Caution.SLIDE_FOR_EACH


def test_few_slides_in_all_are_called_rough():
    labels = np.tile(np.arange(5), 20)
    report = evaluate_predictions(
        labels, answers_for(labels), ["a", "b", "c", "c"] * 25, resamples=50
    )
    assert report.method == "percentile bootstrap over slides"
    assert report.cautions[0] == Caution.FEW_SLIDES


def test_no_mistake_at_all_does_not_claim_certainty():
    labels = np.tile(np.arange(5), 20)
    report = evaluate_predictions(
        labels, np.eye(5)[labels], [f"s{row % 10}" for row in range(100)], resamples=50
    )
    assert report.estimates["accuracy"].value == 1
    # Ten images a slide, of which a fifth of the others tell nothing: 100 count as 100 / 2.8.
    one = report.estimates["accuracy"]
    assert (one.low, one.high) == intervals.wilson_interval(100 / 2.8, 100 / 2.8)
    assert one.low == pytest.approx(0.903, abs=1e-3)
    assert one.method == intervals.WILSON_BY_SLIDE
    assert Caution.NO_MISTAKE in report.cautions
    assert report.worst == ()


def test_no_mistake_without_slides_has_wilsons_interval_over_images():
    labels = np.tile(np.arange(5), 20)
    report = evaluate_predictions(labels, np.eye(5)[labels], [""] * 100, resamples=50)
    one = report.estimates["accuracy"]
    assert (one.low, one.high) == intervals.wilson_interval(100, 100)
    assert one.method == intervals.WILSON
    assert report.cautions == (Caution.ONE_SLIDE, Caution.NO_MISTAKE)


def test_a_class_without_a_mistake_or_with_nothing_else_has_an_interval():
    """Ten slides, four images of each class on each; monocytes are all taken for neutrophils."""
    labels = np.tile(np.repeat(np.arange(5), 4), 10)
    slides = [f"s{row // 20}" for row in range(200)]
    answers = np.where(labels == 3, 4, labels)
    answers[:3] = 1  # three basophils of the first slide
    report = evaluate_predictions(labels, np.eye(5)[answers], slides, resamples=200)
    basophil, eosinophil, lymphocyte, monocyte, neutrophil = report.per_class
    # Forty images, four a slide, of which a fifth of the others tell nothing: 40 / 1.6.
    least, most = intervals.wilson_interval(25, 25), intervals.wilson_interval(0, 25)
    for one in (eosinophil, lymphocyte, neutrophil):
        assert one.sensitivity == 1
        assert one.sensitivity_interval == least
        assert least[0] < 0.9
    assert monocyte.sensitivity_interval == most
    assert most[1] > 0.1
    # The 160 others, sixteen a slide: 160 / 4.
    assert lymphocyte.specificity_interval == intervals.wilson_interval(40, 40)
    assert basophil.assumed == ("specificity",)
    assert monocyte.assumed == ("sensitivity", "specificity", "f1")
    assert basophil.sensitivity_interval[0] < basophil.sensitivity_interval[1]
    # F1 of 1 is one in the Jaccard index, and F1 = 2 J / (1 + J).
    assert lymphocyte.f1_interval == pytest.approx((2 * least[0] / (1 + least[0]), 1.0))
    assert monocyte.f1_interval == pytest.approx((0.0, 2 * most[1] / (1 + most[1])))
    # Every slide has the same share, too: 80 answers of neutrophil, half of them right.
    assert "f1" in neutrophil.assumed
    low, high = neutrophil.f1_interval
    assert low < neutrophil.f1 < high
    assert report.cautions == (Caution.ASSUMED_INTERVALS,)
    document = report.to_dict(warnings=())["per_class"]["Lymphocyte"]
    assert document["sensitivity_interval"] == {"low": least[0], "high": 1.0}


def test_single_image():
    report = evaluate_predictions([3], [[0.1, 0.1, 0.1, 0.4, 0.3]], ["s"], resamples=10)
    assert report.estimates["accuracy"].value == 1
    assert report.n == 1


def test_worst_mistakes_are_those_that_gave_the_truth_least():
    labels = [0, 0, 1, 4]
    table = [
        [0.2, 0.8, 0, 0, 0],
        [0.1, 0, 0.9, 0, 0],
        [0.4, 0.6, 0, 0, 0],
        [0.9, 0, 0, 0, 0.1],
    ]
    worst = evaluate_predictions(
        labels, table, ["a", "a", "b", "b"], paths=["p", "r", "s", "q"], resamples=10
    ).to_dict(warnings=())["worst"]
    assert [one["path"] for one in worst] == ["q", "r", "p"]
    assert worst[0] == {
        "path": "q",
        "true": "Neutrophil",
        "predicted": "Basophil",
        "confidence": 0.9,
        "probability_of_true": 0.1,
    }


def test_at_most_forty_mistakes_are_listed():
    labels = np.zeros(60, dtype=int)
    table = np.tile([0.1, 0.9, 0, 0, 0], (60, 1))
    assert len(evaluate_predictions(labels, table, ["a", "b"] * 30, resamples=10).worst) == 40


def test_lengths_that_differ_are_refused(spread):
    labels, table, slides = spread
    with pytest.raises(DataError, match="1 paths for 400 labels"):
        evaluate_predictions(labels, table, slides, paths=["a"])
    with pytest.raises(DataError, match="399 slide names"):
        evaluate_predictions(labels, table, slides[1:])
    with pytest.raises(DataError, match="no image"):
        evaluate_predictions(np.array([], dtype=int), np.empty((0, 5)), [])


def test_bootstrap_does_not_grow_with_the_number_of_images():
    labels = np.tile(np.arange(5), 20_000)
    table = np.eye(5)[labels]
    slides = np.repeat([f"s{number}" for number in range(30)], 3_334)[: len(labels)].tolist()
    _, by_slide = metrics.confusion_by_slide(labels, table.argmax(axis=1), slides, 5)
    start = time.perf_counter()
    drawn = intervals.resample_slides(
        by_slide.reshape(30, 25), by_slide.sum(axis=2), seed=0, resamples=2000
    )
    metrics.macro_f1(drawn.sums.reshape(-1, 5, 5))
    assert time.perf_counter() - start < 0.6  # about 0.02 s on an idle core


@pytest.mark.data
def test_raabin_test_a_has_intervals_and_says_what_it_lacks():
    root = os.environ.get("LEUKO_DATA")
    if not root or not (folder := Path(root) / "raabin-wbc-288" / "Test").is_dir():
        pytest.skip("LEUKO_DATA does not point to a folder that holds raabin-wbc-288/Test")
    files = [(name, path) for name in CLASSES for path in sorted((folder / name).iterdir())]
    labels = np.array([CLASSES.index(name) for name, _ in files])
    slides = [path.name.split("_")[0] for _, path in files]
    report = evaluate_predictions(labels, answers_for(labels), slides, resamples=1000)
    assert (report.n, report.n_slides) == (4339, 28)
    assert report.majority == ("Neutrophil", pytest.approx(0.613, abs=5e-4))
    notes = {one.name: (one.slides, one.note) for one in report.per_class}
    assert notes["Basophil"] == (4, "too few slides")
    assert notes["Eosinophil"] == (2, "too few slides")
    assert notes["Neutrophil"][1] is None
    assert report.resamples == 1000
    # The eosinophils are missing from (26/28)^28 = 12.6% of resamples, basophils from 1.3%.
    assert report.redrawn == pytest.approx(1000 * (1 / 0.864 - 1), rel=0.25)
    assert all(one.low < one.high for one in report.estimates.values())
