"""What of a slide is read: cells one layer thin, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from leuko.field.tissue import find_tissue, tissue_of
from leuko.imaging.decode import encode_png
from leuko.imaging.slide import open_field
from leuko.source import bytes_source

GLASS = (243, 240, 235)


def smear(
    rng: np.random.Generator, shape: tuple[int, int], share: float, layers: int
) -> np.ndarray:
    """Red cells of 7.5 micrometres at 1 pixel to a micrometre, averaged to 8."""
    rows, columns = (8 * side for side in shape)
    density = np.zeros((rows, columns), np.float32)
    row, col = np.mgrid[-4:5, -4:5]
    cell = np.hypot(row, col) <= 3.75
    for _ in range(layers * round(share * rows * columns / 44)):
        top, left = rng.integers(0, rows - 9), rng.integers(0, columns - 9)
        density[top : top + 9, left : left + 9] += 0.25 * cell
    light = 10 ** -(density[..., None] * np.array([0.4, 1.0, 0.9]))
    picture = light * np.array(GLASS)
    return picture.reshape(shape[0], 8, shape[1], 8, 3).mean(axis=(1, 3))


@pytest.fixture(scope="module")
def slide() -> np.ndarray:
    """200 by 200 pixels of 8 micrometres, with everything that a slide may have."""
    rng = np.random.default_rng(0)
    picture = np.empty((200, 200, 3))
    picture[:] = GLASS
    picture[20:80, 20:80] = smear(rng, (60, 60), 0.4, 1)
    picture[20:80, 120:180] = smear(rng, (60, 60), 0.5, 5)  # thick
    picture[120:180, 20:80] = smear(rng, (60, 60), 0.03, 1)  # the feather's end
    picture[120:150, 120:180] = (40, 60, 150)  # ink
    picture[150:180, 120:180] = (150, 200, 240)  # pale ink
    picture += rng.normal(0, 0.5, picture.shape)
    picture[190:] = 0  # the holder
    picture[:8] = 255  # not scanned
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def test_one_layer_is_kept_and_nothing_else(slide: np.ndarray) -> None:
    kept = find_tissue(slide)
    assert kept[20:80, 20:80].mean() > 0.99
    assert kept[120:180, 20:80].mean() > 0.95
    assert kept[28:72, 128:172].mean() == 0, "a thick layer"
    assert kept[124:146, 124:176].mean() == 0, "ink"
    assert kept[156:176, 124:176].mean() == 0, "pale ink"
    assert kept[:14].mean() == 0, "glass, and what was not scanned"
    assert kept[90:110].mean() == 0, "glass"
    assert kept[185:].mean() == 0, "the holder"


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_even_picture_has_none(level: int) -> None:
    assert not find_tissue(np.full((50, 60, 3), level, np.uint8)).any()


def test_of_a_field_nothing_is_left_out(slide: np.ndarray) -> None:
    with open_field(bytes_source("field", encode_png(slide))) as image:
        assert tissue_of(image) is None
