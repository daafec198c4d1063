"""Damaged images and archives from a seed, for the tests in CI and for the long runs in soak/."""

from __future__ import annotations

import io
import resource
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from leuko.data.synth import draw_cell, draw_slide_style
from leuko.errors import ImageError
from leuko.imaging import decode_image
from leuko.taxonomy import CLASSES

CHUNK = 5_000
"""Images that one process of a long run takes at a time."""


def whole_images() -> list[bytes]:
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


def whole_archives(images: list[bytes]) -> list[bytes]:
    """Archives of three images each, stored and deflated, in folders and with a remark."""
    files = []
    for number, packing in enumerate((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) * 2):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", packing) as archive:
            for member in range(3):
                data = images[(number * 3 + member) % len(images)]
                archive.writestr(f"slide{member}/cell.png", data)
            archive.comment = b"cells" * (number // 2)
        files.append(file.getvalue())
    return files


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, cut, repeat or insert bytes, more often near either end, where the tables are."""
    buffer = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        if not buffer:
            break
        near = min(len(buffer), 200)
        match int(rng.integers(4)):
            case 0 | 1:
                place = int(rng.integers(near))
            case 2 if data.startswith(b"PK"):
                place = len(buffer) - 1 - int(rng.integers(near))
            case _:
                place = int(rng.integers(len(buffer)))
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


def mutated_image(seed: int, images: list[bytes]) -> bytes:
    """The image that belongs to a seed."""
    rng = np.random.default_rng((seed, 0))
    return mutate(images[int(rng.integers(len(images)))], rng)


def mutated_archive(seed: int, archives: list[bytes], path: Path) -> Path:
    """Write the archive that belongs to a seed."""
    rng = np.random.default_rng((seed, 1))
    path.write_bytes(mutate(archives[int(rng.integers(len(archives)))], rng))
    return path


def decode_chunk(number: int) -> tuple[float, int, set[str]]:
    """Decode one chunk: slowest decode in seconds, peak megabytes, reasons met."""
    images = whole_images()
    slowest, reasons = 0.0, set()
    for seed in range(number * CHUNK, (number + 1) * CHUNK):
        data = mutated_image(seed, images)
        started = time.perf_counter()
        try:
            pixels = decode_image(data).pixels
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
        except ImageError as error:
            reasons.add(error.reason)
        slowest = max(slowest, time.perf_counter() - started)
    return slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, reasons
