"""How good a picture is, as the network saw it: sharp, exposed, large enough, with a nucleus.

Everything is measured on the network's input, so that two pictures are compared at one size. What
is good enough is not known here; the limits are learned from validation pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.imaging import PreprocessSpec

__all__ = ["BLANK", "Quality", "measure_quality", "nucleus_evidence", "resolution_of"]

Pixels = npt.NDArray[np.uint8]

BLANK: Final = 2.0
"""A picture whose grey levels have less than this standard deviation shows nothing."""

_BRIGHT: Final = 253
_DARK: Final = 2
_WINDOW: Final = 5


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of one picture.

    Attributes
    ----------
    sharpness : float
        Decimal logarithm of how many times more energy the gradient of the brightness has than
        after a mean over 5 x 5 pixels. Blur brings it towards 0: what is blurred already loses
        little by more of it. Contrast does not change it; noise seems sharp.
    contrast : float
        Standard deviation of the brightness, in grey levels.
    overexposed, underexposed : float
        Share of the pixels that are white, or black, in all three channels, 0 to 1.
    resolution : float
        Pixels of the picture for one of the network's input along a side; at most 1.
    """

    sharpness: float
    contrast: float
    overexposed: float
    underexposed: float
    resolution: float


def measure_quality(inputs: Pixels, resolution: float = 1.0) -> Quality:
    """Measure one picture.

    Parameters
    ----------
    inputs : (h, w, 3) uint8, RGB
        The network's input.
    resolution : float
        See `Quality`.

    Returns
    -------
    Quality
        Rounded to six decimals.

    References
    ----------
    Crete, Dolmiere, Ladret and Nicolas, "The blur effect: perception and estimation with a new
    no-reference perceptual blur metric", 2007: compare a picture with itself, blurred again.
    Decision 0010 has what it was compared with.

    Examples
    --------
    >>> measure_quality(np.full((32, 32, 3), 255, np.uint8)).overexposed
    1.0
    """
    grey = np.asarray(cv2.cvtColor(inputs, cv2.COLOR_RGB2GRAY), np.uint8)
    deviation = float(cv2.meanStdDev(grey)[1][0, 0])
    sharp, soft = _energy(grey), _energy(np.asarray(cv2.blur(grey, (_WINDOW, _WINDOW)), np.uint8))
    sharpness = math.log10(sharp / soft) if soft > 0 else 0.0
    white, black = (255, 255, 255), (0, 0, 0)
    bright = cv2.countNonZero(cv2.inRange(inputs, (_BRIGHT,) * 3, white))
    dark = cv2.countNonZero(cv2.inRange(inputs, black, (_DARK,) * 3))
    figures = (sharpness, deviation, bright / grey.size, dark / grey.size, resolution)
    return Quality(*(round(figure, 6) for figure in figures))


def _energy(grey: Pixels) -> float:
    """Sum of the squared differences between neighbours."""
    down, across = cv2.absdiff(grey[1:], grey[:-1]), cv2.absdiff(grey[:, 1:], grey[:, :-1])
    return float(cv2.norm(down, cv2.NORM_L2SQR) + cv2.norm(across, cv2.NORM_L2SQR))


def nucleus_evidence(inputs: Pixels) -> float:
    """How surely a picture shows a nucleus near its middle.

    Parameters
    ----------
    inputs : (h, w, 3) uint8, RGB
        The network's input.

    Returns
    -------
    float
        0 to 1, six decimals: the confidence of `leuko.cells.find_cell`; 0 where it finds none.
    """
    from leuko.cells import find_cell

    finding = find_cell(inputs)
    return round(finding.confidence, 6) if finding.found else 0.0


def resolution_of(spec: PreprocessSpec, shape: tuple[int, ...]) -> float:
    """How many pixels a decoded picture has for each of the network's input, along a side.

    Parameters
    ----------
    spec : PreprocessSpec
        How the input is cut. Of a view of the cell, whose cut depends on the cell, the whole
        picture is taken.
    shape : tuple of int
        Rows and columns come first.

    Returns
    -------
    float
        At most 1: more pixels show no more.

    Examples
    --------
    >>> resolution_of(PreprocessSpec((160, 160), 0.5), (160, 200, 3))
    0.5
    """
    side = min(shape[:2]) * (spec.crop if spec.view == "centre" else 1.0)
    return min(1.0, side / max(spec.size))
