"""Statistics that several rooms need, each defined once: calibration, log-loss, limits, slides.

In NumPy and the standard library alone. Clopper and Pearson's limits are quantiles of beta
distributions. The base install has no SciPy, so the incomplete beta function is summed here as a
continued fraction, and inverted by Newton's method held between bounds.

Cells of one slide resemble each other, so a proportion of many cells from few slides is known less
well than its cells say. By how much is the design effect of Rao and Scott; where too few mistakes
or slides show it, one is assumed (`least_effect`).

References
----------
J. N. K. Rao, A. J. Scott, A simple method for the analysis of clustered binary data, Biometrics
48:577-585, 1992.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import DataError

__all__ = [
    "ALIKE",
    "CALIBRATION_BINS",
    "ENOUGH_MISTAKES",
    "LEVEL",
    "MINIMUM_SLIDES",
    "PROBABILITY_FLOOR",
    "WILSON",
    "WILSON_BY_SLIDE",
    "CalibrationBin",
    "beats_one_answer",
    "beta_cdf",
    "beta_quantile",
    "calibration_bins",
    "cell_losses",
    "check_rows",
    "error_bound",
    "exact_interval",
    "expected_calibration_error",
    "least_effect",
    "log_loss",
    "rounded",
    "slide_effect",
    "wilson_interval",
]

Floats = npt.NDArray[np.float64]

LEVEL: Final = 0.95
"""Confidence level of every interval that is not told otherwise."""

MINIMUM_SLIDES: Final = 5
"""A class on fewer slides gets no interval of its own: it would be far too narrow."""

PROBABILITY_FLOOR: Final = 5e-7
"""Half of the last decimal that a prediction row keeps; a smaller one is read as this."""

CALIBRATION_BINS: Final = 15
"""Bins of the calibration curve, as in Guo et al. 2017."""

ALIKE: Final = 0.2
"""Intraclass correlation of mistakes that is assumed where it cannot be measured.

The bundled models have 0.01 to 0.05 on their validation slides; see docs/decisions/0009.
"""

ENOUGH_MISTAKES: Final = 20
"""So many mistakes show by themselves how alike they are; with fewer, a part is assumed."""

WILSON: Final = "Wilson score interval over images"
WILSON_BY_SLIDE: Final = "Wilson score interval, design effect of slides"

_SUM_TOLERANCE: Final = 1e-3
_TINY: Final = 1e-300
_TERMS: Final = 100_000
_DECIMALS: Final = 6


def check_rows(
    y_true: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Check labels and probabilities that belong together.

    Parameters
    ----------
    y_true : (N,) int, 0 to K - 1
        True class of each image, as a position in the class scheme.
    probabilities : (N, K) float, 0 to 1
        Probability of each class; every row sums to 1.

    Returns
    -------
    y_true : (N,) int64
    probabilities : (N, K) float64

    Raises
    ------
    DataError
        When there is no row, the lengths differ, a label is out of range, or a row is no
        distribution.

    Examples
    --------
    >>> labels, _ = check_rows([4], [[0, 0, 0, 0, 1]])
    >>> labels.dtype.name
    'int64'
    """
    labels = np.asarray(y_true)
    table = np.asarray(probabilities, dtype=np.float64)
    classes = table.shape[1] if table.ndim == 2 else 0
    if labels.size == 0:
        raise DataError(
            "There is no image to evaluate: received 0 labels, expected at least 1. "
            "Point to a folder that holds readable images in class folders."
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"Received labels of shape {labels.shape} and type {labels.dtype}, expected one "
            "whole number for each image. Pass positions in the class scheme."
        )
    if classes < 2 or len(table) != labels.size:
        raise DataError(
            f"Received probabilities of shape {table.shape}, expected one row of classes for each "
            f"of {labels.size} labels. Leave rejected images out of both."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"Received labels from {labels.min()} to {labels.max()}, expected 0 to "
            f"{classes - 1}. Pass positions in the class scheme."
        )
    if not np.isfinite(table).all() or table.min() < -1e-6 or table.max() > 1 + 1e-6:
        raise DataError(
            "Received probabilities outside 0 to 1 or not finite, expected the output of a "
            "softmax. Check that the model ends in one."
        )
    sums = table.sum(axis=1)
    if np.abs(sums - 1).max() > _SUM_TOLERANCE:
        worst = int(np.abs(sums - 1).argmax())
        raise DataError(
            f"Received probabilities that sum to {sums[worst]:.4f} in row {worst}, expected 1. "
            "Check that the model ends in a softmax over the classes."
        )
    return labels.astype(np.int64), table


def cell_losses(y_true: npt.ArrayLike, probabilities: npt.ArrayLike) -> Floats:
    """Negative natural logarithm of the true class's probability, cell by cell.

    Parameters
    ----------
    y_true : (N,) int, 0 to 4
        True classes.
    probabilities : (N, classes) float, 0 to 1
        Predicted probabilities; those below `PROBABILITY_FLOOR` count as that, so that a rounded
        zero is not infinite.

    Returns
    -------
    (N,) float64
        0 (perfect) or more.
    """
    labels, table = check_rows(y_true, probabilities)
    chosen = table[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.clip(chosen, PROBABILITY_FLOOR, 1.0)), np.float64)


