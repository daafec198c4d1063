"""How good a picture is, as the network saw it: sharp, exposed, large enough, with a nucleus.

Everything is measured on the network's input, so that two pictures are compared at one size. Of a
large one, sharpness is that of the middle, and the rest is measured at a smaller size: cells are in
the middle, and the model `cnn` spent as long on this as on its answer. What is good enough is not
known here; the limits are learned from validation pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.cells.segment import nucleus_confidence
from leuko.imaging.preprocess import PreprocessSpec

__all__ = ["BLANK", "Quality", "measure_quality", "nucleus_evidence", "resolution_of"]

Pixels = npt.NDArray[np.uint8]

BLANK: Final = 2.0
"""A picture whose grey levels have less than this standard deviation shows nothing."""

_ENOUGH: Final = 128
"""Pixels along the shorter side that are enough to judge a picture..."""

_SEARCHED: Final = 80
"""...and to find its nucleus, where the input was large."""

_BRIGHT: Final = 253
_DARK: Final = 2
_ROUNDING: Final = 3
_WINDOW: Final = 5


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of one picture.

    Attributes
    ----------
    sharpness : float
        Decimal logarithm of how many times more energy the gradient of the brightness has than
        after a mean over 5 x 5 pixels; of a large input, in its middle. Blur brings it towards 0:
        what is blurred already loses little by more of it. Contrast does not change it; noise
        seems sharp.
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

    def items(self) -> tuple[tuple[str, float], ...]:
        """Give every figure with its name, in order."""
        return tuple((name, getattr(self, name)) for name in _FIGURES)


_FIGURES: Final = tuple(entry.name for entry in fields(Quality))


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
    whole = _grey(inputs)
    grey = _halved(whole, _ENOUGH)
    deviation = float(cv2.meanStdDev(grey)[1][0, 0])
    if grey is whole:
        sharpness = _sharpness(grey)
    else:
        edge = _WINDOW // 2
        sharpness = _sharpness(_middle(whole, grey.shape, edge), edge)
    darkest, brightest, _, _ = cv2.minMaxLoc(grey)
    # Where all three channels are white, or black, so is their weighted mean, but for rounding:
    # most pictures have no such grey, and colours need not be halved and counted.
    bright = dark = 0
    if brightest >= _BRIGHT - _ROUNDING or darkest <= _DARK + _ROUNDING:
        small = _halved(inputs, _ENOUGH)
        bright = cv2.countNonZero(cv2.inRange(small, (_BRIGHT,) * 3, (255, 255, 255)))
        dark = cv2.countNonZero(cv2.inRange(small, (0, 0, 0), (_DARK,) * 3))
    figures = (sharpness, deviation, bright / grey.size, dark / grey.size, resolution)
    return Quality(*(round(figure, 6) for figure in figures))


def _halved(inputs: Pixels, least: int) -> Pixels:
    """Halve a picture as often as that leaves so many pixels along a side."""
    while min(inputs.shape[:2]) >= 2 * least:
        shape = (inputs.shape[1] // 2, inputs.shape[0] // 2)
        inputs = np.asarray(cv2.resize(inputs, shape, interpolation=cv2.INTER_AREA), np.uint8)
    return inputs


def _middle(grey: Pixels, shape: tuple[int, ...], edge: int) -> Pixels:
    """Cut so many rows and columns out of the middle, and an edge around them."""
    top, left = (grey.shape[0] - shape[0]) // 2, (grey.shape[1] - shape[1]) // 2
    rows, columns = (
        slice(top - edge, top + shape[0] + edge),
        slice(left - edge, left + shape[1] + edge),
    )
    return grey[rows, columns]


def _grey(pixels: Pixels) -> Pixels:
    """Brightness of each pixel."""
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def _sharpness(grey: Pixels, edge: int = 0) -> float:
    """See `Quality`; an edge takes part in the means alone, which mirror the picture otherwise."""
    mean = np.asarray(cv2.blur(grey, (_WINDOW, _WINDOW)), np.uint8)
    inside = (slice(edge, grey.shape[0] - edge), slice(edge, grey.shape[1] - edge))
    sharp, soft = _energy(grey[inside]), _energy(mean[inside])
    return math.log10(sharp / soft) if soft > 0 else 0.0


def _energy(grey: Pixels) -> float:
    """Sum of the squared differences between neighbours."""
    down = cv2.norm(grey[1:], grey[:-1], cv2.NORM_L2SQR)
    across = cv2.norm(grey[:, 1:], grey[:, :-1], cv2.NORM_L2SQR)
    return float(down + across)


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
    small = _halved(inputs, _ENOUGH)
    if small is not inputs:
        small = _halved(small, _SEARCHED)
    return round(nucleus_confidence(small), 6)


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
