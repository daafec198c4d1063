"""Predictions drawn beside their images: one card for a cell, or a sheet of many.

Needs only the base install.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import DataError, ImageError
from leuko.imaging.decode import decode_image
from leuko.prediction import Prediction
from leuko.render.answers import question, title, why
from leuko.render.drawing import (
    RESEARCH,
    check_pixels,
    draw_name,
    file_name,
    fitted_name,
    font,
    legible,
    name_width,
    new_canvas,
    paste,
    scaled,
    shortened,
    text_width,
    wrapped,
)
from leuko.render.style import lighter, style
from leuko.render.words import percent
from leuko.source import Source
from leuko.support.artifacts import digest_bytes
from leuko.support.reporter import Reporter

__all__ = [
    "SHEET_LIMIT",
    "Gallery",
    "prediction_picture",
    "prediction_sheet",
]

Pixels = npt.NDArray[np.uint8]

SHEET_LIMIT: Final = 200
"""A sheet shows at most so many images and says how many it leaves out."""

_SIDE: Final = 480
_LARGEST: Final = 640
_PANEL: Final = 400
_MARGIN: Final = 28
_THUMB: Final = 208
_GAP: Final = 20
_PAPER = style()
_CAPTION: Final = 13
_STEP: Final = 42
_NAME: Final = 180
_MOST_BARS: Final = 8
"""Of more classes, the likeliest have a bar, and the others a line together."""
_EMPTY: Final = np.full((_THUMB, _THUMB, 3), 0xEE, np.uint8)


class Gallery:
    """Where the first images are, kept while answers pass by, to be drawn at the end.

    An image is read a second time for that, from its own source: a file, an archive, a table. So
    none is held before it is drawn, and then only as large as it is drawn.

    Parameters
    ----------
    limit : int
        How many images are kept.
    """

    def __init__(self, limit: int = SHEET_LIMIT) -> None:
        self._limit = limit
        self._found = 0
        self._answered = 0
        self._waiting: deque[Source] = deque()
        self._kept: list[tuple[Source, Prediction]] = []

    def watch(self, sources: Iterable[Source]) -> Iterator[Source]:
        """Note sources on their way to a classifier.

        Parameters
        ----------
        sources : iterable of Source
            See `leuko.runtime.classifier.OnnxClassifier.stream`.

        Yields
        ------
        Source
            What came in.
        """
        for source in sources:
            self._waiting.append(source)
            yield source

    def keep(self, answers: Iterable[Prediction]) -> Iterator[Prediction]:
        """Note answers on their way from it.

        Parameters
        ----------
        answers : iterable of Prediction
            One for each source that was watched, in the same order.

        Yields
        ------
        Prediction
            What came in.
        """
        for row in answers:
            source = self._waiting.popleft()
            self._found += 1
            self._answered += row.status == "ok"
            if len(self._kept) < self._limit:
                self._kept.append((source, row))
            yield row

    def draw(self, *, reporter: Reporter) -> Pixels:
        """Draw the one image large, or the first of several as a sheet.

        A rejected one has its reason on an empty ground.

        Parameters
        ----------
        reporter : Reporter
            Told of an image that could not be read again.

        Returns
        -------
        (h, w, 3) uint8, RGB
            See `prediction_picture` and `prediction_sheet`.

        Raises
        ------
        DataError
            When no image was answered, or none could be read again.
        """
        single = self._found == 1
        rows: list[tuple[Pixels, Prediction]] = []
        for source, row in self._kept if self._answered else ():
            if row.status != "ok":
                rows.append((_EMPTY, row))
                continue
            try:
                data = source.read()
                if digest_bytes(data) != row.sha256:
                    raise ImageError("unreadable", "the file changed while it was read")
                pixels = decode_image(data).pixels
            except ImageError as error:
                reporter.say(f"Not drawn: {row.path} ({error.detail})")
                continue
            rows.append((pixels if single else scaled(pixels, _THUMB), row))
        if not rows:
            raise DataError("There is no answered image file to draw.")
        return prediction_picture(*rows[0]) if single else prediction_sheet(rows, total=self._found)


def prediction_picture(pixels: Pixels, prediction: Prediction) -> Pixels:
    """Draw one image with what was decided on it, and the probabilities.

    The class stands large where it is accepted, and its colour nowhere else.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        The image that was classified, of any size; it is scaled, never cut.
    prediction : Prediction
        Its row. For a rejected image the reason is shown.

    Returns
    -------
    (h, w, 3) uint8, RGB
        Between 480 and 640 pixels for the image's longer side, and a panel beside it, with a bar
        for each of at most eight classes.

    Raises
    ------
    DataError
        When the pixels are no RGB image.
    """
    check_pixels(pixels)
    longer = max(pixels.shape[:2])
    image = scaled(pixels, min(max(longer, _SIDE), _LARGEST))
    rows, columns = image.shape[:2]
    lines = min(len(prediction.scheme), _MOST_BARS + 1) if prediction.status == "ok" else 0
    panel = _SIDE - 60 + _STEP * max(0, lines - 5)
    height = max(rows, panel) + 2 * _MARGIN
    width = columns + _PANEL + 3 * _MARGIN
    canvas, draw = new_canvas(height, width)
    paste(canvas, image, (height - rows) // 2, _MARGIN, radius=14)
    left, right = columns + 2 * _MARGIN, width - _MARGIN
    top = max(_MARGIN, (height - panel) // 2)
    name = fitted_name(file_name(prediction.path), 16, right - left)
    draw_name(draw, (left, top), name, _PAPER.muted, 16)
    _draw_decision(draw, prediction, left, right, top)
    if prediction.status == "ok":
        _draw_bars(draw, prediction, left, right, top + 150)
    for number, line in enumerate(wrapped(RESEARCH, 14, right - left)):
        draw.text((left, top + panel - 42 + 20 * number), line, _PAPER.muted, font(14))
    return np.asarray(canvas, dtype=np.uint8)


def prediction_sheet(
    rows: Sequence[tuple[Pixels, Prediction]], *, columns: int = 0, total: int = 0
) -> Pixels:
    """Draw many images with their answers on one sheet.

    Parameters
    ----------
    rows : sequence of (pixels, Prediction)
        See `prediction_picture`. At most `SHEET_LIMIT` are drawn; the sheet says what is missing.
        Files whose names would read alike have their place on the sheet before them.
    columns : int
        Images side by side; 0 chooses.
    total : int
        How many images there are, where these are the first of them.

    Returns
    -------
    (h, w, 3) uint8, RGB
        The sheet.

    Raises
    ------
    DataError
        When there is nothing to draw, or pixels are no RGB image.
    """
    if not rows:
        raise DataError("Received no image for the sheet, expected at least one.")
    shown = rows[:SHEET_LIMIT]
    across = min(columns or max(2, min(8, round((len(shown) * 1.5) ** 0.5))), max(2, len(shown)))
    down = -(-len(shown) // across)
    step_down, step_across = _THUMB + 92, _THUMB + _GAP
    height = 2 * _MARGIN + down * step_down + 32
    width = 2 * _MARGIN + across * step_across - _GAP
    canvas, draw = new_canvas(height, width)
    names = _captions([prediction for _, prediction in shown])
    for index, (pixels, prediction) in enumerate(shown):
        check_pixels(pixels)
        top = _MARGIN + index // across * step_down
        left = _MARGIN + index % across * step_across
        image = scaled(pixels, _THUMB)
        draw.rounded_rectangle((left, top, left + _THUMB - 1, top + _THUMB - 1), 8, "#eeeeea")
        free_rows, free_columns = (_THUMB - side for side in image.shape[:2])
        paste(canvas, image, top + free_rows // 2, left + free_columns // 2, radius=8)
        if prediction.status != "ok":
            lines = wrapped(legible(prediction.detail), _CAPTION, _THUMB - 32)[:8]
            draw.multiline_text(
                (left + 16, top + 16), "\n".join(lines), _PAPER.muted, font(_CAPTION)
            )
        _draw_caption(draw, prediction, names[index], top + _THUMB + 8, left)
    total = max(total, len(rows))
    part = f"The first {len(shown)} of {total:,} images. " if total > len(shown) else ""
    note = f"{part}{RESEARCH}"
    if text_width(note, 14) >= width - 2 * _MARGIN:
        note = f"{part}Research use only."
    draw.text((_MARGIN, height - _MARGIN - 14), note, _PAPER.muted, font(14))
    return np.asarray(canvas, dtype=np.uint8)


def _draw_decision(draw: Any, prediction: Prediction, left: int, right: int, top: int) -> None:
    """What was decided, large, and why, or how sure it is."""
    accepted, asked = bool(prediction.label), question(prediction)
    ink = _PAPER.ink if accepted else _PAPER.warn
    shown = fitted_name(file_name(title(prediction)), 42, right - left)
    draw_name(draw, (left, top + 28), shown, ink, 42, bold=0.6)
    if accepted:
        told = f"confidence {percent(prediction.confidence)}"
        draw.text((left, top + 84), told, _PAPER.muted, font(20))
        return
    if asked:
        asked = fitted_name(file_name(asked), 20, right - left)
        draw_name(draw, (left, top + 84), asked, _PAPER.ink, 20)
    rejected = prediction.status != "ok"
    told = prediction.detail if rejected and prediction.detail else why(prediction)
    start = top + (112 if asked else 86)
    lines = wrapped(legible(told), 18, right - left)
    for number, line in enumerate(lines[: 8 if rejected else 2]):
        draw.text((left, start + 26 * number), line, _PAPER.muted, font(18))


def _colours(prediction: Prediction) -> tuple[str, ...]:
    """Colours of the classes; what is not accepted has no full colour."""
    colours = _PAPER.classes(prediction.scheme)
    return colours if prediction.label else tuple(lighter(colour, 0.6) for colour in colours)


def _draw_bars(draw: Any, prediction: Prediction, left: int, right: int, top: int) -> None:
    """A bar for each class, or for the likeliest of many."""
    values, colours = prediction.probabilities, _colours(prediction)
    shown = sorted(sorted(range(len(values)), key=lambda k: -values[k])[:_MOST_BARS])
    names = [fitted_name(file_name(prediction.scheme.names[k]), 18, _NAME) for k in shown]
    start = left + 8 + max(112, *(round(name_width(name, 18)) for name in names))
    end = right - 70
    for line, (index, name) in enumerate(zip(shown, names, strict=True)):
        row, value = top + _STEP * line, values[index]
        ink = _PAPER.ink if prediction.scheme.names[index] == prediction.label else _PAPER.muted
        draw_name(draw, (left, row), name, ink, 18)
        draw.rounded_rectangle((start, row, end, row + 22), 6, "#ececE8")
        filled = round((end - start) * min(max(value, 0.0), 1.0))
        if filled > 0:
            radius = min(6, filled // 2)
            draw.rounded_rectangle((start, row, start + filled, row + 22), radius, colours[index])
        draw.text((right, row + 11), percent(value), ink, font(18), anchor="rm")
    if len(shown) < len(values):
        row = top + _STEP * len(shown) + 11
        rest = sum(values) - sum(values[k] for k in shown)
        told = f"{len(values) - len(shown)} other classes"
        draw.text((left, row), told, _PAPER.muted, font(18), anchor="lm")
        draw.text((right, row), percent(max(rest, 0.0)), _PAPER.muted, font(18), anchor="rm")


def _captions(rows: Sequence[Prediction]) -> list[str]:
    """What is written of each name, as much as fits; no two files of the sheet read alike."""
    names = [file_name(row.path) for row in rows]
    files = [(name, row.path) for name, row in zip(names, rows, strict=True)]
    texts = []
    for index, (name, row) in enumerate(zip(names, rows, strict=True)):
        beside = _beside_name(row)
        room = _THUMB - (name_width(beside, _CAPTION) + 12 if beside else 0)
        number = f"{index + 1}: "
        left = room - text_width(number, _CAPTION)
        ways = (
            fitted_name(name, _CAPTION, room),
            fitted_name(name, _CAPTION, room, middle=False),  # where names differ more often
            number + fitted_name(name, _CAPTION, left, middle=False),
        )
        texts.append(next((text for text in ways if _means_one(text, files)), ways[-1]))
    return texts


def _means_one(text: str, files: list[tuple[str, str]]) -> bool:
    """Whether a name, or what is left of it, can be that of one file only."""
    head, cut, tail = text.partition("…")
    short = len(head) + len(tail)

    def fits(name: str) -> bool:
        left = cut and len(name) > short and name.startswith(head) and name.endswith(tail)
        return bool(left) or name == text

    return len({path for name, path in files if fits(name)}) == 1


def _beside_name(prediction: Prediction) -> str:
    """What stands right of a name: the second class, or the likeliest where it is said nowhere."""
    if prediction.status != "ok" or question(prediction):
        return ""
    classes = prediction.scheme.classes
    ranked = sorted(range(len(classes)), key=lambda k: -prediction.probabilities[k])
    place, word = (ranked[1], "then") if prediction.label else (ranked[0], "likeliest")
    name, share = classes[place].abbreviation, percent(prediction.probabilities[place])
    return f"{word} {file_name(name)} {share}"


def _draw_caption(draw: Any, prediction: Prediction, name: str, top: int, left: int) -> None:
    """What stands below an image of the sheet."""
    right, accepted = left + _THUMB, bool(prediction.label)
    ink = _PAPER.ink if accepted else _PAPER.warn
    if accepted:
        told, size, place = percent(prediction.confidence), 19, (right, top)
    else:
        told, size, place = file_name(question(prediction, short=True)), 15, (right, top + 3)
    shown = file_name(title(prediction))
    shown = fitted_name(shown, 19, _THUMB - name_width(told, size) - 6)
    draw_name(draw, (left, top), shown, ink, 19, bold=0.3)
    draw_name(draw, place, told, _PAPER.muted if accepted else _PAPER.ink, size, ends=True)
    start, colours = float(left), _colours(prediction)
    for index, value in enumerate(prediction.probabilities):
        end = start + _THUMB * value
        if round(end) > round(start):
            box = (round(start), top + 28, round(end) - 1, top + 35)
            draw.rectangle(box, colours[index])
        start = end
    draw_name(draw, (left, top + 39), name, _PAPER.muted, _CAPTION)
    beside = _beside_name(prediction)
    draw_name(draw, (right, top + 39), beside, _PAPER.muted, _CAPTION, ends=True)
    reason = shortened(legible(why(prediction)), _CAPTION, _THUMB)
    draw.text((left, top + 55), reason, _PAPER.warn, font(_CAPTION))
