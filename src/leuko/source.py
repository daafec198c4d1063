"""One picture to be read later, told in plain values: where it lies, not what is in it.

A `Source` can be sent to another process or machine, and read there in any order.
"""

from __future__ import annotations

import os
import stat
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain, groupby
from struct import error as StructError  # noqa: N812 - a class, whatever its name
from typing import Final

from leuko.errors import DataError, ImageError
from leuko.imaging.decode import MAX_FILE_BYTES, read_bytes
from leuko.imaging.pictures import file_size, hold_data
from leuko.parquet import read_pictures
from leuko.support.artifacts import digest_bytes

__all__ = [
    "ARCHIVE_FAULTS",
    "Source",
    "bytes_source",
    "file_source",
    "file_stamp",
    "open_archive",
    "opened",
    "refused_source",
]

ARCHIVE_FAULTS: Final = (
    OSError, ValueError, NotImplementedError, StructError, zipfile.BadZipFile)  # fmt: skip
"""What opening a damaged archive may raise."""

_MAX_RATIO: Final = 100

_ARCHIVES: Final = 4
"""Archives that stay open: whoever reads out of order is seldom in more of them at a time."""

_archives: Final[OrderedDict[tuple[str, str], zipfile.ZipFile]] = OrderedDict()
_lock: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Source:
    """One picture to be read later.

    Attributes
    ----------
    name : str
        How the user would name it.
    kind : {"file", "member", "parquet", "bytes", "refused"}
        A file; one member of a zip archive; one row of a Parquet file; bytes in memory, as of an
        upload; or something that was found and is no picture.
    place : str
        Path of the file that holds it; for "refused", the reason.
    index : int
        Which entry of the archive's directory, which row of the Parquet file.
    stamp : str
        Size and time of the last change of `place` when it was listed; empty when there was no
        such file, or nobody looked. A file that holds several pictures is not read when it has
        another one. For "refused", one sentence.
    data : bytes
        What is in memory; for "bytes" alone.
    """

    name: str
    kind: str
    place: str = ""
    index: int = 0
    stamp: str = ""
    data: bytes = field(default=b"", repr=False)

    @property
    def identity(self) -> tuple[str, str, str, int, str]:
        """What tells this picture from every other: never its content alone."""
        stamp = digest_bytes(self.data) if self.kind == "bytes" else self.stamp
        return self.name, self.kind, self.place, self.index, stamp

    def read(self) -> bytes:
        """Read the picture's file.

        Returns
        -------
        bytes
            All of it.

        Raises
        ------
        ImageError
            When this picture cannot be read.
        DataError
            When the archive or Parquet file that holds it cannot be opened here, or is not the one
            that was listed.
        """
        match self.kind:
            case "file":
                return read_bytes(self.place, self.name)
            case "member":
                return _read_member(*_member(self))
            case "bytes":
                return self.data
            case "refused":
                raise ImageError(self.place, self.stamp)
        return next(opened([self])).read()

    def size(self) -> int:
        """How many bytes that will be; 0 where they are in memory already, or will not be."""
        if self.kind == "file":
            return file_size(self.place)
        return _member(self)[1].file_size if self.kind == "member" else 0

    def open(self) -> AbstractContextManager[bytes]:
        """Read when there is room, see `leuko.imaging.pictures.hold_data`.

        Returns
        -------
        context manager
            Of the file's bytes.
        """
        return hold_data(self.read, self.size())


def file_source(path: str | os.PathLike[str]) -> Source:
    """Make a source of one file.

    Parameters
    ----------
    path : path-like
        Read when asked for.

    Returns
    -------
    Source
        Named by the path as given.
    """
    name = os.fspath(path)
    return Source(name, "file", name)


def bytes_source(name: str, data: bytes) -> Source:
    """Make a source of bytes in memory.

    Parameters
    ----------
    name : str
        How the user would name them.
    data : bytes
        A whole file.

    Returns
    -------
    Source
    """
    return Source(name, "bytes", data=data)


