"""A count made by people, and whether the classifier's differs by more than their errors."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np

from leuko.errors import DataError
from leuko.evaluation.counting.correction import Draws, sampled_draws
from leuko.evaluation.counting.limits import fisher_p_value, share_limits
from leuko.evaluation.paired import holm
from leuko.scheme import ClassScheme
from leuko.statistics import LEVEL
from leuko.support.files import text_of
from leuko.support.text import listed

__all__ = [
    "REFERENCE_CELLS",
    "ManualComparison",
    "compare_with_manual",
    "read_manual_counts",
]

REFERENCE_CELLS: Final = 400
"""Cells of the reference method: two observers, 200 each (CLSI H20-A2)."""

_COLUMNS: Final = ("class", "count")
_MOST: Final = 1_000_000
_MOST_BYTES: Final = 65_536


@dataclass(frozen=True)
class ManualComparison:
    """A differential count beside a manual one.

    Attributes
    ----------
    names : tuple of C str
        The classes that are compared: those that enter the denominator.
    counts : tuple of C int
        Cells of each in the manual count, all observers together.
    observers : int
        How many counts were added.
    limits : tuple of C (float, float)
        Exact limits of the manual shares.
    difference : tuple of C float
        The differential's shares minus the manual ones.
    difference_limits : tuple of C (float, float)
        Of the differences, at the differential's level, with the errors of both counts.
    p_values : tuple of C float
        For no difference in the class, Holm-corrected for all of them.
    disagree : tuple of str
        Classes in which the observers differ among themselves by more than sampling allows.
    level : float
        Confidence level.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    observers: int
    limits: tuple[tuple[float, float], ...]
    difference: tuple[float, ...]
    difference_limits: tuple[tuple[float, float], ...]
    p_values: tuple[float, ...]
    disagree: tuple[str, ...]
    level: float = LEVEL

    @property
    def total(self) -> int:
        """All cells of the manual count."""
        return sum(self.counts)

    @property
    def shares(self) -> tuple[float, ...]:
        """Manual shares, 0 to 1."""
        return tuple(count / self.total for count in self.counts)

    @property
    def differs(self) -> tuple[bool, ...]:
        """Whether each class differs by more than the errors of both counts allow."""
        return tuple(p < 1 - self.level for p in self.p_values)


def read_manual_counts(
    paths: Sequence[str | os.PathLike[str]], scheme: ClassScheme
) -> list[tuple[int, ...]]:
    """Read the manual differential counts of one or more observers.

    Parameters
    ----------
    paths : sequence of path-like
        One CSV for each observer, with the columns ``class,count``, one line for each class, under
        any name that `leuko.scheme.ClassScheme.find` understands.
    scheme : ClassScheme
        Whose classes they are.

    Returns
    -------
    list of tuples of K int
        In class order; at least one cell in all. A class that does not enter the denominator may
        have no line.

    Raises
    ------
    DataError
        With one sentence, when a file cannot be read, a column or a class is missing, a class
        is unknown or comes twice, a count is no whole number from 0 up, or nothing was counted;
        and when two files have the same content: one observer given twice would narrow the limits.
    """
    contents: dict[bytes, str | os.PathLike[str]] = {}
    counts = []
    for path in paths:
        content = _content(path)
        if content in contents:
            raise DataError(
                f"{path} has the same content as {contents[content]}; give the count of each "
                "observer once."
            )
        contents[content] = path
        counts.append(_counted(path, content, scheme))
    return counts


def _counted(path: str | os.PathLike[str], content: bytes, scheme: ClassScheme) -> tuple[int, ...]:
    """Read a manual count's content; see `read_manual_counts`."""
    counts: dict[str, int] = {}
    for line, cells in _lines(path, content):
        where = f"{path}, line {line}"
        if len(cells) != len(_COLUMNS):
            raise DataError(
                f"{where}: expected a class and a count, received {_short(','.join(cells))}."
            )
        place = scheme.find(cells[0])
        if place is None:
            raise DataError(
                f"{where}: {_short(cells[0])} is no class that is counted. Known are "
                f"{scheme.describe()}."
            )
        name = scheme.names[place]
        if name in counts:
            raise DataError(f"{where}: {name} comes a second time; give each class one line.")
        if not re.fullmatch("[0-9]{1,7}", cells[1]) or int(cells[1]) > _MOST:
            raise DataError(
                f"{where}: the count of {name} must be a whole number from 0 to {_MOST:,}, "
                f"received {_short(cells[1])}."
            )
        counts[name] = int(cells[1])
    needed = [one.name for one in scheme.classes if one.counted]
    missing = [name for name in needed if name not in counts]
    if missing:
        raise DataError(
            f"{path} has no line for {listed(missing)}; write 0 for a class of which no cell was "
            "seen."
        )
    if not any(counts[name] for name in needed):
        raise DataError(f"{path} counts no cell at all.")
    return tuple(counts.get(name, 0) for name in scheme.names)


