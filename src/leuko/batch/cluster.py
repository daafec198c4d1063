"""Partitions on Ray Data, on this machine or a cluster; Ray itself runs in a process of its own.

Ray reads its environment when it is imported, prints where it pleases, and may end the process
that lost its cluster. In a child process none of that reaches the user: what it prints goes to a
file, and its end is one sentence.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import multiprocessing
import os
import pickle
import re
import secrets
import signal
import site
import socket
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from leuko import __version__
from leuko.batch.partition import AT_ONCE, STALL_S, Answer, Loss, Piece, ended_after
from leuko.batch.processes import attempt, prepare_process
from leuko.bundle import ModelBundle
from leuko.errors import BatchError, LeukoError, MissingExtraError, UsageError
from leuko.runtime.classifier import OnnxClassifier
from leuko.support.parallel import worker_count
from leuko.support.quiet import silence

__all__ = ["RayCluster"]

_KNOCK_S: Final = 5.0
_START_S: Final = 120.0
_JOIN_S: Final = 60.0
_SILENCE_S: Final = 1800.0
_FRUITLESS: Final = 3
_STORE_BYTES: Final = 256 * 2**20

# Read by Ray once, when it is imported: nothing on the terminal.
_QUIET: Final = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True)
class RaySettings:
    """What the process that holds Ray is told when it starts.

    Attributes
    ----------
    bundle : ModelBundle
        Put into the cluster once.
    workers : int or None
        How many; one for each processor of the cluster when None.
    address : str or None
        Of a cluster; None starts one on this machine, for this run.
    log : str
        File that takes what Ray prints.
    """

    bundle: ModelBundle
    workers: int | None
    address: str | None
    log: str = ""


class RayCluster:
    """Workers of Ray Data; a context manager.

    Parameters
    ----------
    bundle : ModelBundle
        That answers.
    workers : int, optional
        How many; one for each processor of the cluster when None.
    address : str, optional
        ``auto`` for the cluster that this machine belongs to, or ``HOST:PORT``. None starts Ray
        on this machine, for this run, with a token that nobody else knows.
    start_s : float, optional
        Seconds for Ray to start, or for the cluster to answer.

    Raises
    ------
    MissingExtraError
        When Ray is not installed.
    UsageError
        When the address is none.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        workers: int | None = None,
        address: str | None = None,
        start_s: float | None = None,
    ) -> None:
        for package in ("ray", "pyarrow"):
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError("The engine ray", "ray", package)
        if address is not None:
            _parse(address)
        self._settings = RaySettings(bundle, workers, address)
        self._start_s = start_s or (_START_S if address is None else _JOIN_S)
        self._stack = contextlib.ExitStack()
        self._process: Any = None
        self._connection: Any = None
        self._shares = (1, 1)
        self._log = Path()

    @property
    def wave(self) -> int | None:
        """Pieces of one run of Ray Data: enough that starting its workers does not count."""
        return max(256, 32 * self._shares[0])

    @property
    def bundle(self) -> ModelBundle:
        """That answers."""
        return self._settings.bundle

    @property
    def description(self) -> str:
        """How the work is shared, for people."""
        where = f"the cluster at {self._settings.address}" if self._settings.address else "Ray here"
        return f"{self._shares[0]} workers with {self._shares[1]} threads each, on {where}"

    def __enter__(self) -> RayCluster:
        """Start Ray, or join the cluster."""
        settings = self._settings
        if settings.address not in (None, "auto"):
            _knock(str(settings.address))
        folder = self._stack.enter_context(self._folder())
        self._log = Path(folder) / "ray.log"
        settings = replace(settings, log=str(self._log))
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=drive, args=(theirs, settings), name="leuko-ray")
        self._process.start()
        theirs.close()
        try:
            self._shares = self._hear(
                self._start_s,
                f"{_place(settings.address)} did not answer within {self._start_s:.0f} s. Is it a "
                "Ray cluster of this version, does this machine belong to it, and has it the "
                "cluster's token?",
            )
        except BaseException:
            self._end(at_once=True)
            raise
        return self

    @staticmethod
    def _folder() -> tempfile.TemporaryDirectory[str]:
        """Hold all that Ray writes; its sockets stand no long name, and its end takes a moment."""
        return tempfile.TemporaryDirectory(
            prefix="leuko-", dir=os.environ.get("RAY_TMPDIR"), ignore_cleanup_errors=True
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the cluster; end it, if it was started for this run."""
        self._end(at_once=error is not None)

    def run(self, pieces: Iterable[Piece]) -> Iterator[Answer | Loss]:
        """Answer one wave of pieces.

        Parameters
        ----------
        pieces : iterable of Piece
            All are sent at once.

        Yields
        ------
        Answer or Loss
            One for each piece, in whatever order.

        Raises
        ------
        BatchError
            When the cluster is lost, or answers nothing for half an hour.
        LeukoError
            Whatever a worker found wrong with the run.
        """
        try:
            self._connection.send({number: _pack(piece) for number, piece in enumerate(pieces)})
        except OSError as error:
            raise self._lost() from error
        silence = (
            f"Ray has answered nothing for {_SILENCE_S / 60:.0f} minutes. Look at the cluster "
            "with `ray status`; what is finished is kept for --resume."
        )
        while (said := self._hear(_SILENCE_S, silence)) is not None:
            yield said[1]

    def _hear(self, seconds: float, otherwise: str) -> Any:
        """Take one message from the process that holds Ray."""
        try:
            if not self._connection.poll(seconds):
                raise BatchError(otherwise)
            said = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if isinstance(said, LeukoError):
            raise said
        return said

    def _lost(self) -> BatchError:
        """Say that Ray ended, with its last words."""
        lines = [line.strip() for line in _read(self._log).splitlines() if line.strip()]
        return BatchError(
            f"Ray has ended: {(lines or ['it did not say why'])[-1][:300]} What is finished is "
            "kept for --resume."
        )

    def _end(self, *, at_once: bool) -> None:
        """End the process that holds Ray, and with it a Ray that was started for this run."""
        if self._connection is not None:
            if not at_once:
                with contextlib.suppress(OSError):
                    self._connection.send(None)
            self._connection.close()
        if self._process is not None:
            if at_once:
                self._process.terminate()
            # A Ray of our own needs time to end its processes. One that waits for a cluster that
            # does not answer hears nobody.
            self._process.join(timeout=15.0 if self._settings.address is None else 2.0)
            self._process.kill()
            self._process.join()
        self._stack.close()


def drive(connection: Connection, settings: RaySettings) -> None:
    """Hold Ray and run waves of pieces on it: the life of the child process.

    Parameters
    ----------
    connection : Connection
        Gives waves, or None for the end; takes (workers, threads) once, then outcomes with the
        numbers of their pieces, None after each wave, and errors.
    settings : RaySettings
        Where and with what.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = os.open(settings.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    silence()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if settings.address is None:
        _keep_to_itself(Path(settings.log).parent)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            with _connected(settings) as cluster:
                connection.send(cluster.shares)
                while (wave := connection.recv()) is not None:
                    for said in cluster.run(wave):
                        connection.send(said)
                    connection.send(None)
        except LeukoError as error:
            connection.send(error)


def _keep_to_itself(folder: Path) -> None:
    """Let a Ray of our own answer nobody else, and look for nothing outside this machine."""
    if "RAY_AUTH_MODE" not in os.environ:
        # Ray listens on every network this machine is in; without the token it answers nobody.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # Even with its reports off, Ray asks three clouds whether it runs there, unless it finds the
    # settings of a cluster in the home. Packages installed for one user lie in the real one.
    os.environ.setdefault("PYTHONUSERBASE", site.getuserbase())
    os.environ["HOME"] = str(folder)
    (folder / "ray_bootstrap_config.yaml").touch()


@contextlib.contextmanager
def _connected(settings: RaySettings) -> Iterator[_Driver]:
    """Start Ray or join a cluster, for the length of a block."""
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        ray = importlib.import_module("ray")
        if settings.address is None:
            ray.init(
                address="local",
                num_cpus=worker_count(None),
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                _temp_dir=str(Path(settings.log).parent),
                **quiet,
            )
        else:
            ray.init(address=settings.address, **quiet)
    except Exception as error:  # Ray raises many kinds
        if settings.address == "auto" and isinstance(error, ConnectionError):
            raise BatchError(
                "This machine belongs to no Ray cluster. Start one with `ray start --head`, see "
                "docs/scale.md, or leave --address out to use this machine alone."
            ) from error
        hint = "" if settings.address is None else (
            ". If it asks for a token, RAY_AUTH_MODE and RAY_AUTH_TOKEN must be set here too"
        )  # fmt: skip
        raise BatchError(
            f"{_place(settings.address)} cannot be used: {_sentence(error)}{hint}."
        ) from error
    try:
        yield _Driver(ray, settings)
    finally:
        ray.shutdown()


class _Driver:
    """Runs waves on a cluster that is joined."""

    def __init__(self, ray: Any, settings: RaySettings) -> None:
        importlib.import_module("ray.data")
        scheduling = importlib.import_module("ray.util.scheduling_strategies")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_errored_blocks = -1  # what is missing at the end is asked for again
        context.wait_for_min_actors_s = int(_START_S)
        self._ray = ray
        self._settings = settings
        self.shares = _share_cluster(ray.nodes(), settings.workers)
        self._bundle = ray.put(settings.bundle)
        here = scheduling.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        )
        self._ledger = (
            ray.remote(Ledger)
            .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
            .remote()
        )
        self._waves = 0

    def run(self, wave: dict[int, bytes]) -> Iterator[tuple[int, Answer | Loss]]:
        """Answer a wave; what Ray loses on the way, with a machine or a restart, it gets again."""
        left, fruitless, why = dict(wave), 0, "it did not say why"
        while left and fruitless < _FRUITLESS:
            before = len(left)
            try:
                for number, outcome in self._run_once(dict(left)):
                    del left[number]
                    yield number, outcome
            except LeukoError:
                raise
            except Exception as error:  # noqa: BLE001 - Ray raises many kinds
                why = _sentence(error)
            fruitless = 0 if len(left) < before else fruitless + 1
        if left:
            raise BatchError(
                f"Ray Data gave no answer {_FRUITLESS} times in a row: {why}. What is finished is "
                "kept for --resume."
            )

    def _run_once(self, wave: dict[int, bytes]) -> Iterator[tuple[int, Answer | Loss]]:
        """Have Ray Data answer pieces; those whose outcome it loses are missing."""
        self._waves += 1
        workers, threads = self.shares
        items = [{"number": number, "piece": packed} for number, packed in wave.items()]
        given = (self._bundle, self._ledger, self._waves, threads, __version__)
        data = self._ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            Answerer,
            fn_constructor_args=given,
            batch_size=1,
            batch_format="pyarrow",
            compute=self._ray.data.ActorPoolStrategy(size=min(workers, len(items))),
            num_cpus=threads,
        )
        for block in data.iter_batches(batch_size=None, batch_format="pyarrow"):
            for number, packed in zip(block["number"], block["outcome"], strict=True):
                outcome = _unpack(packed.as_py())
                if isinstance(outcome, LeukoError):
                    raise outcome
                yield number.as_py(), outcome


