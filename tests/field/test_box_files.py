from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from leuko.errors import DataError
from leuko.field.boxes import LabelledBox, read_boxes


def picture(path, rows=60, columns=80, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (columns, rows), "white").save(path, **how)


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(place, *words):
    with pytest.raises(DataError) as caught:
        read_boxes(place)
    for word in words:
        assert word in str(caught.value)
    assert str(caught.value).endswith(".")


HEADER = "path,slide,label,row0,col0,row1,col1\n"


# CSV


def test_a_table_as_it_should_be(tmp_path):
    table = read_boxes(
        written(
            tmp_path / "boxes.csv",
            HEADER + "s1/a.jpg,S1,Neutrophil,1,2,30,40\n"
            "s1/a.jpg,S1,Ignore,5,6,7,8\n"
            "s1/b.jpg,S1,,,,,\n",
        )
    )
    assert table.boxes == (
        LabelledBox("s1/a.jpg", "S1", "Neutrophil", (1, 2, 30, 40)),
        LabelledBox("s1/a.jpg", "S1", "ignore", (5, 6, 7, 8)),
    )
    assert table.pictures == {"s1/a.jpg": "S1", "s1/b.jpg": "S1"}
    assert table.by_picture["s1/b.jpg"] == ()
    assert table.notes == ()


ONE = (LabelledBox("é,1.jpg", "", "Basophil", (1, 2, 30, 40)),)


@pytest.mark.parametrize(
    "content",
    [
        'row0,col0,row1,col1,PATH , label,who\r\n1,2,30,40,"é,1.jpg", Basophil ,me\r\n'.encode(),
        'path;label;row0;col0;row1;col1\né,1.jpg;Basophil;0,6;2,4;29,5;40,0\n'.encode(),
        'sep=;\n\n"path";"label";"row0";"col0";"row1";"col1"\n"é,1.jpg";Basophil;1;2;30;40\n\n;;;;;\n'.encode(),
        "path\tlabel\trow0\tcol0\trow1\tcol1\textra\né,1.jpg\tBasophil\t1.0\t2\t3e1\t40".encode("utf-8-sig"),
        "path\tlabel\trow0\tcol0\trow1\tcol1\ré,1.jpg\tBasophil\t1\t2\t30\t40\r".encode("utf-16"),
    ],
    ids=["order, CRLF, quotes", "semicolons", "Excel's separator", "tabs, mark", "UTF-16, CR"],
)  # fmt: skip
def test_tables_as_people_write_them(tmp_path, content):
    assert read_boxes(written(tmp_path / "b.csv", content)).boxes == ONE


def test_labels_and_slides_may_be_lacking(tmp_path):
    content = "path,row0,col0,row1,col1\nS04_1.jpg,1,2,3,4\nb.jpg,,,,\n"
    table = read_boxes(written(tmp_path / "b.csv", content))
    assert table.boxes == (LabelledBox("S04_1.jpg", "S04", "", (1, 2, 3, 4)),)
    assert table.pictures == {"S04_1.jpg": "S04", "b.jpg": ""}
    content = "path,slide,row0,col0,row1,col1\na.jpg,S1,1,2,3,4\na.jpg,,2,2,4,4\n"
    table = read_boxes(written(tmp_path / "b.csv", content))
    assert [one.slide for one in table.boxes] == ["S1", "S1"]


