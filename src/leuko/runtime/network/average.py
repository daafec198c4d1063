"""One answer out of several views of a picture: the mean of what the network says of each.

With a linear last layer, the mean of the logits is what the layer makes of the mean of the
features, so features, maps and answer keep adding up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["FLOOR", "average_views", "mean_views", "over_views", "softmax"]

Pixels = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

FLOOR: Final = 1e-7
"""Smallest probability whose logarithm is taken; single precision knows little below."""

_FAINT: Final = 1e-30
"""The same where something is added to the logits, which may bring an unlikely class back."""


def average_views(
    probabilities: npt.NDArray[Any],
    views: int,
    weights: Sequence[float] = (),
    added: Doubles | None = None,
) -> Doubles:
    """Average logits, up to a constant, by way of probabilities.

    Parameters
    ----------
    probabilities : (N * views, C) float
        The views of one picture follow each other.
    views : int
        How many there are of each picture. One is given back as it is, if nothing is added.
    weights : sequence of float
        What each view counts for; empty where all count the same.
    added : (N, C) float64, optional
        Logits that are added to the means.

    Returns
    -------
    (N, C) float64
        Geometric means, scaled to sum to 1.

    Examples
    --------
    >>> average_views(np.array([[0.9, 0.1], [0.1, 0.9]]), 2)
    array([[0.5, 0.5]])
    """
    values = np.asarray(probabilities, np.float64)
    if added is not None:
        return softmax(mean_views(np.log(np.maximum(values, _FAINT)), views, weights) + added)
    if views == 1:
        return values
    return softmax(mean_views(np.log(np.maximum(values, FLOOR)), views, weights))


def mean_views(values: npt.NDArray[Any], views: int, weights: Sequence[float] = ()) -> Doubles:
    """Average whatever the network gives of each view: features or maps.

    Parameters
    ----------
    values : (N * views, ...) float
        The views of one picture follow each other.
    views, weights
        See `average_views`.

    Returns
    -------
    (N, ...) float64
        Weighted means.
    """
    if views == 1:
        return np.asarray(values, np.float64)
    stacked = values.reshape(-1, views, *values.shape[1:])
    return np.asarray(np.average(stacked, axis=1, weights=weights or None), np.float64)


def over_views(
    run: Callable[[Pixels], Doubles], weights: Sequence[float] = ()
) -> Callable[[Pixels], Doubles]:
    """Let a network that knows one view answer pictures that have several.

    Parameters
    ----------
    run : callable
        From (N, h, w, 3) uint8 to (N, classes).
    weights : sequence of float
        See `average_views`.

    Returns
    -------
    callable
        From (N, K, h, w, 3) uint8 to (N, classes).
    """

    def answer(inputs: Pixels) -> Doubles:
        flat = inputs.reshape(-1, *inputs.shape[2:])
        return average_views(run(flat), inputs.shape[1], weights)

    return answer


def softmax(logits: Doubles) -> Doubles:
    """Probabilities of logits.

    Parameters
    ----------
    logits : (..., C) float64
        Up to a constant in each row.

    Returns
    -------
    (..., C) float64
        Of sum 1.
    """
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True), np.float64)
