"""What is in a data set, and what is wrong with it, before anything is trained on it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from leuko.data.audit.background import (
    BackgroundSkipped,
    BackgroundTest,
    background_test,
    missing_for_background,
)
from leuko.data.audit.duplicates import identical_files, same_cells
from leuko.data.audit.findings import find_all
from leuko.data.audit.report import (
    AlikeSlides,
    AuditedSplit,
    AuditReport,
    Confounded,
    NearDuplicate,
    SharedBetween,
    SharedSlides,
)
from leuko.data.dataset import Dataset, ImageFacts, Pictures
from leuko.data.rejected import RejectedFile
from leuko.errors import ImageError
from leuko.manifest import Manifest, Sample
from leuko.scheme import ClassScheme
from leuko.support.artifacts import digest_json
from leuko.support.reporter import SILENT, Reporter

__all__ = ["audit_dataset", "audit_manifests"]

_DOMINANT: Final = 0.5
"""Share of a class's images on one slide from which on the slide gives the class away."""

_ALONE: Final = 0.9
"""The same for all slides that hold no other class."""


def audit_dataset(
    dataset: str | os.PathLike[str] | Dataset,
    *,
    background: bool = True,
    seed: int = 0,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> AuditReport:
    """Look at every image of a data set and list what a user should know.

    Parameters
    ----------
    dataset : path-like or Dataset
        See `leuko.data.dataset.Dataset.open`; what an open one has decoded is not decoded again.
    background : bool
        Run the background test. Without scikit-learn it is left out, which the reporter is told
        before any image is decoded, and the report says so.
    seed : int
        For the background test.
    workers : int, optional
        Threads; one for each core when left out. A data set that is open has its own.
    reporter : Reporter, optional
        Told how far it is, and what a person should know.

    Returns
    -------
    AuditReport
        Paths are relative to `dataset`. `leuko.render.audit` has its words and its document.

    Raises
    ------
    DataError
        When there is no data set in the folder.

    References
    ----------
    The questions of the exploratory part (classes, sizes, colour modes, corrupted files) are the
    published notebook's; the others are those that Raabin-WBC makes one ask: Kouzehkanan et al.,
    Scientific Reports 12:1123, 2022.
    """
    opened = Dataset.of(dataset, workers=workers)
    return audit_manifests(
        opened.manifests,
        root=opened.root,
        background=background,
        seed=seed,
        pictures=opened.pictures,
        reporter=reporter,
    )


def audit_manifests(
    manifests: dict[str, Manifest],
    *,
    root: Path,
    background: bool = True,
    seed: int = 0,
    pictures: Pictures | None = None,
    reporter: Reporter = SILENT,
) -> AuditReport:
    """Audit manifests that are already read.

    Parameters
    ----------
    manifests : dict of str to Manifest
        By split: ``train``, ``validation``, ``test``.
    root : Path
        Folder that reported paths are relative to, where they lie in it.
    background : bool
        Run the background test, which needs scikit-learn as in `audit_dataset`.
    seed : int
        For the background test.
    pictures : Pictures, optional
        Decodes them, but those that it has decoded before.
    reporter : Reporter, optional
        Told how far it is, and what a person should know.

    Returns
    -------
    AuditReport
    """
    lacking = missing_for_background() if background else ""
    if lacking:
        reporter.say(f"The background test is left out: {lacking}")
    tested = background and not lacking
    rows = _Rows.of(manifests, root)
    seen = _Seen()
    decoder = pictures or Pictures()
    facts = decoder.facts(rows.files, rings=tested, reporter=reporter, stage="looking")
    for position, told in enumerate(facts):
        seen.add(rows, position, told)
    groups = identical_files([sample.sha256 for sample in rows.samples])
    pairs = _near(seen, groups, reporter)
    skipped = BackgroundSkipped("missing-package" if lacking else "not-asked", detail=lacking)
    splits = tuple(_split_of(split, m, seen, root) for split, m in manifests.items())
    same_cell = [*((one, two) for one, two, _ in pairs), *groups]
    report = AuditReport(
        dataset=root.as_posix(),
        data_digest=digest_json({split: m.digest for split, m in manifests.items()}),
        seed=seed,
        scheme=rows.scheme,
        splits=splits,
        rejected=tuple(seen.rejected),
        duplicates=tuple(rows.paths_of(group) for group in groups),
        near_duplicates=tuple(
            NearDuplicate(rows.paths[one], rows.paths[two], bits) for one, two, bits in pairs
        ),
        alike_slides=_alike(rows.samples, pairs),
        across_splits=rows.differing(same_cell, rows.splits),
        labelled_differently=rows.differing(same_cell, [s.label for s in rows.samples]),
        shared_slides=_shared(manifests),
        confounding=tuple(_confounding(splits, rows.scheme.names)),
        background=_background(rows, seen, seed, reporter) if tested else skipped,
        notes=tuple(dict.fromkeys(note for m in manifests.values() for note in m.notes)),
    )
    return replace(report, findings=find_all(report))


@dataclass(frozen=True)
class _Rows:
    """The rows of all splits, one after the other."""

    scheme: ClassScheme
    samples: list[Sample]
    splits: list[str]
    files: list[Path]
    paths: list[str]

    @classmethod
    def of(cls, manifests: Mapping[str, Manifest], root: Path) -> _Rows:
        """Lay them out; paths are as reported."""
        files = [file for m in manifests.values() for file in m.files()]
        return cls(
            next(iter(manifests.values())).scheme,
            [sample for m in manifests.values() for sample in m.samples],
            [split for split, m in manifests.items() for _ in m.samples],
            files,
            [_relative(file, root) for file in files],
        )

    def paths_of(self, group: Sequence[int]) -> tuple[str, ...]:
        """Paths of a group of rows."""
        return tuple(self.paths[position] for position in group)

    def differing(
        self, groups: Sequence[Sequence[int]], values: Sequence[str | int]
    ) -> tuple[tuple[str, ...], ...]:
        """Groups of rows that have not all one value."""
        return tuple(self.paths_of(g) for g in groups if len({values[i] for i in g}) > 1)


@dataclass
class _Seen:
    """What the images gave away, as they come."""

    readable: list[int] = field(default_factory=list)
    small: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    rings: list[npt.NDArray[np.float32]] = field(default_factory=list)
    rejected: list[RejectedFile] = field(default_factory=list)
    counts: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    """Of a split, and of its sizes, modes or formats: images by value."""

    def add(self, rows: _Rows, position: int, told: ImageFacts | ImageError) -> None:
        """Take up one image, or why there is none."""
        if isinstance(told, ImageError):
            file, path = rows.files[position], rows.paths[position]
            self.rejected.append(RejectedFile.of(told, file, path))
            return
        for what, value in (("sizes", told.size), ("modes", told.mode), ("formats", told.format)):
            self.counts.setdefault((rows.splits[position], what), Counter())[value] += 1
        self.readable.append(position)
        self.small.append(told.thumbnail)
        if told.ring is not None:
            self.rings.append(told.ring)

    def commonest(self, split: str, what: str) -> dict[str, int]:
        """Images of a split by value, the commonest first."""
        return dict(self.counts.get((split, what), Counter()).most_common())


def _near(
    seen: _Seen, groups: Sequence[Sequence[int]], reporter: Reporter
) -> list[tuple[int, int, int]]:
    """Pairs of rows that show one cell in other bytes, and how far their hashes are apart."""
    if not seen.small:
        return []
    reporter.progress("comparing", 0, 1)
    same = {position: number for number, group in enumerate(groups) for position in group}
    near = (
        (seen.readable[one], seen.readable[two], bits)
        for one, two, bits in same_cells(np.stack(seen.small))
    )
    return [(a, b, bits) for a, b, bits in near if same.get(a, -1) != same.get(b, -2)]


def _background(
    rows: _Rows, seen: _Seen, seed: int, reporter: Reporter
) -> BackgroundTest | BackgroundSkipped:
    """Run the background test on what was readable."""
    if not seen.readable:
        return BackgroundSkipped("unreadable")
    reporter.progress("background test", 0, 1)
    found = background_test(
        np.stack(seen.rings),
        np.array([rows.samples[i].label for i in seen.readable], dtype=np.int64),
        [rows.samples[i].slide for i in seen.readable],
        [rows.splits[i] for i in seen.readable],
        rows.scheme.names,
        seed=seed,
    )
    reporter.progress("background test", 1, 1)
    return found


def _relative(path: Path, root: Path) -> str:
    """Path as reported: relative to the data set where it lies in it."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()


def _split_of(name: str, manifest: Manifest, seen: _Seen, root: Path) -> AuditedSplit:
    """What is known of one split."""
    return AuditedSplit(
        name,
        folder=_relative(manifest.root, root),
        digest=manifest.digest,
        counts=tuple(manifest.counts.tolist()),
        slides=_slide_table(manifest),
        copies=sum(sample.augmented for sample in manifest.samples),
        sizes=seen.commonest(name, "sizes"),
        modes=seen.commonest(name, "modes"),
        formats=seen.commonest(name, "formats"),
    )


def _slide_table(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """Images of each class on each slide; images without a slide are left out."""
    table = Counter((sample.slide, sample.label) for sample in manifest.samples if sample.slide)
    return {
        slide: tuple(table[slide, label] for label in range(len(manifest.scheme)))
        for slide in sorted({slide for slide, _ in table})
    }


def _shared(manifests: Mapping[str, Manifest]) -> SharedSlides:
    """Slides that stand in more than one split."""
    slides = {split: {s.slide for s in m.samples if s.slide} for split, m in manifests.items()}
    common = {(one, two): slides[one] & slides[two] for one, two in combinations(slides, 2)}
    return SharedSlides(
        tuple(sorted(set().union(*common.values()))),
        tuple(
            SharedBetween(one, two, len(both), len(slides[one]), len(slides[two]))
            for (one, two), both in common.items()
        ),
    )


def _alike(
    samples: Sequence[Sample], pairs: Sequence[tuple[int, int, int]]
) -> tuple[AlikeSlides, ...]:
    """Slides whose cells come back under another slide's name."""
    counter: Counter[tuple[str, str]] = Counter()
    for one, two, _ in pairs:
        first, second = sorted((samples[one].slide, samples[two].slide))
        if first and first != second:
            counter[first, second] += 1
    return tuple(AlikeSlides(*names, n) for names, n in counter.most_common())


def _confounding(splits: Sequence[AuditedSplit], names: Sequence[str]) -> Iterator[Confounded]:
    """Find classes that one slide, or slides of their own, give away."""
    for split in splits:
        table = split.slides
        others = [other.slides for other in splits if other is not split]
        for label, name in enumerate(names):
            on = {slide: row[label] for slide, row in table.items()}
            total = sum(on.values())
            if len(table) < 2 or total < 2:
                continue
            slide = max(on, key=lambda one: (on[one], one))
            if on[slide] / total >= _DOMINANT:
                also = sum(slides[slide][label] for slides in others if slide in slides)
                yield Confounded(
                    name, split.name, "one slide", (slide,), on[slide], total, elsewhere=also
                )
            alone = tuple(one for one, row in table.items() if row[label] == sum(row))
            n_alone = sum(on[one] for one in alone)
            if 0 < len(alone) < len(table) and n_alone / total >= _ALONE:
                yield Confounded(name, split.name, "slides of its own", alone, n_alone, total)
