"""The registry of networks, built from a recipe, with every initial weight drawn from its seed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

from leuko.artifacts import atomic_write
from leuko.data.seen import backbone_path
from leuko.errors import TrainingError
from leuko.quiet import keras_home
from leuko.recipe import Recipe
from leuko.training.narrow import narrow_backbone

__all__ = [
    "BACKBONE",
    "build_model",
    "check_weights",
    "compile_model",
    "leuko_weights_path",
    "save_backbone",
    "seed_weights",
]

BACKBONE: Final = "backbone"
"""Name of the layer that holds a pretrained network, where there is one."""

Examples = Callable[[], npt.NDArray[np.uint8]]
"""Gives (n, h, w, 3) inputs such as training will show."""

_SCALES: Final[dict[str, tuple[float, float]]] = {
    "zero-one": (1 / 255, 0.0),
    "minus-one-one": (1 / 127.5, -1.0),
    "divided-twice": (1 / 255 / 255, 0.0),
}

_IMAGENET: Final = (
    "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{width}_{size}_no_top.h5"
)
"""Keras's own address, where it would keep them in its folder of this moment, which may be none."""

_KERNELS: Final = (("kernel_initializer", "kernel"), ("depthwise_initializer", "kernel"))
"""Where layers keep what they draw: the initialiser's name and the variable's."""


def build_model(
    recipe: Recipe,
    classes: int = 5,
    *,
    examples: Examples | None = None,
    say: Callable[[str], None] | None = None,
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
        backbone is wider than the recipe's; see `leuko.training.narrow`.
    say : callable, optional
        Called with a sentence on how well the backbone was narrowed.

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
        scale, offset = _SCALES[recipe.model.pixels]
        x = keras.layers.Rescaling(scale, offset, name="scale")(pixels)
        outputs = _ARCHITECTURES[recipe.model.architecture](x, recipe, classes)
        model = keras.Model(pixels, outputs, name=recipe.model.architecture)
        seed_weights(model, recipe.seed)
        if recipe.model.weights == "leuko" and recipe.model.width != 1:
            share = _load_narrowed(model.get_layer(BACKBONE), recipe, examples)
            if say is not None:
                say(
                    "The backbone starts from Leuko's own, narrowed: it gives "
                    f"{share:.0%} of the variance of the wide one's output on training images."
                )
        elif recipe.model.weights != "none":
            _load_backbone(model.get_layer(BACKBONE), recipe.model.weights, recipe.model.width)
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
    model = recipe.model
    if model.weights == "none":
        return
    with _own_draws():
        if model.weights == "leuko" and model.width != 1:
            _wide_backbone(recipe)
        else:
            _load_backbone(
                _backbone(recipe.preprocess.size, model.width), model.weights, model.width
            )


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


def _cnn(x: Any, recipe: Recipe, classes: int) -> Any:
    """Five strided convolutions with batch normalisation; 87,245 parameters at 321 to 352 px."""
    momentum = recipe.model.norm_momentum
    for number, filters in enumerate((4, 8, 16, 32, 64), start=1):
        x = keras.layers.Conv2D(
            filters, 3, strides=2, padding="same", activation="relu", name=f"conv{number}"
        )(x)
        x = keras.layers.BatchNormalization(momentum=momentum, name=f"norm{number}")(x)
    return _head(keras.layers.Flatten(name="flatten")(x), recipe, classes)


def _mobilenetv2(x: Any, recipe: Recipe, classes: int) -> Any:
    """MobileNetV2 without its top, then global average pooling."""
    frozen = recipe.model.train == "head"
    backbone = _backbone(recipe.preprocess.size, recipe.model.width)
    backbone.trainable = not frozen
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = recipe.model.norm_momentum
    # A frozen backbone keeps the statistics that its weights were trained with.
    x = backbone(x, training=False) if frozen else backbone(x)
    return _head(keras.layers.GlobalAveragePooling2D(name="pool")(x), recipe, classes)


def _backbone(size: tuple[int, int], width: float) -> keras.Model:
    """MobileNetV2 without its top, with random weights."""
    return keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(*size, 3), alpha=width, name=BACKBONE
    )


def _head(x: Any, recipe: Recipe, classes: int) -> Any:
    """Optional hidden layer with batch normalisation, then the probabilities."""
    settings = recipe.model
    if settings.hidden:
        x = keras.layers.Dense(settings.hidden, activation="relu", name="hidden")(x)
        x = keras.layers.BatchNormalization(momentum=settings.norm_momentum, name="hidden_norm")(x)
    if settings.dropout:
        x = keras.layers.Dropout(settings.dropout, seed=recipe.seed, name="dropout")(x)
    return keras.layers.Dense(classes, activation="softmax", name="probabilities")(x)


_ARCHITECTURES: Final[dict[str, Callable[[Any, Recipe, int], Any]]] = {
    "cnn": _cnn,
    "mobilenetv2": _mobilenetv2,
}


