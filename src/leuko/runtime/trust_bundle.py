"""Give a bundle what it takes to doubt: fit everything that `leuko.runtime.trust` applies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
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
from leuko.runtime.trust import (
    NEVER_CHECKED,
    LookAgain,
    Trust,
    calibrate,
    class_limit,
    feature_distances,
    prediction_set,
)
from leuko.runtime.trust_fit import (
    AXES,
    FEWEST,
    MINIMUM,
    at_a_bound,
    best_selection,
    cross_fitted_distances,
    fit_space,
    fit_temperature,
    limit_at,
    outlier_limit,
    select_confidence,
    set_limits,
)
from leuko.source import file_source
from leuko.statistics import (
    beats_one_answer,
    calibration_bins,
    expected_calibration_error,
    log_loss,
    rounded,
)

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
    "It always names one of its classes, also for pictures that hold no white blood cell."
)
NOT_CALIBRATED: Final = "Probabilities are not calibrated."
"""Sentences of a model card that stop being true; see `fit_trust`."""

_FORMERLY: Final = ALWAYS_NAMES.replace("its classes", "the five")
"""As cards have it from when there were five classes."""

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

_OF_QUALITY: Final = ("sharpness", "overexposed", "underexposed", "resolution", "nucleus")
_OF_THE_SPACE: Final = ("again", "distance", "look")

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
        Whose probabilities are the network's own, and which accepts no answer.
    """
    if bundle.calibration == {"method": "none"} and not bundle.thresholds and bundle.space is None:
        return bundle
    return replace(
        bundle,
        goldens=make_goldens(bundle.onnx, bundle.preprocess, bundle.measured),
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
    strict: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> ModelBundle:
    """Fit temperature, limits and feature space on labelled pictures.

    What these pictures cannot tell stays as the bundle has it, and is named: a limit is replaced
    or kept, never lost. Where the bundle has none either, that is said, too.

    Parameters
    ----------
    bundle : ModelBundle
        Its own calibration is put aside, and of its limits those that can be fitted.
    manifest : Manifest
        Pictures that the model was not trained on, best of whole slides that training has not
        seen; the limits are only worth what these pictures are. Of the bundle's scheme.
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
    strict : bool
        Refuse pictures on which not even a temperature can be fitted: for whoever brings pictures
        of their own. A training run takes what its validation rows give.
    threads : int, optional
        See `OnnxClassifier`.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.
    say : callable, optional
        Called with sentences for a person: what could not be fitted, and what was kept.

    Returns
    -------
    ModelBundle
        With the measured figures under ``validation["trust"]`` and in its card.

    Raises
    ------
    DataError
        When the classes are not the bundle's, or no picture could be read; with `strict` also when
        fewer than `FEWEST` could, when they show one class only, or when no temperature of the
        range fits best.
    UsageError
        When a share is none.
    """
    tell = say or (lambda _: None)
    if searched is None:
        searched = float(bundle.validation.get("trust", {}).get("searched", SEARCHED))
    if not 0.0 <= searched <= 1.0:
        raise UsageError(f"The share to be searched must lie in [0, 1], received {searched}.")
    _refuse_other_classes(bundle, manifest)
    promised = targets or TrustTargets()
    before, plain = Trust.of(bundle), without_trust(bundle)
    classifier = OnnxClassifier(plain, threads=threads, features=True)
    seen = _observe(classifier, manifest, progress, tell)
    if strict:
        _refuse_too_few(seen.labels, len(bundle.scheme))
    groups = [slide or f"image {row}" for row, slide in enumerate(seen.slides)]
    notes = _Notes(tell)
    known = sum(bool(slide) for slide in seen.slides)
    if known < len(groups) / 2:
        notes.add("Most pictures tell no slide, so limits were set as if each were its own.")
    ground = _learn(seen, groups, before, promised, seed=seed, axes=axes, searched=searched)
    seen = ground.seen
    limits = {name: value for name, value in ground.limits.items() if name == "again"}
    temperature = fit_temperature(seen.probabilities, seen.labels)
    if at_a_bound(temperature):
        told = (
            f"The temperature that fits these {len(seen.labels)} pictures best lies at an end of "
            f"its range ({temperature:g})"
        )
        if strict:
            raise DataError(
                f"{told}: their labels and the answers of {bundle.name} do not belong together. "
                "Check the labels, or give more pictures."
            )
        notes.add(f"{told}; the probabilities mean little.")
    calibrated = calibrate(seen.probabilities, temperature)
    own = _Own(before, before.temperature / temperature)
    report: dict[str, Any] = {
        "n": len(seen.labels),
        "n_slides": len({slide for slide in seen.slides if slide}),
        "data": manifest.digest,
        "seed": seed,
        "targets": asdict(promised),
        "temperature": temperature,
        "log_loss": [log_loss(seen.labels, p) for p in (seen.probabilities, calibrated)],
        "ece": [
            expected_calibration_error(calibration_bins(seen.labels, p))
            for p in (seen.probabilities, calibrated)
        ],
    }
    if ground.looked_again is not None:
        report["again"] = ground.looked_again
    better = beats_one_answer(seen.labels, calibrated.argmax(axis=1), groups)
    _fit_selection(calibrated, seen.labels, promised, own, limits, report, notes, better=better)
    _fit_sets(calibrated, seen.labels, promised, own, limits, report, notes)
    _fit_quality(seen.observations, own, limits, notes)
    limits.update(ground.limits)
    if ground.note:
        notes.add(ground.note)
    space = ground.space
    if space is not None:
        report["axes"] = int(space.axes.shape[1])
        report["searched"] = searched
    own.kept.extend(ground.kept)
    if own.kept:
        report["kept"] = own.kept
    trust = Trust(temperature, limits, space, bundle.scheme)
    outputs = classifier.ask(list(plain.goldens.pictures), trust)
    if space is not None:
        space = replace(space, goldens=feature_distances(space, outputs[1]).astype(np.float32))
    report["decisions"] = _decisions(trust, seen, calibrated, ground.distances)
    report["notes"] = notes.lines
    validation = {**plain.validation, "trust": rounded(report)}
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


@dataclass(frozen=True, slots=True)
class _Own:
    """What the bundle says already, for what these pictures cannot tell.

    Attributes
    ----------
    trust : Trust
        Of the bundle as it came.
    ratio : float
        Its temperature divided by the new one.
    kept : list of str
        Names of the limits that were not fitted anew.
    """

    trust: Trust
    ratio: float
    kept: list[str] = field(default_factory=list)


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


def _refuse_other_classes(bundle: ModelBundle, manifest: Manifest) -> None:
    """Refuse labels that mean other classes than the answers do."""
    if manifest.scheme.names != bundle.scheme.names:
        raise DataError(
            f"{manifest.root} is labelled with {', '.join(manifest.scheme.names)}; {bundle.name} "
            f"tells {', '.join(bundle.scheme.names)}. Give labels of the model's classes."
        )


def _refuse_too_few(labels: Labels, classes: int) -> None:
    """Refuse pictures that say nothing of how far the answers are to be trusted."""
    shown = len(np.unique(labels))
    if len(labels) < FEWEST or shown < 2:
        raise DataError(
            f"To calibrate takes {FEWEST} labelled pictures of two classes, better 100 or more of "
            f"all {classes}; received {len(labels)} of {shown}."
        )


@dataclass(frozen=True, slots=True)
class _Ground:
    """From what distances are measured, and what the pictures look like from there.

    Attributes
    ----------
    seen : _Seen
        With the answers and features of the looks that are taken.
    space : FeatureSpace or None
        Learned from the pictures, or the bundle's own; without golden distances.
    distances : (N,) float64 or None
        Of the pictures, each in a space that does not know its slide.
    limits : dict of str to float
        Of ``again``, ``distance`` and ``look``.
    looked_again : float or None
        Share of the pictures that are looked at in every style.
    note : str
        What could not be learned.
    kept : list of str
        Limits that are the bundle's own.
    """

    seen: _Seen
    space: FeatureSpace | None = None
    distances: Doubles | None = None
    limits: dict[str, float] = field(default_factory=dict)
    looked_again: float | None = None
    note: str = ""
    kept: list[str] = field(default_factory=list)


def _learn(
    seen: _Seen,
    groups: list[str],
    before: Trust,
    targets: TrustTargets,
    *,
    seed: int,
    axes: int,
    searched: float,
) -> _Ground:
    """Learn the feature space and its limits, or keep the bundle's own: they go together."""
    limits: dict[str, float] = {}
    now, looked_again = _fit_again(seen, groups, limits, seed=seed, axes=axes)
    found = _fit_distance(now, groups, targets, seed=seed, axes=axes)
    if not isinstance(found, str):
        space, distances, limits["distance"] = found
        limits["look"] = _quantile(distances.tolist(), 1.0 - searched)
        return _Ground(now, space, distances, limits, looked_again)
    kept = {name: before.limits[name] for name in _OF_THE_SPACE if name in before.limits}
    if before.space is None or not kept:
        # Without a space nothing tells which pictures to look at again: all are.
        return _Ground(seen, note=found)
    note = f"{found} The bundle's own limits are kept, with their space: {_listed([*kept])}."
    if before.again is None:
        now, looked_again = seen, None
    else:
        now, looked_again = _look_again(seen, before.again)
    measured = before.distances(now.features)
    return _Ground(now, before.space, measured, kept, looked_again, note, [*kept])


def _look_again(seen: _Seen, again: LookAgain) -> tuple[_Seen, float]:
    """See pictures as a bundle does that looks again where it is told to."""
    features = _together([one.first_features for one in seen.observations])
    if features is None:
        raise DataError("The network does not show the features that its space is of.")
    far = again(features)
    alone = np.stack([one.first_probabilities for one in seen.observations])
    answers = np.where(far[:, None], seen.probabilities, alone)
    return replace(seen, probabilities=answers, features=features), float(far.mean())


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
    own: _Own,
    limits: dict[str, float],
    report: dict[str, Any],
    notes: _Notes,
    *,
    better: bool,
) -> None:
    """Set the limit of confidence, if the answers are `better` than always the same one."""
    best, right = calibrated.max(axis=1), calibrated.argmax(axis=1) == labels
    chosen = select_confidence(best, right, accuracy=targets.accuracy, level=targets.level)
    if chosen is not None and better:
        limits["confidence"] = chosen.confidence
        report["selection"] = asdict(chosen)
        return
    report["selection"] = None
    told = (
        f"An accuracy of {targets.accuracy:.1%} cannot be promised from these "
        f"{_count(len(labels), 'picture')}"
    )
    if not better:
        common = own.trust.scheme.names[int(np.bincount(labels).argmax())]
        told += f", which do not show it to be better than always answering {common}"
    before = own.trust.limits.get("confidence")
    if before is None:
        notes.add(
            f"{told}, so none of its answers is accepted. More pictures, or a lower --accuracy, in "
            "`leuko models calibrate` may show from which confidence on it is right."
        )
        return
    least = limit_at(before, own.ratio, len(own.trust.scheme), stricter=True)
    reached = best_selection(best, right, least=least, level=targets.level)
    limits["confidence"] = least if reached is None else reached.confidence
    own.kept.append("confidence")
    limit = f"Labels are unsure below a probability of {limits['confidence']:.6g}"
    if limits["confidence"] > least:
        limit += f", which is stricter than the bundle's own limit ({_moved(before, least)})"
    else:
        limit += f", the bundle's own limit ({_moved(before, least)})"
    if reached is None:
        gives = "not one of them reaches it"
    else:
        report["reached"] = asdict(reached)
        gives = (
            f"{_percent(reached.coverage)} of them reach it, {_percent(reached.accuracy)} of these "
            f"rightly, with a lower limit of {_percent(reached.accuracy_low)}"
        )
    notes.add(f"{told}. {limit}: {gives}.")


