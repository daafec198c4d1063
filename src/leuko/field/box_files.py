"""The files that people keep boxes in: CSV, COCO, YOLO and Pascal VOC."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

from leuko.errors import DataError
from leuko.evaluation.detection import IGNORE
from leuko.field.box_table import BoxTable, Collected, first, header_size
from leuko.imaging.decode import IMAGE_SUFFIXES
from leuko.prediction_files import unguarded
from leuko.support.files import read_text, stray_kind
from leuko.support.text import counted

__all__ = [
    "BOX_COLUMNS",
    "file_text",
    "files_below",
    "has_yolo",
    "read_coco",
    "read_csv",
    "read_voc",
    "read_yolo",
]

BOX_COLUMNS: Final = ("path", "slide", "label", "row0", "col0", "row1", "col1")
"""Of the CSV; slide and label may be lacking."""

_CORNERS: Final = BOX_COLUMNS[3:]

_YOLO_NAMES: Final = ("classes.txt", "obj.names", "predefined_classes.txt")

_KINDS: Final = ("labels", "images", "annotations", "jpegimages")
"""Folders that keep pictures and what is told of them apart."""

_UNNAMED: Final = ("WBC", "RBC", "platelet")
"""What YOLO's numbers mean where no file says it: the order of the sets of blood cells with boxes
that number white cells first (TXL-PBC; Gan and Li 2024)."""


def read_csv(path: Path, text: str) -> BoxTable:
    """Read a table of boxes, separated by commas, semicolons or tabs; see `BOX_COLUMNS`.

    A line with neither label nor corners is a picture without a white cell. With semicolons, a
    decimal comma is one.

    Parameters
    ----------
    path : Path
        The file, for messages; pictures are relative to its folder.
    text : str
        Its content.

    Returns
    -------
    BoxTable

    Raises
    ------
    DataError
        With the line, when something is no box.
    """
    collected = Collected(path, path.parent)
    for line, cells, comma in _csv_rows(path, text):
        where = f"{path}, line {line}"
        picture = collected.picture(where, unguarded(cells["path"]), slide=cells.get("slide"))
        label = unguarded(cells.get("label", ""))
        corners = [cells[name].replace(",", ".") if comma else cells[name] for name in _CORNERS]
        if label or any(corners):
            collected.box(where, picture, label, corners)
    return collected.table()


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str], bool]]:
    """Line number, cells by column, and whether a decimal comma may stand in them."""
    top = next((line for line in text.splitlines() if _is_csv_line(line)), "")
    mark = max(",;\t", key=top.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    header: list[str] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells) or (not header and not _is_csv_line(mark.join(row))):
                continue
            if not header:
                header = [cell.lower() for cell in cells]
                _check_header(path, header)
                continue
            if any(cells[len(header) :]):
                raise DataError(
                    f"{path}, line {reader.line_num}: received {len(cells)} cells for "
                    f"{len(header)} columns; quote a cell that has {mark!r} in it."
                )
            cells += [""] * (len(header) - len(cells))
            yield reader.line_num, dict(zip(header, cells, strict=False)), mark == ";"
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: it is no CSV: {error}.") from error
    if not header:
        raise DataError(f"{path} is empty; expected the columns {','.join(BOX_COLUMNS)}.")


def _is_csv_line(line: str) -> bool:
    """Whether a line is more than space, or the separator that Excel is told."""
    return bool(line.strip()) and re.fullmatch(r"sep=.", line.strip(), re.IGNORECASE) is None


def _check_header(path: Path, header: Sequence[str]) -> None:
    """Refuse a table that lacks a column, or has one twice."""
    lacking = [name for name in ("path", *_CORNERS) if name not in header]
    twice = [name for name in BOX_COLUMNS if header.count(name) > 1]
    if lacking or twice:
        what = f"lacks the column {lacking[0]}" if lacking else f"has the column {twice[0]} twice"
        raise DataError(
            f"{path} {what}; expected {','.join(BOX_COLUMNS)}, of which slide and label may be "
            f"lacking, received {','.join(header)[:200]}."
        )


def read_coco(path: Path, text: str) -> BoxTable:
    """Read COCO's JSON of instances; ``iscrowd`` is read as ``ignore``.

    Parameters
    ----------
    path, text
        See `read_csv`.

    Returns
    -------
    BoxTable

    Raises
    ------
    DataError
        With the annotation, when something is no box.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}.") from error
    images = _coco_list(path, document, "images")
    names = {
        one.get("id"): str(one.get("name")) for one in _coco_list(path, document, "categories")
    }
    collected = Collected(path, path.parent)
    pictures: dict[object, str] = {}
    for number, one in enumerate(images, 1):
        where = f"{path}, image {number}"
        if one.get("id") in pictures:
            raise DataError(f"{where}: the id {one.get('id')} comes a second time.")
        size = (one.get("height"), one.get("width"))
        known = size if all(isinstance(side, int) and side > 0 for side in size) else None
        name = str(one.get("file_name") or "")
        pictures[one.get("id")] = collected.picture(where, name, size=known)  # type: ignore[arg-type]
    for number, one in enumerate(_coco_list(path, document, "annotations"), 1):
        where = f"{path}, annotation {number} (id {one.get('id')})"
        picture, category = one.get("image_id"), one.get("category_id")
        if picture not in pictures or category not in names:
            what = "image_id" if picture not in pictures else "category_id"
            raise DataError(f"{where}: its {what}, {one.get(what)}, is not in the file.")
        label = IGNORE if one.get("iscrowd") else names[category]
        collected.box(where, pictures[picture], label, _from_corner(where, one.get("bbox")))
    return collected.table()


