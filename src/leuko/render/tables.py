"""A comparison's tables and notes, as text for the page and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from statistics import fmean
from typing import Any

from leuko.render import words
from leuko.render.style import PAGE
from leuko.render.words import NONE

Document = Mapping[str, Any]


def headline_table(comparison: Document) -> dict[str, Any]:
    """The table of all models, with the majority baseline as its last row."""
    models = comparison["models"]
    deciding = deciding_set(comparison)
    others = [name for name in set_names(comparison) if name != deciding]
    shown = deciding.capitalize()
    columns = [
        {"title": "Model", "group": ""},
        {"title": f"{shown} accuracy", "group": shown},
        {"title": "Balanced accuracy", "group": shown},
        {"title": "Macro-F1", "group": shown},
        {"title": "Published accuracy / F1", "group": shown},
        *({"title": set_title(name), "group": "Measured generalisation"} for name in others),
        {"title": "Training time", "group": "Cost"},
        {"title": "Images/s", "group": "Cost"},
        {"title": "Parameters, size", "group": "Cost"},
    ]
    groups: list[dict[str, Any]] = []
    for column in columns:
        if groups and groups[-1]["title"] == column["group"]:
            groups[-1]["span"] += 1
        else:
            groups.append({"title": column["group"], "span": 1})
    rows = [
        {
            "title": title_of(model),
            "note": model_note(model),
            "number": number % len(PAGE.models),
            "baseline": False,
            "cells": _model_cells(model, deciding, others),
        }
        for number, model in enumerate(models)
    ]
    rows.append(_majority_row(models, deciding, others))
    return {"columns": columns, "groups": groups, "rows": rows}


def _model_cells(model: Document, deciding: str, others: Sequence[str]) -> list[dict[str, str]]:
    """A model's cells of the headline table."""
    mean = model.get("mean") or {}
    cells = [_mean_cell((mean.get(deciding) or {}).get("accuracy"), strong=True)]
    cells.append(_mean_cell((mean.get(deciding) or {}).get("balanced_accuracy")))
    cells.append(_mean_cell((mean.get(deciding) or {}).get("macro_f1"), decimals=True))
    published = model.get("published") or {}
    known = [
        words.percent(published["accuracy"]) if "accuracy" in published else "",
        f"{published['macro_f1']:.3f}" if "macro_f1" in published else "",
    ]
    cells.append(_cell(" / ".join(one for one in known if one) or NONE))
    for name in others:
        cell = _mean_cell((mean.get(name) or {}).get("accuracy"))
        balanced = (mean.get(name) or {}).get("balanced_accuracy")
        if balanced:
            cell["small"] = f"{cell['small']} balanced {words.percent(balanced['mean'])}".strip()
        if name == "validation" and model.get("split") == "random-file":
            cell["small"] += " (inflated: siblings of these images were trained on)"
            if "validation_accuracy" in published:
                cell["small"] += f"; published {words.percent(published['validation_accuracy'])}"
        cells.append(cell)
    runs = model.get("runs") or ()
    totals = words.known((run.get("seconds") or {}).get("total") for run in runs)
    speeds = words.known(run.get("predict_images_per_second") for run in runs)
    cells.append(_cell(words.duration(fmean(totals)) if totals else NONE))
    cells.append(_cell(f"{fmean(speeds):,.0f}" if speeds else NONE))
    parameters, size = model.get("parameters"), model.get("bundle_bytes")
    cells.append(
        _cell(
            NONE if parameters is None else f"{parameters:,}",
            "" if size is None else words.size_text(size),
        )
    )
    return cells


