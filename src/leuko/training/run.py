"""A recipe and a data set become a run folder with a bundle in it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

from leuko.bundle import ModelBundle
from leuko.cells.view import prepare
from leuko.data.dataset import Dataset
from leuko.data.seen import had_a_head_start, start_of, were_seen
from leuko.errors import DataError, TrainingError
from leuko.evaluation.report import evaluate_predictions
from leuko.imaging.decode import read_image
from leuko.manifest import Manifest
from leuko.recipe import Recipe
from leuko.render.evaluation import evaluation_document, no_better
from leuko.runtime.cards import with_card
from leuko.runtime.classifier import OnnxClassifier, make_goldens
from leuko.runtime.trust.calibrate import TrustSettings, fit_trust
from leuko.runtime.trust.decide import NEVER_CHECKED
from leuko.runtime.zoo import load
from leuko.support.artifacts import atomic_write_json, atomic_write_text
from leuko.support.host import versions
from leuko.support.memory import keep_freed_memory
from leuko.support.parallel import bounded_map, worker_count
from leuko.support.reporter import SILENT, Reporter
from leuko.training.architectures import build_model
from leuko.training.checkpoint import History, RunFolder
from leuko.training.features import FeatureCache, Trunk, head_of
from leuko.training.fit import ArrayBatches, Feeds, best_epoch, fit_model
from leuko.training.options import RunOptions, default_cache
from leuko.training.pipeline import (
    Batches,
    Order,
    PixelSource,
    evaluation_order,
    one_hot,
    pixel_source,
    training_order,
)
from leuko.training.provenance import plain, validation_summary, without_folders
from leuko.training.ready import with_weights
from leuko.training.rows import Rows, split_rows
from leuko.training.run_folder import (
    Clock,
    TrainedRun,
    claim,
    open_finished,
    save_rows,
    write_curves,
    write_h5,
    write_history,
    write_keras,
)
from leuko.training.to_onnx import check_parity, export_onnx

__all__ = ["RunOptions", "TrainedRun", "train"]

_PARITY: Final = 1e-4

_EXAMPLES: Final = 512
"""So many training inputs show how a backbone is to be pruned..."""

_EXAMPLE_BYTES: Final = 64 * 2**20
"""...unless they are large: then their maps have more places, and would fill the memory."""


def train(
    dataset: str | os.PathLike[str] | Manifest | Dataset,
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    options: RunOptions | None = None,
    reporter: Reporter = SILENT,
) -> TrainedRun:
    """Train a recipe on a data set's training images, and export what ships.

    Parameters
    ----------
    dataset : path-like, Manifest or Dataset
        A folder with ``Train`` in it, a CSV with the training images, or training rows. What an
        open data set has read and decoded is not read again.
    recipe : Recipe
        What to train; its seed decides every random choice.
    out : path-like
        The run folder. It must be empty, or hold the same run when it is to be resumed.
    options : RunOptions, optional
        Initial weights, resuming, threads, and what is written besides.
    reporter : Reporter, optional
        Told how far it is, and what a person should know.

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
    run, options = Path(out), options or RunOptions()
    recipe = _with_options(recipe, options, reporter)
    clock = Clock(run, resume=options.resume)
    opened = Dataset.of(dataset, workers=options.workers)
    rows = opened.training_rows
    claim(run, recipe, options.resume)
    finished = open_finished(run, rows, clock) if options.resume else None
    if finished is not None:
        reporter.say(f"{run} is finished.")
        if options.save_h5 and not (run / "model.h5").exists():
            write_h5(run / "model.h5", keras.saving.load_model(run / "model.keras"))
        return finished
    if not isinstance(dataset, Manifest | Dataset):
        for note in rows.notes:
            reporter.say(note)
    keep_freed_memory()
    split = split_rows(opened, recipe, clock, reporter=reporter)
    work = _Work(recipe, run, options, clock, split, reporter)
    start = work.start()
    _deterministic()
    with clock("build"):
        classes = len(work.rows.both.scheme)
        model = build_model(recipe, classes, examples=work.examples, reporter=reporter)
    # Only now: where weights could not be had, the same folder serves for another try.
    save_rows(run, split.both)
    atomic_write_text(run / "recipe.toml", recipe.to_toml())
    history = _fit_head(model, work) if recipe.model.train == "head" else _fit_whole(model, work)
    with clock("export"):
        bundle, validation = _finish(model, work, history, start)
    clock.save(options.command)
    return TrainedRun(run, bundle, history, clock.seconds, validation)


def _with_options(recipe: Recipe, options: RunOptions, reporter: Reporter) -> Recipe:
    """Refuse what is not installed, and start from the weights that are asked for."""
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise TrainingError(
            "TensorBoard's logs need the package tensorboard: pip install tensorboard. Without it, "
            "leave out --tensorboard; the curves are in curves.png and history.csv."
        )
    for remark in recipe.remarks:
        reporter.say(remark)
    if options.weights is not None and not recipe.model.network.has_backbone:
        reporter.say(
            f"{recipe.name} has no backbone, so the weights {options.weights} are not used for it."
        )
    return with_weights(recipe, options.weights)


