"""Give a bundle what it takes to doubt: fit all that `leuko.runtime.trust.decide` applies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.bundle import FeatureSpace, Goldens, ModelBundle
from leuko.errors import DataError, ImageError, UsageError
from leuko.history import Change, Selection, TrustReport, TrustTargets
from leuko.manifest import Manifest
from leuko.runtime.cards import with_card
from leuko.runtime.classifier import Observation, OnnxClassifier, make_goldens
from leuko.runtime.quality import Quality
from leuko.runtime.trust.decide import (
    MoreViews,
    Trust,
    calibrate,
    class_limit,
    feature_distances,
    prediction_set,
)
from leuko.runtime.trust.fit import (
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
)
from leuko.support.reporter import SILENT, Reporter
from leuko.support.text import counted, listed, rejection

__all__ = [
    "SEARCHED",
    "TrustSettings",
    "bare_network",
    "fit_trust",
    "with_trust",
    "without_trust",
]

AGAIN: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of ordinary pictures, the furthest from training, that may be shown in every style:
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
class TrustSettings:
    """How trust is fitted.

    Attributes
    ----------
    targets : TrustTargets
        What is promised.
    seed : int
        Of the dealing of slides to folds.
    axes : int
        See `leuko.runtime.trust.fit.fit_space`; fewer make a smaller bundle.
    searched : float or None
        Share of ordinary pictures to search for their nucleus, 0 to 1. Fewer take less time, and
        the features alone must tell more of what is no cell. When None, what the bundle was
        fitted with before, or `SEARCHED`.
    strict : bool
        Refuse pictures on which not even a temperature can be fitted: for whoever brings pictures
        of their own. A training run takes what its validation rows give.
    """

    targets: TrustTargets = field(default_factory=TrustTargets)
    seed: int = 0
    axes: int = AXES
    searched: float | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if self.searched is not None and not 0.0 <= self.searched <= 1.0:
            raise UsageError(
                f"The share to be searched must lie in [0, 1], received {self.searched}."
            )


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
    figures = {name: value for name, value in bundle.validation.items() if name != "trust"}
    return replace(bare_network(bundle), validation=figures)


def bare_network(bundle: ModelBundle) -> ModelBundle:
    """Ask a bundle's network for its goldens anew, and leave all that is applied to its answers.

    Parameters
    ----------
    bundle : ModelBundle
        Its network, or what is measured beside it, may be another than its goldens are of.

    Returns
    -------
    ModelBundle
        Without calibration, limits and feature space.
    """
    return replace(
        bundle,
        goldens=make_goldens(bundle.onnx, bundle.preprocess, bundle.measured),
        calibration={"method": "none"},
        thresholds={},
        space=None,
    )


def with_trust(
    classifier: OnnxClassifier,
    calibration: dict[str, Any],
    thresholds: dict[str, float],
    space: FeatureSpace | None,
) -> ModelBundle:
    """Put calibration and limits on a bare network; its goldens are what they make of its answers.

    Parameters
    ----------
    classifier : OnnxClassifier
        Of a `bare_network`, with its features where there is a space.
    calibration, thresholds
        See `leuko.bundle.ModelBundle`.
    space : FeatureSpace or None
        Its golden distances are measured here.

    Returns
    -------
    ModelBundle
        Otherwise the classifier's.
    """
    bundle, pictures = classifier.bundle, classifier.bundle.goldens.pictures
    made = replace(bundle, calibration=calibration, thresholds=thresholds, space=space)
    trust = Trust.of(made)
    outputs = classifier.ask([*pictures], trust)
    if space is not None:
        space = replace(space, goldens=feature_distances(space, outputs[1]).astype(np.float32))
    goldens = Goldens(pictures, trust.calibrate(outputs[0]).astype(np.float32))
    return replace(made, goldens=goldens, space=space)


def fit_trust(
    bundle: ModelBundle,
    manifest: Manifest,
    settings: TrustSettings | None = None,
    *,
    threads: int | None = None,
    reporter: Reporter = SILENT,
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
    settings : TrustSettings, optional
        The defaults when None.
    threads : int, optional
        See `OnnxClassifier`.
    reporter : Reporter, optional
        Told how far it is, and what a person should know.

    Returns
    -------
    ModelBundle
        With the measured figures, a `TrustReport`, under ``validation["trust"]`` and in its card.

    Raises
    ------
    DataError
        When the classes are not the bundle's, or no picture could be read; if `settings` are strict
        also when fewer than `FEWEST` could, when they show one class only, or when no temperature
        of the range fits best.
    """
    chosen = settings or TrustSettings()
    if chosen.searched is None:
        share = bundle.validation.get("trust", {}).get("searched", SEARCHED)
        chosen = replace(chosen, searched=float(share))
    _refuse_other_classes(bundle, manifest)
    plain = without_trust(bundle)
    classifier = OnnxClassifier(plain, threads=threads, features=True)
    seen = _observe(classifier, manifest, reporter)
    if chosen.strict:
        _refuse_too_few(seen.labels, len(bundle.scheme))
    fitting = _Fitting(Trust.of(bundle), chosen, reporter)
    space, report = _fit(fitting, seen, bundle.name, manifest.digest)
    calibration = {"method": "temperature", "temperature": report.temperature}
    made = with_trust(classifier, calibration, fitting.limits, space)
    return with_card(replace(made, validation={**plain.validation, "trust": report.to_dict()}))


