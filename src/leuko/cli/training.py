"""``leuko train``, ``leuko compare`` and ``leuko demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leuko.cli.common import (
    CacheOption,
    ClassesOption,
    IgnoreOption,
    JsonOption,
    LabelColumnOption,
    LogOption,
    OptionalSeed,
    QuietOption,
    VerboseOption,
    WeightsOption,
    WorkersOption,
    command_line,
    emit_json,
    open_dataset,
    printable,
    session,
)

__all__ = ["compare", "demo", "train"]

DatasetArgument = Annotated[
    Path,
    typer.Argument(help="A folder with Train and Test in it, or a CSV path,label,slide,split."),
]


def train(
    dataset: Annotated[
        Path, typer.Argument(help="A folder with Train in it, or a CSV path,label,slide.")
    ],
    recipe: Annotated[str, typer.Option(help="A recipe's name, or the path of a .toml file.")],
    out: Annotated[Path, typer.Option(help="The run folder to write.")],
    seed: OptionalSeed = None,
    weights: WeightsOption = None,
    resume: Annotated[bool, typer.Option(help="Go on where a killed run stood.")] = False,
    save_h5: Annotated[bool, typer.Option(help="Write model.h5 too.")] = False,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard's logs too.")] = False,
    classes: ClassesOption = None,
    label_column: LabelColumnOption = "label",
    ignore: IgnoreOption = None,
    cache: CacheOption = None,
    json: JsonOption = False,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Train a recipe and export the bundle that ships. Ctrl-C stops; --resume goes on."""
    from leuko.cli.extras import training_room
    from leuko.render.evaluation import no_better
    from leuko.support.artifacts import schema
    from leuko.training.options import RunOptions
    from leuko.workflows.plan import passed_over, plan_training

    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        # Opening the room takes seconds; what is wrong is said before.
        opened = open_dataset(dataset, classes, label_column, ignore, workers)
        chosen = plan_training(opened, recipe, seed=seed)
        room = training_room()
        if remark := passed_over(opened):
            talk.say(remark)
        for note in opened.training_rows.notes:
            talk.say(note)
        options = RunOptions(
            weights=weights,
            resume=resume,
            workers=workers,
            cache=cache,
            save_h5=save_h5,
            tensorboard=tensorboard,
            command=command_line(),
        )
        run = room.train(opened, chosen, out, options=options, reporter=talk.reporter)
    metrics = run.validation["metrics"]
    if json:
        emit_json(
            {
                "schema": schema("training"),
                "run": str(run.folder),
                "seconds": run.seconds,
                "epochs": len(run.history),
                "validation": metrics,
                "baselines": run.validation["baselines"],
                "bundle_digest": run.bundle.digest,
            }
        )
        return
    kind = run.bundle.validation["split"]
    where = "slides not trained on" if kind == "slide" else "a random split, which reads too high"
    print(
        f"{run.folder}: {len(run.history)} epochs in {sum(run.seconds.values()):.0f} s; validation "
        f"({where}): accuracy {metrics['accuracy']['value']:.4f}, balanced accuracy "
        f"{metrics['balanced_accuracy']['value']:.4f}, macro-F1 {metrics['macro_f1']['value']:.4f}"
    )
    if not run.validation["baselines"]["majority"].get("beaten", True):
        print(no_better(run.validation["confusion"], run.validation["classes"]))


def compare(
    dataset: DatasetArgument,
    recipes: Annotated[
        list[str],
        typer.Option("--recipes", help="Names or .toml paths; several may follow one option."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for runs and the report.")],
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each recipe.")] = 1,
    unseen: Annotated[
        list[Path] | None,
        typer.Option("--unseen", help="Labelled folders of other laboratories."),
    ] = None,
    weights: WeightsOption = None,
    allow_seen: Annotated[
        bool, typer.Option(help="Measure also on images that initial weights have learned from.")
    ] = False,
    resume: Annotated[bool, typer.Option(help="Go on where a killed run stood.")] = False,
    classes: ClassesOption = None,
    label_column: LabelColumnOption = "label",
    ignore: IgnoreOption = None,
    cache: CacheOption = None,
    json: JsonOption = False,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Train recipes on the same rows, test them in pairs, and write report.html."""
    from leuko.cli.extras import comparing_room
    from leuko.render.terminal import comparison_text
    from leuko.training.options import RunOptions
    from leuko.workflows.plan import plan_comparison

    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        opened = open_dataset(dataset, classes, label_column, ignore, workers, background=True)
        chosen = plan_comparison(opened, recipes, out, seeds=seeds, resume=resume)
        room = comparing_room()
        options = RunOptions(
            weights=weights,
            resume=resume,
            allow_seen=allow_seen,
            workers=workers,
            cache=cache,
            command=command_line(),
        )
        document = room.compare(
            opened,
            chosen,
            out,
            seeds=seeds,
            unseen=unseen or (),
            options=options,
            reporter=talk.reporter,
        )
    if json:
        emit_json(document)
        return
    print(printable(comparison_text(document), lines=True))
    print(f"Tables: {out / 'comparison.md'}, {out / 'comparison.json'}")
    print(f"Report: {out / 'report.html'}")


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("leuko-demo"),
    seed: OptionalSeed = None,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_file: LogOption = None,
) -> None:
    """Draw a small smear data set and run everything on it: no data and no network needed."""
    from leuko.cli.extras import demo_room

    room = demo_room()
    with session(quiet=quiet, verbose=verbose, log_file=log_file) as talk:
        report = room.run_demo(out, seed=seed or 0, workers=workers, reporter=talk.reporter)
    print(f"Report: {report}")
