"""Eight-bit networks: ranges measured on real pictures, weights rounded, biases put right.

Weights are rounded to 7 bits and a sign, one scale for each output channel; maps to 8 bits, one
scale each. Rounding a kernel moves the mean of its output, which in MobileNetV2's first block is
the whole damage; the shift follows from the mean input and is taken off the bias [1]_. The sums
of products of 8-bit maps with 7-bit weights fit the 16-bit lanes of processors that have no
instruction for them, so a network gives the same answers on every processor [2]_.

References
----------
.. [1] M. Nagel, M. van Baalen, T. Blankevoort, M. Welling: Data-free quantization through weight
   equalization and bias correction. ICCV 2019, section 4.2.
.. [2] ONNX Runtime documentation, "Quantize ONNX models": when to use reduce-range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import BundleError
from leuko.formats.graph import Graph, clean_graph, open_session

__all__ = ["quantize"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_MAP_LEVELS: Final = 255
_PORTABLE_LEVEL: Final = 63
_CALIBRATION_BATCH: Final = 8
_INT32_ROOM: Final = 2.0**30


@dataclass(frozen=True)
class _Range:
    """What a map was seen to hold: extremes, and the mean of each channel."""

    low: float
    high: float
    mean: Floats

    @property
    def scale(self) -> np.float32:
        """Step between two levels; the range always holds 0."""
        width = max(self.high, 0.0) - min(self.low, 0.0)
        return np.float32(max(width, 1e-8) / _MAP_LEVELS)

    @property
    def zero(self) -> np.uint8:
        """The level that stands for 0."""
        level = np.rint(-min(self.low, 0.0) / float(self.scale))
        return np.uint8(np.clip(level, 0, _MAP_LEVELS))


@dataclass(frozen=True)
class _Plan:
    """Which nodes become integer, and which activations their rounding swallows.

    Attributes
    ----------
    convolutions : dict of str to str
        Input of each convolution, by the name of the map that it ends up writing.
    swallowed : dict of str to str
        By the output of an activation, the convolution's own output.
    sums : tuple of str
        Outputs of sums of two such maps.
    """

    convolutions: dict[str, str]
    swallowed: dict[str, str]
    sums: tuple[str, ...]


def quantize(onnx: bytes, pixels: Pixels) -> bytes:
    """Round a classifier to eight bits.

    Parameters
    ----------
    onnx : bytes
        Input ``pixels`` (N, h, w, 3) float32, RGB 0 to 255.
    pixels : (M, h, w, 3) uint8, RGB
        Real network inputs, of every class, that the ranges are measured on.

    Returns
    -------
    bytes
        An ONNX file in QDQ form (operators of opset 13 and later, no others), a quarter as long:
        convolutions and the sums between them are integer, whatever comes behind them is
        float32. It takes and gives what the original does. Equal inputs give equal bytes.

    Raises
    ------
    BundleError
        When the graph has no convolution on its maps, or a map holds no finite number.
    """
    graph = clean_graph(onnx)
    plan = _plan(graph)
    ranges = _measure(graph, plan, pixels)
    first = _take_whole_numbers(graph, plan, ranges)
    writer = _Writer(graph, ranges, first)
    for node in graph.nodes:
        output = node.output[0]
        if output in plan.swallowed:
            continue
        final = next((a for a, own in plan.swallowed.items() if own == output), output)
        if final in plan.convolutions and node.op_type == "Conv":
            writer.convolution(node, final)
        elif output in plan.sums:
            writer.keep(node)
            writer.round(output)
        else:
            writer.keep(node)
    graph.nodes = writer.nodes
    return graph.to_bytes()


def _plan(graph: Graph) -> _Plan:
    """Choose the convolutions with constant weights and the sums between their maps."""
    convolutions: dict[str, str] = {}
    swallowed: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type != "Conv" or any(name not in graph.constants for name in node.input[1:]):
            continue
        if len(node.input) != 3 or graph.constants[node.input[1]].ndim != 4:
            continue
        output = node.output[0]
        after = graph.only_user(output)
        if after is not None and _is_rectifier(graph, after):
            swallowed[after.output[0]] = output
            output = after.output[0]
        convolutions[output] = node.input[0]
    if not convolutions:
        raise BundleError("The network has no convolution, so there is nothing to round to int8.")
    sums: list[str] = []
    for node in graph.nodes:
        integer = {*convolutions, *sums}
        if node.op_type == "Add" and all(name in integer for name in node.input):
            sums.append(node.output[0])
    return _Plan(convolutions, swallowed, tuple(sums))


def _is_rectifier(graph: Graph, node: Any) -> bool:
    """Whether a node cuts off at 0 below, as unsigned rounding does too."""
    if node.op_type == "Relu":
        return True
    low = graph.constants.get(node.input[1]) if node.op_type == "Clip" else None
    return low is not None and low.size == 1 and float(low.reshape(-1)[0]) == 0


def _measure(graph: Graph, plan: _Plan, pixels: Pixels) -> dict[str, _Range]:
    """Run the float network and note what its maps hold."""
    names = list(dict.fromkeys([*plan.convolutions.values(), *plan.convolutions, *plan.sums]))
    session = open_session(graph.to_bytes(also=tuple(names)))
    lows = dict.fromkeys(names, np.inf)
    highs = dict.fromkeys(names, -np.inf)
    sums: dict[str, Any] = dict.fromkeys(names, 0.0)
    for batch in _batches(pixels):
        for name, values in zip(names, session.run(names, {graph.input: batch}), strict=True):
            lows[name] = min(lows[name], float(values.min()))
            highs[name] = max(highs[name], float(values.max()))
            sums[name] = sums[name] + values.mean(axis=(2, 3), dtype=np.float64).sum(axis=0)
    found = {name: _Range(lows[name], highs[name], sums[name] / len(pixels)) for name in names}
    for item in found.values():
        if not np.isfinite([item.low, item.high]).all():
            raise BundleError(
                "A map of the network holds values that are not finite on the pictures given for "
                "calibration; its weights are damaged or its training went astray."
            )
    return found


def _batches(pixels: Pixels) -> Iterator[npt.NDArray[np.float32]]:
    """Give a few pictures at a time, all batches of one shape but the last."""
    for start in range(0, len(pixels), _CALIBRATION_BATCH):
        yield pixels[start : start + _CALIBRATION_BATCH].astype(np.float32)


def _take_whole_numbers(graph: Graph, plan: _Plan, ranges: dict[str, _Range]) -> str:
    """Let the first convolution read the pixels as the whole numbers that they are.

    Rescaling ``a x + b`` with a transposition behind it is the same as reading the bytes ``x``
    with scale ``a`` and a zero near ``-b / a``; what is left of ``b`` moves into the bias. In the
    frame of zeros around a picture it is left out: less than half a level.

    Returns
    -------
    str
        The map that is already integer afterwards; empty when the graph begins differently.
    """
    source = next(iter(plan.convolutions.values()))
    convolution = next(node for node in graph.nodes if node.input[0] == source)
    turn = graph.maker(source)
    if turn is None or turn.op_type != "Transpose" or len(graph.users(source)) != 1:
        return ""
    factor, offset, place, passed = 1.0, 0.0, turn.input[0], [turn]
    while place != graph.input:
        node = graph.maker(place)
        constants = [name for name in node.input if name in graph.constants] if node else []
        sizes = [graph.constants[name].size for name in constants]
        known = node is not None and node.op_type in ("Mul", "Add") and len(node.input) == 2
        if node is None or not known or sizes != [1] or graph.only_user(place) is None:
            return ""
        value = float(graph.constants[constants[0]].reshape(-1)[0])
        if node.op_type == "Mul":
            factor *= value
        else:
            offset += factor * value
        passed.append(node)
        place = next(name for name in node.input if name not in graph.constants)
    zero = np.rint(-offset / factor) if factor > 0 else -1
    if not 0 <= zero <= _MAP_LEVELS or len(graph.users(graph.input)) != 1:
        return ""
    weights = graph.constants[convolution.input[1]].astype(np.float64)
    left = offset + factor * zero
    bias = graph.constants[convolution.input[2]] + left * weights.sum(axis=(1, 2, 3))
    graph.constants[convolution.input[2]] = bias.astype(np.float32)
    seen = ranges[source]
    low = -float(zero) * factor
    ranges[source] = _Range(low, low + _MAP_LEVELS * factor, seen.mean - left)
    graph.constants |= {
        "leuko_one": np.array(1, np.float32),
        "leuko_nought": np.array(0, np.uint8),
        "leuko_step": np.array(factor, np.float32),
        "leuko_zero": np.array(zero, np.uint8),
    }
    order = graph.attribute(turn, "perm")
    whole = [
        graph.node("QuantizeLinear", [graph.input, "leuko_one", "leuko_nought"], "leuko_bytes"),
        graph.node("Transpose", ["leuko_bytes"], "leuko_turned", perm=list(order)),
        graph.node(
            "DequantizeLinear", ["leuko_turned", "leuko_step", "leuko_zero"], f"{source}_read"
        ),
    ]
    graph.nodes = [*whole, *(node for node in graph.nodes if node not in passed)]
    return source


class _Writer:
    """Writes the nodes of the rounded graph one after the other.

    Parameters
    ----------
    graph : Graph
        Its constants are added to.
    ranges : dict of str to _Range
        Of every map that is rounded.
    first : str
        The map that is integer from the start, or "".
    """

    def __init__(self, graph: Graph, ranges: dict[str, _Range], first: str) -> None:
        self.nodes: list[Any] = []
        self._graph = graph
        self._ranges = ranges
        self._read = {first: f"{first}_read"} if first else {}

    def keep(self, node: Any) -> None:
        """Take a node over as it is; it reads rounded maps where there are any."""
        for place, name in enumerate(node.input):
            node.input[place] = self._read.get(name, name)
        self.nodes.append(node)

    def round(self, name: str) -> None:
        """Round a map, and let everybody behind read it so."""
        graph, found = self._graph, self._ranges[name]
        graph.constants[f"{name}_step"] = np.array(found.scale, np.float32)
        graph.constants[f"{name}_zero"] = np.array(found.zero, np.uint8)
        settings = [f"{name}_step", f"{name}_zero"]
        self.nodes += [
            graph.node("QuantizeLinear", [name, *settings], f"{name}_bytes"),
            graph.node("DequantizeLinear", [f"{name}_bytes", *settings], f"{name}_read"),
        ]
        self._read[name] = f"{name}_read"

    def convolution(self, node: Any, output: str) -> None:
        """Write a convolution with rounded weights, and round what it gives."""
        graph, source = self._graph, node.input[0]
        if source not in self._read:
            self.round(source)
        weights = graph.constants[node.input[1]].astype(np.float64)
        bias = graph.constants[node.input[2]].astype(np.float64)
        step = float(self._ranges[source].scale)
        scale = np.abs(weights).reshape(len(weights), -1).max(axis=1) / _PORTABLE_LEVEL
        # A channel of noughts, or nearly, must not push its bias out of 32 bits.
        scale = np.maximum(scale, np.maximum(np.abs(bias) / (step * _INT32_ROOM), 1e-12))
        scale = scale.astype(np.float32).astype(np.float64)
        levels = np.clip(np.rint(weights / _wide(scale)), -_PORTABLE_LEVEL, _PORTABLE_LEVEL)
        bias = bias - _shift(levels * _wide(scale) - weights, self._ranges[source].mean)
        both = (step * scale).astype(np.float32)
        graph.constants |= {
            f"{output}_w": levels.astype(np.int8),
            f"{output}_w_step": scale.astype(np.float32),
            f"{output}_w_zero": np.zeros(len(weights), np.int8),
            f"{output}_b": np.rint(bias / both).astype(np.int32),
            f"{output}_b_step": both,
            f"{output}_b_zero": np.zeros(len(weights), np.int32),
        }
        for part in ("w", "b"):
            inputs = [f"{output}_{part}", f"{output}_{part}_step", f"{output}_{part}_zero"]
            self.nodes.append(
                graph.node("DequantizeLinear", inputs, f"{output}_{part}_read", axis=0)
            )
        node.input[0] = self._read[source]
        node.input[1], node.input[2] = f"{output}_w_read", f"{output}_b_read"
        node.output[0] = output
        self.nodes.append(node)
        self.round(output)


def _wide(values: Floats) -> Floats:
    """Give one number a channel the shape of weights (out, in, height, width)."""
    return values[:, None, None, None]


def _shift(error: Floats, mean: Floats) -> Floats:
    """Shift of each output's mean by an error of the weights.

    Parameters
    ----------
    error : (out, in / groups, height, width) float64
        Rounded weights less true ones.
    mean : (in,) float64
        Mean of each input channel.

    Returns
    -------
    (out,) float64
        Away from the frame of zeros.
    """
    taps = error.sum(axis=(2, 3))
    groups = len(mean) // taps.shape[1]
    each = len(taps) // groups
    grouped = mean.reshape(groups, 1, -1)
    shift: Floats = (taps.reshape(groups, each, -1) * grouped).sum(axis=2).reshape(-1)
    return shift
