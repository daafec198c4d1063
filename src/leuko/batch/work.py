"""The file of predictions that a batch ends with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from leuko.bundle import ModelBundle
from leuko.errors import OutputError, UsageError
from leuko.prediction import Prediction
from leuko.prediction_files import csv_cells, csv_line, csv_names
from leuko.support.artifacts import atomic_write

__all__ = ["SUFFIXES", "check_output", "write_predictions"]

SUFFIXES: Final = (".csv", ".parquet")


def check_output(out: Path) -> None:
    """Refuse an output that cannot be written, before hours of work.

    Parameters
    ----------
    out : Path
        The predictions file.

    Raises
    ------
    UsageError
        When its name ends in neither ``.csv`` nor ``.parquet``, or it is no ordinary file.
    OutputError
        When a folder stands there.
    MissingExtraError
        When it is Parquet and pyarrow is not installed.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"The output must end in .csv or .parquet, received {out.name}.")
    if out.is_dir():
        raise OutputError(
            f"{out} cannot be written: a folder stands where a file is needed; choose another path."
        )
    if out.exists() and not out.is_file():
        raise UsageError(f"{out} is no ordinary file; an engine needs a place beside its output.")
    if out.suffix.lower() == ".parquet":
        from leuko.prediction_files import arrow

        arrow()


def write_predictions(out: Path, parts: Iterable[list[Prediction]], bundle: ModelBundle) -> None:
    """Write predictions as CSV or Parquet, whichever the name says, atomically.

    Parameters
    ----------
    out : Path
        Ending in ``.csv`` or ``.parquet``.
    parts : iterable of list of Prediction
        In order; each becomes a row group of a Parquet file.
    bundle : ModelBundle
        That answered.

    Raises
    ------
    OutputError
        When it cannot be written; the old file stays.
    """
    if out.suffix.lower() == ".parquet":
        from leuko.prediction_files import parquet_predictions

        with parquet_predictions(out, model=bundle.digest, scheme=bundle.scheme) as table:
            for rows in parts:
                table.write(rows)
        return
    with atomic_write(out) as file:
        file.write(csv_line(csv_names(bundle.scheme)).encode())
        for rows in parts:
            text = "".join(csv_line(csv_cells(row, bundle.scheme)) for row in rows)
            # Bytes of a file name that is not UTF-8 are given back.
            file.write(text.encode("utf-8", "surrogateescape"))
