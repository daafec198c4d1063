"""Networks: their size, their first weights, their pixels, and BatchNormalization's memory."""

from __future__ import annotations

import random
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from leuko.architectures import find_architecture
from leuko.errors import TrainingError
from leuko.imaging.preprocess import PreprocessSpec
from leuko.recipe import ModelSettings, Recipe, load_recipe

keras = pytest.importorskip("keras", reason="needs the extra 'train'")

from leuko.training.architectures import (  # noqa: E402
    BACKBONE,
    build_model,
    leuko_weights_path,
    save_backbone,
)

# Keras 3.15 warns about itself under NumPy 2.4.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SMALL = PreprocessSpec((32, 32))


def network(name: str, *, seed: int = 0, weights: str = "none", **changes: object) -> Recipe:
    """One of Leuko's recipes on 32 x 32 pixels, from random weights."""
    recipe = load_recipe(name)
    model = replace(recipe.model, weights=weights, **changes)
    return replace(recipe, seed=seed, preprocess=SMALL, model=model)


def kernels(model: keras.Model) -> dict[str, np.ndarray]:
    return {v.path: np.asarray(v) for v in model.variables if "kernel" in v.path}


@pytest.fixture(scope="module")
def frozen() -> keras.Model:
    return build_model(network("mobilenetv2", seed=4))


@pytest.mark.parametrize(("name", "side"), [("cnn", 324), ("published-cnn", 350)])
def test_the_cnn_has_the_published_number_of_parameters(name: str, side: int) -> None:
    model = build_model(load_recipe(name))
    assert model.count_params() == 87_245
    assert model.input_shape == (None, side, side, 3)
    assert model.output_shape == (None, 5)
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    assert [x.filters for x in convolutions] == [4, 8, 16, 32, 64]
    assert {x.strides for x in convolutions} == {(2, 2)}
    kinds = [type(x).__name__ for x in model.layers]
    assert kinds[-4:] == ["Flatten", "Dense", "BatchNormalization", "Dense"]


def test_only_the_head_of_a_frozen_mobilenet_learns(frozen: keras.Model) -> None:
    # 1280 x 16 + 16, gamma and beta of 16 units, 16 x 5 + 5.
    learning = sum(int(np.prod(v.shape)) for v in frozen.trainable_variables)
    assert learning == 1280 * 16 + 16 + 2 * 16 + 16 * 5 + 5
    # 2,257,984 is Keras's own count of MobileNetV2 without its top; 32 are moving statistics.
    assert frozen.count_params() == 2_257_984 + learning + 32
    assert frozen.get_layer("pool").output.shape == (None, 1280)
    pixels = np.full((2, 32, 32, 3), 99, np.float32)
    kept = frozen.get_weights()
    before = [np.asarray(v) for v in frozen.get_layer(BACKBONE).non_trainable_variables]
    frozen(pixels, training=True)
    after = frozen.get_layer(BACKBONE).non_trainable_variables
    assert all(np.array_equal(a, np.asarray(b)) for a, b in zip(before, after, strict=True))
    frozen.set_weights(kept)


def test_every_norm_of_the_finetuned_network_forgets_as_the_recipe_says() -> None:
    model = build_model(network("mobilenetv2-finetuned"))
    norms = [x for x in model._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 52
    assert {x.momentum for x in norms} == {0.97}
    assert all(x.trainable for x in norms)
    assert model.get_layer("dropout").rate == 0.2
    assert [x.name for x in model.layers[-3:]] == ["pool", "dropout", "probabilities"]


def test_another_seed_gives_other_weights_everywhere() -> None:
    first = kernels(build_model(network("cnn", seed=4)))
    second = kernels(build_model(network("cnn", seed=5)))
    assert len(first) == 7
    assert not any(np.array_equal(first[name], second[name]) for name in first)


def test_kernels_are_drawn_by_glorots_rule() -> None:
    kernel = kernels(build_model(network("cnn")))["conv5/kernel"]
    limit = np.sqrt(6 / (9 * 32 + 9 * 64))
    assert np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ("zero-one", [0.0, 51 / 255, 1.0]),
        ("minus-one-one", [-1.0, -0.6, 1.0]),
        ("divided-twice", [0.0, 0.2 / 255, 1 / 255]),
    ],
)
def test_pixels_are_scaled_inside_the_graph(pixels: str, expected: list[float]) -> None:
    model = build_model(network("cnn", pixels=pixels))
    values = np.zeros((1, 32, 32, 3), np.float32)
    values[0, 0, 0] = (0, 51, 255)
    scaled = keras.Model(model.input, model.get_layer("scale").output)(values)
    np.testing.assert_allclose(np.asarray(scaled)[0, 0, 0], expected, atol=1e-7)


def test_without_a_network_imagenet_names_the_alternatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    state = random.getstate()
    with pytest.raises(TrainingError) as caught:
        build_model(network("mobilenetv2", weights="imagenet"))
    message = str(caught.value)
    assert "\n" not in message
    for alternative in ("--weights PATH", "--weights leuko", "--weights none"):
        assert alternative in message
    assert random.getstate() == state
    assert capsys.readouterr().out == ""