def log_loss(y_true: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean negative natural logarithm of the true class's probability.

    Parameters
    ----------
    y_true, probabilities
        See `cell_losses`.

    Returns
    -------
    float
        0 (perfect) or more; always answering 1/5 gives 1.609.
    """
    return float(cell_losses(y_true, probabilities).mean())


@dataclass(frozen=True)
class CalibrationBin:
    """Images whose confidence lies in one bin.

    Attributes
    ----------
    low, high : float, 0 to 1
        Ends of the bin; `low` is outside of it, `high` inside.
    n : int
        Images in it.
    confidence, accuracy : float or None
        Mean confidence and share of right answers, both None in an empty bin.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def calibration_bins(
    y_true: npt.ArrayLike, probabilities: npt.ArrayLike, *, bins: int = CALIBRATION_BINS
) -> tuple[CalibrationBin, ...]:
    """Confidence against accuracy in bins of equal width.

    The confidence of an image is the probability of the class it was given.

    Parameters
    ----------
    y_true : (N,) int, 0 to 4
        True classes.
    probabilities : (N, classes) float, 0 to 1
        Predicted probabilities.
    bins : int
        Number of bins between 0 and 1.

    Returns
    -------
    tuple of `bins` CalibrationBin

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, On calibration of modern neural networks, ICML
    2017.
    """
    labels, table = check_rows(y_true, probabilities)
    confidence = table.max(axis=1)
    right = table.argmax(axis=1) == labels
    edges = np.arange(bins + 1) / bins
    place = np.searchsorted(edges[1:-1], confidence, side="left")
    n = np.bincount(place, minlength=bins)
    total = np.bincount(place, weights=confidence, minlength=bins)
    hits = np.bincount(place, weights=right, minlength=bins)
    return tuple(
        CalibrationBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            n=int(n[i]),
            confidence=float(total[i] / n[i]) if n[i] else None,
            accuracy=float(hits[i] / n[i]) if n[i] else None,
        )
        for i in range(bins)
    )


def expected_calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Mean distance between confidence and accuracy, weighted by the images in each bin.

    Parameters
    ----------
    bins : sequence of CalibrationBin
        From `calibration_bins`.

    Returns
    -------
    float, 0 to 1

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, On calibration of modern neural networks, ICML
    2017, equation 3.
    """
    total = sum(one.n for one in bins)
    gaps = (
        one.n * abs(one.accuracy - one.confidence)
        for one in bins
        if one.accuracy is not None and one.confidence is not None
    )
    return sum(gaps) / total


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


def error_bound(errors: int, n: int, delta: float) -> float:
    """Largest error rate that is still plausible: Clopper and Pearson's upper limit alone.

    Parameters
    ----------
    errors, n : int
        Wrong answers, and answers.
    delta : float
        Probability that the true rate is larger, in (0, 1).

    Returns
    -------
    float
        The rate at which so few errors have the probability `delta`; 1 where all are wrong.

    References
    ----------
    See `exact_interval`.

    Examples
    --------
    >>> round(error_bound(0, 100, 0.05), 4)  # the rule of three
    0.0295
    """
    return 1.0 if errors >= n else beta_quantile(1 - delta, errors + 1, n - errors)


def wilson_interval(k: float, n: float, *, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion of independent trials.

    Parameters
    ----------
    k : float
        Successes, 0 to n. Not a whole number where trials that are alike count as fewer.
    n : float
        Trials, at least 1.
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
    E. B. Wilson, Probable inference, the law of succession, and statistical inference, Journal
    of the American Statistical Association 22:209-212, 1927.

    Examples
    --------
    >>> [round(end, 4) for end in wilson_interval(81, 263)]
    [0.2553, 0.3662]
    """
    if n < 1 or not 0 <= k <= n or not 0 < level < 1:
        raise DataError(
            f"Received {k} of {n} at level {level}, expected 0 to n of at least 1 at a level "
            "between 0 and 1."
        )
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return (
        0.0 if k == 0 else max(0.0, middle - half),
        1.0 if k == n else min(1.0, middle + half),
    )


