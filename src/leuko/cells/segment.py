"""Find the white cell of a single-cell picture: nucleus, cytoplasm, scale."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.cells.arrays import Field, Mask, Pixels, centroid, cv, diameter_of, disc, touches_border
from leuko.cells.colour import (
    CHROMATIN,
    background_colour,
    chromatin_mark,
    make_planes,
    reduce_picture,
)
from leuko.cells.finding import CellFinding, empty_finding
from leuko.cells.nucleus import central_nucleus
from leuko.cells.pixel_size import fuse_scale, measure_red_cells

__all__ = ["find_cell", "nucleus_confidence"]

ANGLES: Final = 48
RADII: Final = 40
"""Rays from the centre, and steps along each."""

REACH: Final = 2.8
"""The cell ends within this many radii of its nucleus (neutrophils need 2.2)."""

FREE: Final = 1.8
DRIFT: Final = 0.1
"""Beyond `FREE` radii of the nucleus, every further radius needs this much more evidence."""

STAINED: Final = 0.05
"""Less density than this is empty slide."""

SOFT: Final = 0.03
"""Colours nearer to each other than this density say little."""

NEAR: Final = 0.25
CLOTHED: Final = 0.6
"""There is cytoplasm if this share of what lies within `NEAR` radii of the nucleus is stained."""

RING: Final = 0.5
"""Its colour is measured within this many radii of the nucleus."""

BARE: Final = np.float32(0.6)
"""Where there is none, a rim of the nucleus this share as dense takes its place."""

FAR: Final = 0.7
"""Red cells are measured beyond this many radii from the outermost lobe."""

PALE: Final = np.float32(1.5)
"""Cytoplasm thins towards its edge: it may be this much nearer to the slide's colour."""

BULGE: Final = 1.6
"""No ray is longer than this many median rays."""

CERTAIN: Final = 0.18
"""From this `chromatin_mark` on there is no doubt that it is a nucleus."""

SMALLEST: Final = 0.004
LARGEST: Final = 0.75
"""Shares of the picture between which a nucleus may take."""

_TURN: Final = np.linspace(0.0, 2.0 * np.pi, ANGLES, endpoint=False)
_STEPS: Final = np.arange(1, RADII + 1) / RADII
_UNIT_ROWS: Final = np.outer(np.sin(_TURN), _STEPS).astype(np.float32)
_UNIT_COLUMNS: Final = np.outer(np.cos(_TURN), _STEPS).astype(np.float32)
_UNIT_RADII: Final = _STEPS.astype(np.float32)[None, :]
_SINES: Final = np.sin(_TURN)
_COSINES: Final = np.cos(_TURN)
_NEIGHBOURS: Final = (np.arange(ANGLES)[:, None] + np.arange(-3, 4)) % ANGLES
_ONES: Final = np.ones((1, 3), np.float32)


def find_cell(pixels: Pixels) -> CellFinding:
    """Find the white cell of interest of a single-cell picture.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        A picture of one cell, usually in the middle, at any magnification.

    Returns
    -------
    CellFinding
        The cell; or, with ``found`` false, the reason why there is none.

    Examples
    --------
    >>> find_cell(np.full((64, 64, 3), 230, np.uint8)).reason
    'blank'
    """
    seen = _see_nucleus(pixels)
    small, step, background = seen.small, seen.step, seen.background
    size, shape = (pixels.shape[0], pixels.shape[1]), (small.shape[0], small.shape[1])
    if seen.reason:
        return empty_finding(seen.reason, size, step, shape, background)
    density, nucleus, (row, column) = seen.density, seen.nucleus, seen.centre
    cell = _grow(density, nucleus, (row, column), seen.colour)
    nucleus_diameter = diameter_of(nucleus) * step
    cell_diameter = diameter_of(cell) * step
    rough, _, _ = fuse_scale(nucleus_diameter, cell_diameter, max(size))
    reds = [step * red for red in measure_red_cells(density, cell, rough / step)]
    pixels_per_micrometre, error, used = fuse_scale(
        nucleus_diameter, cell_diameter, max(size), reds
    )
    per_row, per_column = size[0] / shape[0], size[1] / shape[1]
    cell_row, cell_column = centroid(cell)
    return CellFinding(
        found=True,
        reason="",
        size=size,
        step=step,
        nucleus=nucleus,
        cell=cell,
        background=background,
        nucleus_centre=(row * per_row, column * per_column),
        cell_centre=(cell_row * per_row, cell_column * per_column),
        nucleus_diameter=nucleus_diameter,
        cell_diameter=cell_diameter,
        contrast=float(seen.colour[1] - seen.colour[2]),
        confidence=seen.confidence,
        red_diameter=statistics.median(reds) if used else 0.0,
        red_cells=used,
        pixels_per_micrometre=pixels_per_micrometre,
        scale_error=error,
    )


