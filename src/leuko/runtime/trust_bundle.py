"""Give a bundle what it takes to doubt: fit everything that `leuko.runtime.trust` applies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.bundle import FeatureSpace, Goldens, ModelBundle
from leuko.errors import DataError, ImageError, UsageError
from leuko.manifest import Manifest
from leuko.parallel import Progress
from leuko.runtime.classifier import Observation, OnnxClassifier, make_goldens
from leuko.runtime.quality import Quality
from leuko.runtime.sources import file_source
from leuko.runtime.trust import Trust, calibrate, feature_distances
from leuko.runtime.trust_fit import (
    AXES,
    MINIMUM,
    cross_fitted_distances,
    fit_space,
    fit_temperature,
    outlier_limit,
    select_confidence,
    set_limits,
)
from leuko.taxonomy import CLASSES

__all__ = [
    "ALWAYS_NAMES",
    "NOT_CALIBRATED",
    "SEARCHED",
    "TrustTargets",
    "fit_trust",
    "trust_card",
    "without_trust",
]

ALWAYS_NAMES: Final = (
    "It always names one of the five, also for pictures that hold no white blood cell."
)
NOT_CALIBRATED: Final = "Probabilities are not calibrated."
"""Sentences of a model card that stop being true; see `fit_trust`."""

AGAIN: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of ordinary pictures, the furthest from training, that may be looked at in every style:
the least of them that loses no right answer is taken."""

SEARCHED: Final = 0.2
"""Share of ordinary pictures, the furthest from training, that are searched for their nucleus."""

_RARE: Final = 0.002
_NUCLEUS_MARGIN: Final = 0.8
_NUCLEUS_MOST: Final = 0.5
_RESOLUTION_MARGIN: Final = 1 / 3
_SHARPNESS_MARGIN: Final = 0.6
_SHARE_MARGIN: Final = 0.02
"""What is a little worse than the worst validation picture may still be told; decision 0010."""

_BINS: Final = 15

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrustTargets:
    """What is promised.

    Attributes
    ----------
    accuracy : float
        Of the answers that are not ``unsure`` for their confidence; see
        `leuko.runtime.trust_fit.select_confidence`.
    level : float
        Probability that it is reached, for pictures drawn like those that it is fitted on.
    coverage : float
        Of the prediction sets, for each class.
    alarms : float
        Share of ordinary pictures that may be called ``unlike-training``.
    """

    accuracy: float = 0.99
    level: float = 0.95
    coverage: float = 0.98
    alarms: float = 0.01

    def __post_init__(self) -> None:
        """Refuse what cannot be promised."""
        for name, value in asdict(self).items():
            if not 0 < value < 1:
                raise UsageError(f"{name} must lie between 0 and 1, received {value}.")


def without_trust(bundle: ModelBundle) -> ModelBundle:
    """Take calibration and decisions out of a bundle again.

    Parameters
    ----------
    bundle : ModelBundle
        Any.

    Returns
    -------
    ModelBundle
        Whose every answer stands, as the network gives it.
    """
    if bundle.calibration == {"method": "none"} and not bundle.thresholds and bundle.space is None:
        return bundle
    return replace(
        bundle,
        goldens=make_goldens(bundle.onnx, bundle.preprocess),
        calibration={"method": "none"},
        thresholds={},
        space=None,
        validation={k: v for k, v in bundle.validation.items() if k != "trust"},
    )


