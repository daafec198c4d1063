"""Freed memory stays with the process: measured in page faults, in a process of its own."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from typing import Any

import pytest

from leuko.support.memory import give_back_memory, keep_freed_memory

GLIBC = platform.libc_ver()[0] == "glibc"

FAULTS = """
import ctypes, resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
trim_threshold = -1
ctypes.CDLL(None).mallopt(trim_threshold, 128 * 1024)
if sys.argv[1] == "kept":
    from leuko.support.memory import keep_freed_memory
    assert keep_freed_memory()
    ctypes.CDLL(None).mallopt(trim_threshold, 128 * 1024)

def work():
    for _ in range(200):
        np.ones(2**20, np.uint8)

with ThreadPoolExecutor(1) as pool:
    pool.submit(work).result()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pool.submit(work).result()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""What TensorFlow sets, then ours, then TensorFlow's again: 200 times one megabyte in a thread."""


@pytest.mark.slow
@pytest.mark.skipif(not GLIBC, reason="only glibc has these settings")
def test_memory_stays_when_tensorflow_asks_for_less() -> None:
    faults = {
        name: int(subprocess.check_output([sys.executable, "-c", FAULTS, name], text=True))
        for name in ("plain", "kept")
    }
    assert faults["plain"] > 10_000
    assert faults["kept"] < faults["plain"] / 10


RESIDENT = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from leuko.support.memory import give_back_memory, keep_freed_memory
keep_freed_memory()

def resident():
    return int([line.split()[1] for line in open("/proc/self/status") if "VmRSS" in line][0])

with ThreadPoolExecutor(1) as pool:
    pool.submit(lambda: [np.ones(2**24, np.uint8) for _ in range(6)]).result()
    pool.submit(lambda: None).result()
    kept = resident()
    assert give_back_memory()
    print(kept - resident())
"""
"""Kilobytes that come back of 96 MB that another thread has freed."""


@pytest.mark.slow
@pytest.mark.skipif(not GLIBC, reason="only glibc can be asked")
def test_memory_of_other_threads_is_given_back() -> None:
    freed = int(subprocess.check_output([sys.executable, "-c", RESIDENT], text=True))
    assert freed > 30 * 1024


@pytest.mark.parametrize("fault", [AttributeError, OSError, TypeError])
def test_without_glibc_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    def refuse(_: object) -> Any:
        raise fault

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert keep_freed_memory() is False
    assert give_back_memory() is False
