"""``leuko models`` and ``leuko import-model``: what can be opened, and more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from leuko.cli.calibrate import calibrate
from leuko.cli.common import (
    JsonOption,
    LogOption,
    QuietOption,
    VerboseOption,
    command_line,
    emit_json,
    keep_apart,
    printable,
    session,
)
from leuko.support.artifacts import schema

__all__ = ["app", "import_model"]

app = typer.Typer(help="The bundled models.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="A bundled model, a bundle or a run folder.")]


@app.command("list")
def list_models(json: JsonOption = False) -> None:
    """List the bundled models."""
    from leuko.bundle import ModelBundle
    from leuko.runtime.zoo import zoo_models

    rows = {name: _facts(ModelBundle.load(path)) for name, path in zoo_models().items()}
    if json:
        emit_json({"schema": schema("models"), "models": rows})
        return
    table = [("name", "input", "parameters", "network", "validated", "from")]
    for name, facts in rows.items():
        table.append(
            (
                name,
                "{} x {}".format(*facts["input"]),
                f"{facts['parameters']:,}",
                f"{facts['bytes'] / 1e6:.1f} MB {facts['weights']}",
                _headline(facts["validation"]),
                facts["from"],
            )
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        _print("  ".join(cells).rstrip())


@app.command()
def show(model: Model, json: JsonOption = False) -> None:
    """Show what a model is: input, classes, digests, validation, where it is from."""
    from leuko.runtime.trust.decide import NEVER_CHECKED
    from leuko.runtime.zoo import load

    facts = _facts(load(model).bundle)
    if json:
        emit_json({"schema": schema("model"), **facts})
        return
    _print(f"name: {facts['name']}")
    _print(f"digest: {facts['digest']}")
    _print(f"from: {facts['from']}")
    _print(f"parameters: {facts['parameters']:,}")
    _print(f"network: {facts['bytes'] / 1e6:.2f} MB, {facts['weights']}")
    _print("input: {} x {} pixels".format(*facts["input"]))
    _print(f"preprocessing: {_listed(facts['preprocess'])}")
    if facts["measured"]:
        _print(f"measured on the cell: {', '.join(facts['measured'])}")
    _print(f"classes: {', '.join(facts['classes'])}")
    _print(f"calibration: {_listed(facts['calibration'])}")
    _print(f"thresholds: {_listed(facts['thresholds']) or 'none'}")
    if not facts["accepts"]:
        _print(f"decisions: {NEVER_CHECKED}")
    validation = facts["validation"]
    if not validation.get("metrics"):
        _print("validation: none; measure it with leuko evaluate")
        return
    _print(f"validation: {_sample(validation)}")
    for name, metric in validation["metrics"].items():
        low, high = metric.get("low"), metric.get("high")
        span = f" ({low:.4f} to {high:.4f})" if low is not None and high is not None else ""
        _print(f"validation {name}: {metric['value']:.4f}{span}")


@app.command()
def card(model: Model, json: JsonOption = False) -> None:
    """Print a model's card: what it was trained on, what it reached, what it is not for."""
    from leuko.runtime.zoo import load

    bundle = load(model).bundle
    if json:
        emit_json(
            {
                "schema": schema("card"),
                "name": bundle.name,
                "digest": bundle.digest,
                "card": bundle.card,
            }
        )
        return
    print(printable(bundle.card.rstrip("\n"), lines=True))


app.command()(calibrate)


