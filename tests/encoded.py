"""Sound pictures in rare encodings from a seed, with the pixels that they must give.

What no library among the dependencies writes lies in rare/ or is written here: tiles and planes of
TIFF, interlaced PNG, run-length BMP.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from five import CLASSES
from leuko.data.synth import draw_cell, draw_slide_style


@dataclass(frozen=True)
class Encoded:
    """A sound picture: how it is encoded, its file, and its pixels where nothing is lost."""

    way: str
    data: bytes
    pixels: np.ndarray | None = None


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@functools.cache
def cells() -> list[np.ndarray]:
    """A drawn cell of every class."""
    rng = np.random.default_rng(0)
    return [draw_cell(name, rng, draw_slide_style(rng), size=48).pixels for name in CLASSES]


def piece(rng: np.random.Generator) -> np.ndarray:
    """A part of a drawn cell, of any size from 16 to 40."""
    cell = cells()[int(rng.integers(len(CLASSES)))]
    rows, columns = rng.integers(16, 41, 2)
    top, left = rng.integers(0, 49 - rows), rng.integers(0, 49 - columns)
    return np.ascontiguousarray(cell[top : top + rows, left : left + columns, rng.permutation(3)])


def any_of(rng: np.random.Generator, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


# JPEG


@functools.cache
def rare_jpegs() -> list[bytes]:
    folder = Path(__file__).parent / "rare"
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]


def dressed(data: bytes, rng: np.random.Generator) -> bytes:
    """Put in a JPEG what says nothing of its pixels: remarks, fill bytes, what follows it."""
    match int(rng.integers(6)):
        case 0:
            marker, body = int(rng.integers(0xE1, 0xED)), rng.bytes(int(rng.integers(40)))
            data = (
                data[:2] + b"\xff%c" % marker + struct.pack(">H", len(body) + 2) + body + data[2:]
            )
        case 1:
            data = data[:2] + b"\xff" * int(rng.integers(4)) + data[2:]
        case 2:
            data += rng.bytes(int(rng.integers(200)))
        case 3:
            data += any_of(rng, rare_jpegs())
    return data


def jpeg_of_pillow(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    mode = any_of(rng, ("RGB", "RGB", "L", "CMYK", "YCCK"))
    options: dict[str, Any] = {
        "quality": int(rng.integers(20, 100)),
        "subsampling": int(rng.integers(3)),
        "progressive": bool(rng.random() < 0.3),
        "restart_marker_blocks": int(rng.integers(4)) * int(rng.integers(2)),
    }
    turn = int(rng.integers(10))
    if turn:
        exif = Image.Exif()
        exif[0x0112] = turn
        options["exif"] = exif
    image = Image.fromarray(pixels).convert("CMYK" if mode == "YCCK" else mode)
    data = saved(image, "JPEG", **options)
    if mode == "YCCK":  # the same numbers, called something else
        place = data.index(b"Adobe") + 11
        data = data[:place] + b"\x02" + data[place + 1 :]
    return Encoded(f"JPEG {mode}", dressed(data, rng))


def jpeg_of_turbo(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    sampling = any_of(rng, ("444", "422", "420", "440", "411"))
    quality = int(rng.integers(20, 100))
    data = simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling=sampling)
    return Encoded(f"JPEG {sampling}", dressed(data, rng))


def jpeg_of_opencv(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    factor = any_of(rng, (0x411111, 0x221111, 0x211111, 0x121111, 0x111111))
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    options += [cv2.IMWRITE_JPEG_PROGRESSIVE, int(rng.integers(2))]
    options += [cv2.IMWRITE_JPEG_RST_INTERVAL, int(rng.integers(5))]
    options += [cv2.IMWRITE_JPEG_OPTIMIZE, int(rng.integers(2))]
    return Encoded(
        "JPEG restarts", dressed(cv2.imencode(".jpg", pixels, options)[1].tobytes(), rng)
    )


def jpeg_of_a_rare_kind(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    return Encoded("JPEG rare", dressed(any_of(rng, rare_jpegs()), rng))


def jpeg_of_other_bits(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    """Headers of 12 bits and of lossless JPEG; nothing of their data is read."""
    data = bytearray(simplejpeg.encode_jpeg(pixels))
    place = data.index(b"\xff\xc0")
    data[place + 1], data[place + 4] = any_of(rng, ((0xC1, 12), (0xC3, 8), (0xC3, 16)))
    return Encoded("JPEG unread", bytes(data))


# TIFF


def written_tiff(planes: list[np.ndarray], tags: dict[int, tuple[int, ...]], **how: Any) -> bytes:
    """A TIFF of strips or tiles, `planes` being their bytes; `how` has order, big and packing."""
    order, big = how.get("order", "<"), how.get("big", False)
    pieces = [plane.tobytes() for plane in planes]
    if how.get("packing", False):
        pieces, tags = [zlib.compress(piece, 1) for piece in pieces], tags | {259: (8,)}
    sizes = [len(piece) for piece in pieces]
    start = 16 if big else 8
    places = [start + sum(sizes[:number]) for number in range(len(sizes))]
    tiled = 322 in tags
    tags = {259: (1,), **tags, 324 if tiled else 273: tuple(places)}
    tags[325 if tiled else 279] = tuple(sizes)
    number, width = ("Q", 8) if big else ("I", 4)
    place = start + sum(sizes)
    place += place % 2
    room = place + (8 if big else 2) + len(tags) * (20 if big else 12) + width
    directory, beyond = b"", b""
    for tag, values in sorted(tags.items()):
        kind = 16 if big and tag in (273, 279, 324, 325) else 4 if max(values) > 65535 else 3
        kind = 4 if not big and tag in (273, 279, 324, 325) else kind
        body = struct.pack(order + {3: "H", 4: "I", 16: "Q"}[kind] * len(values), *values)
        if len(body) > width:
            body, beyond = struct.pack(order + number, room + len(beyond)), beyond + body
        directory += struct.pack(order + "HH" + number, tag, kind, len(values))
        directory += body.ljust(width, b"\0")
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0) if big else (42,)), place
    )
    filled = b"".join(pieces).ljust(place - start, b"\0")
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    return head + filled + count + directory + bytes(width) + beyond


def tiff_by_hand(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    """Tiles, planes, either order of bytes, large offsets, 8 and 16 bits, colours and grey."""
    order = any_of(rng, "<>")
    wide, grey, planar, tiled = (bool(rng.integers(2)) for _ in range(4))
    values = pixels[..., :1] if grey else pixels
    wanted = np.repeat(values, 3, axis=2) if grey else values
    rows, columns, samples = values.shape
    stored = values.astype(order + "u2") * 257 if wide else values
    stored = stored.astype(order + ("u2" if wide else "u1"))
    layers = [stored[..., k : k + 1] for k in range(samples)] if planar else [stored]
    tags = {
        256: (columns,),
        257: (rows,),
        258: (16 if wide else 8,) * samples,
        262: (1 if grey else 2,),
        277: (samples,),
        278: (rows,),
        284: (2 if planar else 1,),
    }
    if tiled:
        del tags[278]
        tags |= {322: (16,), 323: (16,)}
        layers = [np.pad(layer, ((0, -rows % 16), (0, -columns % 16), (0, 0))) for layer in layers]
        layers = [
            layer[top : top + 16, left : left + 16]
            for layer in layers
            for top in range(0, rows, 16)
            for left in range(0, columns, 16)
        ]
    data = written_tiff(
        layers, tags, order=order, big=rng.random() < 0.2, packing=rng.random() < 0.5
    )
    return Encoded(f"TIFF {'planes' if planar else 'pixels'}{' tiled' * tiled}", data, wanted)


def tiff_of_few_bits(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    """1, 2 and 4 bits, black or white where zero, and 12."""
    bits, white = any_of(rng, (1, 2, 4, 12)), int(rng.integers(2))
    rows, columns = pixels.shape[:2]
    values = rng.integers(0, 1 << bits, (rows, columns))
    digits = values[..., None] >> np.arange(bits - 1, -1, -1) & 1
    plane = np.packbits(digits.reshape(rows, -1).astype(np.uint8), axis=1)
    tags = {256: (columns,), 257: (rows,), 258: (bits,), 262: (white,), 277: (1,), 278: (rows,)}
    top = (1 << bits) - 1
    grey = ((values if white else top - values) * 255 + top // 2) // top
    data = written_tiff([plane], tags, packing=bits < 12 and rng.random() < 0.5)
    return Encoded(f"TIFF {bits} bits", data, np.repeat(grey[..., None], 3, axis=2))


def tiff_of_pillow(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    mode = any_of(rng, ("1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16"))
    image = Image.fromarray(pixels)
    if mode == "LAB":
        return Encoded("TIFF LAB", saved(Image.new("LAB", image.size, 99), "TIFF"))
    packings = ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]
    packings += {"1": ["group3", "group4", "tiff_ccitt"]}.get(mode, ["zstd", "lzma"])
    image, wanted = in_mode(image, mode, rng)
    options = {"compression": any_of(rng, packings), "big_tiff": bool(rng.random() < 0.2)}
    return Encoded(f"TIFF {mode} {options['compression']}", saved(image, "TIFF", **options), wanted)


def tiff_with_jpeg(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    image = Image.fromarray(pixels).convert(any_of(rng, ("RGB", "L", "YCbCr")))
    quality = int(rng.integers(30, 100))
    return Encoded("TIFF jpeg", saved(image, "TIFF", compression="jpeg", quality=quality))


def in_mode(image: Image.Image, mode: str, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    """An image in one of Pillow's modes, and its pixels over white."""
    pixels = np.asarray(image)
    if mode == "I;16":
        grey = pixels[..., 0].astype(np.uint16)
        return Image.fromarray(grey * 257), np.repeat(pixels[..., :1], 3, axis=2)
    if mode in ("RGBA", "LA"):
        clear = rng.random(pixels.shape[:2]) < 0.3
        image = image.convert(mode[:-1])
        wanted = np.where(clear[..., None], 255, np.asarray(image.convert("RGB")))
        image.putalpha(Image.fromarray(np.where(clear, 0, 255).astype(np.uint8)))
        return image, wanted
    image = image.convert(mode)
    return image, np.asarray(image.convert("RGB"))


