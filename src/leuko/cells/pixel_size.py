"""How large a micrometre is in a picture: red cells, the nucleus and the picture's own width."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from leuko.cells.arrays import Field, Mask, cv, disc

__all__ = ["fuse_scale", "measure_red_cells"]

RED_CELL: Final = 7.5
"""Micrometres across a red cell on a smear (7.2 to 7.8 in health)."""

PARTING: Final = 0.3
"""Red cells that touch are parted by shrinking them by this share of their radius."""

CONVEX: Final = 0.97
LONGEST: Final = 1.5
"""What is less convex than this, or longer, is more than one red cell, or half of one."""

PLAUSIBLE: Final = (0.6, 1.7)
"""Smallest and largest red cell, against what nucleus and picture let one expect: nothing larger
than a platelet is lost if these are wrong by half."""

NUCLEUS: Final = 8.6
"""Micrometres across a usual nucleus, its lobes together as one disc."""

NUCLEUS_SPREAD: Final = 0.3
"""Standard deviation of the logarithm of nuclear diameters, over classes and stains."""

RED_SPREAD: Final = (0.05, 0.09)
"""The same of red cells: between patients, and between cells measured in one picture."""

PICTURE: Final = (30.0, 0.35)
"""Micrometres across a single-cell picture that was not cut at the cell's own box, and the standard
deviation of the logarithm."""

TIGHT: Final = (0.72, 0.85)
"""Cell diameters, against the picture's side, between which the side ceases to be evidence: a
picture cut at its cell's own box says nothing about scale."""


def measure_red_cells(density: Field, cell: Mask, pixels_per_micrometre: float) -> list[float]:
    """Measure the red cells that lie free enough to be measured.

    Outside the white cell, green density is cut at half height and pale centres are filled. What
    is left is worn down a little, which parts red cells that touch, and grown back by Steiner's
    formula. A piece is a red cell if it lies in the picture as a whole, clear of the white cell,
    and is convex, not long, and of a plausible size.

    Parameters
    ----------
    density : (h, w, 3) float32
        Optical density above the empty slide.
    cell : (h, w) uint8, 0 or 1
        The white cell, nucleus included.
    pixels_per_micrometre : float
        Pixels of the reduced picture to a micrometre as far as it is known without red cells;
        what is smaller or larger than a red cell by `PLAUSIBLE` is none.

    Returns
    -------
    list of float
        Diameters in pixels of the reduced picture.
    """
    rows, columns = cell.shape
    green = cv.extractChannel(density, 1)
    green = cv.addWeighted(green, 300.0, green, 0.0, 0.0, dtype=cv2.CV_8U)
    white = cv.dilate(cell, disc(3))
    green[white > 0] = 0
    level, solid = cv.threshold(green, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    if level < 12:
        return []
    radius = 0.5 * RED_CELL * pixels_per_micrometre
    _fill_pallor(solid, 0.5 * np.pi * radius**2)
    solid[white > 0] = 0
    reach = max(1, round(PARTING * radius))
    element = disc(2 * reach + 1)
    inner = cv.erode(solid, element)
    near = cv.dilate(white, element)
    grown = reach + 0.5
    diameters = []
    for outline in cv.findContours(inner, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
        left, top, width, height = cv.boundingRect(outline)
        if min(left, top) <= reach:
            continue
        if left + width + reach >= columns or top + height + reach >= rows:
            continue
        if max(width, height) + 2 * reach > LONGEST * (min(width, height) + 2 * reach):
            continue
        hull = cv.convexHull(outline)
        # Steiner: the area by which a convex shape grows with a distance.
        margin = cv.arcLength(hull, True) * grown + math.pi * grown**2
        area = cv.contourArea(outline) + margin
        diameter = math.sqrt(4.0 * area / math.pi)
        if not PLAUSIBLE[0] < diameter / (2.0 * radius) < PLAUSIBLE[1]:
            continue
        if area < CONVEX * (cv.contourArea(hull) + margin):
            continue
        if near[outline[:, 0, 1], outline[:, 0, 0]].any():
            continue
        diameters.append(diameter)
    return diameters


def _fill_pallor(solid: Mask, largest: float) -> None:
    """Fill, in place, the holes that are small enough to be the pale centres of red cells."""
    outlines, tree = cv.findContours(solid, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if tree is None:
        return
    for index in np.flatnonzero(tree[0, :, 3] >= 0):
        if cv.contourArea(outlines[index]) < largest:
            cv.drawContours(solid, outlines, int(index), 1, cv2.FILLED)


def fuse_scale(
    nucleus_diameter: float, cell_diameter: float, side: float, red_diameters: Sequence[float] = ()
) -> tuple[float, float, int]:
    """Weigh three rulers against each other.

    Each says the logarithm of the scale with a normal error that is known from biology: red cells
    7.5 µm, a nucleus 8.6 µm give or take a quarter, a single-cell picture 30 µm give or take a
    third. Their mean is weighted by the inverse variances. So where there are red cells, a small
    lymphocyte stays small; where there are none, nuclear size is normalised by two thirds and kept
    by one third.

    Parameters
    ----------
    nucleus_diameter, cell_diameter : float
        In pixels.
    side : float
        Longer side of the picture in pixels.
    red_diameters : sequence of float
        Red cells, in pixels.

    Returns
    -------
    pixels_per_micrometre : float
        Pixels to a micrometre.
    error : float
        Standard deviation of its natural logarithm.
    used : int
        How many red cells took part: none if they are at odds with the nucleus.
    """
    middle, spread = PICTURE
    nucleus = math.log(nucleus_diameter / NUCLEUS)
    total = 1.0 / NUCLEUS_SPREAD**2
    scale = total * nucleus
    loose = (TIGHT[1] - cell_diameter / side) / (TIGHT[1] - TIGHT[0])
    weight = min(1.0, max(0.0, loose)) / spread**2
    total += weight
    scale += weight * math.log(side / middle)
    used = 0
    if red_diameters:
        red = math.log(statistics.median(red_diameters) / RED_CELL)
        if abs(red - nucleus) < 3.0 * NUCLEUS_SPREAD:
            used = len(red_diameters)
            weight = 1.0 / (RED_SPREAD[0] ** 2 + RED_SPREAD[1] ** 2 / used)
            total += weight
            scale += weight * red
    return math.exp(scale / total), math.sqrt(1.0 / total), used