@dataclass(frozen=True)
class _Work:
    """One training under way: what it learns from, where it goes, and who hears of it."""

    recipe: Recipe
    run: Path
    options: RunOptions
    clock: Clock
    rows: Rows
    reporter: Reporter

    @property
    def threads(self) -> int:
        """For decoding and for ONNX Runtime."""
        return worker_count(self.options.workers)

    @cached_property
    def teacher(self) -> OnnxClassifier | None:
        """Whose probabilities are learned besides labels."""
        name = self.recipe.train.teacher
        return load(name, threads=self.threads) if name else None

    @cached_property
    def source(self) -> PixelSource:
        """Pixels of training rows."""
        return pixel_source(self.rows.train, self.recipe)

    @cached_property
    def held(self) -> PixelSource:
        """Pixels of validation rows."""
        return pixel_source(self.rows.validation, self.recipe)

    @cached_property
    def order(self) -> Order:
        """Which training rows each epoch shows."""
        return training_order(self.recipe, self.rows.train.labels, self.rows.train.slides)

    def fit(
        self,
        model: keras.Model,
        train: Callable[[int], Any],
        validation: Callable[[int], Any],
    ) -> History:
        """Fit a network to batches that are made from an epoch on."""
        identity = {"recipe": self.recipe.digest, "data": self.rows.both.digest}
        if self.teacher is not None:
            identity["teacher"] = self.teacher.digest
        with self.clock("fit"):
            return fit_model(
                model, self.recipe, Feeds(train, validation), RunFolder(self.run, identity),
                resume=self.options.resume, reporter=self.reporter,
                tensorboard=self.options.tensorboard,
            )  # fmt: skip

    def targets(self, rows: Manifest) -> npt.NDArray[np.float32]:
        """One-hot labels: (n, classes)."""
        return one_hot(rows.labels, len(self.rows.both.scheme))

    def start(self) -> dict[str, Any]:
        """Say what the network knows already, and how many of its images."""
        teacher, hashes = self.teacher, self.rows.hashes
        start = start_of(self.recipe, teacher.bundle.provenance if teacher else None)
        seen = int(were_seen(hashes).sum()) if start.fingerprints else 0
        if seen:
            self.reporter.say(had_a_head_start(seen, len(hashes)))
        return {**asdict(start), "seen": seen, "of": len(hashes)}

    def examples(self) -> npt.NDArray[np.uint8]:
        """A few training inputs, as the network gets them."""
        height, width = self.recipe.preprocess.size
        count = max(1, min(_EXAMPLES, _EXAMPLE_BYTES // (height * width * 12)))
        rows = self.order(0)[:count]
        drawn = bounded_map(
            lambda row: self.source(int(row[0]), int(row[1])), rows, workers=self.threads
        )
        return np.stack([*drawn])


def _fit_whole(model: keras.Model, work: _Work) -> History:
    """Fit all layers that the recipe wants on pictures."""
    batch, threads, held = work.recipe.train.batch, work.threads, work.rows.validation
    targets, held_targets = work.targets(work.rows.train), work.targets(held)
    if work.teacher is not None:
        with work.clock("teacher"):
            targets = _taught(targets, work.teacher, work)

    def batches(epoch: int) -> Batches:
        return Batches(
            work.source, targets, work.order, batch=batch, first_epoch=epoch, threads=threads
        )

    def held_batches(_: int) -> Batches:
        every = evaluation_order(len(held))
        return Batches(work.held, held_targets, every, batch=batch, threads=threads)

    return work.fit(model, batches, held_batches)


def _taught(
    targets: npt.NDArray[np.float32], teacher: OnnxClassifier, work: _Work
) -> npt.NDArray[np.float32]:
    """Blend labels with what the teacher says of each training image as it is: (n, classes)."""
    rows, imitation = work.rows.train, work.recipe.train.imitation

    def told(done: int) -> None:
        if done % 100 == 0 or done == len(rows):
            work.reporter.progress("asking the teacher", done, len(rows))

    table = teacher.predict(rows.files(), progress=told)
    if table.rejected:
        raise DataError(
            f"{len(table.rejected)} training images can no longer be read, such as "
            f"{table.rejected[0].path}. Put them back and go on with --resume."
        )
    return ((1 - imitation) * targets + imitation * table.probabilities).astype(np.float32)


def _fit_head(model: keras.Model, work: _Work) -> History:
    """Run the frozen backbone once, then fit the head on its features."""
    recipe, split = work.recipe, work.rows
    rows = work.order(0)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    every = evaluation_order(len(split.validation))(0)
    with work.clock("features"):
        cache = FeatureCache(work.options.cache or default_cache(), work.reporter)
        trunk = Trunk(model, cache, threads=work.threads)
        features = trunk.features(
            work.source, rows, images=split.train.digest, reporter=work.reporter,
            stage="training features",
        )  # fmt: skip
        held_features = trunk.features(
            work.held, every, images=split.validation.digest, reporter=work.reporter,
            stage="validation features",
        )  # fmt: skip
    targets, held_targets = work.targets(split.train)[rows[:, 0]], work.targets(split.validation)
    batch, seed = recipe.train.batch, recipe.seed

    def batches(epoch: int) -> ArrayBatches:
        return ArrayBatches(features, targets, batch=batch, seed=seed, first_epoch=epoch)

    def held_batches(_: int) -> ArrayBatches:
        return ArrayBatches(held_features, held_targets, batch=256, seed=None)

    return work.fit(head_of(model), batches, held_batches)


def _finish(
    model: keras.Model, work: _Work, history: History, start: dict[str, Any]
) -> tuple[ModelBundle, dict[str, Any]]:
    """Export, evaluate the export on validation rows, and write everything."""
    recipe, run = work.recipe, work.run
    bundle = _exported(model, work)
    validation = _validated(model, bundle, work)
    atomic_write_json(run / "validation.json", validation)
    if not validation["baselines"]["majority"]["beaten"]:
        work.reporter.say(no_better(validation["confusion"], validation["classes"]))
    bundle = replace(
        bundle,
        provenance=_provenance(work, history, start),
        validation=validation_summary(bundle, validation, split=recipe.data.split),
    )
    bundle = with_card(bundle)
    write_history(run / "history.csv", history)
    write_curves(run / "curves.png", history)
    write_keras(run / "model.keras", model)
    if work.options.save_h5:
        write_h5(run / "model.h5", model)
    bundle.save(run / "bundle")
    return bundle, validation


def _exported(model: keras.Model, work: _Work) -> ModelBundle:
    """Make a bundle of the network, calibrated where validation slides were kept apart."""
    recipe = work.recipe
    onnx = export_onnx(model)
    bundle = ModelBundle(
        name=recipe.name,
        onnx=onnx,
        preprocess=recipe.preprocess,
        card="",
        goldens=make_goldens(onnx, recipe.preprocess),
        parameters=int(model.count_params()),
        scheme=work.rows.both.scheme,
    )
    if recipe.data.split == "slide":
        return fit_trust(
            bundle, work.rows.validation, TrustSettings(seed=recipe.seed),
            threads=work.threads, reporter=work.reporter,
        )  # fmt: skip
    work.reporter.say(
        "Nothing is calibrated: this validation holds copies of training images and would "
        f"promise too much. {NEVER_CHECKED}"
    )
    return bundle


def _validated(model: keras.Model, bundle: ModelBundle, work: _Work) -> dict[str, Any]:
    """Evaluate a bundle on the validation rows, and check that it says what the network says."""
    rows, spec = work.rows.validation, bundle.preprocess
    total = len(rows)
    table = OnnxClassifier(bundle, threads=work.threads).predict(
        rows.files(),
        progress=lambda done: work.reporter.progress("validating", done, total),
    )
    if table.rejected:
        first = table.rejected[0]
        raise DataError(
            f"{len(table.rejected)} validation images can no longer be read, such as {first.path} "
            f"({first.reason}: {first.detail}). Put them back and go on with --resume."
        )
    some = [prepare(read_image(f, spec=spec).pixels, spec) for f in rows.files()[:8]]
    check_parity(model, bundle.onnx, np.stack(some * 2 if len(some) == 1 else some), _PARITY)
    report = evaluate_predictions(
        rows.labels,
        table.probabilities,
        rows.slides,
        scheme=rows.scheme,
        paths=[sample.path for sample in rows.samples],
        seed=work.recipe.seed,
    ).with_context(
        {
            "data": {"folder": "validation rows", "digest": rows.digest},
            "model": {"name": work.recipe.name, "digest": bundle.digest},
        }
    )
    return evaluation_document(report)


def _provenance(work: _Work, history: History, start: dict[str, Any]) -> dict[str, Any]:
    """Say where a bundle comes from, in plain values."""
    recipe, rows = work.recipe, work.rows
    return plain(
        {
            **without_folders(recipe),
            "recipe_digest": recipe.digest,
            "manifest_digest": rows.both.digest,
            "source_digest": rows.source_digest,
            "training_images": len(rows.train),
            "validation_images": len(rows.validation),
            "epochs": len(history),
            "best_epoch": best_epoch(history, recipe.train.monitor),
            "seed": recipe.seed,
            "versions": versions(),
            "start": start,
            **({"teacher": work.teacher.digest} if work.teacher else {}),
        }
    )


def _deterministic() -> None:
    """Ask TensorFlow for the same sums in the same order; nothing to ask of other backends."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
