"""Fields in, one differential out: found, sorted, counted once, written as a folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path, PurePath
from typing import Final

from leuko import __version__
from leuko.cells.arrays import Pixels
from leuko.cells.detector import Detector, PixelSize
from leuko.errors import DataError, OutputError, UsageError
from leuko.evaluation.counting.differential import Differential, differential_by
from leuko.evaluation.counting.tally import Tally
from leuko.field.box_table import BoxTable, Truth
from leuko.field.boxes import BOX_FORMATS, score_fields
from leuko.field.find import FoundField, find_cells
from leuko.field.name import agree, name_cells, settle_scales, status_of, tell_singles
from leuko.field.once import Sight, find_repeats
from leuko.field.parts import decode_found, encode_found
from leuko.field.report import SET_ASIDE, Field, FieldCell, FieldReport
from leuko.imaging.decode import IMAGE_SUFFIXES, decode_image, decode_own
from leuko.imaging.slide import SLIDE_SUFFIXES
from leuko.render.field import field_csv, field_document, status_text
from leuko.render.field_page import field_html
from leuko.render.overlay import overlay, overlay_file
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.repeats import DUPLICATE
from leuko.runtime.sources import expand
from leuko.source import Source
from leuko.support.artifacts import atomic_folder, digest_json, json_text
from leuko.support.parallel import bounded_map, worker_count
from leuko.support.parts import Parts, open_parts
from leuko.support.reporter import SILENT, Reporter
from leuko.support.text import counted

__all__ = ["FieldOptions", "run_fields"]

_ENDING: Final = ".field.zip"

_LOOKED_AT: Final = 3
"""So many fields are measured to see whether a scale that was given fits them."""


@dataclass(frozen=True)
class FieldOptions:
    """What a run over fields is asked.

    Attributes
    ----------
    pixels_per_micrometre : float, optional
        Pixel size, where somebody knows; measured on each field when None.
    cells : int, optional
        Stop after the field in which so many white cells were found.
    truth : BoxTable, optional
        Boxes to compare with.
    boxes : tuple of str
        Formats of `leuko.field.boxes.BOX_FORMATS` to write boxes in.
    resume : bool
        Go on with a run that was stopped.
    workers : int, optional
        Pictures at a time; as many as this process has cores when None.
    seed : int
        Of the limits.
    """

    pixels_per_micrometre: float | None = None
    cells: int | None = None
    truth: BoxTable | None = None
    boxes: tuple[str, ...] = ()
    resume: bool = False
    workers: int | None = None
    seed: int = 0


def run_fields(
    images: Iterable[str],
    out: Path,
    classifier: OnnxClassifier,
    detector: Detector,
    options: FieldOptions = FieldOptions(),
    *,
    context: Mapping[str, object] | None = None,
    reporter: Reporter = SILENT,
) -> FieldReport:
    """Find, name and count the white cells of the fields of one smear.

    Each field that is done is kept beside `out` until all are, so that a run that was killed can go
    on, and ends with the same bytes.

    Parameters
    ----------
    images : iterable of str
        See `leuko.runtime.sources.expand`.
    out : Path
        Folder to write; docs/reference/files.md says what is in it.
    classifier : OnnxClassifier
        Names the cells.
    detector : Detector
        Finds them.
    options : FieldOptions
        What is asked.
    context : mapping, optional
        Plain values to stand in the files, such as the command.
    reporter : Reporter, optional
        Told how far it is.

    Returns
    -------
    FieldReport

    Raises
    ------
    DataError
        When nothing can be read, or a model answers among other classes.
    OutputError
        When `out` holds something, or a run that was stopped and `resume` is not set.
    """
    _check(out, options)
    sources = list(expand(images, suffixes=(*IMAGE_SUFFIXES, *SLIDE_SUFFIXES), reporter=reporter))
    truth = None
    if options.truth is not None:
        truth = options.truth.match([source.name for source in sources])
        for note in truth.notes:
            reporter.say(note)
    models = {detector.name: detector.digest}
    with open_parts(out, _ENDING, models, resume=options.resume) as parts:
        run = _Run(parts, classifier, detector, options)
        found = run.find(sources, reporter)
        if doubt := run.doubt(found):
            reporter.say(doubt)
        report = run.report(found, sources, truth, reporter)
        if all(one.status == "rejected" for one in report.fields):
            raise DataError(_nothing(report.fields))
        with atomic_folder(out) as folder:
            run.write(folder, report, found, context or {})
    return report


def _check(out: Path, options: FieldOptions) -> None:
    """Refuse what cannot be written before hours of work."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            f"{out} is there and not empty. Choose another folder, or delete it to count again."
        )
    unknown = sorted({*options.boxes} - {*BOX_FORMATS})
    if unknown:
        raise UsageError(f"--boxes must be one of {', '.join(BOX_FORMATS)}, received {unknown[0]}.")


