"""The differential count: shares of the classes with limits, from a table of predictions.

Every picture of a cell counts: those whose answer is accepted (decision ``class``) and those left
open (``unsure``, ``unlike-training``) by their likeliest class, which the limits hardly believe.
Where too few are accepted there are no limits at all, and the first sentence says so. Pictures
without a cell, rejected and repeated ones are told beside the count, never dropped in silence.
Classes of the scheme that are no white cells stay out of the denominator; they are given per 100
counted white cells, as laboratories give nucleated red cells.
"""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.artifacts import RESEARCH_USE, schema
from leuko.errors import DataError
from leuko.evaluation.differential_adjust import (
    ACCEPTED_TIMES,
    DRAWS,
    FEWER_DRAWS,
    OTHERS_WRONG,
    Draws,
    Tables,
    adjusted_draws,
    adjusted_shares,
    design_effect,
    slides_are_told,
    split_confusion,
    validation_confusion,
)
from leuko.evaluation.differential_limits import (
    cells_for_half_width,
    each_level,
    exact_interval,
)
from leuko.evaluation.differential_manual import ManualComparison, compare_with_manual
from leuko.evaluation.intervals import LEVEL
from leuko.prediction import Prediction, PredictionTable
from leuko.prediction_files import csv_line
from leuko.scheme import DIFFERENTIAL_5, ClassScheme, load_scheme

__all__ = [
    "LEAST_ACCEPTED",
    "UNDECIDED",
    "ClassCount",
    "Differential",
    "Tally",
    "answers_of",
    "differential",
    "flag_of",
]

Floats = npt.NDArray[np.float64]

LEAST_ACCEPTED: Final = 0.6
"""Share of the cells that a model must accept for limits; docs/decisions/0028 tells why."""

UNDECIDED: Final = "not decided at this n"

_COLUMNS: Final = 80
_NAMES: Final = 11
"""Columns for the names of classes; a longer name stands on a line of its own."""

_ACCEPTED: Final = "class"
_OPEN: Final = ("unsure", "unlike-training")
"""Decisions on cells whose answer is not accepted."""

_REPEATED: Final = "duplicate"
_MANY: Final = 1_000_000
"""So many times the cells leave nothing to sampling."""

_FEW: Final = "few-accepted"
_UNMEASURED: Final = "no-validation"
_NO_WHITE: Final = "all-explained"


class Tally:
    """Answers added up as they come, each image once.

    Memory grows by a digest, 32 bytes and its place in a set, for each image; rows are not kept.

    Parameters
    ----------
    scheme : ClassScheme, optional
        Of the answers; a routine differential's by default.

    Attributes
    ----------
    found : int
        Rows added.
    repeated : int
        Rows that have an answer and show the same cell as an earlier one, by decision or digest:
        left out.
    left_out : Counter of str
        The other rows that have an answer and show no cell, by decision.
    rejected : Counter of str
        Rows that have none, by reason.
    models : set of str
        Digests of the bundles that answered, 12 digits.
    """

    def __init__(self, scheme: ClassScheme | None = None) -> None:
        self.scheme = scheme or load_scheme(DIFFERENTIAL_5)
        self.found = 0
        self.repeated = 0
        self.left_out: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.models: set[str] = set()
        self._counts = {one: [0] * len(self.scheme) for one in (True, False)}
        self._images: set[bytes] = set()

    @classmethod
    def of(cls, table: PredictionTable | Iterable[Prediction]) -> Tally:
        """Add up a whole table.

        Parameters
        ----------
        table : PredictionTable or iterable of Prediction
            Rows; those without a table are of a routine differential.

        Returns
        -------
        Tally
        """
        tally = cls(table.scheme if isinstance(table, PredictionTable) else None)
        for row in table.rows if isinstance(table, PredictionTable) else table:
            tally.add(row)
        return tally

    def add(self, row: Prediction) -> None:
        """Add one row.

        Parameters
        ----------
        row : Prediction
            Of any status and decision.

        Raises
        ------
        DataError
            When its answer is among other classes than the tally's.
        """
        self.found += 1
        if row.model:
            self.models.add(row.model)
        if row.status != "ok":
            self.rejected[row.reason] += 1
            return
        _same_classes(row.scheme, self.scheme, f"The answer to {row.path}")
        if row.decision == _REPEATED or (row.sha256 and self._known(row.sha256)):
            self.repeated += 1
        elif row.decision in (_ACCEPTED, *_OPEN):
            self._counts[row.decision == _ACCEPTED][int(np.argmax(row.probabilities))] += 1
        else:
            self.left_out[row.decision] += 1

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
    def accepted(self) -> tuple[int, ...]:
        """Cells whose answer is accepted, by class, in class order."""
        return tuple(self._counts[True])

    @property
    def others(self) -> tuple[int, ...]:
        """Cells whose answer is not accepted, by likeliest class, in class order."""
        return tuple(self._counts[False])

    @property
    def total(self) -> int:
        """Cells, accepted or not."""
        return sum(self.accepted) + sum(self.others)


