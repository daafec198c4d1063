"""Slides in the scanners' own formats, through the optional OpenSlide."""

from __future__ import annotations

import math
import threading
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import ImageError, MissingExtraError
from leuko.imaging.pyramid import WHITE, Box, Faults, FieldImage
from leuko.imaging.scale import believable
from leuko.support.packages import import_extra

__all__ = ["open_with_openslide"]

_CACHE: Final = 64 * 2**20
"""Bytes of decoded tiles that are kept."""

_PART: Final = 512
"""Rows and columns that are given up together where something is damaged."""


class _Slide:
    """A slide that is opened again after an error: OpenSlide reads nothing more after one."""

    def __init__(self, path: str, package: Any) -> None:
        self.path, self.package = path, package
        self._lock = threading.Lock()
        self._cache = package.OpenSlideCache(_CACHE)
        self.slide = self._open()

    def _open(self) -> Any:
        slide = self.package.OpenSlide(self.path)
        slide.set_cache(self._cache)
        return slide

    def read(self, corner: tuple[int, int], level: int, shape: tuple[int, int]) -> Any:
        """Read a part: its corner in pixels of the original, rows and columns of the level."""
        slide = self.slide
        try:
            return slide.read_region(corner[::-1], level, shape[::-1])
        except self.package.OpenSlideError:
            with self._lock:
                if self.slide is slide:
                    self.slide = self._open()
            raise

    def close(self) -> None:
        """Let the file go."""
        self.slide.close()


class _Level:
    """A level of OpenSlide as a `leuko.imaging.pyramid.Level`."""

    def __init__(self, slide: _Slide, number: int, step: int, faults: Faults) -> None:
        self.slide, self.number, self.step, self.faults = slide, number, step, faults

    def region(self, box: Box) -> npt.NDArray[np.uint8]:
        row0, col0, row1, col1 = box
        pixels = np.full((row1 - row0, col1 - col0, 3), WHITE, np.uint8)
        for top in range(row0, row1, _PART):
            for left in range(col0, col1, _PART):
                shape = min(_PART, row1 - top), min(_PART, col1 - left)
                part = self._part(top, left, shape)
                if part is not None:
                    pixels[top - row0 :, left - col0 :][: shape[0], : shape[1]] = part
        return pixels

    def _part(self, top: int, left: int, shape: tuple[int, int]) -> npt.NDArray[np.uint8] | None:
        """Read some rows and columns, transparent ones over white; None where they are damaged."""
        corner = top * self.step, left * self.step
        try:
            image = self.slide.read(corner, self.number, shape)
        except self.slide.package.OpenSlideError as error:
            where = "at full size" if self.step == 1 else f"of the copy at 1:{self.step}"
            told = f"At row {corner[0]}, column {corner[1]}: {error}."
            self.faults.add(where, corner[0] * 2**32 + corner[1], told)
            return None
        colours = np.asarray(image, np.uint8)
        opaque = colours[..., 3:].astype(np.uint16)
        over = (colours[..., :3] * opaque + WHITE * (255 - opaque) + 127) // 255
        return over.astype(np.uint8)


def open_with_openslide(path: str) -> tuple[FieldImage, _Slide] | None:
    """Open a slide of a scanner's own format.

    Parameters
    ----------
    path : str
        The file; others may lie beside it.

    Returns
    -------
    (FieldImage, object with ``close``) or None
        None for what OpenSlide does not know.

    Raises
    ------
    ImageError
        ``unsupported-format`` where OpenSlide is not installed, ``corrupt`` where it reads nothing.
    """
    try:
        package = import_extra("openslide", "Reading this slide", "wsi")
    except MissingExtraError as error:
        raise ImageError("unsupported-format", str(error)) from error
    try:
        if package.OpenSlide.detect_format(path) is None:
            return None
        slide = _Slide(path, package)
    except (package.OpenSlideError, OSError) as error:
        raise ImageError("corrupt", f"OpenSlide cannot open the slide ({error}).") from error
    shapes = [shape[::-1] for shape in slide.slide.level_dimensions]
    size = shapes[0]
    faults = Faults()
    levels = {1: _Level(slide, 0, 1, faults)}
    for number, factor in enumerate(slide.slide.level_downsamples):
        step = round(factor)
        sides = zip(shapes[number], size, strict=True)
        if all(abs(side - whole / step) < 2.0 for side, whole in sides):
            levels.setdefault(step, _Level(slide, number, step, faults))
    told = [slide.slide.properties.get(f"openslide.mpp-{axis}", "") for axis in "yx"]
    image = FieldImage(size, _scale(told), (), [levels[step] for step in sorted(levels)], faults)
    return image, slide


def _scale(told: list[str]) -> float | None:
    """Turn micrometres per pixel, as text, into pixels to a micrometre."""
    try:
        down, across = (1 / float(length) for length in told)
    except (ValueError, ZeroDivisionError):
        return None
    return believable(down, across) if math.isfinite(down * across) else None
