"""A last layer fitted again: against scikit-learn, against a shift that was made on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from leuko.bundle import FeatureSpace
from leuko.runtime.adapt.last_layer import (
    FOLDS,
    Cells,
    Head,
    _fit,
    deal_cells,
    deal_groups,
    fit_head,
    slide_groups,
)
from leuko.runtime.network.average import softmax
from leuko.runtime.trust.fit import fit_space
from leuko.statistics import log_loss

pytestmark = pytest.mark.slow

WIDTH = 40
RNG = np.random.default_rng(5)
MEANS = np.abs(RNG.normal(0, 1, (5, WIDTH))) + 0.5
HEAD = Head(MEANS.T * 2, -np.square(MEANS).sum(axis=1))


def drawn(n: int, *, seed: int, shift: object = 0.0, shares: object = None) -> tuple:
    """Features around the means of their classes, and the classes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(5, n, p=shares)
    return MEANS[labels] + rng.normal(0, 0.4, (n, WIDTH)) + shift, labels


@pytest.fixture(scope="module")
def space() -> FeatureSpace:
    features, labels = drawn(2000, seed=1)
    found = fit_space(features.astype(np.float32), labels)
    assert found is not None
    return found


def test_newton_finds_the_minimum() -> None:
    """Every derivative of the penalised loss is 0 there, by finite differences."""
    features, labels = drawn(60, seed=2)
    values, logits = features[:, :4], 0.1 * HEAD.logits(features)
    scale, weights, bias = _fit(values, logits, labels, 0.5)

    def loss(scale: float, weights: np.ndarray, bias: np.ndarray) -> float:
        found = softmax(scale * logits + values @ weights + bias)
        ridge = (
            0.5 * np.square(weights).sum() + 0.1 * np.square(bias).sum() + 0.3 * (scale - 1) ** 2
        )
        return len(labels) * log_loss(labels, found) + ridge / 2

    best = loss(scale, weights, bias)
    for step in (-1e-3, 1e-3):
        assert loss(scale + step, weights, bias) > best
        for index in np.ndindex(weights.shape):
            other = weights.copy()
            other[index] += step
            assert loss(scale, other, bias) > best
        for index in range(5):
            assert loss(scale, weights, bias + step * np.eye(5)[index]) > best


@pytest.mark.parametrize("with_space", [False, True])
def test_a_refit_helps_where_the_head_is_wrong(with_space: bool, space: FeatureSpace) -> None:
    wrong = Head(HEAD.weights[:, [1, 0, 2, 3, 4]] / 8, HEAD.bias[[1, 0, 2, 3, 4]] / 8)
    features, labels = drawn(60, seed=5)
    others, truth = drawn(500, seed=6)
    found = fit_head(
        Cells(features, labels), wrong, temperature=2.0, space=space if with_space else None
    )
    assert found.kind == "ridge"
    assert found.loss < log_loss(labels, softmax(wrong.logits(features) / 2))
    before = (wrong.logits(others).argmax(axis=1) == truth).mean()
    after = (found.head.logits(others).argmax(axis=1) == truth).mean()
    assert before < 0.7
    assert after > 0.9
    assert found.probabilities.shape[1:] == (60, 5)
    again = fit_head(
        Cells(features, labels), wrong, temperature=2.0, space=space if with_space else None
    )
    np.testing.assert_array_equal(again.head.weights, found.head.weights)


def test_a_bias_is_enough_where_only_the_shares_differ() -> None:
    """Three features that say little, so that a ridge on them has nothing to add."""
    rng = np.random.default_rng(8)
    features = rng.normal(0, 1, (80, 3))
    head = Head(np.zeros((3, 5)), np.log([0.9, 0.025, 0.025, 0.025, 0.025]))
    labels = rng.choice(5, 80, p=[0.1, 0.6, 0.1, 0.1, 0.1])
    found = fit_head(Cells(features, labels), head)
    assert found.kind in ("bias", "ridge")
    shares = softmax(found.head.logits(features)).mean(axis=0)
    np.testing.assert_allclose(shares, np.bincount(labels, minlength=5) / 80, atol=0.05)


def test_nothing_is_changed_where_nothing_helps() -> None:
    """The head is the truth; labels are drawn from it."""
    rng = np.random.default_rng(9)
    features = rng.normal(0, 1, (40, 6))
    head = Head(rng.normal(0, 1, (6, 5)), np.zeros(5))
    odds = softmax(head.logits(features))
    labels = np.array([rng.choice(5, p=one) for one in odds])
    found = fit_head(Cells(features, labels), head, temperature=1.0)
    assert found.loss <= log_loss(labels, odds)


