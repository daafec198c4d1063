"""An audit in words: on a terminal, and as the document ``audit.json``."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from leuko.data.audit import findings as found
from leuko.data.audit.background import (
    AT_LEAST,
    RING,
    RING_FEATURES,
    BackgroundSkipped,
    BackgroundTest,
)
from leuko.data.audit.report import AuditReport, Confounded, Finding, Property
from leuko.render.words import aligned
from leuko.statistics import MINIMUM_SLIDES
from leuko.support.artifacts import RESEARCH_USE, schema

__all__ = ["audit_document", "finding_sentence", "finding_title", "format_audit"]

_LISTED: Final = 200
_NAMED: Final = 6
_PROPERTIES: Final[Mapping[Property, str]] = {
    "sizes": "sizes",
    "modes": "colour modes",
    "formats": "formats",
}
_TITLES: Final[Mapping[str, str]] = {
    "shared-slides": "Shared slides",
    "background": "Background",
    "class-and-slide": "Class and slide",
    "across-splits": "Same cell in two splits",
    "labels-at-odds": "Labels at odds",
    "unusable-files": "Unusable files",
    "identical-files": "Identical files",
    "cells-shown-twice": "Cells shown twice",
    "one-slide-two-names": "One slide, two names",
    "missing-class": "Missing class",
    "imbalance": "Imbalance",
    "few-slides": "Few slides",
    "augmented-copies": "Augmented copies",
    "reading": "Reading",
}


def finding_title(finding: Finding) -> str:
    """Name a finding.

    Parameters
    ----------
    finding : Finding
        Of an audit.

    Returns
    -------
    str
        A few words.
    """
    if isinstance(finding, found.ImagesDiffer):
        return _PROPERTIES[finding.property].capitalize()
    return _TITLES[finding.code]


@functools.singledispatch
def finding_sentence(finding: Finding) -> str:
    """Say what was found.

    Parameters
    ----------
    finding : Finding
        Of an audit.

    Returns
    -------
    str
        A sentence or two.
    """
    raise TypeError(f"No sentence is known for the finding {finding.code!r}.")


@finding_sentence.register
def _(finding: found.SlidesShared) -> str:
    row = finding.between
    return (
        f"{row.count} of the {row.n_second} slides of {row.second} are also in {row.first}; "
        f"a score on {row.second} partly measures memory of those slides."
    )


@finding_sentence.register
def _(finding: found.BackgroundTells) -> str:
    return _background_sentence(finding.test)


@finding_sentence.register
def _(finding: found.ConfoundedClass) -> str:
    return _confounded_sentence(finding.row)


@finding_sentence.register
def _(finding: found.AcrossSplits) -> str:
    return f"{_groups(finding.groups)} the same cell in two splits."


@finding_sentence.register
def _(finding: found.LabelsAtOdds) -> str:
    return (
        f"{_groups(finding.groups)} the same cell under two class names, such as "
        f"{' and '.join(finding.example)}."
    )


@finding_sentence.register
def _(finding: found.UnusableFiles) -> str:
    reasons = ", ".join(f"{n} {reason}" for reason, n in finding.reasons)
    return (
        f"{sum(n for _, n in finding.reasons)} files are no usable images ({reasons}), the first "
        f"is {finding.first}."
    )


@finding_sentence.register
def _(finding: found.IdenticalFiles) -> str:
    files = "1 file repeats" if finding.repeats == 1 else f"{finding.repeats} files repeat"
    return f"{files} another one byte for byte."


@finding_sentence.register
def _(finding: found.CellsShownTwice) -> str:
    return (
        f"{_groups(finding.pairs)} the same cell in different files, such as "
        f"{finding.example.first} and {finding.example.second}."
    )


@finding_sentence.register
def _(finding: found.SlidePhotographedAgain) -> str:
    row = finding.slides
    return (
        f"{row.pairs} cells of slide {row.first} come back on slide {row.second}; keep the two on "
        "one side of every split."
    )


@finding_sentence.register
def _(finding: found.MissingClasses) -> str:
    return f"{finding.split} has no image of {', '.join(finding.names)}."


@finding_sentence.register
def _(finding: found.Imbalanced) -> str:
    return (
        f"{finding.split} has {finding.ratio:.0f} {finding.most} images for one of "
        f"{finding.least}; always answering {finding.most} is right in "
        f"{100 * finding.share:.1f}% of it."
    )


@finding_sentence.register
def _(finding: found.FewSlides) -> str:
    few = ", ".join(f"{name} ({n})" for name, n in finding.slides)
    return (
        f"In {finding.split}, these classes come from fewer than {MINIMUM_SLIDES} slides, too few "
        f"for an interval: {few}."
    )


@finding_sentence.register
def _(finding: found.ImagesDiffer) -> str:
    commonest = ", ".join(f"{n} of {value}" for value, n in finding.commonest)
    return f"The images differ in {_PROPERTIES[finding.property]}: {commonest}."


@finding_sentence.register
def _(finding: found.AugmentedCopies) -> str:
    return (
        f"{finding.split} holds {finding.copies} augmented copies (aug_<n>_...) beside "
        f"{finding.originals} originals; a copy belongs to its original's slide."
    )


@finding_sentence.register
def _(finding: found.NotedOnReading) -> str:
    return finding.note


def _groups(n: int) -> str:
    """Subject and verb for a number of pairs or groups."""
    return "1 pair of images shows" if n == 1 else f"{n} pairs or groups of images show"


def _confounded_slides(row: Confounded) -> str:
    """The slides that give a class away, the first of many."""
    return ", ".join([*row.slides[:_NAMED], *(["..."] if len(row.slides) > _NAMED else [])])


def _confounded_sentence(row: Confounded) -> str:
    """Which class goes with which slides."""
    slides = _confounded_slides(row)
    if row.kind == "one slide":
        also = f", which also gives {row.elsewhere} to the other splits" if row.elsewhere else ""
        return (
            f"{row.n} of {row.total} {row.name} images of {row.split} come from one slide, "
            f"{slides}{also}."
        )
    every = "All" if row.n == row.total else f"{row.n} of"
    return (
        f"{every} {row.total} {row.name} images of {row.split} come from slides or days that hold "
        f"no other class ({slides})."
    )


def _background_sentence(test: BackgroundTest) -> str:
    """What the background alone names, beside what guessing reaches."""
    overall = f"balanced accuracy {test.balanced_accuracy:.2f} where chance is {test.chance:.2f}"
    if test.given_away:
        named = " and ".join(
            f"{100 * part:.0f}% of {name}" for name, part in test.given_away.items()
        )
        return (
            f"The background alone, without the cell, names {named} ({overall}); always answering "
            f"{test.majority_class} names none of the others, and guessing evenly names "
            f"{100 * test.chance:.0f}% of each class. A network may learn stain, slide or camera "
            "in place of these cells."
        )
    if test.beats_guessing:
        return (
            "The background alone gives no single class away, but it does better than guessing "
            f"({overall})."
        )
    return f"The background alone does not name the cells ({overall})."


def _skipped_sentence(skipped: BackgroundSkipped) -> str:
    """Why there was no background test."""
    have = ", ".join(f"{n} of {name}" for name, n in skipped.classes)
    return {
        "not-asked": "it was not asked for.",
        "missing-package": skipped.detail,
        "unreadable": "no image is readable.",
        "too-few": f"it needs at least {AT_LEAST} readable images of two classes; there are "
        f"{have}.",
        "not-taught": "no tested image has a class that the training images teach.",
        "one-slide": "all images come from one slide, so no part can be held out.",
    }[skipped.code]


def audit_document(report: AuditReport) -> dict[str, Any]:
    """Write the document of an audit.

    Parameters
    ----------
    report : AuditReport
        From `leuko.audit_dataset`.

    Returns
    -------
    dict
        Plain values of schema ``leuko.audit/1``, with the sentences of the findings.
    """
    names, splits = report.scheme.names, report.splits
    return {
        "schema": schema("audit"),
        "research_use": RESEARCH_USE,
        "dataset": report.dataset,
        "data_digest": report.data_digest,
        "seed": report.seed,
        "splits": {s.name: {"folder": s.folder, "n": s.n, "digest": s.digest} for s in splits},
        "scheme": report.scheme.to_dict(),
        "classes": {s.name: dict(zip(names, s.counts, strict=True)) for s in splits},
        "sizes": {s.name: dict(s.sizes) for s in splits},
        "modes": {s.name: dict(s.modes) for s in splits},
        "formats": {s.name: dict(s.formats) for s in splits},
        "rejected": [one.to_dict() for one in report.rejected],
        "duplicates": [list(group) for group in report.duplicates],
        "near_duplicates": [[p.first, p.second, p.distance] for p in report.near_duplicates],
        "near_duplicate_count": len(report.near_duplicates),
        "slides_photographed_again": [
            {"slides": [row.first, row.second], "pairs": row.pairs} for row in report.alike_slides
        ],
        "shared_slides": _shared_document(report),
        "slides": {s.name: _slide_document(s.slides, names) for s in splits},
        "confounding": [_confounded_document(row) for row in report.confounding],
        "imbalance": {s.name: s.imbalance for s in splits},
        "notes": list(report.notes),
        "background_test": _background_document(report.background),
        "across_splits": [list(group) for group in report.across_splits],
        "labelled_differently": [list(group) for group in report.labelled_differently],
        "findings": [
            {"level": f.level, "title": finding_title(f), "sentence": finding_sentence(f)}
            for f in report.findings
        ],
    }


def _shared_document(report: AuditReport) -> dict[str, Any]:
    """Slides that stand in more than one split."""
    return {
        "count": len(report.shared_slides.names),
        "names": list(report.shared_slides.names),
        "between": [
            {
                "splits": [row.first, row.second],
                "count": row.count,
                "slides": {row.first: row.n_first, row.second: row.n_second},
            }
            for row in report.shared_slides.between
        ],
    }


def _slide_document(
    slides: Mapping[str, tuple[int, ...]], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Images of the classes that each slide has."""
    return {
        slide: {name: n for name, n in zip(names, counts, strict=True) if n}
        for slide, counts in slides.items()
    }


