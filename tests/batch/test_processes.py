"""Worker processes that are killed for real, by pictures, by the system, with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import leuko
from batch.deadly import BUG, ENDLESS, POISON, end_at_once, serve_slowly, serve_with_poison
from batch.drawn import Cells, write_cells
from leuko.batch.partition import DIED
from leuko.batch.processes import Processes, share_cores
from leuko.batch.run import predict_to_file
from leuko.bundle import ModelBundle
from leuko.errors import BatchError, BundleError
from leuko.prediction_files import read_predictions
from leuko.runtime.sources import expand
from leuko.support.parallel import worker_count

pytestmark = pytest.mark.slow

SOURCE = Path(leuko.__file__).resolve().parent.parent


def test_the_same_csv(cells: Cells, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    engine = Processes(tiny_bundle, workers=2)
    result = predict_to_file(expand([str(cells.folder)]), tmp_path / "p.csv", engine, size=16)
    assert (tmp_path / "p.csv").read_text() == cells.csv
    assert (result.found, result.rejected, result.lost) == (200, 10, 0)
    assert engine.pids == []


def test_pictures_that_kill_that_never_end_and_that_meet_a_bug(
    tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    folder = write_cells(tmp_path / "cells", 16)
    bad = {"0005.png": POISON, "0012.png": ENDLESS, "0013.png": BUG}
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    engine = Processes(tiny_bundle, workers=2, stall_s=0.5, life=serve_with_poison)
    said: list[str] = []
    result = predict_to_file(
        expand([str(folder)]), tmp_path / "p.csv", engine, size=4, detail=said.append
    )
    rows = read_predictions(tmp_path / "p.csv").rows
    assert [Path(row.path).name for row in rows if row.reason == DIED] == sorted(bad)
    assert result.found == result.predicted + result.rejected == 16
    told = {row.split("(")[1].partition(";")[2] for row in said if f"({DIED}" in row}
    assert told == {
        " its worker was ended by SIGKILL.)",
        " its worker ended with code 1.)",
        " ZeroDivisionError: in the decoder.)",
    }


def test_workers_killed_by_somebody_else(
    cells: Cells, tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    engine = Processes(tiny_bundle, workers=2, life=serve_slowly)
    killed: list[int] = []
    done = threading.Event()

    def kill() -> None:
        while not done.wait(0.05) and len(killed) < 3:
            pids = set(engine.pids) - set(killed)
            if pids:
                killed.append(min(pids))
                os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    result = predict_to_file(expand([str(cells.folder)]), tmp_path / "p.csv", engine, size=16)
    done.set()
    killer.join()
    assert len(killed) == 3
    assert result.lost >= 1
    assert (tmp_path / "p.csv").read_text() == cells.csv


def children(pid: int) -> list[int]:
    """Processes whose parent this is."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds: float = 60.0) -> None:
    """Wait, and fail if it never comes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_the_parent_is_killed_and_the_run_is_resumed(
    cells: Cells, tiny_bundle: ModelBundle, tiny_model: Path, tmp_path: Path
) -> None:
    out, work = tmp_path / "p.csv", tmp_path / "p.csv.parts"
    parent = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("deadly.py"), cells.folder, tiny_model, out],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    wait_for(lambda: len(list(work.glob("*.gz"))) >= 3 or parent.poll() is not None)
    workers = children(parent.pid)
    parent.kill()
    parent.wait()
    finished = len(list(work.glob("*.gz")))
    assert 3 <= finished < 13
    assert not out.exists()
    assert len(workers) >= 2
    # Nobody is left behind that would go on computing.
    wait_for(lambda: not any(alive(pid) for pid in workers))
    engine = Processes(tiny_bundle, workers=2)
    result = predict_to_file(expand([str(cells.folder)]), out, engine, size=16, resume=True)
    assert (result.kept, result.partitions) == (finished, 13)
    assert out.read_text() == cells.csv
    assert os.listdir(tmp_path) == ["p.csv"]


def test_workers_that_cannot_start(cells: Cells, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    engine = Processes(tiny_bundle, workers=1, life=end_at_once)
    with pytest.raises(BatchError, match=r"3 worker processes in a row .* ended with code 3"):
        predict_to_file(expand([str(cells.folder)]), tmp_path / "p.csv", engine)
    assert os.listdir(tmp_path) == []


def test_what_is_wrong_with_the_run_is_said_by_its_worker(
    cells: Cells, tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    from dataclasses import replace

    broken = replace(tiny_bundle, onnx=tiny_bundle.onnx[:-40])
    with pytest.raises(BundleError, match="The network"):
        predict_to_file(
            expand([str(cells.folder)]), tmp_path / "p.csv", Processes(broken, workers=1)
        )


def test_cores_are_shared() -> None:
    assert share_cores(2, cores=8) == (2, 4)
    assert share_cores(8, cores=8) == (8, 1)
    assert share_cores(3, cores=2) == (3, 1)
    assert share_cores(None) == (worker_count(None), 1)
