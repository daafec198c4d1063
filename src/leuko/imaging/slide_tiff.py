"""Pyramids in TIFF: OME-TIFF, BigTIFF, Aperio's SVS and plain ones, block by block.

tifffile reads the directories. A block is a tile or some strips. Where it is one JPEG, as scanners
write it, `leuko.imaging.jpeg` decodes it; otherwise it goes to the one decoder of all pictures, as
a small TIFF of its own.
"""

from __future__ import annotations

import io
import logging
import math
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import ImageError
from leuko.imaging import jpeg
from leuko.imaging.decode import MAX_FILE_BYTES, MAX_FRAMES, MAX_PIXELS, decode_image
from leuko.imaging.preprocess import MIN_SIDE
from leuko.imaging.pyramid import WHITE, Box, Faults, FieldImage, lattice_step
from leuko.imaging.scale import told_scale
from leuko.support.packages import fault_behind

__all__ = ["open_tiff"]

Pixels = npt.NDArray[np.uint8]

MAX_SLIDE: Final = 2**36
"""Pixels of a slide; 15 by 15 mm at 17 pixels to a micrometre. More is a lie or a trap."""

_MAX_BLOCK: Final = 2**23
"""Pixels of a tile or strip, which must be decoded whole."""

_MOST: Final = 8
"""Bytes of a pixel in the file, at most, beside 64 KB for what goes before."""

_STRIPS: Final = 2**19
"""Pixels of strips that are decoded together."""

_CACHE: Final = 64 * 2**20
"""Bytes of decoded blocks that are kept."""

_COMPRESSION: Final = 259
_INTERPRETATION: Final = 262
_SAMPLES: Final = 277
_TABLES: Final = 347
_PASSED: Final = (258, 284, 317, 338, _TABLES, 530)
"""Tags of a directory that tell how its pixels are written: bits, planes, predictor, extra samples,
tables and subsampling of JPEG; besides the three above."""

_OFF: Final = 2.0
"""Pixels that a side of a reduced copy may be off: some writers round down, some up."""

_ALIKE: Final = 0.05
"""A picture whose shape differs more than this from the slide's is of something else: the label."""

_CHANNELS: Final = re.compile(r'\bSizeC\s*=\s*"(?!1")')
"""OME's word for several channels."""

_JPEG: Final = 7
_JPEG2000: Final = {33003: "YCbCr", 33005: "RGB", 34712: "RGB"}
_CODECS: Final = {1, 5, _JPEG, 8, 32773, 32946, *_JPEG2000}
"""None, LZW, JPEG, deflate and PackBits (TIFF 6.0 and its supplements), Aperio's JPEG 2000."""

_COLOURS: Final = {0: 1, 1: 1, 2: 3, 6: 3}
"""Samples of photometric interpretations: grey (white or black is 0), RGB, YCbCr."""

_YCBCR: Final = 6
_ADOBE: Final = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""Adobe's segment, but for its last byte: 0 where the three components are RGB, 1 for YCbCr."""


