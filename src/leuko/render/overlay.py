"""A field with a box and a label on each white cell, and a scale bar: a picture for people.

Needs only the base install.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.cells.detector import Box
from leuko.errors import DataError
from leuko.field.report import Field
from leuko.imaging.decode import encode_jpeg
from leuko.prediction import Prediction
from leuko.render.answers import question
from leuko.render.drawing import (
    RESEARCH,
    check_pixels,
    draw_name,
    file_name,
    fitted_name,
    font,
    name_width,
    new_canvas,
    paste,
    scaled,
    text_width,
)
from leuko.render.style import lighter, style
from leuko.scheme import ClassScheme
from leuko.support.files import mark_own_picture

__all__ = ["LONGEST", "overlay", "overlay_file", "picture_rows"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

LONGEST: Final = 1600
"""Pixels of the longer side of a field as it is drawn, at most."""

_SHORTEST: Final = 1000
"""At least so many, as labels would else hide what they speak of."""

_PAPER = style()
_GREY: Final = "#b9bfc9"
"""Of cells that are not counted."""

_CASING: Final = "#14161b"
_LINE: Final = 3
_LEAST: Final = 9
"""A box is drawn with at least so many pixels on each side."""

_MOST_SMALL: Final = 40
"""So many cells that are smaller than a label may have one."""

_DASH: Final = 9
_MARGIN: Final = 16
_PALER: Final = 0.35
"""Share of white in the colour of a class that is not accepted."""

_WORDS: Final = {
    "not-a-cell": "no cell",
    "duplicate": "repeated",
    "border": "cut",
    "overlapping": "overlapping",
    "smudged": "smudged",
    "blurred": "blurred",
}
_BARS: Final = ((10, "10 \N{MICRO SIGN}m"), (100, "100 \N{MICRO SIGN}m"), (1000, "1 mm"))
"""Lengths of the scale bar, the shortest that can be seen, and what is written beside it."""

_SHORTEST_BAR: Final = 24


@dataclass(frozen=True, slots=True)
class _Mark:
    """A cell as it is drawn: where, in which colour, and what its label says."""

    box: Box
    number: str
    word: str
    colour: str
    solid: bool


@dataclass(frozen=True, slots=True)
class _Label:
    """A label's place in pixels of the drawing, and whether there is room for the word."""

    row: int
    col: int
    worded: bool


def overlay(
    pixels: Pixels, field: Field, scheme: ClassScheme, numbers: Sequence[int] = ()
) -> Pixels:
    """Draw a field with what became of its white cells.

    An accepted cell has a box in the colour of its class; one that is open a dashed, paler one; one
    that is not counted a grey one and the reason.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        The field, whole, in any size.
    field : Field
        Its cells; their boxes are in pixels of `Field.size`.
    scheme : ClassScheme
        Of the answers.
    numbers : sequence of int
        Of each cell within the run; from 1 on when left out.

    Returns
    -------
    (h, w, 3) uint8, RGB
        The field with 1000 to 1600 pixels on its longer side, see `picture_rows`; below it its
        name, what the colours mean and a scale bar.

    Raises
    ------
    DataError
        When the pixels are no RGB image, or there are not as many numbers as cells.
    """
    check_pixels(pixels)
    numbers = numbers or range(1, len(field.cells) + 1)
    if len(numbers) != len(field.cells):
        raise DataError(
            f"Received {len(numbers)} numbers for the {len(field.cells)} cells of {field.name}; "
            "expected one for each."
        )
    image = scaled(pixels, min(max(*pixels.shape[:2], _SHORTEST), LONGEST))
    rows, columns = image.shape[:2]
    marks = _marks(field, scheme, numbers, (rows, columns))
    legend = _legend(marks, scheme)
    lines = _flow(legend, columns - 2 * _MARGIN)
    canvas, draw = new_canvas(rows + 76 + 28 * len(lines), columns)
    paste(canvas, image, 0, 0, radius=0)
    for mark in marks:
        _draw_box(draw, mark, (rows, columns))
    for mark, label in zip(marks, _labels(marks, (rows, columns)), strict=True):
        if label is not None:
            _draw_label(draw, mark, label)
    _draw_foot(draw, field, rows, columns)
    for number, line in enumerate(lines):
        _draw_legend(draw, line, rows + 44 + 28 * number)
    place = (_MARGIN, rows + 50 + 28 * len(lines))
    told = RESEARCH if text_width(RESEARCH, 13) < columns - 2 * _MARGIN else "Research use only."
    draw.text(place, told, _PAPER.muted, font(13))
    return np.asarray(canvas, dtype=np.uint8)