def _same_classes(theirs: ClassScheme, ours: ClassScheme, what: str) -> None:
    """Refuse answers among other classes."""
    if theirs is not ours and theirs.names != ours.names:
        raise DataError(
            f"{what} is among the classes {', '.join(theirs.names)}; expected "
            f"{', '.join(ours.names)}."
        )


@dataclass(frozen=True)
class ClassCount:
    """One class of a differential.

    Attributes
    ----------
    name : str
        The class.
    accepted, others : int
        Cells taken for it: those whose answer is accepted, and the others.
    share, low, high : float or None
        Of all counted cells, corrected for the model's errors, with limits; None where none are
        given. Of a class that is not counted, its ratio to them, which may be above 1, and whose
        `high` is None where it may be anything.
    cells_needed : int or None
        Cells in all for limits as narrow as wanted; None when no number gives them.
    left_open : float, 0 to 1, or None
        Half-width that remains however many cells are counted.
    counted : bool
        Whether it enters the denominator.
    reference : (float, float) or None
        Its reference range in percent.
    """

    name: str
    accepted: int
    others: int
    share: float | None = None
    low: float | None = None
    high: float | None = None
    cells_needed: int | None = None
    left_open: float | None = None
    counted: bool = True
    reference: tuple[float, float] | None = None

    @property
    def flag(self) -> str | None:
        """See `flag_of`; None without limits or range."""
        if self.reference is None or self.low is None or self.high is None:
            return None
        return flag_of(self.reference, self.low, self.high)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, shares as percentages.

        Returns
        -------
        dict
        """
        low, high = self.reference or (None, None)
        per_100 = _percent(self.share)
        return {
            "counted": self.counted,
            "accepted": self.accepted,
            "others": self.others,
            "percent": per_100 if self.counted else None,
            "per_100_wbc": None if self.counted else per_100,
            "low": _percent(self.low),
            "high": _percent(self.high),
            "reference_low": low,
            "reference_high": high,
            "flag": self.flag,
            "cells_needed": self.cells_needed,
            "left_open": _percent(self.left_open),
        }


@dataclass(frozen=True)
class Differential:
    """A differential count with everything that a reader must know of it.

    Attributes
    ----------
    scheme : ClassScheme
        Of the answers.
    rows : tuple of K ClassCount
        In class order.
    refused : {"", "few-accepted", "no-validation", "all-explained"}
        Why there are no limits; empty where there are.
    level : float
        Confidence level.
    simultaneous : bool
        Whether the level is that of all limits at once.
    width : float
        Wanted half-width, as a share.
    found : int
        Images.
    left_out, rejected : dict of str to int
        Images without a cell, by decision, and those that could not be read, by reason.
    repeated : int
        Images that were left out because they had come before.
    effect : float
        The validation table counted as this much smaller.
    notes : tuple of str
        Sentences on what was assumed, or on what to do.
    manual : ManualComparison or None
        The count beside a manual one; never without limits.
    context : dict
        Plain values for the document: model, command, seed.
    """

    scheme: ClassScheme
    rows: tuple[ClassCount, ...]
    refused: str
    level: float
    simultaneous: bool
    width: float
    found: int
    left_out: dict[str, int]
    rejected: dict[str, int]
    repeated: int = 0
    effect: float = 1.0
    notes: tuple[str, ...] = ()
    manual: ManualComparison | None = None
    context: dict[str, Any] = field(default_factory=dict)

    @property
    def counted(self) -> list[ClassCount]:
        """Rows of the classes that enter the denominator."""
        return [row for row in self.rows if row.counted]

    @property
    def uncounted(self) -> list[ClassCount]:
        """Rows of those that do not."""
        return [row for row in self.rows if not row.counted]

    @property
    def accepted(self) -> int:
        """Counted cells whose answer is accepted."""
        return sum(row.accepted for row in self.counted)

    @property
    def total(self) -> int:
        """Counted cells, accepted or not."""
        return self.accepted + sum(row.others for row in self.counted)

    @property
    def accepted_share(self) -> float:
        """Share of the counted cells whose answer is accepted."""
        return self.accepted / self.total

    @property
    def accepted_least(self) -> tuple[int, int]:
        """Accepted and all: of the counted cells, or of all classes' where that share is lower.

        White cells left open may hide among answers of other classes, and be hidden by those.
        """
        sure = sum(row.accepted for row in self.rows)
        every = sure + sum(row.others for row in self.rows)
        mine = self.accepted, self.total
        return min(mine, (sure, every), key=lambda part: part[0] / part[1])

    @property
    def cells_needed(self) -> int | None:
        """Cells in all for the wanted width in every class; None when no number gives it."""
        needed = [row.cells_needed for row in self.counted]
        return None if None in needed else max(n for n in needed if n is not None)

    def first_sentence(self) -> str:
        """What a reader must know before any number.

        Returns
        -------
        str
        """
        sure, every = self.accepted_least
        told = f"{sure:,} of {every:,} cells ({_points(sure / every)}%)"
        if self.refused == _FEW:
            return (
                f"This model cannot count this microscope: it accepts {told}; with fewer than "
                f"{100 * LEAST_ACCEPTED:g}% there are no percentages and no limits."
            )
        if self.refused == _NO_WHITE:
            return (
                f"The model's errors alone explain the {self.total:,} cells that would be counted: "
                "there are no percentages and no limits."
            )
        if self.refused:
            return (
                "How often this model is wrong was never measured: there are no percentages and "
                f"no limits. It accepts {told}."
            )
        told = f"{self.accepted:,} of {self.total:,} cells ({_points(self.accepted_share)}%)"
        others = self.total - self.accepted
        held = f"; the limits hold what the other {others:,} may be" if others else ""
        return f"The model accepts {told}{held}."

    def left_sentence(self) -> str:
        """Which images are not in the count.

        Returns
        -------
        str
        """
        beside = [(row.name, row.accepted + row.others) for row in self.uncounted]
        others = [f"{count:,} {name}" for name, count in beside if count]
        others += [f"{count:,} {name}" for name, count in self.left_out.items()]
        others += [f"{count:,} rejected ({name})" for name, count in self.rejected.items()]
        if self.repeated:
            others.append(f"{self.repeated:,} repeated (the same cell as an earlier one)")
        if not others:
            return f"All of {self.found:,} images are counted."
        return f"Not counted, of {self.found:,} images: {', '.join(others)}."

    def uncounted_sentence(self) -> str:
        """Which classes have no percentage; empty where all have.

        Returns
        -------
        str
        """
        names = [row.name for row in self.uncounted]
        if not names:
            return ""
        told = "" if self.refused else ", and given per 100 of them (WBC)"
        return f"Not counted among the white cells{told}: {', '.join(names)}."

    def width_sentence(self) -> str:
        """How many more cells the wanted width takes; empty without limits.

        Returns
        -------
        str
        """
        if self.refused:
            return ""
        wanted = f"±{100 * self.width:g} points"
        hopeless = [row for row in self.counted if row.cells_needed is None]
        if hopeless:
            worst = max(hopeless, key=lambda row: row.left_open or 0.0)
            left = worst.left_open or 0.0
            if left < self.width:
                return f"Limits of {wanted} would take more cells than can be counted."
            return (
                f"No number of cells gives limits of {wanted} for {worst.name} with this model: "
                f"its errors alone leave ±{100 * left:.1f} points open."
            )
        decides = max(self.counted, key=lambda row: row.cells_needed or 0)
        needed = decides.cells_needed or 0
        if needed <= self.total:
            return f"Every class is known to {wanted} or better."
        return (
            f"For limits of {wanted} in every class, count about {needed:,} cells: "
            f"{needed - self.total:,} more ({decides.name} decides)."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, schema ``leuko.count/2``; shares are percentages.

        Returns
        -------
        dict
        """
        said = [self.first_sentence(), self.left_sentence(), self.uncounted_sentence(),
                self.width_sentence(), *self.notes]  # fmt: skip
        return {
            "schema": schema("count"),
            "research_use": RESEARCH_USE,
            "scheme": self.scheme.to_dict(),
            "refused": self.refused or None,
            "level": self.level,
            "simultaneous": self.simultaneous,
            "found": self.found,
            "cells": self.total,
            "accepted": self.accepted,
            "accepted_percent": 100 * self.accepted_share,
            "accepted_least": 100 * LEAST_ACCEPTED,
            "left_out": self.left_out,
            "rejected": self.rejected,
            "repeated": self.repeated,
            "classes": {row.name: row.to_dict() for row in self.rows},
            "reference_ranges": self.scheme.ranges_source,
            "validation_effect": self.effect,
            "accepted_times": ACCEPTED_TIMES,
            "others_wrong": 100 * OTHERS_WRONG,
            "width": 100 * self.width,
            "cells_needed": self.cells_needed,
            "manual": None if self.manual is None else self.manual.to_dict(),
            "sentences": [sentence for sentence in said if sentence],
            **self.context,
        }

    def csv_text(self) -> str:
        """One line a class, percentages with two decimals, empty where there are none.

        Returns
        -------
        str
            Header and a line for each class, each ended by a line feed.
        """
        names = ["class", "accepted", "others", "percent", "low", "high", "reference_low",
                 "reference_high", "flag", "refused", "counted", "per_100_wbc"]  # fmt: skip
        if self.manual is not None:
            names += ["manual_count", "manual_percent", "difference", "p_value"]
        lines = [csv_line(names)]
        for row in self.rows:
            values = {"class": row.name, "refused": self.refused, **row.to_dict()}
            if self.manual is not None and row.counted:
                k = self.manual.names.index(row.name)
                values |= {
                    "manual_count": self.manual.counts[k],
                    "manual_percent": 100 * self.manual.shares[k],
                    "difference": 100 * self.manual.difference[k],
                    "p_value": f"{self.manual.p_values[k]:.4f}",
                }
            lines.append(csv_line(_cell(values.get(name)) for name in names))
        return "".join(lines)

    def summary(self) -> str:
        """The count as text of at most 80 columns.

        Returns
        -------
        str
            Several lines, without a newline at the end.
        """
        first = [self.first_sentence(), *(self.notes if self.refused else ())]
        lines = [*_wrapped(first), "", *self._table_lines(), ""]
        if self.simultaneous and not self.refused:
            lines.append("All limits hold at once.")
        said = [self.left_sentence(), self.uncounted_sentence(), self.width_sentence()]
        if not self.refused:
            said += self.notes
            if any(row.reference for row in self.counted):
                source = self.scheme.ranges_source or f"the class scheme {self.scheme.name}"
                said.append(f"Reference ranges: {source}; your laboratory's own come first.")
        lines += _wrapped(said)
        if self.manual is not None:
            lines += ["", *self._manual_lines(self.manual)]
        return "\n".join([*lines, "", *_wrapped([RESEARCH_USE])])

    def _table_lines(self) -> list[str]:
        """The table, without percentages where there are none."""
        limits = f"{f'{100 * self.level:g}% limits':>14}"
        head = f"{'':<{_NAMES}}{'accepted':>9}{'others':>7}"
        lines = [head if self.refused else f"{head}{'%':>6}{limits}{'reference':>10}  flag"]
        for row in self.counted:
            reference = ""
            if row.reference is not None and row.flag is not None:
                low, high = row.reference
                reference = f"{f'{low:g}–{high:g}':>10}  {row.flag}"
            lines += _named(row.name, f"{_figures(row)}{reference}")
        lines += _named("all", f"{self.accepted:>9,}{self.total - self.accepted:>7,}")
        if self.uncounted:
            lines += ["", head if self.refused else f"{head}{'per 100 WBC':>13}{limits:>22}"]
            for row in self.uncounted:
                lines += _named(row.name, _figures(row))
        return lines

    def _manual_lines(self, manual: ManualComparison) -> list[str]:
        """The table beside the manual count."""
        percent = f"{100 * self.level:g}% limits"
        lines = [f"{'':<{_NAMES}}{'manual':>7}{'%':>6}{percent:>14}{'difference':>12}{percent:>16}"
                 f"{'p (Holm)':>10}"]  # fmt: skip
        for k, name in enumerate(manual.names):
            low, high = manual.difference_limits[k]
            p = manual.p_values[k]
            lines += _named(
                name,
                f"{manual.counts[k]:>7,}{_points(manual.shares[k]):>6}"
                f"{_span(*manual.limits[k]):>14}{_signed(manual.difference[k]):>12}"
                f"{f'{_signed(low)} to {_signed(high)}':>16}"
                f"{'<0.001' if p < 0.001 else f'{p:.3f}':>10}",
            )
        lines += [*_named("all", f"{manual.total:>7,}"), ""]
        return lines + _wrapped(manual.sentences())


