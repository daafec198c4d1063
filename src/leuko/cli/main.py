"""Entry point of the ``leuko`` command."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from leuko import __version__
from leuko.cli import adapt, count, data, export, field, models, predict, training
from leuko.cli.common import printable, take_late_error
from leuko.errors import LeukoError
from leuko.support.artifacts import RESEARCH_USE
from leuko.support.quiet import silence, throw_away_settings

__all__ = ["app", "main"]

_MANY = ("--recipes", "--unseen")
_GO_ON = ("balance", "data draw", "data shrink", "demo")
_RESUME = ("train", "compare", "field")

app = typer.Typer(
    name="leuko",
    help="Differential counts of white blood cells from microscope images. " + RESEARCH_USE,
    no_args_is_help=True,
    epilog="Each option may also be given by an environment variable, LEUKO_<NAME>.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        print(f"leuko {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Hold the options of the command itself."""


for command in (predict.predict, predict.evaluate, count.count, field.field, adapt.adapt,
                training.train, training.compare, training.demo, models.import_model,
                export.export, data.balance):  # fmt: skip
    app.command()(command)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line; returns through `SystemExit` with the documented exit codes."""
    # TensorFlow reads this when it is first imported; its start-up remarks help nobody here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    silence()
    throw_away_settings()
    try:
        _own_process()
        try:
            _command()(args=_spread(sys.argv[1:]), prog_name="leuko")
        except SystemExit:
            sys.stdout.flush()  # here a full disk is a sentence
            raise
    except LeukoError as error:
        _say_error(error)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        _say_interrupted()
        raise SystemExit(130) from None
    except SystemExit as stop:
        if stop.code == 130:  # Typer's answer to Ctrl-C
            _say_interrupted()
        elif late := take_late_error():
            _say_error(late)
            raise SystemExit(late.exit_code) from None
        raise
    except BrokenPipeError:
        raise SystemExit(1) from None  # the reader went away, as `head` does
    except MemoryError:
        print("Error: the memory is used up. Use a smaller batch or fewer --workers.",
              file=sys.stderr)  # fmt: skip
        raise SystemExit(1) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"Error: {printable(f'{where}{error.strerror or error}')}.", file=sys.stderr)
        raise SystemExit(1) from None


def _command() -> Any:
    """Make the command, in which every option has its environment variable, ``LEUKO_<NAME>``."""
    root = typer.main.get_command(app)
    waiting: list[Any] = [root]
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        for option in command.params:
            if option.param_type_name == "option" and not (option.envvar or option.is_eager):
                name = max(option.opts, key=len).lstrip("-").replace("-", "_")
                option.envvar, option.show_envvar = f"LEUKO_{name.upper()}", False
    return root


def _say_error(error: LeukoError) -> None:
    """Print what was wrong, as one sentence or two."""
    print(f"Error: {printable(str(error))}", file=sys.stderr)


def _say_interrupted() -> None:
    """Tell how to go on with the command that was typed."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    command = " ".join(words[:2] if words[:1] == ["data"] else words[:1])
    if command in _GO_ON:
        told = "The same command goes on from here."
    elif command in _RESUME:
        told = "The same command with --resume goes on from here."
    elif command == "predict":
        told = (
            "A file of answers appears whole or not at all. For a long run give --engine processes "
            "and --out FILE: it keeps what is finished, and goes on with --resume."
        )
    else:
        told = "A file of results appears whole or not at all; give the same command again."
    print(f"Interrupted. {told}", file=sys.stderr)


def _spread(arguments: list[str]) -> list[str]:
    """Let several values follow ``--recipes`` and ``--unseen``: repeat the option for each."""
    spread: list[str] = []
    current = ""
    for argument in arguments:
        if argument in _MANY:
            current = argument
        elif argument.startswith("-") or not current:
            current = ""
            spread.append(argument)
        else:
            spread += [current, argument]
    return spread


def _own_process() -> None:
    """Set what only a process of our own may set: streams, threads, memory, Pillow's warnings."""
    import io

    import cv2

    from leuko.imaging.decode import refuse_bombs
    from leuko.support.memory import keep_freed_memory

    # A file name is bytes, and not every terminal can show every letter: neither stops a run.
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    cv2.setNumThreads(1)
    refuse_bombs()
    keep_freed_memory()


if __name__ == "__main__":
    main()
