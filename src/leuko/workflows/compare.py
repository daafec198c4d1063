"""Recipes side by side on one data set: same rows, several seeds, paired tests, one page."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, count
from pathlib import Path
from typing import Any

from leuko import __version__
from leuko.data.audit.audit import audit_dataset
from leuko.data.audit.report import AuditReport
from leuko.data.dataset import Dataset
from leuko.data.reading import read_labelled
from leuko.evaluation.comparison import ComparisonReport, Model, Run, recipe_titles, set_means
from leuko.evaluation.paired import Answers, PairedTest, compare_predictions
from leuko.evaluation.report import SetResult
from leuko.manifest import Manifest
from leuko.prediction_files import read_predictions, write_csv
from leuko.recipe import Recipe
from leuko.render.audit import audit_document
from leuko.render.plots import require_matplotlib
from leuko.render.verdict import comparison_document
from leuko.runtime.classifier import OnnxClassifier
from leuko.scheme import merging
from leuko.support.artifacts import atomic_write_json, atomic_write_text, prepare_folder, read_json
from leuko.support.host import machine, versions
from leuko.support.reporter import SILENT, Reporter
from leuko.training.options import RunOptions
from leuko.training.ready import check_ready, with_weights
from leuko.training.run import train
from leuko.training.run_folder import TrainedRun
from leuko.workflows.evaluate import Evaluation, evaluate
from leuko.workflows.plan import (
    check_readable,
    check_room,
    passed_over,
    plan_comparison,
)
from leuko.workflows.starting import find_starts

__all__ = ["compare"]


def compare(
    dataset: str | os.PathLike[str] | Dataset,
    recipes: Sequence[str | Recipe],
    out: str | os.PathLike[str],
    *,
    seeds: int = 1,
    unseen: Sequence[str | os.PathLike[str]] = (),
    options: RunOptions | None = None,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Train every recipe with every seed, score them on the same rows, and write the report.

    Parameters
    ----------
    dataset : path-like or Dataset
        A folder with ``Train`` and ``Test`` in it, or a CSV with a column ``split``.
    recipes : sequence of str or Recipe
        At least one.
    out : path-like
        Folder for runs, predictions, ``comparison.json``, ``comparison.md`` and ``report.html``.
    seeds : int
        How many seeds each recipe is trained with: its own, and the ones after it.
    unseen : sequence of path-like
        Labelled folders from laboratories that training has not seen.
    options : RunOptions, optional
        Initial weights in place of the recipes', resuming, threads, and what is written besides.
    reporter : Reporter, optional
        Told how far it is, and what a person should know.

    Returns
    -------
    dict
        What ``comparison.json`` holds.

    Raises
    ------
    DataError
        When there is no test folder, a class is missing in Train, there are too few slides, no
        image of a set can be read, or initial weights have seen a set that is to be measured on.
    UsageError
        When recipes repeat, there are no seeds, or the folder holds other things.
    TrainingError
        When weights cannot be had, or a run was begun with other settings.
    OutputError
        When the folder cannot be written, or the disk is too full.
    MissingExtraError
        Without Matplotlib, which draws the report.
    """
    started, options = time.monotonic(), options or RunOptions()
    if not isinstance(dataset, Dataset):
        dataset = Dataset.open(dataset, background=True, workers=options.workers)
    chosen = plan_comparison(dataset, recipes, out, seeds=seeds, resume=options.resume)
    require_matplotlib()
    if remark := passed_over(dataset):
        reporter.say(remark)
    work = _Work(dataset, chosen, seeds, _sets(dataset, unseen), Path(out), options, reporter)
    starts = find_starts(
        work.started_from, {"train": work.rows, **work.sets}, dataset.pictures,
        allow_seen=options.allow_seen, reporter=reporter,
    )  # fmt: skip
    _check_first(work)
    audit = audit_dataset(dataset, reporter=reporter)
    titles = recipe_titles({recipe.name: recipe.title for recipe in chosen})
    models = []
    for recipe in chosen:
        runs = [_train_and_score(recipe, seed, work) for seed in work.seeds_of(recipe)]
        trained = work.started_from[recipe.name]
        models.append(_model_of(trained, runs, titles[recipe.name], starts[recipe.name]))
    document = comparison_document(_report(models, audit, work, time.monotonic() - started))
    _write(document, work.folder, work.sets)
    return document


