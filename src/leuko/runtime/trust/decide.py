"""How far an answer is to be trusted: calibrated probability, decision, prediction set.

A network names one of its classes whatever it is shown. What is decided on top of its answer is
all here: `Trust` holds what a bundle says (a temperature, limits, a feature space) and applies it.
How these are fitted on validation pictures is in `leuko.runtime.trust.fit`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.bundle import FeatureSpace, ModelBundle
from leuko.errors import BundleError
from leuko.prediction import DECIMALS, Judgement
from leuko.runtime.network.average import softmax
from leuko.runtime.quality import BLANK, Quality
from leuko.scheme import DIFFERENTIAL_5, ClassScheme, load_scheme, slug_of

__all__ = [
    "LIMITS",
    "NEVER_CHECKED",
    "REASONS",
    "MoreViews",
    "Trust",
    "calibrate",
    "class_limit",
    "feature_distances",
    "prediction_set",
]

Doubles = npt.NDArray[np.float64]

MoreViews = Callable[[npt.NDArray[Any]], npt.NDArray[np.bool_]]
"""From features (N, d) of first views to (N,), true where one view is not enough."""


def class_limit(name: str) -> str:
    """Name of the limit above which a class is in the prediction set.

    Parameters
    ----------
    name : str
        Of a class.

    Returns
    -------
    str
        A key of a bundle's thresholds.
    """
    return f"set_{slug_of(name)}"


LIMITS: Final = (
    "confidence",
    "distance",
    "look",
    "again",
    "nucleus",
    "sharpness",
    "overexposed",
    "underexposed",
    "resolution",
)
"""Every limit that a bundle's thresholds may hold, beside `class_limit` of each class; see
``docs/reference/files.md``."""

REASONS: Final = {
    "not-a-cell": ("blank", "no-nucleus"),
    "unlike-training": ("far-from-training",),
    "unsure": (
        "blurred",
        "overexposed",
        "underexposed",
        "few-pixels",
        "low-confidence",
        "unproven",
    ),
}
"""What a decision may give as its reason, in the order in which they are looked for."""

_LIMIT_OF: Final = {
    "no-nucleus": "nucleus",
    "far-from-training": "distance",
    "blurred": "sharpness",
    "overexposed": "overexposed",
    "underexposed": "underexposed",
    "few-pixels": "resolution",
    "low-confidence": "confidence",
}
"""The one of `LIMITS` that a reason speaks of."""

NEVER_CHECKED: Final = (
    "No answer is accepted: how sure this model must be to be right was never shown. "
    "`leuko models calibrate` finds that out on labelled pictures that it has not seen."
)
"""What a bundle without a limit of confidence has to say."""

_DISTANCE_DECIMALS: Final = 4
_LEAST: Final = 1e-12
_TEMPERATURES: Final = (0.01, 100.0)


@dataclass(frozen=True)
class Trust:
    """What a bundle says on how far its answers are to be trusted.

    Attributes
    ----------
    temperature : float
        Logarithms of probabilities are divided by it; 1 leaves them as they are.
    limits : mapping of str to float
        Keys of `LIMITS` and `class_limit`; what is not there is not looked at.
    space : FeatureSpace or None
        For ``distance``.
    scheme : ClassScheme
        Of the answers.
    """

    temperature: float = 1.0
    limits: Mapping[str, float] = field(default_factory=dict)
    space: FeatureSpace | None = None
    scheme: ClassScheme = field(default_factory=lambda: load_scheme(DIFFERENTIAL_5))

    @classmethod
    def of(cls, bundle: ModelBundle) -> Trust:
        """Read what a bundle says.

        Parameters
        ----------
        bundle : ModelBundle
            Digests checked.

        Returns
        -------
        Trust
            Ready to judge; for a bundle without a limit of confidence, no answer is accepted.

        Raises
        ------
        BundleError
            When it asks for a calibration or a threshold that this version does not know, or
            gives a number that cannot be.
        """
        calibration, limits = bundle.calibration, bundle.thresholds
        method = calibration.get("method")
        keys = {"none": {"method"}, "temperature": {"method", "temperature"}}.get(str(method))
        known = {*LIMITS, *map(class_limit, bundle.scheme.names)}
        if keys is None or {*calibration} != keys or {*limits} - known:
            raise BundleError(
                f"{bundle.name} wants calibration {calibration} and thresholds {sorted(limits)}, "
                "which this Leuko does not apply. Update Leuko to open it."
            )
        temperature = calibration.get("temperature", 1.0)
        low, high = _TEMPERATURES
        if not _is_number(temperature) or not low <= temperature <= high:
            raise BundleError(
                f"{bundle.name} is damaged: its temperature must lie in [{low}, {high}], received "
                f"{temperature!r}."
            )
        for name, value in limits.items():
            if not _is_number(value):
                raise BundleError(
                    f"{bundle.name} is damaged: its threshold {name} must be a number, received "
                    f"{value!r}."
                )
        if bundle.space is None and {"distance", "look", "again"} & {*limits}:
            raise BundleError(
                f"{bundle.name} is damaged: it has a threshold for distances and no feature space."
            )
        numbers = {name: float(value) for name, value in limits.items()}
        return cls(float(temperature), numbers, bundle.space, bundle.scheme)

    @property
    def active(self) -> bool:
        """Whether there is anything to look at in a picture."""
        return bool(self.limits)

    @property
    def accepts(self) -> bool:
        """Whether any answer can be accepted; see `NEVER_CHECKED`."""
        return "confidence" in self.limits

    @property
    def again(self) -> MoreViews | None:
        """Says by the features of first views which pictures are shown again.

        None where every picture is shown in every style, and distances are those of the mean
        features.
        """
        limit, space = self.limits.get("again"), self.space
        if limit is None or space is None:
            return None

        def far(features: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
            # Written so that a distance that is not a number counts as far.
            return ~(feature_distances(space, features) <= limit)

        return far

    def calibrate(self, probabilities: npt.NDArray[Any]) -> Doubles:
        """Apply the temperature; see `calibrate`."""
        return calibrate(probabilities, self.temperature)

    def distances(self, features: npt.NDArray[Any] | None) -> Doubles | None:
        """Measure features, where there are any and there is a space; see `feature_distances`."""
        if self.space is None or features is None:
            return None
        return feature_distances(self.space, features)

    def judge(
        self,
        probabilities: Doubles,
        distance: float | None = None,
        quality: Quality | None = None,
        nucleus: Callable[[], float] | None = None,
    ) -> Judgement:
        """Decide on one answer.

        What holds no cell is said first, then what lies far from training, then what cannot be
        told for its quality or its confidence.

        Parameters
        ----------
        probabilities : (K,) float64
            Calibrated and rounded.
        distance : float, optional
            Of its features.
        quality : Quality, optional
            Of its pixels.
        nucleus : callable, optional
            Gives `leuko.runtime.quality.nucleus_evidence`. It is only asked where there is a
            doubt: it takes longer than everything else here.

        Returns
        -------
        Judgement
            With reason and prediction set.
        """
        members = prediction_set(probabilities, self.limits, self.scheme)
        for decision, reason in self._faults(probabilities, distance, quality, nucleus):
            limit = self.limits.get(_LIMIT_OF.get(reason, ""))
            return Judgement(decision, reason, members, distance, limit)
        return Judgement("class", "", members, distance)

    def _faults(
        self,
        probabilities: Doubles,
        distance: float | None,
        quality: Quality | None,
        nucleus: Callable[[], float] | None,
    ) -> Iterator[tuple[str, str]]:
        """Go through everything that speaks against an answer, the gravest first."""
        limits = self.limits
        if "nucleus" in limits:
            if quality is not None and quality.contrast < BLANK:
                yield "not-a-cell", "blank"
            doubtful = distance is None or not distance <= limits.get("look", -np.inf)
            if nucleus is not None and doubtful and nucleus() < limits["nucleus"]:
                yield "not-a-cell", "no-nucleus"
        # Written so that a distance that is not a number counts as far.
        if distance is not None and not distance <= limits.get("distance", np.inf):
            yield "unlike-training", "far-from-training"
        if quality is not None:
            if quality.sharpness < limits.get("sharpness", -np.inf):
                yield "unsure", "blurred"
            if quality.overexposed > limits.get("overexposed", np.inf):
                yield "unsure", "overexposed"
            if quality.underexposed > limits.get("underexposed", np.inf):
                yield "unsure", "underexposed"
            if quality.resolution < limits.get("resolution", -np.inf):
                yield "unsure", "few-pixels"
        if not self.accepts:
            yield "unsure", "unproven"
        elif float(probabilities.max()) < limits["confidence"]:
            yield "unsure", "low-confidence"


def calibrate(probabilities: npt.NDArray[Any], temperature: float) -> Doubles:
    """Divide the logarithms of probabilities by a temperature.

    Parameters
    ----------
    probabilities : (N, K) float
        As the network's softmax gives them. Logits would give the same: they differ from these
        logarithms by a constant in each row.
    temperature : float
        Above 1 the answers become less certain, below 1 more so. The order never changes.

    Returns
    -------
    (N, K) float64
        Rounded to `DECIMALS`, before anything is decided on them.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017.

    Examples
    --------
    >>> calibrate(np.array([[0.8, 0.2, 0.0, 0.0, 0.0]]), 0.5)[0, :2].round(3)
    array([0.941, 0.059])
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if temperature != 1.0:
        logits = np.log(np.maximum(values, _LEAST)) / temperature
        values = softmax(logits)
    return np.round(values, DECIMALS)


