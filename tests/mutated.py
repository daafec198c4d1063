"""Damaged images and archives from a seed, for the tests in CI and for the long runs in soak/."""

from __future__ import annotations

import functools
import io
import resource
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from encoded import WAYS, by_opencv, by_pillow, encoded_image, second_decoder
from five import CLASSES
from leuko.data.synth import draw_cell, draw_slide_style
from leuko.errors import DataError, ImageError
from leuko.imaging.decode import REJECT_REASONS, decode_image, refuse_bombs
from leuko.runtime.sources import expand


@functools.cache
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


@functools.cache
def all_archives() -> list[bytes]:
    """The archives that are mutated in the long run."""
    return whole_archives(all_images())


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


@functools.cache
def all_images() -> list[bytes]:
    """What is mutated in the long run: ordinary files, and 20 of each rare encoding."""
    return whole_images() + [encoded_image(seed).data for seed in range(20 * len(WAYS))]


@dataclass
class Outcome:
    """What became of some pictures: how many gave pixels or a reason, and what was wrong."""

    met: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    megabytes: int = 0

    def __iadd__(self, other: Outcome) -> Outcome:
        self.met += other.met
        self.faults += other.faults
        self.slowest = max(self.slowest, other.slowest)
        self.megabytes = max(self.megabytes, other.megabytes)
        return self


def named(error: ImageError) -> str:
    """A reason that is in the list."""
    assert error.reason in REJECT_REASONS
    return error.reason


def decoded(data: bytes) -> tuple[str, np.ndarray | None]:
    """A reason, or "ok" and pixels."""
    try:
        pixels = decode_image(data).pixels
    except ImageError as error:
        return named(error), None
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    return "ok", pixels


def differ(pixels: np.ndarray, wanted: np.ndarray | None) -> bool:
    """Whether two decoders give other pixels, by more than they round."""
    if wanted is None:
        return False
    if pixels.shape != wanted.shape:
        return True
    return bool(np.abs(np.subtract(pixels, wanted, dtype=np.int16)).max() > 2)


def try_sound(seed: int) -> str:
    """A sound picture in a rare encoding has its pixels, or is of a kind that is not read."""
    image = encoded_image(seed)
    reason, pixels = decoded(image.data)
    if pixels is None:
        assert reason == "unsupported-format", f"{image.way}: {reason}"
        return reason
    wanted = second_decoder(image.data) if image.pixels is None else image.pixels
    assert not differ(pixels, wanted), f"{image.way}: other pixels"
    return "ok"


def try_mutated(seed: int) -> str:
    """A mutated picture has a reason or pixels; those of a JPEG are another decoder's too."""
    data = mutated_image(seed, all_images())
    reason, pixels = decoded(data)
    if pixels is not None and data.startswith(b"\xff\xd8"):
        # Decoders do not agree on every mark of orientation.
        assert any(not differ(pixels, by(data)) for by in (by_pillow, by_opencv)), "other pixels"
    return reason


def try_archive(seed: int, path: Path) -> str:
    """A mutated archive gives pictures, refused or not, or is refused itself."""
    mutated_archive(seed, all_archives(), path)
    try:
        members = list(expand([str(path)]))
    except DataError:
        return "refused archive"
    for member in members:
        try:
            decoded(member.read())
        except ImageError as error:
            named(error)
    return "archive"


def try_pictures(first: int, number: int) -> Outcome:
    """Try so many seeds: sound and mutated pictures in turn, one in fifty an archive."""
    outcome = Outcome()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        refuse_bombs()
        archive = Path(folder) / "cells.zip"
        for seed in range(first, first + number):
            started = time.perf_counter()
            try:
                if seed % 50 == 49:
                    met = try_archive(seed, archive)
                else:
                    met = "mutated: " + try_mutated(seed) if seed % 2 else try_sound(seed // 2)
                outcome.met[met] += 1
            except Exception as error:  # noqa: BLE001 - the run goes on, and lists it
                outcome.faults.append(f"{seed}: {error!r:.200}")
            outcome.slowest = max(outcome.slowest, time.perf_counter() - started)
    outcome.megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return outcome
