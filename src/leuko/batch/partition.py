"""The unit of work of every engine: a run of rows, answered from one opened bundle."""

from __future__ import annotations

import contextlib
import faulthandler
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, Final

from leuko.bundle import ModelBundle
from leuko.classifier import Classifier
from leuko.errors import BatchError, DataError
from leuko.prediction import Prediction, PredictionTable
from leuko.runtime.classifier import OnnxClassifier
from leuko.scheme import ClassScheme
from leuko.source import Source
from leuko.support.artifacts import digest_json
from leuko.support.host import versions

__all__ = [
    "AT_ONCE",
    "DIED",
    "PARTITION_ROWS",
    "Answer",
    "Loss",
    "Partition",
    "Piece",
    "answer_piece",
    "cut",
    "decode_answers",
    "encode_answers",
    "ended_after",
    "predict_partition",
]

PARTITION_ROWS: Final = 1024
"""Rows of a partition: some seconds of work, little to do again."""

DIED: Final = "worker-died"
"""Reason of a row whose worker ended each time it was tried, alone."""

STALL_S: Final = 300.0
"""Seconds for a few rows after which a worker ends itself; no known picture takes over ten."""

AT_ONCE: Final = 16
"""Images that a worker's thread takes at a time: few, so that one that hangs is soon known."""


@dataclass(frozen=True)
class Partition:
    """Consecutive rows with a name of their own.

    Attributes
    ----------
    index : int
        Position among the partitions.
    key : str
        Digest of the rows, the bundle and the version of Leuko: equal keys, equal answers.
    rows : tuple of Source
        In input order.
    """

    index: int
    key: str
    rows: tuple[Source, ...]


@dataclass(frozen=True)
class Piece:
    """Rows that one worker answers in one go: a partition, or part of one that was lost.

    Attributes
    ----------
    partition, start : int
        Index of the partition; position of the first row in it.
    rows : tuple of Source
        In input order.
    tries : int
        How often this very piece was lost already.
    """

    partition: int
    start: int
    rows: tuple[Source, ...]
    tries: int = 0


@dataclass(frozen=True)
class Answer:
    """What a worker sends home.

    Attributes
    ----------
    piece : (int, int)
        Partition and start.
    count : int
        Rows answered, rejected ones included.
    payload : bytes
        See `encode_answers`.
    """

    piece: tuple[int, int]
    count: int
    payload: bytes


@dataclass(frozen=True)
class Loss:
    """A piece that came back without an answer.

    Attributes
    ----------
    piece : Piece
        To be done again.
    why : str
        What is known of the end of its worker.
    """

    piece: Piece
    why: str


def predict_partition(rows: Iterable[Source], bundle: ModelBundle | Classifier) -> PredictionTable:
    """Answer rows; what every engine runs, and all that it runs.

    Parameters
    ----------
    rows : iterable of Source
        See `leuko.runtime.sources.expand`.
    bundle : ModelBundle or Classifier
        A classifier that is already open saves opening it.

    Returns
    -------
    PredictionTable
        One row for each, in order; a bad image has its reason.

    Raises
    ------
    BundleError
        When the bundle cannot be opened.
    DataError
        When an archive or a Parquet file cannot be read here.
    """
    classifier = OnnxClassifier(bundle) if isinstance(bundle, ModelBundle) else bundle
    return PredictionTable(tuple(classifier.stream(rows)), classifier.scheme)


def cut(rows: Iterable[Source], *, model: str, size: int = PARTITION_ROWS) -> Iterator[Partition]:
    """Cut a list of rows into partitions.

    Parameters
    ----------
    rows : iterable of Source
        Consumed as partitions are asked for.
    model : str
        Digest of the bundle.
    size : int
        Rows of each partition but the last.

    Yields
    ------
    Partition
        In order.
    """
    rest, index, known = iter(rows), 0, versions()
    while part := tuple(islice(rest, size)):
        key = digest_json([known, model, [row.identity for row in part]])
        yield Partition(index, key, part)
        index += 1


def answer_piece(piece: Piece, classifier: Classifier, *, stall_s: float = STALL_S) -> Answer:
    """Answer a piece inside a worker process, which ends if a few rows take forever.

    Parameters
    ----------
    piece : Piece
        What to answer.
    classifier : Classifier
        Opened once for the worker.
    stall_s : float
        Seconds for every 16 rows.

    Returns
    -------
    Answer
        To be sent home.

    Raises
    ------
    DataError
        When this machine does not see the files.
    """
    _check_sight(piece.rows)
    rows: list[Prediction] = []
    answers = classifier.stream(piece.rows)
    whole = False
    while not whole:
        with ended_after(stall_s):
            batch = list(islice(answers, AT_ONCE))
        rows += batch
        whole = len(batch) < AT_ONCE
    return Answer((piece.partition, piece.start), len(rows), encode_answers(rows))


@contextlib.contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """End this process if a block takes longer, whatever it is doing.

    Parameters
    ----------
    seconds : float
        Kept by a thread that no lock of Python's holds up.

    Yields
    ------
    None
        For the block.
    """
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _check_sight(rows: tuple[Source, ...]) -> None:
    """Stop where a worker sees none of the files that were there when they were listed."""
    files = [row.place for row in rows if row.kind == "file" and row.stamp]
    if len(files) > 1 and not any(os.path.lexists(place) for place in files):
        raise DataError(
            f"{files[0]} and the {len(files) - 1} files after it were listed, but the worker that "
            "was to read them sees none. Every machine that works needs the images under the "
            "same path; or give them as Parquet, see docs/scale.md."
        )


def encode_answers(rows: Iterable[Prediction]) -> bytes:
    """Pack answers: a line of JSON for each, compressed.

    Parameters
    ----------
    rows : iterable of Prediction
        In order.

    Returns
    -------
    bytes
        A gzip member; several, one after the other, are the answers one after the other.
    """
    # The scheme is the bundle's, and told by whoever reads them.
    names = [field.name for field in fields(Prediction) if field.name != "scheme"]
    lines = [json.dumps({name: getattr(row, name) for name in names}) + "\n" for row in rows]
    return gzip.compress("".join(lines).encode(), compresslevel=1, mtime=0)


def decode_answers(payload: bytes, source: str, scheme: ClassScheme) -> list[Prediction]:
    """Unpack answers.

    Parameters
    ----------
    payload : bytes
        Of `encode_answers`.
    source : str
        Where it came from, for the message.
    scheme : ClassScheme
        Of the bundle that answered.

    Returns
    -------
    list of Prediction
        In order.

    Raises
    ------
    BatchError
        When it is damaged.
    """
    try:
        lines = gzip.decompress(payload).decode().splitlines()
        return [Prediction(**_tuples(json.loads(line)), scheme=scheme) for line in lines]
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zlib.error) as error:
        raise BatchError(
            f"{source} is damaged: {error}. Delete it and run the same command with --resume."
        ) from error


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Turn JSON's lists back into the tuples of a frozen row."""
    return {name: _tuple(value) for name, value in values.items()}


def _tuple(value: Any) -> Any:
    """A list as a tuple, and lists in it too."""
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value