def test_wrong_weights_files_are_one_sentence(frozen: keras.Model, tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    save_backbone(frozen, whole)
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole.read_bytes()[:100_000])
    flipped = bytearray(whole.read_bytes())
    flipped[len(flipped) // 2] ^= 255
    (tmp_path / "flipped.npz").write_bytes(flipped)
    np.savez(tmp_path / "few.npz", w000=np.zeros(3, np.float16))
    (tmp_path / "text.weights.h5").write_text("no weights at all")
    other = build_model(network("cnn"))
    other.save_weights(tmp_path / "other.weights.h5")
    with np.load(whole) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    np.savez(tmp_path / "poison.npz", **{**values, "w007": np.full_like(values["w007"], np.nan)})
    np.savez(tmp_path / "shape.npz", **{**values, "w000": values["w000"][:1]})
    cases = {
        "missing.npz": "does not exist",
        "cut.npz": "does not hold a MobileNetV2 backbone",
        "flipped.npz": "does not hold a MobileNetV2 backbone",
        "few.npz": "does not hold a MobileNetV2 backbone",
        "text.weights.h5": "does not hold the weights",
        "other.weights.h5": "does not hold the weights",
        "poison.npz": "not finite",
        "shape.npz": "does not fit",
    }
    from leuko.training.architectures import _load_backbone

    settings = ModelSettings("mobilenetv2")
    backbone = frozen.get_layer(BACKBONE)
    kept = backbone.get_weights()
    for name, reason in cases.items():
        with pytest.raises(TrainingError, match=reason) as caught:
            _load_backbone(backbone, replace(settings, weights=str(tmp_path / name)))
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    backbone.set_weights(kept)


def test_leukos_own_file_brings_a_backbone_back_in_float16(
    frozen: keras.Model, tmp_path: Path
) -> None:
    path = tmp_path / "backbone.npz"
    save_backbone(frozen, path)
    first = path.read_bytes()
    save_backbone(frozen, path)
    assert path.read_bytes() == first
    assert len(first) < 5_000_000
    with np.load(path) as arrays:
        assert {arrays[name].dtype for name in arrays.files} == {np.dtype(np.float16)}
    again = build_model(network("mobilenetv2", seed=99, weights=str(path)))
    pairs = zip(frozen.get_layer(BACKBONE).weights, again.get_layer(BACKBONE).weights, strict=True)
    for one, two in pairs:
        rounded = np.asarray(one).astype(np.float16).astype(np.float32)
        assert np.array_equal(rounded, np.asarray(two)), one.path
    head = [np.asarray(m.get_layer("hidden").kernel) for m in (frozen, again)]
    assert not np.array_equal(*head)


def test_float16_refuses_what_it_cannot_hold(frozen: keras.Model, tmp_path: Path) -> None:
    variable = frozen.get_layer(BACKBONE).weights[0]
    kept = np.asarray(variable)
    variable.assign(np.full(variable.shape, 1e5, np.float32))
    try:
        with pytest.raises(TrainingError, match="float16"):
            save_backbone(frozen, tmp_path / "backbone.npz")
    finally:
        variable.assign(kept)
    assert list(tmp_path.iterdir()) == []


def test_without_the_bundled_backbone_the_alternatives_are_named() -> None:
    file = resources.files("leuko") / "zoo" / "mobilenetv2-leuko.npz"
    network = find_architecture("mobilenetv2")
    if file.is_file():
        assert leuko_weights_path(network).stat().st_size < 5_000_000
        return
    with pytest.raises(TrainingError) as caught:
        leuko_weights_path(network)
    assert "--weights imagenet" in str(caught.value)
    assert "--weights none" in str(caught.value)


def test_keras_momentum_leaves_old_statistics_and_ours_does_not() -> None:
    """After 120 steps 0.999 keeps 89% of the first statistics, 0.97 keeps 3%."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 32, 32, 3)).astype(np.float32)
    left = {}
    for momentum in (load_recipe("mobilenetv2-finetuned").model.norm_momentum, 0.999):
        model = build_model(network("cnn", norm_momentum=momentum))
        norm = model.get_layer("norm1")
        seen = keras.Model(model.input, norm.input)(pixels)
        true = np.asarray(seen).mean(axis=(0, 1, 2))
        start = np.asarray(norm.moving_mean)
        for _ in range(120):  # what a step does to the statistics, with weights that stay
            norm(seen, training=True)
        left[momentum] = np.abs(np.asarray(norm.moving_mean) - true) / np.abs(start - true)
    np.testing.assert_allclose(left[0.97], 0.97**120, atol=0.01)
    np.testing.assert_allclose(left[0.999], 0.999**120, atol=0.01)
    assert keras.layers.BatchNormalization().momentum == 0.99


def test_a_narrow_backbone_has_the_parameters_that_its_paper_gives_it() -> None:
    recipe = network("small")
    model = build_model(recipe)
    assert model.get_layer(BACKBONE).count_params() == 410_208
    assert model.count_params() == 410_208 + 1280 * 5 + 5
