"""A recipe and a data set become a run folder with a bundle in it."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

from leuko import artifacts
from leuko.artifacts import (
    RESEARCH_USE,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    digest_file,
    prepare_folder,
    restore_folder,
    schema,
)
from leuko.bundle import ModelBundle
from leuko.cells.view import prepare
from leuko.data.audit_duplicates import difference_hash, same_cells, thumbnail
from leuko.data.balance import write_balanced
from leuko.data.seen import had_a_head_start, start_of, were_seen
from leuko.data.split import split_at_random, split_by_slide
from leuko.errors import DataError, ImageError, OutputError, TrainingError
from leuko.evaluation.report import evaluate_predictions, no_better
from leuko.host import machine, versions
from leuko.imaging import read_image
from leuko.manifest import Manifest, find_splits, is_table, read_csv, read_folder, read_split
from leuko.memory import keep_freed_memory
from leuko.parallel import Progress, bounded_map, worker_count
from leuko.pictures import open_picture
from leuko.recipe import Recipe
from leuko.runtime.classifier import OnnxClassifier, make_goldens
from leuko.runtime.trust import NEVER_CHECKED, Trust
from leuko.runtime.trust_bundle import ALWAYS_NAMES, NOT_CALIBRATED, fit_trust, trust_card
from leuko.runtime.zoo import load
from leuko.scheme import ClassScheme
from leuko.training.architectures import build_model
from leuko.training.checkpoint import History, ensure_room
from leuko.training.export import check_parity, export_onnx
from leuko.training.features import backbone_features, head_of
from leuko.training.fit import ArrayBatches, best_epoch, fit_model
from leuko.training.pipeline import (
    Batches,
    PixelSource,
    evaluation_order,
    one_hot,
    pixel_source,
    training_order,
)
from leuko.training.ready import BALANCED, refuse_claimed, with_weights

__all__ = [
    "TrainedRun",
    "default_cache",
    "model_card",
    "train",
    "training_rows",
    "validation_summary",
]

_PARITY: Final = 1e-4

_EXAMPLES: Final = 512
"""So many training inputs show how a backbone is to be narrowed..."""

_EXAMPLE_BYTES: Final = 64 * 2**20
"""...unless they are large: then their maps have more places, and would fill the memory."""

_KNOWN_WEIGHTS: Final = ("none", "imagenet", "leuko")


@dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    Attributes
    ----------
    folder : Path
        See ``docs/reference/files.md``.
    bundle : ModelBundle
        What ships.
    history : list of dict
        One row an epoch.
    seconds : dict of str to float
        Wall time by stage, summed over interruptions.
    validation : dict
        Evaluation of the bundle on the validation rows.
    """

    folder: Path
    bundle: ModelBundle
    history: History
    seconds: dict[str, float]
    validation: dict[str, Any]


