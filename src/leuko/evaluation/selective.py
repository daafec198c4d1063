"""What is right among the accepted answers, and among the most confident."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
from leuko.evaluation import intervals, metrics
from leuko.prediction import DECISIONS

__all__ = ["COVERAGES", "accuracy_at_coverage", "decided"]

COVERAGES: Final = (0.8, 0.9, 0.95, 0.99)
"""Shares of the images, the most confident first, whose accuracy is reported."""


def accuracy_at_coverage(
    y_true: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Measure the accuracy of the most confident answers.

    Parameters
    ----------
    y_true : (N,) int64, 0 to 4
        True classes.
    probabilities : (N, 5) float64
        Answers.

    Returns
    -------
    list of dict
        ``coverage``, ``n``, ``accuracy`` and ``confidence``, the least one among them, for each
        of `COVERAGES`. Of images that are equally confident the first ones are taken.

    References
    ----------
    Y. Geifman, R. El-Yaniv, Selective Classification for Deep Neural Networks, NeurIPS 2017.

    Examples
    --------
    >>> table = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    >>> accuracy_at_coverage(np.array([0, 1, 1, 1]), table)[0]["accuracy"]
    1.0
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    right = (probabilities.argmax(axis=1) == y_true)[order]
    rows = []
    for coverage in COVERAGES:
        n = max(1, int(coverage * len(order)))
        rows.append(
            {
                "coverage": coverage,
                "n": n,
                "accuracy": float(right[:n].mean()),
                "confidence": float(confidence[order[n - 1]]),
            }
        )
    return rows


def decided(
    y_true: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    slides: Sequence[str],
    decisions: Sequence[str],
    *,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """Count the decisions, and measure the accuracy of the accepted answers.

    Parameters
    ----------
    y_true, predicted : (N,) int64, 0 to 4
        True classes and most probable ones.
    slides : sequence of N str
        Slide of each image.
    decisions : sequence of N str
        Each one of `leuko.prediction.DECISIONS`.
    seed, resamples : int
        Of the bootstrap over slides.

    Returns
    -------
    dict
        ``counts`` of each decision, and ``answered``: ``n``, ``accuracy``, ``low`` and ``high`` of
        the images whose decision is ``class``; None where there is none.

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
        resampled = intervals.resample_confusions(
            labels, answers[np.newaxis], names, seed=seed, resamples=resamples
        )
        right = int((labels == answers).sum())
        span, _ = intervals.accuracy_interval(
            right, len(rows), len({*names}), metrics.accuracy(resampled.confusion[:, 0]),
            resampled.method,
        )  # fmt: skip
        low, high = span or (None, None)
        answered = {"n": len(rows), "accuracy": right / len(rows), "low": low, "high": high}
    return {"counts": {name: tally[name] for name in DECISIONS}, "answered": answered}
