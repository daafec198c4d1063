"""Answers added up as they come, each image once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import numpy as np

from leuko.errors import DataError
from leuko.prediction import Prediction, PredictionTable
from leuko.scheme import DIFFERENTIAL_5, ClassScheme, load_scheme

__all__ = ["Tally", "answers_of"]

_ACCEPTED: Final = "class"
_OPEN: Final = ("unsure", "unlike-training")
"""Decisions on cells whose answer is not accepted."""

_REPEATED: Final = "duplicate"


class Tally:
    """Answers added up as they come, each image once.

    Memory grows by a digest, 32 bytes and its place in a set, for each image; rows are not kept.

    Parameters
    ----------
    scheme : ClassScheme, optional
        Of the answers; a routine differential's by default.

    Attributes
    ----------
    found : int
        Rows added.
    repeated : int
        Rows that have an answer and show the same cell as an earlier one, by decision or digest:
        left out.
    left_out : Counter of str
        The other rows that are not counted, as they show no cell or were set aside, by decision.
    rejected : Counter of str
        Rows that have none, by reason.
    models : set of str
        Digests of the bundles that answered, 12 digits.
    """

    def __init__(self, scheme: ClassScheme | None = None) -> None:
        self.scheme = scheme or load_scheme(DIFFERENTIAL_5)
        self.found = 0
        self.repeated = 0
        self.left_out: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.models: set[str] = set()
        self._counts = {one: [0] * len(self.scheme) for one in (True, False)}
        self._images: set[bytes] = set()

    @classmethod
    def of(cls, table: PredictionTable | Iterable[Prediction]) -> Tally:
        """Add up a whole table.

        Parameters
        ----------
        table : PredictionTable or iterable of Prediction
            Rows; those without a table are of a routine differential.

        Returns
        -------
        Tally
        """
        tally = cls(table.scheme if isinstance(table, PredictionTable) else None)
        for row in table.rows if isinstance(table, PredictionTable) else table:
            tally.add(row)
        return tally

    def add(self, row: Prediction) -> None:
        """Add one row.

        Parameters
        ----------
        row : Prediction
            Of any status and decision.

        Raises
        ------
        DataError
            When its answer is among other classes than the tally's.
        """
        self.found += 1
        if row.model:
            self.models.add(row.model)
        if row.status != "ok":
            self.rejected[row.reason] += 1
            return
        _same_classes(row.scheme, self.scheme, f"The answer to {row.path}")
        if row.decision == _REPEATED or (row.sha256 and self._known(row.sha256)):
            self.repeated += 1
        elif row.decision in (_ACCEPTED, *_OPEN):
            self._counts[row.decision == _ACCEPTED][int(np.argmax(row.probabilities))] += 1
        else:
            self.left_out[row.decision] += 1

    def _known(self, sha256: str) -> bool:
        """Whether an image came before; it is known from now on."""
        try:
            digest = bytes.fromhex(sha256)
        except ValueError:  # somebody's own name for an image serves as well
            digest = sha256.encode("utf-8", "surrogateescape")
        before = len(self._images)
        self._images.add(digest)
        return len(self._images) == before

    @property
    def accepted(self) -> tuple[int, ...]:
        """Cells whose answer is accepted, by class, in class order."""
        return tuple(self._counts[True])

    @property
    def others(self) -> tuple[int, ...]:
        """Cells whose answer is not accepted, by likeliest class, in class order."""
        return tuple(self._counts[False])

    @property
    def total(self) -> int:
        """Cells, accepted or not."""
        return sum(self.accepted) + sum(self.others)


def _same_classes(theirs: ClassScheme, ours: ClassScheme, what: str) -> None:
    """Refuse answers among other classes."""
    if theirs is not ours and theirs.names != ours.names:
        raise DataError(
            f"{what} is among the classes {', '.join(theirs.names)}; expected "
            f"{', '.join(ours.names)}."
        )


def answers_of(tally: Tally, name: str, digest: str, scheme: ClassScheme) -> None:
    """Refuse to count one model's answers with the errors of another.

    Parameters
    ----------
    tally : Tally
        The answers.
    name, digest : str
        Of the bundle whose validation goes into the limits.
    scheme : ClassScheme
        Of that bundle.

    Raises
    ------
    DataError
        When another model answered, or one of other classes; rows that tell no model pass.
    """
    others = sorted(tally.models - {digest[:12]})
    if others:
        raise DataError(
            f"These predictions were made by the model {', '.join(others)}, not by {name} "
            f"({digest[:12]}), whose errors would stand in the limits. Name their model with "
            "--model."
        )
    _same_classes(tally.scheme, scheme, f"What is counted with the model {name}")
