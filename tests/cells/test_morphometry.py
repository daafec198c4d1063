"""Numbers measured on cells of known size and stain."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from leuko.cells import find_cell
from leuko.cells.morphometry import MEASURES, measure_cell
from leuko.cells.view import GROUND, CellView, cell_view
from leuko.data.synth import draw_cell, draw_slide_style
from leuko.imaging.preprocess import PreprocessSpec

SCALE = 8.0
NUCLEUS, CYTOPLASM = (110, 60, 150), (200, 190, 225)


def painted(
    nucleus: Callable[[np.ndarray], None],
    radius: int = 50,
    side: int = 160,
) -> CellView:
    """A view with a round cell whose nucleus is drawn by hand."""
    masks = [np.zeros((side, side), np.uint8) for _ in range(2)]
    middle = (side // 2, side // 2)
    if radius:
        cv2.circle(masks[0], middle, radius, 255, -1)
    nucleus(masks[1])
    cell = np.maximum(masks[0], masks[1])
    pixels = np.full((side, side, 3), GROUND, np.uint8)
    pixels[cell > 0] = CYTOPLASM
    pixels[masks[1] > 0] = NUCLEUS
    return CellView(pixels, cell, cell, masks[1])


def disc(at: tuple[int, int] = (80, 80), radius: int = 30) -> Callable[[np.ndarray], None]:
    def draw(mask: np.ndarray) -> None:
        cv2.circle(mask, at, radius, 255, -1)

    return draw


def measured(view: CellView, scale: float = SCALE) -> dict[str, float]:
    found = measure_cell(view, scale)
    assert found is not None
    assert found.shape == (len(MEASURES),)
    return dict(zip(MEASURES, found.tolist(), strict=True))


def test_a_round_cell_with_a_round_nucleus() -> None:
    found = measured(painted(disc()))
    assert np.exp(found["nucleus area"]) == pytest.approx(np.pi * 30**2 / SCALE**2, rel=0.02)
    assert np.exp(found["cell area"]) == pytest.approx(np.pi * 50**2 / SCALE**2, rel=0.02)
    assert found["nucleus share"] == pytest.approx(0.36, rel=0.02)
    assert found["solidity"] == pytest.approx(1, abs=0.03)
    assert found["form factor"] == pytest.approx(0.93, abs=0.07)  # its steps lengthen an outline
    assert found["nucleus parts"] == 1
    for place, name in enumerate(("red", "green", "blue")):
        inner = np.log((GROUND + 1) / (NUCLEUS[place] + 1))
        outer = np.log((GROUND + 1) / (CYTOPLASM[place] + 1))
        assert found[f"nucleus {name}"] == pytest.approx(inner, abs=0.01)
        assert found[f"cytoplasm {name}"] == pytest.approx(outer, abs=0.01)
        assert found[f"{name} ratio"] == pytest.approx(outer / (inner + 0.1), abs=0.01)


def test_lobes_are_counted_and_leave_gaps() -> None:
    def lobes(mask: np.ndarray) -> None:
        for at in ((55, 80), (105, 80)):
            cv2.circle(mask, at, 20, 255, -1)

    found, whole = measured(painted(lobes)), measured(painted(disc()))
    assert found["nucleus parts"] == 2
    assert found["solidity"] < 0.8 < whole["solidity"]
    assert found["form factor"] < 0.6 < whole["form factor"]


def test_sizes_do_not_depend_on_the_pixels() -> None:
    small, view = measured(painted(disc())), painted(disc())
    large = CellView(*(cv2.resize(one, None, fx=2, fy=2) for one in view))
    for name, value in measured(large, 2 * SCALE).items():
        assert value == pytest.approx(small[name], abs=0.03), name


def test_a_cell_without_cytoplasm_has_what_lies_around_it() -> None:
    found = measured(painted(disc(), radius=0))
    assert found["nucleus share"] == 1
    assert found["cytoplasm green"] == pytest.approx(0, abs=0.1)
    assert all(np.isfinite([*found.values()]))


def test_no_nucleus_is_not_measured() -> None:
    assert measure_cell(painted(lambda mask: None), SCALE) is None
    assert measure_cell(painted(disc(radius=1)), SCALE) is None


def test_the_light_changes_them_little_and_the_stain_much() -> None:
    rng = np.random.default_rng(5)
    pixels = draw_cell("Monocyte", rng, draw_slide_style(rng)).pixels
    spec = PreprocessSpec((128, 128), view="cell", width=20.0)

    def of(picture: np.ndarray) -> np.ndarray:
        found = measure_cell(cell_view(picture, find_cell(picture), spec), 6.4)
        assert found is not None
        return found

    plain = of(pixels)
    tinted = of(np.round(pixels * np.array([0.98, 0.9, 0.75])).astype(np.uint8))
    deep = of(np.round(255 * (pixels / 255) ** 1.5).astype(np.uint8))
    assert np.abs(tinted - plain)[6:9].max() < 0.12
    assert (deep - plain)[6:9].min() > 0.14