def test_paths_are_relative_to_the_table_where_something_is_there(tmp_path):
    picture(tmp_path / "in" / "a.png")
    lines = [
        f"{tmp_path / 'in' / 'a.png'},,x,0,0,1,1",
        r"in\a.png,,x,0,0,2,2",
        "./in/a.png,,x,0,0,3,3",
        r"C:\data\b.png,,x,0,0,4,4",
    ]
    table = read_boxes(written(tmp_path / "t" / ".." / "b.csv", HEADER + "\n".join(lines)))
    assert [one.path for one in table.boxes] == [*["in/a.png"] * 3, "C:/data/b.png"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("a.jpg,,x,1,2,3", ["line 2", "four finite numbers", "1, 2, 3, nothing"]),
        ("a.jpg,,Neutrophil,,,,", ["line 2", "four finite numbers"]),
        ("\na.jpg,,x,1,2,three,4", ["line 3", "three"]),
        ("a.jpg,,x,1,2,nan,4", ["finite", "nan"]),
        ("a.jpg,,x,1,2,inf,4", ["finite", "inf"]),
        ("a.jpg,,x,1,2,1e8,4", ["as large"]),
        ("a.jpg,,x,3,2,1,4", ["(3, 2, 1, 4)", "swapped"]),
        ("a.jpg,,x,1,2,1,4", ["empty"]),
        ("a.jpg,,x,1,2,1.4,4", ["empty"]),
        ("a.jpg,,x,-9,2,-1,4", ["outside"]),
        (",,x,1,2,3,4", ["line 2", "no path"]),
        ("a.jpg,S1,,,,,\na.jpg,S2,,,,,", ["line 3", "'S2'", "'S1'"]),
        ("a.jpg,,x,1,2,3,4\na.jpg,,y,1,2,3,4", ["line 3", "line 2", " y", " x"]),
        ("a.jpg,,x,1,5,2,3,4,5", ["line 2", "9 cells", "7 columns"]),
        ('"a.jpg,,x,1,2,3,4', ["no CSV"]),
    ],
)
def test_lines_that_are_no_boxes(tmp_path, lines, words):
    refused(written(tmp_path / "b.csv", HEADER + lines), "b.csv", *words)


def test_tables_that_are_none(tmp_path):
    refused(tmp_path / "none.csv", "none.csv", "No such file")
    refused(written(tmp_path / "b.csv", ""), "empty", "row0")
    refused(written(tmp_path / "b.csv", "path,row0,col0,row1\n"), "lacks the column col1")
    refused(written(tmp_path / "b.csv", "path," + HEADER), "path twice")
    refused(written(tmp_path / "b.csv", b"\xff\xfe\xfa"), "b.csv", "UTF-16")
    assert read_boxes(written(tmp_path / "b.csv", HEADER)).pictures == {}


def test_what_is_said_of_boxes_that_are_changed_or_left_out(tmp_path):
    picture(tmp_path / "a.png")
    lines = [
        "a.png,,WBC,50,70,61,81",
        "a.png,,WBC,-1,0,9,9",
        "a.png,,WBC,1,1,9,9",
        "a.png,,wbc ,10,10,20,20",
        "a.png,,WBC,1,1,9,9",
        *[f"a.png,,RBC,{k},0,{k + 5},9" for k in range(3)],
        "a.png,,Platelets,0,0,5,5",
    ]
    table = read_boxes(written(tmp_path / "b.csv", HEADER + "\n".join(lines)))
    boxes = [(50, 70, 60, 80), (0, 0, 9, 9), (1, 1, 9, 9), (10, 10, 20, 20)]
    assert [one.box for one in table.boxes] == boxes
    left_out, twice, cut = table.notes
    assert "3 x RBC and 1 x Platelets" in left_out
    assert twice.startswith("1 duplicate in ")
    assert cut.endswith("b.csv, line 2, " + str(tmp_path / "b.csv, line 3."))
    refused(written(tmp_path / "b.csv", HEADER + "a.png,,x,1,80,9,90"), "60 rows and 80 columns")


# COCO

IMAGE = {"id": 7, "file_name": "a.png", "width": 80, "height": 60}
BOX = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10.4, 20, 30, 15.5]}
CATEGORIES = [{"id": 3, "name": "Eosinophil"}, {"id": 4, "name": "RBC"}]


def coco(place, annotations, images=(IMAGE, IMAGE | {"id": "b", "file_name": "b.png"})):
    document = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    return written(place / "instances.json", json.dumps(document).encode("utf-8-sig"))


