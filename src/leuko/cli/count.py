"""``leuko count``: the differential of a sample, with limits, beside a manual count."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leuko.cli.common import (
    JsonOption,
    LogOption,
    QuietOption,
    SeedOption,
    Session,
    VerboseOption,
    WorkersOption,
    command_line,
    emit_json,
    keep_apart,
    now_and_then,
    session,
    try_outputs,
)
from leuko.cli.predict import ModelOption

if TYPE_CHECKING:
    from leuko.evaluation.counting.tally import Tally
    from leuko.prediction import Prediction
    from leuko.runtime.classifier import OnnxClassifier

__all__ = ["count"]


def count(
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, globs, .zip archives, .txt lists, or - for a list."),
    ] = None,
    model: ModelOption = "default",
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Count what leuko predict wrote, CSV, Parquet or JSON, in place of images."
        ),
    ] = None,
    manual: Annotated[
        list[Path] | None,
        typer.Option(help="A count made by a person, class,count; once for each observer."),
    ] = None,
    simultaneous: Annotated[bool, typer.Option(help="95% for all limits at once.")] = False,
    width: Annotated[
        float,
        typer.Option(min=0.01, max=50, help="Wanted half-width of the limits, in points."),
    ] = 5.0,
    csv: Annotated[Path | None, typer.Option(help="Write the count as CSV.")] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 3 when a file was rejected.")] = False,
    seed: SeedOption = 0,
    json: JsonOption = False,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Count the classes: percentages with limits that hold the model's own errors."""
    from leuko.errors import UsageError
    from leuko.evaluation.counting.differential import differential_by
    from leuko.evaluation.counting.manual import read_manual_counts
    from leuko.render.counts import count_csv, count_document, format_count
    from leuko.runtime.trust.decide import NEVER_CHECKED
    from leuko.runtime.zoo import load
    from leuko.support.artifacts import atomic_write_text

    if bool(images) == (predictions is not None):
        raise UsageError("Give images, or --predictions with the table of an earlier run.")
    inputs = [*(images or ()), predictions, *(manual or ())]
    keep_apart({"--csv": csv, "--log-file": log_file}, inputs, model=model)
    try_outputs(csv)
    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        classifier = load(model, threads=workers)
        bundle = classifier.bundle
        by_people = read_manual_counts(manual or (), bundle.scheme)
        talk.detail(f"Model {classifier.name}, digest {classifier.digest[:12]}.")
        if not classifier.accepts:
            talk.say(NEVER_CHECKED)
        tally = _tally(classifier, images or [], predictions, talk)
        result = differential_by(
            bundle,
            tally,
            simultaneous=simultaneous,
            width=width / 100,
            manual=by_people,
            seed=seed,
        )
        if csv is not None:
            atomic_write_text(csv, count_csv(result))
    if json:
        told = {"name": bundle.name, "digest": bundle.digest, "answered": sorted(tally.models)}
        context = {"command": command_line(), "model": told, "seed": seed}
        emit_json(count_document(result, context=context))
    else:
        print(format_count(result))
    if strict and tally.rejected:
        raise typer.Exit(3)


def _tally(
    classifier: OnnxClassifier, images: list[str], predictions: Path | None, talk: Session
) -> Tally:
    """Add up the answers to images, or those of a table that is there."""
    from leuko.evaluation.counting.tally import Tally
    from leuko.prediction_files import read_predictions
    from leuko.workflows.predict import answer_images

    if predictions is None:
        tally = Tally(classifier.bundle.scheme)
        _add(answer_images(images, classifier.stream, reporter=talk.reporter), tally, talk)
    else:
        table = read_predictions(predictions, classifier.bundle.scheme)
        tally = Tally(table.scheme)
        _add(table.rows, tally, talk)
    return tally


def _add(rows: Iterable[Prediction], tally: Tally, talk: Session) -> None:
    """Add answers as they come; none of them is kept."""
    from leuko.render.answers import remark_on

    how_far = now_and_then(talk)
    for row in rows:
        tally.add(row)
        if remark := remark_on(row):
            talk.say(remark)
        how_far(tally.found)
