"""Where on a slide cells lie one layer thin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from leuko.cells.detector import Box

__all__ = ["Tissue"]


@dataclass(frozen=True)
class Tissue:
    """A coarse map of a picture.

    Attributes
    ----------
    grid : (h, w) bool
        True where cells lie one layer thin.
    step : float
        Pixels of the picture to one of the grid, along a side.
    """

    grid: npt.NDArray[np.bool_]
    step: float

    def touches(self, box: Box) -> bool:
        """Whether any of it lies in a box.

        Parameters
        ----------
        box : (int, int, int, int)
            In pixels of the picture.

        Returns
        -------
        bool
        """
        row0, col0 = (math.floor(start / self.step) for start in box[:2])
        row1, col1 = (math.ceil(end / self.step) for end in box[2:])
        return bool(self.grid[row0:row1, col0:col1].any())
