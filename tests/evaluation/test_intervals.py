from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from leuko.errors import DataError
from leuko.evaluation import intervals, metrics


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17:857-872, 1998, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_agrees_with_published_values(k, n, low, high):
    assert intervals.wilson_interval(k, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_of_everything_right_ends_at_one():
    low, high = intervals.wilson_interval(10, 10)
    assert (low, high) == (pytest.approx(1 - 0.2775, abs=1e-4), 1.0)


@pytest.mark.parametrize(("n", "p"), [(20, 0.5), (50, 0.9), (100, 0.05), (200, 0.97)])
def test_wilson_interval_covers_as_often_as_it_says(n, p):
    # Summed over every outcome, so nothing is left to chance.
    covered = sum(
        math.comb(n, k) * p**k * (1 - p) ** (n - k)
        for k in range(n + 1)
        if intervals.wilson_interval(k, n)[0] <= p <= intervals.wilson_interval(k, n)[1]
    )
    assert covered == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize(
    ("k", "n", "level"), [(1, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1)]
)
def test_wilson_interval_refuses_impossible_counts(k, n, level):
    with pytest.raises(DataError, match=f"{k} of {n}"):
        intervals.wilson_interval(k, n, level=level)


def test_percentile_interval_by_hand():
    assert intervals.percentile_interval(np.arange(101), level=0.9) == pytest.approx((5, 95))
    assert intervals.percentile_interval([np.nan, 2.0, 2.0]) == (2.0, 2.0)
    assert intervals.percentile_interval([np.nan]) is None


def test_two_slides_give_the_three_sums_in_their_proportions():
    drawn = intervals.resample_slides([[1.0], [10.0]], [[1], [1]], seed=0, resamples=4000)
    values, counts = np.unique(drawn.sums, return_counts=True)
    assert values.tolist() == [2, 11, 20]
    np.testing.assert_allclose(counts / 4000, [0.25, 0.5, 0.25], atol=0.03)
    assert drawn.redrawn == 0


def test_resamples_follow_the_exact_distribution_of_three_slides():
    slides = np.array([[0.0], [1.0], [5.0]])
    drawn = intervals.resample_slides(slides, np.ones((3, 1)), seed=1, resamples=5000)
    exact = [sum(choice) for choice in itertools.product([0, 1, 5], repeat=3)]
    for value in set(exact):
        assert (drawn.sums == value).mean() == pytest.approx(exact.count(value) / 27, abs=0.025)


def test_resamples_that_lack_a_class_are_drawn_again_and_counted():
    # Class 1 is on one of four slides: a resample has it with probability 1 - (3/4)^4.
    required = [[1, 0], [1, 0], [1, 0], [1, 1]]
    drawn = intervals.resample_slides(required, required, seed=2, resamples=2000)
    assert len(drawn.sums) == 2000
    assert drawn.sums[:, 1].min() >= 1
    tries = 2000 / (1 - 0.75**4)
    assert drawn.redrawn == pytest.approx(tries - 2000, rel=0.1)


def test_worst_case_of_one_class_for_each_slide_is_bounded():
    drawn = intervals.resample_slides(np.eye(5), np.eye(5), seed=3, resamples=500)
    np.testing.assert_array_equal(drawn.sums, np.ones((500, 5)))
    assert drawn.redrawn == pytest.approx(500 * (3125 / 120 - 1), rel=0.15)


def test_hopeless_redrawing_stops():
    drawn = intervals.resample_slides(np.eye(12), np.eye(12), seed=4, resamples=20)
    assert len(drawn.sums) < 20
    assert drawn.redrawn + len(drawn.sums) == 2000


def test_equal_slides_drawn_together_are_the_same_as_apart():
    table = np.repeat([[3, 1], [4, 0]], [2, 3], axis=0)
    apart = intervals.resample_slides(table, table, seed=5, resamples=50)
    together = intervals.resample_slides(
        [[3, 1], [4, 0]], [[3, 1], [4, 0]], times=[2, 3], seed=5, resamples=50
    )
    np.testing.assert_array_equal(apart.sums, together.sums)


def test_order_of_slides_changes_nothing():
    table = np.random.default_rng(6).integers(1, 9, size=(8, 5))
    first = intervals.resample_slides(table, table, seed=7, resamples=50)
    second = intervals.resample_slides(table[::-1], table[::-1], seed=7, resamples=50)
    np.testing.assert_array_equal(first.sums, second.sums)


def test_nothing_to_resample_is_an_error():
    with pytest.raises(DataError, match="0 slides"):
        intervals.resample_slides(np.empty((0, 2)), np.empty((0, 2)), seed=0, resamples=5)


def test_images_are_resampled_where_slides_are_not_known():
    labels = np.repeat(np.arange(5), 20)
    answers = labels.copy()
    answers[::10] = 4
    for slides in ([""] * 100, [f"cell-{row}" for row in range(100)]):
        assert not intervals.slides_are_known(slides)
        drawn = intervals.resample_confusions(
            labels, answers[np.newaxis], slides, 5, seed=8, resamples=2000
        )
        assert drawn.method == intervals.OVER_IMAGES
        assert (drawn.confusion.sum(axis=(-2, -1)) == 100).all()
        # 8 of 100 are wrong: a binomial with a standard deviation of 2.7 points.
        spread = metrics.accuracy(drawn.confusion[:, 0]).std()
        assert spread == pytest.approx(math.sqrt(0.92 * 0.08 / 100), rel=0.08)


def test_models_share_their_resamples():
    labels = np.tile(np.arange(5), 12)
    slides = [f"s{row // 10}" for row in range(60)]
    answers = np.stack((labels, labels))
    drawn = intervals.resample_confusions(labels, answers, slides, 5, seed=9, resamples=20)
    assert drawn.method == intervals.OVER_SLIDES
    np.testing.assert_array_equal(drawn.confusion[:, 0], drawn.confusion[:, 1])


def test_bootstrap_over_slides_covers_where_images_taken_alone_do_not():
    # 30 slides of 40 cells; a slide's own accuracy varies (beta with mean 0.9, sd 0.09).
    generator = np.random.default_rng(10)
    over_slides = over_images = 0
    trials = 200
    for _ in range(trials):
        right = generator.binomial(40, generator.beta(9, 1, size=30))
        table = np.stack((right, np.full(30, 40)), axis=1)
        sums = intervals.resample_slides(table, table[:, 1:], seed=11, resamples=300).sums
        low, high = intervals.percentile_interval(sums[:, 0] / sums[:, 1])
        over_slides += low <= 0.9 <= high
        low, high = intervals.wilson_interval(int(right.sum()), 1200)
        over_images += low <= 0.9 <= high
    assert 0.88 <= over_slides / trials <= 0.98
    assert over_images / trials < 0.80


def test_a_proportion_whose_resamples_are_equal_has_wilsons_interval():
    over = intervals.OVER_SLIDES
    drawn = np.linspace(0.4, 0.6, 101)
    assert intervals.proportion_interval(20, 40, 10, drawn, over) == (
        intervals.percentile_interval(drawn), over
    )  # fmt: skip
    flat = intervals.proportion_interval(20, 40, 10, np.full(50, 0.5), over)
    assert flat == (intervals.wilson_interval(20, 40), intervals.WILSON_BY_SLIDE)
    # Without a mistake, 40 images of ten slides count as 40 / 1.6.
    right = intervals.proportion_interval(40, 40, 10, np.ones(50), over)
    assert right == (intervals.wilson_interval(25, 25), intervals.WILSON_BY_SLIDE)
    assert intervals.proportion_interval(0, 0, 0, np.full(5, np.nan), over) == (None, over)
