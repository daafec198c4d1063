"""What a user points at, as a lazy sequence of images: files, folders, globs, archives, lists."""

from __future__ import annotations

import contextlib
import glob
import io
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final, TextIO

from leuko.errors import DataError, ImageError
from leuko.files import (
    DRAWN_BY_LEUKO,
    Strays,
    drew,
    find_listed,
    is_own_picture,
    read_text,
    stray_kind,
    why_unlisted,
)
from leuko.imaging import IMAGE_SUFFIXES, MAX_FILE_BYTES, read_bytes
from leuko.manifest import original_of
from leuko.pictures import file_size, hold_data

__all__ = ["Passed", "Source", "expand", "file_source", "named_files"]

_MAX_MEMBERS: Final = 200_000
_MAX_RATIO: Final = 100

_COPY: Final = "aug_<n>_..., augmented copies beside their originals"


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


class Passed:
    """What is passed over on the way, to be said at the end.

    Parameters
    ----------
    arguments : iterable of str
        All that is asked for: copies among them are known by their names.
    """

    def __init__(self, arguments: Iterable[str] = ()) -> None:
        self.names = 0
        self.strays = Strays()
        self.copies = _augmented(arguments)

    def takes(self, path: str, base: str = "") -> bool:
        """Whether a file is none to be read; `base` is what was asked for by its own name."""
        return self.strays.take(path.removeprefix(base)) or self.noted(drew(path), DRAWN_BY_LEUKO)

    def noted(self, is_so: bool, kind: str) -> bool:
        """Pass on whether something is so, and note it when it is."""
        if is_so:
            self.strays.add(kind)
        return is_so

    def tell(self, say: Callable[[str], None] | None) -> None:
        """Say what there is to say, to somebody or nobody."""
        if self.names and say is not None:
            files = "1 file was" if self.names == 1 else f"{self.names} files were"
            say(f"{files} passed over: only names that end in {', '.join(IMAGE_SUFFIXES)} count.")
        if self.strays and say is not None:
            say(f"{self.strays.sentence()}.")


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
    passed: Passed | None = None,
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
        Told at the end what was passed over: files of folders and archives for their names (hidden
        ones do not count), and what `leuko.files` knows to be no picture of a cell. A file that
        stands alone is never passed over.
    alone : bool, optional
        Whether nothing else is asked for, so that an archive or a list that cannot be read is an
        error; when None, whether there is one argument.
    passed : Passed, optional
        Notes what is passed over, for whoever expands arguments one by one and says it then.

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
    only = len(chosen) == 1 if alone is None else alone
    for argument, matches in chosen:
        path = os.path.expanduser(argument)
        if matches is not None or argument == "-" or (not only and Strays().take(path)):
            continue
        if os.path.isdir(path):  # noqa: PTH112 - see below
            _look_into(Path(path))
    noted = Passed(argument for argument, _ in chosen) if passed is None else passed
    # A program that was started without standard input is given none.
    given = stdin or sys.stdin or io.StringIO()
    sources = _expand(chosen, given, noted, alone=only)
    return sources if passed is not None else _said(sources, noted, say)


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
            with contextlib.suppress(OSError, ValueError):
                folder = Path(place).parent
                lines = read_text(place).split("\n")
                yield from (str(find_listed(folder, name)) for name in _names(lines, folder))
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


def _said(
    sources: Iterator[Source], passed: Passed, say: Callable[[str], None] | None
) -> Iterator[Source]:
    """Say at the end what was passed over; it is an error if that was everything."""
    first = next(sources, None)
    if first is None and passed.strays:
        raise DataError(f"There is no image to read. {passed.strays.sentence()}.")
    if first is not None:
        yield first
    yield from sources
    passed.tell(say)


def _expand(
    chosen: list[tuple[str, list[str] | None]],
    stdin: TextIO,
    passed: Passed,
    *,
    alone: bool,
) -> Iterator[Source]:
    """Go through the arguments one by one; the fault of one is no fault of the others."""
    for argument, matches in chosen:
        try:
            if matches is not None:
                yield from _glob(argument, matches, passed)
            elif argument == "-":
                yield from _standard_input(stdin, passed)
            else:
                yield from _one(argument, passed, alone=alone)
        except ImageError as error:
            if alone:
                raise DataError(error.detail) from error
            yield Source(argument, partial(_refuse, error.reason, error.detail))


def _augmented(paths: Iterable[str]) -> set[str]:
    """Those of some files that are augmented copies of others of them, by their names."""
    every = [(path, *path.rpartition("/")[::2]) for path in paths]
    if not any(name.startswith("aug_") for _, _, name in every):
        return set()
    # Copies are JPEG files, whatever their originals are.
    stems = {(folder, name.rpartition(".")[0]) for _, folder, name in every}
    found = set()
    for path, folder, name in every:
        copy, original = original_of(name)
        if copy is not None and (folder, original.rpartition(".")[0]) in stems:
            found.add(path)
    return found


def _glob(argument: str, matches: list[str], passed: Passed) -> Iterator[Source]:
    """Files that match, but for what nobody means by it."""
    base = os.path.dirname(argument.partition("*")[0].partition("?")[0].partition("[")[0])  # noqa: PTH120
    copies = _augmented(matches)
    for match in matches:
        if not passed.noted(match in copies, _COPY) and not passed.takes(match, base):
            yield file_source(match)