def overlay_file(drawn: Pixels) -> bytes:
    """Encode what `overlay` drew, with a mark that Leuko drew it: it is never read as a field.

    Parameters
    ----------
    drawn : (h, w, 3) uint8, RGB
        From `overlay`.

    Returns
    -------
    bytes
        A JPEG.
    """
    return mark_own_picture(encode_jpeg(drawn, quality=88))


def picture_rows(field: Field, columns: int) -> float:
    """How many rows of a drawing are the field; what is below them are words.

    Parameters
    ----------
    field : Field
        That was drawn.
    columns : int
        Of the drawing, in any size.

    Returns
    -------
    float
        In pixels of that size.
    """
    height, width = field.size
    return columns * height / max(1, width)


def _marks(
    field: Field, scheme: ClassScheme, numbers: Sequence[int], size: tuple[int, int]
) -> list[_Mark]:
    """The cells in pixels of the drawing."""
    factors = [drawn / max(1, real) for drawn, real in zip(size, field.size, strict=True)]
    colours = dict(zip(scheme.names, _PAPER.classes(scheme), strict=True))
    marks = []
    for number, cell in zip(numbers, field.cells, strict=True):
        box = _drawn_box(cell.box, factors, size)
        word, colour = _told(cell.answer, colours)
        marks.append(_Mark(box, str(number), word, colour, cell.answer.decision == "class"))
    return marks


def _drawn_box(box: Box, factors: Sequence[float], size: tuple[int, int]) -> Box:
    """A box in pixels of the drawing: large enough to be seen, and within it."""
    ends = []
    for k in (0, 1):
        low, high = math.floor(box[k] * factors[k]), math.ceil(box[k + 2] * factors[k])
        wider = max(0, _LEAST - (high - low))
        low, high = low - wider // 2, high + wider - wider // 2
        ends.append((min(max(low, 0), size[k] - 1), min(max(high, 1), size[k])))
    (row0, row1), (col0, col1) = ends
    return row0, col0, row1, col1


def _told(answer: Prediction, colours: dict[str, str]) -> tuple[str, str]:
    """A word or two on a cell, and its colour."""
    word = _WORDS.get(answer.reason) if answer.decision == "set-aside" else None
    word = word or _WORDS.get(answer.decision)
    if word is None and answer.likeliest not in colours:
        word = answer.reason or answer.decision
    if word is not None:
        return word, _GREY
    scheme = answer.scheme
    name = scheme.classes[scheme.names.index(answer.likeliest)].abbreviation
    if answer.label:
        return f"{name} {_percent(answer.confidence)}", colours[answer.label]
    told = question(answer, short=True) or f"{name}? {_percent(answer.confidence)}"
    return told, lighter(colours[answer.likeliest], _PALER)


def _percent(share: float) -> str:
    """A share without decimals; certainty only where it is certain."""
    return f"{100 if share == 1 else min(99, round(100 * share))}%"


def _draw_box(draw: Any, mark: _Mark, size: tuple[int, int]) -> None:
    """A frame round a cell, outside its box as far as there is room."""
    rows, columns = size
    width = _LINE if mark.solid else _LINE - 1
    row0, col0, row1, col1 = mark.box
    for reach, colour, thick in ((width + 2, _CASING, width + 2), (width + 1, mark.colour, width)):
        top, left = max(row0 - reach, 0), max(col0 - reach, 0)
        bottom, right = min(row1 + reach, rows) - 1, min(col1 + reach, columns) - 1
        if mark.solid or colour == _CASING:
            draw.rectangle((left, top, right, bottom), outline=colour, width=thick)
            continue
        for start in range(left, right + 1, 2 * _DASH):
            end = min(start + _DASH - 1, right)
            draw.rectangle((start, top, end, top + thick - 1), colour)
            draw.rectangle((start, bottom - thick + 1, end, bottom), colour)
        for start in range(top, bottom + 1, 2 * _DASH):
            end = min(start + _DASH - 1, bottom)
            draw.rectangle((left, start, left + thick - 1, end), colour)
            draw.rectangle((right - thick + 1, start, right, end), colour)


