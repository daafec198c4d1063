"""How a network sees a picture: the middle of it, or the cell that is in it.

Training, prediction and fields all come through `prepare`. The views of a cell are cut at one
physical scale, and the slide's empty ground is brought to one grey, which takes the lamp and the
camera's white balance out of the picture. ``cell-alone`` also lays that grey over everything but
the cell: red cells, neighbours and dirt tell the slide, and a slide tells the class in Raabin-WBC.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from leuko.cells.crop import canonical_crop
from leuko.cells.finding import CellFinding, Mask, Pixels
from leuko.cells.segment import find_cell
from leuko.imaging.preprocess import PreprocessSpec

__all__ = [
    "GROUND",
    "CellView",
    "cell_view",
    "lay_ground",
    "look_at",
    "prepare",
    "soften",
]

GROUND: Final = 240
"""Grey level that the empty slide is brought to."""

_DARKEST: Final = 60.0
"""A ground darker than this is no ground; it is not brightened further."""

_OUTLINE: Final = 0.3
"""Micrometres by which outlines are softened: the finder's masks are coarse, and their steps are as
long as the picture's pixels, which would tell one camera from another."""

_RIM: Final = 0.35
"""Micrometres of surroundings that are kept around a cell."""


class CellView(NamedTuple):
    """A cell in its frame, on a ground of one grey.

    Attributes
    ----------
    pixels : (h, h, 3) uint8, RGB
        The crop.
    around : (h, h) uint8
        255 on the cell and a soft rim around it; 255 everywhere where no cell was found.
    cell, nucleus : (h, h) uint8
        255 on the cell, or its nucleus, without a rim; 0 everywhere where no cell was found.
    """

    pixels: Pixels
    around: Mask
    cell: Mask
    nucleus: Mask


def prepare(pixels: Pixels, spec: PreprocessSpec) -> Pixels:
    """Make a network's first input out of a picture: the picture as it is, not in another style.

    See `leuko.cells.texture.views` for all of them.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        A decoded picture.
    spec : PreprocessSpec
        Says which view.

    Returns
    -------
    (h, w, 3) uint8
        The network's input, RGB 0-255.
    """
    return spec.apply(pixels) if spec.view == "centre" else look_at(pixels, spec)[1]


def look_at(pixels: Pixels, spec: PreprocessSpec) -> tuple[CellView, Pixels]:
    """Find the cell of a picture and cut it out.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        A decoded picture.
    spec : PreprocessSpec
        Of a view of the cell.

    Returns
    -------
    view : CellView
        With its masks.
    plain : (h, h, 3) uint8, RGB
        What `prepare` gives.
    """
    view = cell_view(pixels, find_cell(pixels), spec)
    alone = spec.view == "cell-alone"
    return view, lay_ground(view.pixels, view.around) if alone else view.pixels


def cell_view(
    pixels: Pixels,
    finding: CellFinding,
    spec: PreprocessSpec,
    *,
    warp: npt.NDArray[np.float64] | None = None,
) -> CellView:
    """Cut a cell out at one scale, on a ground of one grey.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        The picture that `finding` was found in.
    finding : CellFinding
        The cell, or that there is none.
    spec : PreprocessSpec
        Size and width of the view.
    warp : (2, 3) array, optional
        See `leuko.cells.crop.canonical_crop`.

    Returns
    -------
    CellView
        The crop and its masks.
    """
    crop = canonical_crop(pixels, finding, spec, warp=warp)
    ground = np.maximum(np.array(finding.background, np.float64), _DARKEST)
    levels = np.clip(np.arange(256)[:, None] * (GROUND / ground), 0, 255)
    table = np.round(levels).astype(np.uint8).reshape(1, 256, 3)
    view = np.asarray(cv2.LUT(crop.pixels, table), np.uint8)
    if not finding.found:
        return CellView(view, np.full(view.shape[:2], 255, np.uint8), crop.cell, crop.nucleus)
    rim = _RIM * spec.size[0] / spec.width
    reach = 2 * max(1, round(rim)) + 1
    around = cv2.dilate(crop.cell, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    soft = cv2.GaussianBlur(around, (0, 0), max(0.6, rim / 2))
    return CellView(view, np.asarray(soft, np.uint8), crop.cell, crop.nucleus)


def lay_ground(view: Pixels, cell: Mask, ground: npt.NDArray[np.uint8] | float = GROUND) -> Pixels:
    """Lay a ground over everything but the cell.

    Parameters
    ----------
    view : (h, w, 3) uint8, RGB
        A view of a cell.
    cell : (h, w) uint8
        Its mask, 255 where the view stays.
    ground : (h, w, 3) uint8 or float
        A picture, or one grey level.

    Returns
    -------
    (h, w, 3) uint8
        The cell on its new ground.
    """
    under = np.full_like(view, round(ground)) if isinstance(ground, float | int) else ground
    share = cv2.merge([cell, cell, cell])
    kept = cv2.multiply(view, share, scale=1 / 255)
    return np.asarray(cv2.add(kept, cv2.multiply(under, 255 - share, scale=1 / 255)), np.uint8)


def soften(mask: Mask, scale: float) -> Mask:
    """Take the steps out of an outline.

    Parameters
    ----------
    mask : (h, w) uint8
        0 to 255.
    scale : float
        Pixels to a micrometre.

    Returns
    -------
    (h, w) uint8
        The mask, blurred by 0.3 micrometres.
    """
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), _OUTLINE * scale), np.uint8)
