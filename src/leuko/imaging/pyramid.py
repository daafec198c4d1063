"""A picture of any size, read in parts: a whole field from memory, a slide from its file."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from leuko.support.text import counted

__all__ = ["WHITE", "Box", "Faults", "FieldImage", "Level", "lattice_step"]

Pixels = npt.NDArray[np.uint8]

Box = tuple[int, int, int, int]
"""(row0, col0, row1, col1), half-open."""

WHITE: Final = 255
"""What is shown where nothing was scanned or nothing can be read."""

_STEPS: Final = 64
"""Steps to each doubling, see `lattice_step`."""

_BLOCK: Final = 2048
"""Rows and columns of a level that are averaged at a time."""


class Level(Protocol):
    """One resolution of a picture; any number of threads may read it at once."""

    @property
    def step(self) -> int:
        """Original pixels to one of it, along a side: its pixel (i, j) is their mean."""
        ...

    def region(self, box: Box) -> Pixels:
        """Read a part.

        Parameters
        ----------
        box : (int, int, int, int)
            In pixels of the level, within the original's size divided by `step`, rounded up.

        Returns
        -------
        (h, w, 3) uint8, RGB
            `WHITE` where nothing can be read.
        """
        ...


class Faults:
    """What could not be read, collected from any number of threads."""

    def __init__(self, *sentences: str) -> None:
        self._sentences = list(sentences)
        self._parts: dict[str, dict[int, str]] = {}
        self._lock = threading.Lock()

    def add(self, where: str, part: int, detail: str) -> None:
        """Note a part that cannot be read.

        Parameters
        ----------
        where : str
            The level, in words.
        part : int
            Its number there: a part that is tried again counts once, and the first is told.
        detail : str
            What is wrong with it, as a sentence.
        """
        with self._lock:
            self._parts.setdefault(where, {})[part] = detail

    def sentences(self) -> tuple[str, ...]:
        """Say it all, in an order that does not depend on who read first."""
        with self._lock:
            parts = [
                f"{counted(len(found), 'part')} {where} cannot be read and "
                f"{'is' if len(found) == 1 else 'are'} taken for empty slide. {found[min(found)]}"
                for where, found in sorted(self._parts.items())
            ]
            return (*self._sentences, *parts)


def lattice_step(step: float) -> float:
    """Round a step so that every tile begins at a whole pixel of every level.

    Of the numbers from one power of two to the next there are 64, so a step is off by less than
    0.8%, and a power of two below it divides it into 64ths.

    Parameters
    ----------
    step : float
        Original pixels to one pixel of the result, along a side.

    Returns
    -------
    float
        At least 1.

    Examples
    --------
    >>> lattice_step(2.37), lattice_step(37.3), lattice_step(0.4)
    (2.375, 37.5, 1.0)
    """
    unit = 2.0 ** math.floor(math.log2(max(step, 1.0))) / _STEPS
    return round(max(step, 1.0) / unit) * unit


@dataclass(frozen=True)
class FieldImage:
    """A picture that is read in parts, by any number of threads at once.

    Attributes
    ----------
    size : (int, int)
        Rows and columns of the original.
    pixels_per_micrometre : float or None
        Of the original, where its file tells a believable one.
    notes : tuple of str
        What was done beyond plain decoding, see `leuko.imaging.decode.DecodedImage`.
    """

    size: tuple[int, int]
    pixels_per_micrometre: float | None
    notes: tuple[str, ...]
    _levels: Sequence[Level] = field(repr=False)
    _faults: Faults = field(repr=False, default_factory=Faults)

    @property
    def levels(self) -> tuple[int, ...]:
        """Steps at which the picture is stored, the original's 1 first."""
        return tuple(level.step for level in self._levels)

    @property
    def faults(self) -> tuple[str, ...]:
        """What could not be read so far, as sentences; the rest is as it should be."""
        return self._faults.sentences()

    def read(self, box: Box, step: float = 1.0) -> Pixels:
        """Read a part of the picture, reduced.

        At each step the picture has one lattice, which begins at its first pixel: pixel (i, j) is
        the mean over the original's rows ``i * step`` to ``(i + 1) * step`` and columns alike,
        whichever box asks for it. It is averaged from the nearest finer level whose pixels fit in.

        Parameters
        ----------
        box : (int, int, int, int)
            In pixels of the original; what lies beyond the picture is left out.
        step : float
            Original pixels to one of the result, along a side: 1, or from `lattice_step`.

        Returns
        -------
        (h, w, 3) uint8, RGB
            All pixels of the lattice that the box touches: rows ``floor(row0 / step)`` to
            ``ceil(row1 / step)``, so that a box from the first row has ``ceil(row1 / step)``.

        Raises
        ------
        ValueError
            For a step that is none of `lattice_step`.
        """
        if step != lattice_step(step):
            raise ValueError(f"A step must come from lattice_step, received {step}.")
        exact = Fraction(step)
        (top, bottom), (left, right) = (
            (math.floor(max(first, 0) / exact), math.ceil(min(last, side) / exact))
            for first, last, side in zip(box[:2], box[2:], self.size, strict=True)
        )
        pixels = np.empty((max(bottom - top, 0), max(right - left, 0), 3), np.uint8)
        if not pixels.size:
            return pixels
        level = max(
            (one for one in self._levels if (exact / one.step * _STEPS).denominator == 1),
            key=lambda one: one.step if one.step <= step else 0,
        )
        ratio = exact / level.step
        unit = ratio.denominator  # so many pixels are a whole number of the level's
        block = unit * max(1, _BLOCK // ratio.numerator)
        for row in range(top - top % unit, bottom, block):
            for col in range(left - left % unit, right, block):
                ends = min(row + block, bottom), min(col + block, right)
                part = self._shrunk(level, (row, col, *ends), ratio)
                start = max(row, top), max(col, left)
                pixels[start[0] - top : ends[0] - top, start[1] - left : ends[1] - left] = part[
                    start[0] - row :, start[1] - col :
                ]
        return pixels

    def _shrunk(self, level: Level, box: Box, ratio: Fraction) -> Pixels:
        """Average a level over a box of the result's lattice that begins at a whole pixel."""
        row, col, *ends = box
        bottom, right = (math.ceil(end * ratio) for end in ends)
        rows, columns = (
            min(end, -(-side // level.step))
            for end, side in zip((bottom, right), self.size, strict=True)
        )
        pixels = level.region((int(row * ratio), int(col * ratio), rows, columns))
        if ratio == 1:
            return pixels
        # The last pixels may reach beyond the picture, whose border goes on then.
        beyond = 0, bottom - rows, 0, right - columns
        if any(beyond):
            wider = cv2.copyMakeBorder(pixels, *beyond, cv2.BORDER_REPLICATE)
            pixels = np.asarray(wider, np.uint8)
        # Asked for a factor, not for a size, OpenCV keeps it exactly; it may round a size up.
        factor = float(1 / ratio)
        small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        return np.asarray(small[: ends[0] - row, : ends[1] - col], np.uint8)
