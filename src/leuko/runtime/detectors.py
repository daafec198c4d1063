"""The detector of white cells that ships: a small network on ONNX Runtime.

It was trained on drawn and real fields of many stains and cameras by
`experiments/train_detector.py`; its card stands beside it in the zoo.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.cells.arrays import Pixels, cv
from leuko.cells.boxes import overlaps
from leuko.cells.detector import Box, Detection, Detector, PixelSize
from leuko.cells.pixel_size import RED_CELL
from leuko.runtime.network.session import load_graph
from leuko.support.artifacts import digest_bytes

__all__ = ["DETECTORS", "NetworkDetector", "load_detector"]

Floats = npt.NDArray[np.float64]

WORKING: Final = 6.0
"""Pixels to a micrometre at which the network looks for white cells; finer pictures are reduced."""

LEAST: Final = 0.45
"""Score from which on something is a cell."""

STRIDE: Final = 8
"""Pixels of the network's input to one place of its answer."""

ALIGNED: Final = 64
"""Inputs are padded to multiples of this: the coarsest step inside the network."""

DOUBLE: Final = 0.5
"""Of two boxes whose intersection over union is larger, the better stays."""

WINDOW: Final = 640
"""Longer side, in pixels, of what is looked at to measure the scale."""

_NEARLY: Final = 1.05
"""A picture that need be reduced by less is taken as it is."""

RED_SIZES: Final = (12.0, 110.0)
"""Diameters in pixels at which the network measures red cells."""

FEWEST_RED: Final = 6
CLEAR: Final = (12, 20.0)
"""So many red cells of so many pixels need no second look."""

SPREAD: Final = 0.35
"""The middle half of the red cells of a field lies within this share of their median: 0.33 at most
in the fields of two laboratories."""

WHITE_CELL: Final = 13.0
"""Micrometres across the box of a usual white cell on a smear: the geometric middle of lymphocytes
(9 to 12), granulocytes (12 to 15) and monocytes (15 to 18)."""


