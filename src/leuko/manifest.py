"""What is in a data set: every labelled image once, with its slide and its digest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
from leuko.scheme import DIFFERENTIAL_5, ClassScheme, load_scheme, scheme_in
from leuko.support.artifacts import atomic_write_json, digest_json, read_json, schema

__all__ = ["Manifest", "Note", "Sample", "original_of", "slide_of"]


_AUGMENTED: Final = re.compile(r"aug_(\d+)_(?:aug_\d+_)*(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image.

    Attributes
    ----------
    path : str
        Relative to the manifest's root, with forward slashes.
    label : int
        Position in the manifest's scheme.
    slide : str
        Which slide it was cut from; empty when unknown.
    sha256 : str
        Digest of the file; empty when it could not be read.
    split : str
        ``train``, ``validation``, ``test`` or empty.
    """

    path: str
    label: int
    slide: str
    sha256: str
    split: str = ""

    @property
    def augmented(self) -> bool:
        """Whether its name says that it is an augmented copy; see `original_of`."""
        return original_of(Path(self.path).name)[0] is not None


class Note(str):
    """A note on reading with what it is about: plain text to all who do not ask for its code.

    Parameters
    ----------
    text : str
        The note.
    code : str
        ``missing-class``, ``augmented-copies``, ``another-class`` or ``passed-over``.
    """

    __slots__ = ("code",)
    code: str

    def __new__(cls, text: str, code: str = "") -> Self:  # noqa: D102, as of D107
        note = super().__new__(cls, text)
        note.code = code
        return note

    @staticmethod
    def code_of(note: str) -> str:
        """What a note is about; empty where it has no code.

        Parameters
        ----------
        note : str
            A `Note`, or plain text.

        Returns
        -------
        str
        """
        return note.code if isinstance(note, Note) else ""


