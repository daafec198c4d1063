"""From a list of images to one file of predictions: cut, answer, keep, go on, put together."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

from leuko.batch.partition import (
    DIED,
    PARTITION_ROWS,
    Answer,
    Loss,
    Partition,
    Piece,
    cut,
    decode_answers,
    encode_answers,
)
from leuko.batch.work import check_output, write_predictions
from leuko.bundle import ModelBundle
from leuko.errors import BatchError, UsageError
from leuko.prediction import Prediction
from leuko.runtime.repeats import Repeats
from leuko.source import Source
from leuko.support.artifacts import digest_json
from leuko.support.parts import Parts, open_parts
from leuko.support.text import rejection

__all__ = ["ENGINES", "BatchResult", "Engine", "open_engine", "predict_to_file"]

ENGINES: Final = ("processes", "ray")

_ENDING: Final = ".jsonl.gz"

_TRIES: Final = 2
_BARREN: Final = 64


class Engine(Protocol):
    """Something that answers pieces; a context manager."""

    @property
    def bundle(self) -> ModelBundle:
        """The model that answers."""
        ...

    @property
    def wave(self) -> int | None:
        """How many pieces it wants at a time; None when it takes them one by one."""
        ...

    @property
    def description(self) -> str:
        """How the work is shared, for people; known once it is entered."""
        ...

    def run(self, pieces: Iterable[Piece]) -> Iterator[Answer | Loss]:
        """Give one outcome for each piece, in any order."""
        ...

    def __enter__(self) -> Any:
        """Start the workers."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End them."""
        ...


@dataclass(frozen=True)
class BatchResult:
    """What a run found and did.

    Attributes
    ----------
    found, predicted, rejected : int
        Images; the first is the sum of the others.
    outcomes : Counter
        Images by `leuko.prediction.Prediction.outcome`.
    partitions, kept, lost : int
        Partitions; those that an earlier run had finished; pieces whose worker ended.
    """

    found: int
    predicted: int
    rejected: int
    outcomes: Counter[tuple[str, str]]
    partitions: int
    kept: int
    lost: int


@dataclass
class _Tally:
    """What is known of the partitions seen so far."""

    keys: list[tuple[str, int]] = field(default_factory=list)
    answered: int = 0
    kept: int = 0
    lost: int = 0


def open_engine(
    name: str,
    bundle: ModelBundle,
    *,
    workers: int | None = None,
    address: str | None = None,
) -> Engine:
    """Choose an engine.

    Parameters
    ----------
    name : {"processes", "ray"}
        Processes of this machine, or Ray Data.
    bundle : ModelBundle
        That answers.
    workers : int, optional
        Worker processes; one for each core when None.
    address : str, optional
        Of a Ray cluster: ``auto`` or ``HOST:PORT``. None starts Ray on this machine.

    Returns
    -------
    Engine
        Not yet started.

    Raises
    ------
    UsageError
        When there is no such engine, or an address is given to one that has none.
    MissingExtraError
        When Ray is asked for and not installed.
    """
    if name not in ENGINES:
        raise UsageError(f"There is no engine {name!r}; expected {' or '.join(ENGINES)}.")
    if name == "ray":
        from leuko.batch.cluster import RayCluster

        return RayCluster(bundle, workers=workers, address=address)
    if address is not None:
        raise UsageError("An address goes with the engine ray; processes are of this machine.")
    from leuko.batch.processes import Processes

    return Processes(bundle, workers=workers)


