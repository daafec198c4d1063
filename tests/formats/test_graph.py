"""Graphs made ready: the same answers, fewer nodes, half the bytes."""

from __future__ import annotations

import numpy as np
import pytest

from leuko.errors import BundleError

onnx = pytest.importorskip("onnx", reason="needs the extra 'export'")

from convnet import make_convnet  # noqa: E402
from leuko.formats.graph import clean_graph, open_session, to_float16  # noqa: E402
from tiny import SIDE, make_onnx  # noqa: E402


def pictures(count: int = 9, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.float32)


def answers(data: bytes, inputs: np.ndarray) -> np.ndarray:
    return np.asarray(open_session(data).run(None, {"pixels": inputs})[0])


def kinds(data: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(data).graph.node]


def test_normalisations_and_paddings_become_part_of_their_convolutions() -> None:
    data = make_convnet()
    cleaned = clean_graph(data).to_bytes()
    assert kinds(data).count("Pad") == 1
    assert kinds(cleaned) == [
        "Mul", "Add", "Transpose",
        "Conv", "Clip",
        "Conv", "Clip",  # the padding, product and sum are in it
        "Conv", "Add",
        "Conv", "Relu", "Conv",  # the normalisation behind the rectifier
        "GlobalAveragePool", "Squeeze", "MatMul", "Add", "Softmax",
    ]  # fmt: skip
    np.testing.assert_allclose(answers(cleaned, pictures()), answers(data, pictures()), atol=1e-5)
    graph = onnx.load_model_from_string(cleaned).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert all(len(node.input) == 3 for node in convolutions)
    assert list(onnx.helper.get_node_attr_value(convolutions[1], "pads")) == [0, 0, 1, 1]
    assert onnx.helper.get_node_attr_value(convolutions[4], "group") == 12


def test_a_padding_with_something_else_stays() -> None:
    model = onnx.load_model_from_string(make_convnet())
    pad = next(node for node in model.graph.node if node.op_type == "Pad")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(2.5), "filling"))
    pad.input.append("filling")
    data = model.SerializeToString()
    cleaned = clean_graph(data).to_bytes()
    assert kinds(cleaned).count("Pad") == 1
    np.testing.assert_allclose(answers(cleaned, pictures()), answers(data, pictures()), atol=1e-5)


def test_a_map_that_is_used_twice_keeps_its_normalisation() -> None:
    model = onnx.load_model_from_string(make_convnet())
    total = next(node for node in model.graph.node if node.output[0] == "sum")
    total.input[1] = "m2"  # the depthwise convolution's own output, beside its normalised one
    data = model.SerializeToString()
    cleaned = clean_graph(data).to_bytes()
    np.testing.assert_allclose(answers(cleaned, pictures()), answers(data, pictures()), atol=1e-5)


def test_equal_graphs_give_equal_bytes_under_our_names() -> None:
    once, again = (clean_graph(make_convnet()).to_bytes() for _ in range(2))
    assert once == again
    names = [item.name for item in onnx.load_model_from_string(once).graph.initializer]
    assert names == [f"w{number}" for number in range(len(names))]
    assert clean_graph(once).to_bytes() == once


def test_float16_halves_large_layers_only() -> None:
    data = make_convnet(width=70)  # 70 x 70 weights a pointwise convolution, 630 a depthwise one
    half = to_float16(data)
    arrays = {
        item.name: onnx.numpy_helper.to_array(item)
        for item in onnx.load_model_from_string(half).graph.initializer
    }
    assert [a.shape for a in arrays.values() if a.dtype == np.float16] == [(70, 70, 1, 1)] * 2
    assert len(half) < 0.7 * len(data)
    inputs = pictures()
    np.testing.assert_allclose(answers(half, inputs), answers(data, inputs), atol=5e-3)
    assert (answers(half, inputs) != answers(data, inputs)).any()
    assert to_float16(data) == half == to_float16(half)


def test_float16_is_refused_where_it_cannot_help() -> None:
    with pytest.raises(BundleError, match="float16 would save nothing"):
        to_float16(make_convnet())
    with pytest.raises(BundleError, match="float16 would save nothing"):
        to_float16(make_onnx())
    model = onnx.load_model_from_string(make_convnet(width=70))
    item = next(item for item in model.graph.initializer if item.name == "w3")
    weights = np.array(onnx.numpy_helper.to_array(item))
    weights[40, 40] = 70_000
    item.CopyFrom(onnx.numpy_helper.from_array(weights, "w3"))
    with pytest.raises(BundleError, match="float16 cannot hold"):
        to_float16(model.SerializeToString())


def test_bytes_that_are_no_graph() -> None:
    with pytest.raises(BundleError, match="not a well-formed ONNX file"):
        clean_graph(b"\xff" * 40)
    with pytest.raises(BundleError, match="cannot be opened"):
        open_session(b"\xff" * 40)
