"""From rows of a manifest to batches: decoded, varied and stacked in an order fixed by the seed.

Which image stands where, and how it is varied, is a function of (seed, epoch, position) alone.
A run that was killed can therefore go on at the epoch it was in and see the same pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from leuko.cells import CellFinding, find_cell
from leuko.cells.view import CellView, cell_view, prepare
from leuko.data.balance.order import balanced_order, copy_numbers
from leuko.errors import LeukoError
from leuko.imaging.pictures import open_picture
from leuko.imaging.preprocess import PreprocessSpec
from leuko.manifest import Manifest
from leuko.recipe import AugmentSettings, DataSettings, Recipe
from leuko.training.augment import augmented
from leuko.training.randomisation import ground_warp, randomised, randomised_warp, sampled_texture

__all__ = [
    "Batches",
    "Order",
    "PixelSource",
    "evaluation_order",
    "fixed_plan",
    "one_hot",
    "pixel_source",
    "training_order",
]

Order = Callable[[int], npt.NDArray[np.int64]]
"""Called with an epoch; gives (n, 2) int64, rows of (image, draw)."""

_NO_DRAW = -1
_AHEAD = 2
"""Batches that are begun before they are asked for."""


@dataclass(frozen=True)
class PixelSource:
    """Makes the input for (image, draw).

    Attributes
    ----------
    files : list of Path
        Readable images.
    spec : PreprocessSpec
        Input size and crop.
    augment : AugmentSettings
        How draws vary.
    seed : int
        With the draw's number, decides the variation.
    """

    files: list[Path]
    spec: PreprocessSpec
    augment: AugmentSettings
    seed: int
    _found: dict[int, CellFinding] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, image: int, draw: int) -> npt.NDArray[np.uint8]:
        """Decode, vary and cut one image.

        Parameters
        ----------
        image : int
            Position in `files`.
        draw : int
            Number of the variation; negative takes the image as it is.

        Returns
        -------
        (h, w, 3) uint8
            The network's input.
        """
        if draw >= 0 and self.augment.kind == "domain-randomisation":
            return self._randomised(image, draw)
        with open_picture(self.files[image], self.spec) as opened:
            if draw < 0:
                return prepare(opened.pixels, self.spec)
            return augmented(opened.pixels, self.spec, self.augment, self._rng(image, draw))

    def _rng(self, image: int, draw: int) -> np.random.Generator:
        """Decide one variation of one image."""
        return np.random.default_rng((self.seed, image, draw))

    def _randomised(self, image: int, draw: int) -> npt.NDArray[np.uint8]:
        """One image as another laboratory might show it, perhaps on the ground of another one."""
        rng, side = self._rng(image, draw), self.spec.size[0]
        view = self._view(image, randomised_warp(side, self.augment, rng))
        style, other = sampled_texture(self.augment, rng), None
        if style is None and rng.random() < self.augment.swap:
            neighbour = int(rng.integers(len(self.files)))
            other = self._view(neighbour, ground_warp(side, rng)).pixels
        scale = side / self.spec.width
        return randomised(view, self.augment, rng, style=style, scale=scale, other=other)

    def _view(self, image: int, warp: npt.NDArray[np.float64]) -> CellView:
        """Cut the cell of an image out; it is found once for all epochs, which takes longest."""
        with open_picture(self.files[image], self.spec) as opened:
            if image not in self._found:
                self._found[image] = find_cell(opened.pixels)
            return cell_view(opened.pixels, self._found[image], self.spec, warp=warp)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of pixels and targets for Keras, to be asked for in order (``shuffle=False``).

    Parameters
    ----------
    source : PixelSource
        Makes the pixels.
    targets : (n, classes) float32
        What is to be learned of the source's files: a probability for each class.
    order : callable
        See `Order`.
    batch : int
        Images a batch; the last one of an epoch may be smaller.
    first_epoch : int
        Where a resumed run goes on.
    threads : int
        For decoding and warping.

    Attributes
    ----------
    fault : LeukoError or None
        Why a batch could not be made; TensorFlow passes on only its text.
    """

    def __init__(
        self,
        source: PixelSource,
        targets: npt.NDArray[np.float32],
        order: Order,
        *,
        batch: int,
        first_epoch: int = 0,
        threads: int = 2,
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self._source = source
        self._targets = targets
        self._order = order
        self._batch = batch
        self._epoch = first_epoch
        self._rows = order(first_epoch)
        self.fault: LeukoError | None = None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="leuko-batch")
        # Keras leaves making batches ahead to TensorFlow, and TensorFlow, asked for the same sums
        # in every run, makes none ahead.
        self._begun: dict[int, list[Future[npt.NDArray[np.uint8]]]] = {}

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._rows) // self._batch)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Make one batch: (n, h, w, 3) uint8 and (n, classes) float32."""
        for coming in range(index, min(index + 1 + _AHEAD, self.num_batches)):
            if coming not in self._begun:
                self._begun[coming] = [
                    self._pool.submit(self._source, image, draw)
                    for image, draw in self._rows_of(coming).tolist()
                ]
        try:
            pixels = [picture.result() for picture in self._begun.pop(index)]
        except LeukoError as error:
            self.fault = error
            raise
        return np.stack(pixels), self._targets[self._rows_of(index)[:, 0]]

    def _rows_of(self, index: int) -> npt.NDArray[np.int64]:
        """Name the rows of a batch: (n, 2)."""
        return self._rows[index * self._batch : (index + 1) * self._batch]

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's order."""
        self._epoch += 1
        self._rows = self._order(self._epoch)
        # What fit looked at beforehand, to learn the shapes.
        wait([f for batch in self._begun.values() for f in batch if not f.cancel()])
        self._begun.clear()

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def one_hot(labels: npt.NDArray[np.integer[Any]], classes: int) -> npt.NDArray[np.float32]:
    """Write labels as probabilities.

    Parameters
    ----------
    labels : (n,) int
        Positions in the class order.
    classes : int
        How many there are.

    Returns
    -------
    (n, K) float32
        Each 0 or 1.
    """
    return np.asarray(np.eye(classes, dtype=np.float32)[labels], np.float32)


