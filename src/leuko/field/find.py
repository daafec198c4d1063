"""From one picture to its white cells: where they are, what surrounds them, which lie free."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from leuko.cells.arrays import Pixels, cv
from leuko.cells.boxes import shared_areas
from leuko.cells.colour import background_colour
from leuko.cells.detector import Box, Detector, PixelSize
from leuko.errors import ImageError
from leuko.field.once import Sight, see
from leuko.field.report import SET_ASIDE, Field, FieldCell
from leuko.field.tiles import find_in, tiles
from leuko.field.tissue import Tissue, tissue_of
from leuko.imaging.decode import encode_png
from leuko.imaging.slide import FieldImage, lattice_step, open_field
from leuko.prediction import Prediction
from leuko.runtime.quality import BLANK, measure_quality
from leuko.source import Source
from leuko.support.artifacts import digest_bytes, digest_file

__all__ = ["CROP", "OVERVIEW", "FoundField", "find_cells"]

CROP: Final = 30.0
"""Micrometres across the crop of a cell: the width of usual single-cell pictures."""

LARGEST_CROP: Final = 300
"""Pixels along the side of a crop, at most, unless its cell is larger than any."""

OVERVIEW: Final = 1600
"""Pixels along the longer side of a field's reduced copy, at most."""

OVERLAPPING: Final = 0.3
"""Of two boxes, where they share more than this of the smaller, neither cell lies free."""

SMUDGED: Final = (24.0, 2.4)
"""A box longer than this many micrometres, or than this many times its width, is of no whole
cell: the largest monocytes and blasts have some 20 µm."""

BORDER: Final = 0.8
"""What comes nearer to the picture's border than this many micrometres may be cut by it: the sides
of boxes are off by half as much."""

WINDOW: Final = 640
"""Pixels across the part of a field whose sharpness is told."""

MEASURED_PARTS: Final = (5, 1280)
"""So many parts of a slide, of so many pixels, are measured for its scale."""


@dataclass(frozen=True, slots=True)
class FoundField:
    """A picture and what was found in it.

    Attributes
    ----------
    field : Field
        Its status is ``ok`` unless it cannot be read. Cells that do not lie free are set aside, the
        others have no answer yet; no answer has a path.
    step : float
        Pixels of the picture to one of a crop.
    crops : tuple of bytes
        PNG of each cell, in order.
    overview : (h, w, 3) uint8, RGB, or None
        The whole picture, at most `OVERVIEW` pixels long; None where it cannot be read.
    sight : Sight or None
        What its cells are known by; None where they have no scale, and of a slide.
    """

    field: Field
    step: float = 1.0
    crops: tuple[bytes, ...] = ()
    overview: Pixels | None = None
    sight: Sight | None = None


def find_cells(
    source: Source, detector: Detector, pixel_size: PixelSize | None = None, *, workers: int = 1
) -> FoundField:
    """Find the white cells of a picture.

    Parameters
    ----------
    source : Source
        The picture.
    detector : Detector
        Finds them, and measures the scale where nobody tells it.
    pixel_size : PixelSize, optional
        The scale, where it is known.
    workers : int
        Threads for one picture.

    Returns
    -------
    FoundField
        Also of a picture that cannot be read: `Field.status` says so.
    """
    try:
        with open_field(source) as image:
            return _found(source, image, detector, pixel_size, workers)
    except ImageError as error:
        return FoundField(Field(source.name, "rejected", error.reason, detail=error.detail))


def _found(
    source: Source,
    image: FieldImage,
    detector: Detector,
    pixel_size: PixelSize | None,
    workers: int,
) -> FoundField:
    """Find the cells of an open picture."""
    tissue = tissue_of(image)
    overview = image.read((0, 0, *image.size), lattice_step(max(image.size) / OVERVIEW))
    pixel_size = pixel_size or _measured(image, detector, tissue)
    scale = pixel_size.pixels_per_micrometre
    field = Field(
        source.name,
        "ok",
        detail="; ".join(image.notes),
        sha256=_digest(source),
        size=image.size,
        pixels_per_micrometre=scale,
        scale_source=pixel_size.source,
        red_cells=pixel_size.red_cells,
        ground=background_colour(overview),
        sharpness=_sharpness(
            image, scale / detector.working if scale else max(image.size) / WINDOW
        ),
    )
    if scale is None:
        return FoundField(replace(field, faults=image.faults), overview=overview)
    found = find_in(image, detector, scale, tissue=tissue, workers=workers)
    found.sort(key=lambda one: one.box)
    boxes = [one.box for one in found]
    step = lattice_step(CROP * scale / LARGEST_CROP)
    crops = tuple(
        encode_png(_crop(image, box, CROP * scale, step, field.ground), effort=1) for box in boxes
    )
    cells = []
    for one, crop in zip(found, crops, strict=True):
        reason = _why_aside(one.box, boxes, image.size, scale)
        decision = SET_ASIDE if reason else ""
        answer = Prediction("", "ok", reason, decision=decision, sha256=digest_bytes(crop))
        cells.append(FieldCell(one.box, one.score, answer))
    field = replace(field, cells=tuple(cells), faults=image.faults)
    # A slide is too large to be compared by a copy of so few pixels.
    sight = see(source.name, overview, boxes, image.size) if tissue is None else None
    return FoundField(field, step, crops, overview, sight)


