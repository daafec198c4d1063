"""Open a picture of any size: a field is decoded whole, a slide is read in parts."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from leuko.imaging.pictures import decoded
from leuko.imaging.pyramid import Box, FieldImage, lattice_step
from leuko.imaging.scale import file_scale
from leuko.imaging.slide_openslide import open_with_openslide
from leuko.imaging.slide_tiff import open_tiff

if TYPE_CHECKING:
    from leuko.source import Source

__all__ = ["SLIDE_SUFFIXES", "FieldImage", "lattice_step", "open_field"]

_OPENSLIDE: Final = (
    ".bif", ".czi", ".dcm", ".mrxs", ".ndpi", ".scn", ".svslide", ".vms", ".vmu",
)  # fmt: skip
"""Formats of scanners that OpenSlide reads, known by their names alone: a MIRAX slide looks like a
small JPEG, and a file that was made to do harm may end OpenSlide's process, so it is shown nothing
that Leuko reads itself."""

SLIDE_SUFFIXES: Final = (".svs", *_OPENSLIDE)
"""What the names of slides end in, beside `leuko.imaging.decode.IMAGE_SUFFIXES`."""

_TIFF: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


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
    the budget of `leuko.imaging.pictures`. A larger TIFF is read in parts where its pixels have 8
    bits and lie in tiles or strips of a usual compression; scanners' own formats need the extra
    ``wsi``. Of these a few blocks are in memory at a time, some 100 MB.

    Parameters
    ----------
    source : Source
        Where the picture lies.

    Yields
    ------
    FieldImage
        To be let go with the block.

    Raises
    ------
    ImageError
        When this picture cannot be read; see `leuko.imaging.decode.decode_image`.
    DataError
        When the archive or Parquet file that holds it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        slide = _open_file(source.place, stack) if source.kind == "file" else None
        if slide is not None:
            yield slide
            return
        with source.open() as data:
            if data.startswith(_TIFF):
                slide = open_tiff(io.BytesIO(data))
            if slide is not None:
                yield slide
                return
            image = stack.enter_context(decoded(data))
            scale = file_scale(data)
        del data  # the file's bytes need not wait for whoever looks at its pixels
        rows, columns = image.pixels.shape[:2]
        yield FieldImage((rows, columns), scale, image.notes, (_Whole(image.pixels),))


def _open_file(path: str, stack: contextlib.ExitStack) -> FieldImage | None:
    """Open a file as a slide; None for what is to be decoded whole, or refused by the decoder."""
    if not os.path.isfile(path):  # noqa: PTH113 - a pipe may never end
        return None
    if path.lower().endswith(_OPENSLIDE):
        opened = open_with_openslide(path)
        if opened is None:
            return None
        image, slide = opened
        stack.callback(slide.close)
        return image
    try:
        file = stack.enter_context(open(path, "rb"))  # noqa: SIM115 - it is one
        if file.read(4) not in _TIFF:
            return None
    except OSError:
        return None
    return open_tiff(file)
