"""Scales that fields of a run share, and pictures that are no field."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from leuko.field.name import is_single, settle_scales, tell_singles
from leuko.field.report import Field, FieldCell
from leuko.prediction import Prediction


def field(scale: float | None, source: str, **options: object) -> Field:
    return Field(
        "f", "ok", size=(480, 640), pixels_per_micrometre=scale, scale_source=source, **options
    )


def scales(*fields: Field) -> list[tuple[float | None, str]]:
    return [(one.pixels_per_micrometre, one.scale_source) for one in settle_scales(fields)]


def test_fields_of_one_objective_share_the_median() -> None:
    told = scales(*(field(one, "red cells") for one in (9.0, 9.2, 10.0, 20.0, 21.0)))
    assert [scale for scale, _ in told] == [9.2, 9.2, 9.2, 20.5, 20.5]
    assert {source for _, source in told} == {"red cells"}


def test_a_field_without_red_cells_takes_the_scale_of_the_others() -> None:
    reds = [field(one, "red cells") for one in (8.0, 8.4, 9.0)]
    assert scales(*reds, field(5.0, "white cells"))[-1] == (8.4, "run")
    # Two objectives: nothing tells which.
    other = field(20.0, "red cells")
    assert scales(*reds, other, field(5.0, "white cells"))[-1] == (5.0, "white cells")
    assert scales(field(5.0, "white cells")) == [(5.0, "white cells")]


def test_what_is_told_from_outside_stays() -> None:
    reds = [field(one, "red cells") for one in (8.0, 8.2)]
    assert scales(*reds, field(4.0, "given"), field(8.1, "file"))[2:] == [
        (4.0, "given"),
        (8.1, "file"),
    ]
    assert scales(field(None, "none"), *reds)[0] == (None, "none")


@pytest.mark.parametrize(
    ("box", "scale", "single"),
    [
        ((180, 250, 300, 390), 15.0, True),  # its middle is (240, 320); 640 pixels are 43 µm
        ((180, 250, 300, 390), 14.0, False),  # 46 µm
        ((60, 250, 180, 390), 15.0, False),  # a quarter of the height too high
    ],
)
def test_a_picture_of_one_cell_is_small_with_the_cell_in_the_middle(
    box: tuple[int, int, int, int], scale: float, single: bool
) -> None:
    cell = FieldCell(box, 0.9, Prediction("", "ok"))
    one = field(scale, "red cells", cells=(cell,))
    assert is_single(one) is single
    assert not is_single(replace(one, cells=(cell, cell)))
    assert not is_single(replace(one, cells=()))
    assert math.isnan(one.sharpness)


def test_short_pictures_are_of_one_cell_where_most_are() -> None:
    """A neighbour beside it, in some, makes no field of them; longer ones are fields."""
    middle, beside = (
        FieldCell(box, 0.9, Prediction("", "ok")) for box in ((180, 250, 300, 390), (0, 0, 90, 90))
    )
    one = field(15.0, "red cells", cells=(middle,))
    two = replace(one, cells=(middle, beside))
    bare, lost = replace(one, cells=()), replace(one, pixels_per_micrometre=None)
    whole = replace(one, pixels_per_micrometre=8.0)

    def told(*fields: Field) -> list[str]:
        return [one.status for one in tell_singles(fields)]

    single = "single-cell"
    assert told(one, one, two, bare, lost, whole) == [single, single, single, "ok", "ok", "ok"]
    assert told(one, two) == ["ok", "ok"]
    assert told(whole, bare) == ["ok", "ok"]
    assert told() == []
