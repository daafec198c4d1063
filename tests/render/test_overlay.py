"""Overlays: boxes and labels where they belong, in the colours of what became of the cells."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageColor

from five import COLOURS, FIVE
from found_fields import cell, unasked
from leuko.errors import DataError
from leuko.field.report import Field, FieldCell
from leuko.imaging.decode import decode_own
from leuko.render.overlay import (
    _HEIGHT,
    _labels,
    _marks,
    overlay,
    overlay_file,
    picture_rows,
)
from leuko.render.style import lighter
from leuko.support.files import is_own_picture

GROUND = (228, 220, 226)
NEUTROPHIL, MONOCYTE = COLOURS[4], COLOURS[3]


def ground(rows: int = 1000, columns: int = 1000) -> np.ndarray:
    return np.full((rows, columns, 3), GROUND, np.uint8)


def field(*cells: FieldCell, size: tuple[int, int] = (1000, 1000), **more: object) -> Field:
    return Field("slide/a.jpg", "ok", size=size, cells=cells, **more)


def places(drawn: np.ndarray, colour: str) -> np.ndarray:
    """(N, 2) rows and columns of a colour."""
    return np.argwhere((drawn == np.array(ImageColor.getrgb(colour), np.uint8)).all(axis=2))


def test_an_accepted_cell_has_a_box_of_its_colour_round_it() -> None:
    drawn = overlay(ground(), field(cell((400, 300, 500, 420))), FIVE)
    found = places(drawn[:1000], NEUTROPHIL)
    box = found[found[:, 0] >= 396]
    assert box.min(axis=0).tolist() == [396, 296]
    assert box.max(axis=0).tolist() == [503, 423]
    assert (drawn[400:500, 300:420] == GROUND).all()  # nothing lies on the cell
    label = found[found[:, 0] < 395]
    assert label[:, 0].min() >= 400 - 5 - _HEIGHT
    assert label[:, 1].min() > 300  # behind the number
    for colour in COLOURS[:4]:
        assert len(places(drawn, colour)) == 0


def test_what_is_not_accepted_has_a_dashed_paler_box_and_no_full_colour() -> None:
    doubted = cell((400, 300, 500, 420), "Monocyte", 0.6, decision="unsure",
                   reason="low-confidence")  # fmt: skip
    drawn = overlay(ground(), field(doubted), FIVE)[:1000]
    pale = lighter(MONOCYTE, 0.35)
    assert len(places(drawn, MONOCYTE)) == 0
    top = [tuple(one) for one in drawn[397, 297:423]]
    assert 3 < sum(a != b for a, b in itertools.pairwise(top)) < 30
    assert 20 < sum(one == ImageColor.getrgb(pale) for one in top) < 100


@pytest.mark.parametrize(
    "left",
    [unasked((400, 300, 500, 420), "border"), unasked((400, 300, 500, 420), "smudged"),
     cell((400, 300, 500, 420), decision="duplicate", reason="the same cell as b.jpg"),
     cell((400, 300, 500, 420), decision="not-a-cell", reason="blank")],
)  # fmt: skip
def test_what_is_not_counted_is_grey(left: FieldCell) -> None:
    drawn = overlay(ground(), field(left), FIVE)
    assert len(places(drawn, "#b9bfc9")) > 200
    for colour in COLOURS:
        assert len(places(drawn, colour)) == 0
        assert len(places(drawn, lighter(colour, 0.35))) == 0
    other = overlay(ground(), field(unasked((400, 300, 500, 420), "overlapping")), FIVE)
    assert drawn.shape != other.shape or not np.array_equal(drawn, other)  # it says why


@pytest.mark.parametrize(
    ("size", "drawn"), [((480, 640), (750, 1000)), ((900, 1440), (900, 1440)),
                        ((3000, 4000), (1200, 1600)), ((2000, 500), (1600, 400))],
)  # fmt: skip
def test_a_field_is_drawn_in_one_of_few_sizes(
    size: tuple[int, int], drawn: tuple[int, int]
) -> None:
    one = field(cell((0, 0, size[0] // 4, size[1] // 4)), size=size)
    picture = overlay(ground(*size), one, FIVE)
    assert picture.shape[1] == drawn[1]
    assert picture_rows(one, drawn[1]) == pytest.approx(drawn[0], abs=1)
    assert 60 < picture.shape[0] - drawn[0] < 300


def test_a_reduced_picture_of_a_large_field_has_its_boxes_in_the_same_places() -> None:
    large = field(cell((4000, 3000, 5000, 4200)), size=(10_000, 10_000))
    drawn = overlay(ground(), large, FIVE)
    same = overlay(ground(), field(cell((400, 300, 500, 420))), FIVE)
    assert np.array_equal(drawn[:1000], same[:1000])


def test_the_picture_that_was_given_is_not_changed() -> None:
    pixels = ground()
    overlay(pixels, field(cell((400, 300, 500, 420))), FIVE)
    assert (pixels == GROUND).all()


def test_boxes_at_the_border_stay_within_the_picture() -> None:
    corners = [(0, 0, 80, 80), (0, 920, 80, 1000), (920, 0, 1000, 80), (920, 920, 1000, 1000)]
    drawn = overlay(ground(), field(*map(cell, corners)), FIVE)
    found = places(drawn[:1000], NEUTROPHIL)
    for row, col in ((0, 0), (0, 999), (999, 0), (999, 999)):
        assert [row, col] in found.tolist()
    whole = overlay(ground(60, 60), field(cell((0, 0, 60, 60)), size=(60, 60)), FIVE)
    assert len(places(whole, NEUTROPHIL)) > 1000


def drawn_labels(*cells: FieldCell) -> list[tuple[int, int, int, int] | None]:
    """Where labels stand, as wide as their number at least."""
    marks = _marks(field(*cells), FIVE, range(1, len(cells) + 1), (1000, 1000))
    return [
        None if one is None else (one.row, one.col, one.row + _HEIGHT, one.col + 16)
        for one in _labels(marks, (1000, 1000))
    ]


def overlap(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    return all(first[k] < second[k + 2] and second[k] < first[k + 2] for k in (0, 1))


def test_no_label_covers_another_cell_or_label() -> None:
    boxes = [(r, c, r + 90, c + 90) for r in range(60, 860, 130) for c in range(30, 900, 110)]
    found = drawn_labels(*map(cell, boxes))
    assert None not in found
    for place, label in enumerate(found):
        assert label is not None
        for other, box in enumerate(boxes):
            assert other == place or not overlap(label, box)
        assert not any(overlap(label, one) for one in found[:place] if one is not None)


def test_where_cells_touch_a_number_lies_on_its_own_cell() -> None:
    boxes = [(r, c, r + 90, c + 90) for r in range(0, 990, 90) for c in range(0, 990, 90)]
    found = drawn_labels(*map(cell, boxes))
    inner = boxes.index((450, 450, 540, 540))
    assert found[inner] is not None
    assert found[inner][:2] == (450, 450)


def test_many_small_cells_are_marked_and_not_labelled() -> None:
    tiny = [cell((r, c, r + 4, c + 4)) for r in range(100, 900, 80) for c in range(100, 900, 80)]
    assert drawn_labels(*tiny) == [None] * 100
    assert None not in drawn_labels(*tiny[:40])
    drawn = overlay(ground(), field(*tiny), FIVE)
    assert len(places(drawn[:1000], NEUTROPHIL)) > 100 * 100  # each can be seen


def bar(foot: np.ndarray) -> int:
    """How long the line is that ends at the right margin."""
    dark = (foot[22, : 1200 - 16, 0] < 100)[::-1]
    return int(np.flatnonzero(~dark)[0])


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    known = field(size=(900, 1200), pixels_per_micrometre=9.04, scale_source="red cells")
    foot = overlay(ground(900, 1200), known, FIVE)[900:]
    assert bar(foot) == 90
    unknown = overlay(ground(900, 1200), replace(known, pixels_per_micrometre=None), FIVE)[900:]
    assert (unknown[22, 600:] == 255).all()
    slide = replace(known, size=(9000, 12_000), pixels_per_micrometre=4.0)
    assert bar(overlay(ground(900, 1200), slide, FIVE)[900:]) == 40  # 100 micrometres


@pytest.mark.parametrize("name", ["日本語.jpg", "a\nb\tc.jpg", "\udcff.jpg", "<b>" * 200, ""])
def test_any_name_can_be_drawn(name: str) -> None:
    drawn = overlay(ground(), replace(field(cell((1, 1, 99, 99))), name=name), FIVE)
    assert (drawn[1000:, -16:] == 255).all()
    assert (drawn[1000:, :14] == 255).all()


def test_no_cell_is_said_and_a_lack_of_numbers_refused() -> None:
    assert overlay(ground(), field(), FIVE).shape[1] == 1000
    with pytest.raises(DataError, match=r"2 numbers for the 1 cells of slide/a\.jpg"):
        overlay(ground(), field(cell((1, 1, 9, 9))), FIVE, [1, 2])
    with pytest.raises(DataError, match="uint8"):
        overlay(np.zeros((9, 9), np.uint8), field(), FIVE)


def test_the_file_says_that_leuko_drew_it() -> None:
    drawn = overlay(ground(), field(cell((400, 300, 500, 420))), FIVE)
    data = overlay_file(drawn)
    assert is_own_picture(data[:512])
    again = decode_own(data)
    assert again.shape == drawn.shape
    assert np.abs(again.astype(int) - drawn).mean() < 3
