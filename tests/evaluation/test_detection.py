from __future__ import annotations

import contextlib
import io
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leuko.cells.detector import Box
from leuko.evaluation.detection import BoxClassification, Miss, score_boxes
from leuko.prediction import Judgement, Prediction
from leuko.scheme import load_scheme

FIVE = load_scheme("differential-5")


@dataclass(frozen=True)
class Cell:
    box: Box
    score: float = 0.5
    answer: Prediction | None = None


@dataclass(frozen=True)
class Labelled:
    box: Box
    label: str = "WBC"


def answered(name, decision="class", scheme=FIVE):
    probabilities = np.eye(len(scheme))[scheme.names.index(name)]
    return Prediction.answered("x", probabilities, "", "", Judgement(decision), scheme)


def square(row, col, side=10):
    return (row, col, row + side, col + side)


def test_one_of_each_by_hand():
    found = {
        "a": [
            Cell(square(0, 0), 0.9),  # the given one
            Cell(square(0, 2), 0.8),  # overlaps it by 80 / 120: a double
            Cell(square(0, 5), 0.7),  # overlaps it by 50 / 150: false
            Cell(square(50, 50, 4), 0.6),  # 16 of its 16 pixels on `ignore`
            Cell(square(50, 57), 0.5),  # 30 of its 100 pixels on `ignore`: false
        ],
        "without truth": [Cell(square(0, 0), 1.0)],
    }
    boxes = {
        "a": [Labelled(square(0, 0)), Labelled(square(30, 30)), Labelled(square(50, 50), "ignore")],
        "b": [],
    }
    report = score_boxes(found, boxes)
    assert (report.fields, report.found, report.missed) == (2, 1, 1)
    assert (report.false, report.doubles) == (2, 1)
    assert report.misses == (Miss("a", square(30, 30), pytest.approx(math.nan, nan_ok=True)),)
    assert report.false_finds == (Miss("a", square(0, 5), 0.7), Miss("a", square(50, 57), 0.5))
    assert (report.recall, report.precision) == (0.5, 0.25)
    # Precision 1 up to a recall of 0.5, the first 51 of 101 levels, and nothing beyond.
    assert report.ap50 == pytest.approx(51 / 101)
    # Picture a: 4 finds that count against 2; b: none against none.
    assert report.counting_error_per_field == 1.0
    assert report.classification is None
    assert report.by_slide == {}


def test_half_counts_as_found_and_less_does_not():
    half = score_boxes({"a": [Cell((0, 0, 10, 5))]}, {"a": [Labelled(square(0, 0))]})
    less = score_boxes({"a": [Cell((0, 0, 10, 5))]}, {"a": [Labelled((0, 0, 11, 10))]})
    assert (half.found, half.ap50, half.ap50_95) == (1, 1.0, 0.1)
    assert (less.found, less.missed, less.false, less.ap50) == (0, 1, 1, 0.0)


def test_a_cell_comes_before_an_ignored_area_around_it():
    boxes = {"a": [Labelled((0, 0, 100, 100), "ignore"), Labelled(square(0, 0))]}
    report = score_boxes({"a": [Cell((0, 0, 10, 8)), Cell(square(0, 1), 0.4)]}, boxes)
    # The second would be a double, were it not on an ignored area.
    assert (report.found, report.missed, report.false, report.doubles) == (1, 0, 0, 0)
    assert report.counting_error_per_field == 0.0


def test_what_is_undefined_is_no_number():
    nothing = score_boxes({}, {})
    assert nothing.fields == 0
    assert math.isnan(nothing.counting_error_per_field)
    for report in (nothing, score_boxes({"a": []}, {"a": []})):
        values = (report.recall, report.precision, report.ap50, report.ap50_95)
        assert all(math.isnan(value) for value in values)
        assert report.to_dict()["detection"]["recall"] is None
    missed = score_boxes({}, {"a": [Labelled(square(0, 0))]})
    assert (missed.recall, missed.ap50, missed.ap50_95) == (0.0, 0.0, 0.0)
    assert math.isnan(missed.precision)
    false = score_boxes({"a": [Cell(square(0, 0))]}, {"a": []})
    assert (false.precision, false.false) == (0.0, 1)
    assert math.isnan(false.ap50)


def test_by_slide():
    found = {name: [Cell(square(0, 0))] for name in "abc"}
    boxes = {name: [Labelled(square(row, 0))] for name, row in zip("abc", (0, 1, 50))}
    report = score_boxes(found, boxes, slides={"a": "S2", "b": "S1", "c": ""})
    assert list(report.by_slide) == ["S1", "S2", "unknown"]
    assert [one.found for one in report.by_slide.values()] == [1, 1, 0]
    assert report.by_slide["S1"].by_slide == {}
    assert report.by_slide["unknown"].misses == report.misses
    document = report.to_dict()
    assert document["by_slide"]["S2"] == {
        "detection": {
            "fields": 1, "recall": 1.0, "precision": 1.0, "ap50": 1.0, "ap50_95": 1.0,
            "found": 1, "missed": 0, "false": 0, "doubles": 0,
        },
        "classification": None,
        "counting": {"error_per_field": 0.0},
    }  # fmt: skip
    assert document["misses"] == [{"picture": "c", "box": [50, 0, 60, 10], "score": None}]
    assert document["false_finds"] == [{"picture": "c", "box": [0, 0, 10, 10], "score": 0.5}]


def classified(pairs, scheme=FIVE):
    """Score cells that lie where they should, given (label, answer) of each."""
    places = [square(0, 20 * k) for k in range(len(pairs))]
    boxes = [Labelled(place, label) for place, (label, _) in zip(places, pairs)]
    found = [Cell(place, 0.5, answer) for place, (_, answer) in zip(places, pairs)]
    report = score_boxes({"a": found}, {"a": boxes}, scheme=scheme)
    assert report.recall == 1.0 or math.isnan(report.recall)
    return report.classification


