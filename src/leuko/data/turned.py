"""Pictures that show the same cell turned by any angle, mirrored, sheared or a little zoomed.

Augmented copies of one cell on both sides of a split measure memory; see
docs/decisions/0027-one-cell-is-counted-once.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["TURNED", "laid_upon", "turned_copies"]

TURNED: Final = 0.96
"""Correlation of two pictures, one laid upon the other, above which they show the same cell."""

_NEIGHBOURS: Final = 5
_WORTH_A_TRY: Final = 0.7
"""Correlation in polar coordinates below which no exact position is looked for."""

_ANGLES: Final = 64
_RADII: Final = 20
_HARMONICS: Final = 14
_BLUR: Final = 2.0
_DISC: Final = 0.42
"""Radius of what is compared, in sides: corners are what turning leaves empty."""

_STRETCH: Final = 1.3
_OVERLAP: Final = 0.8
_STEPS: Final = 30
_BLOCK: Final = 512

Floats = npt.NDArray[np.float32]


def turned_copies(thumbnails: npt.NDArray[np.uint8]) -> list[tuple[int, int, float]]:
    """Find pairs of pictures that show the same cell in another position.

    Each picture is compared with the five that are most like it in what turning about the middle
    and mirroring leave alone: how strongly each ring varies, and how often around. Those that fit
    in polar coordinates are laid upon each other exactly, and judged by the correlation of what is
    fine in them.

    Parameters
    ----------
    thumbnails : (N, S, S) uint8
        Grey, from `leuko.data.audit.duplicates.thumbnail`.

    Returns
    -------
    list of (int, int, float)
        Two positions, the first the lower, and the correlation; sorted.
    """
    found = []
    for one, others in enumerate(_candidates(thumbnails)):
        if not others:
            continue
        polar = _polar(thumbnails[one])
        for two in others:
            fit, start = _turn(polar, _polar(thumbnails[two]), len(thumbnails[two]))
            if fit >= _WORTH_A_TRY:
                alike = laid_upon(thumbnails[one], thumbnails[two], start)
                if alike >= TURNED:
                    found.append((one, two, alike))
    return found


def _candidates(thumbnails: npt.NDArray[np.uint8]) -> Iterator[list[int]]:
    """Give of each picture the later ones that are among its nearest, or it among theirs."""
    count = len(thumbnails)
    if count < 2:
        return
    traits = np.stack([_traits(_polar(one)) for one in thumbnails])
    even = np.linalg.norm(traits, axis=1) == 0
    traits -= traits.mean(axis=0)
    traits /= np.maximum(np.linalg.norm(traits, axis=1, keepdims=True), 1e-6)
    kept = min(_NEIGHBOURS, count - 1)
    later: list[set[int]] = [set() for _ in range(count)]
    for start in range(0, count, _BLOCK):
        near = traits[start : start + _BLOCK] @ traits.T
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -2
        near[:, even] = -2
        nearest = np.argpartition(-near, kept - 1, axis=1)[:, :kept]
        for one, others in enumerate(nearest.tolist(), start):
            for two in () if even[one] else others:
                if not even[two]:
                    later[min(one, two)].add(max(one, two))
    yield from map(sorted, later)


def _fine(grey: Floats) -> Floats:
    """What is left without coarse light and dark."""
    return np.asarray(grey - cv2.GaussianBlur(grey, (0, 0), _BLUR), np.float32)


def _polar(thumbnail: npt.NDArray[np.uint8]) -> Floats:
    """Give (64, 20), angles and radii, of length 1; zeros for an even picture."""
    side = len(thumbnail)
    middle = ((side - 1) / 2, (side - 1) / 2)
    detail = _fine(thumbnail.astype(np.float32))
    polar = cv2.warpPolar(detail, (_RADII, _ANGLES), middle, 0.47 * side, cv2.INTER_LINEAR)
    weighted = polar * np.sqrt(np.arange(_RADII, dtype=np.float32) + 0.5)
    weighted -= weighted.mean()
    length = float(np.linalg.norm(weighted))
    return np.asarray(weighted / length if length > _RADII else np.zeros_like(weighted), np.float32)


def _traits(polar: Floats) -> Floats:
    """What turning and mirroring leave alone: the strength of each harmonic on each ring."""
    return np.abs(np.fft.rfft(polar, axis=0))[:_HARMONICS].ravel().astype(np.float32)


def _turn(first: Floats, second: Floats, side: int) -> tuple[float, Floats]:
    """Find the turn, mirrored or not, that fits best.

    Returns the correlation, and the (2, 3) matrix from places (column, row) of the first picture to
    those of the second.
    """
    spectrum = np.fft.rfft(first, axis=0)
    fit, shift, mirrored = -1.0, 0, False
    for flip, other in enumerate((second, second[::-1])):
        product = (spectrum * np.conj(np.fft.rfft(other, axis=0))).sum(axis=1)
        every = np.fft.irfft(product, n=_ANGLES)
        if every.max() > fit:
            fit, shift, mirrored = float(every.max()), int(every.argmax()), bool(flip)
    angle = -2 * np.pi * shift / _ANGLES
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        turn = np.diag([1.0, -1.0]) @ turn
    middle = np.full(2, (side - 1) / 2)
    return fit, np.column_stack([turn, middle - turn @ middle]).astype(np.float32)


def laid_upon(
    first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8], start: Floats | None = None
) -> float:
    """Correlate two pictures when the second is moved upon the first, exactly.

    Parameters
    ----------
    first, second : (S, S) uint8
        Grey thumbnails.
    start : (2, 3) float32, optional
        From places (column, row) of the first to those of the second, nearly; as they are when
        None.

    Returns
    -------
    float
        Of what is fine in both; 0 where no small correction of `start` fits.
    """
    side = len(first)
    offset = np.arange(side) - (side - 1) / 2
    disc = (np.hypot(*np.meshgrid(offset, offset)) <= _DISC * side).astype(np.uint8)
    one, two = (picture.astype(np.float32) for picture in (first, second))
    fine = _fine(one)
    enough = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEPS, 1e-4)
    begin = np.eye(2, 3, dtype=np.float32) if start is None else start.copy()
    try:
        _, found = cv2.findTransformECC(fine, _fine(two), begin, cv2.MOTION_AFFINE, enough, disc, 1)
    except cv2.error:  # it found no way to go
        return 0.0
    stretch = np.linalg.svd(found[:, :2], compute_uv=False)
    if stretch.min() < 1 / _STRETCH or stretch.max() > _STRETCH:
        return 0.0
    back = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(two, found, (side, side), flags=back, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.full_like(disc, 255), found, (side, side), flags=back)
    common = (disc > 0) & (inside == 255)
    if common.sum() < _OVERLAP * disc.sum():
        return 0.0
    there = np.asarray(moved, np.float32)
    return float(np.corrcoef(fine[common], _fine(there)[common])[0, 1])
