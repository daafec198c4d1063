"""The registry of what ``leuko export`` writes: one entry adds a format."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["OUTPUT_FORMATS", "OutputFormat"]


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """One format.

    Attributes
    ----------
    title : str
        What people call it.
    file : str
        The network's name in the bundle or folder.
    writer : str
        ``module:function`` that writes it, imported when it is asked for; empty for a bundle. The
        function takes the network (bytes of ONNX, whose numbers are kept as was asked for, or the
        path of a Keras file), the (height, width) of its input, one of
        `leuko.formats.export.WEIGHTS`, (M, h, w, 3) uint8 inputs that ranges of 8 bits are measured
        on or None, and a number of threads. It gives the file's bytes, and a callable from
        (N, h, w, 3) uint8 to (N, K) float64 that asks what was written.
    from_keras : bool
        Whether it is written from the ``model.keras`` of a run folder in place of ONNX.
    """

    title: str
    file: str
    writer: str = ""
    from_keras: bool = False

    def find_writer(self) -> Callable[..., Any]:
        """Import the function that writes it.

        Returns
        -------
        callable
            See ``writer``.
        """
        module, _, function = self.writer.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
        return found


OUTPUT_FORMATS: Final[dict[str, OutputFormat]] = {
    "onnx": OutputFormat("ONNX", "model.onnx"),
    "litert": OutputFormat(
        "LiteRT", "model.tflite", "leuko.training.litert:write_litert", from_keras=True
    ),
}
"""Formats by the name that ``--format`` gives them."""
