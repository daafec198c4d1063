"""Keras to ONNX: the same probabilities, the same bytes, and no file that needs another."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from leuko.errors import BundleError, TrainingError

keras = pytest.importorskip("keras", reason="needs the extra 'train'")
onnx = pytest.importorskip("onnx", reason="needs the extra 'train'")
pytest.importorskip("tf2onnx", reason="needs the extra 'train'")

import onnxruntime  # noqa: E402

from leuko.training.to_onnx import (  # noqa: E402
    INPUT_NAME,
    OUTPUT_NAME,
    check_parity,
    example_pixels,
    export_onnx,
)


def small_cnn(
    *, activation: str | None = "softmax", outputs: int = 5, policy: str = "float32"
) -> Any:
    """A CNN of the published kind on 24 x 20 pixels, with random weights and statistics."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((24, 20, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", dtype=policy),
            layers.BatchNormalization(dtype=policy),
            layers.Flatten(),
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(outputs, activation=activation),
        ]
    )
    rng = np.random.default_rng(5)
    for weight in model.weights:
        if "variance" in weight.path or "gamma" in weight.path:
            values = rng.uniform(0.5, 1.5, weight.shape)
        else:
            spread = 1 / np.sqrt(max(1, np.prod(weight.shape[:-1])))
            values = rng.normal(0, spread if "kernel" in weight.path else 0.3, weight.shape)
        weight.assign(values.astype(np.float32))
    return model


@pytest.fixture(scope="module")
def model() -> Any:
    return small_cnn()


@pytest.fixture(scope="module")
def exported(model: Any) -> bytes:
    return export_onnx(model)


def run(data: bytes, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: pixels})[0])


@pytest.mark.parametrize("count", [1, 2, 7])
def test_probabilities_equal_keras_at_any_batch_size(
    model: Any, exported: bytes, count: int
) -> None:
    pixels = np.random.default_rng(count).integers(0, 256, (count, 24, 20, 3)).astype(np.float32)
    received = run(exported, pixels)
    assert received.shape == (count, 5)
    np.testing.assert_allclose(received, model.predict(pixels, verbose=0), atol=1e-5)
    assert np.ptp(received, axis=0).max() > 1e-3 or count == 1


def test_the_file_stands_alone_and_names_are_ours(exported: bytes) -> None:
    graph = onnx.load_model_from_string(exported).graph
    assert [item.name for item in graph.input] == ["pixels"]
    assert [item.name for item in graph.output] == ["probabilities"]
    shape = graph.input[0].type.tensor_type.shape.dim
    assert [item.dim_value for item in shape[1:]] == [24, 20, 3]
    assert shape[0].dim_param == "N"
    assert not any(item.external_data for item in graph.initializer)
    assert all(item.name == f"w{index}" for index, item in enumerate(graph.initializer))
    assert "BatchNormalization" not in {node.op_type for node in graph.node}


def test_equal_weights_give_equal_bytes(exported: bytes) -> None:
    keras.layers.Dense(3)  # moves Keras's own counters on
    again = small_cnn()
    assert export_onnx(again) == exported


def test_parity_is_refused_when_the_weights_differ(model: Any, exported: bytes) -> None:
    samples = example_pixels((24, 20), count=3)
    assert check_parity(model, exported, samples) <= 1e-5
    other = small_cnn()
    bias = other.layers[-1].bias
    bias.assign(np.asarray(bias) + np.array([0.01, 0, 0, 0, 0], np.float32))
    with pytest.raises(BundleError, match="differs from Keras"):
        check_parity(other, exported, samples)


def test_logits_need_a_softmax() -> None:
    logits = small_cnn(activation=None)
    with pytest.raises(BundleError, match="must end in a softmax"):
        export_onnx(logits)


def test_other_shapes_dtypes_and_values_are_refused() -> None:
    with pytest.raises(TrainingError, match="float32"):
        export_onnx(small_cnn(policy="mixed_float16"))
    free = keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalMaxPooling2D()])
    with pytest.raises(TrainingError, match="fixed size"):
        export_onnx(free)
    broken = small_cnn()
    bias = broken.layers[-1].bias
    bias.assign(np.array([0, np.nan, 0, 0, 0], np.float32))
    with pytest.raises(TrainingError, match="not finite"):
        export_onnx(broken)


def test_nothing_is_printed_and_log_levels_are_put_back(
    model: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    before = logging.getLogger("tf2onnx").level
    capfd.readouterr()
    export_onnx(model)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "tf2onnx" not in captured.err
    assert "WARNING" not in captured.err
    assert logging.getLogger("tf2onnx").level == before