def _moved(before: float, now: float) -> str:
    """A limit of probability as it was, and what it is at the new temperature."""
    told = f"{before:.6g}"
    return told if now == before else f"{told}, {now:.6g} at the new temperature"


def _fit_sets(
    calibrated: Doubles,
    labels: Labels,
    targets: TrustTargets,
    own: _Own,
    limits: dict[str, float],
    report: dict[str, Any],
    notes: _Notes,
) -> None:
    """Set the limits of the prediction sets."""
    needed = math.ceil(1 / (1 - targets.coverage) - 1e-9) - 1
    scheme = own.trust.scheme
    counts = np.bincount(labels, minlength=len(scheme))
    if counts.min() < needed:
        few = scheme.names[int(counts.argmin())]
        report["sets"] = None
        told = (
            f"Prediction sets with a coverage of {targets.coverage:.0%} need {needed} pictures of "
            f"each class; there are {counts.min()} of {few}."
        )
        kept = {
            name: limit_at(own.trust.limits[name], own.ratio, len(scheme), stricter=False)
            for name in map(class_limit, scheme.names)
            if name in own.trust.limits
        }
        if not kept:
            notes.add(f"{told} None are given.")
            return
        limits.update(kept)
        own.kept.extend(kept)
        sets = [prediction_set(row, kept, scheme) for row in calibrated]
        true = [scheme.names[label] for label in labels]
        held = np.mean([name in one for name, one in zip(true, sets, strict=True)])
        size = np.mean([len(one) for one in sets])
        notes.add(
            f"{told} The bundle's own limits are kept, so that no set gets smaller: of these "
            f"pictures the sets hold the true class of {_percent(float(held))}, with {size:.2f} "
            "classes on average."
        )
        return
    found = set_limits(calibrated, labels, scheme, coverage=targets.coverage)
    limits.update(found)
    inside = calibrated >= np.array([*found.values()])
    report["sets"] = {"mean_size": float(np.maximum(inside.sum(axis=1), 1).mean())}


