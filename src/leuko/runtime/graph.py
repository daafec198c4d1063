"""What an ONNX file holds and points at, read from its wire format before any runtime sees it.

ONNX lets a tensor say "my numbers are in that other file". ONNX Runtime follows such a pointer
even when the model came as bytes, relative to wherever the process happens to stand. A bundle is
one file, so a pointer of any kind is refused; the file is walked by its field numbers, because a
search for a byte pattern is escaped by writing the same fields in another order. Weights that are
not numbers are looked for here too: a rectifier may hide them from every answer but one.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from leuko.errors import BundleError

__all__ = ["check_tensors"]

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
_RAW_DATA: Final = 9
_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14
_FLOATS: Final = {1: "<f4", 10: "<f2", 11: "<f8"}
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
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        field, kind = key >> 3, key & 7
        value = 0
        if kind == 0:
            value, place = _varint(data, place)
            end = place
        elif kind in (1, 5):
            end = place + (8 if kind == 1 else 4)
        elif kind == 2:
            length, place = _varint(data, place)
            end = place + length
        else:
            raise ValueError(f"it has a field of kind {kind}")
        if end > len(data):
            raise ValueError("it ends too early")
        if message == "tensor" and (
            field == _EXTERNAL_DATA or (field == _DATA_LOCATION and (kind != 0 or value != 0))
        ):
            raise BundleError("The network keeps weights outside its file, which is refused.")
        if message == "tensor" and field == _DATA_TYPE:
            data_type = value
        elif message == "tensor" and field == _RAW_DATA:
            raw = data[place:end]
        elif message == "tensor" and field == _FLOAT_DATA:
            _refuse_nan(data[place:end], "<f4")
        elif kind == 2 and field in inside:
            _walk(data[place:end], inside[field], depth + 1)
        place = end
    if data_type in _FLOATS:
        _refuse_nan(raw, _FLOATS[data_type])


def _refuse_nan(data: memoryview, kind: str) -> None:
    """Raise when one of many floats is not a number."""
    if np.isnan(np.frombuffer(data, kind)).any():
        raise BundleError(
            "The network has a weight that is not a finite number; its training went astray or "
            "its file is damaged."
        )


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