def test_a_class_without_labels_keeps_its_logit(space: FeatureSpace) -> None:
    features, labels = drawn(60, seed=10)
    few = labels != 3
    wrong = Head(HEAD.weights / 8, HEAD.bias / 8 + [3.0, 0, 0, 0, 0])
    found = fit_head(Cells(features[few], labels[few]), wrong, space=space)
    before, after = wrong.logits(features), found.head.logits(features)
    ratio = after[:, 3] / before[:, 3]  # a factor is common to all classes
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


def test_cells_are_dealt_evenly() -> None:
    labels = np.repeat(np.arange(5), [3, 12, 37, 15, 33])
    folds = deal_cells(labels, seed=2)
    for label in range(5):
        counts = np.bincount(folds[labels == label], minlength=FOLDS)
        assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(deal_cells(labels, seed=2), folds)
    assert (deal_cells(labels, seed=3) != folds).any()


# Slides


def memorable(slides: int, each: int, *, seed: int) -> tuple:
    """Cells whose class is that of their slide, and whose features show the slide alone."""
    rng = np.random.default_rng(seed)
    which = np.repeat(np.arange(slides), each)
    own = rng.normal(0, 1, (slides, 9))
    features = 2 + own[which] + rng.normal(0, 0.2, (len(which), 9))
    return features, (which + rng.integers(5)) % 5, [f"s{one}" for one in which]


def test_what_is_remembered_of_slides_is_no_gain() -> None:
    """Dealt cell by cell, a ridge seems to know the classes; it knows the slides."""
    features, labels, slides = memorable(10, 8, seed=1)
    head = Head(np.zeros((9, 5)), np.zeros(5))
    by_cells = fit_head(Cells(features, labels), head)
    by_slides = fit_head(Cells(features, labels, groups=slide_groups(slides)), head)
    assert by_cells.loss < 0.3 < np.log(5)
    assert by_slides.kind == "nothing"
    assert by_slides.loss == pytest.approx(np.log(5))


def test_slides_are_dealt_whole_and_classes_evenly() -> None:
    rng = np.random.default_rng(4)
    slides = [f"s{one}" for one in rng.integers(0, 17, 300)]
    labels = rng.choice(5, 300, p=[0.05, 0.1, 0.25, 0.1, 0.5])
    folds = deal_groups(labels, slides, seed=3)
    assert set(folds) == set(range(FOLDS))
    for name in set(slides):
        assert len(set(folds[[slide == name for slide in slides]])) == 1
    for label in range(5):
        counts = np.bincount(folds[labels == label], minlength=FOLDS)
        assert counts.max() <= 0.5 * counts.sum()
    sizes = np.bincount(folds, minlength=FOLDS)
    assert sizes.max() < 2 * sizes.min()
    order = rng.permutation(300)
    again = deal_groups(labels[order], [slides[row] for row in order], seed=3)
    np.testing.assert_array_equal(again, folds[order])
    assert (deal_groups(labels, slides, seed=4) != folds).any()


def test_a_class_of_two_slides_is_never_held_out_whole() -> None:
    labels = np.array([0, 0, 4, 4, 4, 0, 0, 4, 4, 4, *[4] * 12])
    slides = [*["a"] * 5, *["b"] * 5, *["c"] * 6, *["d"] * 6]
    for seed in range(20):
        folds = deal_groups(labels, slides, seed=seed)
        assert len(set(folds)) == 4
        assert folds[0] != folds[5]
        two = deal_groups(labels[:10], slides[:10], seed=seed)
        assert sorted({two[0], two[5]}) == [0, 1]


def test_a_class_that_one_slide_alone_shows_is_answered_without_it(space: FeatureSpace) -> None:
    """Its own logit is then as it was but for the factor, and the cells are told."""
    features, labels = drawn(80, seed=12)
    slides = [f"s{row % 4}" if label else "s0" for row, label in enumerate(labels)]
    wrong = Head(HEAD.weights / 8, HEAD.bias / 8)
    found = fit_head(Cells(features, labels, groups=slide_groups(slides)), wrong, space=space)
    assert found.folds == 4
    np.testing.assert_array_equal(found.unseen, labels == 0)
    assert np.isfinite(found.probabilities).all()
    assert found.loss < log_loss(labels, softmax(wrong.logits(features)))
    assert not fit_head(Cells(features, labels), wrong, space=space).unseen.any()


def test_two_slides_of_one_class_each_end_in_nothing() -> None:
    features, labels = drawn(40, seed=13)
    two = labels < 2
    slides = [f"s{label}" for label in labels[two]]
    found = fit_head(Cells(features[two], labels[two], groups=slide_groups(slides)), HEAD)
    assert (found.folds, found.kind) == (2, "nothing")
    assert found.unseen.all()


def test_slides_are_held_out_where_there_are_two() -> None:
    assert slide_groups(["", "", ""]) is None
    assert slide_groups(["a", "", "a"]) is None
    assert slide_groups(["a", "", "b", "b"]) == ["a", "cell 1", "b", "b"]
