"""Let the C library keep what one picture's arrays free, so that the next need not ask again.

Left to itself, glibc gives memory at the end of a thread's heap back to the system and takes it
again page by page. A picture of 575 x 575 costs prediction with a small network some 115 page
faults that way, a seventh of its time. Training suffers more: the first dataset that TensorFlow
makes of a Python generator lowers what may stay to 128 KB, and a step of the custom CNN then has
48,800 faults (decision 20).
"""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["give_back_memory", "keep_freed_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Names of settings in glibc's ``malloc.h``."""

_SETTINGS: Final = {
    _MMAP_THRESHOLD: 32 * 2**20,  # the highest that glibc takes
    _TRIM_THRESHOLD: 2**30,  # until TensorFlow sets its own
    _TOP_PAD: 64 * 2**20,  # what trimming leaves at the end of a heap
}
"""In bytes."""


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory in this process; elsewhere do nothing.

    Returns
    -------
    bool
        Whether the settings were taken.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc: musl, macOS, Windows
        return False
    return all(mallopt(name, value) for name, value in _SETTINGS.items())


def give_back_memory() -> bool:
    """Give all that is freed back to the system after all, where it is much; elsewhere do nothing.

    Returns
    -------
    bool
        Whether any was given back.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):
        return False
