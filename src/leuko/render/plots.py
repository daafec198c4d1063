"""Plots of evaluations, comparisons and audits, drawn with Matplotlib.

Each function returns a Matplotlib ``Figure`` of its own; the state of ``pyplot`` is never touched.
`svg` turns one into text for a page, `png` into bytes. Documents are those of ``evaluation.json``,
``comparison.json`` and ``audit.json``. Needs the extra ``report``.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from leuko.errors import MissingExtraError
from leuko.render import tables, words
from leuko.render.style import Style, style, themed
from leuko.render.words import Document
from leuko.scheme import ClassScheme, scheme_in
from leuko.support.files import mark_own_picture
from leuko.support.text import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "calibration_plot",
    "class_counts_plot",
    "confusion_plot",
    "curves_png",
    "interval_plot",
    "pr_plot",
    "recall_plot",
    "require_matplotlib",
    "roc_plot",
    "sensitivity_plot",
    "slides_plot",
    "svg",
    "training_plot",
    "training_time_plot",
]

_DASHES: Final = (
    "-",
    (0, (6, 1.5)),
    (0, (1.2, 1.2)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
)
_MARKERS: Final = ("o", "s", "D", "^", "v", "P")
_HATCHES: Final = ("////", "....", "xxxx", "----", "||||", "++++", "oooo", "****")
_SLIDES: Final = 45
LEGEND_INSIDE: Final = 10
"""More curves than these have their legend beside the axes, in columns."""
_LEGEND_ROWS: Final = 19
_MARKER_ROOM: Final = 0.035


def require_matplotlib() -> None:
    """Raise before any work when no plot can be drawn.

    Raises
    ------
    MissingExtraError
        Without Matplotlib, naming the extra that brings it.
    """
    try:
        import matplotlib  # noqa: F401, ICN001
    except ImportError as error:
        raise MissingExtraError("Drawing plots", "report", "matplotlib") from error


def confusion_plot(
    evaluation: Document, *, percent: bool = False, colours: Style | None = None
) -> Figure:
    """Draw the confusion matrix: rows true, columns predicted.

    Parameters
    ----------
    evaluation : dict
        ``evaluation.json``.
    percent : bool
        Whether cells say percent of their row instead of counts. The shade is the row's share in
        both.
    colours : Style, optional
        Light paper when left out.

    Returns
    -------
    Figure
    """
    paint = colours or style()
    scheme = scheme_in(evaluation)
    wide = max(0.0, 0.52 * (len(scheme) - 5))
    figure, axes = _figure(4.3 + wide, 3.9 + wide, paint)
    rows = evaluation["confusion"]
    for row, counts in enumerate(rows):
        total = sum(counts)
        for column, count in enumerate(counts):
            share = count / total if total else 0.0
            if share:
                axes.add_patch(
                    _rectangle(
                        column - 0.5,
                        row - 0.5,
                        1,
                        1,
                        paint.accent if row == column else paint.warn,
                        alpha=_shade(share),
                    )
                )
            text = f"{count:,}"
            if percent:
                text = words.NONE if not total else _percent_text(share)
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=10,
                color=paint.on_accent if _shade(share) > 0.55 else paint.ink,
                alpha=1.0 if count else 0.45,
            )
    ticks, end = range(len(scheme)), len(scheme) - 0.5
    axes.set_xticks(ticks, _abbreviations(scheme), rotation=90 if len(scheme) > 8 else 0)
    axes.set_yticks(ticks, _names(scheme))
    axes.set(xlim=(-0.5, end), ylim=(end, -0.5), xlabel="predicted", ylabel="true", aspect="equal")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for edge in range(len(scheme) + 1):
        axes.axhline(edge - 0.5, color=paint.line, linewidth=0.8)
        axes.axvline(edge - 0.5, color=paint.line, linewidth=0.8)
    return figure


def roc_plot(evaluation: Document, *, colours: Style | None = None) -> Figure:
    """Draw one ROC curve for each class against the rest.

    Parameters
    ----------
    evaluation : dict
        ``evaluation.json``.
    colours : Style, optional
        Light paper when left out.

    Returns
    -------
    Figure
    """
    paint = colours or style()
    scheme = scheme_in(evaluation)
    figure, axes = _figure(4.3 + _room_beside(len(scheme)), 3.9, paint)
    axes.plot((0, 1), (0, 1), color=paint.muted, linewidth=0.8, dashes=(2, 3))
    for index, name in enumerate(scheme.names):
        curve = evaluation["roc"].get(name) or {}
        if curve.get("fpr"):
            label = _curve_label(name, curve.get("auc"), scheme)
            axes.plot(curve["fpr"], curve["tpr"], label=label, **_line(paint, scheme, index))
    axes.set(xlabel="false positive rate (1 − specificity)", ylabel="sensitivity")
    _unit_square(axes)
    _legend(axes, paint, "area under the curve", "lower right")
    return figure


def pr_plot(evaluation: Document, *, colours: Style | None = None) -> Figure:
    """Draw one precision-recall curve for each class against the rest.

    Parameters
    ----------
    evaluation : dict
        ``evaluation.json``.
    colours : Style, optional
        Light paper when left out.

    Returns
    -------
    Figure
    """
    paint = colours or style()
    scheme = scheme_in(evaluation)
    figure, axes = _figure(4.3 + _room_beside(len(scheme)), 3.9, paint)
    for index, name in enumerate(scheme.names):
        curve = evaluation["pr"].get(name) or {}
        if curve.get("recall"):
            label = _curve_label(name, curve.get("average_precision"), scheme)
            axes.plot(
                curve["recall"], curve["precision"], label=label, **_line(paint, scheme, index)
            )
    axes.set(xlabel="recall (sensitivity)", ylabel="precision")
    _unit_square(axes)
    _legend(axes, paint, "average precision", "lower left")
    return figure


def calibration_plot(evaluation: Document, *, colours: Style | None = None) -> Figure:
    """Draw accuracy against confidence in bins, and how many images each bin holds.

    Parameters
    ----------
    evaluation : dict
        ``evaluation.json``.
    colours : Style, optional
        Light paper when left out.

    Returns
    -------
    Figure
    """
    paint = colours or style()
    figure, axes = _figure(4.3, 3.9, paint)
    bins = [one for one in evaluation["calibration"]["bins"] if one["n"]]
    total = sum(one["n"] for one in bins) or 1
    for one in bins:
        axes.add_patch(
            _rectangle(
                one["low"],
                0,
                one["high"] - one["low"],
                0.25 * one["n"] / total,
                paint.muted,
                alpha=0.3,
            )
        )
    axes.plot((0, 1), (0, 1), color=paint.muted, linewidth=0.8, dashes=(2, 3))
    axes.plot(
        [one["confidence"] for one in bins],
        [one["accuracy"] for one in bins],
        color=paint.accent,
        marker="o",
        markersize=5,
        linewidth=1.6,
    )
    axes.set(xlabel="confidence", ylabel="share that is right")
    _unit_square(axes)
    axes.text(
        0.04,
        0.95,
        f"ECE {words.decimals(evaluation['calibration'].get('ece'))}",
        color=paint.ink,
        fontsize=10,
        va="top",
    )
    axes.text(0.04, 0.87, "grey: share of images", color=paint.muted, fontsize=9, va="top")
    return figure


def training_plot(history: Sequence[Document], *, colours: Style | None = None) -> Figure:
    """Draw accuracy and loss by epoch, in training and in validation.

    Parameters
    ----------
    history : sequence of dict
        One for each epoch: ``epoch`` and any of ``accuracy``, ``val_accuracy``, ``loss``,
        ``val_loss``. Missing or undefined values leave a gap.
    colours : Style, optional
        Light paper when left out.

    Returns
    -------
    Figure
    """
    paint = colours or style()
    figure, (left, right) = _figure(8.0, 3.1, paint, columns=2)
    epochs = [float(row.get("epoch", number)) for number, row in enumerate(history, start=1)]
    marker = "o" if len(epochs) < 25 else None
    for axes, name in ((left, "accuracy"), (right, "loss")):
        for key, label, colour, dash in (
            (name, "training", paint.muted, (0, (4, 1.5))),
            (f"val_{name}", "validation", paint.accent, "-"),
        ):
            values = [_number(row.get(key)) for row in history]
            if any(math.isfinite(value) for value in values):
                axes.plot(
                    epochs,
                    values,
                    label=label,
                    color=colour,
                    linestyle=dash,
                    marker=marker,
                    markersize=3,
                    linewidth=1.7,
                )
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(epochs) == 1:
            axes.set_xticks(epochs)
        _legend(axes, paint, None, "best")
    return figure


def curves_png(history: Sequence[Document]) -> bytes:
    """Draw a run's training curves for its folder.

    Parameters
    ----------
    history : sequence of dict
        See `training_plot`.

    Returns
    -------
    bytes
        A PNG of 1120 by 434 pixels; equal histories give equal bytes.
    """
    with _settings():
        figure = training_plot(history)
        figure.set_facecolor(style().card)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=140, metadata={"Software": None})
    return mark_own_picture(file.getvalue())


def sensitivity_plot(
    evaluations: Mapping[str, Document], *, colours: Style | None = None
) -> Figure:
    """Draw every class's sensitivity with its interval, for one model or several.

    Parameters
    ----------
    evaluations : dict of str to dict
        ``evaluation.json`` of each model, by the name to show.
    colours : Style, optional
        Light paper when left out.

    Returns
    -------
    Figure
        Classes under five slides have no interval and say so.
    """
    paint = colours or style()
    several = len(evaluations) > 1
    step = 0.7 / max(1, len(evaluations))
    scheme = scheme_in(next(iter(evaluations.values())))
    height = 1.0 + len(scheme) * max(0.5, 0.24 * len(evaluations)) + (0.3 if several else 0)
    figure, axes = _figure(5.2, height, paint)
    first = next(iter(evaluations.values()))["per_class"]
    lowest = 1.0
    for number, (key, evaluation) in enumerate(evaluations.items()):
        name = _clipped(key, 44)
        for index, title in enumerate(scheme.names):
            one = evaluation["per_class"].get(title) or {}
            value = one.get("sensitivity")
            if value is None:
                continue
            at = index + (number - (len(evaluations) - 1) / 2) * step
            colour = _model_colour(paint, number) if several else paint.classes(scheme)[index]
            span = one.get("sensitivity_interval")
            if span:
                axes.plot((span["low"], span["high"]), (at, at), color=colour, linewidth=2.2)
                lowest = min(lowest, span["low"])
            lowest = min(lowest, value)
            shown = name in axes.get_legend_handles_labels()[1]
            axes.plot(
                value,
                at,
                color=colour,
                marker=_marker(number),
                markersize=7,
                linestyle="none",
                label=name if several and not shown else None,
            )
    labels = []
    for title in scheme.names:
        one = first.get(title) or {}
        n, slides = one.get("n") or 0, one.get("slides") or 0
        few = ", too few for an interval" if one.get("note") == "too few slides" else ""
        told = f"{n:,} on {counted(slides, 'slide')}{few}" if n else "absent"
        labels.append(f"{_clipped(title, 24)}\n{told}")
    axes.set_yticks(range(len(scheme)), labels)
    axes.set(ylim=(len(scheme) - 0.4, -0.6), xlabel="sensitivity (95% interval over slides)")
    _percent_axis(axes, max(0.0, math.floor(lowest * 10 - 0.3) / 10), 1.0, margin=_MARKER_ROOM)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    if several:
        _legend(axes, paint, None, "upper left", above=True)
    return figure


def class_counts_plot(
    classes: Mapping[str, Mapping[str, int]],
    scheme: ClassScheme,
    *,
    colours: Style | None = None,
) -> Figure:
    """Draw how many images each split has of each class.

    Parameters
    ----------
    classes : dict of str to dict of str to int
        ``classes`` of ``audit.json``: by split, then by class.
    scheme : ClassScheme
        Of the data set.
    colours : Style, optional
        Light paper when left out.

    Returns
    -------
    Figure
        Bars of each split side by side, as shares of the split, with the counts written.
    """
    paint = colours or style()
    splits = list(classes)
    step = 0.8 / max(1, len(splits))
    figure, axes = _figure(5.2, 1.0 + 0.26 * len(scheme) * (len(splits) + 0.6), paint)
    largest = 0.0
    for number, split in enumerate(splits):
        total = sum(classes[split].values()) or 1
        for index, name in enumerate(scheme.names):
            count = classes[split].get(name, 0)
            share = count / total
            largest = max(largest, share)
            at = index + (number - (len(splits) - 1) / 2) * step
            axes.add_patch(
                _rectangle(
                    0,
                    at - step * 0.44,
                    share,
                    step * 0.88,
                    paint.classes(scheme)[index],
                    alpha=1.0 if number == 0 else 0.55,
                    hatch=scheme.hatches[index],
                )
            )
            _say(axes, share, at, f"{split} {count:,}" if len(splits) > 1 else f"{count:,}", paint)
    axes.set_yticks(range(len(scheme)), _names(scheme))
    axes.set(ylim=(len(scheme) - 0.4, -0.6), xlabel="share of the split")
    axes.tick_params(axis="y", length=0)
    _percent_axis(axes, 0.0, min(1.3, max(largest * 1.3, 0.05)))
    axes.grid(axis="y", visible=False)
    return figure


def slides_plot(
    slides: Mapping[str, Mapping[str, Mapping[str, int]]],
    scheme: ClassScheme,
    *,
    colours: Style | None = None,
) -> Figure:
    """Draw which slides each class comes from, split by split.

    Parameters
    ----------
    slides : dict
        ``slides`` of ``audit.json``: by split, then by slide, then by class, counts.
    scheme : ClassScheme
        Of the data set.
    colours : Style, optional
        Light paper when left out.

    Returns
    -------
    Figure
        One row a slide, the 45 with most images; an area stands for a share of the class in that
        split, so a full square is a class that comes from one slide alone.
    """
    paint = colours or style()
    splits = list(slides)
    totals: dict[str, int] = {}
    for table in slides.values():
        for slide, counts in table.items():
            totals[slide] = totals.get(slide, 0) + sum(counts.values())
    kept = sorted(sorted(totals, key=lambda slide: (-totals[slide], slide))[:_SLIDES])
    figure, axes = _figure(
        1.3 + 0.24 * len(scheme) * len(splits), 1.2 + 0.2 * max(4, len(kept)), paint
    )
    places: list[float] = []
    for number, split in enumerate(splits):
        start = number * (len(scheme) + 0.8)
        places += [start + index for index in range(len(scheme))]
        rows = [slides[split].get(slide, {}) for slide in kept]
        _slide_squares(axes, slides[split], rows, scheme, start, paint)
        axes.text(
            start + (len(scheme) - 1) / 2,
            -1.1,
            _clipped(split, 20),
            ha="center",
            va="bottom",
            color=paint.ink,
            fontsize=10,
            fontweight="bold",
        )
    axes.set_yticks(range(len(kept)), [_clipped(slide, 24) for slide in kept], fontsize=8)
    axes.set_xticks(places, _abbreviations(scheme) * len(splits), rotation=90, fontsize=8)
    axes.set(
        xlim=(-0.8, max(places, default=1) + 0.8), ylim=(len(kept) - 0.2, -2.2), aspect="equal"
    )
    axes.tick_params(length=0)
    axes.grid(visible=False)
    return figure


def _slide_squares(
    axes: Any,
    split: Mapping[str, Mapping[str, int]],
    rows: Sequence[Mapping[str, int]],
    scheme: ClassScheme,
    start: float,
    paint: Style,
) -> None:
    """One split's columns: a dot for every place, and a square for the slide's share of a class."""
    for index, name in enumerate(scheme.names):
        total = sum(counts.get(name, 0) for counts in split.values()) or 1
        for row, counts in enumerate(rows):
            if counts.get(name, 0):
                side = max(0.14, 0.94 * math.sqrt(counts[name] / total))
                axes.add_patch(
                    _rectangle(
                        start + index - side / 2,
                        row - side / 2,
                        side,
                        side,
                        paint.classes(scheme)[index],
                        hatch=scheme.hatches[index],
                    )
                )
    spots = [(start + index, row) for index in range(len(scheme)) for row in range(len(rows))]
    axes.plot(
        *zip(*spots, strict=True),
        linestyle="none",
        marker=".",
        markersize=1.2,
        color=paint.muted,
        zorder=0,
    )


def recall_plot(
    recall: Mapping[str, float | None], scheme: ClassScheme, *, colours: Style | None = None
) -> Figure:
    """Draw one bar for each class: what is recalled from the background alone.

    Parameters
    ----------
    recall : dict of str to float or None
        By class, 0 to 1.
    scheme : ClassScheme
        Of the data set.
    colours : Style, optional
        Light paper when left out.

    Returns
    -------
    Figure
    """
    paint = colours or style()
    figure, axes = _figure(5.2, 0.8 + 0.32 * len(scheme), paint)
    for index, name in enumerate(scheme.names):
        value = recall.get(name)
        if value is None:
            axes.text(0.01, index, "absent", va="center", fontsize=9, color=paint.muted)
            continue
        axes.add_patch(
            _rectangle(
                0,
                index - 0.36,
                value,
                0.72,
                paint.classes(scheme)[index],
                hatch=scheme.hatches[index],
            )
        )
        _say(axes, value, index, f"{100 * value:.0f}%", paint)
    axes.set_yticks(range(len(scheme)), _names(scheme))
    axes.set(ylim=(len(scheme) - 0.4, -0.6), xlabel="recalled without seeing the cell")
    axes.tick_params(axis="y", length=0)
    _percent_axis(axes, 0.0, 1.1)
    axes.grid(axis="y", visible=False)
    return figure


def interval_plot(
    comparison: Document, *, metric: str = "accuracy", colours: Style | None = None
) -> Figure:
    """Draw every model's result on every set with its interval: validation, test, each unseen.

    Parameters
    ----------
    comparison : dict
        ``comparison.json``.
    metric : {"accuracy", "balanced_accuracy", "macro_f1"}
        What to draw.
    colours : Style, optional
        Light paper when left out.

    Returns
    -------
    Figure
        For accuracy a short upright line marks the majority baseline of each set; where
        trainings have validation sets of their own, each model has a line, the mean of its own.
    """
    paint = colours or style()
    models = comparison["models"]
    names = list(dict.fromkeys(name for model in models for name in model["mean"]))
    step = 0.72 / max(1, len(models))
    row = max(0.5, 0.2 * len(models))
    figure, axes = _figure(5.2, 1.05 + row * len(names) + 0.22 * len(models), paint)
    lowest = 1.0
    for number, model in enumerate(models):
        colour = _model_colour(paint, number)
        for index, name in enumerate(names):
            one = (model["mean"].get(name) or {}).get(metric)
            if not one:
                continue
            at = index + (number - (len(models) - 1) / 2) * step
            if one.get("low") is not None and one.get("high") is not None:
                axes.plot((one["low"], one["high"]), (at, at), color=colour, linewidth=2.2)
                lowest = min(lowest, one["low"])
            lowest = min(lowest, one["mean"])
            axes.plot(one["mean"], at, color=colour, marker=_marker(number), markersize=7)
        axes.plot(
            [],
            [],
            color=colour,
            marker=_marker(number),
            markersize=7,
            linewidth=2.2,
            label=_clipped(tables.title_of(model), 44),
        )
    if metric == "accuracy":
        label: str | None = "always the commonest class"
        for index, name in enumerate(names):
            shares = [_majority(model, name) for model in models]
            known = [share for share in shares if share is not None]
            lowest = min([lowest, *known])
            if len(set(known)) == 1:  # one set for all, so one line
                spans = [(known[0], index - 0.42, index + 0.42)]
            else:
                starts = [index - 0.36 + number * step for number in range(len(models))]
                spans = [
                    (share, start, start + step)
                    for share, start in zip(shares, starts, strict=True)
                    if share is not None
                ]
            for share, *ends in spans:
                axes.plot((share, share), ends, color=paint.ink, linewidth=1.4, label=label)
                label = None
    axes.set_yticks(range(len(names)), [_clipped(name, 22) for name in names])
    titles = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro-F1"}
    axes.set(ylim=(len(names) - 0.4, -0.6))
    axes.set_xlabel(f"{titles.get(metric, metric)} (95% interval over slides)")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    _percent_axis(axes, max(0.0, math.floor(lowest * 10 - 0.2) / 10), 1.0, margin=_MARKER_ROOM)
    _legend(axes, paint, None, "upper left", above=True)
    return figure


def training_time_plot(comparison: Document, *, colours: Style | None = None) -> Figure:
    """Draw how long each model's training took, mean over its seeds.

    Parameters
    ----------
    comparison : dict
        ``comparison.json``.
    colours : Style, optional
        Light paper when left out.

    Returns
    -------
    Figure
    """
    paint = colours or style()
    models = comparison["models"]
    figure, axes = _figure(5.2, 0.85 + 0.5 * len(models), paint)
    means = []
    for model in models:
        totals = [
            float(run["seconds"]["total"])
            for run in model.get("runs", ())
            if (run.get("seconds") or {}).get("total") is not None
        ]
        means.append(sum(totals) / len(totals) / 60 if totals else 0.0)
    for number, minutes in enumerate(means):
        colour = _model_colour(paint, number)
        axes.add_patch(_rectangle(0, number - 0.32, minutes, 0.64, colour))
        _say(axes, minutes, number, f"{minutes:.1f} min" if minutes else "not known", paint)
    labels = [_clipped(tables.title_of(model), 26) for model in models]
    axes.set_yticks(range(len(models)), labels)
    axes.set(ylim=(len(models) - 0.4, -0.6), xlim=(0, max(means, default=0.0) * 1.25 or 1.0))
    axes.set_xlabel("minutes of training")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    return figure


def svg(figure: Figure, *, name: str, label: str) -> str:
    """Turn a figure into an SVG element for an HTML page.

    Parameters
    ----------
    figure : Figure
        Drawn with the colours `leuko.render.style.PAGE` it follows the page's theme.
    name : str
        Letters, digits and dashes; figures of one page need different names.
    label : str
        What the figure shows, for readers who cannot see it.

    Returns
    -------
    str
        An ``<svg>`` element: no namespaces, no style sheet, no dates, and only identifiers that
        begin with `name`. Equal figures give equal text.
    """
    file = io.StringIO()
    for axes in figure.axes:
        for artist in (*axes.texts, *axes.lines, *axes.patches):
            artist.set_in_layout(False)  # they lie inside, and measuring them takes half the time
    with _settings(), warnings.catch_warnings():
        # Text stays text: the reader's own fonts show it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        mpl.rcParams["svg.fonttype"] = "none"
        mpl.rcParams["svg.hashsalt"] = name
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        # The canvas itself: Figure.savefig would lay out and draw everything twice.
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(file, metadata=empty)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(
        r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL
    )
    text = re.sub(r"<defs>\s*</defs>", "", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px; font-family: inherit", text)
    text = re.sub(
        r"font: bold ([\d.]+)px [^;\"]*|font: 700 ([\d.]+)px [^;\"]*",
        r"font-size: \1\2px; font-weight: 600; font-family: inherit",
        text,
    )
    text = text.replace("xlink:href", "href")
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r"(href=\"#|url\(#)", rf"\1{name}-", text)
    text = re.sub(r"font-family: '[^;\"]*", "font-family: inherit", text)
    text = re.sub(r' transform="rotate\(-?0 [^"]*"', "", text)
    text = re.sub(r' d="[^"]*"', lambda m: _short_path(m[0]), text)
    width, height = (float(value) for value in re.findall(r'viewBox="0 0 (\S+) (\S+)"', text)[0])
    opening = (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{_attribute(label)}" style="--w:{width * 4 / 3:.0f}px">'
    )
    text = re.sub(r"^<svg[^>]*>", lambda _: opening, text)
    return themed(re.sub(r"\n\s*", "\n", text).strip())


def _figure(width: float, height: float, paint: Style, *, columns: int = 1) -> tuple[Figure, Any]:
    """A figure in inches with one or more bare axes, independent of anyone's settings."""
    with _settings():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        engine: Any = figure.get_layout_engine()
        figure.set_facecolor("none")
        engine.set(w_pad=0.02, h_pad=0.02)
        panels = figure.subplots(1, columns, squeeze=False)[0]
    for axes in panels:
        axes.set_axisbelow(True)
        axes.set_facecolor("none")
        axes.grid(visible=True, color=paint.line, linewidth=0.7)
        axes.tick_params(colors=paint.ink, length=3, color=paint.line, labelsize=9)
        axes.xaxis.label.set(color=paint.muted, fontsize=10)
        axes.yaxis.label.set(color=paint.muted, fontsize=10)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure, panels[0] if columns == 1 else panels


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Matplotlib's own defaults for a moment, whatever the user has set."""
    require_matplotlib()
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        yield


