"""``leuko adapt``: fit a bundle to one's own microscope."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leuko.cli.common import (
    JsonOption,
    LogOption,
    QuietOption,
    SeedOption,
    VerboseOption,
    WorkersOption,
    emit_json,
    keep_apart,
    session,
)

__all__ = ["adapt"]


def adapt(
    model: Annotated[str, typer.Argument(help="A bundled model, a bundle or a run folder.")],
    out: Annotated[Path, typer.Option(help="The bundle to write: a folder, or a .zip.")],
    folders: Annotated[
        list[str] | None,
        typer.Argument(help="Where labelled images are that do not stand beside the table."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV path,label,slide of 10 or more cells; slide optional. Needed."),
    ] = None,
    measure: Annotated[
        bool, typer.Option(help="Let the fit use sizes and densities measured on the cell.")
    ] = True,
    seed: SeedOption = 0,
    json: JsonOption = False,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Fit a model to one microscope, by labels of a few of its cells."""
    from leuko.bundle import ModelBundle
    from leuko.runtime.adapt.adapt import adapt as fit

    keep_apart({"--out": out, "--log-file": log_file}, [*(folders or []), labels], model=model)
    ModelBundle.check_place(out)
    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        adapted = fit(model, folders or [], labels=labels, measure=measure, seed=seed,
                      threads=workers, reporter=talk.reporter)  # fmt: skip
        adapted.bundle.save(out)
    if json:
        emit_json(adapted.to_dict())
        return
    for sentence in adapted.sentences():
        print(sentence)
    print(f"{out}: digest {adapted.bundle.digest[:12]}.")
