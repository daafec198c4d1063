"""What every command shares: options, progress, sentences on stderr, exit codes."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from leuko.artifacts import json_text
from leuko.parallel import Progress

__all__ = ["Session", "command_line", "emit_json", "session"]

MAX_SEED: Final = 2**31 - 1

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output.")
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed", min=0, max=MAX_SEED, envvar="LEUKO_SEED", help="Decides every random choice."
    ),
]
OptionalSeed = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, max=MAX_SEED, envvar="LEUKO_SEED", help="In place of the recipe's."
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, envvar="LEUKO_WORKERS", help="Threads; all cores by default."),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        envvar="LEUKO_DEVICE",
        metavar="cpu|cuda",
        help="Where networks predict; cuda needs onnxruntime-gpu.",
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no remarks, only results and errors.")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more about what is being done.")
]
LogOption = Annotated[
    Path | None,
    typer.Option("--log-file", envvar="LEUKO_LOG_FILE", help="Append every remark, with its time."),
]
IgnoreOption = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="NAME", help="Pass over an extra folder; may be repeated."),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        envvar="LEUKO_WEIGHTS",
        metavar="imagenet|leuko|none|PATH",
        help="Initial weights of a pretrained backbone, in place of the recipe's.",
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache", envvar="LEUKO_CACHE", help="Where features of frozen backbones are kept."
    ),
]

_log = logging.getLogger("leuko")


@dataclass
class Session:
    """How one command talks to its user.

    Attributes
    ----------
    quiet, verbose : bool
        As asked for.
    """

    quiet: bool = False
    verbose: bool = False
    _bars: Any = None
    _tasks: dict[str, Any] = field(default_factory=dict)
    _spoken: dict[str, float] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        """Print a remark on standard error, and to the log file."""
        _log.info(sentence)
        if self.quiet:
            return
        if self._bars is not None:
            self._bars.console.print(sentence, markup=False, highlight=False, soft_wrap=True)
        else:
            print(sentence, file=sys.stderr)

    def detail(self, sentence: str) -> None:
        """Print a remark that only a curious user wants."""
        if self.verbose:
            self.say(sentence)
        else:
            _log.debug(sentence)

    @property
    def progress(self) -> Progress | None:
        """Called as ``progress(stage, done, total)``; None when quiet."""
        return None if self.quiet else self._advance

    def _advance(self, stage: str, done: int, total: int) -> None:
        if self._bars is None:
            # Not a terminal: a line now and then, so that a log stays readable.
            now = time.monotonic()
            if now - self._spoken.get(stage, 0.0) > 20 or done == total:
                self._spoken[stage] = now
                print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)
            return
        if stage not in self._tasks:
            for task in self._tasks.values():
                self._bars.update(task, visible=False)
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)


@contextlib.contextmanager
def session(
    *, quiet: bool = False, verbose: bool = False, log_file: Path | None = None
) -> Iterator[Session]:
    """Open a progress bar with the time left, and a log file, for the length of a command.

    Parameters
    ----------
    quiet, verbose : bool
        As asked for.
    log_file : Path, optional
        Appended to.

    Yields
    ------
    Session
        To talk through.
    """
    from leuko.errors import LeukoError

    handler: logging.Handler | None = None
    level = _log.level
    if log_file is not None:
        from leuko.errors import OutputError

        try:
            handler = logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise OutputError(f"{log_file} cannot be written: {error.strerror}.") from error
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        _log.addHandler(handler)
        _log.setLevel(logging.DEBUG)
        _log.info(command_line())
    talk = Session(quiet=quiet, verbose=verbose)
    try:
        if quiet or not sys.stderr.isatty():
            yield talk
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            talk._bars = bars
            yield talk
    except LeukoError as error:
        if handler is not None:
            _log.error("Error: %s", error)
        raise
    finally:
        if handler is not None:
            _log.removeHandler(handler)
            _log.setLevel(level)
            handler.close()


def command_line() -> str:
    """Give the command as it was typed, for reports.

    Returns
    -------
    str
        Such as ``leuko evaluate runs/cnn Dataset/Test``.
    """
    return shlex.join(["leuko", *sys.argv[1:]])


def emit_json(document: dict[str, Any]) -> None:
    """Print one JSON document on standard output.

    Parameters
    ----------
    document : dict
        Numbers that are not finite become null.
    """
    print(json_text(document))