def test_coco(tmp_path):
    place = coco(
        tmp_path, [BOX, BOX | {"bbox": [0, 0, 9, 9], "iscrowd": 1}, BOX | {"category_id": 4}]
    )
    table = read_boxes(place)
    assert table.boxes == (
        LabelledBox("a.png", "", "Eosinophil", (20, 10, 36, 40)),
        LabelledBox("a.png", "", "ignore", (0, 0, 9, 9)),
    )
    assert table.by_picture["b.png"] == ()
    assert read_boxes(tmp_path).boxes == table.boxes
    picture(tmp_path / "b.png", 30, 40)
    refused(place, "b.png with 60 rows and 80 columns", "30 and 40")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bbox": [1, 2, 3]}, ["annotation 1 (id 1)", "[x, y, width, height]", "[1, 2, 3]"]),
        ({"bbox": None}, ["received None"]),
        ({"bbox": ["one", 2, 3, 4]}, ["received ['one', 2, 3, 4]"]),
        ({"bbox": "1234"}, ["received 1234"]),
        ({"bbox": [1, 2, 0, 4]}, ["annotation 1", "empty"]),
        ({"bbox": [1, 2, float("nan"), 4]}, ["finite"]),
        ({"bbox": [1.5, 2, 10**90, 4]}, ["no picture is as large"]),
        ({"bbox": [1.5, 2, 10**400, 4]}, ["received [1.5, 2, 1000"]),
        ({"bbox": [90, 2, 3, 4]}, ["outside of a.png of 60 rows"]),
        ({"image_id": 8}, ["image_id, 8,"]),
        ({"category_id": None}, ["category_id, None,"]),
        ({"image_id": [8]}, ["annotations is none"]),
    ],
)
def test_annotations_that_are_no_boxes(tmp_path, change, words):
    refused(coco(tmp_path, [BOX | change]), "instances.json", *words)


def test_documents_that_are_no_coco(tmp_path):
    refused(coco(tmp_path, [], [IMAGE, IMAGE]), "image 2", "id 7", "second time")
    refused(coco(tmp_path, [], [IMAGE | {"file_name": None}]), "image 1", "no path")
    refused(coco(tmp_path, [], {}), "no COCO file", "images")
    refused(written(tmp_path / "c.json", "[1]"), "no COCO file")
    refused(written(tmp_path / "c.json", '{"images": []'), "cannot be read as JSON")
    refused(written(tmp_path / "c.json", "[" * 100_000), "cannot be read as JSON")


# YOLO


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images/", "labels/"), ("", ""), ("images/x/", "labels/x/"), ("x/images/", "x/labels/")],
)
def test_yolo(tmp_path, images, labels):
    picture(tmp_path / f"{images}a.b.PNG", 200, 100)
    picture(tmp_path / f"{images}c.jpg", 10, 10)
    picture(tmp_path / f"{images}d.jpg", 10, 10)
    text = "0 0.5 0.5 0.2 0.1\r\n\r\n1.0 0.5 0.5 0.1 0.1 0.93\r\n0 0.1 0.1 0.3 0.2 0.2 0.7\r\n"
    written(tmp_path / f"{labels}a.b.txt", text)
    written(tmp_path / f"{labels}c.txt", "")
    written(tmp_path / "classes.txt", "\ufeffBand\r\nplatelet\r\n")
    table = read_boxes(tmp_path)
    assert [(one.label, one.box) for one in table.boxes] == [
        ("Band", (90, 40, 110, 60)),
        ("Band", (20, 10, 140, 30)),
    ]
    assert [*table.pictures] == [f"{images}a.b.PNG", f"{images}c.jpg"]
    assert "1 x platelet" in table.notes[1]
    assert table.notes[0].startswith("1 x a picture without a text")


def test_yolo_sizes_are_those_of_the_upright_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "a.jpg", 100, 200, exif=exif)
    written(tmp_path / "a.txt", "0 0.5 0.5 1 0.5")
    written(tmp_path / "classes.txt", "WBC")
    assert [one.box for one in read_boxes(tmp_path).boxes] == [(50, 0, 150, 100)]


