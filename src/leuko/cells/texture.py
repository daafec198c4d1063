"""Show a cell in other ways than the camera did: without texture, without detail.

Fine texture is what differs most between laboratories: lens, focus, sharpening and compression all
write into it, and a network that has seen one laboratory reads them as chromatin. Shape, size and
the mean colours of nucleus and cytoplasm travel better. A model may therefore look at a picture in
several styles, with one network, and average what it says; see docs/decisions/0018.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from leuko.cells.morphometry import measure_cell
from leuko.cells.view import GROUND, CellView, look_at, soften
from leuko.imaging.preprocess import PreprocessSpec

__all__ = ["FLAT", "SOFT", "FirstView", "Texture", "first_view", "views", "with_texture"]

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Texture:
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


class FirstView(NamedTuple):
    """The first of a network's inputs, and what gives the rest when it is wanted.

    Attributes
    ----------
    pixels : (h, w, 3) uint8
        RGB 0-255.
    others : callable
        Gives the inputs of the other styles, in order.
    measures : callable
        Gives the numbers of `leuko.cells.morphometry.measure_cell`; None where there is no cell, or
        none is looked for.
    """

    pixels: Pixels
    others: Callable[[], list[Pixels]]
    measures: Callable[[], npt.NDArray[np.float64] | None]


FLAT: Final = Texture()
"""Every region in its mean colour: outlines, sizes and two colours."""

SOFT: Final = Texture(nucleus=0.5, cytoplasm=1.0, blur=0.47)
"""What a weak lens would show: granules as a tint, chromatin as a shade."""

_STYLES: Final = {"flat": FLAT, "soft": SOFT}

_LEAST: Final = 4
"""Pixels that a region needs to have a colour of its own."""


def views(pixels: Pixels, spec: PreprocessSpec) -> Pixels:
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
    seen = first_view(pixels, spec)
    return np.stack([seen.pixels, *seen.others()])


def first_view(pixels: Pixels, spec: PreprocessSpec) -> FirstView:
    """Make the first of a network's inputs, and put off the rest until it is asked for.

    Parameters
    ----------
    pixels, spec
        See `views`.

    Returns
    -------
    FirstView
        See there.
    """
    if spec.view == "centre":
        return FirstView(spec.apply(pixels), list, lambda: None)
    view, plain = look_at(pixels, spec)
    scale = spec.size[0] / spec.width

    def others() -> list[Pixels]:
        return [with_texture(view, _STYLES[name], scale) for name in spec.styles[1:]]

    return FirstView(plain, others, lambda: measure_cell(view, scale))


def with_texture(view: CellView, style: Texture, scale: float) -> Pixels:
    """Show a view of a cell in a style.

    Parameters
    ----------
    view : CellView
        From `leuko.cells.view.cell_view`.
    style : Texture
        How much texture is left.
    scale : float
        Pixels of the view to a micrometre.

    Returns
    -------
    (h, h, 3) uint8
        The view itself where there is no nucleus in it.
    """
    nucleus, cell = view.nucleus, np.maximum(view.cell, view.nucleus)
    inner, outer = _mean(view.pixels, nucleus), _mean(view.pixels, cell - nucleus)
    if inner is None:
        return view.pixels
    nucleus, cell = soften(nucleus, scale), soften(cell, scale)
    cell = np.maximum(cell, nucleus)
    rest = cell - nucleus
    colours = np.array([inner, inner if outer is None else outer, (GROUND,) * 3]) / 255
    left = np.array([style.nucleus, style.cytoplasm, 0.0])
    plain = cv2.transform(cv2.merge([nucleus, rest, 255 - cell]), (colours * (1 - left)[:, None]).T)
    if not left.any():
        return np.asarray(plain, np.uint8)
    seen: Any = view.pixels
    if style.blur > 0:
        seen = cv2.GaussianBlur(seen, (0, 0), style.blur * scale)
    share = cv2.addWeighted(nucleus, style.nucleus, rest, style.cytoplasm, 0)
    texture = cv2.multiply(seen, cv2.merge([share] * 3), scale=1 / 255)
    return np.asarray(cv2.add(plain, texture), np.uint8)


def _mean(pixels: Pixels, mask: Mask) -> tuple[float, ...] | None:
    """Mean colour where a mask is more than half, or None where that is hardly anywhere."""
    inside = cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY)[1]
    if cv2.countNonZero(inside) < _LEAST:
        return None
    return cv2.mean(pixels, inside)[:3]
