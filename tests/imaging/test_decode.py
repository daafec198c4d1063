"""Untrusted bytes: known pixels come out exactly, everything else gets one named reason."""

from __future__ import annotations

import io
import os
import resource
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from leuko.data.synth import draw_cell, draw_slide_style
from leuko.errors import BundleError, ImageError
from leuko.imaging import jpeg
from leuko.imaging.decode import (
    MAX_FILE_BYTES,
    MAX_FRAMES,
    REJECT_REASONS,
    decode_image,
    encode_jpeg,
    encode_png,
    read_image,
    refuse_bombs,
)
from leuko.imaging.jpeg import MAX_SCANS, UNCHECKED
from leuko.imaging.preprocess import PreprocessSpec, warp_image
from mutated import try_pictures
from tiny import unprivileged

RNG = np.random.default_rng(11)
PIXELS = RNG.integers(0, 256, (20, 28, 3)).astype(np.uint8)
SMOOTH = np.stack(
    np.broadcast_arrays(np.arange(48)[:, None] * 5, np.arange(64)[None] * 3, np.full((48, 64), 90)),
    axis=-1,
).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def reason_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert caught.value.reason in REJECT_REASONS
    assert caught.value.detail.endswith(".")
    assert "object at 0x" not in caught.value.detail
    return caught.value.reason


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def one_colour_png(side: int) -> bytes:
    """A complete black PNG of one bit a pixel; its pixels compress a thousand to one."""
    row = bytes(1 + (side + 7) // 8)
    rows_at_once = 50
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = squeeze.compress(row * rows_at_once) + squeeze.flush(zlib.Z_FULL_FLUSH)
    total = len(row) * side
    adler = (total % 65521) << 16 | 1
    stream = b"\x78\xda" + block * (side // rows_at_once) + b"\x03\x00" + struct.pack(">I", adler)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", stream)
        + png_chunk(b"IEND", b"")
    )


# Known pixels


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"big_tiff": True}),
        ("WEBP", {"lossless": True, "exact": True}),
    ],
)
def test_lossless_formats_give_back_every_pixel(kind: str, options: dict[str, Any]) -> None:
    image = decode_image(saved(Image.fromarray(PIXELS), kind, **options))
    assert (image.format, image.mode, image.notes) == (kind, "RGB", ())
    assert image.pixels.dtype == np.uint8
    np.testing.assert_array_equal(image.pixels, PIXELS)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_what_libjpeg_turbo_and_pillow_say(progressive: bool) -> None:
    data = saved(Image.fromarray(SMOOTH), "JPEG", quality=92, progressive=progressive)
    image = decode_image(data)
    assert (image.format, image.mode) == ("JPEG", "RGB")
    pillow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16)
    assert np.abs(image.pixels.astype(np.int16) - pillow).max() <= 2
    assert np.abs(image.pixels.astype(np.int16) - SMOOTH).mean() < 2


def test_what_we_encode_comes_back() -> None:
    np.testing.assert_array_equal(decode_image(encode_png(PIXELS)).pixels, PIXELS)
    jpeg = decode_image(encode_jpeg(SMOOTH, quality=98)).pixels.astype(np.int16)
    assert np.abs(jpeg - SMOOTH).max() < 12
    sizes = [len(encode_jpeg(SMOOTH, subsampling=kind)) for kind in ("444", "422", "420")]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF"])
def test_grey_has_three_equal_channels(kind: str) -> None:
    grey = np.repeat(np.repeat([[0, 128], [200, 255]], 16, 0), 16, 1).astype(np.uint8)
    image = decode_image(saved(Image.fromarray(grey), kind))
    assert image.mode == "L"
    assert image.pixels.shape == (32, 32, 3)
    np.testing.assert_array_equal(image.pixels[..., 0], image.pixels[..., 2])
    assert np.abs(image.pixels[..., 1].astype(int) - grey).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparency_is_laid_over_white(kind: str) -> None:
    layer = np.zeros((16, 48, 4), np.uint8)
    layer[..., :3] = (100, 0, 50)
    layer[:, 16:32, 3], layer[:, 32:, 3] = 51, 255  # clear, a fifth, opaque
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels = decode_image(saved(Image.fromarray(layer), kind, **options)).pixels
    np.testing.assert_array_equal(pixels[8, 8], (255, 255, 255))
    np.testing.assert_allclose(pixels[8, 24], (224, 204, 214), atol=1)  # 0.2 c + 0.8 * 255
    np.testing.assert_array_equal(pixels[8, 40], (100, 0, 50))


def test_grey_with_alpha() -> None:
    layer = np.zeros((16, 16, 2), np.uint8)
    layer[:, 8:] = (30, 255)
    pixels = decode_image(saved(Image.fromarray(layer, "LA"), "PNG")).pixels
    assert (pixels[0, 0].tolist(), pixels[0, 15].tolist()) == ([255] * 3, [30] * 3)


def test_palette_with_and_without_a_clear_colour() -> None:
    image = Image.new("P", (32, 16), 1)
    image.putpalette([0, 0, 0, 200, 30, 60])
    image.paste(0, (0, 0, 16, 16))
    plain, clear = decode_image(saved(image, "PNG")), saved(image, "PNG", transparency=0)
    assert plain.mode == "P"
    np.testing.assert_array_equal(plain.pixels[0, [0, 31]], [(0, 0, 0), (200, 30, 60)])
    received = decode_image(clear).pixels[0, [0, 31]]
    np.testing.assert_array_equal(received, [(255, 255, 255), (200, 30, 60)])


