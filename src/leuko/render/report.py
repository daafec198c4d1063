"""Reports as single HTML files, and a comparison as Markdown.

A page needs nothing but itself: style, figures and pictures are inside, there is no script, and a
content security policy forbids every connection. Everything that comes from data is escaped.
Needs the extra ``report`` for the figures.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from leuko.errors import DataError
from leuko.evaluation.comparison import ComparisonReport
from leuko.render import plots, tables, views, words
from leuko.render.mistakes import Thumbnail, worst_mistakes
from leuko.render.style import PAGE, css_variables, style
from leuko.render.verdict import verdict
from leuko.render.words import Document
from leuko.scheme import ClassScheme, scheme_in
from leuko.support.artifacts import RESEARCH_USE
from leuko.support.packages import require
from leuko.support.text import counted, listed

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = [
    "Thumbnail",
    "audit_html",
    "comparison_html",
    "comparison_markdown",
    "evaluation_html",
    "render_page",
    "worst_mistakes",
]

require("jinja2.environment")  # before the work that a report is of


def evaluation_html(evaluation: Document, *, mistakes: Sequence[Thumbnail] | None = None) -> str:
    """Write the page of one evaluation.

    Parameters
    ----------
    evaluation : dict
        ``evaluation.json``.
    mistakes : sequence of Thumbnail, optional
        From `worst_mistakes`. Without it mistakes are listed by name.

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
    return render_page(
        "evaluation.html.j2",
        scheme_in(evaluation),
        title=f"{model} on {folder}" if folder else model,
        kind="Evaluation",
        headline=views.evaluation_headline(evaluation),
        research_use=evaluation.get("research_use") or RESEARCH_USE,
        view=views.evaluation_view(evaluation, "eval", mistakes),
        tiles=views.headline_tiles(evaluation),
        made=tables.how_made(evaluation),
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
    return render_page(
        "audit.html.j2",
        scheme_in(audit),
        title=f"What is in {tables.folder_name(audit)}",
        kind="Audit",
        headline=_audit_headline(audit),
        research_use=audit.get("research_use") or RESEARCH_USE,
        audit=views.audit_view(audit),
        made=tables.how_made(audit),
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
    report = ComparisonReport.from_dict(comparison)
    deciding = tables.deciding_set(comparison)
    names = tables.set_names(comparison)
    audit = comparison.get("audit") or {}
    return render_page(
        "comparison.html.j2",
        scheme_in(next(iter(tables.reports_on(models, deciding)), comparison)),
        title=f"{counted(len(models), 'model')} on {tables.folder_name(comparison)}",
        kind="Comparison",
        headline=tables.comparison_headline(comparison),
        research_use=comparison.get("research_use") or RESEARCH_USE,
        verdict=verdict(report, set_name=deciding),
        warnings=list(comparison.get("warnings") or ()),
        table=tables.headline_table(comparison),
        table_notes=tables.table_notes(comparison),
        figures=_comparison_figures(comparison, deciding),
        hidden=views.hidden_findings(audit),
        audit=views.audit_view(audit) if audit else None,
        paired=tables.paired_rows(comparison),
        models=[
            views.model_view(model, number, deciding, names, pictures or {})
            for number, model in enumerate(models)
        ],
        made=tables.how_made(comparison),
    )


def _comparison_figures(comparison: Document, deciding: str) -> list[views.PageFigure]:
    """What is reached on every set, which classes are found, and how long training took."""
    figures = [
        views.page_figure(
            plots.interval_plot(comparison, colours=PAGE),
            "accuracy",
            "Accuracy on every set",
            "Upright line: always answering the commonest class of that set.",
        ),
        views.page_figure(
            plots.interval_plot(comparison, metric="balanced_accuracy", colours=PAGE),
            "balanced",
            "Balanced accuracy on every set",
            "The mean of the classes' sensitivities: rare cells count as much as common ones.",
        ),
    ]
    evaluations = {
        tables.title_of(model): run["evaluations"][deciding]
        for model in comparison["models"]
        for run in (model.get("runs") or ())[:1]
        if deciding in run.get("evaluations", {})
    }
    if evaluations:
        figures.append(
            views.page_figure(
                plots.sensitivity_plot(evaluations, colours=PAGE),
                "sensitivity",
                f"Sensitivity by class, {deciding}",
                tables.first_seed(comparison),
            )
        )
    time = plots.training_time_plot(comparison, colours=PAGE)
    return [*figures, views.page_figure(time, "time", "Training time", "")]


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
    headline = tables.comparison_headline(comparison)
    table = tables.headline_table(comparison)
    head = [column.title for column in table.columns]
    lines = [
        f"# {words.plain(headline)}",
        "",
        words.plain(str(comparison.get("verdict") or "")),
        "",
        words.markdown_row(head),
        words.markdown_row(["---"] + ["---:"] * (len(head) - 1)),
    ]
    for row in table.rows:
        cells = [" ".join(part for part in (cell.value, cell.small) if part) for cell in row.cells]
        lines.append(words.markdown_row([row.title, *cells]))
    lines += [
        "",
        *(f"- {words.plain(note)}" for note in tables.table_notes(comparison)),
        *(f"- Warning: {words.plain(str(one))}" for one in comparison.get("warnings") or ()),
        "",
    ]
    lines += _paired_lines(comparison)
    hidden = views.hidden_findings(comparison.get("audit") or {})
    if hidden:
        lines += ["## What the data hide", ""]
        lines += [
            f"- **{words.plain(one['title'])}.** {words.plain(one['sentence'])}" for one in hidden
        ]
        lines.append("")
    lines += ["## How it was made", ""]
    lines += [
        f"- {words.plain(key)}: {words.plain(value)}" for key, value in tables.how_made(comparison)
    ]
    lines += ["", f"*{words.plain(str(comparison.get('research_use') or RESEARCH_USE))}*"]
    return words.encodable("\n".join(lines) + "\n")


def _paired_lines(comparison: Document) -> list[str]:
    """The paired tests as a Markdown table; nothing where there is none."""
    rows = tables.paired_rows(comparison)
    if not rows:
        return []
    head = ["pair", "set", "seed", "only first right", "only second right", "McNemar p",
            "accuracy, first − second", "balanced accuracy"]  # fmt: skip
    keys = ("set", "seed", "only_a", "only_b", "p", "accuracy", "balanced")
    return [
        "## Paired tests on the same images",
        "",
        words.markdown_row(head),
        words.markdown_row(["---"] * 2 + ["---:"] * 6),
        *(
            words.markdown_row([f"{one['a']} / {one['b']}", *(one[key] for key in keys)])
            for one in rows
        ),
        "",
    ]


def _audit_headline(audit: Document) -> str:
    """How much there is, and the first thing to worry about."""
    splits = audit.get("splits") or {}
    parts = [f"{one['n']:,} in {name}" for name, one in splits.items()]
    text = f"{listed(parts)} images" if len(parts) == 1 else f"Images: {listed(parts)}"
    worries = [one for one in audit.get("findings") or () if one.get("level") == "warning"]
    if worries:
        return f"{text}; {counted(len(worries), 'thing')} to know before training on them"
    return text


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


def render_page(template: str, scheme: ClassScheme, **values: Any) -> str:
    """Fill a template, in the colours of a scheme.

    Parameters
    ----------
    template : str
        Name of a file of ``templates``.
    scheme : ClassScheme
        Whose classes have colours.
    **values
        What the template asks for, all of it.

    Returns
    -------
    str
        HTML; whatever is no markup is escaped.
    """
    from markupsafe import Markup

    text = (
        _environment()
        .get_template(template)
        .render(
            light=Markup(css_variables(style(), scheme)),  # noqa: S704
            dark=Markup(css_variables(style(dark=True), scheme)),  # noqa: S704
            **values,
        )
    )
    return words.encodable(text)
