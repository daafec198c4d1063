"""What a picture becomes before a network sees it: the one description of cropping and resizing.

Training and prediction cut through `PreprocessSpec`, so that a network never meets pixels in
service that were made another way in training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.errors import BundleError

__all__ = ["MIN_SIDE", "REDUCTIONS", "STYLES", "VIEWS", "PreprocessSpec", "warp_image"]

Pixels = npt.NDArray[np.uint8]

MIN_SIDE: Final = 16
"""Pictures with a side below 16 pixels show no cell."""

VIEWS: Final = ("centre", "cell", "cell-alone")

STYLES: Final = ("plain", "flat", "soft")

REDUCTIONS: Final = (8, 4, 2)
"""By how much a JPEG decoder can shrink a picture while it decodes it."""


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """How a picture becomes a network's input; part of every bundle.

    Attributes
    ----------
    size : (int, int)
        Rows and columns of the network's input.
    crop : float
        Side of the central square that is cut out, as a fraction of the shorter side, in (0, 1].
    scaled : bool
        Whether shrinking halves the picture as often as it can, inside the JPEG decoder where
        the file is one, and ends bilinearly. Otherwise it averages over areas, which takes
        longer than decoding.
    view : {"centre", "cell", "cell-alone"}
        ``centre`` is what `apply` cuts. The other two are views of the cell that is found in the
        picture, see `leuko.cells.view`; `crop` means nothing to them.
    width : float
        Micrometres across a view of a cell, 5 to 100.
    pixels_per_micrometre : float
        Pixels of the picture to a micrometre where a laboratory's is known, 0.5 to 100; 0 to
        estimate it from each picture.
    styles : tuple of {"plain", "flat", "soft"}
        In which styles the network is shown a view of a cell, ``plain`` first; its answers are
        averaged. See `leuko.cells.texture`.
    weights : tuple of float
        What each style counts for in that mean, above 0; empty where all count the same.
    """

    size: tuple[int, int]
    crop: float = 1.0
    scaled: bool = False
    view: str = "centre"
    width: float = 20.0
    pixels_per_micrometre: float = 0.0
    styles: tuple[str, ...] = ("plain",)
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse settings that no picture could satisfy."""
        if not (0.05 <= self.crop <= 1.0):
            raise BundleError(f"Preprocessing crop must lie in [0.05, 1], received {self.crop}.")
        if len(self.size) != 2 or not all(MIN_SIDE <= side <= 2048 for side in self.size):
            raise BundleError(
                f"Preprocessing size must be two numbers from {MIN_SIDE} to 2048, "
                f"received {self.size}."
            )
        if self.view not in VIEWS:
            raise BundleError(
                f"Preprocessing view must be one of {', '.join(VIEWS)}, received {self.view!r}."
            )
        if not (5.0 <= self.width <= 100.0):
            raise BundleError(
                f"Preprocessing width must lie in [5, 100] micrometres, received {self.width}."
            )
        if self.pixels_per_micrometre != 0.0 and not (0.5 <= self.pixels_per_micrometre <= 100.0):
            raise BundleError(
                "Preprocessing pixels_per_micrometre must be 0 or lie in [0.5, 100], received "
                f"{self.pixels_per_micrometre}."
            )
        if self.view != "centre" and self.size[0] != self.size[1]:
            raise BundleError(f"A view of a cell must be square, received {self.size}.")
        if (
            self.styles[:1] != ("plain",)
            or not {*self.styles} <= {*STYLES}
            or len({*self.styles}) < len(self.styles)
        ):
            raise BundleError(
                f"Preprocessing styles must be 'plain' and then any of {', '.join(STYLES[1:])}, "
                f"each once; received {list(self.styles)}."
            )
        if self.view == "centre" and len(self.styles) > 1:
            raise BundleError("Only a view of the cell has styles other than 'plain'.")
        if self.weights and (
            len(self.weights) != len(self.styles) or not all(0 < w <= 100 for w in self.weights)
        ):
            raise BundleError(
                "Preprocessing weights must be one number above 0, at most 100, for each style; "
                f"received {list(self.weights)} for {list(self.styles)}."
            )

    def apply(self, pixels: Pixels) -> Pixels:
        """Cut the central square and resize it; the view ``centre``.

        Shrinking averages over areas, or halves and is then bilinear when `scaled`; enlarging is
        bilinear.

        Parameters
        ----------
        pixels : (H, W, 3) uint8, RGB
            A decoded picture.

        Returns
        -------
        (h, w, 3) uint8
            The network's input, RGB 0-255.

        Examples
        --------
        >>> spec = PreprocessSpec(size=(64, 64), crop=0.5)
        >>> spec.apply(np.zeros((300, 360, 3), np.uint8)).shape
        (64, 64, 3)
        """
        rows, columns = pixels.shape[:2]
        side = self._side(rows, columns)
        top, left = (rows - side) // 2, (columns - side) // 2
        square = pixels[top : top + side, left : left + side]
        height, width = self.size
        while self.scaled and side >= 2 * max(height, width):
            side //= 2
            whole = square[: 2 * side, : 2 * side]
            half = cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA)
            square = np.asarray(half, np.uint8)
        if (side, side) == (height, width):
            return square.copy()  # a view would keep the whole picture
        shrinking = side > max(height, width) and not self.scaled
        method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(square, (width, height), interpolation=method), np.uint8)

    def reduction(self, rows: int, columns: int) -> int:
        """How many times smaller a picture may be decoded for this preprocessing.

        Parameters
        ----------
        rows, columns : int
            Of the whole picture.

        Returns
        -------
        int
            1, 2, 4 or 8; the central square keeps at least the input's size. 1 unless `scaled`.

        Examples
        --------
        >>> PreprocessSpec(size=(160, 160), crop=0.6, scaled=True).reduction(575, 575)
        2
        """
        if self.view == "centre":
            side = self._side(rows, columns) if self.scaled else 0
            return next((k for k in REDUCTIONS if side >= k * max(self.size)), 1)
        # A picture of one cell is hardly wider than two views of it, and a known scale is that of
        # the whole picture.
        side = min(rows, columns) if self.scaled and not self.pixels_per_micrometre else 0
        return next((k for k in REDUCTIONS if side >= 2 * k * max(self.size)), 1)

    def _side(self, rows: int, columns: int) -> int:
        """Side of the central square."""
        return max(1, round(self.crop * min(rows, columns)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a bundle's JSON.

        Returns
        -------
        dict
            What `from_dict` reads.
        """
        document = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }
        # What says nothing is left out, as in bundles from before there was a choice.
        if not self.scaled:
            del document["scaled"]
        if self.view == "centre":
            del document["view"], document["width"]
        else:
            del document["crop"]
        if not self.pixels_per_micrometre:
            del document["pixels_per_micrometre"]
        if len(self.styles) == 1:
            del document["styles"]
        if not self.weights:
            del document["weights"]
        return document

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> PreprocessSpec:
        """Read what `to_dict` wrote.

        Parameters
        ----------
        document : dict
            With ``size`` and any of the other settings, and nothing else: an unknown key would
            change pixels.

        Returns
        -------
        PreprocessSpec
            The same settings.

        Raises
        ------
        BundleError
            On an unknown or missing key, or a value out of range.
        """
        if "micrometre" in document:  # as it was called in files of before
            document = dict(document)
            document.setdefault("pixels_per_micrometre", document.pop("micrometre"))
        known = {entry.name for entry in fields(cls)}
        if set(document) - known or "size" not in document:
            raise BundleError(
                f"Preprocessing needs 'size' and takes {', '.join(sorted(known))}; received "
                f"{sorted(document)}. The bundle may come from a newer Leuko."
            )
        size, scaled = document["size"], document.get("scaled", False)
        view, styles = document.get("view", "centre"), document.get("styles", ["plain"])
        defaults = {"crop": 1.0, "width": 20.0, "pixels_per_micrometre": 0.0}
        numbers = {name: document.get(name, value) for name, value in defaults.items()}
        whole = isinstance(size, list | tuple) and all(type(side) is int for side in size)
        plain = all(type(number) in (int, float) for number in numbers.values())
        if not whole or not plain or type(scaled) is not bool or type(view) is not str:
            raise BundleError(
                "Preprocessing size must be two whole numbers, crop, width and "
                "pixels_per_micrometre numbers, "
                f"scaled true or false and view a word; received {document!r}."
            )
        if not isinstance(styles, list | tuple) or any(type(name) is not str for name in styles):
            raise BundleError(f"Preprocessing styles must be a list of words; received {styles!r}.")
        weights = document.get("weights", [])
        if not isinstance(weights, list | tuple) or any(
            type(weight) not in (int, float) for weight in weights
        ):
            raise BundleError(
                f"Preprocessing weights must be a list of numbers; received {weights!r}."
            )
        lengths = {name: float(number) for name, number in numbers.items()}
        return cls(
            size=tuple(size),
            scaled=scaled,
            view=view,
            styles=tuple(styles),
            weights=tuple(float(weight) for weight in weights),
            **lengths,
        )


def warp_image(
    pixels: Pixels,
    matrix: npt.NDArray[np.float64],
    size: tuple[int, int],
    *,
    inverse: bool = False,
    fill: tuple[int, ...] | None = None,
    out: Pixels | None = None,
) -> Pixels:
    """Move a picture by an affine matrix, bilinearly.

    OpenCV warps four channels about twice as fast as three, to the same values, and adding and
    dropping a fourth costs next to nothing.

    Parameters
    ----------
    pixels : (H, W, 3) uint8
        A picture; it is not changed.
    matrix : (2, 3) float64
        From the picture's (column, row) to the result's, or back if `inverse`.
    size : (int, int)
        Rows and columns of the result.
    inverse : bool
        Whether `matrix` leads from the result to the picture.
    fill : tuple of int, optional
        Colour beyond the picture; without it, the picture's last pixels go on.
    out : (h, w, 3) uint8, optional
        An array of that size to write into, other than `pixels`; saves an allocation.

    Returns
    -------
    (h, w, 3) uint8
        The result, `out` where it was given.
    """
    warped = cv2.warpAffine(
        cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA),
        matrix,
        (size[1], size[0]),
        flags=cv2.INTER_LINEAR | (cv2.WARP_INVERSE_MAP if inverse else 0),
        borderMode=cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT,
        borderValue=fill or (),
    )
    return np.asarray(cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=out), np.uint8)
