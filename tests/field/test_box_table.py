from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path

import pytest

from leuko.errors import DataError
from leuko.field.box_table import BoxTable, LabelledBox, is_white_cell


def table(*paths, root=Path("no/such/folder")):
    boxes = [LabelledBox(path, "", path, (0, 0, 1, 1)) for path in paths]
    slides = {path: f"slide of {path}" for path in paths}
    return BoxTable("boxes.csv", root, slides, tuple(boxes))


def matched(truth):
    """Path in the table by name; each box bears it for its label."""
    return {name: boxes[0].label for name, boxes in truth.boxes.items()}


def test_by_relative_path_then_by_file_name():
    truth = table("s1/a.jpg", "s2/a.jpg", "b.jpg", "s9/c.jpg", "d.jpg").match(
        ["/data/s1/a.jpg", "s2/a.jpg", "s3/a.jpg", "deep/b.jpg", "s8/c.jpg", "e.jpg"]
    )
    assert matched(truth) == {
        "/data/s1/a.jpg": "s1/a.jpg",
        "s2/a.jpg": "s2/a.jpg",
        "deep/b.jpg": "b.jpg",
        "s8/c.jpg": "s9/c.jpg",
    }
    assert truth.slides["deep/b.jpg"] == "slide of b.jpg"
    alone, unlabelled, absent = truth.notes
    assert alone == "1 picture matched by file name alone, in another folder: s8/c.jpg as s9/c.jpg."
    assert unlabelled == "2 pictures without labels in boxes.csv; not scored."
    assert absent == "1 of 5 pictures in boxes.csv not given."


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["s1/a.jpg", "s2/a.jpg", "b"], ["a.jpg", "b"]),
        (["a.jpg", "b"], ["s1/a.jpg", "s2/a.jpg", "b"]),
    ],
)
def test_what_may_be_several_is_none(paths, names):
    truth = table(*paths).match(names)
    assert matched(truth) == {"b": "b"}
    unsure = [name for name in names if name != "b"]
    assert truth.notes[0] == (
        f"{len(unsure)} picture{'s' * (len(unsure) > 1)} may be one of several pictures in "
        f"boxes.csv, and not scored: {', '.join(unsure)}."
    )


def test_other_spellings_of_one_path():
    names = ["Muñoz/Ä.JPG", r"C:\x\s1\b.jpg", "./c.jpg"]
    paths = [unicodedata.normalize("NFD", "muñoz/ä.jpg"), "s1/b.jpg", "c.jpg"]
    assert matched(table(*paths).match(names)) == dict(zip(names, paths))


def test_the_same_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = table("../s1/a.jpg", "x/s1/a.jpg", root=tmp_path / "tables")
    assert matched(here.match(["s1/a.jpg"])) == {"s1/a.jpg": "../s1/a.jpg"}
    assert matched(here.match([str(tmp_path / "s1/a.jpg")] * 2)) == {
        str(tmp_path / "s1/a.jpg"): "../s1/a.jpg"
    }


def test_the_order_does_not_matter():
    paths = ["s1/a.jpg", "s2/a.jpg", "a.jpg"]
    names = ["p/s1/a.jpg", "s2/a.jpg", "q/a.jpg"]
    expected = matched(table(*paths).match(names))
    assert expected == {"p/s1/a.jpg": "s1/a.jpg", "s2/a.jpg": "s2/a.jpg"}
    for some, others in itertools.product(*map(itertools.permutations, (paths, names))):
        assert matched(table(*some).match(others)) == expected


def test_no_picture_at_all():
    with pytest.raises(DataError, match=r"such as a\.jpg, and none of b\.jpg"):
        table("a.jpg").match(["b.jpg"])
    with pytest.raises(DataError, match="none at all"):
        table().match(["b.jpg"])
    assert table("a.jpg").match([]).boxes == {}


WHITE = (
    "|WBC|white cell|Neutrophil|smudge cell|ignore|NRBC|nucleated red cell|Nucleated_RBC"
    "|Erythroblast|unsure|reactive lymphocyte"
)
OTHER = (
    "RBC|RBCs|red_blood-cell|Red Cells|erythrocyte|Reticulocytes|Erythrozyten|platelet"
    "|Giant Platelets|PLT|thrombocytes|2_Plaquetas|Glóbulos rojos|artifact|Artefacts|debris"
    "|not-a-cell"
)


def test_what_is_a_white_cell():
    assert [label for label in WHITE.split("|") if not is_white_cell(label)] == []
    assert [label for label in OTHER.split("|") if is_white_cell(label)] == []
