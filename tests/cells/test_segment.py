"""The cell of a picture: masks against drawn truth, under any lamp, stain, size and blur."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from drawn_cells import Bools, dice, drawn, middle_of
from five import CLASSES
from leuko.cells import CellFinding, find_cell
from leuko.cells.segment import nucleus_confidence
from leuko.data.synth import DrawnCell, draw_field, draw_slide_style
from leuko.imaging.decode import decode_image, encode_jpeg, read_image

EACH = 8


@pytest.fixture(scope="module")
def pairs() -> list[tuple[DrawnCell, CellFinding]]:
    """Drawn cells of every class, as JPEG, and what was found in them."""
    cells = [drawn(name, index) for name in CLASSES for index in range(EACH)]
    return [(cell, find_cell(cell.pixels)) for cell in cells]


@pytest.mark.slow
def test_dice_on_drawn_smears(pairs: list[tuple[DrawnCell, CellFinding]]):
    nuclei = [dice(finding.full_mask("nucleus"), cell.nucleus) for cell, finding in pairs]
    cells = [dice(finding.full_mask(), cell.cell) for cell, finding in pairs]
    assert np.mean(nuclei) >= 0.93
    assert np.mean(cells) >= 0.92
    assert min(nuclei) > 0.6


def test_centres_and_diameters(pairs: list[tuple[DrawnCell, CellFinding]]):
    for cell, finding in pairs:
        assert finding.found
        assert finding.reason == ""
        away = np.subtract(finding.cell_centre, middle_of(cell.cell))
        assert np.hypot(*away) < 0.1 * finding.cell_diameter
        assert 0.0 < finding.nucleus_diameter <= finding.cell_diameter < 288
    errors = [
        np.hypot(*np.subtract(finding.nucleus_centre, middle_of(cell.nucleus)))
        for cell, finding in pairs
    ]
    assert np.median(errors) < 2.0
    ratios = [f.cell_diameter / np.sqrt(4 * cell.cell.sum() / np.pi) for cell, f in pairs]
    assert np.median(ratios) == pytest.approx(1.0, abs=0.06)


def test_scale_is_near_the_truth(pairs: list[tuple[DrawnCell, CellFinding]]):
    # The drawn slides have red cells of 7.0 micrometres on average, against 7.5 assumed.
    scales = np.log([finding.pixels_per_micrometre / 10.0 for _, finding in pairs])
    assert abs(np.median(scales)) < 0.15
    assert np.std(scales) < 0.15


def test_confidence_alone_is_that_of_the_whole_search(
    pairs: list[tuple[DrawnCell, CellFinding]],
):
    red_cells = draw_field(0, np.random.default_rng(0), draw_slide_style(np.random.default_rng(0)))
    blank = np.full((80, 80, 3), 230, np.uint8)
    for pixels in [cell.pixels for cell, _ in pairs] + [red_cells.pixels, blank]:
        assert nucleus_confidence(pixels) == find_cell(pixels).confidence
    assert max(finding.confidence for _, finding in pairs) > 0.5


def test_nothing_is_changed_and_every_run_agrees():
    cell = drawn("Neutrophil", 3)
    before = cell.pixels.copy()
    first, second = find_cell(cell.pixels), find_cell(cell.pixels)
    assert np.array_equal(cell.pixels, before)
    assert np.array_equal(first.cell, second.cell)
    assert first.pixels_per_micrometre == second.pixels_per_micrometre
    assert set(np.unique(first.nucleus)) <= {0, 1}
    assert first.cell.dtype == np.uint8
    assert not (first.nucleus & ~first.cell & 1).any(), "a nucleus lies in its cell"


def lamp(pixels: np.ndarray, red: float, green: float, blue: float) -> np.ndarray:
    return np.clip(pixels * np.array([red, green, blue]), 0, 255).astype(np.uint8)


def tone(pixels: np.ndarray, exponent: float) -> np.ndarray:
    return np.rint(255.0 * (pixels / 255.0) ** exponent).astype(np.uint8)


def stain(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Mix optical densities by a random matrix, as another laboratory's dyes do."""
    mix = np.eye(3) + np.random.default_rng(seed).normal(0.0, 0.08, (3, 3))
    density = -np.log((pixels.astype(float) + 1.0) / 256.0)
    return np.clip(256.0 * np.exp(-density @ mix) - 1.0, 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    return decode_image(encode_jpeg(pixels, quality=quality, subsampling="420")).pixels


CHANGES = {
    "yellow lamp": lambda p: lamp(p, 1.0, 0.95, 0.6),
    "blue lamp": lambda p: lamp(p, 0.75, 0.85, 1.0),
    "dim": lambda p: lamp(p, 0.6, 0.6, 0.6),
    "bright": lambda p: lamp(p, 1.25, 1.25, 1.25),
    "hard tone": lambda p: tone(p, 1.4),
    "soft tone": lambda p: tone(p, 0.7),
    "another stain": lambda p: stain(p, 1),
    "a third stain": lambda p: stain(p, 2),
    "blurred": lambda p: cv2.GaussianBlur(p, (0, 0), 2.5),
    "poor JPEG": lambda p: jpeg(p, 30),
    "noisy": lambda p: np.clip(
        p + np.random.default_rng(0).normal(0, 8, p.shape), 0, 255
    ).astype(np.uint8),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_light_stain_and_sharpness_change_little(change: str):
    scores = []
    for index, name in enumerate(CLASSES):
        if name == "Basophil":
            continue  # the nucleus of a drawn basophil is a matter of a few percent of density
        cell = drawn(name, 20 + index, jpeg=False)
        plain, changed = find_cell(cell.pixels), find_cell(CHANGES[change](cell.pixels))
        assert changed.found
        scores.append(dice(plain.full_mask("nucleus"), changed.full_mask("nucleus")))
        away = np.subtract(plain.cell_centre, changed.cell_centre)
        assert np.hypot(*away) < 0.12 * plain.cell_diameter
    assert np.mean(scores) > 0.93


@pytest.mark.parametrize("size", [96, 120, 200, 363, 575])
def test_sizes_of_pictures(size: int):
    for name in ("Lymphocyte", "Neutrophil", "Monocyte"):
        cell = drawn(name, 7, size)
        finding = find_cell(cell.pixels)
        assert finding.size == (size, size)
        assert finding.step == max(1.0, size / 96)
        assert max(finding.nucleus.shape) <= 96
        assert finding.full_mask("nucleus").shape == (size, size)
        assert dice(finding.full_mask("nucleus"), cell.nucleus) > 0.9


def test_pictures_need_not_be_square():
    cell = drawn("Eosinophil", 5)
    for rows, columns in ((288, 200), (200, 288), (288, 283)):
        top, left = (288 - rows) // 2, (288 - columns) // 2
        here = (slice(top, top + rows), slice(left, left + columns))
        finding = find_cell(np.ascontiguousarray(cell.pixels[here]))
        assert finding.full_mask("nucleus").shape == (rows, columns)
        assert dice(finding.full_mask("nucleus"), cell.nucleus[here]) > 0.93


def test_a_view_into_a_larger_picture_will_do():
    cell = drawn("Monocyte", 1)
    turned = cell.pixels[:, ::-1]
    assert dice(find_cell(turned).full_mask("nucleus"), cell.nucleus[:, ::-1]) > 0.95


def test_the_cell_in_the_middle_is_taken_and_its_neighbour_left():
    rng = np.random.default_rng(3)
    middle, beside = drawn("Neutrophil", 2, jpeg=False), drawn("Monocyte", 2, jpeg=False)
    row0, col0, row1, col1 = beside.box
    pixels = middle.pixels.copy()
    for top, left in ((-20, 190), (200, -10)):
        for row in range(row0, row1):
            for column in range(col0, col1):
                to = (row - row0 + top, column - col0 + left)
                if beside.cell[row, column] and 0 <= to[0] < 288 and 0 <= to[1] < 288:
                    pixels[to] = beside.pixels[row, column]
    pixels = np.clip(pixels + rng.normal(0, 1, pixels.shape), 0, 255).astype(np.uint8)
    finding = find_cell(pixels)
    assert dice(finding.full_mask("nucleus"), middle.nucleus) > 0.9
    assert np.hypot(*np.subtract(finding.nucleus_centre, middle_of(middle.nucleus))) < 5


@pytest.mark.parametrize("level", [0, 128, 255])
def test_one_colour_is_blank(level: int):
    finding = find_cell(np.full((80, 120, 3), level, np.uint8))
    assert not finding.found
    assert finding.reason == "blank"
    assert finding.cell.sum() == 0
    assert finding.confidence == 0.0
    assert finding.cell_centre == (40.0, 60.0)
    assert finding.scale_source == "none"
    assert finding.pixels_per_micrometre == 0.0


def test_red_cells_alone_are_mostly_nothing_and_never_sure():
    found = []
    for seed in range(12):
        style = draw_slide_style(np.random.default_rng([5, seed]))
        field = draw_field(
            0, np.random.default_rng([6, seed]), style, height=240, width=240,
            pixels_per_micrometre=10.0,
        )  # fmt: skip
        finding = find_cell(field.pixels)
        found.append(finding.found)
        assert finding.confidence < 0.4
        if not finding.found:
            assert finding.reason in ("no-nucleus", "too-small", "too-large")
    assert np.mean(found) < 0.35


def test_noise_and_gradients_are_nothing():
    rng = np.random.default_rng(0)
    noise = np.clip(200 + rng.normal(0, 10, (128, 128, 3)), 0, 255).astype(np.uint8)
    ramp = np.repeat(np.linspace(90, 250, 128).astype(np.uint8)[None, :, None], 128, axis=0)
    ramp = np.repeat(ramp, 3, axis=2)
    assert not find_cell(noise).found
    assert not find_cell(ramp).found


@pytest.mark.parametrize("shape", [(16, 16), (17, 400), (1000, 20), (16, 3000)])
def test_odd_shapes_do_not_fail(shape: tuple[int, int]):
    rng = np.random.default_rng(1)
    for pixels in (
        rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        np.full((*shape, 3), 200, np.uint8),
    ):
        finding = find_cell(pixels)
        assert finding.size == shape
        assert finding.full_mask().shape == shape


def test_random_shapes_of_colour_do_not_fail():
    rng = np.random.default_rng(4)
    for _ in range(60):
        pixels = np.full((96, 96, 3), rng.integers(0, 256, 3), np.uint8)
        for _ in range(int(rng.integers(1, 9))):
            centre = tuple(int(v) for v in rng.integers(-10, 106, 2))
            colour = tuple(int(v) for v in rng.integers(0, 256, 3))
            cv2.circle(pixels, centre, int(rng.integers(1, 60)), colour, cv2.FILLED)
        finding = find_cell(pixels)
        assert 0.0 <= finding.confidence <= 1.0
        assert finding.found == (finding.reason == "")
        if finding.found:
            assert finding.cell.sum() >= finding.nucleus.sum() > 0
            assert np.isfinite(finding.pixels_per_micrometre)
            assert finding.pixels_per_micrometre > 0


# Real images


def laboratory(name: str) -> list[tuple[Path, Path]]:
    """Pictures and masks of one laboratory."""
    root = os.environ.get("LEUKO_DATA")
    masks = Path(root or ".") / "masks" / name
    if not root or not masks.is_dir():
        pytest.skip(f"LEUKO_DATA does not point to a folder that holds masks/{name}")
    files = sorted((Path(root) / name).glob("*/*"))
    return [(file, masks / f"{file.stem}.png") for file in files]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "nucleus", "cell"), [("cellavision", 0.90, 0.87), ("jtsc", 0.85, 0.90)]
)
def test_dice_on_laboratories_with_masks_by_experts(name: str, nucleus: float, cell: float):
    nuclei, cells, off = [], [], 0
    for file, mask in laboratory(name):
        truth = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
        finding = find_cell(read_image(file).pixels)
        expert: Bools = truth > 64
        nuclei.append(dice(finding.full_mask("nucleus"), truth > 200))
        cells.append(dice(finding.full_mask(), expert))
        row, column = (int(value) for value in finding.cell_centre)
        off += not expert[row, column]
    assert np.mean(nuclei) >= nucleus
    assert np.mean(cells) >= cell
    assert off <= 1
