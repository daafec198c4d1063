"""Rooms that only some installs have; a missing one is one sentence."""

from __future__ import annotations

import importlib
from typing import Any

from leuko.errors import MissingExtraError

__all__ = ["comparing_room", "demo_room", "training_room"]

_PACKAGES = ("keras", "tensorflow", "tf2onnx", "onnx", "h5py", "matplotlib", "sklearn")


def _room(module: str, what: str) -> Any:
    """Import a room whose packages come with the extra ``train``."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        raise MissingExtraError(what, "train", package) from error


def training_room() -> Any:
    """Open ``leuko.training.run``.

    Returns
    -------
    module
        With ``train``.
    """
    return _room("leuko.training.run", "Training")


def importing_room() -> Any:
    """Open ``leuko.training.importing``.

    Returns
    -------
    module
        With ``import_keras``.
    """
    return _room("leuko.training.importing", "Importing a Keras model")


def comparing_room() -> Any:
    """Open ``leuko.experiment.comparing``.

    Returns
    -------
    module
        With ``compare``.
    """
    return _room("leuko.experiment.comparing", "A comparison")


def demo_room() -> Any:
    """Open ``leuko.experiment.demo``.

    Returns
    -------
    module
        With ``run_demo``.
    """
    return _room("leuko.experiment.demo", "The demo")