def _fit_quality(
    observations: list[Observation], own: _Own, limits: dict[str, float], notes: _Notes
) -> None:
    """Set the limits of sharpness, exposure, resolution and nucleus."""
    before = own.trust.limits
    if len(observations) < MINIMUM:
        kept = {name: before[name] for name in _OF_QUALITY if name in before}
        told = f"Limits of image quality need {MINIMUM} pictures; there are {len(observations)}. "
        if kept:
            limits.update(kept)
            own.kept.extend(kept)
            notes.add(f"{told}The bundle's own are kept: {_listed([*kept])}.")
        else:
            notes.add(f"{told}None are set.")
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
    if limits["nucleus"] <= 0 < before.get("nucleus", 0.0):
        # Nothing is less than 0: no picture would be refused for want of a nucleus any more.
        limits["nucleus"] = before["nucleus"]
        own.kept.append("nucleus")
        without = sum(one.nucleus <= 0 for one in observations)
        notes.add(
            f"In {_count(without, 'picture')} of {len(observations):,} no nucleus is found, which "
            "gives no limit for it. The bundle's own is kept: nucleus."
        )


def _fit_distance(
    seen: _Seen, groups: list[str], targets: TrustTargets, *, seed: int, axes: int
) -> tuple[FeatureSpace, Doubles, float] | str:
    """Learn the feature space, distances and the largest ordinary one; or say why not."""
    features = seen.features
    if features is None:
        return (
            "The network does not show what enters its last layer, so nothing is called unlike "
            "training."
        )
    # With fewer, not even the furthest of them would be far enough; see `outlier_limit`.
    fewest = max(MINIMUM, math.ceil(1 / targets.alarms - 1e-9) - 1)
    if len(seen.labels) < fewest or len(set(groups)) < 2:
        return (
            f"To know what is unlike training, at {targets.alarms:g} false alarms, takes {fewest} "
            f"pictures of two slides; there are {len(seen.labels)} of {len(set(groups))}."
        )
    distances = cross_fitted_distances(features, seen.labels, groups, axes=axes, seed=seed)
    limit = outlier_limit(distances, alarms=targets.alarms)
    space = fit_space(features, seen.labels, axes=axes)
    if space is None or not math.isfinite(limit):
        return "The features of these pictures do not say what is unlike training."
    return space, distances, limit


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
    kept = report.get("kept", ())
    if "distance" in kept:
        lines.append(
            f"- `unlike-training` beyond a distance of {bundle.thresholds['distance']:.3f} in the "
            "space that the bundle had: fitted on other images than these."
        )
    elif "distance" in bundle.thresholds:
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
    for outdated in (ALWAYS_NAMES, _FORMERLY, NOT_CALIBRATED, NEVER_CHECKED):
        old = old.replace(f" {outdated}", "")
    return old.rstrip() + "\n\n" + "\n".join(lines)


def _percent(share: float) -> str:
    """A share for people."""
    return f"{share:.1%}"


def _count(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _listed(names: list[str]) -> str:
    """Names with commas and an "and"."""
    return names[0] if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"


def _quantile(values: list[float], share: float) -> float:
    """A quantile that is one of the values."""
    method: Any = "lower" if share < 0.5 else "higher"
    return float(np.quantile(np.array(values), share, method=method))
