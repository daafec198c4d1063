"""Where the white cells of a field are: what every detector of them promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from leuko.cells.arrays import Pixels

__all__ = ["Box", "Detection", "Detector", "PixelSize", "ScaleSource"]

ScaleSource = Literal["given", "file", "red cells", "white cells", "run", "none"]
"""What the pixel size of a field rests on; ``run``: the median of the other fields of the run."""

Box = tuple[int, int, int, int]
"""(row0, col0, row1, col1), half-open, in pixels of the picture as given."""


@dataclass(frozen=True, slots=True)
class Detection:
    """A white cell that was found.

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


@dataclass(frozen=True, slots=True)
class PixelSize:
    """How many pixels a micrometre has in a field, and what says so.

    Attributes
    ----------
    pixels_per_micrometre : float or None
        None where nothing tells it.
    source : ScaleSource
    red_cells : int
        How many red cells were.
    """

    pixels_per_micrometre: float | None = None
    source: ScaleSource = "none"
    red_cells: int = 0


class Detector(Protocol):
    """What finds white cells in a field; `tests/runtime/test_detectors.py` asks it of every one."""

    @property
    def name(self) -> str:
        """Under which it stands in `leuko.runtime.detectors.DETECTORS`."""
        ...

    @property
    def digest(self) -> str:
        """Digest of all that decides what it finds, 64 hexadecimal digits."""
        ...

    @property
    def working(self) -> float:
        """Pixels to a micrometre at which it looks for white cells: more show it nothing."""
        ...

    def measure(self, pixels: Pixels) -> PixelSize:
        """Measure the pixel size of a field on its cells.

        Parameters
        ----------
        pixels : (H, W, 3) uint8, RGB
            The field, or a part of it, at any magnification; it is not changed.

        Returns
        -------
        PixelSize
        """
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
            Its scale; measured on it when None.

        Returns
        -------
        list of Detection
            The best score first, equal ones by row and column; empty where there is none. The same
            picture gives the same list.
        """
        ...
