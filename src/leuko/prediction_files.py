"""Predictions on disk: one table of columns writes and reads CSV, Parquet and JSON."""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from leuko import __version__
from leuko.errors import DataError, MissingExtraError
from leuko.prediction import DECIMALS, DECISIONS, SET_ASIDE, Prediction, PredictionTable
from leuko.scheme import (
    DIFFERENTIAL_5,
    ClassScheme,
    known_schemes,
    load_scheme,
    scheme_in,
    scheme_of,
    slug_of,
)
from leuko.support.artifacts import (
    RESEARCH_USE,
    atomic_write,
    atomic_write_text,
    check_schema,
    json_text,
    read_json,
    schema,
)
from leuko.support.files import encoding_of

__all__ = [
    "Column",
    "ParquetPredictions",
    "arrow",
    "columns",
    "csv_cells",
    "csv_line",
    "csv_names",
    "csv_text",
    "guarded",
    "parquet_predictions",
    "read_predictions",
    "to_pandas",
    "unguarded",
    "write_csv",
    "write_parquet",
]

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
_QUOTED: Final = re.compile('["\\r\\n]')
_STATUSES: Final = ("ok", "rejected")
_PROBABILITY: Final = "p_"
_PARQUET: Final = b"PAR1"
"""How every Parquet file begins."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of every predictions file.

    Attributes
    ----------
    name : str
        In the header.
    kind : {"text", "number", "names", "numbers"}
        Text; a number, absent where a row has no answer; and, in Parquet alone, a list of names
        and a table of numbers by name.
    get : callable
        Its value of a row.
    in_csv : bool
        Whether a CSV has it.
    optional : bool
        Whether a file may lack it, as those from before there was one do.
    stored : bool
        Whether it holds the attribute of `Prediction` that it is named after, and nothing else
        depends on it. Others are checked against each other when a row is read.
    """

    name: str
    kind: str
    get: Callable[[Prediction], Any]
    in_csv: bool = True
    optional: bool = False
    stored: bool = False


_SET: Final[Mapping[str, Callable[[Any], Any]]] = {
    "text": lambda cell: cell or "",
    "number": lambda cell: None if cell is None or cell == "" else float(cell),
    "names": tuple,
    "numbers": lambda cell: tuple(cell or ()),
}
"""What a stored attribute becomes of a cell, by the column's kind."""

_GET: Final[Mapping[str, Callable[[Any], Any]]] = {
    "text": lambda value: value,
    "number": lambda value: value,
    "names": list,
    "numbers": lambda value: list(value) or None,
}
"""And the cell of an attribute."""


def _stored(name: str, kind: str, *, in_csv: bool = False, optional: bool = False) -> Column:
    """The column of an attribute of `Prediction` that is written and read as it is."""
    return Column(name, kind, lambda row: _GET[kind](getattr(row, name)), in_csv, optional, True)


def _probability(place: int) -> Callable[[Prediction], float | None]:
    """How the probability of the class in this place is taken from a row."""
    return lambda row: row.probabilities[place] if row.probabilities else None


@functools.cache
def columns(scheme: ClassScheme) -> tuple[Column, ...]:
    """Give the columns of every predictions file of a scheme, in order; those of a CSV first.

    Parameters
    ----------
    scheme : ClassScheme
        Has a column ``p_<slug>`` for each class.

    Returns
    -------
    tuple of Column
    """
    return (
        Column("path", "text", lambda row: row.path),
        Column("status", "text", lambda row: row.status),
        Column("reason", "text", lambda row: row.reason),
        Column("label", "text", lambda row: row.label),
        Column("confidence", "number", lambda row: row.confidence if row.likeliest else None),
        *(
            Column(f"{_PROBABILITY}{slug}", "number", _probability(place))
            for place, slug in enumerate(scheme.slugs)
        ),
        Column("decision", "text", lambda row: row.decision),
        Column("sha256", "text", lambda row: row.sha256),
        Column("model", "text", lambda row: row.model),
        Column("likeliest", "text", lambda row: row.likeliest, optional=True),
        _stored("detail", "text"),
        _stored("preprocessing", "text"),
        _stored("prediction_set", "names"),
        _stored("distance", "number"),
        _stored("quality", "numbers"),
        _stored("limit", "number", optional=True),
    )


