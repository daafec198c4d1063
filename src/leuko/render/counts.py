"""A differential count in words, as a table of columns, and as its document."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Final

from leuko.evaluation.counting.correction import ACCEPTED_TIMES, OTHERS_WRONG, Unmeasured
from leuko.evaluation.counting.differential import LEAST_ACCEPTED, ClassCount, Differential
from leuko.evaluation.counting.manual import REFERENCE_CELLS, ManualComparison
from leuko.prediction_files import csv_line
from leuko.support.artifacts import RESEARCH_USE, schema
from leuko.support.text import counted, listed

__all__ = [
    "accepted_sentence",
    "count_csv",
    "count_document",
    "count_notes",
    "format_count",
    "left_sentence",
    "manual_sentences",
    "ranges_sentence",
    "uncounted_sentence",
    "width_sentence",
    "wrapped",
]

_COLUMNS: Final = 80
_NAMES: Final = 11
"""Columns for the names of classes; a longer name stands on a line of its own."""

_FIT: Final = (
    "Label some 50 of these cells, of every class; fit the model to them (leuko adapt MODEL IMAGES "
    "--labels CSV --out BUNDLE), set its limits on other labelled cells, the more the better ("
    "leuko models calibrate), and count again. Until it accepts enough, count by hand."
)
_BY_HAND: Final = "Give pictures with more white cells among them, or count by hand."
_VALIDATED: Final = "Count with a model that was validated, or by hand."


def accepted_sentence(count: Differential) -> str:
    """Say what a reader must know before any number.

    Parameters
    ----------
    count : Differential
        A count.

    Returns
    -------
    str
        How much the model accepts, and whether there are percentages.
    """
    sure, every = count.accepted_least
    told = f"{sure:,} of {every:,} cells ({_points(sure / every)}%)"
    if count.refused == "few-accepted":
        return (
            f"This model cannot count this microscope: it accepts {told}; with fewer than "
            f"{100 * LEAST_ACCEPTED:g}% there are no percentages and no limits."
        )
    if count.refused == "all-explained":
        return (
            f"The model's errors alone explain the {count.total:,} cells that would be counted: "
            "there are no percentages and no limits."
        )
    if count.refused == "no-validation":
        return (
            "How often this model is wrong was never measured: there are no percentages and "
            f"no limits. It accepts {told}."
        )
    told = f"{count.accepted:,} of {count.total:,} cells ({_points(count.accepted_share)}%)"
    others = count.total - count.accepted
    held = f"; the limits hold what the other {others:,} may be" if others else ""
    return f"The model accepts {told}{held}."


def left_sentence(count: Differential, noun: str = "image") -> str:
    """Say which images are not in the count.

    Parameters
    ----------
    count : Differential
        A count.
    noun : str
        What was counted, where it is no image.

    Returns
    -------
    str
    """
    beside = [(row.name, row.accepted + row.others) for row in count.uncounted]
    others = [f"{number:,} {name}" for name, number in beside if number]
    others += [f"{number:,} {name.replace('-', ' ')}" for name, number in count.left_out.items()]
    others += [f"{number:,} rejected ({name})" for name, number in count.rejected.items()]
    if count.repeated:
        others.append(f"{count.repeated:,} repeated (the same cell as an earlier one)")
    if not others:
        return f"All of {count.found:,} {noun}s are counted."
    return f"Not counted, of {counted(count.found, noun)}: {', '.join(others)}."


def uncounted_sentence(count: Differential) -> str:
    """Say which classes have no percentage.

    Parameters
    ----------
    count : Differential
        A count.

    Returns
    -------
    str
        Empty where all have.
    """
    names = [row.name for row in count.uncounted]
    if not names:
        return ""
    told = "" if count.refused else ", and given per 100 of them (WBC)"
    return f"Not counted among the white cells{told}: {', '.join(names)}."


def width_sentence(count: Differential) -> str:
    """Say how many more cells the wanted width takes.

    Parameters
    ----------
    count : Differential
        A count.

    Returns
    -------
    str
        Empty without limits.
    """
    if count.refused:
        return ""
    wanted = f"±{100 * count.width:g} points"
    hopeless = [row for row in count.counted if row.cells_needed is None]
    if hopeless:
        worst = max(hopeless, key=lambda row: row.left_open or 0.0)
        left = worst.left_open or 0.0
        if left < count.width:
            return f"Limits of {wanted} would take more cells than can be counted."
        return (
            f"No number of cells gives limits of {wanted} for {worst.name} with this model: "
            f"its errors alone leave ±{100 * left:.1f} points open."
        )
    decides = max(count.counted, key=lambda row: row.cells_needed or 0)
    needed = decides.cells_needed or 0
    if needed <= count.total:
        return f"Every class is known to {wanted} or better."
    return (
        f"For limits of {wanted} in every class, count about {needed:,} cells: "
        f"{needed - count.total:,} more ({decides.name} decides)."
    )


def ranges_sentence(count: Differential) -> str:
    """Say where the reference ranges are from.

    Parameters
    ----------
    count : Differential
        A count.

    Returns
    -------
    str
        Empty where there are none.
    """
    if not any(row.reference for row in count.counted):
        return ""
    source = count.scheme.ranges_source or f"the class scheme {count.scheme.name}"
    return f"Reference ranges: {source}; your laboratory's own come first."


def count_notes(count: Differential) -> list[str]:
    """Say what the limits take for granted, or what to do where there are none.

    Parameters
    ----------
    count : Differential
        A count.

    Returns
    -------
    list of str
        Sentences.
    """
    return _assumptions(count) if not count.refused else _refusal(count)


def _refusal(count: Differential) -> list[str]:
    """What to do in place of reading limits."""
    if count.refused == "few-accepted":
        what_to_do = _FIT
    elif count.unmeasured is not None:
        what_to_do = f"{_unmeasured_sentence(count.unmeasured, count)} {_VALIDATED}"
    else:
        what_to_do = _BY_HAND
    beside = ["It is not compared with the manual count."] if count.manual_given else []
    return [what_to_do, *beside]


def _unmeasured_sentence(reason: Unmeasured, count: Differential) -> str:
    """Why the model's errors are not known."""
    size = len(count.scheme)
    return {
        "copies": "The model's validation cells are varied copies of cells that it was trained on, "
        "so its confusion there is smaller than on any others.",
        "none": "The model has no validation confusion matrix (imported models have none).",
        "other-classes": f"The model's validation confusion matrix is not {size} x {size} counts, "
        f"of the classes {', '.join(count.scheme.names)}.",
        "absent": f"The model was validated without a single {' or '.join(reason.names)}.",
    }[reason.code]


