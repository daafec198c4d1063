"""What the shares of the classes may be, given a count by a classifier that errs.

A count has two parts: cells whose answer the model accepts, and cells that it leaves open, each by
their likeliest class. Counted cells ``q`` of a part are its true ones ``p`` seen through a
confusion matrix ``C`` (rows true, each of sum 1): ``q = p C``. The limits come from draws: the
count is drawn from what sampling leaves open, one matrix for each part from what is thought
possible, each part is taken back through its matrix, and the central draws are kept. Accepted
cells are no random sample of all; so nothing is taken for granted of which cells are accepted.
Classes that do not enter the denominator are corrected with the others; then the shares are of what
is left, and those classes are given as a ratio to it.

The wanted coverage at small counts comes from the melding of confidence distributions: for an
upper limit of a class one more cell is of that class, for a lower one of another. With a
classifier that never errs these are Clopper and Pearson's limits. How well they cover is measured
in docs/decisions/0028.

References
----------
W. J. Rogan, B. Gladen, Estimating prevalence from the results of a screening test, American
Journal of Epidemiology 107:71-76, 1978 (two classes); A. Tenenbein, A double sampling scheme for
estimating from misclassified multinomial data, Technometrics 14:187-202, 1972 (many).

S. Greenland, Multiple-bias modelling for analysis of observational data, Journal of the Royal
Statistical Society A 168:267-306, 2005 (drawing what the data do not tell).

M. P. Fay, M. A. Proschan, E. Brittain, Combining one-sample confidence procedures for inference in
the two-sample case, Biometrics 71:146-156, 2015 (melding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
from leuko.evaluation.intervals import OVER_SLIDES
from leuko.scheme import ClassScheme
from leuko.statistics import LEVEL, least_effect

__all__ = [
    "ACCEPTED_TIMES",
    "OTHERS_WRONG",
    "Draws",
    "Tables",
    "Unmeasured",
    "adjust_shares",
    "adjusted_draws",
    "adjusted_shares",
    "design_effect",
    "sampled_draws",
    "slides_are_told",
    "split_confusion",
    "validation_confusion",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

DRAWS: Final = 3999
"""One less than a multiple of 40, so that 2.5% of the draws and one more is a whole number."""

FEWER_DRAWS: Final = 399
"""So many of more than 20 classes: the time of a draw goes with the cube of their number."""

ACCEPTED_TIMES: Final = 5.0
"""Accepted answers are thought to be wrong up to so many times as often as in validation."""

OTHERS_WRONG: Final = 0.65
"""Up to this share of each class is thought to be taken for others where no answer is accepted."""

MOST_RATIO: Final = 100.0
"""An upper limit of more cells than this to a counted one is none."""

PSEUDO_CELLS: Final = 1.0
"""Cells that each class is thought to have in validation beyond its own, spread evenly.

