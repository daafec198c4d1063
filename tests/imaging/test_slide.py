"""Pictures of any size are read in parts, and what is damaged, hostile or foreign is said."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from drawn_slide import PyramidWriter, cut, draw_slide, shrunk, write_slide
from encoded import written_tiff
from leuko.errors import ImageError
from leuko.field.tissue import tissue_of
from leuko.imaging import slide_tiff
from leuko.imaging.decode import REJECT_REASONS, encode_jpeg, encode_png, read_image
from leuko.imaging.pyramid import FieldImage, lattice_step
from leuko.imaging.slide import open_field
from leuko.runtime.sources import expand
from leuko.source import bytes_source, file_source
from leuko.support.parallel import bounded_map

ROWS, COLUMNS = 403, 517


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything above 50,000 pixels is a slide."""
    monkeypatch.setattr(slide_tiff, "MAX_PIXELS", 50_000)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Soft colours over the whole range."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(ROWS, COLUMNS, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 5.0)
    return np.asarray(cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX), np.uint8)


def jpeg(pixels: np.ndarray) -> bytes:
    return encode_jpeg(pixels, quality=95, subsampling="444")


def red_green_blue(pixels: np.ndarray) -> bytes:
    """A JPEG of RGB without a word about it but in an Adobe segment, which is cut out."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, keep_rgb=True)
    data = file.getvalue()
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 16 :]


def jpeg2000(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG2000", no_jp2=True, irreversible=False)
    return file.getvalue()


def luma(pixels: np.ndarray) -> bytes:
    """A codestream of YCbCr, of which it says nothing."""
    samples = Image.fromarray(pixels).convert("YCbCr")
    return jpeg2000(np.frombuffer(samples.tobytes(), np.uint8).reshape(pixels.shape))


def pyramid(
    path: Path,
    picture: np.ndarray,
    encode: Callable[[np.ndarray], bytes] = jpeg,
    compression: int = 7,
    photometric: int = 6,
    *,
    steps: tuple[int, ...] = (1, 4),
    text: str = "Aperio|MPP = 0.25",
) -> Path:
    """A slide of tiles of 64 pixels."""
    with open(path, "wb") as file:
        writer = PyramidWriter(file)
        for step in steps:
            copy = picture if step == 1 else shrunk(picture, step)
            tiles: Iterator[bytes] = map(encode, cut(copy, 64))
            writer.add(copy.shape[:2], 64, tiles, t259=compression, t262=photometric, t270=text)
    return path


@pytest.fixture(scope="module")
def opened(picture: np.ndarray) -> Iterator[FieldImage]:
    with open_field(bytes_source("a", encode_png(picture))) as image:
        yield image


def whole(image: FieldImage, step: float = 1.0) -> np.ndarray:
    return image.read((0, 0, *image.size), step)


# --- what is decoded whole ---


def test_an_ordinary_picture_is_what_the_decoder_gives(tmp_path: Path, picture: np.ndarray) -> None:
    """Upright, as its EXIF says; members of archives and bytes alike."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, quality=95)
    expected = read_image(tmp_path / "a.jpg")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.write(tmp_path / "a.jpg", "a.jpg")
    sources = [
        *expand([str(tmp_path / "a.jpg"), str(tmp_path / "b.zip")]),
        bytes_source("c", (tmp_path / "a.jpg").read_bytes()),
    ]
    assert len(sources) == 3
    for source in sources:
        with open_field(source) as image:
            assert image.size == (COLUMNS, ROWS)
            assert image.levels == (1,)
            assert image.notes == expected.notes != ()
            assert image.faults == ()
            assert np.array_equal(whole(image), expected.pixels)


