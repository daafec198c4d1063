"""A JPEG's data, read by libjpeg-turbo: whatever it warns of is damage.

A decoder that meets damage goes on behind it and shows another cell; only its warning tells. So a
file with a warning has no pixels here. Pillow and OpenCV hear no warnings.
"""

from __future__ import annotations

import functools
import re
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import ImageError

__all__ = [
    "MAX_SCANS",
    "UNCHECKED",
    "codec",
    "find_tear",
    "has_exif",
    "is_plain",
    "load",
    "read_header",
]

MAX_SCANS: Final = 100
"""Ordinary progressive JPEGs have about ten; each costs a pass over the whole picture."""

UNCHECKED: Final = "its data was not checked for damage"
"""The note of a JPEG whose pixels no library gave that hears warnings."""

# Regular expressions find these in half the time that bytes.count and `in` take.
# A scan with its length and number of components: chance bytes of what follows a picture lack them.
_SCAN: Final = re.compile(rb"\xff\xda\x00(?:\x06\x00|\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_EXIF: Final = re.compile(rb"Exif\x00\x00")

_SEGMENTS: Final = 100
"""More of them before a JPEG's first scan are not read one by one."""

_SEQUENTIAL: Final = (0xC0, 0xC1)
_HUFFMAN: Final = 0xC4
_START_OF_SCAN: Final = 0xDA
_NO_FRAMES: Final = (0xC4, 0xC8, 0xCC)
"""Markers of JPEG: what frames, tables and scans begin with (ITU-T T.81, table B.1)."""

_PROCESSES: Final = {0xC3: "lossless", 0xCB: "lossless"} | dict.fromkeys(
    (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical"
)
"""Processes of JPEG that hardly anything reads, by the marker of their frame."""


_TORN: Final = 10.0
"""Levels; sound pictures reach 2.6, drawn ones of quality 20 reach 8.2 (docs/decisions/0026)."""

_PLAIN: Final = 1.0
"""Mean step along a row of plain colour, in levels."""

_LEAST: Final = 64
"""Sides of less have too few rows of blocks to tell what is usual."""


@functools.cache
def codec() -> Any:
    """Load libjpeg-turbo's binding, simplejpeg.

    Returns
    -------
    module or None
        None where no wheel of it exists.
    """
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def read_header(data: bytes) -> tuple[int, int, str] | None:
    """Ask libjpeg-turbo what a JPEG is.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    (int, int, str) or None
        Rows, columns and colour space, such as YCbCr, Gray or CMYK; None where it cannot say.
    """
    binding = codec()
    if binding is None:
        return None
    try:
        height, width, space, _ = binding.decode_jpeg_header(data)
    except (ValueError, KeyError):  # a KeyError where it knows the sampling and lacks its name
        return None
    return height, width, space


def load(
    data: bytes,
    space: str,
    shape: tuple[int, int],
    reduction: int = 1,
    *,
    stitched: bool = False,
) -> npt.NDArray[np.uint8] | None:
    """Decode a JPEG of which nothing is damaged.

    Parameters
    ----------
    data : bytes
        The whole file; its size has been checked.
    space : {"RGB", "CMYK"}
        Colour space of the pixels. Only a file of four colours can give CMYK, of light.
    shape : (int, int)
        Rows and columns of the file.
    reduction : {1, 2, 4, 8}
        How many times smaller it is decoded.
    stitched : bool
        Whether it is of a slide, in which fields are joined: a row that does not go on from what is
        above is no damage there.

    Returns
    -------
    (H, W, 3) or (H, W, 4) uint8, or None
        None where libjpeg-turbo's binding is missing or has no name for the file's sampling.

    Raises
    ------
    ImageError
        ``damaged`` where it warns of anything, or the picture is torn; ``truncated``, or
        ``unsupported-format``.
    """
    binding = codec()
    if binding is None:
        return None
    rows, columns = (-(-side // reduction) for side in shape)
    try:
        pixels: npt.NDArray[np.uint8] = binding.decode_jpeg(
            data, colorspace=space, min_height=rows, min_width=columns
        )
    except ValueError as error:
        why = str(error)
        refuse_unusual(data)
        if "Could not determine subsampling level" in why:
            return None
        if why.startswith("Premature end of JPEG file"):
            raise ImageError("truncated", "The JPEG data ends too early.") from error
        raise ImageError("damaged", f"The JPEG data is damaged ({why}).") from error
    torn = None if stitched else find_tear(pixels, 8 // reduction)
    if torn is not None:
        raise ImageError(
            "damaged",
            f"The JPEG data is damaged: row {torn * reduction} does not go on from what is above.",
        )
    return pixels


def find_tear(pixels: npt.NDArray[np.uint8], block: int) -> int | None:
    """Find where a picture no longer goes on from the rows above.

    Each block's brightness is told from the block before, so behind damage all of them are off,
    which shows along a whole row of blocks, and a decoder need not notice: if the damage happens to
    hold as many blocks as it replaced, everything else fits.

    Parameters
    ----------
    pixels : (H, W, C) uint8
        As decoded.
    block : int
        Rows of a block in it. Below 4, or in pictures under 64 pixels, nothing is found.

    Returns
    -------
    int or None
        The row of a whole row of blocks whose upper edge differs from the row above by 10 levels
        more than the rows beside them do, and than is usual in the picture. Where one side of it
        is of plain colour, as at a frame, it is no tear.
    """
    if block < 4 or min(pixels.shape[:2]) < _LEAST:
        return None
    count, step = len(pixels) // block, 1 + pixels.shape[1] // 64
    sample = pixels[: count * block, ::step, 1]
    # Upper two rows of every block but the first, lower two of every block but the last.
    below, second = (sample[block + k :: block].astype(np.int16) for k in (0, 1))
    before, above = (sample[block - k : -block : block].astype(np.int16) for k in (2, 1))
    slope = np.maximum(np.abs(above - before), np.abs(second - below))
    excess = (np.abs(below - above) - slope).mean(axis=1)
    if excess.max() <= _TORN:
        return None
    for row in np.flatnonzero(excess > _TORN + max(0.0, np.median(excess))):
        if min(np.abs(np.diff(edge)).mean() for edge in (below[row], above[row])) > _PLAIN:
            return int(row + 1) * block
    return None


def refuse_unusual(data: bytes) -> None:
    """Say that an intact JPEG is of a kind that is not read.

    Parameters
    ----------
    data : bytes
        The whole file.

    Raises
    ------
    ImageError
        ``unsupported-format`` for other than 8 bits, lossless and hierarchical JPEGs.
    """
    place = 2
    for _ in range(_SEGMENTS):
        head = data[place : place + 5]
        if len(head) < 5 or head[0] != 0xFF or head[1] == _START_OF_SCAN:
            return
        if 0xC0 <= head[1] <= 0xCF and head[1] not in _NO_FRAMES:
            kind = _PROCESSES.get(head[1]) or (f"{head[4]}-bit" if head[4] != 8 else "")
            if kind:
                raise ImageError("unsupported-format", f"The file is a {kind} JPEG, rarely used.")
            return
        place += 2 + int.from_bytes(head[2:4], "big")


def has_exif(data: bytes) -> bool:
    """Whether there is EXIF before a JPEG's first scan, whichever that is.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    bool
        True in case of doubt.

    Raises
    ------
    ImageError
        ``corrupt`` for a file of endless scans.
    """
    scans = [match.start() for match in islice(_SCAN.finditer(data), MAX_SCANS + 1)]
    if len(scans) > MAX_SCANS:
        raise ImageError("corrupt", f"The JPEG file has more than {MAX_SCANS} scans.")
    return _EXIF.search(data, 0, scans[-1] if scans else len(data)) is not None


def is_plain(data: bytes) -> bool:
    """Whether a JPEG has one scan and no EXIF.

    Segments are read as far as the first scan. If that holds all components of a sequential JPEG,
    a second one is an error to decoders.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    bool
        False in case of doubt.
    """
    place, components = 2, 0
    for _ in range(_SEGMENTS):
        head = data[place : place + 10]
        if len(head) < 10 or head[0] != 0xFF:
            return False
        marker = head[1]
        if marker == _START_OF_SCAN:
            return 0 < components == head[4]
        if marker in _SEQUENTIAL:
            components = head[9]
        elif (marker != _HUFFMAN and not _START_OF_SCAN < marker < 0xFF) or head[4:] == b"Exif\0\0":
            return False
        place += 2 + int.from_bytes(head[2:4], "big")
    return False
