"""From found cells to named ones: at the scale of all fields of a run, each told for what it is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from leuko.field.find import FoundField
from leuko.field.report import SET_ASIDE, Field, FieldStatus
from leuko.imaging.decode import decode_image
from leuko.prediction import Prediction
from leuko.runtime.classifier import OnnxClassifier

__all__ = ["agree", "is_single", "name_cells", "settle_scales", "status_of", "tell_singles"]

AGREEING: Final = 0.25
"""Fields whose scales differ by less than this share were taken through one objective."""

BLURRED: Final = 0.05
"""A field less sharp than this (`leuko.runtime.quality.Quality`, at the detector's reduction) is
out of focus. Fields of two laboratories lie above 0.2, and below 0.1 once they are blurred by 0.6
micrometres: docs/decisions/0035-a-detector-that-travels.md."""

SINGLE: Final = (45.0, 0.15)
"""A picture shorter than this many micrometres, whose only cell is nearer to its middle than this
share of a side, may have been made of that cell. Nine of ten single-cell pictures of four
laboratories are up to 40 long; some fields are no longer."""

AT_ONCE: Final = 64
"""Crops in memory at a time."""

_MEASURED: Final = ("file", "red cells")
"""What a scale rests on that is believed for other fields of its run."""


def settle_scales(fields: Sequence[Field]) -> list[Field]:
    """Let the fields of a run tell each other their scale.

    A field that was measured on red cells gets the median of all that agree with it, as the
    microscope is one and the error of each is its own. One that has no red cells, or too few, gets
    the median of all the others, if these agree.

    Parameters
    ----------
    fields : sequence of Field
        Of one run.

    Returns
    -------
    list of Field
        With their scale and what it rests on.
    """
    known = [one.pixels_per_micrometre or 0.0 for one in fields if one.scale_source in _MEASURED]
    settled = []
    for one in fields:
        scale = one.pixels_per_micrometre
        if one.scale_source == "red cells" and scale is not None:
            agreeing = [other for other in known if agree(scale, other)]
            one = replace(one, pixels_per_micrometre=statistics.median(agreeing))
        elif one.scale_source == "white cells" and known:
            middle = statistics.median(known)
            if all(agree(middle, other) for other in known):
                one = replace(one, pixels_per_micrometre=middle, scale_source="run")
        settled.append(one)
    return settled


def agree(scale: float, other: float) -> bool:
    """Whether two scales are of one objective.

    Parameters
    ----------
    scale, other : float
        Pixels to a micrometre.

    Returns
    -------
    bool
    """
    return abs(math.log(scale / other)) < math.log1p(AGREEING)


def is_single(field: Field) -> bool:
    """Whether a picture seems to be of one cell, and not of a field.

    Parameters
    ----------
    field : Field
        With its scale.

    Returns
    -------
    bool
    """
    if len(field.cells) != 1 or not _is_short(field):
        return False
    row0, col0, row1, col1 = field.cells[0].box
    away = abs(row0 + row1 - field.size[0]) / 2, abs(col0 + col1 - field.size[1]) / 2
    return all(by < SINGLE[1] * side for by, side in zip(away, field.size, strict=True))


def _is_short(field: Field) -> bool:
    """Whether a picture is no longer than those of single cells are."""
    scale = field.pixels_per_micrometre
    return scale is not None and max(field.size) < SINGLE[0] * scale


def tell_singles(fields: Sequence[Field]) -> list[Field]:
    """Tell pictures of one cell from fields, by all short pictures of a run.

    Where most of those with cells seem to be of one, all are: what else some of them show beside it
    makes no field of them. Longer pictures of the same run are fields still.

    Parameters
    ----------
    fields : sequence of Field
        With their scales.

    Returns
    -------
    list of Field
        With the status ``single-cell`` where it is due.
    """
    short = [one.status == "ok" and bool(one.cells) and _is_short(one) for one in fields]
    if 2 * sum(map(is_single, fields)) <= sum(short):
        return [*fields]
    return [
        replace(one, status="single-cell") if fits else one
        for one, fits in zip(fields, short, strict=True)
    ]


def name_cells(found: FoundField, field: Field, classifier: OnnxClassifier) -> Field:
    """Ask what the cells of a field are, where they lie free and the field is of use.

    Parameters
    ----------
    found : FoundField
        The field with its crops.
    field : Field
        The same, from `settle_scales`.
    classifier : OnnxClassifier
        Names them.

    Returns
    -------
    Field
        With its status, and an answer to each cell; without cells unless the status is ``ok``.
    """
    status, reason = status_of(field)
    field = replace(field, status=status, reason=reason)
    scale = field.pixels_per_micrometre
    if field.status != "ok" or scale is None:
        return replace(field, cells=())
    free = [place for place, cell in enumerate(field.cells) if not cell.answer.decision]
    answers: list[Prediction] = []
    for start in range(0, len(free), AT_ONCE):  # a slide has thousands
        crops = [decode_image(found.crops[place]).pixels for place in free[start : start + AT_ONCE]]
        answers += classifier.predict_cells(crops, pixels_per_micrometre=scale / found.step)
    cells = [
        replace(cell, answer=replace(cell.answer, scheme=classifier.scheme)) for cell in field.cells
    ]
    for place, answer in zip(free, answers, strict=True):
        answer = replace(answer, sha256=cells[place].answer.sha256)
        if answer.reason == "blurred":
            answer = replace(answer, decision=SET_ASIDE)
        elif answer.decision == "not-a-cell":
            answer = replace(answer, decision="unsure")  # the detector has seen one
        cells[place] = replace(cells[place], answer=answer)
    return replace(field, cells=tuple(cells))


def status_of(field: Field) -> tuple[FieldStatus, str]:
    """Say what a picture is, and why it cannot be used.

    Parameters
    ----------
    field : Field
        From `settle_scales`.

    Returns
    -------
    (FieldStatus, str)
        See `Field.status` and `Field.reason`.
    """
    if field.status != "ok":
        return field.status, field.reason
    scale = field.pixels_per_micrometre
    blurred = field.sharpness < BLURRED  # not so where there is nothing to be sharp
    if scale is None:
        return "unusable", "blurred" if blurred else "something-else"
    if blurred:
        return "unusable", "blurred"
    if field.scale_source == "white cells":
        return "unusable", "no-scale"
    return ("ok" if field.cells else "no-cell"), ""
