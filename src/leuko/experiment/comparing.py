"""Recipes side by side on one data set: same rows, several seeds, paired tests, one page."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from leuko import __version__
from leuko.artifacts import (
    RESEARCH_USE,
    atomic_write_json,
    atomic_write_text,
    prepare_folder,
    read_json,
    schema,
)
from leuko.data.audit import audit_dataset
from leuko.evaluation.compare import (
    collect_warnings,
    compare_predictions,
    mean_over_seeds,
    recipe_titles,
    verdict,
)
from leuko.experiment.evaluating import Evaluation, evaluate
from leuko.experiment.planning import (
    check_readable,
    check_room,
    passed_over,
    plan_comparison,
)
from leuko.experiment.starting import find_starts, head_starts
from leuko.host import machine, versions
from leuko.manifest import Manifest, read_labelled, read_split
from leuko.parallel import Progress
from leuko.prediction_files import read_predictions, write_csv
from leuko.recipe import Recipe, load_recipe
from leuko.render.plots import require_matplotlib
from leuko.runtime.classifier import OnnxClassifier
from leuko.scheme import ClassScheme, merging
from leuko.training.ready import check_ready, with_weights
from leuko.training.run import TrainedRun, train

__all__ = ["compare"]

Say = Callable[[str], None]

_EXPERIMENT: Final = (
    "published-cnn",
    "published-mobilenetv2",
    "cnn",
    "mobilenetv2",
    "mobilenetv2-finetuned",
)
"""The published experiment, and what Leuko corrects of it."""


def compare(
    dataset: str | os.PathLike[str],
    recipes: Sequence[str | Recipe],
    out: str | os.PathLike[str],
    *,
    seeds: int = 1,
    unseen: Sequence[str | os.PathLike[str]] = (),
    weights: str | None = None,
    allow_seen: bool = False,
    resume: bool = False,
    ignore: tuple[str, ...] = (),
    scheme: ClassScheme | None = None,
    workers: int | None = None,
    cache: Path | None = None,
    command: str = "",
    progress: Progress | None = None,
    say: Say | None = None,
) -> dict[str, Any]:
    """Train every recipe with every seed, score them on the same rows, and write the report.

    Parameters
    ----------
    dataset : path-like
        A folder with ``Train`` and ``Test`` in it.
    recipes : sequence of str or Recipe
        At least one.
    out : path-like
        Folder for runs, predictions, ``comparison.json``, ``comparison.md`` and ``report.html``.
    seeds : int
        How many seeds each recipe is trained with: its own, and the ones after it.
    unseen : sequence of path-like
        Labelled folders from laboratories that training has not seen.
    weights : str, optional
        Initial weights in place of the recipes'.
    allow_seen : bool
        Measure also on sets of which initial weights have seen more than a few images.
    resume : bool
        Go on where a killed comparison stood.
    ignore : tuple of str
        Extra folders to pass over.
    scheme : ClassScheme, optional
        See `leuko.manifest.read_folder`.
    workers : int, optional
        Threads.
    cache : Path, optional
        See `leuko.train`.
    command : str
        The command to print in the report.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.
    say : callable, optional
        Called with sentences for a person.

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
    opened = plan_comparison(dataset, recipes, out, seeds=seeds, resume=resume)
    folder, tell = Path(out), say or (lambda _: None)
    started = time.monotonic()
    require_matplotlib()
    if remark := passed_over(dataset):
        tell(remark)
    rows = read_split(dataset, "train", ignore=ignore, scheme=scheme)
    rows.require_all_classes("Training")
    sets = {"test": read_split(dataset, "test", ignore=ignore, scheme=rows.scheme)}
    for place in unseen:
        manifest = read_labelled(place, ignore=ignore)
        if manifest.scheme != rows.scheme:
            manifest = manifest.relabelled(rows.scheme, merging(manifest.scheme, rows.scheme))
        sets[_unused(_set_name(place), sets)] = manifest
    started_from = {recipe.name: with_weights(recipe, weights) for recipe in opened}
    starts = find_starts(
        started_from,
        {"train": rows, **sets},
        allow_seen=allow_seen,
        workers=workers,
        progress=progress,
    )
    trainings = {
        (recipe.name, seed): folder / "runs" / f"{recipe.name}-seed{seed}"
        for recipe in opened
        for seed in range(recipe.seed, recipe.seed + seeds)
    }
    _look_first(started_from, trainings, rows, sets)
    unfinished = [
        started_from[name]
        for (name, _), place in trainings.items()
        if not (place / "bundle" / "bundle.json").exists()
    ]
    prepare_folder(folder)
    check_room(folder, unfinished, rows)
    audit = audit_dataset(
        dataset, ignore=ignore, scheme=rows.scheme, workers=workers, progress=progress, say=tell
    )
    models = []
    for recipe in opened:
        runs = []
        for seed in range(recipe.seed, recipe.seed + seeds):
            stage = f"{recipe.name}, seed {seed}"
            tell(f"Training {stage}")
            run = train(
                rows,
                recipe.with_seed(seed),
                trainings[recipe.name, seed],
                weights=weights,
                resume=True,
                workers=workers,
                cache=cache,
                command=command,
                progress=_staged(progress, stage),
                say=tell,
            )
            runs.append(
                _score(run, recipe.name, seed, sets, folder, command, workers, progress, tell)
            )
        entry = _model_entry(recipe, runs, weights or recipe.model.weights)
        models.append({**entry, "start": starts[recipe.name]})
    for model, title in zip(models, recipe_titles(models).values(), strict=True):
        model["title"] = title
    notes = [*dict.fromkeys(note for part in (rows, *sets.values()) for note in part.notes)]
    document: dict[str, Any] = {
        "schema": schema("comparison"),
        "research_use": RESEARCH_USE,
        "version": __version__,
        "command": command,
        "dataset": Path(dataset).resolve().name,
        "data_digest": {name: m.digest for name, m in {"train": rows, **sets}.items()},
        "seeds": sorted({run["seed"] for model in models for run in model["runs"]}),
        "machine": machine(),
        "versions": versions(),
        "audit": audit,
        "balance": _balance_entry(models),
        "models": models,
        "paired": _paired(models, sets, folder),
        "warnings": [*head_starts(models), *notes, *collect_warnings(models, known=notes)],
    }
    shared = _shared_slides(audit)
    document["verdict"] = verdict(models, document["paired"], shared_slides=shared)
    document["total_seconds"] = round(time.monotonic() - started, 1)
    _write(document, folder, sets)
    return document


