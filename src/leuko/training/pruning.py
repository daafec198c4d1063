"""Start a narrow MobileNetV2 from a wide one that is trained, layer by layer, by least squares.

From random weights a narrow network learns slowly. So what a wide one has learned is carried over.
Between its blocks MobileNetV2 passes maps on without a nonlinearity (Sandler et al., "MobileNetV2:
inverted residuals and linear bottlenecks", CVPR 2018), so a few directions in them, their
principal components, can stand for all. Inside a block, channels are chosen one by one: each time
the one that brings the rest of the block's answer nearest. Then every 1 x 1 convolution is solved
to give what the wide network gives there, from what the narrow one has there, so that errors do
not add up.

Choosing channels by what the next layer makes of them is from Luo, Wu and Lin, "ThiNet", and He,
Zhang and Sun, "Channel pruning for accelerating very deep neural networks", both ICCV 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

from leuko.errors import TrainingError

__all__ = ["prune_channels"]

Maps = npt.NDArray[np.float32]
"""(n, h, w, channels)."""

Rows = npt.NDArray[np.float64]
"""(places, channels)."""

_BATCH: Final = 32

_PLACES: Final = 60_000
"""Solving for a layer looks at so many places of its maps."""

_RIDGE: Final = 1e-2
"""Added to every variance, as a share of their mean: what hardly varies cannot be relied on."""

_LEAST: Final = 1e-12

_STEM: Final = 3
"""Layers of the first block that lie before what it may add to: they read pixels."""


@dataclass(frozen=True, slots=True)
class _Block:
    """One inverted residual: maps, many channels of maps, maps again.

    Attributes
    ----------
    inner : list of keras.layers.Layer
        From the block's input to what its projection reads; the first two are a convolution and
        its normalisation.
    project, norm : keras.layers.Layer
        The projection and its normalisation.
    added : bool
        Whether the answer is added to the block's input.
    """

    inner: list[Any]
    project: Any
    norm: Any
    added: bool


def prune_channels(
    wide: keras.Model, thin: keras.Model, pixels: Maps, rng: np.random.Generator
) -> float:
    """Fill a narrow MobileNetV2 with what a wide one computes.

    Parameters
    ----------
    wide : keras.Model
        Keras's MobileNetV2 without its top, trained.
    thin : keras.Model
        The same with fewer channels, or as many. Its weights are replaced.
    pixels : (n, h, w, 3) float32
        Inputs of both, such as training will show. A few hundred are enough.
    rng : numpy.random.Generator
        Chooses places of maps where there are more than are needed.

    Returns
    -------
    float
        Share of the variance of the wide network's output that the narrow one gives, at most 1.

    Raises
    ------
    TrainingError
        When the two are not of one family, or the narrow one has more channels somewhere.
    """
    (wide_blocks, wide_last), (thin_blocks, thin_last) = _blocks(wide), _blocks(thin)
    _check(wide_blocks, thin_blocks, wide_last, thin_last)
    bases = _bases(wide_blocks, thin_blocks, pixels, rng)
    maps, narrow = pixels, pixels
    blocks = zip(wide_blocks, thin_blocks, bases, strict=True)
    for number, (block, small, basis) in enumerate(blocks):
        hidden = _run(block.inner, maps)
        answer = _run([block.project, block.norm], hidden)
        rows, answers = _sample(rng, hidden, answer @ basis)
        chosen = _choose(rows, answers, small.project.kernel.shape[2])
        _fill_inner(block, small, chosen, maps, narrow, rng)
        maps = maps + answer if block.added else answer
        wanted = maps @ basis
        if small.added:
            given = narrow if number else _run(small.inner[:_STEM], narrow)
            wanted = wanted - given
        answered = _solve(small.project, small.norm, _run(small.inner, narrow), wanted, rng)
        narrow = given + answered if small.added else answered
    conv, norm, _ = thin_last
    _solve(conv, norm, narrow, _run(wide_last[:2], maps), rng)
    return _share(_run(thin_last, narrow), _run(wide_last, maps))


def _blocks(network: keras.Model) -> tuple[list[_Block], list[Any]]:
    """Take a network apart: its blocks, and the layers after the last one."""
    layers = [one for one in network.layers if not isinstance(one, keras.layers.InputLayer)]
    blocks, inner = [], []
    while layers:
        layer = layers.pop(0)
        if not layer.name.endswith("_project"):
            inner.append(layer)
            continue
        norm = layers.pop(0)
        added = bool(layers) and layers[0].name.endswith("_add")
        if added:
            layers.pop(0)
        blocks.append(_Block(inner, layer, norm, added))
        inner = []
    return blocks, inner


def _check(
    wide: list[_Block], thin: list[_Block], wide_last: list[Any], thin_last: list[Any]
) -> None:
    """Refuse networks that cannot stand for each other."""

    def channels(blocks: list[_Block], last: list[Any]) -> list[int]:
        inside = [size for block in blocks for size in block.project.kernel.shape[2:]]
        return [*inside, *last[0].kernel.shape[3:]] if blocks and last else []

    few, many = channels(thin, thin_last), channels(wide, wide_last)
    # A narrow block that rounding leaves as many channels as it is given adds: that is no harm.
    adds = all(small.added for block, small in zip(wide, thin, strict=False) if block.added)
    alike = len(few) == len(many) > 0 and few[-1] == many[-1] and adds
    if not alike or any(one > other for one, other in zip(few, many, strict=True)):
        raise TrainingError("Only a MobileNetV2 can be pruned, and only to fewer channels.")


def _bases(
    wide: list[_Block], thin: list[_Block], pixels: Maps, rng: np.random.Generator
) -> list[Maps]:
    """Principal components of the maps after each block: (channels, fewer channels).

    Blocks that add to one another's maps share them.
    """
    stages: list[list[Rows]] = []
    maps = pixels
    for block in wide:
        answer = _run([*block.inner, block.project, block.norm], maps)
        maps = maps + answer if block.added else answer
        if not block.added:
            stages.append([])
        stages[-1].append(*_sample(rng, maps))
    bases: list[Maps] = []
    for block, small in zip(wide, thin, strict=True):
        if block.added:
            bases.append(bases[-1])
            continue
        rows = np.concatenate(stages.pop(0))
        _, vectors = np.linalg.eigh(np.cov(rows, rowvar=False))
        bases.append(vectors[:, ::-1][:, : small.project.filters].astype(np.float32))
    return bases


def _choose(hidden: Rows, answer: Rows, count: int) -> npt.NDArray[np.int64]:
    """Choose columns one by one, each time the one that explains most of what is left."""
    hidden, answer = hidden - hidden.mean(axis=0), answer - answer.mean(axis=0)
    within, across = hidden.T @ hidden / len(hidden), hidden.T @ answer / len(hidden)
    ridge, left = _ridge(within), within.diagonal().copy()
    taken = np.empty((len(within), count))
    free = np.ones(len(within), dtype=bool)
    for step in range(count):
        gain = np.square(across).sum(axis=1) / (left + ridge)
        best = int(np.where(free, gain, -1.0).argmax())
        free[best] = False
        # What the chosen column explains is taken out of all the others (Gram and Schmidt).
        size = np.sqrt(left[best] + ridge)
        column = (within[:, best] - taken[:, :step] @ taken[best, :step]) / size
        taken[:, step] = column
        across -= np.outer(column, across[best] / size)
        left -= np.square(column)
    return np.flatnonzero(~free)


def _fill_inner(
    block: _Block,
    small: _Block,
    chosen: npt.NDArray[np.int64],
    maps: Maps,
    narrow: Maps,
    rng: np.random.Generator,
) -> None:
    """Give the inside of a narrow block the chosen channels."""
    (conv, norm, *rest), (small_conv, small_norm, *small_rest) = block.inner, small.inner
    if conv.kernel.shape[:2] == (1, 1):
        wanted = _run([conv, norm], maps, chosen)
        _solve(small_conv, small_norm, narrow, wanted, rng)
    else:  # the first of all, which reads pixels
        small_conv.set_weights([np.asarray(conv.kernel)[..., chosen]])
        small_norm.set_weights([array[chosen] for array in norm.get_weights()])
    for layer, small_layer in zip(rest, small_rest, strict=True):
        # (3, 3, channels, 1) of depthwise convolutions, (channels,) of normalisations
        arrays = [
            np.take(array, chosen, axis=-2 if array.ndim > 1 else 0)
            for array in layer.get_weights()
        ]
        small_layer.set_weights(arrays)


def _solve(conv: Any, norm: Any, given: Maps, wanted: Maps, rng: np.random.Generator) -> Maps:
    """Set a 1 x 1 convolution and its normalisation so that they give most of what is wanted."""
    rows, answers = _sample(rng, given, wanted)
    mean, answer_mean = rows.mean(axis=0), answers.mean(axis=0)
    centred = rows - mean
    within = centred.T @ centred / len(rows)
    across = centred.T @ (answers - answer_mean) / len(rows)
    kernel = np.linalg.solve(within + _ridge(within) * np.eye(len(within)), across)
    # The normalisation gives the answers' own moments back, but for the mean, which is as wanted.
    variance = np.einsum("io,ij,jo->o", kernel, within, kernel)
    moments = (np.sqrt(variance + norm.epsilon), answer_mean, mean @ kernel, variance)
    conv.set_weights([kernel[None, None].astype(np.float32)])
    norm.set_weights([values.astype(np.float32) for values in moments])
    return _run([conv, norm], given)


def _ridge(within: Rows) -> float:
    """See `_RIDGE`."""
    return _RIDGE * float(within.diagonal().mean()) + _LEAST


def _run(
    layers: list[Any], maps: Maps, chosen: npt.NDArray[np.int64] | slice = slice(None)
) -> Maps:
    """Apply layers one after the other, as in prediction, and keep the channels that are chosen."""

    def answer(part: Any) -> Maps:
        for layer in layers:
            part = layer(part)
        kept: Maps = np.asarray(part)[..., chosen]
        return kept

    first = answer(maps[:_BATCH])
    answers = np.empty((len(maps), *first.shape[1:]), np.float32)
    answers[:_BATCH] = first
    for start in range(_BATCH, len(maps), _BATCH):
        answers[start : start + _BATCH] = answer(maps[start : start + _BATCH])
    return answers


def _sample(rng: np.random.Generator, *maps: Maps) -> list[Rows]:
    """Values of several maps at the same places, drawn at random where there are many."""
    places = int(np.prod(maps[0].shape[:3]))
    chosen = rng.choice(places, _PLACES, replace=False) if places > _PLACES else slice(None)
    return [one.reshape(places, -1)[chosen].astype(np.float64) for one in maps]


def _share(given: Maps, wanted: Maps) -> float:
    """Share of the variance of what is wanted that is given."""
    left = np.square(given - wanted).sum(dtype=np.float64)
    whole = np.square(wanted - wanted.mean(axis=(0, 1, 2))).sum(dtype=np.float64)
    return 1.0 - float(left / max(whole, _LEAST))
