"""What an ONNX file holds and points at, read from its wire format before any runtime sees it.

ONNX lets a tensor say "my numbers are in that other file". ONNX Runtime follows such a pointer
even when the model came as bytes, relative to wherever the process happens to stand. A bundle is
one file, so a pointer of any kind is refused; the file is walked by its field numbers, because a
search for a byte pattern is escaped by writing the same fields in another order. Weights that are
not numbers are looked for here too: a rectifier may hide them from every answer but one.

The same walk finds the last layer of a classifier and, where the network averages its maps before
it, those maps. `expose` lets one run of the network give them beside its answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from leuko.errors import BundleError

__all__ = ["Exposed", "check_tensors", "expose"]

Floats = npt.NDArray[np.float32]

# Which fields of which message hold further messages, from onnx.proto; a tensor ends the walk.
_INSIDE: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_DATA_TYPE: Final = 2
_FLOAT_DATA: Final = 4
_INT32_DATA: Final = 5
_RAW_DATA: Final = 9
_DOUBLE_DATA: Final = 10
_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14
_FLOATS: Final = {1: "<f4", 10: "<f2", 11: "<f8"}
_HALF: Final = 10
# Floats, whole numbers, truth and text; bfloat16 and narrower floats have not-a-numbers of theirs.
_KINDS: Final = {*range(14), 21, 22}
_MAX_DEPTH: Final = 100


def check_tensors(onnx: bytes) -> None:
    """Raise unless every number of a graph is a number, and inside these bytes.

    Parameters
    ----------
    onnx : bytes
        A serialized ONNX model.

    Raises
    ------
    BundleError
        When a tensor points at another file or holds a not-a-number, or the bytes are not
        well-formed. Infinities are allowed: they are the ends of a clipping.

    References
    ----------
    Protocol Buffers, "Encoding"; ONNX, ``onnx.proto``, messages ModelProto to TensorProto.
    """
    try:
        _walk(memoryview(onnx), "model", 0)
    except (IndexError, ValueError) as error:
        raise BundleError(f"The network is not a well-formed ONNX file: {error}.") from error


def _walk(data: memoryview, message: str, depth: int) -> None:
    """Visit one message and the messages inside it."""
    if depth > _MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    inside = _INSIDE[message]
    data_type, raw = 0, memoryview(b"")
    whole = False
    for number, kind, value, content in _fields(data):
        if message == "tensor" and (
            number == _EXTERNAL_DATA or (number == _DATA_LOCATION and (kind != 0 or value != 0))
        ):
            raise BundleError(
                "The network keeps weights outside its file, which is refused; export it as one."
            )
        if message == "tensor" and number == _DATA_TYPE:
            data_type = value
        elif message == "tensor" and number == _RAW_DATA:
            raw = content
        elif message == "tensor" and number == _FLOAT_DATA:
            _refuse_nan(content, "<f4")
        elif message == "tensor" and number == _DOUBLE_DATA:
            _refuse_nan(content, "<f8")
        elif message == "tensor" and number == _INT32_DATA:
            whole = True
        elif kind == 2 and number in inside:
            _walk(content, inside[number], depth + 1)
    if data_type not in _KINDS:
        raise BundleError(
            f"The network keeps weights as numbers of ONNX's kind {data_type}, which is refused; "
            "32-bit and 16-bit floats and whole numbers are read."
        )
    if data_type in _FLOATS:
        _refuse_nan(raw, _FLOATS[data_type])
    if data_type == _HALF and whole:
        raise BundleError(
            "The network keeps 16-bit floats as whole numbers, which is refused; export it again "
            "with raw data."
        )


def _refuse_nan(data: memoryview, kind: str) -> None:
    """Raise when one of many floats is not a number."""
    if np.isnan(np.frombuffer(data, kind)).any():
        raise BundleError(
            "The network has a weight that is not a finite number; its training went astray or "
            "its file is damaged."
        )


def _fields(data: memoryview) -> Iterator[tuple[int, int, int, memoryview]]:
    """Go through one message: (field number, wire type, number, bytes of anything else)."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        value, start = 0, place
        if kind == 0:
            value, end = _varint(data, place)
        elif kind in (1, 5):
            end = place + (8 if kind == 1 else 4)
        elif kind == 2:
            length, start = _varint(data, place)
            end = start + length
        else:
            raise ValueError(f"it has a field of kind {kind}")
        if end > len(data):
            raise ValueError("it ends too early")
        yield number, kind, value, data[start:end]
        place = end


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """Read one number of variable length: (number, where it ends)."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError("it ends too early")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number is too long")


@dataclass(frozen=True, slots=True, eq=False)
class Exposed:
    """A classifier's graph that gives more than its answer.

    Attributes
    ----------
    onnx : bytes
        The graph with the outputs named here after its own; unchanged where there are none.
    features : str or None
        Output with what enters the last linear layer, (N, d) float32. None when the answer is not
        a softmax of a linear layer.
    maps : str or None
        Output with what enters the global average pooling, (N, d, h, w) or (N, h, w, d) float32
        as `layout` says. None when it was not asked for, or anything that computes stands between
        the pooling and the last linear layer.
    layout : {"NCHW", "NHWC"}
        Order of the axes of `maps`.
    weights : (d, K) float32 or None
        Of the last linear layer, in the order of the answer's classes. None where `features` is
        None, or the weights are not written down as numbers.
    bias : (K,) float32 or None
        Likewise; zeros where the layer has none.
    """

    onnx: bytes
    features: str | None = None
    maps: str | None = None
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    weights: Floats | None = None
    bias: Floats | None = None


@dataclass(slots=True)
class _Node:
    """One operation."""

    kind: bytes = b""
    domain: bytes = b""
    inputs: list[bytes] = field(default_factory=list)
    outputs: list[bytes] = field(default_factory=list)
    attributes: dict[bytes, memoryview] = field(default_factory=dict)


@dataclass(slots=True)
class _Graph:
    """What the search needs of a graph: who makes what, and the tensors that are written down."""

    makers: dict[bytes, _Node] = field(default_factory=dict)
    tensors: dict[bytes, memoryview] = field(default_factory=dict)
    inputs: list[bytes] = field(default_factory=list)
    outputs: list[bytes] = field(default_factory=list)

    def maker(self, name: bytes) -> _Node | None:
        """The operation that makes a value, if it is one of ONNX's own."""
        node = self.makers.get(name)
        return node if node is not None and node.domain in (b"", b"ai.onnx") else None


