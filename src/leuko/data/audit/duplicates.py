"""Images that show the same cell, byte for byte or photographed again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.data.turned import laid_upon, turned_copies

__all__ = [
    "HASH_DISTANCE",
    "THUMBNAIL_CORRELATION",
    "difference_hash",
    "identical_files",
    "near_duplicates",
    "same_cells",
    "thumbnail",
]

HASH_DISTANCE: Final = 8
"""Bits of 64 in which the hashes of two candidates may differ."""

THUMBNAIL_CORRELATION: Final = 0.9
"""Correlation of two candidates' thumbnails above which they may show the same cell.

On Raabin-WBC this gives 241 pairs. Seventeen drawn from this range and from just below it were
looked at, and each is one cell photographed twice, mostly under two slide names.
"""

_LAID_UPON: Final = 0.85
"""Correlation of what is fine in them, one laid upon the other, above which they do.

It keeps all 241 pairs of Raabin-WBC, and 13 of 73 of another laboratory's round cells.
"""

_THUMBNAIL: Final = 32
_BLOCK: Final = 256


def thumbnail(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Shrink an image to a small grey square.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        The image.

    Returns
    -------
    (32, 32) uint8
        Area averages of the grey values.
    """
    small = cv2.resize(pixels, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)


def difference_hash(small: npt.NDArray[np.uint8]) -> np.uint64:
    """Hash a thumbnail by whether brightness rises from each of 8 x 9 areas to its right.

    Parameters
    ----------
    small : (32, 32) uint8
        From `thumbnail`.

    Returns
    -------
    uint64
        64 comparisons. A change of light, stain or compression moves few of them.
    """
    areas = cv2.resize(small, (9, 8), interpolation=cv2.INTER_AREA)
    return np.uint64(np.packbits(areas[:, 1:] > areas[:, :-1]).view(np.uint64)[0])


def identical_files(digests: Sequence[str]) -> list[list[int]]:
    """Group files with the same content.

    Parameters
    ----------
    digests : sequence of str
        SHA-256 of every file; empty where it could not be read.

    Returns
    -------
    list of list of int
        Positions, groups of two and more.
    """
    groups: dict[str, list[int]] = {}
    for position, digest in enumerate(digests):
        if digest:
            groups.setdefault(digest, []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def near_duplicates(
    thumbnails: npt.NDArray[np.uint8], hashes: npt.NDArray[np.uint64]
) -> list[tuple[int, int, int, float]]:
    """Find pairs of images that show the same cell.

    Hashes of all pairs are compared in blocks (14,500 images take about a second); pairs that
    differ in at most `HASH_DISTANCE` bits are verified by the correlation of their thumbnails, and
    of what is fine in these. For mirrored and turned copies, see `leuko.data.turned`.

    Parameters
    ----------
    thumbnails : (N, 32, 32) uint8
        From `thumbnail`.
    hashes : (N,) uint64
        From `difference_hash`.

    Returns
    -------
    list of (int, int, int, float)
        Two positions, the hash distance and the correlation, the surest pair first. Pictures of
        one even colour are left out: they resemble everything.
    """
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    even = length[:, 0] < 2.0 * _THUMBNAIL  # a standard deviation below two grey levels
    flat /= np.maximum(length, 1e-6)
    pairs: list[tuple[int, int, int, float]] = []
    for start in range(0, len(hashes), _BLOCK):
        block = hashes[start : start + _BLOCK]
        distance = np.bitwise_count(block[:, None] ^ hashes[None, start:])
        first, second = np.nonzero(distance <= HASH_DISTANCE)
        keep = second > first
        first, second = first[keep], second[keep]
        bits = distance[first, second]
        for one, two, apart in zip(first + start, second + start, bits, strict=True):
            if even[one] or even[two]:
                continue
            correlation = float(flat[one] @ flat[two])
            if (
                correlation >= THUMBNAIL_CORRELATION
                and laid_upon(thumbnails[one], thumbnails[two]) >= _LAID_UPON
            ):
                pairs.append((int(one), int(two), int(apart), correlation))
    return sorted(pairs, key=lambda pair: (-round(pair[3], 6), pair[0], pair[1]))


def same_cells(thumbnails: npt.NDArray[np.uint8]) -> list[tuple[int, int, int]]:
    """Find pairs of images that show the same cell, photographed again, turned or mirrored.

    Parameters
    ----------
    thumbnails : (N, 32, 32) uint8
        From `thumbnail`.

    Returns
    -------
    list of (int, int, int)
        Two positions and the hash distance: those of `near_duplicates`, then others of
        `leuko.data.turned.turned_copies`.
    """
    hashes = np.array([difference_hash(one) for one in thumbnails], dtype=np.uint64)
    pairs = [(one, two, apart) for one, two, apart, _ in near_duplicates(thumbnails, hashes)]
    known = {(one, two) for one, two, _ in pairs}
    return pairs + [
        (one, two, int(np.bitwise_count(hashes[one] ^ hashes[two])))
        for one, two, _ in turned_copies(thumbnails)
        if (one, two) not in known
    ]
