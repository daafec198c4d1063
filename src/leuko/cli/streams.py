"""Standard streams that are closed, full or left by their reader: none of them ends in a traceback.

Daemons, job runners and ``pythonw`` start programs without them.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Final, TextIO

__all__ = ["leave_streams", "open_streams"]

_MODES: Final = {"stdin": "r", "stdout": "w", "stderr": "w"}


class _Answers(io.TextIOWrapper):
    """Standard output; a fault says where it was."""

    def write(self, text: str, /) -> int:
        with _named("standard output"):
            return super().write(text)

    def flush(self) -> None:
        with _named("standard output"):
            super().flush()


class _Remarks(io.TextIOWrapper):
    """Standard error; what cannot be said there is no reason to end the work."""

    def write(self, text: str, /) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def open_streams() -> None:
    """Make the three standard streams safe to use; before anything else is opened.

    A stream that is closed becomes an empty one. Otherwise the first file to be opened would take
    its number, and whatever native code prints would get into it.
    """
    for number, (name, mode) in enumerate(_MODES.items()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the first number that is free, this one
            os.set_inheritable(number, True)  # by workers too
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for the whole run
    sys.stdout = _as(_Answers, sys.stdout)
    sys.stderr = _as(_Remarks, sys.stderr)


def leave_streams() -> None:
    """Give up what standard output did not take, so that Python does not try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextlib.contextmanager
def _named(place: str) -> Iterator[None]:
    """Put a stream's name into the faults of a block."""
    try:
        yield
    except OSError as error:
        error.filename = place
        raise


def _as(kind: type[io.TextIOWrapper], stream: TextIO) -> TextIO:
    """Put a stream into a kind of ours; one that somebody made for us stays as it is."""
    if type(stream) is not io.TextIOWrapper:
        return stream
    told = (stream.encoding, "backslashreplace", None, stream.line_buffering, stream.write_through)
    return kind(stream.detach(), *told)
