"""Reports as single HTML files, and a comparison as Markdown.

A page needs nothing but itself: style, figures and pictures are inside, there is no script, and a
content security policy forbids every connection. Everything that comes from data is escaped.
Needs the extra ``report`` for the figures.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from leuko.artifacts import RESEARCH_USE
from leuko.errors import DataError, ImageError
from leuko.evaluation.compare import Decision, decide
from leuko.imaging import PreprocessSpec, encode_jpeg, read_image
from leuko.render import plots
from leuko.render.style import PAGE, css_variables, style
from leuko.taxonomy import CLASSES

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = [
    "Thumbnail",
    "audit_html",
    "comparison_html",
    "comparison_markdown",
    "evaluation_html",
    "worst_mistakes",
]

Document = Mapping[str, Any]
Pixels = npt.NDArray[np.uint8]

THUMBNAIL_SIDE: Final = 144
_LONGEST_LIST: Final = 60
_NONE: Final = "–"


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One mistake as a small picture.

    Attributes
    ----------
    path, true, predicted : str
    confidence, probability_of_true : float, 0 to 1
    jpeg : bytes
        Empty when the image could not be read.
    reason : str
        Why there is no picture.
    """

    path: str
    true: str
    predicted: str
    confidence: float
    probability_of_true: float
    jpeg: bytes = b""
    reason: str = ""


def worst_mistakes(
    evaluation: Document,
    source: Path | Callable[[str], Pixels],
    *,
    limit: int = 40,
    side: int = THUMBNAIL_SIDE,
) -> list[Thumbnail]:
    """Fetch the pictures of the worst mistakes.

    Parameters
    ----------
    evaluation : dict
        ``evaluation.json``, whose ``worst`` lists them.
    source : Path or callable
        The folder that the paths are relative to, or a function from a path to (H, W, 3) uint8
        pixels that may raise `ImageError` or `OSError`. Paths that leave the folder are not read.
    limit : int
        At most so many.
    side : int
        Height and width of each picture in pixels; the centre is cut square.

    Returns
    -------
    list of Thumbnail
        In the order of the evaluation; images that cannot be read stay in the list, with a reason.
    """
    spec = PreprocessSpec(size=(side, side))
    found = []
    for one in evaluation.get("worst", ())[:limit]:
        jpeg, reason = b"", ""
        try:
            jpeg = encode_jpeg(spec.apply(_pixels(source, one["path"])), quality=82)
        except ImageError as error:
            reason = error.reason
        except OSError:
            reason = "unreadable"
        found.append(
            Thumbnail(
                path=one["path"],
                true=one["true"],
                predicted=one["predicted"],
                confidence=float(one["confidence"]),
                probability_of_true=float(one["probability_of_true"]),
                jpeg=jpeg,
                reason=reason,
            )
        )
    return found


def evaluation_html(
    evaluation: Document, *, mistakes: Sequence[Thumbnail] | None = None, title: str = ""
) -> str:
    """Write the page of one evaluation.

    Parameters
    ----------
    evaluation : dict
        ``evaluation.json``.
    mistakes : sequence of Thumbnail, optional
        From `worst_mistakes`. Without it mistakes are listed by name.
    title : str
        Of the page; the model's and the folder's names when left out.

    Returns
    -------
    str
        HTML; equal documents give equal text.

    Raises
    ------
    MissingExtraError
        Without Matplotlib.
    """
    model = str((evaluation.get("model") or {}).get("name") or "Model")
    folder = str((evaluation.get("data") or {}).get("folder") or "")
    return _render(
        "evaluation.html.j2",
        title=title or (f"{model} on {folder}" if folder else model),
        kind="Evaluation",
        headline=_evaluation_headline(evaluation),
        research_use=evaluation.get("research_use") or RESEARCH_USE,
        view=_evaluation_view(evaluation, "eval", mistakes),
        tiles=_tiles(evaluation),
        made=_made(evaluation),
    )


def audit_html(audit: Document) -> str:
    """Write the page of one audit: what is in a data set, and what is wrong with it.

    Parameters
    ----------
    audit : dict
        ``audit.json``.

    Returns
    -------
    str
        HTML; equal documents give equal text.

    Raises
    ------
    MissingExtraError
        Without Matplotlib.
    """
    return _render(
        "audit.html.j2",
        title=f"What is in {_folder_name(audit)}",
        kind="Audit",
        headline=_audit_headline(audit),
        research_use=audit.get("research_use") or RESEARCH_USE,
        audit=_audit_view(audit),
        made=_made(audit),
    )


