"""Whether two pictures show one cell in other bytes: smaller, recompressed, turned, mirrored.

A fingerprint is what is left of a small grey picture without its coarse light and dark: cells of a
class share a round shape on an even ground, and differ in what is fine. See
docs/decisions/0027-one-cell-is-counted-once.md.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.data.audit.duplicates import thumbnail

__all__ = ["SAME_CELL", "Fingerprints", "fingerprint"]

SAME_CELL: Final = 0.95
"""Correlation of two fingerprints above which they show the same picture of a cell."""

SIDE: Final = 24
_BLUR: Final = 1.5
_FAINT: Final = 2.5
"""Deviation in grey levels below which there is nothing to tell pictures apart by."""

_LIGHT: Final = 4
_STRENGTH: Final = 8
"""Copies of one picture differ by less in mean grey, and in 32 logarithms of deviation."""

_ROUNDING: Final = 1e-4

Floats = npt.NDArray[np.float32]


def _orbit_basis() -> Floats:
    """Unit vectors (576, 78), each even over the places that turning and mirroring exchange."""
    offset = np.abs(2 * np.arange(SIDE) - (SIDE - 1)) // 2
    rows, columns = np.meshgrid(offset, offset, indexing="ij")
    orbit = (SIDE * np.maximum(rows, columns) + np.minimum(rows, columns)).ravel()
    basis = (orbit[:, None] == np.unique(orbit)).astype(np.float32)
    return np.asarray(basis / np.linalg.norm(basis, axis=0), np.float32)


_BASIS: Final = _orbit_basis()


def fingerprint(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Take the fingerprint of a picture.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        At any scale: what is compared is 24 pixels wide.

    Returns
    -------
    bytes
        578 of them; empty for an even picture, which resembles every other.
    """
    small = cv2.resize(thumbnail(pixels), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey = small.astype(np.float32)
    detail = grey - cv2.GaussianBlur(grey, (0, 0), _BLUR)
    detail -= detail.mean()
    deviation = float(detail.std())
    if deviation < _FAINT:
        return b""
    light, strength = round(float(grey.mean())), round(32 * float(np.log2(deviation)))
    scaled = np.clip(np.rint(detail * (24 / deviation)), -127, 127).astype(np.int8)
    return bytes([light, strength, *scaled.tobytes()])


class Fingerprints:
    """Fingerprints that were seen, to find the first that another is like.

    What is kept takes about 900 bytes a picture. Only pictures of nearly the same light and
    contrast are compared; and of these first what no turning by 90 degrees and no mirror changes:
    where that correlates less than `SAME_CELL`, nothing can in any of the eight positions.
    """

    def __init__(self) -> None:
        self._buckets: dict[tuple[int, int], _Bucket] = {}

    def find(self, print_: bytes) -> int | None:
        """Find the earliest picture that shows the same cell.

        Parameters
        ----------
        print_ : bytes
            From `fingerprint`.

        Returns
        -------
        int or None
            The number that it was added by.
        """
        if not print_:
            return None
        detail = _detail(print_)
        even, turned = _evened(detail), _turned(detail)
        light, strength = _bucket_of(print_)
        found = [
            number
            for one in (light - 1, light, light + 1)
            for two in (strength - 1, strength, strength + 1)
            if (bucket := self._buckets.get((one, two))) is not None
            for number in bucket.like(even, turned)
        ]
        return min(found, default=None)

    def add(self, print_: bytes, number: int) -> None:
        """Keep a fingerprint.

        Parameters
        ----------
        print_ : bytes
            From `fingerprint`; an empty one is not kept.
        number : int
            What `find` is to give.
        """
        if print_:
            self._buckets.setdefault(_bucket_of(print_), _Bucket()).add(print_, number)


class _Bucket:
    """Fingerprints of about one light and one contrast."""

    def __init__(self) -> None:
        self._count = 0
        self._numbers = np.empty(4, np.int64)
        self._evened = np.empty((4, _BASIS.shape[1] + 1), np.float32)
        self._details = np.empty((4, SIDE * SIDE), np.int8)

    def add(self, print_: bytes, number: int) -> None:
        """Keep one."""
        if self._count == len(self._numbers):
            for name in ("_numbers", "_evened", "_details"):
                held = getattr(self, name)
                setattr(self, name, np.concatenate([held, np.empty_like(held)]))
        detail = np.frombuffer(print_, np.int8, offset=2)
        self._numbers[self._count] = number
        self._evened[self._count] = _evened(_detail(print_))
        self._details[self._count] = detail
        self._count += 1

    def like(self, even: Floats, turned: Floats) -> list[int]:
        """Numbers of those that show the same cell."""
        close = np.flatnonzero(self._evened[: self._count] @ even >= SAME_CELL - _ROUNDING)
        if not len(close):
            return []
        details = self._details[close].astype(np.float32)
        details /= np.linalg.norm(details, axis=1, keepdims=True)
        same = (details @ turned).max(axis=1, initial=-1.0) >= SAME_CELL
        return [int(number) for number in self._numbers[close[same]]]


def _bucket_of(print_: bytes) -> tuple[int, int]:
    """Light and contrast, coarsely: copies lie in neighbouring buckets at most."""
    return print_[0] // _LIGHT, print_[1] // _STRENGTH


def _detail(print_: bytes) -> Floats:
    """Give (576,) of length 1."""
    detail = np.frombuffer(print_, np.int8, offset=2).astype(np.float32)
    return detail / np.linalg.norm(detail)


def _turned(detail: Floats) -> Floats:
    """Give (576, 8): as it is, turned and mirrored."""
    square = detail.reshape(SIDE, SIDE)
    every = [np.rot90(one, turn).ravel() for one in (square, square[:, ::-1]) for turn in range(4)]
    return np.stack(every, axis=1)


def _evened(detail: Floats) -> Floats:
    """Give (79,) of length 1: the mean of the eight positions, and the length of the rest."""
    mean = detail @ _BASIS
    return np.append(mean, np.sqrt(max(0.0, 1 - float(mean @ mean)))).astype(np.float32)
