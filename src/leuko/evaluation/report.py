"""The report on one table of predictions: every metric with its n, its slides and its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
from leuko.evaluation import intervals, metrics
from leuko.evaluation.selective import Coverage, Decided, accuracy_at_coverage, decided
from leuko.scheme import DIFFERENTIAL_5, ClassScheme, load_scheme
from leuko.statistics import (
    LEVEL,
    MINIMUM_SLIDES,
    WILSON_BY_SLIDE,
    CalibrationBin,
    beats_one_answer,
    calibration_bins,
    check_rows,
    expected_calibration_error,
    log_loss,
)
from leuko.support.artifacts import RESEARCH_USE, schema

__all__ = [
    "HEADLINE_METRICS",
    "Caution",
    "ClassResult",
    "Curve",
    "Estimate",
    "EvaluationReport",
    "Mistake",
    "SetResult",
    "SlideResult",
    "evaluate_predictions",
]

HEADLINE_METRICS: Final = {
    "accuracy": metrics.accuracy,
    "balanced_accuracy": metrics.balanced_accuracy,
    "macro_f1": metrics.macro_f1,
}
"""What gets an interval, by the name it has in every file; each reads confusion matrices."""

TOO_FEW_SLIDES: Final = "too few slides"
WORST_MISTAKES: Final = 40
CURVE_POINTS: Final = 200

_BY_SLIDE_LIMIT: Final = 500


class Caution(StrEnum):
    """What a reader must know before believing the figures of a report, which has the numbers."""

    NO_BETTER = "no-better"
    ABSENT_CLASSES = "absent-classes"
    ONE_SLIDE = "one-slide"
    SLIDE_FOR_EACH = "slide-for-each"
    FEW_SLIDES = "few-slides"
    FEW_SLIDES_OF_CLASSES = "few-slides-of-classes"
    NO_MISTAKE = "no-mistake"
    ASSUMED_INTERVALS = "assumed-intervals"


@dataclass(frozen=True)
class Estimate:
    """A metric of the whole set.

    Attributes
    ----------
    value : float, 0 to 1
    low, high : float or None
        Ends of the interval, None when there is none.
    method : str
        How the interval was found.
    """

    value: float
    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True)
class ClassResult:
    """How one class fared.

    Attributes
    ----------
    name : str
    precision, sensitivity, specificity, f1 : float or None
        None where it is not defined: see `leuko.evaluation.metrics`.
    n, slides : int
        Images of the class, and slides that have any.
    sensitivity_interval, specificity_interval, f1_interval : (float, float) or None
        None under five slides.
    assumed : tuple of str
        Of ``sensitivity``, ``specificity`` and ``f1`` those in which no resample differs from
        another; see `leuko.evaluation.intervals.proportion_interval` for the interval they have.
    note : str or None
        "too few slides", "absent" or None.
    auc, average_precision : float or None
        One class against the rest.
    """

    name: str
    precision: float | None
    sensitivity: float | None
    specificity: float | None
    f1: float | None
    n: int
    slides: int
    sensitivity_interval: tuple[float, float] | None
    specificity_interval: tuple[float, float] | None
    f1_interval: tuple[float, float] | None
    note: str | None
    auc: float | None
    average_precision: float | None
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Curve:
    """At most 200 points of a curve: false positive rate or recall across, the other one up."""

    across: tuple[float, ...]
    up: tuple[float, ...]


@dataclass(frozen=True)
class SlideResult:
    """One slide's images and answers.

    Attributes
    ----------
    slide : str
    n : int
    accuracy : float, 0 to 1
    confusion : (K, K) int64
    """

    slide: str
    n: int
    accuracy: float
    confusion: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mistake:
    """One image that got a wrong answer.

    Attributes
    ----------
    path, true, predicted : str
    confidence, probability_of_true : float, 0 to 1
        Probabilities of the answer and of the true class.
    """

    path: str
    true: str
    predicted: str
    confidence: float
    probability_of_true: float


@dataclass(frozen=True)
class EvaluationReport:
    """Everything that one table of predictions says about a model.

    Attributes
    ----------
    scheme : ClassScheme
        Of the labels and the answers.
    n_slides : int
        Images without a slide name share one.
    estimates : dict of str to Estimate
        Under the names of `HEADLINE_METRICS`.
    method : str
        What was resampled.
    resamples, redrawn, seed : int
        Bootstrap resamples kept, those drawn again for want of a class, and their seed.
    beaten : bool
        Whether the answers are shown to be better than always the commonest class; see
        `leuko.statistics.beats_one_answer`.
    per_class : tuple of ClassResult
    confusion : (K, K) int64
        Rows true, columns predicted.
    roc, pr : dict of str to Curve
        By class name; a class without a curve is left out.
    calibration : tuple of CalibrationBin
    log_loss, brier : float
    by_slide : tuple of SlideResult
        Empty where slides are not known or are more than 500.
    worst : tuple of Mistake
        The 40 mistakes that gave the true class least, worst first.
    selective : tuple of Coverage
    decisions : Decided or None
        None where no decisions were given.
    remarks : tuple of str
        Sentences of the caller's, told after the cautions.
    context : dict
        What the caller knows: command, data, model, machine and the like.
    """

    scheme: ClassScheme
    n_slides: int
    estimates: Mapping[str, Estimate]
    method: str
    resamples: int
    redrawn: int
    seed: int
    beaten: bool
    per_class: tuple[ClassResult, ...]
    confusion: npt.NDArray[np.int64]
    roc: Mapping[str, Curve]
    pr: Mapping[str, Curve]
    calibration: tuple[CalibrationBin, ...]
    log_loss: float
    brier: float
    by_slide: tuple[SlideResult, ...]
    worst: tuple[Mistake, ...]
    selective: tuple[Coverage, ...] = ()
    decisions: Decided | None = None
    remarks: tuple[str, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """How many images were answered."""
        return int(self.confusion.sum())

    @property
    def majority(self) -> tuple[str, float]:
        """The commonest class and its share: the accuracy of always answering it."""
        place, share = metrics.majority_baseline(self.confusion)
        return self.scheme.names[place], share

    @property
    def ece(self) -> float:
        """The expected calibration error."""
        return expected_calibration_error(self.calibration)

    @property
    def absent_classes(self) -> tuple[str, ...]:
        """Classes with no image, over which no mean is."""
        return tuple(one.name for one in self.per_class if one.n == 0)

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """What a reader must know before believing the figures, in the order to be told."""
        n, slides, least = self.n, self.n_slides, MINIMUM_SLIDES
        few = any(0 < one.slides < least for one in self.per_class)
        told = {
            Caution.NO_BETTER: not self.beaten
            and len(self.per_class) - len(self.absent_classes) > 1,
            Caution.ABSENT_CLASSES: bool(self.absent_classes),
            Caution.ONE_SLIDE: slides == 1,
            Caution.SLIDE_FOR_EACH: 1 < slides == n,
            Caution.FEW_SLIDES: 1 < slides < n and slides < least,
            Caution.FEW_SLIDES_OF_CLASSES: few and slides >= least,
            Caution.NO_MISTAKE: int(np.trace(self.confusion)) == n,
            Caution.ASSUMED_INTERVALS: any(one.assumed for one in self.per_class),
        }
        return tuple(caution for caution, true in told.items() if true)

    def with_context(
        self, context: Mapping[str, Any], *, remarks: Sequence[str] = ()
    ) -> EvaluationReport:
        """The same report with what its caller knows.

        Parameters
        ----------
        context : dict
            Added to the document: ``command``, ``data``, ``model``, ``machine`` and the like.
        remarks : sequence of str
            Sentences for a person.

        Returns
        -------
        EvaluationReport
        """
        return replace(self, context=dict(context), remarks=tuple(remarks))

    def to_dict(self, *, warnings: Sequence[str]) -> dict[str, Any]:
        """Everything, as ``evaluation.json`` holds it.

        Parameters
        ----------
        warnings : sequence of str
            The cautions and remarks in sentences; `leuko.render.evaluation.evaluation_document`
            makes and gives them.

        Returns
        -------
        dict
            Only what JSON can hold; whatever is not defined is None.
        """
        return {
            "schema": schema("evaluation"),
            "research_use": RESEARCH_USE,
            "classes": list(self.scheme.names),
            "scheme": self.scheme.to_dict(),
            "n": self.n,
            "n_slides": self.n_slides,
            "metrics": {name: asdict(one) for name, one in self.estimates.items()},
            "intervals": self._intervals(),
            "baselines": {
                "majority": {
                    "class": self.majority[0],
                    "accuracy": self.majority[1],
                    "beaten": self.beaten,
                }
            },
            "per_class": {one.name: _class_document(one) for one in self.per_class},
            "confusion": self.confusion.tolist(),
            "confusion_percent": [
                [100.0 * cell / sum(row) if sum(row) else None for cell in row]
                for row in self.confusion.tolist()
            ],
            "roc": {
                one.name: _curve_document(self.roc.get(one.name), "fpr", "tpr")
                | {"auc": one.auc}
                for one in self.per_class
            },
            "pr": {
                one.name: _curve_document(self.pr.get(one.name), "recall", "precision")
                | {"average_precision": one.average_precision}
                for one in self.per_class
            },
            "calibration": {
                "ece": self.ece,
                "method": f"{len(self.calibration)} bins of equal width of the top label's "
                "confidence (Guo et al. 2017)",
                "bins": [asdict(one) for one in self.calibration],
            },
            "selective": [asdict(one) for one in self.selective],
            "decisions": None if self.decisions is None else asdict(self.decisions),
            "log_loss": self.log_loss,
            "brier": self.brier,
            "by_slide": [asdict(one) | {"confusion": one.confusion.tolist()}
                         for one in self.by_slide],
            "absent_classes": list(self.absent_classes),
            "warnings": list(warnings),
            "worst": [asdict(one) for one in self.worst],
            "seed": self.seed,
            **self.context,
        }  # fmt: skip

    def _intervals(self) -> dict[str, Any]:
        """How the intervals of the document were made."""
        return {
            "method": self.method,
            "level": LEVEL,
            "resamples": self.resamples,
            "redrawn": self.redrawn,
            "seed": self.seed,
            "too_few_slides": any(one.note == TOO_FEW_SLIDES for one in self.per_class),
            "means_over": "classes present",
        }


@dataclass(frozen=True)
class SetResult:
    """What a comparison needs of one training's evaluation on one set.

    Attributes
    ----------
    n, n_slides : int
        Images and slides.
    estimates : dict of str to Estimate
        Under the names of `HEADLINE_METRICS`.
    majority : (str, float)
        Commonest class and its share.
    by_slide : tuple of SlideResult
        Empty where they are not known or too many.
    warnings : tuple of str
        For a person.
    document : dict
        The whole ``evaluation.json``.
    """

    n: int
    n_slides: int
    estimates: Mapping[str, Estimate]
    majority: tuple[str, float]
    by_slide: tuple[SlideResult, ...]
    warnings: tuple[str, ...]
    document: Mapping[str, Any]

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> SetResult:
        """Read an ``evaluation.json``."""
        majority = document["baselines"]["majority"]
        return cls(
            n=document["n"],
            n_slides=document["n_slides"],
            estimates={name: Estimate(**document["metrics"][name]) for name in HEADLINE_METRICS},
            majority=(majority["class"], majority["accuracy"]),
            by_slide=tuple(
                SlideResult(**{**one, "confusion": np.asarray(one["confusion"], np.int64)})
                for one in document.get("by_slide") or ()
            ),
            warnings=tuple(document.get("warnings") or ()),
            document=document,
        )


def evaluate_predictions(
    y_true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    slides: Sequence[str],
    *,
    scheme: ClassScheme | None = None,
    paths: Sequence[str] | None = None,
    decisions: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> EvaluationReport:
    """Measure everything that one table of predictions says.

    The answer for an image is its most probable class, the first one when two are equal.

    Parameters
    ----------
    y_true : (N,) int, 0 to K - 1
        True classes, as positions in `scheme`.
    probabilities : (N, K) float, 0 to 1
        Predicted probabilities, without the rows of rejected images.
    slides : sequence of N str
        Slide of each image, empty where it is not known.
    scheme : ClassScheme, optional
        Of K classes; that of a routine differential when left out.
    paths : sequence of N str, optional
        Name of each image, for the list of mistakes. Row numbers when left out.
    decisions : sequence of N str, optional
        What was decided on each answer, one of `leuko.prediction.DECISIONS`.
    seed : int
        Seed of the bootstrap.
    resamples : int
        Bootstrap resamples to keep.

    Returns
    -------
    EvaluationReport

    Raises
    ------
    DataError
        When there is no image, the lengths differ, or probabilities are none.
    """
    rows = _checked(y_true, probabilities, slides, scheme, paths)
    labels, table, confusion = rows.labels, rows.table, rows.confusion
    resampled = intervals.resample_confusions(
        labels, rows.predicted[np.newaxis], slides, len(rows.scheme),
        seed=seed, resamples=resamples,
    )  # fmt: skip
    matrices = resampled.confusion[:, 0]
    roc, pr = _curves(rows)
    return EvaluationReport(
        scheme=rows.scheme,
        n_slides=len(rows.slides),
        estimates=_estimates(confusion, matrices, resampled.method, len(rows.slides)),
        method=resampled.method,
        resamples=len(matrices),
        redrawn=resampled.redrawn,
        seed=seed,
        beaten=beats_one_answer(labels, rows.predicted, slides),
        per_class=_class_results(rows, matrices),
        confusion=confusion,
        roc=roc,
        pr=pr,
        calibration=calibration_bins(labels, table),
        log_loss=log_loss(labels, table),
        brier=metrics.brier_score(labels, table),
        by_slide=_slide_results(rows),
        worst=_worst_mistakes(rows),
        selective=accuracy_at_coverage(labels, table),
        decisions=None
        if decisions is None
        else decided(labels, rows.predicted, slides, decisions, seed=seed, resamples=resamples),
    )


@dataclass(frozen=True)
class _Rows:
    """Labelled answers that belong together, counted slide by slide.

    Attributes
    ----------
    scheme : ClassScheme
        Of K classes.
    labels, predicted : (N,) int64, 0 to K - 1
    table : (N, K) float64, 0 to 1
    names : sequence of N str
        Of the images.
    slides : sequence of S str
    by_slide : (S, K, K) int64
    """

    scheme: ClassScheme
    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    table: npt.NDArray[np.float64]
    names: Sequence[str]
    slides: Sequence[str]
    by_slide: npt.NDArray[np.int64]

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Rows true, columns predicted: (K, K)."""
        total: npt.NDArray[np.int64] = self.by_slide.sum(axis=0)
        return total


