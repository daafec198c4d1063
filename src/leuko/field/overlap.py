"""Whether two photographs show a common place, and which white cells land on each other there.

Compared is what is around the white cells: red cells lie in a pattern of their own everywhere, and
lymphocytes resemble each other.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.cells.arrays import Mask, Pixels, cv
from leuko.cells.detector import Box

__all__ = ["SPECTRUM", "SQUARE", "Ground", "common_cells", "likely_shifts", "same_field", "texture"]

_SIDE: Final = 192
"""Pixels along the longer side of a texture..."""

_COARSE: Final = _SIDE // 2
"""...and of what the shift of one picture on another is looked for in."""

SPECTRUM: Final = (_COARSE, _COARSE // 2 + 1)
"""Shape of a picture's spectrum."""

_BLUR: Final = _SIDE / 32
"""Standard deviation of the blur that is taken for light, vignette and stain..."""

_REACH: Final = 2.5 * _BLUR
"""...and of that within which contrast is made even."""

_MARGIN: Final = 0.15
"""Share of a white cell's side that is left out round it."""

_FAINT: Final = 4.0
"""Deviation in grey levels below which contrast is not raised: dust in the camera is in every
picture at one place."""

_BARE: Final = 1.0
"""Mean square below which a texture has nothing to tell places apart by; of most it is 5."""

_CLIP: Final = 3.0
_LEVELS: Final = 7
"""Contrast is kept up to three deviations, in seven steps either way."""

_EDGE: Final = 48
"""Pixels along the sides of the square in which whole pictures are compared..."""

SQUARE: Final = _EDGE * _EDGE
"""...of so many values..."""

_SAME_FIELD: Final = 0.5
"""...and the correlation there above which they show the same field."""

_PEAKS: Final = 3
"""Shifts that are tried for two pictures."""

_WORTH_A_TRY: Final = 0.2
"""Correlation at half the size below which a shift is not tried more exactly."""

_SAME_PLACE: Final = 0.33
"""Correlation of two textures above which they show one place..."""

_CERTAIN: Final = 12.0
"""...and how many of its standard deviations by chance it must be: three red cells prove less than
a hundred."""

_LEAST: Final = 25
"""Pixels that both must show."""

_LANDS: Final = 0.35
"""Intersection over union, within what both show, above which two boxes are one cell's."""

Floats = npt.NDArray[np.float32]
Signed = npt.NDArray[np.int8]


