"""How a training is done, apart from what is trained."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RunOptions", "default_cache"]


@dataclass(frozen=True)
class RunOptions:
    """How a training, or each training of a comparison, is done.

    Attributes
    ----------
    weights : str, optional
        ``imagenet``, ``leuko``, ``none`` or a path; replaces the recipe's.
    resume : bool
        Go on where a killed run stood. A finished run is opened.
    allow_seen : bool
        Of a comparison: measure also on sets of which initial weights have seen more than a few
        images.
    workers : int, optional
        Threads for decoding; as many as this process may use when None.
    cache : Path, optional
        For features of frozen backbones; `default_cache` when None.
    save_h5 : bool
        Write ``model.h5`` too.
    tensorboard : bool
        Write TensorBoard's logs too.
    command : str
        The command that was given, for the card and the report.
    """

    weights: str | None = None
    resume: bool = False
    allow_seen: bool = False
    workers: int | None = None
    cache: Path | None = None
    save_h5: bool = False
    tensorboard: bool = False
    command: str = ""


def default_cache() -> Path:
    """Where features of frozen backbones are kept.

    Returns
    -------
    Path
        ``LEUKO_CACHE``, or ``leuko`` in the user's cache folder.
    """
    chosen = os.environ.get("LEUKO_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "leuko"
