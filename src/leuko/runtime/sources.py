"""What a user points at, as a lazy sequence of images: files, folders, globs, archives, lists."""

from __future__ import annotations

import contextlib
import glob
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final, TextIO

from leuko.errors import DataError, ImageError
from leuko.imaging import IMAGE_SUFFIXES, MAX_FILE_BYTES, read_bytes
from leuko.pictures import file_size, hold_data

__all__ = ["Source", "expand", "file_source", "named_files"]

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
    size : callable
        Returns how many bytes these will be; 0 where they are in memory already, or will not be.
    """

    name: str
    read: Callable[[], bytes]
    size: Callable[[], int] = int

    def open(self) -> AbstractContextManager[bytes]:
        """Read when there is room, see `leuko.pictures.hold_data`.

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
    return Source(os.fspath(path), partial(read_bytes, path), partial(file_size, path))


def expand(
    arguments: Iterable[str],
    *,
    stdin: TextIO | None = None,
    say: Callable[[str], None] | None = None,
    alone: bool | None = None,
) -> Iterator[Source]:
    """Turn arguments into images, in order, sorted within folders, globs and archives.

    An archive or a list that cannot be read or holds no image is one source among the others, and
    reading it says why. Nothing that was asked for is passed over in silence.

    Parameters
    ----------
    arguments : iterable of str
        Files, folders (read recursively; only names with an image suffix count), globs, ``.zip``
        archives, ``.txt`` lists of paths (relative to the list), or ``-`` for paths on standard
        input. In a list and on standard input, a line that begins with ``#`` is a remark, unless
        there is a file of that name.
    stdin : text file, optional
        Read for ``-``; the process's own by default.
    say : callable, optional
        Told at the end how many files of folders and archives were passed over for their names;
        hidden ones do not count.
    alone : bool, optional
        Whether nothing else is asked for, so that an archive or a list that cannot be read is an
        error; when None, whether there is one argument.

    Returns
    -------
    iterator of Source
        Nothing is read yet.

    Raises
    ------
    DataError
        At once when an argument does not exist, a glob matches no file or a folder holds no image;
        when the first image is asked for, if an archive or a list that stands alone holds none or
        cannot be read.
    """
    # Said before the first image is read, not after an hour.
    chosen = [(argument, _matches(argument)) for argument in arguments]
    for argument, matches in chosen:
        path = os.path.expanduser(argument)
        if matches is None and argument != "-" and os.path.isdir(path):  # noqa: PTH112 - see below
            _look_into(Path(path))
    only = len(chosen) == 1 if alone is None else alone
    return _expand(chosen, sys.stdin if stdin is None else stdin, say, alone=only)


def named_files(argument: str | os.PathLike[str]) -> Iterator[str]:
    """Give the files that an argument names, to compare them with others; no image is read.

    Parameters
    ----------
    argument : str or path-like
        See `expand`. What does not exist or cannot be read is no fault here.

    Yields
    ------
    str
        The path of what stands there, then of each file that a list names; or what a glob matches;
        for ``-``, the file that standard input comes from. Folders and archives are not looked
        into.
    """
    place = os.path.expanduser(os.fspath(argument))
    if argument == "-":
        yield "/dev/stdin"
    elif os.path.lexists(place):
        yield place
        if place.lower().endswith(".txt") and os.path.isfile(place):  # noqa: PTH113 - see below
            with contextlib.suppress(OSError, UnicodeDecodeError):
                folder = Path(place).parent
                lines = Path(place).read_text(encoding="utf-8-sig").split("\n")
                yield from (str(folder / name) for name in _names(lines, folder))
    elif glob.has_magic(place):
        yield from glob.glob(place, recursive=True)  # noqa: PTH207


def _matches(argument: str) -> list[str] | None:
    """Files that a glob stands for; None for what stands for itself."""
    place = os.path.expanduser(argument)
    if argument == "-" or os.path.lexists(place):
        return None
    if not glob.has_magic(argument):
        raise DataError(f"{argument} does not exist.")
    matches = sorted(glob.glob(place, recursive=True))  # noqa: PTH207
    files = [match for match in matches if not os.path.isdir(match)]  # noqa: PTH112 - see below
    if not files:
        folders = " but folders; give the folder itself" if matches else ""
        raise DataError(f"Nothing matches {argument}{folders}.")
    return files


def _expand(
    chosen: list[tuple[str, list[str] | None]],
    stdin: TextIO,
    say: Callable[[str], None] | None,
    *,
    alone: bool,
) -> Iterator[Source]:
    """Go through the arguments one by one; the fault of one is no fault of the others."""
    passed = 0
    for argument, matches in chosen:
        try:
            if matches is not None:
                yield from map(file_source, matches)
            elif argument == "-":
                yield from _standard_input(stdin)
            else:
                passed += yield from _one(argument)
        except ImageError as error:
            if alone:
                raise DataError(error.detail) from error
            yield Source(argument, partial(_refuse, error.reason, error.detail))
    if passed and say is not None:
        files = "1 file was" if passed == 1 else f"{passed} files were"
        say(f"{files} passed over: only names that end in {', '.join(IMAGE_SUFFIXES)} count.")


