"""What `experiments/train_detector.py` shows the network: squares of pictures, and their targets.

A sample is a window of a picture at a size drawn anew, or a mosaic of single cells, or nothing of
blood at all; in a light, stain, lens and camera drawn anew; turned and mirrored. Its number alone
decides what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from detector_nothing import nothing
from detector_pictures import Picture

from leuko.runtime.detectors import STRIDE

SIDE = 256
SHARES = {"chula": 0.25, "fields": 0.2, "pbc": 0.2, "drawn": 0.35}
NOTHING = 0.12
MOSAICS = 0.8
RECOGNISABLE = 0.3
"""Share of a box from which on it counts; what shows less is ignored."""

Targets = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Sample(NamedTuple):
    """Pixels, and boxes as `Picture` has them."""

    pixels: np.ndarray
    white: np.ndarray
    red: np.ndarray | None
    ignored: np.ndarray


class Sampler:
    """Makes each sample from its number."""

    def __init__(self, pictures: Sequence[Picture], seed: int) -> None:
        self.seed = seed
        self.pictures = {
            source: [one for one in pictures if one.source == source] for source in SHARES
        }

    def __call__(self, number: int) -> tuple[np.ndarray, Targets]:
        """Pixels, (SIDE, SIDE, 3) uint8, and `targets`."""
        rng = np.random.default_rng([self.seed, number])
        if rng.random() < NOTHING:
            none = np.zeros((0, 4), np.float32)
            sample = Sample(jitter(nothing(rng, SIDE), rng), none, none, none)
            return sample.pixels, targets(sample)
        shares = np.array([*SHARES.values()])
        pictures = self.pictures[[*SHARES][rng.choice(len(shares), p=shares / shares.sum())]]
        picture = pictures[rng.integers(len(pictures))]
        if picture.single and rng.random() < MOSAICS:
            sample = mosaic(pictures, rng)
        else:
            sample = window(picture, rng, SIDE)
            pixels = jitter(sample.pixels, rng)
            if pixels.shape[:2] != (SIDE, SIDE):
                whole = np.empty((SIDE, SIDE, 3), np.uint8)
                whole[:] = rng.integers(120, 256, 3)
                whole[: pixels.shape[0], : pixels.shape[1]] = pixels
                pixels = whole
            sample = sample._replace(pixels=pixels)
        sample = turned(sample, int(rng.integers(4)), rng.random() < 0.5)
        return sample.pixels, targets(sample)


def window(picture: Picture, rng, side: int, size: float | None = None) -> Sample:
    """A square of a picture, at most `side` pixels; a cell of it is `size` pixels across."""
    height, width = picture.pixels.shape[:2]
    cell, across = None, 0.12 * max(height, width)
    if len(picture.white):
        cell = picture.white[rng.integers(len(picture.white))]
        across = float(np.sqrt((cell[2] - cell[0]) * (cell[3] - cell[1])))
    if size is None:
        size = float(np.exp(rng.uniform(np.log(22), np.log(190))))
    scale, least = np.clip(size / across, 0.12, 4.0), side / min(height, width)
    if least * across < 300:
        scale = max(scale, least)
    stretch = np.exp(rng.normal(0, 0.08))
    tall = max(8, round(height * scale * stretch))
    wide = max(8, round(width * scale / stretch))
    method = cv2.INTER_AREA
    if scale >= 1:
        method = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
    pixels = cv2.resize(picture.pixels, (wide, tall), interpolation=method)
    rows, cols = tall / height, wide / width
    if cell is not None and rng.random() < 0.8:
        row = int((cell[0] + cell[2]) / 2 * rows - rng.uniform(0.05, 0.95) * side)
        col = int((cell[1] + cell[3]) / 2 * cols - rng.uniform(0.05, 0.95) * side)
    else:
        row, col = (int(rng.integers(0, max(1, n - side + 1))) for n in (tall, wide))
    row = int(np.clip(row, 0, max(0, tall - side)))
    col = int(np.clip(col, 0, max(0, wide - side)))
    pixels = pixels[row : row + side, col : col + side]
    by, move = np.array([rows, cols] * 2, np.float32), np.array([row, col] * 2, np.float32)
    shape = pixels.shape[:2]
    white, slivers = visible(picture.white * by - move, shape)
    red = None if picture.red is None else visible(picture.red * by - move, shape)[0]
    ignored = np.concatenate([slivers, *visible(picture.ignored * by - move, shape)])
    return Sample(pixels, white, red, ignored)


def visible(boxes: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes cut at the border: those that still show enough, and slivers."""
    whole = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    cut = np.clip(boxes, 0, [*shape, *shape])
    left = (cut[:, 2] - cut[:, 0]) * (cut[:, 3] - cut[:, 1])
    enough = left > RECOGNISABLE * whole
    return cut[enough], cut[(left > 0) & ~enough]


def mosaic(pictures: Sequence[Picture], rng) -> Sample:
    """Four single cells side by side, each in its own light."""
    half = int(rng.integers(80, 177))
    other = SIDE - half
    pixels = np.empty((SIDE, SIDE, 3), np.uint8)
    whites, ignored = [], []
    for row, col, tall, wide in (
        (0, 0, half, half), (0, half, half, other),
        (half, 0, other, half), (half, half, other, other),
    ):  # fmt: skip
        picture = pictures[rng.integers(len(pictures))]
        side = max(tall, wide)
        size = float(np.exp(rng.uniform(np.log(30), np.log(0.6 * side))))
        sample = window(picture, rng, side, size)
        part = jitter(sample.pixels, rng)[:tall, :wide]
        pixels[row : row + tall, col : col + wide] = cv2.resize(part, (wide, tall))
        by = np.array([tall / part.shape[0], wide / part.shape[1]] * 2, np.float32)
        move = np.array([row, col] * 2, np.float32)
        white, slivers = visible(sample.white, part.shape[:2])
        whites.append(white * by + move)
        ignored.append(np.concatenate([slivers, sample.ignored]) * by + move)
    return Sample(pixels, np.concatenate(whites), None, np.concatenate(ignored))


