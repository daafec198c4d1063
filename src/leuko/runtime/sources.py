"""What a user points at, as a lazy sequence of images: files, folders, globs, archives, lists."""

from __future__ import annotations

import glob
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
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

    Yields
    ------
    Source
        Nothing is decoded yet.

    Raises
    ------
    DataError
        When an argument matches nothing, or an archive or a list cannot be read.
    """
    for argument in arguments:
        path = Path(argument).expanduser()
        if argument == "-":
            lines = stdin if stdin is not None else sys.stdin
            yield from (file_source(line.strip()) for line in lines if line.strip())
        elif path.is_dir():
            yield from _folder(path)
        elif path.exists() or path.is_symlink():
            if path.suffix.lower() == ".zip":
                yield from _archive(path)
            elif path.suffix.lower() == ".txt":
                yield from _list(path)
            else:
                yield file_source(argument)
        elif glob.has_magic(argument):
            matches = sorted(glob.glob(os.path.expanduser(argument), recursive=True))  # noqa: PTH207
            if not matches:
                raise DataError(f"Nothing matches {argument}.")
            yield from (file_source(match) for match in matches if not Path(match).is_dir())
        else:
            raise DataError(f"{argument} does not exist.")


def _folder(folder: Path) -> Iterator[Source]:
    """Images below a folder; links are followed once."""
    found = False
    visited: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(place)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders.sort()
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                found = True
                yield file_source(Path(place, name))
    if not found:
        raise DataError(
            f"{folder} has no images in it; expected files ending in {', '.join(IMAGE_SUFFIXES)}."
        )


def _list(path: Path) -> Iterator[Source]:
    """Paths in a text file, relative to the file's folder."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of paths: {error}.") from error
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise DataError(f"{path} lists no images.")
    yield from (file_source(path.parent / name) for name in names)


def _archive(path: Path) -> Iterator[Source]:
    """Images in a zip, read from memory: nothing is unpacked to disk, so nothing can escape."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [
                entry
                for entry in archive.infolist()
                if not entry.is_dir() and entry.filename.lower().endswith(IMAGE_SUFFIXES)
                and not Path(entry.filename).name.startswith(".")
                and not entry.filename.startswith("__MACOSX/")
            ]  # fmt: skip
            if len(entries) > _MAX_MEMBERS:
                raise DataError(f"{path} holds more than {_MAX_MEMBERS} images.")
            if not entries:
                raise DataError(f"{path} has no images in it.")
            for entry in sorted(entries, key=lambda entry: entry.filename):
                data = _member(archive, entry)
                yield Source(f"{path}/{entry.filename}", data)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as a zip archive: {error}.") from error


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], bytes]:
    """Read one member now, in order; damage is told when it is its turn."""
    ratio = entry.file_size / max(1, entry.compress_size)
    if entry.file_size > MAX_FILE_BYTES or ratio > _MAX_RATIO:
        return partial(_refuse, "too-large", f"It unpacks to {entry.file_size} bytes.")
    try:
        data = archive.read(entry)
    except Exception as error:  # zipfile and zlib raise many kinds on a damaged member
        return partial(_refuse, "unreadable", f"The archive's member is damaged: {error}.")
    return lambda: data


def _refuse(reason: str, detail: str) -> bytes:
    """Raise what was found when the archive was read."""
    raise ImageError(reason, detail)
