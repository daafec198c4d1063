"""What another laboratory may do to a cell: other ground, other stain, other light, other camera.

Every change is drawn wide on purpose. A network can only lean on what survives all of them, and
that is the shape of the nucleus, the granules and the cytoplasm.

References
----------
D. Tellez et al., "Quantifying the effects of data augmentation and stain color normalization in
convolutional neural networks for computational pathology", Medical Image Analysis 58, 2019.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.cells.texture import Texture, with_texture
from leuko.cells.view import CellView, lay_ground
from leuko.recipe import AugmentSettings

__all__ = ["ground_warp", "randomised", "randomised_warp", "sampled_texture"]

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]

_DENSITY: Final = np.ascontiguousarray(
    np.repeat((-np.log((np.arange(256) + 1) / 256)).astype(np.float32)[None, :, None], 3, axis=2)
)
"""(1, 256, 3) float32: optical density of each pixel value."""

_GREY: Final = np.full((3, 3), 1 / 3)
"""Projects a colour's densities on the axis of greys."""

_TURN: Final = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / np.sqrt(3)
"""Turns densities about the axis of greys."""

_LITTLE: Final = (0.0, 0.0, 0.3)
"""Texture that is left in draws of the style ``flat``."""

_PIVOT: Final = 0.7
"""Density that a change of contrast leaves where it is: that of an ordinary nucleus."""


