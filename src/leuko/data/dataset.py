"""A data set that is found once, read and hashed once, and of which each image is decoded once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from leuko.data.audit.background import ring_features
from leuko.data.audit.duplicates import thumbnail
from leuko.data.reading import (
    SPLITS,
    Layout,
    find_layout,
    find_splits,
    is_table,
    read_csv,
    read_split,
)
from leuko.errors import DataError, ImageError
from leuko.imaging.pictures import open_picture
from leuko.manifest import Manifest, Sample
from leuko.scheme import ClassScheme
from leuko.support.parallel import bounded_map, worker_count
from leuko.support.reporter import SILENT, Reporter

__all__ = ["Dataset", "ImageFacts", "Pictures"]

_FILES_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What decoding one image told; about a kilobyte, so that memory stays small.

    Attributes
    ----------
    size : str
        Rows and columns, as in ``575x575``.
    mode, format : str
        See `leuko.imaging.decode.DecodedImage`.
    thumbnail : (32, 32) uint8
        See `leuko.data.audit.duplicates.thumbnail`.
    ring : (29,) float32 or None
        See `leuko.data.audit.background.ring_features`; None where nobody asked.
    """

    size: str
    mode: str
    format: str
    thumbnail: npt.NDArray[np.uint8]
    ring: npt.NDArray[np.float32] | None


class Pictures:
    """What decoding told of image files: each is decoded when it is first asked for, and once.

    Parameters
    ----------
    workers : int, optional
        Threads; as many as this process may use when None.
    rings : bool
        Describe the background too; see `leuko.data.audit.background`.
    """

    def __init__(self, workers: int | None = None, *, rings: bool = False) -> None:
        self.workers = worker_count(workers)
        self._rings = rings
        self._facts: dict[Path, ImageFacts | ImageError] = {}

    def facts(
        self,
        files: Sequence[Path],
        *,
        rings: bool = False,
        reporter: Reporter = SILENT,
        stage: str = "looking at images",
    ) -> list[ImageFacts | ImageError]:
        """Decode what was not decoded yet, on threads, and say what every file told.

        Parameters
        ----------
        files : sequence of Path
            Image files.
        rings : bool
            Describe the background too. An image that was decoded without is decoded again.
        reporter : Reporter, optional
            Told how far it is, and what a person should know.
        stage : str
            What it is called to the reporter.

        Returns
        -------
        list of ImageFacts or ImageError
            In the order of `files`; the error where one is no usable image.
        """
        wanted = self._rings or rings
        missing = [file for file in dict.fromkeys(files) if not self._has(file, wanted)]
        starts = range(0, len(missing), _FILES_AT_ONCE)
        pieces = (missing[at : at + _FILES_AT_ONCE] for at in starts)
        done = len(files) - len(missing)

        def decode(piece: list[Path]) -> list[ImageFacts | ImageError]:
            return [_decode(file, wanted) for file in piece]

        for piece in bounded_map(lambda one: (one, decode(one)), pieces, workers=self.workers):
            self._facts.update(zip(*piece, strict=True))
            done += len(piece[0])
            reporter.progress(stage, done, len(files))
        return [self._facts[file] for file in files]

    def readable(self, file: Path) -> bool:
        """Whether a file is a usable image.

        Parameters
        ----------
        file : Path
            It is decoded where that has not been done.

        Returns
        -------
        bool
        """
        return isinstance(self.facts([file])[0], ImageFacts)

    def _has(self, file: Path, rings: bool) -> bool:
        """Whether all is known that is asked for."""
        known = self._facts.get(file)
        return isinstance(known, ImageError) or (
            known is not None and not (rings and known.ring is None)
        )


def _decode(file: Path, rings: bool) -> ImageFacts | ImageError:
    """Open and decode one file, within the budget of memory."""
    try:
        with open_picture(file) as image:
            rows, columns = image.pixels.shape[:2]
            ring = ring_features(image.pixels) if rings else None
            small = thumbnail(image.pixels)
            return ImageFacts(f"{rows}x{columns}", image.mode, image.format, small, ring)
    except ImageError as error:
        return error.without_frames()


