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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from leuko.bundle import ModelBundle
from leuko.errors import DataError
from leuko.evaluation.counting.correction import (
    DRAWS,
    FEWER_DRAWS,
    Draws,
    Tables,
    Unmeasured,
    adjusted_draws,
    adjusted_shares,
    design_effect,
    slides_are_told,
    split_confusion,
    validation_confusion,
)
from leuko.evaluation.counting.limits import cells_for_half_width, each_level
from leuko.evaluation.counting.manual import ManualComparison, compare_with_manual
from leuko.evaluation.counting.tally import Tally, answers_of
from leuko.prediction import PredictionTable
from leuko.scheme import ClassScheme
from leuko.statistics import LEVEL, exact_interval

__all__ = [
    "LEAST_ACCEPTED",
    "UNDECIDED",
    "ClassCount",
    "Differential",
    "Refusal",
    "differential",
    "differential_by",
    "flag_of",
]

Floats = npt.NDArray[np.float64]
Refusal = Literal["", "few-accepted", "no-validation", "all-explained"]

LEAST_ACCEPTED: Final = 0.6
"""Share of the cells that a model must accept for limits; docs/decisions/0028 tells why."""

UNDECIDED: Final = "not decided at this n"

_MANY: Final = 1_000_000
"""So many times the cells leave nothing to sampling."""


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


@dataclass(frozen=True)
class Differential:
    """A differential count with everything that a reader must know of it.

    Attributes
    ----------
    scheme : ClassScheme
        Of the answers.
    rows : tuple of K ClassCount
        In class order.
    level : float
        Confidence level.
    simultaneous : bool
        Whether the level is that of all limits at once.
    width : float
        Wanted half-width, as a share.
    found : int
        Images.
    left_out, rejected : dict of str to int
        Images without a cell and cells set aside, by decision, and those that could not be read,
        by reason.
    repeated : int
        Images that were left out because they had come before.
    refused : {"", "few-accepted", "no-validation", "all-explained"}
        Why there are no limits; empty where there are.
    effect : float
        The validation table counted as this much smaller.
    slides : int or None
        Slides of the validation cells; None where the model does not tell.
    slides_told : bool
        See `leuko.evaluation.counting.correction.slides_are_told`.
    unmeasured : Unmeasured or None
        For ``no-validation``: what is wrong with the validation.
    manual_given : bool
        Whether there is a manual count, compared or not.
    manual : ManualComparison or None
        The count beside a manual one; never without limits.
    """

    scheme: ClassScheme
    rows: tuple[ClassCount, ...]
    level: float
    simultaneous: bool
    width: float
    found: int
    left_out: dict[str, int]
    rejected: dict[str, int]
    repeated: int = 0
    refused: Refusal = ""
    effect: float = 1.0
    slides: int | None = None
    slides_told: bool = False
    unmeasured: Unmeasured | None = None
    manual_given: bool = False
    manual: ManualComparison | None = None

    @property
    def each(self) -> float:
        """Level of each limit by itself."""
        return each_level(self.level, len(self.scheme)) if self.simultaneous else self.level

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


def differential(
    tally: Tally | PredictionTable,
    *,
    validation: Mapping[str, Any] | None = None,
    level: float = LEVEL,
    simultaneous: bool = False,
    width: float = 0.05,
    manual: Sequence[Sequence[int]] = (),
    seed: int = 0,
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

    Returns
    -------
    Differential
        Its words are `leuko.render.counts`'.

    Raises
    ------
    DataError
        When there is no cell that enters the denominator.
    """
    tally = tally if isinstance(tally, Tally) else Tally.of(tally)
    validation = validation or {}
    plain = Differential(
        tally.scheme,
        _rows(tally),
        level=level,
        simultaneous=simultaneous,
        width=width,
        found=tally.found,
        left_out=dict(sorted(tally.left_out.items())),
        rejected=dict(sorted(tally.rejected.items())),
        repeated=tally.repeated,
        manual_given=bool(manual),
    )
    if plain.total == 0:
        raise DataError(_nothing(plain))
    sure, every = plain.accepted_least
    if sure / every < LEAST_ACCEPTED:
        return replace(plain, refused="few-accepted")
    confusion = validation_confusion(validation, plain.scheme)
    if isinstance(confusion, Unmeasured):
        return replace(plain, refused="no-validation", unmeasured=confusion)
    effect = design_effect(validation)
    found = _found(tally, split_confusion(validation, confusion), effect, plain.each, seed)
    if found is None:
        return replace(plain, refused="all-explained")
    slides = validation.get("n_slides")
    return replace(
        plain,
        rows=tuple(_row(plain, found, k) for k in range(len(plain.rows))),
        effect=effect,
        slides=slides if isinstance(slides, int) else None,
        slides_told=slides_are_told(validation),
        manual=_beside(plain, found, manual, seed) if manual else None,
    )


def differential_by(
    bundle: ModelBundle,
    tally: Tally,
    *,
    simultaneous: bool = False,
    width: float = 0.05,
    manual: Sequence[Sequence[int]] = (),
    seed: int = 0,
) -> Differential:
    """Turn one model's answers into a differential count, with its own errors in the limits.

    Parameters
    ----------
    bundle : ModelBundle
        The model.
    tally : Tally
        Its answers.
    simultaneous, width, manual, seed
        See `differential`.

    Returns
    -------
    Differential

    Raises
    ------
    DataError
        When another model answered, see `leuko.evaluation.counting.tally.answers_of`; or when
        there is no cell that enters the denominator.
    """
    answers_of(tally, bundle.name, bundle.digest, bundle.scheme)
    return differential(
        tally,
        validation=bundle.validation,
        simultaneous=simultaneous,
        width=width,
        manual=manual,
        seed=seed,
    )


def _rows(tally: Tally) -> tuple[ClassCount, ...]:
    """The classes with their cells, without limits."""
    cells = zip(tally.scheme.classes, tally.accepted, tally.others, strict=True)
    return tuple(
        ClassCount(one.name, sure, open_, counted=one.counted, reference=one.range)
        for one, sure, open_ in cells
    )


def _beside(
    plain: Differential, found: _Found, manual: Sequence[Sequence[int]], seed: int
) -> ManualComparison:
    """The counted classes beside a manual count."""
    kept = [k for k, row in enumerate(plain.rows) if row.counted]
    return compare_with_manual(
        found.shares[kept].tolist(),
        found.draws.shares,
        [[one[k] for k in kept] for one in manual],
        names=[row.name for row in plain.counted],
        level=plain.level,
        each=plain.each,
        seed=seed,
    )


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


def _row(plain: Differential, found: _Found, k: int) -> ClassCount:
    """A class with what was found of it."""
    row = plain.rows[k]
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
        cells_needed=_needed(plain, found, k),
        left_open=float(found.open[k]),
    )


def _needed(plain: Differential, found: _Found, k: int) -> int | None:
    """Cells in all for a half-width: what the model leaves open stays, the rest shrinks."""
    total, width, each = plain.total, plain.width, plain.each
    if found.open[k] >= width:
        return None
    share = float(found.shares[k])
    # Correction stretches the limits of sampling; by how much is read off the limits at hand.
    now = (float(found.high[k]) - float(found.low[k])) / 2
    low, high = exact_interval(share * total, total, level=each)
    stretch = math.sqrt(max(0.0, now**2 - float(found.open[k]) ** 2)) / ((high - low) / 2)
    allowed = math.sqrt(width**2 - float(found.open[k]) ** 2) / max(1.0, stretch)
    return cells_for_half_width(share, allowed, level=each)
