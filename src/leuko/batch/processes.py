"""Partitions on processes of this machine, each with the model open; one may die at any time."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Final

from leuko.batch.partition import AT_ONCE, STALL_S, Answer, Loss, Piece, answer_piece, ended_after
from leuko.bundle import ModelBundle
from leuko.classifier import Classifier
from leuko.errors import BatchError, LeukoError
from leuko.runtime.classifier import OnnxClassifier
from leuko.support.parallel import worker_count

__all__ = ["Processes", "serve", "share_cores"]

_STILLBORN: Final = 3
"""Workers in a row that may end before their model is open, until the run is given up."""

_OPENING_S: Final = 60.0


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker process is told when it starts.

    Attributes
    ----------
    bundle : ModelBundle
        The model itself, not its path.
    threads : int
        For decoding and for the network.
    workers : int
        How many there are, with which it shares the memory for pictures.
    stall_s : float
        See `answer_piece`.
    """

    bundle: ModelBundle
    threads: int
    workers: int
    stall_s: float = STALL_S


def share_cores(workers: int | None, cores: int | None = None) -> tuple[int, int]:
    """Share cores among workers, so that workers times threads is the number of cores.

    Parameters
    ----------
    workers : int or None
        What the user asked for; one for each core when None.
    cores : int, optional
        Cores there are; those this process may use when None.

    Returns
    -------
    (workers, threads) : tuple of int
        Threads of each worker: at least 1, and rounded down.

    Examples
    --------
    >>> share_cores(None, cores=8), share_cores(3, cores=8), share_cores(20, cores=8)
    ((8, 1), (3, 2), (20, 1))
    """
    available = worker_count(None) if cores is None else cores
    count = available if workers is None else worker_count(workers)
    return count, max(1, available // count)


def prepare_process(workers: int) -> None:
    """Set what a worker process wants of libraries that have settings for the whole process.

    Parameters
    ----------
    workers : int
        How many there are on this machine; each takes its share of the memory for pictures.
    """
    import cv2

    from leuko.imaging.decode import refuse_bombs
    from leuko.imaging.pictures import share_memory
    from leuko.support.memory import keep_freed_memory

    cv2.setNumThreads(1)
    refuse_bombs()
    keep_freed_memory()
    share_memory(workers)


def serve(connection: Connection, settings: WorkerSettings) -> None:
    """Answer pieces until there are no more: the life of a worker process.

    Parameters
    ----------
    connection : Connection
        Gives `Piece` objects, or None for the end; takes answers, losses and errors.
    settings : WorkerSettings
        The model and how to run it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who gives out the work
    prepare_process(settings.workers)
    # The other end may be gone, killed: then this one has no more to do either.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            with ended_after(settings.stall_s + _OPENING_S):
                classifier = OnnxClassifier(settings.bundle, threads=settings.threads, part=AT_ONCE)
        except LeukoError as error:
            connection.send(error)
            return
        connection.send("ready")
        while (piece := connection.recv()) is not None:
            connection.send(attempt(piece, classifier, stall_s=settings.stall_s))


def attempt(piece: Piece, classifier: Classifier, *, stall_s: float) -> Answer | Loss | LeukoError:
    """Answer a piece, or say why not: what is wrong with the run, or only with this piece.

    Parameters
    ----------
    piece : Piece
        What to answer.
    classifier : Classifier
        Open.
    stall_s : float
        See `answer_piece`.

    Returns
    -------
    Answer, Loss or LeukoError
        An error that Leuko raises on purpose ends the run; any other is taken for the fault of
        one image, which is then searched for.
    """
    try:
        return answer_piece(piece, classifier, stall_s=stall_s)
    except LeukoError as error:
        return error
    except Exception as error:  # noqa: BLE001 - one image must not end a run of millions
        return Loss(piece, f"{type(error).__name__}: {error}")


@dataclass
class _Worker:
    """One process, as its parent sees it."""

    process: BaseProcess
    connection: Connection
    ready: bool = False
    piece: Piece | None = None


class Processes:
    """Worker processes of this machine; a context manager.

    Parameters
    ----------
    bundle : ModelBundle
        Sent to each worker once.
    workers : int, optional
        How many; one for each core when None.
    stall_s : float
        See `answer_piece`.
    life : callable
        What a worker process runs.
    """

    wave: int | None = None

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        workers: int | None = None,
        stall_s: float = STALL_S,
        life: Callable[[Connection, WorkerSettings], None] = serve,
    ) -> None:
        self.workers, threads = share_cores(workers)
        self._settings = WorkerSettings(bundle, threads, self.workers, stall_s)
        self._life = life
        self._team: list[_Worker] = []
        self._stillborn = 0

    @property
    def bundle(self) -> ModelBundle:
        """That answers."""
        return self._settings.bundle

    @property
    def description(self) -> str:
        """How the work is shared, for people."""
        return f"{self.workers} processes with {self._settings.threads} threads each"

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that have their model open."""
        return [worker.process.pid or 0 for worker in self._team if worker.ready]

    def __enter__(self) -> Processes:
        """Start the workers."""
        self._team = [self._start() for _ in range(self.workers)]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the workers, at once if something went wrong."""
        for worker in self._team:
            with contextlib.suppress(OSError):
                worker.connection.send(None)
            worker.connection.close()
        for worker in self._team:
            worker.process.join(timeout=0.0 if error is not None else 10.0)
            worker.process.kill()
            worker.process.join()
        self._team = []

    def run(self, pieces: Iterable[Piece]) -> Iterator[Answer | Loss]:
        """Answer pieces, in whatever order they are finished.

        Parameters
        ----------
        pieces : iterable of Piece
            One is taken when a worker is free.

        Yields
        ------
        Answer or Loss
            Exactly one for each piece.

        Raises
        ------
        BatchError
            When workers end before they can work.
        LeukoError
            Whatever a worker found wrong with the run.
        """
        rest = iter(pieces)
        waiting = next(rest, None)
        while True:
            for worker in self._team:
                if waiting is not None and worker.ready and worker.piece is None:
                    worker.piece = waiting
                    # One that has died meanwhile is met below, where its line is at an end.
                    with contextlib.suppress(OSError):
                        worker.connection.send(waiting)
                    waiting = next(rest, None)
            if waiting is None and all(worker.piece is None for worker in self._team):
                return
            lines = {worker.connection: worker for worker in self._team}
            for line in wait(list(lines)):
                outcome = self._hear(lines[line])  # type: ignore[index]
                if outcome is not None:
                    yield outcome

    def _hear(self, worker: _Worker) -> Answer | Loss | None:
        """Take one message; the end of the line is a message too."""
        try:
            said: Any = worker.connection.recv()
        except (EOFError, OSError):
            return self._replace(worker)
        if isinstance(said, LeukoError):
            raise said
        if said == "ready":
            worker.ready, self._stillborn = True, 0
            return None
        worker.piece = None
        return said if isinstance(said, Answer | Loss) else None

    def _replace(self, worker: _Worker) -> Loss | None:
        """Start another worker in place of one that ended."""
        worker.process.join()
        worker.connection.close()
        code = worker.process.exitcode or 0
        why = f"its worker was ended by {_signal(-code)}" if code < 0 else (
            f"its worker ended with code {code}")  # fmt: skip
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn >= _STILLBORN:
                raise BatchError(
                    f"{_STILLBORN} worker processes in a row ended before their model was open: "
                    f"{why}. If the memory is short, give fewer --workers. A program of your own "
                    "must start them under `if __name__ == '__main__':`."
                )
        self._team[self._team.index(worker)] = self._start()
        return None if worker.piece is None else Loss(worker.piece, why)

    def _start(self) -> _Worker:
        """Start one worker by spawning: threads of ours and locks that they hold stay here."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=self._life, args=(theirs, self._settings), daemon=True, name="leuko-worker"
        )
        process.start()
        theirs.close()  # so that the line ends when the worker does
        return _Worker(process, ours)


def _signal(number: int) -> str:
    """Name of a signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
