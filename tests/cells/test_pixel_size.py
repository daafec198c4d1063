"""The scale: red cells measured against the truth, three rulers weighed by hand."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from drawn_cells import drawn
from five import CLASSES
from leuko.cells import find_cell
from leuko.cells.pixel_size import fuse_scale, measure_red_cells
from leuko.data.synth import draw_slide_style


def slide(*places: tuple[int, int, int], pallor: int = 0) -> np.ndarray:
    """Optical density of red cells at (row, column, radius), with pale centres."""
    green = np.zeros((96, 96), np.float32)
    for row, column, radius in places:
        cv2.circle(green, (column, row), radius, 0.3, cv2.FILLED)
        if pallor:
            cv2.circle(green, (column, row), pallor, 0.05, cv2.FILLED)
    return np.repeat(cv2.GaussianBlur(green, (3, 3), 0.75)[..., None], 3, axis=2)


@pytest.mark.parametrize("pallor", [0, 4])
def test_red_cells_of_known_size(pallor: int):
    cell = np.zeros((96, 96), np.uint8)
    cv2.circle(cell, (48, 48), 14, 1, cv2.FILLED)
    density = slide((18, 20, 11), (20, 76, 11), (76, 20, 11), pallor=pallor)
    diameters = measure_red_cells(density, cell, 3.0)
    assert len(diameters) == 3
    # OpenCV's disc of radius 11 covers pixels up to 11 from its middle: 23 across.
    assert diameters == pytest.approx([22.8] * 3, rel=0.04)


def test_red_cells_that_touch_are_parted_and_cut_ones_left_out():
    cell = np.zeros((96, 96), np.uint8)
    cv2.circle(cell, (70, 70), 14, 1, cv2.FILLED)
    pair = measure_red_cells(slide((24, 20, 11), (24, 42, 11)), cell, 3.0)
    assert pair == pytest.approx([22.8, 22.8], rel=0.06)
    assert len(measure_red_cells(slide((4, 20, 11)), cell, 3.0)) == 0, "cut by the border"
    assert len(measure_red_cells(slide((58, 54, 11)), cell, 3.0)) == 0, "under the white cell"
    assert len(measure_red_cells(slide((24, 20, 4)), cell, 3.0)) == 0, "a platelet"
    assert len(measure_red_cells(slide(), cell, 3.0)) == 0


def test_three_rulers_weighed_by_hand():
    # A nucleus alone, in a picture that its cell fills: 17.2 pixels are 8.6 micrometres.
    alone = fuse_scale(17.2, 90.0, 96.0)
    assert alone == (pytest.approx(2.0), pytest.approx(0.3), 0)
    # With the picture's width: 90 pixels are 30 micrometres.
    weights = 1 / 0.3**2, 1 / 0.35**2
    scale, error, used = fuse_scale(17.2, 30.0, 90.0)
    expected = (weights[0] * math.log(2.0) + weights[1] * math.log(3.0)) / sum(weights)
    assert scale == pytest.approx(math.exp(expected))
    assert (error, used) == (pytest.approx(sum(weights) ** -0.5), 0)
    # Four red cells of 22.5 pixels: 3 pixels to a micrometre, and they outweigh the rest.
    scale, error, used = fuse_scale(17.2, 30.0, 90.0, [22.5, 22.5, 22.5, 22.5])
    red = 1 / (0.05**2 + 0.09**2 / 4)
    total = sum(weights) + red
    expected = (sum(weights) * expected + red * math.log(3.0)) / total
    assert (scale, used) == (pytest.approx(math.exp(expected)), 4)
    assert error == pytest.approx(total**-0.5)


def test_red_cells_at_odds_with_the_nucleus_are_not_used():
    assert fuse_scale(17.2, 30.0, 90.0, [60.0])[2] == 0


def test_size_is_kept_where_red_cells_are_seen_and_mostly_lost_where_not():
    small, large = (fuse_scale(width, 2 * width, 96.0, [24.0] * 5)[0] for width in (20.0, 30.0))
    assert math.log(large / small) < 0.1 * math.log(1.5)
    small, large = (fuse_scale(width, 2 * width, 96.0)[0] for width in (20.0, 30.0))
    assert 0.5 * math.log(1.5) < math.log(large / small) < 0.65 * math.log(1.5)


def test_drawn_smears_are_measured_without_bias():
    errors = []
    for index in range(25):
        cell = drawn(CLASSES[index % 5], index)
        finding = find_cell(cell.pixels)
        if finding.red_cells:
            style = draw_slide_style(np.random.default_rng([41, index]))
            truth = 2.0 * style.red_radius * 288 / 28.8
            errors.append(math.log(finding.red_diameter / truth))
            assert finding.scale_source == "red cells"
    assert len(errors) >= 12
    assert abs(np.mean(errors)) < 0.06
    assert np.std(errors) < 0.13
