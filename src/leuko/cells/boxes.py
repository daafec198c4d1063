"""How much boxes have in common."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["overlaps", "shared_areas"]

Floats = npt.NDArray[np.float64]


def shared_areas(box: npt.ArrayLike, boxes: npt.ArrayLike) -> Floats:
    """Measure what one box shares with each of others.

    Parameters
    ----------
    box : (4,) array-like
        row0, col0, row1, col1, half-open.
    boxes : (N, 4) array-like
        Likewise; N may be 0.

    Returns
    -------
    (N,) float64
        Areas, 0 where they lie apart.

    Examples
    --------
    >>> shared_areas((0, 0, 10, 10), [(5, 5, 15, 15), (10, 0, 20, 10)])
    array([25.,  0.])
    """
    one = np.asarray(box, np.float64)
    others = np.asarray(boxes, np.float64).reshape(-1, 4)
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    return np.asarray(sides.clip(0.0).prod(axis=1), np.float64)


def overlaps(box: npt.ArrayLike, boxes: npt.ArrayLike) -> Floats:
    """Measure the intersection over union of one box with each of others.

    Parameters
    ----------
    box, boxes
        See `shared_areas`; none may be empty.

    Returns
    -------
    (N,) float64
        0 to 1.
    """
    shared = shared_areas(box, boxes)
    one = np.asarray(box, np.float64)
    others = np.asarray(boxes, np.float64).reshape(-1, 4)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return np.asarray(shared / ((one[2:] - one[:2]).prod() + areas - shared), np.float64)
