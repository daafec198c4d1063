"""From one picture to its white cells, each with an answer, or with the reason why it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import cv2

from leuko.cells.arrays import Pixels, cv
from leuko.cells.colour import background_colour
from leuko.cells.detector import Box, Detector, Ruler
from leuko.errors import ImageError
from leuko.field.once import Sight, see
from leuko.field.report import SET_ASIDE, Field, FieldCell, FieldStatus
from leuko.field.tiles import find_in
from leuko.imaging.decode import encode_png
from leuko.imaging.slide import FieldImage, lattice_step, open_field
from leuko.prediction import Prediction
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.quality import measure_quality
from leuko.source import Source
from leuko.support.artifacts import digest_bytes, digest_file

__all__ = ["CROP", "OVERVIEW", "SortedField", "sort_field"]

CROP: Final = 30.0
"""Micrometres across the crop of a cell: the width of usual single-cell pictures."""

LARGEST_CROP: Final = 300
"""Pixels along its side, at most."""

OVERVIEW: Final = 1600
"""Pixels along the longer side of a field's reduced copy, at most."""

OVERLAPPING: Final = 0.3
"""Of two boxes, where they share more than this of the smaller, neither cell lies free."""

SMUDGED: Final = (24.0, 2.4)
"""A box longer than this many micrometres, or than this many times its width, is of no whole
cell: the largest monocytes and blasts have some 20 µm."""

BORDER: Final = 0.3
"""What comes nearer to the picture's border than this many micrometres is cut by it."""

BLURRED: Final = 0.0
"""A field less sharp than this shows no cell well enough."""

WINDOW: Final = 640
"""Pixels across the part of a field whose sharpness is told."""

ASIDE: Final = {"blurred": "blurred", "no-nucleus": "smudged", "blank": "smudged"}
"""Reasons for which a model does not accept an answer, and what they mean for a cell of a field."""

SINGLE: Final = (45.0, 0.3)
"""A picture narrower than this many micrometres, whose only cell takes this share of it, was made
of that cell."""


@dataclass(frozen=True, slots=True)
class SortedField:
    """A picture and what was found in it.

    Attributes
    ----------
    field : Field
        Paths of its answers are empty.
    crops : tuple of bytes
        PNG of each cell, in order.
    overview : (h, w, 3) uint8, RGB, or None
        The whole picture, at most `OVERVIEW` pixels long; None where it cannot be read.
    sight : Sight or None
        What its cells are known by; None where there is no overview.
    """

    field: Field
    crops: tuple[bytes, ...] = ()
    overview: Pixels | None = None
    sight: Sight | None = None


def sort_field(
    source: Source,
    detector: Detector,
    classifier: OnnxClassifier,
    *,
    ruler: Ruler | None = None,
    workers: int = 1,
) -> SortedField:
    """Find the white cells of a picture and name them.

    Parameters
    ----------
    source : Source
        The picture.
    detector : Detector
        Finds them, and measures the scale where nobody tells it.
    classifier : OnnxClassifier
        Names them, at the scale of the field.
    ruler : Ruler, optional
        The scale, where it is known.
    workers : int
        Threads for one picture.

    Returns
    -------
    SortedField
        Also of a picture that cannot be read: `Field.status` says what became of it.
    """
    try:
        with open_field(source) as image:
            return _sorted(source, image, detector, classifier, ruler, workers)
    except ImageError as error:
        field = Field(source.name, "rejected", error.reason, detail=error.detail)
        return SortedField(field)


def _sorted(
    source: Source,
    image: FieldImage,
    detector: Detector,
    classifier: OnnxClassifier,
    ruler: Ruler | None,
    workers: int,
) -> SortedField:
    """Find and name the cells of an open picture."""
    overview = image.read((0, 0, *image.size), lattice_step(max(image.size) / OVERVIEW))
    field = Field(
        source.name,
        "ok",
        detail="; ".join(image.notes),
        sha256=_digest(source),
        size=image.size,
        ground=background_colour(overview),
    )
    field = _scaled(field, image, detector, ruler)
    scale = field.pixels_per_micrometre
    if scale is None:
        unknown = replace(field, status="unusable", reason="something-else")
        return SortedField(unknown, (), overview, see(source.name, overview, (), image.size))
    found = sorted(find_in(image, detector, scale, workers=workers), key=lambda one: one.box)
    boxes = [one.box for one in found]
    field = replace(field, sharpness=_sharpness(image, scale, detector.working))
    status, reason = _status(field, boxes, scale)
    field = replace(field, status=status, reason=reason)
    sight = see(source.name, overview, boxes, image.size)
    if status != "ok":
        return SortedField(field, (), overview, sight)
    crops = [_crop(image, box, scale, field.ground) for box in boxes]
    files = tuple(encode_png(crop, effort=1) for crop in crops)
    reasons = [_why_aside(box, boxes, image.size, scale) for box in boxes]
    answers = _answers(crops, reasons, classifier, scale)
    cells = tuple(
        FieldCell(one.box, one.score, replace(answer, sha256=digest_bytes(file)))
        for one, answer, file in zip(found, answers, files, strict=True)
    )
    return SortedField(replace(field, cells=cells, faults=image.faults), files, overview, sight)


