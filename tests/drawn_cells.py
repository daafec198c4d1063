"""Drawn cells with exact masks, for the tests of `leuko.cells`."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from leuko.data.synth import DrawnCell, draw_cell, draw_slide_style
from leuko.imaging.decode import decode_image, encode_jpeg

Bools = npt.NDArray[np.bool_]


@functools.cache
def drawn(name: str, seed: int, size: int = 288, *, jpeg: bool = True) -> DrawnCell:
    """A drawn cell on a slide of its own, as the camera's JPEG shows it; leave it as it is."""
    style = draw_slide_style(np.random.default_rng([41, seed]))
    cell = draw_cell(name, np.random.default_rng([42, seed]), style, size=size)
    if not jpeg:
        return cell
    data = encode_jpeg(cell.pixels, quality=style.jpeg_quality, subsampling=style.jpeg_subsampling)
    pixels = decode_image(data).pixels
    return DrawnCell(pixels, cell.nucleus, cell.cell, cell.box, cell.label, cell.lobes)


def dice(first: Bools, second: Bools) -> float:
    """Twice the common area over the sum of areas."""
    total = int(first.sum()) + int(second.sum())
    return 2.0 * int((first & second).sum()) / total if total else 1.0


def middle_of(mask: Bools) -> tuple[float, float]:
    """Centroid, the first pixel's middle at (0.5, 0.5)."""
    rows, columns = np.nonzero(mask)
    return (float(rows.mean()) + 0.5, float(columns.mean()) + 0.5)