def _fit(
    fitting: _Fitting, seen: _Seen, name: str, data: str
) -> tuple[FeatureSpace | None, TrustReport]:
    """Fit one thing after the other; the limits stand in `fitting` then."""
    settings, groups = fitting.settings, seen.groups
    if sum(map(bool, seen.slides)) < len(groups) / 2:
        fitting.note("Most pictures tell no slide, so limits were set as if each were its own.")
    ground = _learn(fitting, seen)
    seen = ground.seen
    fitting.limits |= {key: value for key, value in ground.limits.items() if key == "again"}
    temperature = _temperature(fitting, seen, name)
    calibrated = calibrate(seen.probabilities, temperature)
    fitting.ratio = fitting.before.temperature / temperature
    better = beats_one_answer(seen.labels, calibrated.argmax(axis=1), groups)
    selection, reached = _fit_selection(fitting, calibrated, seen.labels, better=better)
    set_size = _fit_sets(fitting, calibrated, seen.labels)
    _fit_quality(fitting, seen.observations)
    fitting.limits |= ground.limits
    if ground.note:
        fitting.note(ground.note)
    fitting.kept += ground.kept
    space = ground.space
    trust = Trust(temperature, fitting.limits, space, fitting.before.scheme)
    shares, accuracy = _decisions(trust, seen, calibrated, ground.distances)
    return space, TrustReport(
        n=len(seen.labels),
        n_slides=len({slide for slide in seen.slides if slide}),
        data=data,
        seed=settings.seed,
        targets=settings.targets,
        temperature=temperature,
        log_loss=Change(*(log_loss(seen.labels, p) for p in (seen.probabilities, calibrated))),
        ece=Change(
            *(
                expected_calibration_error(calibration_bins(seen.labels, p))
                for p in (seen.probabilities, calibrated)
            )
        ),
        selection=selection,
        reached=reached,
        set_size=set_size,
        again=ground.viewed_again,
        axes=None if space is None else int(space.axes.shape[1]),
        searched=None if space is None else settings.searched,
        kept=tuple(fitting.kept),
        shares=shares,
        accuracy=accuracy,
        notes=tuple(fitting.notes),
    )


def _temperature(fitting: _Fitting, seen: _Seen, name: str) -> float:
    """Fit it; at a bound of its range it means little."""
    temperature = fit_temperature(seen.probabilities, seen.labels)
    if at_a_bound(temperature):
        told = (
            f"The temperature that fits these {len(seen.labels)} pictures best lies at an end of "
            f"its range ({temperature:g})"
        )
        if fitting.settings.strict:
            raise DataError(
                f"{told}: their labels and the answers of {name} do not belong together. Check the "
                "labels, or give more pictures."
            )
        fitting.note(f"{told}; the probabilities mean little.")
    return temperature


@dataclass
class _Fitting:
    """What is fitted so far, and what the bundle says already.

    Attributes
    ----------
    before : Trust
        Of the bundle as it came.
    settings : TrustSettings
        As they were chosen.
    reporter : Reporter
        Told each note.
    ratio : float
        The bundle's temperature divided by the new one.
    limits : dict of str to float
        The new ones.
    kept : list of str
        Names of the limits that were not fitted anew.
    notes : list of str
        Sentences on what could not be promised.
    """

    before: Trust
    settings: TrustSettings
    reporter: Reporter
    ratio: float = 1.0
    limits: dict[str, float] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Tell a sentence, and keep it."""
        self.notes.append(sentence)
        self.reporter.say(sentence)

    def own(self, names: Sequence[str]) -> dict[str, float]:
        """The bundle's own limits of these names."""
        return {name: self.before.limits[name] for name in names if name in self.before.limits}

    def keep(self, limits: dict[str, float]) -> None:
        """Take limits of the bundle's own."""
        self.limits |= limits
        self.kept += limits


