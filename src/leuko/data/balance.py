"""Even out the classes of a training set, on disk or as an order of indices.

The augmentation is the published experiment's: a rotation, a zoom and a mirror image, drawn anew
for every copy. Every draw follows from the seed, the class, the copy's number and the original's
path alone, so neither the number of workers nor the order of the work can change a byte.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.artifacts import (
    TEMPORARY_PREFIX,
    atomic_write_bytes,
    atomic_write_json,
    digest_bytes,
    digest_json,
    prepare_folder,
    read_json,
    schema,
)
from leuko.data.audit_duplicates import same_cells, thumbnail
from leuko.errors import DataError, ImageError, OutputError, UsageError
from leuko.imaging import encode_jpeg, warp_image
from leuko.manifest import Manifest, Sample, original_of
from leuko.parallel import Progress, bounded_map, worker_count
from leuko.pictures import decoded, open_data, open_picture
from leuko.taxonomy import CLASSES

__all__ = [
    "JPEG_QUALITY",
    "JPEG_SUBSAMPLING",
    "PLAN_FILE",
    "ROTATION_DEGREES",
    "ZOOM",
    "Augmentation",
    "BalancePlan",
    "BalanceReport",
    "PlanEntry",
    "augment_pixels",
    "augmentation",
    "balanced_order",
    "copy_numbers",
    "plan_balance",
    "sample_key",
    "write_balanced",
]

Pixels = npt.NDArray[np.uint8]

ROTATION_DEGREES: Final = 15.0
"""Rotations are uniform between minus and plus this many degrees."""

ZOOM: Final = 0.1
"""Row and column zoom are drawn apart, each uniform between 1 minus and 1 plus this."""

JPEG_QUALITY: Final = 95
"""Quality of drawn files: the quantisation of Raabin-WBC's own files is that of quality 95."""

JPEG_SUBSAMPLING: Final = "420"
"""Chroma subsampling of drawn files, the one of all Raabin-WBC files."""

PLAN_FILE: Final = "balance.json"
"""Name of the document that tells which plan a folder belongs to."""

_ALGORITHM: Final = 1
_DRAWS_AT_ONCE: Final = 16
_FILES_AT_ONCE: Final = 16

_HELD_OUT: Final = re.compile(r"(test|testing|validation|valid|val)(set|data)?[ab]?")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One draw of the augmentation.

    Attributes
    ----------
    rotation : float
        Degrees, positive counter-clockwise as seen on a screen.
    zoom_rows, zoom_columns : float
        Input pixels for one output pixel; above 1 the picture shrinks.
    flip : bool
        Mirror left and right, after the rest.
    """

    rotation: float
    zoom_rows: float
    zoom_columns: float
    flip: bool

    def matrix(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Where every output pixel comes from.

        Parameters
        ----------
        shape : (int, int, ...)
            Rows and columns of the picture; its centre stays where it is.

        Returns
        -------
        (2, 3) float64
            Maps an output's (column, row, 1) to the input's (column, row), as
            an ``inverse`` `leuko.imaging.warp_image` takes it.
        """
        angle = math.radians(self.rotation)
        cosine, sine = math.cos(angle), math.sin(angle)
        mirror = -1.0 if self.flip else 1.0
        linear = np.array(
            [
                [mirror * cosine * self.zoom_columns, -sine * self.zoom_rows],
                [mirror * sine * self.zoom_columns, cosine * self.zoom_rows],
            ]
        )
        centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
        return np.column_stack([linear, centre - linear @ centre])


def augmentation(seed: int, n: int, original: str) -> Augmentation:
    """Draw the parameters of one copy.

    The draws come from a hash of the arguments and from nothing else.

    Parameters
    ----------
    seed : int
        The user's seed.
    n : int
        Number of the copy; on disk the first one is 1.
    original : str
        Whatever names the original for good, see `sample_key`.

    Returns
    -------
    Augmentation
        Rotation uniform in ±15 degrees, row and column zoom uniform in 0.9 to 1.1 and drawn
        apart (as Keras draws ``zoom_range=0.1``), a mirror image with probability one half.

    Examples
    --------
    >>> augmentation(0, 1, "a") == augmentation(0, 1, "a")
    True
    >>> augmentation(0, 1, "a") == augmentation(0, 2, "a")
    False
    """
    text = f"leuko.augmentation/{_ALGORITHM}\n{seed}\n{n}\n{original}"
    drawn = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=32).digest()
    first, second, third, fourth = (
        (int.from_bytes(drawn[start : start + 8], "little") >> 11) * 2.0**-53
        for start in (0, 8, 16, 24)
    )
    return Augmentation(
        rotation=ROTATION_DEGREES * (2 * first - 1),
        zoom_rows=1 + ZOOM * (2 * second - 1),
        zoom_columns=1 + ZOOM * (2 * third - 1),
        flip=fourth < 0.5,
    )


