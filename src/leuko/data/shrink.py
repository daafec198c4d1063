"""A smaller copy of a data set: same folders, same names, fewer pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from leuko.data.reading import find_splits, read_folder
from leuko.data.rejected import RejectedFile
from leuko.errors import DataError, ImageError, OutputError
from leuko.imaging.decode import IMAGE_SUFFIXES, encode_jpeg
from leuko.imaging.pictures import open_picture
from leuko.manifest import Manifest, Sample
from leuko.support.artifacts import atomic_write_bytes, prepare_folder, schema
from leuko.support.parallel import bounded_map, worker_count
from leuko.support.reporter import SILENT, Reporter

__all__ = ["SOURCES", "ShrinkReport", "shrink_dataset"]

SOURCES: Final = ".sources.json"
"""A manifest in the copy: each of its files with the digest of the image that it is made from.

Its note says with which settings. It is no temporary file, so its name does not begin like one.
"""

_OLD_MARK: Final = ".leuko-shrink"
"""What said the settings alone, before digests were kept."""


@dataclass(frozen=True)
class ShrinkReport:
    """What shrinking did.

    Attributes
    ----------
    written, kept : int
        Files written now, and files that were there already.
    rejected : tuple of RejectedFile
        Files that are no usable images.
    notes : tuple of str
        What was passed over, and classes without images.
    """

    written: int
    kept: int
    rejected: tuple[RejectedFile, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON.

        Returns
        -------
        dict
            Schema ``leuko.shrunk/1``.
        """
        return {
            "schema": schema("shrunk"),
            "written": self.written,
            "kept": self.kept,
            "rejected": [file.to_dict() for file in self.rejected],
            "notes": list(self.notes),
        }


def shrink_dataset(
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: int = 288,
    quality: int = 85,
    ignore: tuple[str, ...] = (),
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> ShrinkReport:
    """Write every image with its longer side at most `size`, as JPEG.

    Shrinking averages over areas. Files that are there already are kept where the image that they
    were made from is the same, so an interrupted call is finished by the same call, and one after
    a change does what has changed. File names keep their stem, and so their slide; of two that
    would become one, the later one keeps its old suffix too, as in ``cell.png.jpg``.

    Parameters
    ----------
    dataset : path-like
        A folder with splits, or with class folders.
    out : path-like
        The copy's folder, outside `dataset`.
    size : int
        Longer side in pixels, at least 16.
    quality : int
        JPEG quality, 1 to 100.
    ignore : tuple of str
        Extra folders to pass over.
    workers : int, optional
        Threads.
    reporter : Reporter, optional
        Told how far it is, and what a person should know.

    Returns
    -------
    ShrinkReport

    Raises
    ------
    OutputError
        When `out` lies inside `dataset`, holds a copy of another data set or one made with other
        settings, or something cannot be written.
    """
    source, target = Path(dataset).expanduser().resolve(), Path(out).expanduser().resolve()
    if target == source or source in target.parents:
        raise OutputError(f"{target} lies inside {source}; choose a folder outside it.")
    copies, notes = _copies(source, target, ignore)
    prepare_folder(target)
    _begin(target, source, [one.sample for one in copies], f"size {size}, quality {quality}")
    outcomes = bounded_map(
        lambda one: _shrink(one, size, quality), copies, workers=worker_count(workers), ahead=64
    )
    counts = {"written": 0, "kept": 0}
    rejected: list[RejectedFile] = []
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, RejectedFile):
            rejected.append(outcome)
        else:
            counts[outcome] += 1
        if number % 50 == 0 or number == len(copies):
            reporter.progress("shrinking", number, len(copies))
    return ShrinkReport(counts["written"], counts["kept"], tuple(rejected), notes)


@dataclass(frozen=True, slots=True)
class _Copy:
    """An image, and the file that is made of it."""

    file: Path
    place: Path
    sample: Sample
    """Of the copy, with the digest of the image."""