@dataclass(frozen=True, slots=True)
class _Seen:
    """Everything observed of the pictures that could be read."""

    observations: list[Observation]
    probabilities: Doubles
    features: npt.NDArray[np.float32] | None
    labels: Labels
    slides: list[str]

    @property
    def groups(self) -> list[str]:
        """Slides; a picture of an unknown one is alone."""
        return [slide or f"image {row}" for row, slide in enumerate(self.slides)]


def _observe(
    classifier: OnnxClassifier,
    manifest: Manifest,
    reporter: Reporter,
) -> _Seen:
    """Run the network on every picture, leaving out, by name, what cannot be read."""
    found: list[Observation] = []
    kept: list[int] = []
    rows = classifier.observe(file_source(file) for file in manifest.files())
    for index, row in enumerate(rows):
        if isinstance(row, ImageError):
            reporter.say(rejection(manifest.samples[index].path, row.reason, row.detail))
        else:
            found.append(row)
            kept.append(index)
        reporter.progress("calibrating", index + 1, len(manifest))
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
        With the answers and features of the views that are taken.
    space : FeatureSpace or None
        Learned from the pictures, or the bundle's own; without golden distances.
    distances : (N,) float64 or None
        Of the pictures, each in a space that does not know its slide.
    limits : dict of str to float
        Of ``again``, ``distance`` and ``look``.
    viewed_again : float or None
        Share of the pictures that are shown in every style.
    note : str
        What could not be learned.
    kept : list of str
        Limits that are the bundle's own.
    """

    seen: _Seen
    space: FeatureSpace | None = None
    distances: Doubles | None = None
    limits: dict[str, float] = field(default_factory=dict)
    viewed_again: float | None = None
    note: str = ""
    kept: list[str] = field(default_factory=list)


def _learn(fitting: _Fitting, seen: _Seen) -> _Ground:
    """Learn the feature space and its limits, or keep the bundle's own: they go together."""
    settings, before, groups = fitting.settings, fitting.before, seen.groups
    seed, axes, limits = settings.seed, settings.axes, dict[str, float]()
    now, viewed_again = _fit_again(seen, groups, limits, seed=seed, axes=axes)
    found = _fit_distance(now, groups, settings.targets, seed=seed, axes=axes)
    if not isinstance(found, str):
        space, distances, limits["distance"] = found
        searched = SEARCHED if settings.searched is None else settings.searched
        limits["look"] = _quantile(distances.tolist(), 1.0 - searched)
        return _Ground(now, space, distances, limits, viewed_again)
    kept = fitting.own(_OF_THE_SPACE)
    if before.space is None or not kept:
        # Without a space nothing tells which pictures to look at again: all are.
        return _Ground(seen, note=found)
    note = f"{found} The bundle's own limits are kept, with their space: {listed([*kept])}."
    if before.again is None:
        now, viewed_again = seen, None
    else:
        now, viewed_again = _view_again(seen, before.again)
    measured = before.distances(now.features)
    return _Ground(now, before.space, measured, kept, viewed_again, note, [*kept])


def _view_again(seen: _Seen, again: MoreViews) -> tuple[_Seen, float]:
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
    """Set from which distance on pictures are shown again: (as seen then, share of them).

    Distances are those of the first view then. Nothing changes where there is one view, or where
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
    fitting: _Fitting, calibrated: Doubles, labels: Labels, *, better: bool
) -> tuple[Selection | None, Selection | None]:
    """Set the limit of confidence, if the answers are `better` than always the same one.

    Gives what it reaches, or else what the bundle's own limit does.
    """
    targets, scheme = fitting.settings.targets, fitting.before.scheme
    best, right = calibrated.max(axis=1), calibrated.argmax(axis=1) == labels
    chosen = select_confidence(best, right, accuracy=targets.accuracy, level=targets.level)
    if chosen is not None and better:
        fitting.limits["confidence"] = chosen.confidence
        return chosen, None
    told = (
        f"An accuracy of {targets.accuracy:.1%} cannot be promised from these "
        f"{counted(len(labels), 'picture')}"
    )
    if not better:
        common = scheme.names[int(np.bincount(labels).argmax())]
        told += f", which do not show it to be better than always answering {common}"
    before = fitting.before.limits.get("confidence")
    if before is None:
        fitting.note(
            f"{told}, so none of its answers is accepted. More pictures, or a lower --accuracy, in "
            "`leuko models calibrate` may show from which confidence on it is right."
        )
        return None, None
    least = limit_at(before, fitting.ratio, len(scheme), stricter=True)
    reached = best_selection(best, right, least=least, level=targets.level)
    limit = least if reached is None else reached.confidence
    fitting.keep({"confidence": limit})
    fitting.note(f"{told}. {_own_confidence(limit, least, before, reached)}")
    return None, reached


def _own_confidence(limit: float, least: float, before: float, reached: Selection | None) -> str:
    """What a bundle's own limit of confidence gives, in a sentence."""
    whose = ", which is stricter than the bundle's own limit" if limit > least else (
        ", the bundle's own limit"
    )  # fmt: skip
    gives = "not one of them reaches it"
    if reached is not None:
        gives = (
            f"{reached.coverage:.1%} of them reach it, {reached.accuracy:.1%} of these rightly, "
            f"with a lower limit of {reached.accuracy_low:.1%}"
        )
    return (
        f"Labels are unsure below a probability of {limit:.6g}{whose} ({_moved(before, least)}): "
        f"{gives}."
    )