def jitter(pixels: np.ndarray, rng) -> np.ndarray:
    """What light, stain, lens, camera and file may do to a picture."""
    height, width = pixels.shape[:2]
    x = pixels.astype(np.float32) / 255
    if rng.random() < 0.8:  # the stain, by channel of the light that passes; then a cast
        x = np.power(np.clip(x, 1e-3, 1), np.exp(rng.normal(0, 0.17, 3)).astype(np.float32))
        x *= np.exp(rng.normal(0, 0.15, 3)).astype(np.float32)
    if rng.random() < 0.25:  # saturation
        grey = x.mean(2, keepdims=True)
        x = grey + (x - grey) * np.float32(rng.uniform(0.2, 1.6))
    if rng.random() < 0.5:  # an uneven cast: vignettes, pink rims and green middles
        cast = rng.normal(0, rng.uniform(0.03, 0.2), (4, 4, 1))
        cast = cast + rng.normal(0, rng.uniform(0.02, 0.12), (4, 4, 3))
        cast = np.exp(cast).astype(np.float32)
        x *= cv2.resize(cast, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.3:  # flare
        share = np.float32(rng.uniform(0.0, 0.5))
        x = x * (1 - share) + share * rng.uniform(0.4, 1.0, 3).astype(np.float32)
    if rng.random() < 0.5:
        x *= np.float32(np.exp(rng.normal(0, 0.2)))
    if rng.random() < 0.35:
        x = cv2.GaussianBlur(x, (0, 0), float(rng.uniform(0.4, 1.8)))
    elif rng.random() < 0.3:
        share = np.float32(rng.uniform(0.3, 1.5))
        x = x + share * (x - cv2.GaussianBlur(x, (0, 0), float(rng.uniform(0.6, 2.5))))
    if rng.random() < 0.4:
        x = x + rng.normal(0, rng.uniform(0.005, 0.05), x.shape).astype(np.float32)
    out = np.clip(x * 255, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 95))]
        out = cv2.imdecode(cv2.imencode(".jpg", out, quality)[1], 1)
    return out


def turned(sample: Sample, quarters: int, mirrored: bool) -> Sample:
    """Mirror a sample if asked, then turn it against the clock."""
    height, width = sample.pixels.shape[:2]
    pixels = sample.pixels[:, ::-1] if mirrored else sample.pixels

    def moved(boxes):
        if boxes is None:
            return None
        rows, (row0, col0, row1, col1) = (height, width), boxes.T
        if mirrored:
            col0, col1 = width - col1, width - col0
        for _ in range(quarters):
            row0, col0, row1, col1 = rows[1] - col1, row0, rows[1] - col0, row1
            rows = rows[::-1]
        return np.stack([row0, col0, row1, col1], 1)

    return Sample(
        np.ascontiguousarray(np.rot90(pixels, quarters)),
        moved(sample.white), moved(sample.red), moved(sample.ignored),
    )  # fmt: skip


def targets(sample: Sample) -> Targets:
    """What the network should answer; the last axis but that of sides is white, then red cells.

    Returns
    -------
    (h, w, 2), (h, w, 2), (h, w, 2, 4), (h, w, 2) float32
        A bump at each cell's middle, 1 at its top; what of it counts; how far the box's top, left,
        bottom and right side are, in pixels; and the weight of these. h and w: SIDE / STRIDE.
    """
    height, width = (n // STRIDE for n in sample.pixels.shape[:2])
    heat = np.zeros((height, width, 2), np.float32)
    counts = np.ones((height, width, 2), np.float32)
    sides = np.zeros((height, width, 2, 4), np.float32)
    weight = np.zeros((height, width, 2), np.float32)
    rows = (np.arange(height, dtype=np.float32)[:, None] + 0.5) * STRIDE
    cols = (np.arange(width, dtype=np.float32)[None] + 0.5) * STRIDE
    if sample.red is None:
        counts[..., 1] = 0
    for kind, boxes in enumerate((sample.white, sample.red if sample.red is not None else ())):
        for row0, col0, row1, col1 in boxes:
            row, col = int((row0 + row1) / 2 // STRIDE), int((col0 + col1) / 2 // STRIDE)
            if not (0 <= row < height and 0 <= col < width):
                continue
            # The place that holds the middle is the top, wherever in it the middle lies.
            down = (rows - rows[row, 0]) / (0.14 * (row1 - row0) + 1)
            right = (cols - cols[0, col]) / (0.14 * (col1 - col0) + 1)
            bump = np.exp(-(down**2) / 2 - right**2 / 2)
            np.maximum(heat[..., kind], bump, out=heat[..., kind])
            core = (bump > 0.5) & (bump > weight[..., kind])
            distances = np.broadcast_arrays(rows - row0, cols - col0, row1 - rows, col1 - cols)
            sides[core, kind] = np.stack(distances, -1)[core]
            weight[core, kind] = bump[core]
    for row0, col0, row1, col1 in sample.ignored:
        part = np.s_[
            max(0, int(row0 // STRIDE)) : int(row1 // STRIDE) + 1,
            max(0, int(col0 // STRIDE)) : int(col1 // STRIDE) + 1,
            0,
        ]
        counts[part] = heat[part] > 0.3
    return heat, counts, np.maximum(sides, 1.0), weight