def _nothing(fields: Sequence[Field]) -> str:
    """Why there is no answer at all."""
    first = f"{fields[0].name} {status_text(fields[0])}"
    others = len(fields) - 1
    return f"{first}; nor can {counted(others, 'other')}." if others else f"{first}."


@dataclass(frozen=True)
class _Done:
    """A field that was searched; its crops are in its part."""

    key: str
    field: Field
    sight: Sight | None


@dataclass(frozen=True)
class _Run:
    """The work of one call."""

    parts: Parts
    classifier: OnnxClassifier
    detector: Detector
    options: FieldOptions

    def find(self, sources: Sequence[Source], reporter: Reporter) -> list[_Done]:
        """Find the cells of each field, until there are enough."""
        scale, enough = self.options.pixels_per_micrometre, self.options.cells
        pixel_size = None if scale is None else PixelSize(scale, "given")
        threads = worker_count(self.options.workers)
        each = max(1, threads // max(1, len(sources)))
        done: list[_Done] = []
        cells = 0
        for one in bounded_map(
            lambda source: self._find(source, pixel_size, each),
            sources,
            workers=threads,
            ahead=threads,
        ):
            done.append(one)
            reporter.progress("finding white cells", len(done), len(sources))
            cells += _free(one.field)
            # The same cells may have been seen twice; that is looked at only when it matters.
            if enough is not None and cells >= enough:
                fields = _usable([one.field for one in done])
                if sum(map(_free, _once(done, fields))) >= enough:
                    break
        return done

    def doubt(self, found: Sequence[_Done]) -> str:
        """Say where the red cells of the first fields tell another scale than was given."""
        given = self.options.pixels_per_micrometre
        if given is None:
            return ""
        for one in found[:_LOOKED_AT]:
            overview = self._read(one.key).overview
            if overview is None:
                continue
            pixel_size = self.detector.measure(overview)
            scale = pixel_size.pixels_per_micrometre
            if scale is not None and pixel_size.source == "red cells":
                scale *= max(one.field.size) / max(overview.shape[:2])
                if agree(given, scale):
                    return ""
                return (
                    f"The red cells of {one.field.name} tell {scale:.1f} pixels to a micrometre, "
                    f"and {given:g} are given: leave --pixels-per-micrometre out if in doubt."
                )
        return ""

    def report(
        self,
        found: Sequence[_Done],
        sources: Sequence[Source],
        truth: Truth | None,
        reporter: Reporter,
    ) -> FieldReport:
        """Name the cells at the scale of the run, and count each once."""
        settled = tell_singles(settle_scales([one.field for one in found]))
        named = []
        for one in bounded_map(
            lambda pair: name_cells(self._read(pair[0].key), pair[1], self.classifier),
            zip(found, settled, strict=True),
            workers=worker_count(self.options.workers),
        ):
            named.append(one)
            reporter.progress("naming them", len(named), len(found))
        fields = [_placed(one, place) for place, one in enumerate(_once(found, named), 1)]
        report = FieldReport(
            tuple(fields),
            self.classifier.scheme,
            {"name": self.classifier.name, "digest": self.classifier.digest},
            {"name": self.detector.name, "digest": self.detector.digest},
            differential=self._count(fields),
            asked=self.options.cells,
            left=len(sources) - len(found),
        )
        if truth is None:
            return report
        # A field that repeats another is counted once and found twice.
        return replace(report, truth=score_fields(named, truth, report.scheme))

    def write(
        self,
        folder: Path,
        report: FieldReport,
        found: Sequence[_Done],
        context: Mapping[str, object],
    ) -> None:
        """Write crops, pictures, tables and the page."""
        drawings = folder / "overlays"
        drawings.mkdir()
        numbers = count(1)
        for place, (one, source) in enumerate(zip(report.fields, found, strict=True), 1):
            done = self._read(source.key)
            for cell, crop in zip(one.cells, done.crops, strict=False):
                path = folder / cell.answer.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(crop)
            if done.overview is not None:
                mine = [next(numbers) for _ in one.cells]
                drawn = overlay(done.overview, one, report.scheme, mine)
                (drawings / f"{_stem(one, place)}.jpg").write_bytes(overlay_file(drawn))
        (folder / "cells.csv").write_text(
            field_csv(report), encoding="utf-8", errors="surrogateescape", newline=""
        )
        for name in self.options.boxes:
            for file, text in BOX_FORMATS[name](report).items():
                path = folder / "boxes" / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", errors="surrogateescape")
        (folder / "field.json").write_text(json_text(field_document(report, context=context)))
        paths = [cell.answer.path for _, cell in report.cells]
        page = field_html(
            report,
            crop=lambda number: _picture(folder / paths[number - 1]),
            drawn=lambda place: _drawn(drawings / f"{_stem(report.fields[place], place + 1)}.jpg"),
            context=context,
        )
        (folder / "report.html").write_text(page, encoding="utf-8")

    def _find(self, source: Source, pixel_size: PixelSize | None, workers: int) -> _Done:
        """Search one field, unless it was done before."""
        key = digest_json([list(source.identity), self.options.pixels_per_micrometre, __version__])
        done = self._read(key) if self.parts.has(key) else None
        # What could not be read may be there by now, or what reads it be installed.
        if done is None or done.field.status == "rejected":
            done = find_cells(source, self.detector, pixel_size, workers=workers)
            self.parts.keep(key, encode_found(done))
        return _Done(key, done.field, done.sight)

    def _read(self, key: str) -> FoundField:
        """What a part holds."""
        return decode_found(self.parts.read(key), str(self.parts.file(key)))

    def _count(self, fields: Iterable[Field]) -> Differential | None:
        """The differential of all cells that enter it."""
        tally = Tally(self.classifier.scheme)
        for one in fields:
            for cell in one.cells:
                tally.add(cell.answer)
        if not tally.total:
            return None
        return differential_by(self.classifier.bundle, tally, seed=self.options.seed)


def _usable(found: Sequence[Field]) -> list[Field]:
    """Fields as they will be counted, as far as can be told before their cells are named."""
    settled = tell_singles(settle_scales(found))
    return [replace(one, status=status) for one in settled for status, _ in [status_of(one)]]


def _free(one: Field) -> int:
    """How many cells of a field are to be counted, as far as their places tell."""
    if one.status != "ok":
        return 0
    return sum(cell.answer.decision not in (SET_ASIDE, DUPLICATE) for cell in one.cells)


def _once(done: Sequence[_Done], fields: Sequence[Field]) -> list[Field]:
    """The same fields, with what another shows told so.

    Cells that are set aside count nowhere, so they neither stand for a cell of another field nor
    are repeated themselves.
    """
    seen = []
    for place, (one, field) in enumerate(zip(done, fields, strict=True)):
        if one.sight is not None and field.status == "ok":
            free = [k for k, cell in enumerate(field.cells) if cell.answer.decision != SET_ASIDE]
            boxes = tuple(field.cells[k].box for k in free)
            seen.append((place, free, replace(one.sight, boxes=boxes)))
    repeats = find_repeats([sight for _, _, sight in seen])
    told = [*fields]
    for (place, free, _), whole, firsts in zip(seen, repeats.pictures, repeats.cells, strict=True):
        field = fields[place]
        if whole is not None:
            same = fields[seen[whole][0]].name
            told[place] = replace(field, status="repeated", reason=same, cells=())
            continue
        cells = [*field.cells]
        for k, first in zip(free, firsts, strict=True):
            if first is not None:
                cells[k] = _repeated(cells[k], fields[seen[first[0]][0]].name)
        told[place] = replace(field, cells=tuple(cells))
    return told


def _repeated(cell: FieldCell, name: str) -> FieldCell:
    """A cell that another picture shows too, and that is counted there."""
    reason = f"same cell as in {_file(name)}"
    answer = replace(cell.answer, decision=DUPLICATE, reason=reason)
    return replace(cell, answer=answer)


def _placed(one: Field, place: int) -> Field:
    """A field whose cells have the paths of their crops within the run's folder."""
    cells = []
    for number, cell in enumerate(one.cells, 1):
        answer = cell.answer
        folder = f"cells/{answer.label}" if answer.label else f"others/{answer.decision}"
        path = f"{folder}/{_stem(one, place)}-{number:02d}.png"
        cells.append(replace(cell, answer=replace(answer, path=path)))
    return replace(one, cells=tuple(cells))


def _stem(one: Field, place: int) -> str:
    """A file name for what comes of a picture: its place in the run, and its own name."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", PurePath(_file(one.name)).stem)
    return f"{place:04d}-{name[:60]}"


def _file(name: str) -> str:
    """The last part of a name that somebody gave, whatever their system."""
    return PurePath(name.replace("\\", "/")).name


def _drawn(path: Path) -> Pixels | None:
    """The pixels of a field as it was drawn, or None where it was not."""
    return decode_own(path.read_bytes()) if path.exists() else None


def _picture(path: Path) -> Pixels | None:
    """The pixels of a file of the run, or None where there is none."""
    return decode_image(path.read_bytes()).pixels if path.exists() else None
