"""Intervals: a percentile bootstrap over slides, and Wilson's where that cannot serve.

Cells of one slide share its stain, its light and its patient, so they are resampled together.
A resample is a sum of per-slide counts: nothing in the loop knows how many images there are, and
slides with equal counts are drawn together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
from leuko.evaluation.metrics import confusion_by_slide
from leuko.statistics import (
    LEVEL,
    WILSON,
    WILSON_BY_SLIDE,
    least_effect,
    wilson_interval,
)

__all__ = [
    "OVER_IMAGES",
    "OVER_SLIDES",
    "ResampledConfusions",
    "Resamples",
    "accuracy_interval",
    "percentile_interval",
    "proportion_interval",
    "resample_confusions",
    "resample_slides",
    "slides_are_known",
]

OVER_SLIDES: Final = "percentile bootstrap over slides"
OVER_IMAGES: Final = "percentile bootstrap over images"

_DRAWS_FOR_EACH: Final = 100
_NUMBERS_AT_ONCE: Final = 4_000_000


@dataclass(frozen=True)
class Resamples:
    """Sums of counts over resampled slides.

    Attributes
    ----------
    sums : (R, D) float64
        One row for each resample.
    redrawn : int
        Resamples that lacked a class and were drawn again.
    """

    sums: npt.NDArray[np.float64]
    redrawn: int


def resample_slides(
    counts: npt.ArrayLike,
    required: npt.ArrayLike,
    *,
    seed: int,
    resamples: int,
    times: npt.ArrayLike | None = None,
) -> Resamples:
    """Draw slides with replacement and add up their counts.

    Each resample draws as many slides as there are. One in which a class is missing that the
    whole set has is drawn again and counted. Five classes make this worst with one class on each
    of five slides, when 120 of 3,125 resamples have them all (about 26 draws for each); after
    100 draws for each wanted resample the drawing stops, and there are fewer than asked for.

    Parameters
    ----------
    counts : (S, D) number
        What each slide adds to the sums.
    required : (S, C) number
        Images of each class on each slide. The order of slides changes nothing.
    seed : int
        Seed of the drawing.
    resamples : int
        How many to keep.
    times : (S,) int, optional
        How many slides each row stands for; 1 when left out.

    Returns
    -------
    Resamples

    Raises
    ------
    DataError
        When there is no slide, or fewer than one resample is asked for.
    """
    values = np.asarray(counts, dtype=np.float64)
    members = np.asarray(required, dtype=np.float64)
    if len(values) == 0 or resamples < 1:
        raise DataError(
            f"Received {len(values)} slides and {resamples} resamples, expected at least 1 of each."
        )
    columns = values.shape[1]
    repeats = np.ones(len(values)) if times is None else np.asarray(times, dtype=np.float64)
    units = round(float(repeats.sum()))
    # Equal slides are interchangeable: drawing how often each kind comes is the same draw, and
    # bounds the work when every image is its own slide.
    kinds, kind = np.unique(np.concatenate((values, members), axis=1), axis=0, return_inverse=True)
    share = np.bincount(kind.ravel(), weights=repeats) / units
    needed = np.flatnonzero(members.sum(axis=0) > 0) + columns
    at_once = max(1, min(resamples, _NUMBERS_AT_ONCE // len(kinds)))
    generator = np.random.default_rng(seed)
    kept: list[npt.NDArray[np.float64]] = []
    accepted = drawn = redrawn = 0
    while accepted < resamples and drawn < _DRAWS_FOR_EACH * resamples:
        weights = generator.multinomial(units, share, size=at_once).astype(np.float64)
        sums = weights @ kinds
        complete = (sums[:, needed] > 0.5).all(axis=1)
        good = np.flatnonzero(complete)[: resamples - accepted]
        used = int(good[-1]) + 1 if accepted + len(good) == resamples else at_once
        kept.append(sums[good, :columns])
        accepted += len(good)
        redrawn += used - len(good)
        drawn += used
    return Resamples(np.concatenate(kept), redrawn)


@dataclass(frozen=True)
class ResampledConfusions:
    """Confusion matrices of several models over the same resamples.

    Attributes
    ----------
    confusion : (R, M, K, K) float64
        One matrix for each resample and model.
    method : str
        `OVER_SLIDES`, or `OVER_IMAGES` where the slides are not known.
    redrawn : int
        Resamples that lacked a class and were drawn again.
    """

    confusion: npt.NDArray[np.float64]
    method: str
    redrawn: int


def resample_confusions(
    y_true: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    slides: Sequence[str],
    classes: int,
    *,
    seed: int,
    resamples: int,
) -> ResampledConfusions:
    """Resample the confusion matrices of models that answered the same images.

    Slides are resampled when there are at least two, one of which holds two images or more;
    otherwise nothing is known about slides and images are resampled, which takes cells for
    independent and gives intervals that are too narrow.

    Parameters
    ----------
    y_true : (N,) int64, 0 to K - 1
        True classes.
    predicted : (M, N) int64, 0 to K - 1
        The answers of each of M models.
    slides : sequence of N str
        Slide of each image.
    classes : int
        How many classes there are.
    seed : int
        Seed of the drawing.
    resamples : int
        How many to keep.

    Returns
    -------
    ResampledConfusions
    """
    models = len(predicted)
    times: npt.NDArray[np.int64] | None = None
    if slides_are_known(slides):
        method = OVER_SLIDES
        tables = np.stack(
            [confusion_by_slide(y_true, one, slides, classes)[1] for one in predicted], axis=1
        )
    else:
        method = OVER_IMAGES
        rows, times = np.unique(
            np.concatenate((y_true[np.newaxis], predicted)), axis=1, return_counts=True
        )
        tables = np.zeros((rows.shape[1], models, classes, classes), dtype=np.int64)
        for model in range(models):
            tables[np.arange(rows.shape[1]), model, rows[0], rows[1 + model]] = 1
    drawn = resample_slides(
        tables.reshape(len(tables), -1),
        tables[:, 0].sum(axis=-1),
        seed=seed,
        resamples=resamples,
        times=times,
    )
    shape = (len(drawn.sums), models, classes, classes)
    return ResampledConfusions(drawn.sums.reshape(shape), method, drawn.redrawn)


def slides_are_known(slides: Sequence[str]) -> bool:
    """Whether the slide names group the images at all.

    Parameters
    ----------
    slides : sequence of N str
        Slide of each image.

    Returns
    -------
    bool
        False when there is one name in all, or another one for every image.
    """
    return 1 < len(set(slides)) < len(slides)


def percentile_interval(
    values: npt.ArrayLike, *, level: float = LEVEL
) -> tuple[float, float] | None:
    """Central share of a statistic's bootstrap values.

    Parameters
    ----------
    values : (R,) float
        The statistic in each resample; not-a-number means that it was not defined there.
    level : float, 0 to 1
        Share of the values between the ends.

    Returns
    -------
    (low, high) or None
        None when no value is defined.

    References
    ----------
    B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, chapter 13, 1993.
    """
    defined = np.asarray(values, dtype=np.float64)
    defined = defined[np.isfinite(defined)]
    if defined.size == 0:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def accuracy_interval(
    right: int, n: int, slides: int, values: npt.ArrayLike, method: str
) -> tuple[tuple[float, float] | None, str]:
    """Interval of the accuracy, which is one proportion.

    Where slides are not known it is Wilson's, otherwise see `proportion_interval`.

    Parameters
    ----------
    right, n : int
        Right answers, and all; at least one.
    slides : int
        Slides that they are from.
    values : (R,) float
        The accuracy in each resample.
    method : str
        What was resampled, `OVER_SLIDES` or `OVER_IMAGES`.

    Returns
    -------
    interval : (float, float) or None
        None where there is no resample.
    method : str
        How it was found.
    """
    if method == OVER_IMAGES:
        return wilson_interval(right, n), WILSON
    return proportion_interval(right, n, slides, values, method)


def proportion_interval(
    k: int, n: int, slides: int, values: npt.ArrayLike, method: str
) -> tuple[tuple[float, float] | None, str]:
    """Interval of a proportion, also where no resample differs from another.

    Where all of the images are right (or wrong) resampling cannot see that the next one may be
    wrong (or right); Wilson's interval can, with the images divided by the design effect that is
    assumed then, `leuko.statistics.least_effect`. So it is where every slide has the same share.

    Parameters
    ----------
    k, n : int
        Images that count, and all.
    slides : int
        Slides that they are from.
    values : (R,) float
        The proportion in each resample; not-a-number where it was not defined.
    method : str
        What was resampled, `OVER_SLIDES` or `OVER_IMAGES`.

    Returns
    -------
    interval : (float, float) or None
        None where there is no image, or no resample.
    method : str
        How it was found: `method`, or `WILSON_BY_SLIDE`.
    """
    drawn = np.asarray(values, dtype=np.float64)
    drawn = drawn[np.isfinite(drawn)]
    if n == 0 or (k not in (0, n) and (drawn.size == 0 or drawn.min() < drawn.max())):
        return percentile_interval(drawn), method
    effect = least_effect(n, slides, min(k, n - k))
    return wilson_interval(k / effect, n / effect), WILSON_BY_SLIDE
