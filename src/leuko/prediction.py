"""What a classifier answers: one row for each image, found or rejected."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko import __version__
from leuko.artifacts import (
    RESEARCH_USE,
    atomic_write,
    atomic_write_text,
    check_schema,
    read_json,
    schema,
)
from leuko.errors import DataError, MissingExtraError
from leuko.files import encoding_of
from leuko.taxonomy import CLASSES

__all__ = [
    "CSV_COLUMNS",
    "DECIMALS",
    "DECISIONS",
    "PARQUET_COLUMNS",
    "ParquetPredictions",
    "Prediction",
    "PredictionTable",
    "parquet_predictions",
]

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
    "likeliest",
)
"""Header of every predictions CSV, in order."""

DECISIONS: Final = ("class", "unsure", "not-a-cell", "unlike-training", "duplicate")
"""What may be decided on an answer; only with ``class`` is it accepted and has a label."""

PARQUET_COLUMNS: Final = (
    *CSV_COLUMNS,
    "detail",
    "preprocessing",
    "prediction_set",
    "distance",
    "quality",
    "limit",
)
"""Columns of every predictions file: those of the CSV first, in the same order."""

_NUMBERS: Final = frozenset(
    name for name in CSV_COLUMNS if name == "confidence" or name.startswith("p_")
)

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
_QUOTED: Final = re.compile('["\\r\\n]')
_STATUSES: Final = ("ok", "rejected")

_LATER: Final = frozenset({"likeliest", "limit"})
"""Columns that files of version 1 lack; there ``label`` is the likeliest class."""

_PARQUET: Final = b"PAR1"
"""How every Parquet file begins."""


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
        Why it was rejected, one of `leuko.imaging.REJECT_REASONS`; or why it is not accepted, one
        of `leuko.runtime.trust.REASONS`; empty when it is.
    likeliest : str
        The most probable of `CLASSES`, whatever is decided; empty when rejected.
    confidence : float
        Its probability; not-a-number when rejected.
    probabilities : tuple of float
        In class order, calibrated where the bundle has a calibration, 6 decimals; empty when
        rejected.
    decision : str
        One of `DECISIONS`: ``class`` when it is accepted; empty when rejected.
    sha256 : str
        Digest of the image file; empty when it could not be read.
    model : str
        Digest of the bundle that answered, 12 digits.
    detail : str
        One sentence for a person about a rejection, or about what was done beyond plain decoding,
        such as "first of 3 frames"; not part of the CSV.
    preprocessing : str
        Digest of how the picture became the network's input, 12 digits; not part of the CSV, nor
        are the following.
    prediction_set : tuple of str
        Classes that the true one is among, with the coverage that the bundle states; empty where
        it states none.
    distance : float or None
        How far the picture is from those that the bundle knows; see
        `leuko.runtime.trust.feature_distances`.
    quality : tuple of (str, float)
        Figures of the picture by name; see `leuko.runtime.quality.Quality`.
    limit : float or None
        The bundle's threshold that the answer fails, by its reason; None where there is none.
    fingerprint : str
        Of the picture, in base 64, until `leuko.runtime.repeats.mark_repeats` has used it; see
        `leuko.data.alike.fingerprint`. In no file.
    """

    path: str
    status: str
    reason: str = ""
    likeliest: str = ""
    confidence: float = float("nan")
    probabilities: tuple[float, ...] = ()
    decision: str = ""
    sha256: str = ""
    model: str = ""
    detail: str = ""
    preprocessing: str = ""
    prediction_set: tuple[str, ...] = ()
    distance: float | None = None
    quality: tuple[tuple[str, float], ...] = ()
    limit: float | None = None
    fingerprint: str = field(default="", repr=False, compare=False)

    @property
    def label(self) -> str:
        """The likeliest class where it is accepted, and nothing anywhere else."""
        return self.likeliest if self.decision == "class" else ""

    @property
    def outcome(self) -> tuple[str, str]:
        """What became of the image, for a tally: ``rejected`` or the decision, and why.

        A reason in words of its own, which may name another image, is left out.
        """
        what = self.decision if self.status == "ok" else "rejected"
        return what, "" if " " in self.reason else self.reason

    @property
    def scores(self) -> dict[str, float]:
        """Probability of each class, by name."""
        return dict(zip(CLASSES, self.probabilities, strict=False))

    @classmethod
    def answered(
        cls,
        path: str,
        probabilities: npt.NDArray[np.float64],
        sha256: str,
        model: str,
        *,
        decision: str = "class",
        reason: str = "",
        detail: str = "",
        preprocessing: str = "",
        prediction_set: tuple[str, ...] = (),
        distance: float | None = None,
        quality: tuple[tuple[str, float], ...] = (),
        limit: float | None = None,
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
        decision, reason, detail, preprocessing, prediction_set, distance, quality, limit
            See the attributes.

        Returns
        -------
        Prediction
            With the likeliest class; of equal ones, the first in class order.
        """
        best = int(np.argmax(probabilities))
        values = tuple(probabilities.tolist())
        return cls(
            path=path,
            status="ok",
            likeliest=CLASSES[best],
            confidence=values[best],
            probabilities=values,
            decision=decision,
            reason=reason,
            sha256=sha256,
            model=model,
            detail=detail,
            preprocessing=preprocessing,
            prediction_set=prediction_set,
            distance=distance,
            quality=quality,
            limit=limit,
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
            "likeliest": self.likeliest,
            "confidence": self.confidence if answered else None,
            "probabilities": self.scores if answered else None,
            "decision": self.decision,
            "sha256": self.sha256,
            "model": self.model,
            "preprocessing": self.preprocessing,
            "prediction_set": list(self.prediction_set),
            "distance": self.distance,
            "quality": dict(self.quality) or None,
            "limit": self.limit,
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
    def labels(self) -> dict[str, int]:
        """How many images of each class were accepted: what may be counted."""
        labels = [row.label for row in self.rows]
        return {name: labels.count(name) for name in CLASSES}

    @property
    def likeliest(self) -> dict[str, int]:
        """How many images each class is the likeliest of, whatever is decided on them."""
        classes = [row.likeliest for row in self.rows]
        return {name: classes.count(name) for name in CLASSES}

    @property
    def outcomes(self) -> Counter[tuple[str, str]]:
        """How many images came to each `Prediction.outcome`."""
        return Counter(row.outcome for row in self.rows)

    @property
    def decisions(self) -> dict[str, int]:
        """How many images got each of `DECISIONS`."""
        taken = [row.decision for row in self.predicted]
        return {name: taken.count(name) for name in DECISIONS}

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the columns of `PARQUET_COLUMNS`, atomically.

        Parameters
        ----------
        path : path-like
            Where to.

        Raises
        ------
        MissingExtraError
            When pyarrow is not installed.
        OutputError
            When it cannot be written.
        """
        models = sorted({row.model for row in self.rows})
        with parquet_predictions(Path(path), model=", ".join(models)) as file:
            file.write(self.rows)

    def to_pandas(self) -> Any:
        """Give the columns of `PARQUET_COLUMNS` as a pandas frame.

        Returns
        -------
        pandas.DataFrame
            One line a row; numbers of rejected rows are missing.

        Raises
        ------
        MissingExtraError
            When pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ModuleNotFoundError as error:
            raise MissingExtraError("A pandas frame", "ray", "pandas") from error
        cells = [_parquet_cells(row) for row in self.rows]
        return pandas.DataFrame(cells, columns=list(PARQUET_COLUMNS))

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
        """Plain values for JSON, schema ``leuko.predictions/2``.

        Returns
        -------
        dict
            With the counts and every row.
        """
        reasons: Counter[str] = Counter()
        for (_, reason), count in self.outcomes.items():
            reasons[reason] += count
        del reasons[""]
        return {
            "schema": schema("predictions"),
            "research_use": RESEARCH_USE,
            "version": __version__,
            "found": len(self.rows),
            "predicted": len(self.predicted),
            "rejected": len(self.rejected),
            "decisions": self.decisions,
            "reasons": dict(sorted(reasons.items())),
            "labels": self.labels,
            "likeliest": self.likeliest,
            "predictions": [row.to_dict() for row in self.rows],
        }

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> PredictionTable:
        """Read a CSV, a Parquet file, or a JSON document; its first bytes tell which.

        Files of version 1 are read, too.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        PredictionTable
            Equal to the one written, but for what a CSV has no column for.

        Raises
        ------
        DataError
            When it cannot be read as predictions, see `from_csv`, or is of a newer version.
        MissingExtraError
            When it is Parquet and pyarrow is not installed.
        """
        start = b""
        try:
            # What was read from a pipe is gone; and Parquet is read from its end.
            if Path(path).is_file():
                with Path(path).open("rb") as file:
                    start = file.read(len(_PARQUET))
            if start.startswith(b"{"):
                return _from_json(path)
            if start == _PARQUET:
                return _from_parquet(path)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            # pyarrow's are ValueErrors
            raise DataError(f"{path} cannot be read as predictions: {error}.") from error
        return cls.from_csv(path)

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
            Equal to the one written, but for what has no column.

        Raises
        ------
        DataError
            When a column or a cell is missing, a number is none, a class has no known name, or
            label and decision are at odds.
        """
        try:
            with Path(path).open("rb") as data:  # opened once: it may be a pipe
                encoding = encoding_of(data.peek(2))
                file = io.TextIOWrapper(data, encoding, errors="surrogateescape", newline="")
                reader = csv.DictReader(file)
                missing = {*CSV_COLUMNS} - _LATER - {*(reader.fieldnames or ())}
                if missing and ";" in "".join(reader.fieldnames or ()):
                    raise DataError(
                        f"{path} is separated by semicolons; predictions are separated by commas."
                    )
                if missing:
                    raise DataError(f"{path} lacks the columns {', '.join(sorted(missing))}.")
                return cls(tuple(_from_cells(row) for row in reader))
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"{path} cannot be read as predictions: {error}.") from error


