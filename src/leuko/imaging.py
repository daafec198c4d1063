"""Untrusted bytes in, RGB pixels out: the one decoder and the one resize of the whole project.

Training, prediction, the audit and every door read pictures through `decode_image` and cut them
through `PreprocessSpec`, so that a network never meets pixels in service that were made another
way in training.
"""

from __future__ import annotations

import functools
import io
import os
import re
import stat
import warnings
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.errors import BundleError, ImageError

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "REJECT_REASONS",
    "DecodedImage",
    "PreprocessSpec",
    "check_size",
    "decode_image",
    "encode_jpeg",
    "encode_png",
    "pixels_to_decode",
    "read_bytes",
    "read_image",
    "warp_image",
]

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS: Final = 50_000_000
"""Pictures above 50 megapixels are refused before they are decoded."""

MIN_SIDE: Final = 16
"""Pictures with a side below 16 pixels show no cell."""

MAX_FILE_BYTES: Final = 256 * 1024 * 1024
"""Files above 256 MB are refused before they are read."""

MAX_SCANS: Final = 100
"""Ordinary progressive JPEGs have about ten; each costs a pass over the whole picture."""

MAX_FRAMES: Final = 100
"""Frames are counted this far; a chain of a million would take minutes."""

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Suffixes that the five formats usually bear. Only a hint: content decides."""

REJECT_REASONS: Final = (
    "unreadable",
    "empty-file",
    "not-an-image",
    "unsupported-format",
    "truncated",
    "corrupt",
    "too-large",
    "too-small",
)
"""Every reason that an `ImageError` may carry."""

_FORMATS: Final = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")

# Regular expressions find these in half the time that bytes.count and `in` take.
# A scan with its length and number of components: chance bytes of what follows a picture lack them.
_SCAN: Final = re.compile(rb"\xff\xda\x00(?:\x06\x00|\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_EXIF: Final = re.compile(rb"Exif\x00\x00")

_SEGMENTS: Final = 100
"""More of them before a JPEG's first scan are not read one by one."""

_SEQUENTIAL: Final = (0xC0, 0xC1)
_HUFFMAN: Final = 0xC4
_START_OF_SCAN: Final = 0xDA
"""Markers of JPEG: what frames, tables and scans begin with (ITU-T T.81, table B.1)."""

_BITS: Final = 258
_INTERPRETATION: Final = 262
"""Tags of TIFF: bits of a sample; what its numbers mean, 0 for white (TIFF 6.0, section 8)."""

_REDUCTIONS: Final = (8, 4, 2)

_STRIP: Final = 1_000_000
"""Pixels that are turned into RGB at a time."""

VIEWS: Final = ("centre", "cell", "cell-alone")

STYLES: Final = ("plain", "flat", "soft")

_FOREIGN: Final = (
    (b"GIF8", "GIF"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%PDF", "PDF"),
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"<svg", "SVG"),
)

_MODES: Final = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
"""Pillow's colour modes of 8 bits or fewer that have a known meaning in RGB."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A picture as pixels.

    Attributes
    ----------
    pixels : (H, W, 3) uint8
        RGB, upright (EXIF orientation applied).
    format : str
        One of JPEG, PNG, BMP, TIFF, WEBP, found from the content.
    mode : str
        Colour mode of the file, in Pillow's words: RGB, L, CMYK, P, RGBA, I;16, ...
    notes : tuple of str
        What was done beyond plain decoding, such as "first of 3 frames".
    """

    pixels: Pixels
    format: str
    mode: str
    notes: tuple[str, ...] = ()


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file that may be missing, forbidden or absurdly large.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    bytes
        Its content.

    Raises
    ------
    ImageError
        ``unreadable`` or ``too-large``.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            # A pipe may never end, and a device never does.
            raise ImageError("unreadable", f"{path} cannot be read: it is not an ordinary file.")
        if status.st_size <= MAX_FILE_BYTES:
            with open(path, "rb", buffering=0) as file:
                data = file.read(status.st_size)
                while len(data) < status.st_size and (more := file.read(status.st_size)):
                    data += more  # a network's file system may give it in pieces
            return data
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ImageError("unreadable", f"{path} cannot be read: {why}.") from error
    raise ImageError("too-large", f"{path} is larger than {MAX_FILE_BYTES // 2**20} MB.")


