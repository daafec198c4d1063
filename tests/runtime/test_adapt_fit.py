"""A last layer fitted again: against scikit-learn, against a shift that was made on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from leuko.bundle import FeatureSpace
from leuko.runtime.adapt_check import softmax
from leuko.runtime.adapt_fit import FOLDS, Head, _fit, deal_cells, fit_head, log_loss, mean_shift
from leuko.runtime.trust_fit import fit_space

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
        return len(labels) * log_loss(found, labels) + ridge / 2

    best = loss(scale, weights, bias)
    for step in (-1e-3, 1e-3):
        assert loss(scale + step, weights, bias) > best
        for index in np.ndindex(weights.shape):
            other = weights.copy()
            other[index] += step
            assert loss(scale, other, bias) > best
        for index in range(5):
            assert loss(scale, weights, bias + step * np.eye(5)[index]) > best


def test_a_shift_is_taken_back(space: FeatureSpace) -> None:
    """Every feature is 0.6 larger there; half of the cells are of one class."""
    shift = 0.6 * (MEANS[0] - MEANS[1]) / np.linalg.norm(MEANS[0] - MEANS[1])
    shares = [0.5, 0.2, 0.1, 0.1, 0.1]
    features, labels = drawn(600, seed=3, shift=4 * shift, shares=shares)
    bias = mean_shift(space, features, HEAD)
    assert bias.sum() == pytest.approx(0, abs=1e-9)
    assert np.abs(bias).max() <= 2 * np.log(4)
    assert bias[1] > bias[0]
    # At home there is nothing to move, whatever the mix.
    home, _ = drawn(3000, seed=4, shares=shares)
    assert np.abs(mean_shift(space, home, HEAD)).max() < 0.3


@pytest.mark.parametrize("with_space", [False, True])
def test_a_refit_helps_where_the_head_is_wrong(with_space: bool, space: FeatureSpace) -> None:
    wrong = Head(HEAD.weights[:, [1, 0, 2, 3, 4]] / 8, HEAD.bias[[1, 0, 2, 3, 4]] / 8)
    features, labels = drawn(60, seed=5)
    others, truth = drawn(500, seed=6)
    found = fit_head(features, labels, wrong, temperature=2.0, space=space if with_space else None)
    assert found.kind == "ridge"
    assert found.loss < log_loss(softmax(wrong.logits(features) / 2), labels)
    before = (wrong.logits(others).argmax(axis=1) == truth).mean()
    after = (found.head.logits(others).argmax(axis=1) == truth).mean()
    assert before < 0.7
    assert after > 0.9
    assert found.probabilities.shape[1:] == (60, 5)
    again = fit_head(features, labels, wrong, temperature=2.0, space=space if with_space else None)
    np.testing.assert_array_equal(again.head.weights, found.head.weights)


def test_a_bias_is_enough_where_only_the_shares_differ() -> None:
    """Three features that say little, so that a ridge on them has nothing to add."""
    rng = np.random.default_rng(8)
    features = rng.normal(0, 1, (80, 3))
    head = Head(np.zeros((3, 5)), np.log([0.9, 0.025, 0.025, 0.025, 0.025]))
    labels = rng.choice(5, 80, p=[0.1, 0.6, 0.1, 0.1, 0.1])
    found = fit_head(features, labels, head)
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
    found = fit_head(features, labels, head, temperature=1.0)
    assert found.loss <= log_loss(odds, labels)


def test_a_class_without_labels_keeps_its_logit(space: FeatureSpace) -> None:
    features, labels = drawn(60, seed=10)
    few = labels != 3
    wrong = Head(HEAD.weights / 8, HEAD.bias / 8 + [3.0, 0, 0, 0, 0])
    found = fit_head(features[few], labels[few], wrong, space=space)
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
