"""Folders of class folders, and tables with labels, read into manifests."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from leuko.errors import DataError
from leuko.imaging.decode import IMAGE_SUFFIXES
from leuko.manifest import Manifest, Note, Sample, original_of, slide_of
from leuko.scheme import (
    DIFFERENTIAL_5,
    RAABIN_NUMBERS,
    ClassScheme,
    describe_numbers,
    infer_scheme,
    is_known_class,
    is_number,
    load_scheme,
    scheme_of,
)
from leuko.support.files import (
    DRAWN_BY_LEUKO,
    Strays,
    find_listed,
    is_own_picture,
    read_text,
    stray_kind,
)
from leuko.support.parallel import bounded_map, worker_count

__all__ = [
    "SPLITS",
    "Layout",
    "find_layout",
    "find_splits",
    "is_table",
    "own_scheme",
    "read_csv",
    "read_folder",
    "read_labelled",
    "read_split",
]

_NOTES: Final = {"balance.json", "drawn.json"}
"""Leuko's own notes in folders that it wrote."""

SPLITS: Final = {
    "train": ("train", "training", "traindata"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testa", "testing", "testdata"),
}
"""What the folders of each split may be called, without case, hyphens and spaces."""

_RAABIN: Final = re.compile(r"(\d\d-\d\d?-\d\d?-\d+_\d+_\d+|20\d{6}_\d{6}_\d+)\.\w+", re.ASCII)
"""File names of Raabin-WBC."""


@dataclass(frozen=True)
class Layout:
    """Where the splits of a data set lie, and what lies beside them.

    Attributes
    ----------
    root : Path
        The data set's folder.
    splits : dict of str to Path
        Some of ``train``, ``validation``, ``test``.
    lost : tuple of str
        Links that are called like a split and lead nowhere, for a person.
    """

    root: Path
    splits: dict[str, Path]
    lost: tuple[str, ...] = ()

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Folders beside the splits that hold classes and are not read, and what is lost."""
        return (*_unread_beside(self.root, self.splits), *self.lost)


def find_splits(dataset: str | os.PathLike[str]) -> dict[str, Path]:
    """Find the training, validation and test folders of a data set.

    Case, hyphens, underscores and spaces do not matter: ``Train``, ``test-a``, ``TestA``. A
    folder that itself holds class folders counts as a training folder. A link that is called so and
    leads nowhere is given where no folder is: whoever reads it is told.

    Parameters
    ----------
    dataset : path-like
        The data set's folder.

    Returns
    -------
    dict of str to Path
        Some of ``train``, ``validation``, ``test``.

    Raises
    ------
    DataError
        When the folder is missing, empty, or holds neither splits nor classes.
    """
    return find_layout(dataset).splits


def find_layout(dataset: str | os.PathLike[str]) -> Layout:
    """Find the splits of a data set, see `find_splits`, and what is not read beside them.

    Parameters
    ----------
    dataset : path-like
        The data set's folder.

    Returns
    -------
    Layout
        Nothing is read yet.

    Raises
    ------
    DataError
        See `find_splits`.
    """
    root = _existing_folder(dataset)
    try:
        folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    except OSError as error:
        raise DataError(f"{root} cannot be read: {error.strerror}.") from error
    found: dict[str, Path] = {}
    for split in SPLITS:
        matches = [folder for folder in folders if _split_named(folder.name) == split]
        if len(matches) > 1:
            raise DataError(
                f"{root} holds several {split} folders: {', '.join(m.name for m in matches)}. "
                "Keep one, or give the folder itself."
            )
        if matches:
            found[split] = matches[0]
    if not found and (_holds_classes(root) or _holds_pictures(root)):
        found["train"] = root
    lost = _lost(root)
    links = {entry: split for entry in lost if (split := _split_named(entry.name))}
    for entry, split in links.items():
        found.setdefault(split, entry)
    if not found:
        there = ", ".join(folder.name for folder in folders[:8]) or "no folders at all"
        told = [f"{entry.name} {why}." for entry, why in lost.items()][:8]
        raise DataError(
            " ".join(
                [
                    f"{root} holds neither Train/Test folders nor class folders; found {there}.",
                    *told,
                    f"Class folders may be called: {load_scheme(DIFFERENTIAL_5).describe()}.",
                ]
            )
        )
    nowhere = (_passed_over(f"{entry.name} {lost[entry]}") for entry in links)
    return Layout(root, found, tuple(nowhere))


def read_split(
    dataset: str | os.PathLike[str] | Layout,
    split: str,
    *,
    ignore: Sequence[str] = (),
    scheme: ClassScheme | None = None,
) -> Manifest:
    """Read one split of a data set.

    Parameters
    ----------
    dataset : path-like or Layout
        A folder with ``Train``, ``Test``, ... in it, or the split's own folder.
    split : str
        ``train``, ``validation`` or ``test``.
    ignore, scheme
        See `read_folder`.

    Returns
    -------
    Manifest
        Its samples carry the split's name. A split's link that leads nowhere is a note.

    Raises
    ------
    DataError
        When there is no such split, or it is a link that leads nowhere.
    """
    layout = dataset if isinstance(dataset, Layout) else find_layout(dataset)
    if split not in layout.splits:
        raise DataError(
            f"{layout.root} has no {split} folder; found {', '.join(sorted(layout.splits))}. "
            f"Expected a folder called {split.capitalize()} with class folders in it."
        )
    manifest = read_folder(layout.splits[split], ignore=ignore, scheme=scheme)
    samples = tuple(replace(sample, split=split) for sample in manifest.samples)
    notes = tuple(dict.fromkeys((*layout.notes, *manifest.notes)))
    return Manifest(manifest.root, samples, notes, manifest.scheme)


def _unread_beside(root: Path, splits: dict[str, Path]) -> tuple[str, ...]:
    """Name the folders beside Train and Test that hold classes and are not read."""
    if root in splits.values():
        return ()
    others = [
        folder.name
        for folder in _folders(root)
        if folder not in splits.values() and _holds_classes(folder)
    ]
    if not others:
        return ()
    read = " and ".join(place.name for place in splits.values())
    verb = "is" if len(others) == 1 else "are"
    return (f"{' and '.join(others)} {verb} not read, only {read}.",)


def _holds_classes(folder: Path) -> bool:
    """Whether a folder holds class folders, as far as one may look."""
    try:
        folders = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    except OSError:
        return False
    return any(is_known_class(name) or name in RAABIN_NUMBERS for name in folders)


def _holds_pictures(folder: Path) -> bool:
    """Whether two folders in it hold pictures: classes under any names."""
    found = 0
    for inner in _folders(folder):
        with contextlib.suppress(OSError):
            found += any(entry.name.lower().endswith(IMAGE_SUFFIXES) for entry in inner.iterdir())
    return found > 1


def read_folder(
    folder: str | os.PathLike[str],
    *,
    ignore: Sequence[str] = (),
    scheme: ClassScheme | None = None,
) -> Manifest:
    """Read a folder that holds one folder for each class.

    Symbolic links are followed; dangling ones, loops and folders that cannot be listed are
    noted, and so is what `leuko.support.files` knows to be no picture of a cell. Hidden files are
    passed over; any other file counts as an image until it is decoded.

    Parameters
    ----------
    folder : path-like
        With class folders in any case, singular or plural; called 1 to 5 only where the images
        have Raabin-WBC's names.
    ignore : sequence of str
        Names of extra folders to pass over.
    scheme : ClassScheme, optional
        That the folders are of. Otherwise that of a routine differential where they are of it,
        another one that comes with Leuko, or their own names, which is a note.

    Returns
    -------
    Manifest
        Sorted by path. A class without images is a note.

    Raises
    ------
    DataError
        When the folder is missing or empty, an extra folder is there, two folders mean one class,
        or folders are called by numbers that may mean several.
    """
    root = _existing_folder(folder)
    folders: list[Path] = []
    notes: list[str] = []
    strays = Strays()
    for entry in _listing(root):
        if (kind := stray_kind(entry.name)) or entry.name.startswith("."):
            if kind:
                strays.add(kind)
            continue
        if entry.name in ignore:
            continue
        if why := _why_lost(entry):
            notes.append(_passed_over(f"{entry.name} {why}"))
        if os.path.isdir(entry):  # noqa: PTH112 - see _folders
            folders.append(entry)
    names = [entry.name for entry in folders]
    scheme, said = _scheme_for(str(root), names, scheme)
    notes += said
    by_class = _by_class(root, folders, scheme, notes)
    numbers = [name for name in names if is_number(name) and scheme.find(name) is None]
    rows: list[tuple[str, int]] = []
    for label, place in by_class.items():
        for file in _walk(place, label, scheme, notes, strays):
            rows.append((file.relative_to(root).as_posix(), label))
    rows.sort()
    contents = _read_all([root / path for path, _ in rows])
    for content in contents:
        if content.drawn:
            strays.add(DRAWN_BY_LEUKO)
    samples = tuple(
        Sample(path, label, slide_of(path), content.digest)
        for (path, label), content in zip(rows, contents, strict=True)
        if not content.drawn
    )
    if strays:
        notes.append(f"{strays.sentence()}.")
    if numbers:
        _require_raabin(root, numbers, [sample.path for sample in samples])
        notes.append(_how_numbers_were_read(str(root)))
    if not samples:
        raise DataError(" ".join([f"{root} has class folders but not one image in them.", *notes]))
    return Manifest(root, samples, (*notes, *_remarks(root, samples, scheme)), scheme)


def own_scheme(dataset: str | os.PathLike[str], label_column: str = "label") -> ClassScheme:
    """Take the names of class folders, or of labels, for classes as they are.

    Parameters
    ----------
    dataset : path-like
        See `find_splits`, or a CSV; the training folder decides where there is one.
    label_column : str
        Of a CSV.

    Returns
    -------
    ClassScheme
        In the order of the alphabet.
    """
    if is_table(dataset):
        rows = _table_rows(Path(os.path.expanduser(dataset)), label_column)
        return scheme_of(sorted({row.label for row in rows}))
    splits = find_splits(dataset)
    place = splits.get("train") or next(iter(splits.values()))
    return scheme_of(sorted(inner.name for inner in _folders(place)))


def _scheme_for(
    place: str, names: Sequence[str], scheme: ClassScheme | None
) -> tuple[ClassScheme, tuple[str, ...]]:
    """The scheme that folders or labels are of, and what a person should know of it."""
    routine = load_scheme(DIFFERENTIAL_5)
    if scheme is not None:
        return scheme, ()
    usual = [routine.find(name) is not None for name in names]
    known = [is_known_class(name) for name in names]
    if (
        len({*names}) < 2
        or any(is_number(name) for name in names)
        or all(usual)
        or (any(usual) and not all(known) and 2 * sum(known) >= len(names))  # misspelt, or extra
    ):
        return routine, ()
    found = infer_scheme(names)
    told = f"{place} is of {found.name}" if found.name != "own" else f"{place} has its own classes"
    return found, (f"{told}: {', '.join(found.names)}. --classes names others.",)


def _by_class(
    root: Path, folders: Sequence[Path], scheme: ClassScheme, notes: Sequence[str]
) -> dict[int, Path]:
    """Class folders by their place in the scheme; refuses those that name none, or one twice."""
    by_class: dict[int, Path] = {}
    extra: list[str] = []
    for entry in folders:
        label = _label_of(entry.name, scheme)
        if label is None:
            extra.append(entry.name)
        elif label in by_class:
            raise DataError(
                f"{root} has two folders for {scheme.names[label]}: {by_class[label].name} and "
                f"{entry.name}. Merge them."
            )
        else:
            by_class[label] = entry
    numbers = any(is_number(entry.name) for entry in folders)
    if extra and by_class and not numbers:
        raise DataError(
            f"{root} has folders that name no class: {', '.join(extra)}. Expected "
            f"{scheme.describe()}. Pass them over with --ignore NAME, or take all folders as they "
            "are with --classes folders."
        )
    if not by_class and not numbers:
        found = ", ".join(extra[:8]) or "no folders"
        told = [f"{root} has no class folders; found {found}.", *notes[:8]]
        raise DataError(f"{' '.join(told)} Expected {scheme.describe()}.")
    return by_class


def _label_of(name: str, scheme: ClassScheme) -> int | None:
    """Place of the class that a folder or a label names; numbers are Raabin-WBC's, if anyone's."""
    label = scheme.find(name)
    return scheme.find(RAABIN_NUMBERS.get(name.strip(), "")) if label is None else label


def _require_raabin(place: str | Path, numbers: Sequence[str], paths: Sequence[str]) -> None:
    """Refuse numbers in the place of class names, unless the files say whose numbers they are."""
    known = {number.strip() for number in numbers} <= {*RAABIN_NUMBERS}
    names = [original_of(Path(path).name)[1] for path in paths]
    if known and names and all(_RAABIN.fullmatch(name) for name in names):
        return
    raise DataError(
        f"{place} names classes by numbers ({', '.join(sorted({*numbers}))}). {describe_numbers()} "
        f"Write names in their place: {', '.join(load_scheme(DIFFERENTIAL_5).names)}."
    )


def _how_numbers_were_read(place: str) -> str:
    """Say which number was read as which class."""
    told = ", ".join(f"{number} as {name}" for number, name in RAABIN_NUMBERS.items())
    return f"{place} names classes by numbers, read as Raabin-WBC's, as its files are: {told}."


def is_table(source: str | os.PathLike[str]) -> bool:
    """Whether a place is taken for a CSV with labels, and not for a folder.

    Parameters
    ----------
    source : path-like
        It need not exist.

    Returns
    -------
    bool
    """
    path = Path(os.path.expanduser(source))
    return path.suffix.lower() == ".csv" and not path.is_dir()


def read_labelled(
    source: str | os.PathLike[str],
    *,
    ignore: Sequence[str] = (),
    scheme: ClassScheme | None = None,
    label_column: str = "label",
) -> Manifest:
    """Read a folder of class folders, or a CSV with labels.

    Parameters
    ----------
    source : path-like
        A folder or a ``.csv`` file.
    ignore : sequence of str
        Names of extra folders to pass over.
    scheme : ClassScheme, optional
        See `read_folder`.
    label_column : str
        See `read_csv`.

    Returns
    -------
    Manifest
        See `read_folder` and `read_csv`.
    """
    if is_table(source):
        return read_csv(source, scheme=scheme, label_column=label_column)
    return read_folder(source, ignore=ignore, scheme=scheme)


def read_csv(
    path: str | os.PathLike[str],
    *,
    scheme: ClassScheme | None = None,
    label_column: str = "label",
) -> Manifest:
    """Read a table of labelled images.

    Parameters
    ----------
    path : path-like
        CSV with a header that has ``path`` and ``label``, and may have ``slide`` and ``split``
        (train, val or test). Paths are relative to the table's own folder.
    scheme : ClassScheme, optional
        See `read_folder`.
    label_column : str
        The column that has the labels.

    Returns
    -------
    Manifest
        Sorted by path.

    Raises
    ------
    DataError
        When a column is missing, a label names no class, a split is none, or a path is listed
        twice.
    """
    table = Path(os.path.expanduser(path))
    rows = _table_rows(table, label_column)
    root = table.parent.resolve()
    labels = [row.label for row in rows]
    scheme, said = _scheme_for(str(table), list(dict.fromkeys(labels)), scheme)
    numbers = [label for label in labels if is_number(label) and scheme.find(label) is None]
    if numbers:
        _require_raabin(table, numbers, [row.path for row in rows])
    files = [find_listed(root, row.path) for row in rows]
    samples: list[Sample] = []
    seen: set[str] = set()
    for row, place, content in zip(rows, files, _read_all(files), strict=True):
        where = f"{table}, line {row.line}"
        if not row.path:
            raise DataError(f"{where}: there is no path.")
        label = _label_of(row.label, scheme)
        if label is None:
            raise DataError(f"{where}: {row.label!r} names no class. Expected {scheme.describe()}.")
        split = _split_named(row.split)
        if row.split and not split:
            raise DataError(f"{where}: the split is {row.split!r}; expected train, val or test.")
        relative = Path(os.path.relpath(place, root)).as_posix()
        if relative in seen:
            raise DataError(f"{where}: {row.path} is listed twice.")
        seen.add(relative)
        slide = slide_of(relative) if row.slide is None else row.slide
        samples.append(Sample(relative, label, slide, content.digest, split))
    samples.sort(key=lambda sample: sample.path)
    notes = (*said, *((_how_numbers_were_read(str(table)),) if numbers else ()))
    rest = _remarks(root, tuple(samples), scheme)
    return Manifest(root, tuple(samples), (*notes, *rest), scheme)


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a table of labels."""

    path: str
    label: str
    slide: str | None
    split: str
    line: int


def _table_rows(table: Path, label_column: str) -> list[_Row]:
    """Read the lines of a table of labels."""
    try:
        with io.StringIO(read_text(table), newline="") as file:
            reader = csv.DictReader(file)
            header = {name.strip().lower(): name for name in reader.fieldnames or []}
            wanted = label_column.strip().lower()
            absent = {"path", wanted} - {*header}
            if absent:
                raise DataError(
                    f"{table} lacks the column {' and '.join(sorted(absent))}; expected "
                    f"path,{wanted} with commas between them, and slide if known; received "
                    f"{', '.join(header) or 'nothing'}."
                )

            def cell(row: dict[str, str | None], name: str) -> str:
                return (row[header[name]] or "").strip() if name in header else ""

            rows = [
                _Row(
                    cell(row, "path"),
                    cell(row, wanted),
                    cell(row, "slide") if "slide" in header else None,
                    cell(row, "split"),
                    reader.line_num,
                )
                for row in reader
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as CSV: {error}.") from error
    if not rows:
        raise DataError(f"{table} has a header but no rows.")
    return rows


def _existing_folder(folder: str | os.PathLike[str]) -> Path:
    """Resolve a folder or say that it is none."""
    root = Path(os.path.expanduser(folder))
    try:
        is_folder = stat.S_ISDIR(os.stat(root).st_mode)
    except FileNotFoundError as error:
        what = "is a link that leads nowhere" if os.path.islink(root) else "does not exist"  # noqa: PTH114
        raise DataError(f"{root} {what}.") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{root} cannot be read: {why}.") from error
    if not is_folder:
        raise DataError(f"{root} is a file; a folder was expected.")
    return root.resolve()


def _listing(folder: Path) -> list[Path]:
    """List a folder, sorted, or say why that cannot be done."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from error


def _folders(place: Path) -> list[Path]:
    """Folders in a folder, sorted, but those that are hidden or known to hold no cells."""
    # Path.is_dir raises where a folder can be listed but not entered.
    return [
        entry
        for entry in _listing(place)
        if entry.name[:1] != "." and not stray_kind(entry.name) and os.path.isdir(entry)  # noqa: PTH112
    ]


def _walk(
    folder: Path, label: int, scheme: ClassScheme, notes: list[str], strays: Strays
) -> list[Path]:
    """Collect files of a class below its folder, following links once, noting what is odd."""
    files: list[Path] = []
    visited: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        told = place.relative_to(folder.parent).as_posix()
        try:
            status = place.stat()
            entries = sorted(place.iterdir())
        except OSError as error:
            notes.append(_passed_over(f"{told} cannot be listed ({error.strerror})"))
            continue
        if (status.st_dev, status.st_ino) in visited:
            notes.append(_passed_over(f"{told} is a link to a folder already read"))
            continue
        visited.add((status.st_dev, status.st_ino))
        inner: list[Path] = []
        for entry in entries:
            if strays.take(entry.name) or entry.name.startswith(".") or entry.name in _NOTES:
                continue
            try:
                mode = os.stat(entry).st_mode
            except OSError as error:
                notes.append(_passed_over(f"{told}/{entry.name} {_described(entry, error)}"))
                continue
            if stat.S_ISDIR(mode):
                inner.append(entry)
                other = scheme.find(entry.name)
                if other not in (None, label):
                    what = (
                        f"{told}/{entry.name} names another class than the folder that it lies in; "
                        f"its images are read as {scheme.names[label]}."
                    )
                    notes.append(Note(what, "another-class"))
            elif stat.S_ISREG(mode):
                files.append(entry)
            else:
                notes.append(_passed_over(f"{told}/{entry.name} is not an ordinary file"))
        waiting += reversed(inner)
    return files


def _passed_over(what: str) -> Note:
    """Note what is left out, and why."""
    return Note(f"{what}; passed over.", "passed-over")


def _described(entry: Path, error: OSError) -> str:
    """Say of what cannot be looked at whether it is a link that leads nowhere."""
    # Path.is_symlink raises where a folder can be listed but not entered.
    what = "is a dangling link" if os.path.islink(entry) else "cannot be read"  # noqa: PTH114
    return f"{what} ({error.strerror})"


def _why_lost(entry: Path) -> str:
    """Why an entry of a folder cannot be looked at; empty when it can."""
    try:
        os.stat(entry)
    except OSError as error:
        return _described(entry, error)
    return ""


def _lost(folder: Path) -> dict[Path, str]:
    """Entries of a folder that cannot be looked at, sorted, and why; hidden ones do not count."""
    every = {entry: _why_lost(entry) for entry in _listing(folder) if entry.name[:1] != "."}
    return {entry: why for entry, why in every.items() if why}


def _split_named(name: str) -> str:
    """Which split a folder of this name is; empty for none."""
    bare = re.sub(r"[\s_-]", "", name.lower())
    return next((split for split, names in SPLITS.items() if bare in names), "")


@dataclass(frozen=True, slots=True)
class _Content:
    """What reading a file through tells: its digest, empty where that failed, and who drew it."""

    digest: str = ""
    drawn: bool = False


def _read_all(files: Sequence[Path]) -> list[_Content]:
    """Read files through, each once, on a few threads."""
    return list(bounded_map(_content, files, workers=min(8, 2 * worker_count(None)), ahead=256))


def _content(path: Path) -> _Content:
    """Read a file through, in pieces."""
    try:
        if not path.is_file():  # opening a pipe would wait for somebody to write into it
            return _Content()
        with path.open("rb") as file:
            drawn = is_own_picture(file.read(512))
            file.seek(0)
            return _Content(hashlib.file_digest(file, "sha256").hexdigest(), drawn)
    except (OSError, ValueError):
        return _Content()


def _remarks(root: Path, samples: tuple[Sample, ...], scheme: ClassScheme) -> tuple[str, ...]:
    """Say what a person should know about these rows."""
    remarks: list[str] = []
    present = {sample.label for sample in samples}
    for label, name in enumerate(scheme.names):
        if label not in present:
            remarks.append(Note(f"{root.name} has no image of {name}.", "missing-class"))
    copies = sum(sample.augmented for sample in samples)
    if copies:
        what = (
            f"{root.name} holds {copies} augmented copies (aug_<n>_...); each belongs to the slide "
            "of its original."
        )
        remarks.append(Note(what, "augmented-copies"))
    unknown = sum(not sample.slide for sample in samples)
    if unknown:
        remarks.append(
            f"{unknown} of {len(samples)} file names tell no slide; intervals and splits cannot "
            "respect slides for them. Give a CSV with a slide column to mend that."
        )
    return tuple(remarks)