def comparison_html(
    comparison: Document, *, pictures: Mapping[str, Sequence[Thumbnail]] | None = None
) -> str:
    """Write the page of a comparison.

    Parameters
    ----------
    comparison : dict
        ``comparison.json``. A model may carry ``split`` (its recipe's ``data.split``); where that
        is ``random-file`` its validation is marked as inflated.
    pictures : dict of str to sequence of Thumbnail, optional
        By recipe: the worst mistakes on the test set of its first run, from `worst_mistakes`.

    Returns
    -------
    str
        HTML; equal documents give equal text.

    Raises
    ------
    DataError
        When the comparison has no model.
    MissingExtraError
        Without Matplotlib.
    """
    models = comparison.get("models") or []
    if not models:
        raise DataError("The comparison has no model, expected at least one under 'models'.")
    deciding = _deciding_set(comparison)
    names = _set_names(comparison)
    audit = comparison.get("audit") or {}
    evaluations = {
        _title(model): run["evaluations"][deciding]
        for model in models
        for run in (model.get("runs") or ())[:1]
        if deciding in run.get("evaluations", {})
    }
    figures = [
        _figure(
            plots.interval_plot(comparison, colours=PAGE),
            "accuracy",
            "Accuracy on every set",
            "Upright line: always answering the commonest class of that set.",
        ),
        _figure(
            plots.interval_plot(comparison, metric="balanced_accuracy", colours=PAGE),
            "balanced",
            "Balanced accuracy on every set",
            "The mean of the classes' sensitivities: rare cells count as much as common ones.",
        ),
    ]
    if evaluations:
        figures.append(
            _figure(
                plots.sensitivity_plot(evaluations, colours=PAGE),
                "sensitivity",
                f"Sensitivity by class, {deciding}",
                _first_seed(comparison),
            )
        )
    figures.append(
        _figure(plots.training_time_plot(comparison, colours=PAGE), "time", "Training time", "")
    )
    return _render(
        "comparison.html.j2",
        title=f"{_count(len(models), 'model')} on {_folder_name(comparison)}",
        kind="Comparison",
        headline=_comparison_headline(comparison, deciding),
        research_use=comparison.get("research_use") or RESEARCH_USE,
        verdict=_sentences(str(comparison.get("verdict") or "")),
        warnings=list(comparison.get("warnings") or ()),
        table=_headline_table(comparison),
        table_notes=_table_notes(comparison),
        figures=figures,
        hidden=_hidden(audit),
        audit=_audit_view(audit) if audit else None,
        paired=_paired_rows(comparison),
        models=[
            _model_view(model, number, deciding, names, pictures or {})
            for number, model in enumerate(models)
        ],
        made=_made(comparison),
    )


def comparison_markdown(comparison: Document) -> str:
    """Write a comparison as Markdown, for a repository or a message.

    Parameters
    ----------
    comparison : dict
        ``comparison.json``.

    Returns
    -------
    str
        GitHub's dialect; ends with a newline.
    """
    table = _headline_table(comparison)
    head = [column["title"] for column in table["columns"]]
    lines = [
        f"# {_plain(_comparison_headline(comparison, _deciding_set(comparison)))}",
        "",
        _plain(str(comparison.get("verdict") or "")),
        "",
        _line(head),
        _line(["---"] + ["---:"] * (len(head) - 1)),
    ]
    for row in table["rows"]:
        cells = [
            " ".join(part for part in (cell["value"], cell["small"]) if part)
            for cell in row["cells"]
        ]
        lines.append(_line([row["title"], *cells]))
    lines += ["", *(f"- {_plain(note)}" for note in _table_notes(comparison)), ""]
    rows = _paired_rows(comparison)
    if rows:
        lines += ["## Paired tests on the same images", ""]
        head = ["pair", "set", "seed", "only first right", "only second right", "McNemar p",
                "accuracy, first − second", "balanced accuracy"]  # fmt: skip
        lines += [_line(head), _line(["---"] * 2 + ["---:"] * 6)]
        for one in rows:
            pair = f"{one['a']} / {one['b']}"
            keys = ("set", "seed", "only_a", "only_b", "p", "accuracy", "balanced")
            lines.append(_line([pair, *(one[key] for key in keys)]))
        lines.append("")
    hidden = _hidden(comparison.get("audit") or {})
    if hidden:
        lines += ["## What the data hide", ""]
        lines += [f"- **{_plain(one['title'])}.** {_plain(one['sentence'])}" for one in hidden]
        lines.append("")
    lines += ["## How it was made", ""]
    lines += [f"- {_plain(key)}: {_plain(value)}" for key, value in _made(comparison)]
    lines += [f"- Warning: {_plain(str(one))}" for one in comparison.get("warnings") or ()]
    lines += ["", f"*{_plain(str(comparison.get('research_use') or RESEARCH_USE))}*"]
    return _encodable("\n".join(lines) + "\n")


