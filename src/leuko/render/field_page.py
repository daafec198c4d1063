"""A run over fields as one page: the count, every cell, where it lies, and what was left out.

A link from a cell leads to its place in its field and back, by anchors alone. Needs the extra
``report``.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.cells.detector import Box
from leuko.evaluation.counting.differential import ClassCount, Differential
from leuko.evaluation.detection import Miss
from leuko.field.report import Field, FieldCell, FieldReport
from leuko.imaging.decode import encode_jpeg
from leuko.prediction import Prediction
from leuko.render import tables, words
from leuko.render.answers import question, title, why
from leuko.render.counts import (
    accepted_sentence,
    count_notes,
    left_sentence,
    ranges_sentence,
    uncounted_sentence,
    width_sentence,
)
from leuko.render.drawing import scaled
from leuko.render.field import (
    CELLS,
    SCALES,
    STATUSES,
    fields_sentence,
    next_steps,
    outcome_sentence,
    set_aside_sentence,
    status_text,
    truth_sentences,
)
from leuko.render.overlay import picture_rows
from leuko.render.report import render_page
from leuko.render.words import NONE, percent
from leuko.support.artifacts import RESEARCH_USE
from leuko.support.text import counted

__all__ = ["MOST_CROPS", "field_html"]

Pixels = npt.NDArray[np.uint8]
Pictures = Callable[[int], Pixels | None]

MOST_CROPS: Final = 400
"""A page holds at most so many cells, the most doubtful of every class, and says what it lacks."""

_MOST_FIELDS: Final = 40
_MOST_ROWS: Final = 300
_MOST_MISSES: Final = 60
_AT_ONCE: Final = 27
_CROP: Final = 128
_FIELD: Final = 1200
_OPEN: Final = ("class", "unsure", "unlike-training")
"""Decisions on cells that are counted, accepted or not."""


@dataclass(frozen=True, slots=True)
class CropView:
    """A cell of the gallery, or a place that was missed."""

    picture: str
    title: str
    note: str
    alt: str
    place: str = ""
    anchor: str = ""
    number: str = ""
    kind: str = "out"
    colour: str = "var(--muted)"


@dataclass(frozen=True, slots=True)
class GroupView:
    """The cells of a class, or those that are not counted: some at once, others folded away."""

    title: str
    note: str
    colour: str
    first: Sequence[CropView]
    others: Sequence[CropView]


@dataclass(frozen=True, slots=True)
class PlaceView:
    """A cell's place in a picture, in percent of what is drawn."""

    anchor: str
    link: str
    label: str
    kind: str
    style: str


@dataclass(frozen=True, slots=True)
class FieldView:
    """A field as it is drawn, with the places of its cells."""

    anchor: str
    name: str
    caption: str
    picture: str
    places: Sequence[PlaceView]


@dataclass(frozen=True, slots=True)
class ShareView:
    """A class of the differential; the lengths are percentages of the track."""

    title: str
    number: int
    accepted: str
    others: str
    share: str
    limits: str
    reference: str
    flag: str
    dot: str = ""
    span: str = ""
    range: str = ""


@dataclass(frozen=True)
class _Run:
    """What every part of the page asks for."""

    report: FieldReport
    cells: Sequence[tuple[int, FieldCell]]
    """The place of each cell's field, and the cell."""
    shown: frozenset[int]
    """Numbers of the cells that the gallery holds."""
    drawn: Mapping[int, Pixels]
    """Fields that the page holds, by their place."""

    def link(self, place: int, anchor: str) -> str:
        """Where in the page something in a field is seen; empty where it is not."""
        if place in self.drawn:
            return f"#{anchor}"
        return f"#f{place}" if place < _MOST_ROWS else ""