@dataclass(slots=True)
class _Head:
    """The end of a classifier: where features and maps are, and the layer that weighs them.

    `logits` is what the layer makes, and `order` that of the answers, where it is another one.
    """

    logits: bytes
    order: list[int] | None
    features: bytes
    maps: bytes | None
    layout: Literal["NCHW", "NHWC"]
    weights: Floats | None
    bias: Floats | None


# Operations that change how numbers lie or are written, not what they say.
_PLAIN: Final = frozenset({
    b"Identity", b"Cast", b"Dropout", b"Reshape", b"Squeeze", b"Unsqueeze", b"Flatten",
    b"Transpose", b"QuantizeLinear", b"DequantizeLinear",
})  # fmt: skip
_MAX_STEPS: Final = 64
_MAX_WEIGHTS: Final = 2**24
_NUMBERS: Final = {**_FLOATS, 2: "u1", 3: "i1", 6: "<i4", 7: "<i8"}
_FEATURES: Final = "leuko_features"
_MAPS: Final = "leuko_maps"


def expose(onnx: bytes, *, maps: bool) -> Exposed:
    """Let a classifier's graph give, beside its answer, what its last layer saw.

    Protobuf merges a message that is written twice: appending a second ``graph`` to the file adds
    its nodes and outputs to the first, and leaves every byte that was there as it was.

    Parameters
    ----------
    onnx : bytes
        A serialized ONNX model whose first output is the answer. `check_tensors` is for the
        caller to ask.
    maps : bool
        Whether to add them, too, where the graph has them.

    Returns
    -------
    Exposed
        With None for whatever the graph does not have. Whether the outputs mean what they seem to
        is for the caller to check: a graph from a stranger may reshape as it likes.

    Raises
    ------
    BundleError
        When the bytes are not well-formed.

    References
    ----------
    Protocol Buffers, "Encoding", on the last one wins and on embedded messages; ONNX,
    ``onnx.proto``, messages ModelProto to TensorProto.
    """
    graph, head = _graph_and_head(onnx)
    if head is None:
        return Exposed(onnx)
    taken = {*graph.tensors, *graph.makers, *graph.inputs, *graph.outputs}
    added, names = b"", {}
    for source, name in ((head.features, _FEATURES), (head.maps if maps else None, _MAPS)):
        if source is not None:
            while name.encode() in taken:
                name += "_"
            added += _output_bytes(source, name, flat=source is head.features)
            names[name.rstrip("_")] = name
    return Exposed(
        onnx=onnx + _message(7, added) if added else onnx,
        features=names.get(_FEATURES),
        maps=names.get(_MAPS),
        layout=head.layout,
        weights=head.weights,
        bias=head.bias,
    )


