"""What is found does not depend on how a picture is cut into tiles."""

from __future__ import annotations

import math
import random

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leuko.cells.detector import Detection
from leuko.data.synth import draw_field, draw_slide_style
from leuko.field.tiles import ALIGNMENT, Tile, find_in, gather, own, tiles
from leuko.field.tissue import Tissue
from leuko.imaging.decode import encode_png
from leuko.imaging.pyramid import lattice_step
from leuko.imaging.slide import open_field
from leuko.runtime.detectors import load_detector
from leuko.source import bytes_source

LARGEST = 12
"""Radius of a disc."""


class Discs:
    """Finds what is dark and hangs together: whatever a tile cuts is found too, cut."""

    name = "discs"
    working = 1.0

    def find(
        self, pixels: np.ndarray, *, pixels_per_micrometre: float | None = None
    ) -> list[Detection]:
        dark = (pixels[..., 1] < 128).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
        found = []
        for col, row, width, height, area in stats[1:count].tolist():
            found.append(Detection((row, col, row + height, col + width), area / 1000))
        return sorted(found, key=lambda one: (-one.score, one.box))


def field_of_discs(seed: int, rows: int, columns: int, count: int) -> tuple[np.ndarray, int]:
    """Discs at random, some of which touch, and the longest side of what hangs together."""
    rng = np.random.default_rng(seed)
    pixels = np.full((rows, columns, 3), 230, np.uint8)
    for _ in range(count):
        centre = int(rng.integers(columns)), int(rng.integers(rows))
        cv2.circle(pixels, centre, int(rng.integers(2, LARGEST)), (60, 40, 120), -1)
    boxes = [one.box for one in Discs().find(pixels)]
    return pixels, max(max(box[2] - box[0], box[3] - box[1]) for box in boxes)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    rows=st.integers(40, 420),
    columns=st.integers(40, 420),
    core=st.integers(1, 300),
    more=st.integers(0, 100),
    step=st.sampled_from([1.0, 1.25, 2.0, 2.375]),
    workers=st.integers(1, 3),
)
def test_the_result_does_not_depend_on_the_tiling(
    seed: int, rows: int, columns: int, core: int, more: int, step: float, workers: int
) -> None:
    pixels, longest = field_of_discs(seed, rows, columns, 25)
    margin = longest + more
    with open_field(bytes_source("discs", encode_png(pixels, effort=1))) as image:
        whole = find_in(image, Discs(), step, core=rows + columns, margin=0, workers=1)
        cut = find_in(image, Discs(), step, core=core, margin=margin, workers=workers)
        assert cut == whole
        if step == 1.0:
            assert whole == Discs().find(pixels)
        parts = []
        for tile in tiles(image.size, step, core, margin):
            seen = image.read(tile.box, step)
            row0, col0, row1, col1 = tile.area
            assert seen.shape == (row1 - row0, col1 - col0, 3)
            parts.append((tile, own(tile, Discs().find(seen))))
        # Without any slack each is owned once, so there is nothing to choose.
        owned = sorted(one.box for _, kept in parts for one in kept)
        assert owned == sorted(one.box for one in whole)
        random.Random(seed).shuffle(parts)
        assert gather(parts) == whole


@pytest.mark.parametrize("step", [1.0, 1.5, 2.375, 37.5])
@pytest.mark.parametrize("size", [(1, 1), (64, 65), (1003, 777)])
def test_cores_cover_the_lattice_once(size: tuple[int, int], step: float) -> None:
    covered = np.zeros([math.ceil(side / step) for side in size], int)
    for tile in tiles(size, step, 100, 30):
        row0, col0, row1, col1 = tile.core
        covered[row0:row1, col0:col1] += 1
        assert all(start % ALIGNMENT == 0 for start in (*tile.area[:2], *tile.core[:2]))
        for start, exact in zip(tile.box[:2], tile.area[:2], strict=True):
            assert start == exact * step, "a tile begins between two pixels"
        assert tile.box[2] <= size[0]
        assert tile.box[3] <= size[1]
    assert (covered == 1).all()


