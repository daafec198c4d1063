"""What drawn pictures share: a sheet, a pen, a font, and text that is made to fit.

Needs only the base install.
"""

from __future__ import annotations

import bisect
import functools
import threading
import unicodedata
from pathlib import PurePosixPath
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
from leuko.render.style import style

__all__ = [
    "RESEARCH",
    "check_pixels",
    "draw_name",
    "file_name",
    "fitted_name",
    "font",
    "legible",
    "new_canvas",
    "paste",
    "scaled",
    "shortened",
    "text_width",
    "wrapped",
]

Pixels = npt.NDArray[np.uint8]

RESEARCH: Final = "Research use only. Not a diagnosis; a qualified person must review it."

_LONGEST: Final = 200
_WEIGHT: Final = 350  # of OpenCV's font; beside Pillow's it then looks as dark
_FONT = threading.Lock()  # whether OpenCV's font may be used by two threads is not promised


def check_pixels(pixels: Pixels) -> None:
    """Refuse what is no picture."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise DataError(
            f"Received pixels of shape {pixels.shape} and type {pixels.dtype}, expected (H, W, 3) "
            "uint8. Read images with leuko.imaging.decode.read_image."
        )


def scaled(pixels: Pixels, longer: int) -> Pixels:
    """Resize so that the longer side has so many pixels."""
    rows, columns = pixels.shape[:2]
    factor = longer / max(rows, columns)
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    if size == (columns, rows):
        return pixels
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=method), dtype=np.uint8)


def new_canvas(height: int, width: int) -> tuple[Any, Any]:
    """An empty sheet and its pen."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (width, height), style().card)
    return canvas, ImageDraw.Draw(canvas)


def paste(canvas: Any, pixels: Pixels, top: int, left: int, *, radius: int) -> None:
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
def font(size: int) -> Any:
    """The font that comes with Pillow."""
    from PIL import ImageFont

    return ImageFont.load_default(size=size)


def text_width(text: str, size: int) -> float:
    """Pixels that a line takes."""
    return float(font(size).getlength(text))


def shortened(text: str, size: int, room: float) -> str:
    """Cut the middle out of a line that is too long."""
    if text_width(text, size) <= room:
        return text
    for keep in range(min(len(text), 200), 1, -1):
        short = f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"
        if text_width(short, size) <= room:
            return short
    return "…"


def wrapped(text: str, size: int, room: float) -> list[str]:
    """Break a text into lines."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(shortened(word, size, room))
    return [line for line in lines if line]


def legible(text: str) -> str:
    """Drop accents and replace what else the font cannot draw, which is all beyond ASCII."""
    plain = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in plain)


def file_name(path: str) -> str:
    r"""Last part of a path, as it can be drawn.

    Pillow's own font has ASCII alone. OpenCV's, from its version 5 on, has the letters of most
    scripts; before, whatever is not ASCII is escaped.

    Parameters
    ----------
    path : str
        Of an image, as the user named it.

    Returns
    -------
    str
        With an escape in place of each character that the fonts do not have.

    Examples
    --------
    >>> print(file_name("cells/a\tb_\udce4.png"))
    a\tb_\udce4.png
    """
    name = unicodedata.normalize("NFC", PurePosixPath(path).name)
    return "".join(c if _is_drawn(c) else c.encode("unicode_escape").decode() for c in name)


def fitted_name(name: str, size: int, room: float, *, middle: bool = True) -> str:
    """Cut the middle out of a file name that is too long, or its beginning off.

    Parameters
    ----------
    name : str
        See `file_name`.
    size : int
        Of the letters, in pixels.
    room : float
        Pixels that there are.
    middle : bool
        Keep as much of its beginning as of its end; else the end alone.

    Returns
    -------
    str
        As much of it as there is room for.
    """

    def cut(keep: int) -> str:
        head = (keep + 1) // 2 if middle else 0
        return f"{name[:head]}…{name[len(name) - keep + head :]}"

    if len(name) <= _LONGEST and name_width(name, size) <= room:
        return name
    lengths = range(2, min(len(name), _LONGEST) + 1)
    fit = bisect.bisect_right(lengths, room, key=lambda keep: name_width(cut(keep), size))
    return cut(lengths[fit - 1]) if fit else "…"


def draw_name(
    draw: Any,
    place: tuple[int, int],
    name: str,
    ink: str,
    size: int,
    *,
    bold: float = 0.0,
    ends: bool = False,
) -> None:
    """Write the name of a file or a class onto a picture.

    Parameters
    ----------
    draw : PIL.ImageDraw.ImageDraw
        The pen.
    place : (left, top) tuple of int
        Where it begins, or (right, top) where it ends.
    name : str
        See `file_name` and `fitted_name`.
    ink : str
        Its colour.
    size : int
        Of the letters, in pixels.
    bold : float
        What strokes are wider by, in pixels, where Pillow's own font has all letters.
    ends : bool
        Whether `place` is where it ends.
    """
    from PIL import Image

    if ends:
        place = (round(place[0] - name_width(name, size)), place[1])
    if _is_plain(name):
        draw.text(place, name, ink, font(size), stroke_width=bold)
    else:
        draw.bitmap(place, Image.fromarray(_inked(name, size)), ink)


def _is_plain(text: str) -> bool:
    """Whether Pillow's font has all of it."""
    return all(" " <= c <= "~" or c == "…" for c in text)


@functools.lru_cache(maxsize=4096)
def _is_drawn(character: str) -> bool:
    """Whether there is a font that has a character; OpenCV's has a question mark for others."""
    if _is_plain(character):
        return True
    if not character.isprintable() or not hasattr(cv2, "FontFace"):
        return False
    drawn = _inked(character, 20)
    return bool(drawn.any()) and not np.array_equal(drawn, _inked("?", 20))


def name_width(text: str, size: int) -> float:
    """Pixels that a name takes."""
    return text_width(text, size) if _is_plain(text) else float(_inked(text, size).shape[1])


@functools.lru_cache(maxsize=64)
def _inked(text: str, size: int) -> Pixels:
    """A line in OpenCV's font, 255 where there is ink, placed as Pillow places its own."""
    with _FONT:
        face = cv2.FontFace("sans")
        _, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), face, size, _WEIGHT)
        pixels = np.zeros((round(1.6 * size), width + 2), np.uint8)
        cv2.putText(pixels, text, (0, round(1.1 * size)), 255, face, size, _WEIGHT)
    return pixels
