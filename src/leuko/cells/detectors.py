"""The registry of detectors: one entry adds a finder of the white cells of a field."""

from __future__ import annotations

from typing import Final

from leuko.cells.detector import Detector, NucleusDetector

__all__ = ["DETECTORS"]

DETECTORS: Final[dict[str, Detector]] = {one.name: one for one in (NucleusDetector(),)}
"""Detectors by name."""
