"""A differential count corrected for the classifier's own confusion, both errors in its limits.

Counted shares ``q`` are the true ones ``p`` seen through the confusion matrix ``C`` (rows true,
each of sum 1): ``q = p C``. The correction takes that back. Its limits come from draws: the count
and every row of the validation table are drawn from what they leave open, each draw is corrected,
and the central draws are kept. The wanted coverage at small counts comes from the melding of
confidence distributions: for an upper limit of a class the count is drawn as if one more cell had
been of that class, for a lower one as if one more had been of another. With a classifier that
never errs these are exactly Clopper and Pearson's limits. How well they cover is measured in
docs/decisions/0009.

References
----------
A. A. Hoenig, W. J. Rogan, B. Gladen, Estimating prevalence from the results of a screening test,
American Journal of Epidemiology 107:71-76, 1978 (two classes); A. Tenenbein, A double sampling
scheme for estimating from misclassified multinomial data, Technometrics 14:187-202, 1972 (many).

M. P. Fay, M. A. Proschan, E. Brittain, Combining one-sample confidence procedures for inference in
the two-sample case, Biometrics 71:146-156, 2015 (melding).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
from leuko.evaluation.intervals import LEVEL, OVER_SLIDES
from leuko.statistics import least_effect
from leuko.taxonomy import CLASSES

__all__ = [
    "Draws",
    "adjust_shares",
    "adjusted_draws",
    "design_effect",
    "left_open",
    "reestimate_shares",
    "reestimated_draws",
    "sampled_draws",
    "slides_are_told",
    "training_shares",
    "validation_confusion",
]

Floats = npt.NDArray[np.float64]

DRAWS: Final = 3999
"""One less than a multiple of 40, so that 2.5% of the draws and one more is a whole number."""

PSEUDO_CELLS: Final = 1.0
"""Cells that each row of the validation table is thought to have beyond its own, spread evenly.

It keeps a confusion that validation never saw from being taken for impossible.
"""

TRAINING_SPLITS: Final = ("slide", "random-file")
"""How validation rows are set aside from the training data; see `leuko.recipe.DataSettings`."""

_K: Final = len(CLASSES)
_JITTER: Final = 1e-12
_ITERATIONS: Final = 500
_SETTLED: Final = 1e-7
_GROUPS: Final = 2000
_BOOTSTRAP: Final = 999


@dataclass(frozen=True)
class Draws:
    """What the true shares may be, drawn once for lower and once for upper limits.

    Attributes
    ----------
    lower, upper : (..., D, 5) float64
        Shares that are not held to 0..1 nor to a sum of 1; the limits are.
    """

    lower: Floats
    upper: Floats

    def limits(self, level: float = LEVEL) -> tuple[Floats, Floats]:
        """Limits of each class's share.

        Parameters
        ----------
        level : float, between 0 and 1
            Confidence level of each class by itself.

        Returns
        -------
        low, high : (..., 5) float64, 0 to 1
        """
        tail = (1 - level) / 2
        # Weibull's plotting positions: among D draws, and the truth as one more, rank by rank.
        low = np.quantile(self.lower, tail, axis=-2, method="weibull")
        high = np.quantile(self.upper, 1 - tail, axis=-2, method="weibull")
        return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)


def validation_confusion(validation: Mapping[str, Any]) -> tuple[Floats | None, str]:
    """Find the confusion matrix that a bundle was given when it was validated, if it can be used.

    Parameters
    ----------
    validation : mapping
        `leuko.bundle.ModelBundle.validation`.

    Returns
    -------
    confusion : (5, 5) float64 or None
        Cells, rows true, in class order.
    reason : str
        Why there is none, as a sentence; empty when there is one.
    """
    if validation.get("split") == "random-file":
        return None, (
            "The model's validation cells are varied copies of cells that it was trained on, so "
            "its confusion there is smaller than on any others."
        )
    return _table_of(validation)


def _table_of(validation: Mapping[str, Any]) -> tuple[Floats | None, str]:
    """Read a validation's confusion matrix, whatever its cells are."""
    table = validation.get("confusion")
    if table is None:
        return None, "The model has no validation confusion matrix (imported models have none)."
    try:
        confusion = np.asarray(table, dtype=np.float64)
    except (TypeError, ValueError):
        confusion = np.empty(0)
    if confusion.shape != (_K, _K) or not np.isfinite(confusion).all() or confusion.min() < 0:
        return None, "The model's validation confusion matrix is not 5 x 5 counts."
    absent = [name for name, row in zip(CLASSES, confusion, strict=True) if row.sum() == 0]
    if absent:
        return None, f"The model was validated without a single {' or '.join(absent)}."
    return confusion, ""


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
    confusion, _ = _table_of(validation)
    slides = _number(validation.get("n_slides"))
    if confusion is None or slides is None:
        return 1.0
    cells, right = float(confusion.sum()), float(np.trace(confusion))
    return least_effect(cells, int(slides), min(right, cells - right))


