"""Measure how well cells that two pictures show are counted once.

    python experiments/count_once.py                        # drawn fields
    python experiments/count_once.py --fields DATA/fields   # TXL-PBC, near-copies among it
    python experiments/count_once.py --seconds 200          # pictures to be timed

On drawn fields, pairs of photographs of one place are made under one condition each, and of as many
places of the same smear that have nothing in common. Of photographs by hand see
`tests/field/test_once.py`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from leuko.data.synth import DrawnField, draw_field, draw_slide_style
from leuko.field.once import Sight, find_repeats, see
from leuko.imaging.decode import read_image

_WINDOW = (450, 600)
_SCALE = 6.0
"""Pixels for a micrometre."""

_CONDITIONS = {
    "as it is": {},
    "turned by 1 degree": {"turn": 1.0},
    "turned by 2 degrees": {"turn": 2.0},
    "out of focus, 0.5 um": {"blur": 3.0},
    "out of focus, 0.8 um": {"blur": 5.0},
    "JPEG quality 40": {"quality": 40},
    "2% larger": {"zoom": 1.02},
    "5 pixels of noise in boxes": {"jitter": 5.0},
}
_OVERLAPS = (0.15, 0.3, 0.6, 0.9)
"""Share of each side that both show."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fields", type=Path)
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--slides", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.fields:
        near_copies(arguments.fields)
    elif arguments.seconds:
        timing(arguments.seconds)
    else:
        drawn(arguments.slides)


def drawn(slides: int) -> None:
    """Print recall by condition and overlap, and what was taken for one and is not."""
    fields = [slide(seed) for seed in range(slides)]
    for name, condition in _CONDITIONS.items():
        line = []
        for overlap in _OVERLAPS:
            found = common = false = 0
            for seed, field in enumerate(fields):
                rng = np.random.default_rng([seed, 1])
                for cell in range(len(field.boxes)):
                    one, two = twice(field, cell, overlap, condition, rng)
                    hits, both, wrong = compare(one, two)
                    found, common, false = found + hits, common + both, false + wrong
            line.append(f"{overlap:.0%}: {found}/{common}" + (f", {false} FALSE" if false else ""))
        print(f"{name:28} {'   '.join(line)}", flush=True)
    others = [shot for seed, field in enumerate(fields) for shot in apart(field, seed)]
    kept = find_repeats([sight for sight, _ in others])
    wrong = sum(place is not None for cells in kept.cells for place in cells)
    wrong += sum(picture is not None for picture in kept.pictures)
    pairs = len(others) * (len(others) - 1) // 2
    print(f"{pairs} pairs of places with nothing in common: {wrong} taken for one")