@dataclass(frozen=True)
class Manifest:
    """An ordered list of labelled images under one root.

    Attributes
    ----------
    root : Path
        The folder that paths are relative to.
    samples : tuple of Sample
        Sorted by path.
    notes : tuple of str
        What a person should know: classes that are absent, files passed over, augmented copies.
    scheme : ClassScheme
        Of the labels.
    """

    root: Path
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    scheme: ClassScheme = field(default_factory=lambda: load_scheme(DIFFERENTIAL_5))

    def __len__(self) -> int:
        """Count the images."""
        return len(self.samples)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) int64, positions in the scheme."""
        return np.array([sample.label for sample in self.samples], dtype=np.int64)

    @property
    def slides(self) -> list[str]:
        """Slide of every image, in order."""
        return [sample.slide for sample in self.samples]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(K,) int64, images of each class."""
        return np.bincount(self.labels, minlength=len(self.scheme)).astype(np.int64)

    @property
    def digest(self) -> str:
        """SHA-256 over paths, labels, slides and file digests; the root does not count."""
        rows: list[Any] = [[s.path, s.label, s.slide, s.sha256] for s in self.samples]
        # Rows of a routine differential keep the digest that they had before there were others.
        if self.scheme.names != load_scheme(DIFFERENTIAL_5).names:
            rows.append(list(self.scheme.names))
        return digest_json(rows)

    def files(self) -> list[Path]:
        """Absolute paths, in order.

        Returns
        -------
        list of Path
            One for each sample.
        """
        return [self.root / sample.path for sample in self.samples]

    def subset(self, indices: Iterable[int], *, split: str | None = None) -> Manifest:
        """Keep some of the samples.

        Parameters
        ----------
        indices : iterable of int
            Which to keep, in the order given.
        split : str, optional
            A split name to write into them.

        Returns
        -------
        Manifest
            Same root, without notes.
        """
        kept = [self.samples[int(index)] for index in indices]
        if split is not None:
            kept = [replace(sample, split=split) for sample in kept]
        return Manifest(self.root, tuple(kept), scheme=self.scheme)

    def relabelled(
        self, scheme: ClassScheme, places: Sequence[int | None], *, merged: str = ""
    ) -> Manifest:
        """Put the labels into another scheme; rows of classes without a place are left out.

        Parameters
        ----------
        scheme : ClassScheme
            The other one.
        places : sequence of int or None
            Where each class of this one goes; see `leuko.scheme.merging`.
        merged : str
            What is told of where classes went, empty for nothing.

        Returns
        -------
        Manifest
            With a note of what was left out.

        Raises
        ------
        DataError
            When nothing is left.
        """
        kept = [
            replace(sample, label=int(place))
            for sample in self.samples
            if (place := places[sample.label]) is not None
        ]
        counts = dict(zip(self.scheme.names, self.counts.tolist(), strict=True))
        lost = [
            f"{counts[name]} of {name}"
            for name, place in zip(self.scheme.names, places, strict=True)
            if place is None and counts[name]
        ]
        if not kept:
            raise DataError(
                f"{self.root} has no image of a class of {scheme.name}: {', '.join(scheme.names)}; "
                f"it has {', '.join(lost)}. Say with --merge what is what."
            )
        notes = [merged] if merged else []
        if lost:
            notes.append(f"Left out, as {scheme.name} has no such class: {', '.join(lost)}.")
        return Manifest(self.root, tuple(kept), (*self.notes, *notes), scheme)

    def require_all_classes(self, purpose: str) -> None:
        """Raise when a class has no image.

        Parameters
        ----------
        purpose : str
            What needs every class, as in "Training".

        Raises
        ------
        DataError
            Naming the missing classes and the names that are understood.
        """
        missing = [name for name, n in zip(self.scheme.names, self.counts, strict=True) if n == 0]
        if missing:
            raise DataError(
                f"{purpose} needs all {len(self.scheme)} classes of {self.scheme.name}; "
                f"{self.root} has no image of {', '.join(missing)}. Class folders may be called: "
                f"{self.scheme.describe()}."
                + "".join(f" {note}" for note in self.notes if Note.code_of(note) == "passed-over")
            )

    def save(self, path: Path) -> None:
        """Write as JSON, schema ``leuko.manifest/1``.

        Parameters
        ----------
        path : Path
            The file.
        """
        atomic_write_json(path, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON.

        Returns
        -------
        dict
            What `load` reads.
        """
        return {
            "schema": schema("manifest"),
            "root": self.root.as_posix(),
            "digest": self.digest,
            "classes": list(self.scheme.names),
            "scheme": self.scheme.to_dict(),
            "notes": list(self.notes),
            "samples": [
                {
                    "path": s.path,
                    "label": self.scheme.names[s.label],
                    "slide": s.slide,
                    "split": s.split,
                    "sha256": s.sha256,
                }
                for s in self.samples
            ],
        }

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read what `save` wrote.

        Parameters
        ----------
        path : Path
            The file.

        Returns
        -------
        Manifest
            Equal to the one saved.

        Raises
        ------
        DataError
            When the file is damaged, or its digest does not match its rows.
        """
        document = read_json(path, "manifest")
        try:
            scheme = scheme_in(document)
            samples = tuple(
                Sample(
                    path=str(row["path"]),
                    label=scheme.names.index(row["label"]),
                    slide=str(row["slide"]),
                    sha256=str(row["sha256"]),
                    split=str(row["split"]),
                )
                for row in document["samples"]
            )
            manifest = cls(Path(document["root"]), samples, tuple(document["notes"]), scheme)
        except (DataError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error!r}.") from error
        if manifest.digest != document.get("digest"):
            raise DataError(f"{path} was changed by hand: its digest does not match its rows.")
        return manifest


def slide_of(name: str) -> str:
    """Slide that a Raabin-WBC file name tells.

    The text before the first underscore, after ``aug_<n>_`` has been stripped. Files of the 2019
    camera give a day and a clock time; the day is treated as one slide. A name without an
    underscore tells no slide, and neither does a text without a digit: ``BA_123.jpg`` and
    ``IMG_7.jpg`` begin with a class or a camera, and would make a whole class one slide.

    Parameters
    ----------
    name : str
        A file name, with or without folders.

    Returns
    -------
    str
        The slide, or an empty string.

    Examples
    --------
    >>> slide_of("95-8-22-3_23_1.jpg"), slide_of("20190527_113018_0.jpg")
    ('95-8-22-3', '20190527')
    >>> slide_of("aug_7_95-8-22-3_23_1.jpg"), slide_of("066.png")
    ('95-8-22-3', '')
    >>> slide_of("BA_123.jpg"), slide_of("S04_2_1.jpg")
    ('', 'S04')
    """
    stem = Path(original_of(Path(name).name)[1]).stem
    slide, underscore, _ = stem.partition("_")
    return slide if underscore and any(mark.isdigit() for mark in slide) else ""


def original_of(name: str) -> tuple[int | None, str]:
    """Take apart the name of an augmented copy.

    Parameters
    ----------
    name : str
        A file name.

    Returns
    -------
    copy : int or None
        The number of the copy; None for an original.
    original : str
        The original's file name, also of a copy of a copy.

    Examples
    --------
    >>> original_of("aug_12_95-8-22-3_23_1.jpg")
    (12, '95-8-22-3_23_1.jpg')
    """
    match = _AUGMENTED.fullmatch(name)
    return (int(match[1]), match[2]) if match else (None, name)
