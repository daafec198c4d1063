"""The background test asks whether a classifier can name a cell without seeing it.

Every image is reduced to a few numbers about its outer ring, which holds red cells and plasma
but no white cell. If a classifier on these numbers beats guessing, the classes differ in stain,
light, slide or camera, and any network may learn that in place of the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.errors import MissingExtraError

__all__ = [
    "AT_LEAST",
    "RING",
    "RING_FEATURES",
    "BackgroundSkipped",
    "BackgroundTest",
    "background_test",
    "missing_for_background",
    "ring_features",
]

RING: Final = 0.125
"""Width of the ring on each side, as a fraction of the image's rows or columns."""

_QUANTILES: Final = (0.01, 0.10, 0.25, 0.50, 0.75, 0.90, 0.99)
_CHANNELS: Final = ("red", "green", "blue")
_SIDE: Final = 144
_DETAIL_SIDE: Final = 288

RING_FEATURES: Final = (
    *(f"{channel} {round(100 * q)}%" for channel in _CHANNELS for q in _QUANTILES),
    "red-green mean",
    "green-blue mean",
    "red-green deviation",
    "green-blue deviation",
    *(f"texture {side}" for side in ("top", "bottom", "left", "right")),
)
"""What the classifier is given about each image, in order."""

AT_LEAST: Final = 5
"""Images that a class needs to be learnt."""

_AT_MOST: Final = 800
_FOLDS: Final = 5


def ring_features(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Describe the outer ring of an image: colours, their spread, and fine texture.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        The image. Nothing inside the ring has any influence.

    Returns
    -------
    (29,) float32
        In the order of `RING_FEATURES`: quantiles of each channel in 0 to 255, mean and standard
        deviation of the channel differences, mean absolute Laplacian of each side.
    """
    rows, columns = pixels.shape[:2]
    high, wide = max(1, round(RING * rows)), max(1, round(RING * columns))
    # The sides are cut out before any resizing, so that no average reaches into the centre.
    strips = (
        pixels[:high],
        pixels[rows - high :],
        pixels[high : rows - high, :wide],
        pixels[high : rows - high, columns - wide :],
    )
    scale = _SIDE / min(rows, columns)
    small = np.concatenate([_scaled(strip, scale).reshape(-1, 3) for strip in strips])
    values: list[float] = []
    for channel in range(3):
        histogram = np.bincount(small[:, channel], minlength=256)
        reached = np.cumsum(histogram) / len(small)
        values += [float(np.searchsorted(reached, q)) for q in _QUANTILES]
    wide_values = small.astype(np.int16)
    differences = wide_values[:, :2] - wide_values[:, 1:]
    values += differences.mean(axis=0).tolist()
    values += differences.std(axis=0).tolist()
    detail = min(1.0, _DETAIL_SIDE / min(rows, columns))
    for strip in strips:
        grey = cv2.cvtColor(_scaled(strip, detail), cv2.COLOR_RGB2GRAY)
        values.append(float(np.abs(cv2.Laplacian(grey, cv2.CV_16S)).mean()))
    return np.array(values, dtype=np.float32)


def _scaled(strip: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    """Shrink a strip by averaging; a strip is never enlarged."""
    if scale >= 1:
        return np.ascontiguousarray(strip)
    size = (max(1, round(strip.shape[1] * scale)), max(1, round(strip.shape[0] * scale)))
    return np.asarray(cv2.resize(strip, size, interpolation=cv2.INTER_AREA), np.uint8)


def missing_for_background() -> str:
    """Say before any work what the background test lacks here.

    Returns
    -------
    str
        What is not installed and how to install it; empty when nothing is missing.
    """
    try:
        _require_sklearn("it")
    except MissingExtraError as error:
        return str(error)
    return ""


def _require_sklearn(what: str = "The background test") -> None:
    """Raise when scikit-learn is not there, naming the extra that brings it."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(what, "report", "scikit-learn") from error


@dataclass(frozen=True, slots=True)
class BackgroundTest:
    """What a classifier reaches that sees the rings alone.

    Attributes
    ----------
    accuracy : float, 0 to 1
        Over the tested images.
    majority, majority_class : float, str
        Share and name of the commonest class among them.
    recall : dict of str to float
        Of each tested class.
    n : dict of str to int
        Tested images of each.
    trained_on, tested_on : str
        Splits, or ``slide-grouped cross-validation``.
    seed : int
        Of the test.
    """

    accuracy: float
    majority: float
    majority_class: str
    recall: dict[str, float]
    n: dict[str, int]
    trained_on: str
    tested_on: str
    seed: int

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall."""
        return float(np.mean(list(self.recall.values())))

    @property
    def chance(self) -> float:
        """Recall of a class by guessing evenly."""
        return 1 / len(self.recall)

    @property
    def given_away(self) -> dict[str, float]:
        """Recall of the classes that the background gives away."""
        least = max(0.5, 2 * self.chance)
        return {name: recall for name, recall in self.recall.items() if recall >= least}

    @property
    def beats_guessing(self) -> bool:
        """Whether balanced accuracy is well above chance."""
        return self.balanced_accuracy >= 1.5 * self.chance


@dataclass(frozen=True, slots=True)
class BackgroundSkipped:
    """Why there was no background test.

    Attributes
    ----------
    code : {"not-asked", "missing-package", "unreadable", "too-few", "not-taught", "one-slide"}
        The reason.
    classes : tuple of (str, int)
        For ``too-few``: readable images to learn from, by class.
    detail : str
        For ``missing-package``: what to install.
    """

    code: str
    classes: tuple[tuple[str, int], ...] = ()
    detail: str = ""


@dataclass(frozen=True)
class _Images:
    """What the test is done with."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    names: Sequence[str]
    seed: int

    def too_few(self, rows: npt.NDArray[np.int64]) -> BackgroundSkipped:
        """Tell how many images there are to learn from."""
        counts = np.bincount(self.labels[rows], minlength=len(self.names)).tolist()
        have = tuple((name, n) for name, n in zip(self.names, counts, strict=True) if n)
        return BackgroundSkipped("too-few", have)

    def result(
        self,
        tested: npt.NDArray[np.int64],
        predicted: npt.NDArray[np.int64],
        *,
        on: tuple[str, str],
    ) -> BackgroundTest:
        """Score the answers."""
        truth = self.labels[tested]
        counts = np.bincount(truth)
        present = np.unique(truth)
        return BackgroundTest(
            accuracy=float((predicted == truth).mean()),
            majority=float(counts.max() / counts.sum()),
            majority_class=self.names[int(counts.argmax())],
            recall={
                self.names[label]: float((predicted[truth == label] == label).mean())
                for label in present
            },
            n={self.names[label]: int(counts[label]) for label in present},
            trained_on=on[0],
            tested_on=on[1],
            seed=self.seed,
        )


def background_test(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    slides: Sequence[str],
    splits: Sequence[str],
    names: Sequence[str],
    *,
    seed: int = 0,
) -> BackgroundTest | BackgroundSkipped:
    """Train a classifier on rings and see which classes it names.

    Gradient-boosted trees, with classes weighted equally and at most 800 images of each. Where
    training and test images exist, they are used as such; otherwise the images are split in up to
    five parts without dividing a slide, and each part is named by a classifier trained on the
    others.

    Parameters
    ----------
    features : (N, 29) float32
        From `ring_features`.
    labels : (N,) int64
        Positions in `names`.
    slides : sequence of str
        Slide of every image; empty when unknown.
    splits : sequence of str
        ``train``, ``validation`` or ``test`` for every image.
    names : sequence of str
        Of the classes.
    seed : int
        Decides which images of a large class are used, and the folds.

    Returns
    -------
    BackgroundTest or BackgroundSkipped
        Skipped where there is too little to learn from.

    Raises
    ------
    MissingExtraError
        Without scikit-learn.
    """
    _require_sklearn()
    images = _Images(features, labels, names, seed)
    named = np.asarray(splits)
    train, test = np.flatnonzero(named == "train"), np.flatnonzero(named == "test")
    if len(train) and len(test):
        return _by_split(images, train, test)
    return _by_slide(images, slides)


def _by_split(
    images: _Images, train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]
) -> BackgroundTest | BackgroundSkipped:
    """Learn from the training images and name the test images."""
    usable = _usable(images.labels[train])
    if len(usable) < 2:
        return images.too_few(train)
    tested = test[np.isin(images.labels[test], usable)]
    if not len(tested):
        return BackgroundSkipped("not-taught")
    learnt = train[np.isin(images.labels[train], usable)]
    return images.result(tested, _fit_predict(images, learnt, tested), on=("train", "test"))


