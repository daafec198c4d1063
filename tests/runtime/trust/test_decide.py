"""What is made of an answer, by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from five import CLASSES
from leuko.bundle import FeatureSpace
from leuko.errors import BundleError
from leuko.prediction import Judgement
from leuko.runtime.quality import Quality
from leuko.runtime.trust.decide import (
    LIMITS,
    REASONS,
    Trust,
    calibrate,
    class_limit,
    feature_distances,
    prediction_set,
)
from leuko.scheme import load_scheme

ROUTINE = load_scheme("differential-5")

GOOD = Quality(sharpness=0.3, contrast=40, overexposed=0.0, underexposed=0.0, resolution=1.0)
SURE = np.array([0.01, 0.01, 0.95, 0.02, 0.01])
TORN = np.array([0.05, 0.4, 0.3, 0.2, 0.05])
EVERYTHING = Trust(
    limits={
        "confidence": 0.9,
        "distance": 2.0,
        "look": 1.0,
        "nucleus": 0.5,
        "sharpness": 0.1,
        "overexposed": 0.2,
        "underexposed": 0.2,
        "resolution": 0.5,
    }
)


def small_space() -> FeatureSpace:
    """Three features, one axis, two classes; every number is exact in float16."""
    return FeatureSpace(
        mean=np.array([0.5, 0, 0], np.float16),
        axes=np.array([[1], [0], [0]], np.float16),
        whitening=np.array([[2]], np.float16),
        centres=np.array([[0], [0.5]], np.float16),
        spread=np.array([0.25], np.float32),
        goldens=np.zeros(4, np.float32),
    )


def random_space(rng: np.random.Generator, features: int, axes: int) -> FeatureSpace:
    directions = np.linalg.qr(rng.normal(size=(features, axes)))[0]
    return FeatureSpace(
        mean=rng.normal(0, 0.1, features).astype(np.float16),
        axes=directions.astype(np.float16),
        whitening=rng.normal(size=(axes, axes)).astype(np.float16),
        centres=rng.normal(size=(5, axes)).astype(np.float16),
        spread=np.array([0.02], np.float32),
        goldens=np.zeros(4, np.float32),
    )


# Calibration


def test_a_temperature_by_hand() -> None:
    given = np.array([[0.8, 0.2, 0, 0, 0], [0.2, 0.2, 0.2, 0.2, 0.2]])
    # Squares: 0.64 and 0.04, so 16/17 and 1/17.
    np.testing.assert_allclose(calibrate(given, 0.5)[0], [0.941176, 0.058824, 0, 0, 0], atol=1e-9)
    # Roots: 0.894427 and 0.447214, so 2/3 and 1/3, but for what the zeros take: 1e-6 each.
    np.testing.assert_allclose(calibrate(given, 2.0)[0, :2], [2 / 3, 1 / 3], atol=2e-6)
    np.testing.assert_array_equal(calibrate(given, 0.3)[1], 0.2)


def test_the_order_never_changes_and_rounding_comes_first() -> None:
    rng = np.random.default_rng(1)
    given = rng.dirichlet(np.full(5, 0.3), 500)
    for temperature in (0.3, 1.0, 3.0):
        found = calibrate(given, temperature)
        np.testing.assert_array_equal(found, np.round(found, 6))
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=3e-6)
        best = found[np.arange(500), given.argmax(axis=1)]
        np.testing.assert_array_equal(best, found.max(axis=1))
    np.testing.assert_array_equal(calibrate(given, 1.0), np.round(given, 6))


# Distances


def test_a_distance_by_hand() -> None:
    space = small_space()
    # (2, 0, 0) has the direction (1, 0, 0), 0.5 along the axis, 1 when whitened, 0.5 from the
    # nearer centre, nothing across. (0, 3, 0): -0.5 along, -1 whitened, 1 from the nearer centre,
    # 1 across, which counts 1 / 0.25. Both squares are over three features.
    found = feature_distances(space, np.array([[2, 0, 0], [0, 3, 0]], np.float32))
    np.testing.assert_array_equal(found, np.round(np.sqrt([0.25 / 3, 5 / 3]), 4))


def test_a_distance_is_mahalanobis_with_all_directions() -> None:
    rng = np.random.default_rng(4)
    space = random_space(rng, 12, 3)
    axes, whitening = space.axes.astype(float), space.whitening.astype(float)
    # The covariance that the space stands for, in full.
    across = (np.eye(12) - axes @ axes.T) / float(space.spread[0])
    precision = axes @ whitening @ whitening.T @ axes.T + across
    centres = space.centres.astype(float) @ np.linalg.inv(whitening) @ axes.T
    features = rng.normal(size=(20, 12))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    wanted = []
    for row in unit - space.mean.astype(float):
        wanted.append(min((row - c) @ precision @ (row - c) for c in centres))
    np.testing.assert_allclose(
        feature_distances(space, features), np.sqrt(np.array(wanted) / 12), rtol=2e-3
    )


def test_neighbours_do_not_change_a_distance() -> None:
    rng = np.random.default_rng(5)
    space, features = random_space(rng, 200, 16), rng.normal(size=(40, 200)).astype(np.float32)
    together = feature_distances(space, features)
    alone = np.concatenate([feature_distances(space, row[None]) for row in features])
    np.testing.assert_array_equal(together, alone)


def test_features_that_are_no_numbers_are_far() -> None:
    features = np.array([[np.nan, 0, 0], [0, 0, 0]], np.float32)
    broken, nothing = feature_distances(small_space(), features)
    assert EVERYTHING.judge(SURE, broken, GOOD, lambda: 1.0).decision == "unlike-training"
    assert np.isfinite(nothing)


# Decisions


@pytest.mark.parametrize(
    ("probabilities", "distance", "quality", "nucleus", "decision", "reason"),
    [
        (SURE, 0.9, GOOD, 1.0, "class", ""),
        (SURE, 2.0, GOOD, 0.5, "class", ""),
        (TORN, 0.9, GOOD, 1.0, "unsure", "low-confidence"),
        (SURE, 0.9, replace(GOOD, sharpness=0.09), 1.0, "unsure", "blurred"),
        (SURE, 0.9, replace(GOOD, overexposed=0.3), 1.0, "unsure", "overexposed"),
        (SURE, 0.9, replace(GOOD, underexposed=0.3), 1.0, "unsure", "underexposed"),
        (SURE, 0.9, replace(GOOD, resolution=0.4), 1.0, "unsure", "few-pixels"),
        (SURE, 2.1, GOOD, 1.0, "unlike-training", "far-from-training"),
        (TORN, 2.1, replace(GOOD, sharpness=0), 0.6, "unlike-training", "far-from-training"),
        (SURE, 1.5, GOOD, 0.4, "not-a-cell", "no-nucleus"),
        (TORN, 9.0, replace(GOOD, sharpness=0), 0.0, "not-a-cell", "no-nucleus"),
        (SURE, 0.1, replace(GOOD, contrast=1.9), 1.0, "not-a-cell", "blank"),
        # Near the others: nobody looks for the nucleus.
        (SURE, 1.0, GOOD, 0.0, "class", ""),
    ],
)
def test_the_gravest_reason_is_given(
    probabilities: np.ndarray,
    distance: float,
    quality: Quality,
    nucleus: float,
    decision: str,
    reason: str,
) -> None:
    found = EVERYTHING.judge(probabilities, distance, quality, lambda: nucleus)
    assert replace(found, limit=None) == Judgement(decision, reason, (), distance)
    assert (found.limit is None) == (reason in ("", "blank"))
    assert decision == "class" or reason in REASONS[decision]


def test_a_nucleus_is_looked_for_only_where_there_is_a_doubt() -> None:
    asked: list[float] = []

    def nucleus() -> float:
        asked.append(1.0)
        return 1.0

    EVERYTHING.judge(SURE, 0.5, GOOD, nucleus)
    assert asked == []
    EVERYTHING.judge(SURE, 1.1, GOOD, nucleus)
    EVERYTHING.judge(SURE, None, GOOD, nucleus)  # without a space everything is in doubt
    assert asked == [1.0, 1.0]


def test_without_a_limit_of_confidence_nothing_is_accepted() -> None:
    nothing = Trust()
    assert not nothing.active
    assert not nothing.accepts
    found = nothing.judge(SURE, 0.5, GOOD, lambda: 1.0)
    assert (found.decision, found.reason) == ("unsure", "unproven")
    assert found.reason in REASONS[found.decision]
    others = Trust(limits={k: v for k, v in EVERYTHING.limits.items() if k != "confidence"})
    assert others.judge(SURE, 0.5, GOOD, lambda: 1.0).reason == "unproven"
    assert others.judge(SURE, 0.5, replace(GOOD, contrast=0), lambda: 1.0).reason == "blank"
    assert Trust(limits={"confidence": 0.0}).judge(TORN).decision == "class"


# Prediction sets


def test_prediction_sets_by_hand() -> None:
    limits = {class_limit(name): 0.25 for name in CLASSES}
    assert prediction_set(TORN, limits, ROUTINE) == ("Eosinophil", "Lymphocyte")
    assert prediction_set(SURE, limits, ROUTINE) == ("Lymphocyte",)
    assert prediction_set(np.full(5, 0.2), limits, ROUTINE) == (
        "Basophil",
    )  # none reaches it: the best
    limits["set_basophil"] = 0.0
    assert prediction_set(SURE, limits, ROUTINE) == ("Basophil", "Lymphocyte")
    assert prediction_set(SURE, {}, ROUTINE) == ()


# What a bundle says


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"calibration": {"method": "temperature", "value": 1.4}}, "does not apply. Update Leuko"),
        ({"calibration": {"method": "isotonic"}}, "does not apply. Update Leuko"),
        ({"calibration": {}}, "does not apply. Update Leuko"),
        ({"calibration": {"method": ["none"]}}, "does not apply. Update Leuko"),
        ({"calibration": {"method": "none", "temperature": 2.0}}, "does not apply"),
        ({"thresholds": {"unsure": 0.6}}, "does not apply. Update Leuko"),
        ({"calibration": {"method": "temperature", "temperature": 0.0}}, "temperature must lie"),
        ({"calibration": {"method": "temperature", "temperature": "1"}}, "temperature must lie"),
        ({"calibration": {"method": "temperature", "temperature": True}}, "temperature must lie"),
        ({"thresholds": {"confidence": "0.9"}}, "threshold confidence must be a number"),
        ({"thresholds": {"confidence": None}}, "threshold confidence must be a number"),
        ({"thresholds": {"confidence": float("inf")}}, "threshold confidence must be a number"),
        ({"thresholds": {"confidence": 10**400}}, "threshold confidence must be a number"),
        ({"thresholds": {"distance": 2.0}}, "no feature space"),
    ],
)
def test_what_a_bundle_may_not_say(change: dict[str, Any], message: str, tiny_bundle: Any) -> None:
    with pytest.raises(BundleError, match=message):
        Trust.of(replace(tiny_bundle, **change))


def test_what_a_bundle_may_say(tiny_bundle: Any) -> None:
    assert Trust.of(tiny_bundle) == Trust(limits={"confidence": 0.0})
    assert Trust.of(replace(tiny_bundle, thresholds={})) == Trust()
    everything = dict.fromkeys([*LIMITS, *map(class_limit, CLASSES)], 1)
    bundle = replace(
        tiny_bundle,
        calibration={"method": "temperature", "temperature": 2},
        thresholds=everything,
        space=small_space(),
    )
    found = Trust.of(bundle)
    assert (found.temperature, found.limits, found.active) == (2.0, everything, True)
