"""Where the white cells of a field are: what every finder of them promises, and the first one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from leuko.cells.arrays import Pixels
from leuko.cells.nucleus import find_nuclei

__all__ = ["Box", "Detection", "Detector", "NucleusDetector"]

Box = tuple[int, int, int, int]
"""(row0, col0, row1, col1), half-open, in pixels of the picture as given."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One white cell that was found.

    Attributes
    ----------
    box : (int, int, int, int)
        (row0, col0, row1, col1), half-open, within the picture and not empty.
    score : float
        0 to 1, higher is surer. It orders the detections of one detector; it is no probability and
        not comparable between two.
    """

    box: Box
    score: float


class Detector(Protocol):
    """What finds white cells in a field; `tests/cells/test_detector.py` asks it of every one."""

    @property
    def name(self) -> str:
        """Under which it stands in `leuko.cells.detectors.DETECTORS`."""
        ...

    def find(
        self, pixels: Pixels, *, pixels_per_micrometre: float | None = None
    ) -> list[Detection]:
        """Find the white cells of a field.

        Parameters
        ----------
        pixels : (H, W, 3) uint8, RGB
            The field; it is not changed.
        pixels_per_micrometre : float, optional
            Its scale, where it is known.

        Returns
        -------
        list of Detection
            The best score first, equal ones by row and column; empty where there is none. The same
            picture gives the same list.
        """
        ...


@dataclass(frozen=True, slots=True)
class NucleusDetector:
    """Finds nuclei by their colour: the boxes are those of `leuko.cells.find_nuclei`.

    The score is how much more purple the nucleus is than the empty slide, in units of optical
    density, 1 at most.
    """

    name: str = "nuclei"

    def find(
        self, pixels: Pixels, *, pixels_per_micrometre: float | None = None
    ) -> list[Detection]:
        """Find the nuclei of a field; see `Detector`."""
        nuclei = find_nuclei(pixels, pixels_per_micrometre=pixels_per_micrometre)
        found = [Detection(n.box, min(max(n.contrast, 0.0), 1.0)) for n in nuclei]
        return sorted(found, key=lambda one: (-one.score, one.box))
