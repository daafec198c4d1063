"""Boxes in and out: what people drew with other programs, and what a run found, for these."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

from leuko.errors import DataError
from leuko.evaluation.detection import DetectionReport, score_boxes
from leuko.field.box_files import (
    BOX_COLUMNS,
    file_text,
    files_below,
    has_yolo,
    read_coco,
    read_csv,
    read_voc,
    read_yolo,
)
from leuko.field.box_table import BoxTable, LabelledBox, Truth
from leuko.field.report import Field, FieldCell, FieldReport
from leuko.prediction import DECISIONS
from leuko.prediction_files import csv_line, guarded
from leuko.scheme import ClassScheme
from leuko.support.artifacts import json_text

__all__ = [
    "BOX_FORMATS",
    "BoxTable",
    "LabelledBox",
    "Truth",
    "boxes_csv",
    "coco",
    "geojson",
    "read_boxes",
    "score_fields",
    "voc",
    "yolo",
]

_UNACCEPTED: Final = DECISIONS[1:]

_GREY: Final = "#808080"

_NOT_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read_boxes(place: str | os.PathLike[str]) -> BoxTable:
    """Read the boxes that a person drew, whatever program kept them.

    Corners that are no whole numbers go to the nearest pixel; a box that reaches beyond its picture
    is cut. Boxes of red cells, platelets and artefacts are left out. The notes say so.

    Parameters
    ----------
    place : path-like
        A CSV with the columns ``path,slide,label,row0,col0,row1,col1`` (slide and label may be
        lacking), a COCO JSON, one Pascal VOC XML; or a folder with a ``boxes.csv``, with VOC's XML
        files, with YOLO's texts beside its pictures, or with one JSON. A ``data.yaml`` means its
        folder.

    Returns
    -------
    BoxTable

    Raises
    ------
    DataError
        When it cannot be read, with the file, the line, what was expected and what was received.
    """
    path = Path(os.path.expanduser(place))
    if path.suffix.lower() in (".yaml", ".yml"):
        path = path.parent
    if path.is_dir():
        return _read_folder(path)
    text = file_text(path)
    start = text.lstrip()[:1]
    if start == "<":
        return read_voc(path.parent, [path.name])
    return read_coco(path, text) if start in ("{", "[") else read_csv(path, text)


def _read_folder(root: Path) -> BoxTable:
    """Read what a folder has; labels alone are read with the images beside them."""
    if root.name.lower() == "labels" and (root.parent / "images").is_dir():
        root = root.parent
    files = files_below(root)
    documents = [name for name in files if name.lower().endswith(".json")]
    has_voc, in_yolo = any(name.lower().endswith(".xml") for name in files), has_yolo(files)
    if "boxes.csv" in files:
        return read_csv(root / "boxes.csv", file_text(root / "boxes.csv"))
    if has_voc and in_yolo:
        raise DataError(f"{root} has both XML files and YOLO's labels; keep those that are meant.")
    if has_voc:
        return read_voc(root, files)
    if in_yolo:
        return read_yolo(root, files)
    if len(documents) == 1:
        return read_coco(root / documents[0], file_text(root / documents[0]))
    raise DataError(
        f"{root} has no boxes that can be read: expected boxes.csv, YOLO's labels beside images, "
        f"Pascal VOC's XML, or one COCO JSON; received {len(documents)} JSON files."
    )


def score_fields(fields: Sequence[Field], truth: Truth, scheme: ClassScheme) -> DetectionReport:
    """Compare the cells of a run with the boxes that a person drew.

    Parameters
    ----------
    fields : sequence of Field
        Those that were looked at. Every cell is a find, whatever was decided on it; pictures that
        were rejected, or have the status ``repeated``, are left out.
    truth : Truth
        Of these pictures.
    scheme : ClassScheme
        Of the answers.

    Returns
    -------
    DetectionReport
    """
    seen = [one for one in fields if one.status not in ("rejected", "repeated")]
    return score_boxes(
        {one.name: one.cells for one in seen},
        {one.name: truth.boxes[one.name] for one in seen if one.name in truth.boxes},
        slides=truth.slides,
        scheme=scheme,
    )


def _told(report: FieldReport) -> Iterator[Field]:
    """Pictures that something can be told of; of others, no boxes would mean no cells."""
    return (one for one in report.fields if one.status in ("ok", "no-cell") or one.cells)


def _names(report: FieldReport) -> list[str]:
    """What boxes may be labelled with: classes, then the decisions on answers not accepted."""
    return [*report.scheme.names, *_UNACCEPTED]


def _label(cell: FieldCell) -> str:
    """The class where it is accepted, else what was decided."""
    return cell.answer.label or cell.answer.decision


def boxes_csv(report: FieldReport) -> str:
    """Give the boxes of a run as the CSV that `read_boxes` reads.

    Parameters
    ----------
    report : FieldReport
        Any.

    Returns
    -------
    str
        Header and one line a box, or a picture without a cell. The label is the class where it is
        accepted, else the decision: so it is in all that this module writes.
    """
    lines = [csv_line(BOX_COLUMNS)]
    for one in _told(report):
        lines += [
            csv_line([guarded(one.name), "", guarded(_label(cell)), *map(str, cell.box)])
            for cell in one.cells
        ] or [csv_line([guarded(one.name), *[""] * 6])]
    return "".join(lines)


def coco(report: FieldReport) -> dict[str, Any]:
    """Give the boxes of a run as COCO's JSON of instances.

    Parameters
    ----------
    report : FieldReport
        Any.

    Returns
    -------
    dict
        ``images``, ``annotations`` (``score`` is the detector's) and ``categories``; ids count
        from 1, and those of annotations are the numbers of the cells.
    """
    names = _names(report)
    told = {one.name: number for number, one in enumerate(_told(report), 1)}
    images = [
        {"id": number, "file_name": one.name, "height": one.size[0], "width": one.size[1]}
        for number, one in enumerate(_told(report), 1)
    ]
    annotations = []
    for number, (one, cell) in enumerate(report.cells, 1):
        row0, col0, row1, col1 = cell.box
        width, height = col1 - col0, row1 - row0
        annotations.append(
            {
                "id": number,
                "image_id": told[one.name],
                "category_id": 1 + names.index(_label(cell)),
                "bbox": [col0, row0, width, height],
                "area": width * height,
                "iscrowd": 0,
                "score": cell.score,
            }
        )
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def yolo(report: FieldReport) -> dict[str, str]:
    """Give the boxes of a run as YOLO's texts.

    Parameters
    ----------
    report : FieldReport
        Any.

    Returns
    -------
    dict of str to str
        ``classes.txt``, and a text for each picture in ``labels``, by file name. The pictures
        belong into ``images`` beside it.
    """
    names = _names(report)
    texts = {"classes.txt": "".join(f"{name}\n" for name in names)}
    for one, name in _placed(report, ".txt"):
        lines = []
        for cell in one.cells:
            row0, col0, row1, col1 = cell.box
            rows, columns = one.size
            shares = (
                (col0 + col1) / 2 / columns,
                (row0 + row1) / 2 / rows,
                (col1 - col0) / columns,
                (row1 - row0) / rows,
            )
            told = " ".join(f"{share:.8f}" for share in shares)
            lines.append(f"{names.index(_label(cell))} {told}\n")
        texts[f"labels/{name}"] = "".join(lines)
    return texts


def voc(report: FieldReport) -> dict[str, str]:
    """Give the boxes of a run as Pascal VOC's XML.

    Parameters
    ----------
    report : FieldReport
        Any.

    Returns
    -------
    dict of str to str
        A document for each picture, by file name. Pixels count from 1, the last one included.
    """
    documents = {}
    for one, name in _placed(report, ".xml"):
        root = ET.Element("annotation")
        _element(root, "filename", _parts(one.name)[-1])
        size = _element(root, "size")
        for side, value in (("width", one.size[1]), ("height", one.size[0]), ("depth", 3)):
            _element(size, side, value)
        for cell in one.cells:
            found = _element(root, "object")
            _element(found, "name", _label(cell))
            _element(found, "difficult", 0)
            box = _element(found, "bndbox")
            row0, col0, row1, col1 = cell.box
            corners = {"xmin": col0 + 1, "ymin": row0 + 1, "xmax": col1, "ymax": row1}
            for corner, value in corners.items():
                _element(box, corner, value)
        ET.indent(root)
        documents[name] = ET.tostring(root, encoding="unicode") + "\n"
    return documents


def _element(parent: ET.Element, name: str, value: object = "") -> ET.Element:
    """Add an element; characters that XML has none for become question marks."""
    child = ET.SubElement(parent, name)
    child.text = _NOT_XML.sub("?", str(value)) or None
    return child


def geojson(report: FieldReport) -> dict[str, dict[str, Any]]:
    """Give the boxes of a run as GeoJSON for QuPath.

    Parameters
    ----------
    report : FieldReport
        Any.

    Returns
    -------
    dict of str to dict
        A FeatureCollection of rectangles by picture: detections with class and colour, named by
        the number of the cell.
    """
    colours = {one.name: one.colour for one in report.scheme.classes}
    collections: dict[str, dict[str, Any]] = {
        one.name: {"type": "FeatureCollection", "features": []} for one in _told(report)
    }
    for number, (one, cell) in enumerate(report.cells, 1):
        row0, col0, row1, col1 = cell.box
        corners = [(col0, row0), (col1, row0), (col1, row1), (col0, row1), (col0, row0)]
        name = _label(cell)
        colour = bytes.fromhex(colours.get(name, _GREY)[1:])
        collections[one.name]["features"].append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[[*c] for c in corners]]},
                "properties": {
                    "objectType": "detection",
                    "name": str(number),
                    "classification": {"name": name, "color": [*colour]},
                    "measurements": _known(probability=cell.answer.confidence, score=cell.score),
                },
            }
        )
    return collections


def _qupath(report: FieldReport) -> dict[str, str]:
    """GeoJSON's texts, by file name."""
    found = geojson(report)
    return {name: json_text(found[one.name]) for one, name in _placed(report, ".geojson")}


def _known(**values: float) -> dict[str, float]:
    """Those that are numbers."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _placed(report: FieldReport, suffix: str) -> list[tuple[Field, str]]:
    """Pictures with the file names of their labels: without the folders that all have in common."""
    fields = list(_told(report))
    parts = [_parts(one.name) for one in fields]
    levels = zip(*(one[:-1] for one in parts), strict=False)
    shared = len(list(takewhile(lambda level: len({*level}) == 1, levels)))
    whole = ["/".join(one[shared:]) for one in parts]
    stems = [name.removesuffix(Path(name).suffix) for name in whole]
    chosen = [
        stem if stems.count(stem) == 1 else name for name, stem in zip(whole, stems, strict=True)
    ]
    # Folders that lead upwards are left out, so two pictures may still share a name.
    before = [chosen[:place].count(name) for place, name in enumerate(chosen)]
    return [
        (one, f"{name}-{earlier + 1}{suffix}" if earlier else name + suffix)
        for one, name, earlier in zip(fields, chosen, before, strict=True)
    ]


def _parts(name: str) -> list[str]:
    """Folders and file name, none of which leads out of a folder."""
    return [part for part in re.split(r"[/\\:]", name) if part not in ("", ".", "..")] or [
        "picture"
    ]


BOX_FORMATS: Final[dict[str, Callable[[FieldReport], Mapping[str, str]]]] = {
    "csv": lambda report: {"boxes.csv": boxes_csv(report)},
    "coco": lambda report: {"coco.json": json_text(coco(report))},
    "yolo": yolo,
    "voc": voc,
    "qupath": _qupath,
}
"""What writes the boxes of a run in each format: texts by the name of their file."""
