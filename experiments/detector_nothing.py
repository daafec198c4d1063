"""Drawn pictures of no blood at all, of which a detector should make nothing."""

from __future__ import annotations

import string

import cv2
import numpy as np

LETTERS = [*string.ascii_letters, *string.digits, *".,-%"]


def nothing(rng, side: int) -> np.ndarray:
    """One to three of the kinds below, laid over one another; (side, side, 3) uint8."""
    pixels = np.zeros((side, side, 3), np.float32)
    kinds = (clouds, clouds, shapes, shapes, text, waves)
    for number in range(int(rng.integers(1, 4))):
        layer = kinds[rng.integers(len(kinds))](rng, side)
        share = rng.uniform(0.2, 0.8) if number else 1.0
        pixels = (1 - share) * pixels + share * layer
    if rng.random() < 0.3:
        pixels = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.5, 4)))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def clouds(rng, side: int) -> np.ndarray:
    """Noise, from grains to gradients."""
    tall = int(np.exp(rng.uniform(np.log(2), np.log(side))))
    wide = max(1, int(tall * rng.uniform(0.3, 1.7)))
    grains = rng.integers(0, 256, (tall, wide, 3 if rng.random() < 0.6 else 1), np.uint8)
    method = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC)[rng.integers(3)]
    large = cv2.resize(grains, (side, side), interpolation=method).reshape(side, side, -1)
    return np.broadcast_to(large, (side, side, 3)).astype(np.float32)


def shapes(rng, side: int) -> np.ndarray:
    """Discs, rectangles, lines, polygons and ellipses, alike or mixed."""
    pixels = np.full((side, side, 3), colour(rng), np.float32)
    alike = rng.random() < 0.5
    ink, size = colour(rng), rng.uniform(4, side / 3)
    shape = rng.integers(5)
    for _ in range(int(rng.integers(3, 90))):
        if not alike:
            ink, size = colour(rng), rng.uniform(3, side / 3)
        row, col = (int(v) for v in rng.integers(-20, side + 20, 2))
        reach = max(2, int(size * rng.uniform(0.7, 1.3)))
        kind = shape if alike else rng.integers(5)
        thick = -1 if rng.random() < 0.6 else int(rng.integers(1, 5))
        if kind == 0 and not alike:  # discs of one size are what cells are
            cv2.circle(pixels, (col, row), reach, ink, thick)
        elif kind == 1:
            corner = (col + reach, row + int(reach * rng.uniform(0.2, 3)))
            cv2.rectangle(pixels, (col, row), corner, ink, thick)
        elif kind == 2:
            end = [int(v) for v in rng.integers(0, side, 2)]
            cv2.line(pixels, (col, row), end, ink, int(rng.integers(1, 9)))
        elif kind == 3:
            corners = np.array([col, row]) + rng.normal(0, reach, (int(rng.integers(3, 8)), 2))
            cv2.fillPoly(pixels, [corners.astype(np.int32)], ink)
        else:
            axes = (reach, max(1, reach // int(rng.integers(3, 9))))
            cv2.ellipse(pixels, (col, row), axes, float(rng.uniform(0, 180)), 0, 360, ink, thick)
    return pixels


def text(rng, side: int) -> np.ndarray:
    """Lines of letters."""
    pixels = np.full((side, side, 3), colour(rng)).astype(np.uint8)
    ink, size = colour(rng), float(rng.uniform(0.3, 3))
    for row in range(10, side + 30, max(8, int(size * 32))):
        line = "".join(LETTERS[k] for k in rng.integers(0, len(LETTERS), 60))
        font, thick = int(rng.integers(0, 8)), max(1, int(size * rng.uniform(0.5, 3)))
        cv2.putText(pixels, line, (-5, row), font, size, ink, thick)
    return pixels.astype(np.float32)


def waves(rng, side: int) -> np.ndarray:
    """Stripes, soft or hard, across one another."""
    rows, cols = np.mgrid[:side, :side].astype(np.float32)
    pixels = np.zeros((side, side, 3), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        turn = rng.uniform(0, np.pi)
        often = 2 * np.pi / np.exp(rng.uniform(np.log(4), np.log(side)))
        along = (cols * np.cos(turn) + rows * np.sin(turn)) * often
        wave = np.sin(along + rng.uniform(0, 6))
        if rng.random() < 0.3:
            wave = np.sign(wave)
        pixels += wave[..., None] * rng.uniform(-80, 80, 3).astype(np.float32)
    return pixels + np.float32(rng.uniform(60, 200))


def colour(rng) -> list[float]:
    """Any."""
    return [float(v) for v in rng.uniform(0, 255, 3)]
