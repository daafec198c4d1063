"""Fitted limits keep what they promise, on draws with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from five import CLASSES
from leuko.errors import UsageError
from leuko.runtime.trust.decide import calibrate, class_limit, feature_distances, prediction_set
from leuko.runtime.trust.fit import (
    FOLDS,
    best_selection,
    cross_fitted_distances,
    deal_slides,
    fit_space,
    fit_temperature,
    limit_at,
    outlier_limit,
    select_confidence,
    set_limits,
)
from leuko.scheme import load_scheme
from leuko.statistics import error_bound

ROUTINE = load_scheme("differential-5")


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def labels_from(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One class a row, drawn with the row's own probabilities."""
    drawn = rng.random((len(probabilities), 1)) > probabilities.cumsum(axis=1)
    return drawn.sum(axis=1).clip(0, 4)


# Temperature


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_the_factor_of_the_logits_is_found_again(factor: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (8000, 5))
    labels = labels_from(softmax(logits), rng)
    given = softmax(factor * logits)
    temperature = fit_temperature(given, labels)
    assert temperature == pytest.approx(factor, rel=0.05)
    np.testing.assert_allclose(calibrate(given, temperature), softmax(logits), atol=0.02)


def test_no_other_temperature_has_less_log_loss() -> None:
    rng = np.random.default_rng(2)
    given = rng.dirichlet(np.full(5, 0.5), 3000)
    labels = labels_from(softmax(np.log(given) / 1.7), rng)

    def loss(temperature: float) -> float:
        return -float(np.log(softmax(np.log(given) / temperature)[range(3000), labels]).mean())

    best = fit_temperature(given, labels)
    assert loss(best) < min(loss(0.97 * best), loss(1.03 * best))


def test_answers_that_are_all_right_are_not_made_certain() -> None:
    given = np.full((50, 5), 0.05)
    given[:, 2] = 0.8
    temperature = fit_temperature(given, np.full(50, 2))
    assert 0.05 < temperature < 1
    # As sure as 50 right answers out of 50 allow: of the softened target 51/52 and a bit.
    assert calibrate(given, temperature)[0, 2] == pytest.approx(51 / 52 + 1 / 260, abs=2e-3)
    assert fit_temperature(given, np.full(50, 1)) == 20.0
    with pytest.raises(UsageError, match="at least one"):
        fit_temperature(given[:0], np.zeros(0, np.int64))


# Selective accuracy


def test_the_stated_accuracy_is_reached_on_fresh_pictures() -> None:
    """Right with probability ``confidence ** 0.25``, confidence even between 0 and 1.

    Above a limit ``t`` the accuracy is ``0.8 (1 - t ** 1.25) / (1 - t)``: 0.93 at 0.51.
    """
    rng = np.random.default_rng(3)
    missed, coverages = 0, []
    for _ in range(200):
        confidence = np.round(rng.random(1500), 6)
        right = rng.random(1500) < confidence**0.25
        chosen = select_confidence(confidence, right, accuracy=0.93, level=0.9)
        if chosen is None:
            coverages.append(0.0)
            continue
        limit = chosen.confidence
        missed += 0.8 * (1 - limit**1.25) / (1 - limit) < 0.93
        coverages.append(chosen.coverage)
        assert chosen.accuracy_low >= 0.93
        assert chosen.coverage == pytest.approx((confidence >= limit).mean())
        assert chosen.accuracy == pytest.approx(right[confidence >= limit].mean())
    assert missed <= 20  # 10% of 200; Bonferroni leaves far fewer
    assert np.mean(coverages) > 0.2  # of 0.49 that would just do


def test_confidences_that_are_equal_are_answered_together() -> None:
    confidence = np.array([0.9] * 600 + [0.5] * 400)
    right = np.array([True] * 600 + [True, False] * 200)
    chosen = select_confidence(confidence, right, accuracy=0.95)
    assert chosen is not None
    assert (chosen.confidence, chosen.coverage, chosen.accuracy) == (0.9, 0.6, 1.0)


