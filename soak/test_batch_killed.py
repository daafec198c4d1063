"""Many files, one in a hundred of them bad, and workers that are killed all the time.

`LEUKO_SOAK_FILES` and `LEUKO_SOAK_DEATHS` set how many; 100,000 and 50 are the figures to reach.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
from pathlib import Path

import pytest

from batch.two_nodes import bearers, two_nodes
from five import CLASSES
from leuko.batch.partition import predict_partition
from leuko.batch.processes import Processes
from leuko.batch.run import BatchResult, Engine, predict_to_file
from leuko.bundle import ModelBundle
from leuko.prediction_files import csv_text, read_predictions
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.sources import expand
from tiny import make_bundle, write_picture

FILES = int(os.environ.get("LEUKO_SOAK_FILES", "100000"))
DEATHS = int(os.environ.get("LEUKO_SOAK_DEATHS", "50"))
SIZE = max(8, min(256, FILES // (4 * DEATHS + 1)))

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(0),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc"),
]


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    pytest.importorskip("onnx", reason="needs the extra 'train'")
    return make_bundle()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names for every file, content for two hundred."""
    place = tmp_path_factory.mktemp("soak")
    kinds = [
        write_picture(place / "kinds" / f"{n}.png", CLASSES[n % 5], seed=n) for n in range(198)
    ]
    bad = [place / "kinds" / "empty.png", place / "kinds" / "junk.png"]
    bad[0].write_bytes(b"")
    bad[1].write_bytes(kinds[0].read_bytes()[:70])
    (place / "cells").mkdir()
    for number in range(FILES):
        source = bad[number // 100 % 2] if number % 100 == 50 else kinds[number % len(kinds)]
        os.link(source, place / "cells" / f"{number:07}.png")
    return place / "cells"


@pytest.fixture(scope="module")
def wanted(folder: Path, bundle: ModelBundle) -> str:
    """What one process answers."""
    classifier = OnnxClassifier(bundle, threads=1)
    return csv_text(predict_partition(expand([str(folder)]), classifier))


class Killer(threading.Thread):
    """Kills one worker each time that a share of the work is done, as long as there is any."""

    def __init__(self, work: Path, workers, deaths: int) -> None:
        super().__init__(daemon=True)
        self._work, self._workers, self._deaths = work, workers, deaths
        self._over = threading.Event()
        self.killed: list[int] = []

    def run(self) -> None:
        step = max(1, FILES // SIZE // (self._deaths + 2))
        while not self._over.wait(0.05) and len(self.killed) < self._deaths:
            done = len(list(self._work.glob("*.gz")))
            if done >= step * (len(self.killed) + 1):
                pids = [pid for pid in self._workers() if pid not in self.killed]
                if pids:
                    self.killed.append(pids[len(self.killed) % len(pids)])
                    os.kill(self.killed[-1], signal.SIGKILL)

    def stop(self) -> None:
        self._over.set()
        self.join()


def run_and_kill(engine: Engine, workers, deaths: int, folder: Path, out: Path) -> BatchResult:
    """A run under fire."""
    killer = Killer(out.with_name(out.name + ".parts"), workers, deaths)
    killer.start()
    try:
        result = predict_to_file(expand([str(folder)]), out, engine, size=SIZE)
    finally:
        killer.stop()
    assert len(killer.killed) == deaths
    return result


def check(result: BatchResult, out: Path, wanted: str) -> None:
    """Every file once, in order, as one process answers it."""
    assert result.found == result.predicted + result.rejected == FILES
    assert result.rejected == sum(1 for number in range(FILES) if number % 100 == 50)
    paths = [row.path for row in read_predictions(out).rows]
    assert len(set(paths)) == len(paths) == FILES
    assert paths == sorted(paths)
    # Compared by lines, so that a difference can be read.
    assert out.read_text().splitlines() == wanted.splitlines()


def test_processes(folder: Path, bundle: ModelBundle, wanted: str, tmp_path: Path) -> None:
    engine = Processes(bundle)
    out = tmp_path / "p.csv"
    result = run_and_kill(engine, lambda: engine.pids, DEATHS, folder, out)
    check(result, out, wanted)


def test_ray(
    folder: Path,
    bundle: ModelBundle,
    wanted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    from leuko.batch.cluster import RayCluster

    token = secrets.token_hex(32)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    out = tmp_path / "p.csv"
    result = run_and_kill(
        RayCluster(bundle), lambda: bearers(token, "ray::MapWorker"), DEATHS, folder, out
    )
    check(result, out, wanted)


def test_a_cluster_with_a_token_answers_nobody_else(
    folder: Path, bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    from leuko.batch.cluster import RayCluster
    from leuko.errors import BatchError

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with two_nodes(secrets.token_hex(32)) as (address, _):
        engine = RayCluster(bundle, address=address)
        with pytest.raises(BatchError, match="If it asks for a token, RAY_AUTH_MODE"):
            predict_to_file(expand([str(folder)]), tmp_path / "p.csv", engine)