def nucleus_confidence(pixels: Pixels) -> float:
    """Say how surely a picture shows a nucleus in its middle; half the work of `find_cell`.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        A picture of one cell, usually in the middle, at any magnification.

    Returns
    -------
    float
        The ``confidence`` of `find_cell`, 0 to 1; 0 where it finds no cell.

    Examples
    --------
    >>> nucleus_confidence(np.full((64, 64, 3), 230, np.uint8))
    0.0
    """
    return _see_nucleus(pixels).confidence


@dataclass(frozen=True, slots=True)
class _Seen:
    """A reduced picture and the nucleus in its middle, or in ``reason`` why there is none."""

    small: Pixels
    step: float
    background: tuple[float, float, float]
    density: Field
    reason: str
    nucleus: Mask
    colour: Field
    centre: tuple[float, float]
    confidence: float


def _see_nucleus(pixels: Pixels) -> _Seen:
    """Find the nucleus alone."""
    small, step = reduce_picture(pixels)
    background = background_colour(small)
    planes = make_planes(small, background)
    found = central_nucleus(planes.purple)
    nucleus = np.zeros_like(planes.purple) if found is None else found
    share = cv2.countNonZero(nucleus) / nucleus.size
    colour = np.array(cv.mean(planes.density, nucleus)[:3], np.float32)
    chromatin = chromatin_mark(float(colour[1]), float(colour[2]))
    if found is None:
        reason = "blank"
    elif chromatin < CHROMATIN:
        reason = "no-nucleus"
    elif not SMALLEST <= share <= LARGEST:
        reason = "too-small" if share < SMALLEST else "too-large"
    else:
        reason = ""
    centre = (0.0, 0.0) if reason else centroid(nucleus)
    sure = 0.0 if reason else _confidence(chromatin, centre, nucleus)
    return _Seen(
        small, step, background, planes.density, reason, nucleus, colour, centre, sure
    )  # fmt: skip


def _confidence(chromatin: float, centre: tuple[float, float], nucleus: Mask) -> float:
    """Weakest of three: colour, distance from the middle, freedom from the border."""
    rows, columns = nucleus.shape
    away = math.hypot(centre[0] - rows / 2, centre[1] - columns / 2) / (0.5 * min(rows, columns))
    touching = touches_border(nucleus) / diameter_of(nucleus)
    sure = (chromatin - CHROMATIN) / (CERTAIN - CHROMATIN)
    return float(min(1.0, max(0.0, min(sure, (0.9 - away) / 0.5, 1.0 - touching))))


