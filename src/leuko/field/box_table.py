"""Boxes that people drew: what was labelled in which picture, and which picture that is."""

from __future__ import annotations

import math
import os
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from leuko.cells.detector import Box
from leuko.errors import DataError
from leuko.evaluation.detection import IGNORE
from leuko.manifest import slide_of
from leuko.support.files import find_listed
from leuko.support.text import counted, listed

__all__ = ["BoxTable", "Collected", "LabelledBox", "Truth", "first", "header_size", "is_white_cell"]

_OTHER: Final = re.compile(
    r"(?<!nucleated )\b(rbcs?|red (blood )?(cell|corpuscle)s?|(erythro|reticulo)(cyte|zyt)\w*"
    r"|eritrocitos?|hemat[ií]es?|gl[oó]bulos? rojos?"
    r"|(giant )?platelets?|plt|thrombo(cyte|zyt)\w*|plaquetas?"
    r"|arte?facts?|debris|background|not a cell)\b"
)
"""Words for what is no white cell. An erythroblast is one here: it has a nucleus to be found."""

_LARGEST: Final = 10_000_000
"""Rows or columns that no picture exceeds."""


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A white cell that a person marked.

    Attributes
    ----------
    path : str
        Of the picture, with slashes; relative to the table's folder where it lies there.
    slide : str
        Empty when unknown.
    label : str
        As it was written; ``ignore`` for what is neither a miss nor a find, empty where the class
        was not told.
    box : (int, int, int, int)
        (row0, col0, row1, col1), half-open, in pixels of the original, within it and not empty.
    """

    path: str
    slide: str
    label: str
    box: Box


@dataclass(frozen=True)
class Truth:
    """Boxes of pictures as a run names them.

    Attributes
    ----------
    boxes : dict of str to tuple of LabelledBox
        By name; empty for a picture without a white cell. A picture that nobody labelled is absent.
    slides : dict of str to str
        By name; empty where it is unknown.
    notes : tuple of str
        What a person should know of the matching.
    """

    boxes: Mapping[str, tuple[LabelledBox, ...]]
    slides: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoxTable:
    """Labelled pictures and their boxes.

    Attributes
    ----------
    place : str
        The file or folder, for messages.
    root : Path
        What paths are relative to.
    pictures : dict of str to str
        Slide by path, of every labelled picture, those without a white cell among them.
    boxes : tuple of LabelledBox
        In the order of the file.
    notes : tuple of str
        What a person should know of the reading.
    """

    place: str
    root: Path
    pictures: Mapping[str, str]
    boxes: tuple[LabelledBox, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def by_picture(self) -> dict[str, tuple[LabelledBox, ...]]:
        """Boxes by path, of every labelled picture."""
        found: dict[str, list[LabelledBox]] = {path: [] for path in self.pictures}
        for one in self.boxes:
            found[one.path].append(one)
        return {path: tuple(boxes) for path, boxes in found.items()}

    def match(self, names: Sequence[str]) -> Truth:
        """Find the boxes of pictures.

        Two paths mean one picture when they lead to the same file; else those that have most in
        common from the end: folders and file name, or the file name alone. Of equal ones, none is
        taken. Case and the form of accents do not matter.

        Parameters
        ----------
        names : sequence of str
            Paths of pictures, as the user gave them.

        Returns
        -------
        Truth

        Raises
        ------
        DataError
            When no picture has a label.
        """
        nearest = _nearest(names, self.pictures, self.root)
        back = _nearest(self.pictures, dict.fromkeys(names), self.root, turned=True)
        pairs = {
            name: paths[0]
            for name, paths in nearest.items()
            if len(paths) == 1 and back[paths[0]] == [name]
        }
        if names and not pairs:
            other = next(iter(self.pictures), "none at all")
            raise DataError(
                f"{self.place} has boxes of other pictures, such as {other}, and none of "
                f"{names[0]}. Write the paths of the pictures relative to it, or as they are given."
            )
        return Truth(
            {name: self.by_picture[path] for name, path in pairs.items()},
            {name: self.pictures[path] for name, path in pairs.items()},
            self._remarks(pairs, nearest),
        )

    def _remarks(
        self, pairs: Mapping[str, str], nearest: Mapping[str, Sequence[str]]
    ) -> tuple[str, ...]:
        """Say what has no match, and what has one by its file name alone."""
        taken = {*pairs.values()}
        unsure = [name for name, paths in nearest.items() if name not in pairs and {*paths} - taken]
        alone = [
            f"{name} as {path}"
            for name, path in pairs.items()
            if _in_common(_parts(name), _parts(path)) == 1
            and min(len(_parts(name)), len(_parts(path))) > 1
            and _file(name) != _file(self.root / path)
        ]
        absent = len(self.pictures) - len(taken)
        unlabelled = len(nearest) - len(pairs) - len(unsure)
        said = (
            (unsure, f"may be one of several pictures in {self.place}, and not scored: {{}}"),
            (alone, "matched by file name alone, in another folder: {}"),
        )
        notes = [
            f"{counted(len(some), 'picture')} {what.format(first(some))}."
            for some, what in said
            if some
        ]
        if unlabelled:
            notes.append(
                f"{counted(unlabelled, 'picture')} without labels in {self.place}; not scored."
            )
        if absent:
            notes.append(f"{absent} of {len(self.pictures)} pictures in {self.place} not given.")
        return tuple(notes)


def _nearest(
    names: Iterable[str], among: Iterable[str], root: Path, *, turned: bool = False
) -> dict[str, list[str]]:
    """For each path, those that have most in common with it; the same file has more than any.

    Those of the table are relative to `root`: the second ones, or if turned, the first ones.
    """
    here, there = (root, Path()) if turned else (Path(), root)
    by_name: dict[str, list[tuple[str, Sequence[str], str]]] = defaultdict(list)
    for path in among:
        parts = _parts(path)
        by_name[parts[-1]].append((path, parts, _file(there / path)))
    nearest: dict[str, list[str]] = {}
    for name in names:
        parts, file = _parts(name), _file(here / name)
        ranks = [
            (math.inf if other == file else _in_common(parts, others), path)
            for path, others, other in by_name.get(parts[-1], ())
        ]
        best = max(ranks, default=(0, ""))[0]
        nearest[name] = [path for rank, path in ranks if rank == best]
    return nearest


def _parts(path: str) -> list[str]:
    """Folders and file name, without case and in one form of accents; never empty."""
    plain = unicodedata.normalize("NFC", path).casefold().replace("\\", "/")
    return [part for part in plain.split("/") if part not in ("", ".")] or [""]


def _in_common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts from the end are the same."""
    same = [a == b for a, b in zip(reversed(one), reversed(other), strict=False)]
    return same.index(False) if False in same else len(same)


