"""The five classes of a routine differential, of which most test pictures are."""

from __future__ import annotations

from leuko.scheme import load_scheme

FIVE = load_scheme("differential-5")
CLASSES = FIVE.names
COLOURS = tuple(one.colour for one in FIVE.classes)
