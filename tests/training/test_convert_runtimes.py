"""ONNX Runtime's answers from another runtime: LiteRT, and OpenVINO on the bundle's own network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leuko.artifacts import digest_file
from leuko.errors import BundleError, OutputError, TrainingError, UsageError
from leuko.taxonomy import CLASSES

onnx = pytest.importorskip("onnx", reason="needs the extra 'export'")

from onnx import helper, numpy_helper  # noqa: E402

from convnet import make_convnet, make_convnet_bundle  # noqa: E402
from leuko.training.convert import export_model  # noqa: E402
from leuko.training.convert_graph import open_session  # noqa: E402
from leuko.training.convert_litert import litert_runner, to_litert  # noqa: E402
from tiny import SIDE, paint, write_dataset  # noqa: E402

SIZE = (SIDE, SIDE)


def painted(each: int, *, seed: int = 0) -> np.ndarray:
    return np.stack(
        [
            paint(name, seed=100 * seed + number, shape=SIZE)
            for name in CLASSES
            for number in range(each)
        ]
    )


def reference(data: bytes, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(open_session(data).run(None, {"pixels": pixels.astype(np.float32)})[0])


def network(nodes: list[Any], constants: dict[str, Any]) -> bytes:
    """A graph that begins with turned pixels ``x`` (N, 3, h, w) and ends in logits ``y``."""
    first = [
        helper.make_node("Mul", ["pixels", "scale"], ["small"]),
        helper.make_node("Transpose", ["small"], ["x"], perm=[0, 3, 1, 2]),
    ]
    last = [helper.make_node("Softmax", ["y"], ["probabilities"])]
    arrays = {"scale": np.float32(1 / 255), **constants}
    graph = helper.make_graph(
        [*first, *nodes, *last],
        "network",
        [helper.make_tensor_value_info("pixels", 1, ["N", *SIZE, 3])],
        [helper.make_tensor_value_info("probabilities", 1, ["N", 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


def maps() -> bytes:
    """Convolutions with frames, strides, gaps and groups; pools; activations; joined maps."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "k1", "c1"], ["a"], pads=[0, 1, 2, 1], strides=[2, 1]),
        node("LeakyRelu", ["a"], ["b"], alpha=0.3),
        node("Conv", ["b", "k2"], ["c"], dilations=[2, 2], pads=[2, 2, 2, 2]),
        node("Tanh", ["c"], ["d"]),
        node("Conv", ["d", "k3", "c3"], ["e"], group=4, pads=[1, 1, 1, 1]),
        node("Sigmoid", ["e"], ["f"]),
        node("Concat", ["f", "d"], ["g"], axis=1),
        node("MaxPool", ["g"], ["h"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
        node("AveragePool", ["h"], ["i"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Elu", ["i"], ["j"]),
        node("Sub", ["j", "s"], ["k"]),
        node("Div", ["k", "q"], ["l"]),
        node("Pad", ["l", "frame", "fill"], ["m"]),
        node("GlobalMaxPool", ["m"], ["n"]),
        node("ReduceMean", ["m"], ["o"], axes=[2, 3], keepdims=1),
        node("Add", ["n", "o"], ["p"]),
        node("Flatten", ["p"], ["r"]),
        node("Gemm", ["r", "w", "v"], ["y"], transB=1, alpha=0.5, beta=2.0),
    ]
    constants = {
        "k1": floats(4, 3, 3, 3, seed=1), "c1": floats(4, seed=2),
        "k2": floats(4, 4, 3, 3, seed=3),
        "k3": floats(8, 1, 3, 3, seed=4), "c3": floats(8, seed=5),
        "s": floats(12, 1, 1, seed=6), "q": np.abs(floats(1, 12, 1, 1, seed=7)) + 1,
        "frame": np.array([0, 0, 1, 0, 0, 0, 0, 2], np.int64), "fill": np.float32(0.25),
        "w": floats(5, 12, seed=8), "v": floats(5, seed=9),
    }  # fmt: skip
    return network(nodes, constants)


def shapes() -> bytes:
    """What the custom CNN's Flatten becomes, an order of classes, and axes added and taken."""
    node = helper.make_node
    nodes = [
        node("MaxPool", ["x"], ["a"], kernel_shape=[4, 4], strides=[4, 4]),
        node("Transpose", ["a"], ["b"], perm=[0, 2, 3, 1]),
        node("Shape", ["b"], ["c"]),
        node("Cast", ["c"], ["d"], to=6),
        node("Slice", ["d", "nought", "one", "nought"], ["e"]),
        node("Concat", ["e", "rest"], ["f"], axis=0),
        node("Cast", ["f"], ["g"], to=7),
        node("Reshape", ["b", "g"], ["h"]),
        node("MatMul", ["h", "w"], ["i"]),
        node("Unsqueeze", ["i", "one"], ["j"]),
        node("Squeeze", ["j", "one"], ["k"]),
        node("Gather", ["k", "order"], ["l"], axis=1),
        node("Identity", ["l"], ["y"]),
    ]
    constants = {
        "nought": np.array([0], np.int64), "one": np.array([1], np.int64),
        "rest": np.array([-1], np.int32), "w": floats(SIDE * SIDE // 16 * 3, 5, seed=1),
        "order": np.array([3, 0, 4, 1, 2], np.int64),
    }  # fmt: skip
    return network(nodes, constants)


@pytest.fixture(scope="module")
def tensorflow() -> None:
    pytest.importorskip("tensorflow", reason="needs the extra 'train'")


@pytest.mark.parametrize("make", [make_convnet, maps, shapes])
def test_litert_answers_as_onnx_runtime_does(make: Any, tensorflow: None) -> None:
    data, pixels = make(), painted(4)
    converted = to_litert(data, SIZE)
    expected = reference(data, pixels)
    assert np.ptp(expected, axis=0).max() > 0.05
    np.testing.assert_allclose(litert_runner(converted)(pixels), expected, atol=2e-5)


def test_litert_in_fewer_bits(tensorflow: None) -> None:
    data, pixels = make_convnet(width=70), painted(8, seed=1)
    whole = to_litert(data, SIZE)
    half = to_litert(data, SIZE, weights="float16")
    quarter = to_litert(data, SIZE, weights="int8", pixels=painted(4))
    assert to_litert(data, SIZE, weights="int8", pixels=painted(4)) == quarter
    assert len(half) < 0.75 * len(whole)
    assert len(quarter) < 0.65 * len(whole)
    expected = reference(data, pixels)
    np.testing.assert_allclose(litert_runner(half)(pixels), expected, atol=0.02)
    received = litert_runner(quarter)(pixels)
    assert (received.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.95
    with pytest.raises(TrainingError, match="needs pictures"):
        to_litert(data, SIZE, weights="int8")


def test_litert_refuses_what_it_does_not_know(tensorflow: None) -> None:
    node = helper.make_node
    odd = [node("GlobalAveragePool", ["x"], ["a"]), node("Flatten", ["a"], ["b"]),
           node("MatMul", ["b", "w"], ["c"]), node("Erf", ["c"], ["y"])]  # fmt: skip
    with pytest.raises(TrainingError, match=r"does not know: Erf\. Export it to onnx, which"):
        to_litert(network(odd, {"w": floats(3, 5)}), SIZE)
    groups = [
        node("Conv", ["x", "k0"], ["a"]),
        node("Conv", ["a", "k"], ["b"], group=2),
        node("GlobalAveragePool", ["b"], ["c"]),
        node("Flatten", ["c"], ["d"]),
        node("MatMul", ["d", "w"], ["y"]),
    ]
    constants = {"k0": floats(6, 3, 1, 1), "k": floats(6, 3, 1, 1), "w": floats(6, 5)}
    with pytest.raises(TrainingError, match="in 2 groups of 3 channels"):
        to_litert(network(groups, constants), SIZE)


@pytest.mark.parametrize("weights", ["float32", "float16", "int8"])
def test_openvino_reads_a_bundles_network_itself(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imported as its maker meant it, it would report to him and write an identity."""
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)
    core = pytest.importorskip("openvino", reason="needs the extra 'dev'").Core()
    make_convnet_bundle(width=70).save(tmp_path / "m.zip")
    check = write_dataset(tmp_path / "Test", each=9) if weights == "int8" else None
    export_model(tmp_path / "m.zip", tmp_path / "out", weights=weights, check=check)
    network, pixels = tmp_path / "out" / "model.onnx", painted(5)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    answer = core.compile_model(core.read_model(network), "CPU", settings)
    received = answer([pixels.astype(np.float32)])[0]
    expected = reference(network.read_bytes(), pixels)
    assert np.ptp(expected, axis=0).max() > 0.05
    np.testing.assert_allclose(received, expected, atol=0.05 if weights == "int8" else 2e-5)


def test_the_folder_tells_a_deployer_everything(tmp_path: Path, tensorflow: None) -> None:
    bundle = make_convnet_bundle()
    bundle.save(tmp_path / "m.zip")
    labelled = write_dataset(tmp_path / "Test", each=9)
    done = export_model(
        tmp_path / "m.zip", tmp_path / "out", form="litert", weights="int8", check=labelled
    )
    note = json.loads((tmp_path / "out" / "export.json").read_text())
    assert note["schema"] == "leuko.export/1"
    assert "Research use only" in note["research_use"]
    assert note["classes"] == list(CLASSES)
    assert note["preprocess"] == bundle.preprocess.to_dict()
    assert note["input"]["shape"] == [1, *SIZE, 3]
    assert note["variant"]["source"]["digest"] == bundle.digest
    assert note["variant"]["check"]["balanced_accuracy"]["original"] == 1.0
    assert {*note["files"]} == {"model.tflite", "goldens.npz", "card.md"}
    for name, digest in note["files"].items():
        assert digest_file(tmp_path / "out" / name) == digest
    assert done.digest in note["files"].values()
    # The goldens are this network's own answers.
    arrays = np.load(tmp_path / "out" / "goldens.npz")
    inputs = np.stack([bundle.preprocess.apply(picture) for picture in arrays["pictures"]])
    runner = litert_runner((tmp_path / "out" / "model.tflite").read_bytes())
    np.testing.assert_allclose(runner(inputs), arrays["probabilities"], atol=1e-6)
    # Written again, it is replaced by the same; anything else in it is not.
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    export_model(
        tmp_path / "m.zip", tmp_path / "out", form="litert", weights="int8", check=labelled
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"such as notes\.txt"):
        export_model(tmp_path / "m.zip", tmp_path / "out", form="litert")


@pytest.mark.parametrize("form", ["onnx", "litert"])
def test_a_model_of_16_bits_goes_into_every_format(
    form: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if form != "onnx":
        request.getfixturevalue("tensorflow")
    make_convnet_bundle(width=70).save(tmp_path / "m.zip")
    export_model(tmp_path / "m.zip", tmp_path / "half.zip", weights="float16")
    labelled = write_dataset(tmp_path / "Test", each=9)
    done = export_model(tmp_path / "half.zip", tmp_path / "out", form=form, check=labelled)
    assert done.variant["check"]["balanced_accuracy"] == {"original": 1.0, "variant": 1.0}
    sizes = {}
    for weights in ("float16", "int8"):
        again = export_model(
            tmp_path / "half.zip", tmp_path / f"out-{weights}", form=form, weights=weights,
            check=labelled,
        )  # fmt: skip
        assert again.variant["check"]["balanced_accuracy"]["variant"] == 1.0
        sizes[weights] = again.size
    assert sizes["float16"] <= done.size
    assert len({done.size, *sizes.values()}) == (2 if form == "onnx" else 3)
    export_model(tmp_path / "m.zip", tmp_path / "int8.zip", weights="int8", check=labelled)
    with pytest.raises(UsageError, match="is int8 already"):
        export_model(tmp_path / "int8.zip", tmp_path / "b", form=form)


def test_a_variant_that_got_worse_is_not_written_for_others_either(
    tmp_path: Path, tensorflow: None
) -> None:
    make_convnet_bundle(fragile=True).save(tmp_path / "m.zip")
    labelled = write_dataset(tmp_path / "Test", each=9)
    with pytest.raises(BundleError, match="int8 litert variant of convnet has a balanced accuracy"):
        export_model(
            tmp_path / "m.zip", tmp_path / "out", form="litert", weights="int8", check=labelled
        )
    assert not (tmp_path / "out").exists()
