"""Plots: deterministic, free of outside state, and what they say is what the document says."""

from __future__ import annotations

import copy
import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from PIL import Image

from five import CLASSES
from leuko.render import plots
from leuko.render.style import PAGE, css_variables, style, themed
from leuko.scheme import load_scheme, scheme_of

pytest.importorskip("matplotlib", reason="plots need the extra 'report'")

HISTORY = [
    {"epoch": 1.0, "accuracy": 0.5, "val_accuracy": 0.4, "loss": 1.2, "val_loss": 1.4},
    {"epoch": 2.0, "accuracy": 0.8, "val_accuracy": None, "loss": 0.6, "val_loss": float("nan")},
    {"epoch": 3.0, "accuracy": 0.9, "val_accuracy": 0.8, "loss": 0.3, "val_loss": 0.5},
]


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter() if element.tag == "text"]


def contrast(first, second):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_curves_are_a_png_and_the_same_each_time():
    first, second = plots.curves_png(HISTORY), plots.curves_png(list(HISTORY))
    assert first == second
    with Image.open(io.BytesIO(first)) as image:
        assert image.format == "PNG"
        assert image.size == (1120, 434)


def test_curves_do_not_depend_on_the_users_settings():
    import matplotlib as mpl

    plain = plots.curves_png(HISTORY)
    with mpl.rc_context({"lines.linewidth": 9, "font.size": 30, "savefig.dpi": 33}):
        assert plots.curves_png(HISTORY) == plain
        assert mpl.rcParams["font.size"] == 30


@pytest.mark.parametrize("history", [[], HISTORY[:1], [{"epoch": 1.0, "loss": 2.0}]])
def test_short_histories_have_curves_too(history):
    assert plots.curves_png(history).startswith(b"\x89PNG")