def _file(path: str | Path) -> str:
    """Where a path leads to, links left alone."""
    return unicodedata.normalize("NFC", os.path.abspath(path))


def first(names: Sequence[str], most: int = 3) -> str:
    """Give the beginning of a list that may be long.

    Parameters
    ----------
    names : sequence of str
        Any number.
    most : int
        So many are given.

    Returns
    -------
    str
        With dots where there are more.
    """
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


class Collected:
    """Pictures and boxes as they are read, checked; `table` gives what came of it.

    Parameters
    ----------
    place : path-like
        The file or folder, for messages.
    root : Path
        What paths are relative to.
    """

    def __init__(self, place: str | os.PathLike[str], root: Path) -> None:
        self.place = os.fspath(place)
        self.root = root
        self.notes: list[str] = []
        self._paths: dict[str, str] = {}
        self._slides: dict[str, str] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._boxes: dict[tuple[str, Box], tuple[str, str]] = {}
        self._other: Counter[str] = Counter()
        self._twice = 0

    def picture(
        self,
        where: str,
        name: str,
        *,
        slide: str | None = None,
        size: tuple[int, int] | None = None,
    ) -> str:
        """Note that a picture was labelled.

        Parameters
        ----------
        where : str
            Place in the file, for messages.
        name : str
            As it is written.
        slide : str, optional
            Taken from the name when None.
        size : (int, int), optional
            Rows and columns that the boxes are meant for.

        Returns
        -------
        str
            Its path, for `box`.

        Raises
        ------
        DataError
            When it has no name, or an earlier place tells another slide.
        """
        if name not in self._paths:
            self._paths[name] = _as_path(self.root, name)
        path = self._paths[name]
        if not path:
            raise DataError(f"{where}: there is no path of a picture.")
        told = slide_of(path) if slide is None else slide
        if self._slides.setdefault(path, told) != told:
            raise DataError(
                f"{where}: {path} is of the slide {told!r}, and of {self._slides[path]!r} before."
            )
        if size is not None:
            self._sizes[path] = size
        return path

    def box(self, where: str, path: str, label: str, corners: Sequence[object]) -> None:
        """Note a box.

        Parameters
        ----------
        where : str
            Place in the file, for messages.
        path : str
            From `picture`.
        label : str
            Of any kind of cell.
        corners : sequence of four numbers, or of texts of numbers
            row0, col0, row1, col1; they are rounded to whole pixels.

        Raises
        ------
        DataError
            When they are no box, or the box has another label already.
        """
        label = label.strip()
        label = IGNORE if label.casefold() == IGNORE else label
        box = _whole(where, corners)
        if not is_white_cell(label):
            self._other[label] += 1
            return
        before, there = self._boxes.setdefault((path, box), (label, where))
        if before != label:
            raise DataError(
                f"{where}: the box {box} of {path} is {label or 'without a label'}, and "
                f"{before or 'without a label'} in {there}."
            )
        self._twice += there != where

    def table(self) -> BoxTable:
        """Give what was collected.

        Returns
        -------
        BoxTable

        Raises
        ------
        DataError
            When a box lies outside its picture, or the picture has another size than its boxes
            are meant for.
        """
        for path in self._slides:
            self._measure(path)
        boxes: list[LabelledBox] = []
        cut = []
        for (path, box), (label, where) in self._boxes.items():
            rows, columns = self._sizes.get(path, (_LARGEST, _LARGEST))
            inner = (max(box[0], 0), max(box[1], 0), min(box[2], rows), min(box[3], columns))
            if inner[0] >= inner[2] or inner[1] >= inner[3]:
                size = f" of {rows} rows and {columns} columns" if path in self._sizes else ""
                raise DataError(
                    f"{where}: the box {box} lies outside of {path}{size}; expected row0, col0, "
                    "row1, col1 in pixels of the original."
                )
            if inner != box:
                cut.append(where)
            boxes.append(LabelledBox(path, self._slides[path], label, inner))
        notes = list(self.notes)
        if self._other:
            told = [f"{count:,} x {label}" for label, count in self._other.most_common()]
            notes.append(f"Left out of {self.place}, as no white cells: {listed(told)}.")
        if self._twice:
            notes.append(f"{counted(self._twice, 'duplicate')} in {self.place}, read once.")
        if cut:
            notes.append(f"Cut at the border of the picture: {first(cut)}.")
        return BoxTable(self.place, self.root, self._slides, tuple(boxes), tuple(notes))

    def _measure(self, path: str) -> None:
        """Note the size of a picture that is there, and hold it against what was told."""
        size = header_size(self.root / path)
        told = self._sizes.get(path)
        if size and told and size != told:
            raise DataError(
                f"{self.place} has boxes for {path} with {told[0]} rows and {told[1]} columns, but "
                f"the picture has {size[0]} and {size[1]}. Give the boxes of this very picture."
            )
        if size:
            self._sizes[path] = size


