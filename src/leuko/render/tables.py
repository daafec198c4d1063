"""A comparison's tables and notes, as text for the page and for Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import PurePosixPath
from statistics import fmean

from leuko.data.seen import RANDOM
from leuko.evaluation.paired import PairedTest, decide
from leuko.render import words
from leuko.render.style import PAGE
from leuko.render.words import NONE, Document
from leuko.statistics import MINIMUM_SLIDES
from leuko.support.text import counted, listed


@dataclass(frozen=True)
class Cell:
    """A cell of a table: a value and what stands below it."""

    value: str
    small: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Heading:
    """The title of a column and what it belongs to, or of such a group and its columns."""

    title: str
    group: str = ""
    span: int = 1


@dataclass(frozen=True)
class TableRow:
    """A model's row, in the colour of its number, or the one of the majority baseline."""

    title: str
    note: str
    cells: tuple[Cell, ...]
    number: int = 0
    baseline: bool = False


@dataclass(frozen=True)
class HeadlineTable:
    """The table of all models."""

    columns: tuple[Heading, ...]
    groups: tuple[Heading, ...]
    rows: tuple[TableRow, ...]


@dataclass(frozen=True)
class Baseline:
    """The commonest classes of some sets, and what always answering them reaches."""

    classes: tuple[str, ...] = ()
    accuracy: str = NONE
    balanced_accuracy: str = NONE
    macro_f1: str = NONE

    @property
    def answer(self) -> str:
        """The classes in quotes."""
        return " or ".join(f"“{name}”" for name in self.classes)


@dataclass(frozen=True)
class RunRow:
    """One seed of one model: its accuracy on each set, and what it took."""

    seed: str
    cells: tuple[str, ...]
    epochs: str
    time: str
    parts: str


def comparison_headline(comparison: Document) -> str:
    """One sentence: who is better, where the paired tests let one say so, and from what start."""
    return _result(comparison) + "".join(f"; {one}" for one in _starts(comparison["models"]))


def _starts(models: Sequence[Document]) -> list[str]:
    """What the models start from that knew something before, those of one start together."""
    found: dict[str, list[str]] = {}
    for model in models:
        start = model.get("start") or {}
        if start and start["told"] != RANDOM:
            found.setdefault(start_text(start), []).append(title_of(model))
    return [
        f"{listed(titles)} start{'s' * (len(titles) == 1)} from {told}"
        for told, titles in found.items()
    ]


def start_text(start: Document) -> str:
    """What a start is, and how much of the data it has seen."""
    return ": ".join(part for part in (start["told"], seen_text(start)) if part)


def seen_text(start: Document) -> str:
    """How many images of each set a start has learned from; empty where it knows none."""
    parts = words.seen_parts(start)
    return f"{listed(parts)} are among them" if parts else ""


def _result(comparison: Document) -> str:
    """Who is better."""
    models, deciding = comparison["models"], deciding_set(comparison)
    titles = {model["recipe"]: title_of(model) for model in models}
    if len(models) == 1:
        return f"{title_of(models[0])}, measured on {deciding}"
    paired = [PairedTest.from_dict(one) for one in comparison.get("paired") or ()]
    decisions = decide(paired, deciding)
    if len(decisions) == 1:
        one = decisions[0]
        if one.winner is None or one.loser is None:
            return f"The data do not separate {titles[one.a]} from {titles[one.b]}"
        amount = 100 * abs(one.difference)
        pair = f"{titles[one.winner]} beats {titles[one.loser]}"
        return f"{pair} by {amount:.1f} points on {deciding}"
    wins = Counter(one.winner for one in decisions)
    for recipe, title in titles.items():
        if wins[recipe] == len(models) - 1:
            return f"{title} beats all others on {deciding}"
    return f"{counted(len(models), 'model')} and no single winner on {deciding}"


def headline_table(comparison: Document) -> HeadlineTable:
    """The table of all models, with the majority baseline as its last row."""
    models = comparison["models"]
    deciding = deciding_set(comparison)
    others = [name for name in set_names(comparison) if name != deciding]
    shown = deciding.capitalize()
    declared = any(model.get("start") for model in models)
    columns = (
        Heading("Model"),
        *([Heading("Starts from")] * declared),
        Heading(f"{shown} accuracy", shown),
        Heading("Balanced accuracy", shown),
        Heading("Macro-F1", shown),
        Heading("Published accuracy / F1", shown),
        *(Heading(set_title(name), "Measured generalisation") for name in others),
        Heading("Training time", "Cost"),
        Heading("Images/s", "Cost"),
        Heading("Parameters, size", "Cost"),
    )
    groups = groupby(columns, key=lambda column: column.group)
    rows = [
        TableRow(
            title_of(model),
            model_note(model),
            (*_start_cells(model, declared), *_model_cells(model, deciding, others)),
            number % len(PAGE.models),
        )
        for number, model in enumerate(models)
    ]
    last = _majority_row(models, deciding, others, declared)
    return HeadlineTable(
        columns,
        tuple(Heading(title, span=len(list(some))) for title, some in groups),
        (*rows, last),
    )