def field_html(
    report: FieldReport,
    *,
    crop: Pictures,
    drawn: Pictures,
    context: Mapping[str, Any] | None = None,
) -> str:
    """Write the page of a run over fields.

    Parameters
    ----------
    report : FieldReport
        A run.
    crop : callable
        Takes a cell's number within the run, from 1, and gives its crop, (H, W, 3) uint8 RGB of any
        size; None where there is none. Asked for at most `MOST_CROPS` and 60 cells.
    drawn : callable
        Takes a field's place in `FieldReport.fields`, from 0, and gives what
        `leuko.render.overlay.overlay` drew of it, in any size; None where there is none. Asked for
        at most 40 fields, and of each once.
    context : mapping, optional
        Plain values to be told of how it was made, such as ``command``.

    Returns
    -------
    str
        HTML that needs nothing but itself; equal reports and pictures give equal text.

    Raises
    ------
    MissingExtraError
        Without Jinja2.
    """
    run = _run(report, drawn)
    made = tables.how_made({"model": report.model, **(context or {})})
    detector = f"{report.detector.get('name', '')} {report.detector.get('digest', '')}".strip()
    truth = None if report.truth is None else report.truth.to_dict()
    return render_page(
        "field.html.j2",
        report.scheme,
        title=counted(len(report.fields), "picture"),
        kind="Fields",
        headline=_headline(report),
        research_use=RESEARCH_USE,
        lead=_lead(report),
        left_out=next_steps(report),
        shares=_shares(report.differential),
        refused=report.differential is not None and bool(report.differential.refused),
        share_notes=_share_notes(report.differential),
        groups=_groups(run, crop),
        gallery_note=_gallery_note(run),
        truth=truth,
        named=truth_sentences(truth)[1:-1] if truth else [],
        tiles=[] if truth is None else _tiles(truth),
        slides=[] if truth is None else _slides(truth),
        misses=_misses(run),
        false_finds=_false_finds(run, crop),
        rows=[_field_row(run, place) for place in range(min(len(report.fields), _MOST_ROWS))],
        more_rows=max(0, len(report.fields) - _MOST_ROWS),
        fields=[_field_view(run, place) for place in sorted(run.drawn)],
        made=[*made, ("Detector", detector), ("Class scheme", report.scheme.name)],
    )


def _run(report: FieldReport, drawn: Pictures) -> _Run:
    """Choose the cells and fields that the page holds."""
    cells = [(place, cell) for place, one in enumerate(report.fields) for cell in one.cells]
    shown = frozenset(
        number
        for group in _allotted([numbers for _, numbers in _grouped(report, cells)], MOST_CROPS)
        for number in group
    )
    places = [cells[number - 1][0] for number in shown]
    ranked = sorted(range(len(report.fields)), key=lambda place: (-places.count(place), place))
    pictures = {place: drawn(place) for place in ranked[:_MOST_FIELDS]}
    known = {place: pixels for place, pixels in pictures.items() if pixels is not None}
    small = {k: scaled(one, min(_FIELD, max(one.shape[:2]))) for k, one in known.items()}
    return _Run(report, cells, shown, small)


def _grouped(
    report: FieldReport, cells: Sequence[tuple[int, FieldCell]]
) -> list[tuple[str, list[int]]]:
    """Numbers of cells by class, and of those that are not counted; the most doubtful first."""
    groups: dict[str, list[int]] = {name: [] for name in (*report.scheme.names, "")}
    for number, (_, cell) in enumerate(cells, 1):
        groups[cell.answer.likeliest if cell.answer.decision in _OPEN else ""].append(number)

    def doubt(number: int) -> tuple[Any, ...]:
        answer = cells[number - 1][1].answer
        if answer.decision in _OPEN:
            return answer.decision == "class", answer.confidence
        return answer.outcome

    return [(name, sorted(numbers, key=doubt)) for name, numbers in groups.items() if numbers]


def _allotted(groups: Sequence[Sequence[int]], room: int) -> list[Sequence[int]]:
    """The first of each group: small groups whole, larger ones cut to one length."""
    length, left = 0, room
    for rank, size in enumerate(sorted(map(len, groups))):
        length = left // (len(groups) - rank)
        left -= min(size, length)
    return [group[:length] for group in groups]