def _majority_row(
    models: Sequence[Document], deciding: str, others: Sequence[str]
) -> dict[str, Any]:
    """What always answering the commonest class of each set would reach."""
    cells = []
    report = _any_report(models, deciding)
    if report:
        share = float(report["baselines"]["majority"]["accuracy"])
        present = sum(1 for row in report["confusion"] if sum(row))
        cells += [
            _cell(words.percent(share), strong=True),
            _cell(words.percent(1 / present)),
            _cell(f"{2 * share / (1 + share) / present:.3f}"),
        ]
    else:
        cells += [_cell(NONE)] * 3
    cells.append(_cell(NONE))
    for name in others:
        one = _any_report(models, name)
        cells.append(
            _cell(words.percent(one["baselines"]["majority"]["accuracy"]) if one else NONE)
        )
    cells += [_cell(NONE)] * 3
    answer = report["baselines"]["majority"]["class"] if report else "the commonest class"
    return {
        "title": f"Always “{answer}”",
        "note": "majority baseline",
        "number": 0,
        "baseline": True,
        "cells": cells,
    }


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
        one = _any_report(models, name)
        if not one:
            continue
        where = {
            "validation": "rows of Train kept apart, by slide where the recipe says so; recipes "
            "and epochs are chosen on it",
            "test": "nothing is chosen on it",
        }.get(name, "another folder that no training has seen")
        if name == deciding and name not in ("validation", "test"):
            where = "the set that decides here"
        notes.append(
            f"{set_title(name)}: {words.counted(one['n'], 'image')}, "
            f"{words.counted(one['n_slides'], 'slide')}, {where}."
        )
    shared = (comparison.get("audit") or {}).get("shared_slides") or {}
    between = shared_sentence(shared)
    if between:
        notes.append(f"{between}: test measures memory of slides as well as skill.")
    return notes


def shared_sentence(shared: Document) -> str:
    """How many slides of test stand in training too; empty when none does."""
    for one in shared.get("between") or ():
        if set(one["splits"]) == {"train", "test"} and one["count"]:
            total = words.counted(one["slides"]["test"], "slide")
            return f"{one['count']:,} of the {total} of test stood in Train too"
    count = shared.get("count")
    return f"{words.counted(count, 'slide')} stood on both sides of a split" if count else ""


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
                "seed": str(one["seed"]),
                "only_a": f"{test['b']:,}",
                "only_b": f"{test['c']:,}",
                "p": words.p_value_text(test["p_value"]),
                "accuracy": words.difference_text(bootstrap.get("accuracy")),
                "balanced": words.difference_text(bootstrap.get("balanced_accuracy")),
            }
        )
    return rows


def run_row(run: Document, names: Sequence[str]) -> dict[str, Any]:
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
    return {
        "seed": str(run.get("seed")),
        "cells": cells,
        "epochs": str(run.get("epochs") or NONE),
        "time": NONE if total is None else words.duration(total),
        "parts": ", ".join(parts),
    }


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
    seeds: Sequence[int] = comparison.get("seeds") or ()
    return f"Seed {seeds[0]}, the first of {len(seeds)}." if len(seeds) > 1 else ""


def _any_report(models: Sequence[Document], name: str) -> Document | None:
    """An evaluation on a set, from whichever model has one."""
    for model in models:
        for run in model.get("runs") or ():
            if name in (run.get("evaluations") or {}):
                found: Document = run["evaluations"][name]
                return found
    return None


def _mean_cell(
    one: Document | None, *, decimals: bool = False, strong: bool = False
) -> dict[str, Any]:
    """A mean over seeds with its spread and interval."""
    if not one:
        return _cell(NONE, strong=strong)
    value = f"{one['mean']:.3f}" if decimals else words.percent(one["mean"])
    if one.get("sd") is not None:
        value += f" ± {one['sd']:.3f}" if decimals else f" ± {100 * one['sd']:.1f}"
    return _cell(value, words.bracket(one, decimals=decimals), strong=strong)


def _cell(value: str, small: str = "", *, strong: bool = False) -> dict[str, Any]:
    """A cell of a table: a value and what stands below it."""
    return {"value": value, "small": small, "strong": strong}