def randomised_warp(
    side: int, settings: AugmentSettings, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw a turn, a mirror, a scale and a shift of a view; the finder's errors are among them.

    Parameters
    ----------
    side : int
        Rows and columns of the view.
    settings : AugmentSettings
        Its ``scale`` and ``shift``.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    (2, 3) float64
        For `leuko.cells.view.cell_view`.
    """
    angle = rng.uniform(0.0, 2 * np.pi)
    stretch = np.exp(rng.normal(0.0, settings.scale / 3))
    zoom = np.exp(rng.normal(0.0, settings.scale)) * np.array([stretch, 1 / stretch])
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    shift = rng.uniform(-settings.shift, settings.shift, 2) * side
    cosine, sine = np.cos(angle), np.sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([mirror, 1.0]) @ np.diag(zoom)
    middle = np.full(2, (side - 1) / 2)
    return np.column_stack([linear, middle + shift - linear @ middle])


def randomised(
    view: CellView,
    settings: AugmentSettings,
    rng: np.random.Generator,
    *,
    style: Texture | None = None,
    scale: float = 1.0,
    other: Pixels | None = None,
) -> Pixels:
    """Show a cell as another laboratory might.

    Parameters
    ----------
    view : CellView
        From `leuko.cells.view.cell_view`, warped already.
    settings : AugmentSettings
        Its ``alone``, ``swap`` and ``stain``.
    rng : numpy.random.Generator
        Source of every draw.
    style : Texture, optional
        How much texture is left; from `sampled_texture`.
    scale : float
        Pixels of the view to a micrometre, for a style's blur.
    other : (h, h, 3) uint8, optional
        Surroundings of another cell; laid behind this one where it has no style.

    Returns
    -------
    (h, h, 3) uint8
        The network's input.
    """
    seen, chance = view.pixels, rng.random()
    if style is not None:
        judged = view._replace(
            cell=_misjudged(view.cell, rng), nucleus=_misjudged(view.nucleus, rng)
        )
        seen = with_texture(judged, style, scale)
    elif other is not None:
        seen = lay_ground(seen, _misjudged(view.around, rng), other)
    elif chance < settings.alone / max(1e-9, 1 - settings.swap):
        seen = lay_ground(seen, _misjudged(view.around, rng))
    seen = _recoloured(seen, settings.stain, rng)
    return _rephotographed(seen, rng)


def sampled_texture(settings: AugmentSettings, rng: np.random.Generator) -> Texture | None:
    """Draw a style near those that prediction uses, or none.

    Parameters
    ----------
    settings : AugmentSettings
        Its ``flat`` and ``soft``.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    Texture or None
        None in the remaining share of draws.
    """
    if settings.flat + settings.soft == 0:
        return None
    chance = rng.random()
    if chance < settings.flat:
        nucleus, cytoplasm = rng.choice(_LITTLE, 2)
        return Texture(float(nucleus), float(cytoplasm))
    if chance < settings.flat + settings.soft:
        return Texture(rng.uniform(0.3, 1.0), 1.0, rng.uniform(0.3, 0.6))
    return None


def _misjudged(cell: Mask, rng: np.random.Generator) -> Mask:
    """Let half of the masks be too wide or too tight, as a finder's are."""
    if rng.random() < 0.5:
        return cell
    reach = int(rng.integers(1, 2 + cell.shape[0] // 25))
    wider = rng.random() < 0.6
    changed = (cv2.dilate if wider else cv2.erode)(cell, np.ones((reach, reach), np.uint8))
    return np.asarray(changed, np.uint8)


def _recoloured(view: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    """Mix, turn, saturate and strengthen optical densities; then contrast and light."""
    mixing = np.eye(3) + rng.normal(0.0, deviation, (3, 3))
    angle, more = rng.normal(0.0, 3 * deviation), np.exp(rng.normal(0.0, 3 * deviation))
    turn = _GREY + np.cos(angle) * (np.eye(3) - _GREY) + np.sin(angle) * _TURN
    saturate = _GREY + more * (np.eye(3) - _GREY)
    strength = np.exp(rng.normal(0.0, 2.75 * deviation))
    light = np.exp(rng.normal(0.0, deviation) + rng.normal(0.0, 0.75 * deviation, 3))
    power = float(np.exp(rng.normal(0.0, 1.9 * deviation)))
    matrix = (strength * saturate @ turn @ mixing).astype(np.float32)
    density = np.maximum(cv2.transform(cv2.LUT(view, _DENSITY), matrix), np.float32(0))
    density = cv2.pow(density, power) * np.float32(_PIVOT ** (1 - power))
    levels = cv2.exp(-density) * (256.0 * light).astype(np.float32) - np.float32(1)
    return np.asarray(np.clip(levels, 0, 255), np.uint8)


def _rephotographed(view: Pixels, rng: np.random.Generator) -> Pixels:
    """Blur or sharpen, lose resolution, compress, add noise: each now and then."""
    side = view.shape[0]
    chance = rng.random(5)
    seen: Any = view
    if chance[0] < 0.3:
        seen = cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.4, 1.8) * side / 128)
    elif chance[0] < 0.5:
        soft = cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.6, 1.5) * side / 128)
        gain = rng.uniform(0.4, 2.0)
        seen = cv2.addWeighted(seen, 1 + gain, soft, -gain, 0)
    if chance[1] < 0.2:
        less = int(side * rng.uniform(0.3, 0.7))
        small = cv2.resize(seen, (less, less), interpolation=cv2.INTER_AREA)
        how = cv2.INTER_LINEAR if chance[2] < 0.5 else cv2.INTER_CUBIC
        seen = cv2.resize(small, (side, side), interpolation=how)
    if chance[3] < 0.2:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))]
        seen = cv2.imdecode(cv2.imencode(".jpg", seen, quality)[1], cv2.IMREAD_COLOR)
    if chance[4] < 0.2:
        noise = rng.normal(0.0, rng.uniform(1.0, 8.0), view.shape).astype(np.float32)
        seen = np.clip(seen + noise, 0, 255)
    return np.asarray(seen, np.uint8)


def ground_warp(side: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw a warp that shows what stands beside a cell instead of the cell.

    Parameters
    ----------
    side : int
        Rows and columns of the view.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    (2, 3) float64
        For `leuko.cells.view.cell_view`.
    """
    angle = rng.uniform(0.0, 2 * np.pi)
    away = rng.uniform(0.35, 0.5, 2) * np.where(rng.random(2) < 0.5, -1, 1) * side
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.full(2, (side - 1) / 2)
    return np.column_stack([turn, middle + away - turn @ middle])
