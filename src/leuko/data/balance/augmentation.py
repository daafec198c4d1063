"""A rotation, a zoom and a mirror image, drawn anew for every copy of a picture."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from leuko.imaging.preprocess import warp_image

__all__ = [
    "ALGORITHM",
    "ROTATION_DEGREES",
    "ZOOM",
    "Augmentation",
    "augment_pixels",
    "augmentation",
]

Pixels = npt.NDArray[np.uint8]

ROTATION_DEGREES: Final = 15.0
"""Rotations are uniform between minus and plus this many degrees."""

ZOOM: Final = 0.1
"""Row and column zoom are drawn apart, each uniform between 1 minus and 1 plus this."""

ALGORITHM: Final = 1
"""Number of the way in which all of balancing is drawn; another one would draw other pictures."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One draw of the augmentation.

    Attributes
    ----------
    rotation : float
        Degrees, positive counter-clockwise as seen on a screen.
    zoom_rows, zoom_columns : float
        Input pixels for one output pixel; above 1 the picture shrinks.
    flip : bool
        Mirror left and right, after the rest.
    """

    rotation: float
    zoom_rows: float
    zoom_columns: float
    flip: bool

    def matrix(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Where every output pixel comes from.

        Parameters
        ----------
        shape : (int, int, ...)
            Rows and columns of the picture; its centre stays where it is.

        Returns
        -------
        (2, 3) float64
            Maps an output's (column, row, 1) to the input's (column, row), as
            an ``inverse`` `leuko.imaging.preprocess.warp_image` takes it.
        """
        angle = math.radians(self.rotation)
        cosine, sine = math.cos(angle), math.sin(angle)
        mirror = -1.0 if self.flip else 1.0
        linear = np.array(
            [
                [mirror * cosine * self.zoom_columns, -sine * self.zoom_rows],
                [mirror * sine * self.zoom_columns, cosine * self.zoom_rows],
            ]
        )
        centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
        return np.column_stack([linear, centre - linear @ centre])


def augmentation(seed: int, n: int, original: str) -> Augmentation:
    """Draw the parameters of one copy.

    The draws come from a hash of the arguments and from nothing else.

    Parameters
    ----------
    seed : int
        The user's seed.
    n : int
        Number of the copy; on disk the first one is 1.
    original : str
        Whatever names the original for good, see `sample_key`.

    Returns
    -------
    Augmentation
        Rotation uniform in ±15 degrees, row and column zoom uniform in 0.9 to 1.1 and drawn
        apart (as Keras draws ``zoom_range=0.1``), a mirror image with probability one half.

    Examples
    --------
    >>> augmentation(0, 1, "a") == augmentation(0, 1, "a")
    True
    >>> augmentation(0, 1, "a") == augmentation(0, 2, "a")
    False
    """
    text = f"leuko.augmentation/{ALGORITHM}\n{seed}\n{n}\n{original}"
    drawn = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=32).digest()
    first, second, third, fourth = (
        (int.from_bytes(drawn[start : start + 8], "little") >> 11) * 2.0**-53
        for start in (0, 8, 16, 24)
    )
    return Augmentation(
        rotation=ROTATION_DEGREES * (2 * first - 1),
        zoom_rows=1 + ZOOM * (2 * second - 1),
        zoom_columns=1 + ZOOM * (2 * third - 1),
        flip=fourth < 0.5,
    )


def augment_pixels(
    pixels: Pixels, parameters: Augmentation, *, out: Pixels | None = None
) -> Pixels:
    """Apply one draw: a single bilinear warp, the border repeated outwards.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        The picture; it is not changed.
    parameters : Augmentation
        From `augmentation`.
    out : (H, W, 3) uint8, optional
        An array to write into, other than `pixels`; saves an allocation.

    Returns
    -------
    (H, W, 3) uint8
        The augmented picture, `out` where it was given.
    """
    size = pixels.shape[0], pixels.shape[1]
    return warp_image(pixels, parameters.matrix(pixels.shape), size, inverse=True, out=out)