def _checked(
    y_true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    slides: Sequence[str],
    scheme: ClassScheme | None,
    paths: Sequence[str] | None,
) -> _Rows:
    """Put rows together, or say what does not fit."""
    labels, table = check_rows(y_true, probabilities)
    scheme = load_scheme(DIFFERENTIAL_5) if scheme is None else scheme
    if table.shape[1] != len(scheme):
        raise DataError(
            f"Received probabilities of {table.shape[1]} classes, expected the {len(scheme)} of "
            f"{scheme.name}: {', '.join(scheme.names)}."
        )
    names = [str(row) for row in range(len(labels))] if paths is None else list(paths)
    if len(names) != len(labels):
        raise DataError(f"Received {len(names)} paths for {len(labels)} labels, expected one each.")
    predicted = table.argmax(axis=1)
    slide_names, by_slide = metrics.confusion_by_slide(labels, predicted, slides, len(scheme))
    return _Rows(scheme, labels, predicted, table, names, slide_names, by_slide)


def _estimates(
    confusion: npt.NDArray[np.int64], matrices: npt.NDArray[np.float64], method: str, slides: int
) -> dict[str, Estimate]:
    """The metrics of the whole set with their intervals."""
    estimates = {}
    right, n = int(np.trace(confusion)), int(confusion.sum())
    for name, measure in HEADLINE_METRICS.items():
        drawn, how = measure(matrices), method
        if name == "accuracy":
            interval, how = intervals.accuracy_interval(right, n, slides, drawn, method)
        else:
            interval = intervals.percentile_interval(drawn)
        low, high = interval or (None, None)
        estimates[name] = Estimate(float(measure(confusion)), low, high, how)
    return estimates