def augment_pixels(
    pixels: Pixels, parameters: Augmentation, *, out: Pixels | None = None
) -> Pixels:
    """Apply one draw: a single bilinear warp, the border repeated outwards.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        The picture; it is not changed.
    parameters : Augmentation
        From `augmentation`.
    out : (H, W, 3) uint8, optional
        An array to write into, other than `pixels`; saves an allocation.

    Returns
    -------
    (H, W, 3) uint8
        The drawn picture, `out` where it was given.
    """
    size = pixels.shape[0], pixels.shape[1]
    return warp_image(pixels, parameters.matrix(pixels.shape), size, inverse=True, out=out)


def sample_key(sample: Sample) -> str:
    """Text that names an original to `augmentation`: its class and its relative path.

    Parameters
    ----------
    sample : Sample
        A row of a manifest.

    Returns
    -------
    str
        Such as ``"Basophil/Basophil/20190526_163753_0.jpg"``.
    """
    return f"{CLASSES[sample.label]}/{sample.path}"


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
        How many drawn copies are made of it, numbered from 1.
    """

    sample: Sample
    name: str
    copies: int

    def drawn_name(self, n: int) -> str:
        """File name of drawn copy `n`: ``aug_<n>_<original>``, always a JPEG.

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
    notes : tuple of str
        What a person should know.
    """

    root: Path
    entries: tuple[PlanEntry, ...]
    seed: int
    target: int
    manifest_digest: str
    notes: tuple[str, ...] = ()

    @property
    def originals(self) -> npt.NDArray[np.int64]:
        """(5,) int64, originals of each class."""
        labels = [entry.sample.label for entry in self.entries]
        return np.bincount(labels, minlength=len(CLASSES)).astype(np.int64)

    @property
    def drawn(self) -> npt.NDArray[np.int64]:
        """(5,) int64, drawn copies of each class."""
        counts = np.zeros(len(CLASSES), dtype=np.int64)
        for entry in self.entries:
            counts[entry.sample.label] += entry.copies
        return counts

    @property
    def total(self) -> int:
        """Images of the balanced folder."""
        return int(self.originals.sum() + self.drawn.sum())

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over seed, target and every entry; the root does not count."""
        rows = [
            [CLASSES[e.sample.label], e.sample.path, e.sample.sha256, e.name, e.copies]
            for e in self.entries
        ]
        return digest_json(
            {"algorithm": _ALGORITHM, "seed": self.seed, "target": self.target, "rows": rows}
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
            folder = CLASSES[entry.sample.label]
            yield entry, 0, f"{folder}/{entry.name}"
            for n in range(1, entry.copies + 1):
                yield entry, n, f"{folder}/{entry.drawn_name(n)}"


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
    _refuse_rows(manifest)
    manifest.require_all_classes("Balancing")
    counts = manifest.counts
    largest = int(counts.max())
    if target is None:
        target = largest
    elif target < largest:
        raise DataError(
            f"The target of {target} images for each class is below the {largest} originals of "
            f"{CLASSES[int(counts.argmax())]}; balancing never leaves originals out. Give "
            f"{largest} or more."
        )
    copies = np.zeros(len(manifest), dtype=np.int64)
    labels = manifest.labels
    for label in range(len(CLASSES)):
        rows = np.flatnonzero(labels == label)
        every, odd = divmod(target - len(rows), len(rows))
        copies[rows] = every
        by_lot = sorted(rows, key=lambda row: _lot(seed, sample_key(manifest.samples[row])))
        copies[by_lot[:odd]] += 1
    names, notes = _output_names(manifest)
    entries = tuple(
        PlanEntry(sample, name, int(n))
        for sample, name, n in zip(manifest.samples, names, copies, strict=True)
    )
    return BalancePlan(manifest.root, entries, seed, target, manifest.digest, notes)


def _lot(seed: int, key: str) -> bytes:
    """Sort key that shuffles by seed."""
    text = f"leuko.lot/{_ALGORITHM}\n{seed}\n{key}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _is_held_out(name: str) -> bool:
    """Tell whether a folder's name means validation or test."""
    return _HELD_OUT.fullmatch(re.sub(r"[\s_-]", "", name.lower())) is not None


def _refuse_rows(manifest: Manifest) -> None:
    """Raise for rows that must not be augmented."""
    splits = sorted({s.split for s in manifest.samples if s.split in ("validation", "test")})
    if splits:
        raise DataError(
            f"Only training rows are balanced; received {' and '.join(splits)} rows of "
            f"{manifest.root}. A drawn copy there would be scored as if it were a new cell."
        )
    if _is_held_out(manifest.root.name):
        raise DataError(
            f"Only training rows are balanced; {manifest.root} is a validation or test folder. "
            "Give the folder with the training images."
        )
    for sample in manifest.samples:
        folders = PurePosixPath(sample.path).parts[:-1]
        if any(_is_held_out(folder) for folder in folders):
            raise DataError(
                f"Only training rows are balanced; {sample.path} lies in a validation or test "
                "folder. Leave such rows out of the table."
            )
    drawn = [s for s in manifest.samples if original_of(PurePosixPath(s.path).name)[0] is not None]
    if drawn:
        raise DataError(
            f"{manifest.root} is already balanced: {len(drawn)} of its {len(manifest)} files are "
            f"drawn copies, such as {drawn[0].path}. Balance the folder with the originals; a "
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
            "their drawn copies are JPEG files with the same stem."
        )
    return names, tuple(notes)


def _folded(text: str) -> str:
    """Text as a file system without case and with composed letters sees it."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


@dataclass(frozen=True)
class BalanceReport:
    """What balancing did.

    Attributes
    ----------
    out : Path
        The balanced folder.
    plan : BalancePlan
        What was decided, over the readable originals.
    written, kept : int
        Files written now, and files that an earlier run of the same plan had finished.
    rejected : tuple of dict
        ``path``, ``reason`` and ``detail`` of originals that are no usable images.
    notes : tuple of str
        What a person should know.
    seconds : float
        Wall time.
    dry_run : bool
        Nothing was written.
    document : dict
        What the folder's ``balance.json`` says, schema ``leuko.balance/1``.
    """

    out: Path
    plan: BalancePlan
    written: int
    kept: int
    rejected: tuple[dict[str, str], ...]
    notes: tuple[str, ...]
    seconds: float
    dry_run: bool
    document: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON.

        Returns
        -------
        dict
            `document` and what this run did.
        """
        return {
            **self.document,
            "out": self.out.as_posix(),
            "written": self.written,
            "kept": self.kept,
            "seconds": round(self.seconds, 3),
            "dry_run": self.dry_run,
        }

    def summary(self) -> str:
        """Text for the terminal.

        Returns
        -------
        str
            A table of the classes, then what was skipped.
        """
        width = max(len(name) for name in CLASSES)
        lines = [f"{'class':<{width}}  originals    drawn    total"]
        for name, originals, drawn in zip(
            CLASSES, self.plan.originals, self.plan.drawn, strict=True
        ):
            lines.append(f"{name:<{width}}  {originals:9d} {drawn:8d} {originals + drawn:8d}")
        lines.append("")
        if self.dry_run:
            lines.append(f"{self.plan.total} images would be in {self.out}; nothing was written.")
        else:
            lines.append(
                f"{self.plan.total} images in {self.out}: {self.written} written, {self.kept} "
                f"kept from an earlier run, {self.seconds:.1f} s."
            )
        lines += [f"skipped {row['path']}: {row['reason']}" for row in self.rejected]
        lines += self.notes
        return "\n".join(lines)


def write_balanced(
    manifest: Manifest,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    target: int | None = None,
    workers: int | None = None,
    quality: int = JPEG_QUALITY,
    subsampling: str = JPEG_SUBSAMPLING,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> BalanceReport:
    """Write a folder in which every class is equally large.

    Originals are copied byte for byte; drawn copies are called ``aug_<n>_<original>``. Every
    file appears under its name only when it is whole. After an interruption, the same call
    finishes the folder and leaves exactly the bytes of a run that was never interrupted.

    Every original is decoded first: files that are no usable images are named in the report and
    left out, and the others of their class are drawn more often.

    Parameters
    ----------
    manifest : Manifest
        Training rows.
    out : path-like
        The folder to write; new, empty, or begun earlier with the same settings.
    seed : int
        Decides every draw.
    target : int, optional
        Images for each class; the largest class's number when left out.
    workers : int, optional
        Threads; one for each core when left out. The bytes do not depend on it.
    quality : int
        JPEG quality of drawn copies, 1 to 100. The default, 95, is that of Raabin-WBC's own
        files: their quantisation tables are those of quality 95.
    subsampling : {"420", "422", "444"}
        Chroma subsampling of drawn copies. The default, 4:2:0, is also Raabin-WBC's. Its files
        hold no finer chroma that 4:4:4 could keep, and a network must not be able to tell drawn
        from original by the way the file was compressed.
    dry_run : bool
        Check the originals and plan, but write nothing.
    progress : callable, optional
        ``progress(stage, done, total)``, with the stages "checking" and "writing".

    Returns
    -------
    BalanceReport
        What was planned, written, kept and skipped.

    Raises
    ------
    DataError
        See `plan_balance`; or when `out` holds another plan's files or files that no plan
        knows, or overlaps the originals' folder; or when an original changed since the manifest
        was made.
    OutputError
        When a file cannot be written, as on a full disk. Finished files stay and the same call
        goes on from there.
    """
    started = time.perf_counter()
    if not 1 <= quality <= 100 or subsampling not in ("420", "422", "444"):
        raise UsageError(
            "JPEG quality must lie in 1 to 100 and subsampling must be 420, 422 or 444; received "
            f"{quality} and {subsampling!r}."
        )
    folder = Path(out).expanduser()
    _refuse_rows(manifest)
    _refuse_overlap(manifest, folder)
    threads = worker_count(workers)
    jpeg = {"quality": quality, "subsampling": subsampling}
    request = digest_json(
        {
            "algorithm": _ALGORITHM,
            "manifest": manifest.digest,
            "seed": seed,
            "target": target,
            "jpeg": jpeg,
        }
    )
    begun = _begun(folder, request)
    if begun is None:
        rejected, repeats = _check_originals(manifest, threads, progress)
    else:
        rejected = tuple(dict(row) for row in begun["rejected"])
        repeats = int(begun.get("repeats", 0))
    bad = {row["path"] for row in rejected}
    readable = manifest.subset(i for i, s in enumerate(manifest.samples) if s.path not in bad)
    plan = plan_balance(readable, seed=seed, target=target)
    if bad:
        note = (
            f"{len(bad)} of {len(manifest)} originals are no usable images and were left out; "
            "others of their class stand in for them."
        )
        plan = replace(plan, notes=(*plan.notes, note))
    if repeats:
        note = (
            f"{repeats} of {len(manifest)} originals show the same cell as another; each is kept "
            "and counts for its class."
        )
        plan = replace(plan, notes=(*plan.notes, note))
    written = kept = 0
    document = _document(plan, request, jpeg, rejected) | {"repeats": repeats}
    if not dry_run:
        prepare_folder(folder)
        if begun is None:
            atomic_write_json(folder / PLAN_FILE, document)
        present = _tidy(folder, plan)
        for name in CLASSES:
            prepare_folder(folder / name)
        kept = len(present)
        written = _write_files(plan, folder, present, quality, subsampling, threads, progress)
        if begun is None or not begun["complete"]:
            document["complete"] = True
            atomic_write_json(folder / PLAN_FILE, document)
    seconds = time.perf_counter() - started
    notes = (*manifest.notes, *plan.notes)
    return BalanceReport(folder, plan, written, kept, rejected, notes, seconds, dry_run, document)


def _document(
    plan: BalancePlan,
    request: str,
    jpeg: dict[str, Any],
    rejected: tuple[dict[str, str], ...],
) -> dict[str, Any]:
    """What ``balance.json`` says; nothing in it depends on the machine, the time or the place."""
    return {
        "schema": schema("balance"),
        "complete": False,
        "request": request,
        "plan": plan.digest,
        "manifest": plan.manifest_digest,
        "seed": plan.seed,
        "target": plan.target,
        "augmentation": {
            "rotation_degrees": ROTATION_DEGREES,
            "zoom": ZOOM,
            "flip_probability": 0.5,
            "fill": "nearest",
            "interpolation": "bilinear",
        },
        "jpeg": jpeg,
        "classes": {
            name: {"originals": int(originals), "drawn": int(drawn)}
            for name, originals, drawn in zip(CLASSES, plan.originals, plan.drawn, strict=True)
        },
        "images": plan.total,
        "rejected": [dict(row) for row in rejected],
        "renamed": {
            e.sample.path: e.name
            for e in plan.entries
            if PurePosixPath(e.sample.path).name != e.name
        },
        "notes": list(plan.notes),
    }


def _refuse_overlap(manifest: Manifest, folder: Path) -> None:
    """Raise when the balanced folder would be read back as originals."""
    target, root = folder.resolve(), manifest.root.resolve()
    if target == root or root in target.parents or target in root.parents:
        raise DataError(
            f"The balanced folder {folder} and the originals in {manifest.root} lie inside one "
            "another. Choose a folder beside the originals, such as "
            f"{root.parent / ('Balanced_' + root.name)}."
        )
    if _is_held_out(folder.name):
        raise DataError(
            f"{folder} is named like a validation or test folder; drawn copies do not belong "
            "there. Choose another name."
        )


def _begun(folder: Path, request: str) -> dict[str, Any] | None:
    """Read what an earlier run of the same request left; raise for anything else in the folder."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise OutputError(f"{folder} cannot be written: a file stands where a folder is needed.")
    plan_file = folder / PLAN_FILE
    if not plan_file.exists():
        others = [e.name for e in folder.iterdir() if not e.name.startswith(TEMPORARY_PREFIX)]
        if others:
            raise DataError(
                f"{folder} already holds {min(others)} and has no {PLAN_FILE}, so "
                "balancing did not make it. Choose a new folder."
            )
        return None
    document = read_json(plan_file, "balance")
    if document.get("request") != request:
        raise DataError(
            f"{folder} was made from other images or with other settings (seed "
            f"{document.get('seed')}, {document.get('images')} images). Choose another folder, or "
            "delete this one first."
        )
    return document


def _check_originals(
    manifest: Manifest, threads: int, progress: Progress | None
) -> tuple[tuple[dict[str, str], ...], int]:
    """Decode every original once: (those that are no usable images, how many repeat a cell)."""

    def check(samples: tuple[Sample, ...]) -> tuple[list[dict[str, str]], list[Any]]:
        bad, small = [], []
        for sample in samples:
            try:
                with open_picture(manifest.root / sample.path) as image:
                    small.append(thumbnail(image.pixels))
            except ImageError as error:
                detail = error.detail.replace(str(manifest.root / sample.path), sample.path)
                bad.append({"path": sample.path, "reason": error.reason, "detail": detail})
        return bad, small

    pieces = (
        manifest.samples[start : start + _FILES_AT_ONCE]
        for start in range(0, len(manifest), _FILES_AT_ONCE)
    )
    rejected: list[dict[str, str]] = []
    thumbnails: list[Any] = []
    done = 0
    for bad, small in bounded_map(check, pieces, workers=threads):
        rejected += bad
        thumbnails += small
        done = min(done + _FILES_AT_ONCE, len(manifest))
        if progress is not None:
            progress("checking", done, len(manifest))
    pairs = same_cells(np.stack(thumbnails)) if thumbnails else []
    return tuple(rejected), len({two for _, two, _ in pairs})


def _tidy(folder: Path, plan: BalancePlan) -> set[str]:
    """Remove stale temporaries; return the files of the plan that are there and not empty."""
    expected = {path for _, _, path in plan.files()}
    present: set[str] = set()
    places = [("", folder), *((f"{n}/", folder / n) for n in CLASSES if (folder / n).is_dir())]
    for prefix, place in places:
        with os.scandir(place) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.name.startswith(TEMPORARY_PREFIX) and entry.is_file():
                    Path(entry.path).unlink(missing_ok=True)
                elif path in expected:
                    if entry.is_file(follow_symlinks=False) and entry.stat().st_size > 0:
                        present.add(path)
                elif path != PLAN_FILE and path not in CLASSES:
                    raise DataError(
                        f"{folder} holds {path}, which is not part of the plan in its "
                        f"{PLAN_FILE}. Move it away and run the same command again."
                    )
    return present


@dataclass(frozen=True, slots=True)
class _Task:
    """Some files of one original: the numbers of its copies, 0 for the original itself."""

    entry: PlanEntry
    numbers: tuple[int, ...]


def _tasks(plan: BalancePlan, present: set[str]) -> Iterator[_Task]:
    """Split the missing files into tasks; an original is decoded once for each."""
    for entry in plan.entries:
        folder = CLASSES[entry.sample.label]
        missing = [0] if f"{folder}/{entry.name}" not in present else []
        missing += [
            n
            for n in range(1, entry.copies + 1)
            if f"{folder}/{entry.drawn_name(n)}" not in present
        ]
        for start in range(0, len(missing), _DRAWS_AT_ONCE):
            yield _Task(entry, tuple(missing[start : start + _DRAWS_AT_ONCE]))


def _write_files(
    plan: BalancePlan,
    folder: Path,
    present: set[str],
    quality: int,
    subsampling: str,
    threads: int,
    progress: Progress | None,
) -> int:
    """Write the files that are missing; return how many."""

    def work(task: _Task) -> int:
        sample = task.entry.sample
        place = folder / CLASSES[sample.label]
        with open_data(plan.root / sample.path) as data:
            if digest_bytes(data) != sample.sha256:
                raise DataError(
                    f"{plan.root / sample.path} changed while it was being balanced. Start again "
                    "with a new folder."
                )
            if 0 in task.numbers:
                atomic_write_bytes(place / task.entry.name, data, durable=False)
            if task.numbers != (0,):
                with decoded(data) as image:
                    draw(task, place, image.pixels)
        return len(task.numbers)

    def draw(task: _Task, place: Path, pixels: Pixels) -> None:
        # A fresh megabyte for every copy costs as much as the warp itself, in page faults.
        buffer = np.empty_like(pixels, order="C")
        key = sample_key(task.entry.sample)
        for n in filter(None, task.numbers):
            drawn = augment_pixels(pixels, augmentation(plan.seed, n, key), out=buffer)
            encoded = encode_jpeg(drawn, quality=quality, subsampling=subsampling)
            atomic_write_bytes(place / task.entry.drawn_name(n), encoded, durable=False)

    missing = plan.total - len(present)
    done = 0
    for count in bounded_map(work, _tasks(plan, present), workers=threads):
        done += count
        if progress is not None:
            progress("writing", len(present) + done, plan.total)
    if done != missing:
        raise OutputError(f"{folder} lacks {missing - done} files of its plan. Run it again.")
    return done


def balanced_order(
    labels: npt.ArrayLike, *, seed: int, epoch: int, per_class: int | None = None
) -> npt.NDArray[np.int64]:
    """Order in which one epoch shows images so that every class comes equally often.

    The plan of `plan_balance` without its files: within a class every image is shown equally
    often up to one, and which ones get the odd showing changes from epoch to epoch.

    Parameters
    ----------
    labels : (N,) integers
        Class of every image, in 0 to 4. Classes without images are left out.
    seed : int
        At least 0.
    epoch : int
        At least 0; the order depends on seed and epoch alone, so training can resume anywhere.
    per_class : int, optional
        Showings of each class; the largest class's number of images when left out. Fewer than a
        class has images shows some of them, none twice.

    Returns
    -------
    (per_class * classes present,) int64
        Positions in `labels`, shuffled.

    Raises
    ------
    DataError
        When there are no labels.

    See Also
    --------
    copy_numbers : which showing of an image each position is.

    Examples
    --------
    >>> order = balanced_order([0, 4, 4, 4], seed=1, epoch=0)
    >>> sorted(order.tolist())
    [0, 0, 0, 1, 2, 3]
    """
    classes = np.asarray(labels, dtype=np.int64)
    if classes.size == 0:
        raise DataError("There are no images to put in order; received no labels.")
    counts = np.bincount(classes)
    if per_class is None:
        per_class = int(counts.max())
    rng = np.random.default_rng([_ALGORITHM, seed, epoch])
    parts = []
    for label in np.flatnonzero(counts):
        rows = np.flatnonzero(classes == label)
        every, odd = divmod(per_class, len(rows))
        parts += [np.tile(rows, every), rng.permutation(rows)[:odd]]
    return rng.permutation(np.concatenate(parts)).astype(np.int64)


def copy_numbers(order: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Count, for every position of an order, how often its image was shown before.

    Parameters
    ----------
    order : (M,) integers
        From `balanced_order`.

    Returns
    -------
    (M,) int64
        0 for the first showing of an image, which balancing on disk leaves as it is; 1 and more
        for the copies to draw.

    Examples
    --------
    >>> copy_numbers([3, 1, 3, 3, 1]).tolist()
    [0, 0, 1, 2, 1]
    """
    indices = np.asarray(order, dtype=np.int64)
    if indices.size == 0:
        return np.zeros(0, dtype=np.int64)
    by_image = np.argsort(indices, kind="stable")
    grouped = indices[by_image]
    starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
    lengths = np.diff(np.r_[starts, len(grouped)])
    numbers = np.empty(len(indices), dtype=np.int64)
    numbers[by_image] = np.arange(len(grouped)) - np.repeat(starts, lengths)
    return numbers