@pytest.mark.parametrize(
    "names",
    [
        "nc: 2\nnames: ['RBC', \"Monocyte\"]  # two\n",
        "names:\n  0: RBC\n\n  1: 'Monocyte' # so\nnc: 2\n",
        "names:\n- RBC\n- Monocyte\ntrain: x\n",
        "names: [RBC,\n  Monocyte]\n",
        "names: {1: Monocyte, 0: RBC}\r\nnc: 2\r\n",
    ],
)
def test_names_in_a_data_yaml(tmp_path, names):
    picture(tmp_path / "train/images/a.png", 100, 100)
    written(tmp_path / "train/labels/a.txt", "1 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n")
    place = written(tmp_path / "data.yaml", names)
    for given in (place, tmp_path, tmp_path / "train", tmp_path / "train/labels"):
        assert [one.label for one in read_boxes(given).boxes] == ["Monocyte"]


def test_yolo_numbers_without_names_are_told(tmp_path):
    picture(tmp_path / "a.png")
    written(tmp_path / "a.txt", "0 0.5 0.5 0.2 0.2\n")
    table = read_boxes(tmp_path)
    assert [one.label for one in table.boxes] == ["WBC"]
    assert "neither classes.txt nor data.yaml" in table.notes[0]
    written(tmp_path / "a.txt", "0 0.5 0.5 0.2 0.2\n3 0.5 0.5 0.2 0.2\n")
    refused(tmp_path, "a.txt, line 2", "class 3", "0 WBC, 1 RBC, 2 platelet")


@pytest.mark.parametrize(
    "line",
    [
        "0 0.5 0.5 0.2",
        "0 0.5 0.5 nan 0.2",
        "0 50 50 20 20",
        "0 .1 .1 .2 .2 .3 .3 .4",
        "-1 .5 .5 .1 .1",
        "white 0.5",
    ],
)
def test_yolo_lines_that_are_no_boxes(tmp_path, line):
    picture(tmp_path / "a.png")
    written(tmp_path / "a.txt", f"\n{line}\n")
    refused(tmp_path, "a.txt, line 2", "shares", line)


def test_yolo_without_pictures(tmp_path):
    written(tmp_path / "labels/a.txt", "0 0.5 0.5 0.2 0.2\n")
    refused(tmp_path, "no picture for any of its labels")
    picture(tmp_path / "images/b.png")
    written(tmp_path / "labels/b.txt", "")
    table = read_boxes(tmp_path)
    assert table.pictures == {"images/b.png": ""}
    assert table.notes[-1].startswith("1 x a text without a picture")
    picture(tmp_path / "images/b.jpg")
    refused(tmp_path, "labels/b.txt may be of images/b.jpg or images/b.png")
    written(tmp_path / "images/b.jpg", "")
    (tmp_path / "images/b.png").unlink()
    refused(tmp_path, "b.jpg cannot be read as a picture")


@pytest.mark.data
def test_the_real_fields():
    root = Path(os.environ.get("LEUKO_DATA", "no such folder")) / "fields"
    if not root.is_dir():
        pytest.skip("LEUKO_DATA does not point to a folder with fields")
    table = read_boxes(root)
    assert (len(table.pictures), len(table.boxes)) == (88, 92)
    first = "images/0254dbc1-2cdb-5660-9638-0e96c5330a83.jpg"
    # 0.480769 0.288462 0.461538 0.346154 of 416 x 416
    assert table.by_picture[first] == (LabelledBox(first, "", "WBC", (48, 104, 192, 296)),)


# Pascal VOC


def annotation(*objects, filename="a.png", size=(60, 80)):
    told = "".join(
        f"<object><name>{name}</name>{more}<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1), more in objects
    )
    return (
        f"<annotation><filename>{filename}</filename><size><width>{size[1]}</width>"
        f"<height>{size[0]}</height><depth>3</depth></size>{told}</annotation>"
    )


