"""What is right among the accepted answers, and among the most confident."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
from leuko.evaluation import intervals, metrics
from leuko.prediction import DECISIONS

__all__ = ["COVERAGES", "Accepted", "Coverage", "Decided", "accuracy_at_coverage", "decided"]

COVERAGES: Final = (0.8, 0.9, 0.95, 0.99)
"""Shares of the images, the most confident first, whose accuracy is reported."""


@dataclass(frozen=True)
class Coverage:
    """The most confident answers.

    Attributes
    ----------
    coverage : float, 0 to 1
        Which share of the images they are.
    n : int
    accuracy : float, 0 to 1
    confidence : float, 0 to 1
        The least one among them.
    """

    coverage: float
    n: int
    accuracy: float
    confidence: float


@dataclass(frozen=True)
class Accepted:
    """The answers whose decision is ``class``.

    Attributes
    ----------
    n : int
    accuracy : float, 0 to 1
    low, high : float or None
        Ends of the interval, None when there is none.
    """

    n: int
    accuracy: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Decided:
    """What was decided on the answers.

    Attributes
    ----------
    counts : dict of str to int
        Images by `leuko.prediction.DECISIONS`.
    answered : Accepted or None
        None where nothing was accepted.
    """

    counts: Mapping[str, int]
    answered: Accepted | None


def accuracy_at_coverage(
    y_true: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]
) -> tuple[Coverage, ...]:
    """Measure the accuracy of the most confident answers.

    Parameters
    ----------
    y_true : (N,) int64, 0 to K - 1
        True classes.
    probabilities : (N, K) float64
        Answers.

    Returns
    -------
    tuple of Coverage
        One for each of `COVERAGES`. Of images that are equally confident the first ones are taken.

    References
    ----------
    Y. Geifman, R. El-Yaniv, Selective Classification for Deep Neural Networks, NeurIPS 2017.

    Examples
    --------
    >>> table = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    >>> accuracy_at_coverage(np.array([0, 1, 1, 1]), table)[0].accuracy
    1.0
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    right = (probabilities.argmax(axis=1) == y_true)[order]
    rows = []
    for coverage in COVERAGES:
        n = max(1, int(coverage * len(order)))
        least = float(confidence[order[n - 1]])
        rows.append(Coverage(coverage, n, float(right[:n].mean()), least))
    return tuple(rows)


def decided(
    y_true: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    slides: Sequence[str],
    decisions: Sequence[str],
    *,
    seed: int,
    resamples: int,
) -> Decided:
    """Count the decisions, and measure the accuracy of the accepted answers.

    Parameters
    ----------
    y_true, predicted : (N,) int64, 0 to K - 1
        True classes and most probable ones.
    slides : sequence of N str
        Slide of each image.
    decisions : sequence of N str
        Each one of `leuko.prediction.DECISIONS`.
    seed, resamples : int
        Of the bootstrap over slides.

    Returns
    -------
    Decided

    Raises
    ------
    DataError
        When the lengths differ, or a decision is unknown.
    """
    if len(decisions) != len(y_true) or not {*decisions} <= {*DECISIONS}:
        raise DataError(
            f"Expected one of {', '.join(DECISIONS)} for each of {len(y_true)} images; received "
            f"{len(decisions)} of {sorted({*decisions})}."
        )
    tally = Counter(decisions)
    rows = np.flatnonzero(np.asarray(decisions) == "class")
    answered = None
    if len(rows):
        labels, answers = y_true[rows], predicted[rows]
        names = [slides[row] for row in rows.tolist()]
        classes = 1 + int(max(y_true.max(), predicted.max()))
        resampled = intervals.resample_confusions(
            labels, answers[np.newaxis], names, classes, seed=seed, resamples=resamples
        )
        right = int((labels == answers).sum())
        span, _ = intervals.accuracy_interval(
            right, len(rows), len({*names}), metrics.accuracy(resampled.confusion[:, 0]),
            resampled.method,
        )  # fmt: skip
        low, high = span or (None, None)
        answered = Accepted(len(rows), right / len(rows), low, high)
    return Decided({name: tally[name] for name in DECISIONS}, answered)