def test_a_tile_owns_what_has_its_centre_in_the_core() -> None:
    """By hand: the core's rows are 64 to 128, the area's 0 to 192, at two pixels to one."""
    tile = Tile((64, 0, 128, 64), (0, 0, 192, 128), 2.0, (384, 201))
    boxes = {
        (54, 10, 74, 30): (108, 20, 148, 60),  # centre 64: the first row of the core
        (53, 10, 74, 30): None,  # 63.5
        (118, 10, 138, 30): None,  # 128: the first of the next
        (100, 54, 110, 75): None,  # column 64.5
        (100, 53, 110, 74): (200, 106, 220, 148),
    }
    found = [Detection(box, 0.5) for box in boxes]
    kept = [Detection(box, 0.5) for box in boxes.values() if box is not None]
    assert own(tile, found) == kept
    assert len(own(tile, found, slack=1.0)) == 5
    assert tile.original((100, 90, 110, 101)) == (200, 180, 220, 201)


def test_of_two_claims_at_a_seam_the_better_stays() -> None:
    """Boxes of 20 pixels that are off by one have 19 * 20 of 21 * 20 pixels in common: 0.90."""
    upper, lower = tiles((128, 64), 1.0, 64, 64)
    one, same = Detection((54, 10, 74, 30), 0.7), Detection((55, 10, 75, 30), 0.8)
    beside = Detection((61, 10, 81, 30), 0.6)  # 13 or 14 of 26 or 27 rows
    parts = [(upper, [one]), (lower, [same, beside])]
    assert gather(parts) == gather(parts[::-1]) == [same, beside]
    # What one tile tells apart are two cells.
    assert gather([(upper, [one, same])]) == [same, one]
    assert gather([]) == []


def test_tiles_without_tissue_are_left_out() -> None:
    """A grid of 4 by 4, of 64 pixels each; its one cell lies in the second of four tiles."""
    grid = np.zeros((4, 4), np.bool_)
    grid[1, 3] = True
    (tile,) = tiles((256, 256), 2.0, 64, 64, Tissue(grid, 64.0))
    assert tile.core == (0, 64, 64, 128)


@pytest.mark.parametrize("core", [256, 400, 1024])
def test_tiles_find_what_the_whole_field_shows(core: int) -> None:
    """The network sees further than a tile's margin, so sides may move by a pixel or two."""
    style = draw_slide_style(np.random.default_rng([8, 1]))
    field = draw_field(
        12, np.random.default_rng([9, 1]), style, height=700, width=900, pixels_per_micrometre=6.0
    )
    whole = load_detector().find(field.pixels, pixels_per_micrometre=6.0)
    assert len(whole) >= 11
    with open_field(bytes_source("field", encode_png(field.pixels))) as image:
        found = find_in(image, load_detector(), 6.0, core=core)
    assert len(found) == len(whole)
    for one, other in zip(
        sorted(found, key=lambda one: one.box[:2]),
        sorted(whole, key=lambda one: one.box[:2]),
        strict=True,
    ):
        assert np.abs(np.subtract(one.box, other.box)).max() <= 2
        assert one.score == pytest.approx(other.score, abs=0.05)
    if core == 1024:
        assert found == whole


def test_the_detector_is_told_the_reduced_scale() -> None:
    told = []

    class Asks(Discs):
        working = 4.0

        def find(
            self, pixels: np.ndarray, *, pixels_per_micrometre: float | None = None
        ) -> list[Detection]:
            told.append((pixels.shape, pixels_per_micrometre))
            return []

    pixels, _ = field_of_discs(0, 100, 100, 5)
    with open_field(bytes_source("field", encode_png(pixels))) as image:
        find_in(image, Asks(), 10.04, workers=1)
    assert lattice_step(10.04 / 4.0) == 2.5
    assert told == [((40, 40, 3), 10.04 / 2.5)]