class NetworkDetector:
    """Finds white and red cells with a network that answers with centres and sides.

    Parameters
    ----------
    onnx : bytes
        The graph: (1, h, w, 3) float32 RGB 0 to 255, h and w multiples of `ALIGNED`, to
        (1, h/8, w/8, 10) float32: scores of white and of red cells; then how far a box's top, left,
        bottom and right side are from the place, in pixels, of the one and of the other.
    name : str
        Its name.

    Attributes
    ----------
    name, digest, working
        See `leuko.cells.detector.Detector`.
    """

    def __init__(self, onnx: bytes, name: str) -> None:
        self.name = name
        self.working = WORKING
        self.digest = digest_bytes(onnx)
        self._session: Any = load_graph(onnx, f"The detector {name} cannot be loaded")

    def find(
        self, pixels: Pixels, *, pixels_per_micrometre: float | None = None
    ) -> list[Detection]:
        """Find the white cells of a field; see `leuko.cells.detector.Detector`."""
        scale = pixels_per_micrometre or self.measure(pixels).pixels_per_micrometre
        step = scale / WORKING if scale else max(1.0, max(pixels.shape) / WINDOW)
        reduced, per_pixel = _reduced(pixels, step)
        boxes, scores = _decoded(self._answer(reduced), 0, LEAST)
        rows, columns = pixels.shape[:2]
        found = []
        for box, score in zip(boxes * per_pixel, scores.tolist(), strict=True):
            whole = _whole(box, rows, columns)
            if whole is not None:
                found.append(Detection(whole, score))
        return sorted(found, key=lambda one: (-one.score, one.box))

    def measure(self, pixels: Pixels) -> PixelSize:
        """Measure the pixel size; see `leuko.cells.detector.Detector`.

        The whole field is looked at within half of `WINDOW` pixels, then at half the reduction, and
        so on to its own pixels, of which as many as fit into the window, until there are enough red
        cells that are large enough. Else the reduction at which most of them have a size that the
        network knows is believed. Their median diameter is 7.5 micrometres.
        """
        step = 2.0 * max(1.0, max(pixels.shape[:2]) / WINDOW)
        best, white = PixelSize(), (0.0, 0.0)
        while True:
            answer = self._answer(_reduced(_middle(pixels, step), step)[0])
            reds = _diameters(answer, 1)
            reds = reds[(reds >= RED_SIZES[0]) & (reds <= RED_SIZES[1])]
            if len(reds) > max(FEWEST_RED - 1, best.red_cells) and _alike(reds):
                best = PixelSize(step * float(np.median(reds)) / RED_CELL, "red cells", len(reds))
            sizes, score = _diameters(answer, 0), float(answer[..., 0].max())
            if len(sizes) and score > white[1]:
                white = step * float(np.median(sizes)), score
            clear = len(reds) >= CLEAR[0] and float(np.median(reds)) >= CLEAR[1]
            if step == 1.0 or (clear and _alike(reds)):
                break
            step = max(1.0, step / 2)
        if best.source == "none" and white[0]:
            return PixelSize(white[0] / WHITE_CELL, "white cells")
        return best

    def _answer(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """(h/8, w/8, 10) of a picture, padded by its own usual colour."""
        rows, columns = pixels.shape[:2]
        below, right = -rows % ALIGNED, -columns % ALIGNED
        usual = np.median(pixels[::8, ::8].reshape(-1, 3), axis=0)
        padded = cv.copyMakeBorder(
            pixels, 0, below, 0, right, cv2.BORDER_CONSTANT, value=tuple(usual.tolist())
        )
        answer = self._session.run(None, {"pixels": padded[None].astype(np.float32)})[0][0]
        return np.asarray(
            answer[: math.ceil(rows / STRIDE), : math.ceil(columns / STRIDE)], np.float32
        )


def _alike(diameters: Floats) -> bool:
    """Whether cells are of one size, as red cells are and the parts of other pictures are not."""
    low, middle, high = np.percentile(diameters, [25, 50, 75])
    return bool(high - low <= SPREAD * middle)


def _middle(pixels: Pixels, step: float) -> Pixels:
    """The middle of a picture, as much as fits into the window at a reduction."""
    rows, columns = pixels.shape[:2]
    height, width = (min(side, round(WINDOW * step)) for side in (rows, columns))
    row, column = (rows - height) // 2, (columns - width) // 2
    return pixels[row : row + height, column : column + width]


def _reduced(pixels: Pixels, step: float) -> tuple[Pixels, Floats]:
    """A picture averaged over areas, and pixels of it to one of the copy: (rows, columns) twice."""
    rows, columns = pixels.shape[:2]
    if step < _NEARLY:
        return pixels, np.ones(4)
    shape = max(1, round(columns / step)), max(1, round(rows / step))
    small = cv.resize(pixels, shape, interpolation=cv2.INTER_AREA)
    per_row, per_column = rows / shape[1], columns / shape[0]
    return small, np.array([per_row, per_column, per_row, per_column])


def _decoded(answer: npt.NDArray[np.float32], kind: int, least: float) -> tuple[Floats, Floats]:
    """(n, 4) boxes and (n,) scores of one kind in an answer, the best first, each cell once."""
    scores = np.ascontiguousarray(answer[..., kind])
    peaks = cv.dilate(scores, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero((scores >= peaks) & (scores >= least))
    sides = answer[rows, columns, 2 + 4 * kind : 6 + 4 * kind].astype(np.float64)
    middle = np.stack([rows, columns, rows, columns], axis=1) * STRIDE + STRIDE / 2
    boxes = middle + sides * [-1.0, -1.0, 1.0, 1.0]
    found = scores[rows, columns].astype(np.float64)
    order = np.lexsort((columns, rows, -found))
    kept = _singled(boxes[order])
    return boxes[order][kept], found[order][kept]


def _singled(boxes: Floats) -> npt.NDArray[np.int64]:
    """Positions of the boxes that lie on no better one; the best come first."""
    left = np.arange(len(boxes))
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[overlaps(boxes[best], boxes[left]) <= DOUBLE]
    return np.array(kept, np.int64)


def _diameters(answer: npt.NDArray[np.float32], kind: int) -> Floats:
    """Diameters, in pixels of the input, of the cells of one kind that no border cuts."""
    boxes, _ = _decoded(answer, kind, LEAST)
    high = np.array(answer.shape[:2]) * STRIDE - 1.0
    whole = (boxes[:, :2] > 1.0).all(axis=1) & (boxes[:, 2:] < high).all(axis=1)
    sides = boxes[whole, 2:] - boxes[whole, :2]
    return np.asarray(np.sqrt(sides[:, 0] * sides[:, 1]), np.float64)


def _whole(box: Floats, rows: int, columns: int) -> Box | None:
    """A box in whole pixels within the picture, or None where nothing of it is."""
    row0, col0, row1, col1 = (round(float(side)) for side in box)
    row0, col0, row1, col1 = max(0, row0), max(0, col0), min(rows, row1), min(columns, col1)
    return (row0, col0, row1, col1) if row0 < row1 and col0 < col1 else None


@cache
def load_detector(name: str = "white-cells") -> NetworkDetector:
    """Open a detector that comes along.

    Parameters
    ----------
    name : str
        One of `DETECTORS`.

    Returns
    -------
    NetworkDetector
        For any number of threads at a time.
    """
    place = resources.files("leuko") / "zoo" / f"{name}.onnx"
    return NetworkDetector(place.read_bytes(), name)


DETECTORS: Final[dict[str, Callable[[], Detector]]] = {"white-cells": load_detector}
"""What opens each detector, by name."""
