"""Pictures by the million, sound in rare encodings or mutated: the right pixels or a named reason.

Run in pieces, the figure to reach is 10,000,000: `LEUKO_SOAK_FIRST` is the first seed of a piece,
`LEUKO_SOAK_IMAGES` how many, `LEUKO_SOAK_PROCESSES` on how many cores. Each piece prints a line:

    for first in $(seq 0 200000 9800000); do
      LEUKO_SOAK_FIRST=$first LEUKO_SOAK_IMAGES=200000 LEUKO_SOAK_PROCESSES=1 \\
        python -m pytest -s -m soak --timeout 0 soak/test_mutated_images.py || echo failed: $first
    done 2>/dev/null | grep -E 'a minute|failed|AssertionError'

CI runs the first of these in tests/test_imaging.py.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from functools import reduce
from operator import iadd

import pytest

from mutated import Outcome, try_pictures

FIRST = int(os.environ.get("LEUKO_SOAK_FIRST", "0"))
IMAGES = int(os.environ.get("LEUKO_SOAK_IMAGES", "400000"))
PROCESSES = int(os.environ.get("LEUKO_SOAK_PROCESSES", "0")) or None
CHUNK = 5_000
SLOWEST, MOST_MEMORY = 10.0, 1024


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_every_picture_has_its_pixels_or_a_named_reason() -> None:
    started = time.perf_counter()
    chunks = [(first, CHUNK) for first in range(FIRST, FIRST + IMAGES, CHUNK)]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        outcome = reduce(iadd, pool.starmap(try_pictures, chunks, chunksize=1), Outcome())
    speed = len(chunks) * CHUNK / (time.perf_counter() - started) * 60
    print(f"\nfrom {FIRST}: {speed:,.0f} a minute, slowest {outcome.slowest:.2f} s,", end=" ")
    print(f"{outcome.megabytes} MB, {dict(outcome.met)}, faults {outcome.faults[:20]}")
    assert not outcome.faults
    assert outcome.slowest < SLOWEST
    assert outcome.megabytes < MOST_MEMORY
    assert outcome.met["ok"] > 0.35 * len(chunks) * CHUNK