It keeps a confusion that validation never saw from being taken for impossible.
"""

_SPREAD: Final = 0.1
"""Of the Dirichlet distribution of where errors go: so low that one class gets most of them."""

_MOST: Final = 0.5
"""With fewer errors than right answers in each class a matrix can be taken back."""

_MOST_OF_TWO: Final = 0.49
"""Of two classes, half of each taken for the other would leave nothing to take back."""

_NOTHING: Final = 1e-12
"""Shares and slopes nearer to 0 than this are rounding."""

_LEAST: Final = float(np.finfo(float).tiny)
_AT_ONCE: Final = 4_000_000
"""Numbers in the matrices that are taken back together; memory goes with them."""


@dataclass(frozen=True)
class Draws:
    """What the true shares may be, drawn once for lower and once for upper limits.

    Attributes
    ----------
    lower, upper : (..., D, K) float64
        Shares of the counted cells, not held to 0..1 nor to a sum of 1; of a class that is not
        counted, its ratio to them.
    counted : (K,) bool
        Which classes enter the denominator.
    """

    lower: Floats
    upper: Floats
    counted: Bools

    @property
    def shares(self) -> Draws:
        """Those of the counted classes."""
        which = self.counted
        return Draws(self.lower[..., which], self.upper[..., which], which[which])

    def limits(self, level: float = LEVEL) -> tuple[Floats, Floats]:
        """Limits of each class's share or ratio.

        Parameters
        ----------
        level : float, between 0 and 1
            Confidence level of each class by itself.

        Returns
        -------
        low, high : (..., K) float64
            Shares from 0 to 1, ratios from 0 up; infinite where no limit is known.
        """
        tail = (1 - level) / 2
        # Weibull's plotting positions: among D draws, and the truth as one more, rank by rank.
        low = np.quantile(self.lower, tail, axis=-2, method="weibull")
        high = np.quantile(self.upper, 1 - tail, axis=-2, method="weibull")
        most = np.where(self.counted, 1.0, MOST_RATIO)
        low, high = np.clip(low, 0.0, most), np.clip(high, 0.0, most)
        return low, np.where(~self.counted & (high == MOST_RATIO), np.inf, high)


@dataclass(frozen=True)
class Unmeasured:
    """Why a bundle's validation gives no confusion matrix.

    Attributes
    ----------
    code : {"copies", "none", "other-classes", "absent"}
        Its cells are copies of training cells, there is no matrix, it is not of the scheme's
        classes, or it has no cell of a class.
    names : tuple of str
        For ``absent``: the classes.
    """

    code: Literal["copies", "none", "other-classes", "absent"]
    names: tuple[str, ...] = ()


def validation_confusion(validation: Mapping[str, Any], scheme: ClassScheme) -> Floats | Unmeasured:
    """Find the confusion matrix that a bundle was given when it was validated, if it can be used.

    Parameters
    ----------
    validation : mapping
        `leuko.bundle.ModelBundle.validation`.
    scheme : ClassScheme
        Of the answers.

    Returns
    -------
    (K, K) float64 or Unmeasured
        Cells, rows true, in class order; or why there are none.
    """
    if validation.get("split") == "random-file":
        return Unmeasured("copies")
    table = validation.get("confusion")
    if table is None:
        return Unmeasured("none")
    confusion = _square(table)
    if confusion is None or len(confusion) != len(scheme):
        return Unmeasured("other-classes")
    pairs = zip(scheme.names, confusion, strict=True)
    absent = tuple(name for name, row in pairs if row.sum() == 0)
    return Unmeasured("absent", absent) if absent else confusion


def _square(table: object) -> Floats | None:
    """Counts of as many rows as columns, or None."""
    try:
        confusion = np.asarray(table, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    square = confusion.ndim == 2 and confusion.shape[0] == confusion.shape[1] > 1
    if not square or not np.isfinite(confusion).all() or confusion.min() < 0:
        return None
    return confusion


def _off(size: int) -> Bools:
    """Where errors stand in a confusion matrix."""
    return ~np.eye(size, dtype=bool)


@dataclass(frozen=True)
class Tables:
    """Confusion by decision.

    Attributes
    ----------
    accepted : (K, K) float64
        Validation cells whose answer is accepted, rows true.
    others : (K, K) float64
        Shares of the answers of the others, rows true and of sum 1.
    """

    accepted: Floats
    others: Floats


def split_confusion(validation: Mapping[str, Any], confusion: Floats) -> Tables:
    """Tell the confusion of accepted cells from that of the others.

    A bundle has one matrix for all, the share that was accepted, and how much of that was right.
    So all classes are taken to be accepted alike, and the errors of a class to go the same way in
    both parts; the limits of `adjusted_draws` take neither for granted.

    Parameters
    ----------
    validation : mapping
        `leuko.bundle.ModelBundle.validation`.
    confusion : (K, K) float64
        Of all its cells, see `validation_confusion`.

    Returns
    -------
    Tables
        Of a bundle that does not tell how much it accepts, the same confusion in both.

    Examples
    --------
    >>> told = {"trust": {"decisions": {"shares": {"class": 0.8}, "accuracy": 0.99}}}
    >>> tables = split_confusion(told, 85 * np.eye(5) + 3)
    >>> tables.accepted[0].round(2).tolist(), tables.others[0].round(3).tolist()
    ([79.2, 0.2, 0.2, 0.2, 0.2], [0.44, 0.14, 0.14, 0.14, 0.14])
    """
    off = _off(len(confusion))
    wrong = confusion * off
    rate = float(wrong.sum() / confusion.sum())
    share, accuracy = _accepted(validation)
    less = min(1.0, (1 - accuracy) / rate) if rate else 1.0
    accepted = wrong * less + np.diag(confusion.sum(axis=1) - wrong.sum(axis=1) * less)
    left = (rate - share * less * rate) / (1 - share) if share < 1 else rate
    ways = wrong + off * PSEUDO_CELLS / len(confusion)
    ways *= min(left, OTHERS_WRONG) / ways.sum(axis=1, keepdims=True)
    return Tables(share * accepted, ways + np.diag(1 - ways.sum(axis=1)))


def _accepted(validation: Mapping[str, Any]) -> tuple[float, float]:
    """Share of validation cells that was accepted, and right among them; 1 and 0 if not told."""
    inner: Any = validation
    for key in ("trust", "decisions"):
        inner = inner.get(key) if isinstance(inner, Mapping) else None
    shares = inner.get("shares") if isinstance(inner, Mapping) else None
    share = _number(shares.get("class")) if isinstance(shares, Mapping) else None
    accuracy = _number(inner.get("accuracy")) if isinstance(inner, Mapping) else None
    if share is None or accuracy is None or not (0 < share <= 1 and 0 <= accuracy <= 1):
        return 1.0, 0.0
    return share, accuracy


def design_effect(validation: Mapping[str, Any]) -> float:
    """How many cells of one slide tell as much as one independent cell, over the validation.

    Cells of a slide are confused alike, so a table of 2,000 cells from 14 slides knows less of the
    next slide than 2,000 independent cells would. The effect is the variance of the validation
    accuracy in the bootstrap over slides, over what independent cells would give. Dividing the
    table by it lets ordinary limits hold (Rao and Scott). Few mistakes, or none, do not show
    whether they keep together; then a part of the effect is assumed, see
    `leuko.statistics.least_effect`.

    Parameters
    ----------
    validation : mapping
        `leuko.bundle.ModelBundle.validation`.

    Returns
    -------
    float, at least 1
        What the bundle states, where it does. 1 where it does not tell its slides, see
        `slides_are_told`.

    References
    ----------
    J. N. K. Rao, A. J. Scott, A simple method for the analysis of clustered binary data,
    Biometrics 48:577-585, 1992.

    Examples
    --------
    >>> accuracy = {"value": 0.98, "low": 0.97, "high": 0.99, "method": OVER_SLIDES}
    >>> round(design_effect({"n": 2000, "metrics": {"accuracy": accuracy}}), 2)
    2.54
    >>> perfect = {"n": 2000, "n_slides": 14, "confusion": (400 * np.eye(5)).tolist()}
    >>> round(design_effect(perfect), 1)
    29.4
    """
    stated = _number(validation.get("effect"))
    if stated is not None:
        return max(1.0, stated)
    return max(_spread_effect(validation), _assumed_effect(validation))


def slides_are_told(validation: Mapping[str, Any]) -> bool:
    """Whether a bundle says how its validation cells are spread over several slides.

    Parameters
    ----------
    validation : mapping
        `leuko.bundle.ModelBundle.validation`.

    Returns
    -------
    bool
        False also where all are of one slide, or each of its own: file names that tell no slide
        look like either.
    """
    cells, slides = _number(validation.get("n")), _number(validation.get("n_slides"))
    return cells is not None and slides is not None and 1 < slides < cells


def _spread_effect(validation: Mapping[str, Any]) -> float:
    """Design effect that the interval of the accuracy shows."""
    try:
        cells = float(validation["n"])
        accuracy = validation["metrics"]["accuracy"]
        value, low, high = (float(accuracy[key]) for key in ("value", "low", "high"))
        method = accuracy["method"]
    except (KeyError, TypeError, ValueError):
        return 1.0
    if method != OVER_SLIDES or not cells > 0 or not 0 <= low <= value <= high <= 1:
        return 1.0
    spread = (high - low) / (2 * NormalDist().inv_cdf((1 + LEVEL) / 2))
    steady = (value * cells + 2) / (cells + 4)  # an accuracy of 1 has a variance, too
    return max(1.0, spread**2 / (steady * (1 - steady) / cells))


def _assumed_effect(validation: Mapping[str, Any]) -> float:
    """Design effect that few mistakes, or few slides, leave to be assumed."""
    confusion = _square(validation.get("confusion"))
    slides = _number(validation.get("n_slides"))
    if confusion is None or slides is None or not confusion.sum(axis=1).all():
        return 1.0
    cells, right = float(confusion.sum()), float(np.trace(confusion))
    return least_effect(cells, int(slides), min(right, cells - right))


def _number(value: object) -> float | None:
    """A finite number out of JSON, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        return None
    return float(value)