class Dataset:
    """Labelled images by split, with one scheme: what audits, trainings and comparisons take.

    `open` finds the splits of a folder; each is read and hashed when it is first asked for. What
    decoding its images tells is kept in `pictures`.

    Parameters
    ----------
    place : Path
        As it was given, for people.
    source : Layout or Manifest
        Folders to read, or rows, which are of the splits that they name; those that name none are
        for training.
    scheme : ClassScheme, optional
        Of the labels; otherwise the first split decides it for all.
    ignore : sequence of str
        Names of extra folders to pass over.
    pictures : Pictures
        Decodes each image once.

    Attributes
    ----------
    root : Path
        The folder that all lies in.
    splits : tuple of str
        Some of ``train``, ``validation``, ``test``.
    folders : dict of str to Path
        Where the splits lie; empty for rows.
    """

    def __init__(
        self,
        place: Path,
        source: Layout | Manifest,
        *,
        scheme: ClassScheme | None = None,
        ignore: Sequence[str] = (),
        pictures: Pictures,
    ) -> None:
        self.place, self.root, self.ignore = place, source.root, tuple(ignore)
        self.pictures, self._source, self._scheme = pictures, source, scheme
        self.folders = source.splits if isinstance(source, Layout) else {}
        named = {} if isinstance(source, Layout) else {_split_of(s) for s in source.samples}
        self.splits = tuple(self.folders) or tuple(one for one in SPLITS if one in named)
        self._rows: dict[str, Manifest] = {}

    @classmethod
    def open(
        cls,
        place: str | os.PathLike[str],
        *,
        ignore: Sequence[str] = (),
        scheme: ClassScheme | None = None,
        label_column: str = "label",
        background: bool = False,
        workers: int | None = None,
    ) -> Dataset:
        """Find a data set.

        Parameters
        ----------
        place : path-like
            A folder with ``Train``, ``Test``, ... or class folders in it, or a CSV, of which a
            column ``split`` is honoured.
        ignore, scheme, label_column
            See `leuko.data.reading.read_labelled`; the first split decides the scheme of all.
        background : bool
            An audit will ask for the background, so images are described for it when they are
            first decoded.
        workers : int, optional
            Threads for decoding.

        Returns
        -------
        Dataset
            Of a folder nothing is read yet.

        Raises
        ------
        DataError
            When there is no data set.
        """
        source: Layout | Manifest
        if is_table(place):
            source = read_csv(place, scheme=scheme, label_column=label_column)
        else:
            source = find_layout(place)
        pictures = Pictures(workers, rings=background)
        return cls(Path(place), source, scheme=scheme, ignore=ignore, pictures=pictures)

    @classmethod
    def of(
        cls, source: str | os.PathLike[str] | Manifest | Dataset, *, workers: int | None = None
    ) -> Dataset:
        """Take a data set however it is given.

        Parameters
        ----------
        source : path-like, Manifest or Dataset
            A place for `open`; rows, which may be of several splits; or one that is open already.
        workers : int, optional
            Threads for decoding; an open one keeps its own.

        Returns
        -------
        Dataset
            The same one where it is one.
        """
        if isinstance(source, Dataset):
            return source
        if isinstance(source, Manifest):
            return cls(source.root, source, pictures=Pictures(workers))
        return cls.open(source, workers=workers)

    @property
    def scheme(self) -> ClassScheme:
        """Of all labels."""
        return self.rows(self.splits[0]).scheme

    @property
    def manifests(self) -> dict[str, Manifest]:
        """The rows of every split."""
        return {split: self.rows(split) for split in self.splits}

    def rows(self, split: str) -> Manifest:
        """Read a split, once.

        Parameters
        ----------
        split : str
            One of `splits`.

        Returns
        -------
        Manifest
            Its samples carry the split's name, but those of a table without a column ``split``.

        Raises
        ------
        DataError
            When there is no such split, or it cannot be read.
        """
        if split not in self._rows:
            self.require(split)
            self._rows[split] = self._read(split)
        return self._rows[split]

    def _read(self, split: str) -> Manifest:
        """Read a folder, or deal out rows."""
        if isinstance(self._source, Layout):
            own = None if split == self.splits[0] else self.scheme
            return read_split(self._source, split, ignore=self.ignore, scheme=self._scheme or own)
        if len(self.splits) == 1:
            return self._source
        rows = [i for i, sample in enumerate(self._source.samples) if _split_of(sample) == split]
        return replace(self._source.subset(rows, split=split), notes=self._source.notes)

    def require(self, split: str, why: str = "it cannot be read") -> None:
        """Raise when there is no such split.

        Parameters
        ----------
        split : str
            ``train``, ``validation`` or ``test``.
        why : str
            What cannot be done without it.

        Raises
        ------
        DataError
            Naming it.
        """
        if split not in self.splits:
            name = {"train": "training"}.get(split, split)
            what = "folder" if self.folders else "rows"
            raise DataError(f"{self.place} has no {name} {what}, so {why}.")

    @cached_property
    def training_rows(self) -> Manifest:
        """Rows to train on: of every class, none held out; validation rows where a table has some.

        Raises
        ------
        DataError
            When all rows are held out, or a class has none.
        """
        if isinstance(self._source, Manifest):
            rows = _without_test(self._source)
        else:
            rows = self.rows("train")
        splits = {sample.split for sample in rows.samples}
        for split in ("test", "validation"):
            if split in splits and (split == "test" or "train" not in splits):
                raise DataError(f"These are {split} rows; a model must not be trained on them.")
        for folder in (rows.root, rows.root.parent):
            _refuse_held_out(folder, rows)
        rows.require_all_classes("Training")
        return rows


def _split_of(sample: Sample) -> str:
    """Which split a row is of."""
    return sample.split or "train"


def _without_test(table: Manifest) -> Manifest:
    """Leave out the test rows of a table that deals its own splits."""
    kept = [row for row, sample in enumerate(table.samples) if sample.split != "test"]
    if len(kept) in (0, len(table)):
        return table
    note = f"{len(table) - len(kept)} test rows of the table are not trained on."
    return replace(table.subset(kept), notes=(*table.notes, note))


def _refuse_held_out(folder: Path, rows: Manifest) -> None:
    """Raise when rows lie in what a folder holds out of training."""
    try:
        splits = find_splits(folder)
    except DataError:
        return
    for split in ("validation", "test"):
        place = splits.get(split)
        if place and any(file.is_relative_to(place) for file in rows.files()):
            raise DataError(
                f"{place} is the {split} folder of its data set; a model must not be trained "
                "on it. Give the data set's folder, or the one with the training images."
            )