def _copies(
    source: Path, target: Path, ignore: tuple[str, ...]
) -> tuple[list[_Copy], tuple[str, ...]]:
    """What is to be made of every image, and what was noted on reading."""
    copies: list[_Copy] = []
    notes: list[str] = []
    taken: set[str] = set()
    for split, folder in find_splits(source).items():
        manifest = read_folder(folder, ignore=ignore)
        notes += manifest.notes
        for sample, file in zip(manifest.samples, manifest.files(), strict=True):
            place = _place(target / folder.relative_to(source) / sample.path, taken)
            taken.add(str(place).casefold())
            path = place.relative_to(target).as_posix()
            made = Sample(path, sample.label, sample.slide, sample.sha256, split)
            copies.append(_Copy(file, place, made))
    return copies, tuple(notes)


def _place(place: Path, taken: set[str]) -> Path:
    """Where a copy is written; it keeps its image's suffix where the name is taken without."""
    if place.suffix.lower() in IMAGE_SUFFIXES:
        plain = place.with_suffix(".jpg")
        if str(plain).casefold() not in taken:
            return plain
    return place.with_name(f"{place.name}.jpg")


def _shrink(copy: _Copy, size: int, quality: int) -> Literal["written", "kept"] | RejectedFile:
    """Write one copy, where it is not there already."""
    if copy.place.exists():
        return "kept"
    try:
        with open_picture(copy.file) as image:
            data = encode_jpeg(_smaller(image.pixels, size), quality=quality, subsampling="420")
    except ImageError as error:
        return RejectedFile.of(error, copy.file, str(copy.file))
    atomic_write_bytes(copy.place, data, durable=False)
    return "written"


def _smaller(pixels: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Shrink a picture until its longer side is `size`; never enlarge."""
    factor = size / max(pixels.shape[:2])
    if factor >= 1:
        return pixels
    rows, columns = (max(1, round(side * factor)) for side in pixels.shape[:2])
    return np.asarray(cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def _begin(target: Path, source: Path, copies: list[Sample], settings: str) -> None:
    """Write down what the copy is made of, after taking away files whose image has changed."""
    before = _before(target)
    if before is None:
        earlier: dict[str, str] = {}
    else:
        earlier = {sample.path: sample.sha256 for sample in before.samples}
        if before.notes != (settings,):
            raise OutputError(
                f"{target} holds a copy made with {' '.join(before.notes)}. Choose another folder, "
                "or the same settings."
            )
        now = {sample.path: sample.sha256 for sample in copies}
        gone = sorted(earlier.keys() - now.keys())
        same = any(digest and now.get(path) == digest for path, digest in earlier.items())
        if gone or not same:
            why = f"it has {gone[0]}, and {source} has no such image" if gone else ""
            raise OutputError(
                f"{target} holds a copy of another data set: "
                f"{why or f'not one image is that of {source}'}. Choose another folder, or delete "
                "this one and make it again."
            )
    # In this order a call that is killed here leaves files to be made again, never old ones that
    # pass for new.
    for sample in copies:
        place = target / sample.path
        if not place.exists() or (sample.sha256 and earlier.get(sample.path) == sample.sha256):
            continue
        if sample.path not in earlier:
            raise OutputError(
                f"{place} is there already, and {target} does not say what it was made from. "
                "Choose another folder, or delete this one and make it again."
            )
        try:
            place.unlink()
        except OSError as error:
            raise OutputError(f"{place} cannot be replaced: {error.strerror}.") from error
    Manifest(Path(source.name), tuple(copies), (settings,)).save(target / SOURCES)


def _before(target: Path) -> Manifest | None:
    """What a copy that is there already was made of."""
    mark = target / SOURCES
    if mark.is_file():
        try:
            return Manifest.load(mark)
        except DataError as error:
            raise OutputError(
                f"{error} Choose another folder, or delete {target} and make it again."
            ) from error
    if (target / _OLD_MARK).is_file():
        raise OutputError(
            f"{target} holds a copy made by an earlier Leuko, which did not note what images it "
            "was made from. Choose another folder, or delete this one and make it again."
        )
    return None