def adjust_shares(counts: npt.ArrayLike, confusion: npt.ArrayLike) -> Floats:
    """Composition that, seen through a confusion matrix, comes nearest to a count.

    Least squares over all compositions: shares from 0 up, of sum 1. Inside, this is the inverse
    of the matrix; at the border, of the rows of the classes that are present in the best one.

    Parameters
    ----------
    counts : (K,) number
        Cells given each answer; at least one.
    confusion : (K, K) number
        Validation cells, rows true; no row empty.

    Returns
    -------
    (K,) float64
        Shares, of sum 1.

    References
    ----------
    W. J. Rogan, B. Gladen, Estimating prevalence from the results of a screening test, American
    Journal of Epidemiology 107:71-76, 1978.

    C. L. Lawson, R. J. Hanson, Solving Least Squares Problems, Prentice-Hall, 1974, chapter 23.

    Examples
    --------
    >>> seen = 0.9 * np.eye(5) + 0.02
    >>> adjust_shares(np.array([1, 1, 2, 2, 4]) @ seen, seen).round(6).tolist()
    [0.1, 0.1, 0.2, 0.2, 0.4]
    """
    seen, table = _shares(counts), _rows(confusion)
    support = np.arange(len(seen))
    solved = _composition(seen, table)
    if solved.min() <= -_NOTHING:
        support = _present(seen, table)
        solved = _composition(seen, table[support])
    best = np.zeros(len(seen))
    best[support] = np.maximum(solved, 0.0)
    return np.asarray(best / best.sum(), np.float64)