def test_an_accuracy_that_nothing_reaches() -> None:
    rng = np.random.default_rng(6)
    assert select_confidence(rng.random(500), rng.random(500) < 0.5, accuracy=0.9) is None
    assert select_confidence(np.ones(20), np.ones(20, bool), accuracy=0.99) is None  # too few
    assert select_confidence(np.zeros(0), np.zeros(0, bool), accuracy=0.5) is None


def test_the_best_bound_is_taken_where_nothing_reaches_what_is_wanted() -> None:
    """Of 200 answers the surest 100 are right, the others by half."""
    confidence = np.round(np.linspace(1.0, 0.3, 200), 6)
    right = np.arange(200) % 2 == 0
    right[:100] = True
    best = best_selection(confidence, right)
    assert best is not None
    assert (best.coverage, best.accuracy) == (0.5, 1.0)
    assert best.confidence == confidence[99]
    assert best.accuracy_low == pytest.approx(1 - error_bound(0, 100, 0.05 / 20), abs=2e-3)
    stricter = best_selection(confidence, right, least=float(confidence[49]))
    assert stricter is not None
    assert (stricter.confidence, stricter.coverage) == (confidence[49], 0.25)
    wrong = best_selection(confidence, np.zeros(200, bool))
    assert wrong is not None
    assert (wrong.coverage, wrong.accuracy_low) == (1.0, 0.0)  # of equally bad ones, the lowest
    assert best_selection(confidence, right, least=1.1) is None
    assert best_selection(np.zeros(0), np.zeros(0, bool)) is None


@pytest.mark.parametrize("old", [0.3, 0.6275, 1.0, 4.0])
@pytest.mark.parametrize("new", [0.4, 1.0, 1.17, 6.0])
def test_a_limit_at_another_temperature_errs_to_one_side(old: float, new: float) -> None:
    rng = np.random.default_rng(5)
    raw = np.concatenate([rng.dirichlet(np.full(5, scale), 2000) for scale in (0.05, 0.4, 3.0)])
    before, after = calibrate(raw, old), calibrate(raw, new)
    for limit in (0.004563, 0.3, 0.5, 0.9, 0.980982):
        strict = limit_at(limit, old / new, 5, stricter=True)
        lax = limit_at(limit, old / new, 5, stricter=False)
        assert lax <= strict
        # A hair is left for the rounding of the probabilities.
        if 0 < strict < 1:
            assert (after[before < limit - 1e-4] < strict).all()
        assert (after[before >= limit + 1e-4] >= lax).all()
    assert limit_at(0.0, old / new, 5, stricter=False) == 0
    assert limit_at(1.0, old / new, 5, stricter=True) == 1


# Prediction sets


def test_the_stated_coverage_holds_for_every_class_over_many_splits() -> None:
    """With n pictures of a class and k = floor((n + 1) (1 - coverage)) it is 1 - k / (n + 1)."""
    rng = np.random.default_rng(7)
    share = np.array([0.08, 0.12, 0.3, 0.1, 0.4])
    n = np.round(share * 600).astype(int)
    labels = np.repeat(np.arange(5), n)
    hits, tries = np.zeros(5), 400
    for _ in range(tries):
        # A poor network: the first class gets almost nothing, and coverage must hold all the same.
        def answers(of: np.ndarray) -> np.ndarray:
            logits = rng.normal(0, 1.5, (len(of), 5)) + 2.0 * np.eye(5)[of]
            logits[:, 0] -= 2
            return np.round(softmax(logits), 6)

        limits = set_limits(answers(labels), labels, ROUTINE, coverage=0.9)
        fresh = np.repeat(np.arange(5), 20)
        sets = [prediction_set(row, limits, ROUTINE) for row in answers(fresh)]
        inside = [CLASSES[c] in one for c, one in zip(fresh, sets)]
        hits += np.bincount(fresh, weights=inside)
    wanted = 1 - np.floor((n + 1) * 0.1) / (n + 1)
    # A split's coverage is a beta variable, and twenty pictures are drawn with it.
    spread = np.sqrt(wanted * (1 - wanted) * (1 / (20 * tries) + 1 / ((n + 2) * tries)))
    assert ((hits / (20 * tries)) > wanted - 3 * spread).all()
    # Only a set that would be empty, and takes the best class, may exceed it.
    assert ((hits / (20 * tries)) < wanted + 3 * spread + 0.02).all()