def is_white_cell(label: str) -> bool:
    """Whether a label may be a white cell: all but red cells, platelets and artefacts.

    Parameters
    ----------
    label : str
        As people write it.

    Returns
    -------
    bool

    Examples
    --------
    >>> [is_white_cell(one) for one in ("WBC", "Neutrophil", "NRBC", "RBC", "platelet clump")]
    [True, True, True, False, False]
    """
    return _OTHER.search(re.sub(r"[\s_-]+", " ", label.casefold())) is None


def header_size(path: Path) -> tuple[int, int] | None:
    """Read the size of a picture from its header, upright as its EXIF has it.

    Parameters
    ----------
    path : Path
        Of anything.

    Returns
    -------
    (int, int) or None
        Rows and columns; None where no picture is, or none that can be told.
    """
    from PIL import ExifTags, Image

    try:
        if not path.is_file():
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its size, and of damage that the run will tell
            with Image.open(path) as image:
                columns, rows = image.size
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except Exception:  # noqa: BLE001 - what is wrong is for whoever opens the picture to say
        return None
    return (columns, rows) if turned else (rows, columns)


def _as_path(root: Path, name: str) -> str:
    """A path with slashes; relative to a folder where something is there."""
    name = name.strip()
    if not name:
        return ""
    place = find_listed(root, name)
    if os.path.lexists(place):
        return Path(os.path.relpath(place, root)).as_posix()
    return name.strip("\"'").replace("\\", "/")


def _whole(where: str, corners: Sequence[object]) -> Box:
    """Four whole numbers of anything that should be numbers; half a pixel is rounded up."""
    told = ", ".join(str(value)[:20] for value in corners) or "nothing"
    try:
        numbers = [float(value) for value in corners]  # type: ignore[arg-type]
        row0, col0, row1, col1 = (math.floor(number + 0.5) for number in numbers)
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"{where}: expected four finite numbers row0, col0, row1, col1, received {told}."
        ) from None
    if max(map(abs, numbers)) > _LARGEST:
        raise DataError(f"{where}: no picture is as large as {told}.")
    if row0 >= row1 or col0 >= col1:
        raise DataError(
            f"{where}: the box {row0, col0, row1, col1} is empty or has its corners swapped; "
            "expected row0 < row1 and col0 < col1, in pixels."
        )
    return row0, col0, row1, col1
