"""Cells that two pictures of a run show, on drawn smears and on photographs moved by hand."""

from __future__ import annotations

import csv
import json
import os
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leuko.cells.detector import Box
from leuko.data.synth import DrawnField, draw_cell, draw_field, draw_slide_style
from leuko.field.once import Repeats, Sight, Sights, find_repeats, see
from leuko.imaging.decode import decode_image, encode_jpeg, read_image

Pixels = npt.NDArray[np.uint8]
TALL, WIDE = 300, 400


@cache
def smear(seed: int = 0) -> DrawnField:
    """A piece of a smear, 140 x 180 micrometres, with eight white cells; all have one stain."""
    return draw_field(
        8, np.random.default_rng([3, seed]), draw_slide_style(np.random.default_rng(3)),
        height=700, width=900, pixels_per_micrometre=5.0, cut_share=0.0,
    )  # fmt: skip


def photograph(row: int, column: int, seed: int = 0) -> tuple[Pixels, list[Box], list[int]]:
    """A window of a smear in a light, vignette and noise of its own; its boxes and their cells."""
    rng = np.random.default_rng([row, column, seed])
    here = slice(row, row + TALL), slice(column, column + WIDE)
    down, across = np.mgrid[-0.5 : 0.5 : TALL * 1j, -0.5 : 0.5 : WIDE * 1j]
    light = rng.uniform(0.9, 1.05) * (1 - rng.uniform(0, 0.6) * (down**2 + across**2))
    noisy = smear(seed).pixels[here] * light[..., None] + rng.normal(0, 2, (TALL, WIDE, 3))
    boxes, cells = [], []
    for cell, box in enumerate(smear(seed).boxes):
        row0, row1 = (min(max(edge - row, 0), TALL) for edge in (box[0], box[2]))
        col0, col1 = (min(max(edge - column, 0), WIDE) for edge in (box[1], box[3]))
        if 2 * (row1 - row0) > box[2] - box[0] and 2 * (col1 - col0) > box[3] - box[1]:
            boxes.append((row0, col0, row1, col1))
            cells.append(cell)
    coded = encode_jpeg(np.asarray(noisy.clip(0, 255), np.uint8), quality=85)
    return decode_image(coded).pixels, boxes, cells


def sight(row: int, column: int, seed: int = 0) -> Sight:
    pixels, boxes, _ = photograph(row, column, seed)
    return see(f"{seed}: {row}, {column}", pixels, boxes)


def counted(repeats: Repeats) -> int:
    """How many cells count."""
    return sum(place is None for cells in repeats.cells for place in cells)


def aimed(cell: int, down: int, right: int, seed: int = 0) -> tuple[int, int]:
    """Where a window begins that has a cell's middle so far below and right of its own middle."""
    row0, col0, row1, col1 = smear(seed).boxes[cell]
    row, column = (row0 + row1 - TALL) // 2 - down, (col0 + col1 - WIDE) // 2 - right
    return min(max(row, 0), 700 - TALL), min(max(column, 0), 900 - WIDE)


@pytest.mark.parametrize("move", [(0, 0), (60, -90), (-130, 20), (40, 170)])
def test_a_cell_that_two_photographs_show_counts_in_the_first(move: tuple[int, int]) -> None:
    places = [aimed(0, 0, 0), aimed(0, *move)]
    shown = [photograph(*place)[2] for place in places]
    sights = [sight(*place) for place in places]
    repeats = find_repeats(sights)
    if move == (0, 0):
        assert repeats.pictures == (None, 0)
        return
    assert repeats.pictures == (None, None)
    assert counted(repeats) == len({*shown[0], *shown[1]})
    for cell, place in enumerate(repeats.cells[1]):
        if place is not None:
            assert shown[0][place[1]] == shown[1][cell]
    assert 0 in [shown[1][cell] for cell, place in enumerate(repeats.cells[1]) if place]


