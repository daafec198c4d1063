"""Nuclei: lobes joined, neighbours not, all of a field found."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from leuko.cells.colour import PURPLE_ZERO
from leuko.cells.nucleus import central_nucleus, lower_level


def discs(*places: tuple[int, int, int], level: int = 110) -> np.ndarray:
    """A purple plane with discs at (row, column, radius)."""
    plane = np.full((96, 96), PURPLE_ZERO, np.uint8)
    for row, column, radius in places:
        cv2.circle(plane, (column, row), radius, level, cv2.FILLED)
    return cv2.GaussianBlur(plane, (5, 5), 1.0)


def test_one_disc():
    nucleus = central_nucleus(discs((50, 44, 13)))
    assert nucleus is not None
    assert nucleus.sum() == pytest.approx(529, rel=0.03)
    assert nucleus[50, 44]
    assert not nucleus[50, 60]


def test_lobes_in_the_middle_are_joined():
    nucleus = central_nucleus(discs((42, 42, 7), (44, 60, 6), (58, 50, 6)))
    assert nucleus is not None
    assert nucleus[42, 42]
    assert nucleus[44, 60]
    assert nucleus[58, 50]


def test_a_neighbour_is_neither_chosen_nor_joined():
    nucleus = central_nucleus(discs((48, 48, 10), (48, 84, 14), (12, 14, 12)))
    assert nucleus is not None
    assert nucleus[48, 48]
    assert not nucleus[48, 84]
    assert not nucleus[12, 14]


def test_a_touching_neighbour_that_the_border_cuts_is_cut_off():
    nucleus = central_nucleus(discs((48, 46, 15), (48, 78, 19)))
    assert nucleus is not None
    assert nucleus[48, 40]
    assert not nucleus[48, 80]
    assert nucleus.sum() == pytest.approx(np.pi * 15.5**2, rel=0.15)


def test_a_rim_is_taken_off():
    plane = discs((48, 44, 11))
    cv2.ellipse(plane, (48, 48), (27, 27), 0, 0, 360, 110, 2)
    nucleus = central_nucleus(plane)
    assert nucleus is not None
    assert nucleus[48, 44]
    assert not nucleus[48, 75]
    assert not nucleus[21, 48]


def test_the_darker_level_is_the_nucleus():
    plane = discs((48, 48, 22), level=85)
    cv2.circle(plane, (44, 46), 10, 135, cv2.FILLED)
    nucleus = central_nucleus(plane)
    assert nucleus is not None
    assert nucleus[46, 44]
    assert not nucleus[48, 65]


def test_one_level_is_not_split():
    rng = np.random.default_rng(0)
    plane = discs((48, 48, 16), level=110).astype(float)
    region = (plane > 80).astype(np.uint8)
    grainy = np.clip(plane + cv2.GaussianBlur(rng.normal(0, 25, plane.shape), (5, 5), 1.2), 0, 255)
    assert lower_level(grainy.astype(np.uint8), region) is None


def test_a_flat_plane_has_no_nucleus():
    assert central_nucleus(np.full((96, 96), PURPLE_ZERO, np.uint8)) is None
