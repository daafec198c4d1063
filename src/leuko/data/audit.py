"""What is in a data set, and what is wrong with it, before anything is trained on it."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.artifacts import RESEARCH_USE, digest_json, schema
from leuko.data.audit_background import background_test, missing_for_background
from leuko.data.audit_duplicates import identical_files, same_cells
from leuko.data.dataset import Dataset, Pictures
from leuko.errors import ImageError
from leuko.manifest import Manifest, Sample, original_of
from leuko.parallel import Progress
from leuko.scheme import scheme_in

__all__ = ["audit_dataset", "audit_manifests", "format_audit"]

_DOMINANT: Final = 0.5
_IMBALANCED: Final = 3.0
_FEW_SLIDES: Final = 5
_LISTED: Final = 200


def audit_dataset(
    dataset: str | os.PathLike[str] | Dataset,
    *,
    background: bool = True,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Look at every image of a data set and list what a user should know.

    Parameters
    ----------
    dataset : path-like or Dataset
        See `leuko.data.dataset.Dataset.open`; what an open one has decoded is not decoded again.
    background : bool
        Run the background test. Without scikit-learn it is left out; `say` is told before any
        image is decoded, and the document says so.
    seed : int
        For the background test.
    workers : int, optional
        Threads; one for each core when left out. A data set that is open has its own.
    progress : callable, optional
        ``progress(stage, done, total)``.
    say : callable, optional
        Called with sentences for a person.

    Returns
    -------
    dict
        A document of schema ``leuko.audit/1``. Paths are relative to `dataset`.

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
        progress=progress,
        say=say,
    )


def audit_manifests(
    manifests: dict[str, Manifest],
    *,
    root: Path,
    background: bool = True,
    decode: bool = True,
    seed: int = 0,
    pictures: Pictures | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Audit manifests that are already read.

    Parameters
    ----------
    manifests : dict of str to Manifest
        By split: ``train``, ``validation``, ``test``.
    root : Path
        Folder that reported paths are relative to, where they lie in it.
    background : bool
        Run the background test, which needs `decode`, and scikit-learn as in `audit_dataset`.
    decode : bool
        Decode every image. Without it, only what names and digests tell is reported.
    seed : int
        For the background test.
    pictures : Pictures, optional
        Decodes them, but those that it has decoded before.
    progress : callable, optional
        ``progress(stage, done, total)``.
    say : callable, optional
        Called with sentences for a person.

    Returns
    -------
    dict
        See `audit_dataset`.
    """
    skipped = "it was not asked for."
    if background and decode:
        skipped = missing_for_background()
        if skipped and say is not None:
            say(f"The background test is left out: {skipped}")
    background = not skipped
    samples = [s for m in manifests.values() for s in m.samples]
    splits = [split for split, m in manifests.items() for _ in m.samples]
    files = [file for m in manifests.values() for file in m.files()]
    paths = [_relative(file, root) for file in files]
    sizes: dict[str, Counter[str]] = {split: Counter() for split in manifests}
    modes: dict[str, Counter[str]] = {split: Counter() for split in manifests}
    formats: dict[str, Counter[str]] = {split: Counter() for split in manifests}
    rejected: list[dict[str, str]] = []
    readable: list[int] = []
    small: list[npt.NDArray[np.uint8]] = []
    rings: list[npt.NDArray[np.float32]] = []
    decoder = pictures or Pictures()
    looks = (
        decoder.facts(files, rings=background, progress=progress, stage="looking") if decode else []
    )
    for position, look in enumerate(looks):
        if isinstance(look, ImageError):
            detail = look.detail.replace(str(files[position]), paths[position])
            rejected.append({"path": paths[position], "reason": look.reason, "detail": detail})
            continue
        split = splits[position]
        sizes[split][look.size] += 1
        modes[split][look.mode] += 1
        formats[split][look.format] += 1
        readable.append(position)
        small.append(look.thumbnail)
        if look.ring is not None:
            rings.append(look.ring)
    groups = identical_files([s.sha256 for s in samples])
    same = {position: number for number, group in enumerate(groups) for position in group}
    pairs: list[tuple[int, int, int]] = []
    if small:
        if progress is not None:
            progress("comparing", 0, 1)
        for one, two, distance in same_cells(np.stack(small)):
            first, second = readable[one], readable[two]
            if same.get(first, -1) != same.get(second, -2):
                pairs.append((first, second, distance))
    document: dict[str, Any] = {
        "schema": schema("audit"),
        "research_use": RESEARCH_USE,
        "dataset": root.as_posix(),
        "data_digest": digest_json({split: m.digest for split, m in manifests.items()}),
        "seed": seed,
        "splits": {
            split: {"folder": _relative(m.root, root), "n": len(m), "digest": m.digest}
            for split, m in manifests.items()
        },
        "scheme": next(iter(manifests.values())).scheme.to_dict(),
        "classes": {
            split: {name: int(n) for name, n in zip(m.scheme.names, m.counts, strict=True)}
            for split, m in manifests.items()
        },
        "sizes": {split: dict(counter.most_common()) for split, counter in sizes.items()},
        "modes": {split: dict(counter.most_common()) for split, counter in modes.items()},
        "formats": {split: dict(counter.most_common()) for split, counter in formats.items()},
        "rejected": rejected,
        "duplicates": [[paths[position] for position in group] for group in groups],
        "near_duplicates": [[paths[a], paths[b], bits] for a, b, bits in pairs],
        "near_duplicate_count": len(pairs),
        "slides_photographed_again": _alike(samples, pairs),
        "shared_slides": _shared(manifests),
        "slides": {split: _slide_table(m) for split, m in manifests.items()},
        "confounding": _confounding(manifests),
        "imbalance": {split: _imbalance(m) for split, m in manifests.items()},
        "notes": list(dict.fromkeys(n for m in manifests.values() for n in m.notes)),
    }
    if not background:
        document["background_test"] = {"skipped": skipped}
    elif not readable:
        document["background_test"] = {"skipped": "no image is readable."}
    else:
        if progress is not None:
            progress("background test", 0, 1)
        document["background_test"] = background_test(
            np.stack(rings),
            np.array([samples[i].label for i in readable], dtype=np.int64),
            [samples[i].slide for i in readable],
            [splits[i] for i in readable],
            next(iter(manifests.values())).scheme.names,
            seed=seed,
        )
        if progress is not None:
            progress("background test", 1, 1)
    cross = [[paths[a], paths[b]] for a, b, _ in pairs if splits[a] != splits[b]]
    cross += [[paths[i] for i in group] for group in groups if len({splits[i] for i in group}) > 1]
    disagree = [[paths[a], paths[b]] for a, b, _ in pairs if samples[a].label != samples[b].label]
    for group in groups:
        if len({samples[i].label for i in group}) > 1:
            disagree.append([paths[i] for i in group])
    document["across_splits"] = cross
    document["labelled_differently"] = disagree
    document["findings"] = _findings(document, manifests)
    return document