def _composition(seen: Floats, rows: Floats) -> Floats:
    """Least squares with the sum held to 1, by Lagrange's multiplier; shares may be below 0."""
    size = len(rows)
    system = np.ones((size + 1, size + 1))
    system[:size, :size] = rows @ rows.T
    system[size, size] = 0.0
    solved = np.linalg.lstsq(system, np.append(rows @ seen, 1.0), rcond=None)[0]
    return np.asarray(solved[:size], np.float64)


def _present(seen: Floats, table: Floats) -> npt.NDArray[np.intp]:
    """Classes that are present in the composition of shares from 0 up that comes nearest.

    It is the point of a simplex nearest to a point; by one more equation, of weight 1, that is a
    problem of least squares without the sum, which Lawson's and Hanson's method solves.
    """
    system = np.vstack([(table - seen).T, np.ones(len(table))])
    wanted = np.append(np.zeros(len(seen)), 1.0)
    present, values = np.zeros(len(table), dtype=bool), np.zeros(len(table))
    for _ in range(3 * len(table)):
        slope = np.where(present, -np.inf, system.T @ (wanted - system @ values))
        if slope.max() <= _NOTHING:
            break
        present[slope.argmax()] = True
        while True:
            solved = np.zeros(len(table))
            solved[present] = np.linalg.lstsq(system[:, present], wanted, rcond=None)[0]
            below = present & (solved <= 0)
            if not below.any():
                break
            part = (values[below] / np.maximum(values[below] - solved[below], _LEAST)).min()
            values += part * (solved - values)
            present &= values > _NOTHING
            values[~present] = 0.0
        values = solved
    return np.flatnonzero(present)