def _rectangle(
    left: float,
    top: float,
    width: float,
    height: float,
    colour: str,
    *,
    alpha: float = 1.0,
    hatch: int = 0,
) -> Any:
    """A box without an edge: filled, or hatched in its own way where colours are used again."""
    from matplotlib.patches import Rectangle

    if hatch:
        return Rectangle(
            (left, top), width, height, facecolor="none", edgecolor=colour,
            hatch=_HATCHES[(hatch - 1) % len(_HATCHES)], linewidth=0.6, alpha=alpha,
        )  # fmt: skip
    return Rectangle((left, top), width, height, facecolor=colour, linewidth=0, alpha=alpha)


def _say(axes: Any, across: float, row: float, text: str, paint: Style) -> None:
    """Write beside the end of a bar."""
    axes.annotate(
        _clipped(text, 60),
        (across, row),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=paint.ink,
    )


def _line(paint: Style, scheme: ClassScheme, index: int) -> dict[str, Any]:
    """A class's colour and dashes: no line is told by its colour alone."""
    dashes = _DASHES[(index + scheme.hatches[index]) % len(_DASHES)]
    return {"color": paint.classes(scheme)[index], "linestyle": dashes, "linewidth": 2.0}


def _names(scheme: ClassScheme) -> list[str]:
    """Names of classes, as they fit beside an axis."""
    return [_clipped(name, 24) for name in scheme.names]


