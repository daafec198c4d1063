"""What a classifier answers: one row for each image, found or rejected."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.artifacts import RESEARCH_USE, atomic_write_text, schema
from leuko.errors import DataError
from leuko.taxonomy import CLASSES

__all__ = ["CSV_COLUMNS", "DECIMALS", "Prediction", "PredictionTable"]

DECIMALS: Final = 6
"""Probabilities are rounded to this many decimals before anything is decided on them."""

CSV_COLUMNS: Final = (
    "path",
    "status",
    "reason",
    "label",
    "confidence",
    *(f"p_{name.lower()}" for name in CLASSES),
    "decision",
    "sha256",
    "model",
)
"""Header of every predictions CSV, in order."""

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
_STATUSES: Final = ("ok", "rejected")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image.

    Attributes
    ----------
    path : str
        As the user gave it.
    status : {"ok", "rejected"}
        Whether the image could be read.
    reason : str
        Why it was rejected, one of `leuko.imaging.REJECT_REASONS`; empty when ok.
    label : str
        One of `CLASSES`; empty when rejected.
    confidence : float
        The label's probability; not-a-number when rejected.
    probabilities : tuple of float
        In class order, 6 decimals; empty when rejected.
    decision : str
        ``class`` when the label stands; empty when rejected.
    sha256 : str
        Digest of the image file; empty when it could not be read.
    model : str
        Digest of the bundle that answered, 12 digits.
    detail : str
        One sentence for a person about a rejection, or about what was done beyond plain decoding,
        such as "first of 3 frames"; not part of the CSV.
    """

    path: str
    status: str
    reason: str = ""
    label: str = ""
    confidence: float = float("nan")
    probabilities: tuple[float, ...] = ()
    decision: str = ""
    sha256: str = ""
    model: str = ""
    detail: str = ""

    @property
    def scores(self) -> dict[str, float]:
        """Probability of each class, by name."""
        return dict(zip(CLASSES, self.probabilities, strict=False))

    @classmethod
    def answered(
        cls, path: str, probabilities: npt.NDArray[np.float64], sha256: str, model: str
    ) -> Prediction:
        """Build the row of an image that was classified.

        Parameters
        ----------
        path : str
            As the user gave it.
        probabilities : (5,) float64
            Already rounded to `DECIMALS`.
        sha256, model : str
            Digests.

        Returns
        -------
        Prediction
            With the most probable class; of equal ones, the first in class order.
        """
        best = int(np.argmax(probabilities))
        values = tuple(float(value) for value in probabilities)
        return cls(
            path=path,
            status="ok",
            label=CLASSES[best],
            confidence=values[best],
            probabilities=values,
            decision="class",
            sha256=sha256,
            model=model,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON.

        Returns
        -------
        dict
            With the columns of the CSV; absent numbers are None.
        """
        answered = self.status == "ok"
        return {
            "path": self.path,
            "status": self.status,
            "reason": self.reason,
            "detail": self.detail,
            "label": self.label,
            "confidence": self.confidence if answered else None,
            "probabilities": self.scores if answered else None,
            "decision": self.decision,
            "sha256": self.sha256,
            "model": self.model,
        }


@dataclass(frozen=True)
class PredictionTable:
    """Answers in input order.

    Attributes
    ----------
    rows : tuple of Prediction
        One for each image that was found.
    """

    rows: tuple[Prediction, ...]

    def __len__(self) -> int:
        """Count the rows, rejected ones included."""
        return len(self.rows)

    @property
    def predicted(self) -> list[Prediction]:
        """Rows that have an answer."""
        return [row for row in self.rows if row.status == "ok"]

    @property
    def rejected(self) -> list[Prediction]:
        """Rows that have none, each with its reason."""
        return [row for row in self.rows if row.status != "ok"]

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(N, 5) float64, one row for each of `predicted`, in class order."""
        values = [row.probabilities for row in self.predicted]
        return np.array(values, dtype=np.float64).reshape(-1, len(CLASSES))

    @property
    def counts(self) -> dict[str, int]:
        """How many images were given each label."""
        labels = [row.label for row in self.predicted]
        return {name: labels.count(name) for name in CLASSES}

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the CSV described by `CSV_COLUMNS`, atomically.

        Cells that a spreadsheet would take for a formula are given a leading apostrophe.

        Parameters
        ----------
        path : path-like
            The file.
        """
        atomic_write_text(Path(path), self.csv_text())

    def csv_text(self) -> str:
        """Give the CSV as text.

        Returns
        -------
        str
            Header and one line a row, each ended by a line feed.
        """
        return csv_line(CSV_COLUMNS) + "".join(csv_line(csv_cells(row)) for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, schema ``leuko.predictions/1``.

        Returns
        -------
        dict
            With the counts and every row.
        """
        return {
            "schema": schema("predictions"),
            "research_use": RESEARCH_USE,
            "found": len(self.rows),
            "predicted": len(self.predicted),
            "rejected": len(self.rejected),
            "counts": self.counts,
            "predictions": [row.to_dict() for row in self.rows],
        }

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str]) -> PredictionTable:
        """Read what `to_csv` wrote.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        PredictionTable
            Equal to the one written, but for the sentences about rejections.

        Raises
        ------
        DataError
            When a column or a cell is missing, a number is none, or a label names no class.
        """
        try:
            with Path(path).open(
                newline="", encoding="utf-8-sig", errors="surrogateescape"
            ) as file:
                reader = csv.DictReader(file)
                missing = set(CSV_COLUMNS) - set(reader.fieldnames or ())
                if missing:
                    raise DataError(f"{path} lacks the columns {', '.join(sorted(missing))}.")
                return cls(tuple(_from_cells(row) for row in reader))
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"{path} cannot be read as predictions: {error}.") from error