def _relative(path: Path, root: Path) -> str:
    """Path as reported: relative to the data set where it lies in it."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()


def _slide_table(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Images of each class on each slide; images without a slide are left out."""
    names = manifest.scheme.names
    table: dict[str, Counter[int]] = defaultdict(Counter)
    for sample in manifest.samples:
        if sample.slide:
            table[sample.slide][sample.label] += 1
    return {
        slide: {names[label]: table[slide][label] for label in sorted(table[slide])}
        for slide in sorted(table)
    }


def _shared(manifests: dict[str, Manifest]) -> dict[str, Any]:
    """Slides that stand in more than one split."""
    slides = {split: {s.slide for s in m.samples if s.slide} for split, m in manifests.items()}
    between = [
        {
            "splits": [one, two],
            "count": len(slides[one] & slides[two]),
            "slides": {one: len(slides[one]), two: len(slides[two])},
        }
        for one, two in combinations(slides, 2)
    ]
    names: set[str] = set()
    for one, two in combinations(slides, 2):
        names |= slides[one] & slides[two]
    return {"count": len(names), "names": sorted(names), "between": between}


def _alike(
    samples: Sequence[Sample], pairs: Sequence[tuple[int, int, int]]
) -> list[dict[str, Any]]:
    """Slides whose cells come back under another slide's name."""
    counter: Counter[tuple[str, str]] = Counter()
    for one, two, _ in pairs:
        first, second = sorted((samples[one].slide, samples[two].slide))
        if first and first != second:
            counter[first, second] += 1
    return [{"slides": [a, b], "pairs": n} for (a, b), n in counter.most_common()]