def _look_first(
    recipes: dict[str, Recipe],
    trainings: dict[tuple[str, int], Path],
    rows: Manifest,
    sets: dict[str, Manifest],
) -> None:
    """Refuse what would stop a training, or a measurement, after others have taken their time."""
    check_readable({"Train": rows, **sets})
    for (name, seed), place in trainings.items():
        check_ready(recipes[name].with_seed(seed), place, rows)


def _shared_slides(audit: dict[str, Any]) -> int:
    """How many slides Train and Test have in common."""
    for pair in audit["shared_slides"]["between"]:
        if set(pair["splits"]) == {"train", "test"}:
            return int(pair["count"])
    return 0


def _score(
    run: TrainedRun,
    recipe: str,
    seed: int,
    sets: dict[str, Manifest],
    folder: Path,
    command: str,
    workers: int | None,
    progress: Progress | None,
    tell: Say,
) -> dict[str, Any]:
    """Evaluate one run on every set, or open what an earlier call had written."""
    evaluations: dict[str, Any] = {"validation": run.validation}
    speed = 0.0
    classifier: OnnxClassifier | None = None
    for name, manifest in sets.items():
        place = folder / "evaluations" / f"{recipe}-seed{seed}-{name}"
        document = _finished(place, run.bundle.digest, manifest.digest)
        if document is None:
            classifier = classifier or OnnxClassifier(run.bundle, threads=workers)
            result: Evaluation = evaluate(
                classifier,
                manifest,
                command=command,
                progress=_staged(progress, f"{recipe} on {name}"),
                say=tell,
            )
            document = result.report.to_dict()
            document["images_per_second"] = round(result.images_per_second, 1)
            write_csv(result.table, place / "predictions.csv")
            atomic_write_json(place / "evaluation.json", document)
        if name == "test":
            speed = float(document["images_per_second"])
        evaluations[name] = document
    seconds = {key: round(value, 1) for key, value in run.seconds.items()}
    return {
        "seed": seed,
        "run": f"runs/{recipe}-seed{seed}",
        "seconds": {**seconds, "total": round(sum(run.seconds.values()), 1)},
        "epochs": len(run.history),
        "predict_images_per_second": speed,
        "bundle_bytes": sum(len(data) for data in run.bundle.members().values()),
        "parameters": run.bundle.parameters,
        "images": {
            side: run.bundle.provenance[f"{side}_images"] for side in ("training", "validation")
        },
        "history": run.history,
        "evaluations": evaluations,
    }


