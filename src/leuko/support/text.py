"""Plain text that several rooms write."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["listed"]


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
