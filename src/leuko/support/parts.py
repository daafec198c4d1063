"""The folder beside an output in which finished parts of a run wait for the others."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from leuko import __version__
from leuko.errors import BatchError, OutputError
from leuko.support.artifacts import (
    TEMPORARY_PREFIX,
    atomic_write_bytes,
    atomic_write_json,
    prepare_folder,
    read_json,
    schema,
)
from leuko.support.text import counted

__all__ = ["Parts", "open_parts"]

_STATE: Final = "batch.json"
_LOCK: Final = "lock"


@dataclass(frozen=True)
class Parts:
    """Finished parts on disk, each in a file named by its key.

    Attributes
    ----------
    path : Path
        The output's name with ``.parts`` after it.
    ending : str
        Of the files.
    """

    path: Path
    ending: str

    def file(self, key: str) -> Path:
        """Where a part lies."""
        return self.path / f"{key[:32]}{self.ending}"

    def has(self, key: str) -> bool:
        """Whether a part is finished."""
        return self.file(key).exists()

    def keep(self, key: str, payload: bytes) -> None:
        """Write a part, whole or not at all."""
        atomic_write_bytes(self.file(key), payload)

    def read(self, key: str) -> bytes:
        """Read a part.

        Raises
        ------
        BatchError
            When it cannot be read.
        """
        try:
            return self.file(key).read_bytes()
        except OSError as error:
            raise BatchError(
                f"{self.file(key)} cannot be read: {error.strerror}. Run the same command with "
                "--resume."
            ) from error

    @property
    def finished(self) -> int:
        """How many parts are here, those of an earlier list of images included."""
        return sum(1 for _ in self.path.glob(f"*{self.ending}"))

    def clear(self) -> None:
        """Delete everything; what says whose the parts are goes last."""
        for file in self.path.glob(f"*{self.ending}"):
            with contextlib.suppress(OSError):
                file.unlink()
        shutil.rmtree(self.path, ignore_errors=True)


@contextlib.contextmanager
def open_parts(
    out: Path, ending: str, models: Mapping[str, str], *, resume: bool
) -> Iterator[Parts]:
    """Open the parts of an output; one process at a time.

    Parameters
    ----------
    out : Path
        The output.
    ending : str
        Of the files of the parts.
    models : dict of str to str
        Name and digest of all that the parts were made with.
    resume : bool
        Go on with what is there.

    Yields
    ------
    Parts
        Removed when the block ends well, or when nothing was finished in it.

    Raises
    ------
    OutputError
        When it cannot be written, another run works in it, or it holds an earlier run and
        `resume` is not set.
    BatchError
        When it was begun with another model, or by a Leuko whose answers are of another version.
    """
    if not out.name:
        raise OutputError(f"{out} names no output that can be made. Give it a name, such as run.")
    parts = Parts(out.with_name(out.name + ".parts"), ending)
    prepare_folder(parts.path)
    with _locked(parts.path / _LOCK):
        _check_state(parts, models, resume=resume)
        state = {"schema": schema("batch"), "leuko": __version__, "models": dict(models)}
        atomic_write_json(parts.path / _STATE, state)
        try:
            yield parts
        except BaseException:
            if not parts.finished:
                parts.clear()
            raise
        parts.clear()


def _check_state(parts: Parts, models: Mapping[str, str], *, resume: bool) -> None:
    """Compare a folder that is there with the run that is to begin."""
    found = {place.name for place in parts.path.iterdir()} - {_STATE, _LOCK}
    # A kill may leave the temporary file of the state itself.
    others = {name for name in found if not name.startswith(TEMPORARY_PREFIX)}
    strangers = {name for name in others if not name.endswith(parts.ending) and name[0] != "."}
    if strangers or (others and not (parts.path / _STATE).exists()):
        raise OutputError(
            f"{parts.path} holds other things than finished parts, such as {min(others)}; it "
            "would be removed at the end. Choose another output."
        )
    if not parts.finished:
        return
    if not resume:
        raise OutputError(
            f"{parts.path} holds {counted(parts.finished, 'finished part')} of a run that was "
            "stopped. Add --resume to go on with it, or delete the folder to begin again."
        )
    begun = read_json(parts.path / _STATE, "batch")
    if begun["schema"] != schema("batch"):
        raise BatchError(
            f"{parts.path} was begun by an older Leuko, whose answers this one does not mix with "
            "its own. Delete the folder to begin again."
        )
    if begun.get("models") != dict(models):
        raise BatchError(
            f"{parts.path} was begun with {_told(begun.get('models') or {})}; received "
            f"{_told(models)}. Give the same, or delete the folder to begin again."
        )


def _told(models: Mapping[str, str]) -> str:
    """Models with the beginnings of their digests."""
    return " and ".join(f"{name}, digest {digest[:12]}" for name, digest in models.items())


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
