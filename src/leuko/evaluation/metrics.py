"""Metrics of a differential, in plain NumPy.

Whatever can be read off a confusion matrix takes one of shape (..., K, K), rows true and columns
predicted, so that the same function serves one data set and thousands of bootstrap resamples.
Means over classes are means over the classes present, which are those with at least one true
image; a class that is absent has no sensitivity and no F1 (not-a-number). Log-loss and calibration
are in `leuko.statistics`, which fitting uses too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
from leuko.statistics import check_rows

__all__ = [
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "brier_score",
    "class_counts",
    "confusion_by_slide",
    "confusion_matrix",
    "f1_scores",
    "macro_f1",
    "majority_baseline",
    "mean_over_present",
    "precision",
    "precision_recall_curve",
    "roc_auc",
    "roc_curve",
    "sensitivity",
    "specificity",
    "thin_curve",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def confusion_matrix(y_true: npt.ArrayLike, y_pred: npt.ArrayLike, classes: int) -> Integers:
    """Count the images of each true class (row) that got each answer (column).

    Parameters
    ----------
    y_true, y_pred : (N,) int, 0 to K - 1
        True and predicted classes.
    classes : int
        How many there are.

    Returns
    -------
    (K, K) int64
        Counts; the sum is N.

    Examples
    --------
    >>> confusion_matrix([0, 0, 4], [0, 4, 4], 5)[0].tolist()
    [1, 0, 0, 0, 1]
    """
    cells = np.asarray(y_true, dtype=np.int64) * classes + np.asarray(y_pred, dtype=np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def confusion_by_slide(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, slides: Sequence[str], classes: int
) -> tuple[list[str], Integers]:
    """One confusion matrix for each slide.

    Parameters
    ----------
    y_true, y_pred : (N,) int, 0 to K - 1
        True and predicted classes.
    slides : sequence of N str
        Slide of each image; an empty name is a slide of its own, "unknown".
    classes : int
        How many classes there are.

    Returns
    -------
    names : list of S str
        Slides in alphabetical order.
    confusion : (S, K, K) int64
        Their matrices; the sum over slides is `confusion_matrix`.

    Raises
    ------
    DataError
        When there is not one slide for each label.
    """
    labels = np.asarray(y_true, dtype=np.int64)
    if len(slides) != labels.size:
        raise DataError(
            f"Received {len(slides)} slide names for {labels.size} labels, expected one each."
        )
    names, inverse = np.unique(np.asarray(slides, dtype=np.str_), return_inverse=True)
    cells = (inverse * classes + labels) * classes + np.asarray(y_pred, dtype=np.int64)
    counts = np.bincount(cells, minlength=len(names) * classes * classes)
    return [str(name) for name in names], counts.reshape(len(names), classes, classes)


def class_counts(confusion: npt.NDArray[np.generic]) -> Floats:
    """Images of each true class: the sums of the rows.

    Parameters
    ----------
    confusion : (..., K, K) number
        Confusion matrices.

    Returns
    -------
    (..., K) float64
    """
    counts: Floats = np.asarray(confusion, dtype=np.float64).sum(axis=-1)
    return counts


def accuracy(confusion: npt.NDArray[np.generic]) -> Floats:
    """Share of images with the right answer.

    Parameters
    ----------
    confusion : (..., K, K) number
        Confusion matrices, none of them empty.

    Returns
    -------
    (...) float64, 0 to 1
    """
    table = np.asarray(confusion, dtype=np.float64)
    return _ratio(np.trace(table, axis1=-2, axis2=-1), table.sum(axis=(-2, -1)))


def sensitivity(confusion: npt.NDArray[np.generic]) -> Floats:
    """Share of each class's images that were called by its name (recall).

    Parameters
    ----------
    confusion : (..., K, K) number
        Confusion matrices.

    Returns
    -------
    (..., K) float64
        0 to 1; not-a-number for an absent class.
    """
    return _ratio(_diagonal(confusion), class_counts(confusion))


def precision(confusion: npt.NDArray[np.generic]) -> Floats:
    """Share of the images called by a class's name that belong to it.

    Parameters
    ----------
    confusion : (..., K, K) number
        Confusion matrices.

    Returns
    -------
    (..., K) float64
        0 to 1. A class that is present and was never the answer has precision 0, by convention;
        one that is absent and was never the answer has none (not-a-number).
    """
    answered = np.asarray(confusion, dtype=np.float64).sum(axis=-2)
    value = _ratio(_diagonal(confusion), answered)
    return np.where((answered == 0) & (class_counts(confusion) > 0), 0.0, value)


def specificity(confusion: npt.NDArray[np.generic]) -> Floats:
    """Share of the other classes' images that were not called by a class's name.

    Parameters
    ----------
    confusion : (..., K, K) number
        Confusion matrices.

    Returns
    -------
    (..., K) float64
        0 to 1; not-a-number when there is no image of another class.
    """
    table = np.asarray(confusion, dtype=np.float64)
    others = table.sum(axis=(-2, -1))[..., np.newaxis] - table.sum(axis=-1)
    wrongly = table.sum(axis=-2) - _diagonal(table)
    return _ratio(others - wrongly, others)


def f1_scores(confusion: npt.NDArray[np.generic]) -> Floats:
    """Harmonic mean of precision and sensitivity, for each class.

    Parameters
    ----------
    confusion : (..., K, K) number
        Confusion matrices.

    Returns
    -------
    (..., K) float64
        0 to 1; not-a-number for an absent class.
    """
    present = class_counts(confusion)
    answered = np.asarray(confusion, dtype=np.float64).sum(axis=-2)
    return np.where(present > 0, _ratio(2 * _diagonal(confusion), present + answered), np.nan)


def mean_over_present(values: Floats, confusion: npt.NDArray[np.generic]) -> Floats:
    """Mean of a per-class value over the classes that have true images.

    Parameters
    ----------
    values : (..., K) float64
        One value for each class.
    confusion : (..., K, K) number
        The matrices that they were read from.

    Returns
    -------
    (...) float64
    """
    present = class_counts(confusion) > 0
    return _ratio(np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1))


def balanced_accuracy(confusion: npt.NDArray[np.generic]) -> Floats:
    """Mean sensitivity of the classes present.

    Parameters
    ----------
    confusion : (..., K, K) number
        Confusion matrices.

    Returns
    -------
    (...) float64, 0 to 1
    """
    return mean_over_present(sensitivity(confusion), confusion)


def macro_f1(confusion: npt.NDArray[np.generic]) -> Floats:
    """Mean F1 of the classes present.

    Parameters
    ----------
    confusion : (..., K, K) number
        Confusion matrices.

    Returns
    -------
    (...) float64, 0 to 1
    """
    return mean_over_present(f1_scores(confusion), confusion)


def majority_baseline(confusion: npt.NDArray[np.generic]) -> tuple[int, float]:
    """What one gets by always answering the commonest class of the evaluated set.

    Parameters
    ----------
    confusion : (K, K) number
        A confusion matrix; only its row sums matter.

    Returns
    -------
    label : int, 0 to K - 1
        The class, the first one when two are equally common.
    accuracy : float, 0 to 1
        Its share of the images.
    """
    counts = class_counts(confusion)
    label = int(counts.argmax())
    return label, float(counts[label] / counts.sum())


def roc_curve(positive: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Receiver operating characteristic of one class against the rest.

    Parameters
    ----------
    positive : (N,) bool
        Whether each image belongs to the class.
    score : (N,) float
        Its probability of the class. Equal scores make one step, so that the curve does not
        depend on the order of the rows.

    Returns
    -------
    fpr, tpr : (K,) float64
        False and true positive rates from (0, 0) to (1, 1), one point for each distinct score.

    Raises
    ------
    DataError
        When all images are positive, or none is.
    """
    found, false = _cumulative(positive, score)
    if found[-1] == 0 or false[-1] == 0:
        raise DataError(
            f"A ROC curve needs images of the class and of others: received {found[-1]:.0f} "
            f"and {false[-1]:.0f}. Leave this class out."
        )
    return false / false[-1], found / found[-1]


