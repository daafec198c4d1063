"""Entry point of the ``leuko`` command."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from leuko import __version__
from leuko.artifacts import RESEARCH_USE
from leuko.cli import data, models, predict, training
from leuko.errors import LeukoError

__all__ = ["app", "main"]

_MANY = ("--recipes", "--unseen")

app = typer.Typer(
    name="leuko",
    help="Differential counts of white blood cells from microscope images. " + RESEARCH_USE,
    no_args_is_help=True,
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


predict.register(app)
training.register(app)
models.register(app)
app.add_typer(data.app, name="data")
app.command("balance")(data.balance)


def main() -> None:
    """Run the command line; returns through `SystemExit` with the documented exit codes."""
    # TensorFlow reads this when it is first imported; its start-up remarks help nobody here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _own_process()
    try:
        app(args=_spread(sys.argv[1:]))
    except LeukoError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from here with --resume, where it has one.",
              file=sys.stderr)  # fmt: skip
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader went away, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except MemoryError:
        print("Error: the memory is used up. Use a smaller batch or fewer --workers.",
              file=sys.stderr)  # fmt: skip
        raise SystemExit(1) from None


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
    """Set what only a process of our own may set: OpenCV's threads, Pillow's bomb limit."""
    import cv2

    from leuko.imaging import refuse_bombs

    cv2.setNumThreads(1)
    refuse_bombs()


if __name__ == "__main__":
    main()
