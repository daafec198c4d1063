"""Pictures for the engines, some of which are none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from five import CLASSES
from tiny import write_picture


@dataclass(frozen=True)
class Cells:
    """A folder, and the CSV that one process writes for it."""

    folder: Path
    csv: str = field(repr=False)


def write_cells(folder: Path, count: int) -> Path:
    """Pictures of every class; one in twenty is an empty file or none of a known kind."""
    for number in range(count):
        file = write_picture(folder / f"{number:04}.png", CLASSES[number % 5], seed=number)
        if number % 20 == 7:
            file.write_bytes(b"%!PS-Adobe" if number % 40 == 7 else b"")
    return folder