def _graph_and_head(onnx: bytes) -> tuple[_Graph, _Head | None]:
    """Read a graph and find its end, or say that the bytes are not well-formed."""
    try:
        graph = _read_graph(memoryview(onnx))
        return graph, _find_head(graph)
    except (IndexError, OverflowError, ValueError) as error:
        raise BundleError(f"The network is not a well-formed ONNX file: {error}.") from error


def _read_graph(data: memoryview) -> _Graph:
    """Read the model's own graph, merging what was written in several pieces."""
    graph = _Graph()
    for number, kind, _, content in _fields(data):
        if number != 7 or kind != 2:
            continue
        for part, wire, _, inside in _fields(content):
            if wire != 2:
                continue
            if part == 1:
                node = _read_node(inside)
                graph.makers.update(dict.fromkeys(node.outputs, node))
            elif part == 5:
                graph.tensors[_text(inside, 8)] = inside
            elif part == 11:
                graph.inputs.append(_text(inside, 1))
            elif part == 12:
                graph.outputs.append(_text(inside, 1))
    return graph


def _read_node(data: memoryview) -> _Node:
    """Read one operation; its attributes are read when they are asked for."""
    node = _Node()
    for number, kind, _, content in _fields(data):
        if kind != 2:
            continue
        if number == 1:
            node.inputs.append(bytes(content))
        elif number == 2:
            node.outputs.append(bytes(content))
        elif number == 4:
            node.kind = bytes(content)
        elif number == 5:
            node.attributes[_text(content, 1)] = content
        elif number == 7:
            node.domain = bytes(content)
    return node


def _text(data: memoryview, wanted: int) -> bytes:
    """A text inside a message; the last one wins."""
    text = b""
    for number, kind, _, content in _fields(data):
        if number == wanted and kind == 2:
            text = bytes(content)
    return text


def _integers(data: memoryview, wanted: int) -> list[int]:
    """Whole numbers inside a message, packed or not."""
    found = []
    for number, kind, value, content in _fields(data):
        if number == wanted and kind == 0:
            found.append(value)
        elif number == wanted and kind == 2:
            place = 0
            while place < len(content):
                value, place = _varint(content, place)
                found.append(value)
    return [value - 2**64 if value >= 2**63 else value for value in found]


def _attribute(node: _Node, name: bytes, field_number: int, default: list[int]) -> list[int]:
    """Whole numbers of an attribute (field 3 holds one, field 8 a list)."""
    data = node.attributes.get(name)
    return default if data is None else _integers(data, field_number) or default


def _factor(node: _Node, name: bytes) -> float:
    """A fractional attribute, 1 where it is left out."""
    value = 1.0
    for number, kind, _, content in _fields(node.attributes.get(name, memoryview(b""))):
        if number == 2 and kind == 5:
            value = float(np.frombuffer(content, "<f4")[0])
    return value


def _find_head(graph: _Graph) -> _Head | None:
    """Follow the answer back to the last linear layer and to the pooling before it."""
    if not graph.outputs:
        return None
    place = _behind(graph, graph.outputs[0])
    node = graph.maker(place)
    order: list[int] | None = None
    if node is not None and node.kind == b"Gather" and len(node.inputs) == 2:
        # Answers that are put into another order after the softmax.
        indices = _values(graph, node.inputs[1])
        if indices is None or _attribute(node, b"axis", 3, [0])[0] not in (1, -1):
            return None
        order = [int(index) for index in indices.ravel()]
        place = _behind(graph, node.inputs[0])
        node = graph.maker(place)
    if node is None or node.kind != b"Softmax" or len(node.inputs) != 1:
        return None
    logits = _behind(graph, node.inputs[0])
    layer = _linear_layer(graph, logits)
    if layer is None:
        return None
    source, weights, bias = layer
    if weights is not None and order is not None:
        if not all(0 <= index < weights.shape[1] for index in order):
            return None
        weights, bias = weights[:, order], None if bias is None else bias[order]
    if source in graph.inputs:
        return None
    pooled = _pooling(graph, source) if weights is not None and bias is not None else None
    maps, layout = pooled or (None, "NCHW")
    return _Head(logits, order, source, maps, layout, weights, bias)


