"""An evaluation in words: its cautions, its summary for a terminal, and its document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.evaluation import metrics
from leuko.evaluation.report import TOO_FEW_SLIDES, Caution, ClassResult, EvaluationReport
from leuko.statistics import MINIMUM_SLIDES
from leuko.support.artifacts import RESEARCH_USE
from leuko.support.text import counted, listed

__all__ = ["evaluation_document", "evaluation_summary", "evaluation_warnings", "no_better"]

_TITLES: Final = {"sensitivity": "sensitivity", "specificity": "specificity", "f1": "F1"}


def evaluation_document(report: EvaluationReport) -> dict[str, Any]:
    """Write an evaluation as ``evaluation.json`` holds it, with its warnings in sentences.

    Parameters
    ----------
    report : EvaluationReport

    Returns
    -------
    dict
        Only what JSON can hold.
    """
    return report.to_dict(warnings=evaluation_warnings(report))


def evaluation_warnings(report: EvaluationReport) -> list[str]:
    """Say what a reader must know before believing the numbers.

    Parameters
    ----------
    report : EvaluationReport

    Returns
    -------
    list of str
        A sentence for each caution, then the remarks of who made the report.
    """
    return [*(_CAUTIONS[caution](report) for caution in report.cautions), *report.remarks]


def no_better(confusion: npt.ArrayLike, names: Sequence[str]) -> str:
    """Say that a model was not shown to know anything.

    Parameters
    ----------
    confusion : (K, K) int
        Rows true, columns predicted; of at least two true classes.
    names : sequence of K str
        Of the classes.

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
        f"No better than always answering {names[common]}, as far as these "
        f"{counted(int(matrix.sum()), 'image')} show: accuracy {right:.1%} where that gives "
        f"{share:.1%}, balanced accuracy {balanced:.1%} where that gives {1 / present:.1%}."
    )


def _no_better(report: EvaluationReport) -> str:
    return no_better(report.confusion, report.scheme.names)


def _absent_classes(report: EvaluationReport) -> str:
    present = len(report.scheme) - len(report.absent_classes)
    return (
        f"No image of {listed(report.absent_classes)} is in this set (n = 0); balanced accuracy "
        f"and macro-F1 are means over the {present} {'class' if present == 1 else 'classes'} "
        "present."
    )


def _one_slide(_: EvaluationReport) -> str:
    return (
        "All images count as one slide, so intervals are over images; they take cells for "
        "independent and are too narrow."
    )


def _slide_for_each(_: EvaluationReport) -> str:
    return (
        "Every image has a slide of its own, so the names seem to carry no slide; intervals "
        "are over images, take cells for independent and may be too narrow."
    )


def _few_slides(report: EvaluationReport) -> str:
    return (
        f"There are only {report.n_slides} slides; an interval over so few is rough and too narrow."
    )


def _few_slides_of_classes(report: EvaluationReport) -> str:
    few = [
        f"{one.name} ({counted(one.slides, 'slide')})"
        for one in report.per_class
        if 0 < one.slides < MINIMUM_SLIDES
    ]
    return (
        f"Too few slides for an interval of its own: {listed(few)}. The intervals of balanced "
        "accuracy and macro-F1 know the spread between so few slides badly and are too narrow."
    )


def _no_mistake(report: EvaluationReport) -> str:
    over = "images"
    if 1 < report.n_slides < report.n:
        over += ", fewer of them because those of a slide are taken to be alike"
    return (
        f"There is no mistake among {counted(report.n, 'image')}: accuracy has Wilson's interval "
        f"over {over}, and the bootstrap cannot give balanced accuracy and macro-F1 a lower end "
        "below 1."
    )


def _assumed_intervals(report: EvaluationReport) -> str:
    alike = [
        f"{title} of {listed(names)}"
        for key, title in _TITLES.items()
        if (names := [one.name for one in report.per_class if key in one.assumed])
    ]
    return (
        "No resample differs from another, as where a class has no mistake or nothing else, in "
        f"the {listed(alike)}: there the interval is Wilson's, over fewer images than there "
        "are where those of a slide are taken to be alike."
    )


_CAUTIONS: Final[dict[Caution, Callable[[EvaluationReport], str]]] = {
    Caution.NO_BETTER: _no_better,
    Caution.ABSENT_CLASSES: _absent_classes,
    Caution.ONE_SLIDE: _one_slide,
    Caution.SLIDE_FOR_EACH: _slide_for_each,
    Caution.FEW_SLIDES: _few_slides,
    Caution.FEW_SLIDES_OF_CLASSES: _few_slides_of_classes,
    Caution.NO_MISTAKE: _no_mistake,
    Caution.ASSUMED_INTERVALS: _assumed_intervals,
}