def _curves(rows: _Rows) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """ROC and precision-recall curves of each class against the rest, where it has them."""
    roc, pr = {}, {}
    for index, name in enumerate(rows.scheme.names):
        positive, score = rows.labels == index, rows.table[:, index]
        if positive.any():
            pr[name] = _thinned(*metrics.precision_recall_curve(positive, score))
            if not positive.all():
                roc[name] = _thinned(*metrics.roc_curve(positive, score))
    return roc, pr


def _class_results(rows: _Rows, matrices: npt.NDArray[np.float64]) -> tuple[ClassResult, ...]:
    """One result for each class, with intervals from resampled confusion matrices (R, K, K)."""
    confusion = rows.confusion
    values = {
        "precision": metrics.precision(confusion),
        "sensitivity": metrics.sensitivity(confusion),
        "specificity": metrics.specificity(confusion),
        "f1": metrics.f1_scores(confusion),
    }
    drawn = {
        "sensitivity": metrics.sensitivity(matrices),
        "specificity": metrics.specificity(matrices),
        "f1": metrics.f1_scores(matrices),
    }
    results = []
    for index, name in enumerate(rows.scheme.names):
        positive, score = rows.labels == index, rows.table[:, index]
        n, slides = int(positive.sum()), int((rows.by_slide[:, index].sum(axis=1) > 0).sum())
        enough = slides >= MINIMUM_SLIDES
        found = {
            key: _class_interval(key, index, rows.by_slide, column[:, index])
            if enough
            else (None, "")
            for key, column in drawn.items()
        }
        few = None if enough else TOO_FEW_SLIDES
        results.append(
            ClassResult(
                name=name,
                n=n,
                slides=slides,
                sensitivity_interval=found["sensitivity"][0],
                specificity_interval=found["specificity"][0],
                f1_interval=found["f1"][0],
                note=few if n else "absent",
                auc=metrics.roc_auc(positive, score) if 0 < n < len(positive) else None,
                average_precision=metrics.average_precision(positive, score) if n else None,
                assumed=tuple(key for key, (_, how) in found.items() if how == WILSON_BY_SLIDE),
                **{key: _defined(value[index]) for key, value in values.items()},
            )
        )
    return tuple(results)


