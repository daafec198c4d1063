"""What of an audit a user should know: one check a function, the gravest first.

A check reads the report and gives findings, which have no words. The words of each kind stand in
`leuko.render.audit`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from leuko.data.audit.background import BackgroundTest
from leuko.data.audit.report import (
    AlikeSlides,
    AuditReport,
    Confounded,
    Finding,
    NearDuplicate,
    Property,
    SharedBetween,
)
from leuko.manifest import Note
from leuko.statistics import MINIMUM_SLIDES

__all__ = [
    "CHECKS",
    "AcrossSplits",
    "AugmentedCopies",
    "BackgroundTells",
    "CellsShownTwice",
    "ConfoundedClass",
    "FewSlides",
    "IdenticalFiles",
    "ImagesDiffer",
    "Imbalanced",
    "LabelsAtOdds",
    "MissingClasses",
    "NotedOnReading",
    "SlidePhotographedAgain",
    "SlidesShared",
    "UnusableFiles",
    "find_all",
]

Check = Callable[[AuditReport], Iterator[Finding]]

_IMBALANCED: Final = 3.0
_SAME_SLIDE: Final = 3
"""Pairs of images that show one cell, from which on two slides are taken for one."""

_PROPERTIES: Final[tuple[Property, ...]] = ("sizes", "modes", "formats")


def find_all(report: AuditReport) -> tuple[Finding, ...]:
    """Run every check.

    Parameters
    ----------
    report : AuditReport
        Its own `findings` are not looked at.

    Returns
    -------
    tuple of Finding
        The gravest first.
    """
    return tuple(finding for check in CHECKS for finding in check(report))


@dataclass(frozen=True, slots=True)
class SlidesShared(Finding):
    """Two splits have slides in common."""

    code = "shared-slides"
    between: SharedBetween


def _shared_slides(report: AuditReport) -> Iterator[Finding]:
    """Find splits with slides in common."""
    for row in report.shared_slides.between:
        if row.count:
            yield SlidesShared("warning", row)


@dataclass(frozen=True, slots=True)
class BackgroundTells(Finding):
    """How well the background alone names the cells."""

    code = "background"
    test: BackgroundTest


def _background(report: AuditReport) -> Iterator[Finding]:
    """Tell how the background test came out."""
    test = report.background
    if isinstance(test, BackgroundTest):
        yield BackgroundTells("warning" if test.given_away else "note", test)


@dataclass(frozen=True, slots=True)
class ConfoundedClass(Finding):
    """A class goes with a slide."""

    code = "class-and-slide"
    row: Confounded


def _class_and_slide(report: AuditReport) -> Iterator[Finding]:
    """Find classes that slides give away."""
    for row in report.confounding:
        yield ConfoundedClass("warning", row)


@dataclass(frozen=True, slots=True)
class AcrossSplits(Finding):
    """Groups of images in two splits that show one cell."""

    code = "across-splits"
    groups: int


def _across_splits(report: AuditReport) -> Iterator[Finding]:
    """Find cells that are in two splits."""
    if report.across_splits:
        yield AcrossSplits("warning", len(report.across_splits))


@dataclass(frozen=True, slots=True)
class LabelsAtOdds(Finding):
    """Groups of images of one cell under two class names, and two images of the first group."""

    code = "labels-at-odds"
    groups: int
    example: tuple[str, ...]


def _labels_at_odds(report: AuditReport) -> Iterator[Finding]:
    """Find cells under two class names."""
    if groups := report.labelled_differently:
        yield LabelsAtOdds("warning", len(groups), groups[0][:2])


@dataclass(frozen=True, slots=True)
class UnusableFiles(Finding):
    """Files that are no usable images: by reason, the commonest first, and the first path."""

    code = "unusable-files"
    reasons: tuple[tuple[str, int], ...]
    first: str


def _unusable_files(report: AuditReport) -> Iterator[Finding]:
    """Find files that are no images."""
    if rejected := report.rejected:
        reasons = Counter(file.reason for file in rejected)
        yield UnusableFiles("warning", tuple(reasons.most_common()), rejected[0].path)


@dataclass(frozen=True, slots=True)
class IdenticalFiles(Finding):
    """How many files repeat another one byte for byte."""

    code = "identical-files"
    repeats: int


def _identical_files(report: AuditReport) -> Iterator[Finding]:
    """Find files that are there twice."""
    if report.duplicates:
        yield IdenticalFiles("warning", report.repeated_files)


@dataclass(frozen=True, slots=True)
class CellsShownTwice(Finding):
    """Pairs of different files that show one cell, and the surest."""

    code = "cells-shown-twice"
    pairs: int
    example: NearDuplicate


def _cells_shown_twice(report: AuditReport) -> Iterator[Finding]:
    """Find other files that show one cell."""
    if pairs := report.near_duplicates:
        yield CellsShownTwice("warning", len(pairs), pairs[0])


@dataclass(frozen=True, slots=True)
class SlidePhotographedAgain(Finding):
    """One slide stands under two names."""

    code = "one-slide-two-names"
    slides: AlikeSlides


def _slides_under_two_names(report: AuditReport) -> Iterator[Finding]:
    """Find slides whose cells come back on another."""
    for row in report.alike_slides:
        if row.pairs >= _SAME_SLIDE:
            yield SlidePhotographedAgain("warning", row)


@dataclass(frozen=True, slots=True)
class MissingClasses(Finding):
    """Classes without an image in a split."""

    code = "missing-class"
    split: str
    names: tuple[str, ...]


def _missing_classes(report: AuditReport) -> Iterator[Finding]:
    """Find classes that a split lacks."""
    for split in report.splits:
        names = zip(report.scheme.names, split.counts, strict=True)
        if missing := tuple(name for name, n in names if n == 0):
            yield MissingClasses("warning", split.name, missing)


@dataclass(frozen=True, slots=True)
class Imbalanced(Finding):
    """A split's largest and smallest class, their ratio, and the largest's share of all."""

    code = "imbalance"
    split: str
    most: str
    least: str
    ratio: float
    share: float


def _imbalance(report: AuditReport) -> Iterator[Finding]:
    """Find splits with a class much larger than another."""
    for split in report.splits:
        ratio = split.imbalance
        if ratio is not None and ratio >= _IMBALANCED:
            counts = {
                name: n for name, n in zip(report.scheme.names, split.counts, strict=True) if n
            }
            most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
            yield Imbalanced("note", split.name, most, least, ratio, counts[most] / split.n)


@dataclass(frozen=True, slots=True)
class FewSlides(Finding):
    """Classes of a split that come from fewer slides than an interval needs, with how many."""

    code = "few-slides"
    split: str
    slides: tuple[tuple[str, int], ...]


def _few_slides(report: AuditReport) -> Iterator[Finding]:
    """Find classes with too few slides for an interval."""
    for split in report.splits:
        slides = [sum(map(bool, column)) for column in zip(*split.slides.values(), strict=True)]
        named = zip(report.scheme.names, slides, strict=False)  # without slides there are none
        if few := tuple((name, n) for name, n in named if 0 < n < MINIMUM_SLIDES):
            yield FewSlides("note", split.name, few)


@dataclass(frozen=True, slots=True)
class ImagesDiffer(Finding):
    """What the images are not alike in, with the commonest values."""

    code = "images-differ"
    property: Property
    commonest: tuple[tuple[str, int], ...]


def _images_differ(report: AuditReport) -> Iterator[Finding]:
    """Find images that differ in size, colour mode or format."""
    for what in _PROPERTIES:
        everything = report.together(what)
        if len(everything) > 1:
            yield ImagesDiffer("note", what, tuple(everything.most_common(5)))


@dataclass(frozen=True, slots=True)
class AugmentedCopies(Finding):
    """Augmented copies and originals of a split."""

    code = "augmented-copies"
    split: str
    copies: int
    originals: int


def _augmented_copies(report: AuditReport) -> Iterator[Finding]:
    """Find splits with copies that balancing has made."""
    for split in report.splits:
        if split.copies:
            yield AugmentedCopies(
                "note" if split.name == "train" else "warning",
                split.name,
                split.copies,
                split.n - split.copies,
            )


@dataclass(frozen=True, slots=True)
class NotedOnReading(Finding):
    """What was noted when the folder was read."""

    code = "reading"
    note: str


def _reading(report: AuditReport) -> Iterator[Finding]:
    """Pass on what was noted on reading and no other check finds."""
    for note in report.notes:
        code = Note.code_of(note)
        if code not in ("missing-class", "augmented-copies"):
            yield NotedOnReading("warning" if code == "another-class" else "note", note)


CHECKS: Final[tuple[Check, ...]] = (
    _shared_slides,
    _background,
    _class_and_slide,
    _across_splits,
    _labels_at_odds,
    _unusable_files,
    _identical_files,
    _cells_shown_twice,
    _slides_under_two_names,
    _missing_classes,
    _imbalance,
    _few_slides,
    _images_differ,
    _augmented_copies,
    _reading,
)
"""In this order their findings are told."""
