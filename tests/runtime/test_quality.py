"""Figures of picture quality on pictures that are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from five import CLASSES
from leuko.data.synth import draw_cell, draw_field, draw_slide_style
from leuko.imaging.preprocess import PreprocessSpec
from leuko.runtime.quality import measure_quality, nucleus_evidence, resolution_of


@pytest.fixture(scope="module")
def cells() -> list[np.ndarray]:
    """Ten drawn cells of five slides, as a network sees them."""
    found = []
    for number in range(10):
        rng = np.random.default_rng(number)
        style = draw_slide_style(np.random.default_rng(number % 5))
        found.append(draw_cell(CLASSES[number % 5], rng, style, size=160).pixels)
    return found


def test_blur_lowers_sharpness_step_by_step(cells: list[np.ndarray]) -> None:
    for pixels in cells:
        blurred = [cv2.GaussianBlur(pixels, (0, 0), width) for width in (1.0, 2.0, 4.0)]
        figures = [measure_quality(one).sharpness for one in (pixels, *blurred)]
        assert figures == sorted(figures, reverse=True)
        assert figures[-1] < 0.1


def test_sharpness_does_not_see_contrast(cells: list[np.ndarray]) -> None:
    for pixels in cells:
        paler = (128 + pixels.astype(float) / 2).round().astype(np.uint8)
        assert measure_quality(paler).contrast < 0.6 * measure_quality(pixels).contrast
        assert measure_quality(paler).sharpness == pytest.approx(
            measure_quality(pixels).sharpness, abs=0.06
        )


def test_exposure_by_hand() -> None:
    pixels = np.full((20, 20, 3), 128, np.uint8)
    pixels[:5] = 255
    pixels[5:7, :10] = (0, 1, 2)
    pixels[7, :, 0] = 255  # one channel alone is a colour, not light
    found = measure_quality(pixels)
    assert (found.overexposed, found.underexposed) == (0.25, 0.05)
    blank = measure_quality(np.full((20, 20, 3), 77, np.uint8), 0.5)
    assert (blank.contrast, blank.sharpness, blank.resolution) == (0.0, 0.0, 0.5)


def test_every_white_and_every_black_pixel_counts() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.choice(np.array([0, 2, 3, 252, 253, 255], np.uint8), (90, 90, 3))
    found = measure_quality(pixels)
    assert found.overexposed == round(float((pixels >= 253).all(axis=2).mean()), 6) > 0
    assert found.underexposed == round(float((pixels <= 2).all(axis=2).mean()), 6) > 0


def test_sharpness_from_its_formula() -> None:
    rng = np.random.default_rng(1)
    pixels = np.repeat(rng.integers(0, 256, (40, 30, 1), np.uint8), 3, axis=2)
    grey = pixels[:, :, 0]
    energies = [
        sum(float(np.square(np.diff(plane.astype(float), axis=axis)).sum()) for axis in (0, 1))
        for plane in (grey, cv2.blur(grey, (5, 5)))
    ]
    expected = np.log10(energies[0] / energies[1])
    assert measure_quality(pixels).sharpness == pytest.approx(expected, abs=1e-6)


def test_figures_with_their_names() -> None:
    items = measure_quality(np.full((20, 20, 3), 255, np.uint8), 0.5).items()
    assert dict(items)["overexposed"] == 1.0
    assert [name for name, _ in items] == [
        "sharpness", "contrast", "overexposed", "underexposed", "resolution",
    ]  # fmt: skip


@pytest.mark.parametrize("side", [324, 512])
def test_a_large_input_is_judged_at_a_smaller_size(cells: list[np.ndarray], side: int) -> None:
    for pixels in cells:
        large = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC)
        found, wanted = measure_quality(large), measure_quality(pixels)
        assert found.contrast == pytest.approx(wanted.contrast, rel=0.1)
        assert found.overexposed == pytest.approx(wanted.overexposed, abs=0.02)
        assert nucleus_evidence(large) == pytest.approx(nucleus_evidence(pixels), abs=0.15)
        blurred = measure_quality(cv2.GaussianBlur(large, (0, 0), side / 80)).sharpness
        assert blurred < min(0.1, 0.5 * found.sharpness)


@pytest.mark.parametrize("side", [300, 600])
def test_white_and_black_of_a_large_input_are_counted_in_colour(side: int) -> None:
    pixels = np.full((side, side, 3), 128, np.uint8)
    half = side // 2
    pixels[:half, :half] = 255
    pixels[half:, half:] = 0
    pixels[:half, half:] = (255, 255, 230)  # bright, and no white
    quality = measure_quality(pixels)
    assert (quality.overexposed, quality.underexposed) == (0.25, 0.25)


def test_a_nucleus_is_seen_where_one_is(cells: list[np.ndarray]) -> None:
    assert min(nucleus_evidence(pixels) for pixels in cells) > 0.5
    for number in range(10):
        rng = np.random.default_rng(number)
        style = draw_slide_style(rng)
        field = draw_field(0, rng, style, height=160, width=160, pixels_per_micrometre=6.0)
        assert nucleus_evidence(field.pixels) < 0.3
    assert nucleus_evidence(np.full((64, 64, 3), 230, np.uint8)) == 0.0


def test_resolution() -> None:
    assert resolution_of(PreprocessSpec((160, 160), 0.6), (575, 575, 3)) == 1.0
    assert resolution_of(PreprocessSpec((160, 160), 0.5), (80, 100, 3)) == 0.25
    assert resolution_of(PreprocessSpec((100, 200)), (100, 100, 3)) == 0.5
    assert resolution_of(PreprocessSpec((160, 160), 0.5, view="cell"), (80, 100, 3)) == 0.5
