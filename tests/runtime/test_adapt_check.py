"""What is judged without labels, with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from leuko.runtime.adapt_check import Check, check, entropy, judge
from leuko.runtime.looks import softmax

UNSURE, SURE = np.log([0.2] * 5), np.log([0.96, 0.01, 0.01, 0.01, 0.01])
OTHER = np.log([0.01, 0.96, 0.01, 0.01, 0.01])


def made(unsteady: float, doubt: float = 1.0, *, n: int = 50, mix: object = None) -> Check:
    """Many pictures that are all alike."""
    shares = np.full(5, 0.2) if mix is None else np.asarray(mix, np.float64)
    return Check(np.full(n, unsteady), np.full(n, doubt), 0.5, shares, 0.0)


def test_steady_answers_have_no_divergence() -> None:
    found = check(np.stack([[[UNSURE], [UNSURE]], [[SURE], [SURE]]]))
    np.testing.assert_allclose(found.unsteady, 0, atol=1e-12)
    assert found.share == pytest.approx(0)
    assert found.entropy == pytest.approx((np.log(5) + entropy(np.exp(SURE))) / 2)
    np.testing.assert_allclose(found.mix, [0.58, 0.105, 0.105, 0.105, 0.105])


def test_two_answers_that_exclude_each_other() -> None:
    first, second = np.log([1, *[1e-12] * 4]), np.log([1e-12, 1, *[1e-12] * 3])
    found = check(np.array([[[first], [second]]]))
    assert found.unsteady[0] == pytest.approx(np.log(2))
    assert found.share == pytest.approx(1)


def test_looks_bias_and_temperature() -> None:
    logits = np.array([[[SURE, OTHER]]])
    assert check(logits).mix[:2] == pytest.approx(check(logits).mix[1::-1])
    assert check(logits).between > 0.4
    weighted = check(logits, (1.0, 3.0)).mix
    assert weighted[1] == pytest.approx(96**0.75 / (96**0.75 + 96**0.25 + 3))
    moved = check(logits, bias=np.array([2.0, 0, 0, 0, 0]), temperature=2.0).mix
    np.testing.assert_allclose(moved, softmax((logits[0, 0].mean(axis=0) + 2 * np.eye(5)[0]) / 2))


def test_what_is_kept() -> None:
    assert judge(made(0.1), made(0.09)).kept
    assert not judge(made(0.1), made(0.099)).kept  # less than the margin
    assert not judge(made(0.1), made(0.2)).kept
    # Surer answers alone are no gain: divergence and doubt fall together.
    assert not judge(made(0.1, 1.0), made(0.05, 0.5)).kept
    tilted = [0.4, 0.15, 0.15, 0.15, 0.15]
    refused = judge(made(0.1), made(0.01, mix=tilted))
    assert not refused.kept
    assert "move by 0.20" in refused.reason
    one = [0.96, 0.01, 0.01, 0.01, 0.01]
    assert "Basophil would take 96%" in judge(made(0.1, mix=one), made(0.01, mix=one)).reason


def test_a_gain_within_its_error() -> None:
    before, after = made(0.1, n=20), made(0.1, n=20)
    before.unsteady[0], after.unsteady[1] = 1.3, 0.9  # two pictures of twenty make the difference
    verdict = judge(before, after, seed=3)
    assert not verdict.kept
    assert "within its error" in verdict.reason
    assert judge(before, after, seed=3) == verdict
