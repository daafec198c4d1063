"""What every detector promises, asked of every one that is registered, on drawn fields."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from leuko.cells.detector import Box, Detector
from leuko.data.synth import DrawnField, draw_field, draw_slide_style
from leuko.runtime.detectors import DETECTORS

SEEDS = range(4)
CELLS = 5
SCALE = 6.0
TOLERANCE = 6
"""Pixels that a side of a box may move when the picture is turned: a micrometre."""


def drawn(seed: int, cells: int = CELLS) -> DrawnField:
    """A field of 80 x 107 micrometres with so many white cells, none of them cut."""
    style = draw_slide_style(np.random.default_rng([8, seed]))
    return draw_field(
        cells, np.random.default_rng([9, seed]), style, height=480, width=640,
        pixels_per_micrometre=SCALE, cut_share=0.0,
    )  # fmt: skip


@pytest.fixture(scope="module", params=SEEDS)
def field(request: pytest.FixtureRequest) -> DrawnField:
    return drawn(request.param)


@pytest.fixture(params=DETECTORS.values(), ids=[*DETECTORS])
def detector(request: pytest.FixtureRequest) -> Detector:
    return request.param()


def owner(field: DrawnField, box: Box) -> int:
    """Which drawn cell has most of its nucleus in a box, counted from 1; 0 where no nucleus is."""
    row0, col0, row1, col1 = box
    here = slice(row0, row1), slice(col0, col1)
    owners = field.instances[here][field.nucleus[here]]
    return int(np.bincount(owners).argmax()) if len(owners) else 0


def test_it_stands_under_its_name(detector: Detector) -> None:
    assert DETECTORS[detector.name]().name == detector.name
    assert len(detector.digest) == 64


@pytest.mark.parametrize("scale", [None, SCALE])
def test_the_drawn_nuclei_are_found_once_each(
    detector: Detector, field: DrawnField, scale: float | None
) -> None:
    found = detector.find(field.pixels, pixels_per_micrometre=scale)
    owners = [owner(field, one.box) for one in found]
    cells = [number for number in owners if number]
    assert len(cells) == len({*cells}), "a cell was found twice"
    assert len(cells) >= CELLS - 1
    assert len(owners) - len(cells) <= 1, "what was found is no cell"
    for one, number in zip(found, owners, strict=True):
        if number:
            row0, col0, row1, col1 = one.box
            whole = field.nucleus & (field.instances == number)
            assert whole[row0:row1, col0:col1].sum() > 0.8 * whole.sum()
            cell_row0, cell_col0, cell_row1, cell_col1 = field.boxes[number - 1]
            area = (cell_row1 - cell_row0) * (cell_col1 - cell_col0)
            assert (row1 - row0) * (col1 - col0) < 1.5 * area


def test_detections_lie_in_the_picture_the_best_first(
    detector: Detector, field: DrawnField
) -> None:
    """In a part of the field, whose border cuts cells."""
    part = np.ascontiguousarray(field.pixels[60:405, 70:571])
    found = detector.find(part)
    assert found
    for one in found:
        row0, col0, row1, col1 = one.box
        assert {type(side) for side in one.box} == {int}
        assert 0 <= row0 < row1 <= part.shape[0]
        assert 0 <= col0 < col1 <= part.shape[1]
        assert 0 <= one.score <= 1
    assert found == sorted(found, key=lambda one: (-one.score, one.box))


def test_the_same_picture_gives_the_same_and_is_not_changed(
    detector: Detector, field: DrawnField
) -> None:
    pixels = field.pixels.copy()
    pixels.flags.writeable = False
    assert detector.find(pixels) == detector.find(field.pixels) == detector.find(pixels)
    assert np.array_equal(pixels, field.pixels)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_picture_gives_turned_boxes(
    detector: Detector, field: DrawnField, turns: int
) -> None:
    plain = [one.box for one in detector.find(field.pixels)]
    there = [one.box for one in detector.find(np.rot90(field.pixels, turns).copy())]
    back = [turned_back(box, turns, field.pixels.shape[:2]) for box in there]
    assert len(back) == len(plain)
    for one, two in zip(sorted(plain), sorted(back), strict=True):
        assert np.abs(np.subtract(one, two)).max() <= TOLERANCE


def turned_back(box: Box, turns: int, shape: tuple[int, ...]) -> Box:
    """A box of a picture that was turned left, in the picture that it was, of this shape."""
    for turn in range(turns, 0, -1):
        width = shape[1] if turn % 2 else shape[0]
        row0, col0, row1, col1 = box
        box = col0, width - row1, col1, width - row0
    return box


@pytest.mark.parametrize("step", [1.0, 0.5])
def test_the_scale_is_measured_on_red_cells(
    detector: Detector, field: DrawnField, step: float
) -> None:
    """Within a twelfth of what they are drawn at, which differs from slide to slide."""
    sides = np.array([box for box in field.red_boxes if min(box) > 0])
    drawn_at = np.median(np.sqrt(np.prod(sides[:, 2:] - sides[:, :2], axis=1))) / 7.5
    rows, columns = field.pixels.shape[:2]
    shape = round(columns * step), round(rows * step)
    pixel_size = detector.measure(cv2.resize(field.pixels, shape, interpolation=cv2.INTER_AREA))
    assert pixel_size.source == "red cells"
    assert pixel_size.red_cells >= 6
    assert pixel_size.pixels_per_micrometre == pytest.approx(drawn_at * step, rel=1 / 12)


def test_an_empty_slide_has_no_scale(detector: Detector) -> None:
    pixel_size = detector.measure(np.full((300, 400, 3), 220, np.uint8))
    assert (pixel_size.pixels_per_micrometre, pixel_size.source, pixel_size.red_cells) == (
        None,
        "none",
        0,
    )


def test_nothing_is_found_where_nothing_is(detector: Detector) -> None:
    assert detector.find(drawn(1, cells=0).pixels) == []
    assert detector.find(np.full((300, 400, 3), 220, np.uint8)) == []
