"""Untrusted bytes in, RGB pixels out: the one decoder of the whole project.

Training, prediction, the audit and every door read pictures through `decode_image`.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.errors import ImageError
from leuko.imaging import jpeg, tiff
from leuko.imaging.preprocess import MIN_SIDE, REDUCTIONS, PreprocessSpec
from leuko.support.packages import require

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "REJECT_REASONS",
    "DecodedImage",
    "check_size",
    "decode_image",
    "decode_own",
    "encode_jpeg",
    "encode_png",
    "pixels_to_decode",
    "read_bytes",
    "read_image",
]

# A missing decoder would be taken for the fault of each file; a wheel of simplejpeg is not for all.
require("cv2.version", "PIL.Image", *(["simplejpeg._jpeg"] if find_spec("simplejpeg") else []))

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS: Final = 50_000_000
"""Pictures above 50 megapixels are refused before they are decoded."""

MAX_FILE_BYTES: Final = 256 * 1024 * 1024
"""Files above 256 MB are refused before they are read."""

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
    "damaged",
    "too-large",
    "too-small",
)
"""Every reason that an `ImageError` may carry."""

_FORMATS: Final = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")

_DEPTHS: Final = (8, 10, 12, 14)
"""Bits that cameras give, and programs store in 16."""

_STRIP: Final = 1_000_000
"""Pixels that are turned into RGB at a time."""

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


def read_bytes(path: str | os.PathLike[str], name: str = "") -> bytes:
    """Read a file that may be missing, forbidden or absurdly large.

    Parameters
    ----------
    path : path-like
        The file.
    name : str
        What errors call it; by its path when empty.

    Returns
    -------
    bytes
        Its content.

    Raises
    ------
    ImageError
        ``unreadable`` or ``too-large``.
    """
    told = name or path
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            # A pipe may never end, and a device never does.
            raise ImageError("unreadable", f"{told} cannot be read: it is not an ordinary file.")
        if status.st_size <= MAX_FILE_BYTES:
            with open(path, "rb", buffering=0) as file:
                data = file.read(status.st_size)
                while len(data) < status.st_size and (more := file.read(status.st_size)):
                    data += more  # a network's file system may give it in pieces
            return data
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ImageError("unreadable", f"{told} cannot be read: {why}.") from error
    raise ImageError("too-large", f"{told} is larger than {MAX_FILE_BYTES // 2**20} MB.")


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

    Transparent pixels are laid over white; of several frames the first is taken; EXIF orientation
    is applied; 16 bits are scaled to 8.

    Cameras of 8, 10, 12 or 14 bits store them in 16. Where a TIFF names its largest value, that
    decides. Otherwise a picture that uses at most 14 bits is read as the least of these that holds
    its largest value, if a tenth of it reaches a quarter of that: the background of a smear is
    bright by any exposure. What is darker is read as 16 bits, and so stays dark. A note says which.

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
    try:
        if kind == "JPEG":
            return _decode_jpeg(data, spec)
        return _decode_tiff(data) if kind == "TIFF" else _decode_pillow(data, kind)
    except ImageError:
        raise
    except Exception as error:  # a decoder may fail in any way on hostile bytes
        raise _refusal(error, kind) from error


def decode_own(data: bytes) -> Pixels:
    """Decode a picture that Leuko wrote.

    `decode_image` looks for torn pictures, and may take a line of text, or the seam between two
    photographs, for a tear.

    Parameters
    ----------
    data : bytes
        A whole file that nobody else may have written.

    Returns
    -------
    (H, W, 3) uint8, RGB
    """
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _refusal(error: Exception, kind: str) -> ImageError:
    """Name what a decoder's exception says of a file."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return ImageError("too-large", "The picture is above the limit of megapixels.")
    if isinstance(error, MemoryError):
        return ImageError("too-large", "The picture needs more memory than there is.")
    if isinstance(error, UnidentifiedImageError):
        return ImageError("corrupt", f"The {kind} file has no header that can be read.")
    text = str(error).lower()
    if "truncated" in text or "not enough" in text or isinstance(error, EOFError):
        return ImageError("truncated", f"The {kind} file ends too early.")
    why = str(error) or type(error).__name__
    return ImageError("corrupt", f"The {kind} file cannot be decoded ({why}).")


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
        header = jpeg.read_header(data) if kind == "JPEG" else None
        if header is not None:
            rows, columns, _ = header
        elif kind == "PNG":
            columns, rows = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
        else:
            from PIL import Image

            with Image.open(io.BytesIO(data), formats=(kind,)) as image:
                columns, rows = image.size
    except Exception:  # noqa: BLE001 - what is wrong is for `decode_image` to say
        return 0
    reduced = spec is not None and header is not None and jpeg.is_plain(data)
    factor = spec.reduction(rows, columns) if spec is not None and reduced else 1
    return int(rows * columns) // factor**2