def _finished(place: Path, bundle: str, data: str) -> dict[str, Any] | None:
    """Open an evaluation of the same bundle on the same data, if it was finished."""
    if not (place / "evaluation.json").exists():
        return None
    document = read_json(place / "evaluation.json", "evaluation")
    same = document["model"]["digest"] == bundle and document["data"]["digest"] == data
    return document if same else None


def _model_entry(recipe: Recipe, runs: list[dict[str, Any]], weights: str) -> dict[str, Any]:
    """One recipe in comparison.json."""
    sets = list(runs[0]["evaluations"])
    return {
        "recipe": recipe.name,
        "title": recipe.title,
        "transfer": recipe.model.network.has_backbone and weights != "none",
        "experiment": _is_of_experiment(recipe, weights),
        "split": recipe.data.split,
        "input": list(recipe.preprocess.size),
        "parameters": runs[0]["parameters"],
        "bundle_bytes": runs[0]["bundle_bytes"],
        "runs": [{k: v for k, v in run.items() if k != "history"} for run in runs],
        "mean": {name: mean_over_seeds([r["evaluations"][name] for r in runs]) for name in sets},
        "published": recipe.published or None,
        "history": runs[0]["history"],
    }


def _is_of_experiment(recipe: Recipe, weights: str) -> bool:
    """Whether a recipe is of the published experiment or its corrected versions, by its settings.

    Weights from a file are taken for those of ImageNet: without a network they come from there.
    """
    if recipe.model.network.has_backbone and weights in ("none", "leuko"):
        return False
    return _settings(recipe) in [_settings(load_recipe(name)) for name in _EXPERIMENT]


def _settings(recipe: Recipe) -> dict[str, Any]:
    """What is trained, without what it is called, its seed and where its weights lie."""
    settings = recipe.to_dict()
    for key in ("name", "title", "seed", "published"):
        del settings[key]
    del settings["model"]["weights"]
    return settings


def _balance_entry(models: list[dict[str, Any]]) -> dict[str, Any]:
    """What balancing on disk took; nothing where every recipe balances on the fly."""
    runs = [run for m in models for run in m["runs"] if "balance" in run["seconds"]]
    if not runs:
        return {}
    return {
        "seconds": round(sum(run["seconds"]["balance"] for run in runs), 1),
        "images": sum(sum(run["images"].values()) for run in runs),
    }


def _paired(
    models: list[dict[str, Any]], sets: dict[str, Manifest], folder: Path
) -> list[dict[str, Any]]:
    """Every pair of recipes on the same rows, seed by seed and set by set."""
    entries = []
    for name, manifest in sets.items():
        for first in range(len(models)):
            for second in range(first + 1, len(models)):
                a, b = models[first], models[second]
                for run_a, run_b in zip(a["runs"], b["runs"], strict=True):
                    tables = [
                        read_predictions(
                            folder / "evaluations" / f"{m['recipe']}-seed{r['seed']}-{name}"
                            / "predictions.csv"
                        )
                        for m, r in ((a, run_a), (b, run_b))
                    ]  # fmt: skip
                    kept = manifest.subset(
                        i for i, row in enumerate(tables[0].rows) if row.status == "ok"
                    )
                    entries.append(
                        compare_predictions(
                            kept.labels,
                            tables[0].probabilities,
                            tables[1].probabilities,
                            kept.slides,
                            a=a["recipe"],
                            b=b["recipe"],
                            set_name=name,
                            training_seeds=(run_a["seed"], run_b["seed"]),
                        )
                    )
    return entries


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


def _staged(progress: Progress | None, stage: str) -> Progress | None:
    """Put a name in front of every stage."""
    if progress is None:
        return None
    return lambda name, done, total: progress(f"{stage}: {name}", done, total)


def _set_name(place: str | os.PathLike[str]) -> str:
    """Name an unseen folder, or table, by its last part."""
    path = Path(place).expanduser().resolve()
    return path.name if path.is_dir() else path.stem


def _unused(name: str, taken: dict[str, Manifest]) -> str:
    """Make a set's name its own."""
    number = 2
    free = name if name not in {"train", "validation", *taken} else f"{name}-{number}"
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