def read_image(path: str | os.PathLike[str], *, spec: PreprocessSpec | None = None) -> DecodedImage:
    """Read and decode one picture.

    Parameters
    ----------
    path : path-like
        A JPEG, PNG, BMP, TIFF or WebP file, whatever its name says.
    spec : PreprocessSpec, optional
        See `decode_image`.

    Returns
    -------
    DecodedImage
        Pixels, format, colour mode and notes.

    Raises
    ------
    ImageError
        When it cannot be read or is not a picture in one of the five formats.
    """
    return decode_image(read_bytes(path), spec=spec)


def decode_image(data: bytes, *, spec: PreprocessSpec | None = None) -> DecodedImage:
    """Decode one picture from bytes that nobody vouches for.

    Transparent pixels are laid over white; 16-bit grey is scaled by 1/257; of several frames the
    first is taken; EXIF orientation is applied.

    Parameters
    ----------
    data : bytes
        The whole file.
    spec : PreprocessSpec, optional
        What the pixels are for. When it is `scaled`, a JPEG may come at a half, a quarter or an
        eighth of its size. None gives every pixel.

    Returns
    -------
    DecodedImage
        Pixels, format, colour mode and notes.

    Raises
    ------
    ImageError
        With one of `REJECT_REASONS`.
    """
    kind = _sniff(data)
    if kind == "JPEG" and (_is_plain_jpeg(data) or not _has_exif(data, _find_scans(data))):
        decoded = _decode_jpeg_fast(data, spec)
        if isinstance(decoded, DecodedImage):
            return decoded
        image = _decode_pillow(data, kind)
        damage = (f"decoded in spite of damage: {decoded}",) if decoded else ()
        return replace(image, notes=(*image.notes, *damage))
    return _decode_pillow(data, kind)


def _find_scans(data: bytes) -> list[int]:
    """Where a JPEG's scans may begin; refuses one of endless scans."""
    scans = [match.start() for match in islice(_SCAN.finditer(data), MAX_SCANS + 1)]
    if len(scans) > MAX_SCANS:
        raise ImageError("corrupt", f"The JPEG file has more than {MAX_SCANS} scans.")
    return scans


def _has_exif(data: bytes, scans: list[int]) -> bool:
    """Whether there is EXIF before the first scan, whichever of these that is."""
    return _EXIF.search(data, 0, scans[-1] if scans else len(data)) is not None


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether a JPEG has one scan and no EXIF; false where there is any doubt.

    Segments are read as far as the first scan. If that holds all components of a sequential JPEG,
    a second one is an error to decoders.
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


def _sniff(data: bytes) -> str:
    """Name the format from the first bytes, or raise."""
    if not data:
        raise ImageError("empty-file", "The file is empty.")
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"):
        return "TIFF"
    foreign = [name for magic, name in _FOREIGN if data.startswith(magic)]
    if data[4:8] == b"ftyp":
        foreign.append("HEIF, AVIF or a video")
    if foreign:
        raise ImageError(
            "unsupported-format",
            f"The file is {foreign[0]}; Leuko reads JPEG, PNG, BMP, TIFF and WebP.",
        )
    if data.startswith(b"BM"):
        return "BMP"
    raise ImageError("not-an-image", "The file's content is no picture that Leuko knows.")


