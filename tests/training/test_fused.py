"""Fused batch normalisation gives what Keras's own layers give."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from leuko.training.fused import BatchNormalization, fused_normalisation

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def network(trainable: bool = True) -> keras.Model:
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    norm = keras.layers.BatchNormalization(momentum=0.9, name="norm")
    norm.trainable = trainable
    x = keras.layers.GlobalAveragePooling2D()(norm(x))
    x = keras.layers.BatchNormalization(name="flat_norm")(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="out")(x))


def trained(fused: bool, trainable: bool = True) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(8, 12, 12, 3)).astype(np.float32)
    targets = np.eye(2, dtype=np.float32)[rng.integers(0, 2, 8)]
    model = network(trainable)
    fresh = np.random.default_rng(4)
    model.set_weights([fresh.uniform(0.5, 1.5, w.shape).astype(np.float32)
                       for w in model.get_weights()])  # fmt: skip
    model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    if fused:
        with fused_normalisation(model):
            model.fit(values, targets, batch_size=8, epochs=3, shuffle=False, verbose=0)
    else:
        model.fit(values, targets, batch_size=8, epochs=3, shuffle=False, verbose=0)
    return model.get_weights()


@pytest.mark.parametrize("trainable", [True, False])
def test_weights_and_moving_statistics_are_those_of_the_plain_layer(trainable: bool) -> None:
    for one, other in zip(trained(True, trainable), trained(False, trainable), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)


def test_only_normalisation_of_maps_is_lent() -> None:
    model = network()
    with fused_normalisation(model):
        assert type(model.get_layer("norm")) is BatchNormalization
        assert type(model.get_layer("flat_norm")) is keras.layers.BatchNormalization
    assert type(model.get_layer("norm")) is keras.layers.BatchNormalization


def test_weights_written_while_lent_are_read_by_the_plain_model(tmp_path: Path) -> None:
    model, plain = network(), network()
    with fused_normalisation(model):
        model.save_weights(tmp_path / "w.weights.h5")
    plain.load_weights(tmp_path / "w.weights.h5")
    for one, other in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_layers_are_given_back_after_an_error() -> None:
    model = network()
    block = fused_normalisation(model)
    block.__enter__()
    assert block.__exit__(RuntimeError, RuntimeError("stopped"), None) is False
    assert type(model.get_layer("norm")) is keras.layers.BatchNormalization
