"""What a recipe may ask of a network, asked of every one that is registered, with fresh weights."""

from __future__ import annotations

import inspect
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leuko.architectures import ARCHITECTURES
from leuko.errors import TrainingError
from leuko.imaging.preprocess import PreprocessSpec
from leuko.recipe import DataSettings, ModelSettings, Recipe, TrainSettings
from leuko.runtime.network.edit import replace_head
from leuko.runtime.network.wire import expose

keras = pytest.importorskip("keras", reason="needs the extra 'train'")

import onnxruntime  # noqa: E402

from leuko.formats.int8 import quantize  # noqa: E402
from leuko.training import architectures  # noqa: E402
from leuko.training.architectures import (  # noqa: E402
    BACKBONE,
    build_model,
    check_weights,
    compile_model,
    save_backbone,
)
from leuko.training.to_onnx import example_pixels, export_onnx  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SIDE = 64
BACKBONES = [name for name in ARCHITECTURES if name != "cnn"]


def recipe_of(name: str, **model: Any) -> Recipe:
    """A recipe of one short epoch on small pictures."""
    return Recipe(
        name=name,
        title=name,
        preprocess=PreprocessSpec((SIDE, SIDE)),
        data=DataSettings(validation=0.25),
        model=ModelSettings(name, **{"hidden": 0, "norm_momentum": 0.5, **model}),
        train=TrainSettings(epochs=1, steps=2, batch=4, rate=1e-4),
    )


class Built:
    """A network that has made one step, and its export."""

    def __init__(self, name: str) -> None:
        keras.utils.set_random_seed(1)  # which decides nothing
        self.name, self.entry = name, ARCHITECTURES[name]
        self.model = build_model(recipe_of(name))
        self.first = [np.asarray(variable) for variable in self.model.variables]
        compile_model(self.model, recipe_of(name), steps=2)
        self.model.run_eagerly = True
        self.pixels = example_pixels((SIDE, SIDE), count=6)
        self.loss = float(self.model.train_on_batch(self.pixels, np.eye(5)[[0, 1, 2, 3, 4, 0]])[0])
        self.onnx = export_onnx(self.model)

    def asked(self, onnx: bytes, *outputs: str) -> list[np.ndarray]:
        session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        return session.run(list(outputs), {"pixels": self.pixels})


@pytest.fixture(scope="module", params=ARCHITECTURES)
def built(request: pytest.FixtureRequest) -> Built:
    return Built(request.param)


def test_the_entry_tells_its_size(built: Built) -> None:
    entry, model = built.entry, built.model
    below = model.get_layer(BACKBONE if entry.has_backbone else "flatten")
    head = below.output.shape[-1] * 5 + 5
    assert model.count_params() == entry.parameters + head
    assert entry.smallest <= SIDE


def test_one_seed_gives_one_network_and_no_generator_is_touched(built: Built) -> None:
    """Dropout inside of a network draws from the seed too."""
    keras.utils.set_random_seed(3)
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    again = build_model(recipe_of(built.name))
    assert random.getstate() == python
    now = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(now[1], numpy[1])
    assert (now[0], *now[2:]) == (numpy[0], *numpy[2:])
    for one, two in zip(again.variables, built.first, strict=True):
        assert np.array_equal(np.asarray(one), two), one.path


def test_a_step_changes_every_kernel(built: Built) -> None:
    assert np.isfinite(built.loss)
    for variable, before in zip(built.model.variables, built.first, strict=True):
        if "kernel" in variable.path and before.size > 100:
            assert not np.array_equal(np.asarray(variable), before), variable.path


def test_what_ships_gives_keras_probabilities_features_and_maps(built: Built) -> None:
    wanted = np.asarray(built.model(built.pixels, training=False))
    exposed = expose(built.onnx, maps=built.entry.has_backbone)
    assert exposed.features is not None
    outputs = ["probabilities", exposed.features]
    if built.entry.has_backbone:
        assert exposed.maps is not None
        outputs.append(exposed.maps)
    found, features, *maps = built.asked(exposed.onnx, *outputs)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    below = built.model.layers[-2].output
    trunk = np.asarray(keras.Model(built.model.input, below)(built.pixels, training=False))
    np.testing.assert_allclose(features, trunk, atol=1e-4 * np.abs(trunk).max())
    assert np.ptp(features, axis=0).max() > 0
    for values in maps:
        axes = (2, 3) if exposed.layout == "NCHW" else (1, 2)
        np.testing.assert_allclose(values.mean(axis=axes), features, atol=1e-4 * features.max())


