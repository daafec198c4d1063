"""What a graph gives beside its answer, against graphs written by hand and the bundled model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest

from leuko.bundle import ModelBundle
from leuko.errors import BundleError
from leuko.runtime.network.wire import Exposed, check_tensors, expose
from leuko.runtime.zoo import zoo_models
from tiny import COLOURS, make_onnx

onnx = pytest.importorskip("onnx", reason="needs the extra 'train'")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

SIDE, WIDTH = 6, 7
RNG = np.random.default_rng(3)
KERNEL = RNG.normal(0, 0.01, (WIDTH, 3, 3, 3)).astype(np.float32)
MATRIX = RNG.normal(0, 1, (WIDTH, 5)).astype(np.float32)
BIAS = RNG.normal(0, 1, 5).astype(np.float32)
CLOSE = {"rtol": 0, "atol": 1e-6}


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    """One operation; inputs are separated by spaces."""
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def build(
    tail: Sequence[Any], *, opset: int = 17, extra: dict[str, np.ndarray] | None = None
) -> bytes:
    """Pixels, a transpose, a convolution called ``maps``, then `tail` up to ``probabilities``."""
    tensors = {"kernel": KERNEL, "matrix": MATRIX, "bias": BIAS, **(extra or {})}
    nodes = [
        node("Transpose", "pixels", "first", perm=[0, 3, 1, 2]),
        node("Conv", "first kernel", "maps", pads=[1, 1, 1, 1]),
        *tail,
    ]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("pixels", 1, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("probabilities", 1, ["N", 5])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def run(data: bytes, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs by name, with the loader's own optimisations."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: pixels})))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows that sum to one."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def check_head(data: bytes, *, maps: bool) -> Exposed:
    """Everything that is promised of a graph whose last layer is linear."""
    pixels = np.random.default_rng(4).uniform(0, 255, (3, SIDE, SIDE, 3)).astype(np.float32)
    exposed = expose(data, maps=True)
    check_tensors(exposed.onnx)
    onnx.checker.check_model(exposed.onnx)
    before, after = run(data, pixels), run(exposed.onnx, pixels)
    assert next(iter(after)) == "probabilities"
    np.testing.assert_allclose(after["probabilities"], before["probabilities"], **CLOSE)
    features = after[str(exposed.features)]
    assert (features.ndim, features.dtype) == (2, np.float32)
    assert exposed.weights is not None
    assert exposed.bias is not None
    logits = features @ exposed.weights + exposed.bias
    np.testing.assert_allclose(softmax(logits), after["probabilities"], **CLOSE)
    assert (exposed.maps is not None) == maps
    if exposed.maps is not None:
        maps_out = after[exposed.maps]
        axes = (2, 3) if exposed.layout == "NCHW" else (1, 2)
        np.testing.assert_allclose(maps_out.mean(axis=axes), features, rtol=0, atol=1e-4)
    return exposed


POOL = node("GlobalAveragePool", "maps", "pooled")
LAST = [
    node("MatMul", "flat matrix", "product"),
    node("Add", "product bias", "logits"),
    node("Softmax", "logits", "probabilities"),
]
AXES = np.array([2, 3])

WITH_MAPS = {
    "squeeze": ([POOL, node("Squeeze", "pooled axes", "flat"), *LAST], {"axes": AXES}),
    "flatten": ([POOL, node("Flatten", "pooled", "flat"), *LAST], {}),
    "reshape": (
        [POOL, node("Reshape", "pooled shape", "flat"), *LAST],
        {"shape": np.array([-1, WIDTH])},
    ),
    "transpose, then squeeze": (
        [
            POOL,
            node("Transpose", "pooled", "turned", perm=[0, 2, 3, 1]),
            node("Squeeze", "turned axes", "flat"),
            *LAST,
        ],
        {"axes": np.array([1, 2])},
    ),
    "mean, rows and columns last": (
        [node("ReduceMean", "maps", "flat", axes=[2, 3], keepdims=0), *LAST],
        {},
    ),
    "mean, counted from the end": (
        [
            node("ReduceMean", "maps", "pooled", axes=[-1, -2], keepdims=1),
            node("Flatten", "pooled", "flat"),
            *LAST,
        ],
        {},
    ),
    "mean, channels last": (
        [
            node("Transpose", "maps", "turned", perm=[0, 2, 3, 1]),
            node("ReduceMean", "turned", "flat", axes=[1, 2], keepdims=0),
            *LAST,
        ],
        {},
    ),
    "bias first": (
        [
            node("ReduceMean", "maps", "flat", axes=[2, 3], keepdims=0),
            LAST[0],
            node("Add", "bias product", "logits"),
            LAST[2],
        ],
        {},
    ),
    "no bias": (
        [
            node("ReduceMean", "maps", "flat", axes=[2, 3], keepdims=0),
            LAST[0],
            node("Softmax", "product", "probabilities"),
        ],
        {},
    ),
    "Gemm": (
        [
            POOL,
            node("Flatten", "pooled", "flat"),
            node("Gemm", "flat matrix bias", "logits", alpha=0.5, beta=2.0),
            LAST[2],
        ],
        {},
    ),
    "Gemm, turned": (
        [
            POOL,
            node("Flatten", "pooled", "flat"),
            node("Gemm", "flat turned bias", "logits", transB=1),
            LAST[2],
        ],
        {"turned": np.ascontiguousarray(MATRIX.T)},
    ),
    "weights as a constant": (
        [
            POOL,
            node("Flatten", "pooled", "flat"),
            helper.make_node(
                "Constant", [], ["constant"], value=numpy_helper.from_array(MATRIX, "c")
            ),
            node("Identity", "constant", "again"),
            node("MatMul", "flat again", "product"),
            *LAST[1:],
        ],
        {},
    ),
    "half floats": (
        [
            POOL,
            node("Flatten", "pooled", "wide"),
            node("Cast", "wide", "flat", to=10),
            node("MatMul", "flat half", "product"),
            node("Add", "product half_bias", "halves"),
            node("Cast", "halves", "logits", to=1),
            LAST[2],
        ],
        # Powers of two: the halves' rounding is the same wherever it happens.
        {
            "half": np.round(MATRIX).astype(np.float16),
            "half_bias": np.round(BIAS).astype(np.float16),
        },
    ),
    "whole numbers with scales": (
        [
            POOL,
            node("Flatten", "pooled", "flat"),
            node("DequantizeLinear", "small scale zero", "matrix2", axis=1),
            node("MatMul", "flat matrix2", "product"),
            *LAST[1:],
        ],
        {
            "small": RNG.integers(-127, 128, (WIDTH, 5)).astype(np.int8),
            "scale": np.array([0.01, 0.02, 0.03, 0.04, 0.05], np.float32),
            "zero": np.array([0, 1, 2, 3, 4], np.int8),
        },
    ),
    "answers put into another order": (
        [
            POOL,
            node("Flatten", "pooled", "flat"),
            *LAST[:2],
            node("Softmax", "logits", "unordered"),
            node("Gather", "unordered order", "probabilities", axis=-1),
        ],
        {"order": np.array([3, 0, 4, 1, 2])},
    ),
}


ROUNDED = ("half floats", "whole numbers with scales")
"""Whose answers the runtime rounds in its own way."""


@pytest.mark.parametrize("name", [name for name in WITH_MAPS if name not in ROUNDED])
def test_pooled_and_linear(name: str) -> None:
    tail, extra = WITH_MAPS[name]
    exposed = check_head(build(tail, extra=extra), maps=True)
    assert exposed.layout == ("NHWC" if name == "mean, channels last" else "NCHW")


def test_half_floats_come_out_as_floats() -> None:
    tail, extra = WITH_MAPS["half floats"]
    data = build(tail, extra=extra)
    pixels = np.random.default_rng(4).uniform(0, 255, (3, SIDE, SIDE, 3)).astype(np.float32)
    exposed = expose(data, maps=True)
    after = run(exposed.onnx, pixels)
    assert after["leuko_features"].dtype == after["leuko_maps"].dtype == np.float32
    np.testing.assert_array_equal(exposed.weights, np.round(MATRIX))
    np.testing.assert_array_equal(after["probabilities"], run(data, pixels)["probabilities"])


def test_whole_numbers_are_scaled_back() -> None:
    tail, extra = WITH_MAPS["whole numbers with scales"]
    data = build(tail, extra=extra)
    exposed = expose(data, maps=True)
    wanted = (extra["small"].astype(np.float32) - extra["zero"]) * extra["scale"]
    assert exposed.weights is not None
    np.testing.assert_allclose(exposed.weights, wanted, rtol=1e-6)
    assert exposed.maps == "leuko_maps"
    pixels = np.random.default_rng(4).uniform(0, 255, (3, SIDE, SIDE, 3)).astype(np.float32)
    answers = [run(one, pixels)["probabilities"] for one in (data, exposed.onnx)]
    np.testing.assert_allclose(*answers, **CLOSE)


def test_the_mean_of_newer_operators() -> None:
    tail = [node("ReduceMean", "maps axes", "flat", keepdims=0), *LAST]
    check_head(build(tail, opset=18, extra={"axes": AXES}), maps=True)


def test_a_hidden_layer_has_features_and_no_maps() -> None:
    tail = [
        POOL,
        node("Flatten", "pooled", "wide"),
        node("MatMul", "wide hidden", "hidden1"),
        node("Relu", "hidden1", "flat"),
        *LAST,
    ]
    hidden = np.random.default_rng(5).normal(0, 1, (WIDTH, WIDTH)).astype(np.float32)
    exposed = check_head(build(tail, extra={"hidden": hidden}), maps=False)
    assert exposed.weights is not None
    np.testing.assert_array_equal(exposed.weights, MATRIX)


def test_a_flattened_network_has_features_and_no_maps() -> None:
    wide = np.random.default_rng(6).normal(0, 0.1, (WIDTH * SIDE * SIDE, 5)).astype(np.float32)
    tail = [node("Flatten", "maps", "flat"), node("MatMul", "flat wide", "product"), *LAST[1:]]
    exposed = check_head(build(tail, extra={"wide": wide}), maps=False)
    assert exposed.weights is not None
    assert exposed.weights.shape == (WIDTH * SIDE * SIDE, 5)


def test_a_mean_over_other_axes_is_no_pooling() -> None:
    tail = [
        node("ReduceMean", "maps", "less", axes=[1], keepdims=0),
        node("Reshape", "less shape", "flat"),
        node("MatMul", "flat wide", "product"),
        *LAST[1:],
    ]
    extra = {"shape": np.array([-1, 36]), "wide": np.ones((36, 5), np.float32)}
    check_head(build(tail, extra=extra), maps=False)


def test_what_is_not_linear_before_a_softmax_has_nothing() -> None:
    flat = [POOL, node("Flatten", "pooled", "flat")]
    sigmoid = build([*flat, *LAST[:2], node("Sigmoid", "logits", "probabilities")])
    computed = build([
        *flat,
        node("Abs", "matrix", "computed"),
        node("MatMul", "flat computed", "product"),
        *LAST[1:],
    ])  # fmt: skip
    exposed = expose(sigmoid, maps=True)
    assert (exposed.onnx, exposed.features, exposed.weights) == (sigmoid, None, None)
    # Weights that are computed: what enters is still known, what it is weighed with is not.
    exposed = expose(computed, maps=True)
    assert (exposed.features, exposed.maps, exposed.weights) == ("leuko_features", None, None)


def test_only_what_was_asked_for() -> None:
    data = build(WITH_MAPS["squeeze"][0], extra=WITH_MAPS["squeeze"][1])
    one = expose(data, maps=False)
    assert (one.features, one.maps) == ("leuko_features", None)
    assert one.onnx[: len(data)] == data


def test_names_that_are_taken() -> None:
    tail = [POOL, node("Flatten", "pooled", "leuko_features"), *LAST]
    tail[2] = node("MatMul", "leuko_features matrix", "product")
    exposed = check_head(build(tail), maps=True)
    assert exposed.features == "leuko_features_"
    # A second helping of a graph that was exposed already.
    again = expose(exposed.onnx, maps=True)
    assert (again.features, again.maps) == ("leuko_features__", "leuko_maps_")
    onnx.checker.check_model(again.onnx)


def test_a_graph_written_in_two_pieces() -> None:
    """Protobuf merges them, so the search must too."""
    whole = onnx.load_model_from_string(build(WITH_MAPS["flatten"][0]))
    rest = onnx.ModelProto()
    rest.graph.node.extend(whole.graph.node[3:])
    del whole.graph.node[3:]
    data = whole.SerializeToString() + rest.SerializeToString()
    check_head(data, maps=True)


def test_tensors_in_every_spelling() -> None:
    """Raw bytes, typed lists, one number at a time: the same weights."""
    model = onnx.load_model_from_string(build(WITH_MAPS["flatten"][0]))
    place = [tensor.name for tensor in model.graph.initializer].index("matrix")
    for kind, dtype in ((1, np.float32), (10, np.float16), (11, np.float64)):
        values = MATRIX.astype(dtype)
        written = values.view(np.uint16) if kind == 10 else values
        tensor = helper.make_tensor("matrix", kind, MATRIX.shape, written.ravel().tolist())
        if kind == 10:
            tensor.ClearField("raw_data")
            tensor.ClearField("int32_data")
            tensor.int32_data.extend(written.ravel().tolist())
        assert not tensor.raw_data
        model.graph.initializer[place].CopyFrom(tensor)
        exposed = expose(model.SerializeToString(), maps=False)
        assert exposed.weights is not None
        np.testing.assert_array_equal(exposed.weights, values.astype(np.float32))


def test_the_tiny_network_has_a_last_layer() -> None:
    exposed = expose(make_onnx(), maps=True)
    # Its maps would be its pixels, which are an input and no output.
    assert (exposed.features, exposed.maps) == ("leuko_features", None)
    assert exposed.weights is not None
    np.testing.assert_allclose(exposed.weights, 80 * COLOURS.T / 255 / 255, rtol=1e-6)


def test_the_bundled_model_gives_its_maps_and_the_same_answers() -> None:
    bundle = ModelBundle.load(zoo_models()["default"])
    exposed = expose(bundle.onnx, maps=True)
    rng = np.random.default_rng(8)
    pixels = rng.uniform(0, 255, (2, *bundle.preprocess.size, 3)).astype(np.float32)
    before, after = run(bundle.onnx, pixels), run(exposed.onnx, pixels)
    np.testing.assert_allclose(after["probabilities"], before["probabilities"], **CLOSE)
    assert (exposed.layout, after[str(exposed.maps)].shape) == ("NCHW", (2, 1280, 4, 4))
    assert exposed.weights is not None
    assert exposed.bias is not None
    logits = after[str(exposed.maps)].mean(axis=(2, 3)) @ exposed.weights + exposed.bias
    np.testing.assert_allclose(softmax(logits), after["probabilities"], **CLOSE)


def test_damaged_bytes_are_an_error_with_a_name() -> None:
    tail, extra = WITH_MAPS["whole numbers with scales"]
    data = build(tail, extra=extra)
    rng = np.random.default_rng(9)
    outcomes = {"error": 0, "head": 0, "none": 0}
    for _ in range(1500):
        mutated = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            mutated[place] = rng.integers(0, 256)
        if rng.random() < 0.2:
            del mutated[rng.integers(0, len(mutated)) :]
        try:
            exposed = expose(bytes(mutated), maps=True)
        except BundleError:
            outcomes["error"] += 1
        else:
            outcomes["head" if exposed.features else "none"] += 1
    assert min(outcomes.values()) > 50, outcomes


@pytest.mark.parametrize("data", [b"\x0b", b"\x3a\x05\x0a", b"\x3a\xff\xff\xff\xff\x0f", b"x"])
def test_bytes_that_are_no_model(data: bytes) -> None:
    with pytest.raises(BundleError, match="not a well-formed ONNX file"):
        expose(data, maps=True)


def test_an_empty_model_has_nothing() -> None:
    exposed = expose(b"", maps=True)
    assert (exposed.onnx, exposed.features, exposed.maps) == (b"", None, None)


def test_a_circle_of_operations_ends() -> None:
    nodes = [node("Identity", "b", "a"), node("Identity", "a", "b")]
    graph = helper.make_graph(
        nodes, "circle", [], [helper.make_tensor_value_info("a", 1, ["N", 5])]
    )
    data = helper.make_model(graph).SerializeToString()
    assert expose(data, maps=True).features is None


def test_numbers_beyond_all_sense() -> None:
    """Axes of 2^63, weights that overflow as 32-bit floats, indices past the end."""
    model = onnx.load_model_from_string(build(WITH_MAPS["flatten"][0]))
    place = [tensor.name for tensor in model.graph.initializer].index("matrix")
    model.graph.initializer[place].CopyFrom(
        numpy_helper.from_array(np.full((WIDTH, 5), 1e300), "matrix")
    )
    exposed = expose(model.SerializeToString(), maps=True)
    assert (exposed.weights, exposed.maps) == (None, None)
    model.graph.initializer[place].dims[:] = [2**62, 2**62]
    assert expose(model.SerializeToString(), maps=True).weights is None
    tail, extra = WITH_MAPS["answers put into another order"]
    data = build(tail, extra={**extra, "order": np.array([3, 0, 5, 1, 2])})
    assert expose(data, maps=True).features is None
