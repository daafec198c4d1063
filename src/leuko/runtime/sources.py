"""What a user points at, as a lazy sequence of images: files, folders, globs, archives, lists."""

from __future__ import annotations

import glob
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final, TextIO

from leuko.errors import DataError, ImageError
from leuko.imaging import IMAGE_SUFFIXES, MAX_FILE_BYTES, read_bytes

__all__ = ["Source", "expand", "file_source"]

_MAX_MEMBERS: Final = 200_000
_MAX_RATIO: Final = 100


@dataclass(frozen=True, slots=True)
class Source:
    """One image to be read later.

    Attributes
    ----------
    name : str
        How the user would name it.
    read : callable
        Returns the file's bytes or raises `ImageError`.
    """

    name: str
    read: Callable[[], bytes]


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
    return Source(os.fspath(path), partial(read_bytes, path))


def expand(arguments: Iterable[str], *, stdin: TextIO | None = None) -> Iterator[Source]:
    """Turn arguments into images, in order, sorted within folders, globs and archives.

    Parameters
    ----------
    arguments : iterable of str
        Files, folders (read recursively; only names with an image suffix count), globs, ``.zip``
        archives, ``.txt`` lists of paths (relative to the list), or ``-`` for paths on standard
        input.
    stdin : text file, optional
        Read for ``-``; the process's own by default.

    Returns
    -------
    iterator of Source
        Nothing is read yet.

    Raises
    ------
    DataError
        At once when an argument does not exist; when its turn comes, if it holds no image, or
        an archive or a list cannot be read.
    """
    chosen = list(arguments)
    for argument in chosen:
        # Said before the first image is read, not after an hour.
        known = argument == "-" or os.path.lexists(os.path.expanduser(argument))
        if not known and not glob.has_magic(argument):
            raise DataError(f"{argument} does not exist.")
    return _expand(chosen, sys.stdin if stdin is None else stdin)


def _expand(arguments: list[str], stdin: TextIO) -> Iterator[Source]:
    """Go through the arguments one by one."""
    for argument in arguments:
        path = Path(os.path.expanduser(argument))
        if argument == "-":
            listed = False
            for line in stdin:  # as they come: whoever writes them may not have finished
                if name := line.strip():
                    listed = True
                    yield file_source(name)
            if not listed:
                raise DataError("Standard input lists no images.")
        elif os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises on a name too long
            yield from _folder(path)
        elif os.path.lexists(path):
            if path.suffix.lower() == ".zip":
                yield from _archive(path)
            elif path.suffix.lower() == ".txt":
                yield from _list(path)
            else:
                yield Source(argument, partial(read_bytes, path))
        else:
            matches = sorted(glob.glob(os.path.expanduser(argument), recursive=True))  # noqa: PTH207
            files = [match for match in matches if not Path(match).is_dir()]
            if not files:
                folders = " but folders; give the folder itself" if matches else ""
                raise DataError(f"Nothing matches {argument}{folders}.")
            yield from (file_source(match) for match in files)


def _folder(folder: Path) -> Iterator[Source]:
    """Images below a folder; links are followed once, and what cannot be followed is listed."""
    found = False
    visited: set[tuple[int, int]] = set()
    faults: list[OSError] = []
    for place, folders, names in os.walk(folder, followlinks=True, onerror=faults.append):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            yield _refused(place, "it is a link to a folder already read")
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                found = True
                yield file_source(Path(place, name))
    for fault in faults:
        found = found or fault.filename != os.fspath(folder)
        yield _refused(str(fault.filename), fault.strerror or str(fault))
    if not found:
        raise DataError(
            f"{folder} has no images in it; expected files ending in {', '.join(IMAGE_SUFFIXES)}."
        )


def _refused(place: str, why: str) -> Source:
    """List something that is no image, with the reason."""
    return Source(place, partial(_refuse, "unreadable", f"{place} cannot be read: {why}."))


def _list(path: Path) -> Iterator[Source]:
    """Paths in a text file, relative to the file's folder."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of paths: {error}.") from error
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise DataError(f"{path} lists no images.")
    yield from (file_source(path.parent / name) for name in names)


def _archive(path: Path) -> Iterator[Source]:
    """Images in a zip, read from memory: nothing is unpacked to disk, so nothing can escape."""
    try:
        # Left open for the threads that read its members; closed when the last one is forgotten.
        archive = zipfile.ZipFile(path)
        members = archive.infolist()
    except (OSError, ValueError, NotImplementedError, struct.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as a zip archive: {error}.") from error
    entries = [
        entry
        for entry in members
        if not entry.is_dir()
        and entry.filename.lower().endswith(IMAGE_SUFFIXES)
        and not PurePosixPath(entry.filename).name.startswith(".")
        and not entry.filename.startswith("__MACOSX/")
    ]
    if len(entries) > _MAX_MEMBERS:
        raise DataError(f"{path} holds more than {_MAX_MEMBERS} images.")
    if not entries:
        raise DataError(f"{path} has no images in it.")
    for entry in sorted(entries, key=lambda entry: entry.filename):
        yield Source(f"{path}/{entry.filename}", partial(_member, archive, entry))


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Read one member when it is its turn."""
    ratio = entry.file_size / max(1, entry.compress_size)
    if entry.file_size > MAX_FILE_BYTES or ratio > _MAX_RATIO:
        raise ImageError("too-large", f"It unpacks to {entry.file_size} bytes.")
    try:
        return archive.read(entry)
    except Exception as error:  # zipfile and zlib raise many kinds on a damaged member
        why = str(error) or type(error).__name__
        raise ImageError("unreadable", f"The archive's member is damaged: {why}.") from error


def _refuse(reason: str, detail: str) -> bytes:
    """Raise what was found when the folder was walked."""
    raise ImageError(reason, detail)