def _abbreviations(scheme: ClassScheme) -> list[str]:
    """Abbreviations of classes, as they fit below an axis."""
    return [_clipped(one.abbreviation, 6) for one in scheme.classes]


def _legend(axes: Any, paint: Style, title: str | None, place: str, *, above: bool = False) -> None:
    """A legend in the axes, on a ground that keeps it readable, or above them; none of nothing."""
    entries = len(axes.get_legend_handles_labels()[1])
    if not entries:
        return
    options: dict[str, Any] = {"loc": place, "handlelength": 2.6}
    if entries > LEGEND_INSIDE and not above:
        columns = math.ceil(entries / _LEGEND_ROWS)
        options = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "ncols": columns}
        options |= {"handlelength": 2.0, "columnspacing": 1.0, "fontsize": 8}
        axes.set_anchor("W")
    if above:
        options = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
    legend = axes.legend(
        title=title,
        frameon=not above,
        facecolor=paint.card,
        edgecolor="none",
        framealpha=0.85,
        fancybox=False,
        title_fontsize=9,
        labelcolor=paint.ink,
        **{"fontsize": 9, **options},
    )
    legend.get_title().set_color(paint.ink)


def _curve_label(name: str, value: float | None, scheme: ClassScheme) -> str:
    """A class and its figure, shorter where the legend has columns."""
    return f"{_clipped(name, 24 if len(scheme) <= LEGEND_INSIDE else 20)}  {words.decimals(value)}"


