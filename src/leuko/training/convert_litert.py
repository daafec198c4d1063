"""A bundle's graph as a LiteRT file (``.tflite``), for telephones, boards and microscopes.

What is converted is the graph that ships, operator by operator, into a TensorFlow function that
TensorFlow's own converter writes down. So it works for every bundle, with or without the Keras
model that it came from. ONNX keeps maps as (N, C, h, w) and TensorFlow as (N, h, w, C); the maps
are turned once, where the graph turns them itself, and not around every operator.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import TrainingError
from leuko.training.convert_graph import Graph, clean_graph, import_extra
from leuko.training.convert_int8 import correct_biases

__all__ = ["litert_runner", "to_litert"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_WHAT: Final = "Exporting to LiteRT"
_LITERT_LEVEL: Final = 127
_TO_NHWC: Final = (0, 2, 3, 1)
_TO_NCHW: Final = (0, 3, 1, 2)


@dataclass(frozen=True)
class _Map:
    """A map that ONNX calls (N, C, h, w), kept as (N, h, w, C)."""

    tensor: Any


def to_litert(
    onnx: bytes, size: tuple[int, int], *, weights: str = "float32", pixels: Pixels | None = None
) -> bytes:
    """Convert a classifier to LiteRT.

    Parameters
    ----------
    onnx : bytes
        Input (N, h, w, 3) float32, output (N, 5) float32.
    size : (int, int)
        Height and width of the input.
    weights : {"float32", "float16", "int8"}
        How numbers are kept. Input and output are float32 in any case.
    pixels : (M, h, w, 3) uint8, RGB, optional
        Real network inputs; needed for int8.

    Returns
    -------
    bytes
        A ``.tflite`` file for one picture at a time: input (1, h, w, 3), output (1, 5).

    Raises
    ------
    TrainingError
        When the graph has an operator that is not known here, or TensorFlow cannot write it.
    MissingExtraError
        When TensorFlow is not installed.
    """
    with quiet_tensorflow():
        tf = import_extra("tensorflow", _WHAT, "train")
    if weights == "int8":
        if pixels is None or len(pixels) == 0:
            raise TrainingError("An int8 network needs pictures that its ranges are measured on.")
        onnx = correct_biases(onnx, pixels, level=_LITERT_LEVEL)
    graph = clean_graph(onnx)
    unknown = sorted({node.op_type for node in graph.nodes} - set(_OPERATORS))
    if unknown:
        raise TrainingError(
            f"The network has operators that the LiteRT export does not know: "
            f"{', '.join(unknown)}. Export it to onnx, which takes them."
        )
    module = tf.Module()
    signature = tf.TensorSpec((1, *size, 3), tf.float32, name=graph.input)

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def answer(pictures: Any) -> Any:
        return {graph.output: _Tracer(tf, graph).run(pictures)}

    with quiet_tensorflow(), tempfile.TemporaryDirectory(prefix="leuko-export-") as folder:
        try:
            traced = tf.function(answer, input_signature=[signature])
            module.answer = traced
            tf.saved_model.save(module, folder, signatures=traced)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            if weights != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if weights == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if weights == "int8":
                converter.representative_dataset = lambda: (
                    [picture[None].astype(np.float32)]
                    for picture in pixels  # type: ignore[union-attr]
                )
            return bytes(converter.convert())
        except TrainingError:
            raise
        except Exception as error:  # TensorFlow raises its own kinds
            first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise TrainingError(
                f"TensorFlow cannot write this network as LiteRT: {first}"
            ) from error


def litert_runner(data: bytes, *, threads: int = 1) -> Callable[[Pixels], npt.NDArray[np.float64]]:
    """Open a ``.tflite`` file for answers.

    Parameters
    ----------
    data : bytes
        What `to_litert` gave.
    threads : int
        For the interpreter.

    Returns
    -------
    callable
        From (N, h, w, 3) uint8 to (N, 5) float64.
    """
    with quiet_tensorflow():
        tf = import_extra("tensorflow", _WHAT, "train")
        interpreter = tf.lite.Interpreter(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]

    def run(pictures: Pixels) -> npt.NDArray[np.float64]:
        rows = []
        for picture in pictures:
            interpreter.set_tensor(source, picture[None].astype(np.float32))
            interpreter.invoke()
            rows.append(np.array(interpreter.get_tensor(target)[0], np.float64))
        return np.stack(rows)

    return run


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Hold back what TensorFlow, its native converter too, has to say."""
    names = ("tensorflow", "absl")
    levels = [logging.getLogger(name).level for name in names]
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(file.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
    finally:
        os.close(kept)
        for name, level in zip(names, levels, strict=True):
            logging.getLogger(name).setLevel(level)


class _Tracer:
    """Walks a graph and says the same to TensorFlow.

    Constants, and whatever is computed of them and of the (fixed) shapes alone, are NumPy arrays;
    all else are TensorFlow's tensors, as they are or in a `_Map`.
    """

    def __init__(self, tf: Any, graph: Graph) -> None:
        self.tf = tf
        self.graph = graph
        self.values: dict[str, Any] = dict(graph.constants)

    def run(self, pictures: Any) -> Any:
        """Give the output for an input."""
        self.values[self.graph.input] = pictures
        for node in self.graph.nodes:
            self.values[node.output[0]] = _OPERATORS[node.op_type](self, node)
        return self.plain(self.values[self.graph.output])

    def read(self, node: Any, place: int) -> Any:
        """Value of an input, None where it is left out."""
        present = len(node.input) > place and node.input[place]
        return self.values[node.input[place]] if present else None

    def option(self, node: Any, name: str, default: Any = None) -> Any:
        """Value of an attribute."""
        return self.graph.attribute(node, name, default)

    def map(self, value: Any) -> Any:
        """A value (N, C, h, w) as (N, h, w, C)."""
        if isinstance(value, _Map):
            return value.tensor
        return self.tf.transpose(value, _TO_NHWC)

    def plain(self, value: Any) -> Any:
        """A value in ONNX's own order of axes."""
        return self.tf.transpose(value.tensor, _TO_NCHW) if isinstance(value, _Map) else value

    def constant(self, node: Any, place: int) -> npt.NDArray[Any]:
        """An input that must be known beforehand."""
        value = self.read(node, place)
        if not isinstance(value, np.ndarray | np.generic):
            raise TrainingError(
                f"The network has a {node.op_type} whose settings depend on the picture, which "
                "LiteRT's export does not know. Export it to onnx."
            )
        return np.asarray(value)


def _rank(value: Any) -> int:
    return 4 if isinstance(value, _Map) else len(value.shape)


def _same(change: Callable[[Any, Any, Any], Any]) -> Callable[[_Tracer, Any], Any]:
    """An operator of one input that treats every number alike."""

    def apply(t: _Tracer, node: Any) -> Any:
        value = t.read(node, 0)
        if isinstance(value, _Map):
            return _Map(change(t, node, value.tensor))
        return change(t, node, value)

    return apply


def _pair(name: str) -> Callable[[_Tracer, Any], Any]:
    """An operator of two inputs that treats every number alike."""

    def apply(t: _Tracer, node: Any) -> Any:
        first, second = t.read(node, 0), t.read(node, 1)
        if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
            return getattr(np, name)(first, second)
        if not isinstance(first, _Map) and not isinstance(second, _Map):
            return getattr(t.tf, name)(first, second)
        return _Map(getattr(t.tf, name)(_beside(t, first), _beside(t, second)))

    return apply


def _beside(t: _Tracer, value: Any) -> Any:
    """What stands beside a map in a sum or product, in the map's order of axes."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        shaped = array.reshape((1,) * (4 - array.ndim) + array.shape)
        return shaped.transpose(_TO_NHWC)
    return t.map(value)


def _clip(t: _Tracer, node: Any, value: Any) -> Any:
    low = -np.inf if t.read(node, 1) is None else float(t.constant(node, 1).reshape(-1)[0])
    high = np.inf if t.read(node, 2) is None else float(t.constant(node, 2).reshape(-1)[0])
    if (low, high) == (0.0, 6.0):
        return t.tf.nn.relu6(value)
    return t.tf.clip_by_value(value, low, high)


def _conv(t: _Tracer, node: Any) -> Any:
    tf, value = t.tf, t.map(t.read(node, 0))
    weights = t.constant(node, 1)
    groups = int(t.option(node, "group", 1))
    channels = int(value.shape[3])
    strides = list(t.option(node, "strides", [1, 1]))
    dilations = list(t.option(node, "dilations", [1, 1]))
    value, padding = _padded(t, node, value, weights.shape[2:], strides, dilations, 0.0)
    if groups == channels and weights.shape[1] == 1:
        each = weights.shape[0] // groups
        kernel = weights.reshape(groups, each, *weights.shape[2:]).transpose(2, 3, 0, 1)
        steps = [1, *strides, 1]
        found = tf.nn.depthwise_conv2d(value, kernel, steps, padding, dilations=dilations)
    elif groups == 1:
        kernel = weights.transpose(2, 3, 1, 0)
        found = tf.nn.conv2d(value, kernel, strides, padding, dilations=dilations)
    else:
        raise TrainingError(
            f"The network has a convolution in {groups} groups of {weights.shape[1]} channels, "
            "which LiteRT's export does not know. Export it to onnx."
        )
    bias = t.read(node, 2)
    return _Map(found if bias is None else tf.nn.bias_add(found, np.asarray(bias)))


def _padded(
    t: _Tracer,
    node: Any,
    value: Any,
    kernel: tuple[int, ...],
    strides: list[int],
    dilations: list[int],
    fill: float,
) -> tuple[Any, str]:
    """Apply a node's paddings, or name TensorFlow's own where these are the same."""
    if t.option(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise TrainingError("The network pads in a way that depends on the picture's size.")
    top, left, bottom, right = t.option(node, "pads", [0, 0, 0, 0])
    if (top, left, bottom, right) == (0, 0, 0, 0):
        return value, "VALID"
    wanted = []
    for side, width, stride, dilation in zip(
        value.shape[1:3], kernel, strides, dilations, strict=True
    ):
        reach = (width - 1) * dilation + 1
        total = max((-(-int(side) // stride) - 1) * stride + reach - int(side), 0)
        wanted.append((total // 2, total - total // 2))
    if [(top, bottom), (left, right)] == wanted:
        return value, "SAME"
    frame = [[0, 0], [top, bottom], [left, right], [0, 0]]
    return t.tf.pad(value, frame, constant_values=fill), "VALID"


def _pool(t: _Tracer, node: Any) -> Any:
    tf, value = t.tf, t.map(t.read(node, 0))
    kernel = list(t.option(node, "kernel_shape"))
    strides = list(t.option(node, "strides", [1, 1]))
    if t.option(node, "ceil_mode", 0) or list(t.option(node, "dilations", [1, 1])) != [1, 1]:
        raise TrainingError("The network has a pooling with gaps or with a rounded-up size.")
    highest = node.op_type == "MaxPool"
    value, padding = _padded(t, node, value, tuple(kernel), strides, [1, 1], -np.inf)
    moved = any(t.option(node, "pads", [0, 0, 0, 0]))
    if not highest and moved and (padding != "SAME" or t.option(node, "count_include_pad", 0)):
        raise TrainingError("The network has a mean pooling with a frame, which is not known here.")
    pool = tf.nn.max_pool2d if highest else tf.nn.avg_pool2d
    return _Map(pool(value, kernel, strides, padding))


def _global_pool(t: _Tracer, node: Any) -> Any:
    reduce = t.tf.reduce_mean if node.op_type == "GlobalAveragePool" else t.tf.reduce_max
    return _Map(reduce(t.map(t.read(node, 0)), axis=[1, 2], keepdims=True))


def _reduce(t: _Tracer, node: Any) -> Any:
    value = t.read(node, 0)
    axes = t.option(node, "axes")
    if axes is None and t.read(node, 1) is not None:
        axes = t.constant(node, 1).tolist()
    reduce = t.tf.reduce_mean if node.op_type == "ReduceMean" else t.tf.reduce_max
    keep = bool(t.option(node, "keepdims", 1))
    axes = list(range(_rank(value))) if axes is None else [axis % _rank(value) for axis in axes]
    if isinstance(value, _Map) and keep:
        return _Map(reduce(value.tensor, axis=[_TO_NCHW[axis] for axis in axes], keepdims=True))
    if isinstance(value, _Map) and sorted(axes) == [2, 3]:
        return reduce(value.tensor, axis=[1, 2])
    return reduce(t.plain(value), axis=axes, keepdims=keep)


def _transpose(t: _Tracer, node: Any) -> Any:
    value = t.read(node, 0)
    order = list(t.option(node, "perm", range(_rank(value))[::-1]))
    if isinstance(value, _Map) and order == list(_TO_NHWC):
        return value.tensor
    if isinstance(value, np.ndarray):
        return value.transpose(order)
    if not isinstance(value, _Map) and order == list(_TO_NCHW):
        return _Map(value)
    return t.tf.transpose(t.plain(value), order)


def _pad(t: _Tracer, node: Any) -> Any:
    value, amounts = t.read(node, 0), t.constant(node, 1).astype(int)
    fill = 0.0 if t.read(node, 2) is None else float(t.constant(node, 2).reshape(-1)[0])
    half = len(amounts) // 2
    frame = [[int(a), int(b)] for a, b in zip(amounts[:half], amounts[half:], strict=True)]
    if t.option(node, "mode", b"constant") != b"constant" or min(map(min, frame)) < 0:
        raise TrainingError("The network pads other than with a constant, which is not known here.")
    if isinstance(value, _Map):
        turned = [frame[axis] for axis in _TO_NHWC]
        return _Map(t.tf.pad(value.tensor, turned, constant_values=fill))
    return t.tf.pad(value, frame, constant_values=fill)


def _shape(t: _Tracer, node: Any) -> Any:
    value = t.read(node, 0)
    if isinstance(value, _Map):
        return np.array([value.tensor.shape[axis] for axis in _TO_NCHW], np.int64)
    return np.array(value.shape, np.int64)


def _axes(t: _Tracer, node: Any) -> list[int]:
    axes = t.option(node, "axes")
    return list(t.constant(node, 1).tolist() if axes is None else axes)


def _squeeze(t: _Tracer, node: Any) -> Any:
    value, axes = t.read(node, 0), _axes(t, node)
    if isinstance(value, _Map) and sorted(axis % 4 for axis in axes) == [2, 3]:
        return t.tf.squeeze(value.tensor, [1, 2])
    if isinstance(value, np.ndarray):
        return np.squeeze(value, tuple(axes))
    return t.tf.squeeze(t.plain(value), axes)


def _unsqueeze(t: _Tracer, node: Any) -> Any:
    value, axes = t.plain(t.read(node, 0)), _axes(t, node)
    expand = np.expand_dims if isinstance(value, np.ndarray | np.generic) else t.tf.expand_dims
    rank = len(value.shape) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        value = expand(value, axis)
    return value


def _gather(t: _Tracer, node: Any) -> Any:
    value, where = t.plain(t.read(node, 0)), t.constant(node, 1)
    axis = int(t.option(node, "axis", 0))
    if isinstance(value, np.ndarray):
        return np.take(value, where, axis)
    return t.tf.gather(value, where, axis=axis)


def _slice(t: _Tracer, node: Any) -> Any:
    value = t.plain(t.read(node, 0))
    starts, ends = t.constant(node, 1), t.constant(node, 2)
    rank = len(value.shape)
    axes = t.constant(node, 3) if t.read(node, 3) is not None else np.arange(len(starts))
    steps = t.constant(node, 4) if t.read(node, 4) is not None else np.ones_like(starts)
    cuts = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        length = int(value.shape[int(axis)])
        cuts[int(axis)] = slice(*slice(int(start), int(end), int(step)).indices(length))
    return value[tuple(cuts)]


def _concat(t: _Tracer, node: Any) -> Any:
    values = [t.read(node, place) for place in range(len(node.input))]
    axis = int(t.option(node, "axis"))
    if all(isinstance(value, np.ndarray) for value in values):
        return np.concatenate(values, axis)
    if any(isinstance(value, _Map) for value in values):
        joined = t.tf.concat([_beside(t, value) for value in values], _TO_NCHW[axis % 4])
        return _Map(joined)
    return t.tf.concat(values, axis)


def _reshape(t: _Tracer, node: Any) -> Any:
    value, wanted = t.plain(t.read(node, 0)), t.constant(node, 1).astype(int).tolist()
    sides = [int(value.shape[place]) if side == 0 else side for place, side in enumerate(wanted)]
    reshape = np.reshape if isinstance(value, np.ndarray) else t.tf.reshape
    return reshape(value, sides)


def _flatten(t: _Tracer, node: Any) -> Any:
    value, axis = t.plain(t.read(node, 0)), int(t.option(node, "axis", 1))
    rows = int(np.prod([int(side) for side in value.shape[:axis]]))
    return t.tf.reshape(value, [rows, -1])


def _cast(t: _Tracer, node: Any) -> Any:
    value, kind = t.read(node, 0), int(t.option(node, "to"))
    known = {1: np.float32, 6: np.int32, 7: np.int64, 10: np.float16, 11: np.float64}
    if kind not in known:
        raise TrainingError("The network changes to a kind of number that is not known here.")
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value).astype(known[kind])
    if isinstance(value, _Map):
        return _Map(t.tf.cast(value.tensor, known[kind]))
    return t.tf.cast(value, known[kind])


def _matmul(t: _Tracer, node: Any) -> Any:
    return t.tf.linalg.matmul(t.plain(t.read(node, 0)), t.plain(t.read(node, 1)))


def _gemm(t: _Tracer, node: Any) -> Any:
    product = t.tf.linalg.matmul(
        t.plain(t.read(node, 0)),
        t.plain(t.read(node, 1)),
        transpose_a=bool(t.option(node, "transA", 0)),
        transpose_b=bool(t.option(node, "transB", 0)),
    )
    product = product * float(t.option(node, "alpha", 1.0))
    added = t.read(node, 2)
    return product if added is None else product + float(t.option(node, "beta", 1.0)) * added


def _softmax(t: _Tracer, node: Any) -> Any:
    value = t.plain(t.read(node, 0))
    return t.tf.nn.softmax(value, axis=int(t.option(node, "axis", -1)))


def _constant(t: _Tracer, node: Any) -> Any:
    value = t.option(node, "value")
    if value is None:
        raise TrainingError("The network has a constant of a kind that is not known here.")
    return np.asarray(import_extra("onnx").numpy_helper.to_array(value))


_OPERATORS: Final[dict[str, Callable[[_Tracer, Any], Any]]] = {
    "Add": _pair("add"),
    "AveragePool": _pool,
    "Cast": _cast,
    "Clip": _same(_clip),
    "Concat": _concat,
    "Constant": _constant,
    "Conv": _conv,
    "Div": _pair("divide"),
    "Elu": _same(lambda t, _, x: t.tf.nn.elu(x)),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "Identity": _same(lambda _, __, x: x),
    "LeakyRelu": _same(lambda t, n, x: t.tf.nn.leaky_relu(x, t.option(n, "alpha", 0.01))),
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mul": _pair("multiply"),
    "Pad": _pad,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "Relu": _same(lambda t, _, x: t.tf.nn.relu(x)),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _same(lambda t, _, x: t.tf.sigmoid(x)),
    "Slice": _slice,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _pair("subtract"),
    "Tanh": _same(lambda t, _, x: t.tf.tanh(x)),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