def _class_interval(
    key: str, index: int, by_slide: npt.NDArray[np.int64], drawn: npt.NDArray[np.float64]
) -> tuple[tuple[float, float] | None, str]:
    """Interval of one figure of one class, and how it was found."""
    right = by_slide[:, index, index]
    mine, answered = by_slide[:, index].sum(axis=1), by_slide[:, :, index].sum(axis=1)
    either = mine + answered - right
    everything = by_slide.sum(axis=(1, 2))
    k, n = {
        "sensitivity": (right, mine),
        "specificity": (everything - either, everything - mine),
        # F1 is no proportion of images, but 2 J / (1 + J) of one: the right ones among those that
        # are of the class or were given it.
        "f1": (right, either),
    }[key]
    span, how = intervals.proportion_interval(
        int(k.sum()), int(n.sum()), int((n > 0).sum()), drawn, intervals.OVER_SLIDES
    )
    if key == "f1" and span is not None and how == WILSON_BY_SLIDE:
        span = (2 * span[0] / (1 + span[0]), 2 * span[1] / (1 + span[1]))
    return span, how


def _slide_results(rows: _Rows) -> tuple[SlideResult, ...]:
    """One result for each slide, unless they are not known or too many to list."""
    if not 1 < len(rows.slides) < len(rows.labels) or len(rows.slides) > _BY_SLIDE_LIMIT:
        return ()
    return tuple(
        SlideResult(name, int(table.sum()), float(metrics.accuracy(table)), table)
        for name, table in zip(rows.slides, rows.by_slide, strict=True)
    )


