"""The folder beside the output in which finished partitions wait for the others."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from leuko import __version__
from leuko.batch.partition import decode_answers
from leuko.bundle import ModelBundle
from leuko.errors import BatchError, OutputError, UsageError
from leuko.prediction import Prediction
from leuko.prediction_files import csv_cells, csv_line, csv_names
from leuko.scheme import ClassScheme
from leuko.support.artifacts import (
    TEMPORARY_PREFIX,
    atomic_write,
    atomic_write_bytes,
    atomic_write_json,
    prepare_folder,
    read_json,
    schema,
)

__all__ = ["SUFFIXES", "WorkFolder", "check_output", "write_predictions"]

SUFFIXES: Final = (".csv", ".parquet")

_STATE: Final = "batch.json"
_LOCK: Final = "lock"
_ENDING: Final = ".jsonl.gz"


@dataclass(frozen=True)
class WorkFolder:
    """Finished partitions on disk, each in a file named by its key.

    Attributes
    ----------
    path : Path
        The output's name with ``.parts`` after it.
    scheme : ClassScheme
        Of the answers.
    """

    path: Path
    scheme: ClassScheme

    def has(self, key: str) -> bool:
        """Whether a partition is finished."""
        return self._file(key).exists()

    def keep(self, key: str, payload: bytes) -> None:
        """Write the answers of a partition, whole or not at all."""
        atomic_write_bytes(self._file(key), payload)

    def read(self, key: str) -> list[Prediction]:
        """Read the answers of a partition."""
        file = self._file(key)
        try:
            payload = file.read_bytes()
        except OSError as error:
            raise BatchError(
                f"{file} cannot be read: {error.strerror}. Run the same command with --resume."
            ) from error
        return decode_answers(payload, str(file), self.scheme)

    @property
    def finished(self) -> int:
        """How many partitions are here, those of an earlier list of images included."""
        return sum(1 for _ in self.path.glob(f"*{_ENDING}"))

    def clear(self) -> None:
        """Delete everything; what says whose the partitions are goes last."""
        for file in self.path.glob(f"*{_ENDING}"):
            with contextlib.suppress(OSError):
                file.unlink()
        shutil.rmtree(self.path, ignore_errors=True)

    def _file(self, key: str) -> Path:
        return self.path / f"{key[:32]}{_ENDING}"


def check_output(out: Path) -> None:
    """Refuse an output that cannot be written, before hours of work.

    Parameters
    ----------
    out : Path
        The predictions file.

    Raises
    ------
    UsageError
        When its name ends in neither ``.csv`` nor ``.parquet``, or it is no ordinary file.
    OutputError
        When a folder stands there.
    MissingExtraError
        When it is Parquet and pyarrow is not installed.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"The output must end in .csv or .parquet, received {out.name}.")
    if out.is_dir():
        raise OutputError(
            f"{out} cannot be written: a folder stands where a file is needed; choose another path."
        )
    if out.exists() and not out.is_file():
        raise UsageError(f"{out} is no ordinary file; an engine needs a place beside its output.")
    if out.suffix.lower() == ".parquet":
        from leuko.prediction_files import arrow

        arrow()


@contextlib.contextmanager
def open_work(out: Path, bundle: ModelBundle, *, resume: bool) -> Iterator[WorkFolder]:
    """Open the work folder of an output; one process at a time.

    Parameters
    ----------
    out : Path
        The predictions file.
    bundle : ModelBundle
        That answers.
    resume : bool
        Go on with what is there.

    Yields
    ------
    WorkFolder
        Removed when the block ends well, or when nothing was finished in it.

    Raises
    ------
    OutputError
        When it cannot be written, another run works in it, or it holds an earlier run and
        `resume` is not set.
    BatchError
        When it was begun with another model, or by a Leuko whose answers are of another version.
    """
    work = WorkFolder(out.with_name(out.name + ".parts"), bundle.scheme)
    prepare_folder(work.path)
    with _locked(work.path / _LOCK):
        _check_state(work, bundle, resume=resume)
        atomic_write_json(work.path / _STATE, _state(bundle))
        try:
            yield work
        except BaseException:
            if not work.finished:
                work.clear()
            raise
        work.clear()


def _state(bundle: ModelBundle) -> dict[str, str]:
    """What all partitions of a folder have in common."""
    return {
        "schema": schema("batch"),
        "leuko": __version__,
        "model": bundle.digest,
        "name": bundle.name,
    }


def _check_state(work: WorkFolder, bundle: ModelBundle, *, resume: bool) -> None:
    """Compare a folder that is there with the run that is to begin."""
    found = {place.name for place in work.path.iterdir()} - {_STATE, _LOCK}
    # A kill may leave the temporary file of the state itself.
    others = {name for name in found if not name.startswith(TEMPORARY_PREFIX)}
    strangers = {name for name in others if not name.endswith(_ENDING) and name[0] != "."}
    if strangers or (others and not (work.path / _STATE).exists()):
        raise OutputError(
            f"{work.path} holds other things than finished partitions, such as {min(others)}; it "
            "would be removed at the end. Choose another output."
        )
    if not work.finished:
        return
    if not resume:
        raise OutputError(
            f"{work.path} holds {work.finished} finished partitions of a run that was stopped. "
            "Add --resume to go on with it, or delete the folder to begin again."
        )
    begun = read_json(work.path / _STATE, "batch")
    if begun["schema"] != schema("batch"):
        raise BatchError(
            f"{work.path} was begun by an older Leuko, whose answers this one does not mix with "
            "its own. Delete the folder to begin again."
        )
    if begun.get("model") != bundle.digest:
        raise BatchError(
            f"{work.path} was begun with the model {begun.get('name')}, digest "
            f"{str(begun.get('model'))[:12]}; received {bundle.name}, digest "
            f"{bundle.digest[:12]}. Give that model, or delete the folder to begin again."
        )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Hold a file that only one process may hold; the system lets go of it when that one ends."""
    import fcntl

    try:
        file = path.open("wb")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"Another run works in {path.parent}. Wait for it, or choose another output."
            ) from error
        yield file


def write_predictions(out: Path, parts: Iterable[list[Prediction]], bundle: ModelBundle) -> None:
    """Write predictions as CSV or Parquet, whichever the name says, atomically.

    Parameters
    ----------
    out : Path
        Ending in ``.csv`` or ``.parquet``.
    parts : iterable of list of Prediction
        In order; each becomes a row group of a Parquet file.
    bundle : ModelBundle
        That answered.

    Raises
    ------
    OutputError
        When it cannot be written; the old file stays.
    """
    if out.suffix.lower() == ".parquet":
        from leuko.prediction_files import parquet_predictions

        with parquet_predictions(out, model=bundle.digest, scheme=bundle.scheme) as table:
            for rows in parts:
                table.write(rows)
        return
    with atomic_write(out) as file:
        file.write(csv_line(csv_names(bundle.scheme)).encode())
        for rows in parts:
            text = "".join(csv_line(csv_cells(row, bundle.scheme)) for row in rows)
            # Bytes of a file name that is not UTF-8 are given back.
            file.write(text.encode("utf-8", "surrogateescape"))
