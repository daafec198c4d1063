"""What the templates of a model, an evaluation and an audit show."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from leuko.render import plots, tables, words
from leuko.render.mistakes import Thumbnail
from leuko.render.style import PAGE
from leuko.render.tables import Cell, RunRow
from leuko.render.words import NONE, Document
from leuko.scheme import scheme_in
from leuko.support.text import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST_LIST: Final = 60


@dataclass(frozen=True)
class PageFigure:
    """A figure as the template wants it: an SVG that is safe as it stands, and words around it."""

    svg: str
    title: str
    caption: str
    shape: str = ""


@dataclass(frozen=True)
class ClassRow:
    """One class of the per-class table."""

    title: str
    number: int
    n: str
    slides: str
    note: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class EvaluationView:
    """Everything that the evaluation macros show."""

    figures: list[PageFigure]
    classes: list[ClassRow]
    warnings: list[str]
    facts: list[tuple[str, str]]
    mistakes: list[dict[str, str]]
    wrong: int
    slides: list[dict[str, str]]


@dataclass(frozen=True)
class OtherSet:
    """A set that does not decide, behind its headline."""

    title: str
    headline: str
    view: EvaluationView


@dataclass(frozen=True)
class ModelView:
    """A model's section."""

    title: str
    note: str
    number: int
    anchor: str
    seed: str
    run: str
    deciding: str
    curves: PageFigure | None
    headline: str
    view: EvaluationView | None
    others: list[OtherSet]
    runs: list[RunRow]
    set_titles: list[str]


@dataclass(frozen=True)
class AuditView:
    """Everything that the audit macro shows."""

    figures: list[PageFigure]
    findings: list[Document]
    skipped: str
    splits: list[dict[str, str]]
    shared: Document
    confounding: list[str]
    rejected: list[Document]
    rejected_count: int
    duplicates: list[Sequence[str]]
    duplicate_count: int
    near: list[list[str]]
    near_count: int
    alike: list[dict[str, str]]
    notes: list[str]


def evaluation_headline(evaluation: Document) -> str:
    """What share is right, with its interval and what a constant answer would reach."""
    one = evaluation["metrics"]["accuracy"]
    majority = evaluation["baselines"]["majority"]
    span = words.interval_text(one.get("low"), one.get("high"))
    return (
        f"{words.percent(one['value'])} of {counted(evaluation['n'], 'image')} right"
        f"{span}; always answering {majority['class']} gives "
        f"{words.percent(majority['accuracy'])}"
    )


def model_view(
    model: Document,
    number: int,
    deciding: str,
    names: Sequence[str],
    pictures: Mapping[str, Sequence[Thumbnail]],
) -> ModelView:
    """A model's section."""
    runs = model.get("runs") or ()
    evaluations = runs[0].get("evaluations", {}) if runs else {}
    history = model.get("history") or ()
    mark = f"m{number}"
    others = [
        OtherSet(
            tables.set_title(name),
            evaluation_headline(evaluations[name]),
            evaluation_view(evaluations[name], f"{mark}o{place}", None, brief=True),
        )
        for place, name in enumerate(name for name in names if name != deciding)
        if name in evaluations
    ]
    curves = None
    if history:
        curves = page_figure(
            plots.training_plot(history, colours=PAGE),
            f"{mark}-curves",
            "Training",
            "Best epoch by validation is the one that was kept.",
            shape="wide",
        )
    here = evaluations.get(deciding)
    return ModelView(
        title=tables.title_of(model),
        note=tables.model_note(model),
        number=number % len(PAGE.models),
        anchor=f"model-{number}",
        seed=str(runs[0].get("seed")) if runs else NONE,
        run=str(runs[0].get("run") or "") if runs else "",
        deciding=deciding,
        curves=curves,
        headline=evaluation_headline(here) if here else "",
        view=evaluation_view(here, mark, pictures.get(model["recipe"])) if here else None,
        others=others,
        runs=[tables.run_row(run, names) for run in runs],
        set_titles=[tables.set_title(name) for name in names],
    )


