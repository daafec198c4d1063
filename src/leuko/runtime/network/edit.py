"""Give a classifier's graph another last layer, in its wire format.

`leuko.runtime.network.wire` finds the layer; here its node is replaced by a product and a sum with
new numbers, and what only the old layer needed is left out. Every other byte stays as it was.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import BundleError
from leuko.runtime.network import wire

__all__ = ["replace_head", "take_apart"]

Part = tuple[int, int, bytes]

_GRAPH: Final = 7
_NODE, _TENSOR, _OUTPUT = 1, 5, 12


def replace_head(onnx: bytes, weights: npt.NDArray[Any], bias: npt.NDArray[Any]) -> bytes:
    """Replace the last linear layer before the softmax.

    Parameters
    ----------
    onnx : bytes
        A serialized ONNX model whose first output is a softmax of a linear layer.
    weights : (d, K) float
        In the order of the answer's classes, as `leuko.runtime.network.wire.expose` gives them.
    bias : (K,) float
        Likewise.

    Returns
    -------
    bytes
        The same network with another last layer of 32-bit floats.

    Raises
    ------
    BundleError
        When the graph has no such layer, or the numbers do not fit it or are not finite.
    """
    graph, head = wire._graph_and_head(onnx)
    if head is None or head.weights is None:
        raise BundleError(
            "The network's answer is not a softmax of one linear layer with written numbers, so "
            "its last layer cannot be fitted."
        )
    matrix, offset = np.asarray(weights, "<f4"), np.asarray(bias, "<f4")
    if matrix.shape != head.weights.shape or offset.shape != matrix.shape[1:]:
        raise BundleError(
            f"The last layer has weights {head.weights.shape}; received {matrix.shape} and "
            f"{offset.shape}."
        )
    if not (np.isfinite(matrix).all() and np.isfinite(offset).all()):
        raise BundleError("The new last layer has numbers that are not finite.")
    if head.order is not None:
        if sorted(head.order) != list(range(len(head.order))):
            raise BundleError("The network's answers leave out a class of its last layer.")
        back = np.argsort(head.order)
        matrix, offset = matrix[:, back], offset[back]
    taken = {*graph.tensors, *graph.makers, *graph.inputs, *graph.outputs}
    names = [_free(name, taken) for name in (b"leuko_weights", b"leuko_bias", b"leuko_product")]
    made = wire._node_bytes(b"MatMul", [head.features, names[0]], names[2])
    made += wire._node_bytes(b"Add", [names[2], names[1]], head.logits)
    made_tensors = _tensor(names[0], matrix) + _tensor(names[1], offset)
    return _rewritten(onnx, head.features, head.logits, made, made_tensors)


def _rewritten(onnx: bytes, source: bytes, layer: bytes, made: bytes, tensors: bytes) -> bytes:
    """The model with one node replaced, its unused inputs left out, and new tensors."""
    whole, parts = take_apart(onnx)
    others = b"".join(_field(*field) for field in whole)
    unused = _unused(parts, source, layer)
    written = bytearray()
    for number, kind, part in parts:
        if number == _NODE and kind == 2:
            outputs = wire._read_node(memoryview(part)).outputs
            if layer in outputs:
                written += made
                continue
            if outputs and unused.issuperset(outputs):
                continue
        if number == _TENSOR and kind == 2 and wire._text(memoryview(part), 8) in unused:
            continue
        written += _field(number, kind, part)
    return others + wire._message(_GRAPH, bytes(written) + tensors)


def take_apart(onnx: bytes) -> tuple[list[Part], list[Part]]:
    """Read the fields of a model and those of its graph.

    Parameters
    ----------
    onnx : bytes
        A serialized ONNX model.

    Returns
    -------
    whole, parts : list of (field number, wire type, content)
        The model's own without its graph, and the graph's. The content of a whole number is its
        bytes as they were written.

    Raises
    ------
    IndexError, ValueError
        When the bytes are not well-formed.
    """
    whole, inside = [], bytearray()
    for number, kind, _, content in wire._fields(memoryview(onnx)):
        if number == _GRAPH and kind == 2:
            inside += content  # messages that are written in pieces are merged by joining them
        else:
            whole.append((number, kind, bytes(content)))
    parts = [
        (number, kind, bytes(content))
        for number, kind, _, content in wire._fields(memoryview(bytes(inside)))
    ]
    return whole, parts


def _unused(parts: list[Part], source: bytes, layer: bytes) -> set[bytes]:
    """Values that nothing needs once another node makes `layer` out of `source`."""
    nodes = [wire._read_node(memoryview(c)) for n, k, c in parts if n == _NODE and k == 2]
    kept = {wire._text(memoryview(c), 1) for n, k, c in parts if n == _OUTPUT and k == 2}
    kept.add(source)
    if any(_has_graph(node) for node in nodes):
        return set()  # a graph inside a node may use any value without saying so here
    gone = [node for node in nodes if layer in node.outputs]
    nodes = [node for node in nodes if layer not in node.outputs]
    unused: set[bytes] = set()
    while gone:
        doubtful = {name for node in gone for name in node.inputs} - kept
        needed = {name for node in nodes for name in node.inputs}
        unused |= doubtful - needed
        gone = [node for node in nodes if node.outputs and unused.issuperset(node.outputs)]
        nodes = [node for node in nodes if node not in gone]
    return unused


def _has_graph(node: Any) -> bool:
    """Whether an operation holds operations of its own."""
    fields = (field for one in node.attributes.values() for field in wire._fields(one))
    return any(number in (6, 11) and kind == 2 for number, kind, _, _ in fields)


def _free(name: bytes, taken: set[bytes]) -> bytes:
    """A name that nothing else has."""
    while name in taken:
        name += b"_"
    return name


def _tensor(name: bytes, values: npt.NDArray[Any]) -> bytes:
    """Numbers as 32-bit floats, or as whole ones where they are, as a field of a graph."""
    kind, dtype = (b"\x07", "<i8") if values.dtype.kind == "i" else (b"\x01", "<f4")
    shape = b"".join(b"\x08" + wire._number(side) for side in values.shape)
    raw = wire._message(9, np.ascontiguousarray(values, dtype).tobytes())
    return wire._message(_TENSOR, shape + b"\x10" + kind + wire._message(8, name) + raw)


def _field(number: int, kind: int, content: bytes | memoryview) -> bytes:
    """One field, written again as it was read."""
    key = wire._number(number << 3 | kind)
    return key + (wire._number(len(content)) if kind == 2 else b"") + bytes(content)
