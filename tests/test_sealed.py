"""Nothing leaves the machine: commands in a fresh home and a network of their own, watched.

Each runs once. What it left behind is looked at on every machine; whom it spoke to, and
what it wrote elsewhere, is read off its system calls, where strace and unshare are to be had.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import leuko as package
from five import CLASSES
from leuko.data.synth import SmearPlan, draw_dataset

pytest.importorskip("onnx", reason="needs the extra 'train'")
from tiny import COLOURS, make_bundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SOURCE = Path(package.__file__).resolve().parent.parent

RECIPE = """
name = "tiny"
title = "A tiny CNN"
preprocess = { size = [64, 64], crop = 0.8 }
data = { validation = 0.25, balance = "sampled" }
model = { architecture = "cnn" }
train = { epochs = 1, steps = 2, batch = 8, rate = 1e-2 }
"""

COMMANDS = {
    "answers": """predict Dataset/Test -m ./tiny.zip --csv a.csv --picture b.png --log-file c.log
        count Dataset/Test -m ./tiny.zip --csv d.csv
        evaluate ./tiny.zip Dataset/Test --resamples 100 --out report
        predict Dataset/Test --explain why""",
    "processes": "predict Dataset/Test -m ./tiny.zip --engine processes --out a.csv",
    "ray": "predict Dataset/Test -m ./tiny.zip --engine ray --out a.csv",
    "models": """models list
        export small --float16 --out a.zip
        adapt ./tiny.zip Dataset/Train --labels few.csv --out b.zip
        models calibrate ./tiny.zip Dataset/Train --out c.zip""",
    "data": """data info Dataset --out audit
        data draw Drawn --train 15 --test 15 --size 64
        balance Dataset/Train Balanced""",
    "keras": f"""train Dataset --recipe ./tiny.toml --out run --save-h5
        compare Dataset --recipes ./tiny.toml --out both
        import-model model.keras --classes {",".join(CLASSES)} --input-scale 1 --out a.zip""",
}
"""Lines are run one after another in one process, which imports what they need once."""

ASKED = {"a.csv", "a.zip", "audit", "b.png", "b.zip", "Balanced", "both", "c.log", "c.zip", "d.csv"}
ASKED |= {"Drawn", "report", "run", "why"}

IN_TURN = """
import sys
from leuko.cli.main import main
lines = sys.argv[1].splitlines()
for line in lines:
    sys.argv = ["leuko", *line.split()]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""

# The network of its own has nothing but loopback, which sleeps at first.
INSIDE = """
import fcntl, os, socket, struct, sys
up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, up)
os.execvp(sys.argv[1], sys.argv[1:])
"""
CALLS = "connect,sendto,sendmsg,sendmmsg,?open,openat,?openat2,?creat,?mkdir,mkdirat"
SHORT = ("-qq", "-yy", "-s256")
ADDRESS = re.compile(r'port=htons\((\d+)\)[^}]*?(?:inet_addr\(|AF_INET6, )"([^"]+)"')
RESOLVER = re.compile(r'sun_path="[^"]*(?:resolve|avahi)')
NAME_SERVICE = 53


@dataclass(frozen=True)
class Seen:
    """What a command did.

    `made` are files and folders, from the folder that has home, work and t (for temporary files).
    `voices` and `strays` are system calls to strangers and files written elsewhere.
    """

    code: int
    said: str
    made: set[str]
    voices: list[str]
    strays: set[str]


@functools.cache
def watch() -> tuple[str, ...]:
    """How to start a program in a network of its own, under strace; empty where that cannot be."""
    if not (shutil.which("strace") and shutil.which("unshare")):
        return ()
    for own in (("unshare", "-n"), ("unshare", "-rn")):
        start = (*own, sys.executable, "-I", "-c", INSIDE, "strace", "-f", "--seccomp-bpf", *SHORT)
        if subprocess.run([*start, "-e", CALLS, "true"], capture_output=True).returncode == 0:
            return (*start, "-e", CALLS)
    return ()


needs_watch = pytest.mark.skipif(
    not watch() and "CI" not in os.environ,
    reason="whom a command speaks to is seen with strace and unshare only, allowed to this user",
)


def run(command: list[str], folder: Path) -> Seen:
    """Run a program in folder/work with a home of its own, as on a machine that is not CI's."""
    before = set(folder.rglob("*"))
    trace = folder / "trace"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "LANG": "C.UTF-8"}
    environment |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "t")}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
    watched = [*watch(), "-o", str(trace)] if watch() else []
    done = subprocess.run(
        [*watched, *command], cwd=folder / "work", env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240,
    )  # fmt: skip
    made = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path not in before and path != trace
    }
    calls = trace.read_text(errors="replace").splitlines() if watched else []
    return Seen(
        done.returncode, done.stdout, made, list(filter(is_voice, calls)), strays(calls, folder)
    )


def is_voice(call: str) -> bool:
    """Whether a system call speaks to another machine, or asks for a name, even in vain."""
    for port, address in ADDRESS.findall(call):
        place = ipaddress.ip_address(address)
        mapped = place.ipv4_mapped if isinstance(place, ipaddress.IPv6Address) else None
        if not (mapped or place).is_loopback or int(port) == NAME_SERVICE:
            return True
    return bool(RESOLVER.search(call))


