"""What an audit found, as values; `leuko.render.audit` says it in words and writes the document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from leuko.data.audit.background import BackgroundSkipped, BackgroundTest
from leuko.data.rejected import RejectedFile
from leuko.scheme import ClassScheme

__all__ = [
    "AlikeSlides",
    "AuditReport",
    "AuditedSplit",
    "Confounded",
    "Finding",
    "Level",
    "NearDuplicate",
    "Property",
    "SharedBetween",
    "SharedSlides",
]

Level = Literal["warning", "note"]
Property = Literal["sizes", "modes", "formats"]
Groups = tuple[tuple[str, ...], ...]
"""Paths of images that show one cell, group by group."""


@dataclass(frozen=True, slots=True)
class AuditedSplit:
    """One split of a data set.

    Attributes
    ----------
    name : str
        ``train``, ``validation`` or ``test``.
    folder : str
        Relative to the data set.
    digest : str
        Of the manifest.
    counts : tuple of K int
        Images of each class.
    slides : dict of str to tuple of K int
        Images of each class on each slide, sorted; those without a slide are left out.
    copies : int
        Augmented copies among them.
    sizes, modes, formats : dict of str to int
        Of the readable images, the commonest first.
    """

    name: str
    folder: str
    digest: str
    counts: tuple[int, ...]
    slides: Mapping[str, tuple[int, ...]]
    copies: int
    sizes: Mapping[str, int]
    modes: Mapping[str, int]
    formats: Mapping[str, int]

    @property
    def n(self) -> int:
        """All its images."""
        return sum(self.counts)

    @property
    def imbalance(self) -> float | None:
        """Images of the largest class for one of the smallest class present."""
        present = [n for n in self.counts if n]
        return max(present) / min(present) if present else None


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Two files that show one cell, and in how many bits their hashes differ."""

    first: str
    second: str
    distance: int


@dataclass(frozen=True, slots=True)
class AlikeSlides:
    """Two slides, and how many pairs of images show one cell on both."""

    first: str
    second: str
    pairs: int


@dataclass(frozen=True, slots=True)
class SharedBetween:
    """How many slides two splits have in common, and how many each has."""

    first: str
    second: str
    count: int
    n_first: int
    n_second: int


@dataclass(frozen=True, slots=True)
class SharedSlides:
    """Slides that stand in more than one split."""

    names: tuple[str, ...]
    between: tuple[SharedBetween, ...]


@dataclass(frozen=True, slots=True)
class Confounded:
    """A class of a split that a slide, or slides of its own, give away.

    Attributes
    ----------
    name, split : str
        The class and the split.
    kind : {"one slide", "slides of its own"}
        What gives it away.
    slides : tuple of str
        The slide, or those that hold no other class.
    n, total : int
        Images on them, and all of the class in the split.
    elsewhere : int
        Images of the class on the one slide in other splits.
    """

    name: str
    split: str
    kind: Literal["one slide", "slides of its own"]
    slides: tuple[str, ...]
    n: int
    total: int
    elsewhere: int = 0

    @property
    def share(self) -> float:
        """Share of the class's images that is given away."""
        return self.n / self.total


@dataclass(frozen=True, slots=True)
class Finding:
    """What a user should know, without its words.

    Attributes
    ----------
    code : str
        What kind of finding it is; each is a class of `leuko.data.audit.findings`.
    level : {"warning", "note"}
        A warning may make a score mean something else than skill.
    """

    code: ClassVar[str]
    level: Level


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What is in a data set, and what is wrong with it.

    Attributes
    ----------
    dataset : str
        The folder; all paths are relative to it where they lie in it.
    data_digest : str
        Of all splits.
    seed : int
        Of the background test.
    scheme : ClassScheme
        Of K classes.
    splits : tuple of AuditedSplit
        In the order train, validation, test.
    rejected : tuple of RejectedFile
        Files that are no usable images.
    duplicates : tuple of tuples of str
        Groups of files with the same content.
    near_duplicates : tuple of NearDuplicate
        Pairs of other files that show one cell, the surest first.
    alike_slides : tuple of AlikeSlides
        Slides whose cells come back under another slide's name.
    across_splits, labelled_differently : tuple of tuples of str
        Those groups and pairs that lie in two splits, and under two class names.
    shared_slides : SharedSlides
        Slides that stand in more than one split.
    confounding : tuple of Confounded
        Classes that slides give away.
    background : BackgroundTest or BackgroundSkipped
        Whether the background alone names the cells.
    notes : tuple of str
        What was noted when the folder was read.
    findings : tuple of Finding
        See `leuko.data.audit.findings.find_all`, the gravest first.
    """

    dataset: str
    data_digest: str
    seed: int
    scheme: ClassScheme
    splits: tuple[AuditedSplit, ...]
    rejected: tuple[RejectedFile, ...]
    duplicates: Groups
    near_duplicates: tuple[NearDuplicate, ...]
    alike_slides: tuple[AlikeSlides, ...]
    across_splits: Groups
    labelled_differently: Groups
    shared_slides: SharedSlides
    confounding: tuple[Confounded, ...]
    background: BackgroundTest | BackgroundSkipped
    notes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def repeated_files(self) -> int:
        """How many files repeat another one byte for byte."""
        return sum(len(group) - 1 for group in self.duplicates)

    def together(self, what: Property) -> Counter[str]:
        """Sizes, colour modes or formats of all splits.

        Parameters
        ----------
        what : {"sizes", "modes", "formats"}
            Which.

        Returns
        -------
        Counter of str
            Images by value.
        """
        everything: Counter[str] = Counter()
        for split in self.splits:
            everything.update(getattr(split, what))
        return everything
