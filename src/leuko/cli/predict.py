"""``leuko predict`` and ``leuko evaluate``: a bundle on images."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leuko.cli.batch import AddressOption, EngineOption, OutOption, ResumeOption
from leuko.cli.common import (
    DeviceOption,
    IgnoreOption,
    JsonOption,
    LabelColumnOption,
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
    printable,
    session,
    try_outputs,
)
from leuko.prediction import Prediction, PredictionTable
from leuko.prediction_files import csv_cells, csv_line, csv_names

if TYPE_CHECKING:
    from leuko.runtime.classifier import OnnxClassifier
    from leuko.scheme import ClassScheme
    from leuko.source import Source

__all__ = ["register"]

_SHEET = 48

Images = Annotated[
    list[str],
    typer.Argument(help="Files, folders, globs, .zip archives, .txt lists, or - for a list."),
]
ModelOption = Annotated[
    str,
    typer.Option("--model", "-m", help="A bundled model or a path."),
]


def register(app: typer.Typer) -> None:
    """Add this file's commands.

    Parameters
    ----------
    app : typer.Typer
        The command line.
    """
    app.command("predict")(predict)
    app.command("evaluate")(evaluate)


def predict(
    images: Images,
    model: ModelOption = "default",
    csv: Annotated[Path | None, typer.Option(help="Write the answers as CSV.")] = None,
    out: OutOption = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png|FILE.jpg", help="Draw what was decided on each, as PNG or as JPEG."
        ),
    ] = None,
    explain: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a PNG of where each answer comes from."),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 3 when a file was rejected.")] = False,
    json: JsonOption = False,
    workers: WorkersOption = None,
    device: DeviceOption = "cpu",
    engine: EngineOption = "local",
    address: AddressOption = None,
    resume: ResumeOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Name the class of single-cell images. A bad file gets its reason; the run goes on."""
    from leuko.artifacts import atomic_write_bytes
    from leuko.cli import batch
    from leuko.runtime.classifier import load
    from leuko.runtime.repeats import mark_repeats
    from leuko.runtime.sources import expand
    from leuko.runtime.trust import NEVER_CHECKED

    outputs = {"--csv": csv, "--out": out, "--picture": picture, "--explain": explain,
               "--log-file": log_file}  # fmt: skip
    keep_apart(outputs, images, model=model)
    if explain is not None:
        _keep_earlier(explain, images)
    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        alone = {"--json": json, "--picture": picture is not None,
                 "--explain": explain is not None, "--device": device != "cpu"}  # fmt: skip
        csv, whole = batch.sort_outputs(engine, csv=csv, out=out, address=address, resume=resume,
                                        alone=alone)  # fmt: skip
        encode = None if picture is None else _encoder(picture)
        try_outputs(csv, whole, picture)
        classifier = load(model, threads=workers, device=device)
        talk.detail(f"Model {classifier.name}, digest {classifier.digest[:12]}.")
        if not classifier.trust.accepts:
            talk.say(NEVER_CHECKED)
        gallery = None
        if engine != "local":
            kept, outcomes = batch.predict_in_batch(images, classifier, talk, engine=engine,
                                                    address=address, workers=workers, out=whole,
                                                    resume=resume)  # fmt: skip
        else:
            sources = expand(images, say=talk.say)
            if picture is not None:
                from leuko.render.picture import Gallery

                gallery = Gallery(_SHEET)
                sources = gallery.watch(sources)
            answers = classifier.stream(sources)
            if explain is not None:
                answers = _explained(classifier, sources, images, explain, workers, talk)
            answers = mark_repeats(answers)
            if gallery is not None:
                answers = gallery.keep(answers)
            answers = batch.also_to_parquet(answers, whole, classifier)
            scheme = classifier.bundle.scheme
            kept, outcomes = _collect(answers, talk, scheme=scheme, csv=csv, keep=json,
                                      show=not json and whole is None)  # fmt: skip
        if json:
            emit_json(PredictionTable(tuple(kept), classifier.bundle.scheme).to_dict())
        _tell(outcomes, talk, done="Count the classes with leuko count.")
        if picture is not None and encode is not None and gallery is not None:
            # Last, as it may fail: an image is no longer what it was.
            atomic_write_bytes(picture, encode(gallery.draw(reporter=talk.reporter)))
    if strict and any(what == "rejected" for what, _ in outcomes):
        raise typer.Exit(3)


def _tell(outcomes: Mapping[tuple[str, str], int], talk: Session, done: str = "") -> None:
    """End with how many images came to what, and the next step; it is an error where none did."""
    from leuko.errors import DataError
    from leuko.render.answers import all_rejected, next_step, tally_text

    nothing = all_rejected(outcomes)
    if nothing:
        raise DataError(nothing)
    parts = (tally_text(outcomes), next_step(outcomes) or done, "Research use only.")
    talk.say(" ".join(filter(None, parts)))