_TEXT: Final = 15
_HEIGHT: Final = 22
_PAD: Final = 6


def _label_widths(mark: _Mark) -> tuple[int, int]:
    """Columns that a label's number takes, and its word."""
    number = round(text_width(mark.number, _TEXT)) + 2 * _PAD
    return number, round(name_width(file_name(mark.word), _TEXT)) + 2 * _PAD


def _labels(marks: Sequence[_Mark], size: tuple[int, int]) -> list[_Label | None]:
    """A place for every label: where it covers no other cell and no label, as far as there is one.

    A label with no such place is its number alone, on its own cell if need be; that of a cell
    smaller than its label is left out, and so are those of all small cells where there are many.
    """
    boxes = np.array([mark.box for mark in marks], np.float64).reshape(-1, 4)
    small = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) < _HEIGHT
    crowded = int(small.sum()) > _MOST_SMALL
    taken = [*boxes]
    labels: list[_Label | None] = []
    for index, mark in enumerate(marks):
        if small[index] and crowded:
            labels.append(None)
            continue
        others = np.array(taken[:index] + taken[index + 1 :]).reshape(-1, 4)
        place, worded = _best_place(mark, others, size)
        if place is None and small[index]:
            labels.append(None)
            continue
        if place is None:
            row, col, _, _ = mark.box
            place = _within(row, col, _label_widths(mark)[0], size)
        labels.append(_Label(int(place[0]), int(place[1]), worded))
        taken.append(place)
    return labels


def _best_place(mark: _Mark, others: Floats, size: tuple[int, int]) -> tuple[Floats | None, bool]:
    """The first place that covers no other cell or label, and whether there is room for a word."""
    number, word = _label_widths(mark)
    for width, worded in ((number + word, True), (number, False)):
        places = _places(mark.box, width, size)
        free = np.flatnonzero(_covered(places, others) == 0)
        if free.size:
            return places[free[0]], worded
    return None, False


def _places(box: Box, width: int, size: tuple[int, int]) -> Floats:
    """Where a label may stand, the best place first: above and below its box, and beside it.

    Returns
    -------
    (N, 4) float64
        (row0, col0, row1, col1), all within the picture.
    """
    rows, columns = size
    row0, col0, row1, col1 = box
    gap = _LINE + 2
    above, below = row0 - gap - _HEIGHT, row1 + gap
    left, right = col0 - gap, col1 + gap - width
    middle = (left + right) // 2
    before, behind = col0 - gap - width, col1 + gap
    corners = [(above, left), (below, left), (above, right), (below, right), (above, middle),
               (below, middle), (row0 - gap, behind), (row0 - gap, before),
               (row1 + gap - _HEIGHT, behind), (row1 + gap - _HEIGHT, before)]  # fmt: skip
    return np.array([(row, col, row + _HEIGHT, col + width) for row, col in corners
                     if 0 <= row <= rows - _HEIGHT and 0 <= col <= columns - width],
                    np.float64).reshape(-1, 4)  # fmt: skip


def _within(row: int, col: int, width: int, size: tuple[int, int]) -> Floats:
    """A label's place as near to a corner as the picture allows."""
    row, col = (max(0, min(at, end - long))
                for at, end, long in ((row, size[0], _HEIGHT), (col, size[1], width)))  # fmt: skip
    return np.array((row, col, row + _HEIGHT, col + width), np.float64)


