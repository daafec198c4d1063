"""The canonical crop: right place, right size, right masks, one warp, a spec that travels."""

from __future__ import annotations

import numpy as np
import pytest

from drawn_cells import dice, drawn
from leuko.cells import canonical_crop, find_cell
from leuko.cells.crop import compose, crop_matrix
from leuko.imaging.preprocess import PreprocessSpec


def frame(side: int, width: float, pixels_per_micrometre: float = 0.0) -> PreprocessSpec:
    """A square view of so many micrometres."""
    return PreprocessSpec(
        (side, side), view="cell", width=width, pixels_per_micrometre=pixels_per_micrometre
    )


def test_the_cell_lies_in_the_middle_at_its_size():
    for name in ("Lymphocyte", "Neutrophil", "Monocyte"):
        finding = find_cell(drawn(name, 4).pixels)
        spec = frame(128, 22.0)
        crop = canonical_crop(drawn(name, 4).pixels, finding, spec)
        assert crop.pixels.shape == (128, 128, 3)
        assert crop.pixels.dtype == np.uint8
        inside = crop.cell > 127
        across = np.sqrt(4 * inside.sum() / np.pi) * 22.0 / 128
        assert across == pytest.approx(
            finding.cell_diameter / finding.pixels_per_micrometre, rel=0.03
        )
        rows, columns = np.nonzero(inside)
        assert abs(rows.mean() - 63.5) < 6
        assert abs(columns.mean() - 63.5) < 6


def test_matrix_by_hand():
    finding = find_cell(drawn("Monocyte", 2).pixels)
    spec = frame(100, 20.0, 8.0)  # 160 pixels become 100
    matrix = crop_matrix(finding, spec)
    assert matrix[0, 0] == matrix[1, 1] == pytest.approx(0.625)
    centre = np.add(finding.nucleus_centre, finding.cell_centre) / 2 - 0.5
    to = matrix @ [centre[1], centre[0], 1.0]
    assert to == pytest.approx([49.5, 49.5])


@pytest.mark.parametrize("size", [48, 96, 192])
def test_colours_and_masks_land_where_the_matrix_says(size: int):
    cell = drawn("Eosinophil", 6)
    finding = find_cell(cell.pixels)
    crop = canonical_crop(cell.pixels, finding, frame(size, 18.0))
    rows, columns = np.mgrid[0:size, 0:size]
    inverse = np.linalg.inv(crop.matrix[:, :2])
    places = (np.stack([columns, rows], axis=-1) - crop.matrix[:, 2]) @ inverse.T
    there = np.clip(np.rint(places), 0, 287).astype(int)
    truth = cell.cell[there[..., 1], there[..., 0]]
    assert dice(crop.cell > 127, truth) > 0.93
    mean = cell.pixels[cell.nucleus].mean(axis=0)
    assert crop.pixels[crop.nucleus > 200].mean(axis=0) == pytest.approx(mean, abs=6)


def test_the_same_cell_at_two_resolutions_gives_nearly_the_same_crop():
    spec = frame(96, 20.0)
    crops = []
    for size in (288, 575):
        cell = drawn("Neutrophil", 9, size, jpeg=False)
        finding = find_cell(cell.pixels)
        crops.append(canonical_crop(cell.pixels, finding, spec))
    areas = [float((crop.cell > 127).sum()) for crop in crops]
    assert areas[0] == pytest.approx(areas[1], rel=0.08)


def test_shrinking_averages_instead_of_skipping_pixels():
    rng = np.random.default_rng(0)
    cell = drawn("Monocyte", 3, 575, jpeg=False)
    noisy = np.clip(cell.pixels + rng.normal(0, 20, cell.pixels.shape), 0, 255).astype(np.uint8)
    finding = find_cell(cell.pixels)
    spec = frame(64, 20.0)
    clean, grainy = (
        canonical_crop(pixels, finding, spec).pixels.astype(float)
        for pixels in (cell.pixels, noisy)
    )
    # About 6 x 6 pixels are averaged, so a deviation of 20 falls to about 4.
    assert np.std(clean - grainy) < 6


def test_what_lies_beyond_the_picture():
    cell = drawn("Lymphocyte", 3)
    finding = find_cell(cell.pixels)
    wide = frame(80, 60.0)
    ground = canonical_crop(cell.pixels, finding, wide).pixels
    assert ground[0, 0] == pytest.approx(np.round(finding.background), abs=1)


def test_a_further_warp_is_applied_in_the_crop():
    cell = drawn("Neutrophil", 1)
    finding = find_cell(cell.pixels)
    spec = frame(90, 20.0)
    plain = canonical_crop(cell.pixels, finding, spec)
    half_turn = np.array([[-1.0, 0.0, 89.0], [0.0, -1.0, 89.0]])
    turned = canonical_crop(cell.pixels, finding, spec, warp=half_turn)
    difference = np.abs(turned.pixels[::-1, ::-1].astype(int) - plain.pixels)
    assert difference.mean() < 1.0
    assert dice(turned.cell[::-1, ::-1] > 127, plain.cell > 127) > 0.99
    assert turned.matrix == pytest.approx(compose(half_turn, plain.matrix))


def test_where_nothing_is_found_the_middle_is_cut():
    pixels = np.full((60, 100, 3), 200, np.uint8)
    pixels[:, :20] = 90
    pixels[:, 80:] = 90
    finding = find_cell(pixels)
    assert not finding.found
    crop = canonical_crop(pixels, finding, frame(30, 20.0))
    assert (crop.pixels[1:-1, 1:-1] == 200).all(), "the central 60 x 60 pixels"
    assert crop.cell.sum() == 0
    assert crop.nucleus.sum() == 0
    assert crop.matrix == pytest.approx(np.array([[0.5, 0, -10.25], [0, 0.5, -0.25]]))


def test_a_known_scale_is_used():
    finding = find_cell(drawn("Monocyte", 2).pixels)
    one, two = (
        crop_matrix(finding, frame(64, 20.0, pixels_per_micrometre))
        for pixels_per_micrometre in (5.0, 10.0)
    )
    assert one[0, 0] == pytest.approx(2 * two[0, 0])
