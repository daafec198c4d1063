"""What ``leuko predict`` does beyond one process: engines, Parquet in and out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leuko.cli.common import Session, now_and_then

if TYPE_CHECKING:
    from collections import Counter

    from leuko.prediction import Prediction
    from leuko.runtime.classifier import OnnxClassifier

__all__ = ["AddressOption", "EngineOption", "OutOption", "ResumeOption"]

EngineOption = Annotated[
    str,
    typer.Option(
        metavar="local|processes|ray",
        help="One process with threads, several processes, or Ray Data.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST:PORT",
        help="Of a Ray cluster; without it Ray is started on this machine for this run.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE.csv|FILE.parquet", help="Write the answers as CSV or Parquet."),
]
ResumeOption = Annotated[bool, typer.Option(help="Go on with a run of an engine that was stopped.")]


def sort_outputs(
    engine: str,
    *,
    csv: Path | None,
    out: Path | None,
    address: str | None,
    resume: bool,
    alone: dict[str, bool],
) -> tuple[Path | None, Path | None]:
    """Say what is to be written, and refuse options that are at odds before anything is opened.

    Parameters
    ----------
    engine, csv, out, address, resume
        As given.
    alone : dict of str to bool
        Options that only one process has, by whether they were given.

    Returns
    -------
    (stream, whole) : tuple of Path or None
        A CSV that is written as answers come; the file of an engine, or Parquet.

    Raises
    ------
    UsageError
        When options are at odds.
    OutputError, MissingExtraError
        When the output cannot be written.
    """
    from leuko.batch.run import ENGINES
    from leuko.batch.work import check_output
    from leuko.errors import UsageError

    if engine not in ("local", *ENGINES):
        raise UsageError(f"There is no engine {engine!r}; expected local, {' or '.join(ENGINES)}.")
    if address is not None and engine != "ray":
        raise UsageError("--address goes with --engine ray.")
    if (
        csv is not None
        and out is not None
        and (engine != "local" or out.suffix.lower() != ".parquet")
    ):
        raise UsageError("--csv and --out both name the file of answers; give one of them.")
    if engine == "local":
        if resume:
            raise UsageError("--resume goes with --engine processes or --engine ray.")
        if out is None or out.suffix.lower() == ".csv":
            return csv or out, None
        check_output(out)
        return csv, out
    given = [name for name, there in alone.items() if there]
    if given:
        raise UsageError(f"{', '.join(given)} goes with --engine local, received {engine}.")
    whole = csv or out
    if whole is None:
        raise UsageError(
            f"--engine {engine} writes a file: add --out predictions.csv or predictions.parquet."
        )
    check_output(whole)
    return None, whole


def predict_in_batch(
    images: list[str],
    classifier: OnnxClassifier,
    talk: Session,
    *,
    engine: str,
    address: str | None,
    workers: int | None,
    out: Path | None,
    resume: bool,
) -> tuple[list[Prediction], Counter[tuple[str, str]]]:
    """Predict with an engine.

    Parameters
    ----------
    images : list of str
        Arguments.
    classifier : OnnxClassifier
        Already checked; its bundle goes to the workers.
    talk : Session
        To talk through.
    engine, address, workers, out, resume
        As given.

    Returns
    -------
    (rows, outcomes) : tuple of list and Counter
        No rows, as they may be millions; and images by `leuko.prediction.Prediction.outcome`.
    """
    from leuko.batch.run import open_engine, predict_to_file
    from leuko.errors import UsageError
    from leuko.runtime.sources import expand

    if out is None:
        raise UsageError(f"--engine {engine} writes a file.")
    opened = open_engine(engine, classifier.bundle, workers=workers, address=address)
    result = predict_to_file(
        expand(images, reporter=talk.reporter),
        out,
        opened,
        resume=resume,
        say=talk.say,
        detail=talk.detail,
        progress=now_and_then(talk),
    )
    if result.lost:
        talk.say(f"{result.lost} times a worker ended; what it had was done again.")
    return [], result.outcomes
