"""``leuko export``: a model in another precision, or for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from leuko.formats.outputs import OUTPUT_FORMATS
from leuko.support.artifacts import schema

if TYPE_CHECKING:
    from leuko.formats.export import Exported
    from leuko.history import Variant

__all__ = ["export"]


def export(
    model: Annotated[str, typer.Argument(help="A bundled model, a bundle or a run folder.")],
    form: Annotated[
        str, typer.Option("--format", metavar="|".join(OUTPUT_FORMATS), help="What to write.")
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit numbers; needs --check or --calibrate.")
    ] = False,
    float16: Annotated[bool, typer.Option("--float16", help="16-bit weights.")] = False,
    check: Annotated[
        Path | None,
        typer.Option(
            help="Labelled pictures; refused if balanced accuracy drops by over 0.3 points."
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Pictures that int8 ranges are measured on; else some of --check."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder, or for onnx a .zip; else a name made of the model's."),
    ] = None,
    ignore: IgnoreOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Write a model as int8, float16 or LiteRT, if it still answers as it did."""
    from leuko.errors import UsageError
    from leuko.formats.export import ExportRequest, export_model

    keep_apart({"--out": out, "--log-file": log_file}, [check, calibrate], model=model)
    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        if int8 and float16:
            raise UsageError("--int8 and --float16 exclude each other; export twice for both.")
        request = ExportRequest(
            form=form,
            weights="int8" if int8 else "float16" if float16 else "float32",
            check=check,
            calibrate=calibrate,
            ignore=tuple(ignore or ()),
            seed=seed,
        )
        done = export_model(model, out, request, workers=workers, reporter=talk.reporter)
    if json:
        emit_json(
            {
                "schema": schema("export"),
                "path": str(done.path),
                "digest": done.digest,
                "bytes": done.size,
                "source_bytes": done.source_size,
                **done.variant.to_dict(),
            }
        )
        return
    print(f"{done.path}: {done.size / 1e6:.2f} MB{_against_source(done)}; "
          f"{_compared(done.variant)}; digest {done.digest[:12]}")  # fmt: skip


def _against_source(done: Exported) -> str:
    """How large a variant is beside its original, in a few words."""
    variant = done.variant
    if variant.form == "onnx" and done.size == done.source_size:
        # Nothing was left to be rounded; a bundle that is only copied was not to get smaller.
        rounded = variant.weights == "float16"
        return f", no smaller, as {variant.source_name} is float16 already" if rounded else ""
    return f" instead of {done.source_size / 1e6:.2f}"


def _compared(variant: Variant) -> str:
    """How a variant compares with its original, in a few words."""
    check, agreement, drawn = variant.check, variant.agreement, variant.drawn
    if check is not None and check.balanced_accuracy is not None:
        figures = check.balanced_accuracy
        return (
            f"balanced accuracy {figures.after:.4f}, the original's {figures.before:.4f} on the "
            f"same {check.n:,} pictures"
        )
    if agreement is not None:
        return f"the same class for {agreement.agreement:.2%} of {agreement.n:,}"
    return (
        f"probabilities within {drawn.largest_difference:.2g} on {drawn.n} drawn cells, accuracy "
        "not measured"
    )
