"""What a user points at, as a lazy sequence of images, whatever it is that holds them."""

from __future__ import annotations

import contextlib
import glob
import io
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, TextIO

from leuko.errors import DataError, ImageError
from leuko.imaging.decode import IMAGE_SUFFIXES
from leuko.manifest import original_of
from leuko.parquet import read_names
from leuko.source import ARCHIVE_FAULTS, Source, file_stamp, open_archive, refused_source
from leuko.support.files import (
    DRAWN_BY_LEUKO,
    Strays,
    drew,
    find_listed,
    is_own_picture,
    read_text,
    stray_kind,
    why_unlisted,
)
from leuko.support.reporter import SILENT, Reporter

__all__ = ["Passed", "expand", "named_files"]

_MAX_MEMBERS: Final = 200_000

_COPY: Final = "aug_<n>_..., augmented copies beside their originals"


class Passed:
    """What is passed over on the way, to be said at the end.

    Parameters
    ----------
    arguments : iterable of str
        All that is asked for: copies among them are known by their names.
    suffixes : tuple of str
        Of the names that count, in folders and archives.
    """

    def __init__(
        self, arguments: Iterable[str] = (), suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    ) -> None:
        self.suffixes = suffixes
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

    def tell(self, reporter: Reporter) -> None:
        """Say what there is to say, to somebody or nobody."""
        if self.names:
            files = "1 file was" if self.names == 1 else f"{self.names} files were"
            reporter.say(
                f"{files} passed over: only names that end in {', '.join(self.suffixes)} count."
            )
        if self.strays:
            reporter.say(f"{self.strays.sentence()}.")


def expand(
    arguments: Iterable[str],
    *,
    stdin: TextIO | None = None,
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
    reporter: Reporter = SILENT,
) -> Iterator[Source]:
    """Turn arguments into images, in order, sorted within folders, globs and archives.

    An archive, a list or a Parquet file that cannot be read or holds no image is one source among
    the others, and reading it says why. Nothing that was asked for is passed over in silence.

    Parameters
    ----------
    arguments : iterable of str
        Files, folders (read recursively; only names with an image suffix count), globs, ``.zip``
        archives, ``.txt`` lists of paths (relative to the list), or ``-`` for paths on standard
        input; and Parquet files with the columns ``path`` and ``bytes``, folders of them whose
        name ends in ``.parquet``, and globs that end so. In a list and on standard input, a line
        that begins with ``#`` is a remark, unless there is a file of that name.
    stdin : text file, optional
        Read for ``-``; the process's own by default.
    suffixes : tuple of str
        Of the names that count in folders and archives.
    reporter : Reporter, optional
        Told at the end what was passed over: files of folders and archives for their names (hidden
        ones do not count), and what `leuko.support.files` knows to be no picture of a cell. A file
        that stands alone is never passed over.

    Returns
    -------
    iterator of Source
        Listed as they are asked for, to be read on any machine that sees the same files. No image
        is read yet.

    Raises
    ------
    DataError
        At once when an argument does not exist, a glob matches no file or a folder holds no image;
        when the first image is asked for, if an archive, a list or a Parquet file that stands
        alone holds none or cannot be read.
    MissingExtraError
        When a Parquet file is given and pyarrow is not installed.
    """
    # Said before the first image is read, not after an hour.
    chosen = [(argument, _tables(argument) or _matches(argument)) for argument in arguments]
    alone = len(chosen) == 1
    for argument, files in chosen:
        path = os.path.expanduser(argument)
        if files is not None or argument == "-" or (not alone and Strays().take(path)):
            continue
        if os.path.isdir(path):  # noqa: PTH112 - see below
            _look_into(Path(path))
    passed = Passed((argument for argument, _ in chosen), suffixes)
    # A program that was started without standard input is given none.
    given = stdin or sys.stdin or io.StringIO()
    return _said(_expand(chosen, given, passed, alone=alone), passed, reporter)


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


def _said(sources: Iterator[Source], passed: Passed, reporter: Reporter) -> Iterator[Source]:
    """Say at the end what was passed over; it is an error if that was everything."""
    first = next(sources, None)
    if first is None and passed.strays:
        raise DataError(f"There is no image to read. {passed.strays.sentence()}.")
    if first is not None:
        yield first
    yield from sources
    passed.tell(reporter)


