"""Give a stranger's classifier the input and the output of a bundle, in its wire format.

A bundle's network takes RGB 0 to 255, (N, h, w, 3), and gives probabilities in Leuko's class order.
Whatever a foreign network wants instead is put before and behind its own operations: the order of
the channels, a scale and an offset, the layout of the axes, a softmax, the order of the classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from leuko.errors import BundleError
from leuko.runtime.network import edit, wire

__all__ = ["LARGEST_SIDE", "SMALLEST_SIDE", "ForeignNetwork", "read_foreign", "wrap_foreign"]

SMALLEST_SIDE: Final = 16
LARGEST_SIDE: Final = 1024
"""Sides of the input that are taken, in pixels."""

_OLDEST_OPERATORS: Final = 7
_IR_VERSION: Final = 8
_FLOAT32: Final = 1
_OWN: Final = b"net/"
_PASSING: Final = frozenset({b"Add", b"Sub", b"Mul", b"Div", b"Cast", b"Identity", b"Transpose"})
# Below this factor a network brings pixels 0 to 255 down itself; dividing 0 to 1 by a standard
# deviation makes them larger.
_SCALES_DOWN: Final = 0.1
# An operation: its kind, what it takes beside the value before it, its settings.
_Step = tuple[bytes, list[bytes], dict[str, int | list[int]]]

_EXPORT: Final = "Export it again, as by torch.onnx.export(model.eval(), ...)"


@dataclass(frozen=True, slots=True)
class ForeignNetwork:
    """A network whose file has been looked through.

    Attributes
    ----------
    onnx : bytes
        The file.
    size : (int, int)
        Height and width of the input, pixels.
    layout : {"NCHW", "NHWC"}
        Order of the input's axes.
    input, output : bytes
        Their names in the graph.
    parameters : int
        Numbers in all weights.
    scale_inside : float
        What the first operations multiply pixels by, about.
    last : str
        The operation that gives the answer.
    """

    onnx: bytes
    size: tuple[int, int]
    layout: Literal["NCHW", "NHWC"]
    input: bytes
    output: bytes
    parameters: int
    scale_inside: float
    last: str

    @property
    def scales_pixels(self) -> bool:
        """Whether the network itself brings pixels 0 to 255 down to a few units."""
        return self.scale_inside < _SCALES_DOWN


def read_foreign(onnx: bytes, outputs: int) -> ForeignNetwork:
    """Look through a foreign ONNX file, before any runtime sees it.

    Parameters
    ----------
    onnx : bytes
        The file.
    outputs : int
        How many numbers it must give for each picture.

    Returns
    -------
    ForeignNetwork
        Whether it runs and what it answers is not known yet.

    Raises
    ------
    BundleError
        When it is no ONNX file, keeps weights elsewhere, has weights that are not numbers, needs
        operators outside the standard, or takes or gives something else than a classifier does.
    """
    wire.check_tensors(onnx)
    try:
        whole, parts = edit.take_apart(onnx)
        graph = wire._read_graph(memoryview(onnx))
        nodes = [wire._read_node(memoryview(part)) for number, _, part in parts if number == 1]
        _check_operators(whole, parts, nodes)
        tensors = [content for number, kind, content in parts if (number, kind) == (5, 2)]
        parameters = sum(_count(tensor) for tensor in tensors)
        takes = [value for value in _values(parts, 11) if value[0] not in graph.tensors]
        gives = _values(parts, 12)
        size, layout = _picture_input(takes)
        if len(gives) != 1 or len(gives[0][2]) not in (0, 2) or gives[0][2][1:] not in (
            [], [None], [outputs],
        ):  # fmt: skip
            shapes = ", ".join(_told(shape) for _, _, shape in gives) or "nothing"
            raise BundleError(
                f"The network gives {shapes}; expected one output (N, {outputs}), a number for "
                "each class."
            )
        maker = graph.maker(wire._behind(graph, gives[0][0]))
        return ForeignNetwork(
            onnx=onnx,
            size=size,
            layout=layout,
            input=takes[0][0],
            output=gives[0][0],
            parameters=parameters,
            scale_inside=_scale_inside(graph, nodes, takes[0][0]),
            last="" if maker is None else maker.kind.decode("ascii", "replace"),
        )
    except (IndexError, OverflowError, ValueError) as error:
        raise BundleError(f"The network is not a well-formed ONNX file: {error}.") from error


def wrap_foreign(
    network: ForeignNetwork,
    *,
    scale: Sequence[float],
    offset: Sequence[float],
    flip_channels: bool,
    softmax: bool,
    order: Sequence[int],
) -> bytes:
    """Write the network with a bundle's input and output.

    Parameters
    ----------
    network : ForeignNetwork
        From `read_foreign`.
    scale, offset : one or three floats
        The network gets pixels times `scale` plus `offset`; three in its own order of channels.
    flip_channels : bool
        Whether the network takes BGR.
    softmax : bool
        Whether its outputs are logits.
    order : sequence of int
        For each of the bundle's classes, which of the network's outputs it is.

    Returns
    -------
    bytes
        Input ``pixels``, (N, h, w, 3) float32; output ``probabilities``, (N, K) float32. Names of
        exporters and of their source files are left out.
    """
    tensors: list[bytes] = []

    def constant(name: bytes, values: np.ndarray) -> bytes:
        tensors.append(edit._tensor(name, values))
        return name

    before: list[_Step] = []
    if flip_channels:
        before.append((b"Gather", [constant(b"channels", np.array([2, 1, 0]))], {"axis": 3}))
    if {*scale} != {1.0}:
        before.append((b"Mul", [constant(b"scale", np.array(scale, float))], {}))
    if {*offset} != {0.0}:
        before.append((b"Add", [constant(b"offset", np.array(offset, float))], {}))
    if network.layout == "NCHW":
        before.append((b"Transpose", [], {"perm": [0, 3, 1, 2]}))
    behind: list[_Step] = []
    if softmax:
        behind.append((b"Softmax", [], {"axis": 1}))
    if [*order] != sorted(order):
        behind.append((b"Gather", [constant(b"order", np.array([*order]))], {"axis": 1}))

    whole, parts = edit.take_apart(network.onnx)
    own = b"".join(_renamed(number, content) for number, kind, content in parts if kind == 2)
    nodes = _chain(before, b"pixels", _OWN + network.input, b"before")
    nodes += own + _chain(behind, _OWN + network.output, b"probabilities", b"behind")
    graph = nodes + wire._message(2, b"leuko") + b"".join(tensors)
    graph += wire._message(11, _value_info(b"pixels", (*network.size, 3)))
    graph += wire._message(12, _value_info(b"probabilities", (len(order),)))
    version = max([_IR_VERSION, *wire._integers(memoryview(network.onnx), 1)])
    operators = wire._message(8, b"\x10" + wire._number(_operators(whole)))
    return b"\x08" + wire._number(version) + operators + wire._message(7, graph)


def _check_operators(
    whole: list[edit.Part], parts: list[edit.Part], nodes: list[wire._Node]
) -> None:
    """Refuse whatever is not a plain list of ONNX's own operations."""
    version = _operators(whole)
    if version < _OLDEST_OPERATORS:
        raise BundleError(
            f"The network uses version {version} of ONNX's operators; expected "
            f"{_OLDEST_OPERATORS} or later. {_EXPORT} with opset_version=17."
        )
    for node in nodes:
        if node.domain not in (b"", b"ai.onnx"):
            raise BundleError(
                f"The network needs the operator {_word(node.kind)} of {_word(node.domain)}, "
                f"which is outside standard ONNX. {_EXPORT} without it."
            )
        if edit._has_graph(node):
            raise BundleError(
                f"The network has a condition or a loop ({_word(node.kind)}), which a bundle does "
                f"not carry. {_EXPORT}, so that one plain path is left."
            )
    if any(number == 25 for number, _, _ in whole) or any(number == 15 for number, _, _ in parts):
        raise BundleError(
            f"The network has functions or sparse weights of its own, which are not read. "
            f"{_EXPORT} with opset_version=17."
        )


