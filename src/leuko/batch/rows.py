"""What a user points at, as rows that any process can open: files, archive members, Parquet."""

from __future__ import annotations

import functools
import glob
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final, TextIO

from leuko.errors import DataError, ImageError
from leuko.runtime.sources import Passed, Source, expand, file_source

__all__ = ["Row", "list_rows", "open_rows"]

KINDS: Final = ("file", "member", "parquet", "refused")


@dataclass(frozen=True, slots=True)
class Row:
    """One image, told in plain values: where it lies, not what is in it.

    Attributes
    ----------
    name : str
        How the user would name it.
    kind : {"file", "member", "parquet", "refused"}
        A file; one image of a zip archive; one row of a Parquet file; or something that was found
        and is no image.
    place : str
        Absolute path of the file that holds it; for "refused", the reason.
    index : int
        Which image of the archive (in the order of `expand`), which row of the Parquet file.
    stamp : str
        Size and time of the last change of `place` when it was listed; empty when there was no
        such file; for "refused", one sentence.
    """

    name: str
    kind: str
    place: str
    index: int = 0
    stamp: str = ""


def list_rows(
    arguments: Iterable[str],
    *,
    stdin: TextIO | None = None,
    say: Callable[[str], None] | None = None,
) -> Iterator[Row]:
    """List images, in order, sorted within folders, globs and archives.

    Parameters
    ----------
    arguments : iterable of str
        As `leuko.runtime.sources.expand` takes them; and Parquet files with the columns ``path``
        and ``bytes``, folders of them whose name ends in ``.parquet``, and globs that end so.
    stdin : text file, optional
        Read for ``-``; the process's own by default.
    say : callable, optional
        Told at the end what was passed over.

    Returns
    -------
    iterator of Row
        Listed as they are asked for. No image has been read yet.

    Raises
    ------
    DataError
        At once when an argument does not exist, a glob matches no file or a folder holds no image;
        when its turn comes, if the only file of all is an archive, a list or a Parquet file that
        cannot be read. Among others, such a one is a row that is refused.
    MissingExtraError
        When a Parquet file is given and pyarrow is not installed.
    """
    chosen = list(arguments)
    # Says at once what does not exist or holds nothing.
    expand([one for one in chosen if not _tables(one)], stdin=stdin)
    return _list(chosen, stdin, say)


def is_parquet(argument: str) -> bool:
    """Whether an argument names Parquet files.

    Parameters
    ----------
    argument : str
        As a user gives it.

    Returns
    -------
    bool
        By its name alone.
    """
    return argument.rstrip("/").lower().endswith(".parquet")


def open_rows(rows: Iterable[Row]) -> Iterator[Source]:
    """Open rows, on whatever machine they have come to.

    Parameters
    ----------
    rows : iterable of Row
        As `list_rows` gave them; those of one archive or Parquet file stand together.

    Yields
    ------
    Source
        One for each row, with its name; reading it may raise `ImageError`.

    Raises
    ------
    DataError
        When an archive or a Parquet file cannot be opened here, or is not the one that was
        listed.
    """
    for (kind, place, stamp), group in groupby(rows, key=_whole):
        if kind == "file":
            yield from _files(group)
        elif kind == "member":
            members = _members(place, _same(place, stamp))
            yield from (replace(members[row.index], name=row.name) for row in group)
        elif kind == "parquet":
            from leuko.batch.parquet import read_pictures

            _same(place, stamp)
            yield from read_pictures(place, ((row.name, row.index) for row in group))
        else:
            yield from (Source(row.name, partial(_refuse, row.place, row.stamp)) for row in group)


def _whole(row: Row) -> tuple[str, str, str]:
    """What is opened once for rows that follow each other."""
    return (row.kind, row.place, row.stamp) if row.kind in ("member", "parquet") else (
        row.kind, "", "")  # fmt: skip


def _files(rows: Iterable[Row]) -> Iterator[Source]:
    """Plain files; read by the path that was made absolute, known by the name that was given."""
    for row in rows:
        yield replace(file_source(row.place), name=row.name)


