"""Find the nucleus in the middle of a single-cell picture."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from leuko.cells.arrays import Field, Mask, cv, disc, touches_border
from leuko.cells.colour import (
    PURPLE_ZERO,
    otsu,
)

__all__ = ["central_nucleus", "lower_level"]

FLAT: Final = 5
"""Steps of purple that noise and rounding make."""

CENTRAL: Final = 0.5
"""A nucleus this share of the half side away from the middle counts for 1/e of one in it."""

OUTSKIRTS: Final = 0.75
"""Nothing further from the middle than this share of the half side is a lobe of the same cell."""

LOBE_GAP: Final = 1.2
"""Widest gap between two lobes in the middle of the picture, against the square root of their area;
it shrinks to nothing towards the border, where another cell is the likelier owner."""

WHOLE: Final = 0.24
"""Diameter of a piece, against the picture's side, that may be a nucleus by itself."""

LOBE_SMALLEST: Final = 0.03
LOBE_LARGEST: Final = 3.0
"""Smallest and largest area of a further lobe, against what was joined before."""

RIM: Final = 0.3
"""Structures thinner than this share of the nucleus's radius are rims and threads, not nucleus."""

SOLID: Final = 0.95
"""Where less than the rest is thin, nothing is taken off."""

LEAST: Final = 0.06
"""Share of a purple region that its darker level must cover to be a nucleus and no fold."""

TWO_LEVELS: Final = 0.22
"""The darker part of a purple cell is its nucleus if it is this much darker than the rest..."""

VALLEY: Final = 0.8
"""...and the histogram has a valley between the two at least this deep."""

FAR_APART: Final = 0.42
"""Levels this far apart are two even without a valley: red cells that passed the threshold."""


def central_nucleus(purple: Mask) -> Mask | None:
    """Find the nucleus in the middle of a single-cell picture.

    Otsu's threshold finds what is purple; the piece that is large and near the middle is taken, and
    lobes near it join. Where that piece has two levels of purple itself (an eosinophil or a
    basophil, whose granules passed the threshold), the upper one is the nucleus. Rims that are
    thin against the nucleus (refraction at the edge of a thick cell) are taken off.

    Parameters
    ----------
    purple : (h, w) uint8
        See `leuko.cells.colour.Planes`.

    Returns
    -------
    (h, w) uint8, 0 or 1, or None
        The nucleus, or None where nothing is more purple than the rest.
    """
    lowest, highest, _, _ = cv.minMaxLoc(purple)
    if highest - lowest < FLAT:
        return None
    level = cv.threshold(purple, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]
    nucleus = _middle(cv.morphologyEx(level, cv2.MORPH_OPEN, disc(3)))
    if nucleus is None:
        return None
    nucleus = _without_rim(nucleus)
    darker = lower_level(purple, nucleus)
    if darker is not None:
        inside = _middle(darker)
        if inside is not None and cv2.countNonZero(inside) > LEAST * cv2.countNonZero(nucleus):
            nucleus = _without_rim(inside)
    return _apart_from_border(nucleus)


