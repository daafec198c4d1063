"""``leuko field``: whole fields and slides, found, sorted, counted once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leuko.cli.batch import ResumeOption
from leuko.cli.common import (
    JsonOption,
    LogOption,
    QuietOption,
    SeedOption,
    VerboseOption,
    WorkersOption,
    command_line,
    emit_json,
    keep_apart,
    printable,
    session,
)
from leuko.cli.predict import ModelOption

__all__ = ["field"]


def field(
    pictures: Annotated[
        list[str],
        typer.Argument(help="Pictures of fields, slides, folders, globs, .zip, .txt lists, or -."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write: report, cells, overlays.")],
    model: ModelOption = "default",
    pixels_per_micrometre: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            max=100,
            help="Pixel size, where you know it; measured on red cells when left out.",
        ),
    ] = None,
    cells: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after the field in which so many white cells were found."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="Boxes that a person drew (CSV, COCO, YOLO, VOC): say how well."),
    ] = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option(help="Also write boxes as csv, coco, yolo, voc or qupath; repeatable."),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 3 when a picture was rejected.")] = False,
    seed: SeedOption = 0,
    json: JsonOption = False,
    workers: WorkersOption = None,
    resume: ResumeOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Find, name and count the white cells of whole fields, each cell once."""
    from leuko.field.boxes import read_boxes
    from leuko.render.field import field_document, format_field
    from leuko.runtime.detectors import load_detector
    from leuko.runtime.trust.decide import NEVER_CHECKED
    from leuko.runtime.zoo import load
    from leuko.workflows.field import FieldOptions, run_fields

    keep_apart({"--out": out, "--log-file": log_file}, pictures, model=model)
    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        table = None if truth is None else read_boxes(truth)
        for note in () if table is None else table.notes:
            talk.say(note)
        classifier = load(model, threads=workers)
        talk.detail(f"Model {classifier.name}, digest {classifier.digest[:12]}.")
        if not classifier.accepts:
            talk.say(NEVER_CHECKED)
        options = FieldOptions(
            pixels_per_micrometre=pixels_per_micrometre, cells=cells, truth=table,
            boxes=tuple(boxes or ()), resume=resume, workers=workers, seed=seed,
        )  # fmt: skip
        context = {"command": command_line(), "seed": seed}
        report = run_fields(
            pictures, out, classifier, load_detector(), options, context=context,
            reporter=talk.reporter,
        )  # fmt: skip
        talk.say(f"Written: {out / 'report.html'}")
    if json:
        emit_json(field_document(report, context=context))
    else:
        print(printable(format_field(report), lines=True))
    if strict and any(one.status == "rejected" for one in report.fields):
        raise typer.Exit(3)