def import_model(
    file: Annotated[
        Path, typer.Argument(help="A model from anybody: Keras (.keras, .h5) or ONNX.")
    ],
    classes: Annotated[
        str, typer.Option(help="Its class names in the model's own order, with commas.")
    ],
    out: Annotated[Path, typer.Option(help="The bundle to write: a folder, or a .zip.")],
    input_scale: Annotated[
        str | None,
        typer.Option(
            help="What pixels 0-255 were multiplied by before the model, as 1/255; or three.",
            show_default="1 where the network scales pixels itself",
        ),
    ] = None,
    input_offset: Annotated[
        str | None,
        typer.Option(help="What was added then, as -1; or three with commas.", show_default="0"),
    ] = None,
    channel_order: Annotated[str, typer.Option(help="What the model takes: rgb or bgr.")] = "rgb",
    crop: Annotated[
        float, typer.Option(min=0.05, max=1.0, help="Central part of a picture that is used.")
    ] = 1.0,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Turn a foreign Keras or ONNX model into a bundle; no code of it is run."""
    from leuko.bundle import ModelBundle
    from leuko.formats.importing import import_bundle, read_pixels

    keep_apart({"--out": out, "--log-file": log_file}, [file])
    ModelBundle.check_place(out)
    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        bundle = import_bundle(
            file,
            classes=classes.split(","),
            pixels=read_pixels(input_scale, input_offset, channel_order),
            crop=crop,
            command=command_line(),
            reporter=talk.reporter,
        )
        bundle.save(out)
        talk.say(
            "It accepts no answer yet, as nothing is known of its errors. Next: leuko models "
            "calibrate with labelled images of your microscope."
        )
    if json:
        emit_json({"schema": schema("model"), **_facts(bundle)})
    else:
        print(f"{out}: {bundle.parameters:,} parameters, digest {bundle.digest[:12]}")


def _print(line: str) -> None:
    """Print one line on a model that may be a stranger's."""
    print(printable(line))


def _facts(bundle: Any) -> dict[str, Any]:
    """What a person or a script wants to know of a bundle."""
    from leuko.runtime.trust.decide import Trust

    variant = bundle.provenance.get("variant", {})
    return {
        "name": bundle.name,
        "digest": bundle.digest,
        "from": _origin(bundle.provenance),
        "parameters": bundle.parameters,
        "bytes": len(bundle.onnx),
        "weights": variant.get("weights", "float32"),
        "input": list(bundle.preprocess.size),
        "crop": bundle.preprocess.crop,
        "preprocess": bundle.preprocess.to_dict(),
        "measured": [] if bundle.measured is None else list(bundle.measured.names),
        "classes": list(bundle.scheme.names),
        "calibration": bundle.calibration,
        "thresholds": bundle.thresholds,
        "accepts": Trust.of(bundle).accepts,
        "validation": bundle.validation,
        "provenance": bundle.provenance,
    }


def _origin(provenance: dict[str, Any]) -> str:
    """Where a model is from, in a few words; provenance is free text, so nothing is sure."""
    parts = []
    variant, imported = provenance.get("variant"), provenance.get("imported")
    recipe, images = provenance.get("recipe"), provenance.get("training_images")
    if isinstance(variant, dict) and isinstance(variant.get("source"), dict):
        parts.append(f"{variant.get('weights')} of {variant['source'].get('name')}")
    if isinstance(imported, dict):
        parts.append(f"imported from {imported.get('source_name')}")
    if isinstance(recipe, dict):
        parts.append(f"recipe {recipe.get('name')}")
    if isinstance(images, int):
        parts.append(f"{images:,} training images")
    return ", ".join(parts) or "unknown"


def _headline(validation: dict[str, Any]) -> str:
    """Validation figures for a table."""
    metrics = validation.get("metrics", {})
    names = {"accuracy": "accuracy", "balanced_accuracy": "balanced", "macro_f1": "macro-F1"}
    told = [f"{short} {metrics[name]['value']:.4f}" for name, short in names.items()
            if name in metrics]  # fmt: skip
    return ", ".join(told) or "no"


def _sample(validation: dict[str, Any]) -> str:
    """What a model was validated on."""
    n, slides = validation.get("n"), validation.get("n_slides")
    count = f"{n:,} images" if isinstance(n, int) else "an unknown number of images"
    if isinstance(slides, int) and slides:
        count += f" of {slides} slides"
    kinds = {
        "slide": "that training did not see",
        "random-file": "drawn at random, which reads too high",
        "check": "given to leuko export --check",
        "cross-validated": "labelled for leuko adapt, cross-validated",
    }
    kind = kinds.get(str(validation.get("split")), "")
    return f"{count} {kind}".rstrip()


def _listed(values: dict[str, Any]) -> str:
    """A few settings on one line."""

    def told(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.4g}"
        if isinstance(value, list | tuple):
            return " x ".join(map(told, value))
        return str(value)

    return ", ".join(f"{name} {told(value)}" for name, value in values.items())
