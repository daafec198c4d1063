"""Fit a model to order: Keras's fit and Keras's callbacks, resumable after any kill."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from leuko.errors import OutputError, TrainingError
from leuko.recipe import Recipe
from leuko.support.artifacts import prepare_folder
from leuko.support.reporter import SILENT, Reporter
from leuko.training.architectures import compile_model
from leuko.training.checkpoint import (
    Checkpoint,
    Guard,
    History,
    RunFolder,
    load_state,
    restore_variables,
)
from leuko.training.fused import fused_normalisation

__all__ = ["ArrayBatches", "Feeds", "best_epoch", "fit_model"]


@dataclass(frozen=True, slots=True)
class Feeds:
    """What a network is shown.

    Attributes
    ----------
    train, validation : callable
        Called with the epoch to begin at; give a `keras.utils.PyDataset`.
    """

    train: Callable[[int], Any]
    validation: Callable[[int], Any]


class ArrayBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches out of arrays in memory, such as features, in an order fixed by the epoch.

    Parameters
    ----------
    values : (n, d) float32
        Inputs.
    targets : (n, classes) float32
        One-hot labels.
    batch : int
        Rows a batch.
    seed : int or None
        Of the order; None keeps the order of the arrays.
    first_epoch : int
        Where a resumed run goes on.
    """

    def __init__(
        self,
        values: npt.NDArray[np.float32],
        targets: npt.NDArray[np.float32],
        *,
        batch: int,
        seed: int | None,
        first_epoch: int = 0,
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self._values, self._targets = values, targets
        self._batch, self._seed, self._epoch = batch, seed, first_epoch
        self._arrange()

    def _arrange(self) -> None:
        count = len(self._values)
        if self._seed is None:
            self._order = np.arange(count)
        else:
            self._order = np.random.default_rng((self._seed, 2, self._epoch)).permutation(count)

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._values) // self._batch)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Take one batch."""
        rows = self._order[index * self._batch : (index + 1) * self._batch]
        return self._values[rows], self._targets[rows]

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's order."""
        self._epoch += 1
        self._arrange()


def fit_model(
    model: keras.Model,
    recipe: Recipe,
    feeds: Feeds,
    run: RunFolder,
    *,
    resume: bool,
    reporter: Reporter = SILENT,
    tensorboard: bool = False,
) -> History:
    """Fit, keep the best epoch, and leave the model with its weights.

    Parameters
    ----------
    model : keras.Model
        Built, not compiled. Changed in place.
    recipe : Recipe
        Its ``train`` settings.
    feeds : Feeds
        What it is trained and validated on.
    run : RunFolder
        Where to; its folders ``last`` and ``best`` are written.
    resume : bool
        Whether to go on from ``last``.
    reporter : Reporter, optional
        Told how far it is, and what a person should know.
    tensorboard : bool
        Whether to write TensorBoard's logs to ``tensorboard`` in the run folder.

    Returns
    -------
    list of dict
        One row an epoch.

    Raises
    ------
    TrainingError
        When the loss is not finite, or the run belongs to another recipe or data set.
    OutputError
        When something cannot be written. What was finished stays.
    """
    epochs = recipe.train.epochs
    state = load_state(run.last, run.identity) if resume else None
    start = int(state["epoch"]) if state else 0
    feed = feeds.train(start)
    compile_model(model, recipe, steps=feed.num_batches * epochs)
    if state is not None:
        restore_variables(model, state)
    prepare_folder(run.best.parent)
    run.fresh.unlink(missing_ok=True)
    own = _keras_callbacks(recipe, run.fresh)
    checkpoint = Checkpoint(run, own, state)
    callbacks = [Guard(run.fresh), *own, checkpoint]
    callbacks.append(_Told(reporter, feed.num_batches, epochs))
    if tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(str(run.path / "tensorboard")))
    held = feeds.validation(0)
    with _cleared(run, feed, held):
        if start < epochs and not (state and state["stopped"]):
            with _quiet(), fused_normalisation(model):
                model.fit(
                    feed, validation_data=held, epochs=epochs, initial_epoch=start,
                    callbacks=callbacks, shuffle=False, verbose=0,
                )  # fmt: skip
    if recipe.train.monitor != "none":
        _load_best(model, run.best)
    return checkpoint.history


class _Told(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells how far the run is: batches of all epochs."""

    def __init__(self, reporter: Reporter, steps: int, epochs: int) -> None:
        super().__init__()
        self._reporter, self._steps, self._total = reporter, steps, steps * epochs
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._reporter.progress("training", self._epoch * self._steps + batch + 1, self._total)


@contextlib.contextmanager
def _cleared(run: RunFolder, *feeds: Any) -> Iterator[None]:
    """Close the feeds behind a fit, and raise what stopped it, not what Keras makes of it."""
    try:
        yield
    except Exception as error:
        fault = next(filter(None, (getattr(feed, "fault", None) for feed in feeds)), None)
        if fault is not None:
            raise fault from error
        if isinstance(error, OSError):
            raise OutputError(
                f"{run.path} cannot be written: {error}. Finished epochs stay; free some space and "
                "go on with --resume."
            ) from error
        raise
    finally:
        for feed in feeds:
            if hasattr(feed, "close"):
                feed.close()
        run.fresh.unlink(missing_ok=True)


def best_epoch(history: History, monitor: str) -> int:
    """Which epoch's weights were kept.

    Parameters
    ----------
    history : list of dict
        From `fit_model`.
    monitor : str
        The recipe's ``train.monitor``.

    Returns
    -------
    int
        Counted from 1; the first of equal ones.
    """
    if monitor == "none" or not history:
        return len(history)
    values = np.array([row[monitor] for row in history])
    return int(values.argmin() if monitor == "val_loss" else values.argmax()) + 1


def _load_best(model: keras.Model, best: Path) -> None:
    """Give the model the weights that ModelCheckpoint kept."""
    try:
        model.load_weights(str(best))
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"{best} cannot be read ({error}); start the run again in another folder."
        ) from error


def _keras_callbacks(recipe: Recipe, best: Path) -> list[Any]:
    """Keras's own callbacks, as the recipe asks for them."""
    settings = recipe.train
    callbacks: list[Any] = []
    if settings.monitor != "none":
        mode = "min" if settings.monitor == "val_loss" else "max"
        callbacks.append(
            keras.callbacks.ModelCheckpoint(
                str(best).replace("{", "{{").replace("}", "}}"),  # Keras fills in braces
                monitor=settings.monitor,
                mode=mode,
                save_best_only=True,
                save_weights_only=True,
            )
        )
        if settings.patience:
            callbacks.append(
                keras.callbacks.EarlyStopping(
                    monitor=settings.monitor, mode=mode, patience=settings.patience
                )
            )
    if settings.plateau:
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor="val_loss", factor=0.5, patience=settings.plateau
            )
        )
    return callbacks


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back Keras's remarks about datasets that shuffle themselves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="keras")
        yield
