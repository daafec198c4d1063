"""The background test asks whether a classifier can name a cell without seeing it.

Every image is reduced to a few numbers about its outer ring, which holds red cells and plasma
but no white cell. If a classifier on these numbers beats guessing, the classes differ in stain,
light, slide or camera, and any network may learn that in place of the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.errors import MissingExtraError

__all__ = ["RING", "RING_FEATURES", "background_test", "missing_for_background", "ring_features"]

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

_AT_MOST: Final = 800
_AT_LEAST: Final = 5
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


def background_test(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    slides: Sequence[str],
    splits: Sequence[str],
    names: Sequence[str],
    *,
    seed: int = 0,
) -> dict[str, Any]:
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
    dict
        ``accuracy``, ``balanced_accuracy``, ``majority`` (share of the commonest class among the
        tested), ``per_class_recall``, ``ring``, ``trained_on``, ``tested_on``, ``features`` and
        ``sentence``; or ``skipped`` with a reason.

    Raises
    ------
    MissingExtraError
        Without scikit-learn.
    """
    _require_sklearn()
    named = np.asarray(splits)
    train, test = np.flatnonzero(named == "train"), np.flatnonzero(named == "test")
    if len(train) and len(test):
        usable = _usable(labels[train])
        if len(usable) < 2:
            return {"skipped": _too_few(labels[train], names)}
        tested = test[np.isin(labels[test], usable)]
        if not len(tested):
            return {"skipped": "no tested image has a class that the training images teach."}
        trained_on, tested_on = "train", "test"
        learnt = train[np.isin(labels[train], usable)]
        predicted = _fit_predict(features, labels, learnt, tested, seed)
    else:
        everything = np.arange(len(labels))
        usable = _usable(labels)
        if len(usable) < 2:
            return {"skipped": _too_few(labels, names)}
        tested = everything[np.isin(labels, usable)]
        groups = [slides[i] or f"image {i}" for i in tested]
        if len(set(groups)) < 2:
            return {"skipped": "all images come from one slide, so no part can be held out."}
        trained_on = tested_on = "slide-grouped cross-validation"
        predicted = _cross_predict(features, labels, tested, groups, seed)
    truth = labels[tested]
    recall = {
        names[label]: float((predicted[truth == label] == label).mean())
        for label in np.unique(truth)
    }
    counts = np.bincount(truth)
    result = {
        "accuracy": float((predicted == truth).mean()),
        "balanced_accuracy": float(np.mean(list(recall.values()))),
        "majority": float(counts.max() / counts.sum()),
        "majority_class": names[int(counts.argmax())],
        "chance": 1 / len(recall),
        "per_class_recall": recall,
        "n": {names[label]: int(counts[label]) for label in np.unique(truth)},
        "ring": RING,
        "trained_on": trained_on,
        "tested_on": tested_on,
        "features": list(RING_FEATURES),
        "seed": seed,
    }
    result["sentence"] = _sentence(result)
    return result


def _usable(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Classes with enough images to learn anything from."""
    return np.flatnonzero(np.bincount(labels) >= _AT_LEAST)


def _too_few(labels: npt.NDArray[np.int64], names: Sequence[str]) -> str:
    """Say why there is no test."""
    counts = np.bincount(labels, minlength=len(names))
    have = ", ".join(f"{n} of {name}" for name, n in zip(names, counts, strict=True) if n)
    return f"it needs at least {_AT_LEAST} readable images of two classes; there are {have}."


def _fit_predict(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    train: npt.NDArray[np.int64],
    test: npt.NDArray[np.int64],
    seed: int,
) -> npt.NDArray[np.int64]:
    """Learn from some rows and name others."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    rng = np.random.default_rng([1, seed])
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
        random_state=seed,
    )
    # One thread: the sums, and so the trees, do not depend on the machine's cores, and waiting
    # for a second busy core would cost more than it brings on so few rows.
    with threadpool_limits(1):
        model.fit(features[kept], labels[kept])
        return np.asarray(model.predict(features[test]), dtype=np.int64)


def _cross_predict(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    groups: Sequence[str],
    seed: int,
) -> npt.NDArray[np.int64]:
    """Name every row by a classifier that saw none of its slide."""
    from sklearn.model_selection import GroupKFold

    names, group = np.unique(np.asarray(groups), return_inverse=True)
    folds = GroupKFold(min(_FOLDS, len(names)), shuffle=True, random_state=seed)
    predicted = np.full(len(rows), -1, dtype=np.int64)
    for learnt, held_out in folds.split(rows, groups=group):
        if len(np.unique(labels[rows[learnt]])) < 2:
            continue  # nothing to tell apart: those images count as not named
        predicted[held_out] = _fit_predict(features, labels, rows[learnt], rows[held_out], seed)
    return predicted


def _sentence(result: dict[str, Any]) -> str:
    """The verdict in words, beside what guessing reaches."""
    chance = result["chance"]
    given_away = [
        (name, recall)
        for name, recall in result["per_class_recall"].items()
        if recall >= max(0.5, 2 * chance)
    ]
    guess = (
        f"always answering {result['majority_class']} names none of the others, and guessing "
        f"evenly names {100 * chance:.0f}% of each class"
    )
    overall = f"balanced accuracy {result['balanced_accuracy']:.2f} where chance is {chance:.2f}"
    if given_away:
        named = " and ".join(f"{100 * recall:.0f}% of {name}" for name, recall in given_away)
        return (
            f"The background alone, without the cell, names {named} ({overall}); {guess}. A "
            "network may learn stain, slide or camera in place of these cells."
        )
    if result["balanced_accuracy"] >= 1.5 * chance:
        return (
            f"The background alone gives no single class away, but it does better than guessing "
            f"({overall})."
        )
    return f"The background alone does not name the cells ({overall})."
