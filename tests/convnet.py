"""A convolutional relative of `tiny`, with everything that an export has to deal with.

Three channels carry the mean colour through every layer unchanged, the others carry noise of a
seed; the head takes the class whose colour is nearest, as `tiny` does. On the way stand what
tf2onnx writes for MobileNetV2 and for the custom CNN: rescaled and transposed pixels, a padding of
its own, a depthwise convolution with its normalisation behind it, a sum of two maps, and a
normalisation behind an activation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from leuko.bundle import ModelBundle
from leuko.imaging.preprocess import PreprocessSpec
from leuko.runtime.classifier import make_goldens
from tiny import COLOURS, SIDE

WIDTH = 12
"""Channels; three of them carry the colour."""


def make_convnet(*, side: int = SIDE, width: int = WIDTH, seed: int = 0, fragile: bool = False,
                 scale: tuple[float, float] = (1 / 127.5, -1.0)) -> bytes:  # fmt: skip
    """The network as ONNX.

    With `fragile`, the last convolution adds 300 to the colours and takes it off again: eight
    bits cannot hold both.
    """
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(seed)
    constants: dict[str, np.ndarray] = {}
    nodes: list[Any] = []

    def constant(name: str, value: Any, dtype: Any = np.float32) -> str:
        constants[name] = np.asarray(value, dtype)
        return name

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    factor, offset = scale
    add("Mul", ["pixels", constant("factor", factor)], "scaled")
    add("Add", ["scaled", constant("offset", offset)], "shifted")
    add("Transpose", ["shifted"], "turned", perm=[0, 3, 1, 2])
    # Colours become 0 to 2 and stay above 0, so no rectifier touches them.
    first = rng.normal(0, 0.3, (width, 3, 3, 3))
    first[:3] = 0
    first[range(3), range(3), 1, 1] = 1
    bias = rng.normal(0, 0.2, width)
    bias[:3] = 1
    still = 4 if fragile else 3  # the fourth channel is 1 everywhere
    first[3:still], bias[3:still] = 0, 1
    add("Conv", ["turned", constant("w1", first), constant("b1", bias)], "m1",
        pads=[1, 1, 1, 1], strides=[1, 1], kernel_shape=[3, 3])  # fmt: skip
    add("Clip", ["m1", constant("low", 0), constant("high", 6)], "a1")
    add("Pad", ["a1", constant("frame", [0, 0, 0, 0, 0, 0, 1, 1], np.int64)], "padded")
    depth = rng.normal(0, 0.3, (width, 1, 3, 3))
    depth[:still] = 0
    depth[:still, 0, 1, 1] = 1
    gain = rng.uniform(0.5, 2, (1, width, 1, 1))
    depth /= gain.reshape(-1, 1, 1, 1)
    add("Conv", ["padded", constant("w2", depth)], "m2", group=width, strides=[2, 2],
        kernel_shape=[3, 3], pads=[0, 0, 0, 0])  # fmt: skip
    add("Mul", ["m2", constant("gain", gain)], "m2b")
    shift = rng.normal(0, 0.2, (1, width, 1, 1))
    shift[:, :still] = 0
    add("Add", ["m2b", constant("shift", shift)], "m2c")
    add("Clip", ["m2c", "low", "high"], "a2")
    third = rng.normal(0, 0.05, (width, width, 1, 1))
    third[:still], third[:, :still] = 0, 0
    third[range(3), range(3), 0, 0] = 0.3  # which float16 does not hold
    add("Conv", ["a2", constant("w3", third), constant("b3", np.zeros(width))], "m3",
        kernel_shape=[1, 1])  # fmt: skip
    add("Add", ["m3", "a2"], "sum")  # colours times 1.3
    fourth = rng.normal(0, 0.05, (width, width, 1, 1))
    fourth[:3], fourth[:, :3] = 0, 0
    fourth[range(3), range(3), 0, 0] = 1
    level = np.zeros(width)
    if fragile:
        fourth[:3, 3], level[:3] = 300, -300
    add("Conv", ["sum", constant("w4", fourth), constant("b4", level)], "m4",
        kernel_shape=[1, 1])  # fmt: skip
    add("Relu", ["m4"], "a4")
    after = rng.uniform(0.5, 1.5, (1, width, 1, 1))
    add("Mul", ["a4", constant("after", after)], "n1")
    move = rng.normal(0, 0.2, (1, width, 1, 1))
    add("Add", ["n1", constant("move", move)], "n2")
    add("GlobalAveragePool", ["n2"], "pooled")
    add("Squeeze", ["pooled", constant("axes", [2, 3], np.int64)], "flat")
    # (1.3 (factor x + offset + 1)) after + move = features: solve for x / 255.
    colours = COLOURS / 255
    per = 1.3 * factor * 255 * after.reshape(-1)[:3]
    head = np.zeros((width, 5))
    head[:3] = 80 * colours.T / per[:, None]
    zero = 1.3 * (offset + 1) * after.reshape(-1)[:3] + move.reshape(-1)[:3]
    rest = -40 * (colours**2).sum(axis=1) - zero @ head[:3]
    add("MatMul", ["flat", constant("head", head)], "product")
    add("Add", ["product", constant("rest", rest)], "logits")
    add("Softmax", ["logits"], "probabilities", axis=-1)
    graph = helper.make_graph(
        nodes,
        "convnet",
        [helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["N", side, side, 3])],
        [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def make_convnet_bundle(**settings: Any) -> ModelBundle:
    """The network in a bundle, as a training would have left it."""
    onnx, spec = make_convnet(**settings), PreprocessSpec((SIDE, SIDE))
    return ModelBundle(
        name="convnet",
        onnx=onnx,
        preprocess=spec,
        card="# Convnet\n\nTakes the nearest colour.\n",
        goldens=make_goldens(onnx, spec),
        parameters=1000,
        provenance={"recipe": {"name": "none"}, "seed": 0},
        validation={"metrics": {"accuracy": {"value": 0.99}}, "confusion": [[1] * 5] * 5},
    )
