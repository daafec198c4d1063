"""Pictures as bytes in Parquet, to be read. Needs pyarrow."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Final, TypeVar

from leuko.errors import DataError, ImageError
from leuko.imaging.decode import MAX_FILE_BYTES
from leuko.prediction_files import arrow

__all__ = ["read_names", "read_pictures"]

_AT_ONCE: Final = 16

_Tag = TypeVar("_Tag")


def read_names(path: str) -> Iterator[str]:
    """Read the column ``path`` of a file of pictures.

    Parameters
    ----------
    path : str
        A Parquet file with the columns ``path`` (text) and ``bytes`` (binary).

    Yields
    ------
    str
        The name of each row; where it is missing, the file and the row's number.

    Raises
    ------
    DataError
        When the file cannot be read or lacks a column.
    """
    pa = arrow()
    with _faults(path):
        file = _open(path)
        index = 0
        for batch in file.iter_batches(batch_size=4096, columns=["path"]):
            for name in batch.column(0).to_pylist():
                yield f"{path}/{index}" if name is None else str(name)
                index += 1
    if not index:
        raise DataError(f"{path} has no rows, as pyarrow {pa.__version__} reads it.")


def read_pictures(
    path: str, wanted: Iterable[tuple[_Tag, int]]
) -> Iterator[tuple[_Tag, bytes | ImageError]]:
    """Read rows of a file of pictures, a few at a time.

    A row group is read from its beginning, so that what can be read of a damaged one does not
    depend on who asks: from the first row that cannot be read to the end of its group, every row
    is refused.

    Parameters
    ----------
    path : str
        See `read_names`.
    wanted : iterable of (tag, int)
        Numbers of rows, quickest when ascending, each with whatever it is known by.

    Yields
    ------
    (tag, bytes or ImageError)
        For each wanted row its picture, or why there is none.
    """
    with _faults(path):
        file = _open(path)
    rows = iter(wanted)
    row = next(rows, None)
    while row is not None:
        row = yield from _scan(file, row, rows)


def _scan(
    file: Any, row: tuple[_Tag, int], rows: Iterator[tuple[_Tag, int]]
) -> Generator[tuple[_Tag, bytes | ImageError], None, tuple[_Tag, int] | None]:
    """Go through the file once; the row that is given back lies before those already given."""
    last = 0
    for group in range(file.num_row_groups):
        first, last = last, last + file.metadata.row_group(group).num_rows
        if row[1] >= last:
            continue
        for number, picture in enumerate(_group(file, group, last - first), first):
            if number == row[1]:
                yield row[0], picture
                following = next(rows, None)
                if following is None or following[1] <= number:
                    return following
                row = following
    raise DataError(f"There is no row {row[1]} in a Parquet file of {last} rows.")


def _group(file: Any, group: int, count: int) -> Iterator[bytes | ImageError]:
    """Give every row of a row group, whether the group is whole or not."""
    pa, given = arrow(), 0
    why = "The Parquet file has fewer rows here than it says."
    try:
        for batch in file.iter_batches(
            batch_size=_AT_ONCE, row_groups=[group], columns=["bytes"], use_threads=False
        ):
            for value in batch.column(0):
                yield _picture(value.as_py())
                given += 1
    except (OSError, pa.ArrowException) as error:
        why = f"The Parquet file is damaged here: {str(error).splitlines()[0]}"
    for _ in range(given, count):
        yield ImageError("unreadable", why)


def _picture(data: bytes | None) -> bytes | ImageError:
    """Give the bytes of one row, as reading a file would."""
    if data is not None and len(data) > MAX_FILE_BYTES:
        return ImageError("too-large", f"It is larger than {MAX_FILE_BYTES // 2**20} MB.")
    return data or b""


def _open(path: str) -> Any:
    """Open a file of pictures and check its columns."""
    pa = arrow()
    file = pa.parquet.ParquetFile(path)
    kinds = {field.name: field.type for field in file.schema_arrow}
    if not {"path", "bytes"} <= set(kinds):
        raise DataError(
            f"{path} cannot be read as pictures: expected the columns path and bytes, received "
            f"{', '.join(kinds) or 'none'}."
        )
    if not (pa.types.is_binary(kinds["bytes"]) or pa.types.is_large_binary(kinds["bytes"])):
        raise DataError(
            f"{path} cannot be read as pictures: its column bytes must be binary, received "
            f"{kinds['bytes']}."
        )
    return file


@contextlib.contextmanager
def _faults(path: str) -> Iterator[None]:
    """Say in one sentence what pyarrow raises on a file that is damaged or none of its kind."""
    pa = arrow()
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}"
        ) from error
