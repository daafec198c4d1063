"""A smaller copy of a data set: same folders, same names, fewer pixels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from leuko.artifacts import atomic_write_bytes, atomic_write_text, prepare_folder
from leuko.errors import ImageError, OutputError
from leuko.imaging import IMAGE_SUFFIXES, encode_jpeg, read_image
from leuko.manifest import find_splits, read_folder
from leuko.parallel import Progress, bounded_map, worker_count

__all__ = ["shrink_dataset"]


def shrink_dataset(
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: int = 288,
    quality: int = 85,
    ignore: tuple[str, ...] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write every image with its longer side at most `size`, as JPEG.

    Shrinking averages over areas. Files that are there already are kept, so an interrupted call
    is finished by the same call. File names keep their stem, and so their slide; of two that
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
    progress : callable, optional
        Called as ``progress(stage, done, total)``.

    Returns
    -------
    dict
        ``written``, ``kept`` and ``rejected`` (path, reason, detail).

    Raises
    ------
    OutputError
        When `out` lies inside `dataset`, holds a copy made with other settings, or something
        cannot be written.
    """
    source, target = Path(dataset).expanduser().resolve(), Path(out).expanduser().resolve()
    if target == source or source in target.parents:
        raise OutputError(f"{target} lies inside {source}; choose a folder outside it.")
    work: list[tuple[Path, Path]] = []
    taken: set[str] = set()
    for folder in find_splits(source).values():
        manifest = read_folder(folder, ignore=ignore)
        for sample, file in zip(manifest.samples, manifest.files(), strict=True):
            place = target / folder.relative_to(source) / sample.path
            if place.suffix.lower() in IMAGE_SUFFIXES:
                name = place.with_suffix(".jpg").name
            else:
                name = f"{place.name}.jpg"
            if str(place.with_name(name)).casefold() in taken:
                name = f"{place.name}.jpg"
            place = place.with_name(name)
            taken.add(str(place).casefold())
            work.append((file, place))
    prepare_folder(target)
    settings, made = f"size {size}, quality {quality}\n", target / ".leuko-shrink"
    if made.is_file() and made.read_text(encoding="utf-8") != settings:
        raise OutputError(
            f"{target} holds a copy made with {made.read_text(encoding='utf-8').strip()}. Choose "
            "another folder, or the same settings."
        )
    atomic_write_text(made, settings)

    def shrink(job: tuple[Path, Path]) -> tuple[str, ImageError | None]:
        file, place = job
        if place.exists():
            return "kept", None
        try:
            pixels = read_image(file).pixels
        except ImageError as error:
            return "rejected", error
        factor = size / max(pixels.shape[:2])
        if factor < 1:
            rows, columns = (max(1, round(side * factor)) for side in pixels.shape[:2])
            pixels = np.asarray(
                cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8
            )
        data = encode_jpeg(pixels, quality=quality, subsampling="420")
        atomic_write_bytes(place, data, durable=False)
        return "written", None

    counts: dict[str, Any] = {"written": 0, "kept": 0, "rejected": []}
    results = bounded_map(shrink, work, workers=worker_count(workers), ahead=64)
    for number, ((file, _), (outcome, error)) in enumerate(zip(work, results, strict=True), 1):
        if error is not None:
            counts["rejected"].append(
                {"path": str(file), "reason": error.reason, "detail": error.detail}
            )
        else:
            counts[outcome] += 1
        if progress is not None and (number % 50 == 0 or number == len(work)):
            progress("shrinking", number, len(work))
    return counts
