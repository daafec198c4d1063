"""Two models on the same images: paired tests, means over seeds, and a verdict in plain words.

A winner is claimed only where a test and an interval agree. McNemar's test takes images for
independent, which cells of one slide are not; the paired bootstrap resamples slides but knows
few of them. Either alone is too easily convinced.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
from leuko.evaluation import intervals, metrics
from leuko.evaluation.report import HEADLINE_METRICS

__all__ = [
    "ALPHA",
    "Decision",
    "collect_warnings",
    "compare_predictions",
    "decide",
    "holm",
    "mcnemar",
    "mean_over_seeds",
    "paired_bootstrap",
    "recipe_titles",
    "verdict",
]

ALPHA: Final = 0.05
"""Level of the paired tests, after Holm's correction over the pairs compared."""

EXACT_BELOW: Final = 25
"""Fewer discordant images than this get the exact test."""

MEAN_OF_ENDS: Final = "mean of the seeds' own intervals"

_NOT_UNSEEN: Final = ("train", "validation", "test")

_CLAIM: Final = (
    'The conclusion "transfer learning is not always superior" of the published experiment (a '
    "custom CNN and a frozen MobileNetV2 on Raabin-WBC, accuracy 0.932 and 0.891 on Test-A)"
)
"""What a verdict on the published experiment is about."""


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> dict[str, Any]:
    """Test whether two models make equally many mistakes on the same images.

    Parameters
    ----------
    correct_a, correct_b : (N,) bool
        Whether each model's answer is right, image by image.

    Returns
    -------
    dict
        ``b``: images that only A gets right; ``c``: only B; ``method``: ``exact`` (two-sided
        binomial, under 25 such images) or ``chi2cc`` (chi-squared with continuity correction and
        one degree of freedom); ``statistic``: the smaller of b and c, or chi-squared;
        ``p_value``: 0 to 1.

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
    >>> result["method"], round(result["p_value"], 6)
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
    return {
        "b": b,
        "c": c,
        "statistic": statistic,
        "p_value": min(1.0, p_value),
        "method": method,
    }


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
) -> dict[str, Any]:
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
    dict
        ``accuracy``, ``balanced_accuracy`` and ``macro_f1``, each ``{difference, low, high}``
        with A minus B in -1 to 1; ``method``, ``level``, ``resamples``, ``redrawn``, ``seed``.

    Raises
    ------
    DataError
        When labels, probabilities and slides do not belong together.
    """
    labels, table_a = metrics.check_rows(y_true, probabilities_a)
    _, table_b = metrics.check_rows(y_true, probabilities_b)
    predicted = np.stack((table_a.argmax(axis=1), table_b.argmax(axis=1)))
    if len(slides) != len(labels):
        raise DataError(
            f"Received {len(slides)} slide names for {len(labels)} labels, expected one each."
        )
    drawn = intervals.resample_confusions(
        labels, predicted, slides, table_a.shape[1], seed=seed, resamples=resamples
    )
    whole = np.stack([metrics.confusion_matrix(labels, one, table_a.shape[1]) for one in predicted])
    document: dict[str, Any] = {}
    for name, measure in HEADLINE_METRICS.items():
        values, value = measure(drawn.confusion), measure(whole)
        low, high = intervals.percentile_interval(values[:, 0] - values[:, 1]) or (None, None)
        document[name] = {"difference": float(value[0] - value[1]), "low": low, "high": high}
    return document | {
        "method": f"paired {drawn.method}",
        "level": intervals.LEVEL,
        "resamples": len(drawn.confusion),
        "redrawn": drawn.redrawn,
        "seed": seed,
    }


