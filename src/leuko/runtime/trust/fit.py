"""Fit what `leuko.runtime.trust.decide` applies, on labelled pictures that training has not seen.

Everything here is small statistics in NumPy. The pictures should be whole slides that the model
was not trained on: cells of one slide resemble each other, and limits from slides that training
has seen would be too tight for the next one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.bundle import MAX_AXES, FeatureSpace
from leuko.errors import UsageError
from leuko.history import Selection
from leuko.prediction import DECIMALS
from leuko.runtime.trust.decide import class_limit, feature_distances
from leuko.scheme import ClassScheme
from leuko.statistics import error_bound

__all__ = [
    "AXES",
    "FEWEST",
    "MINIMUM",
    "at_a_bound",
    "best_selection",
    "cross_fitted_distances",
    "deal_slides",
    "fit_space",
    "fit_temperature",
    "limit_at",
    "outlier_limit",
    "select_confidence",
    "set_limits",
]

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

AXES: Final = 32
"""Of a fitted feature space; see docs/decisions/0010-what-every-answer-carries.md."""

FOLDS: Final = 5
MINIMUM: Final = 100
"""Fewer pictures say nothing of how far the one in a hundred lies."""

FEWEST: Final = 20
"""Fewer pictures are too few even for a temperature."""

_COVERAGES: Final = (
    1.0, 0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.92, 0.9, 0.87, 0.84, 0.8, 0.75, 0.7, 0.6, 0.5,
    0.4, 0.3, 0.2, 0.1,
)  # fmt: skip
_LEAST: Final = 1e-12
_SHARPEST, _FLATTEST = 0.05, 20.0
_STEPS: Final = 50
_FLOOR: Final = 1e-3


def fit_temperature(probabilities: npt.NDArray[Any], labels: Labels) -> float:
    """Find the temperature with the least log-loss.

    The true class is given the weight ``1 - e`` and ``e`` is spread over all, ``e = 1 / (n + 2)``:
    otherwise pictures that are all answered rightly would want a temperature of zero.

    Parameters
    ----------
    probabilities : (N, K) float
        As the network gives them.
    labels : (N,) int
        True classes.

    Returns
    -------
    float
        0.05 to 20, four decimals.

    Raises
    ------
    UsageError
        When there are no rows.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017. Platt,
    "Probabilistic outputs for support vector machines", 1999, for the softened targets.

    Examples
    --------
    >>> answers = np.array([[0.9, 0.1, 0, 0, 0]] * 3 + [[0.1, 0.9, 0, 0, 0]])
    >>> fit_temperature(answers, np.array([0, 0, 1, 0])) > 1
    True
    """
    if len(labels) == 0:
        raise UsageError("A temperature needs at least one labelled picture; received none.")
    logits = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), _LEAST))
    soft = 1.0 / (len(labels) + 2)
    targets = np.full(logits.shape, soft / logits.shape[1])
    targets[np.arange(len(labels)), labels] += 1 - soft

    def loss(coldness: float) -> float:
        scaled = logits * coldness
        top = scaled.max(axis=1, keepdims=True)
        norm = np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0]
        return float((norm - (targets * scaled).sum(axis=1)).mean())

    # The loss is convex in 1 / T, so a golden section of its logarithm finds the one minimum.
    low, high = math.log(1 / _FLATTEST), math.log(1 / _SHARPEST)
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = loss(math.exp(left)), loss(math.exp(right))
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = loss(math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = loss(math.exp(right))
    return round(math.exp(-(low + high) / 2), 4)


def at_a_bound(temperature: float) -> bool:
    """Whether a temperature is one that no picture asked for: an end of the range searched.

    Parameters
    ----------
    temperature : float
        From `fit_temperature`.

    Returns
    -------
    bool
        True where a still lower or a still higher one would have fitted better.
    """
    return not _SHARPEST < temperature < _FLATTEST


def limit_at(limit: float, ratio: float, classes: int, *, stricter: bool) -> float:
    """Take a limit of probability over to another temperature.

    At another temperature a probability becomes another one, and which depends on how the rest is
    spread over the other classes. The limit given back errs to one side for every spread.

    Parameters
    ----------
    limit : float
        In [0, 1].
    ratio : float
        The old temperature divided by the new one, above 0.
    classes : int
        How many there are.
    stricter : bool
        True: what was below the limit is below the new one. False: what reached the limit reaches
        the new one.

    Returns
    -------
    float
        As many decimals as probabilities have.

    Examples
    --------
    >>> limit_at(0.9, 2.0, 5, stricter=True), limit_at(0.9, 2.0, 5, stricter=False)
    (0.996924, 0.987804)
    >>> limit_at(0.9, 0.5, 5, stricter=True), limit_at(0.9, 0.5, 5, stricter=False)
    (0.75, 0.6)
    """
    if not 0 < limit < 1 or ratio == 1:
        return limit
    # The odds of p against q, ... become p ** r / (q ** r + ...). The sum below the line has its
    # ends where one other class has all the rest, and where all others have alike.
    alone = ratio * math.log(limit / (1 - limit))
    spread = alone + (ratio - 1) * math.log(classes - 1)
    odds = max(alone, spread) if stricter else min(alone, spread)
    share, unit = (1 + math.tanh(odds / 2)) / 2, 10**DECIMALS
    return (math.ceil(share * unit - 1e-6) if stricter else math.floor(share * unit + 1e-6)) / unit


def select_confidence(
    confidence: Doubles, right: npt.NDArray[np.bool_], *, accuracy: float, level: float = 0.95
) -> Selection | None:
    """Find the limit of confidence that answers most pictures and reaches a stated accuracy.

    It is the lower limit of the accuracy that has to reach it, at the level given, over all the
    limits that are tried (Bonferroni). That holds for pictures drawn like these, one by one.
    Pictures of one slide hang together, so on few slides it promises too much.

    Parameters
    ----------
    confidence : (N,) float64
        Largest probability of each answer, rounded as it will be when it is compared.
    right : (N,) bool
        Which answers are right.
    accuracy : float
        Wanted of the answers that are given, in (0, 1).
    level : float
        Probability that it is reached, in (0, 1).

    Returns
    -------
    Selection or None
        None when no limit reaches it.

    References
    ----------
    Geifman and El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017:
    selection with guaranteed risk, by the same bound. They search by halves, which takes the risk
    to grow with the coverage; here a fixed list of coverages is tried.
    """
    for one in _selections(confidence, right, level, most_errors=1 - accuracy):
        # The complement is not taken twice: it would not give the same number back.
        if one.bound <= 1 - accuracy:
            return one.selection
    return None


def best_selection(
    confidence: Doubles, right: npt.NDArray[np.bool_], *, least: float = 0.0, level: float = 0.95
) -> Selection | None:
    """Find the limit of confidence whose answers have the highest lower limit of accuracy.

    Parameters
    ----------
    confidence, right
        See `select_confidence`.
    least : float
        The limit is at least this.
    level : float
        Of the lower limits, over all that are tried, in (0, 1).

    Returns
    -------
    Selection or None
        Of equally good limits the one that answers most; `least` itself is one of them. None when
        no answer reaches `least`.
    """
    found = [
        one.selection
        for one in _selections(confidence, right, level, least=least)
        if one.selection.confidence >= least
    ]
    return max(found, key=lambda one: one.accuracy_low, default=None)


@dataclass(frozen=True, slots=True)
class _Tried:
    """A limit of confidence, and the largest error that is plausible above it."""

    selection: Selection
    bound: float


def _selections(
    confidence: Doubles,
    right: npt.NDArray[np.bool_],
    level: float,
    *,
    most_errors: float = 1.0,
    least: float | None = None,
) -> Iterator[_Tried]:
    """Try limits of confidence, the lowest first, leaving out those with a larger share of errors.

    These are the limits of `_COVERAGES`, and `least` before them; each bound holds for all.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked, errors = confidence[order], np.cumsum(~right[order])
    tried = len(_COVERAGES) + (least is not None)
    places = [max(0, math.ceil(coverage * len(ranked)) - 1) for coverage in _COVERAGES]
    values = [float(ranked[place]) for place in places if len(ranked)]
    for value in values if least is None else [least, *values]:
        # Of equal confidences all are answered or none.
        n = int(np.searchsorted(-ranked, -value, side="right"))
        if n == 0 or int(errors[n - 1]) / n > most_errors:
            continue
        bound = error_bound(int(errors[n - 1]), n, (1 - level) / tried)
        yield _Tried(
            Selection(
                confidence=value,
                coverage=n / len(ranked),
                accuracy=1 - int(errors[n - 1]) / n,
                accuracy_low=1 - bound,
            ),
            bound,
        )