# ------------------------------------------------------------------------------ headlines


def _comparison_headline(comparison: Document, deciding: str) -> str:
    """One short sentence: who is better, where the paired tests let one say so."""
    models = comparison["models"]
    titles = {model["recipe"]: _title(model) for model in models}
    if len(models) == 1:
        return f"{_title(models[0])}, measured on {deciding}"
    decisions = decide(comparison.get("paired") or (), deciding)
    if len(decisions) == 1:
        one = decisions[0]
        if one.winner is None:
            return f"The data do not separate {titles[one.a]} from {titles[one.b]}"
        amount = 100 * abs(one.difference)
        loser = one.b if one.winner == one.a else one.a
        return f"{titles[one.winner]} beats {titles[loser]} by {amount:.1f} points on {deciding}"
    best = [model["recipe"] for model in models if _beats_all(model["recipe"], models, decisions)]
    if best:
        return f"{titles[best[0]]} beats all others on {deciding}"
    return f"{_count(len(models), 'model')} and no single winner on {deciding}"


def _beats_all(recipe: str, models: Sequence[Document], decisions: Sequence[Decision]) -> bool:
    """Whether a recipe wins each of its pairs, and meets every other."""
    wins = [one for one in decisions if one.winner == recipe]
    return len(wins) == len(models) - 1


def _evaluation_headline(evaluation: Document) -> str:
    """What share is right, with its interval and what a constant answer would reach."""
    one = evaluation["metrics"]["accuracy"]
    majority = evaluation["baselines"]["majority"]
    span = _span(one.get("low"), one.get("high"))
    interval = f" (95% interval {span})" if span else ""
    return (
        f"{_percent(one['value'])} of {_count(evaluation['n'], 'image')} right{interval}; always "
        f"answering {majority['class']} gives {_percent(majority['accuracy'])}"
    )


def _audit_headline(audit: Document) -> str:
    """How much there is, and the first thing to worry about."""
    splits = audit.get("splits") or {}
    parts = [f"{one['n']:,} in {name}" for name, one in splits.items()]
    text = f"{_listed(parts)} images" if len(parts) == 1 else f"Images: {_listed(parts)}"
    worries = [one for one in audit.get("findings") or () if one.get("level") == "warning"]
    if worries:
        return f"{text}; {_count(len(worries), 'thing')} to know before training on them"
    return text


# ------------------------------------------------------------------------------ comparison


