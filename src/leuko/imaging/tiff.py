"""What stands in a TIFF's directory, where Pillow does not say it or does not ask."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

from leuko.errors import ImageError

__all__ = [
    "bits_in_use",
    "check_deflated",
    "jpeg_streams",
    "name_unusual",
    "named_colours",
    "refuse_large_tiles",
    "refuse_misread",
    "stored_bits",
    "white_is_zero",
]

Tags = Any
"""Pillow's directory: values by the number of their tag."""

_BITS: Final = 258
_COMPRESSION: Final = 259
_INTERPRETATION: Final = 262
_SAMPLES: Final = 277
_LARGEST: Final = (281, 341)
_PLANES: Final = 284
_EXTRA: Final = 338
_KIND: Final = 339
_TILE: Final = (322, 323)
_TABLES: Final = 347
_PLACES: Final = (273, 324)
_SIZES: Final = (279, 325)
"""Tags (TIFF 6.0, sections 8, 12, 15, 18, 19 and 22); of strips and of tiles."""

_BLACK_IS_ZERO: Final = 1
_RGB: Final = 2
_OLD_JPEG: Final = 6
_JPEG: Final = 7
_DEFLATED: Final = (8, 32946)

_MAX_TILE: Final = 1 << 26
"""Pixels of a tile, which readers hold whole, however small the picture is."""

_AT_ONCE: Final = 1 << 20
"""Bytes that are inflated before they are forgotten."""

_COMPRESSIONS: Final = {
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy DNG",
    50002: "JPEG XL",
}
_KINDS: Final = {2: "signed ", 3: "floating-point ", 5: "complex ", 6: "complex "}


def _first(value: Any, otherwise: int) -> int:
    """Give the first of a tag's values."""
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else otherwise


def stored_bits(tags: Tags) -> int:
    """Find how many bits a sample is stored in.

    Parameters
    ----------
    tags : mapping
        The directory.

    Returns
    -------
    int
        Of the first sample; 1 where nothing is said, as the format has it.
    """
    return _first(tags.get(_BITS), 1)


def refuse_misread(tags: Tags) -> None:
    """Refuse what Pillow opens and gives wrong pixels of.

    Parameters
    ----------
    tags : mapping
        The directory.

    Raises
    ------
    ImageError
        ``unsupported-format`` for 16 bits in planes that are not compressed, of which it takes
        every byte for a sample.
    """
    if stored_bits(tags) == 16 and tags.get(_PLANES) == 2 and tags.get(_COMPRESSION, 1) == 1:
        raise ImageError(
            "unsupported-format",
            "The TIFF file has 16 bits in separate planes, which Leuko reads only compressed.",
        )


def refuse_large_tiles(tags: Tags) -> None:
    """Refuse tiles that take more memory than the largest picture.

    Parameters
    ----------
    tags : mapping
        The directory.

    Raises
    ------
    ImageError
        ``too-large`` for tiles of more than 67 megapixels.
    """
    width, length = (_first(tags.get(tag), 0) for tag in _TILE)
    if width * length > _MAX_TILE:
        raise ImageError(
            "too-large",
            f"The TIFF file has tiles of {length} rows and {width} columns; the limit is "
            f"{_MAX_TILE // 1_000_000} megapixels.",
        )


def white_is_zero(tags: Tags) -> bool:
    """Whether the file's 0 is white, see TIFF 6.0, section 8.

    Parameters
    ----------
    tags : mapping
        The directory; empty for other formats.

    Returns
    -------
    bool
    """
    return bool(tags.get(_INTERPRETATION) == 0)


def bits_in_use(tags: Tags) -> int:
    """Find how many bits of a sample the file says that it uses.

    Parameters
    ----------
    tags : mapping
        The directory.

    Returns
    -------
    int
        Those that its largest value takes; 0 where none is named.
    """
    return max(_first(tags.get(tag), 0) for tag in _LARGEST).bit_length()


def jpeg_streams(tags: Tags, data: bytes) -> Iterator[bytes] | None:
    """Give the JPEGs of a file's strips or tiles, each with its tables.

    Parameters
    ----------
    tags : mapping
        The directory.
    data : bytes
        The whole file.

    Returns
    -------
    iterator of bytes or None
        None for JPEG as TIFF 6.0 had it, which is no JPEG by itself. Empty without JPEG.

    Raises
    ------
    ImageError
        ``corrupt`` where the strips together are longer than the file.
    """
    compression = tags.get(_COMPRESSION)
    if compression != _JPEG:
        return None if compression == _OLD_JPEG else iter(())
    tables = bytes(tags.get(_TABLES, b"\xff\xd8\xff\xd9"))[:-2]
    return (tables + piece[2:] for piece in _pieces(tags, data))