@dataclass(frozen=True)
class _Work:
    """A comparison under way: what is trained, on which rows it is measured, who hears of it."""

    dataset: Dataset
    recipes: Sequence[Recipe]
    seeds: int
    sets: dict[str, Manifest]
    folder: Path
    options: RunOptions
    reporter: Reporter

    @property
    def rows(self) -> Manifest:
        """What every recipe is trained on."""
        return self.dataset.training_rows

    @property
    def started_from(self) -> dict[str, Recipe]:
        """Recipes by name, with the weights that they are trained with."""
        return {one.name: with_weights(one, self.options.weights) for one in self.recipes}

    def seeds_of(self, recipe: Recipe) -> range:
        """Seeds that a recipe is trained with."""
        return range(recipe.seed, recipe.seed + self.seeds)

    def run(self, recipe: Recipe, seed: int) -> Path:
        """Run folder of a training."""
        return self.folder / "runs" / f"{recipe.name}-seed{seed}"

    def evaluation(self, recipe: str, seed: int, set_name: str) -> Path:
        """Folder of what a training reaches on a set."""
        return self.folder / "evaluations" / f"{recipe}-seed{seed}-{set_name}"


def _sets(dataset: Dataset, unseen: Sequence[str | os.PathLike[str]]) -> dict[str, Manifest]:
    """What is measured on, in the scheme that is trained."""
    scheme = dataset.training_rows.scheme
    sets = {"test": dataset.rows("test")}
    for place in unseen:
        manifest = read_labelled(place, ignore=dataset.ignore)
        if manifest.scheme != scheme:
            manifest = manifest.relabelled(scheme, merging(manifest.scheme, scheme))
        sets[_unused(_set_name(place), sets)] = manifest
    return sets


def _check_first(work: _Work) -> None:
    """Refuse what would stop a training, or a measurement, after others have taken their time."""
    check_readable({"Train": work.rows, **work.sets}, work.dataset.pictures)
    unfinished = []
    for recipe in work.started_from.values():
        for seed in work.seeds_of(recipe):
            run = work.run(recipe, seed)
            check_ready(recipe.with_seed(seed), run, work.rows)
            if not (run / "bundle" / "bundle.json").exists():
                unfinished.append(recipe)
    prepare_folder(work.folder)
    check_room(work.folder, unfinished, work.rows)


def _train_and_score(recipe: Recipe, seed: int, work: _Work) -> Run:
    """Train one recipe with one seed, or open what an earlier call has trained, and evaluate it."""
    stage = f"{recipe.name}, seed {seed}"
    work.reporter.say(f"Training {stage}")
    run = train(
        work.dataset,
        recipe.with_seed(seed),
        work.run(recipe, seed),
        options=replace(work.options, resume=True),
        reporter=work.reporter.within(stage),
    )
    return _score(run, recipe, seed, work)


def _report(
    models: Sequence[Model], audit: AuditReport, work: _Work, seconds: float
) -> ComparisonReport:
    """Put everything together."""
    parts = {"train": work.rows, **work.sets}
    return ComparisonReport(
        dataset=work.dataset.place.resolve().name,
        data_digest={name: part.digest for name, part in parts.items()},
        models=tuple(models),
        paired=tuple(_paired(models, work)),
        notes=tuple(note for part in parts.values() for note in part.notes),
        audit=audit_document(audit),
        command=work.options.command,
        version=__version__,
        machine=machine(),
        versions=versions(),
        total_seconds=round(seconds, 1),
    )