def _headline_table(comparison: Document) -> dict[str, Any]:
    """The table of all models, with the majority baseline as its last row."""
    models = comparison["models"]
    deciding = _deciding_set(comparison)
    others = [name for name in _set_names(comparison) if name != deciding]
    shown = deciding.capitalize()
    columns = [
        {"title": "Model", "group": ""},
        {"title": f"{shown} accuracy", "group": shown},
        {"title": "Balanced accuracy", "group": shown},
        {"title": "Macro-F1", "group": shown},
        {"title": "Published accuracy / F1", "group": shown},
        *({"title": _set_title(name), "group": "Measured generalisation"} for name in others),
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
            "title": _title(model),
            "note": _model_note(model),
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
        _percent(published["accuracy"]) if "accuracy" in published else "",
        f"{published['macro_f1']:.3f}" if "macro_f1" in published else "",
    ]
    cells.append(_cell(" / ".join(one for one in known if one) or _NONE))
    for name in others:
        cell = _mean_cell((mean.get(name) or {}).get("accuracy"))
        balanced = (mean.get(name) or {}).get("balanced_accuracy")
        if balanced:
            cell["small"] = f"{cell['small']} balanced {_percent(balanced['mean'])}".strip()
        if name == "validation" and model.get("split") == "random-file":
            cell["small"] += " (inflated: siblings of these images were trained on)"
            if "validation_accuracy" in published:
                cell["small"] += f"; published {_percent(published['validation_accuracy'])}"
        cells.append(cell)
    runs = model.get("runs") or ()
    totals = _known((run.get("seconds") or {}).get("total") for run in runs)
    speeds = _known(run.get("predict_images_per_second") for run in runs)
    cells.append(_cell(_duration(fmean(totals)) if totals else _NONE))
    cells.append(_cell(f"{fmean(speeds):,.0f}" if speeds else _NONE))
    parameters, size = model.get("parameters"), model.get("bundle_bytes")
    cells.append(
        _cell(
            _NONE if parameters is None else f"{parameters:,}",
            "" if size is None else _megabytes(size),
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
            _cell(_percent(share), strong=True),
            _cell(_percent(1 / present)),
            _cell(f"{2 * share / (1 + share) / present:.3f}"),
        ]
    else:
        cells += [_cell(_NONE)] * 3
    cells.append(_cell(_NONE))
    for name in others:
        one = _any_report(models, name)
        cells.append(_cell(_percent(one["baselines"]["majority"]["accuracy"]) if one else _NONE))
    cells += [_cell(_NONE)] * 3
    answer = report["baselines"]["majority"]["class"] if report else "the commonest class"
    return {
        "title": f"Always “{answer}”",
        "note": "majority baseline",
        "number": 0,
        "baseline": True,
        "cells": cells,
    }


def _table_notes(comparison: Document) -> list[str]:
    """What a reader of the table must know."""
    models = comparison["models"]
    deciding = _deciding_set(comparison)
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
    for name in _set_names(comparison):
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
            f"{_set_title(name)}: {_count(one['n'], 'image')}, {_count(one['n_slides'], 'slide')}, "
            f"{where}."
        )
    shared = (comparison.get("audit") or {}).get("shared_slides") or {}
    between = _shared_sentence(shared)
    if between:
        notes.append(f"{between}: test measures memory of slides as well as skill.")
    return notes


def _shared_sentence(shared: Document) -> str:
    """How many slides of test stand in training too; empty when none does."""
    for one in shared.get("between") or ():
        if set(one["splits"]) == {"train", "test"} and one["count"]:
            total = one["slides"]["test"]
            return f"{one['count']:,} of the {_count(total, 'slide')} of test stood in Train too"
    count = shared.get("count")
    return f"{_count(count, 'slide')} stood on both sides of a split" if count else ""


def _paired_rows(comparison: Document) -> list[dict[str, str]]:
    """Every paired test as text."""
    titles = {model["recipe"]: _title(model) for model in comparison["models"]}
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
                "p": _p_value(test["p_value"]),
                "accuracy": _difference(bootstrap.get("accuracy")),
                "balanced": _difference(bootstrap.get("balanced_accuracy")),
            }
        )
    return rows


def _model_view(
    model: Document,
    number: int,
    deciding: str,
    names: Sequence[str],
    pictures: Mapping[str, Sequence[Thumbnail]],
) -> dict[str, Any]:
    """A model's section."""
    runs = model.get("runs") or ()
    evaluations = runs[0].get("evaluations", {}) if runs else {}
    history = model.get("history") or ()
    mark = f"m{number}"
    others = []
    for place, name in enumerate(name for name in names if name != deciding):
        if name in evaluations:
            others.append(
                {
                    "title": _set_title(name),
                    "headline": _evaluation_headline(evaluations[name]),
                    "view": _evaluation_view(
                        evaluations[name], f"{mark}o{place}", None, brief=True
                    ),
                }
            )
    return {
        "title": _title(model),
        "note": _model_note(model),
        "number": number % len(PAGE.models),
        "anchor": f"model-{number}",
        "seed": str(runs[0].get("seed")) if runs else _NONE,
        "run": str(runs[0].get("run") or "") if runs else "",
        "deciding": deciding,
        "curves": _figure(
            plots.training_plot(history, colours=PAGE),
            f"{mark}-curves",
            "Training",
            "Best epoch by validation is the one that was kept.",
            shape="wide",
        )
        if history
        else None,
        "headline": _evaluation_headline(evaluations[deciding]) if deciding in evaluations else "",
        "view": _evaluation_view(evaluations[deciding], mark, pictures.get(model["recipe"]))
        if deciding in evaluations
        else None,
        "others": others,
        "runs": [_run_row(run, names) for run in runs],
        "set_titles": [_set_title(name) for name in names],
    }