def seed_weights(model: keras.Model, seed: int) -> None:
    """Draw every kernel again from its own initialiser, seeded by `seed` and its path.

    Keras draws initial weights from a global state; this leaves that state alone.

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
            key = f"{seed}/{layer.name}/{name}".encode()
            number = int.from_bytes(hashlib.sha256(key).digest()[:4], "big") >> 1
            config = {**initializer.get_config(), "seed": number}
            fresh = type(initializer).from_config(config)
            variable.assign(fresh(variable.shape, dtype=variable.dtype))


def leuko_weights_path() -> Path:
    """Where the bundled backbone lies.

    Returns
    -------
    Path
        A ``.npz`` of float16 arrays, made by ``experiments/ship.py``.

    Raises
    ------
    TrainingError
        When this install does not have it.
    """
    path = backbone_path()
    if not path.is_file():
        raise TrainingError(
            "The backbone that Leuko trained is not part of this install. Choose --weights "
            "imagenet, --weights PATH or --weights none."
        )
    return path


def _load_backbone(backbone: keras.Model, weights: str, width: float) -> None:
    """Fill a backbone from ImageNet, from Leuko's own file or from a path."""
    if weights == "imagenet":
        _load_imagenet(backbone, width)
    elif weights == "leuko":
        _load_npz(backbone, leuko_weights_path())
    else:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise TrainingError(
                f"The weights file {path} does not exist. --weights takes imagenet, leuko, none "
                "or the path of a weights file."
            )
        if path.suffix == ".npz":
            _load_npz(backbone, path)
        else:
            _load_h5(backbone, path)
    for variable in backbone.variables:
        if not np.isfinite(np.asarray(variable)).all():
            raise TrainingError(f"The weights in {weights} hold values that are not finite.")


def _load_narrowed(backbone: keras.Model, recipe: Recipe, examples: Examples | None) -> float:
    """Fill a backbone with Leuko's own, narrowed to its width; see `narrow_backbone`."""
    wide = _wide_backbone(recipe)
    if examples is None:
        raise TrainingError(
            "Leuko's backbone is narrowed to a recipe's width by means of training images; none "
            "were given."
        )
    scale, offset = _SCALES[recipe.model.pixels]
    shown = examples().astype(np.float32) * np.float32(scale) + np.float32(offset)
    return narrow_backbone(wide, backbone, shown, np.random.default_rng(recipe.seed))


def _wide_backbone(recipe: Recipe) -> keras.Model:
    """Leuko's backbone as it is, for a recipe that it can be narrowed for."""
    if recipe.model.width > 1 or recipe.model.train == "head":
        raise TrainingError(
            "Leuko's backbone can only be made narrower, and then all of it must learn: choose "
            'model.width 1 or less and model.train "all", or --weights imagenet, none or PATH.'
        )
    wide = _backbone(recipe.preprocess.size, 1.0)
    _load_npz(wide, leuko_weights_path())
    return wide


def _load_imagenet(backbone: keras.Model, width: float) -> None:
    """Fetch Keras's own ImageNet weights (kept in Keras's folder after the first time)."""
    size = 224
    origin = _IMAGENET.format(width=float(width), size=size)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras reports its download
            path = keras.utils.get_file(
                origin=origin, cache_subdir="models", cache_dir=keras_home()
            )
            source = keras.applications.MobileNetV2(
                include_top=False, weights=path, input_shape=(size, size, 3), alpha=width
            )
    except Exception as error:  # Keras raises whatever urllib and h5py raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"The ImageNet weights could not be fetched ({first[:200]}). Without a network, give "
            "--weights PATH (MobileNetV2 without top, .weights.h5), --weights none (start from "
            "random weights) or, where the images are not Raabin-WBC's, --weights leuko (Leuko's "
            "backbone, which has learned Raabin-WBC Train)."
        ) from error
    backbone.set_weights(source.get_weights())


def _load_h5(backbone: keras.Model, path: Path) -> None:
    """Read numbers, and nothing else, from a Keras weights file."""
    try:
        backbone.load_weights(os.fspath(path))
    except Exception as error:  # h5py and Keras raise many kinds on a damaged file
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"{path} does not hold the weights of {backbone.name} (MobileNetV2 without top): "
            f"{first[:200]}"
        ) from error


def _load_npz(backbone: keras.Model, path: Path) -> None:
    """Read Leuko's own float16 arrays, in the order of the backbone's weights."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            values = [arrays[f"w{number:03d}"] for number in range(len(arrays.files))]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainingError(f"{path} does not hold a MobileNetV2 backbone: {error}.") from error
    if len(values) != len(backbone.weights):
        raise TrainingError(
            f"{path} does not hold a MobileNetV2 backbone: expected {len(backbone.weights)} "
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
