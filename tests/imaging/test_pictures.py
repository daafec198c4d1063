"""Memory for pictures is bounded, whatever their size and however many threads there are."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from encoded import written_tiff
from leuko.data.synth import draw_cell, draw_slide_style
from leuko.errors import ImageError
from leuko.imaging import decode as imaging
from leuko.imaging import pictures
from leuko.imaging.decode import MAX_PIXELS, decode_image, pixels_to_decode
from leuko.imaging.preprocess import PreprocessSpec
from leuko.runtime.sources import expand
from leuko.support.parallel import bounded_map

SIDE = 7_000

PEAK = """
from leuko.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures of 49 megapixels in each of three formats, in small files."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    cell = draw_cell("Neutrophil", rng, draw_slide_style(rng), size=350)
    picture = Image.fromarray(cell.pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    picture.save(folder / "a.png", compress_level=1)
    picture.save(folder / "b.jpg")
    picture.save(folder / "c.tif", compression="tiff_adobe_deflate")
    for file in sorted(folder.iterdir()):
        os.link(file, folder / f"{file.stem}2{file.suffix}")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says what a process took")
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_49_megapixels_on_any_number_of_threads(large: Path, tmp_path: Path, workers: int) -> None:
    out = tmp_path / "out.csv"
    options = ["predict", str(large), "--workers", str(workers), "--csv", str(out), "--quiet"]
    told = subprocess.check_output([sys.executable, "-c", PEAK, *options], text=True)
    assert len(out.read_text().splitlines()) == 1 + 6
    assert int(told.splitlines()[-1]) < 800 * 1024  # kilobytes


DECODING = """
import sys
from leuko.errors import ImageError
from leuko.imaging.decode import read_image
try:
    print(read_image(sys.argv[1]).notes)
except ImageError as error:
    print(error.reason)
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


def dark_png(side: int) -> bytes:
    """Colours of 16 bits, of which 11 are used."""
    values = np.full((side, side, 3), 1500, np.uint16)
    return cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def lying_png() -> bytes:
    """A chunk that says that it holds 4 GB."""
    data = dark_png(16)
    place = data.index(b"IDAT")
    return data[: place - 4] + b"\xff\xff\xff\xff" + data[place:]


def tiled_tiff(side: int) -> bytes:
    """A picture of 64 x 64 pixels of 16 bits in one tile, of which hardly anything is there."""
    tags = {256: (64,), 257: (64,), 258: (16,) * 3, 262: (2,), 277: (3,), 284: (1,)}
    tags |= {322: (side,), 323: (side,)}
    return written_tiff([np.full(1000, 5, np.uint8)], tags, packing=True)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says what a process took")
@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (lambda: dark_png(3200), "('uses 1501 of 65536 values, read as 12 bits',)"),
        (lying_png, "('uses few of 65536 values',)"),
        (lambda: tiled_tiff(17_008), "too-large"),
        (lambda: tiled_tiff(48), "corrupt"),
    ],
    ids=["dark", "chunk", "tile", "tile too short"],
)
def test_no_file_takes_memory_that_its_pixels_do_not(
    make: Callable[[], bytes], answer: str, tmp_path: Path
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(make())
    told = subprocess.check_output([sys.executable, "-c", DECODING, str(path)], text=True)
    assert told.splitlines()[0] == answer
    # Ten megapixels at 15 bytes each, and 60 MB for the libraries; one more copy would be 60.
    assert int(told.splitlines()[1]) < 240 * 1024  # kilobytes


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Eight pictures of 100 x 120 pixels, 36 kB each."""
    for number in range(8):
        pixels = np.full((100, 120, 3), number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.bmp")
    return tmp_path


def most_at_once(work: Callable[[Callable[[], None]], None]) -> int:
    """How many of eight threads are in a place at the same time."""
    lock, inside, most = threading.Lock(), 0, 0
    together = threading.Event()

    def visit() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        together.wait(0.02)
        with lock:
            inside -= 1

    list(bounded_map(lambda _: work(visit), range(8), workers=8))
    return most


@pytest.mark.parametrize(("share", "most"), [(MAX_PIXELS // 24_000, 2), (MAX_PIXELS, 1)])
def test_pixels_are_counted(
    small: Path, share: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures._pixels, "total", MAX_PIXELS)
    monkeypatch.setattr(pictures._files, "total", 2**30)
    pictures.share_memory(share)
    pictures._files.total = 2**30

    def work(visit: Callable[[], None]) -> None:
        with pictures.open_picture(small / "0.bmp") as image:
            assert image.pixels.shape == (100, 120, 3)
            visit()

    assert most_at_once(work) == most


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_bytes_are_counted_before_they_are_read(
    small: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    place = small
    if kind == "archive":
        place = tmp_path / "all.zip"
        with zipfile.ZipFile(place, "w") as archive:
            archive.write(small / "0.bmp", "0.bmp")
    monkeypatch.setattr(pictures._files, "total", 3 * (small / "0.bmp").stat().st_size)
    source = next(iter(expand([str(place)])))
    assert source.size() == (small / "0.bmp").stat().st_size

    def work(visit: Callable[[], None]) -> None:
        with source.open() as data:
            assert len(data) == source.size()
            visit()

    assert most_at_once(work) == 3


def test_a_picture_that_is_refused_is_not_kept(small: Path) -> None:
    data = (small / "0.bmp").read_bytes()[:20_000]

    def refused() -> ImageError:
        try:
            with pictures.decoded(data):
                raise AssertionError
        except ImageError as error:
            return error.without_frames()

    before = sys.getrefcount(data)
    error = refused()
    gc.collect()
    assert (error.reason, error.__traceback__, error.__context__) == ("truncated", None, None)
    assert sys.getrefcount(data) == before


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "WEBP", "JPEG"])
def test_pixels_are_known_from_the_header(name: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (1_000, 700)).save(file, name)
    assert pixels_to_decode(file.getvalue()) == 700_000
    reduced = PreprocessSpec(size=(64, 64), scaled=True)
    assert pixels_to_decode(file.getvalue(), reduced) == 700_000 // (64 if name == "JPEG" else 1)
    assert pixels_to_decode(file.getvalue()[:12]) == 0


def test_what_is_no_picture_has_no_pixels(tmp_path: Path) -> None:
    assert pixels_to_decode(b"") == pixels_to_decode(b"word") == 0
    assert pictures.file_size(tmp_path / "missing") == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_a_picture_in_strips_is_the_picture(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (67, 41, 4)).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode != "RGBA":
        image = image.convert("RGB").convert(mode)
    if mode == "P":
        image.info["transparency"] = bytes([0, 100, 255])
    if mode == "LA":
        image.putalpha(Image.fromarray(pixels[..., 3]))
    file, kind = io.BytesIO(), "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    image.save(file, kind)
    whole = decode_image(file.getvalue())
    assert whole.mode == mode
    monkeypatch.setattr(imaging, "_STRIP", 400)
    in_strips = decode_image(file.getvalue())
    assert np.array_equal(in_strips.pixels, whole.pixels)
    assert len(np.unique(whole.pixels)) > 1
