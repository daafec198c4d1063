"""What a file says about how large a micrometre is, where that can be believed."""

from __future__ import annotations

import io
import math
import re
from typing import Any, Final

__all__ = ["believable", "file_scale", "told_scale"]

_LEAST, _MOST = 0.5, 100.0
"""Pixels to a micrometre that microscopes give. 72 or 300 dots to an inch mean nothing."""

_UNEVEN: Final = 0.02
"""Rows and columns that differ by more than this share are no pixel size."""

_UNITS: Final = {2: 25_400.0, 3: 10_000.0}
"""Micrometres of TIFF's resolution units, inch and centimetre (TIFF 6.0, tag 296)."""

_NUMBER: Final = r"([0-9.]+(?:[eE][-+]?[0-9]+)?)"
_APERIO: Final = re.compile(rf"\bMPP\s*=\s*{_NUMBER}")
_OME: Final = tuple(re.compile(rf'\bPhysicalSize{axis}\s*=\s*"{_NUMBER}"') for axis in "XY")
_OME_UNIT: Final = re.compile(r'\bPhysicalSizeXUnit\s*=\s*"([^"]*)"')
_LENGTHS: Final = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
"""Micrometres of OME's units; a micro sign and a Greek letter look the same."""
_IMAGEJ: Final = re.compile(r"^unit=(?:micron|um|µm|\\u00B5m)\s*$", re.MULTILINE)


def believable(rows: float, columns: float) -> float | None:
    """Take a scale for one, if a microscope may have it.

    Parameters
    ----------
    rows, columns : float
        Pixels to a micrometre, down and across.

    Returns
    -------
    float or None
        Their mean; None outside 0.5 to 100, or where they differ by more than 2%.

    Examples
    --------
    >>> believable(4.0, 4.0), believable(72 / 25_400, 72 / 25_400)
    (4.0, None)
    """
    if not (math.isfinite(rows) and math.isfinite(columns)) or min(rows, columns) <= 0:
        return None
    scale = (rows + columns) / 2
    even = abs(rows - columns) <= _UNEVEN * scale
    return scale if even and _LEAST <= scale <= _MOST else None


def told_scale(description: str, resolution: tuple[float, float], unit: int) -> float | None:
    """Find the scale that a TIFF tells.

    Parameters
    ----------
    description : str
        Its image description: Aperio's, OME's XML or ImageJ's is understood.
    resolution : (float, float)
        Pixels to the unit, down and across; 0 where it is not told.
    unit : int
        The value of TIFF's tag 296.

    Returns
    -------
    float or None
        Pixels to a micrometre.
    """
    if told := _APERIO.search(description):
        return _of_size(told[1], told[1], 1.0)
    across, down = (pattern.search(description) for pattern in _OME)
    if across:
        named = _OME_UNIT.search(description)
        length = _LENGTHS.get(named[1] if named else "µm", math.nan)
        return _of_size((down or across)[1], across[1], length)
    if description.startswith("ImageJ=") and _IMAGEJ.search(description):
        return believable(*resolution)
    length = _UNITS.get(unit, math.inf)
    return believable(resolution[0] / length, resolution[1] / length)


def _of_size(down: str, across: str, unit: float) -> float | None:
    """Scale of a pixel of so many units."""
    try:
        sides = float(down) * unit, float(across) * unit
    except ValueError:  # such as 1.2.3
        return None
    return believable(1 / sides[0], 1 / sides[1]) if min(sides) > 0 else None


def file_scale(data: bytes) -> float | None:
    """Find the scale that a picture's file tells.

    Parameters
    ----------
    data : bytes
        The whole file, of any format that Pillow opens.

    Returns
    -------
    float or None
        Pixels to a micrometre; None where it tells none, or cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            tags: Any = getattr(image, "tag_v2", {})
            dots = image.info.get("dpi") or image.info.get("resolution") or (0, 0)
            unit = 2 if "dpi" in image.info else 1
            down, across = float(dots[1]), float(dots[0])
            return told_scale(str(tags.get(270, "")), (down, across), unit)
    except Exception:  # noqa: BLE001 - what is wrong with it is for the decoder to say
        return None