def training_order(
    recipe: Recipe, labels: npt.NDArray[np.int64], slides: Sequence[str] = ()
) -> Order:
    """Give the order of a training run, epoch by epoch.

    Parameters
    ----------
    recipe : Recipe
        Its ``data``, ``train`` and ``seed``.
    labels : (n,) int64
        Labels of the training rows.
    slides : sequence of str
        Their slides; asked for when classes are drawn evenly over slides. An image of unknown
        slide counts as a slide.

    Returns
    -------
    callable
        See `Order`.
    """
    settings, seed = recipe.data, recipe.seed
    if settings.balance == "sampled":
        batch = recipe.train.batch
        size = batch * (recipe.train.steps or -(-len(labels) // batch))
        chance = _chances(labels, slides, settings)

        def sampled(epoch: int) -> npt.NDArray[np.int64]:
            rng = np.random.default_rng((seed, 1, epoch))
            images = rng.choice(len(labels), size, p=chance)
            draws = epoch * size + np.arange(size)
            return np.column_stack([images, draws])

        return sampled

    if settings.balance == "fixed":
        plan = fixed_plan(labels, seed=seed, per_class=settings.per_class)
    else:
        plan = np.column_stack([np.arange(len(labels)), np.full(len(labels), _NO_DRAW)])
    afresh = settings.balance == "none" and recipe.augment.kind != "none"

    def shuffled(epoch: int) -> npt.NDArray[np.int64]:
        rng = np.random.default_rng((seed, 2, epoch))
        rows = plan[rng.permutation(len(plan))]
        if afresh:
            rows[:, 1] = epoch  # a draw's number is of its image, so no two epochs share one
        return rows

    return shuffled


def _chances(
    labels: npt.NDArray[np.int64], slides: Sequence[str], settings: DataSettings
) -> npt.NDArray[np.float64]:
    """How often each image is drawn: (n,), of sum 1.

    An evenness of 1 gives every class, or every slide of a class, the same weight; 0 its natural
    one.
    """
    within = np.ones(len(labels))
    if settings.slide_evenness > 0:
        names = [slide or f"image:{row}" for row, slide in enumerate(slides)]
        pairs = list(zip(labels.tolist(), names, strict=True))
        sizes = Counter(pairs)
        within = np.array([float(sizes[pair]) ** -settings.slide_evenness for pair in pairs])
    counts = np.bincount(labels).astype(np.float64)
    weights = np.where(counts > 0, counts ** (1 - settings.evenness), 0.0)
    totals = np.bincount(labels, weights=within)
    chance = within * (weights / np.maximum(totals, np.finfo(float).tiny))[labels]
    return np.asarray(chance / chance.sum(), np.float64)


def fixed_plan(
    labels: npt.NDArray[np.int64], *, seed: int, per_class: int = 0
) -> npt.NDArray[np.int64]:
    """List a balanced set once for all epochs: originals first, then varied copies.

    Parameters
    ----------
    labels : (n,) int64
        Labels of the training rows.
    seed : int
        Of the choice among a class's images.
    per_class : int
        Images of each class; 0 takes the largest class's count.

    Returns
    -------
    (m, 2) int64
        Rows of (image, draw); a draw of -1 is the original.
    """
    target = per_class or int(np.bincount(labels).max())
    images = balanced_order(labels, seed=seed, per_class=target)
    draws = copy_numbers(images) - 1
    plan = np.column_stack([images, draws])
    return plan[np.lexsort((plan[:, 1], plan[:, 0]))]


def evaluation_order(count: int) -> Order:
    """Every image once, as it is, in order.

    Parameters
    ----------
    count : int
        Number of images.

    Returns
    -------
    callable
        See `Order`.
    """
    rows = np.column_stack([np.arange(count), np.full(count, _NO_DRAW)])
    return lambda _: rows


def pixel_source(manifest: Manifest, recipe: Recipe) -> PixelSource:
    """Make the source of a manifest's pixels under a recipe.

    Parameters
    ----------
    manifest : Manifest
        Whose files are all readable.
    recipe : Recipe
        Its ``preprocess``, ``augment`` and ``seed``.

    Returns
    -------
    PixelSource
        Ready to call.
    """
    return PixelSource(manifest.files(), recipe.preprocess, recipe.augment, recipe.seed)
