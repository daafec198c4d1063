"""Training steps with Keras's batch normalisation and with the fused kernel, alternating.

    python benchmarks/bench_fused.py [--steps 40] [--rounds 3]

Prints images a second for the custom CNN (350 px) and MobileNetV2 (160 px), batches of 32 random
pictures, deterministic kernels, data already in memory; medians over the rounds and their ratio.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from leuko.recipe import load_recipe
from leuko.support.host import machine
from leuko.training.architectures import build_model, compile_model
from leuko.training.fused import fused_normalisation

BATCH = 32
WARM_UP = 5


class Clock(keras.callbacks.Callback):
    """When batches ended."""

    def on_train_begin(self, logs=None):  # noqa: ARG002 - Keras calls it so
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):  # noqa: ARG002
        self.ends.append(time.perf_counter())


def images_per_second(recipe, steps: int, fused: bool) -> float:
    """Train a fresh network for a while."""
    model = build_model(recipe)
    compile_model(model, recipe, steps=steps)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (BATCH, *recipe.preprocess.size, 3), dtype=np.uint8)
    targets = np.eye(5, dtype=np.float32)[rng.integers(0, 5, BATCH)]
    data = tf.data.Dataset.from_tensors((pixels, targets)).repeat(steps + WARM_UP)
    clock = Clock()
    if fused:
        with fused_normalisation(model):
            model.fit(data, verbose=0, callbacks=[clock])
    else:
        model.fit(data, verbose=0, callbacks=[clock])
    return BATCH * steps / (clock.ends[-1] - clock.ends[WARM_UP - 1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    print(machine())
    for name in ("cnn", "mobilenetv2-finetuned"):
        recipe = load_recipe(name)
        recipe = replace(recipe, model=replace(recipe.model, weights="none"))
        rates: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(arguments.rounds):
            for fused in rates:
                rates[fused].append(images_per_second(recipe, arguments.steps, fused))
        plain, quick = median(rates[False]), median(rates[True])
        print(f"{name}: Keras {plain:.0f}, fused {quick:.0f} images/s, ratio {quick / plain:.2f}")


if __name__ == "__main__":
    main()