def _start_cells(model: Document, declared: bool) -> list[Cell]:
    """What a model starts from, where any of the models says so."""
    start = model.get("start") or {}
    return [Cell(start.get("told") or NONE, seen_text(start))] if declared else []


def _model_cells(model: Document, deciding: str, others: Sequence[str]) -> list[Cell]:
    """A model's cells of the headline table."""
    mean = model.get("mean") or {}
    here = mean.get(deciding) or {}
    cells = [
        mean_cell(here.get("accuracy"), doubt_of(model, deciding), strong=True),
        mean_cell(here.get("balanced_accuracy")),
        mean_cell(here.get("macro_f1"), decimals=True),
        Cell(published_figures(model)),
    ]
    published = model.get("published") or {}
    for name in others:
        doubt = doubt_of(model, name)
        cell = mean_cell((mean.get(name) or {}).get("accuracy"), doubt)
        small = cell.small
        balanced = (mean.get(name) or {}).get("balanced_accuracy")
        if balanced:
            between = ";" if doubt and small else ""
            small = f"{small}{between} balanced {words.percent(balanced['mean'])}".strip()
        if name == "validation" and model.get("split") == "random-file":
            small += " (inflated: siblings of these images were trained on)"
            if "validation_accuracy" in published:
                small += f"; published {words.percent(published['validation_accuracy'])}"
        cells.append(replace(cell, small=small))
    training, speed, parameters, size = costs(model)
    return [*cells, Cell(training), Cell(speed), Cell(parameters, size)]


def costs(model: Document) -> tuple[str, str, str, str]:
    """Training time, images a second, parameters, and the size, which is empty if not known."""
    runs = model.get("runs") or ()
    totals = words.known((run.get("seconds") or {}).get("total") for run in runs)
    speeds = words.known(run.get("predict_images_per_second") for run in runs)
    parameters, size = model.get("parameters"), model.get("bundle_bytes")
    return (
        words.duration(fmean(totals)) if totals else NONE,
        f"{fmean(speeds):,.0f}" if speeds else NONE,
        NONE if parameters is None else f"{parameters:,}",
        "" if size is None else words.size_text(size),
    )


def _majority_row(
    models: Sequence[Document], deciding: str, others: Sequence[str], declared: bool
) -> TableRow:
    """What always answering the commonest class of each set would reach."""
    found = {name: baseline(reports_on(models, name)) for name in (deciding, *others)}
    answers = {one.answer for one in found.values() if one.classes}
    same = len(answers) == 1
    accuracy = [
        Cell(
            one.accuracy,
            "" if same or not one.classes else f"always {one.answer}",
            strong=name == deciding,
        )
        for name, one in found.items()
    ]
    nothing = Cell(NONE)
    return TableRow(
        title=f"Always {answers.pop()}" if same else "Always the commonest class",
        note="majority baseline",
        cells=(
            *([nothing] * declared),
            accuracy[0],
            Cell(found[deciding].balanced_accuracy),
            Cell(found[deciding].macro_f1),
            nothing,
            *accuracy[1:],
            *([nothing] * 3),
        ),
        baseline=True,
    )


def published_figures(model: Document) -> str:
    """Accuracy and macro-F1 that the literature gives for a model; a dash when it gives none."""
    published = model.get("published") or {}
    known = [
        words.percent(published["accuracy"]) if "accuracy" in published else "",
        f"{published['macro_f1']:.3f}" if "macro_f1" in published else "",
    ]
    return " / ".join(one for one in known if one) or NONE


def baseline(reports: Sequence[Document]) -> Baseline:
    """What always answering the commonest class reaches, from which to which where sets differ."""
    if not reports:
        return Baseline()
    shares, balanced, scores, names = [], [], [], []
    for report in reports:
        share = float(report["baselines"]["majority"]["accuracy"])
        present = sum(1 for row in report["confusion"] if sum(row))
        shares.append(share)
        balanced.append(1 / present)
        scores.append(2 * share / (1 + share) / present)
        names.append(str(report["baselines"]["majority"]["class"]))
    return Baseline(
        classes=tuple(dict.fromkeys(names)),
        accuracy=words.span_of(shares),
        balanced_accuracy=words.span_of(balanced),
        macro_f1=words.span_of(scores, decimals=True),
    )


