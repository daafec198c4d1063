"""What a user would run in place of `leuko predict`: Keras, in a process of its own.

Imported by ``bench_predict.py`` and by the child process that holds TensorFlow. Networks have
fresh weights; their speed does not depend on them.
"""

from __future__ import annotations

import functools
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

BATCH = 32


def export(recipe: dict[str, Any], target: Path) -> Path:
    """Build a recipe's network with fresh weights and write it as a bundle."""
    model, settings = _built(_key(recipe))
    from leuko.bundle import ModelBundle
    from leuko.runtime.classifier import make_goldens
    from leuko.training.to_onnx import export_onnx

    onnx = export_onnx(model)
    bundle = ModelBundle(
        name=settings.name,
        onnx=onnx,
        preprocess=settings.preprocess,
        card="Fresh weights, for timing.",
        goldens=make_goldens(onnx, settings.preprocess),
        parameters=int(model.count_params()),
        provenance={"recipe": settings.to_dict()},
    )
    bundle.save(target)
    return target


def published(recipe: dict[str, Any], folder: Path, count: int) -> float:
    """Images a second of the published way: a data set from a folder, and `model.predict`.

    The folder's whole pictures are resized bilinearly, as that function does.
    """
    import keras

    model, settings = _built(_key(recipe))
    pixels = keras.utils.image_dataset_from_directory(
        folder, labels=None, image_size=settings.preprocess.size, batch_size=BATCH,
        shuffle=False, verbose=False,
    )  # fmt: skip
    _warm(model, settings)
    started = time.perf_counter()
    answers = model.predict(pixels.take(count // BATCH), verbose=0)
    return len(answers) / (time.perf_counter() - started)


def tf_data(recipe: dict[str, Any], folder: Path, count: int) -> float:
    """Images a second of Keras with `tf.data` done well.

    Only the crop is decoded, decoding and resizing run on all cores ahead of the network, which
    is one compiled function.
    """
    import tensorflow as tf

    spec = _built(_key(recipe))[1].preprocess
    size, crop = spec.size, spec.crop
    paths = sorted(str(path) for path in folder.iterdir())[:count]

    def read(path: Any) -> Any:
        data = tf.io.read_file(path)
        shape = tf.io.extract_jpeg_shape(data)
        side = tf.cast(
            tf.round(crop * tf.cast(tf.minimum(shape[0], shape[1]), tf.float32)), "int32"
        )
        top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
        window = tf.stack([top, left, side, side])
        return tf.image.resize(tf.image.decode_and_crop_jpeg(data, window, channels=3), size)

    pixels = tf.data.Dataset.from_tensor_slices(paths)
    pixels = pixels.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    pixels = pixels.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    answer = _compiled(_key(recipe))
    answer(tf.zeros((BATCH, *size, 3)))
    started = time.perf_counter()
    done = sum(len(answer(batch).numpy()) for batch in pixels)
    return done / (time.perf_counter() - started)


def _warm(model: Any, settings: Any) -> None:
    """Let Keras trace its graph, which the published run pays for once."""
    import numpy as np

    model.predict(np.zeros((2 * BATCH, *settings.preprocess.size, 3), "float32"),
                  batch_size=BATCH, verbose=0)  # fmt: skip


def _key(recipe: dict[str, Any]) -> str:
    """A recipe as text, which can be remembered."""
    import json

    return json.dumps(recipe, sort_keys=True)


@functools.cache
def _built(key: str) -> tuple[Any, Any]:
    """Build the network of a recipe once."""
    import json

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from leuko.recipe import Recipe
    from leuko.training.architectures import build_model

    recipe = Recipe.from_dict(json.loads(key))
    recipe = replace(recipe, model=replace(recipe.model, weights="none"))
    return build_model(recipe), recipe


@functools.cache
def _compiled(key: str) -> Any:
    """Give the network as one TensorFlow function."""
    import tensorflow as tf

    model = _built(key)[0]
    return tf.function(lambda batch: model(batch, training=False))