def _assumptions(count: Differential) -> list[str]:
    """What the limits take for granted."""
    notes = [
        f"The limits hold while accepted answers are wrong at most {ACCEPTED_TIMES:g} times as "
        "often as in the model's validation, and of the other cells at most "
        f"{100 * OTHERS_WRONG:g}% of each class are taken for another."
    ]
    if count.effect > 1.05:
        several = f" from {count.slides} slides" if count.slides is not None else ""
        notes.append(
            f"The validation cells{several} are alike within a slide: they count as "
            f"1/{count.effect:.1f} of their number, which widens the limits."
        )
    if count.effect == 1 and not count.slides_told:
        notes.append(
            "The model does not tell which slides its validation cells are from, so they count as "
            "independent; where cells of a slide are alike, these limits are too narrow."
        )
    return notes


def manual_sentences(manual: ManualComparison) -> list[str]:
    """Say how a count lies beside a manual one.

    Parameters
    ----------
    manual : ManualComparison
        Of a count.

    Returns
    -------
    list of str
    """
    rows = zip(manual.names, manual.difference, manual.differs, strict=True)
    found = [f"{name} ({_minus(100 * by)} points)" for name, by, differs in rows if differs]
    cells = f"the manual count of {counted(manual.total, 'cell')}"
    if found:
        said = [
            f"This count differs from {cells} by more than the errors of both allow in "
            f"{listed(found)}."
        ]
    else:
        said = [
            f"In no class does this count differ from {cells} by more than the errors of both "
            "allow."
        ]
    if manual.disagree:
        said.append(
            f"The observers differ among themselves in {listed(manual.disagree)} by more than "
            "sampling allows; their sum is a poor standard there."
        )
    if manual.total < REFERENCE_CELLS:
        said.append(
            f"The reference method (CLSI H20-A2) counts {REFERENCE_CELLS} cells, 200 by each "
            "of two observers; with fewer, a difference has to be larger to show."
        )
    return said


