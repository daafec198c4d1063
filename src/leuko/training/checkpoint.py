"""Where a run stands, written whole after every epoch, so that a killed run ends bit-identical.

Keras's own BackupAndRestore forgets what the other callbacks had counted and can be caught
half-written. This keeps every variable (weights, statistics, optimizer, dropout's generators),
the counters of Keras's callbacks and the history, in one folder that is moved into place at once.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from leuko.artifacts import atomic_folder, digest_bytes, restore_folder
from leuko.errors import TrainingError
from leuko.parallel import Progress

__all__ = ["Checkpoint", "History", "load_state"]

History = list[dict[str, float]]
"""One row an epoch: epoch, then whatever Keras logs."""

_COUNTERS: Final[dict[type, tuple[str, ...]]] = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: ("best",),
}


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves where the run stands, restores the other callbacks, stops on a loss that is no number.

    Parameters
    ----------
    folder : Path
        The run's ``last`` folder.
    others : list of keras.callbacks.Callback
        Keras's callbacks of this run; this one must come after them.
    identity : dict
        What a run must share to be continued: digests of recipe and manifest.
    steps : int
        Batches an epoch, for the progress.
    epochs : int
        Largest number of epochs, for the progress.
    state : dict or None
        From `load_state`.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.
    """

    def __init__(
        self,
        folder: Path,
        others: list[Any],
        identity: dict[str, str],
        *,
        steps: int,
        epochs: int,
        state: dict[str, Any] | None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        self._folder = folder
        self._others = others
        self._identity = identity
        self._steps = steps
        self._epochs = epochs
        self._state = state
        self._progress = progress
        self._epoch = 0
        self.history: History = list(state["history"]) if state else []

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Put the other callbacks' counters back, which they reset when a fit begins."""
        if self._state is None:
            return
        for callback, saved in zip(self._others, self._state["callbacks"], strict=True):
            for name, value in saved.items():
                setattr(callback, name, value)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remember the epoch for the progress."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop at once when the loss is not finite."""
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} in epoch {self._epoch + 1}, batch {batch + 1}. Nothing of "
                "this epoch was saved. Lower train.rate and start again."
            )
        if self._progress is not None:
            done = self._epoch * self._steps + batch + 1
            self._progress("training", done, self._epochs * self._steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add to the history and save everything."""
        row = {"epoch": float(epoch + 1)}
        row.update({name: float(value) for name, value in (logs or {}).items()})
        self.history.append(row)
        arrays = io.BytesIO()
        values = {f"v{n:05d}": np.asarray(v) for n, v in enumerate(all_variables(self.model))}
        for name, value in values.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise TrainingError(
                    f"A weight ({name}) is no longer finite after epoch {epoch + 1}; it was not "
                    "saved. Lower train.rate and start again."
                )
        np.savez(arrays, allow_pickle=False, **values)
        data = arrays.getvalue()
        state = {
            "identity": self._identity,
            "epoch": epoch + 1,
            "stopped": bool(self.model.stop_training),
            "variables": digest_bytes(data),
            "callbacks": [_counters(callback) for callback in self._others],
            "history": self.history,
        }
        with atomic_folder(self._folder) as folder:
            (folder / "variables.npz").write_bytes(data)
            (folder / "state.json").write_text(json.dumps(state))


def load_state(folder: Path, identity: dict[str, str]) -> dict[str, Any] | None:
    """Open where a run stood.

    Parameters
    ----------
    folder : Path
        The run's ``last`` folder.
    identity : dict
        Of the run that wants to go on.

    Returns
    -------
    dict or None
        None when no epoch was finished.

    Raises
    ------
    TrainingError
        When it belongs to another recipe or data set, or is damaged.
    """
    restore_folder(folder)
    if not folder.exists():
        return None
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
        data = (folder / "variables.npz").read_bytes()
    except (OSError, ValueError) as error:
        raise TrainingError(f"{folder} is damaged ({error}); start the run again.") from error
    if digest_bytes(data) != state["variables"]:
        raise TrainingError(f"{folder} is damaged: its digest does not match. Start again.")
    for name, value in identity.items():
        if state["identity"].get(name) != value:
            raise TrainingError(
                f"{folder.parent} was begun with another {name}; resume it with the same one, or "
                "choose another folder."
            )
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        state["arrays"] = [arrays[name] for name in sorted(arrays.files)]
    return state


def restore_variables(model: keras.Model, state: dict[str, Any]) -> None:
    """Put saved numbers back into a compiled model.

    Parameters
    ----------
    model : keras.Model
        Compiled, of the same recipe.
    state : dict
        From `load_state`.
    """
    variables = all_variables(model)
    for variable, value in zip(variables, state["arrays"], strict=True):
        variable.assign(value)


def all_variables(model: keras.Model) -> list[Any]:
    """Give every variable that decides what comes next, in a fixed order.

    Parameters
    ----------
    model : keras.Model
        Compiled.

    Returns
    -------
    list
        Weights, statistics, dropout's generators, then the optimizer's.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    metrics = {id(v) for v in model.metrics_variables}
    own = [v for v in model.variables if id(v) not in metrics]
    seen = {id(v) for v in own}
    return own + [v for v in model.optimizer.variables if id(v) not in seen]


def _counters(callback: Any) -> dict[str, Any]:
    """Counters of one of Keras's callbacks, as plain values."""
    for kind, names in _COUNTERS.items():
        if isinstance(callback, kind):
            found = {name: getattr(callback, name, None) for name in names}
            return {k: float(v) if isinstance(v, np.floating) else v for k, v in found.items()}
    return {}