def _coco_list(path: Path, document: object, name: str) -> list[dict[str, Any]]:
    """One of the lists that a COCO document has."""
    found = document.get(name) if isinstance(document, dict) else None
    keys = ("id", "image_id", "category_id")
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and all(isinstance(one.get(key), int | str | None) for key in keys)
        for one in found
    ):
        raise DataError(
            f"{path} is no COCO file of instances: expected images, annotations and categories, "
            f"each a list of objects; {name} is none."
        )
    return found


def _from_corner(where: str, bbox: object) -> list[float]:
    """Corners from COCO's left, top, width and height."""
    try:
        x, y, width, height = map(float, bbox if isinstance(bbox, list) else ())
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"{where}: expected bbox [x, y, width, height], received {str(bbox)[:80]}."
        ) from None
    return [y, x, y + height, x + width]


def read_yolo(root: Path, files: Iterable[str]) -> BoxTable:
    """Read YOLO's labels: a text beside each picture, or in ``labels`` beside ``images``.

    An empty text is a picture without a white cell; a picture without a text is not labelled.
    Polygons give the box around them.

    Parameters
    ----------
    root : Path
        The folder.
    files : iterable of str
        What lies in it, see `files_below`.

    Returns
    -------
    BoxTable

    Raises
    ------
    DataError
        With the line, when something is no box; and when there is no picture for any label.
    """
    files = list(files)
    pictures = _pictures_by_key(files)
    texts = {_key(name): name for name in _texts(files)}
    keys = [key for key in texts if key in pictures]
    if not keys:
        raise DataError(
            f"{root} has no picture for any of its labels; YOLO's boxes are told in shares of "
            "their picture. Put images beside labels, or each text beside its picture."
        )
    classes = _yolo_names(root)
    collected = Collected(root, root)
    if classes is None:
        collected.notes.append(
            f"{root} has neither classes.txt nor data.yaml: 0 is taken for a white cell, 1 for a "
            "red cell and 2 for a platelet. If that is wrong, write a classes.txt with one name a "
            "line."
        )
    for key in keys:
        if len(pictures[key]) > 1:
            raise DataError(f"{root}: {texts[key]} may be of {' or '.join(pictures[key])}.")
        _read_yolo_text(collected, texts[key], pictures[key][0], classes)
    for what, lost in (
        ("a text without a picture", [texts[key] for key in texts if key not in pictures]),
        ("a picture without a text", _unused(pictures, keys)),
    ):
        if lost:
            collected.notes.append(f"{len(lost)} x {what} in {root}, passed over: {first(lost)}.")
    return collected.table()


def has_yolo(files: Iterable[str]) -> bool:
    """Whether there are texts in ``labels``, or with the name of a picture.

    Parameters
    ----------
    files : iterable of str
        See `files_below`.

    Returns
    -------
    bool
    """
    files = list(files)
    pictures = _pictures_by_key(files)
    return any(_key(one) in pictures or "labels" in one.lower().split("/") for one in _texts(files))


def _texts(files: Iterable[str]) -> list[str]:
    """Those that may be the labels of a picture."""
    return [
        name
        for name in files
        if name.lower().endswith(".txt") and Path(name).name.lower() not in _YOLO_NAMES
    ]


