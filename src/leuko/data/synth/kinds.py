"""Every kind of cell that can be drawn, by name."""

from __future__ import annotations

from typing import Final

import numpy as np

from leuko.data.synth.blood import Patch, paint_platelet
from leuko.data.synth.cells import PAINTERS, Painter
from leuko.data.synth.precursors import PRECURSORS
from leuko.data.synth.style import SlideStyle

__all__ = ["KINDS", "REACH", "paint_cell"]

_PAINTERS: Final[dict[str, Painter]] = {
    **PAINTERS,
    **PRECURSORS,
    "Platelet": paint_platelet,
    "Segmented neutrophil": PAINTERS["Neutrophil"],
}

KINDS: Final = tuple(sorted(_PAINTERS))
"""Names of the classes that `paint_cell` draws."""

REACH: Final = {
    "Band neutrophil": 7.2,
    "Basophil": 7.0,
    "Blast": 8.8,
    "Eosinophil": 7.6,
    "Erythroblast": 6.4,
    "Immature granulocyte": 9.4,
    "Lymphocyte": 5.4,
    "Metamyelocyte": 7.8,
    "Monocyte": 9.0,
    "Myelocyte": 8.4,
    "Neutrophil": 7.0,
    "Platelet": 2.0,
    "Promyelocyte": 9.6,
    "Segmented neutrophil": 7.0,
}
"""Radius in micrometres that placement keeps free for a cell of each class."""


def paint_cell(
    name: str,
    rng: np.random.Generator,
    style: SlideStyle,
    scale: float,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Patch:
    """Draw one cell.

    Parameters
    ----------
    name : str
        One of `KINDS`.
    rng : numpy.random.Generator
        Source of randomness.
    style : SlideStyle
        The slide it lies on.
    scale : float
        Pixels per micrometre.
    shift : tuple of 2 floats
        Place of its middle off the middle pixel, in pixels.

    Returns
    -------
    Patch
        The cell on a square patch.
    """
    return _PAINTERS[name](rng, style, scale, shift)