def default_cache() -> Path:
    """Where features of frozen backbones are kept.

    Returns
    -------
    Path
        ``LEUKO_CACHE``, or ``leuko`` in the user's cache folder.
    """
    chosen = os.environ.get("LEUKO_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "leuko"


def train(
    dataset: str | os.PathLike[str] | Manifest,
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    weights: str | None = None,
    resume: bool = False,
    ignore: tuple[str, ...] = (),
    workers: int | None = None,
    cache: Path | None = None,
    save_h5: bool = False,
    tensorboard: bool = False,
    command: str = "",
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> TrainedRun:
    """Train a recipe on a data set's training images, and export what ships.

    Parameters
    ----------
    dataset : path-like or Manifest
        A folder with ``Train`` in it, a CSV with the training images, or training rows.
    recipe : Recipe
        What to train; its seed decides every random choice.
    out : path-like
        The run folder. It must be empty, or hold the same run when `resume` is set.
    weights : str, optional
        ``imagenet``, ``leuko``, ``none`` or a path; replaces the recipe's.
    resume : bool
        Go on where a killed run stood. A finished run is opened.
    ignore : tuple of str
        Extra folders of the data set to pass over.
    workers : int, optional
        Threads for decoding; as many as this process may use when None.
    cache : Path, optional
        For features of frozen backbones; `default_cache` when None.
    save_h5 : bool
        Write ``model.h5`` too.
    tensorboard : bool
        Write TensorBoard's logs too.
    command : str
        The command that the run was started with, for the card.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.
    say : callable, optional
        Called with sentences for a person.

    Returns
    -------
    TrainedRun
        The folder, the bundle and the figures.

    Raises
    ------
    DataError
        When a class is missing, or there are too few slides.
    TrainingError
        When the loss is not finite, weights cannot be had, the folder holds another run, or
        TensorBoard is wanted and not installed.
    OutputError
        When something cannot be written. What was finished stays.
    """
    run = Path(out)
    tell = say or (lambda _: None)
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise TrainingError(
            "TensorBoard's logs need the package tensorboard: pip install tensorboard. Without it, "
            "leave out --tensorboard; the curves are in curves.png and history.csv."
        )
    if weights is not None and recipe.model.architecture == "cnn":
        tell(f"{recipe.name} has no backbone, so the weights {weights} are not used for it.")
    recipe = with_weights(recipe, weights)
    clock = _Clock(run / "environment.json", resume=resume)
    manifest = training_rows(dataset, ignore=ignore)
    _claim(run, recipe, resume)
    finished = _finished(run, manifest, clock) if resume else None
    if finished is not None:
        tell(f"{run} is finished.")
        if save_h5 and not (run / "model.h5").exists():
            _write_h5(run / "model.h5", keras.saving.load_model(run / "model.keras"))
        return finished
    source_digest, notes = manifest.digest, manifest.notes
    for note in notes if not isinstance(dataset, Manifest) else ():
        tell(note)
    threads = worker_count(workers)
    keep_freed_memory()
    with clock("data"):
        manifest, same_cell, hashes = _look(manifest, threads, progress, tell)
    if recipe.data.split == "random-file":
        with clock("balance"):
            manifest = _balance(manifest, recipe, run, workers, progress)
    train_rows, validation_rows = _split(manifest, same_cell, recipe, tell)
    both = Manifest(
        train_rows.root, (*train_rows.samples, *validation_rows.samples), notes, train_rows.scheme
    )
    teacher = load(recipe.train.teacher, threads=threads) if recipe.train.teacher else None
    identity = {"recipe": recipe.digest, "data": both.digest}
    if teacher is not None:
        identity["teacher"] = teacher.digest
    start = start_of(recipe, teacher.bundle.provenance if teacher else None)
    seen = int(were_seen(hashes).sum()) if start.fingerprints else 0
    if seen:
        tell(had_a_head_start(seen, len(hashes)))
    _deterministic()
    source, held = pixel_source(train_rows, recipe), pixel_source(validation_rows, recipe)
    order = training_order(recipe, train_rows.labels, train_rows.slides)

    def examples() -> npt.NDArray[np.uint8]:
        height, width = recipe.preprocess.size
        rows = order(0)[: max(1, min(_EXAMPLES, _EXAMPLE_BYTES // (height * width * 12)))]
        draws = bounded_map(lambda row: source(int(row[0]), int(row[1])), rows, workers=threads)
        return np.stack([*draws])

    with clock("build"):
        model = build_model(recipe, len(both.scheme), examples=examples, say=tell)
    # Only now: where weights could not be had, the same folder serves for another try.
    _save_manifest(run, both)
    atomic_write_text(run / "recipe.toml", recipe.to_toml())
    if recipe.model.train == "head":
        history = _fit_head(
            model, recipe, train_rows, validation_rows, source, held, run, identity, clock,
            resume=resume, cache=cache or default_cache(), threads=threads, progress=progress,
            say=tell, tensorboard=tensorboard,
        )  # fmt: skip
    else:
        labels, held_labels = train_rows.labels, validation_rows.labels
        batch = recipe.train.batch
        targets = one_hot(labels, len(both.scheme))
        if teacher is not None:
            with clock("teacher"):
                targets = _taught(targets, teacher, train_rows, recipe.train.imitation, progress)

        def batches(epoch: int) -> Batches:
            return Batches(source, targets, order, batch=batch, first_epoch=epoch, threads=threads)

        def held_batches(_: int) -> Batches:
            every = evaluation_order(len(held_labels))
            return Batches(
                held, one_hot(held_labels, len(both.scheme)), every, batch=batch, threads=threads
            )

        with clock("fit"):
            history = fit_model(
                model, recipe, train=batches, validation=held_batches, run=run,
                identity=identity, resume=resume, progress=progress, tensorboard=tensorboard,
            )  # fmt: skip
    with clock("export"):
        bundle, validation = _finish(
            model, recipe, run, both, source_digest, validation_rows, history, progress, tell,
            save_h5=save_h5, threads=threads, teacher=teacher.digest if teacher else None,
            start={**asdict(start), "seen": seen, "of": len(hashes)},
        )  # fmt: skip
    clock.save(command)
    return TrainedRun(run, bundle, history, clock.seconds, validation)


def training_rows(
    dataset: str | os.PathLike[str] | Manifest,
    *,
    ignore: tuple[str, ...] = (),
    scheme: ClassScheme | None = None,
    label_column: str = "label",
) -> Manifest:
    """Open the training rows, refusing held-out ones.

    Parameters
    ----------
    dataset : path-like or Manifest
        See `train`. Test rows of a table that deals its own splits are left out.
    ignore, scheme, label_column
        See `leuko.manifest.read_labelled`.

    Returns
    -------
    Manifest
        Of every class; validation rows among them where a table keeps some.

    Raises
    ------
    DataError
        When rows are held out, or a class has none.
    """
    if isinstance(dataset, Manifest):
        manifest = dataset
    elif is_table(dataset):
        manifest = _without_test(read_csv(dataset, scheme=scheme, label_column=label_column))
    else:
        manifest = read_split(dataset, "train", ignore=ignore, scheme=scheme)
    splits = {sample.split for sample in manifest.samples}
    for split in ("test", "validation"):
        if split in splits and (split == "test" or "train" not in splits):
            raise DataError(f"These are {split} rows; a model must not be trained on them.")
    for folder in (manifest.root, manifest.root.parent):
        held_out: dict[str, Path] = {}
        with contextlib.suppress(DataError):
            held_out = find_splits(folder)
        for split in ("validation", "test"):
            place = held_out.get(split)
            if place and any(file.is_relative_to(place) for file in manifest.files()):
                raise DataError(
                    f"{place} is the {split} folder of its data set; a model must not be trained "
                    "on it. Give the data set's folder, or the one with the training images."
                )
    manifest.require_all_classes("Training")
    return manifest


def _without_test(manifest: Manifest) -> Manifest:
    """Leave the test rows of a table that deals its own splits."""
    kept = [row for row, sample in enumerate(manifest.samples) if sample.split != "test"]
    if len(kept) in (0, len(manifest)):
        return manifest
    note = f"{len(manifest) - len(kept)} test rows of the table are not trained on."
    return replace(manifest.subset(kept), notes=(*manifest.notes, note))


def _claim(run: Path, recipe: Recipe, resume: bool) -> None:
    """Make the run folder ours, or say why it is not."""
    refuse_claimed(run, recipe, resume=resume)
    prepare_folder(run)
    _sweep(run)


def _sweep(run: Path) -> None:
    """Put back what a kill had left between two renames; delete what it had left half-written."""
    for name in ("last", "bundle"):
        restore_folder(run / name)
    for folder in (run, run / "best"):
        for entry in folder.glob(f"{artifacts.TEMPORARY_PREFIX}*"):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _finished(run: Path, manifest: Manifest, clock: _Clock) -> TrainedRun | None:
    """Open a run that has nothing left to do: its bundle, written last, says of which data."""
    if not (run / "bundle" / "bundle.json").exists():
        return None
    bundle = ModelBundle.load(run / "bundle")
    if bundle.provenance.get("source_digest", manifest.digest) != manifest.digest:
        raise TrainingError(
            f"{run} was trained on other data; choose another folder, or the data it was begun "
            "with."
        )
    validation = artifacts.read_json(run / "validation.json", "evaluation")
    history = _read_history(run / "history.csv")
    return TrainedRun(run, bundle, history, clock.seconds, validation)


def _save_manifest(run: Path, both: Manifest) -> None:
    """Write the rows, unless the run was begun with other ones."""
    path = run / "manifest.json"
    if (run / "recipe.toml").exists() and path.exists():
        begun = artifacts.read_json(path, "manifest").get("digest")
        if begun != both.digest:
            raise TrainingError(
                f"{run} was begun with other data; resume it with the same data, or choose another "
                "folder."
            )
    if both.root == (run / BALANCED).resolve():
        # A run's own files are named from the run folder, wherever that stands.
        both = Manifest(Path(BALANCED), both.samples, both.notes, both.scheme)
    both.save(path)


def _look(
    manifest: Manifest, workers: int, progress: Progress | None, tell: Callable[[str], None]
) -> tuple[Manifest, list[tuple[int, int]], npt.NDArray[np.uint64]]:
    """Decode every image once: leave out, by name, what is none, and find cells shown twice.

    The last are fingerprints of the images that are left.
    """

    def look(file: Path) -> Any:
        try:
            with open_picture(file) as image:
                return thumbnail(image.pixels)
        except ImageError as error:
            return error.without_frames()

    kept, small = [], []
    results = bounded_map(look, manifest.files(), workers=workers, ahead=64)
    for index, (sample, found) in enumerate(zip(manifest.samples, results, strict=True)):
        if isinstance(found, ImageError):
            tell(f"Rejected {sample.path} ({found.reason}: {found.detail})")
        else:
            kept.append(index)
            small.append(found)
        if progress is not None and ((index + 1) % 100 == 0 or index + 1 == len(manifest)):
            progress("looking at images", index + 1, len(manifest))
    if len(kept) < len(manifest):
        tell(f"{len(manifest) - len(kept)} of {len(manifest)} images were rejected.")
        manifest = manifest.subset(kept)
    manifest.require_all_classes("Training")
    thumbnails = np.stack(small)
    pairs = [(one, two) for one, two, _ in same_cells(thumbnails)]
    repeats = len({two for _, two in pairs})
    if repeats:
        tell(
            f"{repeats} of {len(manifest)} images show the same cell as another; all are kept, and "
            "a split by slide keeps them together."
        )
    hashes = np.array([difference_hash(one) for one in thumbnails], dtype=np.uint64)
    return manifest, pairs, hashes


def _balance(
    manifest: Manifest,
    recipe: Recipe,
    run: Path,
    workers: int | None,
    progress: Progress | None,
) -> Manifest:
    """Balance the whole of Train on disk, as published, and open that."""
    folder = run / BALANCED
    write_balanced(manifest, folder, seed=recipe.seed, workers=workers, progress=progress)
    return read_folder(folder)


def _split(
    manifest: Manifest,
    same_cell: list[tuple[int, int]],
    recipe: Recipe,
    tell: Callable[[str], None],
) -> tuple[Manifest, Manifest]:
    """Training and validation rows as the recipe wants them."""
    settings = recipe.data
    given = np.array([sample.split == "validation" for sample in manifest.samples])
    if given.any() and settings.split != "random-file":
        tell(f"Validated on the {given.sum():,} rows that the table keeps for it.")
        trains, validates = np.flatnonzero(~given), np.flatnonzero(given)
    elif settings.split == "random-file":
        trains, validates = split_at_random(
            manifest, fraction=settings.validation, seed=recipe.seed
        )
        tell(
            "This recipe repeats the published split: augmented siblings of validation images are "
            "trained on, so its validation accuracy reads too high."
        )
    else:
        trains, validates = split_by_slide(
            manifest, fraction=settings.validation, seed=recipe.seed, same_cell=same_cell
        )
        if sum(not slide for slide in manifest.slides) > len(manifest) / 2:
            tell(
                "Most file names tell no slide, so images were split one by one; validation "
                "figures will read too high if slides hold several images."
            )
    train_rows = manifest.subset(trains, split="train")
    train_rows.require_all_classes("Training, after validation slides were set aside,")
    return train_rows, manifest.subset(validates, split="validation")


def _taught(
    targets: npt.NDArray[np.float32],
    teacher: OnnxClassifier,
    rows: Manifest,
    imitation: float,
    progress: Progress | None,
) -> npt.NDArray[np.float32]:
    """Blend labels with what the teacher says of each training image as it is: (n, classes)."""

    def told(done: int) -> None:
        if progress is not None and (done % 100 == 0 or done == len(rows)):
            progress("asking the teacher", done, len(rows))

    table = teacher.predict(rows.files(), progress=told)
    if table.rejected:
        raise DataError(
            f"{len(table.rejected)} training images can no longer be read, such as "
            f"{table.rejected[0].path}. Put them back and go on with --resume."
        )
    return ((1 - imitation) * targets + imitation * table.probabilities).astype(np.float32)


def _fit_head(
    model: keras.Model,
    recipe: Recipe,
    train_rows: Manifest,
    validation_rows: Manifest,
    source: PixelSource,
    held: PixelSource,
    run: Path,
    identity: dict[str, str],
    clock: _Clock,
    *,
    resume: bool,
    cache: Path,
    threads: int,
    progress: Progress | None,
    say: Callable[[str], None],
    tensorboard: bool,
) -> History:
    """Run the frozen backbone once, then fit the head on its features."""
    rows = training_order(recipe, train_rows.labels, train_rows.slides)(0)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    every = evaluation_order(len(validation_rows))(0)
    with clock("features"):
        shared: dict[str, Any] = {
            "recipe": recipe, "cache": cache, "threads": threads, "progress": progress, "say": say,
        }  # fmt: skip
        features = backbone_features(
            model, source, rows, manifest=train_rows, stage="training features", **shared
        )
        held_features = backbone_features(
            model, held, every, manifest=validation_rows, stage="validation features", **shared
        )
    targets = one_hot(train_rows.labels[rows[:, 0]], len(train_rows.scheme))
    held_targets = one_hot(validation_rows.labels, len(train_rows.scheme))
    batch = recipe.train.batch
    with clock("fit"):
        return fit_model(
            head_of(model),
            recipe,
            train=lambda epoch: ArrayBatches(
                features, targets, batch=batch, seed=recipe.seed, first_epoch=epoch
            ),
            validation=lambda _: ArrayBatches(held_features, held_targets, batch=256, seed=None),
            run=run,
            identity=identity,
            resume=resume,
            progress=progress,
            tensorboard=tensorboard,
        )


def _finish(
    model: keras.Model,
    recipe: Recipe,
    run: Path,
    both: Manifest,
    source_digest: str,
    validation_rows: Manifest,
    history: History,
    progress: Progress | None,
    tell: Callable[[str], None],
    *,
    save_h5: bool,
    threads: int,
    teacher: str | None,
    start: dict[str, Any],
) -> tuple[ModelBundle, dict[str, Any]]:
    """Export, evaluate the export on validation rows, and write everything."""
    onnx = export_onnx(model)
    bundle = ModelBundle(
        name=recipe.name,
        onnx=onnx,
        preprocess=recipe.preprocess,
        card="",
        goldens=make_goldens(onnx, recipe.preprocess),
        parameters=int(model.count_params()),
        scheme=both.scheme,
    )
    if recipe.data.split == "slide":
        bundle = fit_trust(
            bundle, validation_rows, seed=recipe.seed, threads=threads, progress=progress, say=tell
        )
    else:
        tell(
            "Nothing is calibrated: this validation holds copies of training images and would "
            f"promise too much. {NEVER_CHECKED}"
        )
    classifier = OnnxClassifier(bundle, threads=threads)
    total = len(validation_rows)
    table = classifier.predict(
        validation_rows.files(),
        progress=(lambda done: progress("validating", done, total)) if progress else None,
    )
    if table.rejected:
        first = table.rejected[0]
        raise DataError(
            f"{len(table.rejected)} validation images can no longer be read, such as {first.path} "
            f"({first.reason}: {first.detail}). Put them back and go on with --resume."
        )
    some = [
        prepare(read_image(f, spec=recipe.preprocess).pixels, recipe.preprocess)
        for f in validation_rows.files()[:8]
    ]
    check_parity(model, onnx, np.stack(some * 2 if len(some) == 1 else some), _PARITY)
    validation = evaluate_predictions(
        validation_rows.labels,
        table.probabilities,
        validation_rows.slides,
        scheme=both.scheme,
        paths=[sample.path for sample in validation_rows.samples],
        seed=recipe.seed,
        context={
            "data": {"folder": "validation rows", "digest": validation_rows.digest},
            "model": {"name": recipe.name, "digest": bundle.digest},
        },
    ).to_dict()
    atomic_write_json(run / "validation.json", validation)
    if not validation["baselines"]["majority"]["beaten"]:
        tell(no_better(validation["confusion"], validation["classes"]))
    kept = best_epoch(history, recipe.train.monitor)
    provenance = {
        **_without_folders(recipe),
        "recipe_digest": recipe.digest,
        "manifest_digest": both.digest,
        "source_digest": source_digest,
        "training_images": sum(sample.split == "train" for sample in both.samples),
        "validation_images": total,
        "epochs": len(history),
        "best_epoch": kept,
        "seed": recipe.seed,
        "versions": versions(),
        "start": start,
        **({"teacher": teacher} if teacher else {}),
    }
    summary = validation_summary(bundle, validation, split=recipe.data.split)
    bundle = replace(bundle, provenance=_plain(provenance), validation=summary)
    bundle = replace(bundle, card=model_card(bundle, recipe))
    if "trust" in bundle.validation:
        bundle = replace(bundle, card=trust_card(bundle))
    _write_history(run / "history.csv", history)
    _write_curves(run / "curves.png", history)
    _write_keras(run / "model.keras", model)
    if save_h5:
        _write_h5(run / "model.h5", model)
    bundle.save(run / "bundle")
    return bundle, validation


def validation_summary(
    bundle: ModelBundle, document: dict[str, Any], *, split: str
) -> dict[str, Any]:
    """Sum up a bundle's evaluation on its validation rows, for the bundle itself.

    Parameters
    ----------
    bundle : ModelBundle
        From `leuko.runtime.trust_bundle.fit_trust`, whose figures are kept.
    document : dict
        Of `leuko.evaluation.report.EvaluationReport`.
    split : str
        How the rows were set aside; see `leuko.recipe.DataSettings`.

    Returns
    -------
    dict
        Plain values.
    """
    names = ("accuracy", "balanced_accuracy", "macro_f1")
    summary = {
        "split": split,
        "n": document["n"],
        "n_slides": document["n_slides"],
        "metrics": {name: document["metrics"][name] for name in names},
        "baselines": document["baselines"],
        "confusion": document["confusion"],
    }
    trust = bundle.validation.get("trust")
    plain: dict[str, Any] = _plain(summary if trust is None else {**summary, "trust": trust})
    return plain


def model_card(bundle: ModelBundle, recipe: Recipe) -> str:
    """Write a model card in Markdown out of what is known.

    Parameters
    ----------
    bundle : ModelBundle
        With provenance and validation.
    recipe : Recipe
        What it was trained by.

    Returns
    -------
    str
        Without a section on trust; see `leuko.runtime.trust_bundle.trust_card`.
    """
    p, v = bundle.provenance, bundle.validation
    lines = [
        f"# {recipe.title}",
        "",
        f"**{RESEARCH_USE}**",
        "",
        "Sorts one white blood cell, in the middle of an RGB picture, into "
        f"{', '.join(bundle.scheme.names)}. {ALWAYS_NAMES}",
        "",
        f"- Network: {recipe.model.architecture}, {bundle.parameters:,} parameters, input "
        f"{recipe.preprocess.size[0]} x {recipe.preprocess.size[1]}, {_view_words(recipe)}.",
        f"- Initial weights: {p['start']['weights']}.",
        *_teacher_lines(recipe, p),
        f"- Trained on {p['training_images']:,} images, seed {p['seed']}, "
        f"{p['epochs']} epochs (best: {p['best_epoch']}).",
        f"- Data digest `{p['manifest_digest'][:16]}`, recipe digest `{p['recipe_digest'][:16]}`.",
        "",
        "## Validation",
        "",
    ]
    if v["split"] == "slide":
        lines.append(f"{v['n']:,} images of {v['n_slides']} slides that training did not see.")
    else:
        lines.append(
            f"{v['n']:,} images drawn at random from balanced files: copies of the same originals "
            "were trained on, so these figures read too high."
        )
    if not v["baselines"]["majority"]["beaten"]:
        lines += ["", f"**{no_better(v['confusion'], bundle.scheme.names)}**"]
    lines += ["", "| figure | value | 95% interval |", "|---|---|---|"]
    for name, metric in v["metrics"].items():
        low, high = metric["low"], metric["high"]
        span = f"{low:.4f} to {high:.4f}" if low is not None else "too few slides"
        lines.append(f"| {name.replace('_', ' ')} | {metric['value']:.4f} | {span} |")
    lines += [
        "",
        "## Limits",
        "",
        "Cells of one laboratory share stain, light and camera. Figures on images from another "
        "laboratory will be lower; measure them with `leuko evaluate` on labelled images of your "
        f"own before relying on any answer. {NOT_CALIBRATED}"
        + ("" if Trust.of(bundle).accepts else f" {NEVER_CHECKED}"),
        "",
    ]
    return "\n".join(lines)


def _view_words(recipe: Recipe) -> str:
    """Which part of a picture the network sees, for people."""
    spec = recipe.preprocess
    if spec.view == "centre":
        return f"central {spec.crop:.0%} of the picture"
    alone = ", on an empty ground" if spec.view == "cell-alone" else ""
    told = f"the cell that is found in the picture and {spec.width:g} micrometres around{alone}"
    if len(spec.styles) == 1:
        return told
    weights = spec.weights or (1.0,) * len(spec.styles)
    looks = ", ".join(
        f"{name} {weight:g}" for name, weight in zip(spec.styles, weights, strict=True)
    )
    return f"{told}; {len(spec.styles)} looks at it are averaged (by weight: {looks})"


def _without_folders(recipe: Recipe) -> dict[str, Any]:
    """What a bundle says of its recipe: a file of weights by name and digest, not by its place."""
    document, weights = recipe.to_dict(), recipe.model.weights
    document["train"]["teacher"] = recipe.train.teacher.replace("\\", "/").rpartition("/")[2]
    if weights in _KNOWN_WEIGHTS:
        return {"recipe": document}
    file = Path(weights).expanduser()
    document["model"]["weights"] = file.name
    return {
        "recipe": document,
        "weights_sha256": digest_file(file) if file.is_file() else None,
    }


def _teacher_lines(recipe: Recipe, provenance: dict[str, Any]) -> list[str]:
    """Who taught it, and which of its images were known before, for the card."""
    start, lines = provenance["start"], []
    if "teacher" in provenance:
        name = recipe.train.teacher.replace("\\", "/").rpartition("/")[2]
        lines.append(
            f"- Taught by {name}, digest `{provenance['teacher'][:16]}`: "
            f"{recipe.train.imitation:.0%} of what it learned are that model's probabilities, the "
            f"rest are labels. Its teacher: {start['teacher']}."
        )
    if start["seen"]:
        lines.append(f"- **{had_a_head_start(start['seen'], start['of'])}**")
    return lines


def _write_history(path: Path, history: History) -> None:
    """One line an epoch, numbers in full."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    lines = [",".join(columns)]
    for row in history:
        cells = [repr(row[c]) if c in row else "" for c in columns]
        cells[0] = str(int(row["epoch"]))
        lines.append(",".join(cells))
    atomic_write_text(path, "\n".join(lines) + "\n")


def _read_history(path: Path) -> History:
    """Read what `_write_history` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def _write_curves(path: Path, history: History) -> None:
    """Draw accuracy and loss."""
    from leuko.render.plots import curves_png

    atomic_write_bytes(path, curves_png(history))


def _write_keras(path: Path, model: keras.Model) -> None:
    """Write a .keras file whose bytes depend on the model alone: no dates."""
    memory = io.BytesIO()
    with _raw(path, model) as raw:
        model.save(raw)
        with zipfile.ZipFile(raw) as old, zipfile.ZipFile(memory, "w") as new:
            for name in sorted(old.namelist()):
                data = old.read(name)
                if name == "metadata.json":
                    data = json.dumps({"keras_version": json.loads(data)["keras_version"]}).encode()
                elif name == "config.json":
                    data = json.dumps(_renumbered(json.loads(data), {})).encode()
                entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                new.writestr(entry, data)
    atomic_write_bytes(path, memory.getvalue())


def _renumbered(config: Any, known: dict[Any, int]) -> Any:
    """Count what a Keras configuration shares; Keras calls it by addresses in memory."""
    if isinstance(config, dict):
        return {
            key: known.setdefault(value, len(known) + 1)
            if key == "shared_object_id"
            else _renumbered(value, known)
            for key, value in config.items()
        }
    if isinstance(config, list):
        return [_renumbered(value, known) for value in config]
    return config


def _write_h5(path: Path, model: keras.Model) -> None:
    """Write the older HDF5 format for other people's tools."""
    with _raw(path, model) as raw:
        model.save(raw)
        data = raw.read_bytes()
    atomic_write_bytes(path, data)


@contextlib.contextmanager
def _raw(path: Path, model: keras.Model) -> Iterator[Path]:
    """Give Keras, which wants a path, a file that nobody sees half-written."""
    raw = path.with_name(f"{artifacts.TEMPORARY_PREFIX}{path.name}")
    ensure_room(raw, model)
    try:
        yield raw
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error}. Free some space and go on with --resume."
        ) from error
    finally:
        raw.unlink(missing_ok=True)


def _deterministic() -> None:
    """Ask TensorFlow for the same sums in the same order; nothing to ask of other backends."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def _plain(value: Any) -> Any:
    """Make JSON values: NumPy numbers become Python's, infinities None."""
    return json.loads(json.dumps(artifacts.finite(value), default=float))


class _Clock:
    """Adds up the wall time of each stage over interruptions, and saves it with the host.

    Whole milliseconds are kept, so that a run opened again says the same as the one that trained.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self.seconds: dict[str, float] = {}
        if resume and path.exists():
            try:
                document = artifacts.read_json(path, "environment")
                self.seconds = {k: float(v) for k, v in document["seconds"].items()}
            except (DataError, KeyError, TypeError, ValueError):
                self.seconds = {}

    def __call__(self, stage: str) -> _Stage:
        """Time a stage in a with block."""
        return _Stage(self, stage)

    def save(self, command: str = "") -> None:
        """Write environment.json."""
        atomic_write_json(
            self._path,
            {
                "schema": schema("environment"),
                "command": command,
                "seconds": self.seconds,
                "total_seconds": round(sum(self.seconds.values()), 3),
                "machine": machine(),
                "versions": versions(),
            },
        )


class _Stage:
    """One stage being timed; the time counts even when the stage is cut short."""

    def __init__(self, clock: _Clock, name: str) -> None:
        self._clock, self._name, self._start = clock, name, 0.0

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        seconds = self._clock.seconds
        lasted = time.monotonic() - self._start
        seconds[self._name] = round(seconds.get(self._name, 0.0) + lasted, 3)
        if self._clock._path.parent.is_dir():
            self._clock.save()