def evaluation_view(
    evaluation: Document,
    mark: str,
    mistakes: Sequence[Thumbnail] | None,
    *,
    brief: bool = False,
) -> EvaluationView:
    """Everything that the evaluation macros show, or only what fits behind a headline."""
    drawn = [
        (
            plots.confusion_plot(evaluation, colours=PAGE),
            "counts",
            "Confusion matrix",
            "Images; rows are the true class. The shade is the share of the row.",
        ),
        (
            plots.confusion_plot(evaluation, percent=True, colours=PAGE),
            "percent",
            "Confusion matrix, % of the row",
            "On the diagonal stands each class's sensitivity.",
        ),
    ]
    if not brief:
        drawn += [
            (
                plots.roc_plot(evaluation, colours=PAGE),
                "roc",
                "ROC, each class against the rest",
                "How many are found against how many others are taken for them.",
            ),
            (
                plots.pr_plot(evaluation, colours=PAGE),
                "pr",
                "Precision and recall",
                "Of those named so, how many are; of those that are, how many are named so.",
            ),
            (
                plots.sensitivity_plot({"": evaluation}, colours=PAGE),
                "sens",
                "Sensitivity by class",
                "No line: too few slides for an interval.",
            ),
            (
                plots.calibration_plot(evaluation, colours=PAGE),
                "calibration",
                "Calibration",
                "On the dotted line, confidence is the share that is right.",
            ),
        ]
    names = scheme_in(evaluation).names
    shapes = dict.fromkeys(("roc", "pr"), "wide") if len(names) > plots.LEGEND_INSIDE else {}
    return EvaluationView(
        figures=[
            page_figure(figure, f"{mark}-{name}", title, caption, shape=shapes.get(name, ""))
            for figure, name, title, caption in drawn
        ],
        classes=[
            _class_row(name, number, evaluation["per_class"].get(name) or {})
            for number, name in enumerate(names)
        ],
        warnings=list(evaluation.get("warnings") or ()),
        facts=_evaluation_facts(evaluation),
        mistakes=_mistake_views(evaluation, mistakes),
        wrong=sum(
            count
            for row, counts in enumerate(evaluation["confusion"])
            for column, count in enumerate(counts)
            if row != column
        ),
        slides=[] if brief else _slide_rows(evaluation),
    )


def _class_row(name: str, number: int, one: Document) -> ClassRow:
    """One class of the per-class table."""
    shares = [
        Cell(
            NONE if one.get(key) is None else words.percent(one[key]),
            words.bracket(one.get(f"{key}_interval") or {}),
        )
        for key in ("sensitivity", "specificity", "precision")
    ]
    score = Cell(
        NONE if one.get("f1") is None else f"{one['f1']:.3f}",
        words.bracket(one.get("f1_interval") or {}, decimals=True),
    )
    return ClassRow(
        title=name,
        number=number,
        n=f"{one.get('n') or 0:,}",
        slides=f"{one.get('slides') or 0:,}",
        note=one.get("note") or "",
        cells=(*shares, score),
    )


def _headline_figures(evaluation: Document) -> Iterator[tuple[str, str, str]]:
    """The three headline numbers: name, value and interval."""
    names = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
    for key, title in {**names, "macro_f1": "macro-F1"}.items():
        if one := evaluation["metrics"].get(key):
            decimals = key == "macro_f1"
            value = f"{one['value']:.3f}" if decimals else words.percent(one["value"])
            yield title, value, words.bracket(one, decimals=decimals)


def _evaluation_facts(evaluation: Document) -> list[tuple[str, str]]:
    """The numbers that stand beside the figures."""
    facts = [
        (f"{title[0].upper()}{title[1:]}", f"{value} {span}".strip())
        for title, value, span in _headline_figures(evaluation)
    ]
    majority = evaluation["baselines"]["majority"]
    facts.append(
        ("Majority baseline", f"{words.percent(majority['accuracy'])} ({majority['class']})")
    )
    facts.append(("Images, slides", f"{evaluation['n']:,}, {evaluation['n_slides']:,}"))
    facts += _decision_facts(evaluation)
    facts.append(("Calibration error", words.decimals(evaluation["calibration"].get("ece"))))
    facts.append(("Log loss", words.decimals(evaluation.get("log_loss"))))
    facts.append(("Brier score", words.decimals(evaluation.get("brier"))))
    return facts


def _decision_facts(evaluation: Document) -> list[tuple[str, str]]:
    """What is right among the most confident answers, and among the accepted."""
    facts = []
    for one in evaluation.get("selective") or ():
        if one["coverage"] == 0.95:
            facts.append(("Most confident 95%", f"{words.percent(one['accuracy'])} right"))
    found = evaluation.get("decisions")
    if not found:
        return facts
    answered = found["answered"]
    if answered is not None:
        facts.append(
            (
                "Accepted",
                f"{words.percent(answered['accuracy'])} of {answered['n']:,} right",
            )
        )
    counts = {name: count for name, count in found["counts"].items() if count}
    told = ", ".join(f"{name} {words.percent(n / evaluation['n'])}" for name, n in counts.items())
    facts.append(("Decisions", told))
    return facts


def headline_tiles(evaluation: Document) -> list[dict[str, str]]:
    """The three headline numbers, large."""
    tiles = [
        {"value": value, "title": title, "small": span}
        for title, value, span in _headline_figures(evaluation)
    ]
    majority = evaluation["baselines"]["majority"]
    tiles.append(
        {
            "value": words.percent(majority["accuracy"]),
            "title": f"always “{majority['class']}”",
            "small": "majority baseline",
        }
    )
    return tiles


