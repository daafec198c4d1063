"""The differential count: shares of the five classes with limits, from a table of predictions.

Only rows whose decision is ``class`` are sorted into classes. What was left out, and why, is told
beside the count, never dropped in silence.
"""

from __future__ import annotations

import math
import textwrap
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.artifacts import RESEARCH_USE, schema
from leuko.errors import DataError
from leuko.evaluation.differential_adjust import (
    Draws,
    adjust_shares,
    adjusted_draws,
    design_effect,
    left_open,
    reestimate_shares,
    reestimated_draws,
    slides_are_told,
    training_shares,
    validation_confusion,
)
from leuko.evaluation.differential_limits import (
    cells_for_half_width,
    each_level,
    exact_interval,
    share_limits,
)
from leuko.evaluation.differential_manual import ManualComparison, compare_with_manual
from leuko.evaluation.intervals import LEVEL
from leuko.prediction import Prediction, PredictionTable, csv_line
from leuko.taxonomy import CLASSES

__all__ = [
    "METHODS",
    "REFERENCE_RANGES",
    "UNDECIDED",
    "ClassCount",
    "Differential",
    "Tally",
    "choose_method",
    "differential",
    "flag_of",
]

Floats = npt.NDArray[np.float64]

METHODS: Final = ("corrected", "em", "raw")
"""How shares are taken from the count: with the confusion matrix, by EM, or as they are."""

REFERENCE_RANGES: Final = {
    "Basophil": (0.0, 2.0),
    "Eosinophil": (1.0, 6.0),
    "Lymphocyte": (20.0, 40.0),
    "Monocyte": (2.0, 10.0),
    "Neutrophil": (40.0, 80.0),
}
"""Percent of all white cells in healthy adults; a laboratory's own ranges come before these.

References
----------
B. J. Bain, I. Bates, M. A. Laffan, Dacie and Lewis Practical Haematology, 12th edition, table 2.1
(differential white cell count; basophils "<1-2%"), Elsevier, 2017.
"""

RANGES_SOURCE: Final = "Dacie and Lewis Practical Haematology, 12th ed. 2017, table 2.1, adults"

UNDECIDED: Final = "not decided at this n"

_COLUMNS: Final = 96
_SORTED: Final = "class"
_UNSURE: Final = "unsure"
_REPEATED: Final = "duplicate"