def evaluation_summary(report: EvaluationReport) -> str:
    """Write the classification report, as text for a terminal.

    Parameters
    ----------
    report : EvaluationReport

    Returns
    -------
    str
        Several lines, without a newline at the end.
    """
    lines = [
        f"{counted(report.n, 'image')}, {counted(report.n_slides, 'slide')}",
        "",
        *_class_lines(report),
        "",
        *_figure_lines(report),
        *_selective_lines(report),
        f"Intervals are 95%, {report.resamples:,} resamples, {report.redrawn:,} drawn again for "
        f"want of a class, seed {report.seed}.",
    ]
    if report.absent_classes:
        lines.append("Means are over the classes present.")
    lines.extend(f"Warning: {sentence}" for sentence in evaluation_warnings(report))
    lines.append(RESEARCH_USE)
    return "\n".join(lines)


def _class_lines(report: EvaluationReport) -> list[str]:
    """The table of classes, with their averages below."""
    wide = max(16, *(len(name) + 1 for name in report.scheme.names))
    lines = [
        f"{'':<{wide}}{'precision':>11}{'sensitivity':>13}{'[95% interval]':>18}"
        f"{'specificity':>13}{'f1':>8}{'n':>7}{'slides':>8}"
    ]
    for one in report.per_class:
        interval = _class_interval(one)
        lines.append(
            f"{one.name:<{wide}}{_number(one.precision):>11}{_number(one.sensitivity):>13}"
            f"{interval:>18}{_number(one.specificity):>13}{_number(one.f1):>8}"
            f"{one.n:>7,}{one.slides:>8}"
        )
    lines.append("")
    for title, weights in (
        ("macro average", [1.0 if one.n else 0.0 for one in report.per_class]),
        ("weighted average", [float(one.n) for one in report.per_class]),
    ):
        precision, sensitivity, specificity, f1 = (
            _number(_weighted([getattr(one, name) for one in report.per_class], weights))
            for name in ("precision", "sensitivity", "specificity", "f1")
        )
        lines.append(
            f"{title:<{wide}}{precision:>11}{sensitivity:>13}{'':>18}{specificity:>13}{f1:>8}"
            f"{report.n:>7,}{report.n_slides:>8}"
        )
    return lines


def _class_interval(one: ClassResult) -> str:
    """The interval of a class's sensitivity, or why there is none."""
    if one.n == 0:
        return "absent"
    if one.sensitivity_interval is None:
        return TOO_FEW_SLIDES
    return _bracket(*one.sensitivity_interval)


def _figure_lines(report: EvaluationReport) -> list[str]:
    """The figures of the whole set."""
    lines = []
    for name, one in report.estimates.items():
        title = "macro-F1" if name == "macro_f1" else name.replace("_", " ")
        lines.append(f"{title:<20}{one.value:.4f}  {_bracket(one.low, one.high)}  {one.method}")
    title, share = report.majority
    return [
        *lines,
        f"{'majority baseline':<20}{share:.4f}  always answering {title}",
        f"{'calibration':<20}ECE {report.ece:.4f}, log loss {report.log_loss:.4f}, "
        f"Brier {report.brier:.4f}",
    ]


def _selective_lines(report: EvaluationReport) -> list[str]:
    """What is right among the most confident answers, and among the accepted."""
    lines = [
        f"{'most confident 95%':<20}{one.accuracy:.4f}"
        for one in report.selective
        if one.coverage == 0.95
    ]
    if report.decisions is None:
        return lines
    one = report.decisions.answered
    if one is not None:
        lines.append(
            f"{'accepted':<20}{one.accuracy:.4f}  {_bracket(one.low, one.high)}  of "
            f"{counted(one.n, 'image')}"
        )
    told = ", ".join(
        f"{name} {100 * count / report.n:.1f}%"
        for name, count in report.decisions.counts.items()
        if count
    )
    return [*lines, f"{'decisions':<20}{told}"]


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


def _bracket(low: float | None, high: float | None) -> str:
    """An interval with four decimals, or that there is none."""
    return "no interval" if low is None or high is None else f"[{low:.4f}, {high:.4f}]"