def count_document(
    count: Differential, *, context: Mapping[str, object] | None = None, noun: str = "image"
) -> dict[str, Any]:
    """Write the document of a count.

    Parameters
    ----------
    count : Differential
        From `leuko.differential`.
    context : mapping, optional
        Plain values to stand in it, such as the model and the command.
    noun : str
        See `left_sentence`.

    Returns
    -------
    dict
        Schema ``leuko.count/2``; shares are percentages.
    """
    said = [accepted_sentence(count), left_sentence(count, noun), uncounted_sentence(count),
            width_sentence(count), *count_notes(count)]  # fmt: skip
    return {
        "schema": schema("count"),
        "research_use": RESEARCH_USE,
        "scheme": count.scheme.to_dict(),
        "refused": count.refused or None,
        "level": count.level,
        "simultaneous": count.simultaneous,
        "found": count.found,
        "cells": count.total,
        "accepted": count.accepted,
        "accepted_percent": 100 * count.accepted_share,
        "accepted_least": 100 * LEAST_ACCEPTED,
        "left_out": count.left_out,
        "rejected": count.rejected,
        "repeated": count.repeated,
        "classes": {row.name: _class_document(row) for row in count.rows},
        "reference_ranges": count.scheme.ranges_source,
        "validation_effect": count.effect,
        "accepted_times": ACCEPTED_TIMES,
        "others_wrong": 100 * OTHERS_WRONG,
        "width": 100 * count.width,
        "cells_needed": count.cells_needed,
        "manual": None if count.manual is None else _manual_document(count.manual),
        "sentences": [sentence for sentence in said if sentence],
        **(context or {}),
    }


def _class_document(row: ClassCount) -> dict[str, Any]:
    """One class, shares as percentages."""
    low, high = row.reference or (None, None)
    per_100 = _percent(row.share)
    return {
        "counted": row.counted,
        "accepted": row.accepted,
        "others": row.others,
        "percent": per_100 if row.counted else None,
        "per_100_wbc": None if row.counted else per_100,
        "low": _percent(row.low),
        "high": _percent(row.high),
        "reference_low": low,
        "reference_high": high,
        "flag": row.flag,
        "cells_needed": row.cells_needed,
        "left_open": _percent(row.left_open),
    }


def _manual_document(manual: ManualComparison) -> dict[str, Any]:
    """The manual count beside it, in percent as the rest."""
    return {
        "n": manual.total,
        "observers": manual.observers,
        "classes": {
            name: {
                "count": manual.counts[k],
                "percent": 100 * manual.shares[k],
                "low": 100 * manual.limits[k][0],
                "high": 100 * manual.limits[k][1],
                "difference": 100 * manual.difference[k],
                "difference_low": 100 * manual.difference_limits[k][0],
                "difference_high": 100 * manual.difference_limits[k][1],
                "p_value": manual.p_values[k],
                "differs": manual.differs[k],
            }
            for k, name in enumerate(manual.names)
        },
        "observers_disagree": list(manual.disagree),
        "sentences": manual_sentences(manual),
    }


def count_csv(count: Differential) -> str:
    """Write one line a class, percentages with two decimals, empty where there are none.

    Parameters
    ----------
    count : Differential
        From `leuko.differential`.

    Returns
    -------
    str
        Header and a line for each class, each ended by a line feed.
    """
    names = ["class", "accepted", "others", "percent", "low", "high", "reference_low",
             "reference_high", "flag", "refused", "counted", "per_100_wbc"]  # fmt: skip
    if count.manual is not None:
        names += ["manual_count", "manual_percent", "difference", "p_value"]
    lines = [csv_line(names)]
    for row in count.rows:
        values = {"class": row.name, "refused": count.refused, **_class_document(row)}
        if count.manual is not None and row.counted:
            k = count.manual.names.index(row.name)
            values |= {
                "manual_count": count.manual.counts[k],
                "manual_percent": 100 * count.manual.shares[k],
                "difference": 100 * count.manual.difference[k],
                "p_value": f"{count.manual.p_values[k]:.4f}",
            }
        lines.append(csv_line(_cell(values.get(name)) for name in names))
    return "".join(lines)