def _measured(image: FieldImage, detector: Detector, tissue: Tissue | None) -> PixelSize:
    """The scale that the file tells, or what the cells do; of a slide, in a few parts of it."""
    if image.pixels_per_micrometre is not None:
        return PixelSize(image.pixels_per_micrometre, "file")
    if tissue is None:
        return detector.measure(image.read((0, 0, *image.size)))
    parts, side = MEASURED_PARTS
    every = [*tiles(image.size, 1.0, side, 0, tissue)]
    told = [
        detector.measure(image.read(tile.box))
        for tile in islice(every, len(every) // (2 * parts), None, max(1, len(every) // parts))
    ]
    reds = [pixel_size for pixel_size in told if pixel_size.source == "red cells"]
    if not reds:
        return PixelSize()
    scale = statistics.median(pixel_size.pixels_per_micrometre or 0.0 for pixel_size in reds)
    return PixelSize(scale, "red cells", sum(pixel_size.red_cells for pixel_size in reds))


def _digest(source: Source) -> str:
    """Digest of a picture's file, however large."""
    return digest_file(Path(source.place)) if source.kind == "file" else digest_bytes(source.read())


def _sharpness(image: FieldImage, step: float) -> float:
    """How sharp the middle of a picture is at a reduction; not-a-number where it shows nothing."""
    step = lattice_step(step)
    rows, columns = image.size
    reach = round(WINDOW * step / 2)
    row, column = rows // 2, columns // 2
    box = max(0, row - reach), max(0, column - reach), row + reach, column + reach
    quality = measure_quality(image.read(box, step))
    return math.nan if quality.contrast < BLANK else quality.sharpness


def _why_aside(box: Box, boxes: Sequence[Box], size: tuple[int, int], scale: float) -> str:
    """Why a cell is not asked; empty where it lies free and whole."""
    row0, col0, row1, col1 = box
    cut = BORDER * scale
    if row0 < cut or col0 < cut or row1 > size[0] - cut or col1 > size[1] - cut:
        return "border"
    height, width = row1 - row0, col1 - col0
    if max(height, width) > max(SMUDGED[0] * scale, SMUDGED[1] * min(height, width)):
        return "smudged"
    every = np.array(boxes)
    smaller = np.minimum(height * width, np.prod(every[:, 2:] - every[:, :2], axis=1))
    shared = shared_areas(box, every)
    # It overlaps itself.
    return "overlapping" if np.count_nonzero(shared > OVERLAPPING * smaller) > 1 else ""


def _crop(
    image: FieldImage, box: Box, side: float, step: float, ground: tuple[float, float, float]
) -> Pixels:
    """Cut a cell out, in the middle of its surroundings; beyond the picture lies empty slide."""
    row0, col0, row1, col1 = box
    side = max(side, 1.3 * (row1 - row0), 1.3 * (col1 - col0))
    half = round(side / 2 / step)
    row, column = round((row0 + row1) / 2 / step), round((col0 + col1) / 2 / step)
    top, left = row - half, column - half
    seen = image.read(
        (
            round(max(0, top) * step),
            round(max(0, left) * step),
            round((row + half) * step),
            round((column + half) * step),
        ),
        step,
    )
    above, before = max(0, -top), max(0, -left)
    below, after = 2 * half - above - seen.shape[0], 2 * half - before - seen.shape[1]
    whole = cv.copyMakeBorder(
        seen, above, max(0, below), before, max(0, after), cv2.BORDER_CONSTANT, value=ground
    )
    return np.asarray(whole[: 2 * half, : 2 * half], np.uint8)
