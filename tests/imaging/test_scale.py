"""Only a scale that a microscope may have is believed."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from leuko.imaging.scale import believable, file_scale, told_scale

PIXELS = np.full((40, 50, 3), 200, np.uint8)
OME = '<OME><Image><Pixels PhysicalSizeX="{}" PhysicalSizeY="{}"{}/></Image></OME>'


@pytest.mark.parametrize(
    ("description", "resolution", "unit", "expected"),
    [
        ("", (40_000.0, 40_000.0), 3, 4.0),
        ("", (101_600.0, 101_600.0), 2, 4.0),
        ("", (72.0, 72.0), 2, None),
        ("", (300.0, 300.0), 2, None),
        ("", (40_000.0, 20_000.0), 3, None),
        ("", (4.0, 4.0), 1, None),
        ("", (0.0, 0.0), 2, None),
        ("Aperio Image Library|AppMag = 40|MPP = 0.2498", (72.0, 72.0), 2, 4.0032),
        ("Aperio|MPP = 0", (40_000.0, 40_000.0), 3, None),
        ("Aperio|MPP = 0.2.5", (0.0, 0.0), 2, None),
        (OME.format("0.1", "0.1", ""), (0.0, 0.0), 2, 10.0),
        (OME.format("100", "100", ' PhysicalSizeXUnit="nm"'), (0.0, 0.0), 2, 10.0),
        (OME.format("1e-4", "1e-4", ' PhysicalSizeXUnit="mm"'), (0.0, 0.0), 2, 10.0),
        (OME.format("1", "1", ' PhysicalSizeXUnit="pixel"'), (40_000.0, 40_000.0), 3, None),
        (OME.format("0.1", "0.2", ""), (0.0, 0.0), 2, None),
        ("ImageJ=1.53\nunit=micron\n", (6.5, 6.5), 1, 6.5),
        ("ImageJ=1.53\nunit=inch\n", (6.5, 6.5), 1, None),
    ],
)
def test_what_a_tiff_tells(
    description: str, resolution: tuple[float, float], unit: int, expected: float | None
) -> None:
    told = told_scale(description, resolution, unit)
    assert told == (None if expected is None else pytest.approx(expected, rel=1e-4))


@pytest.mark.parametrize("scale", [0.0, -4.0, 0.49, 101.0, float("inf"), float("nan")])
def test_what_no_microscope_has(scale: float) -> None:
    assert believable(scale, scale) is None


def test_the_scale_of_ordinary_files() -> None:
    """4 pixels to a micrometre are 101,600 to an inch."""
    for kind, dots, expected in (
        ("PNG", 101_600, 4.0), ("TIFF", 101_600, 4.0), ("PNG", 72, None), ("JPEG", 300, None),
        ("BMP", 96, None),
    ):  # fmt: skip
        file = io.BytesIO()
        Image.fromarray(PIXELS).save(file, kind, dpi=(dots, dots))
        assert file_scale(file.getvalue()) == (expected and pytest.approx(expected, rel=1e-3)), kind
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, imagej=True, resolution=(5.0, 5.0), metadata={"unit": "um"})
    assert file_scale(file.getvalue()) == pytest.approx(5.0)
    assert file_scale(b"no picture") is None
