"""Pictures of predictions: sizes, colours where they belong, nothing that a name could break."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageColor

from leuko.errors import DataError
from leuko.prediction import Prediction
from leuko.render.picture import SHEET_LIMIT, prediction_picture, prediction_sheet
from leuko.taxonomy import COLOURS


def answer(probabilities, path="a/95-8-22-3_23_1.jpg"):
    return Prediction.answered(path, np.array(probabilities), "ab" * 32, "cd" * 6)


def image(rows, columns, value=120):
    return np.full((rows, columns, 3), value, np.uint8)


def pixels_of(picture, colour):
    return int((picture == np.array(ImageColor.getrgb(colour), np.uint8)).all(axis=2).sum())


@pytest.mark.parametrize("side", [16, 120, 288, 575, 2000])
def test_any_source_gives_a_readable_picture(side):
    picture = prediction_picture(image(side, side), answer([0.1, 0.2, 0.5, 0.1, 0.1]))
    shown = min(max(side, 480), 640)
    assert picture.dtype == np.uint8
    assert picture.shape == (shown + 56, shown + 400 + 84, 3)


def test_a_wide_image_is_scaled_and_not_cut():
    pixels = image(100, 400)
    pixels[:, :100], pixels[:, 300:] = (255, 0, 0), (0, 0, 255)
    picture = prediction_picture(pixels, answer([0.2] * 5))
    assert picture.shape[1] == 480 + 484
    assert pixels_of(picture, "#ff0000") > 10_000
    assert pixels_of(picture, "#0000ff") > 10_000


def test_bars_are_as_long_as_the_probabilities():
    picture = prediction_picture(image(480, 480), answer([0.1, 0.2, 0.0, 0.3, 0.4]))
    areas = [pixels_of(picture, colour) for colour in COLOURS]
    assert areas[2] == 0
    for index, share in enumerate((0.1, 0.2, 0.0, 0.3)):
        assert areas[index] / areas[4] == pytest.approx(share / 0.4, abs=0.04)


def test_a_rejected_image_shows_no_bar():
    row = Prediction(
        "x.jpg", "rejected", reason="truncated", detail="The JPEG file ends too early."
    )
    picture = prediction_picture(image(50, 60), row)
    assert all(pixels_of(picture, colour) == 0 for colour in COLOURS)


@pytest.mark.parametrize("name", ["日本語", "é" * 300, "a\nb\tc.jpg", "\udcff.jpg", "", "<b>$x^$"])
def test_any_file_name_can_be_drawn(name):
    row = answer([0.2] * 5, path=name)
    assert prediction_picture(image(20, 20), row).shape[2] == 3
    assert prediction_sheet([(image(20, 20), row)]).shape[2] == 3


def test_the_same_input_gives_the_same_picture():
    row = answer([0.05, 0.05, 0.8, 0.05, 0.05])
    assert np.array_equal(
        prediction_picture(image(90, 90), row), prediction_picture(image(90, 90), row)
    )


def test_a_sheet_grows_with_its_images():
    rows = [(image(40, 60, value=10 * k), answer([0.2] * 5)) for k in range(7)]
    sheet = prediction_sheet(rows, columns=3)
    assert sheet.shape == (2 * 28 + 3 * 300 + 32, 2 * 28 + 3 * 228 - 20, 3)


def test_a_sheet_has_a_limit():
    rows = [(image(16, 16), answer([0.2] * 5))] * (SHEET_LIMIT + 60)
    assert prediction_sheet(rows, columns=20).shape[0] == 2 * 28 + SHEET_LIMIT // 20 * 300 + 32


def test_what_is_no_picture_is_refused():
    with pytest.raises(DataError, match=r"\(H, W, 3\)"):
        prediction_picture(np.zeros((5, 5), np.uint8), answer([0.2] * 5))
    with pytest.raises(DataError, match="at least one"):
        prediction_sheet([])
