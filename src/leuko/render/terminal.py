"""A comparison as plain text for a terminal; what does not fit there stands in the report."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from leuko.evaluation.comparison import ComparisonReport
from leuko.render import tables, words
from leuko.render.verdict import verdict
from leuko.render.views import hidden_findings
from leuko.render.words import NONE, Document
from leuko.support.artifacts import RESEARCH_USE

__all__ = ["comparison_text"]

_WIDTH: Final = 96
_LONGEST_TITLE: Final = 36


def comparison_text(comparison: Document) -> str:
    """Write a comparison for a terminal: a table for each set, the verdict, warnings.

    Parameters
    ----------
    comparison : dict
        ``comparison.json``.

    Returns
    -------
    str
        Several lines without markup, without a newline at the end. Sentences are broken at 96
        columns.
    """
    deciding = tables.deciding_set(comparison)
    names = [deciding, *(name for name in tables.set_names(comparison) if name != deciding)]
    lines = [*_wrapped(tables.comparison_headline(comparison), "")]
    for name in names:
        lines += ["", *_set_lines(comparison, name, deciding)]
    lines += ["", *_cost_lines(comparison), ""]
    for model in comparison["models"]:
        if start := model.get("start"):
            lines += _wrapped(f"{_title(model)} starts from {tables.start_text(start)}.")
    for sentence in verdict(ComparisonReport.from_dict(comparison), set_name=deciding):
        lines += _wrapped(sentence)
    lines.append("")
    for note in tables.table_notes(comparison):
        lines += _wrapped(note)
    told = [f"Warning: {one}" for one in comparison.get("warnings") or ()]
    told += [
        f"{one['title']}: {one['sentence']}"
        for one in hidden_findings(comparison.get("audit") or {})
    ]
    if told:
        lines.append("")
    for sentence in told:
        lines += _wrapped(sentence, "! ")
    lines += ["", str(comparison.get("research_use") or RESEARCH_USE)]
    return words.encodable("\n".join(lines))


def _set_lines(comparison: Document, name: str, deciding: str) -> list[str]:
    """One set: every model, and the constant answer below them."""
    models = comparison["models"]
    published = name == deciding and any(model.get("published") for model in models)
    head = ["", "accuracy", "[95% interval]", "balanced", "macro-F1"]
    rows = [[*head, "published"] if published else head]
    remarks = [""]
    for model in models:
        mean = (model.get("mean") or {}).get(name) or {}
        accuracy, balanced, score = (
            tables.mean_cell(mean.get(key), decimals=key == "macro_f1")
            for key in ("accuracy", "balanced_accuracy", "macro_f1")
        )
        row = [_title(model), accuracy.value, accuracy.small, balanced.value]
        rows.append([*row, score.value, *([tables.published_figures(model)] * published)])
        inflated = name == "validation" and model.get("split") == "random-file"
        doubts = [tables.doubt_of(model, name), "inflated: siblings were trained on" * inflated]
        remarks.append(", ".join(doubt for doubt in doubts if doubt))
    reports = tables.reports_on(models, name)
    title = tables.set_title(name)
    if reports:
        title += f": {tables.size_of_set(reports)}"
        constant = tables.baseline(reports)
        by_turns = len(constant.classes) > 1
        answer = "the commonest class" if by_turns else constant.answer
        row = [f"Always {answer}", constant.accuracy, ""]
        row += [constant.balanced_accuracy, constant.macro_f1]
        rows.append([*row, *([""] * published)])
        remarks.append(constant.answer if by_turns else "")
    aligned = zip(_aligned(rows), remarks, strict=True)
    return [title, *(f"{line}  {remark}".rstrip() for line, remark in aligned)]


def _cost_lines(comparison: Document) -> list[str]:
    """What training and answering took."""
    rows = [["", "training", "images/s", "parameters", "size"]]
    for model in comparison["models"]:
        *others, size = tables.costs(model)
        rows.append([_title(model), *others, size or NONE])
    return ["Cost", *_aligned(rows)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns below each other, a little to the right."""
    return [f"  {line}" for line in words.aligned(rows)]


def _title(model: Document) -> str:
    """A model's name, on one line and not too long."""
    title = " ".join(tables.title_of(model).split())
    return title if len(title) <= _LONGEST_TITLE else f"{title[: _LONGEST_TITLE - 1]}…"


def _wrapped(sentence: str, mark: str = "- ") -> list[str]:
    """A sentence on as many lines as it needs."""
    return textwrap.wrap(
        sentence,
        _WIDTH,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )
