"""What was found in fields, in words, as a table of cells, and as its document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from leuko import __version__
from leuko.field.report import Field, FieldReport, FieldStatus
from leuko.prediction_files import csv_cells, csv_line, csv_names, guarded
from leuko.render.answers import tally_text, why
from leuko.render.counts import count_document, format_count, wrapped
from leuko.render.words import NONE, Document, decimals, encodable, percent
from leuko.support.artifacts import RESEARCH_USE, finite, schema
from leuko.support.text import counted, listed

__all__ = [
    "SCALES",
    "STATUSES",
    "field_csv",
    "field_document",
    "fields_sentence",
    "format_field",
    "next_steps",
    "outcome_sentence",
    "set_aside_sentence",
    "status_text",
    "truth_sentences",
]

CELLS: Final = "white cell"
"""How the words of a count call what is counted here."""

STATUSES: Final[Mapping[FieldStatus, str]] = {
    "ok": "with white cells",
    "no-cell": "without a white cell",
    "unusable": "unusable",
    "single-cell": "of a single cell",
    "repeated": "repeated",
    "rejected": "rejected",
}
"""What became of a picture, in words after a number of pictures."""

SCALES: Final = {
    "given": "given",
    "file": "from the file",
    "red cells": "from its red cells",
    "white cells": "from its white cells",
    "run": "from the others",
    "none": "not known",
}
"""What a field's scale rests on."""

_REASONS: Final = {
    "blurred": "out of focus",
    "something-else": "something other than blood",
    "no-scale": "at an unknown scale",
}
_STEPS: Final = {
    "rejected": "cannot be read: save again, as JPEG, PNG or TIFF.",
    "blurred": "out of focus: photograph again.",
    "something-else": "of something other than blood: leave out.",
    "no-scale": "at an unknown scale: give together with others of the same objective and camera, "
    "whose red cells tell it.",
    "single-cell": "of a single cell: give to leuko predict.",
}
"""What to do about so many pictures, by the reason or the status, the gravest first."""

_NO_CELL: Final = "Photograph fields with white cells among red cells that lie apart."

_MOST_LINES: Final = 20
"""So many pictures that are not counted are named in a terminal."""


def field_csv(report: FieldReport) -> str:
    """Write one line a cell: its answer as ``leuko predict`` writes it, and where it lies.

    Parameters
    ----------
    report : FieldReport
        A run.

    Returns
    -------
    str
        The columns of a predictions CSV, then ``cell`` (its number), ``picture``, ``row0``,
        ``col0``, ``row1`` and ``col1``; each line ended by a line feed.
    """
    lines = [csv_line([*csv_names(report.scheme), "cell", "picture",
                       "row0", "col0", "row1", "col1"])]  # fmt: skip
    for number, (field, cell) in enumerate(report.cells, 1):
        place = [str(number), guarded(field.name), *map(str, cell.box)]
        lines.append(csv_line([*csv_cells(cell.answer, report.scheme), *place]))
    return "".join(lines)