@pytest.mark.parametrize(
    "data", [b"", b"text", b"II*\0 and no more", b"II+\0\x08\0\0\0" + bytes(8)]
)
def test_what_is_no_picture_is_refused_as_ever(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.svs").write_bytes(data)
    for source in (file_source(tmp_path / "a.svs"), file_source(tmp_path)):
        with pytest.raises(ImageError) as refused, open_field(source):
            pass
        assert refused.value.reason in REJECT_REASONS


# --- reduced by a step ---


def averaged(picture: np.ndarray, step: float) -> np.ndarray:
    """The mean over squares of `step` pixels, cut at the border, in exact arithmetic."""
    weights = []
    for side in picture.shape[:2]:
        edges = np.arange(-(-side // step) + 1)[:, None] * step
        ends = np.minimum(edges[1:], side)
        pixel = np.arange(side)
        covered = np.clip(np.minimum(ends, pixel + 1) - np.maximum(edges[:-1], pixel), 0, None)
        weights.append(covered / covered.sum(axis=1, keepdims=True))
    return np.einsum("ir,rck,jc->ijk", weights[0], picture.astype(float), weights[1], optimize=True)


@pytest.mark.parametrize("step", [1.0, 1.25, 2.0, 2.375, 3.0, 7.5, 37.5, 300.0])
def test_a_step_averages(opened: FieldImage, picture: np.ndarray, step: float) -> None:
    small = whole(opened, step)
    expected = averaged(picture, step)
    assert small.shape == expected.shape
    inner = tuple(slice(0, int(side / step)) for side in picture.shape[:2])
    assert np.abs(small[inner] - expected[inner]).max() <= 0.51
    # The border goes on in the last row and column, which may be less than a step.
    assert np.abs(small - expected).max() < 40


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    corner=st.tuples(st.integers(-60, 420), st.integers(-60, 540)),
    size=st.tuples(st.integers(-5, 500), st.integers(-5, 600)),
    step=st.floats(0.5, 90.0).map(lattice_step),
)
def test_a_part_is_a_part_of_the_whole(
    opened: FieldImage, corner: tuple[int, int], size: tuple[int, int], step: float
) -> None:
    """Pixel for pixel, wherever it begins."""
    row0, col0 = corner
    row1, col1 = row0 + size[0], col0 + size[1]
    everything, part = whole(opened, step), opened.read((row0, col0, row1, col1), step)
    rows = slice(int(max(row0, 0) // step), max(int(-(-min(row1, ROWS) // step)), 0))
    columns = slice(int(max(col0, 0) // step), max(int(-(-min(col1, COLUMNS) // step)), 0))
    assert np.array_equal(part, everything[rows, columns])


@pytest.mark.parametrize("step", [0.5, 2.37, 129.0])
def test_a_step_that_is_none_is_an_error(opened: FieldImage, step: float) -> None:
    with pytest.raises(ValueError, match="lattice_step"):
        opened.read((0, 0, 9, 9), step)


# --- slides ---

WAYS = {
    "JPEG": (jpeg, 7, 6, 5),
    "JPEG of RGB": (red_green_blue, 7, 2, 3),
    "JPEG 2000": (jpeg2000, 33005, 2, 0),
    "JPEG 2000 of YCbCr": (luma, 33003, 6, 3),
    "deflate": (None, 8, 2, 0),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("small")
def test_a_pyramid_of_tiles(tmp_path: Path, picture: np.ndarray, way: str) -> None:
    encode, compression, photometric, most = WAYS[way]
    if encode is None:
        import zlib

        def encode(pixels: np.ndarray) -> bytes:
            return zlib.compress(pixels.tobytes())

    path = pyramid(tmp_path / "a.svs", picture, encode, compression, photometric)
    with open_field(file_source(path)) as image:
        assert image.size == (ROWS, COLUMNS)
        assert image.pixels_per_micrometre == 4.0
        assert image.levels == (1, 4)
        difference = np.abs(whole(image).astype(int) - picture)
        assert difference.mean() < most / 2 + 0.01
        # Levels were cut off where they are no whole pixel; what is left out is white.
        reduced = whole(image, 4.0)
        assert reduced.shape == (101, 130, 3)
        copy = shrunk(picture, 4)
        assert np.abs(reduced[:100, :129].astype(int) - copy).mean() < most / 2 + 0.01
        assert (reduced[100:] == 255).all()
        part = image.read((50, 60, 250, 360))
        assert np.abs(part.astype(int) - picture[50:250, 60:360]).mean() < most / 2 + 0.01
        assert image.faults == ()


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("packing", [None, "zlib"])
@pytest.mark.parametrize("shape", [{"tile": (64, 48)}, {"rowsperstrip": 5}, {"rowsperstrip": ROWS}])
@pytest.mark.usefixtures("small")
def test_tiles_and_strips_without_loss(
    tmp_path: Path, picture: np.ndarray, shape: dict, packing: str | None, planar: str
) -> None:
    pixels = picture if planar == "contig" else np.moveaxis(picture, 2, 0)
    options = {"photometric": "rgb", "planarconfig": planar, "compression": packing, **shape}
    options["predictor"] = packing is not None
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    with open_field(file_source(tmp_path / "a.tif")) as image:
        assert np.array_equal(whole(image), picture)
        assert np.array_equal(image.read((390, 100, 403, 500)), picture[390:, 100:500])
        assert image.faults == ()


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "jpeg"])
@pytest.mark.usefixtures("small")
def test_strips_that_pillow_wrote(tmp_path: Path, picture: np.ndarray, compression: str) -> None:
    Image.fromarray(picture).save(tmp_path / "a.tif", compression=compression)
    with Image.open(tmp_path / "a.tif") as known:
        expected = np.asarray(known)
    with open_field(file_source(tmp_path / "a.tif")) as image:
        assert np.array_equal(whole(image), expected)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.usefixtures("small")
def test_ome_keeps_its_copies_below_the_first(
    tmp_path: Path, picture: np.ndarray, big: bool, order: str
) -> None:
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", bigtiff=big, byteorder=order) as writer:
        writer.write(picture, subifds=2, metadata=metadata, **options)
        for step in (2, 4):
            writer.write(shrunk(picture, step), subfiletype=1, **options)
    path = tmp_path / "a.ome.tif"
    for source in (file_source(path), bytes_source("a", path.read_bytes())):
        with open_field(source) as image:
            assert image.levels == (1, 2, 4)
            assert image.pixels_per_micrometre == 5.0
            assert np.array_equal(whole(image), picture)
            assert np.array_equal(whole(image, 2.0)[:201, :258], shrunk(picture, 2))


@pytest.mark.parametrize("photometric", [6, 2])
@pytest.mark.usefixtures("small")
def test_openslide_sees_the_same_colours(
    tmp_path: Path, picture: np.ndarray, photometric: int
) -> None:
    """An independent reader of the same file."""
    encode = jpeg if photometric == 6 else red_green_blue
    path = pyramid(tmp_path / "a.svs", picture, encode, 7, photometric)
    with openslide.OpenSlide(path) as other, open_field(file_source(path)) as image:
        for level, step in enumerate((1, 4)):
            size = other.level_dimensions[level]
            known = np.asarray(other.read_region((0, 0), level, size).convert("RGB"))
            ours = whole(image, float(step))[: size[1], : size[0]]
            assert np.abs(ours.astype(int) - known).max() <= 1


def test_scanners_formats_go_through_openslide(tmp_path: Path, picture: np.ndarray) -> None:
    """Its files are known by their names first: a part of a MIRAX slide looks like a JPEG."""
    path = pyramid(tmp_path / "a.scn", picture)
    with open_field(file_source(path)) as image:
        assert image.size == (ROWS, COLUMNS)
        assert image.pixels_per_micrometre == 4.0
        assert image.levels == (1, 4)
        assert np.abs(whole(image).astype(int) - picture).mean() < 2
        assert np.abs(whole(image, 4.0)[:100, :129].astype(int) - shrunk(picture, 4)).mean() < 3
        assert image.faults == ()
    (tmp_path / "b.mrxs").write_bytes(jpeg(picture))
    with open_field(file_source(tmp_path / "b.mrxs")) as image:
        assert image.size == (ROWS, COLUMNS)


def test_without_openslide_the_extra_is_named(
    tmp_path: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openslide", None)
    path = pyramid(tmp_path / "a.mrxs", picture)
    with pytest.raises(ImageError, match=r"\.\[wsi\]") as refused, open_field(file_source(path)):
        pass
    assert refused.value.reason == "unsupported-format"


def test_openslide_goes_on_behind_damage(tmp_path: Path, picture: np.ndarray) -> None:
    big = np.tile(picture, (3, 3, 1))
    path = pyramid(tmp_path / "a.scn", big, steps=(1,))
    data = bytearray(path.read_bytes())
    data[2000:2400] = bytes(400)
    path.write_bytes(data)
    with open_field(file_source(path)) as image:
        pixels = whole(image)
        (fault,) = image.faults
        assert fault.startswith("1 part at full size cannot be read: taken for empty slide.")
        assert (pixels[:512, :512] == 255).all()
        assert np.abs(pixels[512:, 512:].astype(int) - big[512:, 512:]).mean() < 2


# --- damage, lies and traps ---


@pytest.mark.usefixtures("small")
def test_damaged_tiles_are_white_and_said(tmp_path: Path, picture: np.ndarray) -> None:
    """Two tiles of 7 by 9 at full size; one of the copy, which full size makes up for."""
    path = pyramid(tmp_path / "a.svs", picture)
    with tifffile.TiffFile(path) as file:
        places = [page.dataoffsets for page in file.pages]
    data = bytearray(path.read_bytes())
    for place in (places[0][10], places[0][62], places[1][1]):
        data[place : place + 300] = bytes(300)
    path.write_bytes(data)
    with open_field(file_source(path)) as image:
        assert image.faults == ()
        for _ in range(2):
            pixels = whole(image)
        assert (pixels[64:128, 64:128] == 255).all()
        assert (pixels[384:, 512:] == 255).all()
        pixels[64:128, 64:128] = picture[64:128, 64:128]
        pixels[384:, 512:] = picture[384:, 512:]
        assert np.abs(pixels.astype(int) - picture).mean() < 2
        (fault,) = image.faults
        assert fault.startswith(
            "2 parts at full size cannot be read: taken for empty slide. At row 64, column 64: "
        )
        reduced = whole(image, 4.0)
        assert np.abs(reduced[:64, 64:128].astype(int) - shrunk(picture, 4)[:64, 64:128]).mean() < 2
        assert image.faults[1].startswith(
            "1 part of the copy at 1:4 cannot be read: taken for what a finer copy shows. At row 0,"
        )


@pytest.mark.usefixtures("small")
def test_a_file_that_ends_early_is_read_as_far_as_it_goes(
    tmp_path: Path, picture: np.ndarray
) -> None:
    """tifffile writes directories first, so only pixels are missing."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(64, 64), compression="zlib")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with open_field(file_source(path)) as image:
        pixels = whole(image)
        assert np.array_equal(pixels[:64], picture[:64])
        assert (pixels[-19:] == 255).all()
        (fault,) = image.faults
        assert "beyond the end of the file" in fault


@pytest.mark.usefixtures("small")
def test_empty_tiles_are_white_and_no_fault(tmp_path: Path, picture: np.ndarray) -> None:
    def sparse(pixels: np.ndarray) -> bytes:
        return b"" if pixels[0, 0, 0] < 100 else jpeg(pixels)

    path = pyramid(tmp_path / "a.svs", picture, sparse, steps=(1,))
    empty = [tile[0, 0, 0] < 100 for tile in cut(picture, 64)]
    with open_field(file_source(path)) as image:
        white = [(tile[:19, :5] == 255).all() for tile in cut(whole(image), 64)]
        assert image.faults == ()
    assert white == empty
    assert 0 < sum(empty) < len(empty)


@pytest.mark.usefixtures("small")
def test_copies_that_do_not_fit_are_said(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, **options)
        writer.write(cv2.resize(picture, (206, 161)), **options)  # 1 to 2.5
        writer.write(shrunk(picture, 2).astype(np.uint16), **options)
        writer.write(np.zeros((200, 200, 3), np.uint8), **options)  # a label
        writer.write(shrunk(picture, 8), **options)
    with open_field(file_source(path)) as image:
        assert image.levels == (1, 8)
        assert image.faults == (
            "The copy of 161 rows and 206 columns is not used: it is no whole fraction of the "
            "slide.",
            "The copy of 201 rows and 258 columns is not used: The slide has samples of 16 bits; "
            "8 are read.",
        )


def lies() -> dict[str, tuple[bytes, str]]:
    """Files that are none, and why they are refused."""
    tile = np.zeros((64, 64, 3), np.uint8)
    base = {256: (512,), 257: (512,), 258: (8, 8, 8), 262: (2,), 277: (3,), 322: (64,), 323: (64,)}
    tiles = [tile] * 64
    return {
        "missing tiles": (written_tiff(tiles[:5], base), "corrupt"),
        "a trap": (written_tiff(tiles, base | {256: (2**31,), 257: (2**31,)}), "too-large"),
        "endless tiles": (written_tiff([tile], base | {322: (2**16,), 323: (2**16,)}), "too-large"),
        "tiles of nothing": (written_tiff(tiles, base | {322: (0,)}), "corrupt"),
        "one strip": (
            written_tiff(
                [np.zeros((3000, 3000, 3), np.uint8)],
                {256: (3000,), 257: (3000,), 258: (8, 8, 8), 262: (2,), 277: (3,), 278: (3000,)},
                packing=True,
            ),
            "too-large",
        ),
        "tiny tiles": (written_tiff([tile] * 4096, base | {322: (8,), 323: (8,)}), "corrupt"),
        "16 bits": (written_tiff(tiles, base | {258: (16, 16, 16)}), "unsupported-format"),
        "an unknown codec": (written_tiff(tiles, base | {259: (34925,)}), "unsupported-format"),
        "five inks": (written_tiff(tiles, base | {277: (5,), 258: (8,) * 5}), "unsupported-format"),
    }


@pytest.mark.parametrize("name", lies())
@pytest.mark.usefixtures("small")
def test_lies_and_traps_are_refused(tmp_path: Path, name: str) -> None:
    data, reason = lies()[name]
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ImageError) as refused, open_field(file_source(tmp_path / "a.tif")) as image:
        whole(image, 64.0)
    assert refused.value.reason == reason, refused.value.detail


@pytest.mark.usefixtures("small")
def test_directories_in_a_circle_end(tmp_path: Path, picture: np.ndarray) -> None:
    path = pyramid(tmp_path / "a.svs", picture)
    with tifffile.TiffFile(path) as file:
        first, second = (page.offset for page in file.pages)
        (many,) = struct.unpack_from("<Q", path.read_bytes(), second)
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, second + 8 + 20 * many, first)
    path.write_bytes(data)
    with open_field(file_source(path)) as image:
        assert image.levels == (1, 4)
        assert np.abs(whole(image).astype(int) - picture).mean() < 2


@pytest.mark.parametrize("start", range(4))
@pytest.mark.usefixtures("small")
def test_any_damage_is_a_fault_or_a_refusal(
    tmp_path: Path, picture: np.ndarray, start: int
) -> None:
    """100 files with bytes changed, most of them in the directories."""
    corner = np.ascontiguousarray(picture[:230, :300])
    whole_file = pyramid(tmp_path / "a.svs", corner).read_bytes()
    with tifffile.TiffFile(tmp_path / "a.svs") as file:
        heads = [page.offset for page in file.pages]
    rng = np.random.default_rng(start)
    outcomes = set()
    for _ in range(25):
        data = bytearray(whole_file)
        for _ in range(int(rng.integers(1, 6))):
            head = heads[int(rng.integers(2))] + int(rng.integers(-400, 300))
            place = head if rng.random() < 0.8 else int(rng.integers(len(data)))
            data[min(place, len(data) - 1)] = int(rng.integers(256))
        path = tmp_path / "b.svs"
        path.write_bytes(data)
        try:
            with open_field(file_source(path)) as image:
                for step in (1.0, 4.0, 64.0):
                    if image.size[0] * image.size[1] < 10**7:
                        assert whole(image, step).shape[2] == 3
                outcomes.add("faults" if image.faults else "read")
        except ImageError as error:
            outcomes.add("refused" if error.reason in REJECT_REASONS else error.reason)
    assert {"faults", "refused"} <= outcomes <= {"faults", "refused", "read"}


# --- many threads, little memory ---


@pytest.mark.usefixtures("small")
def test_threads_read_the_same_as_one(tmp_path: Path, picture: np.ndarray) -> None:
    """400 parts in a random order on 8 threads, with a cache that holds a few tiles."""
    path = pyramid(tmp_path / "a.svs", picture)
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(400):
        row, col = int(rng.integers(ROWS)), int(rng.integers(COLUMNS))
        parts.append(((row, col, row + 90, col + 90), float(rng.choice([1.0, 2.5, 4.0, 6.0]))))
    with open_field(file_source(path)) as image:
        alone = [image.read(*part) for part in parts]
    with pytest.MonkeyPatch.context() as patch, open_field(file_source(path)) as image:
        patch.setattr(slide_tiff, "_CACHE", 100_000)
        together = list(bounded_map(lambda part: image.read(*part), parts, workers=8))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, other)
    assert threading.active_count() < 8


@pytest.mark.slow
def test_a_drawn_slide_is_read_where_its_cells_lie(tmp_path: Path) -> None:
    """64 megapixels, which are a slide without any change of limits."""
    slide = draw_slide((8000, 8000), patches=2)
    write_slide(slide, tmp_path / "a.svs")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_field(file_source(tmp_path / "a.svs")) as image:
            assert image.levels == (1, 4, 16)
            tissue = tissue_of(image)
            assert tissue is not None
            for row, col in np.ndindex(slide.lie.shape):
                box = 1000 * row + 250, 1000 * col + 250, 1000 * row + 750, 1000 * col + 750
                assert tissue.touches(box) == (slide.lie[row, col] >= 0), (row, col)
            part = image.read((3900, 2900, 4100, 3100))
            known = slide.band(3900, 4000)[:, 2900:3100]
            assert np.abs(part[:100].astype(int) - known).mean() < 6