def _apart_from_border(nucleus: Mask) -> Mask:
    """Cut off a neighbour that the picture's border cuts and that touches the nucleus.

    The region is worn down step by step. If it falls into a piece in the middle and others at the
    border before it is gone, each pixel goes to the nearest piece.
    """
    if not touches_border(nucleus):
        return nucleus
    depth = cv.distanceTransform(nucleus, cv2.DIST_L2, 3)
    for share in (0.3, 0.4, 0.5, 0.6, 0.7):
        worn = cv.threshold(depth, share * float(depth.max()), 1, cv2.THRESH_BINARY)[1]
        count, pieces = cv.connectedComponents(worn.astype(np.uint8), connectivity=8)
        inner = [
            piece
            for piece in range(1, count)
            if not touches_border(np.equal(pieces, piece).view(np.uint8))
        ]
        if count < 3 or not inner or len(inner) == count - 1:
            continue
        _, owners = cv.distanceTransformWithLabels(
            (pieces == 0).view(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_CCOMP
        )
        kept = [int(owners[pieces == piece][0]) for piece in inner]
        middle = _middle(np.isin(owners, kept).view(np.uint8) & nucleus)
        if middle is not None and middle.sum() > 0.15 * nucleus.sum():
            return middle
    return nucleus


def lower_level(purple: Mask, region: Mask) -> Mask | None:
    """Return the darker of a region's two levels, or None where it has only one.

    Parameters
    ----------
    purple : (h, w) uint8
        The purple plane.
    region : (h, w) uint8, 0 or 1
        Where to look.

    Returns
    -------
    (h, w) uint8, 0 or 1, or None
        The darker part.
    """
    smooth = cv.GaussianBlur(purple, (5, 5), 1.1)
    inner = cv.erode(region, disc(3))
    if cv2.countNonZero(inner) < 30:
        return None
    split = otsu(smooth, inner, with_valley=True)
    if split is None:
        return None
    apart = (split.high - split.low) / max(split.high - PURPLE_ZERO, 1.0)
    if apart <= (TWO_LEVELS if split.valley < VALLEY else FAR_APART):
        return None
    level = cv.threshold(smooth, split.level, 1, cv2.THRESH_BINARY)[1]
    level &= cv.dilate(region, disc(3))
    darker: Mask = cv.morphologyEx(level, cv2.MORPH_OPEN, disc(3))
    return darker


def _middle(mask: Mask) -> Mask | None:
    """Keep the piece that is large and near the middle, and the lobes that belong to it."""
    count, labels, stats, centres = cv.connectedComponentsWithStats(
        mask, connectivity=8, ltype=cv2.CV_16U
    )
    if count == 1 or (count == 2 and stats[1, cv2.CC_STAT_AREA] < 6):
        return None
    if count == 2:
        return mask
    rows, columns = mask.shape
    areas = stats[1:, cv2.CC_STAT_AREA].astype(np.float64)
    away = np.hypot(centres[1:, 0] - (columns - 1) / 2, centres[1:, 1] - (rows - 1) / 2)
    away /= 0.5 * min(rows, columns)
    first = int(np.argmax(np.sqrt(areas) * np.exp(-((away / CENTRAL) ** 2))))
    area = areas[first]
    if area < 6:
        return None
    nucleus: Mask = np.equal(labels, first + 1).view(np.uint8)
    near = (areas >= max(4.0, LOBE_SMALLEST * area)) & (away < OUTSKIRTS)
    near[first] = False
    waiting = np.flatnonzero(near)
    whole = 0.25 * np.pi * (WHOLE * min(rows, columns)) ** 2
    while len(waiting):
        distance = cv.distanceTransform(1 - nucleus, cv2.DIST_L2, 3)
        gaps = np.array([_gap(distance, labels, stats, int(lobe) + 1) for lobe in waiting])
        # Small pieces are lobes, and more of them may follow; a large one is a nucleus by itself.
        lobes = area + areas[waiting].sum() if area < whole else area
        reach = LOBE_GAP * (1.0 - away[waiting]) * np.sqrt(lobes)
        joins = (gaps <= reach) & (areas[waiting] <= LOBE_LARGEST * area)
        if not joins.any():
            break
        for lobe in waiting[joins]:
            nucleus |= np.equal(labels, lobe + 1).view(np.uint8)
            area += areas[lobe]
        waiting = waiting[~joins]
    return nucleus


def _gap(distance: Field, labels: Mask, stats: Mask, label: int) -> float:
    """Shortest distance from the joined lobes to another one."""
    left, top, width, height = (int(value) for value in stats[label, :4])
    here = (slice(top, top + height), slice(left, left + width))
    return float(distance[here][labels[here] == label].min())


def _without_rim(nucleus: Mask) -> Mask:
    """Take off what is thin against the nucleus."""
    area = cv2.countNonZero(nucleus)
    width = int(RIM * np.sqrt(area / np.pi)) | 1
    if width < 3:
        return nucleus
    core = cv.morphologyEx(nucleus, cv2.MORPH_OPEN, disc(width))
    if cv2.countNonZero(core) > SOLID * area:
        return nucleus
    core = _middle(core)
    if core is None or cv2.countNonZero(core) < 0.3 * area:
        return nucleus
    whole: Mask = cv.dilate(core, disc(3)) & nucleus
    return whole
