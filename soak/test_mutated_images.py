"""Mutated images by the hundred thousand: a named reason or pixels, never a crash, never a hang.

`LEUKO_SOAK_IMAGES` sets how many (10,000,000 is the figure to reach; the default takes minutes).
"""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import time

import numpy as np
import pytest
from PIL import Image

from leuko.data.synth import draw_cell, draw_slide_style
from leuko.errors import ImageError
from leuko.imaging import REJECT_REASONS, decode_image
from leuko.taxonomy import CLASSES

IMAGES = int(os.environ.get("LEUKO_SOAK_IMAGES", "400000"))
CHUNK = 5_000
SLOWEST, MOST_MEMORY = 10.0, 1024


def _seeds() -> list[bytes]:
    """One small valid file of every format and of several colour modes."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(draw_cell(CLASSES[0], rng, draw_slide_style(rng), size=64).pixels)
    files = []
    for kind, modes in (
        ("JPEG", ("RGB", "L", "CMYK")),
        ("PNG", ("RGB", "RGBA", "P", "L", "I;16")),
        ("BMP", ("RGB", "L")),
        ("TIFF", ("RGB", "L", "CMYK", "I;16")),
        ("WEBP", ("RGB", "RGBA")),
    ):
        for mode in modes:
            changed = picture.convert("I").convert("I;16") if mode == "I;16" else picture
            changed = changed if mode == "I;16" else changed.convert(mode)
            file = io.BytesIO()
            changed.save(file, kind)
            files.append(file.getvalue())
    return files


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, cut, repeat or insert bytes, more often near the header."""
    buffer = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        reach = min(len(buffer), 200) if rng.random() < 0.5 else len(buffer)
        if reach == 0:
            break
        place = int(rng.integers(reach))
        match int(rng.integers(5)):
            case 0:
                buffer[place] = int(rng.integers(256))
            case 1:
                del buffer[place:]
            case 2:
                buffer[place:place] = rng.bytes(int(rng.integers(1, 9)))
            case 3:
                buffer[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0"])
            case _:
                buffer[place:place] = buffer[place : place + 64]
    return bytes(buffer)


def _chunk(seed: int) -> tuple[float, int, set[str]]:
    """Decode one chunk: slowest decode, peak megabytes, reasons met."""
    rng = np.random.default_rng(seed)
    seeds = _seeds()
    slowest, reasons = 0.0, set()
    for _ in range(CHUNK):
        data = mutate(seeds[int(rng.integers(len(seeds)))], rng)
        started = time.perf_counter()
        try:
            pixels = decode_image(data).pixels
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
        except ImageError as error:
            reasons.add(error.reason)
        slowest = max(slowest, time.perf_counter() - started)
    return slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, reasons


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_every_mutated_image_has_pixels_or_a_named_reason() -> None:
    chunks = -(-IMAGES // CHUNK)
    with multiprocessing.get_context("spawn").Pool() as pool:
        results = pool.map(_chunk, range(chunks), chunksize=1)
    assert max(slowest for slowest, _, _ in results) < SLOWEST
    assert max(memory for _, memory, _ in results) < MOST_MEMORY
    met = set().union(*(reasons for _, _, reasons in results))
    assert met <= set(REJECT_REASONS)
    assert {"truncated", "corrupt", "not-an-image"} <= met
