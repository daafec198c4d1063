"""An answer's explanation as a picture: the image, and beside it what speaks for its class.

Needs only the base install.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
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
    wrapped,
)
from leuko.render.style import style
from leuko.render.words import percent
from leuko.runtime.explain import Explanation

__all__ = ["heat_colours", "heat_overlay", "heat_picture"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_SIDE: Final = 440
_MARGIN: Final = 28
_BAR: Final = 14
_OPACITY: Final = 0.8
_GREY: Final = 0.75
_STEPS: Final = 255
_PAPER = style()
_METHODS: Final = {
    "class-activation map": "Class-activation map: the places add up to the network's answer.",
    "occlusion": "Occlusion: what covering each place takes away.",
}
_MEASURED: Final = (
    "Sizes and densities measured on the cell, which it does not show, add {:+.1f} for {}."
)

# Ottosson's OKLab: a colour space in which equal distances look about equal.
_TO_CONES: Final = np.array([
    [1.0, 0.3963377774, 0.2158037573],
    [1.0, -0.1055613458, -0.0638541728],
    [1.0, -0.0894841775, -1.2914855480],
])  # fmt: skip
_TO_LINEAR_RGB: Final = np.array([
    [4.0767416621, -3.3077115913, 0.2309699292],
    [-1.2684380046, 2.6097574011, -0.3413193965],
    [-0.0041960863, -0.7034186147, 1.7076147010],
])  # fmt: skip
_PALEST: Final = 0.97
_DARKEST: Final = 0.60
_CHROMA: Final = 0.145
_HUES: Final = (250.0, 50.0)
"""Of evidence against and for, in degrees: blue and orange, which every eye tells apart."""


@functools.cache
def heat_colours() -> Pixels:
    """Colours from "against" (blue) over nothing (nearly white) to "for" (orange).

    On both sides lightness falls and chroma grows in equal steps, so that equal differences of
    evidence look about equally different, and equal amounts for and against equally strong.

    Returns
    -------
    (255, 3) uint8, RGB
        The middle one, 127, is no evidence. Leave the array as it is.

    References
    ----------
    Ottosson, "A perceptual color space for image processing", 2020 (OKLab); Kovesi, "Good colour
    maps: how to design them", arXiv:1509.03700, for diverging maps.
    """
    amount = np.abs(np.linspace(-1.0, 1.0, _STEPS))
    hue = np.deg2rad(np.repeat(_HUES, [_STEPS // 2, _STEPS // 2 + 1]))
    lightness = _PALEST + (_DARKEST - _PALEST) * amount
    chroma = _CHROMA * amount
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    linear = np.clip((lab @ _TO_CONES.T) ** 3 @ _TO_LINEAR_RGB.T, 0.0, 1.0)
    curved = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    colours = np.where(linear <= 0.0031308, 12.92 * linear, curved)
    result: Pixels = np.round(255 * colours).astype(np.uint8)
    result.flags.writeable = False
    return result


def heat_overlay(pixels: Pixels, values: Floats, limit: float) -> Pixels:
    """Lay evidence over a picture that was made grey.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        The picture.
    values : (H, W) float32
        Evidence; not a number where the network did not look.
    limit : float
        Evidence that gets the strongest colour; above 0.

    Returns
    -------
    (H, W, 3) uint8, RGB
        Opaque where evidence is strong, clear where there is none.

    Raises
    ------
    DataError
        When the two do not fit together.
    """
    check_pixels(pixels)
    if values.shape != pixels.shape[:2] or not limit > 0:
        raise DataError(
            f"Received values of shape {values.shape} for a picture of {pixels.shape[:2]}, with "
            f"the limit {limit}; expected equal shapes and a limit above 0."
        )
    share = np.clip(np.nan_to_num(values / np.float32(limit)), -1.0, 1.0)
    colours = heat_colours()[np.round((share + 1) * (_STEPS // 2)).astype(np.intp)]
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY).astype(np.float32)
    ground = (255 - _GREY * (255 - grey))[..., None]
    cover = _OPACITY * np.abs(share)[..., None]
    return np.asarray(np.round(ground * (1 - cover) + colours * cover), np.uint8)


def heat_picture(pixels: Pixels, prediction: Prediction, explanation: Explanation) -> Pixels:
    """Draw one image and its explanation side by side.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        The image that was classified.
    prediction : Prediction
        Its row, which has a class.
    explanation : Explanation
        Of these pixels.

    Returns
    -------
    (h, w, 3) uint8, RGB
        Image and overlay, what was decided and how surely, and the scale of the colours.

    Raises
    ------
    DataError
        When the pixels are no RGB image, or the row has no class.
    """
    check_pixels(pixels)
    if prediction.status != "ok":
        raise DataError(f"{prediction.path} has no answer to explain: {prediction.reason}.")
    image = scaled(pixels, _SIDE)
    rows, columns = image.shape[:2]
    values = explanation.on_picture((rows, columns))
    limit = max(float(np.abs(explanation.values).max()), 1e-6)
    overlay = heat_overlay(image, values, limit)
    wide = max(columns, 300)
    width, top = 2 * wide + 3 * _MARGIN, _MARGIN + 88
    told = [_METHODS[explanation.method], RESEARCH]
    if explanation.measured:
        told.insert(1, _MEASURED.format(explanation.measured, legible(explanation.label)))
    foot = wrapped(" ".join(told), 13, width - 2 * _MARGIN)
    canvas, draw = new_canvas(top + rows + 86 + 18 * len(foot), width)
    lefts = (_MARGIN, 2 * _MARGIN + wide)
    _draw_title(draw, prediction, explanation, width)
    seen = explanation.outline() * (np.array([rows, columns]) / explanation.shape)
    for left, shown in zip(lefts, (image, overlay), strict=True):
        paste(canvas, _outlined(shown, seen), top, left, radius=10)
        edge = (left - 1, top - 1, left + columns, top + rows)
        draw.rounded_rectangle(edge, 10, outline=_PAPER.line)
    below = top + rows + 12
    draw.text((lefts[0], below), "Outlined: what the network saw.", _PAPER.muted, font(14))
    _draw_scale(canvas, draw, explanation.label, limit, below, lefts[1], wide)
    for number, line in enumerate(foot):
        draw.text((_MARGIN, top + rows + 68 + 18 * number), line, _PAPER.muted, font(13))
    return np.asarray(canvas, dtype=np.uint8)


def _draw_title(draw: Any, prediction: Prediction, explanation: Explanation, width: int) -> None:
    """What was decided, how surely or why, and on what."""
    right, accepted = width - _MARGIN, bool(prediction.label)
    ink = _PAPER.ink if accepted else _PAPER.warn
    colours = dict(zip(prediction.scheme.names, _PAPER.classes(prediction.scheme), strict=True))
    bar = colours[prediction.label] if accepted else ink
    told = percent(prediction.confidence)
    draw.rounded_rectangle((_MARGIN, _MARGIN + 6, _MARGIN + 8, _MARGIN + 38), 4, bar)
    shown = fitted_name(file_name(title(prediction)), 34, right - _MARGIN - 130)
    draw_name(draw, (_MARGIN + 20, _MARGIN), shown, ink, 34, bold=0.5)
    if accepted:
        draw.text((right, _MARGIN + 8), told, ink, font(26), anchor="ra")
    else:
        start = _MARGIN + 38 + name_width(shown, 34)
        reason = f"{file_name(question(prediction))} {legible(why(prediction))}".strip()
        reason = fitted_name(reason, 20, right - start)
        draw_name(draw, (round(start), _MARGIN + 12), reason, _PAPER.ink, 20)
    beside = "" if accepted else f"likeliest {prediction.likeliest} {told}"
    if explanation.label != prediction.likeliest:
        beside = f"{beside}  explained: {explanation.label}".strip()
    beside = fitted_name(file_name(beside), 15, width / 2)
    room = width - 2 * _MARGIN - name_width(beside, 15) - 16
    name = fitted_name(file_name(prediction.path), 15, room)
    draw_name(draw, (_MARGIN, _MARGIN + 52), name, _PAPER.muted, 15)
    draw_name(draw, (right, _MARGIN + 52), beside, _PAPER.muted, 15, ends=True)


def _outlined(pixels: Pixels, corners: npt.NDArray[np.float64]) -> Pixels:
    """A thin frame round what the network saw, as far as it lies in the picture."""
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(np.ascontiguousarray(pixels))
    points = [(float(column), float(row)) for row, column in (*corners, corners[0])]
    pen = ImageDraw.Draw(canvas)
    pen.line(points, "#ffffff", 3)
    pen.line(points, _PAPER.ink, 1)
    return np.asarray(canvas, dtype=np.uint8)


def _draw_scale(
    canvas: Any, draw: Any, label: str, limit: float, top: int, left: int, columns: int
) -> None:
    """The bar that says what the colours mean."""
    share = np.tile(np.linspace(-1, 1, columns, dtype=np.float32), (_BAR, 1))
    paper = np.full((_BAR, columns, 3), 255, np.uint8)
    paste(canvas, heat_overlay(paper, share, 1.0), top + 4, left, radius=3)
    high = fitted_name(file_name(f"+{limit:.1f}  for {label}"), 14, columns / 2 - 16)
    for place, anchor, text in ((0, "la", f"against  -{limit:.1f}"), (columns / 2, "ma", "0")):
        draw.text((left + place, top + 26), text, _PAPER.muted, font(14), anchor=anchor)
    draw_name(draw, (left + columns, top + 26), high, _PAPER.muted, 14, ends=True)
