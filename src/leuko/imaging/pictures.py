"""Pictures opened on threads, with so many bytes and pixels in memory at a time and no more.

A picture of 49 megapixels takes 150 MB as pixels and twice that while it is decoded. As many of
them as there are cores would take all memory, so whoever decodes on threads comes through here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from leuko.imaging.decode import (
    MAX_PIXELS,
    DecodedImage,
    decode_image,
    pixels_to_decode,
    read_bytes,
)
from leuko.imaging.preprocess import PreprocessSpec
from leuko.support.memory import give_back_memory
from leuko.support.parallel import Budget

__all__ = ["decoded", "file_size", "hold_data", "open_data", "open_picture", "share_memory"]

_BYTES: Final = 128 * 2**20
"""Of files at a time; of pixels, as many as the largest picture may have."""

_MANY: Final = 4_000_000
"""Pixels of a picture that needs so much that what others have freed is given back first."""

_files = Budget(_BYTES)
_pixels = Budget(MAX_PIXELS)


def share_memory(processes: int) -> None:
    """Leave this process its share of what one alone may hold.

    Parameters
    ----------
    processes : int
        How many of this machine read pictures at the same time. Each may still hold one picture,
        however large.
    """
    _files.total, _pixels.total = _BYTES // processes, MAX_PIXELS // processes


def file_size(path: str | os.PathLike[str]) -> int:
    """Size of a file in bytes; 0 for what cannot be looked at, which reading will explain."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0


@contextlib.contextmanager
def hold_data(read: Callable[[], bytes], size: int) -> Iterator[bytes]:
    """Read a file when there is room for it, and count it until the block ends.

    Parameters
    ----------
    read : callable
        Gives the whole file.
    size : int
        Of it, in bytes.

    Yields
    ------
    bytes
        What was read. `decoded` may be asked within the block, never the other way round.

    Raises
    ------
    ImageError
        From `read`.
    """
    with _files.hold(size):
        yield read()


def open_data(path: str | os.PathLike[str]) -> contextlib.AbstractContextManager[bytes]:
    """Read a file when there is room for it, see `hold_data`.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    context manager
        Of its bytes.
    """
    return hold_data(partial(read_bytes, path), file_size(path))


@contextlib.contextmanager
def decoded(data: bytes, spec: PreprocessSpec | None = None) -> Iterator[DecodedImage]:
    """Decode a picture when there is room for its pixels, and count them until the block ends.

    Parameters
    ----------
    data, spec
        See `leuko.imaging.decode.decode_image`.

    Yields
    ------
    DecodedImage
        To be let go with the block.

    Raises
    ------
    ImageError
        See `leuko.imaging.decode.decode_image`.
    """
    count = pixels_to_decode(data, spec)
    with _pixels.hold(count):
        if count >= _MANY:
            give_back_memory()  # every thread has kept what it decoded the last one with
        yield decode_image(data, spec=spec)


@contextlib.contextmanager
def open_picture(
    path: str | os.PathLike[str], spec: PreprocessSpec | None = None
) -> Iterator[DecodedImage]:
    """Read and decode a picture file, each when there is room.

    Parameters
    ----------
    path : path-like
        The file.
    spec : PreprocessSpec, optional
        See `leuko.imaging.decode.decode_image`.

    Yields
    ------
    DecodedImage
        To be let go with the block.

    Raises
    ------
    ImageError
        See `leuko.imaging.decode.read_image`.
    """
    with open_data(path) as data, decoded(data, spec) as image:
        yield image
