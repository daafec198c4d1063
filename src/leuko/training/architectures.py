"""Registered networks, built from a recipe, with every initial weight drawn from its seed."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import os
import random
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

from leuko.architectures import PIXELS, Architecture
from leuko.data.seen import backbone_path
from leuko.errors import TrainingError
from leuko.recipe import ModelSettings, Recipe
from leuko.support.artifacts import atomic_write
from leuko.support.quiet import keras_home
from leuko.support.reporter import SILENT, Reporter
from leuko.training.pruning import prune_channels

__all__ = [
    "BACKBONE",
    "FEATURES",
    "build_model",
    "check_weights",
    "compile_model",
    "leuko_weights_path",
    "save_backbone",
    "seed_weights",
    "small_cnn",
]

BACKBONE: Final = "backbone"
"""Name of the layer that holds a pretrained network, where there is one."""

FEATURES: Final = "pool"
"""Name of the layer above a backbone, which gives the features that a head is trained on."""

Examples = Callable[[], npt.NDArray[np.uint8]]
"""Gives (n, h, w, 3) inputs such as training will show."""

_IMAGENET: Final = "https://storage.googleapis.com/tensorflow/keras-applications/"
"""Keras's own address; Keras itself would keep its files in its folder of now, maybe none."""

_KERNELS: Final = (
    ("kernel_initializer", "kernel"),
    ("depthwise_initializer", "kernel"),
    ("depthwise_initializer", "depthwise_kernel"),
    ("pointwise_initializer", "pointwise_kernel"),
)
"""Where layers keep what they draw: the initialiser's name and the variable's."""


def build_model(
    recipe: Recipe,
    classes: int = 5,
    *,
    examples: Examples | None = None,
    reporter: Reporter = SILENT,
) -> keras.Model:
    """Build a network with its initial weights.

    Parameters
    ----------
    recipe : Recipe
        Its ``model``, ``preprocess`` and ``seed`` decide everything, but for the next.
    classes : int
        How many answers it gives.
    examples : callable, optional
        Gives (n, h, w, 3) uint8 inputs such as training will show. They are asked for where Leuko's
        backbone is wider than the recipe's; see `leuko.training.pruning`.
    reporter : Reporter, optional
        Told in a sentence on how well the backbone was pruned.

    Returns
    -------
    keras.Model
        Takes (N, h, w, 3) RGB 0-255, gives (N, K) probabilities in class order. Not compiled.

    Raises
    ------
    TrainingError
        When pretrained weights cannot be had, or not in this width; the message names the
        alternatives. When examples are needed and not given.
    """
    # Keras numbers unnamed tensors, and a saved model's bytes hold the numbers.
    keras.backend.clear_session()
    with _own_draws():
        pixels = keras.Input((*recipe.preprocess.size, 3), name="pixels", dtype="float32")
        features = _features(_scaled(pixels, recipe.model.pixels), recipe)
        outputs = _head(features, recipe, classes)
        model = keras.Model(pixels, outputs, name=recipe.model.architecture)
        seed_weights(model, recipe.seed)
        if recipe.model.weights == "leuko" and recipe.model.width != 1:
            share = _load_pruned(model, recipe, examples)
            reporter.say(
                "The backbone starts from Leuko's own, pruned: it gives "
                f"{share:.0%} of the variance of the wide one's output on training images."
            )
        elif recipe.model.weights != "none":
            _load_backbone(model.get_layer(BACKBONE), recipe.model)
    return model


def check_weights(recipe: Recipe) -> None:
    """Refuse initial weights that a network cannot be built from; fetch those to be fetched.

    Parameters
    ----------
    recipe : Recipe
        Its ``model`` and the size of its input.

    Raises
    ------
    TrainingError
        As `build_model` does, without any image.
    """
    settings = recipe.model
    if settings.weights == "none":
        return
    with _own_draws():
        if settings.weights == "leuko" and settings.width != 1:
            _wide_backbone(recipe)
        else:
            _load_backbone(_backbone(settings, recipe.preprocess.size), settings)


