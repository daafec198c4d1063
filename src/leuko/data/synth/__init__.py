"""Draw smears: single cells, whole fields, and data sets with slides, masks and boxes.

Everything is made from a seed with NumPy and OpenCV alone. It feeds the demo, the tests and the
documentation's pictures. A model trained on drawn cells is a demonstration and no more.
"""

from __future__ import annotations

from leuko.data.synth.dataset import DEFAULT_MIX, SmearPlan, draw_dataset, mix_of
from leuko.data.synth.scene import Box, DrawnCell, DrawnField, draw_cell, draw_field
from leuko.data.synth.style import SlideStyle, draw_slide_style

__all__ = [
    "DEFAULT_MIX",
    "Box",
    "DrawnCell",
    "DrawnField",
    "SlideStyle",
    "SmearPlan",
    "draw_cell",
    "draw_dataset",
    "draw_field",
    "draw_slide_style",
    "mix_of",
]
