"""Ray: refused in a sentence, or the same rows as one process, whoever dies on the way."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from batch.drawn import Cells
from batch.two_nodes import bearers, two_nodes
from leuko.batch.cluster import RayCluster, _share_cluster
from leuko.batch.run import predict_to_file
from leuko.bundle import ModelBundle
from leuko.errors import BatchError, UsageError
from leuko.runtime.sources import expand
from leuko.runtime.zoo import load

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra 'ray'")


@pytest.mark.parametrize("address", ["nonsense", "ray://host:10001", ":6379", "host:", "host:0"])
def test_addresses_that_are_none(address: str, tiny_bundle: ModelBundle) -> None:
    with pytest.raises(UsageError, match=r"is auto or HOST:PORT, such as .* received"):
        RayCluster(tiny_bundle, address=address)


def test_nobody_listens(cells: Cells, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        engine = RayCluster(tiny_bundle, address=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(BatchError, match=r"cannot be reached: Connection refused\. Start one"):
            predict_to_file(expand([str(cells.folder)]), tmp_path / "p.csv", engine)
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_somebody_listens_who_is_not_ray(
    cells: Cells, tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        engine = RayCluster(tiny_bundle, address=address, start_s=4)
        with pytest.raises(BatchError, match="did not answer within 4 s"):
            predict_to_file(expand([str(cells.folder)]), tmp_path / "p.csv", engine)


def node(processors: float, *, alive: bool = True) -> dict[str, Any]:
    """What Ray says of a machine."""
    return {"Alive": alive, "Resources": {"CPU": processors} if processors else {}}


def test_shares_of_a_cluster() -> None:
    two = [node(4), node(2), node(8, alive=False), node(0)]
    assert _share_cluster(two, None) == (6, 1)
    assert _share_cluster(two, 3) == (3, 2)
    assert _share_cluster(two, 1) == (1, 2)  # no machine has more for one worker than it has
    assert _share_cluster(two, 50) == (6, 1)
    assert _share_cluster([node(3), node(3)], 3) == (2, 2)
    with pytest.raises(BatchError, match="no processors to work on"):
        _share_cluster([node(0)], None)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_on_this_machine(cells: Cells, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    engine = RayCluster(tiny_bundle, workers=1)
    result = predict_to_file(expand([str(cells.folder)]), tmp_path / "p.csv", engine, size=64)
    assert (tmp_path / "p.csv").read_text() == cells.csv
    assert (result.partitions, result.lost) == (4, 0)


# Two nodes


@pytest.fixture
def many(cells: Cells, tmp_path: Path) -> tuple[list[str], ModelBundle, bytes]:
    """Enough work for the bundled model that there is time to kill, and its answers."""
    classifier = load("default", threads=1)
    from leuko.batch.partition import predict_partition
    from leuko.prediction import PredictionTable
    from leuko.prediction_files import csv_text
    from leuko.runtime.repeats import mark_repeats

    images = [str(cells.folder)] * 2
    rows = predict_partition(expand(images), classifier).rows
    table = PredictionTable(tuple(mark_repeats(rows)))
    return images, classifier.bundle, csv_text(table).encode()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_two_nodes_a_worker_and_a_node_killed(
    many: tuple[list[str], ModelBundle, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, bundle, wanted = many
    token = secrets.token_hex(32)
    out, work = tmp_path / "p.csv", tmp_path / "p.csv.parts"
    events: list[str] = []
    stop = threading.Event()

    def finished() -> int:
        return len(list(work.glob("*.gz")))

    with two_nodes(token) as (address, tell):
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)

        def kill() -> None:
            while not stop.wait(0.05) and finished() < 2:
                pass
            workers = bearers(token, "ray::MapWorker")
            if workers and not stop.is_set():
                os.kill(workers[0], signal.SIGKILL)
                events.append("worker")
            before = finished()
            while not stop.wait(0.05) and finished() < before + 3:
                pass
            if not stop.is_set():
                tell("node")
                events.append("node")

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            result = predict_to_file(
                expand(images), out, RayCluster(bundle, address=address), size=8
            )
        finally:
            stop.set()
            killer.join()
    assert events == ["worker", "node"]
    assert out.read_bytes() == wanted
    assert result.found == result.predicted + result.rejected == 400
    assert result.rejected == 20