@functools.cache
def _csv_columns(scheme: ClassScheme) -> tuple[Column, ...]:
    """Those that a CSV has."""
    return tuple(column for column in columns(scheme) if column.in_csv)


def csv_names(scheme: ClassScheme) -> list[str]:
    """Give the header of a predictions CSV.

    Parameters
    ----------
    scheme : ClassScheme
        Of the answers.

    Returns
    -------
    list of str
        In order.
    """
    return [column.name for column in _csv_columns(scheme)]


def csv_cells(row: Prediction, scheme: ClassScheme) -> list[str]:
    """Cells of one row, in the order of `csv_names`.

    Parameters
    ----------
    row : Prediction
        The row.
    scheme : ClassScheme
        Of the table.

    Returns
    -------
    list of str
        Safe to open in a spreadsheet; probabilities with `DECIMALS` decimals.
    """
    values = [(column.kind, column.get(row)) for column in _csv_columns(scheme)]
    cells = [
        value if kind == "text" else "" if value is None else f"{value:.{DECIMALS}f}"
        for kind, value in values
    ]
    cells[0] = guarded(cells[0])
    return cells


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


def csv_text(table: PredictionTable) -> str:
    """Give a table as CSV.

    Parameters
    ----------
    table : PredictionTable
        Any.

    Returns
    -------
    str
        Header and one line a row, each ended by a line feed. Cells that a spreadsheet would take
        for a formula are given a leading apostrophe.
    """
    lines = (csv_line(csv_cells(row, table.scheme)) for row in table.rows)
    return csv_line(csv_names(table.scheme)) + "".join(lines)


def write_csv(table: PredictionTable, path: str | os.PathLike[str]) -> None:
    """Write a table as CSV, atomically.

    Parameters
    ----------
    table : PredictionTable
        Any.
    path : path-like
        The file.
    """
    atomic_write_text(Path(path), csv_text(table))


def write_parquet(table: PredictionTable, path: str | os.PathLike[str]) -> None:
    """Write a table as Parquet, atomically.

    Parameters
    ----------
    table : PredictionTable
        Any.
    path : path-like
        The file.

    Raises
    ------
    MissingExtraError
        When pyarrow is not installed.
    OutputError
        When it cannot be written.
    """
    models = ", ".join(sorted({row.model for row in table.rows}))
    with parquet_predictions(Path(path), model=models, scheme=table.scheme) as file:
        file.write(table.rows)