def test_a_cell_counts_where_no_border_cuts_it() -> None:
    row0, _, row1, _ = smear().boxes[0]
    whole = aimed(0, 0, 0)
    cut = ((3 * row0 + row1) // 4, whole[1] + 30)  # its uppermost quarter is missing
    places = [cut, whole]
    shown = [photograph(*place)[2] for place in places]
    repeats = find_repeats([sight(*place) for place in places])
    assert repeats.cells[0][shown[0].index(0)] == (1, shown[1].index(0))
    assert repeats.cells[1][shown[1].index(0)] is None


def test_what_was_cut_in_all_of_them_counts_in_the_first() -> None:
    row0, _, row1, _ = smear().boxes[0]
    row, column = (3 * row0 + row1) // 4, aimed(0, 0, 0)[1]
    places = [(row, column - 40), (row, column + 40)]
    shown = [photograph(*place)[2] for place in places]
    repeats = find_repeats([sight(*place) for place in places])
    assert repeats.cells[1][shown[1].index(0)] == (0, shown[0].index(0))


@pytest.mark.slow
def test_places_that_have_nothing_in_common_stay_apart() -> None:
    apart = [
        sight(row, column, seed)
        for seed in range(3) for row in (0, 350) for column in (0, 450)
    ]  # fmt: skip
    repeats = find_repeats(apart)
    assert {*repeats.pictures} == {None}
    assert counted(repeats) == sum(len(one.boxes) for one in apart) > 12


@pytest.mark.slow
def test_few_red_cells_prove_little() -> None:
    style = draw_slide_style(np.random.default_rng([0, 9]))
    sights = []
    for seed in range(40):
        field = draw_field(
            1, np.random.default_rng([7, seed]), style, height=300, width=400,
            pixels_per_micrometre=10.0, cut_share=0.0,
        )  # fmt: skip
        sights.append(see(str(seed), field.pixels, field.boxes))
    assert counted(find_repeats(sights)) == sum(len(one.boxes) for one in sights)


def turned(pixels: Pixels, boxes: list[Box]) -> tuple[Pixels, list[Box]]:
    """By a right angle, against the clock."""
    wide = pixels.shape[1]
    return np.rot90(pixels).copy(), [(wide - b[3], b[0], wide - b[1], b[2]) for b in boxes]


def mirrored(pixels: Pixels, boxes: list[Box]) -> tuple[Pixels, list[Box]]:
    wide = pixels.shape[1]
    return pixels[:, ::-1].copy(), [(b[0], wide - b[3], b[2], wide - b[1]) for b in boxes]


def thumbnail(pixels: Pixels, boxes: list[Box]) -> tuple[Pixels, list[Box]]:
    """120 pixels wide, and nothing found in it."""
    return np.asarray(cv2.resize(pixels, (120, 90), interpolation=cv2.INTER_AREA), np.uint8), []


def compressed(pixels: Pixels, boxes: list[Box]) -> tuple[Pixels, list[Box]]:
    return decode_image(encode_jpeg(pixels, quality=40)).pixels, boxes


def brightened(pixels: Pixels, boxes: list[Box]) -> tuple[Pixels, list[Box]]:
    return np.asarray(255 * (pixels / 255) ** 0.6, np.uint8), boxes


def drawn_on(pixels: Pixels, boxes: list[Box]) -> tuple[Pixels, list[Box]]:
    """An overlay, less whatever says that it is one."""
    over = pixels.copy()
    for row0, col0, row1, col1 in boxes:
        cv2.rectangle(over, (col0 - 4, row0 - 4), (col1 + 4, row1 + 4), (255, 120, 0), 3)
        cv2.putText(over, "Neutrophil", (col0, row0 - 8), 0, 0.5, (0, 0, 0), 2)
    return over, boxes


Change = Callable[[Pixels, list[Box]], tuple[Pixels, list[Box]]]


@pytest.mark.parametrize(
    "change", [turned, mirrored, thumbnail, compressed, brightened, drawn_on],
    ids=lambda change: change.__name__,
)  # fmt: skip
@pytest.mark.parametrize("first", [True, False])
def test_a_copy_of_a_picture_is_left_out(change: Change, first: bool) -> None:
    pixels, boxes, _ = photograph(200, 250)
    pair = [see("x", pixels, boxes), see("copy", *change(pixels, boxes))]
    repeats = find_repeats(pair if first else pair[::-1])
    smaller = change is thumbnail and not first
    assert repeats.pictures == ((1, None) if smaller else (None, 0))
    assert counted(repeats) == len(boxes)


def test_what_a_larger_copy_shows_is_known_again_in_other_pictures() -> None:
    pixels, boxes, cells = photograph(*aimed(0, 0, 0))
    half = [tuple(edge // 2 for edge in box) for box in boxes]
    small = see("small", cv2.resize(pixels, (WIDE // 2, TALL // 2)), half)  # type: ignore[arg-type]
    beside = aimed(0, 60, -90)
    repeats = find_repeats([small, sight(*beside), see("large", pixels, boxes)])
    assert repeats.pictures == (2, None, None)
    assert counted(repeats) == len({*cells, *photograph(*beside)[2]})


def alone(seed: int, ground: Pixels) -> Sight:
    """One lymphocyte, always the same, in the middle of empty ground."""
    drawn = draw_cell(
        "Lymphocyte", np.random.default_rng(5), draw_slide_style(np.random.default_rng(5)), size=96
    )
    row0, col0, row1, col1 = drawn.box
    noise = np.random.default_rng(seed).normal(0, 2, ground.shape)
    pixels = np.asarray((ground + noise).clip(0, 255), np.uint8)
    box = (100 + row0, 150 + 5 * seed + col0, 100 + row1, 150 + 5 * seed + col1)
    pixels[box[0] : box[2], box[1] : box[3]] = drawn.pixels[row0:row1, col0:col1]
    return see(str(seed), pixels, [box])


def test_two_lymphocytes_alike_are_two_cells() -> None:
    even = np.full((TALL, WIDE, 3), 220, np.uint8)
    assert counted(find_repeats([alone(seed, even) for seed in range(4)])) == 4


def test_dust_in_the_camera_is_no_place() -> None:
    rng = np.random.default_rng(2)
    specks = cv2.GaussianBlur((rng.random((TALL, WIDE)) < 0.003).astype(np.float32), (0, 0), 3)
    across = np.linspace(-0.5, 0.5, WIDE) ** 2
    dusty = 225 - 5 * specks / specks.max() - 90 * across
    ground = np.asarray(np.repeat(dusty[..., None], 3, axis=2), np.uint8)
    repeats = find_repeats([alone(seed, ground) for seed in range(3)])
    assert counted(repeats) == 3


def test_two_cells_side_by_side_stay_two() -> None:
    pixels, _, _ = photograph(200, 250)
    pair: list[Box] = [(100, 100, 160, 160), (110, 140, 170, 200)]
    beside, _, _ = photograph(230, 300)
    moved: list[Box] = [(80, 90, 140, 150), (70, 50, 130, 110)]
    repeats = find_repeats([see("a", pixels, pair), see("b", beside, moved)])
    assert repeats.cells == ((None, None), ((0, 1), (0, 0)))


def test_a_sight_is_the_same_after_json() -> None:
    one = sight(200, 250)
    assert Sight.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert len(json.dumps(one.to_dict())) < 20_000


def test_a_reduced_picture_gives_the_same_cells() -> None:
    places = [aimed(0, 0, 0), aimed(0, 60, -90)]
    (first, boxes, _), (second, others, _) = (photograph(*place) for place in places)
    half = np.asarray(
        cv2.resize(second, (WIDE // 2, TALL // 2), interpolation=cv2.INTER_AREA), np.uint8
    )
    whole = find_repeats([see("a", first, boxes), see("b", second, others)])
    assert find_repeats([see("a", first, boxes), see("b", half, others, (TALL, WIDE))]) == whole
    assert counted(whole) < len(boxes) + len(others)


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (700, 3), (40, 50)])
def test_a_picture_of_any_size_is_taken(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    box: Box = (0, 0, *size)
    repeats = find_repeats([see("a", pixels, []), see("b", pixels, [box]), sight(200, 250)])
    assert len(repeats.cells) == 3
    assert find_repeats([]) == Repeats((), ())


PLACES = [(aimed(cell, down, right)) for cell in (0, 3, 5) for down, right in ((0, 0), (50, -80))]


@cache
def run() -> tuple[list[Sight], int]:
    """Pictures of two smears, and how many cells they show."""
    sights = [sight(*place) for place in PLACES] + [sight(0, 0, 1), sight(380, 450, 1)]
    cells = {(-1, cell) for place in PLACES for cell in photograph(*place)[2]}
    cells |= {
        (row, cell)
        for row, column in ((0, 0), (380, 450))
        for cell in photograph(row, column, 1)[2]
    }
    return sights, len(cells)


@pytest.mark.slow
@given(st.permutations(range(len(PLACES) + 2)))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_the_order_of_pictures_does_not_change_the_count(order: list[int]) -> None:
    sights, cells = run()
    assert counted(find_repeats([sights[one] for one in order])) == cells


@given(st.lists(st.sampled_from(range(len(PLACES) + 2)), min_size=1, max_size=10))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_a_picture_that_comes_twice_changes_nothing(order: list[int]) -> None:
    sights, _ = run()
    once = [*dict.fromkeys(order)]
    counts = [counted(find_repeats([sights[one] for one in each])) for each in (order, once)]
    assert counts[0] == counts[1]


def test_pictures_may_come_one_by_one() -> None:
    sights, _ = run()
    so_far = Sights()
    for number, one in enumerate(sights, 1):
        so_far.add(one)
        assert so_far.repeats() == find_repeats(sights[:number])


CHULA = {
    "B-42": ["0021-0031"],
    "B-53": ["0091-0104"],
    "B-56": ["0005-0014", "0150-0154", "0162-0167"],
    "E-11": [
        "0423.0 0425.0", "0423.1 0425.1", "0614 0624", "0667-0677",
        "0980 0981.0 0982-0988 0990.0", "0981.1 0990.1", "1012 1013 1019",
    ],
    "E-12": ["0396.0 0397.0", "0396.1 0397.1", "0561-0565"],
    "E-8": ["0556-0559"],
    "L-3B": ["0473 0479"],
    "L-8": [
        "0276 0277", "0321 0323", "0485 0487", "0505 0508 0511", "0541 0543", "0563 0566",
        "0623 0625 0626", "0796 0797", "0950 0951",
    ],
    "M-8": [
        "0112 0122", "0457 0462", "0478-0483", "0696 0697", "0837 0912 0917", "0877 0884",
        "0985 0990",
    ],
    "N-3B": ["0084 0085", "0136 0137"],
}  # fmt: skip
"""Photographs of one cell by slide, by looking at them; ``.1`` is a picture's second box."""


def of_one_cell(names: set[str]) -> set[frozenset[str]]:
    """`CHULA` as sets of names; a range holds what there is of it."""
    groups = set()
    for slide, lines in CHULA.items():
        for line in lines:
            group = set()
            for word in line.split():
                first, _, last = word.partition("-")
                group |= {
                    one for one in names if f"{slide}_{first}" <= one <= f"{slide}_{last or first}"
                }
            groups.add(frozenset(group))
    return groups


@pytest.mark.data
@pytest.mark.slow
def test_photographs_moved_by_hand_show_each_cell_once() -> None:
    folder = Path(os.environ.get("LEUKO_DATA", "."), "chula-fields")
    if not folder.is_dir():
        pytest.skip("LEUKO_DATA does not point to a folder with chula-fields")
    boxes = defaultdict(list)
    with (folder / "boxes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            edges = [int(row[edge]) for edge in ("row0", "col0", "row1", "col1")]
            boxes[row["path"]].append(tuple(edges))
    sights = [see(path, read_image(folder / path).pixels, boxes[path]) for path in sorted(boxes)]  # type: ignore[arg-type]
    repeats = find_repeats(sights)

    def name(picture: int, cell: int) -> str:
        one = sights[picture]
        return Path(one.name).stem + (f".{cell}" if len(one.boxes) > 1 else "")

    found = defaultdict(set)
    for picture, one in enumerate(sights):
        copied = repeats.pictures[picture]
        for cell in range(len(one.boxes)):
            # Copies have their boxes in the same order here.
            at = picture if copied is None else copied
            found[repeats.cells[at][cell] or (at, cell)].add(name(picture, cell))
    names = {
        name(picture, cell) for picture, one in enumerate(sights) for cell in range(len(one.boxes))
    }
    assert {frozenset(group) for group in found.values() if len(group) > 1} == of_one_cell(names)
    assert (len(names), len(found)) == (194, 102)
