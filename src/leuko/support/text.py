"""Plain text that several rooms write."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["counted", "listed", "rejection"]


def counted(number: int, noun: str) -> str:
    """Give a number with its noun.

    Parameters
    ----------
    number : int
        0 or more.
    noun : str
        Whose plural ends in s.

    Returns
    -------
    str

    Examples
    --------
    >>> counted(1, "image"), counted(2000, "image")
    ('1 image', '2,000 images')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(parts: Sequence[str]) -> str:
    """Join parts with commas and an "and".

    Parameters
    ----------
    parts : sequence of str
        Any number.

    Returns
    -------
    str
        Empty for none.

    Examples
    --------
    >>> listed(["one", "two", "three"])
    'one, two and three'
    """
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def rejection(name: str, reason: str, detail: str) -> str:
    """Say that a file is no usable image.

    Parameters
    ----------
    name : str
        Of the file.
    reason, detail : str
        See `leuko.errors.ImageError`; the detail may be empty.

    Returns
    -------
    str

    Examples
    --------
    >>> rejection("a.jpg", "truncated", "The file ends early.")
    'Rejected a.jpg (truncated: The file ends early.)'
    """
    return f"Rejected {name} ({': '.join(filter(None, (reason, detail)))})"
