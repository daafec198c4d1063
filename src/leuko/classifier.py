"""What evaluation, counting and every door ask of a model that is ready to answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from leuko.prediction import Prediction
from leuko.scheme import ClassScheme
from leuko.source import Source

__all__ = ["Classifier"]


class Classifier(Protocol):
    """Something that names the classes of cells; `leuko.load` opens one."""

    @property
    def name(self) -> str:
        """Short name."""
        ...

    @property
    def digest(self) -> str:
        """Digest of all that decides its answers, 64 hexadecimal digits."""
        ...

    @property
    def scheme(self) -> ClassScheme:
        """Classes of its answers."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What is known of how it was made; see `leuko.bundle.ModelBundle`."""
        ...

    @property
    def accepts(self) -> bool:
        """Whether it accepts any answer: one that was never calibrated knows no threshold."""
        ...

    @property
    def threads(self) -> int:
        """How many pictures it works on at the same time."""
        ...

    def stream(self, sources: Iterable[Source]) -> Iterator[Prediction]:
        """Answer sources one after the other, holding only a few at a time.

        Parameters
        ----------
        sources : iterable of Source
            Taken as they are needed.

        Yields
        ------
        Prediction
            In input order, each by itself: see `leuko.runtime.repeats.mark_repeats`.
        """
        ...

    def predict_views(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Answer pictures that are cut and resized already.

        Parameters
        ----------
        views : (N, V, h, w, 3) uint8, RGB, or (N, h, w, 3)
            V views of each picture, or one.

        Returns
        -------
        (N, C) float64
            Probabilities in class order, calibrated, rounded to 6 decimals.
        """
        ...