def _run_row(run: Document, names: Sequence[str]) -> dict[str, Any]:
    """One seed of one model."""
    seconds = run.get("seconds") or {}
    cells = []
    for name in names:
        one = (run.get("evaluations") or {}).get(name)
        cells.append(_percent(one["metrics"]["accuracy"]["value"]) if one else _NONE)
    parts = [f"{key} {_duration(value)}" for key, value in seconds.items()
             if key != "total" and value]  # fmt: skip
    total = seconds.get("total")
    return {
        "seed": str(run.get("seed")),
        "cells": cells,
        "epochs": str(run.get("epochs") or _NONE),
        "time": _NONE if total is None else _duration(total),
        "parts": ", ".join(parts),
    }


# ------------------------------------------------------------------------------ evaluation


def _evaluation_view(
    evaluation: Document,
    mark: str,
    mistakes: Sequence[Thumbnail] | None,
    *,
    brief: bool = False,
) -> dict[str, Any]:
    """Everything that the evaluation macro shows."""
    drawn: list[tuple[Any, str, str, str]] = [
        (plots.confusion_plot(evaluation, colours=PAGE), "counts", "Confusion matrix",
         "Images; rows are the true class. The shade is the share of the row."),
        (plots.confusion_plot(evaluation, percent=True, colours=PAGE), "percent",
         "Confusion matrix, % of the row", "On the diagonal stands each class's sensitivity."),
    ]  # fmt: skip
    if not brief:
        drawn += [
            (plots.roc_plot(evaluation, colours=PAGE), "roc", "ROC, each class against the rest",
             "How many are found against how many others are taken for them."),
            (plots.pr_plot(evaluation, colours=PAGE), "pr", "Precision and recall",
             "Of those named so, how many are; of those that are, how many are named so."),
            (plots.sensitivity_plot({"": evaluation}, colours=PAGE), "sens",
             "Sensitivity by class", "No line: too few slides for an interval."),
            (plots.calibration_plot(evaluation, colours=PAGE), "calibration", "Calibration",
             "On the dotted line, confidence is the share that is right."),
        ]  # fmt: skip
    return {
        "figures": [
            _figure(figure, f"{mark}-{name}", title, caption)
            for figure, name, title, caption in drawn
        ],
        "classes": [_class_row(name, evaluation["per_class"].get(name) or {}) for name in CLASSES],
        "warnings": list(evaluation.get("warnings") or ()),
        "facts": _evaluation_facts(evaluation),
        "mistakes": _mistake_views(evaluation, mistakes),
        "wrong": sum(
            count
            for row, counts in enumerate(evaluation["confusion"])
            for column, count in enumerate(counts)
            if row != column
        ),
        "slides": [] if brief else _slide_rows(evaluation),
    }


def _class_row(name: str, one: Document) -> dict[str, Any]:
    """One class of the per-class table."""
    return {
        "title": name,
        "number": CLASSES.index(name),
        "n": f"{one.get('n') or 0:,}",
        "slides": f"{one.get('slides') or 0:,}",
        "note": one.get("note") or "",
        "cells": [
            {
                "value": _NONE if one.get(key) is None else _percent(one[key]),
                "small": _bracket(one.get(f"{key}_interval") or {}),
            }
            for key in ("sensitivity", "specificity", "precision")
        ]
        + [
            {
                "value": _NONE if one.get("f1") is None else f"{one['f1']:.3f}",
                "small": _bracket(one.get("f1_interval") or {}, decimals=True),
            }
        ],
    }


def _evaluation_facts(evaluation: Document) -> list[tuple[str, str]]:
    """The numbers that stand beside the figures."""
    facts = []
    names = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy",
             "macro_f1": "Macro-F1"}  # fmt: skip
    for key, title in names.items():
        one = evaluation["metrics"].get(key)
        if not one:
            continue
        value = f"{one['value']:.3f}" if key == "macro_f1" else _percent(one["value"])
        span = _bracket(one, decimals=key == "macro_f1")
        facts.append((title, f"{value} {span}".strip()))
    majority = evaluation["baselines"]["majority"]
    facts.append(("Majority baseline", f"{_percent(majority['accuracy'])} ({majority['class']})"))
    facts.append(("Images, slides", f"{evaluation['n']:,}, {evaluation['n_slides']:,}"))
    facts.append(("Calibration error", _decimals(evaluation["calibration"].get("ece"))))
    facts.append(("Log loss", _decimals(evaluation.get("log_loss"))))
    facts.append(("Brier score", _decimals(evaluation.get("brier"))))
    return facts


