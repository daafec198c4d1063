"""What was found in the fields of a smear: pictures, cells, and what became of each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from leuko.cells.detector import Box, ScaleSource
from leuko.evaluation.counting.differential import Differential
from leuko.evaluation.detection import DetectionReport
from leuko.prediction import SET_ASIDE, Prediction
from leuko.scheme import ClassScheme

__all__ = ["SET_ASIDE", "Field", "FieldCell", "FieldReport", "FieldStatus"]

FieldStatus = Literal["ok", "no-cell", "unusable", "single-cell", "repeated", "rejected"]
"""What became of a picture. ``no-cell``: a field without a white cell. ``unusable``: out of focus,
of something else, or at a scale that nothing tells; its cells are not counted. ``single-cell``: a
picture of one cell, for ``leuko predict``. ``repeated``: the same field as another picture.
``rejected``: it cannot be read."""


@dataclass(frozen=True, slots=True)
class FieldCell:
    """One white cell of a field.

    Attributes
    ----------
    box : (int, int, int, int)
        (row0, col0, row1, col1), half-open, in pixels of the original picture.
    score : float, 0 to 1
        How sure the detector is; no probability.
    answer : Prediction
        Its ``path`` is that of the crop within the run's folder. The decision is one of
        `leuko.prediction.DECISIONS`, or `SET_ASIDE` with the reason ``border`` (cut by the
        picture's border), ``overlapping``, ``smudged`` or ``blurred``; or ``duplicate`` for a cell
        that an earlier picture shows.
    """

    box: Box
    score: float
    answer: Prediction


@dataclass(frozen=True, slots=True)
class Field:
    """One picture of a run.

    Attributes
    ----------
    name : str
        As the user gave it.
    status : FieldStatus
    reason : str
        A code: why it was rejected (`leuko.imaging.decode.REJECT_REASONS`) or is unusable
        (``blurred``, ``something-else``, ``no-scale``), or the name of the picture that it
        repeats; empty for the others.
    detail : str
        What decoding has to say beyond that, for a person; else empty.
    sha256 : str
        Of the file; empty where it could not be read.
    size : (int, int)
        Rows and columns.
    pixels_per_micrometre : float or None
        None where nothing tells it.
    scale_source : ScaleSource
    red_cells : int
        How many red cells were measured for it.
    sharpness : float
        See `leuko.runtime.quality.Quality`; not-a-number where nothing was read.
    ground : (float, float, float)
        Red, green and blue of the empty slide, 0 to 255.
    faults : tuple of str
        Parts that could not be read, such as damaged tiles: the rest is counted.
    cells : tuple of FieldCell
        By row, then column.
    """

    name: str
    status: FieldStatus
    reason: str = ""
    detail: str = ""
    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    pixels_per_micrometre: float | None = None
    scale_source: ScaleSource = "none"
    red_cells: int = 0
    sharpness: float = math.nan
    ground: tuple[float, float, float] = (0.0, 0.0, 0.0)
    faults: tuple[str, ...] = ()
    cells: tuple[FieldCell, ...] = ()

    @property
    def outcomes(self) -> Counter[tuple[str, str]]:
        """Cells by what became of them; see `leuko.prediction.Prediction.outcome`."""
        return Counter(cell.answer.outcome for cell in self.cells)


@dataclass(frozen=True)
class FieldReport:
    """A run over the fields of one smear.

    Attributes
    ----------
    fields : tuple of Field
        In input order.
    scheme : ClassScheme
        Of the answers.
    model, detector : dict of str to str
        ``name`` and ``digest``.
    differential : Differential or None
        Of the cells that count; None where no cell was found.
    truth : DetectionReport or None
        How well, where boxes were given.
    asked : int or None
        After how many counted white cells to stop; the field in which they were reached is whole.
    left : int
        Pictures that were not looked at, because so many were reached.
    """

    fields: tuple[Field, ...]
    scheme: ClassScheme
    model: Mapping[str, str]
    detector: Mapping[str, str]
    differential: Differential | None = None
    truth: DetectionReport | None = None
    asked: int | None = None
    left: int = 0

    @property
    def cells(self) -> list[tuple[Field, FieldCell]]:
        """Every cell with its picture, in order; its position is its number, from 1."""
        return [(one, cell) for one in self.fields for cell in one.cells]