def _one(argument: str) -> Generator[Source, None, int]:
    """Images of what is there; returns how many files were passed over for their names."""
    path = Path(os.path.expanduser(argument))
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises on a name too long
        return (yield from _folder(path))
    if path.suffix.lower() == ".zip":
        return (yield from _archive(path))
    if path.suffix.lower() == ".txt":
        yield from _list(path)
    else:
        yield replace(file_source(path), name=argument)
    return 0


def _look_into(folder: Path) -> None:
    """Say that a folder has nothing in it before any other is read."""
    try:
        next(_folder(folder), None)
    except ImageError as error:
        raise DataError(error.detail) from error


def _folder(folder: Path) -> Generator[Source, None, int]:
    """Images below a folder; links are followed once, and what cannot be followed is listed."""
    found, passed = False, 0
    visited: set[tuple[int, int]] = set()
    faults: list[OSError] = []
    for place, folders, names in os.walk(folder, followlinks=True, onerror=faults.append):
        try:
            status = os.stat(place)
        except OSError as error:  # it was removed a moment ago
            folders.clear()
            faults.append(error)
            continue
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            yield _refused(place, "it is a link to a folder already read")
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            file = os.path.join(place, name)  # noqa: PTH118 - there may be very many
            if name.lower().endswith(IMAGE_SUFFIXES):
                found = True
                yield file_source(Path(file))
            elif why := _leads_nowhere(file):
                found = True  # it may have been a folder of images
                yield _refused(file, why)
            else:
                passed += 1
    for fault in faults:
        if fault.filename == os.fspath(folder):
            raise ImageError("unreadable", f"{folder} cannot be read: {fault.strerror or fault}.")
        found = True
        yield _refused(str(fault.filename), fault.strerror or str(fault))
    if not found:
        raise ImageError(
            "not-an-image",
            f"{folder} has no images in it; expected files ending in {', '.join(IMAGE_SUFFIXES)}.",
        )
    return passed


def _leads_nowhere(place: str) -> str:
    """Why a link cannot be followed; empty for any other thing."""
    if os.path.islink(place):  # noqa: PTH114 - Path.is_symlink raises where one may not look
        try:
            os.stat(place)
        except OSError as error:
            return f"it is a link that leads nowhere ({error.strerror})"
    return ""


def _refused(place: str, why: str) -> Source:
    """List something that is no image, with the reason."""
    return Source(place, partial(_refuse, "unreadable", f"{place} cannot be read: {why}."))


def _standard_input(stdin: TextIO) -> Iterator[Source]:
    """Paths on standard input, as they come: whoever writes them may not have finished."""
    listed = False
    for name in _names(stdin, Path()):
        listed = True
        yield file_source(name)
    if not listed:
        raise ImageError("not-an-image", "Standard input lists no images.")


def _list(path: Path) -> Iterator[Source]:
    """Paths in a text file, relative to the file's folder."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(
            "unreadable", f"{path} cannot be read as a list of paths: {error}."
        ) from error
    names = list(_names(lines, path.parent))
    if not names:
        raise ImageError("not-an-image", f"{path} lists no images.")
    yield from (file_source(path.parent / name) for name in names)


def _names(lines: Iterable[str], folder: Path) -> Iterator[str]:
    """What lines name, without empty ones and remarks."""
    for line in lines:
        name = line.strip()
        if name and (not name.startswith("#") or os.path.lexists(folder / name)):
            yield name


def _archive(path: Path) -> Generator[Source, None, int]:
    """Images in a zip, read from memory: nothing is unpacked to disk, so nothing can escape."""
    try:
        # Left open for the threads that read its members; closed when the last one is forgotten.
        archive = zipfile.ZipFile(path)
        members = archive.infolist()
    except (OSError, ValueError, NotImplementedError, struct.error, zipfile.BadZipFile) as error:
        raise ImageError(
            "unreadable", f"{path} cannot be read as a zip archive: {error}."
        ) from error
    seen = [
        entry
        for entry in members
        if not entry.is_dir()
        and not PurePosixPath(entry.filename).name.startswith(".")
        and not entry.filename.startswith("__MACOSX/")
    ]
    entries = [entry for entry in seen if entry.filename.lower().endswith(IMAGE_SUFFIXES)]
    if len(entries) > _MAX_MEMBERS:
        raise ImageError("too-large", f"{path} holds more than {_MAX_MEMBERS} images.")
    if not entries:
        raise ImageError("not-an-image", f"{path} has no images in it.")
    for entry in sorted(entries, key=lambda entry: entry.filename):
        size = partial(int, entry.file_size)
        yield Source(f"{path}/{entry.filename}", partial(_member, archive, entry), size)
    return len(seen) - len(entries)


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
    """Raise what was found when the images were listed."""
    raise ImageError(reason, detail)
