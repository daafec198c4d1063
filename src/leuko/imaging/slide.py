"""Open a picture of any size: a field is decoded whole, a slide is read in parts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leuko.imaging.pictures import decoded
from leuko.imaging.pyramid import Box, FieldImage, lattice_step

if TYPE_CHECKING:
    from leuko.source import Source

__all__ = ["FieldImage", "lattice_step", "open_field"]


@dataclass(frozen=True, slots=True)
class _Whole:
    """A picture in memory, as the one level of a `FieldImage`."""

    pixels: npt.NDArray[np.uint8]
    step: int = 1

    def region(self, box: Box) -> npt.NDArray[np.uint8]:
        return self.pixels[box[0] : box[2], box[1] : box[3]]


@contextlib.contextmanager
def open_field(source: Source) -> Iterator[FieldImage]:
    """Open a picture of any size.

    One of up to 50 megapixels is decoded whole, by `leuko.imaging.decode.decode_image` and within
    the budget of `leuko.imaging.pictures`, so it must be let go with the block.

    Parameters
    ----------
    source : Source
        Where the picture lies.

    Yields
    ------
    FieldImage

    Raises
    ------
    ImageError
        When this picture cannot be read; see `leuko.imaging.decode.decode_image`.
    DataError
        When the archive or Parquet file that holds it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        with source.open() as data:
            image = stack.enter_context(decoded(data))
        rows, columns = image.pixels.shape[:2]
        yield FieldImage((rows, columns), None, image.notes, (_Whole(image.pixels),))