@functools.cache
def _simplejpeg() -> Any:
    """Load libjpeg-turbo's binding, or None where no wheel exists."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def check_size(height: int, width: int) -> None:
    """Refuse sizes that are absurd, before any pixel is decoded.

    Parameters
    ----------
    height, width : int
        Rows and columns of a picture.

    Raises
    ------
    ImageError
        ``too-large`` or ``too-small``.
    """
    if height * width > MAX_PIXELS:
        raise ImageError(
            "too-large",
            f"The picture has {height} rows and {width} columns; the limit is "
            f"{MAX_PIXELS // 1_000_000} megapixels.",
        )
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            "too-small",
            f"The picture has {height} rows and {width} columns; at least {MIN_SIDE} are needed.",
        )


def pixels_to_decode(data: bytes, spec: PreprocessSpec | None = None) -> int:
    """Count the pixels that `decode_image` will hold, by the header alone.

    Parameters
    ----------
    data, spec
        See `decode_image`.

    Returns
    -------
    int
        0 where there is no header that can be read: then nothing is decoded.
    """
    try:
        kind = _sniff(data)
        if kind == "JPEG" and (simplejpeg := _simplejpeg()) is not None:
            rows, columns = simplejpeg.decode_jpeg_header(data)[:2]
        elif kind == "PNG":
            columns, rows = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
        else:
            from PIL import Image

            with Image.open(io.BytesIO(data), formats=(kind,)) as image:
                columns, rows = image.size
    except Exception:  # noqa: BLE001 - what is wrong is for `decode_image` to say
        return 0
    reduced = spec is not None and kind == "JPEG" and _is_plain_jpeg(data)
    factor = spec.reduction(rows, columns) if spec is not None and reduced else 1
    return int(rows * columns) // factor**2


def _decode_jpeg_fast(data: bytes, spec: PreprocessSpec | None) -> DecodedImage | str:
    """Decode an ordinary JPEG; otherwise what is wrong with it, if anything, for Pillow to see."""
    simplejpeg = _simplejpeg()
    if simplejpeg is None:
        return ""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        return str(error)
    check_size(height, width)
    if space not in ("YCbCr", "RGB", "Gray"):
        return ""
    factor = 1 if spec is None else spec.reduction(height, width)
    least = {"min_height": -(-height // factor), "min_width": -(-width // factor)}
    try:
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", **(least if factor > 1 else {}))
    except ValueError as error:
        return str(error)
    return DecodedImage(pixels, "JPEG", "L" if space == "Gray" else "RGB")


def _decode_pillow(data: bytes, kind: str) -> DecodedImage:
    """Decode anything of the five formats with Pillow, and name what is wrong."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    notes: list[str] = []
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            check_size(image.height, image.width)
            mode = image.mode
            frames = _count_frames(image)
            if frames > 1:
                many = f"{frames} or more" if frames == MAX_FRAMES else str(frames)
                notes.append(f"first of {many} frames")
            # Asked before the pixels are loaded: a TIFF is turned, and forgets it, by loading.
            turned = image.getexif().get(0x0112, 1) in range(2, 9)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            if turned:
                notes.append("turned upright by its EXIF orientation")
            pixels = _in_strips(image, *_scale_of_grey(image))
    except ImageError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError("too-large", "The picture is above the limit of megapixels.") from error
    except UnidentifiedImageError as error:
        raise ImageError("corrupt", f"The {kind} file has no header that can be read.") from error
    except Exception as error:  # a decoder may fail in any way on hostile bytes
        text = str(error).lower()
        cut = "truncated" in text or "not enough" in text or isinstance(error, EOFError)
        if cut:
            raise ImageError("truncated", f"The {kind} file ends too early.") from error
        why = str(error) or type(error).__name__
        raise ImageError("corrupt", f"The {kind} file is damaged ({why}).") from error
    return DecodedImage(pixels, kind, mode, tuple(notes))


def _count_frames(image: Any) -> int:
    """Count frames up to `MAX_FRAMES`, and go back to the first."""
    if image.format != "TIFF":
        return min(MAX_FRAMES, int(getattr(image, "n_frames", 1)))
    # A TIFF must be walked from directory to directory.
    frames = 1
    try:
        while frames < MAX_FRAMES:
            image.seek(frames)
            frames += 1
    except (EOFError, OSError, SyntaxError, ValueError, KeyError, TypeError):
        pass
    image.seek(0)
    return frames