def _mistake_views(
    evaluation: Document, mistakes: Sequence[Thumbnail] | None
) -> list[dict[str, str]]:
    """Mistakes for the gallery, with pictures where there are any."""
    numbers = {name: number for number, name in enumerate(scheme_in(evaluation).names)}
    if mistakes is None:
        mistakes = [Thumbnail(**one) for one in evaluation.get("worst") or ()]
    return [
        {
            "path": one.path,
            "name": PurePosixPath(one.path).name or one.path,
            "true": one.true,
            "predicted": one.predicted,
            "true_number": str(numbers.get(one.true, 0)),
            "predicted_number": str(numbers.get(one.predicted, 0)),
            "confidence": words.percent(one.confidence),
            "probability_of_true": words.percent(one.probability_of_true),
            "picture": f"data:image/jpeg;base64,{b64encode(one.jpeg).decode()}" if one.jpeg else "",
            "reason": one.reason,
        }
        for one in mistakes
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
            "accuracy": words.percent(one["accuracy"]),
        }
        for one in rows[:_LONGEST_LIST]
    ]


def hidden_findings(audit: Document) -> list[dict[str, str]]:
    """What the data hide, in plain words: the audit's warnings and what stands behind them."""
    found = [
        {"title": str(one.get("title", "")), "sentence": str(one.get("sentence", ""))}
        for one in audit.get("findings") or ()
        if one.get("level") == "warning"
    ]
    sentence = str((audit.get("background_test") or {}).get("sentence") or "")
    if sentence and sentence not in [one["sentence"] for one in found]:
        found.append({"title": "The background test", "sentence": sentence})
    return found


def audit_view(audit: Document) -> AuditView:
    """Everything that the audit macro shows."""
    near = audit.get("near_duplicates") or ()
    return AuditView(
        figures=_audit_figures(audit),
        findings=list(audit.get("findings") or ()),
        skipped=str((audit.get("background_test") or {}).get("skipped") or ""),
        splits=[
            {
                "name": name,
                "n": f"{one['n']:,}",
                "folder": str(one.get("folder", "")),
                "digest": str(one.get("digest") or "")[:12],
                "sizes": words.tally((audit.get("sizes") or {}).get(name)),
                "modes": words.tally((audit.get("modes") or {}).get(name)),
                "formats": words.tally((audit.get("formats") or {}).get(name)),
                "imbalance": words.ratio_text((audit.get("imbalance") or {}).get(name)),
            }
            for name, one in (audit.get("splits") or {}).items()
        ],
        shared=audit.get("shared_slides") or {"count": 0, "names": []},
        confounding=[str(one.get("sentence", "")) for one in audit.get("confounding") or ()],
        rejected=list(audit.get("rejected") or ())[:_LONGEST_LIST],
        rejected_count=len(audit.get("rejected") or ()),
        duplicates=list(audit.get("duplicates") or ())[:_LONGEST_LIST],
        duplicate_count=len(audit.get("duplicates") or ()),
        near=[[str(part) for part in one] for one in near[:_LONGEST_LIST]],
        near_count=audit.get("near_duplicate_count") or len(near),
        alike=[
            {
                "slides": " ~ ".join(str(name) for name in one["slides"]),
                "pairs": f"{one['pairs']:,}",
            }
            for one in audit.get("slides_photographed_again") or ()
        ][:_LONGEST_LIST],
        notes=[str(one) for one in audit.get("notes") or ()],
    )


def _audit_figures(audit: Document) -> list[PageFigure]:
    """Classes, slides, and what the background gives away."""
    figures = []
    scheme = scheme_in(audit)
    if audit.get("classes"):
        figures.append(
            page_figure(
                plots.class_counts_plot(audit["classes"], scheme, colours=PAGE),
                "audit-classes",
                "Classes",
                "Shares of each split, with the number of images.",
            )
        )
    background = audit.get("background_test") or {}
    if audit.get("slides"):
        figures.append(
            page_figure(
                plots.slides_plot(audit["slides"], scheme, colours=PAGE),
                "audit-slides",
                "Which slides the classes come from",
                "The area of a square is the share of the class in that split; a full square "
                "is a class from one slide alone.",
                shape="tall" if max(map(len, audit["slides"].values())) > 12 else "",
            )
        )
    if background.get("per_class_recall"):
        ring = background.get("ring")
        outer = f"the outer {100 * ring:g}% on each side" if ring else "the outer ring"
        figures.append(
            page_figure(
                plots.recall_plot(background["per_class_recall"], scheme, colours=PAGE),
                "audit-background",
                "What the background gives away",
                f"A classifier that sees only {outer} of each image, no cell: accuracy "
                f"{words.percent(background['accuracy'])}, balanced "
                f"{words.percent(background['balanced_accuracy'])}, majority baseline "
                f"{words.percent(background['majority'])}.",
            )
        )
    return figures


def page_figure(
    figure: Figure, name: str, title: str, caption: str, *, shape: str = ""
) -> PageFigure:
    """A figure as the template wants it."""
    from markupsafe import Markup

    text = plots.svg(figure, name=f"f-{name}", label=f"{title}. {caption}".strip())
    # The plot module escapes all text, and draws nothing but paths and text.
    return PageFigure(Markup(text), title, caption, shape)  # noqa: S704