def _tiles(evaluation: Document) -> list[dict[str, str]]:
    """The three headline numbers, large."""
    tiles = []
    for key, title in (("accuracy", "accuracy"), ("balanced_accuracy", "balanced accuracy"),
                       ("macro_f1", "macro-F1")):  # fmt: skip
        one = evaluation["metrics"][key]
        decimals = key == "macro_f1"
        tiles.append(
            {
                "value": f"{one['value']:.3f}" if decimals else _percent(one["value"]),
                "title": title,
                "small": _bracket(one, decimals=decimals),
            }
        )
    majority = evaluation["baselines"]["majority"]
    tiles.append(
        {
            "value": _percent(majority["accuracy"]),
            "title": f"always “{majority['class']}”",
            "small": "majority baseline",
        }
    )
    return tiles


def _mistake_views(
    evaluation: Document, mistakes: Sequence[Thumbnail] | None
) -> list[dict[str, str]]:
    """Mistakes for the gallery, with pictures where there are any."""
    if mistakes is None:
        listed = [
            Thumbnail(one["path"], one["true"], one["predicted"], float(one["confidence"]),
                      float(one["probability_of_true"]))
            for one in evaluation.get("worst") or ()
        ]  # fmt: skip
    else:
        listed = list(mistakes)
    return [
        {
            "path": one.path,
            "name": PurePosixPath(one.path).name or one.path,
            "true": one.true,
            "predicted": one.predicted,
            "true_number": str(CLASSES.index(one.true)) if one.true in CLASSES else "0",
            "predicted_number": str(CLASSES.index(one.predicted))
            if one.predicted in CLASSES
            else "0",
            "confidence": _percent(one.confidence),
            "probability_of_true": _percent(one.probability_of_true),
            "picture": _data_uri(one.jpeg) if one.jpeg else "",
            "reason": one.reason,
        }
        for one in listed
    ]


def _slide_rows(evaluation: Document) -> list[dict[str, str]]:
    """The slides with most mistakes."""
    rows = sorted(
        evaluation.get("by_slide") or (),
        key=lambda one: (-(one["n"] * (1 - one["accuracy"])), one["slide"]),
    )
    return [
        {
            "slide": one["slide"],
            "n": f"{one['n']:,}",
            "wrong": f"{round(one['n'] * (1 - one['accuracy'])):,}",
            "accuracy": _percent(one["accuracy"]),
        }
        for one in rows[:_LONGEST_LIST]
    ]


# ------------------------------------------------------------------------------ audit


def _hidden(audit: Document) -> list[dict[str, str]]:
    """What the data hide, in plain words: the audit's warnings and what stands behind them."""
    found = [
        {"title": str(one.get("title", "")), "sentence": str(one.get("sentence", ""))}
        for one in audit.get("findings") or ()
        if one.get("level") == "warning"
    ]
    told = " ".join(one["title"] + one["sentence"] for one in found).lower()
    shared = _shared_sentence(audit.get("shared_slides") or {})
    if shared and "slide" not in told:
        found.append(
            {
                "title": shared,
                "sentence": "So it measures memory of slides as well as skill.",
            }
        )
    background = audit.get("background_test") or {}
    if background.get("sentence") and background["sentence"] not in [
        one["sentence"] for one in found
    ] and "background" not in told:  # fmt: skip
        found.append({"title": "The background test", "sentence": str(background["sentence"])})
    return found