def table_notes(comparison: Document) -> list[str]:
    """What a reader of the table must know."""
    models = comparison["models"]
    deciding = deciding_set(comparison)
    seeds = max(len(model.get("runs") or ()) for model in models)
    notes = []
    if seeds > 1:
        notes.append(
            f"Means of {seeds} seeds (± is the standard deviation over them). In brackets 95% "
            "intervals, by bootstrap over slides where slides are known."
        )
    else:
        notes.append(
            "One seed. In brackets 95% intervals, by bootstrap over slides where slides are known."
        )
    for name in set_names(comparison):
        reports = reports_on(models, name)
        if not reports:
            continue
        where = {
            "validation": "rows of Train kept apart, by slide where the recipe says so; recipes "
            "and epochs are chosen on it",
            "test": "nothing is chosen on it",
        }.get(name, "another folder that no training has seen")
        if name == deciding and name not in ("validation", "test"):
            where = "the set that decides here"
        notes.append(f"{set_title(name)}: {size_of_set(reports)}, {where}.")
    shared = (comparison.get("audit") or {}).get("shared_slides") or {}
    between = shared_sentence(shared)
    if between:
        notes.append(f"{between}: test measures memory of slides as well as skill.")
    return notes


def size_of_set(reports: Sequence[Document]) -> str:
    """Images and slides of a set; every training may have a validation set of its own."""
    images = words.counted_span([int(one["n"]) for one in reports], "image")
    slides = words.counted_span([int(one["n_slides"]) for one in reports], "slide")
    rows = {(one["n"], (one.get("data") or {}).get("digest")) for one in reports}
    return f"{images}, {slides}{' (they differ by seed or recipe)' if len(rows) > 1 else ''}"


def shared_sentence(shared: Document) -> str:
    """How many slides of test stand in training too; empty when none does."""
    for one in shared.get("between") or ():
        if set(one["splits"]) == {"train", "test"} and one["count"]:
            total = counted(one["slides"]["test"], "slide")
            return f"{one['count']:,} of the {total} of test stood in Train too"
    count = shared.get("count")
    return f"{counted(count, 'slide')} stood on both sides of a split" if count else ""


def paired_rows(comparison: Document) -> list[dict[str, str]]:
    """Every paired test as text."""
    titles = {model["recipe"]: title_of(model) for model in comparison["models"]}
    rows = []
    for one in comparison.get("paired") or ():
        test, bootstrap = one["mcnemar"], one["bootstrap"]
        rows.append(
            {
                "a": titles.get(one["a"], str(one["a"])),
                "b": titles.get(one["b"], str(one["b"])),
                "set": str(one["set"]),
                "seed": " / ".join(str(seed) for seed in dict.fromkeys(one["seeds"])),
                "only_a": f"{test['b']:,}",
                "only_b": f"{test['c']:,}",
                "p": "< 0.0001" if test["p_value"] < 0.0001 else f"{test['p_value']:.4f}",
                "accuracy": words.difference_text(bootstrap.get("accuracy")),
                "balanced": words.difference_text(bootstrap.get("balanced_accuracy")),
            }
        )
    return rows


def run_row(run: Document, names: Sequence[str]) -> RunRow:
    """One seed of one model."""
    seconds = run.get("seconds") or {}
    cells = []
    for name in names:
        one = (run.get("evaluations") or {}).get(name)
        cells.append(words.percent(one["metrics"]["accuracy"]["value"]) if one else NONE)
    parts = [
        f"{key} {words.duration(value)}"
        for key, value in seconds.items()
        if key != "total" and value
    ]
    total = seconds.get("total")
    return RunRow(
        seed=str(run.get("seed")),
        cells=tuple(cells),
        epochs=str(run.get("epochs") or NONE),
        time=NONE if total is None else words.duration(total),
        parts=", ".join(parts),
    )


