"""Colours that are evenly spaced, and pictures that show what was answered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leuko.errors import DataError
from leuko.prediction import Prediction
from leuko.render.heat import heat_colours, heat_overlay, heat_picture
from leuko.runtime.explain import Explanation
from tiny import paint


def oklab(colours: np.ndarray) -> np.ndarray:
    """Ottosson's OKLab by its published forward matrices, from 8-bit sRGB."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array([
        [0.4122214708, 0.2119034982, 0.0883024619],
        [0.5363325363, 0.6806995451, 0.2817188376],
        [0.0514459929, 0.1073969566, 0.6299787005],
    ])  # fmt: skip
    return np.cbrt(cones) @ np.array([
        [0.2104542553, 1.9779984951, 0.0259040371],
        [0.7936177850, -2.4285922050, 0.7827717662],
        [-0.0040720468, 0.4505937099, -0.8086757660],
    ])  # fmt: skip


def explanation(values: np.ndarray, shape: tuple[int, int], crop: float = 0.5) -> Explanation:
    """Values on the middle of a picture."""
    rows, columns = shape
    high, wide = crop * rows, crop * columns
    return Explanation(
        values=values.astype(np.float32),
        label="Monocyte",
        method="class-activation map",
        evidence=2.0,
        bias=0.1,
        probabilities=(0.02, 0.02, 0.03, 0.9, 0.03),
        window=np.array([[high, 0, (rows - high) / 2], [0, wide, (columns - wide) / 2]]),
        shape=shape,
    )


ROW = Prediction.answered("smear/a.jpg", np.array([0.02, 0.02, 0.03, 0.9, 0.03]), "0" * 64, "m")


def test_colours_are_evenly_spaced_and_balanced() -> None:
    lab = oklab(heat_colours())
    assert lab.shape == (255, 3)
    # Eight bits round each colour, so steps are taken over sixteen places.
    for side in (lab[127::-1], lab[127:]):
        steps = np.linalg.norm(np.diff(side[::16], axis=0), axis=1)
        assert steps.min() > 0.95 * steps.mean()
        assert steps.max() < 1.05 * steps.mean()
        assert (np.diff(side[::8, 0]) < 0).all()
    assert np.abs(lab[:, 0] - lab[::-1, 0]).max() < 0.005  # as dark against as for
    assert np.abs(lab[127, 1:]).max() < 0.01  # nothing has no hue
    assert lab[0, 2] < -0.1 < 0.1 < lab[-1, 2]  # blue against, yellowish for
    with pytest.raises(ValueError, match="read-only"):
        heat_colours()[0] = 0


def test_clear_where_nothing_speaks_and_opaque_where_much_does() -> None:
    pixels = np.full((4, 6, 3), (200, 80, 160), np.uint8)
    values = np.zeros((4, 6), np.float32)
    values[0, 0], values[1, 1], values[2, 2], values[3, 3] = 2.0, -2.0, 9.0, np.nan
    drawn = heat_overlay(pixels, values, 2.0).astype(int)
    # 0.299 x 200 + 0.587 x 80 + 0.114 x 160 = 125; a quarter of it is laid over with white.
    grey = 255 - 0.75 * (255 - 125)
    for place in ((0, 1), (3, 3), (3, 5)):
        np.testing.assert_allclose(drawn[place], grey, atol=1)
    colours = heat_colours().astype(int)
    np.testing.assert_allclose(drawn[0, 0], 0.2 * grey + 0.8 * colours[-1], atol=1)
    np.testing.assert_allclose(drawn[1, 1], 0.2 * grey + 0.8 * colours[0], atol=1)
    np.testing.assert_array_equal(drawn[2, 2], drawn[0, 0])  # beyond the limit


def test_what_does_not_fit_together() -> None:
    pixels, values = paint("Monocyte"), np.zeros((32, 40), np.float32)
    for wrong in ((pixels[..., 0], values, 1.0), (pixels, values[:3], 1.0), (pixels, values, 0.0)):
        with pytest.raises(DataError, match="expected"):
            heat_overlay(*wrong)
    rejected = Prediction(path="a.jpg", status="rejected", reason="corrupt")
    with pytest.raises(DataError, match=r"a\.jpg has no answer to explain: corrupt"):
        heat_picture(pixels, rejected, explanation(values, (32, 40)))


def test_image_and_overlay_stand_side_by_side() -> None:
    pixels = paint("Monocyte", shape=(440, 440))
    values = np.zeros((5, 5))
    values[2, 2], values[0, 0] = 1.0, -1.0
    drawn = heat_picture(pixels, ROW, explanation(values, (440, 440)))
    assert drawn.dtype == np.uint8
    top, left = 28 + 88, 28
    np.testing.assert_array_equal(
        drawn[top + 20 : top + 100, left + 20 : left + 420], pixels[20:100, 20:420]
    )
    overlay = drawn[top : top + 440, 2 * 28 + 440 : 2 * 28 + 880].astype(int)
    middle, corner, outside = overlay[220, 220], overlay[132, 132], overlay[50, 50]
    assert middle[0] - middle[2] > 60  # orange: for
    assert corner[2] - corner[0] > 60  # blue: against
    assert outside.max() == outside.min()  # grey: not looked at


def ink(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rows in which two pictures differ."""
    return np.flatnonzero((first != second).any(axis=(1, 2)))


def test_the_words_say_what_was_answered() -> None:
    pixels, one = paint("Monocyte", shape=(300, 300)), explanation(np.eye(5), (300, 300))
    plain = heat_picture(pixels, ROW, one)
    for other in (
        replace(ROW, decision="unsure"),
        replace(ROW, decision="not-a-cell"),
        replace(ROW, decision="unlike-training"),
        replace(ROW, confidence=0.91),
        replace(ROW, likeliest="Basophil"),
        replace(ROW, path="b.jpg"),
    ):
        differing = ink(plain, heat_picture(pixels, other, one))
        assert differing.min() >= 28
        assert differing.max() < 28 + 88  # the title and nothing else
    again = ink(plain, heat_picture(pixels, ROW, replace(one, method="occlusion")))
    assert again.min() > 28 + 88 + 440  # the foot


def test_a_frame_beyond_the_picture_stays_off_the_sheet() -> None:
    pixels = paint("Monocyte", shape=(440, 440))
    one = explanation(np.zeros((5, 5)), (440, 440))
    beyond = replace(one, window=np.array([[800.0, 0, 100], [0, 800, 100]]))
    first, second = heat_picture(pixels, ROW, one), heat_picture(pixels, ROW, beyond)
    rows, columns = np.nonzero((first != second).any(axis=2))
    top, left = 28 + 88, 28
    assert top <= rows.min() <= rows.max() < top + 440
    assert left <= columns.min() <= columns.max() < left + 2 * 440 + 28


@pytest.mark.parametrize("shape", [(16, 16), (16, 900), (900, 16), (120, 120), (575, 575)])
def test_pictures_of_any_shape(shape: tuple[int, int]) -> None:
    pixels = paint("Neutrophil", shape=shape)
    drawn = heat_picture(pixels, ROW, explanation(np.zeros((5, 5)), shape, crop=1.0))
    assert drawn.shape[1] >= 2 * 300 + 3 * 28
    assert drawn.shape[0] <= 700


def test_a_name_that_no_font_has() -> None:
    pixels, one = paint("Monocyte"), explanation(np.eye(3), (32, 40))
    name = "klein\u00e9 \u7d30\u80de \n\x1b[31m" + "x" * 500 + ".jpg"
    assert heat_picture(pixels, replace(ROW, path=name), one).size