def differential(
    tally: Tally | PredictionTable,
    *,
    validation: Mapping[str, Any] | None = None,
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
        The answers.
    validation : mapping, optional
        Of the `leuko.bundle.ModelBundle` that answered; without its confusion there are no limits.
    level : float, between 0 and 1
        Confidence level.
    simultaneous : bool
        Let the level be that of all limits at once.
    width : float, between 0 and 1
        Wanted half-width, as a share, for `Differential.cells_needed`.
    manual : sequence of sequences of K int
        Manual counts, one for each observer, in class order; none by default. Only the counted
        classes are compared.
    seed : int
        Of the draws behind the limits.
    context : mapping, optional
        Plain values to stand in the document.

    Returns
    -------
    Differential

    Raises
    ------
    DataError
        When there is no cell that enters the denominator.
    """
    tally = tally if isinstance(tally, Tally) else Tally.of(tally)
    scheme = tally.scheme
    rows = tuple(
        ClassCount(one.name, sure, open_, counted=one.counted, reference=one.range)
        for one, sure, open_ in zip(scheme.classes, tally.accepted, tally.others, strict=True)
    )
    plain = Differential(
        scheme, rows, "", level, simultaneous, width, tally.found,
        dict(sorted(tally.left_out.items())), dict(sorted(tally.rejected.items())), tally.repeated,
        context=dict(context or {}),
    )  # fmt: skip
    if plain.total == 0:
        raise DataError(_nothing(plain))
    validation = validation or {}
    confusion, reason = validation_confusion(validation, scheme)
    sure, every = plain.accepted_least
    if sure / every < LEAST_ACCEPTED:
        return replace(plain, refused=_FEW, notes=_refusal(_FIT, manual))
    if confusion is None:
        return replace(plain, refused=_UNMEASURED, notes=_refusal(f"{reason} {_VALIDATED}", manual))
    each = each_level(level, len(scheme)) if simultaneous else level
    effect = design_effect(validation)
    found = _found(tally, split_confusion(validation, confusion), effect, each, seed)
    if found is None:
        return replace(plain, refused=_NO_WHITE, notes=_refusal(_BY_HAND, manual))
    counted = replace(
        plain,
        rows=tuple(_row(row, found, k, plain.total, width, each) for k, row in enumerate(rows)),
        effect=effect,
        notes=tuple(_assumptions(validation, effect)),
    )
    if not manual:
        return counted
    kept = [k for k, row in enumerate(rows) if row.counted]
    beside = compare_with_manual(
        found.shares[kept].tolist(),
        found.draws.shares,
        [[one[k] for k in kept] for one in manual],
        names=[scheme.names[k] for k in kept],
        level=level,
        each=each,
        seed=seed,
    )
    return replace(counted, manual=beside)


def _nothing(plain: Differential) -> str:
    """Say that there is no cell to count, and what there is."""
    beside = [(row.name, row.accepted + row.others) for row in plain.uncounted]
    others = [*((name, n) for name, n in beside if n), *plain.left_out.items(),
              *plain.rejected.items()]  # fmt: skip
    told = ", ".join(f"{n:,} {name}" for name, n in others)
    what = "white cell" if plain.uncounted else "cell"
    return (
        f"Not one of {plain.found:,} images shows a {what}{f' ({told})' if told else ''}; there is "
        "nothing to count."
    )


def answers_of(tally: Tally, name: str, digest: str, scheme: ClassScheme) -> None:
    """Refuse to count one model's answers with the errors of another.

    Parameters
    ----------
    tally : Tally
        The answers.
    name, digest : str
        Of the bundle whose validation goes into the limits.
    scheme : ClassScheme
        Of that bundle.

    Raises
    ------
    DataError
        When another model answered, or one of other classes; rows that tell no model pass.
    """
    others = sorted(tally.models - {digest[:12]})
    if others:
        raise DataError(
            f"These predictions were made by the model {', '.join(others)}, not by {name} "
            f"({digest[:12]}), whose errors would stand in the limits. Name their model with "
            "--model."
        )
    _same_classes(tally.scheme, scheme, f"What is counted with the model {name}")


def flag_of(reference: tuple[float, float], low: float, high: float) -> str:
    """Where limits lie against the reference range.

    Parameters
    ----------
    reference : (float, float)
        Range of the class, in percent.
    low, high : float, 0 to 1
        Limits of its share.

    Returns
    -------
    {"below", "above", "within", "not decided at this n"}
        ``below`` and ``above`` only when the limits exclude the edge of the range, ``within``
        only when they lie inside it.

    Examples
    --------
    >>> flag_of((2, 10), 0.11, 0.20), flag_of((2, 10), 0.08, 0.20)
    ('above', 'not decided at this n')
    """
    below, above = reference
    if 100 * high < below:
        return "below"
    if 100 * low > above:
        return "above"
    return "within" if below <= 100 * low and 100 * high <= above else UNDECIDED


_FIT: Final = (
    "Label some 50 of these cells, of every class; fit the model to them (leuko adapt MODEL IMAGES "
    "--labels CSV --out BUNDLE), set its limits on other labelled cells, the more the better ("
    "leuko models calibrate), and count again. Until it accepts enough, count by hand."
)
_BY_HAND: Final = "Give pictures with more white cells among them, or count by hand."
_VALIDATED: Final = "Count with a model that was validated, or by hand."


def _refusal(what_to_do: str, manual: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """What is said in place of limits."""
    return (what_to_do, *(["It is not compared with the manual count."] if manual else []))


@dataclass(frozen=True)
class _Found:
    """Shares with limits, and the half-widths that stay however many cells are counted."""

    shares: Floats
    low: Floats
    high: Floats
    open: Floats
    draws: Draws


def _found(tally: Tally, tables: Tables, effect: float, each: float, seed: int) -> _Found | None:
    """Shares of the counted cells, with the errors of the model taken out; None of no cell."""
    accepted, others = np.array(tally.accepted), np.array(tally.others)
    counted = tally.scheme.counted
    shares = adjusted_shares(accepted, others, tables, counted=counted)
    if np.isnan(shares).any():
        return None
    draws, endless = (
        adjusted_draws(times * accepted, times * others, tables.accepted, seed=seed, effect=effect,
                       counted=counted, draws=DRAWS if len(counted) <= 20 else FEWER_DRAWS)
        for times in (1, _MANY)
    )  # fmt: skip
    low, high = draws.limits(each)
    last_low, last_high = endless.limits(each)
    return _Found(
        shares, np.minimum(low, shares), np.maximum(high, shares), (last_high - last_low) / 2, draws
    )


def _row(
    row: ClassCount, found: _Found, k: int, total: int, width: float, each: float
) -> ClassCount:
    """A class with what was found of it."""
    high = float(found.high[k])
    row = replace(
        row,
        share=float(found.shares[k]),
        low=float(found.low[k]),
        high=high if math.isfinite(high) else None,
    )
    if not row.counted:
        return row
    return replace(
        row,
        cells_needed=_needed(found, k, total, width, each),
        left_open=float(found.open[k]),
    )


def _needed(found: _Found, k: int, total: int, width: float, each: float) -> int | None:
    """Cells in all for a half-width: what the model leaves open stays, the rest shrinks."""
    if found.open[k] >= width:
        return None
    share = float(found.shares[k])
    # Correction stretches the limits of sampling; by how much is read off the limits at hand.
    now = (float(found.high[k]) - float(found.low[k])) / 2
    low, high = exact_interval(share * total, total, level=each)
    stretch = math.sqrt(max(0.0, now**2 - float(found.open[k]) ** 2)) / ((high - low) / 2)
    allowed = math.sqrt(width**2 - float(found.open[k]) ** 2) / max(1.0, stretch)
    return cells_for_half_width(share, allowed, level=each)


def _assumptions(validation: Mapping[str, Any], effect: float) -> list[str]:
    """What the limits take for granted."""
    notes = [
        f"The limits hold while accepted answers are wrong at most {ACCEPTED_TIMES:g} times as "
        "often as in the model's validation, and of the other cells at most "
        f"{100 * OTHERS_WRONG:g}% of each class are taken for another."
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
    return notes


def _wrapped(sentences: Iterable[str]) -> list[str]:
    """Sentences as lines of at most `_COLUMNS` letters."""
    return [line for one in sentences for line in textwrap.wrap(one, _COLUMNS)]


def _named(name: str, figures: str) -> list[str]:
    """A line of a table; a name that has no room stands above its figures."""
    columns = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in name)
    if columns < _NAMES:
        return [f"{name}{'':<{_NAMES - columns}}{figures}"]
    return [*textwrap.wrap(name, _COLUMNS), f"{'':<{_NAMES}}{figures}"]


def _figures(row: ClassCount) -> str:
    """Cells of a class, and what stands for them."""
    cells = f"{row.accepted:>9,}{row.others:>7,}"
    if row.share is None or row.low is None:
        return cells
    limits = f"{_points(row.low)} or more" if row.high is None else _span(row.low, row.high)
    if not row.counted:
        return f"{cells}{_points(row.share):>13}{limits:>22}"
    return f"{cells}{_points(row.share):>6}{limits:>14}"


def _cell(value: object) -> str:
    """A value for a CSV."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _percent(share: float | None) -> float | None:
    """A share as a percentage."""
    return None if share is None else 100 * share


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
