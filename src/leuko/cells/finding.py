"""What is known about the white cell of a picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.cells.arrays import Mask, Pixels, cv

__all__ = ["NOT_FOUND_REASONS", "CellFinding", "Mask", "Pixels", "empty_finding"]

NOT_FOUND_REASONS: Final = ("blank", "no-nucleus", "too-small", "too-large")
"""Every reason that a `CellFinding` with ``found`` false may carry."""


@dataclass(frozen=True, slots=True)
class CellFinding:
    """The white cell of interest, or why there is none.

    Lengths are in pixels of the picture as given, masks in those of its reduced copy: one of these
    is ``step`` pixels of the picture wide. Rows come before columns; the centre of the picture's
    first pixel is (0.5, 0.5).

    Attributes
    ----------
    found : bool
        Whether there is a cell. If not, the masks are empty, lengths are 0 and the centres are the
        middle of the picture.
    reason : str
        Empty, or one of `NOT_FOUND_REASONS`.
    size : (int, int)
        Rows and columns of the picture.
    step : float
        Pixels of the picture to one pixel of the masks, at least 1.
    nucleus, cell : (h, w) uint8, 0 or 1
        The nucleus with all its lobes; nucleus and cytoplasm together.
    background : (float, float, float)
        Red, green and blue of the empty slide, 0 to 255: the most frequent bright colour.
    nucleus_centre, cell_centre : (float, float)
        Centroids.
    nucleus_diameter, cell_diameter : float
        Of the circle of the same area.
    contrast : float
        How much more purple the nucleus is than the empty slide, in units of optical density.
    confidence : float
        0 to 1; below 0.5 the finding deserves a look. See `leuko.cells.segment`.
    red_diameter : float
        Median diameter of the red cells that were measured, or 0.
    red_cells : int
        How many were measured.
    pixels_per_micrometre : float
        Pixels of the picture to a micrometre, by red cells and nucleus together.
    scale_error : float
        Standard deviation of the natural logarithm of ``pixels_per_micrometre``.
    """

    found: bool
    reason: str
    size: tuple[int, int]
    step: float
    nucleus: Mask = field(repr=False)
    cell: Mask = field(repr=False)
    background: tuple[float, float, float]
    nucleus_centre: tuple[float, float]
    cell_centre: tuple[float, float]
    nucleus_diameter: float
    cell_diameter: float
    contrast: float
    confidence: float
    red_diameter: float
    red_cells: int
    pixels_per_micrometre: float
    scale_error: float

    @property
    def scale_source(self) -> str:
        """What the scale rests on: ``"red cells"``, ``"nucleus"`` or ``"none"``."""
        if not self.found:
            return "none"
        return "red cells" if self.red_cells else "nucleus"

    def full_mask(self, what: str = "cell") -> npt.NDArray[np.bool_]:
        """Return a mask at the size of the picture.

        Parameters
        ----------
        what : {"cell", "nucleus"}
            Which mask.

        Returns
        -------
        (H, W) bool
            The mask, its outline interpolated between the reduced pixels.
        """
        small = self.nucleus if what == "nucleus" else self.cell
        rows, columns = self.size
        if small.shape == (rows, columns):
            return small > 0
        wide = cv.resize(small * np.uint8(255), (columns, rows), interpolation=cv2.INTER_LINEAR)
        return np.asarray(wide > 127)


def empty_finding(
    reason: str,
    size: tuple[int, int],
    step: float,
    shape: tuple[int, int],
    background: tuple[float, float, float],
) -> CellFinding:
    """Say that there is no cell.

    Parameters
    ----------
    reason : str
        One of `NOT_FOUND_REASONS`.
    size : (int, int)
        Rows and columns of the picture.
    step : float
        Pixels of the picture to one of the reduced copy.
    shape : (int, int)
        Rows and columns of the reduced copy.
    background : (float, float, float)
        Colour of the empty slide.

    Returns
    -------
    CellFinding
        With ``found`` false.
    """
    nothing = np.zeros(shape, np.uint8)
    middle = (size[0] / 2, size[1] / 2)
    return CellFinding(
        False, reason, size, step, nothing, nothing, background, middle, middle,
        0.0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, 0.0,
    )  # fmt: skip