def field_document(
    report: FieldReport, *, context: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """Write the document of a run over fields.

    Parameters
    ----------
    report : FieldReport
        A run.
    context : mapping, optional
        Plain values to stand in it, such as the command.

    Returns
    -------
    dict
        Schema ``leuko.field/1``; with ``detection``, ``classification``, ``counting`` and
        ``by_slide`` where boxes were given.
    """
    count, number = report.differential, 0
    fields = []
    for one in report.fields:
        fields.append(_field_document(one, number))
        number += len(one.cells)
    return {
        "schema": schema("field"),
        "research_use": RESEARCH_USE,
        "version": __version__,
        "scheme": report.scheme.to_dict(),
        "model": dict(report.model),
        "detector": dict(report.detector),
        "asked": report.asked,
        "left": report.left,
        "statuses": {name: n for name, n in _statuses(report).items() if n},
        "found": number,
        "decisions": dict(Counter(cell.answer.decision for _, cell in report.cells)),
        "differential": None if count is None else count_document(count, noun=CELLS),
        "fields": fields,
        **(report.truth.to_dict() if report.truth else {}),
        **(context or {}),
    }


def _field_document(field: Field, before: int) -> dict[str, Any]:
    """One picture and its cells, after so many cells of the pictures before."""
    return {
        "name": field.name,
        "status": field.status,
        "reason": field.reason,
        "detail": field.detail,
        "sha256": field.sha256,
        "size": list(field.size),
        "pixels_per_micrometre": field.pixels_per_micrometre,
        "scale_source": field.scale_source,
        "red_cells": field.red_cells,
        "sharpness": finite(field.sharpness),
        "ground": list(field.ground),
        "faults": list(field.faults),
        "cells": [
            {
                "cell": number,
                "box": list(cell.box),
                "score": cell.score,
                **cell.answer.to_dict(),
            }
            for number, cell in enumerate(field.cells, before + 1)
        ],
    }


def format_field(report: FieldReport) -> str:
    """Render a run over fields as text of at most 80 columns.

    Parameters
    ----------
    report : FieldReport
        A run.

    Returns
    -------
    str
        Several lines, without a newline at the end.
    """
    said = [fields_sentence(report), outcome_sentence(report), set_aside_sentence(report)]
    lines = wrapped(filter(None, said))
    if report.truth is not None:
        lines += ["", *wrapped(truth_sentences(report.truth.to_dict()))]
    told = [(one.name, status_text(one)) for one in report.fields]
    refused = [f"{name}: {reason}" for name, reason in told if reason]
    if refused:
        more = len(refused) - _MOST_LINES
        rest = [f"And {counted(more, 'picture')} more."] if more > 0 else []
        lines += ["", "Not counted:", *wrapped([*refused[:_MOST_LINES], *rest])]
    if steps := next_steps(report):
        lines += ["", *wrapped(steps)]
    if report.differential is None:
        lines += ["", *wrapped([RESEARCH_USE])]
    else:
        lines += ["", format_count(report.differential, CELLS)]
    return encodable("\n".join(lines))


def fields_sentence(report: FieldReport) -> str:
    """Say how many pictures there were, and what became of them.

    Parameters
    ----------
    report : FieldReport
        A run.

    Returns
    -------
    str
        One or two sentences.
    """
    parts = [f"{n:,} {STATUSES[name]}" for name, n in _statuses(report).items() if n]
    told = f"{counted(len(report.fields), 'picture')}: {listed(parts)}."
    if report.left:
        many = counted(report.asked, CELLS) if report.asked else "So many cells"
        verb = "was" if report.asked == 1 else "were"
        told += f" {many} {verb} reached: {report.left:,} more not looked at."
    return told


def outcome_sentence(report: FieldReport) -> str:
    """Say how many cells were found, and what was decided on them.

    Parameters
    ----------
    report : FieldReport
        A run.

    Returns
    -------
    str
        One sentence.
    """
    outcomes = _outcomes(report)
    return tally_text(outcomes, CELLS) if outcomes else "No white cell was found."


def set_aside_sentence(report: FieldReport) -> str:
    """Say why cells were set aside.

    Parameters
    ----------
    report : FieldReport
        A run.

    Returns
    -------
    str
        Empty where none was.
    """
    reasons = Counter(
        why(cell.answer) for _, cell in report.cells if cell.answer.decision == "set-aside"
    )
    told = [f"{n:,} {reason}" for reason, n in reasons.most_common()]
    return f"Set aside: {', '.join(told)}." if told else ""


def status_text(field: Field) -> str:
    """Say why a picture is not counted.

    Parameters
    ----------
    field : Field
        Any.

    Returns
    -------
    str
        A few words without a full stop; empty where it is counted.

    Examples
    --------
    >>> status_text(Field("a.jpg", "unusable", "no-scale"))
    'at an unknown scale'
    """
    match field.status:
        case "ok" | "no-cell":
            return ""
        case "single-cell":
            return "a single cell"
        case "repeated":
            return f"the same field as {field.reason}"
        case "unusable":
            return _REASONS.get(field.reason, field.reason)
    detail = f": {field.detail.removesuffix('.')}" if field.detail else ""
    return f"cannot be read ({field.reason}){detail}"


def next_steps(report: FieldReport) -> list[str]:
    """Say what to do about pictures that are not counted.

    Parameters
    ----------
    report : FieldReport
        A run.

    Returns
    -------
    list of str
        The gravest first; empty where all are counted.
    """
    found = Counter(one.reason if one.reason in _STEPS else one.status for one in report.fields)
    steps = [f"{counted(found[name], 'picture')} {step}" for name, step in _STEPS.items()
             if found[name]]  # fmt: skip
    return steps if report.cells or steps else [_NO_CELL]


def truth_sentences(truth: Document) -> list[str]:
    """Say how well cells were found and named.

    Parameters
    ----------
    truth : dict
        From `leuko.evaluation.detection.DetectionReport.to_dict`.

    Returns
    -------
    list of str
        How many were found, how many of those were named rightly, and how far counts were off.
    """
    found = truth["detection"]
    given = found["found"] + found["missed"]
    said = [
        f"Of {counted(given, 'cell')} given: "
        f"recall {_share(found['recall'])}, precision {_share(found['precision'])}, "
        f"AP50 {decimals(found['ap50'])}; {found['missed']:,} missed, {found['false']:,} false, "
        f"{found['doubles']:,} found twice."
    ]
    named = truth["classification"]
    if named:
        rightly = (
            f"{_share(named['accepted'])} are accepted, {_share(named['accuracy_accepted'])} of "
            "those rightly."
        )
        said.append(
            f"Of the cells found, {_share(named['accuracy'])} are named rightly (balanced "
            f"{_share(named['balanced_accuracy'])}); "
            f"{rightly if named['accepted'] else 'none is accepted.'}"
        )
    error = truth["counting"]["error_per_field"]
    if error is not None:
        said.append(f"Counting error: {error:.2f} cells a field.")
    return said


def _share(value: float | None) -> str:
    """A share, or a dash."""
    return NONE if value is None else percent(value)


def _statuses(report: FieldReport) -> dict[FieldStatus, int]:
    """Pictures by what became of them, in the order in which that is told."""
    taken = Counter(one.status for one in report.fields)
    return {name: taken[name] for name in STATUSES}


def _outcomes(report: FieldReport) -> Counter[tuple[str, str]]:
    """Cells of all pictures by what became of them."""
    return sum((one.outcomes for one in report.fields), Counter())
