"""What drawn pictures share: a sheet, a pen, a font, and text that is made to fit.

Needs only the base install.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
from leuko.render.style import style

__all__ = [
    "check_pixels",
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


def check_pixels(pixels: Pixels) -> None:
    """Refuse what is no picture."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise DataError(
            f"Received pixels of shape {pixels.shape} and type {pixels.dtype}, expected (H, W, 3) "
            "uint8. Read images with leuko.imaging.read_image."
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
