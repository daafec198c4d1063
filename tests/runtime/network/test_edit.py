"""Another last layer, against graphs written by hand and the bundled model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest

from leuko.bundle import ModelBundle
from leuko.errors import BundleError
from leuko.runtime.network.edit import replace_head
from leuko.runtime.network.wire import check_tensors, expose
from leuko.runtime.zoo import zoo_models
from tiny import SIDE, make_onnx, make_pooled_onnx

onnx = pytest.importorskip("onnx", reason="needs the extra 'train'")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

RNG = np.random.default_rng(7)
WEIGHTS = RNG.normal(0, 0.05, (3, 5)).astype(np.float32)
BIAS = RNG.normal(0, 1, 5).astype(np.float32)
PIXELS = RNG.uniform(0, 255, (4, SIDE, SIDE, 3)).astype(np.float32)


def answer(data: bytes, pixels: np.ndarray = PIXELS) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: pixels})[0]


def expected(weights: np.ndarray = WEIGHTS, bias: np.ndarray = BIAS) -> np.ndarray:
    """What a network that averages its pixels answers."""
    logits = PIXELS.mean(axis=(1, 2)) @ weights + bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def with_tail(nodes: Sequence[Any], **tensors: np.ndarray) -> bytes:
    """The tiny network up to ``mean``, then other operations up to ``probabilities``."""
    model = onnx.load_model_from_string(make_onnx())
    first = model.graph.node[0]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend([first, *nodes])
    made = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    model.graph.initializer.extend(made)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


OLD = np.ones((3, 5), np.float32)
SOFTMAX = helper.make_node("Softmax", ["logits"], ["probabilities"])
TAILS = {
    "gemm": with_tail([helper.make_node("Gemm", ["mean", "w", "b"], ["logits"]), SOFTMAX],
                      w=OLD, b=BIAS * 0),
    "gemm, turned and scaled": with_tail(
        [helper.make_node("Gemm", ["mean", "w"], ["logits"], transB=1, alpha=3.0), SOFTMAX],
        w=OLD.T.copy()),
    "product without a bias": with_tail([helper.make_node("MatMul", ["mean", "w"], ["logits"]),
                                         SOFTMAX], w=OLD),
    "bias first, a constant": with_tail(
        [helper.make_node("Constant", [], ["b"], value=numpy_helper.from_array(BIAS * 0)),
         helper.make_node("MatMul", ["mean", "w"], ["product"]),
         helper.make_node("Add", ["b", "product"], ["logits"]), SOFTMAX], w=OLD),
    "tiny": make_onnx(),
    "pooled": make_pooled_onnx(),
}  # fmt: skip


@pytest.mark.parametrize("name", TAILS)
def test_the_new_layer_answers(name: str) -> None:
    before = TAILS[name]
    after = replace_head(before, WEIGHTS, BIAS)
    check_tensors(after)
    onnx.checker.check_model(after)
    np.testing.assert_allclose(answer(after), expected(), rtol=0, atol=2e-6)
    shown = expose(after, maps=False)
    assert shown.features is not None
    np.testing.assert_array_equal(shown.weights, WEIGHTS)
    np.testing.assert_array_equal(shown.bias, BIAS)
    graph = onnx.load_model_from_string(after).graph
    assert {tensor.name for tensor in graph.initializer} == {"leuko_weights", "leuko_bias"}
    assert len(graph.node) <= len(onnx.load_model_from_string(before).graph.node) + 1
    # Once more, on a graph that already has these names.
    twice = replace_head(after, 2 * WEIGHTS, -BIAS)
    np.testing.assert_allclose(answer(twice), expected(2 * WEIGHTS, -BIAS), rtol=0, atol=2e-6)
    assert len(onnx.load_model_from_string(twice).graph.initializer) == 2


def test_answers_in_another_order() -> None:
    order = np.array([3, 0, 4, 1, 2])
    nodes = [
        helper.make_node("MatMul", ["mean", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["odds"]),
        helper.make_node("Gather", ["odds", "order"], ["probabilities"], axis=1),
    ]
    data = with_tail(nodes, w=OLD, b=BIAS * 0, order=order)
    after = replace_head(data, WEIGHTS, BIAS)
    np.testing.assert_allclose(answer(after), expected(), rtol=0, atol=2e-6)
    np.testing.assert_array_equal(expose(after, maps=False).weights, WEIGHTS)


def test_weights_that_something_else_needs_stay() -> None:
    nodes = [
        helper.make_node("MatMul", ["mean", "w"], ["first"]),
        helper.make_node("MatMul", ["first", "square"], ["middle"]),
        helper.make_node("MatMul", ["middle", "w"], ["logits"]),
        SOFTMAX,
    ]
    data = with_tail(nodes, w=OLD, square=np.ones((5, 3), np.float32))
    names = {t.name for t in onnx.load_model_from_string(replace_head(data, WEIGHTS, BIAS))
             .graph.initializer}  # fmt: skip
    assert names == {"w", "square", "leuko_weights", "leuko_bias"}


def test_the_bundled_model() -> None:
    """The same numbers written again give the same answers; one pass less of rounding at most."""
    data = ModelBundle.load(zoo_models()["default"]).onnx
    shown = expose(data, maps=False)
    assert shown.weights is not None
    assert shown.bias is not None
    again = replace_head(data, shown.weights, shown.bias)
    shape = onnxruntime.InferenceSession(data).get_inputs()[0].shape[1:]
    pixels = np.random.default_rng(1).uniform(0, 255, (2, *shape)).astype(np.float32)
    np.testing.assert_allclose(answer(again, pixels), answer(data, pixels), rtol=0, atol=1e-6)
    assert abs(len(again) - len(data)) < 1000


def test_what_cannot_be_replaced() -> None:
    with pytest.raises(BundleError, match="not a softmax of one linear layer"):
        replace_head(make_onnx(softmax=False), WEIGHTS, BIAS)
    with pytest.raises(BundleError, match=r"weights \(3, 5\); received \(2, 5\)"):
        replace_head(make_onnx(), WEIGHTS[:2], BIAS)
    with pytest.raises(BundleError, match="not finite"):
        replace_head(make_onnx(), np.full((3, 5), np.nan), BIAS)
    with pytest.raises(BundleError, match="well-formed"):
        replace_head(b"\x08", WEIGHTS, BIAS)
