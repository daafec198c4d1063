"""Nothing leaves the machine: packages that Leuko starts make no reports and leave no files.

Each package reads its variables once, when it is imported, and so do the processes that it starts.
A variable that is set already is the user's choice and stays as it is.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["keras_home", "silence", "throw_away_settings"]

_SILENCE: Final = {
    # ONNX Runtime's reports begin with its import: its own function to end them comes too late.
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def silence() -> None:
    """Set the variables that keep ONNX Runtime and Ray from reporting to their makers.

    Called before each import of one of them. In a program that imported ONNX Runtime before it
    called Leuko, the variable is that program's to set.
    """
    for name, value in _SILENCE.items():
        _choose(name, value)


def throw_away_settings() -> None:
    """Keep Matplotlib's and Keras's files out of the user's home; only for a process of our own.

    Matplotlib writes its list of fonts into a folder that goes with this process, made when it is
    needed. Keras writes its settings nowhere; those that the user has are read as ever.
    """
    with contextlib.suppress(OSError):  # no folder for temporary files: Matplotlib copes
        folder = Path(tempfile.gettempdir()) / f"leuko-{secrets.token_hex(8)}"
        if _choose("MPLCONFIGDIR", str(folder)):
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # A home that is not there, or closed to this user, is no error either.
    if not os.path.isfile(os.path.expanduser("~/.keras/keras.json")):  # noqa: PTH113
        _choose("KERAS_HOME", os.devnull)


def keras_home() -> Path:
    """Where Keras keeps the weights that were fetched.

    Returns
    -------
    Path
        ``KERAS_HOME`` where the user set it, or ``.keras`` in the user's home.
    """
    chosen = os.environ.get("KERAS_HOME")
    return Path.home() / ".keras" if chosen in (None, "", os.devnull) else Path(chosen)


def _choose(name: str, value: str) -> bool:
    """Set a variable where the user has not; whether it was set."""
    if os.environ.get(name):
        return False
    os.environ[name] = value
    return True