def _confounded_document(row: Confounded) -> dict[str, Any]:
    """One confounded class."""
    return {
        "class": row.name,
        "slide": _confounded_slides(row),
        "split": row.split,
        "share": row.share,
        "kind": row.kind,
        "sentence": _confounded_sentence(row),
    }


def _background_document(test: BackgroundTest | BackgroundSkipped) -> dict[str, Any]:
    """The background test, or why there was none."""
    if isinstance(test, BackgroundSkipped):
        return {"skipped": _skipped_sentence(test)}
    return {
        "accuracy": test.accuracy,
        "balanced_accuracy": test.balanced_accuracy,
        "majority": test.majority,
        "majority_class": test.majority_class,
        "chance": test.chance,
        "per_class_recall": test.recall,
        "n": test.n,
        "ring": RING,
        "trained_on": test.trained_on,
        "tested_on": test.tested_on,
        "features": list(RING_FEATURES),
        "seed": test.seed,
        "sentence": _background_sentence(test),
    }


def format_audit(report: AuditReport) -> str:
    """Render an audit as text for a terminal.

    Parameters
    ----------
    report : AuditReport
        From `leuko.audit_dataset`.

    Returns
    -------
    str
        Tables and sentences, no control characters.
    """
    lines = [f"Data set {report.dataset}", "", *aligned(_split_rows(report)), ""]
    lines += [f"{title + ':':<18}{_commonest(report, what)}" for what, title in _PROPERTIES.items()]
    lines += [
        f"{'unusable files:':<18}{len(report.rejected)}",
        f"{'identical files:':<18}{report.repeated_files}",
        f"{'near duplicates:':<18}{len(report.near_duplicates)} pairs",
        f"{'shared slides:':<18}{len(report.shared_slides.names)}",
        "",
        *_background_lines(report.background),
    ]
    if report.rejected:
        lines += ["", "Unusable files"]
        lines += [f"  {one.path}: {one.reason}" for one in report.rejected[:_LISTED]]
        if len(report.rejected) > _LISTED:
            lines.append(f"  and {len(report.rejected) - _LISTED} more")
    lines += ["", "Findings" if report.findings else "Nothing stands out."]
    for finding in report.findings:
        mark = "!" if finding.level == "warning" else "-"
        lines.append(f" {mark} {finding_title(finding)}: {finding_sentence(finding)}")
    return "\n".join([*lines, "", RESEARCH_USE])


