"""How well white cells were found: boxes found against boxes given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from leuko.cells.detector import Box

__all__ = ["BoxClassification", "DetectionReport", "Miss"]


@dataclass(frozen=True, slots=True)
class Miss:
    """A box that was given and not found, or found and not given.

    Attributes
    ----------
    picture : str
        Name of the field.
    box : (int, int, int, int)
        (row0, col0, row1, col1), half-open, in pixels of the original.
    score : float
        Of a box that was found; not-a-number for one that was not.
    """

    picture: str
    box: Box
    score: float


@dataclass(frozen=True, slots=True)
class BoxClassification:
    """How well the cells of matched boxes were named.

    Attributes
    ----------
    n : int
        Matched boxes whose true class the model knows.
    accuracy, balanced_accuracy : float, 0 to 1
        Of the likeliest classes, accepted or not.
    accepted : float, 0 to 1
        Share of them whose answer is accepted.
    accuracy_accepted : float, 0 to 1
        Of those; not-a-number where none is.
    """

    n: int
    accuracy: float
    balanced_accuracy: float
    accepted: float
    accuracy_accepted: float


@dataclass(frozen=True)
class DetectionReport:
    """White cells found, against boxes given, at an intersection over union of 0.5.

    Attributes
    ----------
    fields : int
        Pictures that were compared.
    found, missed, false, doubles : int
        Boxes given and found; given and not found; found where none was given; found again where
        one was found already. What lies on an ``ignore`` box is none of these.
    ap50, ap50_95 : float, 0 to 1
        Average precision (101 recall levels, as COCO has it) at 0.5, and its mean over 0.5 to 0.95
        in steps of 0.05; not-a-number where no box was given.
    counting_error_per_field : float
        Mean absolute difference of found and given cells in a field.
    classification : BoxClassification or None
        None where no given box has a class that the model knows.
    by_slide : dict of str to DetectionReport
        The same by slide; empty in those.
    misses, false_finds : tuple of Miss
        Each of them, for a page to show.
    """

    fields: int
    found: int
    missed: int
    false: int
    doubles: int
    ap50: float
    ap50_95: float
    counting_error_per_field: float
    classification: BoxClassification | None = None
    by_slide: Mapping[str, DetectionReport] = field(default_factory=dict)
    misses: tuple[Miss, ...] = ()
    false_finds: tuple[Miss, ...] = ()
