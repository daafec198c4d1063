from __future__ import annotations

import math

import numpy as np
import pytest

from leuko.errors import DataError
from leuko.evaluation.counting import limits
from leuko.statistics import beta_cdf, beta_quantile


def test_beta_agrees_with_scipy_over_seven_decades(scipy_stats):
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = 10 ** rng.uniform(-1, 6, 2)
        x = rng.beta(a, b)
        assert beta_cdf(x, a, b) == pytest.approx(scipy_stats.beta.cdf(x, a, b), abs=1e-8)


def test_beta_quantile_agrees_with_scipy(scipy_stats):
    rng = np.random.default_rng(1)
    for _ in range(100):
        a, b = 10 ** rng.uniform(-0.3, 5, 2)
        p = rng.uniform(0.0005, 0.9995)
        wanted = scipy_stats.beta.ppf(p, a, b)
        assert beta_quantile(p, a, b) == pytest.approx(wanted, rel=1e-8, abs=1e-14)


def test_beta_by_hand():
    # One shape 1: the distribution function is a power.
    assert beta_cdf(0.3, 1, 4) == pytest.approx(1 - 0.7**4, rel=1e-13)
    assert beta_quantile(0.5, 3, 1) == pytest.approx(0.5 ** (1 / 3), rel=1e-11)
    assert (beta_cdf(-1, 2, 3), beta_cdf(2, 2, 3)) == (0, 1)
    assert beta_cdf(0.5, 40, 40) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(5, 100, 1.6, 11.3), (10, 200, 2.4, 9.0), (25, 500, 3.3, 7.3), (0, 100, 0.0, 3.6)],
)
def test_exact_limits_are_those_of_ruemkes_table(k, n, low, high):
    ends = limits.exact_interval(k, n)
    assert [round(100 * end, 1) for end in ends] == [low, high]


def test_exact_limits_agree_with_scipy(scipy_stats):
    for n in (1, 7, 50, 400, 12_345):
        for k in {0, 1, n // 3, n - 1, n}:
            for level in (0.9, 0.95, 0.99):
                wanted = scipy_stats.binomtest(k, n).proportion_ci(level, method="exact")
                assert limits.exact_interval(k, n, level=level) == pytest.approx(
                    (wanted.low, wanted.high), rel=1e-7, abs=1e-12
                )


def test_exact_limits_never_cover_less_than_they_say(scipy_stats):
    # Summed over every outcome, so nothing is left to chance.
    for n in (20, 100):
        ends = np.array([limits.exact_interval(k, n) for k in range(n + 1)])
        for p in np.linspace(0.002, 0.998, 499):
            inside = (ends[:, 0] <= p) & (p <= ends[:, 1])
            assert scipy_stats.binom.pmf(np.arange(n + 1), n, p)[inside].sum() >= 0.95 - 1e-12


@pytest.mark.parametrize("n", [100, 400])
def test_limits_of_multinomial_draws_cover_every_class(n):
    shares = np.array([0.005, 0.03, 0.30, 0.07, 0.595])
    counts = np.random.default_rng(n).multinomial(n, shares, size=20_000)
    ends = np.array([limits.exact_interval(k, n) for k in range(n + 1)])
    held = (ends[counts, 0] <= shares) & (shares <= ends[counts, 1])
    assert held.mean(axis=0).min() >= 0.945
    wide = np.array([limits.exact_interval(k, n, level=0.99) for k in range(n + 1)])
    at_once = ((wide[counts, 0] <= shares) & (shares <= wide[counts, 1])).all(axis=1)
    assert at_once.mean() >= 0.95 > held.all(axis=1).mean()


def test_simultaneous_limits_are_bonferronis():
    counts = [1, 6, 60, 14, 119]
    together = limits.share_limits(counts, level=limits.each_level(0.95, 5))
    assert together == limits.share_limits(counts, level=0.99)
    apart = limits.share_limits(counts)
    assert all(one[0] <= two[0] and two[1] <= one[1] for one, two in zip(together, apart))


def test_exact_limits_refuse_what_makes_no_sense():
    for k, n, level in ((1, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1)):
        with pytest.raises(DataError, match=f"{k} of {n}"):
            limits.exact_interval(k, n, level=level)


@pytest.mark.parametrize(("share", "half"), [(0.6, 0.05), (0.05, 0.02), (0.0, 0.01), (1.0, 0.03)])
def test_cells_for_half_width_is_the_smallest_number(share, half):
    def width(n):
        low, high = limits.exact_interval(share * n, n)
        return (high - low) / 2

    n = limits.cells_for_half_width(share, half)
    assert width(n) <= half < width(n - 1)


def test_cells_for_half_width_is_near_the_normal_formula_and_has_an_end():
    formula = (1.96 / 0.01) ** 2 * 0.3 * 0.7
    assert limits.cells_for_half_width(0.3, 0.01) == pytest.approx(formula, rel=0.02)
    assert limits.cells_for_half_width(0.3, 0.0001) is None
    assert limits.cells_for_half_width(0.3, 0.0) is None


def test_fishers_test_agrees_with_scipy(scipy_stats):
    rng = np.random.default_rng(2)
    for _ in range(60):
        n_a, n_b = rng.integers(1, 800, 2)
        k_a, k_b = rng.binomial(n_a, 0.1), rng.binomial(n_b, 0.14)
        wanted = scipy_stats.fisher_exact([[k_a, n_a - k_a], [k_b, n_b - k_b]]).pvalue
        received = limits.fisher_p_value(int(k_a), int(n_a), int(k_b), int(n_b))
        assert received == pytest.approx(wanted, rel=1e-6)


def test_fishers_test_by_hand():
    # The lady and her tea: all eight cups right has 1 table in 70 on each side.
    assert limits.fisher_p_value(4, 4, 0, 4) == pytest.approx(2 / math.comb(8, 4))
    with pytest.raises(DataError, match="5 of 4"):
        limits.fisher_p_value(5, 4, 0, 4)