def _audit_view(audit: Document) -> dict[str, Any]:
    """Everything that the audit macro shows."""
    figures = []
    if audit.get("classes"):
        figures.append(
            _figure(plots.class_counts_plot(audit["classes"], colours=PAGE), "audit-classes",
                    "Classes", "Shares of each split, with the number of images.")
        )  # fmt: skip
    background = audit.get("background_test") or {}
    if audit.get("slides"):
        figures.append(
            _figure(plots.slides_plot(audit["slides"], colours=PAGE), "audit-slides",
                    "Which slides the classes come from",
                    "The area of a square is the share of the class in that split; a full square "
                    "is a class from one slide alone.", shape="tall")
        )  # fmt: skip
    if background.get("per_class_recall"):
        ring = background.get("ring")
        outer = f"the outer {100 * ring:g}% on each side" if ring else "the outer ring"
        figures.append(
            _figure(
                plots.recall_plot(
                    background["per_class_recall"], label="recalled without seeing the cell",
                    colours=PAGE,
                ),
                "audit-background",
                "What the background gives away",
                f"A classifier that sees only {outer} of each image, no cell: accuracy "
                f"{_percent(background['accuracy'])}, balanced "
                f"{_percent(background['balanced_accuracy'])}, majority baseline "
                f"{_percent(background['majority'])}.",
            )
        )  # fmt: skip
    near = audit.get("near_duplicates") or ()
    return {
        "figures": figures,
        "findings": list(audit.get("findings") or ()),
        "skipped": str(background.get("skipped") or ""),
        "splits": [
            {
                "name": name,
                "n": f"{one['n']:,}",
                "folder": str(one.get("folder", "")),
                "digest": str(one.get("digest") or "")[:12],
                "sizes": _tally((audit.get("sizes") or {}).get(name)),
                "modes": _tally((audit.get("modes") or {}).get(name)),
                "formats": _tally((audit.get("formats") or {}).get(name)),
                "imbalance": _ratio((audit.get("imbalance") or {}).get(name)),
            }
            for name, one in (audit.get("splits") or {}).items()
        ],
        "shared": audit.get("shared_slides") or {"count": 0, "names": []},
        "confounding": [str(one.get("sentence", "")) for one in audit.get("confounding") or ()],
        "rejected": list(audit.get("rejected") or ())[:_LONGEST_LIST],
        "rejected_count": len(audit.get("rejected") or ()),
        "duplicates": list(audit.get("duplicates") or ())[:_LONGEST_LIST],
        "duplicate_count": len(audit.get("duplicates") or ()),
        "near": [[str(part) for part in one] for one in near[:_LONGEST_LIST]],
        "alike": [
            {
                "slides": " ~ ".join(str(name) for name in one["slides"]),
                "pairs": f"{one['pairs']:,}",
            }
            for one in audit.get("slides_photographed_again") or ()
        ][:_LONGEST_LIST],
        "notes": [str(one) for one in audit.get("notes") or ()],
        "near_count": audit.get("near_duplicate_count") or len(near),
    }


# ------------------------------------------------------------------------------ made


def _made(document: Document) -> list[tuple[str, str]]:
    """How a document came about: command, data, seeds, machine, versions, intervals."""
    facts: list[tuple[str, str]] = []
    if document.get("command"):
        facts.append(("Command", str(document["command"])))
    data = document.get("data") or {}
    folder = data.get("folder") or document.get("dataset")
    if folder:
        facts.append(("Data", str(folder)))
    digest = data.get("digest") or document.get("data_digest")
    if digest:
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
        facts.append(("Balancing", f"{_duration(balance['seconds'])}{images}"))
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


# ------------------------------------------------------------------------------ small parts


def _pixels(source: Path | Callable[[str], Pixels], path: str) -> Pixels:
    """One image, from a folder or from the caller's function."""
    if callable(source):
        return source(path)
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts:
        raise ImageError("unreadable", f"{path} lies outside the data folder and is not read.")
    return read_image(source / relative).pixels


def _folder_name(document: Document) -> str:
    """The data set's name without the folders above it."""
    return PurePosixPath(str(document.get("dataset") or "")).name or "the data"


def _title(model: Document) -> str:
    """A model's name for people."""
    return str(model.get("title") or model["recipe"])


def _model_note(model: Document) -> str:
    """Recipe and input size."""
    size: Sequence[int] = model.get("input") or ()
    note = f"recipe {model['recipe']}"
    return f"{note}, input {size[0]}×{size[1]}" if len(size) == 2 else note


def _set_names(comparison: Document) -> list[str]:
    """Sets in the order to show: validation, test, then the unseen folders as given."""
    found = dict.fromkeys(
        name for model in comparison["models"] for name in model.get("mean") or {}
    )
    first = [name for name in ("validation", "test") if name in found]
    return first + [name for name in found if name not in first]


def _deciding_set(comparison: Document) -> str:
    """Test, or what there is instead."""
    names = _set_names(comparison)
    return "test" if "test" in names or not names else names[0]


def _set_title(name: str) -> str:
    """A set's name for a heading."""
    return name.capitalize() if name in ("validation", "test") else f"Unseen: {name}"


def _first_seed(comparison: Document) -> str:
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


