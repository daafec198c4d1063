"""What every command shares: options, progress, sentences on stderr, exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from leuko.errors import LeukoError, OutputError, UsageError
from leuko.support.artifacts import atomic_write, is_stream, json_text
from leuko.support.reporter import Reporter

if TYPE_CHECKING:
    from leuko.data.dataset import Dataset
    from leuko.scheme import ClassScheme

__all__ = [
    "Session",
    "chosen_scheme",
    "command_line",
    "emit_json",
    "keep_apart",
    "now_and_then",
    "open_dataset",
    "printable",
    "session",
    "take_late_error",
    "try_outputs",
]

MAX_SEED: Final = 2**31 - 1

EVERY_S: Final = 20.0
"""Seconds between two sentences on how far a work is."""

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output.")
]
SeedOption = Annotated[
    int,
    typer.Option("--seed", min=0, max=MAX_SEED, help="Decides every random choice."),
]
OptionalSeed = Annotated[
    int | None,
    typer.Option("--seed", min=0, max=MAX_SEED, help="In place of the recipe's."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Threads; all cores by default."),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
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
    typer.Option("--log-file", help="Append every remark, with its time."),
]
IgnoreOption = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="NAME", help="Pass over an extra folder; may be repeated."),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="NAME|FILE.toml|folders",
        help="Class scheme: differential-5, differential-6, pbc-8, a file of your own, or the "
        "folders' own names. By default it is found from the folders.",
    ),
]
LabelColumnOption = Annotated[
    str,
    typer.Option("--label-column", metavar="NAME", help="Column of a CSV that has the labels."),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="imagenet|leuko|none|PATH",
        help="Initial weights of a pretrained backbone, in place of the recipe's.",
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", help="Where features of frozen backbones are kept."),
]

_log = logging.getLogger("leuko")
_CONTROLS: Final = re.compile("[\x7f-\x9f]")

_late: Final[list[OutputError]] = []
"""What went wrong beside the work of a command, to be said when its results are out."""


class _Lines(logging.Formatter):
    """One line for each remark, with its time, whatever a file name in it holds."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Write out one remark."""
        return printable(super().formatMessage(record))


