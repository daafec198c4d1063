"""A source that asks the test for its bytes, when it is read and as often as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from leuko.source import Source


@dataclass(frozen=True, slots=True)
class Called(Source):
    """See `called`."""

    get: Callable[[], bytes] = field(default=bytes, repr=False)

    def read(self) -> bytes:
        return self.get()


def called(name: str, get: Callable[[], bytes]) -> Source:
    """A picture of which `get` gives the bytes, or raises."""
    return Called(name, "called", get=get)
