"""Shapes and textures for drawn smears: distances to outlines, noise, granules.

All lengths are micrometres, so that a cell is the same cell at any magnification. A shape is a
signed distance: negative inside, zero on the outline.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Grid", "Image", "capsule", "coverage", "ellipse", "grain", "granules", "smooth_max",
           "smooth_min", "texture"]  # fmt: skip

Image = npt.NDArray[np.float32]
"""(H, W) float32."""

_TILE = 512
_TILE_SIGMAS = (1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True)
class Grid:
    """A square patch of an image, with its own origin in the middle.

    Attributes
    ----------
    rows, cols : (N, N) float32
        Position of every pixel in micrometres, measured from the middle.
    scale : float
        Pixels per micrometre.
    """

    rows: Image
    cols: Image
    scale: float

    @staticmethod
    def around(half: float, scale: float, shift: tuple[float, float] = (0.0, 0.0)) -> Grid:
        """Patch that reaches at least `half` micrometres from its middle.

        Parameters
        ----------
        half : float
            Half the side, in micrometres.
        scale : float
            Pixels per micrometre.
        shift : tuple of 2 floats
            Where the origin lies off the middle pixel, in pixels (rows, columns).

        Returns
        -------
        Grid
            The patch, with an odd number of pixels a side.
        """
        reach = int(np.ceil(half * scale))
        axis = np.arange(-reach, reach + 1, dtype=np.float32)
        rows = np.repeat(((axis - shift[0]) / scale)[:, None], axis.size, axis=1)
        cols = np.repeat(((axis - shift[1]) / scale)[None, :], axis.size, axis=0)
        return Grid(rows.astype(np.float32), cols.astype(np.float32), scale)

    def warped(self, rng: np.random.Generator, *, length: float, amount: float) -> Grid:
        """Patch whose positions wander smoothly, so that shapes drawn on it lose their symmetry.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of randomness.
        length : float
            Size of the wandering's bumps, in micrometres.
        amount : float
            Standard deviation of the wandering, in micrometres.

        Returns
        -------
        Grid
            A new patch of the same size.
        """
        shape = self.rows.shape
        sigma = length * self.scale
        down = texture(rng, shape, sigma)
        across = texture(rng, shape, sigma)
        return Grid(self.rows + amount * down, self.cols + amount * across, self.scale)


@functools.cache
def _tile(sigma: float) -> Image:
    """A fixed 512 x 512 tile of smooth noise, mean 0 and standard deviation 1, that wraps."""
    rng = np.random.default_rng([20220121, int(10 * sigma)])
    noise = rng.standard_normal((_TILE, _TILE)).astype(np.float32)
    if sigma > 0.3:
        pad = int(4 * sigma) + 1
        noise = np.pad(noise, pad, mode="wrap")
        blurred = cv2.GaussianBlur(noise, (0, 0), sigma)[pad:-pad, pad:-pad]
        noise = np.asarray(blurred, np.float32)
    noise = (noise - noise.mean()) / noise.std()
    result: Image = np.pad(noise, ((0, _TILE), (0, _TILE)), mode="wrap").astype(np.float32)
    result.flags.writeable = False
    return result


def texture(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Image:
    """Smooth noise, cut at a random place from a fixed tile.

    Parameters
    ----------
    rng : numpy.random.Generator
        Chooses the place and the orientation.
    shape : tuple of 2 ints
        Height and width.
    sigma : float
        Correlation length in pixels; 0 gives white noise.

    Returns
    -------
    (H, W) float32
        Mean near 0, standard deviation near 1.
    """
    row, col, turn = (int(value) for value in rng.integers(0, [_TILE, _TILE, 8]))
    height, width = int(shape[0]), int(shape[1])
    base = max((s for s in _TILE_SIGMAS if s <= sigma), default=0.0)
    shrink = base / sigma if base else 1.0
    side = (int(np.ceil(height * shrink)) + 1, int(np.ceil(width * shrink)) + 1)
    tile = _tile(base)
    if max(side) > _TILE:
        tile = np.tile(tile[:_TILE, :_TILE], (2 + side[0] // _TILE, 2 + side[1] // _TILE))
    patch = tile[row : row + side[0], col : col + side[1]]
    if turn & 1:
        patch = patch[::-1]
    if turn & 2:
        patch = patch[:, ::-1]
    if patch.shape != (height, width):
        if base:
            resized = cv2.resize(patch, (width, height), interpolation=cv2.INTER_LINEAR)
            patch = np.asarray(resized, np.float32)
        else:
            patch = patch[:height, :width]
    return -patch if turn & 4 else np.asarray(patch)


@functools.cache
def _grain_tile() -> npt.NDArray[np.float32]:
    """A fixed 512 x 512 x 3 tile of sensor noise: white in light, smoother in colour."""
    tint = np.float32(0.6) * _tile(1.0)[:_TILE, :_TILE]
    white = _tile(0.0)[:_TILE, :_TILE]
    tile = np.stack([white + tint, white, white - tint], axis=-1)
    tile.flags.writeable = False
    return tile


def grain(rng: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Sensor noise for a colour picture, cut at a random place from a fixed tile.

    Parameters
    ----------
    rng : numpy.random.Generator
        Chooses the place and the orientation.
    shape : tuple of 2 ints
        Height and width.

    Returns
    -------
    (H, W, 3) float32
        Mean near 0, standard deviation near 1.
    """
    row, col, turn = (int(value) for value in rng.integers(0, [_TILE // 4, _TILE // 4, 4]))
    tile = _grain_tile()
    tile = tile[:: -1 if turn & 1 else 1, :: -1 if turn & 2 else 1]
    height, width = shape
    result = np.empty((height, width, 3), dtype=np.float32)
    for top in range(0, height, _TILE - row):
        down = min(_TILE - row, height - top)
        for left in range(0, width, _TILE - col):
            across = min(_TILE - col, width - left)
            result[top : top + down, left : left + across] = tile[
                row : row + down, col : col + across
            ]
    return result


def ellipse(grid: Grid, row: float, col: float, long: float, short: float, angle: float) -> Image:
    """Signed distance (good near the outline) to an ellipse.

    Parameters
    ----------
    grid : Grid
        Where to evaluate.
    row, col : float
        Centre.
    long, short : float
        Half axes.
    angle : float
        Direction of the long axis, in radians from the columns towards the rows.

    Returns
    -------
    (N, N) float32
        Micrometres, negative inside.
    """
    down, across = grid.rows - np.float32(row), grid.cols - np.float32(col)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = (across * cos + down * sin) * np.float32(1.0 / long)
    beside = (down * cos - across * sin) * np.float32(1.0 / short)
    radius: Image = np.sqrt(along * along + beside * beside)
    return (radius - np.float32(1.0)) * np.float32(np.sqrt(long * short))


def capsule(
    grid: Grid, start: tuple[float, float], end: tuple[float, float], radius: float
) -> Image:
    """Signed distance to a thick line with round ends.

    Parameters
    ----------
    grid : Grid
        Where to evaluate.
    start, end : tuple of 2 floats
        Ends (row, column).
    radius : float
        Half the thickness.

    Returns
    -------
    (N, N) float32
        Micrometres, negative inside.
    """
    down, across = grid.rows - np.float32(start[0]), grid.cols - np.float32(start[1])
    axis = np.array([end[0] - start[0], end[1] - start[1]], dtype=np.float32)
    square = max(float(axis @ axis), 1e-6)
    share = np.clip((down * axis[0] + across * axis[1]) * np.float32(1.0 / square), 0.0, 1.0)
    distance: Image = np.hypot(down - share * axis[0], across - share * axis[1])
    return distance - np.float32(radius)


def smooth_min(first: Image, second: Image, width: float) -> Image:
    """Union of two shapes with a fillet of about `width` micrometres where they meet."""
    blend = np.maximum(np.float32(width) - np.abs(first - second), 0.0)
    result: Image = np.minimum(first, second) - blend * blend * np.float32(0.25 / width)
    return result


def smooth_max(first: Image, second: Image, width: float) -> Image:
    """Intersection of two shapes, with rounded corners."""
    return -smooth_min(-first, -second, width)


def coverage(distance: Image, softness: float) -> Image:
    """How much of each pixel a shape covers, with a soft edge.

    Parameters
    ----------
    distance : (N, N) float32
        Signed distance in micrometres.
    softness : float
        Width of the edge in micrometres.

    Returns
    -------
    (N, N) float32
        0 to 1; 0.5 on the outline.
    """
    share = np.clip(np.float32(0.5) - distance * np.float32(1.0 / softness), 0.0, 1.0)
    result: Image = share * share * (np.float32(3.0) - np.float32(2.0) * share)
    return result


def granules(
    rng: np.random.Generator, grid: Grid, *, spacing: float, radius: float, sharpness: float
) -> Image:
    """Small round grains scattered evenly, each with its own weight.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    grid : Grid
        Patch to fill.
    spacing : float
        Mean distance between neighbours, in micrometres.
    radius : float
        Radius of a grain, in micrometres.
    sharpness : float
        1 gives soft grains; 4 gives grains with a clear edge.

    Returns
    -------
    (N, N) float32
        0 between grains, near 1 on them.
    """
    side = grid.rows.shape[0]
    step = max(spacing * grid.scale, 1.5)
    count = int(np.ceil(side / step)) + 1
    index = np.arange(count, dtype=np.float32)
    rows = (index[:, None] * step + rng.uniform(-0.55, 0.55, (count, count)) * step).ravel()
    offset = (np.arange(count) % 2 * 0.5)[:, None]
    cols = (
        (index[None, :] + offset) * step + rng.uniform(-0.55, 0.55, (count, count)) * step
    ).ravel()
    weights = rng.uniform(0.35, 1.25, count * count)
    keep = (rows >= 0) & (rows < side) & (cols >= 0) & (cols < side)
    points = np.zeros((side, side), dtype=np.float32)
    np.add.at(points, (rows[keep].astype(np.int64), cols[keep].astype(np.int64)), weights[keep])
    sigma = max(radius * grid.scale / 1.3, 0.5)
    spread = cv2.GaussianBlur(points, (0, 0), sigma) * np.float32(2.0 * np.pi * sigma * sigma)
    level = np.clip((spread - 0.45) * np.float32(sharpness) + 0.5, 0.0, 1.2)
    return np.asarray(level, dtype=np.float32)
