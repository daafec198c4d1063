"""``leuko models list|show|card`` and ``leuko import-model``: what can be opened, and more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from leuko.cli.common import (
    JsonOption,
    LogOption,
    QuietOption,
    VerboseOption,
    command_line,
    emit_json,
    session,
)

__all__ = ["register"]

models_app = typer.Typer(help="The bundled models.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="A bundled model, a bundle or a run folder.")]


def register(app: typer.Typer) -> None:
    """Add this file's commands.

    Parameters
    ----------
    app : typer.Typer
        The command line.
    """
    app.add_typer(models_app, name="models")
    app.command("import-model")(import_model)


@models_app.command("list")
def list_models(json: JsonOption = False) -> None:
    """List the bundled models."""
    from leuko.bundle import ModelBundle
    from leuko.runtime.classifier import zoo_models

    rows = {name: _facts(ModelBundle.load(path)) for name, path in zoo_models().items()}
    if json:
        emit_json({"models": rows})
        return
    for name, facts in rows.items():
        accuracy = facts["validation"].get("metrics", {}).get("accuracy", {}).get("value")
        told = f"validation accuracy {accuracy:.4f}" if accuracy is not None else "no validation"
        print(f"{name}\t{facts['parameters']:,} parameters\t{told}")


@models_app.command()
def show(model: Model, json: JsonOption = False) -> None:
    """Show what a model is: input, classes, digests, validation."""
    from leuko.runtime.classifier import load

    facts = _facts(load(model).bundle)
    if json:
        emit_json(facts)
        return
    for key in ("name", "digest", "parameters", "input", "crop", "classes"):
        print(f"{key}: {facts[key]}")
    for name, metric in facts["validation"].get("metrics", {}).items():
        print(f"validation {name}: {metric['value']:.4f}")


@models_app.command()
def card(model: Model) -> None:
    """Print a model's card."""
    from leuko.runtime.classifier import load

    print(load(model).bundle.card)


def import_model(
    file: Annotated[Path, typer.Argument(help="A Keras model, .keras or .h5, from anybody.")],
    classes: Annotated[
        str, typer.Option(help="The five class names in the model's own order, with commas.")
    ],
    out: Annotated[Path, typer.Option(help="The bundle to write: a folder, or a .zip.")],
    input_scale: Annotated[
        str,
        typer.Option(help="What pixels 0-255 were multiplied by before the model, as 1/255."),
    ] = "1",
    crop: Annotated[
        float, typer.Option(min=0.05, max=1.0, help="Central part of a picture that is used.")
    ] = 1.0,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Turn a foreign Keras model into a bundle, in a confined process; no code of it is run."""
    from leuko.cli.extras import importing_room

    room = importing_room()
    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        bundle = room.import_bundle(
            file,
            classes=classes.split(","),
            input_scale=room.parse_scale(input_scale),
            crop=crop,
            command=command_line(),
            say=talk.say,
        )
        bundle.save(out)
    if json:
        emit_json(_facts(bundle))
    else:
        print(f"{out}: {bundle.parameters:,} parameters, digest {bundle.digest[:12]}")


def _facts(bundle: Any) -> dict[str, Any]:
    """What a person or a script wants to know of a bundle."""
    from leuko.taxonomy import CLASSES

    return {
        "name": bundle.name,
        "digest": bundle.digest,
        "parameters": bundle.parameters,
        "input": list(bundle.preprocess.size),
        "crop": bundle.preprocess.crop,
        "classes": list(CLASSES),
        "calibration": bundle.calibration,
        "thresholds": bundle.thresholds,
        "validation": bundle.validation,
        "provenance": bundle.provenance,
    }