def _operators(whole: list[edit.Part]) -> int:
    """The version of ONNX's own operators."""
    found = [
        wire._integers(memoryview(content), 2)[-1:]
        for number, kind, content in whole
        if (number, kind) == (8, 2) and wire._text(memoryview(content), 1) in (b"", b"ai.onnx")
    ]
    return max((version for versions in found for version in versions), default=0)


def _count(tensor: bytes) -> int:
    """Numbers of a tensor that is a weight; shapes and indices are none."""
    kind = wire._integers(memoryview(tensor), 2)[-1:]
    return math.prod(wire._integers(memoryview(tensor), 1)) if kind in ([1], [10], [11]) else 0


_Value = tuple[bytes, int, list[int | None]]


def _values(parts: list[edit.Part], wanted: int) -> list[_Value]:
    """Inputs or outputs: (name, kind of number, sides); a side of any length is None."""
    found = []
    for number, kind, content in parts:
        if (number, kind) != (wanted, 2):
            continue
        name = wire._text(memoryview(content), 1)
        tensor = memoryview(wire._text(memoryview(wire._text(memoryview(content), 2)), 1))
        shape: list[int | None] = []
        for part, wire_type, _, side in wire._fields(memoryview(wire._text(tensor, 2))):
            if (part, wire_type) == (1, 2):
                known = wire._integers(side, 1)[-1:]
                shape.append(known[0] if known and known[0] > 0 else None)
        found.append((name, (wire._integers(tensor, 1)[-1:] or [0])[0], shape))
    return found


