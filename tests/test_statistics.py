"""Statistics that several rooms share: by hand, against SciPy, over draws with known answers."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from leuko import statistics
from leuko.errors import DataError
from leuko.evaluation import intervals
from leuko.evaluation.counting import limits
from leuko.runtime.adapt import adapt
from leuko.runtime.adapt import labels as adapt_labels
from leuko.runtime.adapt import last_layer as adapt_fit
from leuko.runtime.trust import calibrate as trust_bundle
from leuko.runtime.trust import fit as trust_fit


def test_there_is_one_of_each() -> None:
    """Fitting and evaluating share the functions; no room has a second one of that name."""
    assert limits.exact_interval is statistics.exact_interval
    assert intervals.wilson_interval is statistics.wilson_interval
    assert trust_fit.error_bound is statistics.error_bound
    for room in (adapt, adapt_fit, adapt_labels, trust_bundle, trust_fit):
        own = {
            name.strip("_")
            for name, one in inspect.getmembers(room, inspect.isfunction)
            if one.__module__ == room.__name__
        }
        assert not own & {"log_loss", "cell_losses", "ece", "rounded", "error_bound"}


def test_calibration_error_and_log_loss_have_one_convention() -> None:
    """A confidence on the edge of a bin belongs to the lower one; a rounded zero is half a step."""
    # 0.6 = 9/15 is the upper end of the ninth bin, where 0.55 lies too.
    table = np.array([[0.6, 0.4, 0, 0, 0], [0.55, 0.45, 0, 0, 0]])
    bins = statistics.calibration_bins([0, 1], table)
    assert [one.n for one in bins if one.n] == [2]
    assert statistics.expected_calibration_error(bins) == pytest.approx(abs(0.5 - 0.575))
    sure = np.array([[1.0, 0, 0, 0, 0]] * 2)
    losses = statistics.cell_losses([0, 1], sure)
    assert losses.tolist() == pytest.approx([0, -np.log(5e-7)])
    assert statistics.log_loss([0, 1], sure) == pytest.approx(losses.mean())
    with pytest.raises(DataError, match="sum to 2"):
        statistics.cell_losses([0], [[1.0, 1.0, 0, 0, 0]])


@pytest.mark.parametrize(("errors", "n"), [(0, 1), (0, 59), (3, 100), (40, 2000), (99, 100)])
def test_the_error_bound_is_that_of_clopper_and_pearson(errors: int, n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    for delta in (0.2, 0.05, 0.001):
        wanted = stats.beta.ppf(1 - delta, errors + 1, n - errors)
        assert statistics.error_bound(errors, n, delta) == pytest.approx(wanted, rel=1e-6)
    assert statistics.error_bound(n, n, 0.05) == 1.0
    upper = statistics.exact_interval(errors, n, level=0.9)[1]
    assert statistics.error_bound(errors, n, 0.05) == pytest.approx(upper, rel=1e-9)


def test_wilson_takes_cells_that_count_as_fewer() -> None:
    assert statistics.wilson_interval(50.0, 100.0) == statistics.wilson_interval(50, 100)
    low, high = statistics.wilson_interval(12.5, 12.5)
    assert (low, high) == (pytest.approx(12.5 / (12.5 + 1.959964**2)), 1.0)


# Cells that are alike


def test_the_effect_is_assumed_in_proportion_to_the_mistakes_that_lack() -> None:
    effects = [statistics.least_effect(1000, 10, mistakes) for mistakes in (0, 5, 10, 20, 500)]
    assert effects == pytest.approx([1 + 99 * 0.2, 1 + 99 * 0.15, 1 + 99 * 0.1, 1, 1])
    # Four slides do not show their spread, however many mistakes there are.
    assert statistics.least_effect(1000, 4, 500) == pytest.approx(1 + 249 * 0.2)
    assert statistics.least_effect(1000, 1, 0) == statistics.least_effect(1000, 1000, 0) == 1


def test_the_effect_is_rao_and_scotts() -> None:
    """By hand, with slides of unlike size: 10 of 40, 30 of 40, 18 of 20, 15 of 30, 60 of 70."""
    sizes, rights = [40, 40, 20, 30, 70], [10, 30, 18, 15, 60]
    slides = np.repeat([*"abcde"], sizes)
    right = np.concatenate([np.arange(size) < hits for size, hits in zip(sizes, rights)])
    p, n = 133 / 200, 200
    variance = 5 / 4 * sum((hits - size * p) ** 2 for size, hits in zip(sizes, rights)) / n**2
    steady = 135 / 204
    wanted = variance / (steady * (1 - steady) / n)
    order = np.random.default_rng(0).permutation(n)
    assert wanted > 5
    for rows in (np.arange(n), order):
        found = statistics.slide_effect(right[rows], slides[rows].tolist())
        assert found == pytest.approx(wanted)


def test_the_effect_of_independent_cells_is_near_one_and_of_equal_ones_their_number() -> None:
    rng = np.random.default_rng(3)
    slides = [f"s{row % 50}" for row in range(1000)]
    found = [statistics.slide_effect(rng.random(1000) < 0.8, slides) for _ in range(50)]
    assert np.mean(found) == pytest.approx(1.1, abs=0.1)  # none is below 1
    whole = [f"s{row // 20}" for row in range(1000)]
    assert statistics.slide_effect(np.arange(1000) // 20 % 2 == 0, whole) == pytest.approx(
        20, rel=0.05
    )
    assert statistics.slide_effect([True] * 100, [f"s{row % 10}" for row in range(100)]) == 2.8
    assert statistics.slide_effect([True, False], ["a", "b"]) <= 2
    assert statistics.slide_effect([True] * 9, ["a"] * 9) == 1


def test_wilson_by_slide_covers_the_accuracy() -> None:
    """Rates of 12 slides are beta variables; the mean over all slides is to be held."""
    rng = np.random.default_rng(5)
    slides = [f"s{row % 12}" for row in range(240)]
    for accuracy, alike in ((0.98, 0.1), (0.9, 0.2)):
        shapes = np.array([accuracy, 1 - accuracy]) * (1 - alike) / alike
        held = naive = 0
        for _ in range(400):
            right = rng.random(240) < np.tile(rng.beta(*shapes, size=12), 20)
            effect = statistics.slide_effect(right, slides)
            low, high = statistics.wilson_interval(right.sum() / effect, 240 / effect)
            held += low <= accuracy <= high
            low, high = statistics.wilson_interval(int(right.sum()), 240)
            naive += low <= accuracy <= high
        assert held / 400 >= 0.9
        assert naive / 400 < 0.85


def test_better_than_one_answer_by_hand() -> None:
    truth, alone = np.array([4] * 60 + [0] * 6), [f"s{row}" for row in range(66)]
    better = statistics.beats_one_answer
    assert not better(truth, np.full(66, 4), alone)
    assert not better(truth, np.full(66, 0), alone)
    assert better(truth, truth, alone)
    assert not better([0, 4], [0, 4], ["a", "b"])  # by chance once in four
    # Fewer right answers than always the same one gives, and yet they tell the classes apart.
    answers = np.array([4] * 36 + [0] * 24 + [0] * 6)
    balanced = np.repeat(np.arange(5), 12)
    assert better(truth, answers, alone)
    assert not better(truth, np.array([4] * 36 + [0] * 24 + [0] * 2 + [4] * 4), alone)
    assert better(balanced, np.where(np.arange(60) % 2, balanced, 0), [""] * 60)
    assert not better([4] * 50, [4] * 50, [""] * 50)
    assert not better([], [], [])


@pytest.mark.slow
@pytest.mark.parametrize("favour", [0.0, 0.5, 0.95])
def test_what_answers_by_chance_is_seldom_called_better(favour: float) -> None:
    """Answers that follow the slide and never the cell; slides that lean on a class."""
    rng = np.random.default_rng(8)
    slides = [f"s{row % 14}" for row in range(280)]
    called = 0
    for _ in range(100):
        leaning = rng.dirichlet([0.5, 0.5, 1, 1, 3], size=14)
        truth = np.array([rng.choice(5, p=leaning[row % 14]) for row in range(280)])
        own = rng.dirichlet(np.ones(5), size=14)
        answers = np.array([rng.choice(5, p=own[row % 14]) for row in range(280)])
        answers[rng.random(280) < favour] = 4
        called += statistics.beats_one_answer(truth, answers, slides)
    assert called <= 8  # 5 are expected where all of the error is used up


def test_a_report_is_rounded_all_through() -> None:
    told = {"a": 1 / 3, "b": [0.12345678, "x", None, True, 2], "c": (1e-9,)}
    assert statistics.rounded(told) == {"a": 0.333333, "b": [0.123457, "x", None, True, 2],
                                        "c": [0.0]}  # fmt: skip
    assert told["a"] == 1 / 3
    assert statistics.rounded(0.126, 2) == 0.13
