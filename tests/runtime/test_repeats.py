"""A cell in several files is counted once, and two cells are two."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from drawn_cells import drawn
from five import CLASSES
from leuko.data.alike import SAME_CELL, Fingerprints, fingerprint
from leuko.imaging.decode import decode_image, encode_jpeg
from leuko.prediction import Prediction
from leuko.runtime.repeats import mark_repeats

Pixels = npt.NDArray[np.uint8]


def answer(path: str, pixels: Pixels | None, sha256: str = "") -> Prediction:
    print_ = b"" if pixels is None else fingerprint(pixels)
    return Prediction(
        path=path, status="ok", decision="class", sha256=sha256 or path, confidence=0.9,
        probabilities=(0.9, 0.1, 0.0, 0.0, 0.0), fingerprint=base64.b64encode(print_).decode(),
    )  # fmt: skip


def changed(pixels: Pixels, how: str) -> Pixels:
    image = Image.fromarray(pixels)
    if how.endswith("px"):
        side = int(how.removesuffix("px"))
        image = image.resize((side, side))
    elif how in ("turned", "mirrored"):
        return np.ascontiguousarray(np.rot90(pixels) if how == "turned" else pixels[:, ::-1])
    quality = int(how.removeprefix("q")) if how[0] == "q" else 80
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return decode_image(file.getvalue()).pixels


@pytest.fixture(scope="module")
def cells() -> list[Pixels]:
    return [drawn(name, seed).pixels for seed in range(6) for name in CLASSES]


@pytest.mark.parametrize(
    "how", ["120px", "160px", "320px", "q40", "q60", "q95", "turned", "mirrored"]
)
def test_copies_are_marked_and_cells_are_not(how: str, cells: list[Pixels]) -> None:
    rows = [answer(f"{number}.jpg", cell) for number, cell in enumerate(cells)]
    rows += [answer(f"{number}_copy.jpg", changed(cell, how)) for number, cell in enumerate(cells)]
    marked = list(mark_repeats(rows))
    assert [row.decision for row in marked] == ["class"] * 30 + ["duplicate"] * 30
    assert [row.reason for row in marked[30:]] == [f"same cell as {n}.jpg" for n in range(30)]
    assert {row.fingerprint for row in marked} == {""}
    assert marked[30].probabilities == rows[30].probabilities


def test_the_first_is_named_and_bytes_are_enough() -> None:
    even = np.full((64, 64, 3), 200, np.uint8)
    rejected = Prediction(path="x", status="rejected", reason="corrupt", sha256="s")
    marked = list(mark_repeats([
        answer("a", even, "s"), answer("b", even, "t"), rejected, answer("c", even, "s"),
        answer("d", None, "s"), answer("e", None), answer("e", None, "e2"),
    ]))  # fmt: skip
    # Even pictures are like every other: only their bytes tell.
    assert [row.decision for row in marked] == [
        "class", "class", "", "duplicate", "duplicate", "class", "class"]  # fmt: skip
    assert [row.reason for row in marked[2:5]] == ["corrupt", "same cell as a", "same cell as a"]


def likeness(first: bytes, second: bytes) -> float:
    """Highest correlation of two fingerprints, one of them in any of eight positions."""
    one, other = (np.frombuffer(print_, np.int8, offset=2).reshape(24, 24).astype(float)
                  for print_ in (first, second))  # fmt: skip
    every = [np.rot90(way, turns) for way in (other, other.T) for turns in range(4)]
    return max(float(np.vdot(one, way)) for way in every) / float(
        np.linalg.norm(one) * np.linalg.norm(other)
    )


def test_a_fingerprint_is_that_of_a_cell_in_any_position(cells: list[Pixels]) -> None:
    first = fingerprint(cells[0])
    for turns in range(4):
        assert likeness(first, fingerprint(np.rot90(cells[0], turns))) > 0.97
    assert likeness(first, fingerprint(cells[1])) < 0.6
    assert fingerprint(np.zeros((20, 30, 3), np.uint8)) == b""


@pytest.mark.slow
def test_the_search_finds_what_brute_force_finds(cells: list[Pixels]) -> None:
    rng = np.random.default_rng(3)
    noisy = [np.clip(cell + rng.normal(0, rng.uniform(0, 40), cell.shape), 0, 255).astype(np.uint8)
             for cell in cells for _ in range(3)]  # fmt: skip
    prints = [fingerprint(cell) for cell in noisy]
    seen, received, due = Fingerprints(), [], []
    for number, one in enumerate(prints):
        received.append(seen.find(one))
        near = [n for n in range(number)
                if likeness(prints[n], one) >= SAME_CELL and _close(prints[n], one)]  # fmt: skip
        due.append(min(near, default=None))
        seen.add(one, number)
    assert received == due
    assert sum(found is not None for found in due) > 20


def _close(first: bytes, second: bytes) -> bool:
    """Whether light and contrast lie in neighbouring buckets."""
    return abs(first[0] // 4 - second[0] // 4) <= 1 and abs(first[1] // 8 - second[1] // 8) <= 1


@pytest.mark.slow
@pytest.mark.data
def test_hardly_two_cells_of_a_laboratory_are_one() -> None:
    root = os.environ.get("LEUKO_DATA")
    if not root or not Path(root, "jtsc").is_dir():
        pytest.skip("LEUKO_DATA does not point to a folder with jtsc")
    files = sorted(
        file for file in Path(root, "jtsc").rglob("*") if file.suffix in (".bmp", ".jpg", ".png")
    )
    rows = [answer(str(file), decode_image(file.read_bytes()).pixels) for file in files]
    # Looked at: one picture twice, and two pictures of one cell.
    assert sum(row.decision == "duplicate" for row in mark_repeats(rows)) == 2


def test_a_scaled_picture_has_the_same_fingerprint(cells: list[Pixels]) -> None:
    data = encode_jpeg(changed(cells[0], "576px"), quality=90)
    assert likeness(fingerprint(decode_image(data).pixels), fingerprint(cells[0])) > 0.98