def _answers(
    crops: Sequence[Pixels], reasons: Sequence[str], classifier: OnnxClassifier, scale: float
) -> list[Prediction]:
    """Ask what cells are that lie free and whole; of the others, tell why not."""
    asked = [crop for crop, reason in zip(crops, reasons, strict=True) if not reason]
    answers = iter(classifier.predict_cells(asked, pixels_per_micrometre=scale))
    told = []
    for reason in reasons:
        if reason:
            told.append(Prediction("", "ok", reason, decision=SET_ASIDE, scheme=classifier.scheme))
            continue
        answer = next(answers)
        aside = ASIDE.get(answer.reason)
        told.append(answer if aside is None else replace(answer, decision=SET_ASIDE, reason=aside))
    return told


def _digest(source: Source) -> str:
    """Digest of a picture's file, however large."""
    return digest_file(Path(source.place)) if source.kind == "file" else digest_bytes(source.read())


def _scaled(field: Field, image: FieldImage, detector: Detector, ruler: Ruler | None) -> Field:
    """Settle the scale: what is told from outside, then the file's, then the cells'."""
    if ruler is None and image.pixels_per_micrometre is not None:
        ruler = Ruler(image.pixels_per_micrometre, "file")
    if ruler is None:
        ruler = detector.measure(image.read((0, 0, *image.size)))
    return replace(
        field,
        pixels_per_micrometre=ruler.pixels_per_micrometre,
        scale_source=ruler.source,
        red_cells=ruler.red_cells,
    )


def _status(field: Field, boxes: Sequence[Box], scale: float) -> tuple[FieldStatus, str]:
    """What a picture is, and why it cannot be used."""
    if len(boxes) == 1 and min(field.size) < SINGLE[0] * scale:
        row0, col0, row1, col1 = boxes[0]
        if max(row1 - row0, col1 - col0) > SINGLE[1] * min(field.size):
            return "single-cell", ""
    if field.scale_source == "white cells":
        return "unusable", "no-scale"
    if field.sharpness < BLURRED:
        return "unusable", "blurred"
    return ("ok" if boxes else "no-cell"), ""


def _sharpness(image: FieldImage, scale: float, working: float) -> float:
    """How sharp the middle of a picture is, at the detector's own reduction."""
    step = lattice_step(scale / working)
    rows, columns = image.size
    reach = round(WINDOW * step / 2)
    row, column = rows // 2, columns // 2
    box = max(0, row - reach), max(0, column - reach), row + reach, column + reach
    return measure_quality(image.read(box, step)).sharpness


def _why_aside(box: Box, boxes: Sequence[Box], size: tuple[int, int], scale: float) -> str:
    """Why a cell is not asked; empty where it lies free and whole."""
    row0, col0, row1, col1 = box
    cut = BORDER * scale
    if row0 < cut or col0 < cut or row1 > size[0] - cut or col1 > size[1] - cut:
        return "border"
    height, width = row1 - row0, col1 - col0
    if max(height, width) > max(SMUDGED[0] * scale, SMUDGED[1] * min(height, width)):
        return "smudged"
    for other in boxes:
        rows = min(row1, other[2]) - max(row0, other[0])
        columns = min(col1, other[3]) - max(col0, other[1])
        if other != box and rows > 0 and columns > 0:
            smaller = min(height * width, (other[2] - other[0]) * (other[3] - other[1]))
            if rows * columns > OVERLAPPING * smaller:
                return "overlapping"
    return ""


def _crop(image: FieldImage, box: Box, scale: float, ground: tuple[float, float, float]) -> Pixels:
    """Cut a cell out, in the middle of its surroundings; beyond the picture lies empty slide."""
    row0, col0, row1, col1 = box
    side = max(CROP * scale, 1.3 * max(row1 - row0, col1 - col0))
    step = lattice_step(side / LARGEST_CROP)
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
    return cv.copyMakeBorder(
        seen, above, max(0, below), before, max(0, after), cv2.BORDER_CONSTANT, value=ground
    )[: 2 * half, : 2 * half]
