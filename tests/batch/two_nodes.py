"""A real cluster of two Ray nodes on this machine, told what to do on standard input.

Prints its address. "node" ends the second node without a word of farewell, and starts a third.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def two_nodes(token: str) -> Iterator[tuple[str, Callable[[str], None]]]:
    """A cluster that asks for a token: its address, and a way to tell it what to do."""
    import leuko

    source = Path(leuko.__file__).resolve().parent.parent
    environment = {
        **os.environ, "PYTHONPATH": str(source), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token
    }  # fmt: skip
    program = [sys.executable, str(Path(__file__))]
    cluster = subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=environment, text=True,
    )  # fmt: skip
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    answers = iter(cluster.stdout.readline, "")

    def tell(word: str) -> None:
        print(word, file=cluster.stdin, flush=True)
        assert next(line for line in answers if line.strip() == "done")

    try:
        yield next(line.strip() for line in answers if line[:1].isdigit()), tell
    finally:
        cluster.stdin.close()
        try:
            cluster.wait(timeout=60)
        except subprocess.TimeoutExpired:
            cluster.kill()
        cluster.stdout.close()
        for pid in bearers(token):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def bearers(token: str, name: str = "") -> list[int]:
    """Processes that were given our token when they started: ours, and nobody else's."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ours = token.encode() in (folder / "environ").read_bytes()
            if ours and name in (folder / "cmdline").read_text().replace("\0", " "):
                found.append(int(folder.name))
    return found


def main() -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    second = cluster.add_node(**small)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "node":
            cluster.remove_node(second, allow_graceful=False)
            second = cluster.add_node(**small)
            print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
