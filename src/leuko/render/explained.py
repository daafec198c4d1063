"""Answers that leave a picture of their explanation behind, one after the other."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from leuko.errors import ImageError, UsageError
from leuko.imaging.decode import encode_png
from leuko.imaging.pictures import decoded
from leuko.prediction import Prediction
from leuko.render.heat import heat_picture
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.explain import Explainer
from leuko.source import Source, opened
from leuko.support.artifacts import atomic_write_bytes, digest_bytes, prepare_folder
from leuko.support.files import mark_own_picture
from leuko.support.parallel import bounded_map, worker_count
from leuko.support.reporter import Reporter

__all__ = ["PictureNames", "check_folder", "explained"]

_LONGEST: Final = 100
_DEVICES: Final = frozenset({"con", "prn", "aux", "nul", "com", "lpt", "conin$", "conout$"})


class PictureNames:
    """Names for pictures: safe on every file system, and each given once.

    Examples
    --------
    >>> names = PictureNames()
    >>> [names.take(path) for path in ("a/cell 1.jpg", "b/cell 1.png", "../../etc/..", "CELL_1")]
    ['cell_1.explained.png', 'cell_1-2.explained.png', 'image.explained.png',
     'CELL_1-3.explained.png']
    """

    def __init__(self) -> None:
        self._given: dict[str, int] = {}

    def take(self, path: str) -> str:
        """Name the picture of an image.

        Parameters
        ----------
        path : str
            How the user named the image; only its last part counts, and only as a label.

        Returns
        -------
        str
            Letters, digits, ``.``, ``_`` and ``-`` of ASCII, with a number where it was taken.
        """
        last = re.split(r"[/\\]", path)[-1]
        stem = last.rpartition(".")[0] or last
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:_LONGEST].strip("._-") or "image"
        if re.sub(r"[0-9]?(\..*)?$", "", safe.lower()) in _DEVICES:
            safe = f"image-{safe}"  # Windows keeps these for itself
        name, folded = safe, safe.lower()
        while name.lower() in self._given:
            self._given[folded] += 1
            name = f"{safe}-{self._given[folded]}"
        self._given[name.lower()] = 1
        return f"{name}.explained.png"


def check_folder(folder: Path, images: Iterable[str]) -> None:
    """Make a folder for pictures, unless it would be read for images.

    Parameters
    ----------
    folder : Path
        Where pictures will go.
    images : iterable of str
        What the user pointed at.

    Raises
    ------
    UsageError
        When it is one of the image folders or lies inside one.
    OutputError
        When it cannot be made.
    """
    place = os.path.realpath(folder)
    for argument in images:
        source = os.path.realpath(os.path.expanduser(argument))
        if argument != "-" and os.path.isdir(source) and _inside(place, source):  # noqa: PTH112
            raise UsageError(
                f"{folder} lies inside {argument}, so its pictures would be read as images. "
                "Choose a folder outside it."
            )
    prepare_folder(folder)


def explained(
    classifier: OnnxClassifier,
    sources: Iterable[Source],
    folder: Path,
    *,
    threads: int | None = None,
    reporter: Reporter,
) -> Iterator[Prediction]:
    """Classify sources and write a picture for each that has an answer.

    An image is read a second time for its picture, so that only a few are held at any time.

    Parameters
    ----------
    classifier : OnnxClassifier
        Gives the answers.
    sources : iterable of Source
        See `OnnxClassifier.stream`.
    folder : Path
        See `check_folder`.
    threads : int, optional
        For explaining and drawing; as many as this process has cores when None.
    reporter : Reporter
        Told of an image that could not be read again.

    Yields
    ------
    Prediction
        In input order, once its picture is written.

    Raises
    ------
    OutputError
        When a picture cannot be written.
    """
    explainer = Explainer(classifier, threads=1)
    names = PictureNames()
    waiting: deque[Source] = deque()

    def seen() -> Iterator[Source]:
        for source in opened(sources):
            waiting.append(source)
            yield source

    def jobs() -> Iterator[tuple[Source, Prediction, str]]:
        for row in classifier.stream(seen()):
            source = waiting.popleft()
            yield source, row, names.take(row.path) if row.status == "ok" else ""

    def work(job: tuple[Source, Prediction, str]) -> tuple[Prediction, str]:
        source, row, name = job
        return row, _write(explainer, source, row, folder / name) if name else ""

    for row, fault in bounded_map(work, jobs(), workers=worker_count(threads)):
        if fault:
            reporter.say(f"Not explained: {row.path} ({fault})")
        yield row


def _write(explainer: Explainer, source: Source, row: Prediction, path: Path) -> str:
    """Draw one explanation; otherwise what was wrong."""
    try:
        with source.open() as data:
            if digest_bytes(data) != row.sha256:
                return "the file changed while it was read"
            with decoded(data, explainer.preprocess) as image:
                explanation = explainer.explain(image.pixels, row.likeliest)
                drawn = heat_picture(image.pixels, row, explanation)
    except ImageError as error:
        return error.detail
    atomic_write_bytes(path, mark_own_picture(encode_png(drawn, effort=1)), durable=False)
    return ""


def _inside(place: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it."""
    return place == folder or place.startswith(folder.rstrip(os.sep) + os.sep)
