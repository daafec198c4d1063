"""Kinds of arrays, and what every room of this house does with masks."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Field", "Mask", "Pixels", "centroid", "cv", "diameter_of", "disc", "touches_border"]

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3), RGB."""

Mask = npt.NDArray[np.uint8]
"""(H, W) of 0 and 1, so that OpenCV takes it as it is."""

Field = npt.NDArray[np.float32]
"""Real numbers, one or three to a pixel."""

cv: Final[Any] = cv2
"""OpenCV without its own types, which call every result any array of any numbers."""

_DISCS: Final[dict[int, Mask]] = {}


def disc(width: int) -> Mask:
    """Return a filled circle for morphology.

    Parameters
    ----------
    width : int
        Odd.

    Returns
    -------
    (width, width) uint8
        0 and 1.
    """
    if width not in _DISCS:
        _DISCS[width] = cv.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return _DISCS[width]


def diameter_of(mask: Mask) -> float:
    """Return the diameter of the circle that has a mask's area.

    Parameters
    ----------
    mask : (H, W) uint8
        A mask.

    Returns
    -------
    float
        In pixels.
    """
    return float(np.sqrt(4.0 * cv2.countNonZero(mask) / np.pi))


def centroid(mask: Mask) -> tuple[float, float]:
    """Return the centroid of a mask that is not empty.

    Parameters
    ----------
    mask : (H, W) uint8
        A mask.

    Returns
    -------
    (float, float)
        Row and column; the middle of the first pixel is (0.5, 0.5).
    """
    moments = cv2.moments(mask, binaryImage=True)
    mass = moments["m00"]
    return (moments["m01"] / mass + 0.5, moments["m10"] / mass + 0.5)


def touches_border(mask: Mask) -> int:
    """Count a mask's pixels along the border of its picture.

    Parameters
    ----------
    mask : (H, W) uint8
        A mask.

    Returns
    -------
    int
        Pixels; corners count twice.
    """
    return sum(int(np.count_nonzero(side)) for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
