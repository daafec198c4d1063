"""What drawn cells are made of: an outline, a nucleus of lobes, chromatin, cytoplasm."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from leuko.data.synth.blood import EDGE, Patch, mix_dyes
from leuko.data.synth.shapes import (
    Grid,
    Image,
    capsule,
    coverage,
    ellipse,
    smooth_max,
    smooth_min,
    texture,
)
from leuko.data.synth.style import SlideStyle

__all__ = ["Lobes", "Nucleus", "arc", "body_outline", "chain", "chromatin_of", "depth", "finish"]


@dataclass(frozen=True, slots=True)
class Nucleus:
    """Outline of a nucleus, and where its lobes lie over one another."""

    distance: Image
    overlap: Image | None
    lobes: int


@dataclass(frozen=True, slots=True)
class Lobes:
    """Lobes of a nucleus: (n, 2) middles, (n,) radii and (n,) angles of the path along them."""

    centres: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.float64]
    tangents: npt.NDArray[np.float64]


def body_outline(rng: np.random.Generator, grid: Grid, radius: float, *, ruffle: float) -> Image:
    """Outline of a cell: an ellipse that wanders, pressed flat here and there."""
    stretch = float(np.exp(abs(rng.normal(0.0, 0.05))))
    angle = rng.uniform(0.0, np.pi)
    wide = grid.warped(rng, length=2.4, amount=0.10 * radius * (0.5 + 0.5 * ruffle))
    if ruffle > 0.8:
        wide = wide.warped(rng, length=0.8, amount=0.16 * ruffle)
    shape = ellipse(wide, 0.0, 0.0, radius * stretch, radius / stretch, angle)
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.35, 0.35, 0.2, 0.1]))):
        side = rng.uniform(0.0, 2.0 * np.pi)
        reach = radius * rng.uniform(0.78, 0.96)
        plane = wide.rows * np.float32(np.sin(side)) + wide.cols * np.float32(np.cos(side))
        shape = smooth_max(shape, plane - np.float32(reach), 1.2)
    return shape


def chain(
    rng: np.random.Generator,
    grid: Grid,
    lobes: Lobes,
    *,
    bridge: float,
    fillet: float,
    stretch: tuple[float, float],
    layered: bool = True,
) -> Nucleus:
    """Lobes along a path, each joined to the next by a bridge; `layered` ones darken overlaps."""
    shapes: list[Image] = []
    places = zip(lobes.centres, lobes.sizes, lobes.tangents, strict=True)
    for (row, col), size, angle in places:
        ratio = rng.uniform(*stretch)
        shapes.append(
            ellipse(
                grid, row, col, size * ratio**0.5, size / ratio**0.5, angle + rng.normal(0.0, 0.35)
            )
        )
    distance = shapes[0]
    for shape in shapes[1:]:
        distance = smooth_min(distance, shape, fillet)
    overlap = None
    if layered:
        covered = np.sum([coverage(shape, EDGE) for shape in shapes], axis=0)
        overlap = np.clip(covered - 1.0, 0.0, 1.0).astype(np.float32)
    if bridge > 0:
        for first, second in itertools.pairwise(lobes.centres):
            link = capsule(grid, (first[0], first[1]), (second[0], second[1]),
                           bridge * rng.uniform(0.7, 1.3))  # fmt: skip
            distance = smooth_min(distance, link, 0.5)
    return Nucleus(distance, overlap, len(shapes))


def depth(distance: Image, reach: float) -> Image:
    """0 on the outline, rising to 1 at `reach` micrometres inside it."""
    share = np.clip(-distance * np.float32(1.0 / reach), 0.0, 1.0)
    result: Image = share * (np.float32(2.0) - share)
    return result


def chromatin_of(
    rng: np.random.Generator,
    grid: Grid,
    nucleus: Nucleus,
    amount: float,
    *,
    clump: float,
    contrast: float,
    strands: float = 0.0,
) -> Image:
    """Amount of chromatin inside a nucleus: clumps, strands, a membrane, a thinner margin."""
    shape = grid.rows.shape
    coarse = texture(rng, shape, clump * grid.scale)
    fine = texture(rng, shape, 0.5 * clump * grid.scale)
    pattern = np.float32(1.0) + np.float32(contrast) * (
        np.float32(0.75) * coarse + np.float32(0.5) * fine
    )
    if strands > 0:
        folds = np.abs(texture(rng, shape, 1.1 * clump * grid.scale))
        pattern += np.float32(strands) * (np.clip(1.0 - folds * 1.4, 0.0, 1.0) - np.float32(0.35))
    slow = texture(rng, shape, 2.2 * grid.scale)
    pattern += np.float32(0.05) * slow
    rim = np.exp(-np.square((nucleus.distance + np.float32(0.32)) * np.float32(1.0 / 0.28)))
    pattern *= np.float32(0.86) + np.float32(0.14) * depth(nucleus.distance, 1.3)
    pattern += np.float32(0.07) * rim
    if nucleus.overlap is not None:
        pattern += np.float32(0.16) * nucleus.overlap
    inside = coverage(nucleus.distance, EDGE)
    result: Image = np.float32(amount) * pattern * inside
    return result


def finish(
    style: SlideStyle,
    body: Image,
    nucleus: Nucleus,
    chromatin: Image,
    eosin: Image,
    azure: Image,
    *,
    veil: float = 0.25,
    tint: float = 0.0,
) -> Patch:
    """Lay the nucleus in its cytoplasm.

    `veil` is how much of the cytoplasm shows over the nucleus; `tint` is the azure that goes
    with one unit of chromatin, which makes dense nuclei bluer.
    """
    body = _one_piece(body)
    alpha = coverage(body, EDGE)
    inside = coverage(nucleus.distance, EDGE) * alpha
    chromatin = chromatin * np.minimum(alpha * np.float32(2.0), np.float32(1.0))
    thin = alpha * (np.float32(1.0) - np.float32(1.0 - veil) * inside)
    density = mix_dyes(style, chromatin, eosin * thin, azure * thin + np.float32(tint) * chromatin)
    cell = body < 0
    return Patch(density, alpha, (nucleus.distance < 0) & cell, cell, nucleus.lobes)


def _one_piece(body: Image) -> Image:
    """Outline without the islets that a ragged border may have cut off."""
    count, parts, sizes, _ = cv2.connectedComponentsWithStats((body < 0.3).astype(np.uint8))
    if count <= 2:
        return body
    largest = 1 + int(np.argmax(sizes[1:, cv2.CC_STAT_AREA]))
    return np.where(parts == largest, body, np.maximum(body, np.float32(0.3)))


def arc(
    rng: np.random.Generator, count: int, ring: float, gap: float, curl: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Centres (count, 2) and tangents (count,) of lobes along a C, or an S when `curl` < 0."""
    start = rng.uniform(0.0, 2.0 * np.pi)
    step = 2.0 * np.arcsin(min(gap / (2.0 * ring), 0.95))
    angles = start + step * np.arange(count) + rng.normal(0.0, 0.08, count)
    rings = ring * rng.uniform(0.88, 1.08, count)
    centres = np.stack([rings * np.sin(angles), rings * np.cos(angles)], axis=1)
    if curl < 0 and count > 2:
        half = count // 2
        pivot, axis = centres[half], centres[half] - centres[half - 1]
        axis = axis / np.linalg.norm(axis)
        tail = centres[half + 1 :] - pivot
        along = tail @ axis
        centres[half + 1 :] = pivot + 2.0 * along[:, None] * axis - tail
    tangents = angles + np.pi / 2.0
    # ellipse() counts its angle from the columns towards the rows, as the ring does
    return centres - 0.8 * centres.mean(axis=0), tangents