def _picture_input(values: list[_Value]) -> tuple[tuple[int, int], Literal["NCHW", "NHWC"]]:
    """Size and layout of the only input, which must be pictures of one size."""
    shape = values[0][2] if len(values) == 1 else []
    layout: Literal["NCHW", "NHWC"] = "NHWC" if shape[3:] == [3] else "NCHW"
    rows, columns = (shape[1:3] if layout == "NHWC" else shape[2:4]) if len(shape) == 4 else (0, 0)
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        shapes = ", ".join(_told(shape) for _, _, shape in values) or "nothing"
        raise BundleError(
            f"The network takes {shapes}; expected one input of colour pictures, "
            "(N, 3, height, width) or (N, height, width, 3)."
        )
    if values[0][1] != _FLOAT32:
        raise BundleError(
            "The network does not take 32-bit floats. Export it again in single precision."
        )
    if rows is None or columns is None:
        raise BundleError(
            f"The network takes pictures of any size, {_told(shape)}. Export it again for the "
            "height and width that it was trained with."
        )
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in (rows, columns)):
        raise BundleError(
            f"The network takes pictures of {rows} x {columns} pixels; sides from {SMALLEST_SIDE} "
            f"to {LARGEST_SIDE} are taken."
        )
    return (rows, columns), layout


def _scale_inside(graph: wire._Graph, nodes: list[wire._Node], name: bytes) -> float:
    """What pixels are multiplied by before anything else happens to them, about."""
    factor = 1.0
    for _ in range(wire._MAX_STEPS):
        users = [node for node in nodes if name in node.inputs]
        if len(users) != 1 or users[0].kind not in _PASSING:
            break
        node = users[0]
        if node.kind in (b"Mul", b"Div"):
            first, second = node.inputs
            constant = wire._values(graph, second if first == name else first)
            if constant is None or (node.kind == b"Div" and first != name):
                break
            by = max(float(np.median(np.abs(constant))), 1e-12)
            factor *= by if node.kind == b"Mul" else 1 / by
        name = node.outputs[0]
    return factor


def _chain(steps: list[_Step], source: bytes, result: bytes, name: bytes) -> bytes:
    """Operations one behind the other; one that does nothing where there are none."""
    steps = steps or [(b"Identity", [], {})]
    made = b""
    for place, (kind, others, settings) in enumerate(steps):
        output = result if place == len(steps) - 1 else name + b"_%d" % place
        made += wire._node_bytes(kind, [source, *others], output, **settings)
        source = output
    return made


def _renamed(number: int, content: bytes) -> bytes:
    """An operation or a tensor with its values' names marked as the network's own."""
    names = {1: (1, 2), 5: (8,)}.get(number)
    if names is None:
        return b""
    written = b""
    for part, kind, _, inside in wire._fields(memoryview(content)):
        if part in names and kind == 2 and (inside or number == 5):
            written += wire._message(part, _OWN + bytes(inside))
        elif (number, part) not in ((1, 6), (5, 12)):  # remarks, such as source lines
            written += edit._field(part, kind, inside)
    return wire._message(number, written)


def _value_info(name: bytes, sides: tuple[int, ...]) -> bytes:
    """An input or output of 32-bit floats: any number of rows of so many sides."""
    dims = wire._message(1, wire._message(2, b"N"))
    dims += b"".join(wire._message(1, b"\x08" + wire._number(side)) for side in sides)
    kind = wire._message(1, b"\x08\x01" + wire._message(2, dims))
    return wire._message(1, name) + wire._message(2, kind)


def _told(shape: list[int | None]) -> str:
    """A shape for a sentence."""
    return f"({', '.join('N' if side is None else str(side) for side in shape)})"


def _word(text: bytes) -> str:
    """A stranger's name for a sentence."""
    return repr(text[:40].decode("utf-8", "replace"))