def refused_source(name: str, reason: str, detail: str) -> Source:
    """List something that is no picture, with the reason.

    Parameters
    ----------
    name : str
        How the user would name it.
    reason, detail : str
        See `leuko.errors.ImageError`, which reading it raises.

    Returns
    -------
    Source
    """
    return Source(name, "refused", reason, stamp=detail)


def opened(sources: Iterable[Source]) -> Iterator[Source]:
    """Bring sources into a form that threads may read in any order at no cost.

    Rows of a Parquet file are read here, one after the other, as the file gives a row only after
    those before it; every other source stays as it is.

    Parameters
    ----------
    sources : iterable of Source
        Those of one Parquet file best stand together, ascending.

    Yields
    ------
    Source
        One for each, with its name.

    Raises
    ------
    DataError
        When a Parquet file cannot be opened here, or is not the one that was listed.
    """
    for place, group in groupby(sources, key=_table):
        if place:
            yield from _rows(place, group)
        else:
            yield from group


def _table(source: Source) -> str:
    """The Parquet file that holds a picture; empty for any other kind."""
    return source.place if source.kind == "parquet" else ""


def _rows(place: str, rows: Iterable[Source]) -> Iterator[Source]:
    """Rows of one Parquet file, in memory."""
    seen = map(_same, rows)
    first = next(seen)  # the file is looked at before it is opened
    wanted = ((source, source.index) for source in chain([first], seen))
    for source, content in read_pictures(place, wanted):
        if isinstance(content, ImageError):
            yield refused_source(source.name, content.reason, content.detail)
        else:
            yield bytes_source(source.name, content)


def file_stamp(place: str) -> str:
    """Size and time of change of an ordinary file.

    Parameters
    ----------
    place : str
        Its path.

    Returns
    -------
    str
        Equal for a file that was not changed; empty for anything but an ordinary file.
    """
    try:
        status = os.stat(place)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else ""


def _same(source: Source) -> Source:
    """Check that a file which is more than one picture is still the one that was listed."""
    now = file_stamp(source.place)
    if not now:
        raise DataError(
            f"{source.place} cannot be seen by the worker that was to read it. Every machine that "
            "works needs the images under the same path."
        )
    if now != source.stamp:
        raise DataError(
            f"{source.place} was changed after it was listed. Run the same command again."
        )
    return source


def open_archive(place: str, stamp: str) -> zipfile.ZipFile:
    """Open a zip archive anew, and keep it open for the threads that read its members.

    Parameters
    ----------
    place, stamp : str
        See `Source`.

    Returns
    -------
    zipfile.ZipFile
        Closed when it is forgotten, after a few others.

    Raises
    ------
    One of `ARCHIVE_FAULTS`
        When it is damaged or none.
    """
    archive = zipfile.ZipFile(place)
    with _lock:
        _archives[place, stamp] = archive
        _archives.move_to_end((place, stamp))
        while len(_archives) > _ARCHIVES:
            _archives.popitem(last=False)
    return archive


def _member(source: Source) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
    """An archive, and where one picture lies in it."""
    key = (source.place, _same(source).stamp)
    with _lock:
        archive = _archives.get(key)
    try:
        archive = archive or open_archive(*key)
        return archive, archive.infolist()[source.index]
    except ARCHIVE_FAULTS as error:
        raise DataError(f"{source.place} cannot be read as a zip archive: {error}.") from error


def _read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Read one member from memory: nothing is unpacked to disk, so nothing can escape."""
    ratio = entry.file_size / max(1, entry.compress_size)
    if entry.file_size > MAX_FILE_BYTES or ratio > _MAX_RATIO:
        raise ImageError("too-large", f"It unpacks to {entry.file_size} bytes.")
    if entry.flag_bits & 1:
        raise ImageError("unreadable", "The archive asks for a password; unpack it first.")
    try:
        return archive.read(entry)
    except Exception as error:  # zipfile and zlib raise many kinds on a damaged member
        why = str(error) or type(error).__name__
        raise ImageError("unreadable", f"The archive's member is damaged: {why}.") from error