def slide(seed: int) -> DrawnField:
    """A piece of a smear, 200 x 267 micrometres; four pieces have one stain."""
    style = draw_slide_style(np.random.default_rng([17, seed // 4]))
    return draw_field(
        12, np.random.default_rng([18, seed]), style, height=1200, width=1600,
        pixels_per_micrometre=_SCALE, cut_share=0.0,
    )  # fmt: skip


Shot = tuple[Sight, list[int]]
"""A photograph, and the numbers of its cells."""


def photograph(
    field: DrawnField, row: int, column: int, rng: np.random.Generator, *, turn: float = 0.0,
    zoom: float = 1.0, blur: float = 0.0, quality: int = 85, jitter: float = 2.0,
) -> Shot:  # fmt: skip
    """Photograph a window of a field, with its own light, vignette, noise and boxes."""
    tall, wide = _WINDOW
    place = cv2.getRotationMatrix2D((column + wide / 2, row + tall / 2), turn, zoom)
    place[:, 2] -= column, row
    seen = cv2.warpAffine(field.pixels, place, (wide, tall), borderMode=cv2.BORDER_REFLECT)
    picture = seen.astype(np.float32)
    if blur:
        picture = cv2.GaussianBlur(picture, (0, 0), blur)
    down, across = np.mgrid[-0.5 : 0.5 : tall * 1j, -0.5 : 0.5 : wide * 1j]
    picture *= (1 - rng.uniform(0, 0.8) * (down**2 + across**2))[..., None]
    picture *= rng.uniform(0.88, 1.1) * rng.uniform(0.95, 1.05, 3)
    picture += rng.normal(0, 3, picture.shape)
    coded = cv2.imencode(".jpg", picture.clip(0, 255).astype(np.uint8), [1, quality])[1]
    boxes, numbers = [], []
    for number, (row0, col0, row1, col1) in enumerate(field.boxes):
        middle = place @ [(col0 + col1) / 2, (row0 + row1) / 2, 1]
        half = np.array([row1 - row0, col1 - col0]) * zoom / 2
        edges = np.concatenate([middle[::-1] - half, middle[::-1] + half])
        edges += rng.normal(0, jitter, 4)
        cut = np.clip(np.rint(edges), 0, [tall, wide, tall, wide]).astype(int)
        if (cut[2:] - cut[:2] > half).all():
            boxes.append(tuple(cut.tolist()))
            numbers.append(number)
    return see("", cv2.imdecode(coded, 1), boxes), numbers


def twice(
    field: DrawnField, cell: int, overlap: float, condition: dict, rng: np.random.Generator
) -> tuple[Shot, Shot]:
    """Photograph a cell twice, so that the pictures overlap by a share along one side."""
    tall, wide = _WINDOW
    rows, columns = field.pixels.shape[:2]
    row0, col0, row1, col1 = field.boxes[cell]
    along = int(rng.integers(2))
    move = [0, 0]
    move[along] = round((1 - overlap) * _WINDOW[along])
    # The cell stands in the middle of what both show.
    row = round((row0 + row1) / 2 - (tall + move[0]) / 2)
    column = round((col0 + col1) / 2 - (wide + move[1]) / 2)
    row = int(np.clip(row, 0, rows - tall - move[0]))
    column = int(np.clip(column, 0, columns - wide - move[1]))
    one = photograph(field, row, column, rng)
    return one, photograph(field, row + move[0], column + move[1], rng, **condition)


def compare(one: Shot, two: Shot) -> tuple[int, int, int]:
    """Common cells that are known again, all common cells, and false ones."""
    repeats = find_repeats([one[0], two[0]])
    common = set(one[1]) & set(two[1])
    if repeats.pictures != (None, None):
        return len(common), len(common), 0
    both = [
        (one[1][place[1]], two[1][cell]) if place[0] == 0 else (one[1][first], two[1][place[1]])
        for first, cell, place in _links(repeats)
    ]
    return sum(a == b for a, b in both), len(common), sum(a != b for a, b in both)


def _links(repeats) -> Iterator[tuple[int, int, tuple[int, int]]]:
    for cell, place in enumerate(repeats.cells[1]):
        if place is not None:
            yield -1, cell, place
    for first, place in enumerate(repeats.cells[0]):
        if place is not None:
            yield first, -1, place


def apart(field: DrawnField, seed: int) -> Iterator[Shot]:
    """Photograph what has nothing in common: the quarters of a field."""
    rng = np.random.default_rng([seed, 2])
    for row in (0, 600):
        for column in (0, 800):
            yield photograph(field, row + 75, column + 100, rng)


def near_copies(folder: Path) -> None:
    """Print the pairs of TXL-PBC's fields of which one is left out."""
    sights = []
    for path in sorted((folder / "images").iterdir()):
        pixels = read_image(path).pixels
        rows, columns = pixels.shape[:2]
        boxes = []
        for line in (folder / "labels" / f"{path.stem}.txt").read_text().splitlines():
            kind, *sides = line.split()
            if kind == "0":
                col, row, wide, tall = map(float, sides)
                edges = np.array([row - tall / 2, col - wide / 2, row + tall / 2, col + wide / 2])
                boxes.append(
                    tuple(np.rint(edges * np.tile([rows, columns], 2)).astype(int).tolist())
                )
        sights.append(see(path.stem[:8], pixels, boxes))
    repeats = find_repeats(sights)
    for number, first in enumerate(repeats.pictures):
        if first is not None:
            print(f"{sights[number].name} is {sights[first].name}")
    for number, cells in enumerate(repeats.cells):
        for place in cells:
            if place is not None:
                print(f"a cell of {sights[number].name} is one of {sights[place[0]].name}")
    left = sum(place is None for cells in repeats.cells for place in cells)
    print(f"{sum(len(sight.boxes) for sight in sights)} cells, {left} counted")


def timing(pictures: int) -> None:
    """Print the seconds of CPU for so many pictures of one run."""
    rng = np.random.default_rng(0)
    sights: list[Sight] = []
    spent = 0.0
    while len(sights) < pictures:
        field = slide(len(sights))
        for _ in range(10):
            row, column = rng.integers(0, 750), rng.integers(0, 1000)
            begun = time.process_time()
            sights.append(photograph(field, int(row), int(column), rng)[0])
            spent += time.process_time() - begun
    begun = time.process_time()
    find_repeats(sights)
    print(f"{len(sights)} pictures: {time.process_time() - begun:.1f} s of CPU to compare them")
    size = np.mean([len(sight.texture) for sight in sights])
    print(f"{size:.0f} bytes of texture a picture")


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()
