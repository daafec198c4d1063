"""Two models on the same images: paired tests, and means over seeds.

A winner is named only where a test and an interval agree. McNemar's test takes images for
independent, which cells of one slide are not; the paired bootstrap resamples slides but knows
few of them. Either alone is too easily convinced.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
from leuko.evaluation import intervals, metrics
from leuko.evaluation.report import HEADLINE_METRICS, SetResult
from leuko.statistics import LEVEL, check_rows

__all__ = [
    "ALPHA",
    "Answers",
    "Decision",
    "Difference",
    "McNemar",
    "PairedBootstrap",
    "PairedTest",
    "SeedMean",
    "compare_predictions",
    "decide",
    "holm",
    "mcnemar",
    "mean_over_seeds",
    "paired_bootstrap",
]

ALPHA: Final = 0.05
"""Level of the paired tests, after Holm's correction over the pairs compared."""

EXACT_BELOW: Final = 25
"""Fewer discordant images than this get the exact test."""

MEAN_OF_ENDS: Final = "mean of the seeds' own intervals"


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two models on the same images.

    Attributes
    ----------
    b, c : int
        Images that only the first gets right, and only the second.
    statistic : float
        The smaller of the two, or chi-squared.
    p_value : float, 0 to 1
    method : str
        ``exact`` (two-sided binomial, under 25 such images) or ``chi2cc`` (chi-squared with
        continuity correction and one degree of freedom).
    """

    b: int
    c: int
    statistic: float
    p_value: float
    method: str


@dataclass(frozen=True)
class Difference:
    """A metric of the first model minus that of the second.

    Attributes
    ----------
    difference : float, -1 to 1
    low, high : float or None
        Ends of the interval, None when there is none.
    """

    difference: float
    low: float | None
    high: float | None

    @property
    def side(self) -> int:
        """1 if the interval lies above zero, -1 if below, 0 if it holds zero or is missing."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class PairedBootstrap:
    """Differences between two models, with intervals that resample both together.

    Attributes
    ----------
    differences : dict of str to Difference
        Under the names of `leuko.evaluation.report.HEADLINE_METRICS`.
    method : str
        What was resampled.
    level : float, 0 to 1
        Of the intervals.
    resamples, redrawn, seed : int
        Resamples kept, those drawn again for want of a class, and their seed.
    """

    differences: Mapping[str, Difference]
    method: str
    level: float
    resamples: int
    redrawn: int
    seed: int