def _worst_mistakes(rows: _Rows) -> tuple[Mistake, ...]:
    """The wrong answers that gave the true class least; ties in order of the name."""
    truth = rows.table[np.arange(len(rows.labels)), rows.labels]
    found: list[int] = np.flatnonzero(rows.predicted != rows.labels).tolist()
    wrong = sorted(found, key=lambda row: (truth[row], rows.names[row]))
    return tuple(
        Mistake(
            path=rows.names[row],
            true=rows.scheme.names[rows.labels[row]],
            predicted=rows.scheme.names[rows.predicted[row]],
            confidence=float(rows.table[row, rows.predicted[row]]),
            probability_of_true=float(truth[row]),
        )
        for row in wrong[:WORST_MISTAKES]
    )


def _class_document(one: ClassResult) -> dict[str, Any]:
    """A class's entry in the document."""
    document = asdict(one)
    for name in ("name", "auc", "average_precision", "assumed"):
        del document[name]
    for name in ("sensitivity_interval", "specificity_interval", "f1_interval"):
        if (span := document[name]) is not None:
            document[name] = {"low": span[0], "high": span[1]}
    return document


def _curve_document(curve: Curve | None, across: str, up: str) -> dict[str, Any]:
    """A curve's points in the document; empty lists where there is none."""
    return {across: list(curve.across) if curve else [], up: list(curve.up) if curve else []}


def _thinned(across: npt.NDArray[np.float64], up: npt.NDArray[np.float64]) -> Curve:
    """A curve short enough for a report."""
    across, up = metrics.thin_curve(across, up, limit=CURVE_POINTS)
    return Curve(tuple(across.tolist()), tuple(up.tolist()))


def _defined(value: float) -> float | None:
    """None for not-a-number."""
    return float(value) if np.isfinite(value) else None
