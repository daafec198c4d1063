"""A run over fields in words, as a table of cells, and as its document."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from five import FIVE
from found_fields import cell, fields, report, truth
from leuko.evaluation.counting.tally import Tally
from leuko.evaluation.detection import BoxClassification
from leuko.field.report import Field
from leuko.prediction_files import read_predictions
from leuko.render.field import (
    field_csv,
    field_document,
    fields_sentence,
    format_field,
    next_steps,
    status_text,
    truth_sentences,
)
from leuko.support.artifacts import json_text


def test_the_document_has_every_picture_and_cell() -> None:
    document = field_document(report(), context={"command": "leuko field slide"})
    assert json.loads(json_text(document))["schema"] == "leuko.field/1"
    assert document["command"] == "leuko field slide"
    assert (document["asked"], document["left"], document["found"]) == (3, 2, 6)
    assert document["statuses"] == {
        "ok": 2, "no-cell": 1, "unusable": 1, "single-cell": 1, "repeated": 1, "rejected": 1,
    }  # fmt: skip
    assert document["decisions"] == {"class": 3, "unsure": 1, "set-aside": 1, "duplicate": 1}
    assert document["detector"] == {"name": "learned", "digest": "12" * 32}
    first, second, *_, last = document["fields"]
    assert (first["name"], first["size"], first["scale_source"]) == (
        "slide/a.jpg", [300, 400], "red cells",
    )  # fmt: skip
    assert (first["pixels_per_micrometre"], first["red_cells"]) == (10.0, 57)
    assert second["faults"] == ["tile 3, 4 is damaged"]
    assert (last["status"], last["reason"], last["sharpness"]) == ("rejected", "truncated", None)
    assert [one["cell"] for field in document["fields"] for one in field["cells"]] == [*range(1, 7)]
    named, doubted, left = first["cells"]
    assert (named["box"], named["score"], named["label"]) == ([10, 20, 60, 80], 0.9, "Neutrophil")
    assert named["probabilities"]["Neutrophil"] == 0.96
    assert (doubted["label"], doubted["likeliest"], doubted["decision"]) == (
        "", "Monocyte", "unsure",
    )  # fmt: skip
    assert (left["decision"], left["reason"]) == ("set-aside", "border")
    assert (left["probabilities"], left["confidence"]) == (None, None)


def test_the_differential_stands_in_the_document_as_a_count_does() -> None:
    count = field_document(report())["differential"]
    assert (count["schema"], count["cells"], count["accepted"]) == ("leuko.count/2", 4, 3)
    assert (count["left_out"], count["repeated"]) == ({"set-aside": 1}, 1)
    assert any("of 6 white cells: 1 set aside, 1 repeated" in one for one in count["sentences"])
    assert field_document(report(differential=None))["differential"] is None


def test_how_well_stands_in_the_document_under_its_own_names() -> None:
    document = field_document(report(truth=truth()))
    assert document["detection"]["recall"] == pytest.approx(4 / 5)
    assert document["detection"]["precision"] == pytest.approx(4 / 5)
    assert document["classification"]["accuracy_accepted"] == 1.0
    assert document["counting"]["error_per_field"] == pytest.approx(2 / 3)
    assert document["by_slide"]["slide"]["detection"]["ap50_95"] == 0.55
    assert "detection" not in field_document(report())


def test_the_table_of_cells_can_be_counted(tmp_path: Path) -> None:
    run = report()
    text = field_csv(run)
    head, *lines = text.splitlines()
    assert head.endswith(",model,likeliest,cell,picture,row0,col0,row1,col1")
    assert head.startswith("path,status,reason,label,confidence,p_")
    assert lines[0].endswith(",Neutrophil,1,slide/a.jpg,10,20,60,80")
    assert lines[5].endswith(",Lymphocyte,6,slide/b.jpg,150,200,190,240")
    (tmp_path / "cells.csv").write_text(text)
    table = read_predictions(tmp_path / "cells.csv")
    assert [row.decision for row in table.rows] == [
        "class", "unsure", "set-aside", "duplicate", "class", "class",
    ]  # fmt: skip
    asked = [one.answer for _, one in run.cells]
    assert [row.probabilities for row in table.rows] == [one.probabilities for one in asked]
    tally = Tally.of(table)
    assert (tally.found, tally.total, tally.repeated) == (6, 4, 1)
    assert tally.left_out == {"set-aside": 1}


def test_a_picture_whose_name_is_a_formula_is_no_formula() -> None:
    bad = Field("=1+1.jpg", "ok", size=(9, 9), cells=(cell((0, 0, 9, 9), name="=2.png"),))
    line = field_csv(report(fields=(bad,))).splitlines()[1]
    assert line.startswith("'=2.png,")
    assert ",1,'=1+1.jpg,0,0,9,9" in line


def test_the_terminal_says_what_was_found_and_what_was_not_counted() -> None:
    text = format_field(report(truth=truth()))
    told = " ".join(text.split())
    for part in (
        "7 pictures: 2 with white cells, 1 without a white cell, 1 unusable, 1 of a single cell, "
        "1 repeated and 1 rejected. 3 white cells were reached: 2 more not looked at.",
        "6 white cells: 3 accepted, 1 unsure, 1 seen before, 1 set aside.",
        "Set aside: 1 cut by the picture's border.",
        "Of 5 cells given: recall 80.0%, precision 80.0%, AP50 0.800; 1 missed, 1 false, 0 found "
        "twice.",
        "Counting error: 0.67 cells a field.",
        "Not counted: slide/d.jpg: out of focus",
        "slide/f.tif: the same field as slide/a.jpg",
        "slide/g.jpg: cannot be read (truncated): The JPEG file ends too early",
        "1 picture of a single cell: give to leuko predict.",
        "The model accepts 3 of 4 cells (75.0%)",
        "Not counted, of 6 white cells: 1 set aside, 1 repeated",
    ):
        assert part in told
    assert told.count("Research use only.") == 1
    assert max(map(len, text.splitlines())) <= 80


def test_one_cell_was_reached_and_several_were() -> None:
    assert fields_sentence(report(asked=1)).endswith(
        " 1 white cell was reached: 2 more not looked at."
    )
    assert " 200 white cells were reached" in fields_sentence(report(asked=200))


def test_where_no_cell_was_accepted_none_is_right() -> None:
    none = replace(truth(), classification=BoxClassification(4, 0.75, 0.5, 0.0, math.nan))
    (said,) = [one for one in truth_sentences(none.to_dict()) if "named rightly" in one]
    assert said.endswith("(balanced 50.0%); none is accepted.")


def test_many_refused_pictures_do_not_fill_the_terminal() -> None:
    bad = tuple(Field(f"{k}.jpg", "unusable", "no-scale") for k in range(50))
    text = format_field(report(fields=bad, differential=None))
    assert text.count(".jpg: at an unknown scale") == 20
    assert "And 30 pictures more." in text
    assert "50 pictures at an unknown scale: give together" in text


def test_without_a_cell_there_is_no_count() -> None:
    empty = report(fields=(Field("c.jpg", "no-cell"),), differential=None, left=0)
    text = format_field(empty)
    assert "1 picture: 1 without a white cell.\nNo white cell was found." in text
    assert "%" not in text
    assert "Photograph fields with white cells" in text
    assert "Research use only." in text


def test_each_trouble_has_its_step() -> None:
    assert next_steps(report(fields=fields()[:3])) == []
    steps = next_steps(report())
    assert [one.split(":")[0] for one in steps] == [
        "1 picture cannot be read", "1 picture out of focus", "1 picture of a single cell",
    ]  # fmt: skip
    for reason in ("blurred", "something-else", "no-scale"):
        bad = Field("x.jpg", "unusable", reason)
        assert status_text(bad) != reason
        assert len(next_steps(report(fields=(bad,)))) == 1
    assert status_text(Field("x.jpg", "unusable", "new-trouble")) == "new-trouble"


def test_what_was_not_measured_is_not_said() -> None:
    bare = replace(truth(), classification=None, counting_error_per_field=float("nan"), found=0,
                   missed=0, ap50=float("nan"))  # fmt: skip
    (said,) = truth_sentences(bare.to_dict())
    assert said.startswith("Of 0 cells given: recall –, precision 0.0%, AP50 –;")


def test_a_scheme_of_other_classes_is_told() -> None:
    assert field_document(report())["scheme"] == FIVE.to_dict()
