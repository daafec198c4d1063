"""Red cells and platelets, and what everything drawn on a small patch is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from leuko.data.synth.shapes import Grid, Image, coverage, ellipse, granules
from leuko.data.synth.style import SlideStyle

__all__ = ["EDGE", "Patch", "mix_dyes", "paint_platelet", "paint_red_cell"]

EDGE: Final = 0.35
"""Width of a soft edge, in micrometres."""


@dataclass(frozen=True, slots=True)
class Patch:
    """Something drawn on its own small patch.

    Attributes
    ----------
    density : (N, N, 3) float32
        Optical density in red, green and blue.
    alpha : (N, N) float32
        Share of each pixel that the thing covers, 0 to 1.
    nucleus : (N, N) bool
        The nucleus, inside ``cell``. Empty for red cells and platelets.
    cell : (N, N) bool
        The whole thing.
    lobes : int
        Lobes of the nucleus; 0 without a nucleus.
    """

    density: npt.NDArray[np.float32]
    alpha: Image
    nucleus: npt.NDArray[np.bool_]
    cell: npt.NDArray[np.bool_]
    lobes: int


def mix_dyes(
    style: SlideStyle, chromatin: Image, eosin: Image, azure: Image
) -> npt.NDArray[np.float32]:
    """Optical density of amounts of the three dyes.

    Parameters
    ----------
    style : SlideStyle
        The slide: what each dye absorbs, and how much of it the slide took up.
    chromatin, eosin, azure : (N, N) float32
        Amount of each dye; below zero counts as zero.

    Returns
    -------
    (N, N, 3) float32
        Optical density in red, green and blue.
    """
    vectors = np.array(
        [
            np.multiply(style.chromatin, style.chromatin_strength),
            np.multiply(style.eosin, style.eosin_strength),
            np.multiply(style.azure, style.azure_strength),
        ],
        dtype=np.float32,
    )
    amounts = np.stack([chromatin, eosin, azure], axis=-1)
    density: npt.NDArray[np.float32] = np.maximum(amounts, 0.0) @ vectors
    return density


def paint_red_cell(
    rng: np.random.Generator,
    style: SlideStyle,
    rows: Image,
    cols: Image,
    radius: float,
) -> tuple[Image, npt.NDArray[np.bool_]]:
    """Draw one red cell: a disc with a pale centre.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    style : SlideStyle
        The slide it lies on.
    rows : (H, 1) float32
        Position of each row of pixels in micrometres, measured from the middle of the cell.
    cols : (1, W) float32
        Position of each column.
    radius : float
        Mean radius in micrometres; the cell reaches at most 1.45 times as far.

    Returns
    -------
    amount : (H, W) float32
        Amount of haemoglobin.
    cell : (H, W) bool
        The cell.
    """
    angle = rng.uniform(0.0, 2.0 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    stretch = min(float(np.exp(0.075 * style.red_irregularity * abs(rng.normal()))), 1.3)
    wobble = 0.024 * style.red_irregularity * np.clip(rng.normal(0.0, 1.0, 3), -2.0, 2.0)
    tail = 0.3 if rng.random() < 0.012 * style.red_irregularity else 0.0
    pallor = style.red_pallor * rng.uniform(0.55, 1.25) if rng.random() < 0.9 else 0.08
    width, edge = rng.uniform(0.36, 0.56), rng.uniform(0.25, 0.75)
    centre = rng.normal(0.0, 0.05, 2) * radius
    amount = 0.265 * style.red_strength * rng.normal(1.0, 0.08)

    along = cols * np.float32(cos / stretch) + rows * np.float32(sin / stretch)
    beside = rows * np.float32(cos * stretch) - cols * np.float32(sin * stretch)
    length = np.sqrt(along * along + beside * beside) + np.float32(1e-3)
    unit, other = along / length, beside / length
    cross = unit * other
    outline = unit * unit * np.float32(4.0 * wobble[0]) - np.float32(3.0 * wobble[0])
    outline *= unit
    outline += cross * np.float32(2.0 * wobble[1])
    outline += cross * cross * np.float32(3.0 * wobble[2])
    outline += np.float32(1.0)
    if tail:
        outline += np.float32(tail) * np.power(np.maximum(unit, 0.0), 9)
    outline *= np.float32(radius)
    share = length / outline
    alpha = coverage((share - np.float32(1.0)) * np.float32(radius), EDGE)
    middle = np.hypot(along - np.float32(centre[0]), beside - np.float32(centre[1]))
    inner = coverage(middle - np.float32(width * radius), edge * radius)
    body = np.float32(1.0) - np.float32(min(pallor, 0.93)) * inner
    share *= share
    np.minimum(share, np.float32(1.0), out=share)
    body *= np.float32(0.93) + np.float32(0.13) * share
    body *= alpha
    body *= np.float32(amount)
    return body, alpha > 0.5


def paint_platelet(
    rng: np.random.Generator,
    style: SlideStyle,
    scale: float,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Patch:
    """Draw one platelet: a small, fuzzy, granular purple body.

    Parameters
    ----------
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
        The platelet on a square patch; ``nucleus`` is empty.
    """
    radius = float(np.clip(rng.normal(1.25, 0.3), 0.7, 2.2))
    grid = Grid.around(2.0 * radius, scale, shift)
    wander = grid.warped(rng, length=0.6, amount=0.20 * radius)
    ratio = rng.uniform(1.0, 1.5)
    shape = ellipse(wander, 0.0, 0.0, radius * ratio**0.5, radius / ratio**0.5,
                    rng.uniform(0.0, np.pi))  # fmt: skip
    alpha = coverage(shape, 0.6)
    heart = coverage(shape + np.float32(0.45 * radius), 0.9 * radius)
    grains = granules(rng, grid, spacing=0.6, radius=0.24, sharpness=1.6)
    amount = rng.uniform(0.8, 1.25)
    chromatin = np.float32(amount) * heart * (np.float32(0.16) + np.float32(0.30) * grains)
    azure = np.float32(0.10 * amount) * alpha
    density = mix_dyes(style, chromatin, np.zeros_like(alpha), azure)
    cell = shape < 0
    return Patch(density, alpha, np.zeros_like(cell), cell, 0)