def _covered(places: Floats, others: Floats) -> Floats:
    """How many pixels of others each place covers."""
    low = np.maximum(places[:, None, :2], others[None, :, :2])
    high = np.minimum(places[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.prod(np.clip(high - low, 0, None), axis=2).sum(axis=1), np.float64)


def _draw_label(draw: Any, mark: _Mark, label: _Label) -> None:
    """A cell's number on dark ground, and what became of it on its colour."""
    number, word = _label_widths(mark)
    row, col = label.row, label.col
    bottom, split = row + _HEIGHT - 1, col + number
    right = split + word - 1 if label.worded else split - 1
    draw.rectangle((col, row, right, bottom), _CASING)
    draw.text((col + _PAD, row + 2), mark.number, "#ffffff", font(_TEXT))
    if label.worded:
        draw.rectangle((split, row + 1, right - 1, bottom - 1), mark.colour)
        text = file_name(mark.word)
        draw_name(draw, (split + _PAD, row + 2), text, _ink_on(mark.colour), _TEXT, bold=0.2)


def _ink_on(colour: str) -> str:
    """Black or white, whichever is read more easily on a colour (WCAG 2's relative luminance)."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#14161b"


_Entry = tuple[str, str, bool]
"""A legend's text and colour, and whether its line is solid."""


def _legend(marks: Sequence[_Mark], scheme: ClassScheme) -> list[_Entry]:
    """What the colours mean: accepted cells by class, and the others by what became of them."""
    entries = []
    for one, colour in zip(scheme.classes, _PAPER.classes(scheme), strict=True):
        n = sum(mark.solid and mark.word.startswith(f"{one.abbreviation} ") for mark in marks)
        if n:
            entries.append((f"{one.name} {n:,}", colour, True))
    open_ = sum(not mark.solid and mark.colour != _GREY for mark in marks)
    if open_:
        entries.append((f"Not sure {open_:,}", _PAPER.muted, False))
    words = Counter(mark.word for mark in marks if mark.colour == _GREY)
    entries += [(f"Not counted: {word} {n:,}", _GREY, False) for word, n in words.items()]
    return entries or [("No white cell", _GREY, False)]


def _flow(entries: Sequence[_Entry], room: float) -> list[list[_Entry]]:
    """Entries on as many lines as they need."""
    lines: list[list[_Entry]] = [[]]
    used = 0.0
    for entry in entries:
        width = _entry_width(entry)
        if lines[-1] and used + width > room:
            lines.append([])
            used = 0.0
        lines[-1].append(entry)
        used += width
    return lines


def _entry_width(entry: _Entry) -> float:
    """Columns of a legend's entry, with what parts it from the next."""
    return 24 + name_width(file_name(entry[0]), _TEXT) + 22


def _draw_legend(draw: Any, line: Sequence[_Entry], top: int) -> None:
    """One line of what the colours mean."""
    left = float(_MARGIN)
    for entry in line:
        text, colour, solid = entry
        box = (left, top + 3, left + 14, top + 17)
        draw.rectangle(box, colour if solid else None, outline=colour, width=2)
        draw_name(draw, (round(left) + 24, top), file_name(text), _PAPER.ink, _TEXT)
        left += _entry_width(entry)


def _draw_foot(draw: Any, field: Field, rows: int, columns: int) -> None:
    """The field's name, and a scale bar where its scale is known."""
    right, top = columns - _MARGIN, rows + 14
    room = right - _MARGIN
    factor = columns / max(1, field.size[1])
    if field.pixels_per_micrometre:
        known = field.pixels_per_micrometre * factor
        length, told = next((bar for bar in _BARS if bar[0] * known >= _SHORTEST_BAR), _BARS[-1])
        told = told if file_name(told) == told else told.replace("\N{MICRO SIGN}", "u")
        bar = round(length * known)
        draw.rectangle((right - bar, top + 6, right - 1, top + 9), _PAPER.ink)
        for end in (right - bar, right - 2):
            draw.rectangle((end, top + 2, end + 1, top + 13), _PAPER.ink)
        draw_name(draw, (right - bar - 10, top - 2), told, _PAPER.ink, _TEXT, ends=True)
        room -= bar + 10 + round(name_width(told, _TEXT)) + 20
    name = fitted_name(file_name(field.name), 17, room)
    draw_name(draw, (_MARGIN, top - 3), name, _PAPER.ink, 17, bold=0.3)