def _unused(pictures: Mapping[str, Sequence[str]], keys: Iterable[str]) -> list[str]:
    """Pictures that belong to none of some keys."""
    every = {name for names in pictures.values() for name in names}
    return sorted(every - {name for key in keys for name in pictures[key]})


def _pictures_by_key(files: Iterable[str]) -> dict[str, list[str]]:
    """Pictures by `_key`, and by the same with their suffix."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in files:
        if name.lower().endswith(IMAGE_SUFFIXES):
            found[_key(name)].append(name)
            found[_key(f"{name}.")].append(name)
    return found


def _key(name: str) -> str:
    """What a picture and its labels have in common: the path but for suffix and kind of folder."""
    *folders, last = name.split("/")
    kept = [folder for folder in folders if folder.lower() not in _KINDS]
    return "/".join([*kept, last.rpartition(".")[0]])


def _read_yolo_text(
    collected: Collected, name: str, picture: str, classes: Mapping[int, str] | None
) -> None:
    """Read the boxes of one picture."""
    place = collected.root / name
    size = header_size(collected.root / picture)
    if size is None:
        raise DataError(f"{collected.root / picture} cannot be read as a picture; {name} needs it.")
    path = collected.picture(str(place), picture, size=size)
    names = dict(enumerate(_UNNAMED)) if classes is None else classes
    for line, text in enumerate(file_text(place).splitlines(), 1):
        if not text.strip():
            continue
        where = f"{place}, line {line}"
        try:
            number, *values = map(float, text.split())
        except ValueError:
            number, values = -1.0, []
        # A fifth tells how sure the find was; a polygon has six or more.
        box = values[:4] if len(values) == 5 else values
        inside = all(-0.01 <= value <= 1.01 for value in box)
        if number < 0 or len(box) < 4 or len(box) % 2 or not inside:
            raise DataError(
                f"{where}: expected a class number, and centre, width and height as shares of the "
                f"picture from 0 to 1, received {text.strip()[:80]!r}."
            )
        if number not in names:
            raise DataError(
                f"{where}: the class {number:g} has no name; expected "
                f"{', '.join(f'{k} {v}' for k, v in names.items())}. Name it in classes.txt."
            )
        collected.box(where, path, names[int(number)], _from_shares(box, size))


def _from_shares(box: Sequence[float], size: tuple[int, int]) -> list[float]:
    """Corners from shares of a picture's width and height: a box, or the corners of a polygon."""
    if len(box) == 4:
        x, y, width, height = box
        across, down = [x - width / 2, x + width / 2], [y - height / 2, y + height / 2]
    else:
        across, down = [*box[::2]], [*box[1::2]]
    rows, columns = size
    return [min(down) * rows, min(across) * columns, max(down) * rows, max(across) * columns]


def _yolo_names(root: Path) -> dict[int, str] | None:
    """Names of YOLO's numbers from the files that tools write; None where there is none."""
    for folder in (root, root / "labels"):
        for name in _YOLO_NAMES:
            if (folder / name).is_file():
                lines = file_text(folder / name).rstrip().splitlines()
                return {number: line.strip() for number, line in enumerate(lines)}
    # Parts of a set, such as train and val, have one data.yaml above them.
    for place in (*sorted(root.glob("*.y*ml")), *root.parent.glob("data.y*ml")):
        if names := _yaml_names(file_text(place)):
            return names
    return None


def _yaml_names(text: str) -> dict[int, str]:
    """The entry ``names`` of a data.yaml: a list in one line or several, or numbers with names."""
    match = re.search(r"^names[ \t]*:[ \t]*(.*(?:\r?\n(?:[ \t-].*)?)*)", text, re.MULTILINE)
    entries = match[1].strip() if match else ""
    if entries.startswith(("[", "{")):
        parts = entries[1 : (entries + "]").find("}" if entries[0] == "{" else "]")].split(",")
    else:
        parts = [re.sub(r"^\s*-\s+", "", line) for line in entries.splitlines()]
    names: dict[int, str] = {}
    for part in parts:
        bare = re.sub(r"(^|\s)#.*", "", part).strip()
        number = re.match(r"(\d+)\s*:\s*", bare)
        name = bare[number.end() :] if number else bare
        if name:
            names[int(number[1]) if number else len(names)] = name.strip("\"' ")
    return names