def _behind(graph: _Graph, name: bytes) -> bytes:
    """Step back over operations that only reshape, to the value that says the same."""
    for _ in range(_MAX_STEPS):
        node = graph.maker(name)
        if node is None or node.kind not in _PLAIN or not node.inputs:
            break
        name = node.inputs[0]
    return name


def _linear_layer(graph: _Graph, name: bytes) -> tuple[bytes, Floats | None, Floats | None] | None:
    """The linear layer that makes a value: (what it takes, weights (d, K), bias (K,))."""
    node = graph.maker(name)
    if node is None or len(node.inputs) < 2:
        return None
    if node.kind == b"Gemm":
        if _attribute(node, b"transA", 3, [0])[0]:
            return None
        weights = _values(graph, node.inputs[1])
        if weights is not None and _attribute(node, b"transB", 3, [0])[0]:
            weights = weights.T
        bias = _values(graph, node.inputs[2]) if len(node.inputs) > 2 else np.zeros(1)
        alpha, beta = _factor(node, b"alpha"), _factor(node, b"beta")
        source = node.inputs[0]
    else:
        bias, alpha, beta = np.zeros(1), 1.0, 1.0
        if node.kind == b"Add":
            sides = [_behind(graph, one) for one in node.inputs[:2]]
            products = [graph.maker(one) for one in sides]
            chosen = 1 if products[1] is not None and products[1].kind == b"MatMul" else 0
            bias, node = _values(graph, node.inputs[1 - chosen]), products[chosen]
        if node is None or node.kind != b"MatMul" or len(node.inputs) != 2:
            return None
        source, weights = node.inputs[0], _values(graph, node.inputs[1])
    if weights is None or bias is None:
        return source, None, None
    if weights.ndim != 2 or bias.size not in (1, weights.shape[1]):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        matrix = np.ascontiguousarray(alpha * weights, dtype=np.float32)
        offset = np.ascontiguousarray(
            beta * np.broadcast_to(bias.ravel(), weights.shape[1]), dtype=np.float32
        )
    if not (np.isfinite(matrix).all() and np.isfinite(offset).all()):
        return source, None, None
    return source, matrix, offset


def _pooling(graph: _Graph, name: bytes) -> tuple[bytes, Literal["NCHW", "NHWC"]] | None:
    """The maps that a value is the average of, and how their axes lie."""
    node = graph.maker(_behind(graph, name))
    if node is None or not node.inputs or node.inputs[0] in graph.inputs:
        return None
    if node.kind == b"GlobalAveragePool":
        return node.inputs[0], "NCHW"
    if node.kind != b"ReduceMean":
        return None
    axes = _attribute(node, b"axes", 8, [])
    if not axes and len(node.inputs) > 1:
        written = _values(graph, node.inputs[1])
        axes = [] if written is None else [int(axis) for axis in written.ravel()]
    rows_and_columns = sorted(axis % 4 for axis in axes if -4 <= axis < 4)
    if len(axes) == 2 and rows_and_columns == [2, 3]:
        return node.inputs[0], "NCHW"
    if len(axes) == 2 and rows_and_columns == [1, 2]:
        return node.inputs[0], "NHWC"
    return None


def _values(graph: _Graph, name: bytes) -> npt.NDArray[np.float64] | None:
    """Numbers that are written down in the file, also as quantised ones; None when computed."""
    for _ in range(_MAX_STEPS):
        node = graph.maker(name)
        if name in graph.tensors:
            return _read_tensor(graph.tensors[name])
        if node is None:
            return None
        if node.kind == b"Constant" and b"value" in node.attributes:
            for number, kind, _, content in _fields(node.attributes[b"value"]):
                if number == 5 and kind == 2:
                    return _read_tensor(content)
            return None
        if node.kind == b"DequantizeLinear":
            return _dequantised(graph, node)
        if node.kind not in (b"Identity", b"Cast") or not node.inputs:
            return None
        name = node.inputs[0]
    return None


