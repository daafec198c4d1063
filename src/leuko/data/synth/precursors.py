"""Bands, immature granulocytes, blasts and erythroblasts, as amounts of dye on a small patch.

Sizes and looks are those of textbooks of haematology (Bain, Blood Cells, 5th edition, chapter 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from leuko.data.synth.blood import EDGE, Patch
from leuko.data.synth.cells import Painter, lay_neutrophil
from leuko.data.synth.parts import (
    Lobes,
    Nucleus,
    body_outline,
    chain,
    chromatin_of,
    depth,
    finish,
)
from leuko.data.synth.shapes import Grid, Image, coverage, ellipse, granules, smooth_max, texture
from leuko.data.synth.style import SlideStyle

__all__ = ["PRECURSORS"]


def _band(
    rng: np.random.Generator, style: SlideStyle, scale: float, shift: tuple[float, float]
) -> Patch:
    radius = float(np.clip(rng.normal(6.5, 0.45), 5.3, 7.8))
    grid = Grid.around(1.3 * radius, scale, shift)
    body = body_outline(rng, grid, radius, ruffle=rng.uniform(0.2, 0.7))
    area = float(np.clip(rng.normal(43.0, 4.5), 33.0, 54.0)) * (radius / 6.2) ** 1.2
    nucleus = _bent(rng, grid, body, area, thick=rng.uniform(1.25, 1.6), bend=rng.uniform(1.2, 2.2))
    chromatin = chromatin_of(
        rng, grid, nucleus, 0.98 * rng.normal(1.0, 0.05), clump=0.45, contrast=0.10
    )
    return lay_neutrophil(rng, style, grid, body, nucleus, chromatin)


def _bent(
    rng: np.random.Generator,
    grid: Grid,
    body: Image,
    area: float,
    *,
    thick: float,
    bend: float,
) -> Nucleus:
    """A nucleus of even thickness along an arc: `bend` radians to either side of its middle."""
    length = max(area - np.pi * thick**2, thick) / (2.0 * thick)
    ring = length / (2.0 * bend)
    count = 9
    angles = rng.uniform(0.0, 2.0 * np.pi) + np.linspace(-bend, bend, count)
    centres = ring * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    centres -= 0.9 * centres.mean(axis=0) + rng.normal(0.0, 0.3, 2)
    sizes = thick * rng.uniform(0.88, 1.12, count)
    wander = grid.warped(rng, length=1.3, amount=0.2)
    drawn = chain(
        rng, wander, Lobes(centres, sizes, angles + np.pi / 2.0), bridge=0.85 * thick,
        fillet=0.9, stretch=(1.0, 1.15), layered=False,
    )  # fmt: skip
    return Nucleus(smooth_max(drawn.distance, body + np.float32(0.4), 0.5), None, 1)


def _round(
    rng: np.random.Generator, grid: Grid, body: Image, core: float, *, off: float, dent: float
) -> Nucleus:
    """A round nucleus `off` micrometres from the middle; `dent` is a share of its radius."""
    aside = rng.uniform(0.0, 2.0 * np.pi)
    row, col = off * np.sin(aside), off * np.cos(aside)
    wander = grid.warped(rng, length=1.6, amount=0.05 * core)
    ratio = rng.uniform(1.0, 1.18)
    distance = ellipse(
        wander, row, col, core * ratio**0.5, core / ratio**0.5, rng.uniform(0.0, np.pi)
    )
    if dent > 0:
        # On the side of the cell's middle, as the nucleus leaves room for the Golgi zone there.
        angle = aside + np.pi + rng.normal(0.0, 0.4)
        reach = core * (1.55 - dent)
        hollow = ellipse(
            wander, row + reach * np.sin(angle), col + reach * np.cos(angle),
            0.75 * core, 0.6 * core, angle + np.pi / 2.0,
        )  # fmt: skip
        distance = smooth_max(distance, -hollow, 0.9)
    return Nucleus(smooth_max(distance, body + np.float32(0.3), 0.5), None, 1)


@dataclass(frozen=True, slots=True)
class _Stage:
    """How a granulocyte looks on its way to a band; of two numbers, any between them is drawn.

    Attributes
    ----------
    radius : tuple of 4 floats
        Of the cell in micrometres: mean, spread, least and most.
    core : tuple of 2 floats
        Radius of the nucleus, as a share of the cell's.
    off : float
        Distance of the nucleus from the middle, likewise.
    dent : tuple of 2 floats
        Depth of its dent, as a share of its radius.
    chromatin, clump, contrast : float
        Its amount, and its pattern's size in micrometres and strength.
    nucleoli : bool
        Whether they are seen.
    spacing : tuple of 2 floats
        Micrometres between granules.
    grain, sharpness : float
        Radius of a granule in micrometres, and how sharply it ends.
    load, blue : float
        Dye in the granules, and the azure of the cytoplasm.
    """

    radius: tuple[float, float, float, float]
    core: tuple[float, float]
    off: float
    dent: tuple[float, float]
    chromatin: float
    clump: float
    contrast: float
    spacing: tuple[float, float]
    grain: float
    load: float
    blue: float
    sharpness: float = 2.0
    nucleoli: bool = False


_PROMYELOCYTE: Final = _Stage(
    radius=(9.0, 0.6, 7.8, 10.5), core=(0.66, 0.75), off=0.22, dent=(0.0, 0.35),
    chromatin=0.72, clump=0.32, contrast=0.09, nucleoli=True,
    spacing=(0.7, 1.0), grain=0.24, sharpness=2.4, load=0.30, blue=0.085,
)  # fmt: skip

_MYELOCYTE: Final = _Stage(
    radius=(7.8, 0.6, 6.6, 9.2), core=(0.56, 0.66), off=0.3, dent=(0.0, 0.2),
    chromatin=0.85, clump=0.42, contrast=0.12,
    spacing=(0.6, 0.6), grain=0.19, load=0.14, blue=0.05,
)  # fmt: skip

_METAMYELOCYTE: Final = _Stage(
    radius=(7.2, 0.5, 6.0, 8.4), core=(0.58, 0.66), off=0.28, dent=(0.5, 0.85),
    chromatin=0.92, clump=0.45, contrast=0.12,
    spacing=(0.55, 0.55), grain=0.17, load=0.10, blue=0.032,
)  # fmt: skip


def _granulocyte(
    stage: _Stage,
    rng: np.random.Generator,
    style: SlideStyle,
    scale: float,
    shift: tuple[float, float],
) -> Patch:
    """A nucleus in bluish cytoplasm with azurophil granules, clear where the Golgi zone is."""
    mean, spread, least, most = stage.radius
    radius = float(np.clip(rng.normal(mean, spread), least, most))
    grid = Grid.around(1.25 * radius, scale, shift)
    body = body_outline(rng, grid, radius, ruffle=rng.uniform(0.2, 0.7))
    core = radius * rng.uniform(*stage.core)
    nucleus = _round(rng, grid, body, core, off=stage.off * radius, dent=rng.uniform(*stage.dent))
    chromatin = chromatin_of(
        rng, grid, nucleus, stage.chromatin * rng.normal(1.0, 0.06), clump=stage.clump,
        contrast=stage.contrast,
    )  # fmt: skip
    if stage.nucleoli:
        chromatin = chromatin * (np.float32(1.0) - _nucleoli(rng, grid, nucleus, core))
    low, high = stage.spacing
    spacing = rng.uniform(low, high) if low < high else low
    grains = granules(rng, grid, spacing=spacing, radius=stage.grain, sharpness=stage.sharpness)
    tone = rng.normal(1.0, 0.12)
    cloud = np.float32(1.0) + np.float32(0.16) * texture(rng, grid.rows.shape, 0.8 * grid.scale)
    cloud *= np.float32(1.1) - np.float32(0.25) * depth(body, 2.0)
    plain = coverage(body + np.float32(0.2), EDGE) * (
        np.float32(1.0) - np.float32(0.6) * coverage(nucleus.distance, EDGE)
    )
    chromatin = chromatin + plain * (
        np.float32(stage.load * rng.uniform(0.7, 1.2)) * grains + np.float32(0.035 * tone) * cloud
    )
    azure = np.float32(stage.blue * tone) * cloud
    eosin = np.float32(0.05 * tone) * cloud
    return finish(style, body, nucleus, chromatin, eosin, azure, tint=0.05)


def _immature_granulocyte(
    rng: np.random.Generator, style: SlideStyle, scale: float, shift: tuple[float, float]
) -> Patch:
    stage = (_PROMYELOCYTE, _MYELOCYTE, _METAMYELOCYTE)[int(rng.choice(3, p=[0.2, 0.43, 0.37]))]
    return _granulocyte(stage, rng, style, scale, shift)


def _blast(
    rng: np.random.Generator, style: SlideStyle, scale: float, shift: tuple[float, float]
) -> Patch:
    radius = float(np.clip(rng.normal(7.8, 0.8), 6.2, 9.8))
    grid = Grid.around(1.25 * radius, scale, shift)
    body = body_outline(rng, grid, radius, ruffle=rng.uniform(0.1, 0.6))
    core = radius * rng.uniform(0.80, 0.88)
    nucleus = _round(rng, grid, body, core, off=0.08 * radius, dent=rng.uniform(0.0, 0.3))
    chromatin = chromatin_of(
        rng, grid, nucleus, 0.64 * rng.normal(1.0, 0.06), clump=0.26, contrast=0.07
    )
    chromatin = chromatin * (np.float32(1.0) - _nucleoli(rng, grid, nucleus, core))
    tone = float(np.exp(rng.normal(0.0, 0.15)))
    cloud = np.float32(1.0) + np.float32(0.1) * texture(rng, grid.rows.shape, 0.7 * scale)
    azure = np.float32(0.115 * tone) * cloud
    eosin = np.float32(0.012) * cloud
    plain = coverage(body, EDGE) * (1.0 - coverage(nucleus.distance, EDGE))
    chromatin = chromatin + plain * np.float32(0.05 * tone) * cloud
    return finish(style, body, nucleus, chromatin, eosin, azure, tint=0.05)


def _nucleoli(rng: np.random.Generator, grid: Grid, nucleus: Nucleus, core: float) -> Image:
    """Share of the chromatin that one to three pale spots of a nucleus lack."""
    spots = np.zeros_like(nucleus.distance)
    for _ in range(int(rng.integers(1, 4))):
        angle, reach = rng.uniform(0.0, 2.0 * np.pi), core * rng.uniform(0.1, 0.6)
        size = rng.uniform(0.6, 1.0)
        spot = ellipse(
            grid, reach * np.sin(angle), reach * np.cos(angle), 1.15 * size, size / 1.15, angle
        )
        spots = np.maximum(spots, coverage(spot, 0.7))
    result: Image = np.float32(rng.uniform(0.2, 0.35)) * spots
    return result


def _erythroblast(
    rng: np.random.Generator, style: SlideStyle, scale: float, shift: tuple[float, float]
) -> Patch:
    ripe = float(rng.uniform(0.0, 1.0))  # 0: basophilic, a large nucleus; 1: soon without one
    radius = float(np.clip(rng.normal(6.2 - 1.5 * ripe, 0.35), 4.0, 7.2))
    grid = Grid.around(1.35 * radius, scale, shift)
    body = body_outline(rng, grid, radius, ruffle=rng.uniform(0.1, 0.5))
    core = radius * (0.72 - 0.22 * ripe) * rng.uniform(0.94, 1.06)
    nucleus = _round(rng, grid, body, core, off=rng.uniform(0.0, 0.22) * radius, dent=0.0)
    chromatin = chromatin_of(
        rng, grid, nucleus, (1.0 + 0.22 * ripe) * rng.normal(1.0, 0.05), clump=0.6,
        contrast=0.24 - 0.12 * ripe,
    )  # fmt: skip
    tone = rng.normal(1.0, 0.1)
    cloud = np.float32(1.0) + np.float32(0.07) * texture(rng, grid.rows.shape, 1.2 * scale)
    azure = np.float32((0.13 - 0.09 * ripe) * tone) * cloud
    eosin = np.float32((0.04 + 0.10 * ripe) * tone) * cloud
    return finish(style, body, nucleus, chromatin, eosin, azure, veil=0.5, tint=0.06)


PRECURSORS: Final[dict[str, Painter]] = {
    "Band neutrophil": _band,
    "Blast": _blast,
    "Erythroblast": _erythroblast,
    "Immature granulocyte": _immature_granulocyte,
    "Metamyelocyte": partial(_granulocyte, _METAMYELOCYTE),
    "Myelocyte": partial(_granulocyte, _MYELOCYTE),
    "Promyelocyte": partial(_granulocyte, _PROMYELOCYTE),
}