def _decode_jpeg(data: bytes, spec: PreprocessSpec | None) -> DecodedImage:
    """Decode a JPEG; one that more than its pixels belongs to goes the longer way."""
    ordinary = jpeg.is_plain(data) or not jpeg.has_exif(data)
    header = jpeg.read_header(data)
    if header is not None:
        height, width, space = header
        check_size(height, width)
        if ordinary and space in ("YCbCr", "RGB", "Gray"):
            reduction = 1 if spec is None else spec.reduction(height, width)
            pixels = jpeg.load(data, "RGB", (height, width), reduction)
            if pixels is not None:
                return DecodedImage(pixels, "JPEG", "L" if space == "Gray" else "RGB")
    return _decode_pillow(data, "JPEG", spec)


def _decode_tiff(data: bytes) -> DecodedImage:
    """Decode a TIFF, or say what it is that Pillow does not open."""
    from PIL import UnidentifiedImageError

    try:
        return _decode_pillow(data, "TIFF")
    except UnidentifiedImageError:
        colours = tiff.named_colours(data)
        if colours is None:
            tiff.name_unusual(data)
            raise
    image = _decode_pillow(colours, "TIFF")
    return replace(image, notes=(*image.notes, "its samples were taken for red, green and blue"))


def _decode_pillow(data: bytes, kind: str, spec: PreprocessSpec | None = None) -> DecodedImage:
    """Decode anything of the five formats as Pillow understands it."""
    from PIL import Image, ImageOps

    notes: list[str] = []
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        check_size(image.height, image.width)
        mode = image.mode
        frames = _count_frames(image)
        if frames > 1:
            many = f"{frames} or more" if frames == MAX_FRAMES else str(frames)
            notes.append(f"first of {many} frames")
        # Asked before the pixels are loaded: a TIFF is turned, and forgets it, by loading.
        turned = image.getexif().get(0x0112, 1) in range(2, 9)
        if turned:
            notes.append("turned upright by its EXIF orientation")
        loaded = _load_jpeg(image, data, spec) if kind == "JPEG" else None
        if loaded is None:
            notes += [] if _is_checked(image, kind, data) else [jpeg.UNCHECKED]
            image.load()
        elif turned:
            loaded.getexif()[0x0112] = image.getexif()[0x0112]
        upright = image if loaded is None else loaded
        ImageOps.exif_transpose(upright, in_place=True)
        pixels, remark = _to_rgb(upright, image, data)
    return DecodedImage(pixels, kind, mode, (*notes, *remark))


def _load_jpeg(header: Any, data: bytes, spec: PreprocessSpec | None) -> Any:
    """Load an opened JPEG's pixels, checked, as Pillow would; None where that cannot be."""
    from PIL import Image

    inks = header.mode == "CMYK"
    shape = (header.height, header.width)
    reduction = 1 if spec is None else spec.reduction(*shape)
    pixels = jpeg.load(data, "CMYK" if inks else "RGB", shape, reduction)
    if pixels is None:
        return None
    # Everybody writes CMYK as light, and Pillow's is ink.
    return Image.fromarray(255 - pixels, "CMYK") if inks else Image.fromarray(pixels)


def _is_checked(image: Any, kind: str, data: bytes) -> bool:
    """Refuse a TIFF that is damaged, misread or huge; false for JPEGs that were not checked."""
    if kind != "TIFF":
        return kind != "JPEG"
    tiff.refuse_misread(image.tag_v2)
    tiff.refuse_large_tiles(image.tag_v2)
    tiff.check_deflated(image.tag_v2, data)
    streams = tiff.jpeg_streams(image.tag_v2, data)
    # Each of them, also behind one that cannot be checked.
    return streams is not None and False not in {_check_jpeg(stream) for stream in streams}


def _check_jpeg(data: bytes) -> bool:
    """Refuse a damaged JPEG whose pixels another library gives; false where it cannot be told."""
    rows, columns, space = jpeg.read_header(data) or (MIN_SIDE, MIN_SIDE, "")
    check_size(max(rows, MIN_SIDE), max(columns, MIN_SIDE))
    space = "CMYK" if space in ("CMYK", "YCCK") else "RGB"
    return jpeg.load(data, space, (rows, columns), REDUCTIONS[0]) is not None


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


