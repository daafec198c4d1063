"""Show a cell in other ways than the camera did: without texture, without detail.

Fine texture is what differs most between laboratories: lens, focus, sharpening and compression all
write into it, and a network that has seen one laboratory reads them as chromatin. Shape, size and
the mean colours of nucleus and cytoplasm travel better. A model may therefore look at a picture in
several styles, with one network, and average what it says; see docs/decisions/0018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.cells.view import CellView, lay_ground, look_at
from leuko.imaging import PreprocessSpec

__all__ = ["FLAT", "SOFT", "Style", "looks", "styled"]

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Style:
    """How much of a cell's texture is shown, on an empty ground.

    Attributes
    ----------
    nucleus, cytoplasm : float
        Share of the texture that is left, 0 to 1; the rest is the region's mean colour.
    blur : float
        Standard deviation of the blur of what is left, in micrometres.
    """

    nucleus: float = 0.0
    cytoplasm: float = 0.0
    blur: float = 0.0


FLAT: Final = Style()
"""Every region in its mean colour: outlines, sizes and two colours."""

SOFT: Final = Style(nucleus=0.5, cytoplasm=1.0, blur=0.47)
"""What a weak lens would show: granules as a tint, chromatin as a shade."""

_STYLES: Final = {"flat": FLAT, "soft": SOFT}

_LEAST: Final = 4
"""Pixels that a region needs to have a colour of its own."""


def looks(pixels: Pixels, spec: PreprocessSpec) -> Pixels:
    """Make a network's inputs out of a picture, one for each style of its preprocessing.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        A decoded picture.
    spec : PreprocessSpec
        Says which view and which styles.

    Returns
    -------
    (K, h, w, 3) uint8
        RGB 0-255, in the order of ``spec.styles``.
    """
    if spec.view == "centre":
        return spec.apply(pixels)[None]
    view, plain = look_at(pixels, spec)
    scale = spec.size[0] / spec.width
    return np.stack(
        [plain if name == "plain" else styled(view, _STYLES[name], scale) for name in spec.styles]
    )


def styled(view: CellView, style: Style, scale: float) -> Pixels:
    """Show a view of a cell in a style.

    Parameters
    ----------
    view : CellView
        From `leuko.cells.view.cell_view`.
    style : Style
        How much texture is left.
    scale : float
        Pixels of the view to a micrometre.

    Returns
    -------
    (h, h, 3) uint8
        The view itself where there is no nucleus in it.
    """
    nucleus = view.nucleus
    cell = np.maximum(view.cell, nucleus)
    inner, outer = _mean(view.pixels, nucleus), _mean(view.pixels, cell - nucleus)
    if inner is None:
        return view.pixels
    seen = view.pixels
    if style.blur > 0 and max(style.nucleus, style.cytoplasm) > 0:
        seen = np.asarray(cv2.GaussianBlur(seen, (0, 0), style.blur * scale), np.uint8)
    middle = _faded(seen, inner, style.nucleus)
    rest = _faded(seen, inner if outer is None else outer, style.cytoplasm)
    return lay_ground(lay_ground(middle, nucleus, rest), cell)


def _mean(pixels: Pixels, mask: npt.NDArray[np.uint8]) -> tuple[float, ...] | None:
    """Mean colour where a mask is more than half, or None where that is hardly anywhere."""
    inside = cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY)[1]
    if cv2.countNonZero(inside) < _LEAST:
        return None
    return cv2.mean(pixels, inside)[:3]


def _faded(pixels: Pixels, colour: tuple[float, ...], left: float) -> Pixels:
    """Fade a picture towards one colour."""
    plain = np.empty_like(pixels)
    plain[:] = [round(level) for level in colour]
    return plain if left == 0 else np.asarray(cv2.addWeighted(pixels, left, plain, 1 - left, 0))
