"""A comparison in sentences: its verdict, what it warns of, and its document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Final

from leuko.errors import DataError
from leuko.evaluation.comparison import ComparisonReport, Model
from leuko.evaluation.paired import Decision, decide
from leuko.render.words import duration, interval_text, percent, seen_parts
from leuko.support.text import counted, listed

__all__ = ["comparison_document", "comparison_warnings", "verdict"]

_NOT_UNSEEN: Final = ("train", "validation", "test")


def comparison_document(report: ComparisonReport) -> dict[str, Any]:
    """Write a comparison as ``comparison.json`` holds it, with its sentences.

    Parameters
    ----------
    report : ComparisonReport

    Returns
    -------
    dict
        Only what JSON can hold.

    Raises
    ------
    DataError
        When no model was evaluated on the test set.
    """
    return report.to_dict(warnings=comparison_warnings(report), verdict=" ".join(verdict(report)))


def verdict(report: ComparisonReport, *, set_name: str = "test") -> list[str]:
    """Say in plain words what the comparison found, and nothing that it did not.

    Parameters
    ----------
    report : ComparisonReport
    set_name : str
        The set that decides.

    Returns
    -------
    list of str
        Sentences: the results with their intervals and the majority baseline, whether there is a
        winner, how long training took, and unseen folders.

    Raises
    ------
    DataError
        When no model was evaluated on `set_name`.
    """
    here = [model for model in report.models if set_name in model.mean]
    if not here:
        raise DataError(
            f"No model was evaluated on {set_name!r}: received "
            f"{sorted({name for model in report.models for name in model.mean})}. Name one of "
            "these."
        )
    titles = report.titles
    sentences = [_results_sentence(here, set_name, titles)]
    if set_name == "test" and report.shared_slides:
        sentences.append(
            f"Training has seen {report.shared_slides} of these slides, so this says little about "
            "new ones."
        )
    if len(here) == 1:
        sentences.append("Only one recipe was evaluated, so there is nothing to compare.")
    for decision in decide(report.paired, set_name):
        sentences.extend(_decision_sentences(decision, titles))
    sentences.extend(_time_sentence(here, titles))
    sentences.extend(_unseen_sentences(report))
    return sentences


def comparison_warnings(report: ComparisonReport) -> list[str]:
    """Say what a reader must know before believing a comparison.

    Parameters
    ----------
    report : ComparisonReport

    Returns
    -------
    list of str
        Which models had a head start, what reading the data told, and what the evaluations warn
        of, each warning once: with the set in front, and with the seeds or models where not all
        evaluations on that set warn of it.
    """
    return [*_head_starts(report), *dict.fromkeys(report.notes), *_collected(report)]


def _head_starts(report: ComparisonReport) -> list[str]:
    """Which networks knew some of the data before they were trained."""
    sentences = []
    for model in report.models:
        if parts := seen_parts(model.start):
            sentences.append(
                f"{model.title} has a head start: before it was trained it had learned from "
                f"{', '.join(parts)}."
            )
    return sentences


def _collected(report: ComparisonReport) -> list[str]:
    """What the evaluations warn of and the data themselves do not."""
    runs: dict[str, list[tuple[str, int]]] = {}
    warned: dict[str, dict[str, list[tuple[str, int]]]] = {}
    for model in report.models:
        for run in model.runs:
            mark = (model.recipe, run.seed)
            for name, result in run.evaluations.items():
                runs.setdefault(name, []).append(mark)
                for sentence in dict.fromkeys(result.warnings):
                    if sentence not in report.notes:
                        warned.setdefault(name, {}).setdefault(sentence, []).append(mark)
    return [
        f"{name.capitalize() if name in _NOT_UNSEEN else name}"
        f"{_which_runs(marks, runs[name], report.titles)}: {sentence}"
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
        numbers = listed([str(seed) for seed in seeds])
        return f" ({'seed' if len(seeds) == 1 else 'seeds'} {numbers})"
    recipes = dict.fromkeys(recipe for recipe, _ in some)
    if set(some) == {mark for mark in every if mark[0] in recipes}:
        return f" ({listed([titles[recipe] for recipe in recipes])})"
    return f" ({'; '.join(f'{titles[recipe]}, seed {seed}' for recipe, seed in some)})"


def _results_sentence(models: Sequence[Model], set_name: str, titles: Mapping[str, str]) -> str:
    """Accuracy of every model with its interval, best first, never alone."""
    parts = []
    for model in sorted(models, key=lambda model: -model.mean[set_name]["accuracy"].mean):
        mean = model.mean[set_name]
        one = mean["accuracy"]
        span = interval_text(one.low, one.high)
        parts.append(
            f"{titles[model.recipe]} reaches accuracy {percent(one.mean)}{span}, balanced "
            f"accuracy {percent(mean['balanced_accuracy'].mean)} and macro-F1 "
            f"{mean['macro_f1'].mean:.3f}"
        )
    seeds = max(len(model.runs) for model in models)
    means = f", means of {seeds} seeds" if seeds > 1 else ", from one seed"
    return f"On {set_name}{_describe_set(models[0], set_name)}, {'; '.join(parts)}{means}."


def _describe_set(model: Model, set_name: str) -> str:
    """Images, slides and the majority baseline of a set, in brackets."""
    results = model.results(set_name)
    if not results:
        return ""
    one = results[0]
    name, share = one.majority
    where = f", {one.n_slides} slides" if one.n_slides not in (1, one.n) else ""
    return f" ({one.n:,} images{where}; always answering {name} gives {percent(share)})"


def _decision_sentences(one: Decision, titles: Mapping[str, str]) -> list[str]:
    """The winner of a pair, or that there is none and why."""
    if one.winner is None or one.loser is None:
        pair = f"{titles[one.a]} from {titles[one.b]}"
        return [f"The data do not separate {pair}: {_why_none(one)}."]
    winner, loser = titles[one.winner], titles[one.loser]
    seeds = "in the one seed that was run; another seed may say otherwise"
    if one.seeds > 1:
        seeds = f"in {max(one.for_a, one.for_b)} of {counted(one.seeds, 'seed')}"
    amount = one.difference if one.winner == one.a else -one.difference
    sentences = [
        f"{winner} is more accurate than {loser} by {100 * amount:.1f} points: McNemar's test "
        f"(corrected by Holm's method) and the paired interval both say so {seeds}."
    ]
    if one.balanced_opposite:
        sentences.append(
            f"On balanced accuracy it is the other way round: {loser} does better on the rarer "
            "classes."
        )
    return sentences


def _why_none(one: Decision) -> str:
    """Why neither of a pair wins."""
    if one.seeds == 1:
        return "McNemar's test and the paired interval do not both show a difference"
    if one.for_a and one.for_b:
        return (
            f"{counted(one.for_a, 'seed')} of {one.seeds} would prefer the first and {one.for_b} "
            "the second"
        )
    agreeing = max(one.for_a, one.for_b)
    return (
        "McNemar's test and the paired interval both show a difference in "
        f"{f'only {agreeing}' if agreeing else 'none'} of {counted(one.seeds, 'seed')}"
    )


def _time_sentence(models: Sequence[Model], titles: Mapping[str, str]) -> list[str]:
    """How long training took, where it is known."""
    parts = []
    for model in models:
        totals = [run.seconds["total"] for run in model.runs if "total" in run.seconds]
        if totals:
            parts.append(f"{duration(fmean(totals))} for {titles[model.recipe]}")
    mean = " (means over seeds)" if any(len(model.runs) > 1 for model in models) else ""
    return [f"Training took {listed(parts)}{mean}."] if parts else []


def _unseen_sentences(report: ComparisonReport) -> list[str]:
    """What happens on folders that had no part in training, beside their majority baselines."""
    names = dict.fromkeys(
        name for model in report.models for name in model.mean if name not in _NOT_UNSEEN
    )
    if not names:
        return [
            "No unseen folder was given, so how the models do on another laboratory's cells was "
            "not measured."
        ]
    return [_unseen_sentence(report, name) for name in names]


def _unseen_sentence(report: ComparisonReport, name: str) -> str:
    """What happens on one of them."""
    titles = report.titles
    here = [model for model in report.models if name in model.mean]
    parts = [
        f"{titles[model.recipe]} reaches {percent(model.mean[name]['accuracy'].mean)}"
        f" (balanced {percent(model.mean[name]['balanced_accuracy'].mean)})"
        for model in here
    ]
    text = f"On the unseen folder {name}{_describe_set(here[0], name)}, {listed(parts)}"
    results = here[0].results(name)
    if results and all(m.mean[name]["accuracy"].mean <= results[0].majority[1] for m in here):
        text += ", which is no better than that constant answer"
    decisions = decide(report.paired, name)
    if len(here) == 2 and decisions:
        winners = [one.winner for one in decisions if one.winner is not None]
        text += (
            f"; {titles[winners[0]]} is better there by the same rule"
            if winners
            else "; the data do not separate them there"
        )
    return text + "."
