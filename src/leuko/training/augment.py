"""How a training image is varied: one warp from file to input, then stain and light.

The warp goes straight from the decoded picture to the network's input, so a turned or shifted
crop shows the real surroundings instead of smeared edges. Stain is varied where it is physical,
in optical density: absorption by dyes adds up there (Beer and Lambert).
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.imaging import PreprocessSpec, warp_image
from leuko.recipe import AugmentSettings

__all__ = ["DENSITY", "augmented"]

Pixels = npt.NDArray[np.uint8]

DENSITY: Final = np.ascontiguousarray(
    np.repeat((-np.log((np.arange(256) + 1) / 256)).astype(np.float32)[None, :, None], 3, axis=2)
)
"""(1, 256, 3) float32: optical density of each pixel value."""


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
    if first:
        pixels = _restain(pixels, settings.stain, rng)
    output = _warp(pixels, spec, angle, zoom, shift, mirror)
    return _restain(output, settings.stain, rng) if restains and not first else output


def _warp(
    pixels: Pixels,
    spec: PreprocessSpec,
    angle: float,
    zoom: npt.NDArray[np.float64],
    shift: npt.NDArray[np.float64],
    mirror: float,
) -> Pixels:
    """Rotate, scale, shift, mirror, crop and resize in one bilinear pass."""
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
    matrix = np.column_stack([linear, middle_in - linear @ middle_out])
    return warp_image(pixels, matrix, (height, width), inverse=True)


def _restain(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    """Mix and scale optical densities, then the light."""
    mixing = np.eye(3) + rng.normal(0.0, deviation, (3, 3))
    strength = np.exp(rng.normal(0.0, 2 * deviation))
    light = np.exp(rng.normal(0.0, deviation))
    density = cv2.transform(cv2.LUT(pixels, DENSITY), (mixing * strength).astype(np.float32))
    # DENSITY counts from one, so that black has a logarithm.
    return np.asarray(cv2.convertScaleAbs(cv2.exp(-density), None, 256.0 * light, -1.0), np.uint8)
