from __future__ import annotations

import json
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leuko.field import boxes
from leuko.field.report import SET_ASIDE, Field, FieldCell, FieldReport
from leuko.prediction import DECISIONS, Judgement, Prediction
from leuko.scheme import load_scheme

FIVE = load_scheme("differential-5")


def cell(box, name="Monocyte", decision="class", score=0.75):
    probabilities = np.where(np.array(FIVE.names) == name, 0.96, 0.01)
    answer = Prediction.answered("x", probabilities, "", "", Judgement(decision), FIVE)
    return FieldCell(box, score, answer)


def report(*fields):
    return FieldReport(fields, FIVE, {}, {})


RUN = report(
    Field(
        "s1/a.png",
        "ok",
        size=(60, 80),
        cells=(cell((1, 2, 30, 40)), cell((5, 50, 25, 80), "Basophil", "unsure", 0.5)),
    ),
    Field("s2/a.png", "no-cell", size=(60, 80)),
    Field("s2/torn.png", "rejected", "corrupt"),
)


def test_boxes_csv():
    assert boxes.boxes_csv(RUN) == (
        "path,slide,label,row0,col0,row1,col1\n"
        "s1/a.png,,Monocyte,1,2,30,40\n"
        "s1/a.png,,unsure,5,50,25,80\n"
        "s2/a.png,,,,,,\n"
    )


def test_a_spreadsheet_takes_no_name_for_a_formula(tmp_path):
    run = report(Field("=1+1.png", "ok", size=(60, 80), cells=(cell((1, 2, 30, 40)),)))
    text = boxes.boxes_csv(run)
    assert text.splitlines()[1] == "'=1+1.png,,Monocyte,1,2,30,40"
    (tmp_path / "boxes.csv").write_text(text)
    assert [*boxes.read_boxes(tmp_path / "boxes.csv").by_picture] == ["=1+1.png"]


def test_pictures_whose_names_lead_upwards_keep_files_of_their_own():
    cells = (cell((1, 2, 30, 40)),)
    names = ("../a/x.png", "a/x.png", "b/y.png")
    run = report(*(Field(name, "ok", size=(60, 80), cells=cells) for name in names))
    assert [*boxes.yolo(run)][1:] == [
        "labels/a/x.png.txt",
        "labels/a/x.png-2.txt",
        "labels/b/y.txt",
    ]
    assert len(boxes.voc(run)) == 3


def test_coco():
    document = boxes.coco(RUN)
    assert document["images"] == [
        {"id": 1, "file_name": "s1/a.png", "height": 60, "width": 80},
        {"id": 2, "file_name": "s2/a.png", "height": 60, "width": 80},
    ]
    assert document["annotations"][0] == {
        "id": 1, "image_id": 1, "category_id": 4, "bbox": [2, 1, 38, 29], "area": 1102,
        "iscrowd": 0, "score": 0.75,
    }  # fmt: skip
    names = {one["id"]: one["name"] for one in document["categories"]}
    assert [names[one["category_id"]] for one in document["annotations"]] == ["Monocyte", "unsure"]
    assert [*names.values()] == [*FIVE.names, *DECISIONS[1:]]


def test_yolo():
    texts = boxes.yolo(RUN)
    assert [*texts] == ["classes.txt", "labels/s1/a.txt", "labels/s2/a.txt"]
    assert texts["classes.txt"].splitlines()[3:6] == ["Monocyte", "Neutrophil", "unsure"]
    assert texts["labels/s1/a.txt"] == (
        "3 0.26250000 0.25833333 0.47500000 0.48333333\n"
        "5 0.81250000 0.25000000 0.37500000 0.33333333\n"
    )
    assert texts["labels/s2/a.txt"] == ""


def test_voc():
    documents = boxes.voc(RUN)
    assert [*documents] == ["s1/a.xml", "s2/a.xml"]
    root = ET.fromstring(documents["s1/a.xml"])
    assert [root.findtext(name) for name in ("filename", "size/width", "size/height")] == [
        "a.png",
        "80",
        "60",
    ]
    first, second = root.iter("object")
    assert (first.findtext("name"), second.findtext("name")) == ("Monocyte", "unsure")
    assert [one.text for one in first.find("bndbox")] == ["3", "2", "40", "30"]
    strange = boxes.voc(report(Field("a\x01<&.png", "no-cell", size=(9, 9))))
    assert ET.fromstring(strange["a\x01<&.xml"]).findtext("filename") == "a?<&.png"


def test_geojson():
    collections = boxes.geojson(RUN)
    assert [*collections] == ["s1/a.png", "s2/a.png"]
    first, second = collections["s1/a.png"]["features"]
    assert first == {
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[2, 1], [40, 1], [40, 30], [2, 30], [2, 1]]],
        },
        "properties": {
            "objectType": "detection",
            "name": "1",
            "classification": {"name": "Monocyte", "color": [0x8D, 0x6A, 0x9F]},
            "measurements": {"probability": 0.96, "score": 0.75},
        },
    }
    assert second["properties"]["classification"] == {"name": "unsure", "color": [128, 128, 128]}
    assert collections["s2/a.png"] == {"type": "FeatureCollection", "features": []}
    aside = FieldCell((0, 0, 9, 9), 0.5, Prediction("x", "ok", decision=SET_ASIDE))
    only = boxes.geojson(report(Field("a.png", "ok", size=(9, 9), cells=(aside,))))
    assert only["a.png"]["features"][0]["properties"]["measurements"] == {"score": 0.5}


