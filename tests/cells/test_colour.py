"""The colour axis: lamps shift it, Otsu splits it, the slide is found under the cells."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from leuko.cells.colour import (
    CHROMATIN,
    PURPLE_STEPS,
    PURPLE_ZERO,
    background_colour,
    chromatin_mark,
    make_planes,
    otsu,
    reduce_picture,
)


def test_reducing_averages_and_never_enlarges():
    pixels = np.zeros((200, 400, 3), np.uint8)
    pixels[:, 200:] = 200
    small, step = reduce_picture(pixels, 100)
    assert (small.shape, step) == ((50, 100, 3), 4.0)
    assert small[10, 49, 0] == 0
    assert small[10, 50, 0] == 200
    same, step = reduce_picture(pixels[:60, :90])
    assert step == 1.0
    assert np.array_equal(same, pixels[:60, :90])


def test_background_is_the_frequent_bright_colour_and_not_the_brightest():
    pixels = np.full((100, 100, 3), (230, 200, 150), np.uint8)
    pixels[:40] = (120, 60, 120)  # cells
    pixels[40:42] = 255  # a glint
    assert background_colour(pixels) == pytest.approx((230, 200, 150), abs=2.5)


def test_density_and_purple_by_hand():
    pixels = np.full((9, 9, 3), 239, np.uint8)
    pixels[:] = (239, 84, 175)
    planes = make_planes(pixels, (239.0, 239.0, 239.0))
    # With 16 grey levels of flare: log10(255 / 100) and log10(255 / 191).
    green, blue = np.log10(255 / 100), np.log10(255 / 191)
    assert planes.density[4, 4] == pytest.approx((0.0, green, blue), abs=1e-5)
    assert planes.purple[4, 4] == round(PURPLE_ZERO + PURPLE_STEPS * (green - blue))


def test_a_lamp_hardly_moves_purple():
    rng = np.random.default_rng(0)
    light = np.array([235.0, 225.0, 215.0])
    density = rng.uniform(0.0, 0.6, (40, 40, 3))
    lamp = np.array([0.95, 0.85, 0.55])
    seen, yellow = (
        np.clip(np.rint(light * gain * 10**-density), 0, 255).astype(np.uint8)
        for gain in (1.0, lamp)
    )
    first = make_planes(seen, tuple(light)).purple.astype(int)
    second = make_planes(yellow, tuple(light * lamp)).purple.astype(int)
    # Not exactly, because of the flare: 5 steps are 0.04 units of density.
    assert np.abs(first - second).mean() < 5


def test_otsu_agrees_with_opencv_and_takes_the_middle_of_a_gap():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(80, 12, 3000), rng.normal(170, 20, 1000)])
    plane = np.clip(np.rint(values), 0, 255).astype(np.uint8).reshape(40, 100)
    split = otsu(plane)
    expected = cv2.threshold(plane, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]
    assert split is not None
    assert abs(split.level - expected) <= 1
    assert split.low == pytest.approx(plane[plane <= split.level].mean())
    assert split.high == pytest.approx(plane[plane > split.level].mean())
    two = np.repeat(np.uint8([[10, 90]]), 50, axis=0)
    split = otsu(two)
    assert split is not None
    assert split.level in (49, 50)


def test_otsu_counts_only_the_mask_and_says_when_there_is_nothing_to_split():
    plane = np.repeat(np.uint8([[10, 90, 250]]), 50, axis=0)
    mask = np.repeat(np.uint8([[1, 1, 0]]), 50, axis=0)
    split = otsu(plane, mask)
    assert split is not None
    assert (split.low, split.high) == (10.0, 90.0)
    assert otsu(np.full((5, 5), 7, np.uint8)) is None
    assert otsu(plane, np.zeros_like(mask)) is None


def test_a_valley_tells_two_classes_from_one():
    rng = np.random.default_rng(2)
    one = np.clip(np.rint(rng.normal(120, 20, 4000)), 0, 255).astype(np.uint8).reshape(40, 100)
    two = np.where(np.arange(4000) % 2 == 0, 80, 160).reshape(40, 100)
    two = (two + rng.normal(0, 10, two.shape)).astype(np.uint8)
    single, double = otsu(one, with_valley=True), otsu(two, with_valley=True)
    assert single is not None
    assert single.valley > 0.9
    assert double is not None
    assert double.valley < 0.1


def test_chromatin_mark_by_hand():
    assert chromatin_mark(0.6, 0.15) == pytest.approx(0.45**2 / 0.6)  # a nucleus
    assert chromatin_mark(0.3, 0.15) < CHROMATIN  # a dark red cell
    assert chromatin_mark(0.2, 0.3) < 0