def read_voc(root: Path, files: Iterable[str]) -> BoxTable:
    """Read Pascal VOC's XML files; ``difficult`` is read as ``ignore``.

    Parameters
    ----------
    root, files
        See `read_yolo`. XML of another kind is passed over.

    Returns
    -------
    BoxTable

    Raises
    ------
    DataError
        With the object, when something is no box; for a file that is no XML or declares entities;
        and when there is no annotation.
    """
    files = list(files)
    pictures = _pictures_by_key(files)
    collected = Collected(root, root)
    passed = []
    told: dict[str, str] = {}
    for name in files:
        if not name.lower().endswith(".xml"):
            continue
        document = _parse_xml(root / name)
        if document.tag != "annotation":
            passed.append(name)
            continue
        picture = _voc_picture(name, document, pictures)
        if picture in told:
            raise DataError(f"{root}: {told[picture]} and {name} are both of {picture}.")
        told[picture] = name
        _read_annotation(collected, root / name, picture, document)
    if not told:
        raise DataError(f"{root} has no Pascal VOC annotation: no XML file is an <annotation>.")
    if passed:
        what = f"{counted(len(passed), 'XML file')} without an annotation in {root}"
        collected.notes.append(f"{what}, passed over: {first(passed)}.")
    return collected.table()


def _voc_picture(name: str, document: ET.Element, pictures: Mapping[str, Sequence[str]]) -> str:
    """The picture of an annotation: one that is there, or else as it is told."""
    told = (document.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    own = _key(name)
    folder = own.rpartition("/")[0]
    beside = f"{folder}/{told}".strip("/")
    for key in (beside, beside.rpartition(".")[0], own):
        if len(pictures.get(key, ())) == 1:
            return pictures[key][0]
    anywhere = {one for some in pictures.values() for one in some if Path(one).name == told}
    return anywhere.pop() if len(anywhere) == 1 else beside if told else own


def _read_annotation(collected: Collected, place: Path, picture: str, document: ET.Element) -> None:
    """Read the boxes of one picture. VOC counts pixels from 1, the last one included."""
    sides = [document.findtext(f"size/{name}") or "0" for name in ("height", "width")]
    numbers = [int(side) if side.strip().isdecimal() else 0 for side in sides]
    size = (numbers[0], numbers[1]) if all(numbers) else None
    path = collected.picture(str(place), picture, size=size)
    for number, one in enumerate(document.iter("object"), 1):
        where = f"{place}, object {number}"
        corners = [one.findtext(f"bndbox/{name}") for name in ("ymin", "xmin", "ymax", "xmax")]
        try:
            top, left, bottom, right = (float(corner or "none") for corner in corners)
        except ValueError:
            raise DataError(
                f"{where}: expected a bndbox with the numbers ymin, xmin, ymax and xmax, received "
                f"{corners}."
            ) from None
        # Some tools count from 0: there is no pixel before the first.
        corners_0 = [top - 1 if top else top, left - 1 if left else left, bottom, right]
        hard = (one.findtext("difficult") or "").strip() in ("1", "true", "True")
        label = IGNORE if hard else one.findtext("name") or ""
        collected.box(where, path, label, corners_0)


def _parse_xml(place: Path) -> ET.Element:
    """Parse an XML file that declares nothing: no entity can grow or fetch anything."""
    text = file_text(place)
    if re.search(r"<!(DOCTYPE|ENTITY)", text):
        raise DataError(f"{place} has a DOCTYPE, and is refused; take that line out.")
    try:
        return ET.fromstring(text)  # noqa: S314 - nothing is declared
    except (ValueError, ET.ParseError) as error:
        raise DataError(f"{place} cannot be read as XML: {error}.") from error


def file_text(path: Path) -> str:
    """Read a text file, or say why that cannot be done.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        See `leuko.support.files.read_text`.

    Raises
    ------
    DataError
        When it is missing, forbidden or no text.
    """
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {why}.") from error


def files_below(root: Path) -> list[str]:
    """List the files below a folder, links followed once, hidden ones and thumbnails left out.

    Parameters
    ----------
    root : Path
        The folder.

    Returns
    -------
    list of str
        Relative paths with slashes, sorted.
    """
    found: list[str] = []
    visited: set[str] = set()
    for folder, inner, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            inner.clear()
            continue
        visited.add(real)
        inner[:] = sorted(name for name in inner if name[:1] != "." and not stray_kind(name))
        place = Path(folder).relative_to(root)
        found += [
            (place / name).as_posix() for name in files if name[:1] != "." and not stray_kind(name)
        ]
    return sorted(found)