def test_pictures_of_one_name_keep_labels_of_their_own():
    names = ["/d/s1/a.png", "/d/s1/a.jpg", "../d/s2/b.c.png", r"C:\d\s1\d.png"]
    run = report(*(Field(name, "no-cell", size=(9, 9)) for name in names))
    assert [*boxes.yolo(run)][1:] == [
        "labels/d/s1/a.png.txt",
        "labels/d/s1/a.jpg.txt",
        "labels/d/s2/b.c.txt",
        "labels/C/d/s1/d.txt",
    ]
    assert [*boxes.voc(report(run.fields[0]))] == ["a.xml"]
    assert [*boxes.yolo(report())] == ["classes.txt"]


@pytest.mark.parametrize("kind", boxes.BOX_FORMATS)
def test_no_file_is_written_outside(kind):
    names = ["/d/s1/a.png", "../d/s2/../b.png", r"C:\d\a.png", "archive.zip/a.png"]
    run = report(*(Field(name, "no-cell", size=(9, 9)) for name in names))
    files = boxes.BOX_FORMATS[kind](run)
    assert len({*files}) in (1, 4, 5)
    for name in files:
        assert not Path(name).is_absolute()
        assert not {"..", "C:"} & {*Path(name).parts}


@st.composite
def runs(draw):
    """Up to four pictures of several sizes, with cells of every class and decision."""
    fields = []
    names = ["s1/a.png", "s1/a.bmp", "s2/a.png", "s2/ü, 'b'.c.png"]
    for name in names[: draw(st.integers(1, 4))]:
        rows, columns = draw(st.integers(8, 3000)), draw(st.integers(8, 3000))
        found = {}
        for _ in range(draw(st.integers(0, 4))):
            row0, col0 = draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))
            row1, col1 = draw(st.integers(row0 + 1, rows)), draw(st.integers(col0 + 1, columns))
            decision = draw(st.sampled_from([*DECISIONS, SET_ASIDE]))
            box = (row0, col0, row1, col1)
            found[box] = cell(box, draw(st.sampled_from(FIVE.names)), decision)
        status = "ok" if found else "no-cell"
        fields.append(Field(name, status, size=(rows, columns), cells=tuple(found.values())))
    return report(*fields)


def kept(run):
    """Label and box of each cell by picture, without what is no cell at all."""
    return {
        one.name: {
            (found.answer.label or found.answer.decision, found.box)
            for found in one.cells
            if found.answer.decision != "not-a-cell"
        }
        for one in run.fields
    }


def write(folder, texts):
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.slow
@settings(derandomize=True, max_examples=40, deadline=None)
@given(runs())
def test_what_is_written_is_read_back(run):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, {"one.csv": boxes.boxes_csv(run), "one.json": json.dumps(boxes.coco(run))})
        write(folder / "voc", boxes.voc(run))
        write(folder / "yolo", boxes.yolo(run))
        whole = [one for one in boxes.yolo(run) if one != "classes.txt"]
        for one, text in zip(run.fields, whole, strict=True):
            # Where the picture belongs: beside the text, but for the folder's name.
            place = folder / "yolo/images" / Path(text).parent.relative_to("labels")
            place.mkdir(parents=True, exist_ok=True)
            Image.new("1", one.size[::-1]).save(place / Path(one.name).name)
        for place in ("one.csv", "one.json", "yolo", "voc"):
            truth = boxes.read_boxes(folder / place).match([one.name for one in run.fields])
            read = {
                name: {(one.label, one.box) for one in some} for name, some in truth.boxes.items()
            }
            assert read == kept(run), place


def test_score_fields(tmp_path):
    content = (
        "path,slide,label,row0,col0,row1,col1\n"
        "s1/a.png,S1,Monocyte,1,2,30,40\n"
        "s1/a.png,S1,Neutrophil,5,52,25,80\n"
        "s2/a.png,S2,ignore,0,0,9,9\n"
        "s2/torn.png,S2,Monocyte,0,0,9,9\n"
        "s3/never.png,S3,Monocyte,0,0,9,9\n"
    )
    (tmp_path / "boxes.csv").write_text(content, encoding="utf-8")
    table = boxes.read_boxes(tmp_path / "boxes.csv")
    truth = table.match([*(one.name for one in RUN.fields), "s3/never.png"])
    scored = boxes.score_fields(RUN.fields, truth, FIVE)
    assert (scored.fields, scored.recall, scored.precision) == (2, 1.0, 1.0)
    assert [*scored.by_slide] == ["S1", "S2"]
    assert scored.classification.accuracy == 0.5
    assert scored.classification.accepted == 0.5