def _moved(before: float, now: float) -> str:
    """A limit of probability as it was, and what it is at the new temperature."""
    told = f"{before:.6g}"
    return told if now == before else f"{told}, {now:.6g} at the new temperature"


def _fit_sets(fitting: _Fitting, calibrated: Doubles, labels: Labels) -> float | None:
    """Set the limits of the prediction sets; gives their mean size, None where none is fitted."""
    coverage, scheme = fitting.settings.targets.coverage, fitting.before.scheme
    needed = math.ceil(1 / (1 - coverage) - 1e-9) - 1
    counts = np.bincount(labels, minlength=len(scheme))
    if counts.min() >= needed:
        found = set_limits(calibrated, labels, scheme, coverage=coverage)
        fitting.limits |= found
        inside = calibrated >= np.array([*found.values()])
        return float(np.maximum(inside.sum(axis=1), 1).mean())
    told = (
        f"Prediction sets with a coverage of {coverage:.0%} need {needed} pictures of each class; "
        f"there are {counts.min()} of {scheme.names[int(counts.argmin())]}."
    )
    kept = {
        name: limit_at(limit, fitting.ratio, len(scheme), stricter=False)
        for name, limit in fitting.own([*map(class_limit, scheme.names)]).items()
    }
    if not kept:
        fitting.note(f"{told} None are given.")
        return None
    fitting.keep(kept)
    sets = [prediction_set(row, kept, scheme) for row in calibrated]
    true = [scheme.names[label] for label in labels]
    held = float(np.mean([name in inside for name, inside in zip(true, sets, strict=True)]))
    size = np.mean([len(inside) for inside in sets])
    fitting.note(
        f"{told} The bundle's own limits are kept, so that no set gets smaller: of these "
        f"pictures the sets hold the true class of {held:.1%}, with {size:.2f} classes on average."
    )
    return None


def _fit_quality(fitting: _Fitting, observations: list[Observation]) -> None:
    """Set the limits of sharpness, exposure, resolution and nucleus."""
    limits = fitting.limits
    if len(observations) < MINIMUM:
        kept = fitting.own(_OF_QUALITY)
        fitting.keep(kept)
        fitting.note(
            f"Limits of image quality need {MINIMUM} pictures; there are {len(observations)}. "
            + (f"The bundle's own are kept: {listed([*kept])}." if kept else "None are set.")
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
    before = fitting.before.limits.get("nucleus", 0.0)
    if limits["nucleus"] <= 0 < before:
        # Nothing is less than 0: no picture would be refused for want of a nucleus any more.
        fitting.keep({"nucleus": before})
        without = sum(one.nucleus <= 0 for one in observations)
        fitting.note(
            f"In {counted(without, 'picture')} of {len(observations):,} no nucleus is found, which "
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
) -> tuple[dict[str, float], float | None]:
    """Share of these pictures that each reason takes, each judged in a space without its slide.

    And the accuracy of the accepted answers, where there are any.
    """
    taken: dict[str, int] = {}
    right = calibrated.argmax(axis=1) == seen.labels
    accepted = np.zeros(len(right), dtype=bool)
    for row, one in enumerate(seen.observations):
        distance = None if distances is None else float(distances[row])
        found = trust.judge(calibrated[row], distance, one.quality, partial(float, one.nucleus))
        key = found.reason or found.decision
        taken[key] = taken.get(key, 0) + 1
        accepted[row] = found.decision == "class"
    shares = {name: count / len(right) for name, count in sorted(taken.items())}
    return shares, float(right[accepted].mean()) if accepted.any() else None


def _quantile(values: list[float], share: float) -> float:
    """A quantile that is one of the values."""
    method: Any = "lower" if share < 0.5 else "higher"
    return float(np.quantile(np.array(values), share, method=method))