def test_clear_colour_of_an_rgb_png() -> None:
    pixels = PIXELS.copy()
    pixels[:8] = (1, 2, 3)
    data = saved(Image.fromarray(pixels), "PNG", transparency=(1, 2, 3))
    received = decode_image(data).pixels
    assert (received[:8] == 255).all()
    np.testing.assert_array_equal(received[8:], pixels[8:])


def test_one_bit() -> None:
    image = Image.new("1", (32, 16), 1)
    image.paste(0, (0, 0, 16, 16))
    received = decode_image(saved(image, "PNG")).pixels
    assert (received[0, 0].tolist(), received[0, 31].tolist()) == ([0] * 3, [255] * 3)


@pytest.mark.parametrize("kind", [".png", ".tiff"])
def test_sixteen_bit_grey_is_scaled_not_cut_off(kind: str) -> None:
    values = np.repeat(np.array([[0, 128, 129, 30000, 65535]], np.uint16), 16, 0).repeat(16, 1)
    image = decode_image(cv2.imencode(kind, values)[1].tobytes())
    assert image.mode.startswith("I")
    # v / 257 rounded: 30000 / 257 = 116.7.
    received = [image.pixels[0, 16 * k].tolist() for k in range(5)]
    assert received == [[0] * 3, [0] * 3, [1] * 3, [117] * 3, [255] * 3]


def grey_tiff(data: bytes, *, side: int, bits: int, interpretation: int, extra: int | None = None):
    """A TIFF of one strip, written by hand: Pillow writes none of these."""
    samples = 1 if extra is None else 2
    tags = [(256, 3, side), (257, 3, side), (258, 3, bits), (259, 3, 1), (262, 3, interpretation),
            (273, 4, 0), (277, 3, samples), (278, 3, side), (279, 4, len(data))]  # fmt: skip
    if extra is not None:
        tags[2] = (258, 3, bits | bits << 16)
        tags.append((338, 3, extra))
    tags[5] = (273, 4, 8 + 2 + 12 * len(tags) + 4)
    body = b"".join(
        struct.pack("<HHII", tag, kind, samples if tag == 258 else 1, value)
        for tag, kind, value in tags
    )
    return b"II*\x00" + struct.pack("<IH", 8, len(tags)) + body + bytes(4) + data


def test_twelve_bit_grey_is_scaled() -> None:
    pair = bytes([0xFF, 0xF8, 0x00])  # 4095, then 2048
    image = decode_image(grey_tiff(pair * 128, side=16, bits=12, interpretation=1))
    assert image.pixels[3, :2].tolist() == [[255] * 3, [128] * 3]


def test_wide_grey_may_be_a_negative() -> None:
    values = np.array([0, 30000, 65535, 65535] * 64, "<u2").tobytes()
    image = decode_image(grey_tiff(values, side=16, bits=16, interpretation=0))
    assert image.pixels[0, :3, 0].tolist() == [255, 255 - 117, 0]


def test_a_clear_value_of_wide_grey_is_laid_over_white() -> None:
    data = cv2.imencode(".png", np.full((16, 16), 30_000, np.uint16))[1].tobytes()
    assert decode_image(data).pixels[0, 0].tolist() == [117] * 3
    clear = data[:33] + png_chunk(b"tRNS", struct.pack(">H", 30_000)) + data[33:]
    assert decode_image(clear).pixels[0, 0].tolist() == [255] * 3


def test_grey_with_premultiplied_alpha() -> None:
    data = bytes([0, 0, 30, 255] * 128)
    image = decode_image(grey_tiff(data, side=16, bits=8, interpretation=1, extra=1))
    assert image.pixels[0, :2].tolist() == [[255] * 3, [30] * 3]