def arrow() -> Any:
    """Import pyarrow with its Parquet part.

    Returns
    -------
    module
        ``pyarrow``.

    Raises
    ------
    MissingExtraError
        When it is not installed.
    """
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise MissingExtraError("Parquet", "parquet", "pyarrow") from error


class ParquetPredictions:
    """A predictions file that is written a part at a time.

    Parameters
    ----------
    file : binary file
        Open for writing.
    model : str
        Digest of the bundle, for the file's metadata.
    """

    def __init__(self, file: Any, *, model: str) -> None:
        pa = arrow()
        told = {
            "leuko.schema": schema("predictions"),
            "leuko.version": __version__,
            "leuko.model": model,
            "leuko.research_use": RESEARCH_USE,
        }
        other = {
            "prediction_set": pa.list_(pa.string()),
            "distance": pa.float64(),
            "quality": pa.map_(pa.string(), pa.float64()),
            "limit": pa.float64(),
        }
        kinds = {name: pa.float64() for name in _NUMBERS} | other
        self._schema = pa.schema(
            [(name, kinds.get(name, pa.string())) for name in PARQUET_COLUMNS], metadata=told
        )
        self._writer = pa.parquet.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, rows: Iterable[Prediction]) -> None:
        """Add rows, as one row group.

        Parameters
        ----------
        rows : iterable of Prediction
            In order.
        """
        pa = arrow()
        cells = [_parquet_cells(row) for row in rows]
        if cells:
            columns = [list(column) for column in zip(*cells, strict=True)]
            self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        """Write what Parquet keeps at a file's end; nothing can be read without it."""
        self._writer.close()


