"""Which original is drawn how many times, and what the copies are called."""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import numpy.typing as npt

from leuko.data.balance.augmentation import ALGORITHM
from leuko.errors import DataError
from leuko.manifest import Manifest, Sample
from leuko.scheme import ClassScheme
from leuko.support.artifacts import digest_json

__all__ = [
    "BalancePlan",
    "PlanEntry",
    "is_held_out",
    "plan_balance",
    "refuse_rows",
    "sample_key",
]

_HELD_OUT: Final = re.compile(r"(test|testing|validation|valid|val)(set|data)?[ab]?")


def sample_key(sample: Sample, scheme: ClassScheme) -> str:
    """Text that names an original to `augmentation`: its class and its relative path.

    Parameters
    ----------
    sample : Sample
        A row of a manifest.
    scheme : ClassScheme
        Of the manifest.

    Returns
    -------
    str
        Such as ``"Basophil/Basophil/20190526_163753_0.jpg"``.
    """
    return f"{scheme.names[sample.label]}/{sample.path}"


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """What happens to one original.

    Attributes
    ----------
    sample : Sample
        The original.
    name : str
        File name of its copy in the balanced folder.
    copies : int
        How many augmented copies are made of it, numbered from 1.
    """

    sample: Sample
    name: str
    copies: int

    def augmented_name(self, n: int) -> str:
        """File name of augmented copy `n`: ``aug_<n>_<original>``, always a JPEG.

        Parameters
        ----------
        n : int
            1 to `copies`.

        Returns
        -------
        str
            The name.
        """
        name = PurePosixPath(self.name)
        jpeg = name.suffix.lower() in (".jpg", ".jpeg")
        return f"aug_{n}_{self.name if jpeg else name.stem + '.jpg'}"


