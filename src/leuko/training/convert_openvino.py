"""A bundle's graph as OpenVINO's ``.xml`` and ``.bin``.

OpenVINO reads ONNX itself, eight-bit graphs too. Two things are done on the way. It sends usage
reports to its maker from the moment it is imported, unless its reporting package is missing; here
it is told so. And it numbers layers by a counter of the process, so the names are written anew:
equal graphs give equal bytes.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import TrainingError
from leuko.training.convert_graph import import_extra

__all__ = ["openvino_runner", "to_openvino"]

Pixels = npt.NDArray[np.uint8]

_REPORTS: Final = "openvino_telemetry"
_LAYER: Final = re.compile(r'<layer id="(\d+)" name="([^"]*)" type="([^"]*)"')
_BATCH: Final = 16


def to_openvino(onnx: bytes) -> tuple[bytes, bytes]:
    """Convert a classifier to OpenVINO.

    Parameters
    ----------
    onnx : bytes
        A serialized model; its weights are kept as they are, be they 32, 16 or 8 bits wide.

    Returns
    -------
    xml, bin : bytes
        The two files, for any batch size. Equal graphs give equal bytes.

    Raises
    ------
    TrainingError
        When OpenVINO cannot read the graph.
    MissingExtraError
        When OpenVINO is not installed.
    """
    openvino = _openvino()
    with tempfile.TemporaryDirectory(prefix="leuko-export-") as folder:
        path = Path(folder) / "model.xml"
        try:
            model = openvino.Core().read_model(onnx)
            openvino.save_model(model, str(path), compress_to_fp16=False)
        except Exception as error:  # OpenVINO raises RuntimeError for every fault
            first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise TrainingError(f"OpenVINO cannot read this network: {first}") from error
        text = path.read_text(encoding="utf-8")
        return _LAYER.sub(_renamed, text).encode(), path.with_suffix(".bin").read_bytes()


def openvino_runner(
    xml: bytes, weights: bytes, *, threads: int = 1
) -> Callable[[Pixels], npt.NDArray[np.float64]]:
    """Open a pair of files for answers, on the CPU, in 32-bit floats.

    Parameters
    ----------
    xml, weights : bytes
        What `to_openvino` gave.
    threads : int
        For the network.

    Returns
    -------
    callable
        From (N, h, w, 3) uint8 to (N, 5) float64.
    """
    openvino = _openvino()
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    model = core.compile_model(core.read_model(xml, weights), "CPU", settings)

    def run(pictures: Pixels) -> npt.NDArray[np.float64]:
        parts = []
        for start in range(0, len(pictures), _BATCH):
            batch = pictures[start : start + _BATCH].astype(np.float32)
            parts.append(np.array(model([batch])[0], np.float64))
        return np.concatenate(parts)

    return run


def _openvino() -> Any:
    """Import OpenVINO without its reports."""
    if "openvino" not in sys.modules and _REPORTS not in sys.modules:
        sys.modules[_REPORTS] = None  # type: ignore[assignment]
        try:
            return import_extra("openvino", "Exporting to OpenVINO")
        finally:
            del sys.modules[_REPORTS]
    return import_extra("openvino", "Exporting to OpenVINO")


def _renamed(found: re.Match[str]) -> str:
    """A layer's tag, its name made of its number; inputs and outputs keep theirs."""
    number, name, kind = found.groups()
    kept = name if kind in ("Parameter", "Result") else f"n{number}"
    return f'<layer id="{number}" name="{kept}" type="{kind}"'