def check_deflated(tags: Tags, data: bytes) -> None:
    """Compare deflated strips or tiles with their checksums, which readers leave unread.

    Parameters
    ----------
    tags : mapping
        The directory.
    data : bytes
        The whole file.

    Raises
    ------
    ImageError
        ``damaged``, or ``corrupt`` where the strips together are longer than the file.
    """
    if tags.get(_COMPRESSION) not in _DEFLATED:
        return
    for piece in _pieces(tags, data):
        inflater = zlib.decompressobj()
        rest = piece
        try:
            while rest and not inflater.eof:
                inflater.decompress(rest, _AT_ONCE)
                rest = inflater.unconsumed_tail
        except zlib.error as error:
            raise ImageError("damaged", f"The TIFF's data is damaged ({error}).") from error
        if not inflater.eof:
            raise ImageError("damaged", "The TIFF's data is damaged (a strip has no end).")


def _pieces(tags: Tags, data: bytes) -> list[bytes]:
    """Give the bytes of each strip or tile."""
    places, sizes = (next(tags[tag] for tag in each if tag in tags) for each in (_PLACES, _SIZES))
    if sum(sizes) > len(data):
        raise ImageError("corrupt", "The TIFF file has more data than bytes.")
    return [data[place : place + size] for place, size in zip(places, sizes, strict=True)]


def _read_tags(data: bytes) -> Tags:
    """Read the first directory; empty where there is none."""
    from PIL import TiffImagePlugin

    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2] == 43 else 8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    return tags


def named_colours(data: bytes) -> bytes | None:
    """Make three samples that a file calls black where zero into red, green and blue.

    Parameters
    ----------
    data : bytes
        The whole file, which Pillow does not open.

    Returns
    -------
    bytes or None
        The same file with the right name; None where that is not its fault.
    """
    tags = {} if data.startswith(b"MM\0+") else _read_tags(data)
    if tags.get(_INTERPRETATION) != _BLACK_IS_ZERO or tags.get(_SAMPLES) != 3:
        return None
    order = "<" if data.startswith(b"II") else ">"
    entry = struct.pack(order + "HHI", _INTERPRETATION, 3, 1)
    black, colours = (struct.pack(order + "HH", name, 0) for name in (_BLACK_IS_ZERO, _RGB))
    # The samples beyond the first are no extra ones; the tag before is nobody's.
    extra, nobodys = (struct.pack(order + "HHI", tag, 3, 2) for tag in (_EXTRA, _EXTRA - 1))
    changed = data.replace(entry + black, entry + colours, 1).replace(extra, nobodys, 1)
    return None if changed == data else changed


def name_unusual(data: bytes) -> None:
    """Say what an intact file is that cannot be read.

    Parameters
    ----------
    data : bytes
        The whole file, which Pillow does not open.

    Raises
    ------
    ImageError
        ``unsupported-format``, where the directory tells how the pixels are written and these are
        there.
    """
    if data.startswith(b"MM\0+"):
        raise ImageError("unsupported-format", "The file is a BigTIFF with the high byte first.")
    tags = _read_tags(data)
    places = next((tags[tag] for tag in _PLACES if tag in tags), ())
    if not places or max(places) >= len(data) or _BITS not in tags:
        return
    compression = tags.get(_COMPRESSION, 1)
    if compression in _COMPRESSIONS:
        what = f"pixels compressed as {_COMPRESSIONS[compression]}"
    else:
        bits, samples = tags[_BITS], tags.get(_SAMPLES, 1)
        kind = _KINDS.get(_first(tags.get(_KIND), 1), "")
        many = "1 sample" if samples == 1 else f"{samples} samples"
        what = (
            f"{many} of {'/'.join(map(str, sorted(set(bits))))} {kind}bits a pixel (photometric "
            f"{tags.get(_INTERPRETATION)}, compression {compression})"
        )
    raise ImageError("unsupported-format", f"The TIFF file has {what}, which Leuko does not read.")