@contextlib.contextmanager
def parquet_predictions(path: Path, *, model: str) -> Iterator[ParquetPredictions]:
    """Open a predictions file, moved into place when the block ends well.

    Parameters
    ----------
    path : Path
        The file.
    model : str
        See `ParquetPredictions`.

    Yields
    ------
    ParquetPredictions
        To write to.
    """
    with atomic_write(path) as file:
        out = ParquetPredictions(file, model=model)
        try:
            yield out
        except BaseException:
            # Otherwise the writer would close itself later, into a file that is closed by then.
            with contextlib.suppress(Exception):
                out.close()
            raise
        out.close()


def _parquet_cells(row: Prediction) -> list[Any]:
    """Cells of one row, in the order of `PARQUET_COLUMNS`; numbers that do not exist are null."""
    answered = row.status == "ok"
    numbers = [row.confidence, *row.probabilities] if answered else [None] * len(_NUMBERS)
    return [
        _text(row.path),
        row.status,
        _text(row.reason),
        row.label,
        *numbers,
        row.decision,
        row.sha256,
        row.model,
        row.likeliest,
        _text(row.detail),
        row.preprocessing,
        list(row.prediction_set),
        row.distance,
        list(row.quality) or None,
        row.limit,
    ]


def _text(text: str) -> str:
    """Show bytes of a file name that are no UTF-8 as Python does: Parquet has no place for them."""
    return text.encode("utf-8", "backslashreplace").decode()


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
    texts = list(cells)
    line = ",".join(texts)
    if line.count(",") == len(texts) - 1 > 0 and _QUOTED.search(line) is None:
        return line + "\n"
    # Ended by both, a lone carriage return in a file name is quoted too, as readers need it.
    file = io.StringIO()
    csv.writer(file, lineterminator="\r\n").writerow(texts)
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
        row.likeliest,
    ]


