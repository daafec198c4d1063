"""Write a folder in which every class is equally large."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.data.audit.duplicates import same_cells
from leuko.data.balance.augmentation import (
    ALGORITHM,
    ROTATION_DEGREES,
    ZOOM,
    augment_pixels,
    augmentation,
)
from leuko.data.balance.plan import (
    BalancePlan,
    PlanEntry,
    is_held_out,
    plan_balance,
    refuse_rows,
    sample_key,
)
from leuko.data.dataset import ImageFacts, Pictures
from leuko.data.rejected import RejectedFile
from leuko.errors import DataError, ImageError, OutputError, UsageError
from leuko.imaging.decode import encode_jpeg
from leuko.imaging.pictures import decoded, open_data
from leuko.manifest import Manifest
from leuko.support.artifacts import (
    TEMPORARY_PREFIX,
    atomic_write_bytes,
    atomic_write_json,
    digest_bytes,
    digest_json,
    prepare_folder,
    read_json,
    schema,
)
from leuko.support.parallel import bounded_map, worker_count
from leuko.support.reporter import SILENT, Reporter

__all__ = ["PLAN_FILE", "BalanceReport", "JpegStyle", "write_balanced"]

Pixels = npt.NDArray[np.uint8]

PLAN_FILE: Final = "balance.json"
"""Name of the document that tells which plan a folder belongs to."""

_DRAWS_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class JpegStyle:
    """How augmented copies are compressed: as Raabin-WBC's own files, by default.

    A network must not be able to tell a copy from an original by the way the file was compressed.

    Attributes
    ----------
    quality : int
        1 to 100; the quantisation tables of Raabin-WBC are those of 95.
    subsampling : {"420", "422", "444"}
        Of the chroma; Raabin-WBC's files hold none that is finer than 4:2:0.

    Raises
    ------
    UsageError
        For other values.
    """

    quality: int = 95
    subsampling: str = "420"

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100 or self.subsampling not in ("420", "422", "444"):
            raise UsageError(
                "JPEG quality must lie in 1 to 100 and subsampling must be 420, 422 or 444; "
                f"received {self.quality} and {self.subsampling!r}."
            )


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
    rejected : tuple of RejectedFile
        Originals that are no usable images.
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
    rejected: tuple[RejectedFile, ...]
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


def write_balanced(
    manifest: Manifest,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    target: int | None = None,
    jpeg: JpegStyle | None = None,
    workers: int | None = None,
    dry_run: bool = False,
    reporter: Reporter = SILENT,
) -> BalanceReport:
    """Write a folder in which every class is equally large.

    Originals are copied byte for byte; augmented copies are called ``aug_<n>_<original>``. Every
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
    jpeg : JpegStyle, optional
        How augmented copies are compressed.
    workers : int, optional
        Threads; one for each core when left out. The bytes do not depend on it.
    dry_run : bool
        Check the originals and plan, but write nothing.
    reporter : Reporter, optional
        Told how far it is, and what a person should know.

    Returns
    -------
    BalanceReport
        What was planned, written, kept and skipped.

    Raises
    ------
    DataError
        See `leuko.data.balance.plan.plan_balance`; or when `out` holds another plan's files or
        files that no plan knows, or overlaps the originals' folder; or when an original changed
        since the manifest was made.
    OutputError
        When a file cannot be written, as on a full disk. Finished files stay and the same call
        goes on from there.
    """
    started = time.perf_counter()
    folder = Path(out).expanduser()
    refuse_rows(manifest)
    _refuse_overlap(manifest, folder)
    jpeg = jpeg or JpegStyle()
    job = _Job(manifest, folder, seed, target, jpeg, worker_count(workers), reporter)
    report = _balance(job, dry_run=dry_run)
    return replace(report, seconds=time.perf_counter() - started)


@dataclass(frozen=True)
class _Job:
    """What was asked for."""

    manifest: Manifest
    folder: Path
    seed: int
    target: int | None
    jpeg: JpegStyle
    threads: int
    reporter: Reporter

    @property
    def request(self) -> str:
        """Digest of all that decides the bytes."""
        return digest_json(
            {
                "algorithm": ALGORITHM,
                "manifest": self.manifest.digest,
                "seed": self.seed,
                "target": self.target,
                "jpeg": asdict(self.jpeg),
            }
        )


@dataclass(frozen=True)
class _Originals:
    """What decoding the originals told: no usable images, and how many show another's cell."""

    rejected: tuple[RejectedFile, ...]
    repeats: int


@dataclass(frozen=True)
class _Begun:
    """What an earlier run of the same request left."""

    originals: _Originals
    complete: bool


def _balance(job: _Job, *, dry_run: bool) -> BalanceReport:
    """See `write_balanced`; seconds are left to it."""
    begun = _begun(job.folder, job.request)
    originals = begun.originals if begun else _check_originals(job)
    plan = _plan(job, originals)
    complete = begun is not None and begun.complete
    kept = written = 0
    if not dry_run:
        prepare_folder(job.folder)
        if begun is None:
            _note(job, plan, originals, complete=False)
        present = _tidy(job.folder, plan)
        kept, written = len(present), _write_files(job, plan, present)
        if not complete:
            complete = True
            _note(job, plan, originals, complete=True)
    return BalanceReport(
        job.folder,
        plan,
        written,
        kept,
        originals.rejected,
        notes=(*job.manifest.notes, *plan.notes),
        seconds=0.0,
        dry_run=dry_run,
        document=_document(job, plan, originals, complete=complete),
    )