class Ledger:
    """Counts how often each piece was begun; one for the whole cluster.

    Ray runs the work of a worker that died again, without end, and an image that ends its worker
    would end one after the other. So the second time a piece comes it is sent home as lost, and
    Leuko decides.
    """

    def __init__(self) -> None:
        self._begun: set[tuple[int, int]] = set()

    def begin(self, wave: int, number: int) -> bool:
        """Note a piece; whether it was never begun before."""
        first = (wave, number) not in self._begun
        if first:
            # Only the wave under way is of interest.
            self._begun = {pair for pair in self._begun if pair[0] == wave} | {(wave, number)}
        return first


class Answerer:
    """One worker of Ray Data, with the model open.

    Parameters
    ----------
    bundle : ModelBundle or ray.ObjectRef
        The model, put into the cluster once.
    ledger : actor handle
        Of `Ledger`.
    wave : int
        Number of the wave.
    threads : int
        For decoding and for the network.
    version : str
        Of the Leuko that gives out the work.
    """

    def __init__(self, bundle: Any, ledger: Any, wave: int, threads: int, version: str) -> None:
        ray = importlib.import_module("ray")
        prepare_process(max(1, worker_count(None) // threads))  # as many as this machine may get
        self._ledger, self._wave = ledger, wave
        self._begin = ray.get
        self._fault: LeukoError | None = None
        try:
            if version != __version__:
                raise BatchError(
                    f"A worker has Leuko {__version__}, and {version} gives out the work. Install "
                    "the same version on every machine of the cluster."
                )
            opened = bundle if isinstance(bundle, ModelBundle) else ray.get(bundle)
            with ended_after(STALL_S + _START_S):
                self._classifier = OnnxClassifier(opened, threads=threads, part=AT_ONCE)
        except LeukoError as error:
            # Raised here, Ray would start the worker again and again.
            self._fault = error

    def __call__(self, table: Any) -> Any:
        """Answer one piece.

        Parameters
        ----------
        table : pyarrow.Table
            One row: number, piece.

        Returns
        -------
        pyarrow.Table
            One row: number, outcome.
        """
        pa = importlib.import_module("pyarrow")
        number, packed = table["number"][0].as_py(), table["piece"][0].as_py()
        outcome: Answer | Loss | LeukoError
        if self._fault is not None:
            outcome = self._fault
        elif self._begin(self._ledger.begin.remote(self._wave, number)):
            outcome = attempt(_unpack(packed), self._classifier, stall_s=STALL_S)
        else:
            outcome = Loss(_unpack(packed), "its worker ended")
        return pa.table({"number": [number], "outcome": pa.array([_pack(outcome)], pa.binary())})


def _share_cluster(nodes: list[dict[str, Any]], workers: int | None) -> tuple[int, int]:
    """Workers and threads for a cluster: none larger than the smallest machine that works."""
    processors = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]
    working = [count for count in processors if count > 0]
    if not working:
        raise BatchError("The Ray cluster has no processors to work on; see `ray status`.")
    count = sum(working) if workers is None else min(workers, sum(working))
    threads = max(1, min(sum(working) // count, *working))
    return min(count, sum(processor // threads for processor in working)), threads


def _pack(value: object) -> bytes:
    """Pickle for a process of our own; lists of paths shrink to a tenth."""
    return zlib.compress(pickle.dumps(value), level=1)


def _unpack(packed: bytes) -> Any:
    """Undo `_pack`. Only what this run sent comes here."""
    return pickle.loads(zlib.decompress(packed))  # noqa: S301


def _parse(address: str) -> tuple[str, int]:
    """Split HOST:PORT; ("auto", 0) for the cluster of this machine."""
    if address == "auto":
        return "auto", 0
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(
            f"The address of a Ray cluster is auto or HOST:PORT, such as 10.0.0.5:6379; received "
            f"{address!r}."
        )
    return host.strip("[]"), int(port)


def _knock(address: str) -> None:
    """Try whether anybody listens, before Ray waits for it."""
    try:
        socket.create_connection(_parse(address), timeout=_KNOCK_S).close()
    except OSError as error:
        raise BatchError(
            f"{_place(address)} cannot be reached: {error.strerror or error}. Start one with "
            "`ray start --head`, see docs/scale.md, or leave --address out to use this machine."
        ) from error


def _place(address: str | None) -> str:
    """The cluster, as the subject of a sentence."""
    if address is None:
        return "Ray on this machine"
    if address == "auto":
        return "A Ray cluster that this machine belongs to"
    return f"The Ray cluster at {address}"


def _sentence(error: Exception) -> str:
    """First and last line of what Ray has to say: what happened, and why."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip() or type(error).__name__
    lines = [line.strip().rstrip(".") for line in text.splitlines() if line.strip()]
    return lines[0][:200] if len(lines) == 1 else f"{lines[0][:200]}; {lines[-1][:200]}"


def _read(path: Path) -> str:
    """Text of a log that may not be there."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