# PNG, WebP and BMP


def png_of_pillow(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    mode = any_of(rng, ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"))
    image, wanted = in_mode(Image.fromarray(pixels), mode, rng)
    options: dict[str, Any] = {"compress_level": int(rng.integers(10))}
    if mode == "P":
        image = image.quantize(16)
        wanted, options["bits"] = np.asarray(image.convert("RGB")), any_of(rng, (4, 8))
    return Encoded(f"PNG {mode}", saved(image, "PNG", **options), wanted)


def png_of_sixteen_bits(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    """Every one of 16 bits, or the lower 8, 10, 12 or 14 of them in use."""
    bits = any_of(rng, (8, 10, 12, 14, 16))
    pixels = pixels.copy()
    pixels[0, 0] = 255
    values = (pixels.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)
    kind = any_of(rng, (".png", ".tiff"))
    return Encoded(f"{bits} bits in 16", cv2.imencode(kind, values[..., ::-1])[1].tobytes(), pixels)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_interlaced(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    passes = (
        (0, 8, 0, 8),
        (0, 8, 4, 8),
        (4, 8, 0, 4),
        (0, 4, 2, 4),
        (2, 4, 0, 2),
        (0, 2, 1, 2),
        (1, 2, 0, 1),
    )
    rows, columns = pixels.shape[:2]
    grey, deep = bool(rng.integers(2)), bool(rng.integers(2))
    values = pixels[..., 0] if grey else pixels
    lines = b""
    for top, down, left, right in passes:
        part = values[top::down, left::right]
        part = part.astype(">u2") * 257 if deep else part
        part = part.astype(">u2" if deep else "u1")
        lines += b"".join(b"\0" + row.tobytes() for row in part if row.size)
    head = struct.pack(">IIBBBBB", columns, rows, 16 if deep else 8, 0 if grey else 2, 0, 0, 1)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head)
    data += png_chunk(b"IDAT", zlib.compress(lines, 1)) + png_chunk(b"IEND", b"")
    wanted = np.repeat(values[..., None], 3, axis=2) if grey else pixels
    return Encoded("PNG interlaced", data, wanted)


def webp(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    image, wanted = in_mode(Image.fromarray(pixels), any_of(rng, ("RGB", "RGBA")), rng)
    lossless = bool(rng.integers(2))
    options: dict[str, Any] = {"lossless": lossless, "exact": True, "method": 0}
    if rng.random() < 0.3:
        options |= {"save_all": True, "append_images": [ImageOps.flip(image)]}
    way = f"WebP {'lossless' if lossless else 'lossy'}{' film' * ('save_all' in options)}"
    return Encoded(way, saved(image, "WEBP", **options), wanted if lossless else None)


def bmp(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    mode = any_of(rng, ("1", "L", "P", "RGB"))
    image, wanted = in_mode(Image.fromarray(pixels), mode, rng)
    data = bytearray(saved(image, "BMP"))
    if rng.random() < 0.5:  # the same rows, from the top down
        struct.pack_into("<i", data, 22, -image.height)
        wanted = wanted[::-1]
    return Encoded(f"BMP {mode}", bytes(data), wanted)


def bmp_of_runs(pixels: np.ndarray, rng: np.random.Generator) -> Encoded:
    image = Image.fromarray(pixels).convert("L")
    values = np.asarray(image) // 64 * 64
    whole = bytearray(saved(Image.fromarray(values), "BMP"))
    start = struct.unpack_from("<I", whole, 10)[0]
    body = bytearray()
    for row in values[::-1]:
        edges = np.flatnonzero(np.diff(row)) + 1
        for run in np.split(row, edges):
            body += bytes((len(run), int(run[0])))
        body += b"\0\0"
    body += b"\0\1"
    struct.pack_into("<I", whole, 30, 1)
    struct.pack_into("<I", whole, 34, len(body))
    data = bytes(whole[:start]) + bytes(body)
    return Encoded("BMP runs", data, np.repeat(values[..., None], 3, axis=2))


WAYS: tuple[Callable[[np.ndarray, np.random.Generator], Encoded], ...] = (
    jpeg_of_pillow,
    jpeg_of_turbo,
    jpeg_of_opencv,
    jpeg_of_a_rare_kind,
    jpeg_of_other_bits,
    tiff_by_hand,
    tiff_of_few_bits,
    tiff_of_pillow,
    tiff_with_jpeg,
    png_of_pillow,
    png_of_sixteen_bits,
    png_interlaced,
    webp,
    bmp,
    bmp_of_runs,
)


def encoded_image(seed: int) -> Encoded:
    """The sound picture that belongs to a seed."""
    rng = np.random.default_rng((seed, 2))
    return WAYS[seed % len(WAYS)](piece(rng), rng)


def by_pillow(data: bytes) -> np.ndarray | None:
    """Pixels as Pillow gives them, over white; None where it fails."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode == "RGBA":
                white = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(white, upright)
            return np.asarray(upright.convert("RGB"))
    except Exception:  # noqa: BLE001 - it may fail in any way
        return None


def by_opencv(data: bytes) -> np.ndarray | None:
    """Pixels as OpenCV gives them; None where it fails."""
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if read is None else read[..., ::-1]


def second_decoder(data: bytes) -> np.ndarray | None:
    """OpenCV's pixels of a JPEG, Pillow's of four inks and all else; None where it fails."""
    is_jpeg = data.startswith(b"\xff\xd8")
    return by_opencv(data) if is_jpeg and b"Adobe" not in data else by_pillow(data)
