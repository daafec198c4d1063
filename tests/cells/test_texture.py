"""A cell without its texture: outlines and colours stay, detail goes."""

from __future__ import annotations

import numpy as np
import pytest

from leuko.cells.texture import FLAT, SOFT, Texture, views, with_texture
from leuko.cells.view import GROUND, CellView, prepare
from leuko.data.synth import draw_cell, draw_slide_style
from leuko.errors import BundleError
from leuko.imaging.preprocess import PreprocessSpec

SIDE = 64
SPEC = PreprocessSpec((128, 128), view="cell", styles=("plain", "flat", "soft"))


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(5)
    return draw_cell("Eosinophil", rng, draw_slide_style(rng))


def square(reach: int) -> np.ndarray:
    """A square in the middle, 255 inside."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[SIDE // 2 - reach : SIDE // 2 + reach, SIDE // 2 - reach : SIDE // 2 + reach] = 255
    return mask


def checkered() -> CellView:
    """A nucleus of 100 give or take 40 in a cell of 180 give or take 20, on 250."""
    sign = np.where(np.indices((SIDE, SIDE)).sum(axis=0) % 2, 1, -1)
    cell, nucleus = square(20), square(10)
    levels = np.where(nucleus > 0, 100 + 40 * sign, np.where(cell > 0, 180 + 20 * sign, 250))
    pixels = np.repeat(levels[..., None], 3, axis=2).astype(np.uint8)
    return CellView(pixels, cell, cell, nucleus)


NUCLEUS = square(6) > 0
CYTOPLASM = (square(16) > 0) & (square(14) == 0)
BEYOND = square(25) == 0
"""Places that lie clear of every outline."""


def test_flat_leaves_three_levels() -> None:
    seen = with_texture(checkered(), FLAT, 3.0)
    assert set(np.unique(seen[NUCLEUS])) == {100}
    assert set(np.unique(seen[CYTOPLASM])) == {180}
    assert set(np.unique(seen[BEYOND])) == {GROUND}


def test_outlines_are_softened_as_far_as_a_micrometre_is_wide() -> None:
    """Of a step, a normal curve's share lies within one pixel of its middle: 0.35 / sigma."""
    for scale in (3.2, 6.4):
        row = with_texture(checkered(), FLAT, scale)[SIDE // 2, :, 0].astype(int)
        steepest = np.abs(np.diff(row[SIDE // 2 - 16 : SIDE // 2 + 17])).max()
        assert steepest <= 80 * 0.45 / (0.3 * scale)


def test_texture_is_left_in_the_share_that_is_asked_for() -> None:
    seen = with_texture(checkered(), Texture(nucleus=0.5, cytoplasm=1.0), 3.0)
    assert set(np.unique(seen[NUCLEUS])) == {80, 120}
    assert set(np.unique(seen[CYTOPLASM])) == {160, 200}


def test_soft_loses_what_is_finer_than_its_blur() -> None:
    middle = np.s_[28:36, 28:36]
    assert with_texture(checkered(), SOFT, 3.0)[middle].std() < 2
    assert checkered().pixels[middle].std() == pytest.approx(40)


def test_a_view_without_a_nucleus_stays_as_it_is() -> None:
    view = checkered()._replace(nucleus=np.zeros((SIDE, SIDE), np.uint8))
    np.testing.assert_array_equal(with_texture(view, FLAT, 3.0), view.pixels)


def test_looks_come_in_the_order_of_the_styles_and_begin_with_the_plain_one(drawn) -> None:
    seen = views(drawn.pixels, SPEC)
    assert (seen.shape, seen.dtype) == ((3, 128, 128, 3), np.uint8)
    np.testing.assert_array_equal(seen[0], prepare(drawn.pixels, SPEC))
    turned = PreprocessSpec((128, 128), view="cell", styles=("plain", "soft", "flat"))
    np.testing.assert_array_equal(views(drawn.pixels, turned), seen[[0, 2, 1]])


def test_a_flat_look_has_hardly_more_than_three_colours(drawn) -> None:
    flat = views(drawn.pixels, SPEC)[1].reshape(-1, 3)
    _, counts = np.unique(flat, axis=0, return_counts=True)
    assert np.sort(counts)[-3:].sum() > 0.7 * len(flat)


def test_a_picture_without_a_cell_looks_the_same_in_every_style() -> None:
    seen = views(np.full((200, 240, 3), 230, np.uint8), SPEC)
    assert (seen == seen[0]).all()


def test_the_middle_of_a_picture_has_one_look(drawn) -> None:
    spec = PreprocessSpec((64, 64), 0.6)
    np.testing.assert_array_equal(views(drawn.pixels, spec), spec.apply(drawn.pixels)[None])


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"styles": ("flat",)}, "must be 'plain' and then"),
        ({"styles": ("plain", "oily")}, "must be 'plain' and then"),
        ({"styles": ("plain", "flat", "flat")}, "each once"),
        ({"styles": ("plain", "flat"), "weights": (1.0,)}, "for each style"),
        ({"styles": ("plain", "flat"), "weights": (1.0, 0.0)}, "above 0"),
        ({"styles": ("plain", "flat"), "view": "centre"}, "Only a view of the cell"),
    ],
)
def test_styles_that_contradict_themselves_are_refused(wrong, part) -> None:
    with pytest.raises(BundleError, match=part):
        PreprocessSpec(**{"size": (64, 64), "view": "cell", **wrong})


def test_styles_go_through_a_bundle_and_say_nothing_where_there_is_one() -> None:
    spec = PreprocessSpec((64, 64), view="cell", styles=("plain", "flat"), weights=(1.0, 2.0))
    assert PreprocessSpec.from_dict(spec.to_dict()) == spec
    assert not {"styles", "weights"} & set(PreprocessSpec((64, 64), view="cell").to_dict())
    for wrong in ({"styles": "plain"}, {"styles": [1]}, {"weights": ["1", 2]}):
        with pytest.raises(BundleError, match="must be a list"):
            PreprocessSpec.from_dict({**spec.to_dict(), **wrong})