def _headline(report: FieldReport) -> str:
    """What is known now, in one line."""
    used = sum(one.status in ("ok", "no-cell") for one in report.fields)
    count, fields = report.differential, counted(used, "field")
    if count is not None and not count.refused:
        return f"{counted(count.total, CELLS)} counted in {fields}"
    if count is not None:
        return f"{counted(count.total, CELLS)} in {fields}, and no count to rely on"
    if report.cells:
        return f"{counted(len(report.cells), CELLS)} in {fields}, and none to count"
    return f"No white cell in {fields}" if used else "No picture can be counted"


def _lead(report: FieldReport) -> list[str]:
    """What may be believed, and what is not in the count."""
    count = report.differential
    pictures = [fields_sentence(report)]
    if count is None:
        return [*pictures, outcome_sentence(report), set_aside_sentence(report)]
    told = [accepted_sentence(count), *pictures, left_sentence(count, CELLS)]
    return [*told, set_aside_sentence(report), width_sentence(count)]


def _share_notes(count: Differential | None) -> list[str]:
    """What the limits take for granted."""
    if count is None:
        return []
    ranges = "" if count.refused else ranges_sentence(count)
    return [*count_notes(count), uncounted_sentence(count), ranges]


def _shares(count: Differential | None) -> list[ShareView]:
    """The differential, class by class."""
    if count is None:
        return []
    ends = [100 * (row.high or row.share or 0) for row in count.counted]
    ends += [row.reference[1] for row in count.counted if row.reference and not count.refused]
    whole = min(100.0, 10 * -(-max(ends) // 10)) or 100.0
    return [_share(number, row, whole) for number, row in enumerate(count.rows)]


def _share(number: int, row: ClassCount, whole: float) -> ShareView:
    """One class; the track is as long as so many percent."""
    share, low, high = (
        None if one is None else 100 * one for one in (row.share, row.low, row.high)
    )
    beside = "" if row.counted else " per 100 WBC"
    limits = NONE
    if low is not None:
        limits = f"{low:.1f} or more" if high is None else f"{low:.1f} to {high:.1f}"
    reference = row.reference if row.counted and share is not None else None
    on_track = row.counted and share is not None and low is not None and high is not None
    return ShareView(
        title=row.name,
        number=number,
        accepted=f"{row.accepted:,}",
        others=f"{row.others:,}",
        share=NONE if share is None else f"{share:.1f}{beside}",
        limits=limits,
        reference="" if reference is None else f"{reference[0]:g}–{reference[1]:g}",
        flag=row.flag or "",
        dot=f"left:{100 * share / whole:.2f}%" if on_track and share is not None else "",
        span=_stretch(low, high, whole) if on_track else "",
        range=_stretch(*reference, whole) if reference else "",
    )


def _stretch(low: float | None, high: float | None, whole: float) -> str:
    """From where to where on a track of so many percent, as a style."""
    start, end = (100 * min(one or 0.0, whole) / whole for one in (low, high))
    return f"left:{start:.2f}%;width:{end - start:.2f}%"


def _groups(run: _Run, crop: Pictures) -> list[GroupView]:
    """The gallery."""
    scheme = run.report.scheme
    views = []
    for name, numbers in _grouped(run.report, run.cells):
        shown = [number for number in numbers if number in run.shown]
        crops = [_crop_view(run, number, crop(number)) for number in shown]
        sure = sum(run.cells[number - 1][1].answer.decision == "class" for number in numbers)
        told = counted(len(numbers), "cell")
        note = f"{told}, {sure:,} accepted" if name else told
        if len(shown) < len(numbers):
            note += f"; the {len(shown):,} most doubtful are shown" if name else "; not all shown"
        colour = f"var(--class-{scheme.names.index(name)})" if name else "var(--muted)"
        first = _AT_ONCE if len(crops) > _AT_ONCE + 9 else len(crops)
        views.append(GroupView(name or "Not counted", note, colour, crops[:first], crops[first:]))
    return views


def _gallery_note(run: _Run) -> str:
    """How to read the gallery, and what it leaves out."""
    if not run.cells:
        return ""
    missing = len(run.cells) - len(run.shown)
    rest = f" {missing:,} more stand in cells.csv and under cells/." if missing else ""
    return f"The most doubtful first. A cell leads to its place in the picture, and back.{rest}"


def _crop_view(run: _Run, number: int, pixels: Pixels | None, anchor: str = "c") -> CropView:
    """One cell of the gallery, or again of the false finds."""
    place, cell = run.cells[number - 1]
    answer = cell.answer
    kind = "ok" if answer.label else "open" if answer.decision in _OPEN else "out"
    colour = "var(--muted)"
    if kind != "out":
        colour = f"var(--class-{run.report.scheme.names.index(answer.likeliest)})"
    return CropView(
        picture=_embedded(pixels, _CROP),
        title=percent(answer.confidence)
        if answer.label
        else question(answer, short=True) or title(answer),
        note=why(answer),
        alt=_described(number, answer),
        place=run.link(place, f"p{number}"),
        anchor=f"{anchor}{number}" if anchor else "",
        number=str(number),
        kind=kind,
        colour=colour,
    )


def _described(number: int, answer: Prediction) -> str:
    """A cell for readers who cannot see it."""
    return f"Cell {number}: {title(answer)}"


def _embedded(pixels: Pixels | None, longest: int, quality: int = 80) -> str:
    """A picture within the page, no larger than it was; empty for none."""
    if pixels is None or not pixels.size:
        return ""
    data = encode_jpeg(
        scaled(pixels, min(longest, max(pixels.shape[:2]))), quality=quality, subsampling="420"
    )
    return f"data:image/jpeg;base64,{b64encode(data).decode()}"


def _field_view(run: _Run, place: int) -> FieldView:
    """A field as it was drawn, with the places of its cells."""
    field, pixels = run.report.fields[place], run.drawn[place]
    places: list[PlaceView] = []
    for number, (at, cell) in enumerate(run.cells, 1):
        if at == place:
            link = f"#c{number}" if number in run.shown else ""
            label = _described(number, cell.answer)
            style = _style(field, cell.box, pixels)
            places.append(PlaceView(f"p{number}", link, label, "cell", style))
    for number, miss in _missed(run):
        if miss.picture == field.name:
            style = _style(field, miss.box, pixels)
            places.append(PlaceView(f"m{number}", f"#x{number}", "Missed", "miss", style))
    told = [counted(len(field.cells), CELLS)]
    if misses := sum(one.kind == "miss" for one in places):
        told.append(f"{misses:,} missed (dotted)")
    caption = ", ".join(filter(None, [*told, status_text(field)]))
    return FieldView(
        f"o{place}", field.name, caption, _embedded(pixels, _FIELD, quality=76), places
    )


def _style(field: Field, box: Box, pixels: Pixels) -> str:
    """Where a box lies on a drawing, as a style."""
    height, width = (max(1, side) for side in field.size)
    drawn = 100 * picture_rows(field, pixels.shape[1]) / pixels.shape[0]
    row0, col0, row1, col1 = box
    return (
        f"top:{drawn * row0 / height:.3f}%;height:{drawn * (row1 - row0) / height:.3f}%;"
        f"left:{100 * col0 / width:.3f}%;width:{100 * (col1 - col0) / width:.3f}%"
    )


def _field_row(run: _Run, place: int) -> dict[str, str]:
    """A picture's line in the table of all."""
    field = run.report.fields[place]
    scale = field.pixels_per_micrometre
    source = SCALES[field.scale_source]
    if field.scale_source == "red cells":
        source = f"from {counted(field.red_cells, 'red cell')}"
    red, green, blue = (min(255, max(0, round(one))) for one in field.ground)
    seen = np.isfinite(field.sharpness)
    return {
        "anchor": f"f{place}",
        "link": f"#o{place}" if place in run.drawn else "",
        "name": PurePosixPath(field.name).name or field.name,
        "path": field.name,
        "status": "" if field.status == "ok" else STATUSES[field.status],
        "told": status_text(field),
        "cells": f"{len(field.cells):,}",
        "counted": f"{sum(cell.answer.decision in _OPEN for cell in field.cells):,}",
        "scale": NONE if scale is None else f"{scale:.1f}",
        "source": source if field.status != "rejected" else "",
        "sharpness": f"{field.sharpness:.2f}" if seen else NONE,
        "ground": f"#{red:02x}{green:02x}{blue:02x}" if seen else "",
        "faults": "; ".join(field.faults),
    }


def _missed(run: _Run) -> Iterator[tuple[int, Miss]]:
    """Misses that the page shows, numbered from 1."""
    misses = () if run.report.truth is None else run.report.truth.misses
    yield from enumerate(misses[:_MOST_MISSES], 1)


def _misses(run: _Run) -> list[CropView]:
    """What was given and not found, cut out of the drawings."""
    places = {field.name: place for place, field in enumerate(run.report.fields)}
    views = []
    for number, miss in _missed(run):
        place = places.get(miss.picture)
        pixels = None if place is None else run.drawn.get(place)
        cut = None
        if pixels is not None and place is not None:
            cut = _cut(pixels, run.report.fields[place], miss.box)
        name = PurePosixPath(miss.picture).name
        link = "" if place is None else run.link(place, f"m{number}")
        views.append(CropView(_embedded(cut, _CROP), "Missed", name, f"Missed in {name}", link,
                              f"x{number}"))  # fmt: skip
    return views


def _cut(pixels: Pixels, field: Field, box: Box) -> Pixels:
    """A box of a drawing with as much again around it."""
    rows = round(picture_rows(field, pixels.shape[1]))
    factor = pixels.shape[1] / max(1, field.size[1])
    row0, col0, row1, col1 = (one * factor for one in box)
    reach = max(row1 - row0, col1 - col0, 8.0)
    row, col = (row0 + row1) / 2, (col0 + col1) / 2
    return pixels[
        max(0, round(row - reach)) : max(1, min(rows, round(row + reach))),
        max(0, round(col - reach)) : max(1, round(col + reach)),
    ]


def _false_finds(run: _Run, crop: Pictures) -> list[CropView]:
    """Cells that were found where none was given."""
    if run.report.truth is None:
        return []
    numbers = {
        (run.report.fields[place].name, cell.box): number
        for number, (place, cell) in enumerate(run.cells, 1)
    }
    found = [numbers.get((one.picture, one.box)) for one in run.report.truth.false_finds]
    known = [number for number in found if number is not None]
    return [_crop_view(run, number, crop(number), "") for number in known[:_MOST_MISSES]]


def _tiles(truth: words.Document) -> list[dict[str, str]]:
    """How well cells were found, large."""
    found, error = truth["detection"], truth["counting"]["error_per_field"]
    given = found["found"] + found["missed"]
    return [
        {
            "value": _percent(found["recall"]),
            "title": "found",
            "small": f"{found['found']:,} of {given:,} given",
        },
        {
            "value": _percent(found["precision"]),
            "title": "of the finds are right",
            "small": f"{found['false']:,} false, {found['doubles']:,} twice",
        },
        {
            "value": words.decimals(found["ap50"]),
            "title": "AP50",
            "small": f"AP50–95 {words.decimals(found['ap50_95'])}",
        },
        {
            "value": NONE if error is None else f"{error:.2f}",
            "title": "cells wrong a field",
            "small": "mean absolute error of the count",
        },
    ]


def _slides(truth: words.Document) -> list[dict[str, str]]:
    """How well, slide by slide."""
    rows = []
    for name, one in truth["by_slide"].items():
        found, named, error = one["detection"], one["classification"], one["counting"]
        wrong = error["error_per_field"]
        rows.append(
            {
                "slide": name,
                "given": f"{found['found'] + found['missed']:,}",
                "recall": _percent(found["recall"]),
                "precision": _percent(found["precision"]),
                "ap50": words.decimals(found["ap50"]),
                "accuracy": _percent(named["accuracy"]) if named else NONE,
                "error": NONE if wrong is None else f"{wrong:.2f}",
            }
        )
    return rows


def _percent(share: float | None) -> str:
    """A share, or a dash."""
    return NONE if share is None else percent(share)
