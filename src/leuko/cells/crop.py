"""The canonical crop: one frame for training, prediction and fields."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from leuko.cells.arrays import Mask, Pixels, cv
from leuko.cells.finding import CellFinding
from leuko.imaging.preprocess import PreprocessSpec, warp_image

__all__ = ["CanonicalCrop", "canonical_crop"]


@dataclass(frozen=True, slots=True)
class CanonicalCrop:
    """A cell in its frame.

    Attributes
    ----------
    pixels : (size, size, 3) uint8, RGB
        The crop.
    cell, nucleus : (size, size) uint8, 0 to 255
        The cell's masks in the crop's frame, soft at their outlines; all 0 where nothing was found.
    matrix : (2, 3) float64
        Takes (column, row, 1) of the picture to (column, row) of the crop, both counted from the
        middle of the first pixel, as OpenCV does.
    """

    pixels: Pixels
    cell: Mask
    nucleus: Mask
    matrix: npt.NDArray[np.float64]


def crop_matrix(finding: CellFinding, spec: PreprocessSpec) -> npt.NDArray[np.float64]:
    """Return the matrix that takes the picture to the crop.

    The crop's middle is halfway between the centroids of nucleus and cell. Where nothing was found,
    it is the largest square in the middle of the picture, or with ``spec.pixels_per_micrometre``
    given, the square of that width.

    Parameters
    ----------
    finding : CellFinding
        The cell.
    spec : PreprocessSpec
        The frame: its `size`, `width` and `pixels_per_micrometre`.

    Returns
    -------
    (2, 3) float64
        See `CanonicalCrop`.
    """
    row = (finding.nucleus_centre[0] + finding.cell_centre[0]) / 2 - 0.5
    column = (finding.nucleus_centre[1] + finding.cell_centre[1]) / 2 - 0.5
    pixels_per_micrometre = spec.pixels_per_micrometre or finding.pixels_per_micrometre
    side = spec.width * pixels_per_micrometre if pixels_per_micrometre else float(min(finding.size))
    scale = spec.size[0] / side
    middle = (spec.size[0] - 1) / 2
    return np.array(
        [[scale, 0.0, middle - scale * column], [0.0, scale, middle - scale * row]], np.float64
    )


def canonical_crop(
    pixels: Pixels,
    finding: CellFinding,
    spec: PreprocessSpec,
    *,
    warp: npt.NDArray[np.float64] | None = None,
) -> CanonicalCrop:
    """Cut a cell out of its picture, in the frame that `spec` describes.

    The picture is warped once. Where that shrinks it, it is averaged over areas first, so that the
    crop is free of aliasing whatever the camera's resolution.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        The picture that `finding` was found in.
    finding : CellFinding
        The cell, or that there is none.
    spec : PreprocessSpec
        The frame: its `size`, `width` and `pixels_per_micrometre`.
    warp : (2, 3) array, optional
        A further affine change of the crop's frame (turning, scaling, shifting for training), in
        the crop's (column, row), applied after the canonical one.

    Returns
    -------
    CanonicalCrop
        The crop, its masks and the matrix from picture to crop.
    """
    matrix = crop_matrix(finding, spec)
    if warp is not None:
        matrix = compose(np.asarray(warp, np.float64), matrix)
    source, to_source = _shrunk(pixels, matrix, spec.size[0])
    fill = tuple(round(level) for level in finding.background)
    crop = warp_image(source, to_source, spec.size, fill=fill)
    rows, columns = finding.nucleus.shape
    enlarge = _rescaling(columns / finding.size[1], rows / finding.size[0])
    from_mask = compose(matrix, _inverse(enlarge))
    masks = [
        cv.warpAffine(mask * np.uint8(255), from_mask, spec.size, flags=cv2.INTER_LINEAR)
        for mask in (finding.cell, finding.nucleus)
    ]
    return CanonicalCrop(crop, masks[0], masks[1], matrix)


def compose(
    second: npt.NDArray[np.float64], first: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the affine matrix of one change after another.

    Parameters
    ----------
    second, first : (2, 3) float64
        Affine changes of (column, row, 1); ``first`` is applied first.

    Returns
    -------
    (2, 3) float64
        Both.
    """
    joined = second[:, :2] @ first
    joined[:, 2] += second[:, 2]
    return np.asarray(joined, np.float64)


def _inverse(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Undo an affine change."""
    return np.asarray(cv.invertAffineTransform(matrix), np.float64)


def _rescaling(across: float, down: float) -> npt.NDArray[np.float64]:
    """Return the change from a picture's pixels to those of its resized copy."""
    return np.array([[across, 0.0, (across - 1) / 2], [0.0, down, (down - 1) / 2]], np.float64)


def _shrunk(
    pixels: Pixels, matrix: npt.NDArray[np.float64], size: int
) -> tuple[Pixels, npt.NDArray[np.float64]]:
    """Cut out what the warp will read, average it over areas as far as the warp shrinks.

    Returns the smaller picture and the warp that is left to do.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale >= 0.9:
        return np.ascontiguousarray(pixels), matrix
    rows, columns = pixels.shape[:2]
    low, high = -0.5, size - 0.5
    edge = np.array([[low, low, high, high], [low, high, low, high], [1.0] * 4])
    reach = 2.0 / scale + 2.0
    across, down = _inverse(matrix) @ edge
    left, right = np.clip([across.min() - reach, across.max() + reach], 0, columns).astype(int)
    top, bottom = np.clip([down.min() - reach, down.max() + reach], 0, rows).astype(int)
    if right - left < 2 or bottom - top < 2:
        return np.ascontiguousarray(pixels), matrix
    here = np.ascontiguousarray(pixels[top:bottom, left:right])
    matrix = compose(matrix, np.array([[1.0, 0.0, left], [0.0, 1.0, top]]))
    shape = (max(1, round(here.shape[1] * scale)), max(1, round(here.shape[0] * scale)))
    small = cv.resize(here, shape, interpolation=cv2.INTER_AREA)
    left_to_do = _rescaling(shape[0] / here.shape[1], shape[1] / here.shape[0])
    return small, compose(matrix, _inverse(left_to_do))