def _in_strips(image: Any, white: int, is_negative: bool) -> Pixels:
    """`_to_rgb` of a megapixel at a time: of a large picture no other copy is ever made."""
    columns, rows = image.size
    step = max(1, _STRIP // columns)
    if step >= rows or image.mode.startswith("I"):  # which looks at all numbers together
        return _to_rgb(image, white, is_negative)
    pixels = np.empty((rows, columns, 3), np.uint8)
    for top in range(0, rows, step):
        strip = image.crop((0, top, columns, min(top + step, rows)))
        pixels[top : top + step] = _to_rgb(strip, white, is_negative)
    return pixels


def _to_rgb(image: Any, white: int, is_negative: bool) -> Pixels:
    """Turn any of Pillow's colour modes into RGB uint8; the others are for wide grey numbers."""
    from PIL import Image

    mode: str = image.mode
    if mode == "F":
        raise ImageError("unsupported-format", "Pictures of floating-point numbers have no white.")
    if mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError("unsupported-format", "Pictures of more than 16 bits have no white.")
        clear = image.info.get("transparency")
        grey = np.empty(values.shape, np.uint8)
        for top in range(0, len(values), 256):  # in strips: 50 megapixels of wide numbers are much
            strip = values[top : top + 256].astype(np.uint32)
            part = np.minimum((strip * 255 + white // 2) // white, 255)
            grey[top : top + 256] = np.where(
                strip == clear, 255, 255 - part if is_negative else part
            )
        return np.repeat(grey[..., None], 3, axis=2)
    if mode not in _MODES and not mode.endswith((";16", ";16L", ";16B")):
        raise ImageError("unsupported-format", f"Pictures of colour mode {mode} are not read.")
    if mode == "La":  # premultiplied, of which Pillow makes nothing else
        image = image.convert("LA")
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _scale_of_grey(image: Any) -> tuple[int, bool]:
    """Largest wide grey number, and whether it is black in place of white, as a TIFF may say.

    Pillow widens 12 bits to 16 without scaling, and turns only narrow negatives.
    """
    tags = getattr(image, "tag_v2", {})
    white = 4095 if tuple(tags.get(_BITS, ()))[:1] == (12,) else 65535
    return white, tags.get(_INTERPRETATION) == 0


def encode_jpeg(pixels: Pixels, *, quality: int = 95, subsampling: str = "444") -> bytes:
    """Encode pixels as JPEG.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        The picture.
    quality : int
        1 to 100.
    subsampling : {"444", "422", "420"}
        Chroma subsampling.

    Returns
    -------
    bytes
        The file.
    """
    simplejpeg = _simplejpeg()
    contiguous = np.ascontiguousarray(pixels)
    if simplejpeg is not None:
        return bytes(
            simplejpeg.encode_jpeg(contiguous, quality=quality, colorsubsampling=subsampling)
        )
    from PIL import Image

    file = io.BytesIO()
    modes = {"444": 0, "422": 1, "420": 2}
    Image.fromarray(contiguous).save(file, "JPEG", quality=quality, subsampling=modes[subsampling])
    return file.getvalue()


def encode_png(pixels: npt.NDArray[np.uint8], *, effort: int = 6) -> bytes:
    """Encode pixels as PNG.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB, or (H, W) uint8, grey
        The picture.
    effort : int
        How hard to compress, 1 to 9: 1 takes a quarter of 6's time for a quarter more bytes.

    Returns
    -------
    bytes
        The file.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=effort)
    return file.getvalue()


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
    micrometre : float
        Pixels of the picture to a micrometre where a laboratory's is known, 0.5 to 100; 0 to
        estimate it from each picture.
    styles : tuple of {"plain", "flat", "soft"}
        In which styles the network looks at a view of a cell, ``plain`` first; its answers are
        averaged. See `leuko.cells.style`.
    weights : tuple of float
        What each style counts for in that mean, above 0; empty where all count the same.
    """

    size: tuple[int, int]
    crop: float = 1.0
    scaled: bool = False
    view: str = "centre"
    width: float = 20.0
    micrometre: float = 0.0
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
        if self.micrometre != 0.0 and not (0.5 <= self.micrometre <= 100.0):
            raise BundleError(
                "Preprocessing micrometre must be 0 or lie in [0.5, 100] pixels, received "
                f"{self.micrometre}."
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
            return next((k for k in _REDUCTIONS if side >= k * max(self.size)), 1)
        # A picture of one cell is hardly wider than two views of it, and a known scale is that of
        # the whole picture.
        side = min(rows, columns) if self.scaled and not self.micrometre else 0
        return next((k for k in _REDUCTIONS if side >= 2 * k * max(self.size)), 1)

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
        if not self.micrometre:
            del document["micrometre"]
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
        known = {entry.name for entry in fields(cls)}
        if set(document) - known or "size" not in document:
            raise BundleError(
                f"Preprocessing needs 'size' and takes {', '.join(sorted(known))}; received "
                f"{sorted(document)}. The bundle may come from a newer Leuko."
            )
        size, scaled = document["size"], document.get("scaled", False)
        view, styles = document.get("view", "centre"), document.get("styles", ["plain"])
        defaults = {"crop": 1.0, "width": 20.0, "micrometre": 0.0}
        numbers = {name: document.get(name, value) for name, value in defaults.items()}
        whole = isinstance(size, list | tuple) and all(type(side) is int for side in size)
        plain = all(type(number) in (int, float) for number in numbers.values())
        if not whole or not plain or type(scaled) is not bool or type(view) is not str:
            raise BundleError(
                "Preprocessing size must be two whole numbers, crop, width and micrometre numbers, "
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


def refuse_bombs() -> None:
    """Set Pillow's warnings for a process that we own: bombs are errors, other remarks unsaid."""
    from PIL import Image

    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