def least_effect(cells: float, slides: int, mistakes: float) -> float:
    """Design effect to assume at least, where too little was seen to measure one.

    Without a mistake nothing shows whether mistakes keep together, and 2,000 right answers from 14
    slides would pass for 2,000 independent ones. The intraclass correlation is then taken to be
    `ALIKE`. The more mistakes there are, up to `ENOUGH_MISTAKES`, the less is assumed, in
    proportion. On fewer slides than `MINIMUM_SLIDES` all of it is: their spread is not known.

    Parameters
    ----------
    cells : float
        All cells.
    slides : int
        Slides that they are from.
    mistakes : float
        Wrong answers; the right ones where those are rarer.

    Returns
    -------
    float, at least 1
        1 where `slides` groups nothing: one in all, or one for each cell.

    References
    ----------
    L. Kish, Survey Sampling, 1965, section 5.4: the effect of clusters of m is 1 + (m - 1) rho.

    Examples
    --------
    >>> round(least_effect(2000, 14, 0), 1), round(least_effect(2000, 14, 15), 1)
    (29.4, 8.1)
    >>> least_effect(2000, 14, 20), least_effect(2000, 1, 0)
    (1.0, 1.0)
    """
    if not 1 < slides < cells:
        return 1.0
    assumed = max(0.0, 1 - mistakes / ENOUGH_MISTAKES) if slides >= MINIMUM_SLIDES else 1.0
    return 1 + (cells / slides - 1) * ALIKE * assumed


def slide_effect(right: npt.ArrayLike, slides: Sequence[str]) -> float:
    """How many cells of one slide tell as much of the accuracy as one independent cell.

    Parameters
    ----------
    right : (N,) bool
        Whether each answer is right; at least one.
    slides : sequence of N str
        What each cell shares with others.

    Returns
    -------
    float, 1 to N
        Rao and Scott's design effect, at least `least_effect`.

    References
    ----------
    J. N. K. Rao, A. J. Scott, A simple method for the analysis of clustered binary data,
    Biometrics 48:577-585, 1992, section 2.

    Examples
    --------
    >>> round(slide_effect([True] * 60 + [False] * 20, ["a", "b", "c", "d"] * 20), 2)
    4.8
    """
    hits = np.asarray(right, dtype=np.float64)
    n, total = len(hits), float(hits.sum())
    _, slide = np.unique(np.asarray(slides, dtype=np.str_), return_inverse=True)
    sizes = np.bincount(slide.ravel())
    count = len(sizes)
    assumed = least_effect(n, count, min(total, n - total))
    if count < 2:
        return assumed
    misses = np.bincount(slide.ravel(), weights=hits - total / n)
    variance = count / (count - 1) * float((misses**2).sum()) / n**2
    steady = (total + 2) / (n + 4)  # an accuracy of 1 has a variance, too
    return min(float(n), max(assumed, variance / (steady * (1 - steady) / n)))


def beats_one_answer(y_true: npt.ArrayLike, answers: npt.ArrayLike, slides: Sequence[str]) -> bool:
    """Whether answers are shown to be better than always giving the commonest class.

    Two signs are enough. Of the cells that only one of both answers rightly, the lower limit of
    these answers' share lies above a half (an exact McNemar test). Or the lower limit of their
    balanced accuracy lies above one in as many as there are classes, which one answer for all
    always reaches. Each is exact at 97.5%, so together they err in at most one of 20 sets.

    Parameters
    ----------
    y_true : (N,) int, 0 to K - 1
        True classes.
    answers : (N,) int, 0 to K - 1
        Classes that were answered.
    slides : sequence of N str
        What each cell shares with others; cells of one slide count for fewer.

    Returns
    -------
    bool
        False where there is no cell, or one class only.

    References
    ----------
    See `exact_interval` and `slide_effect`. A mean of shares over classes of different sizes is
    taken for one share of as many cells as give its variance, the harmonic mean of the sizes.

    Examples
    --------
    >>> truth, slides = [0, 1] * 20, [""] * 40
    >>> beats_one_answer(truth, truth, slides), beats_one_answer(truth, [1] * 40, slides)
    (True, False)
    """
    truth, given = np.asarray(y_true, dtype=np.int64), np.asarray(answers, dtype=np.int64)
    counts = np.bincount(truth)
    present = counts[counts > 0]
    if len(present) < 2:
        return False
    right, always = given == truth, truth == counts.argmax()
    names = np.asarray(slides, dtype=np.str_)
    split = right != always
    if split.any():
        effect = slide_effect(right[split], names[split].tolist())
        won, all_told = float(right[split].sum()) / effect, float(split.sum()) / effect
        if exact_interval(won, all_told)[0] > 0.5:
            return True
    chance = 1 / len(present)
    hits = np.bincount(truth[right], minlength=len(counts))[counts > 0]
    balanced = float((hits / present).mean())
    cells = float(len(present) ** 2 / (1 / present).sum()) / slide_effect(right, slides)
    return exact_interval(balanced * cells, cells)[0] > chance


def rounded(value: Any, decimals: int = _DECIMALS) -> Any:
    """Round every float of a report; six decimals are enough for one.

    Parameters
    ----------
    value : object
        Nested plain values.
    decimals : int
        To keep.

    Returns
    -------
    object
        A copy, with lists in place of tuples.

    Examples
    --------
    >>> rounded({"share": 1 / 3, "spans": [(0.1234567, 2)]})
    {'share': 0.333333, 'spans': [[0.123457, 2]]}
    """
    if isinstance(value, float):
        return round(value, decimals)
    if isinstance(value, dict):
        return {key: rounded(item, decimals) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, decimals) for item in value]
    return value
