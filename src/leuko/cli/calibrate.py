"""``leuko models calibrate``: what an answer is worth, measured on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leuko.cli.common import (
    IgnoreOption,
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

__all__ = ["calibrate"]

Share = {"min": 0.001, "max": 0.999}


def calibrate(
    model: Annotated[str, typer.Argument(help="A bundled model, a bundle or a run folder.")],
    folder: Annotated[Path, typer.Argument(help="Class folders, or a CSV path,label,slide.")],
    out: Annotated[Path, typer.Option(help="The bundle to write: a folder, or a .zip.")],
    accuracy: Annotated[float, typer.Option(**Share, help="Promised of sure answers.")] = 0.99,
    coverage: Annotated[float, typer.Option(**Share, help="Of the prediction sets.")] = 0.98,
    alarms: Annotated[
        float, typer.Option(**Share, help="Share of ordinary images called unlike training.")
    ] = 0.01,
    ignore: IgnoreOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Fit temperature, thresholds and distances on labelled images that training has not seen."""
    from leuko.bundle import ModelBundle
    from leuko.data.reading import read_labelled
    from leuko.errors import DataError
    from leuko.history import TrustReport, TrustTargets
    from leuko.runtime.cards import trust_section
    from leuko.runtime.trust.calibrate import TrustSettings, fit_trust
    from leuko.runtime.zoo import load
    from leuko.support.artifacts import schema

    keep_apart({"--out": out, "--log-file": log_file}, [folder], model=model)
    ModelBundle.check_place(out)
    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        bundle = load(model, threads=workers).bundle
        manifest = read_labelled(folder, ignore=tuple(ignore or ()), scheme=bundle.scheme)
        for note in manifest.notes:
            talk.say(note)
        if bundle.provenance.get("source_digest") == manifest.digest:
            raise DataError(
                f"{bundle.name} was trained on the images of {folder}; limits that are fitted on "
                "them would promise too much. Give images that training has not seen."
            )
        targets = TrustTargets(accuracy=accuracy, coverage=coverage, alarms=alarms)
        fitted = fit_trust(
            bundle,
            manifest,
            TrustSettings(targets, seed=seed, strict=True),
            threads=workers,
            reporter=talk.reporter,
        )
        fitted.save(out)
    report = fitted.validation["trust"]
    if json:
        emit_json(
            {
                "schema": schema("calibration"),
                "digest": fitted.digest,
                "thresholds": fitted.thresholds,
                "trust": report,
            }
        )
        return
    print("\n".join(trust_section(TrustReport.from_dict(report), fitted.thresholds)))
    print(f"{out}: digest {fitted.digest[:12]}")
