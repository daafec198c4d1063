"""Drawn slides, written tile by tile as scanners do: no library among the dependencies can."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from leuko.data.synth import DrawnField, draw_field, draw_slide_style
from leuko.imaging.decode import encode_jpeg

Box = tuple[int, int, int, int]

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


@dataclass(frozen=True)
class DrawnSlide:
    """A smear on glass, made of drawn fields, each turned and mirrored where it lies.

    Attributes
    ----------
    size : (int, int)
        Rows and columns.
    patches : list of DrawnField
        Square, all of one size.
    lie : (n, m) int
        Which patch lies where, times 8, and how it is turned; -1 for glass, -2 for a thick layer,
        -3 for ink.
    glass : (3,) uint8
    """

    size: tuple[int, int]
    patches: list[DrawnField]
    lie: np.ndarray
    glass: np.ndarray

    @property
    def side(self) -> int:
        return len(self.patches[0].pixels)

    def band(self, row0: int, row1: int) -> np.ndarray:
        """Draw some rows."""
        ends = [*range(row0 - row0 % self.side + self.side, row1, self.side), row1]
        return np.concatenate(
            [self._band(*pair) for pair in zip([row0, *ends], ends, strict=False)]
        )

    def _band(self, row0: int, row1: int) -> np.ndarray:
        """Draw some rows that lie in one row of patches."""
        side = self.side
        parts = []
        for lie in self.lie[row0 // side]:
            number, turn = divmod(max(int(lie), 0), 8)
            patch = turned(self.patches[number].pixels, turn)[row0 % side : (row1 - 1) % side + 1]
            if lie == -1:
                patch = np.broadcast_to(self.glass, patch.shape)
            elif lie == -2:  # four layers
                patch = (255 * (patch / 255.0) ** 4).astype(np.uint8)
            elif lie == -3:
                patch = np.broadcast_to(np.array([30, 50, 140], np.uint8), patch.shape)
            parts.append(patch)
        return np.concatenate(parts, axis=1)[:, : self.size[1]]

    def boxes(self) -> list[Box]:
        """White cells of the thin layer, by row and column."""
        found = []
        for (row, col), lie in np.ndenumerate(self.lie):
            for box in self.patches[lie // 8].boxes if lie >= 0 else ():
                top, left, bottom, right = turned_box(box, self.side, lie % 8)
                down, across = row * self.side, col * self.side
                if top + down < self.size[0] and left + across < self.size[1]:
                    found.append((top + down, left + across, bottom + down, right + across))
        return sorted(found)


def turned(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Mirror and turn a square by one of eight ways."""
    pixels = pixels[::-1] if turn & 1 else pixels
    pixels = pixels[:, ::-1] if turn & 2 else pixels
    return pixels.swapaxes(0, 1) if turn & 4 else pixels


def turned_box(box: Box, side: int, turn: int) -> Box:
    """The same of a box in that square."""
    row0, col0, row1, col1 = box
    row0, row1 = (side - row1, side - row0) if turn & 1 else (row0, row1)
    col0, col1 = (side - col1, side - col0) if turn & 2 else (col0, col1)
    return (col0, row0, col1, row1) if turn & 4 else (row0, col0, row1, col1)


def draw_slide(
    size: tuple[int, int], seed: int = 0, *, side: int = 1000, cells: int = 4, patches: int = 6
) -> DrawnSlide:
    """Draw a slide at 4 pixels to a micrometre.

    The smear is an ellipse that takes half of the slide; a tenth of it is thick, and one row of the
    glass has ink.
    """
    rng = np.random.default_rng(seed)
    style = draw_slide_style(rng)
    drawn = [
        draw_field(
            cells, rng, style, height=side, width=side, pixels_per_micrometre=4.0, cut_share=0.0
        )
        for _ in range(patches)
    ]
    down, across = (-(-length // side) for length in size)
    lie = 8 * rng.integers(0, patches, (down, across)) + rng.integers(0, 8, (down, across))
    row, col = np.mgrid[:down, :across]
    away = np.hypot((2 * row + 1) / down - 1, (2 * col + 1) / across - 1)
    lie[away > 0.8] = -1
    lie[np.hypot((2 * row + 1) / down - 1, (2 * col + 1) / across - 0.7) < 0.25] = -2
    lie[0, across // 2 :] = -3
    glass = np.median(drawn[0].pixels[drawn[0].pixels.min(axis=2) > 0], axis=0)
    bright = np.percentile(drawn[0].pixels.reshape(-1, 3), 90, axis=0)
    return DrawnSlide(size, drawn, lie, np.maximum(glass, bright).astype(np.uint8))


def write_slide(
    slide: DrawnSlide, path: Path, *, tile: int = 256, steps: tuple[int, ...] = (4, 16)
) -> None:
    """Write a slide as Aperio's BigTIFF of JPEG tiles, with copies of which each is in memory."""
    copies = {
        step: np.empty((slide.size[0] // step, slide.size[1] // step, 3), np.uint8)
        for step in steps
    }

    def tiles() -> Iterator[bytes]:
        for row in range(0, slide.size[0], tile):
            band = slide.band(row, min(row + tile, slide.size[0]))
            for step, copy in copies.items():
                small = shrunk(band, step)
                copy[row // step : row // step + len(small)] = small
            yield from map(jpeg, cut(band, tile))

    def jpeg(pixels: np.ndarray) -> bytes:
        return encode_jpeg(pixels, quality=85, subsampling="420")

    text = "Aperio Image Library v12|AppMag = 40|MPP = 0.25"
    with open(path, "wb") as file:
        writer = PyramidWriter(file)
        writer.add(slide.size, tile, tiles(), t259=7, t262=6, t270=text)
        for copy in copies.values():
            writer.add(copy.shape[:2], tile, map(jpeg, cut(copy, tile)), t259=7, t262=6, t254=1)