def format_count(count: Differential, noun: str = "image") -> str:
    """Render a count as text of at most 80 columns.

    Parameters
    ----------
    count : Differential
        From `leuko.differential`.
    noun : str
        See `left_sentence`.

    Returns
    -------
    str
        Several lines, without a newline at the end.
    """
    notes = count_notes(count)
    first = [accepted_sentence(count), *(notes if count.refused else ())]
    lines = [*wrapped(first), "", *_table_lines(count), ""]
    if count.simultaneous and not count.refused:
        lines.append("All limits hold at once.")
    said = [left_sentence(count, noun), uncounted_sentence(count), width_sentence(count)]
    if not count.refused:
        said += notes
        said.append(ranges_sentence(count))
    lines += wrapped(said)
    if count.manual is not None:
        lines += ["", *_manual_lines(count.manual, count.level)]
    return "\n".join([*lines, "", *wrapped([RESEARCH_USE])])


def _table_lines(count: Differential) -> list[str]:
    """The table, without percentages where there are none."""
    limits = f"{f'{100 * count.level:g}% limits':>14}"
    head = f"{'':<{_NAMES}}{'accepted':>9}{'others':>7}"
    lines = [head if count.refused else f"{head}{'%':>6}{limits}{'reference':>10}  flag"]
    for row in count.counted:
        reference = ""
        if row.reference is not None and row.flag is not None:
            low, high = row.reference
            reference = f"{f'{low:g}–{high:g}':>10}  {row.flag}"
        lines += _named(row.name, f"{_figures(row)}{reference}")
    lines += _named("all", f"{count.accepted:>9,}{count.total - count.accepted:>7,}")
    if count.uncounted:
        lines += ["", head if count.refused else f"{head}{'per 100 WBC':>13}{limits:>22}"]
        for row in count.uncounted:
            lines += _named(row.name, _figures(row))
    return lines


def _manual_lines(manual: ManualComparison, level: float) -> list[str]:
    """The table beside the manual count."""
    percent = f"{100 * level:g}% limits"
    lines = [f"{'':<{_NAMES}}{'manual':>7}{'%':>6}{percent:>14}{'difference':>12}{percent:>16}"
             f"{'p (Holm)':>10}"]  # fmt: skip
    for k, name in enumerate(manual.names):
        low, high = manual.difference_limits[k]
        p = manual.p_values[k]
        lines += _named(
            name,
            f"{manual.counts[k]:>7,}{_points(manual.shares[k]):>6}"
            f"{_span(*manual.limits[k]):>14}{_signed(manual.difference[k]):>12}"
            f"{f'{_signed(low)} to {_signed(high)}':>16}"
            f"{'<0.001' if p < 0.001 else f'{p:.3f}':>10}",
        )
    lines += [*_named("all", f"{manual.total:>7,}"), ""]
    return lines + wrapped(manual_sentences(manual))


def wrapped(sentences: Iterable[str]) -> list[str]:
    """Break sentences for a terminal.

    Parameters
    ----------
    sentences : iterable of str
        Each begins a line.

    Returns
    -------
    list of str
        Lines of at most 80 letters.
    """
    return [
        line for one in sentences for line in textwrap.wrap(one, _COLUMNS, break_on_hyphens=False)
    ]


def _named(name: str, figures: str) -> list[str]:
    """A line of a table; a name that has no room stands above its figures."""
    columns = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in name)
    if columns < _NAMES:
        return [f"{name}{'':<{_NAMES - columns}}{figures}"]
    return [*textwrap.wrap(name, _COLUMNS), f"{'':<{_NAMES}}{figures}"]


def _figures(row: ClassCount) -> str:
    """Cells of a class, and what stands for them."""
    cells = f"{row.accepted:>9,}{row.others:>7,}"
    if row.share is None or row.low is None:
        return cells
    limits = f"{_points(row.low)} or more" if row.high is None else _span(row.low, row.high)
    if not row.counted:
        return f"{cells}{_points(row.share):>13}{limits:>22}"
    return f"{cells}{_points(row.share):>6}{limits:>14}"


def _cell(value: object) -> str:
    """A value for a CSV."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _percent(share: float | None) -> float | None:
    """A share as a percentage."""
    return None if share is None else 100 * share


def _points(share: float) -> str:
    """A percentage with one decimal."""
    return f"{100 * share:.1f}"


def _minus(points: float) -> str:
    """Points with their sign."""
    return f"{points:+.1f}".replace("-", "−")


def _signed(share: float) -> str:
    """A difference in points, with its sign where it is not 0."""
    text = _minus(100 * share)
    return "0.0" if text in ("+0.0", "−0.0") else text


def _span(low: float, high: float) -> str:
    """Limits in percent."""
    return f"{100 * low:.1f} to {100 * high:.1f}"
