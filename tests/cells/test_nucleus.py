"""Nuclei: lobes joined, neighbours not, all of a field found."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from leuko.cells import find_nuclei
from leuko.cells.colour import PURPLE_ZERO
from leuko.cells.nucleus import central_nucleus, lower_level
from leuko.data.synth import draw_field, draw_slide_style


def discs(*places: tuple[int, int, int], level: int = 110) -> np.ndarray:
    """A purple plane with discs at (row, column, radius)."""
    plane = np.full((96, 96), PURPLE_ZERO, np.uint8)
    for row, column, radius in places:
        cv2.circle(plane, (column, row), radius, level, cv2.FILLED)
    return cv2.GaussianBlur(plane, (5, 5), 1.0)


def test_one_disc():
    nucleus = central_nucleus(discs((50, 44, 13)))
    assert nucleus is not None
    assert nucleus.sum() == pytest.approx(529, rel=0.03)
    assert nucleus[50, 44]
    assert not nucleus[50, 60]


def test_lobes_in_the_middle_are_joined():
    nucleus = central_nucleus(discs((42, 42, 7), (44, 60, 6), (58, 50, 6)))
    assert nucleus is not None
    assert nucleus[42, 42]
    assert nucleus[44, 60]
    assert nucleus[58, 50]


def test_a_neighbour_is_neither_chosen_nor_joined():
    nucleus = central_nucleus(discs((48, 48, 10), (48, 84, 14), (12, 14, 12)))
    assert nucleus is not None
    assert nucleus[48, 48]
    assert not nucleus[48, 84]
    assert not nucleus[12, 14]


def test_a_touching_neighbour_that_the_border_cuts_is_cut_off():
    nucleus = central_nucleus(discs((48, 46, 15), (48, 78, 19)))
    assert nucleus is not None
    assert nucleus[48, 40]
    assert not nucleus[48, 80]
    assert nucleus.sum() == pytest.approx(np.pi * 15.5**2, rel=0.15)


def test_a_rim_is_taken_off():
    plane = discs((48, 44, 11))
    cv2.ellipse(plane, (48, 48), (27, 27), 0, 0, 360, 110, 2)
    nucleus = central_nucleus(plane)
    assert nucleus is not None
    assert nucleus[48, 44]
    assert not nucleus[48, 75]
    assert not nucleus[21, 48]


def test_the_darker_level_is_the_nucleus():
    plane = discs((48, 48, 22), level=85)
    cv2.circle(plane, (44, 46), 10, 135, cv2.FILLED)
    nucleus = central_nucleus(plane)
    assert nucleus is not None
    assert nucleus[46, 44]
    assert not nucleus[48, 65]


def test_one_level_is_not_split():
    rng = np.random.default_rng(0)
    plane = discs((48, 48, 16), level=110).astype(float)
    region = (plane > 80).astype(np.uint8)
    grainy = np.clip(plane + cv2.GaussianBlur(rng.normal(0, 25, plane.shape), (5, 5), 1.2), 0, 255)
    assert lower_level(grainy.astype(np.uint8), region) is None


def test_a_flat_plane_has_no_nucleus():
    assert central_nucleus(np.full((96, 96), PURPLE_ZERO, np.uint8)) is None


@pytest.mark.parametrize("seed", range(4))
def test_every_white_cell_of_a_drawn_field_is_found_once(seed: int):
    style = draw_slide_style(np.random.default_rng([8, seed]))
    field = draw_field(
        5, np.random.default_rng([9, seed]), style, height=480, width=640,
        pixels_per_micrometre=6.0,
    )  # fmt: skip
    nuclei = find_nuclei(field.pixels)
    owners = [field.instances[int(n.centre[0]), int(n.centre[1])] for n in nuclei]
    seen = [number for number in owners if number]
    assert len(seen) == len(set(seen)), "a nucleus was found twice"
    assert len(seen) >= len(field.boxes) - 1
    assert len(nuclei) - len(seen) <= 1
    assert [n.diameter for n in nuclei] == sorted((n.diameter for n in nuclei), reverse=True)


def test_boxes_stay_in_a_field_whose_sides_shrink_unequally():
    style = draw_slide_style(np.random.default_rng(5))
    field = draw_field(
        8, np.random.default_rng(7), style, height=405, width=1000, pixels_per_micrometre=6.0
    )
    nuclei = find_nuclei(field.pixels)
    assert nuclei
    for row0, column0, row1, column1 in (nucleus.box for nucleus in nuclei):
        assert 0 <= row0 < row1 <= 405
        assert 0 <= column0 < column1 <= 1000
    low = np.full((405, 1000, 3), 230, np.uint8)
    low[380:, 300:340] = (110, 50, 140)
    (nucleus,) = find_nuclei(low)
    assert nucleus.box[2] == 405
    assert nucleus.centre[0] == pytest.approx(392.5, abs=1.5)


def test_scale_of_a_field_changes_little():
    style = draw_slide_style(np.random.default_rng(5))
    field = draw_field(
        4, np.random.default_rng(6), style, height=480, width=640,
        pixels_per_micrometre=6.0, cut_share=0.0,
    )  # fmt: skip
    plain, scaled = find_nuclei(field.pixels), find_nuclei(field.pixels, pixels_per_micrometre=6.0)
    assert len(plain) == len(scaled) == 4
    for first, second in zip(plain, scaled, strict=True):
        assert np.hypot(*np.subtract(first.centre, second.centre)) < 3.0
        assert first.diameter == pytest.approx(second.diameter, rel=0.06)
        row0, col0, row1, col1 = first.box
        assert row0 < first.centre[0] < row1
        assert col0 < first.centre[1] < col1


def test_an_empty_field_has_no_nuclei():
    style = draw_slide_style(np.random.default_rng(1))
    field = draw_field(0, np.random.default_rng(2), style, height=300, width=400)
    assert find_nuclei(field.pixels) == []
    assert find_nuclei(np.full((300, 400, 3), 220, np.uint8)) == []