def how_made(document: Document) -> list[tuple[str, str]]:
    """How a document came about: command, data, seeds, machine, versions, intervals."""
    facts: list[tuple[str, str]] = []
    if document.get("command"):
        facts.append(("Command", str(document["command"])))
    data = document.get("data") or {}
    folder = data.get("folder") or document.get("dataset")
    if folder:
        facts.append(("Data", str(folder)))
    digest = data.get("digest") or document.get("data_digest")
    if isinstance(digest, dict):
        facts += [(f"Digest of {name} (SHA-256)", str(one)) for name, one in digest.items()]
    elif digest:
        facts.append(("Data digest (SHA-256)", str(digest)))
    for name, one in (document.get("splits") or {}).items():
        facts.append((f"Digest of {name}", str(one.get("digest", ""))))
    model = document.get("model") or {}
    if model.get("digest"):
        facts.append(("Model", f"{model.get('name', '')} {model['digest']}".strip()))
    seeds = document.get("seeds")
    if seeds is None and document.get("seed") is not None:
        seeds = [document["seed"]]
    if seeds:
        facts.append(("Seeds" if len(seeds) > 1 else "Seed", ", ".join(str(one) for one in seeds)))
    balance = document.get("balance") or {}
    if balance.get("seconds") is not None:
        images = f", {balance['images']:,} images" if balance.get("images") else ""
        facts.append(("Balancing", f"{words.duration(balance['seconds'])}{images}"))
    for source in (document.get("machine") or {}, {"versions": document.get("versions")}):
        for key, value in source.items():
            if isinstance(value, Mapping):
                text = ", ".join(f"{name} {one}" for name, one in value.items())
            else:
                text = "" if value is None else str(value)
            if text:
                facts.append((str(key).replace("_", " ").capitalize(), text))
    intervals = document.get("intervals") or _first_intervals(document)
    if intervals:
        facts.append(
            (
                "Intervals",
                f"{100 * intervals.get('level', 0.95):g}%, {intervals.get('method', '')}, "
                f"{intervals.get('resamples', 0):,} resamples, {intervals.get('redrawn', 0):,} "
                f"drawn again for want of a class, seed {intervals.get('seed', 0)}",
            )
        )
    if document.get("paired"):
        facts.append(
            (
                "Paired tests",
                "McNemar on the same images, and a bootstrap over slides of the paired "
                "difference; a winner is named only where both agree, after Holm's correction",
            )
        )
    return facts


def _first_intervals(document: Document) -> Document:
    """How the intervals of a comparison were made, from its first evaluation."""
    for model in document.get("models") or ():
        for run in model.get("runs") or ():
            for one in (run.get("evaluations") or {}).values():
                found: Document = one.get("intervals") or {}
                return found
    return {}


def folder_name(document: Document) -> str:
    """The data set's name without the folders above it."""
    return PurePosixPath(str(document.get("dataset") or "")).name or "the data"


def title_of(model: Document) -> str:
    """A model's name for people."""
    return str(model.get("title") or model["recipe"])


def model_note(model: Document) -> str:
    """Recipe and input size."""
    size: Sequence[int] = model.get("input") or ()
    note = f"recipe {model['recipe']}"
    return f"{note}, input {size[0]}×{size[1]}" if len(size) == 2 else note


def set_names(comparison: Document) -> list[str]:
    """Sets in the order to show: validation, test, then the unseen folders as given."""
    found = dict.fromkeys(
        name for model in comparison["models"] for name in model.get("mean") or {}
    )
    first = [name for name in ("validation", "test") if name in found]
    return first + [name for name in found if name not in first]


def deciding_set(comparison: Document) -> str:
    """Test, or what there is instead."""
    names = set_names(comparison)
    return "test" if "test" in names or not names else names[0]


def set_title(name: str) -> str:
    """A set's name for a heading."""
    return name.capitalize() if name in ("validation", "test") else f"Unseen: {name}"


def first_seed(comparison: Document) -> str:
    """Which seed single figures show, where there are several."""
    runs = [model["runs"] for model in comparison["models"] if model.get("runs")]
    if all(len(own) < 2 for own in runs):
        return ""
    first = {own[0].get("seed") for own in runs}
    if len(first) > 1:
        return "The first seed of each recipe."
    return f"Seed {first.pop()}, the first of {max(len(own) for own in runs)}."


def reports_on(models: Sequence[Document], name: str) -> list[Document]:
    """Every evaluation on a set: of all models, with all seeds."""
    return [
        run["evaluations"][name]
        for model in models
        for run in model.get("runs") or ()
        if name in (run.get("evaluations") or {})
    ]


def doubt_of(model: Document, name: str) -> str:
    """Why a model's interval on a set deserves no trust; empty when it does."""
    slides = [int(one["n_slides"]) for one in reports_on([model], name)]
    if not slides or min(slides) >= MINIMUM_SLIDES:
        return ""
    if max(slides) == 1:
        return "too narrow: over images"
    return f"rough: {words.counted_span(slides, 'slide')}"


def mean_cell(
    one: Document | None, doubt: str = "", *, decimals: bool = False, strong: bool = False
) -> Cell:
    """A mean over seeds with its spread and interval, and why that deserves no trust."""
    if not one:
        return Cell(NONE, strong=strong)
    value = f"{one['mean']:.3f}" if decimals else words.percent(one["mean"])
    if one.get("sd") is not None:
        value += f" ± {one['sd']:.3f}" if decimals else f" ± {100 * one['sd']:.1f}"
    span = words.bracket(one, decimals=decimals)
    return Cell(value, f"{span}, {doubt}" if span and doubt else span, strong=strong)
