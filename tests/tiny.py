"""A network small enough to check by hand, and pictures that it knows.

The network averages all pixels and takes the class whose colour is nearest: for a mean ``m`` and
a colour ``c`` (both divided by 255), the logit is ``40 (2 m.c - c.c)``, which orders the classes
as ``-|m - c|²`` does.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from five import CLASSES
from leuko.bundle import ModelBundle
from leuko.imaging.decode import encode_jpeg, encode_png
from leuko.imaging.preprocess import PreprocessSpec
from leuko.runtime.classifier import make_goldens
from leuko.scheme import DIFFERENTIAL_5, ClassScheme, load_scheme

SIDE = 24
COLOURS = np.array(
    [[60, 50, 140], [210, 70, 60], [120, 90, 200], [150, 150, 170], [230, 190, 120]], np.float64
)
"""What the network takes for each class of a routine differential, in class order."""


@functools.cache
def colours_of(classes: int) -> npt.NDArray[np.float64]:
    """`COLOURS` for up to five classes; each further one is as far from the others as can be."""
    found, grid = COLOURS, np.stack(np.meshgrid(*[np.linspace(10, 245, 6)] * 3), -1).reshape(-1, 3)
    while len(found) < classes:
        near = np.square(grid[:, None] - found).sum(axis=2).min(axis=1)
        found = np.vstack([found, grid[near.argmax()]])
    return found[:classes]


def make_onnx(
    *,
    side: int = SIDE,
    classes: int = 5,
    softmax: bool = True,
    batch: int | None = None,
    kind: int = 1,
    weights: npt.NDArray[np.float32] | None = None,
) -> bytes:
    """The network as ONNX, or one of its faulty relatives."""
    import onnx
    from onnx import helper, numpy_helper

    colours = colours_of(classes) / 255
    matrix = (80 * colours.T / 255).astype(np.float32) if weights is None else weights
    bias = (-40 * (colours**2).sum(axis=1)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node("Softmax" if softmax else "Identity", ["logits"], ["probabilities"]),
    ]
    dtype = np.float64 if kind == onnx.TensorProto.DOUBLE else np.float32
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", kind, [batch or "N", side, side, 3])],
        [helper.make_tensor_value_info("probabilities", kind, [batch or "N", classes])],
        [
            numpy_helper.from_array(matrix.astype(dtype), "matrix"),
            numpy_helper.from_array(bias.astype(dtype), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def make_pooled_onnx(between: tuple[str, ...] = (), *, side: int = SIDE) -> bytes:
    """The tiny network with its pixels as maps; `between` are casts after the pooling."""
    import onnx
    from onnx import helper

    model = onnx.load_model_from_string(make_onnx(side=side))
    first = [
        helper.make_node("Transpose", ["pixels"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("GlobalAveragePool", ["turned"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["mean0" if between else "mean"]),
    ]
    for number, to in enumerate(between):
        last = number == len(between) - 1
        output = "mean" if last else f"mean{number + 1}"
        kind = getattr(onnx.TensorProto, to)
        first.append(helper.make_node("Cast", [f"mean{number}"], [output], to=kind))
    nodes = [*first, *model.graph.node[1:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


@functools.cache
def make_bundle(crop: float = 1.0, scheme: ClassScheme | None = None) -> ModelBundle:
    """The network in a bundle, of a routine differential or another scheme."""
    scheme = scheme or load_scheme(DIFFERENTIAL_5)
    onnx, spec = make_onnx(classes=len(scheme)), PreprocessSpec((SIDE, SIDE), crop)
    return ModelBundle(
        name="tiny",
        onnx=onnx,
        preprocess=spec,
        card="# Tiny\n\nTakes the nearest colour.\n",
        goldens=make_goldens(onnx, spec),
        parameters=20,
        provenance={"recipe": "none", "seed": 0},
        thresholds={"confidence": 0.0},  # right by construction: every answer is accepted
        validation={"metrics": {"accuracy": {"value": 0.5}}},
        scheme=scheme,
    )


def paint(
    name: str,
    *,
    seed: int = 0,
    shape: tuple[int, int] = (32, 40),
    names: tuple[str, ...] = CLASSES,
) -> npt.NDArray[np.uint8]:
    """A picture that the network of `names` takes for `name`: its colour, a little noise."""
    label = names.index(name)
    rng = np.random.default_rng([seed, label])
    noise = rng.integers(-12, 13, (*shape, 3))
    return np.clip(colours_of(len(names))[label] + noise, 0, 255).astype(np.uint8)


def write_picture(path: Path, name: str, *, seed: int = 0) -> Path:
    """Write a picture of a class; the suffix chooses the format."""
    pixels = paint(name, seed=seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(pixels) if path.suffix == ".png" else encode_jpeg(pixels))
    return path


def write_dataset(
    root: Path,
    *,
    each: int = 4,
    slides: int = 2,
    names: tuple[str, ...] = CLASSES,
    suffix: str = ".jpg",
) -> Path:
    """Class folders with `each` pictures, dealt to slides in turn."""
    for name in names:
        for number in range(each):
            file = f"95-8-{number % slides + 1}-1_{number}_1{suffix}"
            write_picture(root / name / file, name, seed=number)
    return root


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Drop root's right to read and write everything, for the length of a block."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(65534)
    except OSError:
        pytest.skip("root may not become anybody else here")
    try:
        yield
    finally:
        os.seteuid(0)


def open_to_all(folder: Path) -> None:
    """Let everybody reach a temporary folder, whose parents pytest keeps to itself."""
    for place in (folder, *folder.parents):
        if place.stat().st_uid == os.getuid() and place != Path(place.anchor):
            place.chmod(place.stat().st_mode | 0o711)