class Tally:
    """Answers added up as they come, each image once.

    Memory grows by a digest, 32 bytes and its place in a set, for each image; rows are not kept.

    Parameters
    ----------
    count_unsure : bool
        Sort rows that were left unsure by their likeliest class, too.
    keep_probabilities : bool
        Keep the probabilities of the sorted rows, 20 bytes each, for EM.

    Attributes
    ----------
    found : int
        Rows added.
    repeated : int
        Rows that have an answer and show the same cell as an earlier one, by decision or digest:
        left out.
    decisions : Counter of str
        The other rows that have an answer, by decision.
    rejected : Counter of str
        Rows that have none, by reason.
    models : set of str
        Digests of the bundles that answered, 12 digits.
    """

    def __init__(self, *, count_unsure: bool = False, keep_probabilities: bool = False) -> None:
        self.count_unsure = count_unsure
        self.found = 0
        self.repeated = 0
        self.decisions: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.models: set[str] = set()
        self._counts = dict.fromkeys(CLASSES, 0)
        self._images: set[bytes] = set()
        self._probabilities = array("f") if keep_probabilities else None

    @classmethod
    def of(cls, table: PredictionTable | Iterable[Prediction], **settings: bool) -> Tally:
        """Add up a whole table.

        Parameters
        ----------
        table : PredictionTable or iterable of Prediction
            Rows.
        **settings : bool
            See `Tally`.

        Returns
        -------
        Tally
        """
        tally = cls(**settings)
        for row in table.rows if isinstance(table, PredictionTable) else table:
            tally.add(row)
        return tally

    def add(self, row: Prediction) -> None:
        """Add one row.

        Parameters
        ----------
        row : Prediction
            Of any status and decision.
        """
        self.found += 1
        if row.model:
            self.models.add(row.model)
        if row.status != "ok":
            self.rejected[row.reason] += 1
            return
        if row.decision == _REPEATED or (row.sha256 and self._known(row.sha256)):
            self.repeated += 1
            return
        self.decisions[row.decision] += 1
        if row.decision == _SORTED or (self.count_unsure and row.decision == _UNSURE):
            self._counts[row.label] += 1
            if self._probabilities is not None:
                self._probabilities.extend(row.probabilities)

    def _known(self, sha256: str) -> bool:
        """Whether an image came before; it is known from now on."""
        try:
            digest = bytes.fromhex(sha256)
        except ValueError:  # somebody's own name for an image serves as well
            digest = sha256.encode("utf-8", "surrogateescape")
        before = len(self._images)
        self._images.add(digest)
        return len(self._images) == before

    @property
    def counts(self) -> tuple[int, ...]:
        """Sorted cells of each class, in class order."""
        return tuple(self._counts[name] for name in CLASSES)

    @property
    def total(self) -> int:
        """Sorted cells."""
        return sum(self._counts.values())

    @property
    def unsorted(self) -> dict[str, int]:
        """Rows with an answer that were not sorted, by decision."""
        left = Counter(self.decisions)
        del left[_SORTED]
        if self.count_unsure:
            del left[_UNSURE]
        return dict(sorted(left.items()))

    @property
    def probabilities(self) -> Floats | None:
        """(n, 5) float64 of the sorted rows; None unless they were kept."""
        if self._probabilities is None:
            return None
        return np.array(self._probabilities, dtype=np.float64).reshape(-1, len(CLASSES))