def test_another_last_layer_can_be_fitted_to_what_ships(built: Built) -> None:
    exposed = expose(built.onnx, maps=False)
    assert exposed.weights is not None
    _, features = built.asked(exposed.onnx, "probabilities", exposed.features)
    weights = np.random.default_rng(1).normal(size=exposed.weights.shape)
    weights /= np.abs(features @ weights).max()
    bias = np.arange(5) / 5
    (found,) = built.asked(replace_head(built.onnx, weights, bias), "probabilities")
    odds = np.exp(features @ weights + bias)
    np.testing.assert_allclose(found, odds / odds.sum(axis=1, keepdims=True), atol=1e-5)


def test_eight_bits_give_nearly_the_same(built: Built) -> None:
    (wanted,) = built.asked(built.onnx, "probabilities")
    rounded = quantize(built.onnx, built.pixels.astype(np.uint8))
    assert len(rounded) < 0.5 * len(built.onnx)
    (found,) = built.asked(rounded, "probabilities")
    assert np.abs(found - wanted).max() < 0.05


@pytest.mark.parametrize("name", BACKBONES)
def test_pixels_are_what_kerass_weights_were_trained_on(name: str) -> None:
    """What Keras does beside its networks, or in their first layers where we leave those out."""
    builder = architectures._builder(ARCHITECTURES[name])
    values = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.float32)
    wanted = sys.modules[builder.__module__].preprocess_input(values.copy())
    if "include_preprocessing" in inspect.signature(builder).parameters:
        whole = builder(include_top=False, weights=None, input_shape=(32, 32, 3))
        kinds = (keras.layers.Rescaling, keras.layers.Normalization)
        last = [layer for layer in whole.layers if isinstance(layer, kinds)][-1]
        wanted = np.asarray(keras.Model(whole.input, last.output)(wanted))
    found = architectures._scaled(values, ARCHITECTURES[name].pixels)
    np.testing.assert_allclose(np.asarray(found), wanted, atol=2e-5)


@pytest.mark.parametrize("built", BACKBONES, indirect=True)
def test_imagenets_weights_are_taken_from_keras_folder(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the layout of Keras's own, where Keras keeps what it has fetched."""
    own = built.model.get_layer(BACKBONE)
    place = tmp_path / "models" / built.entry.imagenet.format(width=1.0).rpartition("/")[2]
    place.parent.mkdir()
    own.save(place)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    found = build_model(recipe_of(built.name, weights="imagenet")).get_layer(BACKBONE)
    for one, two in zip(found.get_weights(), own.get_weights(), strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("built", BACKBONES, indirect=True)
def test_weights_come_from_a_file(built: Built, tmp_path: Path) -> None:
    own = built.model.get_layer(BACKBONE)
    own.save_weights(tmp_path / "own.weights.h5")
    save_backbone(built.model, tmp_path / "own.npz")
    frozen = recipe_of(built.name, train="head", weights=str(tmp_path / "own.weights.h5"))
    found = build_model(frozen).get_layer(BACKBONE)
    assert not found.trainable
    for one, two in zip(found.weights, own.weights, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(two))
    half = replace(frozen.model, weights=str(tmp_path / "own.npz"))
    architectures._load_backbone(found, half)
    for one, two in zip(found.weights, own.weights, strict=True):
        rounded = np.asarray(two).astype(np.float16).astype(np.float32)
        assert np.array_equal(np.asarray(one), rounded)


def test_without_a_network_the_sentence_names_what_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(TrainingError, match=r"--weights PATH \(VGG16 without top") as caught:
        check_weights(recipe_of("vgg16", weights="imagenet"))
    assert "--weights leuko" not in str(caught.value)