def feature_distances(space: FeatureSpace, features: npt.NDArray[Any]) -> Doubles:
    """Distance of features from the nearest class, where 1 is usual.

    Features are divided by their length. Along the space's axes the distance is that of
    Mahalanobis, with one covariance for all classes; across them, every direction counts alike.
    Together this is Mahalanobis's distance under a covariance that is known along the axes and
    the same in all other directions. It is divided by the number of features, and its root is
    taken.

    Parameters
    ----------
    space : FeatureSpace
        Of ``d`` features.
    features : (N, d) float
        What enters the network's last layer.

    Returns
    -------
    (N,) float64
        Rounded to four decimals; a row does not depend on the others.

    References
    ----------
    Lee, Lee, Lee and Shin, "A simple unified framework for detecting out-of-distribution samples
    and adversarial attacks", NeurIPS 2018. Moghaddam and Pentland, "Probabilistic visual learning
    for object representation", PAMI 19, 1997, for the distance across the axes. Mueller and Hein,
    "Mahalanobis++", ICML 2025, for the division by length.
    """
    mean, axes, whitening, centres, spread = _doubles(space)
    given = np.asarray(features, dtype=np.float64).reshape(len(features), len(mean))
    # A stack of products, each of one row: a single one for all rows would sum in an order that
    # depends on how many there are.
    lengths = np.sqrt(_squares(given))
    offsets = given / np.maximum(lengths, _LEAST)[:, None] - mean
    along = np.matmul(offsets[:, None, :], axes)[:, 0]
    across = np.maximum(_squares(offsets) - _squares(along), 0.0)
    white = np.matmul(along[:, None, :], whitening) - centres
    nearest = np.square(white).sum(axis=2).min(axis=1)
    squares = (nearest + across / spread) / len(mean)
    return np.asarray(np.round(np.sqrt(squares), _DISTANCE_DECIMALS), dtype=np.float64)