@dataclass(frozen=True)
class BalancePlan:
    """Which original is drawn how many times.

    Attributes
    ----------
    root : Path
        The folder that the originals' paths are relative to.
    entries : tuple of PlanEntry
        One for each original, in the manifest's order.
    seed : int
        The user's seed.
    target : int
        Images that every class ends with.
    manifest_digest : str
        Digest of the rows that were planned.
    scheme : ClassScheme
        Of the rows.
    notes : tuple of str
        What a person should know.
    """

    root: Path
    entries: tuple[PlanEntry, ...]
    seed: int
    target: int
    manifest_digest: str
    scheme: ClassScheme
    notes: tuple[str, ...] = ()

    @property
    def originals(self) -> npt.NDArray[np.int64]:
        """(K,) int64, originals of each class."""
        labels = [entry.sample.label for entry in self.entries]
        return np.bincount(labels, minlength=len(self.scheme)).astype(np.int64)

    @property
    def augmented(self) -> npt.NDArray[np.int64]:
        """(K,) int64, augmented copies of each class."""
        counts = np.zeros(len(self.scheme), dtype=np.int64)
        for entry in self.entries:
            counts[entry.sample.label] += entry.copies
        return counts

    @property
    def total(self) -> int:
        """Images of the balanced folder."""
        return int(self.originals.sum() + self.augmented.sum())

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over seed, target and every entry; the root does not count."""
        rows = [
            [self.scheme.names[e.sample.label], e.sample.path, e.sample.sha256, e.name, e.copies]
            for e in self.entries
        ]
        return digest_json(
            {"algorithm": ALGORITHM, "seed": self.seed, "target": self.target, "rows": rows}
        )

    def files(self) -> Iterator[tuple[PlanEntry, int, str]]:
        """Every file of the balanced folder.

        Yields
        ------
        entry : PlanEntry
            The original.
        n : int
            0 for the original itself, else the number of the copy.
        path : str
            Relative to the balanced folder, ``<class>/<name>``.
        """
        for entry in self.entries:
            folder = self.scheme.names[entry.sample.label]
            yield entry, 0, f"{folder}/{entry.name}"
            for n in range(1, entry.copies + 1):
                yield entry, n, f"{folder}/{entry.augmented_name(n)}"


def plan_balance(manifest: Manifest, *, seed: int = 0, target: int | None = None) -> BalancePlan:
    """Decide how often every original is drawn so that all classes are equally large.

    Within a class no original is drawn twice more than another; which ones get the odd copy is
    drawn from the seed, so that no slide is favoured by its name.

    Parameters
    ----------
    manifest : Manifest
        Training rows only.
    seed : int
        Decides the odd copies and, later, every draw.
    target : int, optional
        Images for each class; the largest class's number when left out.

    Returns
    -------
    BalancePlan
        With the manifest's order.

    Raises
    ------
    DataError
        When the rows are validation or test rows, are already balanced, lack a class, or when a
        class is larger than `target`.

    Notes
    -----
    Names that differ only in case, or only in their folder or suffix, would meet in one class
    folder; the later one in the manifest's order gets ``~2`` (``~3``, ...) behind its stem.
    """
    refuse_rows(manifest)
    manifest.require_all_classes("Balancing")
    counts = manifest.counts
    largest = int(counts.max())
    if target is None:
        target = largest
    elif target < largest:
        raise DataError(
            f"The target of {target} images for each class is below the {largest} originals of "
            f"{manifest.scheme.names[int(counts.argmax())]}; balancing never leaves originals "
            f"out. Give {largest} or more."
        )
    copies = np.zeros(len(manifest), dtype=np.int64)
    labels = manifest.labels
    for label in range(len(manifest.scheme)):
        rows = np.flatnonzero(labels == label)
        every, odd = divmod(target - len(rows), len(rows))
        copies[rows] = every
        keys = {row: sample_key(manifest.samples[row], manifest.scheme) for row in rows}
        by_lot = sorted(rows, key=lambda row: _lot(seed, keys[row]))
        copies[by_lot[:odd]] += 1
    names, notes = _output_names(manifest)
    entries = tuple(
        PlanEntry(sample, name, int(n))
        for sample, name, n in zip(manifest.samples, names, copies, strict=True)
    )
    return BalancePlan(
        manifest.root, entries, seed, target, manifest.digest, manifest.scheme, notes
    )


def _lot(seed: int, key: str) -> bytes:
    """Sort key that shuffles by seed."""
    text = f"leuko.lot/{ALGORITHM}\n{seed}\n{key}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def is_held_out(name: str) -> bool:
    """Tell whether a folder's name means validation or test.

    Parameters
    ----------
    name : str
        Of a folder.

    Returns
    -------
    bool
    """
    return _HELD_OUT.fullmatch(re.sub(r"[\s_-]", "", name.lower())) is not None


def refuse_rows(manifest: Manifest) -> None:
    """Raise for rows that must not be augmented.

    Parameters
    ----------
    manifest : Manifest
        Any rows.

    Raises
    ------
    DataError
        When they are validation or test rows, or augmented copies themselves.
    """
    splits = sorted({s.split for s in manifest.samples if s.split in ("validation", "test")})
    if splits:
        raise DataError(
            f"Only training rows are balanced; received {' and '.join(splits)} rows of "
            f"{manifest.root}. An augmented copy there would be scored as if it were a new cell."
        )
    if is_held_out(manifest.root.name):
        raise DataError(
            f"Only training rows are balanced; {manifest.root} is a validation or test folder. "
            "Give the folder with the training images."
        )
    for sample in manifest.samples:
        folders = PurePosixPath(sample.path).parts[:-1]
        if any(is_held_out(folder) for folder in folders):
            raise DataError(
                f"Only training rows are balanced; {sample.path} lies in a validation or test "
                "folder. Leave such rows out of the table."
            )
    copies = [sample for sample in manifest.samples if sample.augmented]
    if copies:
        raise DataError(
            f"{manifest.root} is already balanced: {len(copies)} of its {len(manifest)} files are "
            f"augmented copies, such as {copies[0].path}. Balance the folder with the originals; a "
            "copy of a copy would be turned and resampled twice."
        )


def _output_names(manifest: Manifest) -> tuple[list[str], tuple[str, ...]]:
    """File names in the class folders, no two alike even where case does not count."""
    taken: set[tuple[int, str]] = set()
    names: list[str] = []
    renamed: list[str] = []
    other_formats = 0
    own = {(s.label, _folded(PurePosixPath(s.path).stem)) for s in manifest.samples}
    for sample in manifest.samples:
        path = PurePosixPath(sample.path)
        stem, again = path.stem, 1
        while (sample.label, _folded(stem)) in taken or (
            again > 1 and (sample.label, _folded(stem)) in own
        ):
            again += 1
            stem = f"{path.stem}~{again}"
        taken.add((sample.label, _folded(stem)))
        names.append(stem + path.suffix)
        if again > 1:
            renamed.append(f"{sample.path} as {names[-1]}")
        other_formats += path.suffix.lower() not in (".jpg", ".jpeg")
    notes = []
    if renamed:
        notes.append(
            f"{len(renamed)} originals are copied under another name, because theirs was taken "
            f"in their class: {', '.join(renamed[:3])}{', ...' if len(renamed) > 3 else ''}."
        )
    if other_formats:
        notes.append(
            f"{other_formats} originals are not called .jpg; they are copied as they are, and "
            "their augmented copies are JPEG files with the same stem."
        )
    return names, tuple(notes)


def _folded(text: str) -> str:
    """Text as a file system without case and with composed letters sees it."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
