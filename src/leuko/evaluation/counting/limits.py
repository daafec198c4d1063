"""Exact limits of a share that was counted, how many cells they need, and two counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from leuko.errors import DataError
from leuko.statistics import LEVEL, exact_interval

__all__ = [
    "cells_for_half_width",
    "fisher_p_value",
    "share_limits",
]

MOST_CELLS: Final = 10_000_000
"""A wanted width that would take more cells than this is out of reach."""


def share_limits(counts: Sequence[int], *, level: float = LEVEL) -> list[tuple[float, float]]:
    """Exact limits of each class's share of all cells.

    Parameters
    ----------
    counts : sequence of int
        Cells of each class; at least one in all.
    level : float, between 0 and 1
        Confidence level of each; see `each_level` for all at once.

    Returns
    -------
    list of (low, high)
        Shares from 0 to 1.

    Raises
    ------
    DataError
        When there is no cell.
    """
    total = sum(counts)
    return [exact_interval(k, total, level=level) for k in counts]


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

    References
    ----------
    L. A. Goodman, On simultaneous confidence intervals for multinomial proportions,
    Technometrics 7:247-254, 1965.

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