def test_a_class_with_too_few_pictures_is_always_possible() -> None:
    table = np.full((30, 5), 0.2)
    labels = np.repeat([1, 2], [10, 20])
    limits = set_limits(table, labels, ROUTINE, coverage=0.95)
    assert limits == {class_limit(c): 0.2 if c == "Lymphocyte" else 0.0 for c in CLASSES}


# Distances


def features_of(labels: np.ndarray, rng: np.random.Generator, far: float = 0.0) -> np.ndarray:
    """Forty features, of which three tell the class; `far` moves all in a direction of its own."""
    values = 3 + 0.3 * rng.normal(size=(len(labels), 40))
    values[:, :3] += np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2], [-2, 0, 0], [0, -2, 0]])[labels]
    values[:, 20] += far
    return values


def test_what_is_far_is_far_and_the_rest_is_near_one() -> None:
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 5, 1000)
    space = fit_space(features_of(labels, rng), labels)
    assert space is not None
    fresh = rng.integers(0, 5, 500)
    near = feature_distances(space, features_of(fresh, rng))
    assert np.median(near) == pytest.approx(1.0, abs=0.05)
    away = feature_distances(space, features_of(fresh, rng, far=3.0))
    assert away.min() > np.quantile(near, 0.999)
    # Longer features of the same direction are the same.
    shown = features_of(fresh[:9], rng)
    np.testing.assert_array_equal(
        feature_distances(space, 4 * shown), feature_distances(space, shown)
    )


def test_the_axes_are_few_and_orthonormal() -> None:
    rng = np.random.default_rng(9)
    labels = rng.integers(0, 5, 300)
    space = fit_space(features_of(labels, rng), labels, axes=7)
    assert space is not None
    axes = space.axes.astype(float)
    assert axes.shape == (40, 7)
    np.testing.assert_allclose(axes.T @ axes, np.eye(7), atol=2e-3)
    fewer = fit_space(features_of(labels, rng)[:40], labels[:40])
    assert fewer is not None
    assert fewer.axes.shape == (40, 5)  # eight pictures for each
    assert fit_space(np.ones((50, 40)), labels[:50]) is None
    for many in (0, 65):
        with pytest.raises(UsageError, match="1 to 64 axes"):
            fit_space(features_of(labels, rng), labels, axes=many)


def test_an_odd_slide_is_measured_without_itself() -> None:
    rng = np.random.default_rng(10)
    labels = rng.integers(0, 5, 500)
    slides = [f"s{row % 10}" for row in range(500)]
    odd = np.array([slide == "s3" for slide in slides])
    features = features_of(labels, rng)
    features[odd, 30] += 2.0
    apart = cross_fitted_distances(features, labels, slides)
    space = fit_space(features, labels)
    assert space is not None
    together = feature_distances(space, features)
    assert np.median(apart[odd]) > 1.3 * np.median(together[odd])
    assert np.median(apart[~odd]) == pytest.approx(1.0, abs=0.1)
    np.testing.assert_array_equal(apart, cross_fitted_distances(features, labels, slides))


def test_slides_are_left_out_whole_but_for_one_that_alone_shows_a_class() -> None:
    labels = np.array([0] * 20 + [1, 2, 3, 4] * 20)
    slides = ["only"] * 20 + [f"s{row // 8}" for row in range(80)]
    folds = deal_slides(labels, slides, 0)
    assert set(folds) == set(range(FOLDS))
    for number in range(10):
        own = folds[[slide == f"s{number}" for slide in slides]]
        assert len(set(own)) == 1
    np.testing.assert_array_equal(np.bincount(folds[:20]), [4] * 5)


def test_alarms_stay_within_what_was_stated() -> None:
    rng = np.random.default_rng(11)
    rates = []
    for _ in range(200):
        limit = outlier_limit(rng.exponential(size=300), alarms=0.02)
        rates.append(math.exp(-limit))  # what a fresh one exceeds it with
    # On average k / (n + 1), with k = floor(301 * 0.02) = 6.
    assert np.mean(rates) == pytest.approx(6 / 301, abs=4 * 0.0082 / math.sqrt(200))
    assert outlier_limit(np.ones(50), alarms=0.01) == math.inf
