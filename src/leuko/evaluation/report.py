"""The report on one table of predictions: every metric with its n, its slides and its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.artifacts import RESEARCH_USE, schema
from leuko.errors import DataError
from leuko.evaluation import intervals, metrics
from leuko.evaluation.selective import accuracy_at_coverage, decided
from leuko.statistics import beats_one_answer
from leuko.taxonomy import CLASSES

__all__ = [
    "HEADLINE_METRICS",
    "ClassResult",
    "Curve",
    "Estimate",
    "EvaluationReport",
    "Mistake",
    "SlideResult",
    "evaluate_predictions",
    "no_better",
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
    confusion : (5, 5) int64
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
    n, n_slides : int
        Images and slides. Images without a slide name share one.
    estimates : dict of str to Estimate
        Under the names of `HEADLINE_METRICS`.
    method : str
        What was resampled.
    resamples, redrawn, seed : int
        Bootstrap resamples kept, those drawn again for want of a class, and their seed.
    majority : (str, float)
        Commonest class and its share: the accuracy of always answering it.
    beaten : bool
        Whether the answers are shown to be better; see `leuko.statistics.beats_one_answer`.
    per_class : tuple of 5 ClassResult
    confusion : (5, 5) int64
        Rows true, columns predicted.
    roc, pr : dict of str to Curve
        By class name; a class without a curve is left out.
    calibration : tuple of CalibrationBin
    ece, log_loss, brier : float
    by_slide : tuple of SlideResult
        Empty where slides are not known or are more than 500.
    absent_classes : tuple of str
    warnings : tuple of str
        Sentences for a person.
    worst : tuple of Mistake
        The 40 mistakes that gave the true class least, worst first.
    selective : tuple of dict
        From `leuko.evaluation.selective.accuracy_at_coverage`.
    decisions : dict or None
        From `leuko.evaluation.selective.decided`; None where no decisions were given.
    context : dict
        What the caller knows: command, data, model, machine and the like.
    """

    n: int
    n_slides: int
    estimates: Mapping[str, Estimate]
    method: str
    resamples: int
    redrawn: int
    seed: int
    majority: tuple[str, float]
    beaten: bool
    per_class: tuple[ClassResult, ...]
    confusion: npt.NDArray[np.int64]
    roc: Mapping[str, Curve]
    pr: Mapping[str, Curve]
    calibration: tuple[metrics.CalibrationBin, ...]
    ece: float
    log_loss: float
    brier: float
    by_slide: tuple[SlideResult, ...]
    absent_classes: tuple[str, ...]
    warnings: tuple[str, ...]
    worst: tuple[Mistake, ...]
    selective: tuple[Mapping[str, Any], ...] = ()
    decisions: Mapping[str, Any] | None = None
    context: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as ``evaluation.json`` holds it.

        Returns
        -------
        dict
            Only what JSON can hold; whatever is not defined is None.
        """
        return self._results() | dict(self.context)

    def _results(self) -> dict[str, Any]:
        """The document without what the caller added."""
        counts = self.confusion.sum(axis=1)
        return {
            "schema": schema("evaluation"),
            "research_use": RESEARCH_USE,
            "classes": list(CLASSES),
            "n": self.n,
            "n_slides": self.n_slides,
            "metrics": {
                name: {
                    "value": one.value,
                    "low": one.low,
                    "high": one.high,
                    "method": one.method,
                }
                for name, one in self.estimates.items()
            },
            "intervals": {
                "method": self.method,
                "level": intervals.LEVEL,
                "resamples": self.resamples,
                "redrawn": self.redrawn,
                "seed": self.seed,
                "too_few_slides": any(one.note == TOO_FEW_SLIDES for one in self.per_class),
                "means_over": "classes present",
            },
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
                [100.0 * cell / total for cell in row] if total else [None] * len(CLASSES)
                for row, total in zip(self.confusion.tolist(), counts.tolist(), strict=True)
            ],
            "roc": {
                one.name: _curve_document(self.roc.get(one.name), "fpr", "tpr", "auc", one.auc)
                for one in self.per_class
            },
            "pr": {
                one.name: _curve_document(
                    self.pr.get(one.name),
                    "recall",
                    "precision",
                    "average_precision",
                    one.average_precision,
                )
                for one in self.per_class
            },
            "calibration": {
                "ece": self.ece,
                "method": f"{len(self.calibration)} bins of equal width of the top label's "
                "confidence (Guo et al. 2017)",
                "bins": [
                    {
                        "low": one.low,
                        "high": one.high,
                        "n": one.n,
                        "confidence": one.confidence,
                        "accuracy": one.accuracy,
                    }
                    for one in self.calibration
                ],
            },
            "selective": [dict(one) for one in self.selective],
            "decisions": None if self.decisions is None else dict(self.decisions),
            "log_loss": self.log_loss,
            "brier": self.brier,
            "by_slide": [
                {
                    "slide": one.slide,
                    "n": one.n,
                    "accuracy": one.accuracy,
                    "confusion": one.confusion.tolist(),
                }
                for one in self.by_slide
            ],
            "absent_classes": list(self.absent_classes),
            "warnings": list(self.warnings),
            "worst": [
                {
                    "path": one.path,
                    "true": one.true,
                    "predicted": one.predicted,
                    "confidence": one.confidence,
                    "probability_of_true": one.probability_of_true,
                }
                for one in self.worst
            ],
            "seed": self.seed,
        }

    def summary(self) -> str:
        """The classification report, as text of at most 96 columns.

        Returns
        -------
        str
            Several lines, without a newline at the end.
        """
        slides = _count(self.n_slides, "slide")
        lines = [
            f"{_count(self.n, 'image')}, {slides}",
            "",
            f"{'':<16}{'precision':>11}{'sensitivity':>13}{'[95% interval]':>18}"
            f"{'specificity':>13}{'f1':>8}{'n':>7}{'slides':>8}",
        ]
        for one in self.per_class:
            if one.n == 0:
                interval = "absent"
            elif one.sensitivity_interval is None:
                interval = TOO_FEW_SLIDES
            else:
                interval = _bracket(*one.sensitivity_interval)
            lines.append(
                f"{one.name:<16}{_number(one.precision):>11}{_number(one.sensitivity):>13}"
                f"{interval:>18}{_number(one.specificity):>13}{_number(one.f1):>8}"
                f"{one.n:>7,}{one.slides:>8}"
            )
        lines.append("")
        for title, weights in (
            ("macro average", [1.0 if one.n else 0.0 for one in self.per_class]),
            ("weighted average", [float(one.n) for one in self.per_class]),
        ):
            precision, sensitivity, specificity, f1 = (
                _weighted([getattr(one, name) for one in self.per_class], weights)
                for name in ("precision", "sensitivity", "specificity", "f1")
            )
            lines.append(
                f"{title:<16}{_number(precision):>11}{_number(sensitivity):>13}{'':>18}"
                f"{_number(specificity):>13}{_number(f1):>8}{self.n:>7,}{self.n_slides:>8}"
            )
        lines.append("")
        for name, estimate in self.estimates.items():
            interval = (
                "no interval"
                if estimate.low is None or estimate.high is None
                else _bracket(estimate.low, estimate.high)
            )
            title = "macro-F1" if name == "macro_f1" else name.replace("_", " ")
            lines.append(f"{title:<20}{estimate.value:.4f}  {interval}  {estimate.method}")
        title, share = self.majority
        lines.append(f"{'majority baseline':<20}{share:.4f}  always answering {title}")
        lines.append(
            f"{'calibration':<20}ECE {self.ece:.4f}, log loss {self.log_loss:.4f}, "
            f"Brier {self.brier:.4f}"
        )
        lines += self._selective_lines()
        lines.append(
            f"Intervals are 95%, {self.resamples:,} resamples, {self.redrawn:,} drawn again for "
            f"want of a class, seed {self.seed}."
        )
        if self.absent_classes:
            lines.append("Means are over the classes present.")
        lines.extend(f"Warning: {sentence}" for sentence in self.warnings)
        lines.append(RESEARCH_USE)
        return "\n".join(lines)

    def _selective_lines(self) -> list[str]:
        """What is right among the most confident answers, and among the accepted."""
        lines = [
            f"{'most confident 95%':<20}{one['accuracy']:.4f}"
            for one in self.selective
            if one["coverage"] == 0.95
        ]
        if self.decisions is not None:
            counts, answered = self.decisions["counts"], self.decisions["answered"]
            if answered is not None:
                span = "no interval" if answered["low"] is None else _bracket(
                    answered["low"], answered["high"])  # fmt: skip
                lines.append(
                    f"{'accepted':<20}{answered['accuracy']:.4f}  {span}  of "
                    f"{_count(answered['n'], 'image')}"
                )
            told = ", ".join(
                f"{name} {100 * count / self.n:.1f}%" for name, count in counts.items() if count
            )
            lines.append(f"{'decisions':<20}{told}")
        return lines


def evaluate_predictions(
    y_true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    slides: Sequence[str],
    *,
    paths: Sequence[str] | None = None,
    decisions: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    context: Mapping[str, Any] | None = None,
) -> EvaluationReport:
    """Measure everything that one table of predictions says.

    The answer for an image is its most probable class, the first one when two are equal.

    Parameters
    ----------
    y_true : (N,) int, 0 to 4
        True classes, as positions in `leuko.taxonomy.CLASSES`.
    probabilities : (N, 5) float, 0 to 1
        Predicted probabilities, without the rows of rejected images.
    slides : sequence of N str
        Slide of each image, empty where it is not known.
    paths : sequence of N str, optional
        Name of each image, for the list of mistakes. Row numbers when left out.
    decisions : sequence of N str, optional
        What was decided on each answer, one of `leuko.prediction.DECISIONS`.
    seed : int
        Seed of the bootstrap.
    resamples : int
        Bootstrap resamples to keep.
    context : dict, optional
        Added to the document: ``command``, ``data``, ``model``, ``machine`` and whatever else
        the caller knows. Sentences under ``warnings`` join the report's own.

    Returns
    -------
    EvaluationReport

    Raises
    ------
    DataError
        When there is no image, the lengths differ, or probabilities are none.
    ValueError
        When the context would overwrite a result.
    """
    labels, table = metrics.check_rows(y_true, probabilities)
    names = [str(row) for row in range(len(labels))] if paths is None else list(paths)
    if len(names) != len(labels):
        raise DataError(f"Received {len(names)} paths for {len(labels)} labels, expected one each.")
    known = dict(context or {})
    extra_warnings = tuple(known.pop("warnings", ()))
    predicted = table.argmax(axis=1)
    slide_names, by_slide = metrics.confusion_by_slide(labels, predicted, slides)
    confusion = by_slide.sum(axis=0)
    resampled = intervals.resample_confusions(
        labels, predicted[np.newaxis], slides, seed=seed, resamples=resamples
    )
    matrices = resampled.confusion[:, 0]
    counts = confusion.sum(axis=1)
    majority, share = metrics.majority_baseline(confusion)
    roc: dict[str, Curve] = {}
    pr: dict[str, Curve] = {}
    bins = metrics.calibration_bins(labels, table)
    slides_known = intervals.slides_are_known(slides)
    per_class = _class_results(by_slide, matrices, labels, table, roc, pr)
    beaten = beats_one_answer(labels, predicted, slides)
    sentences = _warnings(per_class, len(slide_names), confusion)
    if not beaten and (counts > 0).sum() > 1:
        sentences = (no_better(confusion), *sentences)
    report = EvaluationReport(
        n=len(labels),
        n_slides=len(slide_names),
        estimates=_estimates(confusion, matrices, resampled.method, len(slide_names)),
        method=resampled.method,
        resamples=len(matrices),
        redrawn=resampled.redrawn,
        seed=seed,
        majority=(CLASSES[majority], share),
        beaten=beaten,
        per_class=per_class,
        confusion=confusion,
        roc=roc,
        pr=pr,
        calibration=bins,
        ece=metrics.expected_calibration_error(bins),
        log_loss=metrics.log_loss(labels, table),
        brier=metrics.brier_score(labels, table),
        by_slide=_slide_results(slide_names, by_slide) if slides_known else (),
        absent_classes=tuple(
            name for name, count in zip(CLASSES, counts, strict=True) if count == 0
        ),
        warnings=(*sentences, *extra_warnings),
        worst=_worst_mistakes(labels, table, names),
        selective=tuple(accuracy_at_coverage(labels, table)),
        decisions=None
        if decisions is None
        else decided(labels, predicted, slides, decisions, seed=seed, resamples=resamples),
        context=known,
    )
    taken = sorted(set(known) & set(report._results()))
    if taken:
        raise ValueError(
            f"Received the context keys {taken}, which name results. Expected keys such as "
            "command, data, model and machine; rename these."
        )
    return report


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


def _class_results(
    by_slide: npt.NDArray[np.int64],
    matrices: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    table: npt.NDArray[np.float64],
    roc: dict[str, Curve],
    pr: dict[str, Curve],
) -> tuple[ClassResult, ...]:
    """One result for each class; fills the two dictionaries of curves."""
    confusion = by_slide.sum(axis=0)
    counts = confusion.sum(axis=1)
    class_slides = (by_slide.sum(axis=2) > 0).sum(axis=0)
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
    for index, name in enumerate(CLASSES):
        positive, score = labels == index, table[:, index]
        auc = average = None
        if 0 < counts[index] < len(labels):
            auc = metrics.roc_auc(positive, score)
            roc[name] = _thinned(*metrics.roc_curve(positive, score))
        if counts[index]:
            average = metrics.average_precision(positive, score)
            pr[name] = _thinned(*metrics.precision_recall_curve(positive, score))
        enough = class_slides[index] >= intervals.MINIMUM_SLIDES
        found = {
            key: _class_interval(key, index, by_slide, column[:, index]) if enough else (None, "")
            for key, column in drawn.items()
        }
        spans = {key: span for key, (span, _) in found.items()}
        assumed = [key for key, (_, how) in found.items() if how == intervals.WILSON_BY_SLIDE]
        note = None
        if counts[index] == 0:
            note = "absent"
        elif not enough:
            note = TOO_FEW_SLIDES
        results.append(
            ClassResult(
                name=name,
                n=int(counts[index]),
                slides=int(class_slides[index]),
                sensitivity_interval=spans["sensitivity"],
                specificity_interval=spans["specificity"],
                f1_interval=spans["f1"],
                note=note,
                auc=auc,
                average_precision=average,
                assumed=tuple(assumed),
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
    if key == "f1" and span is not None and how == intervals.WILSON_BY_SLIDE:
        span = (2 * span[0] / (1 + span[0]), 2 * span[1] / (1 + span[1]))
    return span, how


def _slide_results(
    names: Sequence[str], by_slide: npt.NDArray[np.int64]
) -> tuple[SlideResult, ...]:
    """One result for each slide, unless they are too many to list."""
    if len(names) > _BY_SLIDE_LIMIT:
        return ()
    return tuple(
        SlideResult(name, int(table.sum()), float(metrics.accuracy(table)), table)
        for name, table in zip(names, by_slide, strict=True)
    )


def _worst_mistakes(
    labels: npt.NDArray[np.int64], table: npt.NDArray[np.float64], names: Sequence[str]
) -> tuple[Mistake, ...]:
    """The wrong answers that gave the true class least; ties in order of the name."""
    predicted = table.argmax(axis=1)
    truth = table[np.arange(len(labels)), labels]
    rows: list[int] = np.flatnonzero(predicted != labels).tolist()
    wrong = sorted(rows, key=lambda row: (truth[row], names[row]))
    return tuple(
        Mistake(
            path=names[row],
            true=CLASSES[labels[row]],
            predicted=CLASSES[predicted[row]],
            confidence=float(table[row, predicted[row]]),
            probability_of_true=float(truth[row]),
        )
        for row in wrong[:WORST_MISTAKES]
    )


def no_better(confusion: npt.ArrayLike) -> str:
    """Say that a model was not shown to know anything.

    Parameters
    ----------
    confusion : (5, 5) int
        Rows true, columns predicted; of at least two true classes.

    Returns
    -------
    str
        A sentence for a person; what it says is for the caller to know, see
        `leuko.statistics.beats_one_answer`.
    """
    matrix = np.asarray(confusion, dtype=np.int64)
    common, share = metrics.majority_baseline(matrix)
    present = int((matrix.sum(axis=1) > 0).sum())
    right, balanced = float(metrics.accuracy(matrix)), float(metrics.balanced_accuracy(matrix))
    return (
        f"No better than always answering {CLASSES[common]}, as far as these "
        f"{_count(int(matrix.sum()), 'image')} show: accuracy {right:.1%} where that gives "
        f"{share:.1%}, balanced accuracy {balanced:.1%} where that gives {1 / present:.1%}."
    )


def _warnings(
    per_class: Sequence[ClassResult], n_slides: int, confusion: npt.NDArray[np.int64]
) -> tuple[str, ...]:
    """What a reader must know before believing the numbers."""
    sentences = []
    n = int(confusion.sum())
    absent = [one.name for one in per_class if one.n == 0]
    if absent:
        sentences.append(
            f"No image of {_listed(absent)} is in this set (n = 0); balanced accuracy and "
            f"macro-F1 are means over the {_count(len(CLASSES) - len(absent), 'class')} present."
        )
    if n_slides == 1:
        sentences.append(
            "All images count as one slide, so intervals are over images; they take cells for "
            "independent and are too narrow."
        )
    elif n_slides == n:
        sentences.append(
            "Every image has a slide of its own, so the names seem to carry no slide; intervals "
            "are over images, take cells for independent and may be too narrow."
        )
    elif n_slides < intervals.MINIMUM_SLIDES:
        sentences.append(
            f"There are only {n_slides} slides; an interval over so few is rough and too narrow."
        )
    few = [
        f"{one.name} ({_count(one.slides, 'slide')})"
        for one in per_class
        if 0 < one.slides < intervals.MINIMUM_SLIDES
    ]
    if few and n_slides >= intervals.MINIMUM_SLIDES:
        sentences.append(
            f"Too few slides for an interval of its own: {_listed(few)}. The intervals of balanced "
            "accuracy and macro-F1 know the spread between so few slides badly and are too narrow."
        )
    if np.trace(confusion) == n:
        over = "images"
        if 1 < n_slides < n:
            over += ", fewer of them because those of a slide are taken to be alike"
        sentences.append(
            f"There is no mistake among {_count(n, 'image')}: accuracy has Wilson's interval over "
            f"{over}, and the bootstrap cannot give balanced accuracy and macro-F1 a lower end "
            "below 1."
        )
    alike = [
        f"{title} of {_listed(names)}"
        for key, title in (
            ("sensitivity", "sensitivity"), ("specificity", "specificity"), ("f1", "F1"),
        )
        if (names := [one.name for one in per_class if key in one.assumed])
    ]  # fmt: skip
    if alike:
        sentences.append(
            "No resample differs from another, as where a class has no mistake or nothing else, in "
            f"the {_listed(alike)}: there the interval is Wilson's, over fewer images than there "
            "are where those of a slide are taken to be alike."
        )
    return tuple(sentences)


def _class_document(one: ClassResult) -> dict[str, Any]:
    """A class's entry in the document."""
    spans = {
        "sensitivity_interval": one.sensitivity_interval,
        "specificity_interval": one.specificity_interval,
        "f1_interval": one.f1_interval,
    }
    return {
        "precision": one.precision,
        "sensitivity": one.sensitivity,
        "specificity": one.specificity,
        "f1": one.f1,
        "n": one.n,
        "slides": one.slides,
        **{
            key: None if span is None else {"low": span[0], "high": span[1]}
            for key, span in spans.items()
        },
        "note": one.note,
    }


