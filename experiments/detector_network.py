"""The network of the detector `white-cells`: its layers, its loss, its steps and its ONNX file.

MobileNetV2 to a sixteenth of the picture, two strided steps more, and a path back up to an eighth.
Each place there answers for the cell whose middle it holds, white and red apart: how surely there
is such a cell, and how far the box's top, left, bottom and right side are.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from leuko.errors import BundleError
from leuko.runtime.detectors import STRIDE
from leuko.runtime.network.session import load_graph
from leuko.training.to_onnx import OPSET, canonical, example_pixels

RATE = 1.5e-3
WARM_UP = 200
KEEP = 0.998
"""How much of the averaged weights a step leaves as it was."""

FROZEN = 3
"""Blocks of the trunk that stay as they are."""

LOGARITHMS = (-2.0, 5.0)
"""Least and largest logarithm of a side in units of the stride."""


def network(weights: Path | None) -> keras.Model:
    """Pixels, 0 to 255, to logits (h, w, 2) and logarithms of sides (h, w, 8).

    The trunk's statistics stay: many laboratories are in a batch.
    """
    base = keras.applications.MobileNetV2(
        input_shape=(None, None, 3), include_top=False, weights=None
    )
    if weights is not None:
        base.load_weights(weights)
    ends = [base.get_layer(name).output for name in ("block_5_add", "block_12_add")]
    trunk = keras.Model(base.input, ends)
    names = [layer.name for layer in trunk.layers]
    first = next(at for at, name in enumerate(names) if name.startswith(f"block_{FROZEN}"))
    for at, layer in enumerate(trunk.layers):
        if at < first or isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    pixels = keras.Input((None, None, 3))
    eighth, sixteenth = trunk(layers.Rescaling(1 / 127.5, offset=-1)(pixels))
    coarse = block(block(sixteenth, 128, 2), 128)
    coarsest = block(block(coarse, 128, 2), 128)
    enlarge = layers.UpSampling2D(2, interpolation="bilinear")
    path = layers.Conv2D(96, 1)(coarsest)
    for finer in (coarse, sixteenth, eighth):
        path = block(layers.Add()([enlarge(path), layers.Conv2D(96, 1)(finer)]), 96)
    path = block(path, 96)
    rare, near = (keras.initializers.Constant(value) for value in (-3.0, 1.5))
    score = layers.Conv2D(2, 1, bias_initializer=rare, name="heat")(path)
    side = layers.Conv2D(8, 1, bias_initializer=near, name="side")(path)
    return keras.Model(pixels, [score, side])


def block(tensor, channels: int, stride: int = 1):
    """A depthwise and a pointwise convolution."""
    size = 5 if stride == 2 else 3
    tensor = layers.DepthwiseConv2D(size, strides=stride, padding="same", use_bias=False)(tensor)
    tensor = layers.Conv2D(channels, 1, use_bias=False)(tensor)
    return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.97)(tensor))


def answer_of(logits, logarithms):
    """Scores, 0 to 1, and sides in pixels."""
    return ops.sigmoid(logits), ops.exp(ops.clip(logarithms, *LOGARITHMS)) * float(STRIDE)


def loss(targets, answer):
    """Focal loss of the scores (CornerNet's, Law and Deng 2018); generalised IoU of the boxes.

    `targets` is as `detector_samples.targets` has it, in batches. Red cells, which are many, weigh
    less than white ones.
    """
    heat, counts, sides, weight = targets
    score, told = answer_of(*answer)
    top = ops.cast(heat > 0.999, "float32")
    tiny = 1e-6
    hits = top * (1 - score) ** 2 * ops.log(score + tiny)
    others = (1 - top) * (1 - heat) ** 4 * score**2 * ops.log(1 - score + tiny)
    by_kind = (-hits - others) * counts * ops.convert_to_tensor([1.0, 0.4])
    of_scores = ops.sum(by_kind) / (ops.sum(top * counts) + 4.0)
    told = ops.reshape(told, ops.shape(sides))
    shared = area(ops.minimum(told, sides))
    hull = area(ops.maximum(told, sides))
    union = area(told) + area(sides) - shared
    giou = shared / union - (hull - union) / hull
    by_kind = ops.sum((1 - giou) * weight, axis=(0, 1, 2)) / (ops.sum(weight, axis=(0, 1, 2)) + 1.0)
    of_sides = by_kind[0] + 0.5 * by_kind[1]
    return of_scores + 1.5 * of_sides, of_scores, of_sides


def area(sides):
    """Of boxes with top, left, bottom and right on the last axis."""
    return (sides[..., 0] + sides[..., 2]) * (sides[..., 1] + sides[..., 3])


class Training:
    """A network that is being trained, with all that a checkpoint must hold.

    Parameters
    ----------
    weights : Path
        Of the trunk.
    steps : int
        In all; the rate falls with a cosine.
    folder : Path
        Where checkpoints lie; the last one is taken up.
    """

    def __init__(self, weights: Path, steps: int, folder: Path) -> None:
        keras.utils.set_random_seed(0)
        self.network = network(weights)
        rate = keras.optimizers.schedules.CosineDecay(
            0.05 * RATE, steps - WARM_UP, warmup_target=RATE, warmup_steps=WARM_UP
        )
        self.optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01, clipnorm=5.0)
        self.optimizer.build(self.network.trainable_variables)
        self.averaged = [tf.Variable(one) for one in self.network.trainable_variables]
        state = tf.train.Checkpoint(model=self.network, opt=self.optimizer, ema=self.averaged)
        self.checkpoints = tf.train.CheckpointManager(state, str(folder), max_to_keep=1)
        if self.checkpoints.latest_checkpoint:
            state.restore(self.checkpoints.latest_checkpoint).assert_existing_objects_matched()

    @property
    def done(self) -> int:
        """Steps made."""
        return int(self.optimizer.iterations)

    def step(self, pixels, targets) -> tuple[float, float]:
        """Make a step; the losses of scores and of sides."""
        keep = KEEP if self.done > 100 else 0.0
        tensors = [tf.constant(one) for one in (pixels, *targets)]
        of_scores, of_sides = self._step(tf.constant(keep), *tensors)
        return float(of_scores), float(of_sides)

    @tf.function
    def _step(self, keep, pixels, *targets):
        variables = self.network.trainable_variables
        with tf.GradientTape() as tape:
            total, *parts = loss(targets, self.network(pixels, training=True))
        self.optimizer.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))
        for average, one in zip(self.averaged, variables, strict=True):
            average.assign(keep * average + (1 - keep) * one)
        return parts

    def finish(self) -> keras.Model:
        """The network with its averaged weights."""
        for average, one in zip(self.averaged, self.network.trainable_variables, strict=True):
            one.assign(average)
        return self.network


def to_onnx(model: keras.Model) -> bytes:
    """The file that `leuko.runtime.detectors.NetworkDetector` takes; compared with Keras."""
    import tf2onnx
    from onnx import TensorProto, helper

    @tf.function(autograph=False)
    def answer(pixels):
        return ops.concatenate(answer_of(*model(pixels, training=False)), axis=-1)

    taken = tf.TensorSpec((None, 256, 256, 3), tf.float32, "pixels")
    graph, _ = tf2onnx.convert.from_function(answer, [taken], opset=OPSET)
    # The conversion enlarges to fixed sizes; twice the size is what is meant, of any.
    graph.graph.initializer.append(
        helper.make_tensor("twice", TensorProto.FLOAT, [4], [1, 1, 2, 2])
    )
    for node in graph.graph.node:
        if node.op_type == "Resize":
            node.input[1:] = ["", "twice"]
    ends = ("pixels", "cells")
    data = canonical(graph, ends, [("N", "h", "w", 3), ("N", "i", "j", 10)])
    session = load_graph(data, "The converted network cannot be opened")
    for size in ((256, 256), (192, 320)):
        pixels = example_pixels(size, count=2)
        expected, (received,) = answer(pixels).numpy(), session.run(None, {"pixels": pixels})
        worst = float(np.abs(expected - received).max() / max(1.0, expected.max()))
        if not worst <= 1e-4:
            raise BundleError(f"The converted network differs from Keras by {worst:.2g}.")
    return data