def predict_to_file(
    sources: Iterable[Source],
    out: str | os.PathLike[str],
    engine: Engine,
    *,
    resume: bool = False,
    size: int = PARTITION_ROWS,
    say: Callable[[str], None] = lambda _: None,
    detail: Callable[[str], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> BatchResult:
    """Predict images with an engine, into one file, rows in input order.

    Partitions that are finished are kept in a folder beside the file; after a crash the same call
    with `resume` does the others. The file is put together at the end, atomically.

    Parameters
    ----------
    sources : iterable of Source
        As `leuko.runtime.sources.expand` lists them.
    out : path-like
        A name that ends in ``.csv`` or ``.parquet``.
    engine : Engine
        Not yet entered; it is started when there is something to do.
    resume : bool
        Go on with an earlier run.
    size : int
        Rows of a partition.
    say, detail : callable
        Told what a user should know, and what only a curious one wants.
    progress : callable
        Called with the number of images answered by this run so far.

    Returns
    -------
    BatchResult
        Counts.

    Raises
    ------
    UsageError, OutputError, DataError, BatchError, MissingExtraError
        Each with one sentence.
    """
    target = Path(out)
    check_output(target)
    bundle = engine.bundle
    models = {bundle.name: bundle.digest}
    with open_parts(target, _ENDING, models, resume=resume) as work:
        tally = _Tally()
        before = work.finished
        todo = _unfinished(cut(sources, model=bundle.digest, size=size), work, tally)
        first = next(todo, None)
        if first is not None:
            with engine:
                detail(f"Engine: {engine.description}.")
                _answer(chain([first], todo), engine, work, tally, detail, progress)
        if before:
            say(f"{tally.kept} of {len(tally.keys)} partitions were finished before.")
        return _assemble(target, bundle, work, tally, say, detail)


def _unfinished(partitions: Iterable[Partition], work: Parts, tally: _Tally) -> Iterator[Partition]:
    """Note every partition, and give those that are to be done."""
    for partition in partitions:
        tally.keys.append((partition.key, len(partition.rows)))
        if work.has(partition.key):
            tally.kept += 1
        else:
            yield partition


def _answer(
    partitions: Iterator[Partition],
    engine: Engine,
    work: Parts,
    tally: _Tally,
    detail: Callable[[str], None],
    progress: Callable[[int], None],
) -> None:
    """Have all partitions answered; what is lost is tried again, in smaller pieces at last."""
    gathered: dict[int, _Gathered] = {}
    again: deque[Piece] = deque()
    barren = 0

    def pieces() -> Iterator[Piece]:
        for partition in partitions:
            gathered[partition.index] = _Gathered(partition.key, len(partition.rows))
            yield Piece(partition.index, 0, partition.rows)
            yield from _drain(again)

    def take(answer: Answer) -> None:
        tally.answered += answer.count
        progress(tally.answered)
        whole = gathered[answer.piece[0]]
        if whole.add(answer):
            work.keep(whole.key, whole.payload)
            del gathered[answer.piece[0]]

    rest = pieces()
    while wave := _wave(rest, engine.wave):
        for outcome in engine.run(wave):
            if isinstance(outcome, Answer):
                barren = 0
                take(outcome)
                continue
            barren, tally.lost = barren + 1, tally.lost + 1
            detail(f"Partition {outcome.piece.partition + 1} is done again: {outcome.why}.")
            if barren >= _BARREN:
                raise BatchError(
                    f"{barren} workers in a row ended without an answer, the last because "
                    f"{outcome.why}. What is finished is kept for --resume; if the memory is "
                    "short, give fewer --workers."
                )
            if len(outcome.piece.rows) == 1 and outcome.piece.tries + 1 >= _TRIES:
                take(_reject(outcome, engine.bundle))
            else:
                again.extend(_smaller(outcome.piece))
        if again:
            rest = chain(_drain(again), rest)


def _drain(pieces: deque[Piece]) -> Iterator[Piece]:
    """Take pieces from the front until there are none."""
    while pieces:
        yield pieces.popleft()


def _wave(pieces: Iterator[Piece], count: int | None) -> Iterator[Piece] | None:
    """The next pieces for an engine, or None when there are none left."""
    first = next(pieces, None)
    if first is None:
        return None
    return chain([first], pieces if count is None else islice(pieces, count - 1))


def _smaller(piece: Piece) -> list[Piece]:
    """What to try after a loss: the same once more, then its halves, one row at last."""
    if piece.tries + 1 < _TRIES:
        return [Piece(piece.partition, piece.start, piece.rows, piece.tries + 1)]
    middle = len(piece.rows) // 2
    halves = (0, piece.rows[:middle]), (middle, piece.rows[middle:])
    # A half is halved again at its first loss; only a single row gets its second chance.
    return [
        Piece(piece.partition, piece.start + shift, rows, 0 if len(rows) == 1 else _TRIES - 1)
        for shift, rows in halves
    ]


def _reject(loss: Loss, bundle: ModelBundle) -> Answer:
    """Answer in the place of workers that one row has ended."""
    piece = loss.piece
    row = Prediction(
        path=piece.rows[0].name,
        status="rejected",
        reason=DIED,
        detail=f"Tried alone, {_TRIES} times; {loss.why}.",
        model=bundle.digest[:12],
        preprocessing=digest_json(bundle.preprocess.to_dict())[:12],
    )
    return Answer((piece.partition, piece.start), 1, encode_answers([row]))


class _Gathered:
    """Answers of one partition, until they are all there."""

    def __init__(self, key: str, count: int) -> None:
        self.key = key
        self._count = count
        self._parts: dict[int, Answer] = {}

    def add(self, answer: Answer) -> bool:
        """Take one; whether that was the last that was missing."""
        self._parts[answer.piece[1]] = answer
        return sum(part.count for part in self._parts.values()) == self._count

    @property
    def payload(self) -> bytes:
        """All answers, in order."""
        return b"".join(self._parts[start].payload for start in sorted(self._parts))


def _assemble(
    out: Path,
    bundle: ModelBundle,
    work: Parts,
    tally: _Tally,
    say: Callable[[str], None],
    detail: Callable[[str], None],
) -> BatchResult:
    """Put the partitions together, and count."""
    outcomes: Counter[tuple[str, str]] = Counter()
    repeats = Repeats()

    def parts() -> Iterator[list[Prediction]]:
        for key, count in tally.keys:
            answers = decode_answers(work.read(key), str(work.file(key)), bundle.scheme)
            rows = [repeats.mark(row) for row in answers]
            if len(rows) != count:
                raise BatchError(
                    f"{work.path} holds {len(rows)} answers for a partition of {count} rows. "
                    "Delete the folder and run the same command again."
                )
            for row in rows:
                outcomes[row.outcome] += 1
                if row.status != "ok":
                    detail(rejection(row.path, row.reason, row.detail))
            yield rows

    write_predictions(out, parts(), bundle)
    reasons = Counter({why: n for (what, why), n in outcomes.items() if what == "rejected"})
    if reasons:
        say("Rejected: " + ", ".join(f"{n} {reason}" for reason, n in reasons.most_common()) + ".")
    return BatchResult(
        found=sum(count for _, count in tally.keys),
        predicted=outcomes.total() - reasons.total(),
        rejected=reasons.total(),
        outcomes=outcomes,
        partitions=len(tally.keys),
        kept=tally.kept,
        lost=tally.lost,
    )
