"""``leuko predict`` and ``leuko evaluate``: a bundle on images."""

from __future__ import annotations

import contextlib
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

if TYPE_CHECKING:
    from leuko.runtime.classifier import OnnxClassifier
    from leuko.source import Source

__all__ = ["ModelOption", "evaluate", "predict"]

_SHEET = 48
_LOOKED_AT = 3
"""So many pictures are looked at: they may be whole fields, of which any model makes something."""

Images = Annotated[
    list[str],
    typer.Argument(help="Files, folders, globs, .zip archives, .txt lists, or - for a list."),
]
ModelOption = Annotated[
    str,
    typer.Option("--model", "-m", help="A bundled model or a path."),
]


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
    from leuko.cli import batch
    from leuko.runtime.trust.decide import NEVER_CHECKED
    from leuko.runtime.zoo import load
    from leuko.support.artifacts import atomic_write_bytes
    from leuko.workflows.predict import answer_images, written

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
        if not classifier.accepts:
            talk.say(NEVER_CHECKED)
        gallery = None
        if engine != "local":
            kept, outcomes = batch.predict_in_batch(images, classifier, talk, engine=engine,
                                                    address=address, workers=workers, out=whole,
                                                    resume=resume)  # fmt: skip
        else:
            if picture is not None:
                from leuko.render.picture import Gallery

                gallery = Gallery(_SHEET)
            stream = _streaming(classifier, images, explain, workers, talk)
            answers = answer_images(images, stream, gallery=gallery, reporter=talk.reporter)
            with contextlib.closing(written(answers, classifier, csv=csv, parquet=whole)) as rows:
                show = not json and csv is None and whole is None
                kept, outcomes = _collect(rows, talk, keep=json, show=show)
        if json:
            emit_json(PredictionTable(tuple(kept), classifier.scheme).to_dict())
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
    answers: Iterable[Prediction], talk: Session, *, keep: bool, show: bool
) -> tuple[list[Prediction], Counter[tuple[str, str]]]:
    """Print answers as they come; keep them only when they are needed later."""
    from leuko.render.answers import remark_on
    from leuko.workflows.predict import field_among

    kept: list[Prediction] = []
    first: list[Prediction] = []
    outcomes: Counter[tuple[str, str]] = Counter()
    how_far = now_and_then(talk)
    for row in answers:
        outcomes[row.outcome] += 1
        if row.status == "ok" and len(first) < _LOOKED_AT:
            first.append(row)
        if keep:
            kept.append(row)
        if remark := remark_on(row):
            talk.say(remark)
        if show:
            print(_line(row))
        else:
            how_far(outcomes.total())
    sys.stdout.flush()
    if name := field_among(first):
        talk.say(f"{name} shows a whole field, not one cell: give it to leuko field.")
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


def _streaming(
    classifier: OnnxClassifier,
    images: list[str],
    folder: Path | None,
    workers: int | None,
    talk: Session,
) -> Callable[[Iterable[Source]], Iterator[Prediction]]:
    """A way to answer, which may leave pictures behind, in a folder that is not read itself."""
    if folder is None:
        return classifier.stream
    from leuko.render.explained import check_folder, explained

    check_folder(folder, images)
    return lambda sources: explained(
        classifier, sources, folder, threads=workers, reporter=talk.reporter
    )


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
    from leuko.imaging.decode import encode_jpeg, encode_png
    from leuko.support.files import mark_own_picture

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
    from leuko.data.reading import read_labelled
    from leuko.runtime.zoo import load
    from leuko.workflows.evaluate import evaluate as run_evaluation

    rows = None if out is None else out / "predictions.csv"
    keep_apart({"--out": rows, "--log-file": log_file}, [folder], model=model)
    if out is not None:
        try_outputs(out / "evaluation.json", rows, out / "report.html")
    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        result = run_evaluation(
            load(model, threads=workers),
            read_labelled(folder, ignore=tuple(ignore or ()), label_column=label_column),
            merge=_pairs(merge or ()),
            seed=seed,
            resamples=resamples,
            command=command_line(),
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