def _curve_document(
    curve: Curve | None, across: str, up: str, area: str, value: float | None
) -> dict[str, Any]:
    """A curve's entry in the document; empty lists where there is none."""
    return {
        across: list(curve.across) if curve else [],
        up: list(curve.up) if curve else [],
        area: value,
    }


def _thinned(across: npt.NDArray[np.float64], up: npt.NDArray[np.float64]) -> Curve:
    """A curve short enough for a report."""
    across, up = metrics.thin_curve(across, up, limit=CURVE_POINTS)
    return Curve(tuple(across.tolist()), tuple(up.tolist()))


def _defined(value: float) -> float | None:
    """None for not-a-number."""
    return float(value) if np.isfinite(value) else None


def _weighted(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """Weighted mean of what is defined."""
    pairs = [
        (value, weight)
        for value, weight in zip(values, weights, strict=True)
        if weight and value is not None
    ]
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total else None


def _number(value: float | None) -> str:
    """Four decimals, or a dash."""
    return "-" if value is None else f"{value:.4f}"


def _bracket(low: float, high: float) -> str:
    """An interval with four decimals."""
    return f"[{low:.4f}, {high:.4f}]"


def _count(number: int, noun: str) -> str:
    """A number with its noun."""
    plural = {"class": "classes"}.get(noun, noun + "s")
    return f"{number:,} {noun if number == 1 else plural}"


def _listed(names: Sequence[str]) -> str:
    """Names with commas and an "and"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
