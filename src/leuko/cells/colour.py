"""The axis of colour on which nuclei stand out, whatever the lamp, the exposure and the stain.

Light that passes a stained cell is weakened by a factor in each channel, so differences belong
into optical density, the negative logarithm of the share of light that is left (Beer and Lambert).
The dyes on DNA swallow green and leave blue; haemoglobin and eosin swallow both; a lamp, a white
balance or an exposure adds the same number everywhere. So the *purple* of a pixel,

    purple = density in green - density in blue,

is large in nuclei, small in red cells, eosinophil granules and cytoplasm, and any lamp only shifts
it. On it, one threshold for each picture, chosen by whoever knows the answer, reaches a mean Dice
of 0.975 in three laboratories (docs/decisions/0015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from leuko.cells.arrays import Field, Mask, Pixels, cv

__all__ = [
    "CHROMATIN",
    "PURPLE_STEPS",
    "PURPLE_ZERO",
    "WORKING_SIDE",
    "Otsu",
    "Planes",
    "background_colour",
    "chromatin_mark",
    "make_planes",
    "otsu",
    "reduce_picture",
]

WORKING_SIDE: Final = 96
"""Longest side of the reduced picture. A nucleus of 8 µm is then about 25 pixels wide."""

FLARE: Final = 16.0
"""Grey levels added before the logarithm: stray light and rounding bound what black can mean."""

PURPLE_STEPS: Final = 120
"""Steps of the 8-bit purple plane to one unit of optical density."""

PURPLE_ZERO: Final = 40
"""Value of the empty slide on the 8-bit purple plane."""

CHROMATIN: Final = 0.085
"""Least `chromatin_mark` of a nucleus."""

_LEVELS: Final = np.arange(256, dtype=np.float64)
_DENSITY: Final = -np.log10((_LEVELS + FLARE) / (255.0 + FLARE))
_PURPLE: Final = np.array([[0.0, 1.0, -1.0]], np.float32)


@dataclass(frozen=True, slots=True)
class Planes:
    """A reduced picture as optical density.

    Attributes
    ----------
    density : (h, w, 3) float32
        Optical density above the empty slide in red, green, blue.
    purple : (h, w) uint8
        Green less blue density, `PURPLE_STEPS` to a unit, the empty slide at `PURPLE_ZERO`.
    """

    density: Field
    purple: Mask


@dataclass(frozen=True, slots=True)
class Otsu:
    """How a histogram falls into two classes.

    Attributes
    ----------
    level : int
        Values above it belong to the upper class.
    low, high : float
        Means of the two classes.
    valley : float
        How full the histogram is at the level, against the lower of its two peaks: near 0 for two
        separate classes, 1 for one class that was cut.
    """

    level: int
    low: float
    high: float
    valley: float


def chromatin_mark(green: float, blue: float) -> float:
    """Say how much a region's mean colour speaks for chromatin.

    Purple counts, and how much of the green density is purple: red cells are as dense as pale
    nuclei, but swallow blue too. Red cells and empty slide reach 0.04 to 0.11, nuclei 0.09 to 0.7
    (1st percentile 0.12).

    Parameters
    ----------
    green, blue : float
        Mean optical density above the empty slide.

    Returns
    -------
    float
        Purple squared over green density; negative where blue is denser than green.
    """
    purple = green - blue
    return purple * abs(purple) / max(green, 0.01)


def reduce_picture(pixels: Pixels, side: int = WORKING_SIDE) -> tuple[Pixels, float]:
    """Shrink by averaging over areas until the longer side is `side`; never enlarge.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        A picture.
    side : int
        Longest side of the result.

    Returns
    -------
    small : (h, w, 3) uint8
        The reduced picture.
    step : float
        Pixels of the picture to one of ``small``, at least 1.
    """
    rows, columns = pixels.shape[:2]
    step = max(rows, columns) / side
    if step <= 1.0:
        return np.ascontiguousarray(pixels), 1.0
    shape = (max(1, round(columns / step)), max(1, round(rows / step)))
    return cv.resize(pixels, shape, interpolation=cv2.INTER_AREA), step


def background_colour(small: Pixels) -> tuple[float, float, float]:
    """Find the colour of the empty slide: the most frequent of the bright colours.

    Green is where everything on a slide is darker than the slide itself. The peak of its histogram
    above three fifths of its brightest fiftieth is taken, and the colours of these pixels are
    averaged. Where cells cover everything, this is their brightest common colour, which will do.

    Parameters
    ----------
    small : (h, w, 3) uint8, RGB
        A reduced picture.

    Returns
    -------
    tuple of 3 floats
        Red, green, blue, 0 to 255.
    """
    counts = cv.calcHist([small], [1], None, [256], [0, 256]).ravel()
    total = np.cumsum(counts)
    top = int(np.searchsorted(total, 0.98 * total[-1]))
    bottom = int(0.6 * top)
    smooth = np.convolve(counts, np.ones(9, np.float32), "same")
    peak = bottom + int(np.argmax(smooth[bottom : top + 1]))
    bright = cv.inRange(small, (0, max(peak - 8, 0), 0), (255, min(peak + 12, 255), 255))
    red, green, blue, _ = cv.mean(small, bright)
    return (red, green, blue)


def make_planes(small: Pixels, background: tuple[float, float, float]) -> Planes:
    """Turn a reduced picture into optical density and purple.

    Parameters
    ----------
    small : (h, w, 3) uint8, RGB
        A reduced picture.
    background : tuple of 3 floats
        Colour of the empty slide.

    Returns
    -------
    Planes
        Smoothed over 3x3 pixels, for the noise of the camera and the blocks of JPEG.
    """
    table = np.empty((1, 256, 3), np.float32)
    for channel, level in enumerate(background):
        table[0, :, channel] = _DENSITY - np.interp(level, _LEVELS, _DENSITY)
    density = cv.GaussianBlur(cv.LUT(small, table), (3, 3), 0.75)
    difference = cv.transform(density, _PURPLE)
    purple = cv.addWeighted(difference, PURPLE_STEPS, difference, 0.0, PURPLE_ZERO, dtype=cv2.CV_8U)
    return Planes(density, purple)


def otsu(plane: Mask, mask: Mask | None = None, *, with_valley: bool = False) -> Otsu | None:
    """Split grey values into two classes where the variance between them is greatest.

    Parameters
    ----------
    plane : (h, w) uint8
        Grey values.
    mask : (h, w) uint8, optional
        Only pixels where it is not zero count.
    with_valley : bool
        Also compute `Otsu.valley`.

    Returns
    -------
    Otsu or None
        None where all values are equal, or there are none.

    References
    ----------
    N. Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on
    Systems, Man, and Cybernetics 9 (1979) 62-66.
    """
    counts = cv.calcHist([plane], [0], mask, [256], [0, 256]).ravel()
    below = np.cumsum(counts, dtype=np.float64)
    moment = np.cumsum(counts * _LEVELS)
    total, whole = below[-1], moment[-1]
    above = total - below
    product = below * above
    if not product.any():
        return None
    between = (whole * below - moment * total) ** 2 / np.maximum(product, 0.5)
    level = int(np.argmax(between))
    # An empty stretch between two classes is a plateau of equal merit; its middle is the level.
    level = (level + int(255 - np.argmax(between[::-1]))) // 2
    low = moment[level] / below[level]
    high = (whole - moment[level]) / above[level]
    valley = 1.0
    if with_valley:
        sigma = max(1.0, (high - low) / 8.0)
        smooth = cv.GaussianBlur(counts.reshape(1, -1), (0, 0), sigma).ravel()
        lower, upper = smooth[: level + 1].max(), smooth[level:].max()
        valley = float(smooth[level] / max(min(lower, upper), 1e-6))
    return Otsu(level, float(low), float(high), valley)