def adjusted_shares(
    accepted: npt.ArrayLike,
    others: npt.ArrayLike,
    tables: Tables,
    *,
    counted: Sequence[bool] | None = None,
) -> Floats:
    """Composition of all cells, each part taken back through its validation table.

    Parameters
    ----------
    accepted, others : (K,) number
        Cells of each answer, accepted and not; at least one in all.
    tables : Tables
        See `split_confusion`.
    counted : sequence of K bool, optional
        Which classes enter the denominator; all by default.

    Returns
    -------
    (K,) float64
        Shares of the counted cells, of sum 1; of a class that is not counted, its ratio to them.
        Not-a-number where the model's errors explain every counted cell.
    """
    parts = ((np.asarray(accepted), tables.accepted), (np.asarray(others), tables.others))
    cells = np.sum(
        [part.sum() * adjust_shares(part, table) for part, table in parts if part.sum()], axis=0
    )
    white = cells.sum() if counted is None else cells[np.asarray(counted)].sum()
    return np.asarray(cells / white if white > 0 else np.full(len(cells), np.nan), np.float64)


def adjusted_draws(
    accepted: npt.ArrayLike,
    others: npt.ArrayLike,
    confusion: npt.ArrayLike,
    *,
    seed: int | np.random.Generator,
    draws: int = DRAWS,
    effect: float = 1.0,
    counted: Sequence[bool] | None = None,
) -> Draws:
    """Draw what the true shares of all cells may be, given a count and a validation table.

    Parameters
    ----------
    accepted, others : (..., K) number
        Cells of each answer, accepted and not; at least one in each count.
    confusion : (K, K) number
        Accepted validation cells, rows true; a row of few cells, or of none, leaves much open.
    seed : int or Generator
        Of the drawing.
    draws : int
        How many of each; memory goes with their number.
    effect : float, at least 1
        The validation table counts as this much smaller, see `design_effect`.
    counted : sequence of K bool, optional
        Which classes enter the denominator; all by default.

    Returns
    -------
    Draws

    Raises
    ------
    DataError
        When there is no cell.

    Notes
    -----
    Rates of error among the accepted are drawn by class: a beta variable with Perks's prior, times
    a factor, uniform in its logarithm, of up to `ACCEPTED_TIMES` or its inverse. Among the others
    they are uniform up to `OTHERS_WRONG`. Where the errors of a class go is drawn from a Dirichlet
    distribution that knows nothing of the table: another microscope has other confusions.

    The denominator of a draw is its cells without those of the classes that are not counted. With
    a classifier that never errs the limits stay Clopper and Pearson's: of a share among the counted
    cells, and, for the ratio ``u / n`` of a class that is not counted, those of ``u`` in ``u + n``.

    References
    ----------
    W. Perks, Some observations on inverse probability including a new indifference rule, Journal
    of the Institute of Actuaries 73:285-334, 1947.
    """
    sure, left = np.asarray(accepted, np.float64), np.asarray(others, np.float64)
    if not ((sure + left).sum(axis=-1) > 0).all():
        raise DataError("There is no cell to count: received 0, expected 1 or more.")
    rng = np.random.default_rng(seed)
    table = np.asarray(confusion, dtype=np.float64) / effect
    sure, left = _drawn_counts(sure, rng, draws), _drawn_counts(left, rng, draws)
    wrong = rng.uniform(0, OTHERS_WRONG, sure.shape)
    cells = _taken_back(sure, _accepted_rates(table, rng, sure.shape), rng)
    # None of a class are less than none, and all that are called so are the most it can have.
    all_left = left.sum(axis=-1, keepdims=True)
    most = np.minimum(left / (1 - wrong), all_left)
    cells += np.clip(_taken_back(left, wrong, rng), 0, most)
    every = sure.sum(axis=-1, keepdims=True) + all_left
    which = np.ones(len(table), dtype=bool) if counted is None else np.asarray(counted)
    return _melded(cells, every, rng, which)