def _to_rgb(image: Any, header: Any, data: bytes) -> tuple[Pixels, tuple[str, ...]]:
    """Turn a loaded picture of any of Pillow's colour modes into RGB uint8, and say how."""
    mode: str = image.mode
    if mode == "F":
        raise ImageError("unsupported-format", "Pictures of floating-point numbers have no white.")
    if mode.startswith("I"):
        return _grey_to_rgb(image, header)
    if mode not in _MODES and not mode.endswith((";16", ";16L", ";16B")):
        raise ImageError("unsupported-format", f"Pictures of colour mode {mode} are not read.")
    columns, rows = image.size
    step = max(1, _STRIP // columns)
    pixels = np.empty((rows, columns, 3), np.uint8)
    for top in range(0, rows, step):  # of a large picture no other copy is ever made
        strip = image.crop((0, top, columns, min(top + step, rows))) if step < rows else image
        pixels[top : top + step] = _opaque(strip)
    is_wide = mode in ("RGB", "RGBA") and _stored_bits(header, data) == 16
    return _dark_colours(pixels, header, data) if is_wide and pixels.max() < 64 else (pixels, ())


def _stored_bits(header: Any, data: bytes) -> int:
    """Bits that a sample of an opened PNG or TIFF is stored in; 8 for the others."""
    if header.format == "TIFF":
        return tiff.stored_bits(header.tag_v2)
    return data[24] if header.format == "PNG" else 8


def _opaque(image: Any) -> Pixels:
    """Colours of a loaded picture, transparent ones over white."""
    from PIL import Image

    if image.mode == "La":  # premultiplied, of which Pillow makes nothing else
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _grey_to_rgb(image: Any, header: Any) -> tuple[Pixels, tuple[str, ...]]:
    """Scale wide grey numbers, of which a TIFF may say that zero is white."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("unsupported-format", "Pictures of more than 16 bits have no white.")
    tags = getattr(header, "tag_v2", {})
    is_negative = tiff.white_is_zero(tags)
    bits, remark = _depth(values, tiff.bits_in_use(tags), guess=not is_negative)
    if tiff.stored_bits(tags) == 12:  # Pillow widens them
        bits, remark = 12, ()
    grey = _scale(values, bits)
    if is_negative:
        grey = 255 - grey
    clear = image.info.get("transparency")
    if clear is not None:
        grey[values == clear] = 255
    return np.repeat(grey[..., None], 3, axis=2), remark


def _dark_colours(pixels: Pixels, header: Any, data: bytes) -> tuple[Pixels, tuple[str, ...]]:
    """Read dark colours again, of which Pillow keeps the upper 8 of 16 bits."""
    tags = getattr(header, "tag_v2", {})
    header.close()  # its pixels take as much memory as what is read now
    values = _wide_colours(data) if header.format != "PNG" or _chunks_fit(data) else None
    if values is None or not _has_upper_bits(values, pixels):
        return pixels, ("uses few of 65536 values",)
    bits, remark = _depth(values, tiff.bits_in_use(tags), guess=True)
    return _scale(values, bits), remark


def _wide_colours(data: bytes) -> npt.NDArray[Any] | None:
    """Read colours of 16 bits; None where OpenCV does not give them."""
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return None if read is None or read.dtype != np.uint16 else read[..., ::-1]


def _chunks_fit(data: bytes) -> bool:
    """Whether each chunk of a PNG ends within it: OpenCV makes room for any length it reads."""
    place, name = 8, b""
    while place < len(data) and name != b"IEND":
        name = data[place + 4 : place + 8]
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return place <= len(data)


def _has_upper_bits(values: npt.NDArray[Any], pixels: Pixels) -> bool:
    """Whether these are the upper 8 bits of numbers, of which no whole copy is made."""
    return values.shape == pixels.shape and all(
        np.array_equal(values[top : top + 256] >> 8, pixels[top : top + 256])
        for top in range(0, len(values), 256)
    )


def _depth(values: npt.NDArray[Any], said: int, *, guess: bool) -> tuple[int, tuple[str, ...]]:
    """Decide how many bits of wide numbers are in use, by the rule of `decode_image`."""
    largest = int(values.max())
    used = largest.bit_length()
    if said and used <= said < 16:
        return said, ((f"uses {largest + 1} of 65536 values, read as {said} bits",))
    if used > _DEPTHS[-1]:
        return 16, ()
    bits = next(depth for depth in _DEPTHS if depth >= used)
    some = values[:: 1 + len(values) // 256]
    if guess and not said and (some >= 2 ** (bits - 2)).mean() >= 0.1:
        return bits, (f"uses {largest + 1} of 65536 values, read as {bits} bits",)
    return 16, (f"uses {largest + 1} of 65536 values",)


def _scale(values: npt.NDArray[Any], bits: int) -> Pixels:
    """Scale numbers of so many bits to 8, rounded."""
    white = 2**bits - 1
    scaled = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), 256):  # in strips: 50 megapixels of wide numbers are much
        strip = values[top : top + 256].astype(np.uint32)
        scaled[top : top + 256] = (strip * 255 + white // 2) // white
    return scaled


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
    simplejpeg = jpeg.codec()
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


def refuse_bombs() -> None:
    """Set Pillow's warnings for a process that we own: bombs are errors, other remarks unsaid."""
    from PIL import Image

    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