def _one(argument: str, passed: Passed, *, alone: bool) -> Iterator[Source]:
    """Images of what is there."""
    path = Path(os.path.expanduser(argument))
    if not alone and passed.strays.take(os.fspath(path)):
        return
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises on a name too long
        yield from _folder(path, passed)
    elif path.suffix.lower() == ".zip":
        yield from _archive(path, passed)
    elif path.suffix.lower() == ".txt":
        yield from _list(path, passed)
    elif alone and drew(path):
        raise ImageError("not-an-image", f"{argument} was drawn by Leuko; it is no cell's picture.")
    elif alone or not (
        passed.noted(argument in passed.copies, _COPY) or passed.noted(drew(path), DRAWN_BY_LEUKO)
    ):
        yield replace(file_source(path), name=argument)


def _look_into(folder: Path) -> None:
    """Say that a folder has nothing in it before any other is read."""
    try:
        next(_folder(folder, Passed()), None)
    except ImageError as error:
        raise DataError(error.detail) from error


def _folder(folder: Path, passed: Passed) -> Iterator[Source]:
    """Images below a folder; links are followed once, and what cannot be followed is listed."""
    found = False
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
        for name in folders:
            if kind := stray_kind(name):
                passed.strays.add(kind, os.path.join(place, name))  # noqa: PTH118 - see below
        folders[:] = sorted(n for n in folders if not n.startswith(".") and not stray_kind(n))
        copies = _augmented(names)
        for name in sorted(names):
            if passed.strays.take(name) or name.startswith("."):
                continue
            file = os.path.join(place, name)  # noqa: PTH118 - there may be very many
            if name.lower().endswith(IMAGE_SUFFIXES):
                if passed.noted(name in copies, _COPY) or passed.noted(drew(file), DRAWN_BY_LEUKO):
                    continue
                found = True
                yield file_source(Path(file))
            elif why := _leads_nowhere(file):
                found = True  # it may have been a folder of images
                yield _refused(file, why)
            else:
                passed.names += 1
    for fault in faults:
        if fault.filename == os.fspath(folder):
            raise ImageError("unreadable", f"{folder} cannot be read: {fault.strerror or fault}.")
        found = True
        yield _refused(str(fault.filename), fault.strerror or str(fault))
    if not found:
        told = f" {passed.strays.sentence()}." if passed.strays else ""
        raise ImageError(
            "not-an-image",
            f"{folder} has no images in it; expected files ending in {', '.join(IMAGE_SUFFIXES)}."
            + told,
        )


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


def _standard_input(stdin: TextIO, passed: Passed) -> Iterator[Source]:
    """Paths on standard input, as they come: whoever writes them may not have finished."""
    listed = False
    for name in _names(stdin, Path()):
        listed = True
        found = os.fspath(find_listed(Path(), name))
        file = name if os.path.lexists(name) or not os.path.lexists(found) else found
        if not passed.takes(file):
            yield file_source(file)
    if not listed:
        raise ImageError("not-an-image", "Standard input lists no images.")


def _list(path: Path, passed: Passed) -> Iterator[Source]:
    """Paths in a text file, relative to the file's folder."""
    try:
        lines = read_text(path).split("\n")
    except (OSError, ValueError) as error:
        raise ImageError(
            "unreadable", f"{path} cannot be read as a list of paths: {error}."
        ) from error
    names = list(_names(lines, path.parent))
    if not names:
        raise ImageError("not-an-image", f"{path} lists no images.")
    files = [os.fspath(find_listed(path.parent, name)) for name in names]
    copies, base = _augmented(files), f"{path.parent}/"
    for name, file in zip(names, files, strict=True):
        if passed.noted(file in copies, _COPY) or passed.takes(file, base):
            continue
        why = "" if os.path.lexists(file) else why_unlisted(name)
        yield _refused(name, why) if why else file_source(file)


def _names(lines: Iterable[str], folder: Path) -> Iterator[str]:
    """What lines name, without empty ones and remarks."""
    for line in lines:
        name = line.strip()
        if name and (not name.startswith("#") or os.path.lexists(folder / name)):
            yield name


def _archive(path: Path, passed: Passed) -> Iterator[Source]:
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
        if not entry.filename.endswith("/")  # is_dir fails on an empty name
        and not passed.strays.take(entry.filename)
        and not PurePosixPath(entry.filename).name.startswith(".")
    ]
    entries = [entry for entry in seen if entry.filename.lower().endswith(IMAGE_SUFFIXES)]
    if len(entries) > _MAX_MEMBERS:
        raise ImageError("too-large", f"{path} holds more than {_MAX_MEMBERS} images.")
    copies = _augmented(entry.filename for entry in entries)
    passed.names += len(seen) - len(entries)
    found = False
    for entry in sorted(entries, key=lambda entry: entry.filename):
        if passed.noted(entry.filename in copies, _COPY) or passed.noted(
            _drew(archive, entry), DRAWN_BY_LEUKO
        ):
            continue
        found = True
        size = partial(int, entry.file_size)
        yield Source(f"{path}/{entry.filename}", partial(_member, archive, entry), size)
    if not found:
        raise ImageError("not-an-image", f"{path} has no images in it.")


def _drew(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Whether a member is a picture that Leuko drew; what cannot be read is none."""
    try:
        with archive.open(entry) as file:
            return is_own_picture(file.read(512))
    except Exception:  # noqa: BLE001 - its fault is said when it is its turn
        return False


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Read one member when it is its turn."""
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


def _refuse(reason: str, detail: str) -> bytes:
    """Raise what was found when the images were listed."""
    raise ImageError(reason, detail)