def roc_auc(positive: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Area under the ROC curve.

    It is the probability that an image of the class scores above one of another class, ties
    counting one half.

    Parameters
    ----------
    positive : (N,) bool
        Whether each image belongs to the class.
    score : (N,) float
        Its probability of the class.

    Returns
    -------
    float, 0 to 1

    Raises
    ------
    DataError
        When all images are positive, or none is.

    Examples
    --------
    >>> roc_auc([True, True, False, False], [0.9, 0.5, 0.5, 0.1])
    0.875
    """
    fpr, tpr = roc_curve(positive, score)
    return float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))


def precision_recall_curve(positive: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Precision against recall of one class against the rest.

    Parameters
    ----------
    positive : (N,) bool
        Whether each image belongs to the class.
    score : (N,) float
        Its probability of the class.

    Returns
    -------
    recall, precision : (K,) float64
        Recall rises from 0 to 1; the first point, recall 0, has precision 1 by convention.

    Raises
    ------
    DataError
        When no image is positive.
    """
    found, false = _cumulative(positive, score)
    if found[-1] == 0:
        raise DataError(
            "A precision-recall curve needs images of the class: received 0. Leave it out."
        )
    share = np.ones_like(found)
    share[1:] = found[1:] / (found[1:] + false[1:])
    return found / found[-1], share


def average_precision(positive: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Sum of precisions weighted by the steps in recall, without interpolation.

    Parameters
    ----------
    positive : (N,) bool
        Whether each image belongs to the class.
    score : (N,) float
        Its probability of the class.

    Returns
    -------
    float, 0 to 1

    Raises
    ------
    DataError
        When no image is positive.
    """
    recall, share = precision_recall_curve(positive, score)
    return float(np.sum(np.diff(recall) * share[1:]))


def thin_curve(across: Floats, up: Floats, *, limit: int = 200) -> tuple[Floats, Floats]:
    """Keep at most `limit` points of a curve, its ends among them.

    Points on a straight line between their neighbours go first; of the others, those that cut
    the curve's length most evenly stay. Areas are computed before thinning.

    Parameters
    ----------
    across, up : (K,) float64
        Coordinates of the curve's points, in order.
    limit : int, at least 2
        The most points to keep.

    Returns
    -------
    across, up : (at most `limit`,) float64
    """
    if len(across) > 2:
        forward_across, forward_up = np.diff(across), np.diff(up)
        turn = forward_across[:-1] * forward_up[1:] - forward_across[1:] * forward_up[:-1]
        keep = np.concatenate(([True], np.abs(turn) > 1e-15, [True]))
        across, up = across[keep], up[keep]
    if len(across) > limit:
        steps = np.abs(np.diff(across)) + np.abs(np.diff(up))
        length = np.concatenate(([0.0], np.cumsum(steps)))
        chosen = np.searchsorted(length, np.linspace(0.0, length[-1], limit))
        chosen = np.unique(np.concatenate(([0], chosen[1:-1], [len(across) - 1])))
        across, up = across[chosen], up[chosen]
    return across, up


def brier_score(y_true: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean over images of the squared differences from the truth, summed over the classes.

    Parameters
    ----------
    y_true : (N,) int, 0 to K - 1
        True classes.
    probabilities : (N, K) float, 0 to 1
        Predicted probabilities.

    Returns
    -------
    float, 0 (perfect) to 2
        Brier's own definition, not the half of it that is common for two classes.

    References
    ----------
    G. W. Brier, Verification of forecasts expressed in terms of probability, Monthly Weather
    Review 78:1-3, 1950.
    """
    labels, table = check_rows(y_true, probabilities)
    return float(((table - np.eye(table.shape[1])[labels]) ** 2).sum(axis=1).mean())


def _diagonal(confusion: npt.NDArray[np.generic]) -> Floats:
    """Right answers for each class: (..., K, K) to (..., K)."""
    return np.diagonal(np.asarray(confusion, dtype=np.float64), axis1=-2, axis2=-1)


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Floats:
    """Divide, giving not-a-number where there is nothing to divide by."""
    top, bottom = np.broadcast_arrays(
        np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    )
    quotient = np.full(bottom.shape, np.nan)
    np.divide(top, bottom, out=quotient, where=bottom > 0)
    return quotient


def _cumulative(positive: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Floats, Floats]:
    """True and false positives above each distinct score, from the highest; first zeros."""
    member = np.asarray(positive, dtype=bool)
    value = np.asarray(score, dtype=np.float64)
    if member.shape != value.shape or member.ndim != 1 or member.size == 0:
        raise DataError(
            f"Received {member.shape} memberships and {value.shape} scores, expected one of each "
            "for every image."
        )
    order = np.argsort(-value, kind="stable")
    member, value = member[order], value[order]
    last = np.append(np.flatnonzero(np.diff(value)), len(value) - 1)
    found = np.concatenate(([0.0], np.cumsum(member, dtype=np.float64)[last]))
    below = np.concatenate(([0.0], last + 1.0))
    return found, below - found
