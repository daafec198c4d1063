"""The five white cells of a differential, as amounts of dye on a small patch.

Sizes are those of textbooks of haematology, brought to the areas measured on Raabin-WBC crops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from leuko.data.synth.blood import EDGE, Patch
from leuko.data.synth.parts import (
    Lobes,
    Nucleus,
    arc,
    body_outline,
    chain,
    chromatin_of,
    depth,
    finish,
)
from leuko.data.synth.shapes import (
    Grid,
    Image,
    coverage,
    ellipse,
    granules,
    smooth_max,
    texture,
)
from leuko.data.synth.style import SlideStyle

__all__ = ["PAINTERS", "Painter", "lay_neutrophil"]


def _neutrophil(
    rng: np.random.Generator, style: SlideStyle, scale: float, shift: tuple[float, float]
) -> Patch:
    radius = float(np.clip(rng.normal(6.35, 0.45), 5.0, 7.6))
    grid = Grid.around(1.3 * radius, scale, shift)
    body = body_outline(rng, grid, radius, ruffle=rng.uniform(0.2, 0.9))
    count = int(rng.choice([2, 3, 4, 5], p=[0.14, 0.40, 0.33, 0.13]))
    area = float(np.clip(rng.normal(42.0, 4.5), 31.0, 54.0)) * (radius / 6.2) ** 1.2
    sizes = np.sqrt(area / (count * np.pi)) * rng.uniform(0.84, 1.16, count)
    gap = 2.0 * float(sizes.mean()) * rng.uniform(0.98, 1.22)
    widest = radius * 0.94 - float(sizes.max())
    ring = float(np.clip(gap * (0.50 + 0.10 * count) * rng.uniform(0.85, 1.15), 1.3, widest))
    curl = -1.0 if rng.random() < 0.25 else 1.0
    centres, tangents = arc(rng, count, ring, gap, curl)
    centres += rng.normal(0.0, 0.25, 2)
    wander = grid.warped(rng, length=0.9, amount=0.16)
    nucleus = chain(rng, wander, Lobes(centres, sizes, tangents), bridge=0.42, fillet=0.55,
                     stretch=(1.05, 1.65))  # fmt: skip
    nucleus = Nucleus(smooth_max(nucleus.distance, body + np.float32(0.35), 0.4),
                       nucleus.overlap, count)  # fmt: skip
    chromatin = chromatin_of(rng, grid, nucleus, 1.06 * rng.normal(1.0, 0.05), clump=0.45,
                           contrast=0.10)  # fmt: skip
    return lay_neutrophil(rng, style, grid, body, nucleus, chromatin)


def lay_neutrophil(
    rng: np.random.Generator,
    style: SlideStyle,
    grid: Grid,
    body: Image,
    nucleus: Nucleus,
    chromatin: Image,
) -> Patch:
    """Lay a nucleus in pale cytoplasm with the fine granules of a neutrophil."""
    shape = grid.rows.shape
    cloud = np.float32(1.0) + np.float32(0.22) * texture(rng, shape, 0.7 * grid.scale)
    fine = granules(rng, grid, spacing=0.52, radius=0.17, sharpness=2.0)
    grain = rng.uniform(0.06, 0.17)
    tone = rng.normal(1.0, 0.14)
    eosin = np.float32(0.070 * tone) * cloud + np.float32(0.45 * grain) * fine
    azure = np.float32(0.022 * tone) * cloud
    plain = coverage(body, EDGE) * (1.0 - coverage(nucleus.distance, EDGE))
    chromatin = chromatin + plain * (
        np.float32(0.045 * tone) * cloud + np.float32(0.75 * grain) * fine
    )
    return finish(style, body, nucleus, chromatin, eosin, azure, tint=0.08)


def _eosinophil(
    rng: np.random.Generator, style: SlideStyle, scale: float, shift: tuple[float, float]
) -> Patch:
    radius = float(np.clip(rng.normal(6.7, 0.5), 5.6, 8.2))
    grid = Grid.around(1.3 * radius, scale, shift)
    body = body_outline(rng, grid, radius, ruffle=rng.uniform(0.3, 1.0))
    count = int(rng.choice([2, 3], p=[0.82, 0.18]))
    area = float(np.clip(rng.normal(47.0, 5.0), 35.0, 62.0)) * (radius / 6.7) ** 1.2
    sizes = np.sqrt(area / (count * np.pi)) * rng.uniform(0.9, 1.1, count)
    gap = 2.0 * float(sizes.mean()) * rng.uniform(1.0, 1.22)
    ring = float(np.clip(gap * rng.uniform(0.56, 0.75), 1.3, radius * 0.92 - sizes.max()))
    centres, tangents = arc(rng, count, ring, gap, 1.0)
    aside = rng.uniform(0.0, 2.0 * np.pi)
    centres += rng.uniform(0.2, 1.3) * np.array([np.sin(aside), np.cos(aside)])
    wander = grid.warped(rng, length=1.1, amount=0.16)
    nucleus = chain(rng, wander, Lobes(centres, sizes, tangents), bridge=0.45, fillet=0.5,
                     stretch=(1.0, 1.4))  # fmt: skip
    nucleus = Nucleus(smooth_max(nucleus.distance, body + np.float32(0.3), 0.5),
                       nucleus.overlap, count)  # fmt: skip
    chromatin = chromatin_of(rng, grid, nucleus, 0.94 * rng.normal(1.0, 0.07), clump=0.45,
                           contrast=0.08)  # fmt: skip
    packed = granules(rng, grid, spacing=rng.uniform(0.72, 0.84), radius=0.32, sharpness=1.5)
    tone = rng.normal(1.0, 0.12)
    slow = np.float32(1.0) + np.float32(0.13) * texture(rng, grid.rows.shape, 1.6 * scale)
    eosin = np.float32(tone) * slow * (np.float32(0.155) + np.float32(0.155) * packed)
    azure = np.float32(0.045) * slow
    shade = np.float32(0.03) * packed * coverage(body, EDGE)
    return finish(style, body, nucleus, chromatin + shade, eosin, azure, veil=0.18)


def _basophil(
    rng: np.random.Generator, style: SlideStyle, scale: float, shift: tuple[float, float]
) -> Patch:
    radius = float(np.clip(rng.normal(6.4, 0.45), 5.2, 7.6))
    grid = Grid.around(1.3 * radius, scale, shift)
    body = body_outline(rng, grid, radius, ruffle=rng.uniform(0.2, 0.7))
    count = int(rng.choice([2, 3], p=[0.65, 0.35]))
    area = float(np.clip(rng.normal(62.0, 8.0), 44.0, 82.0)) * (radius / 6.4) ** 1.5
    sizes = np.sqrt(area / (count * np.pi)) * rng.uniform(0.9, 1.1, count)
    gap = 2.0 * float(sizes.mean()) * rng.uniform(0.62, 0.85)
    ring = float(np.clip(gap * rng.uniform(0.6, 0.8), 1.3, radius * 0.95 - sizes.max()))
    centres, tangents = arc(rng, count, ring, gap, 1.0)
    wander = grid.warped(rng, length=1.2, amount=0.35)
    nucleus = chain(rng, wander, Lobes(centres, sizes, tangents), bridge=0.8, fillet=1.4,
                     stretch=(1.0, 1.4), layered=False)  # fmt: skip
    nucleus = Nucleus(smooth_max(nucleus.distance, body + np.float32(0.4), 0.6), None, count)
    tone = rng.normal(1.0, 0.10)
    chromatin = chromatin_of(rng, grid, nucleus, 0.34 * tone, clump=0.6, contrast=0.12)
    coarse = granules(
        rng,
        grid,
        spacing=rng.uniform(0.92, 1.40),
        radius=rng.uniform(0.36, 0.46),
        sharpness=rng.uniform(1.1, 1.9),
    )
    finer = granules(rng, grid, spacing=rng.uniform(0.85, 1.2), radius=0.32, sharpness=1.6)
    grains = np.maximum(coarse, np.float32(0.8) * finer)
    alpha = coverage(body + np.float32(0.12), EDGE)
    over = np.float32(1.0) - np.float32(rng.uniform(0.35, 0.65)) * coverage(
        nucleus.distance + np.float32(0.5), 1.6
    )
    load = rng.uniform(0.18, 0.46)
    chromatin = chromatin + alpha * (
        np.float32(load) * grains * over + np.float32(rng.uniform(0.14, 0.30))
    )
    azure = np.float32(0.075) + np.float32(0.10) * grains * over
    eosin = np.full_like(body, 0.01)
    return finish(style, body, nucleus, chromatin, eosin, azure, veil=1.0, tint=0.04)


def _monocyte(
    rng: np.random.Generator, style: SlideStyle, scale: float, shift: tuple[float, float]
) -> Patch:
    radius = float(np.clip(rng.normal(7.9, 0.65), 6.6, 9.8))
    grid = Grid.around(1.5 * radius, scale, shift)
    body = body_outline(rng, grid, radius, ruffle=rng.uniform(0.6, 1.5))
    area = float(np.clip(rng.normal(87.0, 10.0), 60.0, 115.0)) * (radius / 7.9) ** 1.3
    bend = float(rng.choice([0.5, 0.95, 1.45], p=[0.30, 0.45, 0.25])) * rng.uniform(0.85, 1.15)
    thick = np.sqrt(area) * (0.345 - 0.055 * bend)
    length = (area - np.pi * thick**2) / (2.0 * thick)
    ring = float(np.clip(length / (2.0 * bend), 1.2, radius * 0.93 - thick))
    count = 5
    angles = rng.uniform(0.0, 2.0 * np.pi) + np.linspace(-bend, bend, count) * (
        length / (2.0 * bend * ring)
    )
    centres = ring * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    centres -= 0.85 * centres.mean(axis=0) + rng.normal(0.0, 0.5, 2)
    sizes = thick * rng.uniform(0.86, 1.10, count)
    wander = grid.warped(rng, length=1.5, amount=0.34).warped(rng, length=0.6, amount=0.10)
    nucleus = chain(rng, wander, Lobes(centres, sizes, angles + np.pi / 2.0), bridge=0.8 * thick,
                     fillet=1.2, stretch=(1.0, 1.15), layered=False)  # fmt: skip
    nucleus = Nucleus(smooth_max(nucleus.distance, body + np.float32(0.45), 0.6), None, 1)
    chromatin = chromatin_of(rng, grid, nucleus, 0.77 * rng.normal(1.0, 0.08), clump=0.38,
                           contrast=0.12, strands=0.24)  # fmt: skip
    shape = grid.rows.shape
    cloud = np.float32(1.0) + np.float32(0.16) * texture(rng, shape, 0.9 * scale)
    cloud += np.float32(0.09) * texture(rng, shape, 0.22 * scale)
    cloud *= np.float32(0.86) + np.float32(0.14) * depth(body, 2.0)
    holes = np.zeros_like(body)
    if rng.random() < 0.45:
        for _ in range(int(rng.integers(1, 7))):
            angle, reach = rng.uniform(0.0, 2.0 * np.pi), radius * rng.uniform(0.3, 0.88)
            size = rng.uniform(0.35, 0.8)
            row, column = reach * np.sin(angle), reach * np.cos(angle)
            spot = ellipse(grid, row, column, 1.1 * size, 0.95 * size, angle)
            holes = np.maximum(holes, coverage(spot, 0.4))
        cloud *= np.float32(1.0) - np.float32(0.8) * holes
        chromatin = chromatin * (np.float32(1.0) - np.float32(0.3) * holes)
    tone = rng.normal(1.0, 0.13)
    azure = np.float32(0.060 * tone) * cloud
    eosin = np.float32(0.030 * tone) * cloud
    plain = coverage(body, EDGE) * (1.0 - coverage(nucleus.distance, EDGE))
    dust = granules(rng, grid, spacing=0.7, radius=0.14, sharpness=1.5)
    chromatin = chromatin + plain * np.float32(tone) * (
        np.float32(0.048) * cloud + np.float32(0.05) * dust
    )
    return finish(style, body, nucleus, chromatin, eosin, azure)


def _lymphocyte(
    rng: np.random.Generator, style: SlideStyle, scale: float, shift: tuple[float, float]
) -> Patch:
    large = rng.random() < 0.18
    core = float(np.clip(rng.normal(4.3 if large else 3.85, 0.28), 3.1, 5.2))
    rim = rng.uniform(1.2, 2.1) if large else rng.uniform(0.35, 1.0)
    radius = core + rim
    grid = Grid.around(1.3 * radius, scale, shift)
    body = body_outline(rng, grid, radius, ruffle=rng.uniform(0.1, 0.6))
    aside, off = rng.uniform(0.0, 2.0 * np.pi), rim * rng.uniform(0.1, 0.75)
    wander = grid.warped(rng, length=1.5, amount=0.17)
    ratio = rng.uniform(1.0, 1.22)
    row, col = off * np.sin(aside), off * np.cos(aside)
    distance = ellipse(wander, row, col, core * ratio**0.5, core / ratio**0.5,
                       rng.uniform(0.0, np.pi))  # fmt: skip
    if rng.random() < 0.2:  # a small indentation
        angle = rng.uniform(0.0, 2.0 * np.pi)
        reach = core * rng.uniform(1.15, 1.35)
        dent = ellipse(wander, row + reach * np.sin(angle), col + reach * np.cos(angle),
                       0.42 * core, 0.36 * core, angle)  # fmt: skip
        distance = smooth_max(distance, -dent, 0.8)
    distance = smooth_max(distance, body + np.float32(0.22), 0.3)
    nucleus = Nucleus(distance, None, 1)
    amount = (0.86 if large else 1.0) * rng.normal(1.0, 0.06)
    chromatin = chromatin_of(rng, grid, nucleus, amount, clump=0.55, contrast=0.15)
    shape = grid.rows.shape
    cloud = np.float32(1.0) + np.float32(0.13) * texture(rng, shape, 0.7 * scale)
    cloud *= np.float32(1.12) - np.float32(0.22) * depth(body, 1.2)
    tone = float(np.exp(rng.normal(0.0, 0.22)))
    azure = np.float32(0.098 * tone) * cloud
    eosin = np.float32(0.018) * cloud
    plain = coverage(body, EDGE) * (1.0 - coverage(distance, EDGE))
    chromatin = chromatin + plain * np.float32(0.042 * tone) * cloud
    return finish(style, body, nucleus, chromatin, eosin, azure, tint=0.05)


Painter = Callable[[np.random.Generator, SlideStyle, float, tuple[float, float]], Patch]
"""Draws a cell: randomness, slide, pixels a micrometre, its middle off the middle pixel."""

PAINTERS: Final[dict[str, Painter]] = {
    "Basophil": _basophil,
    "Eosinophil": _eosinophil,
    "Lymphocyte": _lymphocyte,
    "Monocyte": _monocyte,
    "Neutrophil": _neutrophil,
}
