"""Images in, answers out: what every door that asks a model has in common."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from leuko.classifier import Classifier
from leuko.errors import ImageError
from leuko.imaging.decode import pixels_to_decode, read_bytes
from leuko.prediction import Prediction
from leuko.prediction_files import (
    ParquetPredictions,
    csv_cells,
    csv_line,
    csv_names,
    parquet_predictions,
)
from leuko.runtime.repeats import mark_repeats
from leuko.runtime.sources import expand
from leuko.source import file_source
from leuko.support.artifacts import atomic_write
from leuko.support.reporter import SILENT, Reporter

if TYPE_CHECKING:
    from leuko.render.picture import Gallery
    from leuko.source import Source

__all__ = ["answer_images", "field_among", "written"]

Answering = Callable[[Iterable["Source"]], Iterator[Prediction]]

_FIELD: Final = 150_000
"""Pixels of a picture that may be a field, and is worth a sixth of a second to find out."""

_GROUP: Final = 1024
"""Rows of a row group of a Parquet file."""


def answer_images(
    images: Iterable[str],
    stream: Answering,
    *,
    gallery: Gallery | None = None,
    reporter: Reporter = SILENT,
) -> Iterator[Prediction]:
    """Answer all that a user points at, each cell once.

    Parameters
    ----------
    images : iterable of str
        See `leuko.runtime.sources.expand`.
    stream : callable
        From sources to answers in the same order, such as `leuko.classifier.Classifier.stream`.
    gallery : Gallery, optional
        Notes the images on their way, to draw them at the end.
    reporter : Reporter, optional
        Told of what was passed over.

    Returns
    -------
    iterator of Prediction
        In input order; an image that shows a cell again is marked.

    Raises
    ------
    DataError
        See `leuko.runtime.sources.expand`.
    """
    sources = expand(images, reporter=reporter)
    if gallery is None:
        return mark_repeats(stream(sources))
    return gallery.keep(mark_repeats(stream(gallery.watch(sources))))


def written(
    answers: Iterable[Prediction],
    classifier: Classifier,
    *,
    csv: Path | None = None,
    parquet: Path | None = None,
) -> Generator[Prediction, None, None]:
    """Write answers as they pass by; the files are there when the last has passed.

    Parameters
    ----------
    answers : iterable of Prediction
        In order.
    classifier : Classifier
        That answers.
    csv, parquet : Path, optional
        Files to write.

    Yields
    ------
    Prediction
        What came in.

    Raises
    ------
    OutputError
        When a file cannot be written; an old one stays.
    """
    scheme = classifier.scheme
    with contextlib.ExitStack() as stack:
        file: io.TextIOWrapper | None = None
        table: ParquetPredictions | None = None
        if csv is not None:
            file = io.TextIOWrapper(
                stack.enter_context(atomic_write(csv)),
                encoding="utf-8", errors="surrogateescape", newline="", write_through=True,
            )  # fmt: skip
            file.write(csv_line(csv_names(scheme)))
        if parquet is not None:
            table = stack.enter_context(
                parquet_predictions(parquet, model=classifier.digest, scheme=scheme)
            )
        group: list[Prediction] = []
        for row in answers:
            if file is not None:
                file.write(csv_line(csv_cells(row, scheme)))
            if table is not None:
                group.append(row)
                if len(group) == _GROUP:
                    table.write(group)
                    group = []
            yield row
        if table is not None:
            table.write(group)
        if file is not None:
            file.detach()


def field_among(rows: Sequence[Prediction]) -> str:
    """Look whether pictures are whole fields.

    Parameters
    ----------
    rows : sequence of Prediction
        A few of their answers, with the names of their files; others are passed over.

    Returns
    -------
    str
        Name of the first, where more than half of them show a field; else empty.
    """
    large = [row.path for row in rows if _pixels(row.path) >= _FIELD]
    if 2 * len(large) <= len(rows):
        return ""
    from leuko.field.find import find_cells
    from leuko.field.name import is_single
    from leuko.runtime.detectors import load_detector

    detector = load_detector()
    found = [find_cells(file_source(path), detector).field for path in large]
    fields = [one.name for one in found if one.cells and one.red_cells and not is_single(one)]
    return fields[0] if 2 * len(fields) > len(rows) else ""


def _pixels(path: str) -> int:
    """How many pixels a file has; 0 where it cannot be read."""
    try:
        return pixels_to_decode(read_bytes(path))
    except ImageError:
        return 0