def _list(
    arguments: list[str], stdin: TextIO | None, say: Callable[[str], None] | None
) -> Iterator[Row]:
    """Go through the arguments one by one."""
    alone = len(arguments) == 1
    passed = Passed(arguments)
    for argument in arguments:
        path = os.path.expanduser(argument)
        if files := _tables(argument):
            for file in files:
                try:
                    yield from _parquet_rows(file)
                except DataError as error:
                    if alone and len(files) == 1:
                        raise
                    yield Row(file, "refused", "unreadable", stamp=str(error))
        elif path.lower().endswith(".zip") and Path(path).is_file():
            place = os.path.abspath(path)
            stamp = _stamp(place)
            for index, source in enumerate(expand([argument], alone=alone, passed=passed)):
                refused = _refused(source) if source.name == argument else None
                yield refused or Row(source.name, "member", place, index, stamp)
        else:
            # The home folder's sign is understood in arguments, not in lists.
            single = argument != "-" and not path.lower().endswith(".txt") and _is_one(path)
            for source in expand([argument], stdin=stdin, alone=alone, passed=passed):
                # A source that is called as a list is: the list, which cannot be read.
                whole = source.name == argument and not single
                refused = _refused(source) if whole else None
                yield refused or _file_row(source, path if single else source.name)
    passed.tell(say)


def _tables(argument: str) -> list[str]:
    """Parquet files that an argument stands for; none where it stands for something else."""
    return _parquet_files(os.path.expanduser(argument)) if is_parquet(argument) else []


def _is_one(path: str) -> bool:
    """Whether a path stands for itself and not for what is in it or matches it."""
    return os.path.lexists(path) and not os.path.isdir(path)  # noqa: PTH112 - see runtime.sources


def _file_row(source: Source, path: str) -> Row:
    """Describe a file; what is no file is asked at once why it cannot be read."""
    place = os.path.abspath(path)
    stamp = _stamp(place)
    refused = None if stamp else _refused(source)
    return refused or Row(source.name, "file", place, stamp=stamp)


def _refused(source: Source) -> Row | None:
    """Ask a source why it cannot be read; None when it can."""
    try:
        source.read()
    except ImageError as error:
        return Row(source.name, "refused", error.reason, stamp=error.detail)
    return None


def _stamp(place: str) -> str:
    """Size and time of change of an ordinary file; empty for anything else."""
    try:
        status = os.stat(place)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else ""


def _same(place: str, stamp: str) -> str:
    """Check that a file which is more than one image is still the one that was listed."""
    now = _stamp(place)
    if not now:
        raise DataError(
            f"{place} cannot be seen by the worker that was to read it. Every machine that works "
            "needs the images under the same path."
        )
    if now != stamp:
        raise DataError(f"{place} was changed after it was listed. Run the same command again.")
    return stamp


@functools.lru_cache(maxsize=1)
def _members(place: str, stamp: str) -> list[Source]:  # noqa: ARG001 - a new stamp, a new list
    """Images of an archive; kept, as the next partition is likely to be of the same one."""
    return list(expand([place]))


def _parquet_files(path: str) -> list[str]:
    """Parquet files that an argument stands for."""
    if os.path.isdir(path):  # noqa: PTH112
        return sorted(str(file) for file in Path(path).rglob("*.parquet") if file.is_file())
    if os.path.lexists(path):
        return [path]
    return sorted(match for match in glob.glob(path, recursive=True) if not Path(match).is_dir())  # noqa: PTH207


def _parquet_rows(path: str) -> Iterator[Row]:
    """Rows of one Parquet file, by the names it gives."""
    from leuko.batch.parquet import read_names

    place = os.path.abspath(path)
    stamp = _stamp(place)
    for index, name in enumerate(read_names(path)):
        yield Row(name, "parquet", place, index, stamp)


def _refuse(reason: str, detail: str) -> bytes:
    """Raise what was found when the image was listed."""
    raise ImageError(reason, detail)
