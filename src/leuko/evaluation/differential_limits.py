"""Limits of a share that was counted: exact and Wilson, how many cells they need, two counts.

Clopper and Pearson's limits are quantiles of beta distributions. The base install has no SciPy, so
the incomplete beta function is summed here as a continued fraction, and inverted by Newton's
method held between bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from leuko.errors import DataError
from leuko.evaluation.intervals import LEVEL, wilson_interval

__all__ = [
    "LIMITS",
    "beta_cdf",
    "beta_quantile",
    "cells_for_half_width",
    "exact_interval",
    "fisher_p_value",
    "share_limits",
]

LIMITS: Final = ("exact", "wilson")
"""Kinds of limits of a share."""

MOST_CELLS: Final = 10_000_000
"""A wanted width that would take more cells than this is out of reach."""

_TINY: Final = 1e-300
_TERMS: Final = 100_000


def beta_cdf(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function, the distribution function of a beta variable.

    Parameters
    ----------
    x : float, 0 to 1
        Where.
    a, b : float, above 0
        Shapes.

    Returns
    -------
    float, 0 to 1

    References
    ----------
    NIST Digital Library of Mathematical Functions, 8.17.22 (the continued fraction) and 8.17.4
    (the symmetry that makes it converge); summed by the modified method of W. J. Lentz, Applied
    Optics 15:668-671, 1976.

    Examples
    --------
    >>> round(beta_cdf(0.25, 1, 2), 4)
    0.4375
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_cdf(1 - x, b, a)
    front = a * math.log(x) + b * math.log1p(-x) - math.log(a)
    front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return min(1.0, math.exp(front) * _fraction(x, a, b))


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function, below its mean."""
    value = upper = 1.0
    lower = 0.0
    for term in range(1, _TERMS):
        m, odd = divmod(term, 2)
        if odd:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1 / (1 + step * lower or _TINY)
        upper = 1 + step / upper or _TINY
        value *= upper * lower
        if abs(upper * lower - 1) < 1e-15:
            break
    return 1 / value


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Where the distribution function of a beta variable reaches a probability.

    Parameters
    ----------
    probability : float, 0 to 1
        The distribution function's value.
    a, b : float, above 0
        Shapes.

    Returns
    -------
    float, 0 to 1
        To about nine digits where the shapes are in the thousands, to more where they are small.

    Examples
    --------
    >>> round(beta_quantile(0.975, 1, 100), 4)
    0.0362
    """
    low, high, here = 0.0, 1.0, a / (a + b)
    while high - low > max(1e-15, 1e-12 * low):
        miss = beta_cdf(here, a, b) - probability
        low, high = (low, here) if miss > 0 else (here, high)
        step = miss / max(_TINY, _beta_density(here, a, b))
        if abs(step) <= 1e-13 * here:
            break
        # Newton's step where it stays between the ends, else halfway.
        here = here - step if low < here - step < high else (low + high) / 2
    return here


def _beta_density(x: float, a: float, b: float) -> float:
    """Density of a beta variable, strictly between 0 and 1."""
    log = (a - 1) * math.log(x) + (b - 1) * math.log1p(-x)
    return math.exp(log + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))


def exact_interval(k: float, n: float, *, level: float = LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's limits of a share: they never cover less than they say.

    These are the limits that Rümke tabulated for the differential count.

    Parameters
    ----------
    k : float
        Cells of the class, 0 to n. Not a whole number where a width is being planned.
    n : float
        All cells, above 0.
    level : float, between 0 and 1
        Confidence level.

    Returns
    -------
    low, high : float, 0 to 1

    Raises
    ------
    DataError
        When the counts or the level are out of range.

    References
    ----------
    C. J. Clopper, E. S. Pearson, The use of confidence or fiducial limits illustrated in the case
    of the binomial, Biometrika 26:404-413, 1934.

    C. L. Rümke, The statistically expected variability in differential leukocyte counting, in
    J. A. Koepke (ed.), Differential Leukocyte Counting, College of American Pathologists, 39-45,
    1978.

    Examples
    --------
    >>> [round(100 * end, 1) for end in exact_interval(5, 100)]
    [1.6, 11.3]
    """
    if not n > 0 or not 0 <= k <= n or not 0 < level < 1:
        raise DataError(
            f"Received {k} of {n} at level {level}, expected 0 to n of at least 1 at a level "
            "between 0 and 1."
        )
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else beta_quantile(tail, k, n - k + 1)
    high = 1.0 if k == n else beta_quantile(1 - tail, k + 1, n - k)
    return low, high