def _split_rows(report: AuditReport) -> list[list[str]]:
    """The classes of each split, below a header."""
    splits = report.splits
    ratios = (split.imbalance for split in splits)
    return [
        ["", *(split.name for split in splits)],
        *(
            [name, *(str(split.counts[label]) for split in splits)]
            for label, name in enumerate(report.scheme.names)
        ),
        ["all", *(str(split.n) for split in splits)],
        ["slides", *(str(len(split.slides)) for split in splits)],
        ["largest : smallest", *("-" if ratio is None else f"{ratio:.1f}" for ratio in ratios)],
    ]


def _commonest(report: AuditReport, what: Property) -> str:
    """Sizes, modes or formats, the four commonest."""
    everything = report.together(what)
    text = ", ".join(f"{value} ({n})" for value, n in everything.most_common(4))
    more = f", and {len(everything) - 4} more" if len(everything) > 4 else ""
    return f"{text or 'not looked at'}{more}"


def _background_lines(test: BackgroundTest | BackgroundSkipped) -> list[str]:
    """The background test as a table."""
    if isinstance(test, BackgroundSkipped):
        return [f"Background test skipped: {_skipped_sentence(test)}"]
    chance = f"{100 * test.chance:.0f}%"
    recalls = [[name, f"{100 * recall:.0f}%", chance] for name, recall in test.recall.items()]
    return [
        f"Background test (outer {100 * RING:.1f}% of each side; trained on {test.trained_on}, "
        f"tested on {test.tested_on})",
        *aligned([["class", "recall", "chance"], *recalls]),
        f"accuracy {test.accuracy:.3f}, always {test.majority_class} {test.majority:.3f}; "
        f"balanced accuracy {test.balanced_accuracy:.3f}, chance {test.chance:.3f}",
    ]
