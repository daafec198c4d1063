"""What a network sees of a cell: one scale, one ground, and nothing else when it stands alone."""

from __future__ import annotations

import numpy as np
import pytest

from leuko.cells import find_cell
from leuko.cells.view import GROUND, cell_view, lay_ground, prepare
from leuko.data.synth import draw_cell, draw_slide_style
from leuko.imaging.preprocess import PreprocessSpec

SPEC = PreprocessSpec((128, 128), view="cell", width=20.0)
ALONE = PreprocessSpec((128, 128), view="cell-alone", width=20.0)


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(5)
    return draw_cell("Neutrophil", rng, draw_slide_style(rng))


def test_a_centre_view_is_what_the_spec_itself_cuts(drawn) -> None:
    spec = PreprocessSpec((64, 64), 0.6)
    np.testing.assert_array_equal(prepare(drawn.pixels, spec), spec.apply(drawn.pixels))


def test_the_cell_stands_in_the_middle_on_a_grey_ground(drawn) -> None:
    view, cell, *_ = cell_view(drawn.pixels, find_cell(drawn.pixels), SPEC)
    np.testing.assert_array_equal(prepare(drawn.pixels, SPEC), view)
    rows, columns = np.nonzero(cell > 127)
    assert abs(rows.mean() - 63.5) < 8
    assert abs(columns.mean() - 63.5) < 8
    ground = np.median(view[cell == 0].reshape(-1, 3), axis=0)
    assert np.ptp(np.percentile(view[cell == 0], 90, axis=0)) <= 12
    assert (ground <= GROUND + 3).all()


def test_light_of_another_colour_changes_the_view_little(drawn) -> None:
    tinted = np.round(drawn.pixels * np.array([0.98, 0.9, 0.7])).astype(np.uint8)
    plain, other = prepare(drawn.pixels, SPEC), prepare(tinted, SPEC)
    before = np.abs(drawn.pixels.astype(int) - tinted).mean()
    after = np.abs(plain.astype(int) - other).mean()
    assert after < before / 4


def test_alone_hides_everything_beyond_the_cell(drawn) -> None:
    cell = cell_view(drawn.pixels, find_cell(drawn.pixels), SPEC).around
    alone = prepare(drawn.pixels, ALONE)
    assert (np.abs(alone[cell == 0].astype(int) - GROUND) <= 1).all()
    inside = cell == 255
    assert np.abs(alone[inside].astype(int) - prepare(drawn.pixels, SPEC)[inside]).max() <= 1


def test_where_nothing_is_found_the_middle_is_shown_whole() -> None:
    blank = np.full((200, 240, 3), 230, np.uint8)
    view, cell, *inner = cell_view(blank, find_cell(blank), SPEC)
    assert view.shape == (128, 128, 3)
    assert (cell == 255).all()
    assert not np.any(inner)
    np.testing.assert_array_equal(prepare(blank, ALONE), prepare(blank, SPEC))


def test_ground_is_laid_in_proportion_to_the_mask() -> None:
    view, other = np.full((4, 4, 3), 200, np.uint8), np.full((4, 4, 3), 100, np.uint8)
    cell = np.full((4, 4), 51, np.uint8)
    assert np.abs(lay_ground(view, cell, other).astype(int) - 120).max() <= 1
