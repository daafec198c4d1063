"""Untrusted bytes in, RGB pixels out, and the one description of cropping and resizing."""

import numpy.typing as npt  # noqa: F401 - before OpenCV, which prints a page where NumPy is broken
