"""Write a pyramid as scanners do, tile by tile: no library among the dependencies can."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import cv2
import numpy as np

KINDS = {int: (16, "Q"), str: (2, "s"), bytes: (7, "s"), tuple: (5, "II")}
"""Types of TIFF: LONG8, ASCII, UNDEFINED, RATIONAL."""


class PyramidWriter:
    """A BigTIFF of tiled directories.

    Parameters
    ----------
    file : binary file
        Written from its beginning to its end.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        self._link = 8

    def add(self, size: tuple[int, int], tile: int, pieces: Iterator[bytes], **tags: Any) -> None:
        """Write a directory whose tiles are written as they come; ``t<number>`` gives a tag."""
        places, sizes = [], []
        for piece in pieces:
            places.append(self.file.tell())
            sizes.append(len(piece))
            self.file.write(piece)
        entries: dict[int, Any] = {
            256: size[1], 257: size[0], 258: [8, 8, 8], 277: 3, 284: 1,
            322: tile, 323: tile, 324: places, 325: sizes,
        }  # fmt: skip
        entries |= {int(name[1:]): value for name, value in tags.items() if value is not None}
        values = {}
        for tag, value in sorted(entries.items()):
            many = value if isinstance(value, list) else [value]
            kind, letter = KINDS[type(many[0])]
            if letter == "s":
                body = many[0].encode() + b"\0" if kind == 2 else many[0]
                count = len(body)
            else:
                body = b"".join(struct.pack("<" + letter, *np.atleast_1d(one)) for one in many)
                count = len(many)
            if len(body) > 8:
                place = self.file.tell()
                self.file.write(body)
                body = struct.pack("<Q", place)
            values[tag] = struct.pack("<HHQ", tag, kind, count) + body.ljust(8, b"\0")
        here = self.file.tell()
        self.file.write(struct.pack("<Q", len(values)) + b"".join(values.values()) + bytes(8))
        self.file.seek(self._link)
        self.file.write(struct.pack("<Q", here))
        self.file.seek(0, 2)
        self._link = self.file.tell() - 8


def cut(pixels: np.ndarray, tile: int) -> Iterator[np.ndarray]:
    """Cut a picture into tiles, those at its border filled with black as libtiff's are."""
    rows, columns = (-(-side // tile) * tile for side in pixels.shape[:2])
    whole = np.zeros((rows, columns, 3), np.uint8)
    whole[: pixels.shape[0], : pixels.shape[1]] = pixels
    for row in range(0, rows, tile):
        for col in range(0, columns, tile):
            yield np.ascontiguousarray(whole[row : row + tile, col : col + tile])


def shrunk(pixels: np.ndarray, step: int) -> np.ndarray:
    """Average a picture, rounding its sides down as Aperio does."""
    size = pixels.shape[1] // step, pixels.shape[0] // step
    fit = pixels[: size[1] * step, : size[0] * step]
    return cv2.resize(fit, size, interpolation=cv2.INTER_AREA)
