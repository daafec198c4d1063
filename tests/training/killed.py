"""Runs trainings that die at chosen points, for `test_run.py`; started as a program of its own.

TensorFlow is imported once, and every doomed training is a fork of that process, made before
TensorFlow has run anything.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path


def small_features(x, momentum):
    """One layer in place of Leuko's CNN: TensorFlow traces it in no time."""
    import keras

    y = keras.layers.Conv2D(12, 3, strides=4, activation="relu", name="backbone_conv")(x)
    y = keras.layers.BatchNormalization(momentum=momentum, name="backbone_norm")(y)
    return keras.layers.GlobalAveragePooling2D(name="pool")(y)


def small_backbone(*, include_top, weights, input_shape, alpha=1.0):
    """The same in place of a network of `keras.applications`."""
    import keras

    pixels = keras.Input(input_shape, name="backbone_pixels")
    y = keras.layers.Conv2D(12, 3, strides=4, activation="relu", name="backbone_conv")(pixels)
    return keras.Model(pixels, keras.layers.BatchNormalization(name="backbone_norm")(y))


def use_small_networks(put=dict.__setitem__) -> None:
    """Register networks of one layer under the names of Leuko's recipes."""
    from leuko.architectures import ARCHITECTURES

    for name, builder in (("cnn", small_features), ("mobilenetv2", small_backbone)):
        entry = replace(ARCHITECTURES[name], builder=f"{__name__}:{builder.__name__}")
        put(ARCHITECTURES, name, entry)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_epoch_two() -> None:
    """After two batches of the second epoch."""
    from leuko.training.checkpoint import Guard

    usual = Guard.on_train_batch_end

    def fatal(self, batch, logs=None):
        usual(self, batch, logs)
        if self._epoch == 1 and batch == 1:
            die()

    Guard.on_train_batch_end = fatal


def in_model_checkpoint() -> None:
    """When Keras has written half of the second best weights."""
    import keras

    usual, calls = keras.Model.save_weights, []

    def fatal(self, filepath, overwrite=True, **settings):
        usual(self, filepath, overwrite=overwrite, **settings)
        calls.append(filepath)
        if len(calls) == 2:
            os.truncate(filepath, Path(filepath).stat().st_size // 2)
            die()

    keras.Model.save_weights = fatal


def between_renames() -> None:
    """When the old checkpoint is set aside and the new one not yet in place."""
    usual = os.replace

    def fatal(source, target):
        usual(source, target)
        if Path(target).name == ".leuko-last.old":
            die()

    os.replace = fatal


def in_export() -> None:
    """When model.keras is half-written, after the last epoch."""
    import keras

    usual = keras.Model.save

    def fatal(self, filepath, *rest, **settings):
        usual(self, filepath, *rest, **settings)
        os.truncate(filepath, Path(filepath).stat().st_size // 2)
        die()

    keras.Model.save = fatal


def in_features() -> None:
    """While the second shard of features is being written."""
    import numpy as np

    from leuko.training import features

    features._SHARD = 16
    usual, calls = np.savez, []

    def fatal(file, **arrays):
        calls.append(file)
        if len(calls) == 2:
            file.write(b"PK half a shard")
            file.flush()
            die()
        usual(file, **arrays)

    np.savez = fatal


def main() -> None:
    from leuko.recipe import load_recipe
    from leuko.training.run import RunOptions, train

    warnings.simplefilter("ignore", DeprecationWarning)  # of os.fork
    use_small_networks()
    dataset, runs = sys.argv[1], json.loads(sys.argv[2])
    for point, recipe, out, cache in runs:
        child = os.fork()
        if child == 0:
            try:
                globals()[point]()
                train(
                    dataset,
                    load_recipe(recipe),
                    out,
                    options=RunOptions(cache=Path(cache), workers=2),
                )
            finally:  # either way this point was not deadly
                os._exit(99)
        status = os.waitpid(child, 0)[1]
        print(json.dumps([point, os.waitstatus_to_exitcode(status)]), flush=True)


if __name__ == "__main__":
    main()