def _grow(
    density: Field,
    nucleus: Mask,
    centre: tuple[float, float],
    chromatin: Field,
) -> Mask:
    """Grow the nucleus to the whole cell.

    Three colours are read off the picture: cytoplasm (the stained ring next to the nucleus), the
    empty slide, and red cells (what is stained further away). Each pixel votes between -1 (its
    colour is that of slide or red cells) and 1 (cytoplasm or nucleus). Along each ray from the
    centre the cell ends where the sum of votes is greatest; neighbouring rays are smoothed.
    """
    radius = np.float32(0.5 * diameter_of(nucleus))
    row, column = centre[0] - 0.5, centre[1] - 0.5
    longest = np.float32(REACH) * radius + np.float32(2.0)
    radii = _UNIT_RADII * longest
    rows = _UNIT_ROWS * longest + np.float32(row)
    columns = _UNIT_COLUMNS * longest + np.float32(column)
    colours = cv.remap(density, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    # 2 in the nucleus, 1 on its outline, where its colour mixes with that of its surroundings
    marks = cv.dilate(nucleus, disc(3)) + nucleus
    marks = cv.remap(marks, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    reached = (radii * (marks > 0)).max(axis=1, keepdims=True)
    gap = radii - reached
    polar = _votes(colours, marks, gap, radii - reached.max(), radius, chromatin)
    polar -= np.float32(DRIFT) * np.maximum(radii / radius - np.float32(FREE), 0.0)
    turned = np.concatenate([polar[-3:], polar, polar[:3]])
    polar = cv.GaussianBlur(turned, (1, 7), sigmaX=0.01, sigmaY=1.2)[3:-3]
    evidence = np.cumsum(polar, axis=1)
    evidence[gap < 0] = -np.inf
    ends = radii[0][np.argmax(evidence, axis=1)]
    ends = np.partition(ends[_NEIGHBOURS], 3, axis=1)[:, 3]
    ends = np.minimum(ends, BULGE * np.partition(ends, ANGLES // 2)[ANGLES // 2])
    outline = np.empty((ANGLES, 2))
    outline[:, 0] = column + _COSINES * ends
    outline[:, 1] = row + _SINES * ends
    cell = nucleus.copy()
    cv.fillPoly(cell, [np.rint(outline * 16).astype(np.int32)], 1, shift=4)
    return cell


def _votes(
    colours: Field,
    marks: Mask,
    gap: Field,
    away: Field,
    radius: np.float32,
    chromatin: Field,
) -> Field:
    """How much each colour speaks for cytoplasm (1) or against it (-1)."""
    squares: Field = cv.transform(colours * colours, _ONES)
    from_slide: Field = cv.sqrt(squares)
    stained = from_slide > STAINED
    far = _median(colours, stained & (away > FAR * radius), 60)
    beside = marks == 0
    near = beside & (gap <= max(2.0, NEAR * float(radius)))
    covered = int(np.count_nonzero(near & stained)) / max(int(np.count_nonzero(near)), 1)
    cytoplasm = None
    if covered >= CLOTHED:
        ring = beside & stained & (gap <= max(2.0, RING * float(radius)))
        cytoplasm = _median(colours, ring, 20)
    if cytoplasm is None:
        cytoplasm = BARE * chromatin
    to_cell = cv.min(_distance(colours, squares, cytoplasm), _distance(colours, squares, chromatin))
    to_other = PALE * from_slide
    if far is not None:
        to_other = cv.min(to_other, _distance(colours, squares, far))
    votes: Field = (to_other - to_cell) / (to_other + to_cell + np.float32(SOFT))
    votes[marks == 2] = 1.0
    return votes


def _median(colours: Field, chosen: npt.NDArray[np.bool_], fewest: int) -> Field | None:
    """Median of each channel over a few hundred of the chosen, or None if they are too few."""
    places = np.flatnonzero(chosen)
    if len(places) < fewest:
        return None
    sample = colours.reshape(-1, 3)[places[:: 1 + len(places) // 256]]
    middle = len(sample) // 2
    return np.asarray(np.partition(sample, middle, axis=0)[middle], np.float32)


def _distance(colours: Field, squares: Field, colour: Field) -> Field:
    """Distance of each colour from one, from the squares of their lengths."""
    offset = float(colour @ colour)
    mixed = cv.transform(colours, np.append(-2.0 * colour, offset)[None].astype(np.float32))
    distances: Field = cv.sqrt(cv.max(squares + mixed, 0.0))
    return distances
