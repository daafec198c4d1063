"""A foreign network made by hand, as PyTorch and others write theirs.

It is the tiny network's rule (see `tiny`) on pixels of its own: the mean colour, whatever scale,
offset, order of channels and layout it wants them in, nearest to one of five colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tiny import COLOURS

SIDE = (20, 24)
ORDER = ("neut", "EOS", "monocytes", "LYMPH", "basophil")
# Where each of Basophil, Eosinophil, Lymphocyte, Monocyte, Neutrophil stands in ORDER.
TAKE = [4, 1, 3, 2, 0]


def foreign_model(
    *,
    scale: Sequence[float] = (1 / 255,),
    offset: Sequence[float] = (0.0,),
    bgr: bool = False,
    layout: str = "NCHW",
    batch: int | str = "batch",
    end: str = "",
    before: Sequence[Any] = (),
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 13,
) -> Any:
    """The model; `before` are operations from ``x`` to ``y`` on its pixels, `end` its last one."""
    scales, offsets = (np.resize(values, 3).astype(float) for values in (scale, offset))
    order = [2, 1, 0] if bgr else [0, 1, 2]
    colours = (COLOURS / 255)[np.argsort(TAKE)][:, order]
    # logit = 40 (2 m.c - c.c) for the mean m = (pixel - offset) / scale / 255
    matrix = 80 * colours.T / scales[:, None] / 255
    bias = -40 * (colours**2).sum(axis=1) - (offsets / scales / 255) @ (80 * colours.T)
    axes = [2, 3] if layout == "NCHW" else [1, 2]
    rows, columns = SIDE
    shape = [batch, 3, rows, columns] if layout == "NCHW" else [batch, rows, columns, 3]
    nodes = [
        *before,
        helper.make_node("ReduceMean", ["y" if before else "x"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("Gemm", ["mean", "w", "b"], ["logits" if end else "answer"]),
    ]
    if end:
        nodes.append(helper.make_node(end, ["logits"], ["answer"]))
    tensors = {"w": matrix.astype(np.float32), "b": bias.astype(np.float32), **(weights or {})}
    graph = helper.make_graph(
        nodes,
        "somebody's",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def answers_by_hand(pixels: np.ndarray) -> np.ndarray:
    """Probabilities in class order of RGB 0-255, (N, h, w, 3)."""
    mean, colours = pixels.astype(float).mean(axis=(1, 2)) / 255, COLOURS / 255
    logits = 40 * (2 * mean @ colours.T - (colours**2).sum(axis=1))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))
