"""Mutated images by the hundred thousand: a named reason or pixels, never a crash, never a hang.

`LEUKO_SOAK_IMAGES` sets how many (10,000,000 is the figure to reach; the default takes minutes).
CI runs 5,000 images and archives of the same seeds, in tests/runtime/test_mutated.py.
"""

from __future__ import annotations

import multiprocessing
import os

import pytest

from leuko.imaging import REJECT_REASONS
from mutated import CHUNK, decode_chunk

IMAGES = int(os.environ.get("LEUKO_SOAK_IMAGES", "400000"))
SLOWEST, MOST_MEMORY = 10.0, 1024


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_every_mutated_image_has_pixels_or_a_named_reason() -> None:
    chunks = -(-IMAGES // CHUNK)
    with multiprocessing.get_context("spawn").Pool() as pool:
        results = pool.map(decode_chunk, range(chunks), chunksize=1)
    assert max(slowest for slowest, _, _ in results) < SLOWEST
    assert max(memory for _, memory, _ in results) < MOST_MEMORY
    met = set().union(*(reasons for _, _, reasons in results))
    assert met <= set(REJECT_REASONS)
    assert {"truncated", "corrupt", "not-an-image"} <= met