def _expand(
    chosen: list[tuple[str, list[str] | None]],
    stdin: TextIO,
    passed: Passed,
    *,
    alone: bool,
) -> Iterator[Source]:
    """Go through the arguments one by one; the fault of one is no fault of the others."""
    for argument, files in chosen:
        try:
            if files is not None and _is_parquet(argument):
                yield from _parquet(files, alone=alone)
            elif files is not None:
                yield from _glob(argument, files, passed)
            elif argument == "-":
                yield from _standard_input(stdin, passed)
            else:
                yield from _one(argument, passed, alone=alone)
        except ImageError as error:
            if alone:
                raise DataError(error.detail) from error
            yield refused_source(argument, error.reason, error.detail)


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
            yield _file(match)


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
        yield _file(os.fspath(path), argument)


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
        # There may be very many: what their paths have in common is made once.
        shown, absolute = os.fspath(Path(place)), _absolute(place)
        shown = "" if shown == "." else shown
        for name in sorted(names):
            if passed.strays.take(name) or name.startswith("."):
                continue
            file = os.path.join(shown, name)  # noqa: PTH118 - see above
            if name.lower().endswith(passed.suffixes):
                if passed.noted(name in copies, _COPY) or passed.noted(drew(file), DRAWN_BY_LEUKO):
                    continue
                found = True
                at = os.path.join(absolute, name)  # noqa: PTH118
                yield Source(file, "file", at, stamp=file_stamp(at))
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
            f"{folder} has no images in it; expected files ending in {', '.join(passed.suffixes)}."
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
    return refused_source(place, "unreadable", f"{place} cannot be read: {why}.")


def _file(path: str, name: str = "") -> Source:
    """List a file, to be read from whatever folder."""
    place = _absolute(path)
    return Source(name or path, "file", place, stamp=file_stamp(place))


def _absolute(path: str) -> str:
    """A path from the root; ``..`` stays, as it may follow a link."""
    try:
        return os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118 - there may be very many
    except OSError:  # the folder that we stand in is gone
        return path


def _standard_input(stdin: TextIO, passed: Passed) -> Iterator[Source]:
    """Paths on standard input, as they come: whoever writes them may not have finished."""
    listed = False
    for name in _names(stdin, Path()):
        listed = True
        found = os.fspath(find_listed(Path(), name))
        file = name if os.path.lexists(name) or not os.path.lexists(found) else found
        if not passed.takes(file):
            yield _file(file)
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
        yield _refused(name, why) if why else _file(file)


def _names(lines: Iterable[str], folder: Path) -> Iterator[str]:
    """What lines name, without empty ones and remarks."""
    for line in lines:
        name = line.strip()
        if name and (not name.startswith("#") or os.path.lexists(folder / name)):
            yield name


def _tables(argument: str) -> list[str] | None:
    """Parquet files that an argument stands for; None where it stands for something else."""
    if not _is_parquet(argument):
        return None
    path = os.path.expanduser(argument)
    if os.path.isdir(path):  # noqa: PTH112
        return sorted(str(file) for file in Path(path).rglob("*.parquet") if file.is_file())
    return [path] if os.path.lexists(path) else None


def _is_parquet(argument: str) -> bool:
    """Whether an argument names Parquet files, by its name alone."""
    return argument.rstrip("/").lower().endswith(".parquet")


def _parquet(files: list[str], *, alone: bool) -> Iterator[Source]:
    """Rows of Parquet files, by the names they give."""
    for path in files:
        place = _absolute(path)
        stamp = file_stamp(place)
        try:
            for index, name in enumerate(read_names(path)):
                yield Source(name, "parquet", place, index, stamp)
        except DataError as error:
            if alone and len(files) == 1:
                raise
            yield refused_source(path, "unreadable", str(error))


def _archive(path: Path, passed: Passed) -> Iterator[Source]:
    """Images in a zip, by their places in its directory."""
    place = _absolute(os.fspath(path))
    stamp = file_stamp(place)
    try:
        archive = open_archive(place, stamp)
    except ARCHIVE_FAULTS as error:
        raise ImageError(
            "unreadable", f"{path} cannot be read as a zip archive: {error}."
        ) from error
    seen = [
        (entry.filename, index)
        for index, entry in enumerate(archive.infolist())
        if not entry.filename.endswith("/")  # is_dir fails on an empty name
        and not passed.strays.take(entry.filename)
        and not PurePosixPath(entry.filename).name.startswith(".")
    ]
    entries = [(name, index) for name, index in seen if name.lower().endswith(passed.suffixes)]
    if len(entries) > _MAX_MEMBERS:
        raise ImageError("too-large", f"{path} holds more than {_MAX_MEMBERS} images.")
    copies = _augmented(name for name, _ in entries)
    passed.names += len(seen) - len(entries)
    found = False
    for name, index in sorted(entries):
        if passed.noted(name in copies, _COPY) or passed.noted(
            _drew(archive, archive.infolist()[index]), DRAWN_BY_LEUKO
        ):
            continue
        found = True
        yield Source(f"{path}/{name}", "member", place, index, stamp)
    if not found:
        raise ImageError("not-an-image", f"{path} has no images in it.")


def _drew(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Whether a member is a picture that Leuko drew; what cannot be read is none."""
    try:
        with archive.open(entry) as file:
            return is_own_picture(file.read(512))
    except Exception:  # noqa: BLE001 - its fault is said when it is its turn
        return False