def _confounding(manifests: dict[str, Manifest]) -> list[dict[str, Any]]:
    """Classes that one slide, or slides of their own, give away."""
    rows: list[dict[str, Any]] = []
    for split, manifest in manifests.items():
        table = _slide_table(manifest)
        if len(table) < 2:
            continue
        for name in manifest.scheme.names:
            total = sum(row.get(name, 0) for row in table.values())
            if total < 2:
                continue
            slide = max(table, key=lambda one: (table[one].get(name, 0), one))
            n = table[slide].get(name, 0)
            if n / total >= _DOMINANT:
                also = sum(
                    m_table.get(slide, {}).get(name, 0)
                    for other, m_table in (
                        (o, _slide_table(m)) for o, m in manifests.items() if o != split
                    )
                )
                sentence = f"{n} of {total} {name} images of {split} come from one slide, {slide}"
                sentence += f", which also gives {also} to the other splits." if also else "."
                rows.append(_confound(name, slide, split, n / total, "one slide", sentence))
            alone = [s for s, row in table.items() if set(row) == {name}]
            n_alone = sum(table[s][name] for s in alone)
            shown_elsewhere = any(set(row) - {name} for row in table.values())
            if alone and shown_elsewhere and n_alone / total >= 0.9:
                which = ", ".join(alone[:6]) + (", ..." if len(alone) > 6 else "")
                every = "All" if n_alone == total else f"{n_alone} of"
                sentence = (
                    f"{every} {total} {name} images of {split} come from slides or days that hold "
                    f"no other class ({which})."
                )
                share = n_alone / total
                rows.append(_confound(name, which, split, share, "slides of its own", sentence))
    return rows


def _confound(
    name: str, slide: str, split: str, share: float, kind: str, sentence: str
) -> dict[str, Any]:
    """One row of the list of confounded classes."""
    return {
        "class": name,
        "slide": slide,
        "split": split,
        "share": share,
        "kind": kind,
        "sentence": sentence,
    }


def _imbalance(manifest: Manifest) -> float | None:
    """Images of the largest class for one of the smallest class present."""
    present = manifest.counts[manifest.counts > 0]
    return float(present.max() / present.min()) if len(present) else None


def _findings(document: dict[str, Any], manifests: dict[str, Manifest]) -> list[dict[str, str]]:
    """Say in sentences what matters, the gravest first."""
    found: list[dict[str, str]] = []

    def add(level: str, title: str, sentence: str) -> None:
        found.append({"level": level, "title": title, "sentence": sentence})

    for row in document["shared_slides"]["between"]:
        if row["count"]:
            one, two = row["splits"]
            add(
                "warning",
                "Shared slides",
                f"{row['count']} of the {row['slides'][two]} slides of {two} are also in {one}; "
                f"a score on {two} partly measures memory of those slides.",
            )
    test = document["background_test"]
    if "sentence" in test:
        given = max(test["per_class_recall"].values()) >= max(0.5, 2 * test["chance"])
        add("warning" if given else "note", "Background", test["sentence"])
    for row in document["confounding"]:
        add("warning", "Class and slide", row["sentence"])
    if document["across_splits"]:
        n = len(document["across_splits"])
        add("warning", "Same cell in two splits", f"{_groups(n)} the same cell in two splits.")
    if document["labelled_differently"]:
        n = len(document["labelled_differently"])
        add(
            "warning",
            "Labels at odds",
            f"{_groups(n)} the same cell under two class names, such as "
            f"{' and '.join(document['labelled_differently'][0][:2])}.",
        )
    if document["rejected"]:
        reasons = Counter(row["reason"] for row in document["rejected"])
        text = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
        add(
            "warning",
            "Unusable files",
            f"{len(document['rejected'])} files are no usable images ({text}), the first is "
            f"{document['rejected'][0]['path']}.",
        )
    if document["duplicates"]:
        extra = sum(len(group) - 1 for group in document["duplicates"])
        files = "1 file repeats" if extra == 1 else f"{extra} files repeat"
        add("warning", "Identical files", f"{files} another one byte for byte.")
    if document["near_duplicates"]:
        one, two = document["near_duplicates"][0][:2]
        add(
            "warning",
            "Cells shown twice",
            f"{_groups(document['near_duplicate_count'])} the same cell in different files, such "
            f"as {one} and {two}.",
        )
    for row in document["slides_photographed_again"]:
        if row["pairs"] >= 3:
            add(
                "warning",
                "One slide, two names",
                f"{row['pairs']} cells of slide {row['slides'][0]} come back on slide "
                f"{row['slides'][1]}; keep the two on one side of every split.",
            )
    for split, counts in document["classes"].items():
        missing = [name for name, n in counts.items() if n == 0]
        if missing:
            add("warning", "Missing class", f"{split} has no image of {', '.join(missing)}.")
    for split, ratio in document["imbalance"].items():
        if ratio is not None and ratio >= _IMBALANCED:
            counts = {name: n for name, n in document["classes"][split].items() if n}
            most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
            share = counts[most] / sum(counts.values())
            add(
                "note",
                "Imbalance",
                f"{split} has {ratio:.0f} {most} images for one of {least}; always answering "
                f"{most} is right in {100 * share:.1f}% of it.",
            )
    for split, table in document["slides"].items():
        few = [
            f"{name} ({n})"
            for name in document["classes"][split]
            if 0 < (n := sum(name in row for row in table.values())) < _FEW_SLIDES
        ]
        if few:
            add(
                "note",
                "Few slides",
                f"In {split}, these classes come from fewer than {_FEW_SLIDES} slides, too few "
                f"for an interval: {', '.join(few)}.",
            )
    for kind, title in (("sizes", "Sizes"), ("modes", "Colour modes"), ("formats", "Formats")):
        everything: Counter[str] = Counter()
        for counter in document[kind].values():
            everything.update(counter)
        if len(everything) > 1:
            text = ", ".join(f"{n} of {key}" for key, n in everything.most_common(5))
            add("note", title, f"The images differ in {title.lower()}: {text}.")
    drawn = {
        split: sum(original_of(PurePosixPath(s.path).name)[0] is not None for s in m.samples)
        for split, m in manifests.items()
    }
    for split, n in drawn.items():
        if n:
            add(
                "warning" if split != "train" else "note",
                "Drawn copies",
                f"{split} holds {n} drawn copies (aug_<n>_...) beside {len(manifests[split]) - n} "
                "originals; a copy belongs to its original's slide.",
            )
    for note in document["notes"]:
        if "has no image of" not in note and "drawn copies" not in note:  # said above
            add("warning" if "another class" in note else "note", "Reading", note)
    return found


