"""A stranger's input and output turned into a bundle's, against arithmetic by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the extra 'train'")

import onnxruntime  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from foreign import SIDE, TAKE, answers_by_hand, foreign_model  # noqa: E402
from leuko.errors import BundleError  # noqa: E402
from leuko.runtime.network.wire import expose  # noqa: E402
from leuko.runtime.network.wrap import read_foreign, wrap_foreign  # noqa: E402

PIXELS = np.random.default_rng(3).integers(0, 256, (4, *SIDE, 3)).astype(np.float32)
PIXELS = np.clip(PIXELS * [[[[0.2]]], [[[0.5]]], [[[0.8]]], [[[1]]]], 0, 255).astype(np.float32)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCH = {
    "scale": [1 / 255 / deviation for deviation in DEVIATION],
    "offset": [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)],
}


def answer(data: bytes, pixels: np.ndarray = PIXELS) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probabilities"], {"pixels": pixels})[0])


def wrapped(model: Any, *, softmax: bool = True, **pixels: Any) -> bytes:
    network = read_foreign(model.SerializeToString(), 5)
    scale, offset = pixels.get("scale", (1.0,)), pixels.get("offset", (0.0,))
    return wrap_foreign(
        network,
        scale=scale,
        offset=offset,
        flip_channels=pixels.get("bgr", False),
        softmax=softmax,
        order=TAKE,
    )


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "pixels",
    [
        {"scale": [1.0]},
        {"scale": [1 / 255]},
        {"scale": [1 / 127.5], "offset": [-1.0]},
        TORCH,
        {"scale": [1.0], "offset": [-103.939, -116.779, -123.68], "bgr": True},
    ],
)
def test_answers_are_those_by_hand(layout: str, pixels: dict[str, Any]) -> None:
    data = wrapped(foreign_model(layout=layout, **pixels), **pixels)
    onnx.checker.check_model(data, full_check=True)
    np.testing.assert_allclose(answer(data), answers_by_hand(PIXELS), atol=2e-5)
    shown = expose(data, maps=False)
    assert shown.features is not None
    assert shown.weights is not None


def test_what_is_read_of_a_network() -> None:
    network = read_foreign(foreign_model().SerializeToString(), 5)
    assert (network.size, network.layout, network.parameters) == (SIDE, "NCHW", 20)
    assert (network.last, network.scale_inside, network.scales_pixels) == ("Gemm", 1.0, False)
    network = read_foreign(foreign_model(layout="NHWC", end="Softmax").SerializeToString(), 5)
    assert (network.size, network.layout, network.last) == (SIDE, "NHWC", "Softmax")


@pytest.mark.parametrize(
    ("kind", "constant", "inside", "scales"),
    [
        ("Mul", 1 / 255, 1 / 255, True),
        ("Div", 127.5, 1 / 127.5, True),
        ("Div", 0.225, 1 / 0.225, False),
        ("Sub", 100.0, 1.0, False),
    ],
)
def test_a_scale_inside_is_seen(kind: str, constant: float, inside: float, scales: bool) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node(kind, ["same", "c"], ["y"]),
    ]
    model = foreign_model(before=nodes, weights={"c": np.float32([constant])})
    network = read_foreign(model.SerializeToString(), 5)
    assert network.scale_inside == pytest.approx(inside, rel=1e-5)
    assert network.scales_pixels is scales


def test_names_of_a_bundle_that_are_taken_and_remarks_of_an_exporter() -> None:
    model = foreign_model(end="Softmax")
    text = model.SerializeToString()
    for old, new in ((b"mean", b"pixels"), (b"answer", b"scale"), (b"x", b"probabilities")):
        graph = onnx.load_model_from_string(text).graph
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.name = new.decode() if value.name == old.decode() else value.name
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [new.decode() if name == old.decode() else name for name in names]
        model.graph.CopyFrom(graph)
        text = model.SerializeToString()
    model.graph.node[0].doc_string = "train.py of somebody, line 7"
    model.producer_name = "pytorch of somebody"
    data = wrapped(model, softmax=False, scale=[1 / 255])
    np.testing.assert_allclose(answer(data), answers_by_hand(PIXELS), atol=2e-5)
    assert b"somebody" not in data


def test_a_fixed_batch_is_set_free() -> None:
    data = wrapped(foreign_model(batch=1), scale=[1 / 255])
    for count in (1, 4):
        received = answer(data, PIXELS[:count])
        np.testing.assert_allclose(received, answers_by_hand(PIXELS[:count]), atol=2e-5)


def changed(change: Any, **settings: Any) -> bytes:
    model = foreign_model(**settings)
    change(model)
    return bytes(model.SerializeToString())


def external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    tensor.ClearField("raw_data")


def not_a_number(model: Any) -> None:
    values = numpy_helper.to_array(model.graph.initializer[1]).copy()
    values[2] = np.nan
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(values, "b"))


def condition(model: Any) -> None:
    body = helper.make_graph([helper.make_node("Identity", ["x"], ["t"])], "g", [], [
        helper.make_tensor_value_info("t", TensorProto.FLOAT, None)])  # fmt: skip
    node = helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body)
    model.graph.node.append(node)


def shape(model: Any, place: str, *sides: Any) -> None:
    value = getattr(model.graph, place)[0]
    made = helper.make_tensor_value_info(value.name, TensorProto.FLOAT, sides)
    value.CopyFrom(made)


def second_input(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, [1]))


REFUSED = {
    "external": (external, "keeps weights outside its file"),
    "not finite": (not_a_number, "not a finite number"),
    "custom domain": (
        lambda m: m.graph.node.append(helper.make_node("Swish", ["x"], ["z"], domain="evil.ops")),
        "operator 'Swish' of 'evil.ops'",
    ),
    "runtime's own domain": (
        lambda m: m.graph.node.append(
            helper.make_node("FusedConv", ["x"], ["z"], domain="com.microsoft")
        ),
        "of 'com.microsoft', which is outside standard ONNX",
    ),
    "condition": (condition, r"a condition or a loop \('If'\)"),
    "function": (
        lambda m: m.functions.append(
            helper.make_function("own", "F", ["a"], ["c"],
                                 [helper.make_node("Identity", ["a"], ["c"])],
                                 [helper.make_opsetid("", 13)])),
        "functions or sparse weights of its own",
    ),
    "old operators": (
        lambda m: setattr(m.opset_import[0], "version", 6), "version 6 of ONNX's operators",
    ),
    "no operators": (lambda m: m.ClearField("opset_import"), "version 0"),
    "four answers": (lambda m: shape(m, "output", "N", 4), r"gives \(N, 4\); expected one output"),
    "maps": (lambda m: shape(m, "output", "N", 5, 7, 7), r"gives \(N, 5, 7, 7\)"),
    "two outputs": (
        lambda m: m.graph.output.append(helper.make_tensor_value_info("mean", 1, ["N", 3])),
        r"gives \(N, 5\), \(N, 3\); expected one",
    ),
    "grey": (lambda m: shape(m, "input", "N", 1, 64, 64), r"takes \(N, 1, 64, 64\); expected"),
    "flat": (lambda m: shape(m, "input", "N", 100), r"takes \(N, 100\); expected one input of col"),
    "any size": (lambda m: shape(m, "input", "N", 3, "h", "w"), "pictures of any size"),
    "large": (lambda m: shape(m, "input", "N", 3, 4096, 4096), "4096 x 4096 pixels"),
    "small": (lambda m: shape(m, "input", "N", 3, 8, 8), "8 x 8 pixels"),
    "two inputs": (second_input, r"takes \(N, 3, 20, 24\), \(1\)"),
    "half precision": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 10), "32-bit floats",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    change, sentence = REFUSED[name]
    with pytest.raises(BundleError, match=sentence) as caught:
        read_foreign(changed(change), 5)
    assert "\n" not in str(caught.value)


def test_mutated_files_give_one_sentence_and_nothing_else() -> None:
    data = foreign_model(end="Softmax").SerializeToString()
    rng = np.random.default_rng(11)
    outcomes: set[Any] = set()
    for _ in range(2000):
        mutated = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            mutated[place] = rng.integers(0, 256)
        try:
            network = read_foreign(bytes(mutated), 5)
            wrap_foreign(
                network, scale=[0.5], offset=[1], flip_channels=True, softmax=True, order=TAKE
            )
            outcomes.add("read")
        except BundleError as error:
            outcomes.add(str(error).count("\n"))
    assert outcomes == {"read", 0}
