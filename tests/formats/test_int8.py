"""Eight bits: integers worked out by hand, biases put right, kernels that ONNX Runtime fuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from five import CLASSES
from leuko.bundle import ModelBundle
from leuko.errors import BundleError

onnx = pytest.importorskip("onnx", reason="needs the extra 'export'")

import onnxruntime  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402

from convnet import make_convnet  # noqa: E402
from leuko.formats.graph import open_session  # noqa: E402
from leuko.formats.int8 import _shift, quantize  # noqa: E402
from tiny import SIDE, make_onnx, paint  # noqa: E402


def painted(each: int, *, seed: int = 0) -> np.ndarray:
    return np.stack(
        [
            paint(name, seed=100 * seed + number, shape=(SIDE, SIDE))
            for name in CLASSES
            for number in range(each)
        ]
    )


def run(data: bytes, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(open_session(data).run(None, {"pixels": pixels.astype(np.float32)})[0])


def arrays(data: bytes) -> dict[str, np.ndarray]:
    graph = onnx.load_model_from_string(data).graph
    return {item.name: numpy_helper.to_array(item) for item in graph.initializer}


def one_convolution(weights: np.ndarray, bias: np.ndarray, *, factor: float, offset: float,
                    pad: int = 0) -> bytes:  # fmt: skip
    """Pixels, rescaled, through one convolution, averaged and cut to five softmaxed channels."""
    nodes = [
        helper.make_node("Mul", ["pixels", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["shifted"]),
        helper.make_node("Transpose", ["shifted"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["turned", "w", "b"], ["map"], pads=[pad] * 4),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Softmax", ["flat"], ["probabilities"]),
    ]
    constants = {"factor": factor, "offset": offset, "w": weights, "b": bias}
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("pixels", 1, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("probabilities", 1, ["N", len(bias)])],
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def test_shift_by_hand() -> None:
    error = np.array([[[[0.5, 0.5]], [[1.0, 0.0]]], [[[0.0, 0.0]], [[0.0, -2.0]]]])
    # 2 outputs, 2 inputs: (0.5 + 0.5) 3 + 1 * 10 and -2 * 10.
    np.testing.assert_allclose(_shift(error, np.array([3.0, 10.0])), [13.0, -20.0])
    depthwise = np.array([[[[0.25]]], [[[1.0]]], [[[2.0]]], [[[4.0]]]])
    np.testing.assert_allclose(_shift(depthwise, np.array([1.0, 2.0, 3.0, 4.0])), [0.25, 2, 6, 16])
    # Two groups of two outputs each read one input of their own.
    np.testing.assert_allclose(_shift(depthwise, np.array([10.0, 100.0])), [2.5, 10, 200, 400])


def test_one_convolution_is_what_integers_give() -> None:
    rng = np.random.default_rng(5)
    weights, bias = rng.normal(0, 0.02, (5, 3, 1, 1)), rng.normal(0, 0.5, 5)
    pixels = painted(3)
    data = quantize(one_convolution(weights, bias, factor=1 / 255, offset=0.0), pixels)
    w32 = weights.astype(np.float32).astype(np.float64)
    scale = np.abs(w32).reshape(5, -1).max(axis=1) / 63
    levels = np.rint(w32 / scale[:, None, None, None])
    mean = pixels.reshape(-1, 3).mean(axis=0) / 255
    step = scale / 255
    error = (levels * scale[:, None, None, None] - w32)[:, :, 0, 0]
    stored = np.rint((bias.astype(np.float32) - error @ mean) / step)
    sums = pixels.astype(np.int64) @ levels[:, :, 0, 0].T.astype(np.int64) + stored.astype(np.int64)
    real = sums * step
    flat = pixels.astype(np.float64) / 255 @ w32[:, :, 0, 0].T + bias.astype(np.float32)
    low, high = min(flat.min(), 0), max(flat.max(), 0)
    out = (high - low) / 255
    zero = np.rint(-low / out)
    rounded = (np.clip(np.rint(real / out) + zero, 0, 255) - zero) * out
    pooled = rounded.mean(axis=(1, 2))
    expected = np.exp(pooled) / np.exp(pooled).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run(data, pixels), expected, atol=2e-4)


def test_pixels_are_read_as_the_whole_numbers_that_they_are() -> None:
    """With [-1, 1], half a level would be lost at every pixel if it were rounded as it comes."""
    rng = np.random.default_rng(6)
    weights, bias = rng.normal(0, 0.4, (5, 3, 3, 3)), rng.normal(0, 0.5, 5)
    data = one_convolution(weights, bias, factor=1 / 127.5, offset=-1.0)
    made = quantize(data, painted(3))
    names = [node.op_type for node in onnx.load_model_from_string(made).graph.node]
    assert names[:3] == ["QuantizeLinear", "Transpose", "DequantizeLinear"]
    assert "Mul" not in names
    first = onnx.load_model_from_string(made).graph.node[0]
    step, zero = (arrays(made)[name] for name in first.input[1:])
    assert (float(step), int(zero), zero.dtype) == (1.0, 0, np.uint8)
    np.testing.assert_allclose(run(made, painted(4, seed=1)), run(data, painted(4, seed=1)),
                               atol=0.02)  # fmt: skip


@pytest.mark.parametrize("scale", [(1 / 127.5, -1.0), (1 / 255, 0.0), (1 / 127.5, -0.3)])
def test_the_network_answers_as_before(scale: tuple[float, float]) -> None:
    data = make_convnet(scale=scale)
    made = quantize(data, painted(4))
    pixels = painted(40, seed=2)
    before, after = run(data, pixels), run(made, pixels)
    assert (before.argmax(axis=1) == np.repeat(np.arange(5), 40)).all()
    assert (after.argmax(axis=1) == before.argmax(axis=1)).mean() >= 0.995
    assert np.abs(after - before).mean() < 0.02
    assert quantize(data, painted(4)) == made


def test_weights_fit_seven_bits_and_onnx_runtime_fuses_every_convolution(tmp_path: Path) -> None:
    made = quantize(make_convnet(), painted(4))
    levels = [a for a in arrays(made).values() if a.dtype == np.int8 and a.ndim == 4]
    assert len(levels) == 5
    assert max(np.abs(a.astype(int)).max() for a in levels) == 63
    assert {node.domain for node in onnx.load_model_from_string(made).graph.node} == {""}
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    fused = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert fused.count("QLinearConv") == 5
    assert fused.count("QLinearAdd") == 1
    assert "Conv" not in fused
    assert "FusedConv" not in fused


def test_dead_channels_and_large_biases_do_not_overflow() -> None:
    rng = np.random.default_rng(9)
    weights = rng.normal(0, 0.5, (5, 3, 1, 1))
    weights[0], weights[1] = 0, 1e-20
    bias = np.array([50.0, -50.0, 0.0, 1.0, 1e4])
    data = one_convolution(weights, bias, factor=1 / 255, offset=0.0)
    made = quantize(data, painted(2))
    assert all(np.isfinite(a).all() for a in arrays(made).values() if a.dtype == np.float32)
    stored = [a for a in arrays(made).values() if a.dtype == np.int32 and a.any()]
    assert max(np.abs(a.astype(np.int64)).max() for a in stored) < 2**31 - 1
    assert run(made, painted(2)).argmax(axis=1).tolist() == [4] * 10


def test_what_cannot_be_rounded_is_refused() -> None:
    with pytest.raises(BundleError, match="no convolution"):
        quantize(make_onnx(), painted(1))
    weights = np.full((5, 3, 1, 1), 3e38)
    data = one_convolution(weights, np.zeros(5), factor=1.0, offset=0.0)
    with pytest.raises(BundleError, match="not finite"):
        quantize(data, painted(1))


@pytest.mark.parametrize("kind", ["int8", "float16"])
def test_the_runtime_opens_it_and_still_refuses_what_is_no_number(
    kind: str, tiny_bundle: ModelBundle
) -> None:
    from dataclasses import replace

    from leuko.formats.graph import to_float16
    from leuko.runtime.classifier import OnnxClassifier, make_goldens

    source = make_convnet(width=70)
    made = quantize(source, painted(2)) if kind == "int8" else to_float16(source)
    goldens = make_goldens(made, tiny_bundle.preprocess)
    bundle = replace(tiny_bundle, onnx=made, goldens=goldens)
    answers = OnnxClassifier(bundle).predict_views(painted(2))
    assert answers.argmax(axis=1).tolist() == np.repeat(np.arange(5), 2).tolist()

    def spoil(item: Any) -> bool:
        values = np.array(numpy_helper.to_array(item))
        wanted = np.float32 if kind == "int8" else np.float16
        if values.dtype != wanted or values.size < 5:
            return False
        values.reshape(-1)[3] = np.nan
        item.CopyFrom(numpy_helper.from_array(values, item.name))
        return True

    model = onnx.load_model_from_string(made)
    assert any(spoil(item) for item in model.graph.initializer)
    with pytest.raises(BundleError, match="not a finite number"):
        OnnxClassifier(replace(bundle, onnx=model.SerializeToString()))


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (onnx.TensorProto.FLOAT16, [1.0, np.nan, 2.0], "not a finite number"),
        (onnx.TensorProto.FLOAT16, [1.0, np.inf, -2.0], ""),
        (onnx.TensorProto.DOUBLE, [1.0, np.nan], "not a finite number"),
        (onnx.TensorProto.DOUBLE, [1.0, -np.inf], ""),
        (onnx.TensorProto.INT8, [1, -128, 127], ""),
        (onnx.TensorProto.INT32, [0x7E00, -1], ""),  # a half's not-a-number, as a whole number
        (onnx.TensorProto.UINT8, [0, 255], ""),
        (onnx.TensorProto.BFLOAT16, [1.0, 2.0], "ONNX's kind 16, which is refused"),
        (onnx.TensorProto.FLOAT8E4M3FN, [1.0, 2.0], "ONNX's kind 17, which is refused"),
    ],
)
@pytest.mark.parametrize("raw", [False, True])
def test_every_way_to_write_a_number_is_looked_through(
    kind: int, values: list[float], message: str, raw: bool
) -> None:
    from leuko.runtime.network.wire import check_tensors

    types = {
        onnx.TensorProto.FLOAT16: np.float16,
        onnx.TensorProto.DOUBLE: np.float64,
        onnx.TensorProto.INT8: np.int8,
        onnx.TensorProto.INT32: np.int32,
        onnx.TensorProto.UINT8: np.uint8,
        # NumPy has no such kinds: any bits of their width.
        onnx.TensorProto.BFLOAT16: np.uint16,
        onnx.TensorProto.FLOAT8E4M3FN: np.uint8,
    }
    data = np.array(values, types[kind]).tobytes() if raw else values
    model = onnx.load_model_from_string(make_onnx())
    tensor = helper.make_tensor("extra", kind, [len(values)], data, raw=raw)
    assert tensor.HasField("raw_data") == raw
    if kind == onnx.TensorProto.FLOAT16 and not raw:
        message = "16-bit floats as whole numbers"
    model.graph.initializer.append(tensor)
    if message:
        with pytest.raises(BundleError, match=message):
            check_tensors(model.SerializeToString())
    else:
        check_tensors(model.SerializeToString())