def _number(value: object) -> float | None:
    """A finite number out of JSON, or None."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if fits and isinstance(value, int | float) else None


def adjust_shares(counts: npt.ArrayLike, confusion: npt.ArrayLike) -> Floats:
    """Composition that, seen through a confusion matrix, comes nearest to a count.

    Least squares over all compositions: shares from 0 up, of sum 1. Inside, this is the inverse
    of the matrix; at the border, the best of the 31 sets of classes that may be present.

    Parameters
    ----------
    counts : (5,) number
        Cells given each answer; at least one.
    confusion : (5, 5) number
        Validation cells, rows true; no row empty.

    Returns
    -------
    (5,) float64
        Shares, of sum 1.

    References
    ----------
    W. J. Rogan, B. Gladen, Estimating prevalence from the results of a screening test, American
    Journal of Epidemiology 107:71-76, 1978.

    Examples
    --------
    >>> seen = 0.9 * np.eye(5) + 0.02
    >>> adjust_shares(np.array([1, 1, 2, 2, 4]) @ seen, seen).round(6).tolist()
    [0.1, 0.1, 0.2, 0.2, 0.4]
    """
    seen, table = _shares(counts), _rows(confusion)
    best, least = np.full(_K, 1 / _K), np.inf
    for size in range(_K, 0, -1):
        for support in combinations(range(_K), size):
            # Least squares with the sum held to 1, by Lagrange's multiplier.
            rows = table[list(support)]
            system = np.ones((size + 1, size + 1))
            system[:size, :size] = rows @ rows.T
            system[size, size] = 0.0
            solved = np.linalg.lstsq(system, np.append(rows @ seen, 1.0), rcond=None)[0][:size]
            miss = float(((solved @ rows - seen) ** 2).sum())
            if solved.min() > -1e-12 and miss < least - 1e-15:
                best, least = np.zeros(_K), miss
                best[list(support)] = np.maximum(solved, 0.0)
        if least < 1e-20:
            break
    return np.asarray(best / best.sum(), np.float64)


def adjusted_draws(
    counts: npt.ArrayLike,
    confusion: npt.ArrayLike,
    *,
    seed: int | np.random.Generator,
    draws: int = DRAWS,
    effect: float = 1.0,
) -> Draws:
    """Draw what the true shares may be, given a count and a validation table.

    Parameters
    ----------
    counts : (..., 5) number
        Cells given each answer; at least one in each count.
    confusion : (..., 5, 5) number
        Validation cells, rows true; a row of few cells, or of none, leaves much open.
    seed : int or Generator
        Of the drawing.
    draws : int
        How many of each; memory goes with their number.
    effect : float, at least 1
        The validation table counts as this much smaller, see `design_effect`.

    Returns
    -------
    Draws

    Raises
    ------
    DataError
        When there is no cell.

    Notes
    -----
    The rows of the table are drawn from Dirichlet distributions with Perks's prior, one cell
    spread evenly over the row (`PSEUDO_CELLS`). The count is drawn by independent gamma variables,
    with the one cell more as an exponential variable: melding.

    References
    ----------
    W. Perks, Some observations on inverse probability including a new indifference rule, Journal
    of the Institute of Actuaries 73:285-334, 1947.
    """
    rng = np.random.default_rng(seed)
    inverse = _drawn_inverses(confusion, rng, draws=draws, effect=effect)
    return _melded(np.asarray(counts, dtype=np.float64), inverse, rng)


def sampled_draws(
    counts: npt.ArrayLike, *, seed: int | np.random.Generator, draws: int = DRAWS
) -> Draws:
    """Draw what the true shares may be, given a count that is free of confusion.

    Parameters
    ----------
    counts : (5,) number
        Cells of each class; at least one.
    seed : int or Generator
        Of the drawing.
    draws : int
        How many of each.

    Returns
    -------
    Draws
        Its limits are, but for the drawing, those of
        `leuko.evaluation.differential_limits.exact_interval`.
    """
    known = np.broadcast_to(np.eye(_K), (draws, _K, _K))
    return _melded(np.asarray(counts, dtype=np.float64), known, np.random.default_rng(seed))


def left_open(
    counts: npt.ArrayLike,
    confusion: npt.ArrayLike,
    *,
    seed: int | np.random.Generator,
    effect: float = 1.0,
    level: float = LEVEL,
) -> Floats:
    """Half-widths that limits keep however many cells are counted, for want of validation cells.

    Parameters
    ----------
    counts : (5,) number
        Cells given each answer, taken to be the exact shares.
    confusion : (5, 5) number
        Validation cells, rows true.
    seed : int or Generator
        Of the drawing.
    effect : float, at least 1
        See `design_effect`.
    level : float, between 0 and 1
        Confidence level.

    Returns
    -------
    (5,) float64, 0 to 1
    """
    rng = np.random.default_rng(seed)
    shares = _shares(counts) @ _drawn_inverses(confusion, rng, draws=DRAWS, effect=effect)
    low, high = Draws(shares, shares).limits(level)
    return np.asarray((high - low) / 2, np.float64)


def _melded(cells: Floats, inverse: Floats, rng: np.random.Generator) -> Draws:
    """Draw counts and correct each by its drawn inverse: (..., 5) and (..., D, 5, 5)."""
    if not (cells.sum(axis=-1) > 0).all():
        raise DataError("There is no cell to count: received 0, expected 1 or more.")
    count = rng.standard_gamma(np.repeat(cells[..., None, :], inverse.shape[-3], axis=-2))
    total = count.sum(axis=-1, keepdims=True)
    more = rng.standard_exponential(total.shape)
    corrected = np.einsum("...dk,...dkj->...dj", count, inverse)
    return Draws(
        lower=(corrected + more * _from_others(cells, inverse)) / (total + more),
        upper=(corrected + more * np.einsum("...djj->...dj", inverse)) / (total + more),
    )


def _drawn_inverses(
    confusion: npt.ArrayLike, rng: np.random.Generator, *, draws: int, effect: float
) -> Floats:
    """Draw inverse confusion matrices: (..., D, 5, 5)."""
    table = np.asarray(confusion, dtype=np.float64) / effect + PSEUDO_CELLS / _K
    drawn = rng.standard_gamma(np.repeat(table[..., None, :, :], draws, axis=-3))
    drawn /= drawn.sum(axis=-1, keepdims=True)
    drawn += _JITTER * np.eye(_K)
    return np.asarray(np.linalg.inv(drawn), np.float64)


def _from_others(cells: Floats, inverse: Floats) -> Floats:
    """What one cell more of the other classes adds to each class's corrected count: (..., D, 5)."""
    # A hair for every class says where the cell goes when all cells are of one class.
    some = cells + 1e-9
    own = np.einsum("...djj->...dj", inverse) * some[..., None, :]
    everyone = np.einsum("...k,...dkj->...dj", some, inverse)
    rest = some.sum(axis=-1, keepdims=True) - some
    return np.asarray((everyone - own) / rest[..., None, :], np.float64)