def test_voc(tmp_path):
    picture(tmp_path / "JPEGImages/a.png")
    content = annotation(
        ("Lymphocyte &amp; co", (1, 2, 80, 60), ""),
        ("Lymphocyte", (0, 0, 9.6, 9), "<difficult>1</difficult>"),
        ("Platelets", (3, 3, 9, 9), "<part><bndbox/></part>"),
    )
    written(tmp_path / "Annotations/a.xml", '<?xml version="1.0" encoding="utf-8"?>\n' + content)
    written(tmp_path / "Annotations/b.xml", annotation(filename=r"C:\x\b.jpg", size=(0, 0)))
    written(tmp_path / "ImageSets/Main/val.txt", "a\nb\n")
    written(tmp_path / "camera.xml", "<metadata/>")
    table = read_boxes(tmp_path)
    assert table.boxes == (
        LabelledBox("JPEGImages/a.png", "", "Lymphocyte & co", (1, 0, 60, 80)),
        LabelledBox("JPEGImages/a.png", "", "ignore", (0, 0, 9, 10)),
    )
    assert table.by_picture["b.jpg"] == ()
    assert table.notes[0].startswith("1 XML file without an annotation")
    one = read_boxes(tmp_path / "Annotations/a.xml")
    assert [box.path for box in one.boxes] == ["a.png", "a.png"]


def test_pictures_of_annotations(tmp_path):
    for name in ("s1/a.png", "s2/a.png", "s2/c.png", "pictures/d.png"):
        picture(tmp_path / name)
    written(tmp_path / "s1/a.xml", annotation(filename="a.png"))
    written(tmp_path / "s2/a.xml", annotation(filename="a"))
    written(tmp_path / "s2/c.xml", annotation(filename="renamed.png"))
    written(tmp_path / "xml/d.xml", annotation(filename="d.png"))
    written(tmp_path / "xml/e.xml", annotation(filename=""))
    expected = ["s1/a.png", "s2/a.png", "s2/c.png", "pictures/d.png", "xml/e"]
    assert [*read_boxes(tmp_path).pictures] == expected
    written(tmp_path / "xml/f.xml", annotation(filename="d.png"))
    refused(tmp_path, "xml/d.xml and xml/f.xml are both of pictures/d.png")


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
    "<annotation><filename>&b;</filename></annotation>"
)
FETCHED = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (BOMB, ["DOCTYPE", "refused"]),
        (FETCHED, ["DOCTYPE", "refused"]),
        (BOMB.encode("utf-16"), ["DOCTYPE", "refused"]),
        ("<annotation>", ["cannot be read as XML"]),
        ("<annotation>&a;</annotation>", ["cannot be read as XML"]),
        (b"<annotation>\xe9</annotation>", ["UTF-8"]),
        ("<html/>", ["no Pascal VOC annotation"]),
        ("<annotation><object/></annotation>", ["object 1", "bndbox", "None"]),
        (annotation(("x", (1, "a", 3, 4), "")), ["object 1", "'a'"]),
        (annotation(("x", (1, "nan", 3, 4), "")), ["object 1", "finite"]),
        (annotation(("x", (1, 5, 3, 3), "")), ["object 1", "swapped"]),
        (annotation(("x", (99, 5, 120, 9), "")), ["object 1", "outside of a.png of 60 rows"]),
    ],
)
def test_annotations_that_are_refused(tmp_path, content, words):
    refused(written(tmp_path / "a.xml", content), str(tmp_path), *words)
    refused(tmp_path, str(tmp_path), *words)


# Folders


def test_folders(tmp_path):
    refused(tmp_path, "no boxes that can be read", "0 JSON files")
    picture(tmp_path / "images/a.png")
    written(tmp_path / "labels/a.txt", "")
    written(tmp_path / "a.xml", annotation())
    refused(tmp_path, "both XML files and YOLO's labels")
    written(tmp_path / "boxes.csv", HEADER + "images/a.png,,x,0,0,1,1")
    assert [one.label for one in read_boxes(tmp_path).boxes] == ["x"]


def test_links_are_followed_once_and_thumbnails_passed_over(tmp_path):
    picture(tmp_path / "elsewhere/a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/again").symlink_to(tmp_path / "elsewhere")
    picture(tmp_path / "set/@eaDir/a.png")
    written(tmp_path / "set/labels/a.txt", "")
    written(tmp_path / "set/labels/._a.txt", b"\0\1")
    assert [*read_boxes(tmp_path / "set").pictures] == ["images/a.png"]
