"""``leuko data info|draw|shrink`` and ``leuko balance``: what is in a data set, and making one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from leuko.cli.common import (
    ClassesOption,
    IgnoreOption,
    JsonOption,
    LabelColumnOption,
    LogOption,
    QuietOption,
    SeedOption,
    Session,
    VerboseOption,
    WorkersOption,
    chosen_scheme,
    emit_json,
    open_dataset,
    printable,
    session,
    try_outputs,
)
from leuko.support.text import rejection

__all__ = ["app", "balance"]

app = typer.Typer(help="Look at a data set, draw one, or shrink one.", no_args_is_help=True)


@app.command()
def info(
    dataset: Annotated[
        Path,
        typer.Argument(
            help="A folder with Train and Test, or class folders, or a CSV path,label,slide,split."
        ),
    ],
    background: Annotated[
        bool, typer.Option(help="Test whether the background alone tells the class.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Write audit.json and audit.html here.")] = None,
    classes: ClassesOption = None,
    label_column: LabelColumnOption = "label",
    ignore: IgnoreOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Say what is in a data set, and what is wrong with it."""
    from leuko.data.audit.audit import audit_dataset
    from leuko.render.audit import audit_document, format_audit
    from leuko.support.artifacts import atomic_write_json, atomic_write_text, prepare_folder

    if out is not None:
        try_outputs(out / "audit.json", out / "audit.html")
    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        with_page = out is not None and _can_draw(talk)
        opened = open_dataset(dataset, classes, label_column, ignore, workers)
        audit = audit_dataset(
            opened,
            background=background,
            seed=seed,
            reporter=talk.reporter,
        )
        if out is not None:
            prepare_folder(out)
            written = out / "audit.json"
            document = audit_document(audit)
            atomic_write_json(written, document)
            if with_page:
                from leuko.render.report import audit_html

                written = out / "audit.html"
                atomic_write_text(written, audit_html(document))
            talk.say(f"Written: {written}")
    if json:
        emit_json(audit_document(audit))
    else:
        print(printable(format_audit(audit), lines=True))


def _can_draw(talk: Session) -> bool:
    """Whether this install draws a page's plots; said before the long work when it does not."""
    from leuko.errors import MissingExtraError
    from leuko.render.plots import require_matplotlib

    try:
        require_matplotlib()
    except MissingExtraError as error:
        talk.say(f"audit.html is left out. {error}")
        return False
    return True


@app.command()
def draw(
    out: Annotated[Path, typer.Argument(help="Folder of the new data set.")],
    train: Annotated[int, typer.Option(min=15, help="Cells in Train.")] = 200,
    test: Annotated[int, typer.Option(min=0, help="Cells in Test.")] = 100,
    size: Annotated[int, typer.Option(min=64, max=1024, help="Side of a crop, pixels.")] = 288,
    fields: Annotated[int, typer.Option(min=0, help="Whole fields, with boxes.")] = 0,
    masks: Annotated[bool, typer.Option(help="Write nucleus and cytoplasm masks too.")] = False,
    classes: Annotated[
        str, typer.Option(metavar="NAME|FILE.toml", help="Class scheme of the cells.")
    ] = "differential-5",
    seed: SeedOption = 0,
    json: JsonOption = False,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Draw a data set of smears: cells, slides, stains and cameras, all from a seed."""
    from leuko.data.synth import SmearPlan, draw_dataset, mix_of
    from leuko.scheme import load_scheme
    from leuko.support.parallel import worker_count

    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        mix = mix_of(load_scheme(classes))
        plan = SmearPlan(train, test, seed, size=size, imbalance=mix, masks=masks, fields=fields)
        summary: dict[str, Any] = draw_dataset(
            out,
            plan,
            workers=worker_count(workers),
            reporter=talk.reporter,
        )
    if json:
        emit_json(summary)
    else:
        print(f"Drawn: {train + test} cells and {fields} fields in {out}")


@app.command()
def shrink(
    dataset: Annotated[
        Path, typer.Argument(help="A folder with Train and Test, or class folders.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the smaller copy.")],
    size: Annotated[int, typer.Option(min=16, help="Longer side, pixels.")] = 288,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality.")] = 85,
    ignore: IgnoreOption = None,
    json: JsonOption = False,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Write a smaller copy of a data set, names kept."""
    from leuko.data.shrink import shrink_dataset

    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        report = shrink_dataset(
            dataset,
            out,
            size=size,
            quality=quality,
            ignore=tuple(ignore or ()),
            workers=workers,
            reporter=talk.reporter,
        )
        for note in report.notes:
            talk.say(note)
        for file in report.rejected:
            talk.say(rejection(file.path, file.reason, file.detail))
    if json:
        emit_json(report.to_dict())
    else:
        print(
            f"{out}: {report.written} written, {report.kept} kept, {len(report.rejected)} rejected"
        )


def balance(
    train: Annotated[Path, typer.Argument(help="A training folder with class folders.")],
    out: Annotated[Path, typer.Argument(help="The balanced folder to write.")],
    target: Annotated[
        int | None, typer.Option(min=1, help="Images of each class; the largest's by default.")
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality of copies.")] = 95,
    subsampling: Annotated[str, typer.Option(help="Chroma: 420, 422 or 444.")] = "420",
    dry_run: Annotated[bool, typer.Option(help="Plan only; write nothing.")] = False,
    classes: ClassesOption = None,
    ignore: IgnoreOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Copy every original and add augmented copies until all classes are equally large.

    Stopped at any moment, the same command finishes the folder with the same bytes.
    """
    from leuko.data.balance.write import JpegStyle, write_balanced
    from leuko.data.reading import read_folder
    from leuko.render.balance import format_balance

    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        report = write_balanced(
            read_folder(train, ignore=tuple(ignore or ()), scheme=chosen_scheme(classes, train)),
            out,
            seed=seed,
            target=target,
            workers=workers,
            jpeg=JpegStyle(quality, subsampling),
            dry_run=dry_run,
            reporter=talk.reporter,
        )
    if json:
        emit_json(report.to_dict())
    else:
        print(printable(format_balance(report), lines=True))
