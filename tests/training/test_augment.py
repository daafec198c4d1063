"""Variation of training images: within its limits, from its generator, and true to colour."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("keras", reason="needs the extra 'train'")

from leuko.imaging.preprocess import PreprocessSpec
from leuko.recipe import AugmentSettings
from leuko.training.augment import _restain, augmented

SIDE = 201
WHOLE = PreprocessSpec((SIDE, SIDE))


def noise(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def dots() -> np.ndarray:
    """A red, a green and a blue disc, 60 pixels above, right of and below left of the middle."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    for channel, (row, column) in enumerate(((-60, 0), (0, 60), (40, -40))):
        pixels[(rows - row) ** 2 + (columns - column) ** 2 <= 64, channel] = 255
    return pixels


def middles(pixels: np.ndarray) -> np.ndarray:
    """Middle of every channel's disc: (3, 2), column and row from the picture's middle."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    weights = pixels.astype(float)
    total = weights.sum(axis=(0, 1))
    return np.column_stack(
        [(weights * grid[..., None]).sum(axis=(0, 1)) / total for grid in (columns, rows)]
    )


def transforms(settings: AugmentSettings, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """What `augmented` did, solved from three discs: (2, 2) from output to input, and the shift."""
    source, found = middles(dots()), []
    for seed in range(count):
        output = augmented(dots(), WHOLE, settings, np.random.default_rng(seed))
        known = np.column_stack([middles(output), np.ones(3)])
        solved = np.linalg.solve(known, source)
        found.append((solved[:2].T, solved[2]))
    return found


@pytest.mark.parametrize("shape", [(97, 130), (64, 64), (20, 31), (575, 575)])
@pytest.mark.parametrize("crop", [1.0, 0.6])
def test_none_is_the_plain_preprocessing(shape: tuple[int, int], crop: float) -> None:
    spec, pixels = PreprocessSpec((48, 64), crop), noise(*shape)
    rng = np.random.default_rng(0)
    output = augmented(pixels, spec, AugmentSettings("none"), rng)
    assert np.array_equal(output, spec.apply(pixels))
    assert rng.random() == np.random.default_rng(0).random()


def test_published_turns_and_zooms_within_the_published_limits() -> None:
    angles, zooms, mirrored = [], [], 0
    for linear, shift in transforms(AugmentSettings("published"), 200):
        lengths = np.linalg.norm(linear, axis=0)
        zooms += list(lengths)
        angles.append(np.degrees(np.arctan2(-linear[0, 1], linear[1, 1])))
        mirrored += np.linalg.det(linear) < 0
        assert np.abs(shift).max() < 0.5
        assert linear[:, 0] @ linear[:, 1] == pytest.approx(0, abs=0.02)
    assert 13.5 < np.max(np.abs(angles)) < 15.2
    assert np.mean(angles) == pytest.approx(0, abs=2)
    assert 0.895 < min(zooms) < 0.91
    assert 1.09 < max(zooms) < 1.105
    assert 70 < mirrored < 130


def test_microscope_turns_anywhere_and_shifts_within_its_limit() -> None:
    settings = AugmentSettings("microscope", scale=0.1, shift=0.06, stain=0.0)
    found = transforms(settings, 200)
    angles = [np.degrees(np.arctan2(-m[0, 1], m[1, 1])) for m, _ in found]
    quarters = np.histogram(angles, bins=4, range=(-180, 180))[0]
    assert quarters.min() > 30
    shifts = np.abs([s for _, s in found]) / SIDE
    assert 0.055 < shifts.max() < 0.063
    scales = [np.log(abs(np.linalg.det(m))) / 2 for m, _ in found]
    assert np.std(scales) == pytest.approx(0.1, rel=0.2)


def test_the_generator_decides_everything() -> None:
    pixels, spec = noise(96, 96), PreprocessSpec((64, 64), 0.8)
    settings = AugmentSettings("microscope")
    before = pixels.copy()
    first, second, other = (
        augmented(pixels, spec, settings, np.random.default_rng(seed)) for seed in (7, 7, 8)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert np.array_equal(pixels, before)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8


def test_a_large_picture_is_shrunk_before_it_is_sampled() -> None:
    """A fine chessboard must become grey, not a pattern of its own."""
    board = (np.indices((1024, 1024)).sum(axis=0) % 2 * 255).astype(np.uint8)
    pixels = np.repeat(board[..., None], 3, axis=2)
    settings = AugmentSettings("microscope", scale=0.0, shift=0.0, stain=0.0)
    output = augmented(pixels, PreprocessSpec((64, 64)), settings, np.random.default_rng(0))
    assert np.abs(output.astype(int) - 127).max() <= 1


def test_a_stain_that_mixes_nothing_changes_no_colour() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.array_equal(_restain(ramp, 0.0, np.random.default_rng(0)), ramp)


def test_the_stain_mixes_densities_and_scales_the_light() -> None:
    """Beer and Lambert, written out: I = 256 light exp(-mixing log(256 / (v + 1))) - 1."""
    pixels = noise(30, 40)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        mixing = np.eye(3) + rng.normal(0.0, 0.1, (3, 3))
        mixing *= np.exp(rng.normal(0.0, 0.2))
        light = np.exp(rng.normal(0.0, 0.1))
        density = np.log(256 / (pixels + 1.0)) @ mixing.T
        expected = np.clip(np.abs(256 * light * np.exp(-density) - 1), 0, 255)
        received = _restain(pixels, 0.1, np.random.default_rng(seed))
        assert np.abs(expected - received).max() < 0.51


@pytest.mark.parametrize("kind", ["gentle", "microscope", "published"])
def test_only_what_is_seen_is_warped_and_that_changes_nothing(kind: str) -> None:
    """Beside the whole picture in one go, also where the result reaches beyond its edges."""
    settings = AugmentSettings(kind, scale=0.4, shift=0.5, stain=0.0)
    for shape, crop in (((90, 120), 0.6), ((90, 120), 1.0), ((23, 17), 0.3)):
        spec, pixels = PreprocessSpec((48, 64), crop), noise(*shape)
        for seed in range(20):
            received = augmented(pixels, spec, settings, np.random.default_rng(seed))
            framed = np.pad(pixels, ((40, 40), (40, 40), (0, 0)), mode="edge")
            whole = PreprocessSpec((48, 64), crop * min(shape) / (min(shape) + 80))
            expected = augmented(framed, whole, settings, np.random.default_rng(seed))
            near = np.abs(received.astype(int) - expected) <= 2
            assert near.mean() > 0.999, (shape, crop, seed)


def test_without_stain_colours_stay() -> None:
    pixels = np.empty((80, 80, 3), np.uint8)
    pixels[:] = (181, 94, 203)
    spec = PreprocessSpec((64, 64))
    plain, stained = AugmentSettings(stain=0.0), AugmentSettings(stain=0.1)
    for seed in range(5):
        output = augmented(pixels, spec, plain, np.random.default_rng(seed))
        assert np.array_equal(output, np.broadcast_to(pixels[0, 0], output.shape))
        changed = augmented(pixels, spec, stained, np.random.default_rng(seed))
        assert len(np.unique(changed.reshape(-1, 3), axis=0)) == 1
        assert np.abs(changed[0, 0].astype(int) - pixels[0, 0]).max() >= 3


def test_the_stain_is_the_same_on_either_side_of_the_warp() -> None:
    """A picture smaller than the input is stained before it is enlarged."""
    pixels = np.empty((80, 80, 3), np.uint8)
    pixels[:] = (181, 94, 203)
    small, large = (
        augmented(pixels, PreprocessSpec((side, side)), AugmentSettings(), np.random.default_rng(4))
        for side in (64, 96)
    )
    assert np.array_equal(small[0, 0], large[0, 0])
    assert len(np.unique(large.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("side", [64, 96])
def test_the_warp_leaves_the_geometry_to_the_stain(side: int) -> None:
    """Both draw the same turn: stain takes nothing from the generator before."""
    pixels, spec = noise(90, 90), PreprocessSpec((side, side))
    plain = augmented(pixels, spec, AugmentSettings(stain=0.0), np.random.default_rng(3))
    faint = augmented(pixels, spec, AugmentSettings(stain=1e-9), np.random.default_rng(3))
    assert np.abs(plain.astype(int) - faint).max() <= 1