def fit_trust(
    bundle: ModelBundle,
    manifest: Manifest,
    *,
    seed: int = 0,
    targets: TrustTargets | None = None,
    axes: int = AXES,
    searched: float | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> ModelBundle:
    """Fit temperature, limits and feature space on labelled pictures.

    Parameters
    ----------
    bundle : ModelBundle
        Its own calibration and thresholds are put aside.
    manifest : Manifest
        Pictures that the model was not trained on, best of whole slides that training has not
        seen; the limits are only worth what these pictures are.
    seed : int
        Of the dealing of slides to folds.
    targets : TrustTargets, optional
        What is promised; the defaults when None.
    axes : int
        See `leuko.runtime.trust_fit.fit_space`; fewer make a smaller bundle.
    searched : float, optional
        Share of ordinary pictures to search for their nucleus, 0 to 1. Fewer take less time, and
        the features alone must tell more of what is no cell. When None, what the bundle was
        fitted with before, or `SEARCHED`.
    threads : int, optional
        See `OnnxClassifier`.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.
    say : callable, optional
        Called with sentences for a person: what could not be fitted, and why.

    Returns
    -------
    ModelBundle
        With the measured figures under ``validation["trust"]`` and in its card.

    Raises
    ------
    DataError
        When no picture could be read.
    UsageError
        When a share is none.
    """
    tell = say or (lambda _: None)
    if searched is None:
        searched = float(bundle.validation.get("trust", {}).get("searched", SEARCHED))
    if not 0.0 <= searched <= 1.0:
        raise UsageError(f"The share to be searched must lie in [0, 1], received {searched}.")
    promised = targets or TrustTargets()
    plain = without_trust(bundle)
    classifier = OnnxClassifier(plain, threads=threads, features=True)
    seen = _observe(classifier, manifest, progress, tell)
    groups = [slide or f"image {row}" for row, slide in enumerate(seen.slides)]
    notes = _Notes(tell)
    known = sum(bool(slide) for slide in seen.slides)
    if known < len(groups) / 2:
        notes.add("Most pictures tell no slide, so limits were set as if each were its own.")
    limits: dict[str, float] = {}
    seen, looked_again = _fit_again(seen, groups, limits, seed=seed, axes=axes)
    temperature = fit_temperature(seen.probabilities, seen.labels)
    calibrated = calibrate(seen.probabilities, temperature)
    report: dict[str, Any] = {
        "n": len(seen.labels),
        "n_slides": len({slide for slide in seen.slides if slide}),
        "data": manifest.digest,
        "seed": seed,
        "targets": asdict(promised),
        "temperature": temperature,
        "log_loss": [_log_loss(p, seen.labels) for p in (seen.probabilities, calibrated)],
        "ece": [_ece(p, seen.labels) for p in (seen.probabilities, calibrated)],
    }
    if looked_again is not None:
        report["again"] = looked_again
    _fit_selection(calibrated, seen.labels, promised, limits, report, notes)
    _fit_sets(calibrated, seen.labels, promised, limits, report, notes)
    _fit_quality(seen.observations, limits, notes)
    space = _fit_distance(
        seen, groups, promised, limits, report, notes, seed=seed, axes=axes, searched=searched
    )
    trust = Trust(temperature, limits, space)
    outputs = classifier.ask(list(plain.goldens.pictures), trust)
    if space is not None:
        space = replace(space, goldens=feature_distances(space, outputs[1]).astype(np.float32))
    report["decisions"] = _decisions(trust, seen, calibrated, report.pop("distances", None))
    report["notes"] = notes.lines
    validation = {**plain.validation, "trust": _rounded(report)}
    fitted = replace(
        plain,
        goldens=Goldens(plain.goldens.pictures, trust.calibrate(outputs[0]).astype(np.float32)),
        calibration={"method": "temperature", "temperature": temperature},
        thresholds=limits,
        space=space,
        validation=validation,
    )
    return replace(fitted, card=trust_card(fitted))


@dataclass(frozen=True, slots=True)
class _Seen:
    """Everything observed of the pictures that could be read."""

    observations: list[Observation]
    probabilities: Doubles
    features: npt.NDArray[np.float32] | None
    labels: Labels
    slides: list[str]


class _Notes:
    """Sentences on what could not be promised, told at once and kept."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.lines: list[str] = []
        self._tell = tell

    def add(self, sentence: str) -> None:
        """Take one more."""
        self.lines.append(sentence)
        self._tell(sentence)


def _observe(
    classifier: OnnxClassifier,
    manifest: Manifest,
    progress: Progress | None,
    tell: Callable[[str], None],
) -> _Seen:
    """Run the network on every picture, leaving out, by name, what cannot be read."""
    found: list[Observation] = []
    kept: list[int] = []
    rows = classifier.observe(file_source(file) for file in manifest.files())
    for index, row in enumerate(rows):
        if isinstance(row, ImageError):
            tell(f"Rejected {manifest.samples[index].path} ({row.reason}: {row.detail})")
        else:
            found.append(row)
            kept.append(index)
        if progress is not None:
            progress("calibrating", index + 1, len(manifest))
    if not found:
        raise DataError(f"Not one of the {len(manifest)} images in {manifest.root} could be read.")
    return _Seen(
        observations=found,
        probabilities=np.stack([one.probabilities for one in found]),
        features=_together([one.features for one in found]),
        labels=np.asarray(manifest.labels, dtype=np.int64)[kept],
        slides=[manifest.samples[index].slide for index in kept],
    )


def _together(features: list[npt.NDArray[np.float32] | None]) -> npt.NDArray[np.float32] | None:
    """Stack features, (N, d) float32; None where the graph does not show them."""
    kept = [one for one in features if one is not None]
    return np.stack(kept) if len(kept) == len(features) else None


def _fit_again(
    seen: _Seen, groups: list[str], limits: dict[str, float], *, seed: int, axes: int
) -> tuple[_Seen, float | None]:
    """Set from which distance on pictures are looked at again: (as seen then, share of them).

    Distances are those of the first look then. Nothing changes where there is one look, or where
    every share of `AGAIN` loses an answer.
    """
    alone = np.stack([one.first_probabilities for one in seen.observations])
    features = _together([one.first_features for one in seen.observations])
    if (alone == seen.probabilities).all() or features is None:
        return seen, None
    if len(seen.labels) < MINIMUM or len(set(groups)) < 2:
        return seen, None
    distances = cross_fitted_distances(features, seen.labels, groups, axes=axes, seed=seed)
    if not np.isfinite(distances).all() or fit_space(features, seen.labels, axes=axes) is None:
        return seen, None
    right = int((seen.probabilities.argmax(axis=1) == seen.labels).sum())
    for share in AGAIN:
        limit = _quantile(distances.tolist(), 1.0 - share)
        far = distances > limit
        answers = np.where(far[:, None], seen.probabilities, alone)
        if int((answers.argmax(axis=1) == seen.labels).sum()) >= right:
            limits["again"] = limit
            return replace(seen, probabilities=answers, features=features), float(far.mean())
    return seen, None


def _fit_selection(
    calibrated: Doubles,
    labels: Labels,
    targets: TrustTargets,
    limits: dict[str, float],
    report: dict[str, Any],
    notes: _Notes,
) -> None:
    """Set the limit of confidence."""
    best, right = calibrated.max(axis=1), calibrated.argmax(axis=1) == labels
    chosen = select_confidence(best, right, accuracy=targets.accuracy, level=targets.level)
    if chosen is None:
        report["selection"] = None
        notes.add(
            f"An accuracy of {targets.accuracy:.1%} cannot be promised from these "
            f"{len(labels)} pictures, so no answer is unsure for its confidence."
        )
        return
    limits["confidence"] = chosen.confidence
    report["selection"] = asdict(chosen)


def _fit_sets(
    calibrated: Doubles,
    labels: Labels,
    targets: TrustTargets,
    limits: dict[str, float],
    report: dict[str, Any],
    notes: _Notes,
) -> None:
    """Set the limits of the prediction sets."""
    needed = math.ceil(1 / (1 - targets.coverage) - 1e-9) - 1
    counts = np.bincount(labels, minlength=len(CLASSES))
    if counts.min() < needed:
        few = CLASSES[int(counts.argmin())]
        report["sets"] = None
        notes.add(
            f"Prediction sets with a coverage of {targets.coverage:.0%} need {needed} pictures of "
            f"each class; there are {counts.min()} of {few.lower()}s. None are given."
        )
        return
    found = set_limits(calibrated, labels, coverage=targets.coverage)
    limits.update(found)
    inside = calibrated >= np.array([*found.values()])
    report["sets"] = {"mean_size": float(np.maximum(inside.sum(axis=1), 1).mean())}


def _fit_quality(observations: list[Observation], limits: dict[str, float], notes: _Notes) -> None:
    """Set the limits of sharpness, exposure, resolution and nucleus."""
    if len(observations) < MINIMUM:
        notes.add(
            f"Limits of image quality need {MINIMUM} pictures; there are {len(observations)}. None "
            "are set."
        )
        return
    figures: list[Quality] = [one.quality for one in observations]
    least_sharp = _quantile([one.sharpness for one in figures], _RARE)
    limits["sharpness"] = round(_SHARPNESS_MARGIN * least_sharp, 6)
    for name in ("overexposed", "underexposed"):
        usual = _quantile([getattr(one, name) for one in figures], 1 - _RARE)
        limits[name] = round(min(1.0, usual + _SHARE_MARGIN), 6)
    coarsest = min(one.resolution for one in figures)
    limits["resolution"] = round(_RESOLUTION_MARGIN * coarsest, 6)
    nucleus = _NUCLEUS_MARGIN * _quantile([one.nucleus for one in observations], _RARE)
    limits["nucleus"] = round(min(nucleus, _NUCLEUS_MOST), 6)


def _fit_distance(
    seen: _Seen,
    groups: list[str],
    targets: TrustTargets,
    limits: dict[str, float],
    report: dict[str, Any],
    notes: _Notes,
    *,
    seed: int,
    axes: int,
    searched: float,
) -> FeatureSpace | None:
    """Learn the feature space, and set how far from it is too far."""
    features = seen.features
    if features is None:
        notes.add(
            "The network does not show what enters its last layer, so nothing is called unlike "
            "training."
        )
        return None
    if len(seen.labels) < MINIMUM or len(set(groups)) < 2:
        notes.add(
            f"To know what is unlike training takes {MINIMUM} pictures of two slides; there are "
            f"{len(seen.labels)} of {len(set(groups))}."
        )
        return None
    distances = cross_fitted_distances(features, seen.labels, groups, axes=axes, seed=seed)
    limit = outlier_limit(distances, alarms=targets.alarms)
    space = fit_space(features, seen.labels, axes=axes)
    if space is None or not math.isfinite(limit):
        notes.add("The features of these pictures do not say what is unlike training.")
        return None
    limits["distance"] = limit
    limits["look"] = _quantile(distances.tolist(), 1.0 - searched)
    report["axes"] = int(space.axes.shape[1])
    report["searched"] = searched
    report["distances"] = distances
    return space


def _decisions(
    trust: Trust, seen: _Seen, calibrated: Doubles, distances: Doubles | None
) -> dict[str, Any]:
    """Share of these pictures that each reason takes, each judged in a space without its slide."""
    taken: dict[str, int] = {}
    right = calibrated.argmax(axis=1) == seen.labels
    stands = np.zeros(len(right), dtype=bool)
    for row, one in enumerate(seen.observations):
        distance = None if distances is None else float(distances[row])
        found = trust.judge(calibrated[row], distance, one.quality, partial(float, one.nucleus))
        key = found.reason or found.decision
        taken[key] = taken.get(key, 0) + 1
        stands[row] = found.decision == "class"
    return {
        "shares": {name: count / len(right) for name, count in sorted(taken.items())},
        "accuracy": float(right[stands].mean()) if stands.any() else None,
    }


def trust_card(bundle: ModelBundle) -> str:
    """Put what was fitted into a model's card, in place of the sentences that were true before.

    Parameters
    ----------
    bundle : ModelBundle
        From `fit_trust`.

    Returns
    -------
    str
        Its card with a section "Trust", a former one replaced.
    """
    report = bundle.validation["trust"]
    targets, selection, sets = report["targets"], report["selection"], report["sets"]
    lines = [
        "## Trust",
        "",
        f"Fitted on {report['n']:,} images of {report['n_slides']} slides "
        f"(data digest `{report['data'][:16]}`).",
        "",
        f"- Temperature {report['temperature']:.4g}: log-loss {report['log_loss'][0]:.4f} before, "
        f"{report['log_loss'][1]:.4f} after; expected calibration error {report['ece'][0]:.4f} "
        f"before, {report['ece'][1]:.4f} after.",
    ]
    if selection is not None:
        lines.append(
            f"- `unsure` below a probability of {selection['confidence']:.3f}: "
            f"{_percent(selection['coverage'])} are answered, "
            f"{_percent(selection['accuracy'])} of these rightly. The "
            f"lower limit of that accuracy ({targets['level']:.0%}) reaches the stated "
            f"{_percent(targets['accuracy'])} for images drawn one by one; on few slides it "
            "promises too much."
        )
    if sets is not None:
        lines.append(
            f"- Prediction sets hold the true class with a coverage of {targets['coverage']:.0%} "
            f"for each class; they have {sets['mean_size']:.2f} classes on average."
        )
    if "again" in bundle.thresholds:
        lines.append(
            f"- Pictures further than {bundle.thresholds['again']:.3f} from training are looked at "
            f"in every style, as {_percent(report['again'])} of these were; the first look answers "
            "for the others."
        )
    if "distance" in bundle.thresholds:
        lines.append(
            f"- `unlike-training` beyond a distance of {bundle.thresholds['distance']:.3f}, which "
            f"{_percent(targets['alarms'])} of the images exceed when their slide is left out."
        )
    if "nucleus" in bundle.thresholds:
        lines.append("- `not-a-cell` where no nucleus is found, or nothing at all.")
    shares = report["decisions"]["shares"]
    told = ", ".join(f"{name} {_percent(share)}" for name, share in shares.items())
    lines += [f"- On these images: {told}.", *(f"- {note}" for note in report["notes"]), ""]
    old = bundle.card.partition("\n## Trust\n")[0]
    old = old.replace(f" {ALWAYS_NAMES}", "").replace(f" {NOT_CALIBRATED}", "")
    return old.rstrip() + "\n\n" + "\n".join(lines)


def _percent(share: float) -> str:
    """A share for people."""
    return f"{share:.1%}"


def _quantile(values: list[float], share: float) -> float:
    """A quantile that is one of the values."""
    method: Any = "lower" if share < 0.5 else "higher"
    return float(np.quantile(np.array(values), share, method=method))


def _log_loss(probabilities: Doubles, labels: Labels) -> float:
    """Mean negative logarithm of the true class's probability."""
    own = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, 1e-12)).mean())


def _ece(probabilities: Doubles, labels: Labels) -> float:
    """Expected calibration error of the best class over 15 bins of equal width."""
    best, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((best * _BINS).astype(int), _BINS - 1)
    gaps = np.zeros(_BINS)
    np.add.at(gaps, bins, best - right)
    return float(np.abs(gaps).sum() / len(labels))


def _rounded(value: Any) -> Any:
    """Six decimals are enough for a report."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
