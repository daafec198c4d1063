"""Where a run stands, written whole after every epoch, so that a killed run ends bit-identical.

Keras's own BackupAndRestore forgets what the other callbacks had counted and can be caught
half-written. This keeps every variable (weights, statistics, optimizer, dropout's generators),
the counters of Keras's callbacks and the history, in one folder that is moved into place at once.
"""

from __future__ import annotations

import io
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from leuko.errors import TrainingError
from leuko.support.artifacts import (
    TEMPORARY_PREFIX,
    atomic_folder,
    atomic_write,
    check_schema,
    digest_bytes,
    restore_folder,
    schema,
)

__all__ = [
    "Checkpoint",
    "Guard",
    "History",
    "RunFolder",
    "all_variables",
    "ensure_room",
    "load_state",
    "restore_variables",
]

History = list[dict[str, float]]
"""One row an epoch: epoch, then whatever Keras logs."""

_BEST: Final = "model.weights.h5"

_PER_ARRAY: Final = 4096
"""Bytes that an HDF5 file spends on an array besides its numbers, at most."""

_COUNTERS: Final[dict[type, tuple[str, ...]]] = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: ("best",),
}


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run is fitted, and what it must share to be continued there.

    Attributes
    ----------
    path : Path
        The run folder.
    identity : dict
        Digests of recipe, data and teacher.
    """

    path: Path
    identity: dict[str, str]

    @property
    def last(self) -> Path:
        """Folder of where the run stands."""
        return self.path / "last"

    @property
    def best(self) -> Path:
        """Weights of the best epoch, whole."""
        return self.path / "best" / _BEST

    @property
    def fresh(self) -> Path:
        """Where Keras's ModelCheckpoint writes in place, before the file is moved to `best`."""
        return self.best.with_name(f"{TEMPORARY_PREFIX}{_BEST}")


class Guard(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops on a loss or a weight that is no number, and on a full disk, before anything is saved.

    It must come before every callback that saves.

    Parameters
    ----------
    fresh : Path
        Where Keras's ModelCheckpoint is going to write.
    """

    def __init__(self, fresh: Path) -> None:
        super().__init__()
        self._fresh = fresh
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Remember the epoch for the message."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Look at the loss so far."""
        self._look(logs, f"epoch {self._epoch + 1}, batch {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Look at the losses, at every variable and at the disk."""
        self._look(logs, f"epoch {epoch + 1}")
        for variable in all_variables(self.model):
            value = np.asarray(variable)
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise TrainingError(
                    f"The weights {variable.path!r} are no longer finite after epoch {epoch + 1}; "
                    "they were not saved. Lower train.rate and start again in another folder."
                )
        ensure_room(self._fresh, self.model)

    def _look(self, logs: dict[str, float] | None, where: str) -> None:
        for name, value in (logs or {}).items():
            if not math.isfinite(float(value)):
                raise TrainingError(
                    f"The figure {name!r} is {float(value)} in {where}. Nothing of this epoch was "
                    "saved. Lower train.rate and start again in another folder."
                )


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves where the run stands, and gives the other callbacks back what they had counted.

    Parameters
    ----------
    run : RunFolder
        Where to.
    others : list of keras.callbacks.Callback
        Keras's callbacks of this run; this one must come after them.
    state : dict or None
        From `load_state`.
    """

    def __init__(self, run: RunFolder, others: list[Any], state: dict[str, Any] | None) -> None:
        super().__init__()
        self._run = run
        self._others = others
        self._state = state
        self.history: History = list(state["history"]) if state else []

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Put the other callbacks' counters back, which they reset when a fit begins."""
        if self._state is None:
            return
        for callback, saved in zip(self._others, self._state["callbacks"], strict=True):
            for name, value in saved.items():
                setattr(callback, name, value)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add to the history and save everything."""
        row = {"epoch": float(epoch + 1)}
        row.update({name: float(value) for name, value in (logs or {}).items()})
        self.history.append(row)
        if self._run.fresh.exists():
            with self._run.fresh.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self._run.fresh, self._run.best)
        arrays = io.BytesIO()
        values = {f"v{n:05d}": np.asarray(v) for n, v in enumerate(all_variables(self.model))}
        np.savez(arrays, allow_pickle=False, **values)
        data = arrays.getvalue()
        state = {
            "schema": schema("training"),
            "identity": self._run.identity,
            "epoch": epoch + 1,
            "stopped": bool(self.model.stop_training),
            "variables": digest_bytes(data),
            "callbacks": [_counters(callback) for callback in self._others],
            "history": self.history,
        }
        with atomic_folder(self._run.last) as folder:
            (folder / "variables.npz").write_bytes(data)
            (folder / "state.json").write_text(json.dumps(state))


def ensure_room(path: Path, model: keras.Model) -> None:
    """Write as much as a model needs, and delete it: a disk that fills up crashes HDF5.

    Parameters
    ----------
    path : Path
        Where the model is to be written; nothing must be there yet.
    model : keras.Model
        Built.

    Raises
    ------
    OutputError
        When there is no room.
    """
    arrays = [np.asarray(variable) for variable in all_variables(model)]
    size = 2**18 + sum(value.nbytes + _PER_ARRAY for value in arrays)
    with atomic_write(path) as file:
        for start in range(0, size, 2**20):
            file.write(bytes(min(2**20, size - start)))
    path.unlink()


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
    DataError
        When a newer Leuko wrote it.
    """
    restore_folder(folder)
    if not folder.exists():
        return None
    try:
        document = json.loads((folder / "state.json").read_text())
        data = (folder / "variables.npz").read_bytes()
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{folder} is damaged ({error}); start the run again in another folder."
        ) from error
    state = check_schema(document, "training", str(folder / "state.json"))
    if digest_bytes(data) != state["variables"]:
        raise TrainingError(
            f"{folder} is damaged: its digest does not match. Start the run again in another "
            "folder."
        )
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
        Built.

    Returns
    -------
    list
        Weights, statistics, dropout's generators, then the optimizer's if it is compiled.
    """
    metrics = {id(v) for v in model.metrics_variables}
    own = [v for v in model.variables if id(v) not in metrics]
    optimizer = getattr(model, "optimizer", None)  # only a compiled model has one
    if optimizer is None:
        return own
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    seen = {id(v) for v in own}
    return own + [v for v in optimizer.variables if id(v) not in seen]


def _counters(callback: Any) -> dict[str, Any]:
    """Counters of one of Keras's callbacks, as plain values."""
    for kind, names in _COUNTERS.items():
        if isinstance(callback, kind):
            found = {name: getattr(callback, name, None) for name in names}
            return {k: float(v) if isinstance(v, np.floating) else v for k, v in found.items()}
    return {}
