"""How a training image is varied: one warp from file to input, then stain and light.

The warp goes straight from the decoded picture to the network's input, so a turned or shifted
crop shows the real surroundings instead of smeared edges. Stain is varied where it is physical,
in optical density: absorption by dyes adds up there (Beer and Lambert).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from leuko.imaging.preprocess import PreprocessSpec, warp_image
from leuko.recipe import AugmentSettings

__all__ = ["augmented"]

Pixels = npt.NDArray[np.uint8]


def augmented(
    pixels: Pixels, spec: PreprocessSpec, settings: AugmentSettings, rng: np.random.Generator
) -> Pixels:
    """Cut a varied input out of a picture.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        A decoded picture.
    spec : PreprocessSpec
        Input size and central crop.
    settings : AugmentSettings
        With kind ``none`` the result equals `PreprocessSpec.apply`.
    rng : numpy.random.Generator
        Where every random number comes from.

    Returns
    -------
    (h, w, 3) uint8
        The network's input.
    """
    if settings.kind == "none":
        return spec.apply(pixels)
    if settings.kind == "published":
        angle = np.deg2rad(rng.uniform(-15.0, 15.0))
        zoom = rng.uniform(0.9, 1.1, 2)
        shift = np.zeros(2)
    else:
        if settings.kind == "gentle":
            angle = np.deg2rad(rng.uniform(-15.0, 15.0)) + np.pi * float(rng.integers(2))
        else:
            angle = rng.uniform(0.0, 2 * np.pi)
        stretch = np.exp(rng.normal(0.0, settings.scale / 3))
        zoom = np.exp(rng.normal(0.0, settings.scale)) * np.array([stretch, 1 / stretch])
        shift = rng.uniform(-settings.shift, settings.shift, 2)
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    restains = settings.kind != "published" and settings.stain > 0
    # Stain is varied pixel by pixel, so on whichever side of the warp has fewer pixels.
    first = restains and pixels.shape[0] * pixels.shape[1] < spec.size[0] * spec.size[1]
    pixels, matrix = _warp_of(pixels, spec, angle, zoom, shift, mirror)
    if first:
        pixels = _restain(pixels, settings.stain, rng)
    output = warp_image(pixels, matrix, spec.size, inverse=True)
    return _restain(output, settings.stain, rng) if restains and not first else output


def _warp_of(
    pixels: Pixels,
    spec: PreprocessSpec,
    angle: float,
    zoom: npt.NDArray[np.float64],
    shift: npt.NDArray[np.float64],
    mirror: float,
) -> tuple[Pixels, npt.NDArray[np.float64]]:
    """Rotate, scale, shift, mirror, crop and resize in one: what is seen, and (2, 3) into it."""
    side = spec.crop * min(pixels.shape[:2])
    height, width = spec.size
    # Far too large a picture is shrunk by area first: bilinear sampling would skip pixels.
    factor = int(side / max(height, width))
    if factor >= 2:
        rows, columns = pixels.shape[0] // factor, pixels.shape[1] // factor
        pixels = np.asarray(
            cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8
        )
        side = spec.crop * min(rows, columns)
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([mirror, 1.0]) @ np.diag(zoom)
    linear = turn @ np.diag([side / width, side / height])
    middle_in = (np.array([pixels.shape[1], pixels.shape[0]]) - 1) / 2 + shift * side
    middle_out = (np.array([width, height]) - 1) / 2
    # The pixels that the result is made of. The last ones go on beyond the picture's own edges
    # alone, so that nothing changes where the rest is left out.
    reach = np.abs(linear) @ middle_out
    (left, right), (top, bottom) = (
        (max(0, min(math.floor(middle - far) - 1, edge - 1)), max(1, math.ceil(middle + far) + 2))
        for middle, far, edge in zip(middle_in, reach, pixels.shape[1::-1], strict=True)
    )
    matrix = np.column_stack([linear, middle_in - linear @ middle_out - (left, top)])
    return pixels[top:bottom, left:right], matrix


def _restain(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    """Mix and scale optical densities, then the light.

    Of a value v the density is log 256 - log(v + 1), which black has too. In logarithms of light
    all of it is one matrix.
    """
    mixing = np.eye(3) + rng.normal(0.0, deviation, (3, 3))
    mixing *= np.exp(rng.normal(0.0, 2 * deviation))
    light = rng.normal(0.0, deviation)
    offset = light + np.log(256) * (1 - mixing.sum(axis=1))
    values = pixels.astype(np.float32)
    values += 1
    cv2.log(values, dst=values)
    mixed = cv2.transform(values, np.column_stack([mixing, offset]).astype(np.float32))
    return np.asarray(cv2.convertScaleAbs(cv2.exp(mixed), None, 1.0, -1.0), np.uint8)