def _guard(text: str) -> str:
    """Stop a spreadsheet from taking a cell for a formula, in a way that can be undone."""
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA_STARTS) else text


def _unguard(text: str) -> str:
    """Undo `_guard`."""
    quoted = text.startswith("'") and text.lstrip("'").startswith(_FORMULA_STARTS)
    return text[1:] if quoted else text


def _from_parquet(path: str | os.PathLike[str]) -> PredictionTable:
    """Read a Parquet file, of which other programs may have dropped what it says of itself."""
    parquet = arrow().parquet
    known = parquet.read_schema(path)
    told = (known.metadata or {}).get(b"leuko.schema")
    if told is not None:
        check_schema({"schema": told.decode()}, "predictions", str(path))
    columns = [name for name in PARQUET_COLUMNS if name not in _LATER or name in known.names]
    rows = parquet.read_table(path, columns=columns).to_pylist()
    return PredictionTable(tuple(_from_values(row) for row in rows))


def _from_json(path: str | os.PathLike[str]) -> PredictionTable:
    """Read a JSON document."""
    document = read_json(Path(path), "predictions")
    rows = []
    for row in document["predictions"]:
        scores = {
            f"p_{name.lower()}": value for name, value in (row["probabilities"] or {}).items()
        }
        quality = (row["quality"] or {}).items()
        rows.append(_from_values({**row, **scores, "quality": quality}))
    return PredictionTable(tuple(rows))


def _from_values(values: Mapping[str, Any]) -> Prediction:
    """Make a row of numbers and text: what a CSV has too, and what it has no column for."""
    known = [name for name in CSV_COLUMNS if name in values]
    words = {name: "" if values[name] is None else str(values[name]) for name in known}
    return replace(
        _from_cells({**words, "path": _guard(words["path"])}),
        detail=values["detail"],
        preprocessing=values["preprocessing"],
        prediction_set=tuple(values["prediction_set"]),
        distance=values["distance"],
        quality=tuple(values["quality"] or ()),
        limit=values.get("limit"),
    )


def _from_cells(cells: Mapping[str, str]) -> Prediction:
    """Read one row of a CSV; without the column ``likeliest`` it is of version 1."""
    name = cells["path"]
    if any(cells.get(one, "") is None for one in CSV_COLUMNS) or cells["status"] not in _STATUSES:
        raise ValueError(f"the row of {name!r} is not complete")
    row = Prediction(
        path=_unguard(name),
        status=cells["status"],
        reason=cells["reason"],
        sha256=cells["sha256"],
        model=cells["model"],
    )
    if row.status != "ok":
        return row
    probabilities = tuple(float(cells[f"p_{name.lower()}"]) for name in CLASSES)
    likeliest, decision = cells.get("likeliest", cells["label"]), cells["decision"]
    if likeliest not in CLASSES or not all(0 <= value <= 1 for value in probabilities):
        raise ValueError(f"the row of {name!r} has no class or no probabilities")
    if decision not in DECISIONS:
        raise ValueError(
            f"the row of {name!r} has the decision {decision!r}, which is none of "
            f"{', '.join(DECISIONS)}"
        )
    row = replace(
        row,
        likeliest=likeliest,
        confidence=float(cells["confidence"]),
        probabilities=probabilities,
        decision=decision,
    )
    if "likeliest" in cells and cells["label"] != row.label:
        raise ValueError(
            f"the row of {name!r} has the label {cells['label']!r}, but the decision {decision!r} "
            f"and the likeliest class {likeliest!r}"
        )
    return row
