"""Everything on drawn data: no network, no data set, a few minutes on two cores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from leuko.data.balance.write import write_balanced
from leuko.data.reading import read_split
from leuko.data.synth import SmearPlan, draw_dataset
from leuko.imaging.decode import encode_png, read_image
from leuko.recipe import Recipe, load_recipe
from leuko.render.answers import tally_text
from leuko.render.picture import prediction_sheet
from leuko.runtime.zoo import load
from leuko.support.artifacts import atomic_write_bytes
from leuko.support.files import mark_own_picture
from leuko.support.parallel import worker_count
from leuko.support.reporter import SILENT, Reporter
from leuko.training.options import RunOptions
from leuko.workflows.compare import compare

__all__ = ["demo_recipes", "run_demo"]


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> Path:
    """Draw a small data set, balance it, train and compare both networks, predict cells.

    The figures say that the parts work together, and nothing about real blood.

    Parameters
    ----------
    out : Path
        Folder to write to; a demo that was stopped goes on.
    seed : int
        Of drawing and training.
    workers : int, optional
        Threads.
    reporter : Reporter, optional
        Told how far it is, and what a person should know.

    Returns
    -------
    Path
        ``report.html``.
    """
    dataset = out / "Dataset"
    reporter.say(f"Drawing a small smear data set in {dataset}")
    draw_dataset(
        dataset,
        SmearPlan(train=600, test=200, seed=seed),
        workers=worker_count(workers),
        reporter=reporter,
    )
    reporter.say("Balancing its training images as published")
    write_balanced(
        read_split(dataset, "train"),
        out / "Balanced_Train",
        seed=seed,
        workers=workers,
        reporter=reporter,
    )
    reporter.say("Training and comparing both networks")
    recipes = demo_recipes(seed)
    compare(
        dataset,
        recipes,
        out / "compare",
        options=RunOptions(resume=True, workers=workers, cache=out / "cache", command="leuko demo"),
        reporter=reporter,
    )
    shown = out / "compare" / "runs" / f"{recipes[-1].name}-seed{seed}"
    classifier = load(shown, threads=workers)
    held = read_split(dataset, "test")
    rows = []
    for label in range(5):
        rows += [i for i, sample in enumerate(held.samples) if sample.label == label][:2]
    files = held.subset(rows).files()
    table = classifier.predict(files)
    sheet = prediction_sheet(
        [(read_image(file).pixels, row) for file, row in zip(files, table.predicted, strict=True)]
    )
    atomic_write_bytes(out / "predictions.png", mark_own_picture(encode_png(sheet)))
    reporter.say(f"Predicted cells: {out / 'predictions.png'}. {tally_text(table.outcomes)}")
    return out / "compare" / "report.html"


def demo_recipes(seed: int) -> list[Recipe]:
    """Shorten both recipes so that drawn data need a minute each.

    Parameters
    ----------
    seed : int
        Written into them.

    Returns
    -------
    list of Recipe
        The CNN, and MobileNetV2 on Leuko's own backbone, which needs no network.
    """
    cnn = load_recipe("cnn")
    cnn = replace(cnn, seed=seed, train=replace(cnn.train, epochs=5, steps=40), published={})
    transfer = load_recipe("mobilenetv2")
    transfer = replace(
        transfer,
        seed=seed,
        title="Frozen MobileNetV2 (Leuko's backbone)",
        data=replace(transfer.data, per_class=150),
        model=replace(transfer.model, weights="leuko"),
        published={},
    )
    return [cnn, transfer]