def _groups(n: int) -> str:
    """Subject and verb for a number of pairs or groups."""
    return "1 pair of images shows" if n == 1 else f"{n} pairs or groups of images show"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]


def format_audit(audit: dict[str, Any]) -> str:
    """Render an audit as text for a terminal.

    Parameters
    ----------
    audit : dict
        From `audit_dataset`.

    Returns
    -------
    str
        Tables and sentences, no control characters.
    """
    splits = list(audit["splits"])
    rows = [
        [name, *(str(audit["classes"][s][name]) for s in splits)] for name in scheme_in(audit).names
    ]
    rows.append(["all", *(str(audit["splits"][s]["n"]) for s in splits)])
    rows.append(["slides", *(str(len(audit["slides"][s])) for s in splits)])
    rows.append(
        [
            "largest : smallest",
            *("-" if audit["imbalance"][s] is None else f"{audit['imbalance'][s]:.1f}"
              for s in splits),
        ]
    )  # fmt: skip
    lines = [f"Data set {audit['dataset']}", "", *_table(["", *splits], rows), ""]
    for kind, title in (("sizes", "sizes"), ("modes", "colour modes"), ("formats", "formats")):
        everything: Counter[str] = Counter()
        for counter in audit[kind].values():
            everything.update(counter)
        text = ", ".join(f"{key} ({n})" for key, n in everything.most_common(4))
        if len(everything) > 4:
            text += f", and {len(everything) - 4} more"
        lines.append(f"{title + ':':<18}{text or 'not looked at'}")
    lines += [
        f"{'unusable files:':<18}{len(audit['rejected'])}",
        f"{'identical files:':<18}{sum(len(g) - 1 for g in audit['duplicates'])}",
        f"{'near duplicates:':<18}{audit['near_duplicate_count']} pairs",
        f"{'shared slides:':<18}{audit['shared_slides']['count']}",
    ]
    test = audit["background_test"]
    if "skipped" in test:
        lines += ["", f"Background test skipped: {test['skipped']}"]
    else:
        lines += [
            "",
            f"Background test (outer {100 * test['ring']:.1f}% of each side; trained on "
            f"{test['trained_on']}, tested on {test['tested_on']})",
            *_table(
                ["class", "recall", "chance"],
                [
                    [name, f"{100 * recall:.0f}%", f"{100 * test['chance']:.0f}%"]
                    for name, recall in test["per_class_recall"].items()
                ],
            ),
            f"accuracy {test['accuracy']:.3f}, always {test['majority_class']} "
            f"{test['majority']:.3f}; balanced accuracy {test['balanced_accuracy']:.3f}, chance "
            f"{test['chance']:.3f}",
        ]
    if audit["rejected"]:
        lines += ["", "Unusable files"]
        lines += [f"  {row['path']}: {row['reason']}" for row in audit["rejected"][:_LISTED]]
        if len(audit["rejected"]) > _LISTED:
            lines.append(f"  and {len(audit['rejected']) - _LISTED} more")
    lines += ["", "Findings" if audit["findings"] else "Nothing stands out."]
    for finding in audit["findings"]:
        mark = "!" if finding["level"] == "warning" else "-"
        lines.append(f" {mark} {finding['title']}: {finding['sentence']}")
    return "\n".join([*lines, "", audit["research_use"]])