class _LogFile(logging.FileHandler):
    """A log that ends with its first fault, which is kept, and does not end the work."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.fault: OSError | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one remark."""
        if self.fault is None:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Keep what a full disk says; called where it is caught."""
        error = sys.exception()
        if isinstance(error, OSError):
            self.fault = error
        else:
            super().handleError(record)

    def close(self) -> None:
        """Write what waits, and close the file."""
        try:
            super().close()
        except OSError as error:  # the disk is still full
            self.fault = self.fault or error


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
        """Print a remark on standard error, and to the log file; names in it are made printable."""
        _log.info(sentence)
        if self.quiet:
            return
        told = printable(sentence)
        if self._bars is not None:
            self._bars.console.print(
                told, markup=False, emoji=False, highlight=False, soft_wrap=True
            )
        else:
            print(told, file=sys.stderr)

    def detail(self, sentence: str) -> None:
        """Print a remark that only a curious user wants."""
        if self.verbose:
            self.say(sentence)
        else:
            _log.debug(sentence)

    @property
    def reporter(self) -> Reporter:
        """What a long piece of work is to be told to."""
        return Reporter(say=self.say) if self.quiet else Reporter(self._advance, self.say)

    def _advance(self, stage: str, done: int, total: int) -> None:
        if self._bars is None:
            # Not a terminal: a line now and then, so that a log stays readable.
            now = time.monotonic()
            if now - self._spoken.get(stage, 0.0) > EVERY_S or done == total:
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
    handler = None if log_file is None else _open_log(log_file)
    level = _log.level
    if handler is not None:
        _log.addHandler(handler)
        _log.setLevel(logging.DEBUG)
    talk = Session(quiet=quiet, verbose=verbose)
    ended_well = False
    try:
        if quiet or not sys.stderr.isatty():
            yield talk
        else:
            with _bars() as bars:
                talk._bars = bars
                yield talk
        ended_well = True
    except LeukoError as error:
        if handler is not None:
            _log.error("Error: %s", error)
        raise
    finally:
        if handler is not None:
            _log.removeHandler(handler)
            _log.setLevel(level)
            handler.close()
            if handler.fault is not None:
                told = f"{log_file} ends early, it cannot be written: {_why(handler.fault)}."
                if ended_well:
                    _late.append(OutputError(f"{told} Everything else was done."))
                else:
                    print(printable(told), file=sys.stderr)


def _open_log(path: Path) -> _LogFile:
    """Open a log and write its first line, or say that this cannot be done."""
    try:
        handler = _LogFile(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {_why(error)}.") from error
    handler.setFormatter(_Lines("%(asctime)s %(message)s"))
    handler.emit(logging.makeLogRecord({"msg": command_line()}))
    if handler.fault is not None:
        handler.close()
        raise OutputError(f"{path} cannot be written: {_why(handler.fault)}.")
    return handler


def _why(error: OSError) -> str:
    """What the system says of a fault."""
    return error.strerror or str(error)


def _bars() -> Any:
    """Progress bars on standard error."""
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
    return Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        # Otherwise rich would take results that go to a file or a pipe, and show them instead.
        redirect_stdout=sys.stdout.isatty(),
    )


def take_late_error() -> OutputError | None:
    """Give what went wrong beside the work of a command, such as its log on a full disk.

    Returns
    -------
    OutputError or None
        Once; to be raised when the results are out.
    """
    error = _late[0] if _late else None
    _late.clear()
    return error


def command_line() -> str:
    """Give the command as it was typed, for reports.

    Returns
    -------
    str
        Such as ``leuko evaluate runs/cnn Dataset/Test``.
    """
    return shlex.join(["leuko", *sys.argv[1:]])


def printable(text: str, *, lines: bool = False) -> str:
    r"""Show what a terminal might obey: file names and cards may come from a stranger.

    Parameters
    ----------
    text : str
        May hold line feeds, a terminal's control codes, marks that turn the direction of writing.
    lines : bool
        Leave line breaks and tabs as they are.

    Returns
    -------
    str
        With an escape in place of each character that cannot be printed. Letters of every script
        stay.

    Examples
    --------
    >>> print(printable("ß细胞\n\x1b[2J.png"))
    ß细胞\n\x1b[2J.png
    >>> print(printable("one\r\ntwo\x07", lines=True))
    one
    two\x07
    """
    if text.isprintable():
        return text
    if lines:
        text = text.replace("\r\n", "\n")
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)


def emit_json(document: dict[str, Any]) -> None:
    """Print one JSON document on standard output.

    Parameters
    ----------
    document : dict
        Numbers that are not finite become null.
    """
    # JSON escapes the other control codes by itself.
    print(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", json_text(document)))


def chosen_scheme(
    classes: str | None, dataset: Path, label_column: str = "label"
) -> ClassScheme | None:
    """Open the class scheme that ``--classes`` names.

    Parameters
    ----------
    classes : str or None
        As given.
    dataset : Path
        Whose folders or labels ``folders`` means.
    label_column : str
        Of a CSV.

    Returns
    -------
    ClassScheme or None
        None where nothing is asked for.
    """
    from leuko.data.reading import own_scheme
    from leuko.scheme import load_scheme

    if classes is None:
        return None
    return own_scheme(dataset, label_column) if classes == "folders" else load_scheme(classes)


def open_dataset(
    place: Path,
    classes: str | None,
    label_column: str,
    ignore: list[str] | None,
    workers: int | None,
    *,
    background: bool = False,
) -> Dataset:
    """Open a data set as a command's options say.

    Parameters
    ----------
    place : Path
        The folder or CSV.
    classes, label_column
        See `chosen_scheme`.
    ignore, workers, background
        See `leuko.data.dataset.Dataset.open`.

    Returns
    -------
    Dataset
    """
    from leuko.data.dataset import Dataset

    return Dataset.open(
        place,
        ignore=tuple(ignore or ()),
        scheme=chosen_scheme(classes, place, label_column),
        label_column=label_column,
        background=background,
        workers=workers,
    )


def now_and_then(talk: Session) -> Callable[[int], None]:
    """Say how far a work is of which only its end shows how long it is.

    Parameters
    ----------
    talk : Session
        Told every 20 seconds.

    Returns
    -------
    callable
        To be called with the number of images answered, as often as one likes.
    """
    begun = spoken = time.monotonic()

    def say(done: int) -> None:
        nonlocal spoken
        now = time.monotonic()
        if now - spoken > EVERY_S:
            spoken = now
            talk.say(f"{done} images answered, {done / (now - begun):.0f} a second.")

    return say


def keep_apart(
    outputs: Mapping[str, Path | None],
    inputs: Iterable[str | os.PathLike[str] | None],
    *,
    model: str | None = None,
) -> None:
    """Refuse an output that would destroy an input or another output, before any is opened.

    Parameters
    ----------
    outputs : mapping of str to Path or None
        What a command is to write, by option.
    inputs : iterable of str, path-like or None
        What it is to read: images as `leuko.runtime.sources.expand` takes them, and other files.
    model : str, optional
        The model that it is to open, as `leuko.load` takes it.

    Raises
    ------
    UsageError
        When two outputs are one file, or one of them is an input, or is named by a list, or is one
        of the images in a folder.
    """
    from leuko.runtime.sources import named_files

    given = {option: path for option, path in outputs.items() if path and not is_stream(path)}
    taken: dict[tuple[int, int] | str, str] = {}
    for option, path in given.items():
        first = taken.setdefault(_place(path), option)
        if first != option:
            raise UsageError(f"{first} and {option} both name {path}; give each a name of its own.")
    # What is not there yet is no input, and need not be looked for.
    standing = {place: option for place, option in taken.items() if isinstance(place, tuple)}
    for argument in (*inputs, *_places_of(model)) if standing else ():
        if argument is None:
            continue
        for file in named_files(argument):
            place = _place(file)
            if isinstance(place, tuple) and place in standing:
                option = standing[place]
                raise UsageError(
                    f"{option} {given[option]} is an input of this command and would be "
                    "overwritten; choose another name."
                )
        for option in standing.values():
            if _is_image_in(given[option], argument):
                raise UsageError(
                    f"{option} {given[option]} is one of the images in {argument} and would be "
                    "overwritten; choose another name."
                )


def try_outputs(*paths: Path | None) -> None:
    """Say before the work that a file could not be written after it; nothing is left behind.

    Parameters
    ----------
    *paths : Path or None
        Files that `leuko.support.artifacts.atomic_write` is to write.

    Raises
    ------
    OutputError
        When a folder stands there, its own folder cannot be written to, or the name is too long.
    """
    for path in paths:
        if path is None or is_stream(path):
            continue
        missing = [place for place in path.absolute().parents if not os.path.lexists(place)]
        try:
            with contextlib.suppress(_TriedError), atomic_write(path):
                with contextlib.suppress(FileNotFoundError):
                    os.stat(path)
                raise _TriedError
        finally:
            for place in missing:
                with contextlib.suppress(OSError):
                    place.rmdir()


class _TriedError(Exception):
    """Ends the writing of a file that is only tried."""


def _place(path: str | os.PathLike[str]) -> tuple[int, int] | str:
    """What all names of one file have in common; of a file that is not there, its real path."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


def _places_of(model: str | None) -> list[str]:
    """Where a bundle lies: at its path, or in a run folder there. One that comes along: nowhere."""
    from leuko.bundle import is_model_path

    if model is None or not is_model_path(model):
        return []
    return [model, os.path.join(model, "bundle")]  # noqa: PTH118 - as it was given


def _is_image_in(path: Path, folder: str | os.PathLike[str]) -> bool:
    """Whether a file that is there is one of those that are read when a folder is given."""
    from leuko.imaging.decode import IMAGE_SUFFIXES

    place = Path(os.path.realpath(os.path.expanduser(folder)))
    tables = (".parquet",) if place.suffix.lower() == ".parquet" else ()
    return (
        path.name.lower().endswith((*IMAGE_SUFFIXES, *tables))
        and path.is_file()
        and place in Path(os.path.realpath(path)).parents
    )