@pytest.mark.parametrize("kind", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_colour_is_scaled_not_cut_off(kind: str, channels: int) -> None:
    values = np.full((16, 16, channels), 65535, np.uint16)
    values[..., 2] = 30000  # OpenCV's order is blue, green, red
    image = decode_image(cv2.imencode(kind, values)[1].tobytes())
    red, green, blue = image.pixels[5, 5].tolist()
    assert red in (116, 117)
    assert (green, blue) == (255, 255)


def test_sixteen_bit_of_50_megapixels_fits_in_memory() -> None:
    image = Image.new("I;16", (7000, 2000), 30000)
    data = saved(image, "PNG", compress_level=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert decode_image(data).pixels[1999, 6999].tolist() == [117] * 3
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 160, f"{grown} MB for 14 megapixels; 8 bytes a pixel and copies would be 340"


@pytest.mark.parametrize("kind", [".png", ".tiff"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("grey", [True, False])
def test_few_bits_stored_in_sixteen_are_scaled_and_said(kind: str, bits: int, grey: bool) -> None:
    values = SMOOTH.astype(np.uint32) * (2**bits - 1) // 255
    values = (values[..., 0] if grey else values).astype(np.uint16)
    image = decode_image(cv2.imencode(kind, values[..., ::-1] if not grey else values)[1].tobytes())
    wanted = np.repeat(SMOOTH[..., :1], 3, axis=2) if grey else SMOOTH
    assert np.abs(image.pixels.astype(int) - wanted).max() <= 1
    used = int(values.max()) + 1
    assert image.notes == (f"uses {used} of 65536 values, read as {bits} bits",)


@pytest.mark.parametrize("grey", [True, False])
def test_a_dark_picture_of_sixteen_bits_stays_dark_and_says_so(grey: bool) -> None:
    shape = (64, 64) if grey else (64, 64, 3)
    noise = np.random.default_rng(0).poisson(100, shape).astype(np.uint16)
    noise[0, 0] = 3000  # a hot pixel
    image = decode_image(cv2.imencode(".png", noise)[1].tobytes())
    assert image.pixels.max() <= 12
    assert image.notes == ("uses 3001 of 65536 values",)


def test_the_largest_value_that_a_tiff_names_decides() -> None:
    dark = Image.fromarray(np.full((16, 16), 409, np.uint16))
    image = decode_image(saved(dark, "TIFF", tiffinfo={281: 4000}))  # MaxSampleValue: 12 bits
    assert (image.pixels == 25).all()  # 409 / 4095 * 255
    assert image.notes == ("uses 410 of 65536 values, read as 12 bits",)
    assert (decode_image(saved(dark, "TIFF", tiffinfo={281: 65535})).pixels == 2).all()


def written_tiff(values: np.ndarray, kind: int = 1, **changed: int) -> bytes:
    """An uncompressed TIFF of a (H, W, 3) array, `kind` being its format of numbers."""
    rows, columns, _ = values.shape
    bits = 8 * values.itemsize
    start = 8 + 2 + 12 * 10 + 4
    tags = {256: (4, 1, columns), 257: (4, 1, rows), 258: (3, 3, start), 259: (3, 1, 1),
            262: (3, 1, changed.get("photometric", 2)), 273: (4, 1, start + 12), 277: (3, 1, 3),
            279: (4, 1, values.nbytes), 338: (3, 2, 0), 339: (3, 3, start + 6)}  # fmt: skip
    tags[259] = (3, 1, changed.get("compression", 1))
    body = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(tags.items()))
    more = struct.pack("<6H", bits, bits, bits, kind, kind, kind)
    return b"II*\0" + struct.pack("<IH", 8, 10) + body + bytes(4) + more + values.tobytes()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (written_tiff(np.ones((16, 16, 3), "f4"), 3), "3 samples of 32 floating-point bits"),
        (written_tiff(np.ones((16, 16, 3), "i2"), 2), "3 samples of 16 signed bits"),
        (written_tiff(np.ones((16, 16, 3), "u4")), "3 samples of 32 bits"),
        (written_tiff(np.ones((16, 16, 3), "u1"), compression=34712), "JPEG 2000"),
        (written_tiff(np.ones((16, 16, 3), "u1"), photometric=32803), "photometric 32803"),
    ],
)
def test_an_intact_tiff_that_is_not_read_is_named_and_not_called_corrupt(
    data: bytes, name: str
) -> None:
    with pytest.raises(ImageError, match=name) as caught:
        decode_image(data)
    assert caught.value.reason == "unsupported-format"


@pytest.mark.parametrize("bytes_each", [1, 2])
def test_three_samples_called_black_where_zero_are_colours(bytes_each: int) -> None:
    values = (PIXELS.astype(np.uint16) * 257).astype("<u2") if bytes_each == 2 else PIXELS
    image = decode_image(written_tiff(values, photometric=1))
    np.testing.assert_array_equal(image.pixels, PIXELS)
    assert image.notes == ("its samples were taken for red, green and blue",)


def test_numbers_without_a_white_are_refused() -> None:
    floats = saved(Image.fromarray(np.ones((16, 16), np.float32)), "TIFF")
    wide = saved(Image.fromarray(np.full((16, 16), 70_000, np.int32)), "TIFF")
    assert reason_of(floats) == reason_of(wide) == "unsupported-format"


def test_lab_is_refused_by_name() -> None:
    with pytest.raises(ImageError, match="LAB") as caught:
        decode_image(saved(Image.new("LAB", (16, 16)), "TIFF"))
    assert caught.value.reason == "unsupported-format"


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    ink = np.zeros((32, 32, 4), np.uint8)
    ink[:16] = (0, 255, 255, 0)  # magenta and yellow make red
    ink[16:, 16:, 3] = 255
    image = decode_image(saved(Image.fromarray(ink, "CMYK"), kind))
    assert image.mode == "CMYK"
    wanted = {(4, 4): (255, 0, 0), (24, 4): (255, 255, 255), (24, 28): (0, 0, 0)}
    for place, colour in wanted.items():
        np.testing.assert_allclose(image.pixels[place], colour, atol=6)


# rows of an upright picture from the stored one, by the EXIF specification
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels = SMOOTH if kind == "JPEG" else PIXELS
    image = decode_image(saved(Image.fromarray(pixels), kind, exif=exif, **options))
    wanted = UPRIGHT[orientation](pixels).astype(int)
    assert image.pixels.shape == wanted.shape
    assert np.abs(image.pixels - wanted).max() <= (20 if kind == "JPEG" else 0)
    assert image.notes == (("turned upright by its EXIF orientation",) if orientation > 1 else ())


def test_exif_far_into_a_jpeg_counts_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(SMOOTH), "JPEG", exif=exif)
    comment = b"\xff\xfe" + struct.pack(">H", 65_000) + bytes(64_998)
    assert decode_image(data[:2] + comment * 2 + data[2:]).pixels.shape == (64, 48, 3)