@contextlib.contextmanager
def _own_draws() -> Iterator[None]:
    """Keep Python's generator as it was: Keras takes a seed from it for every new weight."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def compile_model(model: keras.Model, recipe: Recipe, *, steps: int) -> None:
    """Give a model its loss, its metric and AdamW.

    Parameters
    ----------
    model : keras.Model
        Changed in place.
    recipe : Recipe
        Its ``train`` settings.
    steps : int
        Batches of the whole training, for a schedule.
    """
    settings = recipe.train
    rate: Any = settings.rate
    if settings.schedule == "cosine":
        warm = max(1, steps // 20)
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=settings.rate / 20,
            decay_steps=max(1, steps - warm),
            warmup_target=settings.rate,
            warmup_steps=warm,
            alpha=0.0,
        )
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=settings.decay),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=settings.smoothing),
        metrics=["accuracy"],
    )


def _scaled(pixels: Any, name: str) -> Any:
    """RGB 0-255 as a network reads it; the layer "scale" gives it."""
    scaling = PIXELS[name]
    if scaling.blue_first:
        pixels = keras.ops.take(pixels, [2, 1, 0], axis=-1)
    return keras.layers.Rescaling(scaling.scale, scaling.offset, name="scale")(pixels)


def _features(x: Any, recipe: Recipe) -> Any:
    """What the head is put on: (n, d)."""
    settings = recipe.model
    if not settings.network.has_backbone:
        return _builder(settings.network)(x, settings.norm_momentum)
    frozen = settings.train == "head"
    backbone = _backbone(settings, recipe.preprocess.size)
    backbone.trainable = not frozen
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = settings.norm_momentum
    # A frozen backbone keeps the statistics that its weights were trained with.
    x = backbone(x, training=False) if frozen else backbone(x)
    return keras.layers.GlobalAveragePooling2D(name=FEATURES)(x)


def _backbone(settings: ModelSettings, size: tuple[int, int]) -> keras.Model:
    """A pretrained network without its top, with random weights."""
    builder = _builder(settings.network)
    options: dict[str, Any] = {"alpha": settings.width} if settings.network.has_widths else {}
    if "include_preprocessing" in inspect.signature(builder).parameters:
        options["include_preprocessing"] = False
    # Some of Keras's functions read the name that they are given, so it is put on afterwards.
    whole = builder(include_top=False, weights=None, input_shape=(*size, 3), **options)
    return keras.Model(whole.input, whole.output, name=BACKBONE)


def _builder(network: Architecture) -> Callable[..., Any]:
    """The function that an entry of the registry names."""
    module, _, function = network.builder.partition(":")
    builder: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return builder


def small_cnn(x: Any, momentum: float) -> Any:
    """Five strided convolutions with batch normalisation; 87,245 parameters at 321 to 352 px.

    Parameters
    ----------
    x : keras.KerasTensor
        Scaled pixels (n, h, w, 3).
    momentum : float
        Of every normalisation.

    Returns
    -------
    keras.KerasTensor
        Flattened maps (n, d).
    """
    for number, filters in enumerate((4, 8, 16, 32, 64), start=1):
        x = keras.layers.Conv2D(
            filters, 3, strides=2, padding="same", activation="relu", name=f"conv{number}"
        )(x)
        x = keras.layers.BatchNormalization(momentum=momentum, name=f"norm{number}")(x)
    return keras.layers.Flatten(name="flatten")(x)


def _head(x: Any, recipe: Recipe, classes: int) -> Any:
    """Optional hidden layer with batch normalisation, then the probabilities."""
    settings = recipe.model
    if settings.hidden:
        x = keras.layers.Dense(settings.hidden, activation="relu", name="hidden")(x)
        x = keras.layers.BatchNormalization(momentum=settings.norm_momentum, name="hidden_norm")(x)
    if settings.dropout:
        x = keras.layers.Dropout(settings.dropout, seed=recipe.seed, name="dropout")(x)
    return keras.layers.Dense(classes, activation="softmax", name="probabilities")(x)


def seed_weights(model: keras.Model, seed: int) -> None:
    """Draw every kernel again from its own initialiser, seeded by `seed` and its path.

    Keras draws initial weights, and seeds of dropout that has none, from a global state; this
    leaves that state alone.

    Parameters
    ----------
    model : keras.Model
        Changed in place.
    seed : int
        Not negative.
    """
    for layer in model._flatten_layers():
        for source, name in _KERNELS:
            initializer = getattr(layer, source, None)
            variable = getattr(layer, name, None)
            if initializer is None or variable is None:
                continue
            config = {**initializer.get_config(), "seed": _number(seed, layer.name, name)}
            fresh = type(initializer).from_config(config)
            variable.assign(fresh(variable.shape, dtype=variable.dtype))
        if isinstance(layer, keras.layers.Dropout) and layer.rate and layer.seed is None:
            layer.seed_generator.state.assign([_number(seed, layer.name, "dropout"), 0])


def _number(seed: int, layer: str, what: str) -> int:
    """A seed for one thing of one layer: 31 bits."""
    return (
        int.from_bytes(hashlib.sha256(f"{seed}/{layer}/{what}".encode()).digest()[:4], "big") >> 1
    )


def leuko_weights_path(network: Architecture) -> Path:
    """Where the bundled backbone of an architecture lies.

    Parameters
    ----------
    network : Architecture
        One that Leuko has weights of its own for.

    Returns
    -------
    Path
        A ``.npz`` of float16 arrays, made by ``experiments/ship.py``.

    Raises
    ------
    TrainingError
        When this install does not have it.
    """
    path = backbone_path(network)
    if not path.is_file():
        raise TrainingError(
            "The backbone that Leuko trained is not part of this install. Choose --weights "
            "imagenet, --weights PATH or --weights none."
        )
    return path


def _load_backbone(backbone: keras.Model, settings: ModelSettings) -> None:
    """Fill a backbone from ImageNet, from Leuko's own file or from a path."""
    weights, network = settings.weights, settings.network
    if weights == "imagenet":
        _load_imagenet(backbone, settings)
    elif weights == "leuko":
        _load_npz(backbone, leuko_weights_path(network), network.title)
    else:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise TrainingError(
                f"The weights file {path} does not exist. --weights takes imagenet, leuko, none "
                "or the path of a weights file."
            )
        if path.suffix == ".npz":
            _load_npz(backbone, path, network.title)
        else:
            _load_h5(backbone, path, network.title)
    for variable in backbone.variables:
        if not np.isfinite(np.asarray(variable)).all():
            raise TrainingError(f"The weights in {weights} hold values that are not finite.")


