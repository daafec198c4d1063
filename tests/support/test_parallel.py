"""The thread pool: in order, few at a time, and gone when it is not wanted any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from leuko.errors import UsageError
from leuko.support.host import machine, versions
from leuko.support.parallel import Budget, _quota, bounded_map, worker_count


def test_order_is_kept_whoever_is_first() -> None:
    def slow_if_even(number: int) -> int:
        time.sleep(0.004 * (number % 2 == 0))
        return number * 2

    assert list(bounded_map(slow_if_even, range(40), workers=4)) == [n * 2 for n in range(40)]


def test_nothing_in_nothing_out() -> None:
    assert list(bounded_map(abs, [], workers=2)) == []


@pytest.mark.parametrize(("workers", "ahead", "limit"), [(2, None, 8), (1, 3, 3)])
def test_few_items_are_under_way(workers: int, ahead: int | None, limit: int) -> None:
    begun = 0

    def items() -> Iterator[int]:
        nonlocal begun
        for number in range(100):
            begun += 1
            yield number

    for taken, _ in enumerate(bounded_map(abs, items(), workers=workers, ahead=ahead), 1):
        assert begun - taken < limit
    assert begun == 100


def test_a_consumer_may_leave() -> None:
    before = threading.active_count()
    results = bounded_map(abs, iter(range(10**9)), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    results.close()
    assert threading.active_count() == before


def test_a_fault_comes_in_its_turn() -> None:
    results = bounded_map(lambda n: 1 // (3 - n), range(10), workers=2)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize(
    ("said", "cores"),
    [("max 100000\n", 16), ("150000 100000\n", 2), ("400000 100000", 4), ("", 16), ("0 0", 16)],
)
def test_a_containers_quota(said: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(said)
    assert _quota(16, tmp_path / "cpu.max") == cores
    assert _quota(16, tmp_path / "missing") == 16


def test_worker_count() -> None:
    assert worker_count(3) == 3
    assert worker_count(None) >= 1
    for wrong in (0, -1):
        with pytest.raises(UsageError, match="at least 1, received"):
            worker_count(wrong)


def test_the_machine_is_described_and_not_named() -> None:
    import platform

    told = machine()
    assert told["cores"] == worker_count(None)
    assert told["python"] == platform.python_version()
    assert platform.node() not in told.values()
    assert "numpy" in versions()


def test_a_budget_is_kept_and_what_exceeds_it_goes_alone() -> None:
    budget, lock = Budget(10), threading.Lock()
    held: list[int] = []
    seen: list[list[int]] = []

    def work(part: int) -> None:
        with budget.hold(part):
            with lock:
                held.append(part)
                seen.append(sorted(held))
            time.sleep(0.002)
            with lock:
                held.remove(part)

    parts = [1, 4, 25, 3, 0, 10, 7, 2] * 5
    list(bounded_map(work, parts, workers=8))
    assert len(seen) == len(parts)
    assert all(sum(together) <= 10 or [n for n in together if n] == [25] for together in seen)
    assert any(len(together) > 1 for together in seen)


def test_what_is_held_comes_back_with_an_error() -> None:
    budget = Budget(5)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), budget.hold(5):
            raise ZeroDivisionError


def test_small_parts_do_not_overtake_a_large_one_for_ever() -> None:
    budget, order = Budget(2), []

    def hold(part: int) -> None:
        with budget.hold(part):
            order.append(part)

    with budget.hold(1):
        threads = [threading.Thread(target=hold, args=(part,)) for part in (2, 1)]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        assert order == []
    for thread in threads:
        thread.join()
    assert order == [2, 1]