@dataclass(frozen=True)
class ClassCount:
    """One class of a differential.

    Attributes
    ----------
    name : str
        The class.
    count : int
        Cells sorted into it.
    share, low, high : float, 0 to 1
        As counted, with limits of sampling alone.
    estimate, estimate_low, estimate_high : float, 0 to 1
        By the differential's method; the same as counted when that is ``raw``.
    cells_needed : int or None
        Cells in all for limits as narrow as wanted; None when no number gives them.
    left_open : float, 0 to 1
        Half-width that remains however many cells are counted.
    """

    name: str
    count: int
    share: float
    low: float
    high: float
    estimate: float
    estimate_low: float
    estimate_high: float
    cells_needed: int | None
    left_open: float

    @property
    def flag(self) -> str:
        """See `flag_of`."""
        return flag_of(self.name, self.estimate_low, self.estimate_high)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, shares as percentages.

        Returns
        -------
        dict
        """
        reference = REFERENCE_RANGES[self.name]
        return {
            "count": self.count,
            "percent": 100 * self.share,
            "low": 100 * self.low,
            "high": 100 * self.high,
            "estimate": 100 * self.estimate,
            "estimate_low": 100 * self.estimate_low,
            "estimate_high": 100 * self.estimate_high,
            "reference_low": reference[0],
            "reference_high": reference[1],
            "flag": self.flag,
            "cells_needed": self.cells_needed,
            "left_open": 100 * self.left_open,
        }


@dataclass(frozen=True)
class Differential:
    """A differential count with everything that a reader must know of it.

    Attributes
    ----------
    rows : tuple of 5 ClassCount
        In class order.
    method : str
        One of `METHODS`.
    limits : str
        Kind of the raw limits, see `leuko.evaluation.differential_limits.LIMITS`.
    level : float
        Confidence level.
    simultaneous : bool
        Whether the level is that of all five limits at once.
    width : float
        Wanted half-width, as a share.
    found : int
        Images.
    unsorted, rejected : dict of str to int
        Images that were not sorted: by decision, and by reason.
    effect : float
        The validation table counted as this much smaller.
    notes : tuple of str
        Sentences on what was assumed.
    manual : ManualComparison or None
        The count beside a manual one.
    repeated : int
        Images that were left out because they had come before.
    context : dict
        Plain values for the document: model, command, seed.
    """

    rows: tuple[ClassCount, ...]
    method: str
    limits: str
    level: float
    simultaneous: bool
    width: float
    found: int
    unsorted: dict[str, int]
    rejected: dict[str, int]
    effect: float = 1.0
    notes: tuple[str, ...] = ()
    manual: ManualComparison | None = None
    repeated: int = 0
    context: dict[str, Any] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Sorted cells."""
        return sum(row.count for row in self.rows)

    @property
    def cells_needed(self) -> int | None:
        """Cells in all for the wanted width in every class; None when no number gives it."""
        needed = [row.cells_needed for row in self.rows]
        return None if None in needed else max(n for n in needed if n is not None)

    def sorted_sentence(self) -> str:
        """How many images were sorted, and what became of the others.

        Returns
        -------
        str
        """
        others = [f"{count:,} {name}" for name, count in self.unsorted.items()]
        others += [f"{count:,} rejected ({name})" for name, count in self.rejected.items()]
        if self.repeated:
            others.append(f"{self.repeated:,} repeated (the same cell as an earlier one)")
        told = f"Sorted into classes: {self.total:,} of {self.found:,} images"
        return f"{told}; not sorted: {', '.join(others)}." if others else f"{told}."

    def width_sentence(self) -> str:
        """How many more cells the wanted width takes.

        Returns
        -------
        str
        """
        wanted = f"±{100 * self.width:g} points"
        hopeless = [row for row in self.rows if row.cells_needed is None]
        if hopeless:
            worst = max(hopeless, key=lambda row: row.left_open)
            if worst.left_open < self.width:
                return f"Limits of {wanted} would take more cells than can be counted."
            return (
                f"No number of cells gives limits of {wanted} for {worst.name} with this model: "
                f"its validation alone leaves ±{100 * worst.left_open:.1f} points open."
            )
        decides = max(self.rows, key=lambda row: row.cells_needed or 0)
        needed = decides.cells_needed or 0
        if needed <= self.total:
            return f"Every class is known to {wanted} or better."
        return (
            f"For limits of {wanted} in every class, sort about {needed:,} cells: "
            f"{needed - self.total:,} more ({decides.name} decides)."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, schema ``leuko.count/1``; shares are percentages.

        Returns
        -------
        dict
        """
        return {
            "schema": schema("count"),
            "research_use": RESEARCH_USE,
            "method": self.method,
            "limits": self.limits,
            "level": self.level,
            "simultaneous": self.simultaneous,
            "found": self.found,
            "sorted": self.total,
            "unsorted": self.unsorted,
            "rejected": self.rejected,
            "repeated": self.repeated,
            "classes": {row.name: row.to_dict() for row in self.rows},
            "reference_ranges": RANGES_SOURCE,
            "validation_effect": self.effect,
            "width": 100 * self.width,
            "cells_needed": self.cells_needed,
            "manual": None if self.manual is None else self.manual.to_dict(),
            "sentences": [self.sorted_sentence(), self.width_sentence(), *self.notes],
            **self.context,
        }

    def csv_text(self) -> str:
        """One line a class, percentages with two decimals.

        Returns
        -------
        str
            Header and five lines, each ended by a line feed.
        """
        names = ["class", "count", "percent", "low", "high", "method", "estimate",
                 "estimate_low", "estimate_high", "reference_low", "reference_high",
                 "flag"]  # fmt: skip
        if self.manual is not None:
            names += ["manual_count", "manual_percent", "difference", "p_value"]
        lines = [csv_line(names)]
        for k, row in enumerate(self.rows):
            values = {"class": row.name, "method": self.method, **row.to_dict()}
            if self.manual is not None:
                values |= {
                    "manual_count": self.manual.counts[k],
                    "manual_percent": 100 * self.manual.shares[k],
                    "difference": 100 * self.manual.difference[k],
                    "p_value": f"{self.manual.p_values[k]:.4f}",
                }
            lines.append(csv_line(_cell(values[name]) for name in names))
        return "".join(lines)

    def summary(self) -> str:
        """The count as text of at most 100 columns.

        Returns
        -------
        str
            Several lines, without a newline at the end.
        """
        percent = f"{100 * self.level:g}% limits"
        head = f"{'':<11}{'cells':>8}{'%':>6}{percent:>14}"
        if self.method != "raw":
            title = "corrected" if self.method == "corrected" else "by EM"
            head += f"{title + ' %':>12}{percent:>14}"
        lines = [head + f"{'reference':>10}  flag"]
        for row in self.rows:
            line = f"{row.name:<11}{row.count:>8,}{_points(row.share):>6}"
            line += f"{_span(row.low, row.high):>14}"
            if self.method != "raw":
                line += f"{_points(row.estimate):>12}"
                line += f"{_span(row.estimate_low, row.estimate_high):>14}"
            low, high = REFERENCE_RANGES[row.name]
            lines.append(line + f"{f'{low:g}–{high:g}':>10}  {row.flag}")
        lines.append(f"{'all':<11}{self.total:>8,}")
        if self.simultaneous:
            lines.append("The limits of all five classes hold at once.")
        ranges = f"Reference ranges: {RANGES_SOURCE}; your laboratory's own come first."
        said = [self.sorted_sentence(), self.width_sentence(), *self.notes, ranges]
        lines += ["", *_wrapped(said)]
        if self.manual is not None:
            lines += ["", *self._manual_lines(self.manual)]
        return "\n".join([*lines, "", *_wrapped([RESEARCH_USE])])

    def _manual_lines(self, manual: ManualComparison) -> list[str]:
        """The table beside the manual count."""
        percent = f"{100 * self.level:g}% limits"
        lines = [f"{'':<11}{'manual':>8}{'%':>6}{percent:>14}{'difference':>12}{percent:>16}"
                 f"{'p (Holm)':>10}"]  # fmt: skip
        for k, row in enumerate(self.rows):
            low, high = manual.difference_limits[k]
            p = manual.p_values[k]
            lines.append(
                f"{row.name:<11}{manual.counts[k]:>8,}{_points(manual.shares[k]):>6}"
                f"{_span(*manual.limits[k]):>14}{_signed(manual.difference[k]):>12}"
                f"{f'{_signed(low)} to {_signed(high)}':>16}"
                f"{'<0.001' if p < 0.001 else f'{p:.3f}':>10}"
            )
        lines += [f"{'all':<11}{manual.total:>8,}", ""]
        return lines + _wrapped(manual.sentences())


def differential(
    tally: Tally | PredictionTable,
    *,
    validation: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    method: str | None = None,
    limits: str = "exact",
    level: float = LEVEL,
    simultaneous: bool = False,
    width: float = 0.05,
    manual: Sequence[Sequence[int]] = (),
    seed: int = 0,
    context: Mapping[str, Any] | None = None,
) -> Differential:
    """Turn answers into a differential count.

    Parameters
    ----------
    tally : Tally or PredictionTable
        The answers; EM wants a tally that kept the probabilities.
    validation, provenance : mapping, optional
        Of the `leuko.bundle.ModelBundle` that answered.
    method : {"corrected", "em", "raw"}, optional
        When None, corrected if the validation has a confusion matrix, else raw, and said so.
    limits : {"exact", "wilson"}
        Kind of the limits of the raw shares.
    level : float, between 0 and 1
        Confidence level.
    simultaneous : bool
        Let the level be that of all five limits at once.
    width : float, between 0 and 1
        Wanted half-width, as a share, for `Differential.cells_needed`.
    manual : sequence of sequences of 5 int
        Manual counts, one for each observer; none by default.
    seed : int
        Of the draws behind corrected limits.
    context : mapping, optional
        Plain values to stand in the document.

    Returns
    -------
    Differential

    Raises
    ------
    DataError
        When no cell was sorted, or a method was asked for that the model or the tally does not
        allow.
    """
    tally = tally if isinstance(tally, Tally) else Tally.of(tally, keep_probabilities=True)
    if tally.total == 0:
        told = ", ".join(
            f"{n:,} {name}" for name, n in {**tally.unsorted, **tally.rejected}.items()
        )
        raise DataError(
            f"Not one of {tally.found:,} images was sorted into a class"
            f"{f' ({told})' if told else ''}; there is nothing to count."
        )
    validation, provenance = validation or {}, provenance or {}
    method, notes = choose_method(method, validation, provenance)
    each = each_level(level, len(CLASSES)) if simultaneous else level
    raw = share_limits(tally.counts, kind=limits, level=each)
    shares = np.array(tally.counts) / tally.total
    ends = np.array(raw)
    found = _Found(shares, ends[:, 0], ends[:, 1])
    effect = 1.0
    if method != "raw":
        effect = design_effect(validation)
        found = _corrected(tally, validation, provenance, method, effect, each, seed)
        notes += _assumptions(tally, validation, effect)
    rows = tuple(
        ClassCount(
            name=name,
            count=tally.counts[k],
            share=float(shares[k]),
            low=raw[k][0],
            high=raw[k][1],
            estimate=float(found.shares[k]),
            estimate_low=float(found.low[k]),
            estimate_high=float(found.high[k]),
            cells_needed=_needed(found, k, tally.total, width, each),
            left_open=float(found.open[k]),
        )
        for k, name in enumerate(CLASSES)
    )
    result = Differential(
        rows, method, limits, level, simultaneous, width, tally.found, tally.unsorted,
        dict(sorted(tally.rejected.items())), effect, tuple(notes), None, tally.repeated,
        dict(context or {}),
    )  # fmt: skip
    if not manual:
        return result
    beside = compare_with_manual(
        tally.counts, found.shares.tolist(), manual, corrected=found.draws, level=level, each=each,
        seed=seed,
    )  # fmt: skip
    return replace(result, manual=beside)


def choose_method(
    method: str | None, validation: Mapping[str, Any], provenance: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """Find how a model's answers are counted, before there are any.

    Parameters
    ----------
    method : {"corrected", "em", "raw"}, optional
        What is asked for.
    validation, provenance : mapping
        Of the `leuko.bundle.ModelBundle` that answers.

    Returns
    -------
    method : str
        One of `METHODS`.
    notes : list of str
        Why it is not the one that might be expected.

    Raises
    ------
    DataError
        When the model does not allow what is asked for.
    """
    if method not in (None, *METHODS):
        raise DataError(f"Received method {method!r}, expected one of {', '.join(METHODS)}.")
    _, reason = validation_confusion(validation)
    if method == "em" and not reason and training_shares(validation, provenance) is None:
        raise DataError(
            "EM needs the class shares that the model was trained towards, and this model's "
            f"validation cells{_whose(validation)} do not tell them. Count with --method "
            "corrected, or with another model."
        )
    if not reason or method == "raw":
        return method or "corrected", []
    if method is not None:
        raise DataError(f"{reason} Count with --method raw, or with another model.")
    return "raw", [f"{reason} The count is not corrected: limits are those of sampling alone."]


def _whose(validation: Mapping[str, Any]) -> str:
    """Where validation cells are from that are no part of the training data."""
    known = {
        "check": ", which were given to leuko export --check,",
        "cross-validated": ", which were labelled for leuko adapt,",
    }
    return known.get(str(validation.get("split")), "")


def flag_of(name: str, low: float, high: float) -> str:
    """Where limits lie against the reference range.

    Parameters
    ----------
    name : str
        One of the classes.
    low, high : float, 0 to 1
        Limits of its share.

    Returns
    -------
    {"below", "above", "within", "not decided at this n"}
        ``below`` and ``above`` only when the limits exclude the edge of the range, ``within``
        only when they lie inside it.

    Examples
    --------
    >>> flag_of("Monocyte", 0.11, 0.20), flag_of("Monocyte", 0.08, 0.20)
    ('above', 'not decided at this n')
    """
    below, above = REFERENCE_RANGES[name]
    if 100 * high < below:
        return "below"
    if 100 * low > above:
        return "above"
    return "within" if below <= 100 * low and 100 * high <= above else UNDECIDED


@dataclass(frozen=True)
class _Found:
    """Shares by some method, with limits."""

    shares: Floats
    low: Floats
    high: Floats
    open: Floats = field(default_factory=lambda: np.zeros(len(CLASSES)))
    draws: Draws | None = None


def _corrected(
    tally: Tally,
    validation: Mapping[str, Any],
    provenance: Mapping[str, Any],
    method: str,
    effect: float,
    each: float,
    seed: int,
) -> _Found:
    """Shares with the classifier's confusion taken out."""
    confusion, reason = validation_confusion(validation)
    if confusion is None:
        raise DataError(reason)
    if method == "em":
        rows, prior = tally.probabilities, training_shares(validation, provenance)
        if rows is None or prior is None:
            raise DataError("EM needs the probabilities of every row, and this tally kept none.")
        shares = reestimate_shares(rows, prior)
        draws = reestimated_draws(rows, prior, confusion, seed=seed, effect=effect)
    else:
        shares = adjust_shares(tally.counts, confusion)
        draws = adjusted_draws(tally.counts, confusion, seed=seed, effect=effect)
    low, high = draws.limits(each)
    kept = left_open(tally.counts, confusion, seed=seed, effect=effect, level=each)
    return _Found(shares, np.minimum(low, shares), np.maximum(high, shares), kept, draws)


def _needed(found: _Found, k: int, total: int, width: float, each: float) -> int | None:
    """Cells in all for a half-width: what validation leaves open stays, the rest shrinks."""
    if found.open[k] >= width:
        return None
    share = float(found.shares[k])
    if found.draws is None:
        return cells_for_half_width(share, width, level=each)
    # Correction stretches the limits of sampling; by how much is read off the limits at hand.
    now = (float(found.high[k]) - float(found.low[k])) / 2
    low, high = exact_interval(share * total, total, level=each)
    stretch = math.sqrt(max(0.0, now**2 - float(found.open[k]) ** 2)) / ((high - low) / 2)
    allowed = math.sqrt(width**2 - float(found.open[k]) ** 2) / max(1.0, stretch)
    return cells_for_half_width(share, allowed, level=each)


def _assumptions(tally: Tally, validation: Mapping[str, Any], effect: float) -> list[str]:
    """What a corrected count takes for granted."""
    notes = [
        "Corrected for the model's confusion on its validation cells: this holds where these "
        "cells are stained and photographed like those."
    ]
    if effect > 1.05:
        slides = validation.get("n_slides")
        several = f" from {slides} slides" if isinstance(slides, int) else ""
        notes.append(
            f"The validation cells{several} are alike within a slide: they count as 1/{effect:.1f} "
            "of their number, which widens the limits."
        )
    if effect == 1 and not slides_are_told(validation):
        notes.append(
            "The model does not tell which slides its validation cells are from, so they count as "
            "independent; where cells of a slide are alike, these limits are too narrow."
        )
    unsure = tally.decisions[_UNSURE]
    if unsure and not tally.count_unsure:
        notes.append(
            f"The confusion matrix was measured with no cell left unsure, {unsure:,} were here: "
            "the correction takes them to be spread over the classes like the others, and the "
            "others to be confused as often as in validation. --count-unsure counts them by "
            "their likeliest class, as the matrix did."
        )
    return notes


def _wrapped(sentences: Iterable[str]) -> list[str]:
    """Sentences as lines of at most `_COLUMNS` letters."""
    return [line for one in sentences for line in textwrap.wrap(one, _COLUMNS)]


def _cell(value: object) -> str:
    """A value for a CSV."""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _points(share: float) -> str:
    """A percentage with one decimal."""
    return f"{100 * share:.1f}"


def _signed(share: float) -> str:
    """A difference in points, with its sign."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def _span(low: float, high: float) -> str:
    """Limits in percent."""
    return f"{100 * low:.1f} to {100 * high:.1f}"