def test_exif_behind_what_looks_like_a_scan_counts_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(SMOOTH), "JPEG", exif=exif)
    comment = b"\xff\xfe" + struct.pack(">H", 12) + b"\xff\xda\x00\x0c\x03" + bytes(5)
    assert decode_image(data[:2] + comment + data[2:]).pixels.shape == (64, 48, 3)


def test_a_jpeg_of_thousands_of_segments_is_read_all_the_same() -> None:
    data = encode_jpeg(SMOOTH)
    many = b"\xff\xfe\x00\x02" * 5_000
    image = decode_image(data[:2] + many + data[2:])
    np.testing.assert_array_equal(image.pixels, decode_image(data).pixels)
    assert decode_image(data[:2] + b"\xff" + data[2:]).pixels.shape == image.pixels.shape


def test_nonsense_orientation_is_no_turn() -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    image = decode_image(saved(Image.fromarray(PIXELS), "PNG", exif=exif))
    assert image.notes == ()
    np.testing.assert_array_equal(image.pixels, PIXELS)


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
def test_the_first_of_several_frames_is_taken_and_said(kind: str) -> None:
    frames = [Image.new("RGB", (20, 18), (value, 0, 90)) for value in (10, 20, 30)]
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    image = decode_image(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert image.notes == ("first of 3 frames",)
    assert (image.pixels == (10, 0, 90)).all()


def tiff_of_many_frames(frames: int) -> bytes:
    data = bytearray(saved(Image.new("L", (16, 16), 7), "TIFF"))
    start = struct.unpack_from("<I", data, 4)[0]
    entries = struct.unpack_from("<H", data, start)[0]
    directory = bytes(data[start : start + 2 + 12 * entries])
    struct.pack_into("<I", data, start + len(directory), len(data))
    for number in range(1, frames):
        following = len(data) + len(directory) + 4
        data += directory + struct.pack("<I", 0 if number == frames - 1 else following)
    return bytes(data)


def test_a_tiff_of_many_frames_is_not_walked_to_its_end() -> None:
    few, many = tiff_of_many_frames(7), tiff_of_many_frames(30_000)
    assert decode_image(few).notes == ("first of 7 frames",)
    started = time.perf_counter()
    image = decode_image(many)
    assert time.perf_counter() - started < 1.5
    assert image.notes == (f"first of {MAX_FRAMES} or more frames",)


def test_a_tiff_that_points_at_itself() -> None:
    data = bytearray(tiff_of_many_frames(2))
    start = struct.unpack_from("<I", data, 4)[0]
    entries = struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", data, start + 2 + 12 * entries, start)
    assert (decode_image(bytes(data)).pixels == 7).all()


# Files that are no usable picture


def test_empty() -> None:
    assert reason_of(b"") == "empty-file"


@pytest.mark.parametrize(
    "data", [b"hello", b"\x00" * 400, b"PK\x03\x04" + bytes(60), b"\x7fELF" + bytes(60), b"\xff"]
)
def test_not_an_image(data: bytes) -> None:
    assert reason_of(data) == "not-an-image"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) show\n", "EPS"),
        (b"\xc5\xd0\xd3\xc6" + bytes(30), "EPS"),
        (b"GIF89a" + bytes(30), "GIF"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\x00\x00\x00\x20ftypheic" + bytes(30), "HEIF"),
        (b"8BPS\x00\x01", "Photoshop"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    ],
)
def test_other_formats_are_named(data: bytes, name: str, tmp_path: Path) -> None:
    file = tmp_path / "cell.png"  # the name claims otherwise
    file.write_bytes(data)
    with pytest.raises(ImageError, match=name) as caught:
        read_image(file)
    assert caught.value.reason == "unsupported-format"


