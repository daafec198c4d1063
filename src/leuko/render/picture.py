"""Predictions drawn beside their images: one card for a cell, or a sheet of many.

Needs only the base install.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
from leuko.prediction import Prediction
from leuko.render.style import style
from leuko.taxonomy import ABBREVIATIONS, CLASSES, COLOURS

__all__ = ["SHEET_LIMIT", "prediction_picture", "prediction_sheet"]

Pixels = npt.NDArray[np.uint8]

SHEET_LIMIT: Final = 200
"""A sheet shows at most so many images and says how many it leaves out."""

_SIDE: Final = 480
_LARGEST: Final = 640
_PANEL: Final = 400
_MARGIN: Final = 28
_THUMB: Final = 208
_GAP: Final = 20
_RESEARCH: Final = "Research use only. Not a diagnosis; a qualified person must review it."
_PAPER = style()


def prediction_picture(pixels: Pixels, prediction: Prediction) -> Pixels:
    """Draw one image with its answer: class, confidence and the five probabilities.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        The image that was classified, of any size; it is scaled, never cut.
    prediction : Prediction
        Its row. For a rejected image the reason is shown.

    Returns
    -------
    (h, w, 3) uint8, RGB
        Between 480 and 640 pixels for the image's longer side, and a panel beside it.

    Raises
    ------
    DataError
        When the pixels are no RGB image.
    """
    _check(pixels)
    longer = max(pixels.shape[:2])
    image = _scaled(pixels, min(max(longer, _SIDE), _LARGEST))
    rows, columns = image.shape[:2]
    height = max(rows, _SIDE - 60) + 2 * _MARGIN
    width = columns + _PANEL + 3 * _MARGIN
    canvas, draw = _canvas(height, width)
    _paste(canvas, image, (height - rows) // 2, _MARGIN, radius=14)
    left, right = columns + 2 * _MARGIN, width - _MARGIN
    top = max(_MARGIN, (height - 420) // 2)
    name = _legible(PurePosixPath(prediction.path).name)
    draw.text((left, top), _shortened(name, 16, right - left), _PAPER.muted, _font(16))
    if prediction.status != "ok":
        draw.text((left, top + 36), "Not classified", _PAPER.warn, _font(36))
        why = prediction.detail or prediction.reason
        for number, line in enumerate(_wrapped(_legible(why), 18, right - left)[:8]):
            draw.text((left, top + 96 + 26 * number), line, _PAPER.ink, _font(18))
    else:
        _draw_answer(draw, prediction, left, right, top)
    for number, line in enumerate(_wrapped(_RESEARCH, 14, right - left)):
        draw.text((left, top + 378 + 20 * number), line, _PAPER.muted, _font(14))
    return np.asarray(canvas, dtype=np.uint8)


def prediction_sheet(rows: Sequence[tuple[Pixels, Prediction]], *, columns: int = 0) -> Pixels:
    """Draw many images with their answers on one sheet.

    Parameters
    ----------
    rows : sequence of (pixels, Prediction)
        See `prediction_picture`. At most `SHEET_LIMIT` are drawn; the sheet says what is missing.
    columns : int
        Images side by side; 0 chooses.

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
    canvas, draw = _canvas(height, width)
    for index, (pixels, prediction) in enumerate(shown):
        _check(pixels)
        top = _MARGIN + index // across * step_down
        left = _MARGIN + index % across * step_across
        image = _scaled(pixels, _THUMB)
        draw.rounded_rectangle((left, top, left + _THUMB - 1, top + _THUMB - 1), 8, "#eeeeea")
        free_rows, free_columns = (_THUMB - side for side in image.shape[:2])
        _paste(canvas, image, top + free_rows // 2, left + free_columns // 2, radius=8)
        _draw_caption(draw, prediction, top + _THUMB + 8, left)
    note = _RESEARCH
    if len(rows) > len(shown):
        note = f"The first {len(shown)} of {len(rows):,} images. {note}"
    draw.text((_MARGIN, height - _MARGIN - 14), note if _width(note, 14) < width - 2 * _MARGIN
              else "Research use only.", _PAPER.muted, _font(14))  # fmt: skip
    return np.asarray(canvas, dtype=np.uint8)


def _draw_answer(draw: Any, prediction: Prediction, left: int, right: int, top: int) -> None:
    """The class, its confidence and a bar for each class."""
    draw.text((left, top + 28), prediction.label, _PAPER.ink, _font(42), stroke_width=0.6)
    draw.text(
        (left, top + 84), f"confidence {_percent(prediction.confidence)}", _PAPER.muted, _font(20)
    )
    start, end = left + 120, right - 70
    for index, (name, value) in enumerate(prediction.scores.items()):
        row = top + 134 + 44 * index
        chosen = name == prediction.label
        ink = _PAPER.ink if chosen else _PAPER.muted
        draw.text((left, row + 11), name, ink, _font(18), anchor="lm")
        draw.rounded_rectangle((start, row, end, row + 22), 6, "#ececE8")
        filled = round((end - start) * min(max(value, 0.0), 1.0))
        if filled > 0:
            radius = min(6, filled // 2)
            colour = COLOURS[CLASSES.index(name)]
            draw.rounded_rectangle((start, row, start + filled, row + 22), radius, colour)
        draw.text((right, row + 11), _percent(value), ink, _font(18), anchor="rm")


def _draw_caption(draw: Any, prediction: Prediction, top: int, left: int) -> None:
    """What stands below an image of the sheet."""
    right = left + _THUMB
    name = _shortened(_legible(PurePosixPath(prediction.path).name), 13, _THUMB)
    if prediction.status != "ok":
        draw.text((left, top), "Not classified", _PAPER.warn, _font(19))
        draw.text((left, top + 26), _legible(prediction.reason), _PAPER.muted, _font(14))
        draw.text((left, top + 48), name, _PAPER.muted, _font(13))
        return
    draw.text((left, top), prediction.label, _PAPER.ink, _font(19), stroke_width=0.3)
    draw.text((right, top), _percent(prediction.confidence), _PAPER.muted, _font(19), anchor="ra")
    start = float(left)
    for index, value in enumerate(prediction.probabilities):
        end = start + _THUMB * value
        if round(end) > round(start):
            box = (round(start), top + 28, round(end) - 1, top + 35)
            draw.rectangle(box, COLOURS[index])
        start = end
    second = sorted(range(len(CLASSES)), key=lambda i: -prediction.probabilities[i])[1]
    other = f"then {ABBREVIATIONS[second]} {_percent(prediction.probabilities[second])}"
    draw.text((left, top + 40), _shortened(name, 13, _THUMB - _width(other, 13) - 12),
              _PAPER.muted, _font(13))  # fmt: skip
    draw.text((right, top + 40), other, _PAPER.muted, _font(13), anchor="ra")


def _check(pixels: Pixels) -> None:
    """Refuse what is no picture."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise DataError(
            f"Received pixels of shape {pixels.shape} and type {pixels.dtype}, expected (H, W, 3) "
            "uint8. Read images with leuko.imaging.read_image."
        )


def _scaled(pixels: Pixels, longer: int) -> Pixels:
    """Resize so that the longer side has so many pixels."""
    rows, columns = pixels.shape[:2]
    factor = longer / max(rows, columns)
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    if size == (columns, rows):
        return pixels
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=method), dtype=np.uint8)


def _canvas(height: int, width: int) -> tuple[Any, Any]:
    """An empty sheet and its pen."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (width, height), _PAPER.card)
    return canvas, ImageDraw.Draw(canvas)


def _paste(canvas: Any, pixels: Pixels, top: int, left: int, *, radius: int) -> None:
    """Put an image on the sheet, with round corners."""
    from PIL import Image

    mask = _rounded(*pixels.shape[:2], radius)
    canvas.paste(Image.fromarray(np.ascontiguousarray(pixels)), (left, top), mask)


@functools.lru_cache(maxsize=4)
def _rounded(rows: int, columns: int, radius: int) -> Any:
    """A mask with smooth round corners."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", (columns * 2, rows * 2), 0)
    box = (0, 0, columns * 2 - 1, rows * 2 - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius * 2, 255)
    return mask.resize((columns, rows), Image.Resampling.BOX)


@functools.cache
def _font(size: int) -> Any:
    """The font that comes with Pillow."""
    from PIL import ImageFont

    return ImageFont.load_default(size=size)


def _width(text: str, size: int) -> float:
    """Pixels that a line takes."""
    return float(_font(size).getlength(text))


def _shortened(text: str, size: int, room: float) -> str:
    """Cut the middle out of a line that is too long."""
    if _width(text, size) <= room:
        return text
    for keep in range(min(len(text), 200), 1, -1):
        short = f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"
        if _width(short, size) <= room:
            return short
    return "…"


def _wrapped(text: str, size: int, room: float) -> list[str]:
    """Break a text into lines."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(_shortened(word, size, room))
    return [line for line in lines if line]


def _legible(text: str) -> str:
    """Drop accents and replace what else the font cannot draw, which is all beyond ASCII."""
    plain = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in plain)


def _percent(share: float) -> str:
    """A share as people read it; certainty only where it is certain."""
    if 0.9995 <= share < 1.0:
        return ">99.9%"
    if 0.0 < share < 0.0005:
        return "<0.1%"
    return f"{100 * share:.1f}%"
