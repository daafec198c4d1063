"""A thread pool that never holds more than a few items, and a budget of what they may take."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from leuko.errors import UsageError

__all__ = ["Budget", "bounded_map", "worker_count"]

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says how much of the machine a container may use: quota and period, or "max"."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def worker_count(workers: int | None) -> int:
    """Number of threads to use.

    Parameters
    ----------
    workers : int or None
        What the user asked for; None means one for each core that this process may use, by its
        affinity and by its container's quota.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    UsageError
        When `workers` is below 1.
    """
    if workers is None:
        cores = os.cpu_count() or 1
        if hasattr(os, "sched_getaffinity"):
            cores = len(os.sched_getaffinity(0))
        return max(1, min(cores, _quota(cores)))
    if workers < 1:
        raise UsageError(f"The number of workers must be at least 1, received {workers}.")
    return workers


def _quota(cores: int, file: Path = _QUOTA) -> int:
    """Cores that a container may use, rounded up; all of them where nothing is said."""
    try:
        quota, period = file.read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return cores


def bounded_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    ahead: int | None = None,
) -> Iterator[Result]:
    """Apply a function on threads, in order, with a few items under way at a time.

    Threads are enough where the work is decoding, warping, encoding and writing, all of which
    release Python's global lock. When the consumer stops early or an item raises, what has not
    begun is dropped and what has begun is waited for.

    Parameters
    ----------
    function : callable
        Takes one item.
    items : iterable
        Consumed lazily.
    workers : int
        Number of threads.
    ahead : int, optional
        How many items may be under way or wait to be taken; four for each thread when None.

    Yields
    ------
    object
        Results, in the order of the items.
    """
    limit = ahead or 4 * workers
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="leuko")
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= limit:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Budget:
    """What threads may hold together; who asks for more than is left waits, in turn.

    Whoever holds a part of one budget must not ask it for another: two that do may wait for each
    other for ever.

    Parameters
    ----------
    total : int
        In any unit. More than that is given to one who holds it alone.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._held = 0
        self._turn = threading.Lock()  # a large part is not overtaken by small ones for ever
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, part: int) -> Iterator[None]:
        """Hold a part of the budget for the length of a block.

        Parameters
        ----------
        part : int
            How much, 0 or more.

        Yields
        ------
        None
            When there is enough.
        """
        with self._turn, self._freed:
            self._freed.wait_for(lambda: not self._held or self._held + part <= self.total)
            self._held += part
        try:
            yield
        finally:
            with self._freed:
                self._held -= part
                self._freed.notify()
