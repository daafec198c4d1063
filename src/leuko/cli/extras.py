"""Rooms that only some installs have; a missing one is one sentence."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from leuko.errors import MissingExtraError

__all__ = ["comparing_room", "demo_room", "training_room"]

_PACKAGES = ("keras", "tensorflow", "tf2onnx", "onnx", "h5py", "matplotlib", "sklearn")


def _room(module: str, what: str) -> Any:
    """Import a room whose packages come with the extra ``train``."""
    try:
        with _muted():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        raise MissingExtraError(what, "train", package) from error


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Hold back what TensorFlow's native code prints while it is imported, unless that fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            file.seek(0)
            sys.stderr.write(file.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def training_room() -> Any:
    """Open ``leuko.training.run``.

    Returns
    -------
    module
        With ``train``.
    """
    return _room("leuko.training.run", "Training")


def comparing_room() -> Any:
    """Open ``leuko.workflows.compare``.

    Returns
    -------
    module
        With ``compare``.
    """
    return _room("leuko.workflows.compare", "A comparison")


def demo_room() -> Any:
    """Open ``leuko.workflows.demo``.

    Returns
    -------
    module
        With ``run_demo``.
    """
    return _room("leuko.workflows.demo", "The demo")