def _room_beside(classes: int) -> float:
    """Inches for a legend of so many curves that stands beside the axes."""
    return 2.3 * math.ceil(classes / _LEGEND_ROWS) if classes > LEGEND_INSIDE else 0.0


def _unit_square(axes: Any) -> None:
    """Both axes from 0 to 1."""
    axes.set(xlim=(-0.015, 1.015), ylim=(-0.015, 1.015), aspect="equal")


def _percent_axis(axes: Any, low: float, high: float, *, margin: float = 0.004) -> None:
    """The axis across in percent, with a share of it as room on both sides."""
    span = min(high, 1.0) - low
    step = next(
        size for size in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if span / size <= 7 or size > 0.2
    )
    ticks = [low + step * number for number in range(int(span / step + 1e-6) + 1)]
    axes.set_xticks(ticks, [f"{100 * tick:.0f}%" for tick in ticks])
    axes.set_xlim(low - margin * (high - low), high + margin * (high - low))


def _shade(share: float) -> float:
    """Opacity of a cell: small shares stay visible."""
    return 0.10 + 0.85 * share if share else 0.0


def _model_colour(paint: Style, number: int) -> str:
    """Colour of the model in this place."""
    return paint.models[number % len(paint.models)]


def _marker(number: int) -> str:
    """Marker of the model in this place."""
    return _MARKERS[number % len(_MARKERS)]


def _majority(model: Document, name: str) -> float | None:
    """Majority baseline of a set, the mean over a model's runs; None where it is not known."""
    shares = [
        float(report["baselines"]["majority"]["accuracy"])
        for report in tables.reports_on([model], name)
    ]
    return math.fsum(shares) / len(shares) if shares else None


def _percent_text(share: float) -> str:
    """A share of a row: certainty only where it is certain."""
    return f"{100 * share:.0f}" if share in (0.0, 1.0) else words.points(share)


def _number(value: Any) -> float:
    """A float; not-a-number where there is none."""
    return math.nan if value is None or value == "" else float(value)


def _clipped(text: str, length: int) -> str:
    """A name that fits, with nothing that Matplotlib would take for mathematics."""
    plain = "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")
    return plain if len(plain) <= length else f"{plain[: length - 1]}…"


def _short_path(path: str) -> str:
    """A path's data with two decimals, on one line."""
    return " ".join(re.sub(r"(\.\d{2})\d+", r"\1", path).split()).replace(' "', '"').join((" ", ""))


def _attribute(text: str) -> str:
    """Text as the value of an attribute."""
    from markupsafe import escape

    return str(escape(text))