def _score(run: TrainedRun, recipe: Recipe, seed: int, work: _Work) -> Run:
    """Evaluate one run on every set, or open what an earlier call had written."""
    evaluations: dict[str, Any] = {"validation": run.validation}
    speed = 0.0
    classifier: OnnxClassifier | None = None
    for name, manifest in work.sets.items():
        place = work.evaluation(recipe.name, seed, name)
        document = _finished(place, run.bundle.digest, manifest.digest)
        if document is None:
            classifier = classifier or OnnxClassifier(run.bundle, threads=work.options.workers)
            result: Evaluation = evaluate(
                classifier,
                manifest,
                command=work.options.command,
                reporter=work.reporter.within(f"{recipe.name} on {name}"),
            )
            document = result.to_dict()
            document["images_per_second"] = round(result.images_per_second, 1)
            write_csv(result.table, place / "predictions.csv")
            atomic_write_json(place / "evaluation.json", document)
        if name == "test":
            speed = float(document["images_per_second"])
        evaluations[name] = document
    seconds = {key: round(value, 1) for key, value in run.seconds.items()}
    return Run(
        seed=seed,
        run=work.run(recipe, seed).relative_to(work.folder).as_posix(),
        seconds={**seconds, "total": round(sum(run.seconds.values()), 1)},
        epochs=len(run.history),
        predict_images_per_second=speed,
        bundle_bytes=sum(len(data) for data in run.bundle.members().values()),
        parameters=run.bundle.parameters,
        images={
            side: run.bundle.provenance[f"{side}_images"] for side in ("training", "validation")
        },
        evaluations={name: SetResult.from_dict(one) for name, one in evaluations.items()},
        history=run.history,
    )


def _finished(place: Path, bundle: str, data: str) -> dict[str, Any] | None:
    """Open an evaluation of the same bundle on the same data, if it was finished."""
    if not (place / "evaluation.json").exists():
        return None
    document = read_json(place / "evaluation.json", "evaluation")
    same = document["model"]["digest"] == bundle and document["data"]["digest"] == data
    return document if same else None


def _model_of(recipe: Recipe, runs: Sequence[Run], title: str, start: Mapping[str, Any]) -> Model:
    """One recipe, with the weights that it was trained with, and all its runs."""
    return Model(
        recipe=recipe.name,
        title=title,
        transfer=recipe.model.network.has_backbone and recipe.model.weights != "none",
        split=recipe.data.split,
        size=recipe.preprocess.size,
        runs=tuple(runs),
        mean=set_means(runs),
        published=recipe.published,
        history=runs[0].history,
        start=start,
    )


def _paired(models: Sequence[Model], work: _Work) -> list[PairedTest]:
    """Every pair of recipes on the same rows, seed by seed and set by set."""
    tests = []
    for name, manifest in work.sets.items():
        for a, b in combinations(models, 2):
            for runs in zip(a.runs, b.runs, strict=True):
                tables = [
                    read_predictions(
                        work.evaluation(model.recipe, run.seed, name) / "predictions.csv"
                    )
                    for model, run in zip((a, b), runs, strict=True)
                ]
                kept = manifest.subset(tables[0].answered)
                answers = (
                    Answers(model.recipe, run.seed, table.probabilities)
                    for model, run, table in zip((a, b), runs, tables, strict=True)
                )
                tests.append(compare_predictions(kept.labels, kept.slides, *answers, set_name=name))
    return tests


def _write(document: dict[str, Any], folder: Path, sets: dict[str, Manifest]) -> None:
    """Write the three forms of the comparison."""
    from leuko.render.report import comparison_html, comparison_markdown, worst_mistakes

    atomic_write_json(folder / "comparison.json", document)
    atomic_write_text(folder / "comparison.md", comparison_markdown(document))
    pictures = {
        model["recipe"]: worst_mistakes(
            model["runs"][0]["evaluations"]["test"], sets["test"].root, limit=12
        )
        for model in document["models"]
    }
    atomic_write_text(folder / "report.html", comparison_html(document, pictures=pictures))


def _set_name(place: str | os.PathLike[str]) -> str:
    """Name an unseen folder, or table, by its last part."""
    path = Path(place).expanduser().resolve()
    return path.name if path.is_dir() else path.stem


def _unused(name: str, taken: dict[str, Manifest]) -> str:
    """Make a set's name its own."""
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(one for one in names if one not in {"train", "validation", *taken})
