"""Numbers that a person would measure on a cell: sizes, the nucleus's outline, densities of stain.

They are read off a view of the cell (`leuko.cells.view`), in which the scale is physical and the
empty ground one grey. A network that was taught to see through stain cannot use how deep a stain
is; on one microscope it tells a monocyte's pale nucleus from a lymphocyte's dark one.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.cells.arrays import cv
from leuko.cells.view import GROUND, CellView, soften

__all__ = ["MEASURES", "measure_cell"]

Doubles = npt.NDArray[np.float64]

MEASURES: Final = (
    "nucleus area",
    "cell area",
    "nucleus share",
    "solidity",
    "form factor",
    "nucleus parts",
    "nucleus red",
    "nucleus green",
    "nucleus blue",
    "cytoplasm red",
    "cytoplasm green",
    "cytoplasm blue",
    "red ratio",
    "green ratio",
    "blue ratio",
)
"""What `measure_cell` gives, in order."""

_LEAST: Final = 16
"""Pixels that a region needs to be measured."""

_FAINT: Final = 0.1
"""Optical density that is added below the line of a ratio: an unstained nucleus has none."""

_DENSITY: Final = np.log((GROUND + 1.0) / np.arange(1.0, 257.0).clip(max=GROUND + 1.0)).astype(
    np.float32
)
"""Optical density of every grey level, natural logarithms; 0 is the empty ground, or brighter."""


def measure_cell(view: CellView, scale: float) -> Doubles | None:
    """Measure the cell of a view.

    Parameters
    ----------
    view : CellView
        From `leuko.cells.view.cell_view`.
    scale : float
        Pixels of the view to a micrometre.

    Returns
    -------
    (15,) float64, or None
        See `MEASURES`; None where there is no nucleus. Areas are natural logarithms of square
        micrometres, of what lies in the view. ``nucleus share`` is that of the nucleus in the
        cell's area; ``solidity`` that of the nucleus in the convex hull around all its parts;
        ``form factor`` 4 pi area / perimeter², 1 for a disc (Cox, "A method of assigning numerical
        and percentage values to the degree of roundness of sand grains", 1927). Colours are mean
        optical densities against the empty ground, in natural logarithms, and ratios the
        cytoplasm's over the nucleus's. A cell without visible cytoplasm has that of a ring of two
        pixels around its nucleus.
    """
    nucleus = _inside(view.nucleus, scale)
    area = cv2.countNonZero(nucleus)
    if area < _LEAST:
        return None
    cell = cv2.bitwise_or(_inside(view.cell, scale), nucleus)
    rest = cv2.subtract(cell, nucleus)
    if cv2.countNonZero(rest) < _LEAST:
        rest = cv2.subtract(cv2.dilate(nucleus, np.ones((5, 5), np.uint8)), nucleus)
    outlines, _ = cv2.findContours(nucleus, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    around = sum(cv.arcLength(outline, True) for outline in outlines)
    hull = cv2.contourArea(cv2.convexHull(np.concatenate([*outlines])))
    whole = cv2.countNonZero(cell)
    density: Any = cv2.LUT(view.pixels, cv2.merge([_DENSITY] * 3).reshape(1, 256, 3))
    inner = np.array(cv2.mean(density, nucleus)[:3])
    outer = np.array(cv2.mean(density, rest)[:3])
    return np.array(
        [
            np.log(area / scale**2),
            np.log(whole / scale**2),
            area / whole,
            area / max(hull, area),
            4 * np.pi * area / max(around, 1.0) ** 2,
            len(outlines),
            *inner,
            *outer,
            *(outer / (inner + _FAINT)),
        ]
    )


def _inside(mask: Any, scale: float) -> Any:
    """255 where a mask is more than half, the steps of its outline taken out."""
    return cv2.threshold(soften(mask, scale), 127, 255, cv2.THRESH_BINARY)[1]
