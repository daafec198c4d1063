"""Tiles over a picture, each of which owns the cells whose centre lies in its core.

Tiles overlap by a margin, so a cell is seen whole in the tile that owns it, and what a tile finds
in its margin is its neighbour's. All of it is counted on the picture's lattice at one step (see
`leuko.imaging.pyramid.FieldImage.read`), which begins at the picture's first pixel: the same
picture always gives the same tiles.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final

from leuko.cells.boxes import overlaps
from leuko.cells.detector import Box, Detection, Detector
from leuko.field.tissue import Tissue
from leuko.imaging.pyramid import FieldImage, lattice_step
from leuko.support.parallel import bounded_map, worker_count

__all__ = ["ALIGNMENT", "Tile", "find_in", "gather", "own", "tiles"]

ALIGNMENT: Final = 64
"""Tiles begin at multiples of this on the lattice, as a network's stride asks for it; there every
step of `leuko.imaging.pyramid.lattice_step` has come to a whole pixel of the original."""

_SEAM: Final = 2.0
"""Pixels of the lattice by which two tiles may disagree about where a cell's centre is."""

_SAME: Final = 0.5
"""Boxes of two tiles whose intersection over union is above this are of one cell."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile.

    Attributes
    ----------
    core, area : (int, int, int, int)
        What it owns and what it sees, as (row0, col0, row1, col1), half-open, on the lattice. Cores
        cover the lattice once; the area is a core with its margin, cut at the picture's border.
    step : float
        Pixels of the original to one of the lattice.
    size : (int, int)
        Rows and columns of the original.
    """

    core: Box
    area: Box
    step: float
    size: tuple[int, int]

    @property
    def box(self) -> Box:
        """The area in pixels of the original, for `leuko.imaging.pyramid.FieldImage.read`."""
        return self.original(self.area)

    def original(self, box: Box) -> Box:
        """Move a box to the original.

        Parameters
        ----------
        box : (int, int, int, int)
            On the lattice, half-open, within it and not empty.

        Returns
        -------
        (int, int, int, int)
            In pixels of the original, rounded; within it and not empty.
        """
        row0, col0, row1, col1 = (math.floor(side * self.step + 0.5) for side in box)
        rows, columns = self.size
        return min(row0, rows - 1), min(col0, columns - 1), min(row1, rows), min(col1, columns)


def tiles(
    size: tuple[int, int], step: float, core: int, margin: int, tissue: Tissue | None = None
) -> Iterator[Tile]:
    """Lay tiles over a picture.

    Parameters
    ----------
    size : (int, int)
        Rows and columns of the picture.
    step : float
        Pixels of the original to one of the lattice, from `leuko.imaging.pyramid.lattice_step`.
    core, margin : int
        Rows and columns of a core, and what is seen around it, in pixels of the lattice; both are
        rounded up to `ALIGNMENT`. The margin must hold whatever decides about a cell in the core:
        the whole cell, and what the detector looks at around it.
    tissue : Tissue, optional
        Where cells lie; tiles whose core holds none of it are left out.

    Yields
    ------
    Tile
        By row, then column.
    """
    core, margin = (-(-length // ALIGNMENT) * ALIGNMENT for length in (core, margin))
    rows, columns = (math.ceil(side / step) for side in size)
    for row, col in product(range(0, rows, core), range(0, columns, core)):
        tile = Tile(
            (row, col, min(row + core, rows), min(col + core, columns)),
            (
                max(row - margin, 0),
                max(col - margin, 0),
                min(row + core + margin, rows),
                min(col + core + margin, columns),
            ),
            step,
            size,
        )
        if tissue is None or tissue.touches(tile.original(tile.core)):
            yield tile


def own(tile: Tile, found: Iterable[Detection], slack: float = 0.0) -> list[Detection]:
    """Keep what a tile owns: what has its centre in the core.

    Parameters
    ----------
    tile : Tile
        Where it was found.
    found : iterable of Detection
        Boxes in pixels of the tile's area.
    slack : float
        Pixels of the lattice around the core in which centres count too; with any, a cell at a
        seam may have two owners, for `gather` to choose.

    Returns
    -------
    list of Detection
        In the same order, with boxes in pixels of the original.
    """
    row, col, bottom, right = tile.core
    top, left = tile.area[:2]
    kept = []
    for one in found:
        row0, col0, row1, col1 = one.box
        box = row0 + top, col0 + left, row1 + top, col1 + left
        down, across = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if row - slack <= down < bottom + slack and col - slack <= across < right + slack:
            kept.append(Detection(tile.original(box), one.score))
    return kept


def gather(parts: Iterable[tuple[Tile, list[Detection]]]) -> list[Detection]:
    """Bring together what tiles own, a cell that two of them claim once.

    Parameters
    ----------
    parts : iterable of (Tile, list of Detection)
        From `own`, in any order.

    Returns
    -------
    list of Detection
        The best score first, equal ones by row and column. Of boxes of two tiles whose intersection
        over union is above 0.5, the better one.
    """
    found = sorted(
        ((one, tile.core) for tile, kept in parts for one in kept),
        key=lambda pair: (-pair[0].score, pair[0].box, pair[1]),
    )
    # Boxes that overlap so much have centres nearer than the longest side.
    side = max(
        (max(one.box[2] - one.box[0], one.box[3] - one.box[1]) for one, _ in found), default=1
    )
    near: defaultdict[tuple[int, int], list[tuple[Box, Box]]] = defaultdict(list)
    kept = []
    for one, core in found:
        row, col = ((one.box[at] + one.box[at + 2]) // (2 * side) for at in (0, 1))
        around = product((row - 1, row, row + 1), (col - 1, col, col + 1))
        rivals = [box for at in around for box, owner in near.get(at, ()) if owner != core]
        if not (overlaps(one.box, rivals) > _SAME).any():
            near[row, col].append((one.box, core))
            kept.append(one)
    return kept


def find_in(
    image: FieldImage,
    detector: Detector,
    pixels_per_micrometre: float,
    *,
    core: int = 1024,
    margin: int = 128,
    tissue: Tissue | None = None,
    workers: int | None = None,
) -> list[Detection]:
    """Find the white cells of a picture of any size, tile by tile.

    Each thread reads a tile and searches it, so that one reads while another computes; a few tiles
    are in memory at a time. The result does not depend on `core` or `workers`, nor on a `margin`
    that is wide enough, if the detector's answer depends on nothing further away.

    Parameters
    ----------
    image : FieldImage
        The picture.
    detector : Detector
        Any number of threads call it at once.
    pixels_per_micrometre : float
        Scale of the picture; it is reduced to the detector's own where that is less.
    core, margin, tissue
        See `tiles`.
    workers : int, optional
        Threads; one for each core that this process may use by default.

    Returns
    -------
    list of Detection
        See `gather`; boxes in pixels of the picture.
    """
    step = lattice_step(pixels_per_micrometre / detector.working)
    reduced = pixels_per_micrometre / step

    def search(tile: Tile) -> tuple[Tile, list[Detection]]:
        found = detector.find(image.read(tile.box, step), pixels_per_micrometre=reduced)
        return tile, own(tile, found, _SEAM)

    threads = worker_count(workers)
    lattice = tiles(image.size, step, core, margin, tissue)
    return gather(bounded_map(search, lattice, workers=threads, ahead=2 * threads))
