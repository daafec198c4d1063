"""How a long piece of work tells somebody where it stands, or nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

__all__ = ["SILENT", "Reporter"]


def _nobody(*_: object) -> None:
    """Hear nothing."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Somebody to be told things, from the calling thread.

    Attributes
    ----------
    progress : callable
        Called with the name of a stage, how much of it is done, and how much there is.
    say : callable
        Called with a sentence that a person should know.
    """

    progress: Callable[[str, int, int], None] = _nobody
    say: Callable[[str], None] = _nobody

    def within(self, whole: str) -> Reporter:
        """Name stages as parts of a larger piece of work.

        Parameters
        ----------
        whole : str
            Put before each stage.

        Returns
        -------
        Reporter
            Says sentences as this one does.
        """
        return replace(
            self,
            progress=lambda stage, done, total: self.progress(f"{whole}: {stage}", done, total),
        )


SILENT = Reporter()
"""Tells nobody."""
