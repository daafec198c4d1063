"""See the cell, not the slide: find the white cell of a picture and cut it out at one scale.

The functions and their signatures, which do not change:

`find_cell(pixels) -> CellFinding`
    The white cell of interest of a single-cell picture: its nucleus, the whole cell, their centres
    and diameters, the picture's scale. ``finding.found`` is false, with a reason, where there is
    none.
`canonical_crop(pixels, finding, spec, *, warp=None) -> CanonicalCrop`
    The picture of one cell in the frame that a `PreprocessSpec` describes, with the cell's mask in
    the same frame and the matrix between the two. Training, prediction and fields all cut through
    it.

Everything works on a reduced copy of the picture, with NumPy and OpenCV alone. Nothing is trained:
the nucleus is found on one axis of colour that no lamp and no exposure can move (see
`leuko.cells.colour`).
"""

from __future__ import annotations

from leuko.cells.crop import CanonicalCrop, canonical_crop
from leuko.cells.finding import CellFinding
from leuko.cells.segment import find_cell

__all__ = [
    "CanonicalCrop",
    "CellFinding",
    "canonical_crop",
    "find_cell",
]