def share_limits(
    counts: Sequence[int],
    *,
    kind: str = "exact",
    level: float = LEVEL,
    simultaneous: bool = False,
) -> list[tuple[float, float]]:
    """Limits of each class's share of all cells.

    Parameters
    ----------
    counts : sequence of int
        Cells of each class; at least one in all.
    kind : {"exact", "wilson"}
        See `exact_interval` and `leuko.evaluation.intervals.wilson_interval`.
    level : float, between 0 and 1
        Confidence level.
    simultaneous : bool
        The level is that of all limits holding at once, by Bonferroni's inequality, and not that
        of each by itself.

    Returns
    -------
    list of (low, high)
        Shares from 0 to 1.

    Raises
    ------
    DataError
        When there is no cell, or no such kind.

    References
    ----------
    L. A. Goodman, On simultaneous confidence intervals for multinomial proportions,
    Technometrics 7:247-254, 1965.
    """
    if kind not in LIMITS:
        raise DataError(f"Received limits {kind!r}, expected one of {', '.join(LIMITS)}.")
    total = sum(counts)
    each = each_level(level, len(counts)) if simultaneous else level
    interval = exact_interval if kind == "exact" else wilson_interval
    return [interval(k, total, level=each) for k in counts]


def each_level(level: float, limits: int) -> float:
    """Level of each of several limits that shall hold at once.

    Parameters
    ----------
    level : float, between 0 and 1
        Of all at once.
    limits : int
        How many.

    Returns
    -------
    float

    Examples
    --------
    >>> each_level(0.95, 5)
    0.99
    """
    return 1 - (1 - level) / limits


def cells_for_half_width(share: float, half_width: float, *, level: float = LEVEL) -> int | None:
    """How many cells give exact limits of a wanted width.

    Parameters
    ----------
    share : float, 0 to 1
        Of the class, taken to stay as it is.
    half_width : float, above 0
        Half the distance between the limits, as a share.
    level : float, between 0 and 1
        Confidence level.

    Returns
    -------
    int or None
        The smallest number, by bisection on a count that need not be whole; None above
        `MOST_CELLS`.

    Examples
    --------
    >>> cells_for_half_width(0.6, 0.05)
    387
    """

    def wide(n: int) -> bool:
        low, high = exact_interval(share * n, n, level=level)
        return (high - low) / 2 > half_width

    if half_width <= 0 or wide(MOST_CELLS):
        return None
    too_few, enough = 0, 1
    while wide(enough):
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if wide(middle):
            too_few = middle
        else:
            enough = middle
    return enough


def fisher_p_value(k_a: int, n_a: int, k_b: int, n_b: int) -> float:
    """Fisher's exact test of two shares, two-sided.

    Parameters
    ----------
    k_a, n_a : int
        Cells of the class, and all cells, of one count.
    k_b, n_b : int
        Of the other.

    Returns
    -------
    float, 0 to 1
        Probability, given the margins, of a table no likelier than this one.

    Raises
    ------
    DataError
        When a count is out of range.

    References
    ----------
    R. A. Fisher, The logic of inductive inference, Journal of the Royal Statistical Society
    98:39-82, 1935.

    Examples
    --------
    >>> round(fisher_p_value(3, 4, 1, 4), 4)
    0.4857
    """
    if not (0 <= k_a <= n_a and 0 <= k_b <= n_b and n_a > 0 and n_b > 0):
        raise DataError(f"Received {k_a} of {n_a} and {k_b} of {n_b}, expected 0 to n of each.")
    if n_b > n_a:  # the shorter sum, over the smaller count
        k_a, n_a, k_b, n_b = k_b, n_b, k_a, n_a
    both, everything = k_a + k_b, n_a + n_b
    scale = _log_choose(everything, both)
    logs = [
        _log_choose(n_b, k) + _log_choose(n_a, both - k) - scale
        for k in range(max(0, both - n_a), min(n_b, both) + 1)
    ]
    here = _log_choose(n_b, k_b) + _log_choose(n_a, k_a) - scale
    return min(1.0, math.fsum(math.exp(log) for log in logs if log <= here + 1e-7))


def _log_choose(n: int, k: int) -> float:
    """Logarithm of a binomial coefficient."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