def _dequantised(graph: _Graph, node: _Node) -> npt.NDArray[np.float64] | None:
    """Numbers that are kept as whole ones with a scale, for each column or for all."""
    parts = []
    for name in node.inputs[:3]:
        maker = graph.maker(name)
        # A quantised tensor is written down; nothing is followed further.
        if name not in graph.tensors or maker is not None:
            return None
        parts.append(_read_tensor(graph.tensors[name]))
    if len(parts) < 2 or any(part is None for part in parts):
        return None
    values, scale, *rest = (part for part in parts if part is not None)
    zero = rest[0] if rest else np.zeros(scale.shape)
    if zero.size != scale.size:
        return None
    if scale.size > 1:
        # One scale for each place along an axis, the second one unless it is named.
        axis = _attribute(node, b"axis", 3, [1])[0] % max(1, values.ndim)
        if values.ndim == 0 or scale.size != values.shape[axis]:
            return None
        along = [-1 if place == axis else 1 for place in range(values.ndim)]
        scale, zero = scale.reshape(along), zero.reshape(along)
    elif scale.size == 1:
        scale, zero = scale.reshape(()), zero.reshape(())
    return np.asarray((values - zero) * scale)


def _read_tensor(data: memoryview) -> npt.NDArray[np.float64] | None:
    """One tensor as numbers; None when it is too large to be a last layer, or of an odd kind."""
    shape = _integers(data, 1)
    kind = (_integers(data, _DATA_TYPE) or [0])[-1]
    if kind not in _NUMBERS or len(shape) > 8 or min(shape, default=1) < 1:
        return None
    size = math.prod(shape)
    if size > _MAX_WEIGHTS:
        return None
    pieces = {_RAW_DATA: b"", _FLOAT_DATA: b"", _DOUBLE_DATA: b""}
    for number, wire, _, content in _fields(data):
        if number == _RAW_DATA and wire == 2:
            pieces[number] = bytes(content)
        elif number in (_FLOAT_DATA, _DOUBLE_DATA):
            pieces[number] += bytes(content)
    values: npt.NDArray[np.generic]
    if pieces[_RAW_DATA]:
        values = np.frombuffer(pieces[_RAW_DATA], _NUMBERS[kind])
    elif kind in (1, 11):
        values = np.frombuffer(pieces[_FLOAT_DATA if kind == 1 else _DOUBLE_DATA], _NUMBERS[kind])
    else:
        # Small whole numbers, and the bits of half floats, stand in int32_data.
        whole = np.array(_integers(data, 7 if kind == 7 else 5), np.int64)
        values = whole.astype("<u2").view("<f2") if kind == 10 else whole
    if values.size != size:
        raise ValueError(f"a tensor of shape {shape} has {values.size} numbers")
    return values.reshape(shape).astype(np.float64)


def _output_bytes(source: bytes, name: str, *, flat: bool) -> bytes:
    """Fields of a graph that copy a value, as 32-bit floats, to a new output."""
    result = name.encode()
    made = b""
    if flat:  # (N, d, 1, 1) and the like become (N, d)
        made = _node_bytes(b"Flatten", [source], result + b"_flat", axis=1)
        source = result + b"_flat"
    made += _node_bytes(b"Cast", [source], result, to=1)
    # TypeProto: a tensor of 32-bit floats with so many axes of any length.
    axes = _message(2, _message(1, b"") * (2 if flat else 4))
    kind = _message(2, _message(1, b"\x08\x01" + axes))
    return made + _message(12, _message(1, result) + kind)


def _node_bytes(
    kind: bytes, inputs: list[bytes], output: bytes, **settings: int | list[int]
) -> bytes:
    """An operation with whole numbers as its attributes, as a field of a graph."""
    given = b"".join(_message(1, name) for name in inputs)
    made = given + _message(2, output) + _message(3, output) + _message(4, kind)
    for name, value in settings.items():
        numbers = value if isinstance(value, list) else [value]
        # Field 3 and kind 2 are one number, field 8 and kind 7 a list.
        key, sort = (b"\x40", b"\x07") if isinstance(value, list) else (b"\x18", b"\x02")
        written = b"".join(key + _number(number) for number in numbers)
        made += _message(5, _message(1, name.encode()) + written + b"\xa0\x01" + sort)
    return _message(1, made)


def _message(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    return _number(number << 3 | 2) + _number(len(content)) + content


def _number(value: int) -> bytes:
    """A whole number of variable length."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