def test_classes_of_matched_boxes_by_hand():
    pairs = [
        ("neutrophils", answered("Neutrophil")),
        ("NEUT", answered("Neutrophil", "unsure")),
        ("02_neutro", answered("Monocyte")),
        ("Lymphocyte", answered("Lymphocyte", "unlike-training")),
        ("WBC", answered("Monocyte")),  # no class
        ("Blast", answered("Monocyte")),  # a class that the model lacks
        ("Basophil", None),
        ("Basophil", Prediction("x", "ok", decision="set-aside")),
        ("ignore", answered("Monocyte")),
    ]
    assert classified(pairs) == BoxClassification(
        n=4,
        accuracy=3 / 4,
        balanced_accuracy=pytest.approx((2 / 3 + 1) / 2),
        accepted=2 / 4,
        accuracy_accepted=1 / 2,
    )
    assert classified(pairs[4:]) is None
    none = classified(pairs[1:2])
    assert (none.accuracy, none.accepted) == (1.0, 0.0)
    assert math.isnan(none.accuracy_accepted)


def test_finer_labels_are_merged_and_so_are_finer_answers():
    six = load_scheme("differential-6")
    finer = [("bands", answered("Neutrophil")), ("Segmented neutrophil", answered("Monocyte"))]
    assert classified(finer).accuracy == 0.5
    coarser = [("Neutrophil", answered(name, scheme=six)) for name in six.names]
    named = classified(coarser, six)
    assert named.accuracy == pytest.approx(2 / 6)
    assert (named.n, named.balanced_accuracy) == (6, named.accuracy)


def as_coco(found, given):
    """AP at 0.5, and over all levels, by pycocotools; not-a-number for its -1."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def xywh(box):
        row0, col0, row1, col1 = box
        return [col0, row0, col1 - col0, row1 - row0]

    images = [{"id": number} for number, _ in enumerate(given, 1)]
    truth, results = [], []
    for number, name in enumerate(given, 1):
        for one in given[name]:
            x, y, width, height = xywh(one.box)
            truth.append(
                {
                    "id": len(truth) + 1, "image_id": number, "category_id": 1,
                    "bbox": [x, y, width, height], "area": width * height,
                    "iscrowd": int(one.label == "ignore"),
                }
            )  # fmt: skip
        for cell in found[name]:
            results.append(
                {"image_id": number, "category_id": 1, "bbox": xywh(cell.box), "score": cell.score}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": images, "annotations": truth, "categories": [{"id": 1}]}
        coco.createIndex()
        detections = COCO()
        detections.dataset = {
            "images": images,
            "annotations": [
                one | {"id": number, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0}
                for number, one in enumerate(results, 1)
            ],
            "categories": [{"id": 1}],
        }
        detections.createIndex()
        evaluation = COCOeval(coco, detections, "bbox")
        evaluation.params.maxDets = [10_000]
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, 0]
    values = (precision[0].mean(), precision.mean())
    return [math.nan if value < 0 else value for value in values]


@st.composite
def fields(draw):
    """Up to four pictures with boxes that often overlap, equal scores among them."""
    corner = st.integers(0, 12)
    side = st.integers(1, 12)
    box = st.builds(lambda r, c, h, w: (r, c, r + h, c + w), corner, corner, side, side)
    label = st.sampled_from(["WBC", "WBC", "WBC", "ignore"])
    score = st.sampled_from([0.1, 0.2, 0.3, 0.5]) | st.floats(0, 1)
    found, boxes = {}, {}
    for name in "abcd"[: draw(st.integers(1, 4))]:
        boxes[name] = draw(st.lists(st.builds(Labelled, box, label), max_size=6))
        extra = draw(st.lists(st.builds(Cell, box, score), max_size=6))
        again = [Cell(one.box, draw(score)) for one in boxes[name] if draw(st.booleans())]
        found[name] = extra + again
    return found, boxes


@pytest.mark.slow
@settings(derandomize=True, max_examples=300, deadline=None)
@given(fields())
def test_average_precision_agrees_with_pycocotools(pictures):
    report = score_boxes(*pictures)
    expected = as_coco(*pictures)
    assert [report.ap50, report.ap50_95] == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.slow
@settings(derandomize=True, max_examples=100, deadline=None)
@given(fields())
def test_counts_add_up(pictures):
    found, boxes = pictures
    report = score_boxes(found, boxes, slides={"a": "1", "b": "2", "c": "2"})
    cells = [one for some in boxes.values() for one in some if one.label != "ignore"]
    assert report.found + report.missed == len(cells)
    finds = sum(map(len, found.values()))
    assert report.found + report.false + report.doubles <= finds
    assert (report.missed, report.false) == (len(report.misses), len(report.false_finds))
    parts = report.by_slide.values()
    for name in ("fields", "found", "missed", "false", "doubles"):
        assert getattr(report, name) == sum(getattr(one, name) for one in parts)
    perfect = score_boxes(
        {name: [Cell(one.box) for one in some] for name, some in boxes.items()}, boxes
    )
    assert (perfect.missed, perfect.false, perfect.counting_error_per_field) == (0, 0, 0.0)


def test_boxes_that_name_no_class_say_nothing_of_classes() -> None:
    boxes = {"a": [Labelled((0, 0, 10, 10), "WBC")]}
    report = score_boxes({"a": [Cell((0, 0, 10, 10))]}, boxes, scheme=load_scheme("differential-5"))
    assert (report.found, report.classification) == (1, None)
