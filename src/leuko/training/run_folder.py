"""A run folder: claimed, timed, and what lies in it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras

from leuko.bundle import ModelBundle
from leuko.errors import DataError, OutputError, TrainingError
from leuko.manifest import Manifest
from leuko.recipe import Recipe
from leuko.support import artifacts
from leuko.support.artifacts import (
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    prepare_folder,
    restore_folder,
    schema,
)
from leuko.support.host import machine, versions
from leuko.training.checkpoint import History, ensure_room
from leuko.training.ready import BALANCED, refuse_claimed

__all__ = [
    "Clock",
    "TrainedRun",
    "claim",
    "open_finished",
    "save_rows",
    "write_curves",
    "write_h5",
    "write_history",
    "write_keras",
]

_TIMES: Final = "environment.json"


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


def claim(run: Path, recipe: Recipe, resume: bool) -> None:
    """Make a run folder ours, or say why it is not.

    Parameters
    ----------
    run : Path
        It is created; what a kill has left half-written in it is taken away.
    recipe : Recipe
        What is to be trained there.
    resume : bool
        Whether a run of the same recipe may have been begun there.

    Raises
    ------
    TrainingError
        See `leuko.training.ready.refuse_claimed`.
    """
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


def open_finished(run: Path, manifest: Manifest, clock: Clock) -> TrainedRun | None:
    """Open a run that has nothing left to do: its bundle, written last, says of which data.

    Parameters
    ----------
    run : Path
        The run folder.
    manifest : Manifest
        The training rows that are given now.
    clock : Clock
        Of the run.

    Returns
    -------
    TrainedRun or None
        None for a run that is not finished.

    Raises
    ------
    TrainingError
        When it was trained on other rows.
    """
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


def save_rows(run: Path, both: Manifest) -> None:
    """Write the rows of a run.

    Parameters
    ----------
    run : Path
        The run folder.
    both : Manifest
        Training and validation rows.

    Raises
    ------
    TrainingError
        When the run was begun with other ones.
    """
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


def write_history(path: Path, history: History) -> None:
    """Write one line an epoch, numbers in full.

    Parameters
    ----------
    path : Path
        A ``.csv`` file.
    history : list of dict
        One row an epoch.
    """
    columns = list(dict.fromkeys(name for row in history for name in row))
    lines = [",".join(columns)]
    for row in history:
        cells = [repr(row[c]) if c in row else "" for c in columns]
        cells[0] = str(int(row["epoch"]))
        lines.append(",".join(cells))
    atomic_write_text(path, "\n".join(lines) + "\n")


def _read_history(path: Path) -> History:
    """Read what `write_history` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def write_curves(path: Path, history: History) -> None:
    """Draw accuracy and loss.

    Parameters
    ----------
    path : Path
        A ``.png`` file.
    history : list of dict
        One row an epoch.
    """
    from leuko.render.plots import curves_png

    atomic_write_bytes(path, curves_png(history))


def write_keras(path: Path, model: keras.Model) -> None:
    """Write a .keras file whose bytes depend on the model alone: no dates.

    Parameters
    ----------
    path : Path
        The file.
    model : keras.Model
        What to write.

    Raises
    ------
    OutputError
        When the disk is full.
    """
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


def write_h5(path: Path, model: keras.Model) -> None:
    """Write the older HDF5 format for other people's tools.

    Parameters
    ----------
    path : Path
        The file.
    model : keras.Model
        What to write.

    Raises
    ------
    OutputError
        When the disk is full.
    """
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


class Clock:
    """Adds up the wall time of each stage over interruptions, and saves it with the host.

    Whole milliseconds are kept, so that a run opened again says the same as the one that trained.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        path = folder / _TIMES
        if resume and path.exists():
            try:
                document = artifacts.read_json(path, "environment")
                self.seconds = {k: float(v) for k, v in document["seconds"].items()}
            except (DataError, KeyError, TypeError, ValueError):
                self.seconds = {}

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a stage in a with block; the time counts even when the stage is cut short."""
        start = time.monotonic()
        try:
            yield
        finally:
            lasted = time.monotonic() - start
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + lasted, 3)
            if self.folder.is_dir():
                self.save()

    def save(self, command: str = "") -> None:
        """Write environment.json."""
        atomic_write_json(
            self.folder / _TIMES,
            {
                "schema": schema("environment"),
                "command": command,
                "seconds": self.seconds,
                "total_seconds": round(sum(self.seconds.values()), 3),
                "machine": machine(),
                "versions": versions(),
            },
        )
