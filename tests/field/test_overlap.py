"""Laying pictures upon each other: shifts, chance and white cells, worked out by hand."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import pytest

from leuko.cells.detector import Box
from leuko.field.overlap import Ground, common_cells, likely_shifts, same_field, texture

SIZE = (120, 192)


def ground(values: npt.NDArray[np.int8], boxes: list[Box]) -> Ground:
    return Ground.of(zlib.compress(values.tobytes()), SIZE, boxes)


def grains(seed: int, width: int) -> npt.NDArray[np.int8]:
    """Squares of one value each, at random: 240 x 384 pixels."""
    rng = np.random.default_rng(seed)
    squares = rng.integers(-7, 8, (240 // width, 384 // width))
    return np.kron(squares, np.ones((width, width))).astype(np.int8)


@pytest.mark.parametrize("shift", [(0, 0), (20, 36), (-40, 60), (58, -90), (-50, -90)])
def test_a_shift_is_found_and_the_cells_that_land(shift: tuple[int, int]) -> None:
    down, right = shift
    large = grains(0, 4)
    one = large[60:180, 96:288]
    two = large[60 + down : 180 + down, 96 + right : 288 + right]
    # One cell is in both, one in the first alone, where the second shows nothing.
    middle = 60 + down // 2, 96 + right // 2
    box = (middle[0] - 8, middle[1] - 8, middle[0] + 8, middle[1] + 8)
    moved = (box[0] - down, box[1] - right, box[2] - down, box[3] - right)
    first, second = ground(one, [(0, 0, 10, 10), box]), ground(two, [moved])
    shifts = likely_shifts(first.spectrum, second.spectrum[None])[0]
    assert (down % 192, right % 192) in [(row % 192, column % 192) for row, column in shifts]
    assert common_cells(first, second, shifts) == [(1, 0)]
    beside = (moved[0], moved[1] + 12, moved[2], moved[3] + 12)
    assert common_cells(first, ground(two, [beside]), shifts) == []


@pytest.mark.parametrize("width", [8, 12])
def test_the_grain_of_squares_is_known(width: int) -> None:
    # The autocorrelation of squares of side w falls off as 1 - |k| / w: the sum of its squares is
    # (2 w^2 + 1) / 3 / w along each side.
    along = (2 * width**2 + 1) / (3 * width)
    every = [ground(grains(seed, width)[:120, :192], []).grain for seed in range(8)]
    assert np.mean(every) == pytest.approx(along**2, rel=0.1)


def test_white_cells_and_light_are_no_texture() -> None:
    rng = np.random.default_rng(1)
    pixels = np.repeat(rng.integers(90, 160, (*SIZE, 1), dtype=np.uint8), 3, axis=2)
    box = (40, 60, 70, 90)
    dark = pixels.copy()
    dark[40:70, 60:90] = 20
    kept = texture(pixels, SIZE, [box])
    assert texture(dark, SIZE, [box]) == kept
    values = np.frombuffer(zlib.decompress(kept), np.int8).reshape(SIZE)
    assert not values[36:74, 56:94].any()  # 15% of 30 pixels more on each side
    # Evenly distributed values reach the square root of 3 deviations; 3 would be 7 steps.
    assert int(np.abs(values).max()) == 4
    brighter = np.frombuffer(zlib.decompress(texture(pixels + 60, SIZE, [box])), np.int8)
    assert np.array_equal(brighter, values.ravel())


def test_even_ground_is_no_field() -> None:
    nothing = ground(np.zeros(SIZE, np.int8), [(10, 10, 30, 30)])
    assert not nothing.square.any()
    assert same_field(nothing.square, nothing.square[None]) is None
    shifts = likely_shifts(nothing.spectrum, nothing.spectrum[None])[0]
    assert common_cells(nothing, nothing, shifts) == []


def test_the_first_of_the_same_field_is_given() -> None:
    squares = [ground(grains(seed, 8)[:120, :192], []).square for seed in (0, 1, 2, 1)]
    turned = np.rot90(squares[1].reshape(48, 48)).ravel()
    assert same_field(turned, np.stack(squares)) == 1
    assert same_field(squares[2][::-1], np.stack(squares)) == 2
    assert same_field(squares[0], np.stack(squares[1:])) is None
    assert same_field(squares[0], np.empty((0, 2304), np.float32)) is None