def sampled_draws(
    counts: npt.ArrayLike, *, seed: int | np.random.Generator, draws: int = DRAWS
) -> Draws:
    """Draw what the true shares may be, given a count that is free of confusion.

    Parameters
    ----------
    counts : (K,) number
        Cells of each class; at least one.
    seed : int or Generator
        Of the drawing.
    draws : int
        How many of each.

    Returns
    -------
    Draws
        Its limits are, but for the drawing, those of
        `leuko.evaluation.counting.limits.exact_interval`.
    """
    rng = np.random.default_rng(seed)
    cells = _drawn_counts(np.asarray(counts, dtype=np.float64), rng, draws)
    every = cells.sum(axis=-1, keepdims=True)
    return _melded(cells, every, rng, np.ones(cells.shape[-1], dtype=bool))


def _drawn_counts(cells: Floats, rng: np.random.Generator, draws: int) -> Floats:
    """Counts as sampling may have made them: (..., K) to (..., D, K)."""
    return np.asarray(rng.standard_gamma(np.repeat(cells[..., None, :], draws, axis=-2)))


def _melded(cells: Floats, every: Floats, rng: np.random.Generator, counted: Bools) -> Draws:
    """Shares with one more cell, of another class and of each itself; ratios of the uncounted."""
    other = np.maximum(cells[..., ~counted], 0)
    white = np.maximum(every - other.sum(axis=-1, keepdims=True), _NOTHING)
    more = rng.standard_exponential(white.shape)
    lower = cells / (white + more)
    upper = (cells + more) / (white + more * counted)
    return Draws(lower, upper, counted)


def _accepted_rates(table: Floats, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Rates of error that accepted cells may have, by class: (..., D, K)."""
    classes = len(table)
    wrong = (table * _off(classes)).sum(axis=1)
    prior = PSEUDO_CELLS * (classes - 1) / classes
    rates = rng.beta(wrong + prior, table.diagonal() + PSEUDO_CELLS - prior, size=shape)
    most = np.log(ACCEPTED_TIMES)
    rates = rates * np.exp(rng.uniform(-most, most, size=shape))
    return np.asarray(np.minimum(rates, _MOST if classes > 2 else _MOST_OF_TWO), np.float64)


def _taken_back(cells: Floats, rates: Floats, rng: np.random.Generator) -> Floats:
    """True cells behind those counted, both (..., D, K), by rates of error and a drawn way each."""
    classes = cells.shape[-1]
    rows, wrong = cells.reshape(-1, classes), rates.reshape(-1, classes)
    step = max(1, _AT_ONCE // classes**2)
    parts = [_back(rows[i : i + step], wrong[i : i + step], rng) for i in range(0, len(rows), step)]
    return np.concatenate(parts).reshape(cells.shape)


def _back(cells: Floats, rates: Floats, rng: np.random.Generator) -> Floats:
    """See `_taken_back`: (N, K)."""
    size = cells.shape[-1]
    off = _off(size)
    ways = np.zeros((*rates.shape, size))
    ways[..., off] = rng.standard_gamma(_SPREAD, size=(len(rates), size * (size - 1)))
    ways /= np.maximum(ways.sum(axis=-1, keepdims=True), _LEAST)
    matrix = rates[..., None] * ways
    matrix[..., ~off] = 1 - rates
    return np.asarray(np.einsum("...k,...kj->...j", cells, np.linalg.inv(matrix)), np.float64)


def _shares(counts: npt.ArrayLike) -> Floats:
    """Counts over their sum."""
    values = np.asarray(counts, dtype=np.float64)
    return np.asarray(values / values.sum(), np.float64)


def _rows(confusion: npt.ArrayLike) -> Floats:
    """A confusion matrix with rows of sum 1."""
    table = np.asarray(confusion, dtype=np.float64)
    return np.asarray(table / table.sum(axis=1, keepdims=True), np.float64)