def _by_slide(images: _Images, slides: Sequence[str]) -> BackgroundTest | BackgroundSkipped:
    """Name the images of each part of the slides by what the others teach."""
    everything = np.arange(len(images.labels))
    usable = _usable(images.labels)
    if len(usable) < 2:
        return images.too_few(everything)
    tested = everything[np.isin(images.labels, usable)]
    groups = [slides[i] or f"image {i}" for i in tested]
    if len(set(groups)) < 2:
        return BackgroundSkipped("one-slide")
    how = "slide-grouped cross-validation"
    return images.result(tested, _cross_predict(images, tested, groups), on=(how, how))


def _usable(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Classes with enough images to learn anything from."""
    return np.flatnonzero(np.bincount(labels) >= AT_LEAST)


def _fit_predict(
    images: _Images, train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Learn from some rows and name others."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    features, labels = images.features, images.labels
    rng = np.random.default_rng([1, images.seed])
    kept = np.concatenate(
        [rng.permutation(train[labels[train] == c])[:_AT_MOST] for c in np.unique(labels[train])]
    )
    model = HistGradientBoostingClassifier(
        learning_rate=0.15,
        max_iter=60,
        max_leaf_nodes=15,
        min_samples_leaf=min(20, max(1, len(kept) // 20)),
        class_weight="balanced",
        early_stopping=False,
        random_state=images.seed,
    )
    # One thread: the sums, and so the trees, do not depend on the machine's cores, and waiting
    # for a second busy core would cost more than it brings on so few rows.
    with threadpool_limits(1):
        model.fit(features[kept], labels[kept])
        return np.asarray(model.predict(features[test]), dtype=np.int64)


def _cross_predict(
    images: _Images, rows: npt.NDArray[np.int64], groups: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Name every row by a classifier that saw none of its slide."""
    from sklearn.model_selection import GroupKFold

    names, group = np.unique(np.asarray(groups), return_inverse=True)
    folds = GroupKFold(min(_FOLDS, len(names)), shuffle=True, random_state=images.seed)
    predicted = np.full(len(rows), -1, dtype=np.int64)
    for learnt, held_out in folds.split(rows, groups=group):
        if len(np.unique(images.labels[rows[learnt]])) < 2:
            continue  # nothing to tell apart: those images count as not named
        predicted[held_out] = _fit_predict(images, rows[learnt], rows[held_out])
    return predicted