def texture(pixels: Pixels, size: tuple[int, int], boxes: Sequence[Box]) -> bytes:
    """Take the texture of a picture: what is around its white cells, in even light and contrast.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        The whole picture, reduced or not.
    size : (int, int)
        Rows and columns of the original.
    boxes : sequence of (int, int, int, int)
        Its white cells, in pixels of the original.

    Returns
    -------
    bytes
        (h, w) int8, compressed by zlib: 192 pixels along the longer side; -7 to 7, and 0 on white
        cells.
    """
    clear = _clear(size, boxes)
    grey = cv.cvtColor(
        cv.resize(pixels, clear.shape[::-1], interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
    ).astype(np.float32)
    weight = clear.astype(np.float32)
    detail = (grey - _smooth(grey, weight, _BLUR)) * weight
    deviation = np.sqrt(_smooth(detail * detail, weight, _REACH))
    steps = detail / np.maximum(deviation, _FAINT) * (_LEVELS / _CLIP)
    return zlib.compress(np.clip(np.rint(steps), -_LEVELS, _LEVELS).astype(np.int8).tobytes())


def _smooth(values: Floats, weight: Floats, deviation: float) -> Floats:
    """Blur, and leave out what has no weight."""
    blurred, counted = (
        cv.GaussianBlur(one, (0, 0), deviation, borderType=cv2.BORDER_REFLECT)
        for one in (values * weight, weight)
    )
    return np.asarray(blurred / np.maximum(counted, 0.02), np.float32)


def _clear(size: tuple[int, int], boxes: Sequence[Box]) -> Mask:
    """1 where a texture shows no white cell, 0 elsewhere."""
    scale = _SIDE / max(size)
    clear = np.ones([max(1, round(side * scale)) for side in size], np.uint8)
    for row0, col0, row1, col1 in boxes:
        down, across = _MARGIN * (row1 - row0), _MARGIN * (col1 - col0)
        top, left = (max(0, int(edge * scale)) for edge in (row0 - down, col0 - across))
        bottom, right = (int(np.ceil(edge * scale)) for edge in (row1 + down, col1 + across))
        clear[top:bottom, left:right] = 0
    return clear


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """A texture, and where it shows no white cell."""

    texture: Signed
    clear: Mask


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """A picture as it is compared with others; about 100 kilobytes.

    Attributes
    ----------
    boxes : (N, 4) float32
        Its white cells in pixels of the texture.
    fine, coarse : _Layer
        The texture, and at half its size.
    spectrum : (96, 49) complex64
        Phases of the coarse texture's Fourier transform.
    square : (2304,) float32
        The texture in 48 x 48 pixels, of length 1; zeros where it is bare.
    grain : float
        How many pixels of the texture vary together: the sum of its squared autocorrelation, half
        of what the transform says, whose squares scatter like squared exponentials.
    """

    boxes: Floats
    fine: _Layer
    coarse: _Layer
    spectrum: npt.NDArray[np.complex64]
    square: Floats
    grain: float

    @classmethod
    def of(cls, stored: bytes, size: tuple[int, int], boxes: Sequence[Box]) -> Ground:
        """Prepare a picture.

        Parameters
        ----------
        stored : bytes
            From `texture`.
        size : (int, int)
            Rows and columns of the original.
        boxes : sequence of (int, int, int, int)
            Its white cells, in pixels of the original.

        Returns
        -------
        Ground
        """
        clear = _clear(size, boxes)
        texture = np.frombuffer(zlib.decompress(stored), np.int8).reshape(clear.shape)
        values = texture.astype(np.float32)
        half = [max(1, side // 2) for side in reversed(clear.shape)]
        small = cv.resize(values, half, interpolation=cv2.INTER_AREA)
        framed = np.zeros((_COARSE, _COARSE), np.float32)
        framed[: half[1], : half[0]] = small
        transform = np.fft.fft2(framed)
        power = np.square(np.abs(transform))
        spread = power.size * float(np.square(power).sum()) / max(float(power.sum()) ** 2, 1e-6)
        return cls(
            np.array(boxes, np.float32).reshape(-1, 4) * np.float32(_SIDE / max(size)),
            _Layer(texture, clear),
            _Layer(
                np.rint(small).astype(np.int8), cv.resize(clear, half, interpolation=cv2.INTER_AREA)
            ),
            (transform / np.maximum(np.sqrt(power), 1e-3))[:, : SPECTRUM[1]].astype(np.complex64),
            _square(values),
            max(1.0, spread / 2 * (_SIDE / _COARSE) ** 2),
        )


def _square(texture: Floats) -> Floats:
    """See `Ground.square`."""
    if float(np.square(texture).mean()) < _BARE:
        return np.zeros(SQUARE, np.float32)
    small = cv.resize(texture, (_EDGE, _EDGE), interpolation=cv2.INTER_AREA).ravel()
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6), np.float32)


def same_field(square: Floats, others: Floats) -> int | None:
    """Find the first picture that shows the same field: as it is, turned by right angles, mirrored.

    Parameters
    ----------
    square : (2304,) float32
        See `Ground`.
    others : (N, 2304) float32
        Of the pictures that it may be a copy of.

    Returns
    -------
    int or None
        Its position.
    """
    one = square.reshape(_EDGE, _EDGE)
    every = [np.rot90(side, turn).ravel() for side in (one, one.T) for turn in range(4)]
    same = (others @ np.stack(every, axis=1)).max(axis=1, initial=0.0) >= _SAME_FIELD
    return int(same.argmax()) if same.any() else None


def likely_shifts(
    spectrum: npt.NDArray[np.complex64], others: npt.NDArray[np.complex64]
) -> npt.NDArray[np.intp]:
    """Find by phase correlation where pictures may lie on another.

    Parameters
    ----------
    spectrum : (96, 49) complex64
        See `Ground`.
    others : (N, 96, 49) complex64
        Of the pictures to be moved.

    Returns
    -------
    (N, 3, 2) int
        Rows and columns in pixels of the texture, 0 to 190; or that less 192, since the transform
        is cyclic.

    References
    ----------
    Kuglin and Hines, "The phase correlation image alignment method", 1975.
    """
    surface = np.fft.irfft2(spectrum * np.conj(others), s=(_COARSE, _COARSE))
    found = np.empty((len(others), _PEAKS, 2), np.intp)
    every = np.arange(len(others))
    for peak in range(_PEAKS):
        rows, columns = np.divmod(surface.reshape(len(others), -1).argmax(axis=1), _COARSE)
        found[:, peak] = np.stack([rows, columns], axis=1) * (_SIDE // _COARSE)
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                surface[every, (rows + down) % _COARSE, (columns + across) % _COARSE] = -np.inf
    return found


def common_cells(one: Ground, two: Ground, shifts: npt.NDArray[np.intp]) -> list[tuple[int, int]]:
    """Find the white cells that two pictures have in common.

    Parameters
    ----------
    one, two : Ground
        The pictures.
    shifts : (3, 2) int
        From `likely_shifts`: of the second on the first.

    Returns
    -------
    list of (int, int)
        Positions among the boxes of the first and of the second; empty where nothing proves that
        they show a common place.

    References
    ----------
    Bartlett, "Some aspects of the time-correlation problem", 1935: what a correlation by chance is
    where neighbours vary together; and Fisher's transform of it.
    """
    best, where, grain = _SAME_PLACE, None, math.sqrt(one.grain * two.grain)
    for shift in _landing(one, two, shifts):
        half = (round(shift[0] / 2), round(shift[1] / 2))
        if _fit(one.coarse, two.coarse, half)[0] < _WORTH_A_TRY:
            continue
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                tried = (shift[0] + down, shift[1] + across)
                fit, pixels = _fit(one.fine, two.fine, tried)
                certain = math.atanh(min(fit, 0.999)) * math.sqrt(pixels / grain)
                if fit >= best and certain >= _CERTAIN:
                    best, where = fit, tried
    return [] if where is None else _pairs(one, two, where)


def _landing(one: Ground, two: Ground, shifts: npt.NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Give of the shifts, cyclic as they are, those that may bring a cell upon another."""
    wraps = np.array([(0, 0), (0, -_SIDE), (-_SIDE, 0), (-_SIDE, -_SIDE)])
    every = (shifts[:, None] + wraps).reshape(-1, 1, 2)
    first, second = (ground.boxes[:, :2] + ground.boxes[:, 2:] for ground in (one, two))
    apart = (first[:, None] - second).reshape(-1, 2) / 2
    sides = max(float((ground.boxes[:, 2:] - ground.boxes[:, :2]).max()) for ground in (one, two))
    lands = (np.abs(apart - every) < sides).all(axis=2).any(axis=1)
    yield from every[lands, 0].tolist()


def _fit(one: _Layer, two: _Layer, shift: tuple[int, int]) -> tuple[float, int]:
    """Correlate two textures where they overlap; give the number of pixels, too."""
    tall, wide = (
        min(a, b + s) for a, b, s in zip(one.clear.shape, two.clear.shape, shift, strict=True)
    )
    top, left = max(0, shift[0]), max(0, shift[1])
    if tall <= top or wide <= left:
        return 0.0, 0
    here = slice(top, tall), slice(left, wide)
    there = slice(top - shift[0], tall - shift[0]), slice(left - shift[1], wide - shift[1])
    clear = (one.clear[here] & two.clear[there]).astype(np.bool_)
    pixels = int(np.count_nonzero(clear))
    first, second = (
        layer.texture[place][clear].astype(np.float32)
        for layer, place in ((one, here), (two, there))
    )
    if pixels < _LEAST:
        return 0.0, 0
    first -= first.mean()
    second -= second.mean()
    lengths = float(first @ first), float(second @ second)
    if min(lengths) < _BARE * pixels:
        return 0.0, 0
    return float(first @ second) / math.sqrt(lengths[0] * lengths[1]), pixels


def _pairs(one: Ground, two: Ground, shift: tuple[int, int]) -> list[tuple[int, int]]:
    """Match the boxes within what both show, the best first, each once."""
    moved = two.boxes + np.tile(np.array(shift, np.float32), 2)
    frame = np.array(two.fine.clear.shape, np.float32)
    low = np.maximum(0, np.array(shift, np.float32))
    high = np.minimum(np.array(one.fine.clear.shape, np.float32), frame + shift)
    first, second = (
        np.clip(boxes, np.tile(low, 2), np.tile(high, 2)) for boxes in (one.boxes, moved)
    )
    corner = np.maximum(first[:, None, :2], second[:, :2])
    opposite = np.minimum(first[:, None, 2:], second[:, 2:])
    common = np.maximum(opposite - corner, 0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    share = common / np.maximum(areas[0][:, None] + areas[1] - common, 1e-6)
    found = []
    while share.size and share.max() >= _LANDS:
        row, column = divmod(int(share.argmax()), share.shape[1])
        found.append((row, column))
        share[row], share[:, column] = 0, 0
    return sorted(found)