@dataclass(frozen=True)
class PairedTest:
    """Two trainings on the same images: an entry of ``paired`` in ``comparison.json``.

    Attributes
    ----------
    a, b : str
        Recipes of the two models.
    set_name : str
        The set that they answered: ``test``, ``validation`` or an unseen folder's name.
    seeds : (int, int)
        That they were trained with.
    mcnemar : McNemar
    bootstrap : PairedBootstrap
    """

    a: str
    b: str
    set_name: str
    seeds: tuple[int, int]
    mcnemar: McNemar
    bootstrap: PairedBootstrap

    def to_dict(self) -> dict[str, Any]:
        """The entry, as ``comparison.json`` holds it."""
        bootstrap = asdict(self.bootstrap)
        return {
            "a": self.a,
            "b": self.b,
            "set": self.set_name,
            "seeds": list(self.seeds),
            "mcnemar": asdict(self.mcnemar),
            "bootstrap": bootstrap.pop("differences") | bootstrap,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> PairedTest:
        """The same from the entry."""
        rest = dict(document["bootstrap"])
        differences = {
            name: Difference(**rest.pop(name)) for name in HEADLINE_METRICS if name in rest
        }
        first, second = document["seeds"]
        return cls(
            a=document["a"],
            b=document["b"],
            set_name=document["set"],
            seeds=(first, second),
            mcnemar=McNemar(**document["mcnemar"]),
            bootstrap=PairedBootstrap(differences, **rest),
        )


@dataclass(frozen=True)
class Answers:
    """What one training answered to the images of a set.

    Attributes
    ----------
    recipe : str
    seed : int
        That it was trained with.
    probabilities : (N, K) float, 0 to 1
    """

    recipe: str
    seed: int
    probabilities: npt.ArrayLike


@dataclass(frozen=True)
class SeedMean:
    """A metric of one recipe, averaged over the seeds that it was trained with.

    Attributes
    ----------
    mean : float, 0 to 1
    sd : float or None
        Sample standard deviation over seeds, None for one.
    low, high : float or None
        Ends of the interval over slides, None when there is none.
    method : str
        How the interval was found.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    method: str


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> McNemar:
    """Test whether two models make equally many mistakes on the same images.

    Parameters
    ----------
    correct_a, correct_b : (N,) bool
        Whether each model's answer is right, image by image.

    Returns
    -------
    McNemar

    Raises
    ------
    DataError
        When the two differ in length or are empty.

    References
    ----------
    Q. McNemar, Note on the sampling error of the difference between correlated proportions or
    percentages, Psychometrika 12:153-157, 1947. A. L. Edwards, Note on the "correction for
    continuity", Psychometrika 13:185-187, 1948.

    Examples
    --------
    >>> result = mcnemar([True] * 9 + [False], [False] * 9 + [True])
    >>> result.method, round(result.p_value, 6)
    ('exact', 0.021484)
    """
    right_a, right_b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if right_a.shape != right_b.shape or right_a.ndim != 1 or right_a.size == 0:
        raise DataError(
            f"Received answers of shapes {right_a.shape} and {right_b.shape}, expected the same "
            "images for both models. Compare models on one set."
        )
    b = int((right_a & ~right_b).sum())
    c = int((right_b & ~right_a).sum())
    if b + c < EXACT_BELOW:
        tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1))
        statistic, p_value, method = float(min(b, c)), 2 * tail / 2 ** (b + c), "exact"
    else:
        statistic = max(abs(b - c) - 1, 0) ** 2 / (b + c)
        p_value, method = math.erfc(math.sqrt(statistic / 2)), "chi2cc"
    return McNemar(b, c, statistic, min(1.0, p_value), method)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for the number of tests, by Holm's step-down method.

    Parameters
    ----------
    p_values : sequence of float, 0 to 1
        One for each test.

    Returns
    -------
    list of float, 0 to 1
        Corrected values in the same order; compare them with the level itself.

    References
    ----------
    S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 6:65-70, 1979.

    Examples
    --------
    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def paired_bootstrap(
    y_true: npt.ArrayLike,
    probabilities_a: npt.ArrayLike,
    probabilities_b: npt.ArrayLike,
    slides: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> PairedBootstrap:
    """Differences between two models, with intervals that resample both together.

    Parameters
    ----------
    y_true : (N,) int, 0 to K - 1
        True classes.
    probabilities_a, probabilities_b : (N, K) float, 0 to 1
        Each model's probabilities, in the same order of images.
    slides : sequence of N str
        Slide of each image.
    seed : int
        Seed of the bootstrap.
    resamples : int
        Resamples to keep.

    Returns
    -------
    PairedBootstrap
        Of A minus B.

    Raises
    ------
    DataError
        When labels, probabilities and slides do not belong together.
    """
    labels, table_a = check_rows(y_true, probabilities_a)
    _, table_b = check_rows(y_true, probabilities_b)
    predicted = np.stack((table_a.argmax(axis=1), table_b.argmax(axis=1)))
    if len(slides) != len(labels):
        raise DataError(
            f"Received {len(slides)} slide names for {len(labels)} labels, expected one each."
        )
    drawn = intervals.resample_confusions(
        labels, predicted, slides, table_a.shape[1], seed=seed, resamples=resamples
    )
    whole = np.stack([metrics.confusion_matrix(labels, one, table_a.shape[1]) for one in predicted])
    differences = {}
    for name, measure in HEADLINE_METRICS.items():
        values, value = measure(drawn.confusion), measure(whole)
        low, high = intervals.percentile_interval(values[:, 0] - values[:, 1]) or (None, None)
        differences[name] = Difference(float(value[0] - value[1]), low, high)
    return PairedBootstrap(
        differences,
        method=f"paired {drawn.method}",
        level=LEVEL,
        resamples=len(drawn.confusion),
        redrawn=drawn.redrawn,
        seed=seed,
    )


def compare_predictions(
    y_true: npt.ArrayLike,
    slides: Sequence[str],
    a: Answers,
    b: Answers,
    *,
    set_name: str,
    seed: int = 0,
    resamples: int = 1000,
) -> PairedTest:
    """Test two trainings on the same images.

    Parameters
    ----------
    y_true : (N,) int, 0 to K - 1
        True classes.
    slides : sequence of N str
        Slide of each image.
    a, b : Answers
        In the same order of images.
    set_name : str
        What the set is called.
    seed : int
        Seed of the bootstrap.
    resamples : int
        Resamples to keep.

    Returns
    -------
    PairedTest

    Raises
    ------
    DataError
        When labels, probabilities and slides do not belong together.
    """
    bootstrap = paired_bootstrap(
        y_true, a.probabilities, b.probabilities, slides, seed=seed, resamples=resamples
    )
    labels = np.asarray(y_true)
    right_a, right_b = (
        np.asarray(one.probabilities, dtype=np.float64).argmax(axis=1) == labels for one in (a, b)
    )
    return PairedTest(
        a=a.recipe,
        b=b.recipe,
        set_name=set_name,
        seeds=(a.seed, b.seed),
        mcnemar=mcnemar(right_a, right_b),
        bootstrap=bootstrap,
    )


def mean_over_seeds(results: Sequence[SetResult]) -> dict[str, SeedMean]:
    """Mean metrics of one recipe trained with several seeds and evaluated on one set.

    The interval is a bootstrap over slides of the mean over seeds: it says how the result would
    vary with other slides. How it varies with the seed is the standard deviation beside it.
    Where the evaluations do not list the same slides, the ends are the means of their ends.

    Parameters
    ----------
    results : sequence of SetResult
        One for each seed.

    Returns
    -------
    dict of str to SeedMean
        Under the names of `leuko.evaluation.report.HEADLINE_METRICS`.

    Raises
    ------
    DataError
        When there is no evaluation.
    """
    if not results:
        raise DataError("Received no evaluation to average, expected one for each seed.")
    drawn = _resample_results(results)
    means = {}
    for name, measure in HEADLINE_METRICS.items():
        estimates = [result.estimates[name] for result in results]
        values = [one.value for one in estimates]
        lows = [one.low for one in estimates if one.low is not None]
        highs = [one.high for one in estimates if one.high is not None]
        low = fmean(lows) if len(lows) == len(estimates) else None
        high = fmean(highs) if len(highs) == len(estimates) else None
        method = estimates[0].method if len(estimates) == 1 else MEAN_OF_ENDS
        if drawn is not None and all(one.method == intervals.OVER_SLIDES for one in estimates):
            interval = intervals.percentile_interval(measure(drawn).mean(axis=1))
            if interval is not None:
                low, high = interval
                method = f"{intervals.OVER_SLIDES} of the mean over {len(estimates)} seeds"
        sd = stdev(values) if len(values) > 1 else None
        means[name] = SeedMean(fmean(values), sd, low, high, method)
    return means


def _resample_results(results: Sequence[SetResult]) -> npt.NDArray[np.float64] | None:
    """Confusion matrices (R, seeds, K, K) over resampled slides, if all list the same slides."""
    names = [[one.slide for one in result.by_slide] for result in results]
    if len(results) < 2 or not names[0] or any(other != names[0] for other in names[1:]):
        return None
    tables = np.asarray(
        [[one.confusion for one in result.by_slide] for result in results], dtype=np.int64
    ).swapaxes(0, 1)
    truth = tables.sum(axis=-1)
    if (truth != truth[:, :1]).any():
        return None
    drawn = intervals.resample_slides(
        tables.reshape(len(tables), -1), truth[:, 0], seed=0, resamples=1000
    )
    return drawn.sums.reshape(len(drawn.sums), *tables.shape[1:])


@dataclass(frozen=True)
class Decision:
    """What the paired evidence says about two recipes on one set.

    Attributes
    ----------
    a, b : str
        The recipes.
    set_name : str
    seeds : int
        Trainings compared.
    for_a, for_b : int
        Seeds in which the corrected test and the interval agree that this one is better.
    difference : float, -1 to 1
        Mean difference in accuracy, A minus B.
    winner : str or None
        `a` or `b` if most seeds are for it and none is for the other; otherwise None.
    balanced_opposite : bool
        Whether most seeds' intervals of balanced accuracy say the opposite of `winner`.
    """

    a: str
    b: str
    set_name: str
    seeds: int
    for_a: int
    for_b: int
    difference: float
    winner: str | None
    balanced_opposite: bool

    @property
    def loser(self) -> str | None:
        """The other one of the two; None without a winner."""
        return {self.a: self.b, self.b: self.a}.get(self.winner or "")


def _families(tests: Iterable[PairedTest]) -> list[list[PairedTest]]:
    """Put the first test of every pair together, the second ones, and so on.

    Not by seed: recipes may begin from different ones.
    """
    families: list[list[PairedTest]] = []
    rank: Counter[tuple[str, str]] = Counter()
    for test in tests:
        pair = test.a, test.b
        if rank[pair] == len(families):
            families.append([])
        families[rank[pair]].append(test)
        rank[pair] += 1
    return families


def decide(paired: Sequence[PairedTest], set_name: str) -> tuple[Decision, ...]:
    """Weigh the paired evidence on one set.

    A seed is for a recipe when McNemar's p-value, corrected by Holm's method over all pairs of
    recipes with their seeds of that rank (first with first, second with second) on that set, is
    under `ALPHA`, and the interval of the paired difference in accuracy leaves out zero on the
    same side. A recipe wins when more than half of the seeds are for it and none is for the other.

    Parameters
    ----------
    paired : sequence of PairedTest
        Those of one pair on one set in the order of its seeds.
    set_name : str
        The set to decide on.

    Returns
    -------
    tuple of Decision
        One for each pair, in the order in which pairs first appear.
    """
    votes: dict[tuple[str, str], list[tuple[int, PairedTest]]] = {}
    for family in _families(test for test in paired if test.set_name == set_name):
        corrected = holm([test.mcnemar.p_value for test in family])
        for test, p_value in zip(family, corrected, strict=True):
            side = test.bootstrap.differences["accuracy"].side
            agrees = p_value < ALPHA and side * (test.mcnemar.b - test.mcnemar.c) > 0
            votes.setdefault((test.a, test.b), []).append((side if agrees else 0, test))
    return tuple(_decision(pair, set_name, found) for pair, found in votes.items())


def _decision(
    pair: tuple[str, str], set_name: str, votes: Sequence[tuple[int, PairedTest]]
) -> Decision:
    """What the seeds of one pair say, each with its vote: for the first 1, for the second -1."""
    a, b = pair
    differences = [test.bootstrap.differences for _, test in votes]
    for_a = sum(vote > 0 for vote, _ in votes)
    for_b = sum(vote < 0 for vote, _ in votes)
    most = len(votes) / 2
    winner = a if for_a > most and not for_b else b if for_b > most and not for_a else None
    sign = {a: 1, b: -1}.get(winner or "", 0)
    against = sum(sign * one["balanced_accuracy"].side < 0 for one in differences)
    return Decision(
        a=a,
        b=b,
        set_name=set_name,
        seeds=len(votes),
        for_a=for_a,
        for_b=for_b,
        difference=fmean(one["accuracy"].difference for one in differences),
        winner=winner,
        balanced_opposite=against > most,
    )