def test_content_decides_never_the_name(tmp_path: Path) -> None:
    file = tmp_path / "cell.jpg"
    file.write_bytes(encode_png(PIXELS))
    image = read_image(file)
    assert image.format == "PNG"
    np.testing.assert_array_equal(image.pixels, PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_file_is_never_taken(kind: str, share: float) -> None:
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = saved(Image.fromarray(noise), kind)
    assert reason_of(data[: int(share * len(data))]) in ("truncated", "corrupt")


def test_a_cut_jpeg_is_called_truncated() -> None:
    data = encode_jpeg(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    assert reason_of(data[: len(data) // 2]) == "truncated"


RARE = sorted((Path(__file__).parents[1] / "rare").glob("*.jpg"), key=lambda path: path.name)


@pytest.mark.parametrize("path", RARE, ids=lambda path: path.stem)
def test_rare_samplings_and_codings_of_jpeg_are_read(path: Path) -> None:
    image = read_image(path)
    with Image.open(path) as second:
        np.testing.assert_array_equal(image.pixels, np.asarray(second.convert("RGB")))
    # libjpeg-turbo's interface has no name for these, so another library reads them, unwarned.
    nameless = path.stem in ("311", "410", "mixed")
    assert image.notes == ((UNCHECKED,) if nameless else ())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError(6), "corrupt"),
        (RuntimeError("no"), "corrupt"),
        (cv2.error("no"), "corrupt"),
        (MemoryError(), "too-large"),
        (EOFError(), "truncated"),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_whatever_a_decoder_raises_is_that_files_reason(
    kind: str, error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    data = saved(Image.fromarray(SMOOTH), kind)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", fail)
    monkeypatch.setattr(Image, "open", fail)
    assert reason_of(data) == reason


def dressings(picture: Image.Image) -> dict[str, bytes]:
    """Sound JPEGs by way of everything that decides how one is read."""
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "plain": saved(picture, "JPEG", quality=90),
        "grey": saved(picture.convert("L"), "JPEG", quality=90),
        "progressive": saved(picture, "JPEG", quality=90, progressive=True),
        "restarts": saved(picture, "JPEG", quality=90, restart_marker_rows=1),
        "turned": saved(picture, "JPEG", quality=90, exif=turned),
        "cmyk": saved(picture.convert("CMYK"), "JPEG", quality=90),
        "in a TIFF": saved(picture, "TIFF", compression="jpeg"),
    }


@pytest.mark.parametrize("way", [*dressings(Image.new("RGB", (16, 16)))])
@pytest.mark.parametrize("spec", [None, PreprocessSpec((16, 16), scaled=True)])
def test_a_damaged_jpeg_is_never_pixels(way: str, spec: PreprocessSpec | None) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (160, 160, 3)).astype(np.uint8)
    noise = cv2.GaussianBlur(noise, (0, 0), 2)
    data = dressings(Image.fromarray(noise))[way]
    assert decode_image(data, spec=spec).notes in ((), ("turned upright by its EXIF orientation",))
    for share in (0.3, 0.5, 0.6):
        place = int(share * len(data))
        for bad in (bytes(300), b"\xff" * 300):
            with pytest.raises(ImageError) as caught:
                decode_image(data[:place] + bad + data[place + 300 :], spec=spec)
            assert caught.value.reason == "damaged", (share, bad[:1])
            assert "damaged" in caught.value.detail


def test_pixels_of_turned_and_cmyk_jpegs_are_pillows() -> None:
    for way, data in dressings(Image.fromarray(SMOOTH)).items():
        with Image.open(io.BytesIO(data)) as second:
            upright = ImageOps.exif_transpose(second).convert("RGB")
        np.testing.assert_array_equal(decode_image(data).pixels, np.asarray(upright), err_msg=way)


@pytest.mark.parametrize(
    ("process", "bits", "name"), [(0xC1, 12, "12-bit"), (0xC3, 8, "lossless"), (0xC5, 8, "hierarc")]
)
def test_a_jpeg_that_is_hardly_read_anywhere_is_named(process: int, bits: int, name: str) -> None:
    data = bytearray(encode_jpeg(SMOOTH))
    place = data.index(b"\xff\xc0")
    data[place + 1], data[place + 4] = process, bits
    with pytest.raises(ImageError, match=name) as caught:
        decode_image(bytes(data))
    assert caught.value.reason == "unsupported-format"


def drawn_cell(side: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    return draw_cell("Neutrophil", rng, draw_slide_style(rng), size=side).pixels


@pytest.mark.parametrize("way", ["plain", "grey", "progressive", "turned", "cmyk"])
def test_a_picture_that_does_not_go_on_behind_damage_is_never_pixels(way: str) -> None:
    """As when a sector holds another's bytes, with as many blocks: no decoder notices."""
    cell = drawn_cell(160)
    assert decode_image(dressings(Image.fromarray(cell))[way]).pixels.shape == (160, 160, 3)
    torn = cell.copy()
    torn[64:] = np.clip(np.roll(torn[64:], 40, axis=1).astype(int) - 30, 0, 255)
    data = dressings(Image.fromarray(torn))[way]
    for spec in (None, PreprocessSpec((80, 80), scaled=True)):
        with pytest.raises(ImageError, match="row 64 does not go on") as caught:
            decode_image(data, spec=spec)
        assert caught.value.reason == "damaged"
    np.testing.assert_array_equal(decode_image(encode_png(torn)).pixels, torn)


@pytest.mark.parametrize("colour", [0, 90, 255])
def test_a_frame_and_a_tear_within_a_block_are_no_damage(colour: int) -> None:
    framed = drawn_cell(160)
    framed[:32], framed[-32:], framed[:, :32] = colour, colour, colour
    decode_image(encode_jpeg(framed))
    beside = drawn_cell(160)
    beside[68:] //= 2
    decode_image(encode_jpeg(beside))
    for quality in (20, 60, 95):
        decode_image(encode_jpeg(drawn_cell(160), quality=quality))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("kind", ["zeros", "ones", "random", "repeated"])
def test_real_cells_with_a_damaged_sector_are_hardly_ever_read(kind: str, raabin: Path) -> None:
    files = sorted((raabin / "Test").glob("*/*.jpg"))[::22]
    rng = np.random.default_rng(0)
    read = 0
    for file in files:
        data = file.read_bytes()
        decode_image(data)
        here, there = rng.choice(len(data) // 512, 2, replace=False) * 512
        other = {"zeros": bytes(512), "ones": b"\xff" * 512, "random": rng.bytes(512)}
        sector = other.get(kind, data[there : there + 512])
        try:
            decode_image(data[:here] + sector + data[here + 512 :])
        except ImageError:
            continue
        read += 1
    assert len(files) > 190
    assert read == 0


@pytest.mark.parametrize("more", [b"", b"\xff" * 9, b"film" * 400, encode_jpeg(SMOOTH)])
def test_what_follows_a_sound_jpeg_is_no_damage(more: bytes) -> None:
    for data in dressings(Image.fromarray(SMOOTH)).values():
        decode_image(data + more)
    exif = Image.Exif()
    exif[0x010F] = "phone"
    frames = [Image.fromarray(SMOOTH), Image.fromarray(SMOOTH[::-1].copy())]
    pair = saved(frames[0], "MPO", save_all=True, append_images=frames[1:], exif=exif)
    assert decode_image(pair + more).notes == ("first of 2 frames",)


def test_without_the_library_that_warns_a_jpeg_says_that_it_was_not_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jpeg, "codec", lambda: None)
    for data in dressings(Image.fromarray(SMOOTH)).values():
        assert UNCHECKED in decode_image(data).notes


def test_a_deflated_tiff_is_compared_with_its_checksums() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = saved(Image.fromarray(noise), "TIFF", compression="tiff_adobe_deflate")
    decode_image(data)
    place = len(data) // 2  # noise is stored as it is, so that any decoder reads on
    changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    assert reason_of(changed) == "damaged"


def test_a_damaged_png_is_corrupt() -> None:
    data = bytearray(encode_png(PIXELS))
    data[60] ^= 0xFF
    assert reason_of(bytes(data)) == "corrupt"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_too_small(kind: str) -> None:
    assert reason_of(saved(Image.new("RGB", (40, 15)), kind)) == "too-small"
    assert decode_image(saved(Image.new("RGB", (16, 16)), kind)).pixels.shape == (16, 16, 3)


def test_fifty_thousand_squared_is_refused_before_it_is_decoded() -> None:
    data = one_colour_png(50_000)
    assert len(data) < 2_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    assert reason_of(data) == "too-large"
    assert time.perf_counter() - started < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024  # 20 MB


def test_the_same_file_but_smaller_is_complete() -> None:
    pixels = decode_image(one_colour_png(200)).pixels
    assert pixels.shape == (200, 200, 3)
    assert not pixels.any()


@pytest.mark.parametrize(("rows", "columns"), [(5001, 10_000), (50_001, 1000)])
def test_the_limit_of_megapixels(rows: int, columns: int) -> None:
    body = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    cut = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", body) + png_chunk(b"IDAT", b"")
    assert reason_of(cut) == "too-large"
    jpeg = bytearray(encode_jpeg(SMOOTH))
    place = jpeg.index(b"\xff\xc0")
    struct.pack_into(">HH", jpeg, place + 5, rows, columns)
    assert reason_of(bytes(jpeg)) == "too-large"


@pytest.mark.parametrize("kind", ["progressive", "one component a scan"])
def test_a_jpeg_of_endless_scans_is_refused(kind: str) -> None:
    data = saved(Image.fromarray(SMOOTH), "JPEG", progressive=kind == "progressive")
    scan = data[data.rindex(b"\xff\xda") : -2]
    if kind != "progressive":
        scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(4)
        data = data[: data.index(b"\xff\xda")] + scan + data[-2:]
    started = time.perf_counter()
    assert reason_of(data[:-2] + scan * (MAX_SCANS + 1) + data[-2:]) == "corrupt"
    assert time.perf_counter() - started < 0.5


def test_a_film_behind_a_photograph_is_no_endless_jpeg() -> None:
    exif = Image.Exif()
    exif[0x010F] = "phone"
    data = saved(Image.fromarray(SMOOTH), "JPEG", exif=exif)
    film = b"ftypmp42" + b"\xff\xda\x12\x34" * (MAX_SCANS + 1)
    np.testing.assert_array_equal(decode_image(data + film).pixels, decode_image(data).pixels)


def test_a_text_bomb_in_a_png_is_refused() -> None:
    data = encode_png(PIXELS)
    bomb = png_chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(30_000_000), 9))
    assert reason_of(data[:33] + bomb + data[33:]) == "corrupt"


# Files that cannot be read


def test_unreadable_paths(tmp_path: Path) -> None:
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nothing.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    paths = ["missing.jpg", "dangling.jpg", "loop.jpg", "pipe.jpg", "nul\0.jpg", "x" * 300, "."]
    for name in paths:
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        assert caught.value.reason == "unreadable", name


def test_a_device_is_no_picture() -> None:
    with pytest.raises(ImageError, match="not an ordinary file"):
        read_image("/dev/zero")


def test_a_file_without_permission(tmp_path: Path) -> None:
    file = tmp_path / "cell.png"
    file.write_bytes(encode_png(PIXELS))
    file.chmod(0)
    with unprivileged(), pytest.raises(ImageError, match="Permission denied") as caught:
        read_image(file)
    assert caught.value.reason == "unreadable"


def test_an_absurdly_large_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "cell.png"
    with file.open("wb") as handle:
        handle.truncate(MAX_FILE_BYTES + 1)  # sparse: takes no room
    with pytest.raises(ImageError) as caught:
        read_image(file)
    assert caught.value.reason == "too-large"


# Mutations


def originals() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    colour, grey = Image.fromarray(SMOOTH), Image.fromarray(SMOOTH[..., 0])
    frames = [colour, ImageOps.invert(colour)]
    many: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    return [
        saved(colour, "JPEG", quality=90),
        saved(colour, "JPEG", progressive=True, exif=exif),
        saved(colour.convert("CMYK"), "JPEG"),
        saved(grey, "JPEG"),
        saved(colour, "PNG"),
        saved(colour.convert("P"), "PNG", transparency=0),
        saved(colour.convert("RGBA"), "PNG", **many),
        cv2.imencode(".png", SMOOTH.astype(np.uint16) * 257)[1].tobytes(),
        saved(colour, "BMP"),
        saved(colour.convert("P"), "BMP"),
        saved(colour, "TIFF"),
        saved(colour, "TIFF", compression="tiff_lzw"),
        saved(colour, "TIFF", compression="jpeg"),
        saved(grey, "TIFF", compression="tiff_adobe_deflate", **many),
        saved(colour, "TIFF", exif=exif, big_tiff=True),
        saved(colour, "WEBP"),
        saved(colour, "WEBP", lossless=True, exif=exif),
        saved(frames[0], "WEBP", **many),
    ]


def mutated(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """One fault or a few, of the kinds that disks, networks and people make."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if not changed:
            break
        place = int(rng.integers(len(changed)))
        if rng.random() < 0.5:
            place = int(rng.integers(min(len(changed), 120)))  # headers decide most
        span = int(rng.integers(1, 40))
        match int(rng.integers(7)):
            case 0:
                changed[place] ^= 1 << int(rng.integers(8))
            case 1:
                changed[place : place + span] = rng.bytes(span)
            case 2:
                changed[place : place + span] = bytes([int(rng.choice([0, 255, 127]))]) * span
            case 3:
                del changed[place : place + span]
            case 4:
                changed[place:place] = rng.bytes(span)
            case 5:
                del changed[place:]
            case _:
                other = others[int(rng.integers(len(others)))]
                start = int(rng.integers(len(other)))
                changed[place : place + span] = other[start : start + span]
    return bytes(changed)


@pytest.mark.slow
def test_mutated_files_are_decoded_or_refused_by_name() -> None:
    rng = np.random.default_rng(20_260_101)
    files = originals()
    for data in files:
        assert decode_image(data).pixels.shape in ((48, 64, 3), (64, 48, 3))
    taken, slowest, described = 0, 0.0, True
    reasons: dict[str, int] = {}
    with warnings.catch_warnings():
        refuse_bombs()  # as the command line does
        for number in range(1500):
            data = mutated(files[number % len(files)], rng, files)
            started = time.perf_counter()
            try:
                image = decode_image(data)
            except ImageError as error:
                reasons[error.reason] = reasons.get(error.reason, 0) + 1
                described = described and bool(error.detail)
            else:
                taken += 1
                assert image.pixels.dtype == np.uint8
                assert image.pixels.ndim == 3
                assert image.pixels.shape[2] == 3
                assert image.pixels.size <= 3 * 50_000_000
            slowest = max(slowest, time.perf_counter() - started)
    assert taken + sum(reasons.values()) == 1500
    assert taken > 100
    assert described
    assert set(reasons) <= set(REJECT_REASONS)
    assert set(reasons) >= {"truncated", "corrupt", "not-an-image", "too-large"}, reasons
    assert slowest < 10


@pytest.mark.slow
def test_sound_pictures_in_rare_encodings_and_mutated_ones_of_the_long_run() -> None:
    outcome = try_pictures(0, 3_000)
    assert not outcome.faults
    assert outcome.slowest < 10
    assert outcome.met["ok"] > 0.4 * 3_000
    assert {"mutated: damaged", "mutated: ok", "archive", "refused archive"} <= set(outcome.met)


# Preprocessing


def test_the_central_square_is_cut() -> None:
    pixels = np.zeros((100, 60, 3), np.uint8)
    pixels[35:65, 15:45] = 200  # the central 30 x 30
    received = PreprocessSpec((30, 30), 0.5).apply(pixels)
    assert received.shape == (30, 30, 3)
    assert (received == 200).all()


def test_an_input_of_the_right_size_is_untouched() -> None:
    received = PreprocessSpec((20, 20)).apply(PIXELS)
    np.testing.assert_array_equal(received, PIXELS[:, 4:24])


def test_shrinking_averages_areas() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[::2, ::2] = 200  # a quarter of every 2 x 2 area
    assert (PreprocessSpec((32, 32)).apply(pixels) == 50).all()


def test_enlarging_keeps_colours_and_shape() -> None:
    flat = np.full((20, 30, 3), (9, 80, 200), np.uint8)
    received = PreprocessSpec((50, 40)).apply(flat)
    assert received.shape == (50, 40, 3)
    assert (received == (9, 80, 200)).all()


def test_scaled_shrinking_halves_and_is_then_bilinear() -> None:
    pixels = np.zeros((96, 96, 3), np.uint8)
    pixels[::2, ::2] = 200  # a quarter of every 2 x 2 area
    assert (PreprocessSpec((48, 48), scaled=True).apply(pixels) == 50).all()
    assert (PreprocessSpec((24, 24), scaled=True).apply(pixels) == 50).all()
    noise = RNG.integers(0, 256, (90, 90, 3)).astype(np.uint8)
    received = PreprocessSpec((64, 64), scaled=True).apply(noise)
    wanted = cv2.resize(noise, (64, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(received, wanted)
    odd = PreprocessSpec((40, 30), 0.9, scaled=True).apply(RNG.integers(0, 9, (575, 301, 3), "u1"))
    assert odd.shape == (40, 30, 3)


@pytest.mark.parametrize(
    ("size", "crop", "shape", "factor"),
    [
        (160, 0.6, (575, 575), 2),  # 345, and 172 left of it
        (173, 0.6, (575, 575), 1),
        (96, 0.6, (575, 700), 2),
        (350, 1.0, (575, 575), 1),
        (224, 1.0, (575, 575), 2),
        (32, 1.0, (575, 575), 8),
        (32, 1.0, (128, 4000), 4),
        (224, 0.6, (100, 100), 1),
    ],
)
def test_how_small_a_picture_may_be_decoded(
    size: int, crop: float, shape: tuple[int, int], factor: int
) -> None:
    spec = PreprocessSpec((size, size), crop, scaled=True)
    assert spec.reduction(*shape) == factor
    assert PreprocessSpec((size, size), crop).reduction(*shape) == 1


@pytest.mark.parametrize("side", [575, 576, 1151])
@pytest.mark.parametrize("size", [40, 96, 160])
def test_a_scaled_jpeg_is_the_same_picture_decoded_small(side: int, size: int) -> None:
    smooth = cv2.resize(SMOOTH, (side, side + 3), interpolation=cv2.INTER_LINEAR)
    spec = PreprocessSpec((size, size), 0.6, scaled=True)
    data = encode_jpeg(smooth)
    factor = spec.reduction(side + 3, side)
    assert factor > 1
    small = decode_image(data, spec=spec)
    assert small.pixels.shape == (-(-(side + 3) // factor), -(-side // factor), 3)
    assert (small.format, small.mode, small.notes) == ("JPEG", "RGB", ())
    assert decode_image(data).pixels.shape == smooth.shape
    by_jpeg = spec.apply(small.pixels).astype(int)
    by_halving = spec.apply(decode_image(data).pixels).astype(int)
    by_areas = PreprocessSpec((size, size), 0.6).apply(smooth).astype(int)
    assert by_jpeg.shape == (size, size, 3)
    assert np.abs(by_jpeg - by_halving).max() <= 4
    assert np.abs(by_jpeg - by_areas).mean() < 1.5


def test_only_a_scaled_jpeg_is_decoded_small(tmp_path: Path) -> None:
    pixels = cv2.resize(SMOOTH, (400, 400))
    spec = PreprocessSpec((32, 32), scaled=True)
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(pixels))
    (tmp_path / "a.png").write_bytes(encode_png(pixels))
    assert read_image(tmp_path / "a.jpg", spec=spec).pixels.shape == (50, 50, 3)
    assert read_image(tmp_path / "a.png", spec=spec).pixels.shape == (400, 400, 3)
    plain = PreprocessSpec((32, 32))
    assert read_image(tmp_path / "a.jpg", spec=plain).pixels.shape == (400, 400, 3)


def test_preprocessing_round_trip() -> None:
    for spec in (PreprocessSpec((350, 224), 0.8), PreprocessSpec((96, 96), 0.6, scaled=True)):
        assert PreprocessSpec.from_dict(spec.to_dict()) == spec
    # Bundles from before there was a choice keep their digests.
    assert PreprocessSpec((24, 24)).to_dict() == {"size": [24, 24], "crop": 1.0}


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"crop": 1.0},
        {"size": [24, 24], "resize": "lanczos"},
        {"size": [24]},
        {"size": [24, 24, 3]},
        {"size": 24},
        {"size": [24.5, 24]},
        {"size": ["24", "24"]},
        {"size": [True, 24]},
        {"size": [8, 24]},
        {"size": [24, 4096]},
        {"size": [24, 24], "crop": "0.5"},
        {"size": [24, 24], "scaled": 1},
        {"size": [24, 24], "scaled": "yes"},
        {"size": [24, 24], "crop": 0},
        {"size": [24, 24], "crop": 1.2},
        {"size": [24, 24], "crop": float("nan")},
    ],
)
def test_wrong_preprocessing_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="Preprocessing"):
        PreprocessSpec.from_dict(document)


TURN = np.array([[0.8, -0.5, 12.3], [0.5, 0.8, -4.6]])


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("fill", [None, (3, 200, 90), (0, 0, 0)])
def test_a_picture_is_warped_to_the_values_of_three_channels(
    inverse: bool, fill: tuple[int, ...] | None
) -> None:
    """Four channels are only a quicker way to what OpenCV makes of each channel by itself."""
    pixels = RNG.integers(0, 256, (90, 70, 3)).astype(np.uint8)
    before = pixels.copy()
    output = warp_image(pixels, TURN, (60, 110), inverse=inverse, fill=fill)
    flags = cv2.INTER_LINEAR | (cv2.WARP_INVERSE_MAP if inverse else 0)
    for channel in range(3):
        alone = cv2.warpAffine(
            pixels[..., channel],
            TURN,
            (110, 60),
            flags=flags,
            borderMode=cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT,
            borderValue=0 if fill is None else fill[channel],
        )
        assert np.array_equal(output[..., channel], alone)
    assert np.array_equal(pixels, before)


def test_a_picture_is_warped_into_an_array_of_the_caller() -> None:
    pixels, out = (
        RNG.integers(0, 256, (40, 40, 3)).astype(np.uint8),
        np.empty((40, 40, 3), np.uint8),
    )
    assert warp_image(pixels, TURN, (40, 40), out=out) is out
    assert np.array_equal(out, warp_image(pixels, TURN, (40, 40)))