def _load_pruned(model: keras.Model, recipe: Recipe, examples: Examples | None) -> float:
    """Fill a backbone with Leuko's own, pruned to its width; see `prune_channels`."""
    wide = _wide_backbone(recipe)
    if examples is None:
        raise TrainingError(
            "Leuko's backbone is pruned to a recipe's width by means of training images; none "
            "were given."
        )
    scale = keras.Model(model.input, model.get_layer("scale").output)
    shown = np.asarray(scale(examples().astype(np.float32)))
    rng = np.random.default_rng(recipe.seed)
    return prune_channels(wide, model.get_layer(BACKBONE), shown, rng)


def _wide_backbone(recipe: Recipe) -> keras.Model:
    """Leuko's backbone as it is, for a recipe that it can be pruned for."""
    settings = recipe.model
    if settings.width > 1 or settings.train == "head":
        raise TrainingError(
            "Leuko's backbone can only be made narrower, and then all of it must learn: choose "
            'model.width 1 or less and model.train "all", or --weights imagenet, none or PATH.'
        )
    wide = _backbone(replace(settings, width=1.0), recipe.preprocess.size)
    _load_npz(wide, leuko_weights_path(settings.network), settings.network.title)
    return wide


def _load_imagenet(backbone: keras.Model, settings: ModelSettings) -> None:
    """Fetch Keras's own ImageNet weights (kept in Keras's folder after the first time)."""
    network = settings.network
    origin = _IMAGENET + network.imagenet.format(width=float(settings.width))
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras reports its download
            backbone.load_weights(
                keras.utils.get_file(origin=origin, cache_subdir="models", cache_dir=keras_home())
            )
    except Exception as error:  # Keras raises whatever urllib and h5py raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        own = (
            " or, where the images are not Raabin-WBC's, --weights leuko (Leuko's backbone, which "
            "has learned Raabin-WBC Train)"
        )
        raise TrainingError(
            f"The ImageNet weights could not be fetched ({first[:200]}). Without a network, give "
            f"--weights PATH ({network.title} without top, .weights.h5), --weights none (start "
            f"from random weights){own if network.bundled else ''}."
        ) from error


def _load_h5(backbone: keras.Model, path: Path, title: str) -> None:
    """Read numbers, and nothing else, from a Keras weights file."""
    try:
        backbone.load_weights(os.fspath(path))
    except Exception as error:  # h5py and Keras raise many kinds on a damaged file
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"{path} does not hold the weights of {title} without top: {first[:200]}"
        ) from error


def _load_npz(backbone: keras.Model, path: Path, title: str) -> None:
    """Read Leuko's own float16 arrays, in the order of the backbone's weights."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            values = [arrays[f"w{number:03d}"] for number in range(len(arrays.files))]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainingError(f"{path} does not hold a {title} backbone: {error}.") from error
    if len(values) != len(backbone.weights):
        raise TrainingError(
            f"{path} does not hold a {title} backbone: expected {len(backbone.weights)} "
            f"arrays, the file has {len(values)}."
        )
    for variable, value in zip(backbone.weights, values, strict=True):
        if tuple(variable.shape) != value.shape:
            raise TrainingError(
                f"{path} does not fit: {variable.path} has shape {tuple(variable.shape)}, the "
                f"file has {value.shape}."
            )
        variable.assign(value.astype(np.float32))


def save_backbone(model: keras.Model, path: Path) -> None:
    """Write a model's backbone as float16 arrays that ``--weights leuko`` can read.

    Parameters
    ----------
    model : keras.Model
        With a layer named `BACKBONE`.
    path : Path
        A ``.npz`` file.

    Raises
    ------
    TrainingError
        When a weight is not finite, or too large for float16.
    """
    arrays: dict[str, Any] = {}
    for number, variable in enumerate(model.get_layer(BACKBONE).weights):
        with np.errstate(over="ignore"):
            value = np.asarray(variable).astype(np.float16)
        if not np.isfinite(value).all():
            raise TrainingError(
                f"{variable.path} holds values that float16 cannot hold; nothing was written."
            )
        arrays[f"w{number:03d}"] = value
    with atomic_write(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