class _File:
    """A file that threads read, and what was decoded of it last."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, io.SEEK_END)
        self._reading, self._keeping = threading.Lock(), threading.Lock()
        self._kept: OrderedDict[tuple[int, int], Pixels] = OrderedDict()
        self._bytes = 0

    def read(self, place: int, size: int) -> bytes:
        """Read bytes of which all must be there."""
        if place + size > self.size:
            raise ImageError("truncated", "Its data lies beyond the end of the file.")
        try:
            with self._reading:
                self._file.seek(place)
                return self._file.read(size)
        except OSError as error:
            raise ImageError("unreadable", f"Its data cannot be read: {error.strerror}.") from error

    def kept(self, key: tuple[int, int]) -> Pixels | None:
        """Give a block that was kept."""
        with self._keeping:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def keep(self, key: tuple[int, int], pixels: Pixels) -> None:
        """Keep a block in place of those not asked for the longest."""
        with self._keeping:
            if key not in self._kept:
                self._kept[key] = pixels
                self._bytes += pixels.nbytes
            while self._bytes > _CACHE:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


@dataclass(frozen=True, eq=False, slots=True)
class _Stored:
    """How the pixels of a directory lie in the file.

    Attributes
    ----------
    size : (int, int)
        Rows and columns.
    piece : (int, int)
        Of a tile, or of a strip.
    group : int
        Pieces of a block, one below the other: at least 2 for strips, so that the last strips, with
        a few before them, are never too few rows for the decoder.
    places, sizes : (planes, n) int64
        Where each piece begins, and its bytes.
    tags : dict
        What a piece's own TIFF says of its pixels.
    """

    size: tuple[int, int]
    piece: tuple[int, int]
    group: int
    places: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    tags: dict[int, Any]

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns of a block."""
        return self.piece[0] * self.group, self.piece[1]

    @property
    def across(self) -> int:
        """Blocks in a row of them."""
        return -(-self.size[1] // self.block[1])


@dataclass(frozen=True, eq=False, slots=True)
class _TiffLevel:
    """A directory as a `leuko.imaging.pyramid.Level`; `finer` has the levels above it."""

    step: int
    file: _File
    stored: _Stored
    faults: Faults
    finer: FieldImage

    def region(self, box: Box) -> Pixels:
        row0, col0, row1, col1 = box
        pixels = np.full((row1 - row0, col1 - col0, 3), WHITE, np.uint8)
        rows, columns = self.stored.block
        row1, col1 = min(row1, self.stored.size[0]), min(col1, self.stored.size[1])
        for top in range(row0 - row0 % rows, row1, rows):
            for left in range(col0 - col0 % columns, col1, columns):
                block = self._block(top // rows * self.stored.across + left // columns)
                start, first = max(top, row0), max(left, col0)
                part = block[start - top : row1 - top, first - left : col1 - left]
                height, width = part.shape[:2]
                into = pixels[start - row0 :, first - col0 :]
                into[:height, :width] = part
        return pixels

    def _block(self, number: int) -> Pixels:
        """Give a block; where it cannot be read, what makes up for it."""
        key = (self.step, number)
        block = self.file.kept(key)
        if block is None:
            try:
                block = self._decoded(number)
            except ImageError as error:
                block = self._instead(number, error.detail)
            self.file.keep(key, block)
        return block

    def _instead(self, number: int, detail: str) -> Pixels:
        """Make up for a block that cannot be read, and note it."""
        rows, columns = self.stored.block
        row, col = (int(at) for at in divmod(number, self.stored.across))
        box = row * rows, col * columns, (row + 1) * rows, (col + 1) * columns
        told = f"At row {box[0]}, column {box[1]}: {detail}"
        if self.finer.levels and self.step == lattice_step(self.step):
            self.faults.add(self.step, number, told, "what a finer copy shows")
            row0, col0, row1, col1 = (side * self.step for side in box)
            return self.finer.read((row0, col0, row1, col1), self.step)
        self.faults.add(self.step, number, told)
        return np.broadcast_to(np.uint8(WHITE), (rows, columns, 3))

    def _decoded(self, number: int) -> Pixels:
        """Decode a block."""
        stored = self.stored
        rows, columns = stored.piece
        last = stored.places.shape[1] - stored.group
        first = min(number * stored.group, last)
        which = slice(first, first + stored.group)
        sizes = stored.sizes[:, which].ravel()
        if not sizes.all():
            return np.broadcast_to(np.uint8(WHITE), (*stored.block, 3))  # nothing was scanned there
        pieces = [
            self.file.read(place, size)
            for place, size in zip(
                stored.places[:, which].ravel().tolist(), sizes.tolist(), strict=True
            )
        ]
        skipped = (number * stored.group - first) * rows
        height = rows * stored.group
        if columns == stored.size[1] and stored.group > 1:  # the last strip may be shorter
            height = min(height, stored.size[0] - first * rows)
        pixels = _decode(pieces, (height, columns), stored)
        return pixels[skipped:]


def _decode(pieces: list[bytes], shape: tuple[int, int], stored: _Stored) -> Pixels:
    """Decode the pieces of one block."""
    codec = stored.tags[_COMPRESSION]
    pixels = None
    try:
        if codec in _JPEG2000:
            pixels = _decode_jpeg2000(pieces[0], shape, _JPEG2000[codec])
        elif codec == _JPEG and len(pieces) == 1:
            pixels = _decode_jpeg(pieces[0], shape, stored.tags)
        if pixels is None:
            pixels = _decode_tiff(pieces, shape, stored)
    except ImageError:
        raise
    except Exception as error:  # a decoder may fail in any way on hostile bytes
        why = str(error) or type(error).__name__
        raise ImageError("damaged", f"Its data cannot be decoded ({why}).") from error
    if pixels.shape[:2] != shape:
        raise ImageError("corrupt", _other_size(pixels.shape))
    return pixels


def _other_size(shape: tuple[int, ...]) -> str:
    """Say that a block is not what its directory tells."""
    return f"Its data has {shape[0]} rows and {shape[1]} columns, which is not what was told."


def _decode_jpeg(piece: bytes, shape: tuple[int, int], tags: dict[int, Any]) -> Pixels | None:
    """Decode a tile that is one JPEG; None where that needs another library."""
    if not piece.startswith(b"\xff\xd8"):
        raise ImageError("damaged", "Its data is no JPEG.")
    place = 2
    while piece[place : place + 2] in (b"\xff\xe0", b"\xff\xee"):  # the directory names the colours
        place += 2 + int.from_bytes(piece[place + 2 : place + 4], "big")
    colours = b"" if tags[_SAMPLES] == 1 else _ADOBE + bytes([tags[_INTERPRETATION] == _YCBCR])
    stream = tags.get(_TABLES, b"\xff\xd8\xff\xd9")[:-2] + colours + piece[place:]
    header = jpeg.read_header(stream)
    if header is None:
        return None
    if header[:2] != shape:
        raise ImageError("corrupt", _other_size(header[:2]))
    return jpeg.load(stream, "RGB", shape, stitched=True)


def _decode_jpeg2000(piece: bytes, shape: tuple[int, int], colours: str) -> Pixels:
    """Decode a tile that is one codestream of JPEG 2000, which does not tell its colours."""
    from PIL import Image

    with Image.open(io.BytesIO(piece), formats=("JPEG2000",)) as image:
        if image.size != shape[::-1]:
            raise ImageError("corrupt", _other_size(image.size[::-1]))
        if image.mode == "RGB" and colours == "YCbCr":
            samples = Image.frombytes("YCbCr", image.size, image.tobytes())
            return np.asarray(samples.convert("RGB"), np.uint8)
        return np.asarray(image.convert("RGB"), np.uint8)


def _decode_tiff(pieces: list[bytes], shape: tuple[int, int], stored: _Stored) -> Pixels:
    """Decode a block as a TIFF of its own."""
    from PIL import TiffImagePlugin

    sizes = [len(piece) for piece in pieces]
    places = tuple(sum(sizes[:number]) for number in range(len(sizes)))
    lines = min(stored.piece[0], shape[0])
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    tags = stored.tags | {256: shape[1], 257: shape[0], 273: places, 278: lines, 279: tuple(sizes)}
    for tag, value in tags.items():
        directory[tag] = value
    file = io.BytesIO()
    directory.save(file)  # places are counted from its end
    file.write(b"".join(pieces))
    return decode_image(file.getvalue()).pixels


def open_tiff(file: BinaryIO) -> FieldImage | None:
    """Open a TIFF that is too large to be decoded whole.

    Parameters
    ----------
    file : binary file
        Stays the caller's, to be closed after the last read.

    Returns
    -------
    FieldImage or None
        None for what `leuko.imaging.decode.decode_image` is to read, or to refuse.

    Raises
    ------
    ImageError
        ``unsupported-format``, ``too-large`` or ``corrupt``, as the directory of the largest
        picture tells; what is wrong with any other part is among the faults.
    """
    data = _File(file)
    ordinary = data.size <= MAX_FILE_BYTES
    unread: list[str] = []
    pages = _directories(file, unread)
    if not pages:
        if ordinary:
            return None
        raise ImageError("corrupt", "The TIFF file has no directory that can be read.")
    base = max(pages, key=_pixels)
    if ordinary and _pixels(base) <= MAX_PIXELS:
        return None
    size = (base.imagelength, base.imagewidth)
    if min(size) < MIN_SIDE or _pixels(base) > MAX_SLIDE:
        raise ImageError(
            "too-large" if min(size) >= MIN_SIDE else "too-small",
            f"The slide has {size[0]} rows and {size[1]} columns, which is no slide's size.",
        )
    told = f"{pages[0].description}{base.description}"
    if base.samplesperpixel == 1 and _CHANNELS.search(told):
        raise ImageError("unsupported-format", "The slide keeps each channel apart; it needs RGB.")
    stored = {1: _stored(base)}
    for page in pages:
        _add_level(page, size, stored, unread)
    faults = Faults(*unread)
    levels: list[_TiffLevel] = []
    for step in sorted(stored):
        finer = FieldImage(size, None, (), tuple(levels))
        levels.append(_TiffLevel(step, data, stored[step], faults, finer))
    planes = sum((page.imagelength, page.imagewidth) == size for page in pages)
    notes = (f"first of {planes} planes",) if planes > 1 else ()
    resolution = (_ratio(base, 283), _ratio(base, 282))
    scale = told_scale(told, resolution, base.tags.valueof(296, 2))
    return FieldImage(size, scale, notes, levels, faults)


def _pixels(page: Any) -> int:
    """Rows by columns of a directory."""
    return int(page.imagelength) * int(page.imagewidth)


def _ratio(page: Any, tag: int) -> float:
    """A rational number; 0 where there is none."""
    value = page.tags.valueof(tag)
    match value:
        case int() as over, int() as under if under:
            return over / under
    return 0.0


def _tifffile() -> Any:
    """Import tifffile, which says what it finds wrong by raising, and no more."""
    try:
        import tifffile

        tifffile.TiffFile  # noqa: B018 - of a package that was emptied nothing is there
    except Exception as error:  # a broken package may fail in any way
        if fault := fault_behind(error):
            raise fault from error
        raise
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    return tifffile


def _directories(file: BinaryIO, unread: list[str]) -> list[Any]:
    """Read a TIFF's directories and those below them, each once."""
    opener = _tifffile().TiffFile
    found: dict[int, Any] = {}

    def follow(chain: Any, many: int) -> None:
        for number in range(min(many, MAX_FRAMES)):
            try:
                page = chain[number]
                _pixels(page)
                if page.offset in found or len(found) >= MAX_FRAMES:
                    return
                found[page.offset] = page
                if page.subifds:
                    follow(page.pages, len(page.subifds))
            except IndexError:
                return
            except Exception as error:  # noqa: BLE001 - anything, on hostile bytes
                why = str(error) or type(error).__name__
                unread.append(f"A directory of the file cannot be read ({why}).")

    try:
        follow(opener(file, offset=0, is_ndpi=False).pages, MAX_FRAMES)
    except Exception:  # noqa: BLE001 - no directory is none
        return []
    return list(found.values())


def _add_level(
    page: Any, size: tuple[int, int], stored: dict[int, _Stored], unread: list[str]
) -> None:
    """Take a directory for a reduced copy of the largest, if it is one."""
    here = (int(page.imagelength), int(page.imagewidth))
    if not all(here) or here == size:
        return
    exact = [whole / side for whole, side in zip(size, here, strict=True)]
    step = round(exact[1])
    told = f"The copy of {here[0]} rows and {here[1]} columns is not used"
    pairs = zip(here, size, strict=True)
    if step > 1 and all(abs(side - whole / step) < _OFF for side, whole in pairs):
        try:
            stored.setdefault(step, _stored(page))
        except ImageError as error:
            unread.append(f"{told}: {error.detail}")
    elif page.is_tiled and abs(exact[0] / exact[1] - 1) < _ALIKE:
        unread.append(f"{told}: it is no whole fraction of the slide.")


def _stored(page: Any) -> _Stored:
    """Say how a directory's pixels lie in the file, or refuse it."""
    try:
        return _told(page)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        why = str(error) or type(error).__name__
        raise ImageError("corrupt", f"Its directory makes no sense ({why}).") from error


def _told(page: Any) -> _Stored:
    """Take from a directory how its pixels lie in the file."""
    size = (int(page.imagelength), int(page.imagewidth))
    tags = {tag: page.tags.valueof(tag) for tag in _PASSED if tag in page.tags}
    tags |= {_COMPRESSION: int(page.compression), _INTERPRETATION: int(page.photometric)}
    tags[_SAMPLES] = int(page.samplesperpixel)
    _refuse_foreign(page, tags)
    tiled = bool(page.is_tiled)
    piece = (int(page.tilelength), int(page.tilewidth)) if tiled else (page.rowsperstrip, size[1])
    planes = tags[_SAMPLES] if page.planarconfig == 2 else 1
    places, sizes = (np.array(each, np.int64) for each in (page.dataoffsets, page.databytecounts))
    count = math.prod(-(-whole // part) for whole, part in zip(size, piece, strict=True))
    if not len(places) == len(sizes) == count * planes or min(places.min(), sizes.min()) < 0:
        raise ImageError("corrupt", f"It tells where {len(places)} of {count * planes} parts lie.")
    if not tiled and tags[_COMPRESSION] == 1 and planes == 1:
        piece, places, sizes = _cut(size, tags[_SAMPLES], piece, places, sizes)
    area = math.prod(piece)
    if tiled and min(piece) < MIN_SIDE:
        raise ImageError("corrupt", f"Its tiles have {piece[0]} rows and {piece[1]} columns.")
    if sizes.max() > _MOST * area + 2**16:
        raise ImageError("corrupt", f"A part of {area} pixels has {sizes.max()} bytes.")
    if area > _MAX_BLOCK:
        raise ImageError(
            "too-large",
            f"Its parts have {piece[0]} rows and {piece[1]} columns, and each must be decoded "
            "whole. Save it anew in tiles, of 256 by 256 for example.",
        )
    least = max(2, 1 + -(-MIN_SIDE // piece[0]))
    group = 1 if tiled else min(max(least, _STRIPS // area), len(places) // planes)
    return _Stored(size, piece, group, places.reshape(planes, -1), sizes.reshape(planes, -1), tags)


def _refuse_foreign(page: Any, tags: dict[int, Any]) -> None:
    """Refuse what cannot be read in parts."""
    bits = page.bitspersample
    codec, samples = tags[_COMPRESSION], tags[_SAMPLES]
    extra = len(page.extrasamples)
    colours = _COLOURS.get(tags[_INTERPRETATION])
    fault = ""
    if bits != 8 or int(page.sampleformat) != 1 or page.imagedepth != 1:
        fault = f"samples of {bits} bits; 8 are read"
    elif codec not in _CODECS:
        fault = f"pixels compressed as {page.compression!r}"
    elif colours != samples - extra or (codec == _JPEG and extra):
        fault = f"{samples} samples a pixel of photometric {tags[_INTERPRETATION]}"
    elif tags[_INTERPRETATION] == _YCBCR and codec not in (_JPEG, *_JPEG2000):
        fault = "YCbCr that is no JPEG"
    if fault:
        raise ImageError("unsupported-format", f"The slide has {fault}.")


def _cut(
    size: tuple[int, int],
    samples: int,
    piece: tuple[int, int],
    places: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
) -> tuple[tuple[int, int], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut plain strips that follow each other into handy ones; others stay as they are."""
    line = size[1] * samples
    if (places[1:] != places[:-1] + sizes[:-1]).any() or sizes.sum() < size[0] * line:
        return piece, places, sizes
    rows = max(1, min(size[0], _STRIPS // size[1]))
    starts = np.arange(0, size[0], rows, dtype=np.int64)
    ends = np.minimum(starts + rows, size[0])
    return (rows, size[1]), places[0] + starts * line, (ends - starts) * line