def _note(job: _Job, plan: BalancePlan, originals: _Originals, *, complete: bool) -> None:
    """Write ``balance.json``."""
    document = _document(job, plan, originals, complete=complete)
    atomic_write_json(job.folder / PLAN_FILE, document)


def _plan(job: _Job, originals: _Originals) -> BalancePlan:
    """Plan with the originals that are usable images."""
    manifest, bad = job.manifest, {file.path for file in originals.rejected}
    readable = manifest.subset(i for i, s in enumerate(manifest.samples) if s.path not in bad)
    plan = plan_balance(readable, seed=job.seed, target=job.target)
    notes = list(plan.notes)
    if bad:
        notes.append(
            f"{len(bad)} of {len(manifest)} originals are no usable images and were left out; "
            "others of their class stand in for them."
        )
    if originals.repeats:
        notes.append(
            f"{originals.repeats} of {len(manifest)} originals show the same cell as another; "
            "each is kept and counts for its class."
        )
    return replace(plan, notes=tuple(notes))


def _document(
    job: _Job, plan: BalancePlan, originals: _Originals, *, complete: bool
) -> dict[str, Any]:
    """What ``balance.json`` says; nothing in it depends on the machine, the time or the place."""
    return {
        "schema": schema("balance"),
        "complete": complete,
        "request": job.request,
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
        "jpeg": asdict(job.jpeg),
        "classes": {
            name: {"originals": int(originals), "drawn": int(drawn)}
            for name, originals, drawn in zip(
                plan.scheme.names, plan.originals, plan.augmented, strict=True
            )
        },
        "images": plan.total,
        "rejected": [one.to_dict() for one in originals.rejected],
        "renamed": {
            e.sample.path: e.name
            for e in plan.entries
            if PurePosixPath(e.sample.path).name != e.name
        },
        "notes": list(plan.notes),
        "repeats": originals.repeats,
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
    if is_held_out(folder.name):
        raise DataError(
            f"{folder} is named like a validation or test folder; augmented copies do not belong "
            "there. Choose another name."
        )


def _begun(folder: Path, request: str) -> _Begun | None:
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
    rejected = tuple(RejectedFile(**row) for row in document["rejected"])
    return _Begun(_Originals(rejected, int(document.get("repeats", 0))), document["complete"])


def _check_originals(job: _Job) -> _Originals:
    """Decode every original once."""
    manifest, files = job.manifest, job.manifest.files()
    facts = Pictures(job.threads).facts(files, reporter=job.reporter, stage="checking")
    rejected = tuple(
        RejectedFile.of(told, file, sample.path)
        for sample, file, told in zip(manifest.samples, files, facts, strict=True)
        if isinstance(told, ImageError)
    )
    thumbnails = [told.thumbnail for told in facts if isinstance(told, ImageFacts)]
    pairs = same_cells(np.stack(thumbnails)) if thumbnails else []
    return _Originals(rejected, len({two for _, two, _ in pairs}))


def _tidy(folder: Path, plan: BalancePlan) -> set[str]:
    """Remove stale temporaries; return the files of the plan that are there and not empty."""
    expected = {path for _, _, path in plan.files()}
    present: set[str] = set()
    names = plan.scheme.names
    places = [("", folder), *((f"{n}/", folder / n) for n in names if (folder / n).is_dir())]
    for prefix, place in places:
        with os.scandir(place) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.name.startswith(TEMPORARY_PREFIX) and entry.is_file():
                    Path(entry.path).unlink(missing_ok=True)
                elif path in expected:
                    if entry.is_file(follow_symlinks=False) and entry.stat().st_size > 0:
                        present.add(path)
                elif path != PLAN_FILE and path not in names:
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
        folder = plan.scheme.names[entry.sample.label]
        missing = [0] if f"{folder}/{entry.name}" not in present else []
        missing += [
            n
            for n in range(1, entry.copies + 1)
            if f"{folder}/{entry.augmented_name(n)}" not in present
        ]
        for start in range(0, len(missing), _DRAWS_AT_ONCE):
            yield _Task(entry, tuple(missing[start : start + _DRAWS_AT_ONCE]))


def _write_files(job: _Job, plan: BalancePlan, present: set[str]) -> int:
    """Write the files that are missing; return how many."""
    for name in plan.scheme.names:
        prepare_folder(job.folder / name)
    missing = plan.total - len(present)
    done = 0
    tasks = _tasks(plan, present)
    for count in bounded_map(lambda task: _write(job, plan, task), tasks, workers=job.threads):
        done += count
        job.reporter.progress("writing", len(present) + done, plan.total)
    if done != missing:
        raise OutputError(f"{job.folder} lacks {missing - done} files of its plan. Run it again.")
    return done


def _write(job: _Job, plan: BalancePlan, task: _Task) -> int:
    """Write some files of one original; return how many."""
    sample = task.entry.sample
    place = job.folder / plan.scheme.names[sample.label]
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
                _draw(job, task, sample_key(sample, plan.scheme), place, image.pixels)
    return len(task.numbers)


def _draw(job: _Job, task: _Task, key: str, place: Path, pixels: Pixels) -> None:
    """Write the augmented copies of a task."""
    # A fresh megabyte for every copy costs as much as the warp itself, in page faults.
    buffer = np.empty_like(pixels, order="C")
    for n in filter(None, task.numbers):
        drawn = augment_pixels(pixels, augmentation(job.seed, n, key), out=buffer)
        encoded = encode_jpeg(drawn, quality=job.jpeg.quality, subsampling=job.jpeg.subsampling)
        atomic_write_bytes(place / task.entry.augmented_name(n), encoded, durable=False)