def _content(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; it may be a pipe, and is read once."""
    try:
        with Path(os.path.expanduser(path)).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) > _MOST_BYTES:
        raise DataError(f"{path} is too large for a manual count: one line a class is expected.")
    return content


def _lines(path: str | os.PathLike[str], content: bytes) -> list[tuple[int, list[str]]]:
    """The filled lines below the header, with their numbers."""
    try:
        rows = list(csv.reader(text_of(content).splitlines(), strict=True))
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV: {error}.") from error
    filled = [
        (number, [cell.strip() for cell in row])
        for number, row in enumerate(rows, start=1)
        if any(cell.strip() for cell in row)
    ]
    if not filled:
        raise DataError(f"{path} is empty; expected the columns {','.join(_COLUMNS)}.")
    header = [cell.lower() for cell in filled[0][1]]
    if header != list(_COLUMNS):
        raise DataError(
            f"{path} must begin with the line {','.join(_COLUMNS)!r}, received "
            f"{_short(','.join(filled[0][1]))}."
        )
    return filled[1:]


def compare_with_manual(
    shares: Sequence[float],
    draws: Draws,
    manual: Sequence[Sequence[int]],
    *,
    names: Sequence[str],
    level: float = LEVEL,
    each: float = LEVEL,
    seed: int = 0,
) -> ManualComparison:
    """Test class by class whether two counts differ by more than their errors allow.

    The melded test, of which Fisher's exact test is the special case without confusion. P-values
    are Holm's, for all classes.

    Parameters
    ----------
    shares : sequence of C float
        The differential's shares, of the classes that enter the denominator.
    draws : Draws
        What the true shares may be.
    manual : sequence of sequences of C int
        One count for each observer.
    names : sequence of C str
        Of the classes.
    level : float, between 0 and 1
        Of the tests, for all classes together.
    each : float, between 0 and 1
        Of each limit.
    seed : int
        Of the draws for the manual count.

    Returns
    -------
    ManualComparison

    References
    ----------
    CLSI, Reference Leukocyte (WBC) Differential Count (Proportional) and Evaluation of
    Instrumental Methods, approved standard, second edition, H20-A2, 2007.

    M. P. Fay, M. A. Proschan, E. Brittain, Combining one-sample confidence procedures for
    inference in the two-sample case, Biometrics 71:146-156, 2015.
    """
    together = tuple(int(sum(column)) for column in zip(*manual, strict=True))
    total = sum(together)
    # A stream of its own, or two equal counts would be drawn alike.
    stream = np.random.default_rng(seed).spawn(1)[0]
    theirs = sampled_draws(together, seed=stream, draws=len(draws.lower))
    below = np.clip(draws.lower, 0, 1) - theirs.upper
    above = np.clip(draws.upper, 0, 1) - theirs.lower
    tails = np.minimum((below <= 0).sum(axis=0), (above >= 0).sum(axis=0))
    p_values = np.minimum(1.0, 2 * (tails + 1) / (len(below) + 1)).tolist()
    tail = (1 - each) / 2
    lows = np.quantile(below, tail, axis=0, method="weibull")
    highs = np.quantile(above, 1 - tail, axis=0, method="weibull")
    return ManualComparison(
        names=tuple(names),
        counts=together,
        observers=len(manual),
        limits=tuple(share_limits(together, level=each)),
        difference=tuple(float(shares[k]) - together[k] / total for k in range(len(names))),
        difference_limits=tuple(zip(lows.tolist(), highs.tolist(), strict=True)),
        p_values=tuple(holm(p_values)),
        disagree=tuple(names[k] for k in _disagreeing(manual, level)),
        level=level,
    )


def _disagreeing(manual: Sequence[Sequence[int]], level: float) -> list[int]:
    """Classes, by number, in which two observers differ, after Holm's correction over all tests."""
    pairs = [
        (k, fisher_p_value(one[k], sum(one), other[k], sum(other)))
        for one, other in combinations(manual, 2)
        for k in range(len(one))
    ]
    corrected = holm([p for _, p in pairs])
    return sorted({k for (k, _), p in zip(pairs, corrected, strict=True) if p < 1 - level})


def _short(text: str) -> str:
    """Text in quotes, cut where it runs on."""
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