def strays(calls: list[str], folder: Path) -> set[str]:
    """Files that were opened to be written outside a folder, and folders made there, that stay."""
    written: set[str] = set()
    pending: set[str] = set()
    for call in calls:
        thread = call.partition(" ")[0]
        if re.search(r"O_(WRONLY|RDWR|CREAT)|\bcreat\(", call):
            pending.add(thread)
        if thread in pending and "<unfinished" not in call:
            pending.remove(thread)
            written |= set(re.findall(r"\) += \d+<(/[^>]*)>$", call))
        written |= set(re.findall(r'\bmkdir(?:at)?\((?:AT_FDCWD<[^>]*>, )?"(/[^"]*)".* = 0$', call))
    return {
        path
        for path in written
        if not path.startswith((f"{folder}/", "/dev/null", "/dev/tty", "/proc/"))
        and os.path.lexists(path)
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read: a drawn data set, a model, a recipe."""
    folder = tmp_path_factory.mktemp("inputs")
    more = dict(zip(CLASSES, (1, 1, 2, 1, 3), strict=True))
    plan = SmearPlan(train=40, test=15, size=96, slides=(8, 3), imbalance=more)
    draw_dataset(folder / "Dataset", plan)
    make_bundle().save(folder / "tiny.zip")
    (folder / "tiny.toml").write_text(RECIPE)
    train = folder / "Dataset" / "Train"
    # Each cell under the next class's name, or there would be nothing to fit.
    after = dict(zip(CLASSES, (*CLASSES[1:], CLASSES[0]), strict=True))
    files = train.glob("*/*.jpg")
    rows = [f"{file.relative_to(train)},{after[file.parent.name]}" for file in files]
    (folder / "few.csv").write_text("\n".join(["path,label", *sorted(rows)]))
    return folder


@pytest.fixture(scope="module")
def seen(inputs: Path) -> Iterator[Callable[..., Seen]]:
    """Run a command of `COMMANDS`, or another program, once."""
    # Ray's sockets stand no long name.
    with tempfile.TemporaryDirectory(
        prefix="lk-", dir="/tmp" if os.name == "posix" else None
    ) as at:

        @functools.cache
        def once(name: str, *program: str) -> Seen:
            folder = Path(tempfile.mkdtemp(dir=at, prefix=""))
            for place in ("home", "t"):
                (folder / place).mkdir()
            shutil.copytree(inputs, folder / "work")
            if name == "keras":
                write_model(folder / "work" / "model.keras")
            if program:
                return run([sys.executable, *program], folder)
            return run([sys.executable, "-c", IN_TURN, COMMANDS[name]], folder)

        yield once


def write_model(path: Path) -> None:
    """`tiny`'s network as a Keras model, as somebody may have saved it."""
    import keras

    layers = [keras.layers.Input((64, 64, 3)), keras.layers.Rescaling(1 / 255)]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5, "softmax")]
    model = keras.Sequential(layers)
    colours = COLOURS / 255
    model.layers[-1].set_weights([8 * colours.T, -4 * (colours**2).sum(axis=1)])
    model.save(path)


def asked_for(path: str) -> bool:
    return path.startswith("work/") and path.split("/")[1] in ASKED


@pytest.mark.parametrize("name", COMMANDS)
def test_only_what_was_asked_for_is_left_behind(name: str, seen: Callable[..., Seen]) -> None:
    done = seen(name)
    assert done.code == 0, done.said
    assert {path for path in done.made if not asked_for(path)} == set()
    wanted = re.findall(r"(?:--out|--csv|--picture|--log-file|--explain) (\S+)", COMMANDS[name])
    assert {f"work/{place}" for place in wanted} <= done.made


@needs_watch
@pytest.mark.parametrize("name", COMMANDS)
def test_nobody_is_spoken_to(name: str, seen: Callable[..., Seen]) -> None:
    assert watch(), "strace and unshare are needed, and allowed to this user"
    done = seen(name)
    assert done.voices == []
    assert done.strays == set()


LIBRARY = "import leuko; leuko.load('./tiny.zip').predict(['Dataset/Test'])"


def test_python_programs_are_silent_too(seen: Callable[..., Seen]) -> None:
    done = seen("library", "-c", LIBRARY)
    assert done.code == 0, done.said
    assert (done.made, done.voices, done.strays) == (set(), [], set())


LOUD = """
import os, pathlib, socket, tempfile
pathlib.Path.home().joinpath(".report").mkdir()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.connect(("127.0.0.1", 4711))
    try:
        one.sendto(b"hello", ("192.0.2.1", 80))
    except OSError:
        pass
try:
    socket.getaddrinfo("collector.example", 443)
except OSError:
    pass
pathlib.Path(os.environ["TMPDIR"]).parent.parent.joinpath("stray").write_text("")
"""


@needs_watch
def test_what_is_watched_for_is_seen(seen: Callable[..., Seen]) -> None:
    assert watch(), "strace and unshare are needed, and allowed to this user"
    done = seen("loud", "-c", LOUD)
    assert done.code == 0, done.said
    assert done.made == {"home/.report"}
    assert any("192.0.2.1" in call for call in done.voices)
    assert any("htons(53)" in call for call in done.voices)
    assert not any("htons(4711)" in call for call in done.voices)
    assert [Path(path).name for path in done.strays] == ["stray"]