def to_pandas(table: PredictionTable) -> Any:
    """Give a table as a pandas frame.

    Parameters
    ----------
    table : PredictionTable
        Any.

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
    every = columns(table.scheme)
    cells = [_parquet_cells(row, every) for row in table.rows]
    return pandas.DataFrame(cells, columns=[column.name for column in every])


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
    scheme : ClassScheme
        Of the answers, for columns and metadata.
    """

    def __init__(self, file: Any, *, model: str, scheme: ClassScheme) -> None:
        pa = arrow()
        self._columns = columns(scheme)
        told = {
            "leuko.schema": schema("predictions"),
            "leuko.version": __version__,
            "leuko.model": model,
            "leuko.scheme": json_text(scheme.to_dict()),
            "leuko.research_use": RESEARCH_USE,
        }
        kinds = {
            "text": pa.string(),
            "number": pa.float64(),
            "names": pa.list_(pa.string()),
            "numbers": pa.map_(pa.string(), pa.float64()),
        }
        self._schema = pa.schema(
            [(column.name, kinds[column.kind]) for column in self._columns], metadata=told
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
        cells = [_parquet_cells(row, self._columns) for row in rows]
        if cells:
            turned = [list(column) for column in zip(*cells, strict=True)]
            self._writer.write_table(pa.table(turned, schema=self._schema))

    def close(self) -> None:
        """Write what Parquet keeps at a file's end; nothing can be read without it."""
        self._writer.close()


@contextlib.contextmanager
def parquet_predictions(
    path: Path, *, model: str, scheme: ClassScheme
) -> Iterator[ParquetPredictions]:
    """Open a predictions file, moved into place when the block ends well.

    Parameters
    ----------
    path : Path
        The file.
    model, scheme
        See `ParquetPredictions`.

    Yields
    ------
    ParquetPredictions
        To write to.
    """
    with atomic_write(path) as file:
        out = ParquetPredictions(file, model=model, scheme=scheme)
        try:
            yield out
        except BaseException:
            # Otherwise the writer would close itself later, into a file that is closed by then.
            with contextlib.suppress(Exception):
                out.close()
            raise
        out.close()


def read_predictions(
    path: str | os.PathLike[str], scheme: ClassScheme | None = None
) -> PredictionTable:
    """Read a CSV, a Parquet file, or a JSON document; its first bytes tell which.

    Files of version 1 are read, too. Parquet and JSON say of which scheme they are; a CSV has the
    names of its columns alone.

    Parameters
    ----------
    path : path-like
        The file.
    scheme : ClassScheme, optional
        Of a CSV; the one of its columns when left out.

    Returns
    -------
    PredictionTable
        Equal to the one written, but for what a CSV has no column for.

    Raises
    ------
    DataError
        When it cannot be read: a column or a cell is missing, a number is none, a class has no
        known name, label and decision are at odds, or the version is a newer one.
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
        return _from_csv(path, scheme)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        # pyarrow's are ValueErrors
        raise DataError(f"{path} cannot be read as predictions: {error}.") from error


def _from_csv(path: str | os.PathLike[str], scheme: ClassScheme | None) -> PredictionTable:
    """Read a CSV."""
    with Path(path).open("rb") as data:  # opened once: it may be a pipe
        encoding = encoding_of(data.peek(2))
        file = io.TextIOWrapper(data, encoding, errors="surrogateescape", newline="")
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or ())
        slugs = tuple(name[len(_PROBABILITY) :] for name in names if name.startswith(_PROBABILITY))
        known = scheme or _known_scheme(slugs)
        # Columns that name no classes at all are those of a file that lacks them.
        needed = _csv_columns(known or load_scheme(DIFFERENTIAL_5))
        own = known is None and len(slugs) > 1
        missing = {
            column.name
            for column in needed
            if not column.optional and not (own and column.name.startswith(_PROBABILITY))
        } - {*names}
        if missing and ";" in "".join(names):
            raise DataError(
                f"{path} is separated by semicolons; predictions are separated by commas."
            )
        if missing:
            raise DataError(f"{path} lacks the columns {', '.join(sorted(missing))}.")
        strange = [slug for slug in slugs if known is not None and slug not in known.slugs]
        if known is not None and strange:
            raise DataError(
                f"{path} has probabilities of {', '.join(strange)}, which {known.name} does not "
                "have."
            )
        lines = list(reader)
        found = known or _own_scheme(slugs, [line.get("likeliest") or "" for line in lines])
        return PredictionTable(tuple(_from_cells(line, found) for line in lines), found)


def _known_scheme(slugs: Sequence[str]) -> ClassScheme | None:
    """The scheme that comes with Leuko and has these columns."""
    every = (load_scheme(name) for name in known_schemes())
    return next((one for one in every if one.slugs == tuple(slugs)), None)


def _own_scheme(slugs: Sequence[str], likeliest: Iterable[str]) -> ClassScheme:
    """A scheme of columns, its names as the rows have them, and otherwise the columns' own."""
    told = {slug_of(name): name for name in {*likeliest} - {""}}
    return scheme_of([told.get(slug, slug.replace("_", " ")) for slug in slugs])


def _from_parquet(path: str | os.PathLike[str]) -> PredictionTable:
    """Read a Parquet file, of which other programs may have dropped what it says of itself."""
    parquet = arrow().parquet
    found = parquet.read_schema(path)
    metadata = found.metadata or {}
    if b"leuko.schema" in metadata:
        told = {"schema": metadata[b"leuko.schema"].decode()}
        check_schema(told, "predictions", str(path))
    slugs = [name[len(_PROBABILITY) :] for name in found.names if name.startswith(_PROBABILITY)]
    if stored := metadata.get(b"leuko.scheme"):
        scheme = ClassScheme.from_dict(json.loads(stored))
    else:
        scheme = _known_scheme(slugs) or _own_scheme(slugs, ())
    wanted = [c.name for c in columns(scheme) if not c.optional or c.name in found.names]
    rows = parquet.read_table(path, columns=wanted).to_pylist()
    return PredictionTable(tuple(_from_values(row, scheme) for row in rows), scheme)


def _from_json(path: str | os.PathLike[str]) -> PredictionTable:
    """Read a JSON document."""
    document = read_json(Path(path), "predictions")
    scheme = scheme_in(document)
    rows = []
    for row in document["predictions"]:
        scores = {
            f"{_PROBABILITY}{slug_of(name)}": value
            for name, value in (row["probabilities"] or {}).items()
        }
        quality = (row["quality"] or {}).items()
        rows.append(_from_values({**row, **scores, "quality": quality}, scheme))
    return PredictionTable(tuple(rows), scheme)


def _parquet_cells(row: Prediction, every: Sequence[Column]) -> list[Any]:
    """Cells of one row; numbers that do not exist are null."""
    return [
        _text(value) if isinstance(value, str) else value
        for value in (column.get(row) for column in every)
    ]


def _text(text: str) -> str:
    """Show bytes of a file name that are no UTF-8 as Python does: Parquet has no place for them."""
    return text.encode("utf-8", "backslashreplace").decode()


def guarded(text: str) -> str:
    """Stop a spreadsheet from taking a cell for a formula, in a way that can be undone.

    Parameters
    ----------
    text : str
        A name that somebody else chose.

    Returns
    -------
    str
        With a leading apostrophe where it needs one.
    """
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA_STARTS) else text