def _figure(figure: Any, name: str, title: str, caption: str, *, shape: str = "") -> dict[str, Any]:
    """A figure as the template wants it."""
    from markupsafe import Markup

    text = plots.svg(figure, name=f"f-{name}", label=f"{title}. {caption}".strip())
    # The plot module escapes all text, and draws nothing but paths and text.
    return {"svg": Markup(text), "title": title, "caption": caption, "shape": shape}  # noqa: S704


def _mean_cell(
    one: Document | None, *, decimals: bool = False, strong: bool = False
) -> dict[str, Any]:
    """A mean over seeds with its spread and interval."""
    if not one:
        return _cell(_NONE, strong=strong)
    value = f"{one['mean']:.3f}" if decimals else _percent(one["mean"])
    if one.get("sd") is not None:
        value += f" ± {one['sd']:.3f}" if decimals else f" ± {100 * one['sd']:.1f}"
    return _cell(value, _bracket(one, decimals=decimals), strong=strong)


def _cell(value: str, small: str = "", *, strong: bool = False) -> dict[str, Any]:
    """A cell of a table: a value and what stands below it."""
    return {"value": value, "small": small, "strong": strong}


def _bracket(one: Document, *, decimals: bool = False) -> str:
    """An interval in brackets; empty when there is none."""
    low, high = one.get("low"), one.get("high")
    if low is None or high is None:
        return ""
    if decimals:
        return f"[{low:.3f}–{high:.3f}]"
    return f"[{100 * low:.1f}–{100 * high:.1f}]"


def _span(low: float | None, high: float | None) -> str:
    """An interval in words; empty when there is none."""
    if low is None or high is None:
        return ""
    return f"{100 * low:.1f} to {100 * high:.1f}%"


def _difference(one: Document | None) -> str:
    """A paired difference in points with its interval."""
    if not one or one.get("difference") is None:
        return _NONE
    text = f"{100 * one['difference']:+.1f}".replace("-", "−")
    if one.get("low") is None or one.get("high") is None:
        return text
    span = f"[{100 * one['low']:+.1f} to {100 * one['high']:+.1f}]".replace("-", "−")
    return f"{text} {span}"


def _percent(share: float) -> str:
    """A share with one decimal; certainty only where it is certain."""
    if 0.9995 <= share < 1.0:
        return ">99.9%"
    if 0.0 < share < 0.0005:
        return "<0.1%"
    return f"{100 * share:.1f}%"


def _decimals(value: float | None) -> str:
    """Three decimals, or a dash."""
    return _NONE if value is None else f"{value:.3f}"


def _p_value(value: float) -> str:
    """A p-value that never claims to be zero."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _megabytes(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _known(values: Any) -> list[float]:
    """The numbers among values that may be None."""
    return [float(value) for value in values if value is not None]


def _tally(counts: Document | None) -> str:
    """Counts by name, commonest first."""
    if not counts:
        return _NONE
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"{name} ({count:,})" for name, count in ranked[:6])
    return f"{text} and {len(ranked) - 6} more" if len(ranked) > 6 else text


def _ratio(value: float | None) -> str:
    """Largest class over smallest."""
    return _NONE if value is None else f"{value:.0f} to 1"


def _count(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _sentences(text: str) -> list[str]:
    """A paragraph's sentences, as far as they can be told apart."""
    return [one for one in re.split(r"(?<=[.!?]) (?=[A-Z\"“])", text.strip()) if one]


def _listed(parts: Sequence[str]) -> str:
    """Parts with commas and an "and"."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _data_uri(jpeg: bytes) -> str:
    """A picture inside the page."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = " ".join(str(text).split())
    text = re.sub(r"([\\`*_\[\]|<>])", r"\\\1", text)
    return text.replace("\\<", "&lt;").replace("\\>", "&gt;")


def _line(cells: Sequence[str]) -> str:
    """A row of a Markdown table; rules stay as they are."""
    return "| " + " | ".join(_plain(cell) for cell in cells) + " |"


@functools.cache
def _environment() -> Environment:
    """Jinja2 that escapes everything and stops at whatever is not defined."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("leuko.render", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(template: str, **values: Any) -> str:
    """Fill a template."""
    from markupsafe import Markup

    text = (
        _environment()
        .get_template(template)
        .render(
            light=Markup(css_variables(style())),  # noqa: S704
            dark=Markup(css_variables(style(dark=True))),  # noqa: S704
            **values,
        )
    )
    return _encodable(text)


def _encodable(text: str) -> str:
    """Text without the halves of characters that undecodable file names leave behind."""
    return text.encode("utf-8", "replace").decode("utf-8")
