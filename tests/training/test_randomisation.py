"""What another laboratory may do to a cell: drawn from a seed, wide, and never to the label."""

from __future__ import annotations

import numpy as np
import pytest

from leuko.cells.texture import Texture
from leuko.cells.view import CellView
from leuko.recipe import AugmentSettings

keras = pytest.importorskip("keras", reason="needs the extra 'train'")

from leuko.training.randomisation import (  # noqa: E402
    ground_warp,
    randomised,
    randomised_warp,
    sampled_texture,
)

SIDE = 64
VIEW = np.random.default_rng(0).integers(90, 200, (SIDE, SIDE, 3)).astype(np.uint8)
CELL = np.zeros((SIDE, SIDE), np.uint8)
CELL[16:48, 16:48] = 255
NUCLEUS = np.zeros((SIDE, SIDE), np.uint8)
NUCLEUS[24:40, 24:40] = 255
SEEN = CellView(VIEW, CELL, CELL, NUCLEUS)
STILL = AugmentSettings("domain-randomisation", scale=0.0, shift=0.0, stain=0.0)


def test_the_same_seed_travels_to_the_same_place() -> None:
    settings = AugmentSettings("domain-randomisation", stain=0.1, alone=0.5)
    one, again, other = (randomised(SEEN, settings, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_a_warp_keeps_the_middle_and_areas_when_nothing_is_scaled_or_shifted() -> None:
    for seed in range(20):
        warp = randomised_warp(SIDE, STILL, np.random.default_rng(seed))
        middle = np.array([31.5, 31.5, 1.0])
        np.testing.assert_allclose(warp @ middle, middle[:2], atol=1e-9)
        assert abs(np.linalg.det(warp[:, :2])) == pytest.approx(1.0)


def test_scales_are_spread_as_asked() -> None:
    settings = AugmentSettings("domain-randomisation", scale=0.2, shift=0.0)
    warps = [randomised_warp(SIDE, settings, np.random.default_rng(seed)) for seed in range(600)]
    sizes = np.array([np.log(abs(np.linalg.det(warp[:, :2]))) / 2 for warp in warps])
    assert sizes.std() == pytest.approx(0.2, rel=0.1)


def test_a_ground_warp_moves_the_cell_out_of_the_middle() -> None:
    for seed in range(20):
        moved = ground_warp(SIDE, np.random.default_rng(seed)) @ np.array([31.5, 31.5, 1.0])
        assert (np.abs(moved - 31.5) >= 0.35 * SIDE - 1e-9).all()


def test_alone_and_swapped_cells_lose_their_own_surroundings() -> None:
    other = np.zeros((SIDE, SIDE, 3), np.uint8)
    far = np.s_[:6, :6]
    for seed in range(30):
        rng = np.random.default_rng(seed)
        swapped = randomised(SEEN, STILL, rng, other=other)
        assert swapped[far].mean() < 30
        alone = randomised(
            SEEN,
            AugmentSettings("domain-randomisation", stain=0.0, alone=1.0),
            np.random.default_rng(seed),
        )
        assert alone[far].mean() > 220


def test_stain_is_varied_wide_but_a_nucleus_stays_darker_than_its_ground() -> None:
    view = np.full((SIDE, SIDE, 3), 235, np.uint8)
    view[CELL == 255] = (110, 60, 150)
    settings = AugmentSettings("domain-randomisation", stain=0.1)
    colours = []
    for seed in range(200):
        seen = randomised(SEEN._replace(pixels=view), settings, np.random.default_rng(seed))
        inside, outside = seen[28:36, 28:36].mean(axis=(0, 1)), seen[:6, :6].mean(axis=(0, 1))
        assert inside.sum() < outside.sum()
        colours.append(inside)
    assert np.std(colours, axis=0).min() > 15


def test_styles_are_drawn_in_the_shares_that_the_recipe_asks_for() -> None:
    settings = AugmentSettings("domain-randomisation", flat=0.3, soft=0.2)
    rng = np.random.default_rng(3)
    styles = [sampled_texture(settings, rng) for _ in range(3000)]
    plain = sum(style is None for style in styles) / 3000
    blurred = sum(style is not None and style.blur > 0 for style in styles) / 3000
    assert (plain, blurred) == (pytest.approx(0.5, abs=0.03), pytest.approx(0.2, abs=0.03))
    assert all(sampled_texture(STILL, rng) is None for _ in range(50))


def test_a_flat_draw_keeps_neither_texture_nor_surroundings() -> None:
    other = np.zeros((SIDE, SIDE, 3), np.uint8)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        seen = randomised(SEEN, STILL, rng, style=Texture(), other=other)
        assert seen[:6, :6].mean() > 220
        # The camera's noise may be left, a fifth of the view's own texture (32) is not.
        assert seen[28:36, 28:36].std(axis=(0, 1)).max() < 12