def csv_line(cells: Iterable[str]) -> str:
    """One line of a CSV, ended by a line feed.

    Parameters
    ----------
    cells : iterable of str
        Any text; what would break the line is quoted.

    Returns
    -------
    str
        The line.
    """
    # Ended by both, a lone carriage return in a file name is quoted too, as readers need it.
    file = io.StringIO()
    csv.writer(file, lineterminator="\r\n").writerow(cells)
    return file.getvalue().removesuffix("\r\n") + "\n"


def csv_cells(row: Prediction) -> list[str]:
    """Cells of one row, in the order of `CSV_COLUMNS`.

    Parameters
    ----------
    row : Prediction
        The row.

    Returns
    -------
    list of str
        Safe to open in a spreadsheet.
    """
    numbers = [row.confidence, *row.probabilities] if row.status == "ok" else [None] * 6
    return [
        _guard(row.path),
        row.status,
        row.reason,
        row.label,
        *("" if value is None else f"{value:.{DECIMALS}f}" for value in numbers),
        row.decision,
        row.sha256,
        row.model,
    ]


def concatenate(tables: Iterable[PredictionTable]) -> PredictionTable:
    """Join tables in the order given.

    Parameters
    ----------
    tables : iterable of PredictionTable
        Parts.

    Returns
    -------
    PredictionTable
        All rows.
    """
    return PredictionTable(tuple(row for table in tables for row in table.rows))


def _guard(text: str) -> str:
    """Stop a spreadsheet from taking a cell for a formula, in a way that can be undone."""
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA_STARTS) else text


def _unguard(text: str) -> str:
    """Undo `_guard`."""
    quoted = text.startswith("'") and text.lstrip("'").startswith(_FORMULA_STARTS)
    return text[1:] if quoted else text


def _from_cells(cells: dict[str, str]) -> Prediction:
    """Read one row of a CSV."""
    if any(cells[name] is None for name in CSV_COLUMNS) or cells["status"] not in _STATUSES:
        raise ValueError(f"the row of {cells['path']!r} is not complete")
    if cells["status"] != "ok":
        return Prediction(
            path=_unguard(cells["path"]),
            status=cells["status"],
            reason=cells["reason"],
            sha256=cells["sha256"],
            model=cells["model"],
        )
    probabilities = tuple(float(cells[f"p_{name.lower()}"]) for name in CLASSES)
    if cells["label"] not in CLASSES or not all(0 <= value <= 1 for value in probabilities):
        raise ValueError(f"the row of {cells['path']!r} has no class or no probabilities")
    return Prediction(
        path=_unguard(cells["path"]),
        status="ok",
        label=cells["label"],
        confidence=float(cells["confidence"]),
        probabilities=probabilities,
        decision=cells["decision"],
        sha256=cells["sha256"],
        model=cells["model"],
    )
