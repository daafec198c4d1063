"""What lies in a run folder is written whole, timed, and read again as it was."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("keras", reason="needs the extra 'train'")

from leuko.training.run_folder import Clock


def test_a_clock_opened_again_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = iter([0.0, 0.0499996])
    monkeypatch.setattr(time, "monotonic", lambda: next(reads))
    clock = Clock(tmp_path, resume=False)
    with clock("fit"):
        pass
    assert clock.seconds == {"fit": 0.05}
    assert Clock(tmp_path, resume=True).seconds == clock.seconds
