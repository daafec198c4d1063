"""A cell is counted once, in however many files it lies."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from leuko.data.alike import Fingerprints
from leuko.prediction import Prediction

__all__ = ["DUPLICATE", "Repeats", "mark_repeats"]

DUPLICATE: Final = "duplicate"
"""Decision on an answer whose picture shows the same cell as an earlier one."""


class Repeats:
    """Answers seen so far, to know the next that shows one of their cells.

    The same bytes, or the same picture smaller, recompressed, turned by a right angle or mirrored:
    see `leuko.data.alike`. About a kilobyte is kept of every picture.
    """

    def __init__(self) -> None:
        self._seen = Fingerprints()
        self._digests: dict[str, int] = {}
        self._paths: list[str] = []

    def mark(self, row: Prediction) -> Prediction:
        """Decide ``duplicate`` on an answer where an earlier one shows the same cell.

        Parameters
        ----------
        row : Prediction
            The next in input order.

        Returns
        -------
        Prediction
            With its probabilities, without its fingerprint.
        """
        print_ = base64.b64decode(row.fingerprint)
        row = replace(row, fingerprint="")
        if row.status != "ok":
            return row
        first = self._digests.get(row.sha256)
        if first is None:
            first = self._seen.find(print_)
        if first is None:
            first = len(self._paths)
            self._paths.append(row.path)
            self._seen.add(print_, first)
        else:
            row = replace(row, decision=DUPLICATE, reason=f"same cell as {self._paths[first]}")
        if row.sha256:
            self._digests[row.sha256] = first
        return row


def mark_repeats(rows: Iterable[Prediction]) -> Iterator[Prediction]:
    """See `Repeats`.

    Parameters
    ----------
    rows : iterable of Prediction
        In input order, as `leuko.runtime.classifier.OnnxClassifier.stream` gives them.

    Returns
    -------
    iterator of Prediction
        Each row; the first of each cell with its own decision.
    """
    return map(Repeats().mark, rows)
