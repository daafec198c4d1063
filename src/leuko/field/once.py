"""A cell that two pictures of a run show is counted once.

Photographs of overlapping fields show the same red cells, moved. Where they do, and two white cells
land on each other, these are one: what the white cells themselves look like proves nothing, since
lymphocytes resemble each other. See docs/decisions/0034-a-field-is-counted-once.md.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from leuko.cells.arrays import Pixels
from leuko.cells.detector import Box
from leuko.data.alike import Fingerprints, fingerprint
from leuko.field.overlap import SPECTRUM, Ground, common_cells, likely_shifts, texture

__all__ = ["Repeats", "Sight", "Sights", "find_repeats", "see"]

Place = tuple[int, int]
"""The position of a picture in a run, and of a cell within it."""

_CUT: Final = 1
"""Pixels from the border within which a box is that of a cell that it cuts."""

_BLOCK: Final = 64
"""Pictures that another is compared with at once."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What is kept of a picture to know its cells again: about 12 kilobytes.

    Attributes
    ----------
    name : str
        Of the picture.
    size : (int, int)
        Rows and columns of the original.
    boxes : tuple of (int, int, int, int)
        Its white cells: (row0, col0, row1, col1), half-open, in pixels of the original.
    fingerprint : bytes
        See `leuko.data.alike.fingerprint`.
    texture : bytes
        See `leuko.field.overlap.texture`.
    """

    name: str
    size: tuple[int, int]
    boxes: tuple[Box, ...]
    fingerprint: bytes
    texture: bytes

    def to_dict(self) -> dict[str, Any]:
        """Give it as it stands in JSON."""
        return {
            "name": self.name,
            "size": list(self.size),
            "boxes": [list(box) for box in self.boxes],
            "fingerprint": base64.b64encode(self.fingerprint).decode("ascii"),
            "texture": base64.b64encode(self.texture).decode("ascii"),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Sight:
        """Read what `to_dict` gave."""
        rows, columns = stored["size"]
        return cls(
            stored["name"],
            (rows, columns),
            tuple((row0, col0, row1, col1) for row0, col0, row1, col1 in stored["boxes"]),
            base64.b64decode(stored["fingerprint"]),
            base64.b64decode(stored["texture"]),
        )


def see(
    name: str, pixels: Pixels, boxes: Sequence[Box], size: tuple[int, int] | None = None
) -> Sight:
    """Keep of a picture what its cells are known by.

    Parameters
    ----------
    name : str
        Of the picture.
    pixels : (H, W, 3) uint8, RGB
        The whole picture, reduced or not: 192 pixels along the longer side are enough.
    boxes : sequence of (int, int, int, int)
        Its white cells, in pixels of the original.
    size : (int, int), optional
        Rows and columns of the original; those of `pixels` when None.

    Returns
    -------
    Sight
    """
    rows, columns = pixels.shape[:2] if size is None else size
    kept = texture(pixels, (rows, columns), boxes)
    return Sight(name, (rows, columns), tuple(boxes), fingerprint(pixels), kept)


@dataclass(frozen=True, slots=True)
class Repeats:
    """What of a run was seen before.

    Attributes
    ----------
    pictures : tuple of (int or None)
        For each picture the one that counts in its place, because it is the same field: smaller,
        recompressed, turned by a right angle, or mirrored. Of such the largest counts, the first of
        those.
    cells : tuple of tuple of ((int, int) or None)
        For each cell of each picture the picture and the cell that count in its place, because both
        show one cell. That is the first in input order which no border cuts, or else the first.
        Empty for a picture that repeats another.
    """

    pictures: tuple[int | None, ...]
    cells: tuple[tuple[Place | None, ...], ...]


class Sights:
    """The pictures of a run so far.

    About 100 kilobytes are held of each; a picture is compared with every earlier one.
    """

    def __init__(self) -> None:
        self._sights: list[Sight] = []
        self._prints = Fingerprints()
        self._copies: list[list[int]] = []
        self._grounds: list[tuple[int, Ground]] = []
        self._spectra = np.empty((4, *SPECTRUM), np.complex64)
        self._same: dict[Place, list[Place]] = {}

    def add(self, sight: Sight) -> None:
        """Take the next picture in input order."""
        number = len(self._sights)
        self._sights.append(sight)
        group = self._prints.find(sight.fingerprint)
        if group is None:
            self._prints.add(sight.fingerprint, len(self._copies))
            self._copies.append([number])
        else:
            self._copies[group].append(number)
            if _area(sight) <= max(_area(self._sights[one]) for one in self._copies[group][:-1]):
                return
        if sight.boxes:
            self._lay(number, Ground.of(sight.texture, sight.size, sight.boxes))

    def repeats(self) -> Repeats:
        """Tell which pictures and cells were seen more than once."""
        pictures: list[int | None] = [None] * len(self._sights)
        for group in self._copies:
            counts = min(group, key=lambda one: (-_area(self._sights[one]), one))
            for number in group:
                pictures[number] = None if number == counts else counts
        cells = []
        for number, sight in enumerate(self._sights):
            whole = () if pictures[number] is not None else range(len(sight.boxes))
            cells.append(tuple(self._counting((number, cell), pictures) for cell in whole))
        return Repeats(tuple(pictures), tuple(cells))

    def _counting(self, place: Place, pictures: Sequence[int | None]) -> Place | None:
        """Give what counts in the place of a cell, None where it counts itself."""
        shown = [one for one in self._same.get(place, ()) if pictures[one[0]] is None]
        if not shown:
            return None
        first = min(shown, key=lambda one: (self._cut(one), one))
        return None if first == place else first

    def _cut(self, place: Place) -> bool:
        """Whether the border cuts a cell."""
        sight = self._sights[place[0]]
        row0, col0, row1, col1 = sight.boxes[place[1]]
        return min(row0, col0, sight.size[0] - row1, sight.size[1] - col1) <= _CUT

    def _lay(self, number: int, ground: Ground) -> None:
        """Compare a picture with every earlier one, and keep it."""
        count = len(self._grounds)
        for start in range(0, count, _BLOCK):
            block = self._spectra[start : min(start + _BLOCK, count)]
            for other, shifts in enumerate(likely_shifts(ground.spectrum, block), start):
                earlier, there = self._grounds[other]
                for one, two in common_cells(ground, there, shifts):
                    self._join((number, one), (earlier, two))
        if count == len(self._spectra):
            self._spectra = np.concatenate([self._spectra, np.empty_like(self._spectra)])
        self._spectra[count] = ground.spectrum
        self._grounds.append((number, ground))

    def _join(self, one: Place, two: Place) -> None:
        """Note that two places show one cell; no picture shows a cell twice."""
        ones, twos = (self._same.get(place, [place]) for place in (one, two))
        if ones is twos or {place[0] for place in ones} & {place[0] for place in twos}:
            return
        both = sorted([*ones, *twos])
        for place in both:
            self._same[place] = both


def find_repeats(sights: Sequence[Sight]) -> Repeats:
    """Tell which pictures and cells of a run were seen more than once.

    Parameters
    ----------
    sights : sequence of Sight
        In input order, from `see`.

    Returns
    -------
    Repeats
    """
    run = Sights()
    for sight in sights:
        run.add(sight)
    return run.repeats()


def _area(sight: Sight) -> int:
    return sight.size[0] * sight.size[1]