def unguarded(text: str) -> str:
    """Undo `guarded`.

    Parameters
    ----------
    text : str
        A cell of a CSV.

    Returns
    -------
    str
        As it was.
    """
    quoted = text.startswith("'") and text.lstrip("'").startswith(_FORMULA_STARTS)
    return text[1:] if quoted else text


def _from_values(values: Mapping[str, Any], scheme: ClassScheme) -> Prediction:
    """Make a row of numbers and text: what a CSV has too, and what it has no column for."""
    names = [column.name for column in _csv_columns(scheme) if column.name in values]
    words = {name: "" if values[name] is None else str(values[name]) for name in names}
    row = _from_cells({**words, "path": guarded(words["path"])}, scheme)
    return replace(row, **_attributes(values, columns(scheme)))


def _attributes(values: Mapping[str, Any], every: Iterable[Column]) -> dict[str, Any]:
    """Attributes of a row that are stored as they are, by name."""
    return {
        column.name: _SET[column.kind](values[column.name])
        for column in every
        if column.stored and not (column.optional and column.name not in values)
    }


def _from_cells(cells: Mapping[str, str], scheme: ClassScheme) -> Prediction:
    """Read one row of a CSV; without the column ``likeliest`` it is of version 1."""
    name = cells["path"]
    lacking = any(cells.get(column.name, "") is None for column in _csv_columns(scheme))
    if lacking or cells["status"] not in _STATUSES:
        raise ValueError(f"the row of {name!r} is not complete")
    row = Prediction(
        path=unguarded(name),
        status=cells["status"],
        reason=cells["reason"],
        sha256=cells["sha256"],
        model=cells["model"],
        scheme=scheme,
        **_attributes(cells, _csv_columns(scheme)),
    )
    if row.status != "ok":
        return row
    likeliest, decision = cells.get("likeliest", cells["label"]), cells["decision"]
    if decision == SET_ASIDE and not (likeliest or cells["label"]):
        return replace(row, decision=decision)
    probabilities = tuple(float(cells[f"{_PROBABILITY}{slug}"]) for slug in scheme.slugs)
    if likeliest not in scheme.names or not all(0 <= value <= 1 for value in probabilities):
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