def _squares(rows: Doubles) -> Doubles:
    """Sum of the squares of each row: (N,)."""
    return np.asarray(np.matmul(rows[:, None, :], rows[:, :, None])[:, 0, 0], np.float64)


def prediction_set(
    probabilities: Doubles, limits: Mapping[str, float], scheme: ClassScheme
) -> tuple[str, ...]:
    """Classes whose probability reaches their own limit.

    Parameters
    ----------
    probabilities : (K,) float64
        Calibrated and rounded.
    limits : mapping of str to float
        With `class_limit` of every class, or without any.
    scheme : ClassScheme
        Of the probabilities.

    Returns
    -------
    tuple of str
        In class order; the most probable class where none reaches its limit, which can only raise
        the coverage. Empty where there are no limits.

    References
    ----------
    Vovk, "Conditional validity of inductive conformal predictors", ACML 2012. Sadinle, Lei and
    Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", JASA 114, 2019.
    """
    least = [limits.get(class_limit(name)) for name in scheme.names]
    if all(limit is None for limit in least):
        return ()
    members = tuple(
        name
        for name, value, limit in zip(scheme.names, probabilities.tolist(), least, strict=True)
        if limit is None or value >= limit
    )
    return members or (scheme.names[int(np.argmax(probabilities))],)


@functools.lru_cache(maxsize=8)
def _doubles(space: FeatureSpace) -> tuple[Doubles, Doubles, Doubles, Doubles, float]:
    """A space's arrays in double precision, made once."""
    return (
        space.mean.astype(np.float64),
        space.axes.astype(np.float64),
        space.whitening.astype(np.float64),
        space.centres.astype(np.float64),
        float(space.spread[0]),
    )


def _is_number(value: Any) -> bool:
    """Whether JSON gave a finite number."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