def set_limits(
    probabilities: Doubles, labels: Labels, scheme: ClassScheme, *, coverage: float
) -> dict[str, float]:
    """Find for each class the probability above which it belongs into the prediction set.

    Of the next picture of a class, the set holds that class with at least the coverage stated,
    for every class by itself, whatever the network is worth, if the picture is drawn like these.

    Parameters
    ----------
    probabilities : (N, K) float64
        Calibrated and rounded.
    labels : (N,) int
        True classes.
    scheme : ClassScheme
        Of both.
    coverage : float
        In (0, 1).

    Returns
    -------
    dict of str to float
        By `leuko.runtime.trust.decide.class_limit`. A class with too few pictures to say gets 0: it
        is in every set.

    References
    ----------
    Vovk, "Conditional validity of inductive conformal predictors", ACML 2012. Sadinle, Lei and
    Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", JASA 114, 2019.
    """
    limits = {}
    for index, name in enumerate(scheme.names):
        own = np.sort(probabilities[labels == index, index])
        # A hair is taken off, lest 20 times 0.05 be less than 1.
        allowed = math.floor((len(own) + 1) * (1 - coverage) + 1e-9)
        limits[class_limit(name)] = float(own[allowed - 1]) if allowed >= 1 else 0.0
    return limits


def fit_space(
    features: npt.NDArray[Any], labels: Labels, *, axes: int = AXES
) -> FeatureSpace | None:
    """Learn where features lie.

    Parameters
    ----------
    features : (N, d) float
        What enters the network's last layer.
    labels : (N,) int
        True classes.
    axes : int
        How many directions to know by themselves, at most `MAX_AXES`; fewer are taken where there
        are fewer than eight pictures for each.

    Returns
    -------
    FeatureSpace or None
        Without golden distances. None where the features do not differ.

    Raises
    ------
    UsageError
        When more than `MAX_AXES` axes are wanted.

    References
    ----------
    See `leuko.runtime.trust.decide.feature_distances`.
    """
    if not 1 <= axes <= MAX_AXES:
        raise UsageError(f"A feature space has 1 to {MAX_AXES} axes, received {axes}.")
    values = np.asarray(features, dtype=np.float64)
    values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), _LEAST)
    centred = values - values.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred / max(1, len(values)))
    known = int((variances > _LEAST).sum())
    count = min(axes, len(values) // 8, known, values.shape[1])
    if count < 1:
        return None
    chosen = directions[:, ::-1][:, :count]
    # An axis may point either way; without this, another library would give other files.
    chosen = chosen * np.where(chosen[np.abs(chosen).argmax(axis=0), range(count)] < 0, -1.0, 1.0)
    # From here on with the numbers that will be written.
    mean, kept = values.mean(axis=0).astype(np.float16), chosen.astype(np.float16)
    offsets = values - mean.astype(np.float64)
    along = offsets @ kept.astype(np.float64)
    present = np.unique(labels)
    means = np.stack([along[labels == c].mean(axis=0) for c in present])
    within = along - means[np.searchsorted(present, labels)]
    spreads, turns = np.linalg.eigh(within.T @ within / len(values))
    spreads = np.maximum(spreads, max(_FLOOR * float(spreads.mean()), 1e-8))
    whitening = (turns / np.sqrt(spreads) @ turns.T).astype(np.float16)
    rest = np.square(offsets).sum(axis=1) - np.square(along).sum(axis=1)
    others = values.shape[1] - count
    spread = float(np.maximum(rest, 0).mean()) / others if others else 1.0
    return FeatureSpace(
        mean=mean,
        axes=kept,
        whitening=whitening,
        centres=(means @ whitening.astype(np.float64)).astype(np.float16),
        spread=np.array([max(spread, 1e-8)], np.float32),
        goldens=np.zeros(0, np.float32),
    )


def cross_fitted_distances(
    features: npt.NDArray[Any],
    labels: Labels,
    groups: Sequence[str],
    *,
    axes: int = AXES,
    seed: int = 0,
) -> Doubles:
    """Distance of every picture in a space that was learned without its slide.

    Parameters
    ----------
    features : (N, d) float
        What enters the network's last layer.
    labels : (N,) int
        True classes.
    groups : sequence of str
        Slide of each picture; pictures of one slide are left out together. A slide that alone
        shows a class is an exception: its pictures are dealt to all folds, otherwise nobody would
        know that class.
    axes : int
        See `fit_space`.
    seed : int
        Of the dealing.

    Returns
    -------
    (N,) float64
        See `leuko.runtime.trust.decide.feature_distances`; infinite where nothing could be learned.
    """
    folds = deal_slides(labels, groups, seed)
    distances = np.full(len(labels), np.inf)
    for fold in range(FOLDS):
        held = folds == fold
        if held.any() and not held.all():
            space = fit_space(features[~held], labels[~held], axes=axes)
            if space is not None:
                distances[held] = feature_distances(space, features[held])
    return distances


def outlier_limit(distances: Doubles, *, alarms: float) -> float:
    """Distance that a picture like these exceeds with at most the probability given.

    Parameters
    ----------
    distances : (N,) float64
        Of pictures that the space was not learned from.
    alarms : float
        In (0, 1).

    Returns
    -------
    float
        One of the distances; infinite where there are too few to say.

    References
    ----------
    Laxhammar and Falkman, "Conformal prediction for distribution-independent anomaly detection",
    2010; Bates, Candès, Lei, Romano and Sesia, "Testing for outliers with conformal p-values",
    Annals of Statistics 51, 2023.
    """
    place = math.ceil((len(distances) + 1) * (1 - alarms) - 1e-9)
    return float(np.sort(distances)[place - 1]) if place <= len(distances) else math.inf


def deal_slides(labels: Labels, groups: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    """Deal slides to folds, the largest first to the fold that is smallest.

    Parameters
    ----------
    labels, groups, seed
        See `cross_fitted_distances`.

    Returns
    -------
    (N,) int64
        Fold of each picture, 0 to 4.
    """
    names, which = np.unique(np.asarray(groups), return_inverse=True)
    rng = np.random.default_rng([seed, 11])
    folds = np.full(len(labels), -1, dtype=np.int64)
    for label in np.unique(labels):
        own = np.unique(which[labels == label])
        if len(own) == 1:
            rows = np.flatnonzero(which == own[0])
            folds[rows] = rng.permutation(len(rows)) % FOLDS
    sizes = np.bincount(folds[folds >= 0], minlength=FOLDS)
    left = [group for group in range(len(names)) if folds[which == group][0] < 0]
    for group in sorted(left, key=lambda one: (-(which == one).sum(), names[one])):
        fold = int(np.argmin(sizes))
        folds[which == group] = fold
        sizes[fold] += int((which == group).sum())
    return folds