@pytest.mark.slow
def test_pyplot_is_never_loaded():
    # In a process of its own: another test's library may have loaded pyplot here.
    code = (
        "import sys; from leuko.render import plots;"
        "plots.curves_png([{'epoch': 1.0, 'accuracy': 0.5, 'loss': 1.0}]);"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_confusion_matrix_shows_the_counts(evaluation):
    shown = texts(plots.svg(plots.confusion_plot(evaluation, colours=PAGE), name="c", label="c"))
    counts = [f"{count:,}" for row in evaluation["confusion"] for count in row]
    assert [text for text in shown if re.fullmatch(r"[\d,]+", text)] == counts


def test_the_confusion_matrix_in_percent_sums_to_100(evaluation):
    figure = plots.confusion_plot(evaluation, percent=True, colours=PAGE)
    shown = texts(plots.svg(figure, name="c", label="c"))
    shares = [float(text) for text in shown if re.fullmatch(r"[\d.]+", text)]
    assert len(shares) == 25
    for row in range(5):
        assert sum(shares[5 * row : 5 * row + 5]) == pytest.approx(100, abs=0.3)


def test_areas_under_the_curves_are_the_documents(evaluation):
    shown = texts(plots.svg(plots.roc_plot(evaluation, colours=PAGE), name="r", label="r"))
    for name in CLASSES:
        assert f"{name}  {evaluation['roc'][name]['auc']:.3f}" in shown


def test_a_class_that_is_absent_is_left_out(evaluation):
    empty = {"fpr": [], "tpr": [], "auc": None}
    without = evaluation | {"roc": evaluation["roc"] | {"Basophil": empty}}
    shown = texts(plots.svg(plots.roc_plot(without, colours=PAGE), name="r", label="r"))
    assert not any(text and "Basophil" in text for text in shown)
    nothing = evaluation | {"roc": dict.fromkeys(CLASSES, empty)}
    assert plots.roc_plot(nothing, colours=PAGE).axes[0].get_legend() is None


@pytest.mark.parametrize(("classes", "columns"), [(10, 0), (13, 1), (21, 2), (45, 3)])
def test_many_curves_have_their_legend_beside_them(evaluation, classes, columns):
    names = [f"A long name of a class, {place}" for place in range(classes)]
    curves = {name: {"fpr": [0, 0.2, 1], "tpr": [0, 0.9, 1], "auc": 0.85} for name in names}
    document = evaluation | {"scheme": scheme_of(names).to_dict(), "roc": curves}
    figure = plots.roc_plot(document)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    frame, legend = axes.get_window_extent(), axes.get_legend()
    place = legend.get_window_extent()
    assert len(legend.get_texts()) == classes
    if not columns:
        assert frame.x0 <= place.x0 < place.x1 <= frame.x1
        return
    assert len({round(text.get_window_extent().x0) for text in legend.get_texts()}) == columns
    assert frame.x1 <= place.x0
    assert place.x1 <= figure.bbox.width
    assert place.y0 >= 0


def marker_rooms(figure):
    """Pixels from each marker's edge to the left and the right edge of the axes."""
    figure.draw_without_rendering()
    (axes,) = figure.axes
    frame = axes.get_window_extent()
    rooms = []
    for line in axes.lines:
        if line.get_marker() not in (None, "None") and len(line.get_xdata()):
            across = axes.transData.transform((float(line.get_xdata()[0]), 0))[0]
            shape = line.get_marker()
            half = line.get_markersize() * (0.5**0.5 if shape == "D" else 0.5)
            half = (half + line.get_markeredgewidth() / 2) * figure.dpi / 72
            rooms.append((across - half - frame.x0, frame.x1 - across - half))
    return rooms


def test_no_marker_is_cut_by_the_axis(evaluation):
    sides = []
    for share in (0.0, 1.0):
        per_class = {
            name: one | {"sensitivity": share, "sensitivity_interval": None}
            for name, one in evaluation["per_class"].items()
        }
        sides.append(evaluation | {"per_class": per_class})
    models = {"a": sides[0], "b": sides[1], "c": sides[0], "d": sides[1]}
    rooms = marker_rooms(plots.sensitivity_plot(models))
    assert len(rooms) == 20
    assert min(min(room) for room in rooms) >= 0


def test_the_plot_of_all_sets_has_room_for_nought_and_all(comparison):
    changed = copy.deepcopy(comparison)
    for model, share in zip(changed["models"], (0.0, 1.0), strict=True):
        for one in model["mean"].values():
            one["accuracy"].update(mean=share, low=None, high=None)
    rooms = marker_rooms(plots.interval_plot(changed))
    assert len(rooms) == 6
    assert min(min(room) for room in rooms) >= 0


def baselines(figure):
    """Where upright lines stand, and from where to where."""
    return [
        (float(line.get_xdata()[0]), *(round(float(one), 2) for one in line.get_ydata()))
        for line in figure.axes[0].lines
        if len(line.get_xdata()) == 2 and line.get_xdata()[0] == line.get_xdata()[1]
    ]


def test_a_set_has_one_baseline_and_validation_sets_of_their_own_have_theirs(comparison):
    first = comparison["models"][0]["runs"][0]["evaluations"]
    shares = [first[name]["baselines"]["majority"]["accuracy"] for name in first]
    drawn = baselines(plots.interval_plot(comparison))
    spans = [(-0.42, 0.42), (0.58, 1.42), (1.58, 2.42)]
    assert drawn == [(pytest.approx(one), *span) for one, span in zip(shares, spans, strict=True)]
    changed = copy.deepcopy(comparison)
    for run, share in zip(changed["models"][1]["runs"], (0.3, 0.5), strict=True):
        run["evaluations"]["validation"]["baselines"]["majority"]["accuracy"] = share
    assert baselines(plots.interval_plot(changed)) == [
        (pytest.approx(shares[0]), -0.36, 0.0), (pytest.approx(0.4), 0.0, 0.36), *drawn[1:],
    ]  # fmt: skip


def test_an_svg_is_part_of_its_page(evaluation):
    figure = plots.pr_plot(evaluation, colours=PAGE)
    svg = plots.svg(figure, name="f-pr", label='A "quoted" <label>')
    assert "http" not in svg
    assert "<style" not in svg
    assert "var(--class-0)" in svg
    assert "var(--ink)" in svg
    assert not re.search(r"#01[0-9a-f]{4}", svg)
    assert all(name.startswith("f-pr-") for name in re.findall(r' id="([^"]+)"', svg))
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', svg)
    assert used
    assert set(used) <= set(re.findall(r' id="([^"]+)"', svg))
    root = ET.fromstring(svg)
    assert root.get("aria-label") == 'A "quoted" <label>'
    assert svg == plots.svg(plots.pr_plot(evaluation, colours=PAGE), name="f-pr",
                            label='A "quoted" <label>')  # fmt: skip


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read(dark):
    paint = style(dark=dark)
    for ground in (paint.paper, paint.card):
        for text in (paint.ink, paint.muted, paint.accent, paint.warn):
            assert contrast(text, ground) >= 4.5
        for colour in paint.models:
            assert contrast(colour, ground) >= 3
    assert contrast(paint.on_accent, paint.accent) >= 4.5


def test_light_paper_has_the_schemes_colours_and_dark_paper_lighter_ones():
    scheme = load_scheme("pbc-8")
    assert style().classes(scheme) == tuple(one.colour for one in scheme.classes)
    assert style(dark=True).classes(scheme)[0] == "#7f82d3"
    assert themed(PAGE.classes(scheme)[7]) == "var(--class-7)"
    assert css_variables(style(), scheme).count(":") == 8 + 8 + 6


@pytest.mark.slow
@pytest.mark.parametrize("count", [21, 100])
def test_more_classes_than_colours_are_told_apart_by_hatching(count):
    scheme = scheme_of([f"kind {number}" for number in range(count)])
    counts = {name: 10 + number for number, name in enumerate(scheme.names)}
    figure = plots.class_counts_plot({"train": counts}, scheme)
    bars = figure.axes[0].patches
    looks = {(bar.get_edgecolor() if bar.get_hatch() else bar.get_facecolor(), bar.get_hatch())
             for bar in bars}  # fmt: skip
    assert len(bars) == len(looks) == count
    assert sum(bar.get_hatch() is None for bar in bars) == 12
    text = plots.svg(plots.class_counts_plot({"train": counts}, scheme, colours=PAGE), name="a",
                     label="b")  # fmt: skip
    assert f"var(--class-{count - 1})" in text
    assert themed("#010a0f #5b5fc7") == "#010a0f #5b5fc7"