def compare_predictions(
    y_true: npt.ArrayLike,
    probabilities_a: npt.ArrayLike,
    probabilities_b: npt.ArrayLike,
    slides: Sequence[str],
    *,
    a: str,
    b: str,
    set_name: str,
    training_seeds: tuple[int, int],
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """One entry of the ``paired`` list in ``comparison.json``.

    Parameters
    ----------
    y_true : (N,) int, 0 to K - 1
        True classes.
    probabilities_a, probabilities_b : (N, K) float, 0 to 1
        Each model's probabilities, in the same order of images.
    slides : sequence of N str
        Slide of each image.
    a, b : str
        Recipes of the two models.
    set_name : str
        The set that they answered: ``test``, ``validation`` or an unseen folder's name.
    training_seeds : tuple of int
        The seeds that A and B were trained with.
    seed : int
        Seed of the bootstrap.
    resamples : int
        Resamples to keep.

    Returns
    -------
    dict
        ``a``, ``b``, ``set``, ``seeds`` (of the two trainings), ``mcnemar`` and ``bootstrap``.
    """
    bootstrap = paired_bootstrap(
        y_true, probabilities_a, probabilities_b, slides, seed=seed, resamples=resamples
    )
    labels = np.asarray(y_true)
    right_a, right_b = (
        np.asarray(table, dtype=np.float64).argmax(axis=1) == labels
        for table in (probabilities_a, probabilities_b)
    )
    return {
        "a": a,
        "b": b,
        "set": set_name,
        "seeds": list(training_seeds),
        "mcnemar": mcnemar(right_a, right_b),
        "bootstrap": bootstrap,
    }


def mean_over_seeds(
    reports: Sequence[Mapping[str, Any]], *, seed: int = 0, resamples: int = 1000
) -> dict[str, dict[str, Any]]:
    """Mean metrics of one recipe trained with several seeds and evaluated on one set.

    The interval is a bootstrap over slides of the mean over seeds: it says how the result would
    vary with other slides. How it varies with the seed is the standard deviation beside it.
    Where the reports do not list the same slides, the ends are the means of the reports' ends.

    Parameters
    ----------
    reports : sequence of dict
        Documents of ``evaluation.json``, one for each seed.
    seed : int
        Seed of the bootstrap.
    resamples : int
        Resamples to keep.

    Returns
    -------
    dict
        ``accuracy``, ``balanced_accuracy`` and ``macro_f1``, each with ``mean``, ``sd`` (sample
        standard deviation over seeds, None for one), ``low``, ``high`` and ``method``.

    Raises
    ------
    DataError
        When there is no report.
    """
    if not reports:
        raise DataError("Received no evaluation to average, expected one for each seed.")
    drawn = _resample_reports(reports, seed=seed, resamples=resamples)
    result: dict[str, dict[str, Any]] = {}
    for name, measure in HEADLINE_METRICS.items():
        entries = [report["metrics"][name] for report in reports]
        values = [float(entry["value"]) for entry in entries]
        lows = [entry["low"] for entry in entries if entry["low"] is not None]
        highs = [entry["high"] for entry in entries if entry["high"] is not None]
        low = fmean(lows) if len(lows) == len(entries) else None
        high = fmean(highs) if len(highs) == len(entries) else None
        method = str(entries[0]["method"]) if len(entries) == 1 else MEAN_OF_ENDS
        if drawn is not None and all(e["method"] == intervals.OVER_SLIDES for e in entries):
            interval = intervals.percentile_interval(measure(drawn).mean(axis=1))
            if interval is not None:
                low, high = interval
                method = f"{intervals.OVER_SLIDES} of the mean over {len(entries)} seeds"
        result[name] = {
            "mean": fmean(values),
            "sd": stdev(values) if len(values) > 1 else None,
            "low": low,
            "high": high,
            "method": method,
        }
    return result


def collect_warnings(
    models: Sequence[Mapping[str, Any]], *, known: Sequence[str] = ()
) -> list[str]:
    """What the evaluations of a comparison warn of, each warning once.

    Parameters
    ----------
    models : sequence of dict
        The ``models`` of ``comparison.json``.
    known : sequence of str
        Warnings to leave out, because they are told elsewhere.

    Returns
    -------
    list of str
        With the set in front, and with the seeds or models where not all evaluations on that set
        warn of it.

    Examples
    --------
    >>> model = {"recipe": "cnn", "runs": [
    ...     {"seed": 0, "evaluations": {"validation": {"warnings": []}}},
    ...     {"seed": 1, "evaluations": {"validation": {"warnings": ["There are only 3 slides."]}}},
    ... ]}
    >>> collect_warnings([model])
    ['Validation (seed 1): There are only 3 slides.']
    """
    runs: dict[str, list[tuple[str, int]]] = {}
    warned: dict[str, dict[str, list[tuple[str, int]]]] = {}
    for model in models:
        for run in model.get("runs", ()):
            mark = (model["recipe"], run["seed"])
            for name, report in run["evaluations"].items():
                runs.setdefault(name, []).append(mark)
                for sentence in dict.fromkeys(report.get("warnings") or ()):
                    if sentence not in known:
                        warned.setdefault(name, {}).setdefault(sentence, []).append(mark)
    titles = recipe_titles(models)
    return [
        f"{name.capitalize() if name in _NOT_UNSEEN else name}"
        f"{_which_runs(marks, runs[name], titles)}: {sentence}"
        for name in runs
        for sentence, marks in warned.get(name, {}).items()
    ]


def _which_runs(
    some: Sequence[tuple[str, int]], every: Sequence[tuple[str, int]], titles: Mapping[str, str]
) -> str:
    """Say of which runs something is true, in brackets; empty when of all."""
    if len(some) == len(every):
        return ""
    seeds = sorted({seed for _, seed in some})
    if set(some) == {mark for mark in every if mark[1] in seeds}:
        numbers = _listed([str(seed) for seed in seeds])
        return f" ({'seed' if len(seeds) == 1 else 'seeds'} {numbers})"
    recipes = dict.fromkeys(recipe for recipe, _ in some)
    if set(some) == {mark for mark in every if mark[0] in recipes}:
        return f" ({_listed([titles[recipe] for recipe in recipes])})"
    return f" ({'; '.join(f'{titles[recipe]}, seed {seed}' for recipe, seed in some)})"


def _resample_reports(
    reports: Sequence[Mapping[str, Any]], *, seed: int, resamples: int
) -> npt.NDArray[np.float64] | None:
    """Confusion matrices (R, seeds, K, K) over resampled slides, if all list the same slides."""
    listed = [report.get("by_slide") or [] for report in reports]
    if len(reports) < 2 or not listed[0]:
        return None
    names = [[one["slide"] for one in slides] for slides in listed]
    if any(other != names[0] for other in names[1:]):
        return None
    tables = np.asarray(
        [[one["confusion"] for one in slides] for slides in listed], dtype=np.int64
    ).swapaxes(0, 1)
    truth = tables.sum(axis=-1)
    if (truth != truth[:, :1]).any():
        return None
    drawn = intervals.resample_slides(
        tables.reshape(len(tables), -1), truth[:, 0], seed=seed, resamples=resamples
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


def _families(
    entries: Iterable[Mapping[str, Any]],
) -> list[list[Mapping[str, Any]]]:
    """Put the first entry of every pair together, the second ones, and so on.

    Not by seed: recipes may begin from different ones.
    """
    families: list[list[Mapping[str, Any]]] = []
    rank: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        pair = entry["a"], entry["b"]
        if rank[pair] == len(families):
            families.append([])
        families[rank[pair]].append(entry)
        rank[pair] += 1
    return families


def decide(
    paired: Sequence[Mapping[str, Any]], set_name: str, *, alpha: float = ALPHA
) -> tuple[Decision, ...]:
    """Weigh the paired evidence on one set.

    A seed is for a recipe when McNemar's p-value, corrected by Holm's method over all pairs of
    recipes with their seeds of that rank (first with first, second with second) on that set, is
    under `alpha`, and the interval of the paired difference in accuracy leaves out zero on the
    same side. A recipe wins when more than half of the seeds are for it and none is for the other.

    Parameters
    ----------
    paired : sequence of dict
        Entries of `compare_predictions`; those of one pair on one set in the order of its seeds.
    set_name : str
        The set to decide on.
    alpha : float
        Level of the test.

    Returns
    -------
    tuple of Decision
        One for each pair, in the order in which pairs first appear.
    """
    votes: dict[tuple[str, str], list[tuple[int, int, float]]] = {}
    for family in _families(entry for entry in paired if entry["set"] == set_name):
        corrected = holm([float(entry["mcnemar"]["p_value"]) for entry in family])
        for entry, p_value in zip(family, corrected, strict=True):
            test, bootstrap = entry["mcnemar"], entry["bootstrap"]
            side = _side(bootstrap["accuracy"])
            agrees = p_value < alpha and side * (test["b"] - test["c"]) > 0
            votes.setdefault((entry["a"], entry["b"]), []).append(
                (
                    side if agrees else 0,
                    _side(bootstrap["balanced_accuracy"]),
                    float(bootstrap["accuracy"]["difference"]),
                )
            )
    decisions = []
    for (a, b), seeds in votes.items():
        for_a = sum(vote > 0 for vote, _, _ in seeds)
        for_b = sum(vote < 0 for vote, _, _ in seeds)
        most = len(seeds) / 2
        winner = a if for_a > most and not for_b else b if for_b > most and not for_a else None
        sign = {a: 1, b: -1}.get(winner or "", 0)
        against = sum(sign * balanced < 0 for _, balanced, _ in seeds)
        decisions.append(
            Decision(
                a=a,
                b=b,
                set_name=set_name,
                seeds=len(seeds),
                for_a=for_a,
                for_b=for_b,
                difference=fmean(difference for _, _, difference in seeds),
                winner=winner,
                balanced_opposite=against > most,
            )
        )
    return tuple(decisions)


def verdict(
    models: Sequence[Mapping[str, Any]],
    paired: Sequence[Mapping[str, Any]],
    *,
    set_name: str = "test",
    alpha: float = ALPHA,
    shared_slides: int | None = None,
) -> str:
    """Say in plain words what the comparison found, and nothing that it did not.

    Parameters
    ----------
    models : sequence of dict
        The ``models`` of ``comparison.json``. A model may say ``"experiment": true``, that it is
        of the published experiment or of its corrected versions, and ``"transfer"``, whether it
        starts from weights of another task.
    paired : sequence of dict
        Its ``paired`` list.
    set_name : str
        The set that decides.
    alpha : float
        Level of the paired tests.
    shared_slides : int, optional
        Slides of the deciding set that training has seen too.

    Returns
    -------
    str
        A paragraph: the results with their intervals and the majority baseline, whether there is
        a winner, how long training took, unseen folders, and, where models of the published
        experiment were compared, what becomes of its conclusion that transfer learning is not
        always superior.

    Raises
    ------
    DataError
        When no model was evaluated on `set_name`.
    """
    here = [model for model in models if set_name in model["mean"]]
    if not here:
        raise DataError(
            f"No model was evaluated on {set_name!r}: received "
            f"{sorted({name for model in models for name in model['mean']})}. Name one of these."
        )
    titles = recipe_titles(models)
    decisions = decide(paired, set_name, alpha=alpha)
    sentences = [_results_sentence(here, set_name, titles)]
    if shared_slides:
        sentences.append(
            f"Training has seen {shared_slides} of these slides, so this says little about new "
            "ones."
        )
    if len(here) == 1:
        sentences.append("Only one recipe was evaluated, so there is nothing to compare.")
    sentences.extend(_decision_sentences(decisions, titles))
    sentences.extend(_time_sentence(here, titles))
    sentences.extend(_unseen_sentences(models, paired, alpha, titles))
    sentences.extend(_published_sentence(here, decisions, titles, set_name))
    return " ".join(sentences)


def _side(interval: Mapping[str, Any]) -> int:
    """1 if an interval lies above zero, -1 if below, 0 if it holds zero or there is none."""
    if interval["low"] is None or interval["high"] is None:
        return 0
    return int(interval["low"] > 0) - int(interval["high"] < 0)


def recipe_titles(models: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Give every recipe a title that no other has.

    Parameters
    ----------
    models : sequence of dict
        The ``models`` of a comparison, with ``recipe`` and, if known, ``title``.

    Returns
    -------
    dict of str to str
        By recipe, in order; the recipes' own names where titles repeat or are missing.
    """
    titles = {model["recipe"]: str(model.get("title") or model["recipe"]) for model in models}
    repeated = len(set(titles.values())) < len(titles)
    return {recipe: recipe for recipe in titles} if repeated else titles


def _report_of(model: Mapping[str, Any], set_name: str) -> Mapping[str, Any]:
    """The first run's evaluation on a set; empty when it is not there."""
    for run in model.get("runs", ()):
        if set_name in run.get("evaluations", {}):
            report: Mapping[str, Any] = run["evaluations"][set_name]
            return report
    return {}


def _describe_set(model: Mapping[str, Any], set_name: str) -> str:
    """Images, slides and the majority baseline of a set, in brackets."""
    report = _report_of(model, set_name)
    if not report:
        return ""
    majority = report["baselines"]["majority"]
    slides = report["n_slides"]
    where = f", {slides} slides" if slides not in (1, report["n"]) else ""
    return (
        f" ({report['n']:,} images{where}; always answering {majority['class']} gives "
        f"{_percent(majority['accuracy'])})"
    )


def _results_sentence(
    models: Sequence[Mapping[str, Any]], set_name: str, titles: Mapping[str, str]
) -> str:
    """Accuracy of every model with its interval, best first, never alone."""
    ranked = sorted(models, key=lambda model: -model["mean"][set_name]["accuracy"]["mean"])
    parts = []
    for model in ranked:
        mean = model["mean"][set_name]
        one = mean["accuracy"]
        span = (
            ""
            if one["low"] is None or one["high"] is None
            else f" (95% interval {100 * one['low']:.1f} to {100 * one['high']:.1f}%)"
        )
        parts.append(
            f"{titles[model['recipe']]} reaches accuracy {_percent(one['mean'])}{span}, balanced "
            f"accuracy {_percent(mean['balanced_accuracy']['mean'])} and macro-F1 "
            f"{mean['macro_f1']['mean']:.3f}"
        )
    seeds = max(len(model.get("runs", ())) for model in models)
    means = f", means of {seeds} seeds" if seeds > 1 else ", from one seed"
    return f"On {set_name}{_describe_set(models[0], set_name)}, {'; '.join(parts)}{means}."


def _decision_sentences(decisions: Sequence[Decision], titles: Mapping[str, str]) -> list[str]:
    """A winner for each pair that has one, and for the others that there is none."""
    sentences = []
    for one in decisions:
        a, b = titles[one.a], titles[one.b]
        if one.winner is None:
            agreeing = max(one.for_a, one.for_b)
            if one.seeds == 1:
                why = "McNemar's test and the paired interval do not both show a difference"
            elif one.for_a and one.for_b:
                why = (
                    f"{_seeds(one.for_a)} of {one.seeds} would prefer the first and {one.for_b} "
                    "the second"
                )
            else:
                why = (
                    "McNemar's test and the paired interval both show a difference in "
                    f"{f'only {agreeing}' if agreeing else 'none'} of {_seeds(one.seeds)}"
                )
            sentences.append(f"The data do not separate {a} from {b}: {why}.")
            continue
        first = one.winner == one.a
        winner, loser, agreeing = (a, b, one.for_a) if first else (b, a, one.for_b)
        amount = one.difference if first else -one.difference
        seeds = "in the one seed that was run; another seed may say otherwise"
        if one.seeds > 1:
            seeds = f"in {agreeing} of {_seeds(one.seeds)}"
        sentences.append(
            f"{winner} is more accurate than {loser} by {_points(amount)}: McNemar's test "
            f"(corrected by Holm's method) and the paired interval both say so {seeds}."
        )
        if one.balanced_opposite:
            sentences.append(
                f"On balanced accuracy it is the other way round: {loser} does better on the "
                "rarer classes."
            )
    return sentences


def _time_sentence(models: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> list[str]:
    """How long training took, where it is known."""
    parts = []
    for model in models:
        totals = [
            float(run["seconds"]["total"])
            for run in model.get("runs", ())
            if run.get("seconds", {}).get("total") is not None
        ]
        if totals:
            parts.append(f"{_duration(fmean(totals))} for {titles[model['recipe']]}")
    several = any(len(model.get("runs", ())) > 1 for model in models)
    mean = " (means over seeds)" if several else ""
    return [f"Training took {_listed(parts)}{mean}."] if parts else []


def _unseen_sentences(
    models: Sequence[Mapping[str, Any]],
    paired: Sequence[Mapping[str, Any]],
    alpha: float,
    titles: Mapping[str, str],
) -> list[str]:
    """What happens on folders that had no part in training, beside their majority baselines."""
    names = dict.fromkeys(
        name for model in models for name in model["mean"] if name not in _NOT_UNSEEN
    )
    if not names:
        return [
            "No unseen folder was given, so how the models do on another laboratory's cells was "
            "not measured."
        ]
    sentences = []
    for name in names:
        here = [model for model in models if name in model["mean"]]
        parts = [
            f"{titles[model['recipe']]} reaches {_percent(model['mean'][name]['accuracy']['mean'])}"
            f" (balanced {_percent(model['mean'][name]['balanced_accuracy']['mean'])})"
            for model in here
        ]
        text = f"On the unseen folder {name}{_describe_set(here[0], name)}, {_listed(parts)}"
        report = _report_of(here[0], name)
        if report:
            share = report["baselines"]["majority"]["accuracy"]
            above = [m for m in here if m["mean"][name]["accuracy"]["mean"] > share]
            if not above:
                text += ", which is no better than that constant answer"
        winners = dict.fromkeys(
            one.winner for one in decide(paired, name, alpha=alpha) if one.winner is not None
        )
        if len(here) == 2 and decide(paired, name, alpha=alpha):
            text += (
                f"; {titles[next(iter(winners))]} is better there by the same rule"
                if winners
                else "; the data do not separate them there"
            )
        sentences.append(text + ".")
    return sentences


def _published_sentence(
    models: Sequence[Mapping[str, Any]],
    decisions: Sequence[Decision],
    titles: Mapping[str, str],
    set_name: str,
) -> list[str]:
    """What becomes of the published experiment's conclusion, if both of its kinds were compared."""
    transfer = {
        model["recipe"]: bool(model["transfer"])
        for model in models
        if model.get("experiment") and model.get("transfer") is not None
    }
    scratch_won: list[tuple[str, str]] = []
    transfer_won: list[tuple[str, str]] = []
    pairs = 0
    for one in decisions:
        if {transfer.get(one.a), transfer.get(one.b)} != {True, False}:
            continue
        pairs += 1
        if one.winner is not None:
            loser = one.b if one.winner == one.a else one.a
            (transfer_won if transfer[one.winner] else scratch_won).append((one.winner, loser))
    if not pairs:
        return []
    if scratch_won and transfer_won:
        wins = _listed([f"{titles[w]} beats {titles[x]}" for w, x in (*scratch_won, *transfer_won)])
        return [f"{_CLAIM} holds on {set_name}, but it depends on which transfer: {wins}."]
    if scratch_won:
        wins = _listed(
            [f"{titles[w]}, trained from scratch, beats {titles[x]}" for w, x in scratch_won]
        )
        return [f"{_CLAIM} holds on {set_name}: {wins}."]
    if transfer_won:
        wins = _listed([f"{titles[w]} beats {titles[x]}" for w, x in transfer_won])
        some = "" if len(transfer_won) == pairs else ", and the other pairs are not separated"
        return [
            f"{_CLAIM} finds no support on {set_name}: {wins}{some}; one set cannot refute a "
            '"not always".'
        ]
    return [
        f"{_CLAIM} can be neither claimed nor denied from {set_name}: no network trained from "
        "scratch is separated from a transferred one."
    ]


def _percent(share: float) -> str:
    """A share with one decimal: 95.3%."""
    return f"{100 * share:.1f}%"


def _points(difference: float) -> str:
    """A difference of shares: 3.2 points."""
    return f"{100 * difference:.1f} points"


def _seeds(number: int) -> str:
    """A number of seeds."""
    return f"{number} seed" if number == 1 else f"{number} seeds"


def _duration(seconds: float) -> str:
    """Seconds, minutes or hours, with what a person wants to know of them."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _listed(parts: Sequence[str]) -> str:
    """Parts with commas and an "and"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