def _collect(
    answers: Iterator[Prediction],
    talk: Session,
    *,
    scheme: ClassScheme,
    csv: Path | None,
    keep: bool,
    show: bool,
) -> tuple[list[Prediction], Counter[tuple[str, str]]]:
    """Print and write answers as they come; keep them only when they are needed later."""
    import contextlib
    import io

    from leuko.artifacts import atomic_write

    kept: list[Prediction] = []
    outcomes: Counter[tuple[str, str]] = Counter()
    how_far = now_and_then(talk)
    with contextlib.ExitStack() as stack:
        file = None
        if csv is not None:
            raw = stack.enter_context(atomic_write(csv))
            file = io.TextIOWrapper(
                raw, encoding="utf-8", errors="surrogateescape", newline="", write_through=True
            )
            file.write(csv_line(csv_names(scheme)))
        for row in answers:
            outcomes[row.outcome] += 1
            if file is not None:
                file.write(csv_line(csv_cells(row, scheme)))
            if keep:
                kept.append(row)
            if row.status != "ok":
                talk.say(f"Rejected {row.path} ({row.reason}: {row.detail})")
            elif row.detail:
                talk.say(f"Note on {row.path}: {row.detail}")
            if show and csv is None:
                print(_line(row))
            else:
                how_far(outcomes.total())
        if file is not None:
            file.detach()
    sys.stdout.flush()
    return kept, outcomes


def _keep_earlier(folder: Path, images: list[str]) -> None:
    """Do not draw over pictures of an earlier call that are given as images now, as by a glob."""
    from leuko.errors import UsageError
    from leuko.runtime.sources import named_files

    place = Path(os.path.realpath(folder))
    for file in (file for argument in images for file in named_files(argument)):
        if file.endswith(".explained.png") and Path(os.path.realpath(file)).parent == place:
            raise UsageError(
                f"{file} is an earlier picture in --explain {folder} and might be overwritten; "
                "choose another folder."
            )


def _explained(
    classifier: OnnxClassifier,
    sources: Iterator[Source],
    images: list[str],
    folder: Path,
    workers: int | None,
    talk: Session,
) -> Iterator[Prediction]:
    """Answers that leave a picture behind, in a folder that is not read itself."""
    from leuko.render.explained import check_folder, explained

    check_folder(folder, images)
    return explained(classifier, sources, folder, threads=workers, reporter=talk.reporter)


def _line(row: Prediction) -> str:
    """One answer for a terminal."""
    from leuko.render.answers import question, title, why

    path = printable(row.path)  # one line a row
    if row.status != "ok":
        return f"{path}\trejected\t{row.reason}"
    if not row.label:
        decided = f"{title(row).lower()}: {question(row)}".removesuffix(": ")
        likeliest = f"(likeliest: {row.likeliest} {row.confidence:.3f})"
        return f"{path}\t{decided}\t{printable(why(row))}\t{likeliest}"
    others = sorted(row.scores.items(), key=lambda item: -item[1])[1]
    return f"{path}\t{row.label}\t{row.confidence:.3f}\t(next: {others[0]} {others[1]:.3f})"


def _encoder(picture: Path) -> Callable[[Any], bytes]:
    """How a picture of that name is written."""
    from leuko.errors import UsageError
    from leuko.files import mark_own_picture
    from leuko.imaging import encode_jpeg, encode_png

    known: dict[str, Callable[[Any], bytes]] = {
        ".png": encode_png,
        ".jpg": encode_jpeg,
        ".jpeg": encode_jpeg,
    }
    encode = known.get(picture.suffix.lower())
    if encode is None:
        raise UsageError(f"--picture must end in {', '.join(known)}, received {picture.name}.")
    return lambda pixels: mark_own_picture(encode(pixels))


def _pairs(given: Iterable[str]) -> dict[str, str]:
    """What ``--merge A=B`` says."""
    from leuko.errors import UsageError

    pairs = [text.partition("=") for text in given]
    for before, equals, after in pairs:
        if not (before and equals and after):
            raise UsageError(f"--merge must read A=B, received {before}{equals}{after}.")
    return {before: after for before, _, after in pairs}


def evaluate(
    model: Annotated[str, typer.Argument(help="A bundled model, a bundle or a run folder.")],
    folder: Annotated[Path, typer.Argument(help="Class folders, or a CSV path,label,slide.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for evaluation.json, predictions.csv and report.html."),
    ] = None,
    merge: Annotated[
        list[str] | None,
        typer.Option(
            "--merge", metavar="A=B", help="Take class A of the set for the model's B; repeatable."
        ),
    ] = None,
    label_column: LabelColumnOption = "label",
    ignore: IgnoreOption = None,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap.")] = 1000,
    strict: Annotated[bool, typer.Option(help="Exit with 3 when a file was rejected.")] = False,
    seed: SeedOption = 0,
    json: JsonOption = False,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Score a model on labelled images: figures with intervals, mistakes, baselines."""
    from leuko.experiment.evaluating import evaluate as run_evaluation

    rows = None if out is None else out / "predictions.csv"
    keep_apart({"--out": rows, "--log-file": log_file}, [folder], model=model)
    if out is not None:
        try_outputs(out / "evaluation.json", rows, out / "report.html")
    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        result = run_evaluation(
            model,
            folder,
            ignore=tuple(ignore or ()),
            merge=_pairs(merge or ()),
            label_column=label_column,
            seed=seed,
            resamples=resamples,
            command=command_line(),
            threads=workers,
            reporter=talk.reporter,
        )
        if out is not None:
            talk.say(f"Written: {result.write(out)}")
        _tell(result.table.outcomes, talk)
    if json:
        emit_json(result.to_dict())
    else:
        print(printable(result.summary(), lines=True))
    if strict and result.table.rejected:
        raise typer.Exit(3)