def training_shares(validation: Mapping[str, Any], provenance: Mapping[str, Any]) -> Floats | None:
    """Class shares that a model was trained towards, which its probabilities take for granted.

    Parameters
    ----------
    validation, provenance : mapping
        Of a `leuko.bundle.ModelBundle`. Validation rows that were set aside from the training data
        stand for the natural shares; those of another precision of the same network are its
        original's. The recipe's ``data`` says how training evened them out.

    Returns
    -------
    (5,) float64 or None
        Of sum 1. None where no such rows are known: cells that somebody checked an export with, or
        labelled for ``leuko adapt``, have shares of their own.
    """
    rows = _training_rows(validation, provenance)
    confusion, _ = _table_of(rows)
    if confusion is None:
        return None
    recipe = provenance.get("recipe")
    data = recipe.get("data") if isinstance(recipe, Mapping) else None
    settings = data if isinstance(data, Mapping) else {}
    evenness = {"fixed": 1.0, "files": 1.0}.get(str(settings.get("balance")), 0.0)
    drawn = settings.get("evenness", 1.0)
    if settings.get("balance") == "sampled" and isinstance(drawn, int | float):
        evenness = float(drawn)
    return _shares(np.power(confusion.sum(axis=1), 1 - evenness))


def _training_rows(
    validation: Mapping[str, Any], provenance: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The validation whose rows were drawn like the training rows; empty where there is none."""
    if validation.get("split") == "check":
        inner: Any = provenance
        for key in ("variant", "source", "validation"):
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        validation = inner if isinstance(inner, Mapping) else {}
    return validation if validation.get("split") in TRAINING_SPLITS else {}


def reestimate_shares(
    probabilities: npt.ArrayLike, prior: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Floats:
    """Class shares under which a classifier's probabilities are most likely, by EM.

    Each probability is divided by the share that the class had in training and multiplied by its
    share in the sample; the mean of the result is the next share; and again.

    Parameters
    ----------
    probabilities : (N, 5) float, 0 to 1
        One row a cell; at least one.
    prior : (5,) float
        Class shares in training, all above 0 (see `training_shares`).
    weights : (..., N) float, optional
        How often each row counts; 1 when left out.

    Returns
    -------
    (..., 5) float64
        Shares, of sum 1.

    References
    ----------
    M. Saerens, P. Latinne, C. Decaestecker, Adjusting the outputs of a classifier to new a priori
    probabilities: a simple procedure, Neural Computation 14:21-41, 2002.

    Examples
    --------
    >>> told = np.array([[0.9, 0.1, 0, 0, 0], [0.2, 0.8, 0, 0, 0]])
    >>> reestimate_shares(told, np.full(5, 0.2)).round(3).tolist()
    [0.604, 0.396, 0.0, 0.0, 0.0]
    """
    table = np.asarray(probabilities, dtype=np.float64).reshape(-1, _K)
    assumed = _shares(prior)
    if not len(table) or not (assumed > 0).all():
        raise DataError(
            f"Received {len(table)} rows of probabilities and training shares "
            f"{assumed.round(4).tolist()}, expected at least one row and shares above 0."
        )
    ratio = table / assumed
    often = np.ones(len(table)) if weights is None else np.asarray(weights, dtype=np.float64)
    often = often / often.sum(axis=-1, keepdims=True)
    shares = np.broadcast_to(assumed, (*often.shape[:-1], _K))
    for _ in range(_ITERATIONS):
        told = np.maximum(shares @ ratio.T, np.finfo(float).tiny)
        update = shares * ((often / told) @ ratio)
        update /= update.sum(axis=-1, keepdims=True)
        moved = float(np.abs(update - shares).max())
        shares = update
        if moved < _SETTLED:
            break
    return np.asarray(shares, np.float64)


def reestimated_draws(
    probabilities: npt.ArrayLike,
    prior: npt.ArrayLike,
    confusion: npt.ArrayLike,
    *,
    seed: int | np.random.Generator,
    draws: int = _BOOTSTRAP,
    effect: float = 1.0,
) -> Draws:
    """Draw what the true shares may be, given the probabilities of every cell.

    Cells are reweighted at random (the Bayesian bootstrap), with one cell more as in
    `adjusted_draws`. What is not known of the classifier enters as the spread that the drawn
    confusion matrices give to the corrected count.

    Parameters
    ----------
    probabilities : (N, 5) float, 0 to 1
        One row a cell; at least one.
    prior : (5,) float
        Class shares in training, all above 0.
    confusion : (5, 5) number
        Validation cells, rows true.
    seed : int or Generator
        Of the drawing.
    draws : int
        How many of each.
    effect : float, at least 1
        See `design_effect`.

    Returns
    -------
    Draws

    References
    ----------
    D. B. Rubin, The Bayesian bootstrap, Annals of Statistics 9:130-134, 1981.
    """
    rng = np.random.default_rng(seed)
    table = np.asarray(probabilities, dtype=np.float64).reshape(-1, _K)
    rows, times = grouped(table)
    weights = rng.standard_gamma(np.repeat(times[None].astype(np.float64), draws, axis=0))
    total = weights.sum(axis=1, keepdims=True)
    shares = reestimate_shares(rows, prior, weights)
    # Joined rows may lean to one side; the draws are moved to where the rows themselves stand.
    shares += reestimate_shares(table, prior) - reestimate_shares(rows, prior, times)
    counts = np.bincount(table.argmax(axis=1), minlength=_K).astype(np.float64)
    corrected = counts @ _drawn_inverses(confusion, rng, draws=draws, effect=effect) / len(table)
    unknown = corrected - np.median(corrected, axis=0)
    more = rng.standard_exponential(total.shape)
    lower = total * shares / (total + more) + unknown
    upper = (total * shares + more) / (total + more) + unknown
    return Draws(lower, upper)


def grouped(probabilities: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Join rows that are alike, so that work does not grow with the number of cells.

    Parameters
    ----------
    probabilities : (N, 5) float64
        One row a cell.

    Returns
    -------
    rows : (G, 5) float64
        The mean of each group, at most a few thousand.
    times : (G,) int64
        Cells in each.
    """
    for decimals in (4, 3, 2, 1):  # one decimal leaves a few thousand at most
        alike, group, times = np.unique(
            probabilities.round(decimals), axis=0, return_inverse=True, return_counts=True
        )
        if len(alike) <= _GROUPS:
            break
    sums = np.zeros_like(alike)
    np.add.at(sums, group.ravel(), probabilities)
    return sums / times[:, None], times


def _shares(counts: npt.ArrayLike) -> Floats:
    """Counts over their sum."""
    values = np.asarray(counts, dtype=np.float64)
    return np.asarray(values / values.sum(), np.float64)


def _rows(confusion: npt.ArrayLike) -> Floats:
    """A confusion matrix with rows of sum 1."""
    table = np.asarray(confusion, dtype=np.float64)
    return np.asarray(table / table.sum(axis=1, keepdims=True), np.float64)
