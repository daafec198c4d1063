"""Files on disk: the old one or the new one, never half; and documents that say what they are."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leuko
from leuko.errors import DataError, OutputError
from leuko.support import artifacts
from leuko.support.artifacts import (
    atomic_folder,
    atomic_write,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    canonical_json,
    check_schema,
    digest_bytes,
    digest_file,
    digest_json,
    finite,
    json_text,
    prepare_folder,
    read_json,
    restore_folder,
    schema,
)
from tiny import open_to_all, unprivileged

SOURCE = Path(leuko.__file__).resolve().parent.parent


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def temporaries(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".leuko-")]


# Digests and JSON


def test_digests_are_sha256(tmp_path: Path) -> None:
    # FIPS 180-2, the example "abc".
    wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert digest_bytes(b"abc") == digest_file(tmp_path / "abc") == wanted


def test_canonical_json_has_one_form() -> None:
    assert canonical_json({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"é"],"b":1}'.encode()
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))


def test_finite_has_what_json_has() -> None:
    received = finite({1: (np.float64("nan"), float("inf"), -0.5), "a": [True, None, "x", 3]})
    assert received == {"1": [None, None, -0.5], "a": [True, None, "x", 3]}


def test_file_names_that_are_not_utf8_can_be_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"zelle_\xe4.jpg")  # Latin-1
    assert json.loads(json_text({"path": name})) == {"path": name}
    assert digest_json([name]) != digest_json(["zelle_ä.jpg"])
    atomic_write_text(tmp_path / "list.txt", name)
    assert (tmp_path / "list.txt").read_bytes() == b"zelle_\xe4.jpg"
    assert json_text({"path": "zelle_ä"}) == '{\n  "path": "zelle_ä"\n}'


def test_json_file_is_readable(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "a.json", {"schema": schema("audit"), "x": float("inf")})
    text = (tmp_path / "a.json").read_text()
    assert text == '{\n  "schema": "leuko.audit/1",\n  "x": null\n}\n'
    assert read_json(tmp_path / "a.json", "audit")["x"] is None


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "leuko.audit/1",
        {},
        {"schema": None},
        {"schema": "leuko.audit"},
        {"schema": "leuko.audit/"},
        {"schema": "leuko.audit/x"},
        {"schema": "leuko.audit/²"},
        {"schema": "leuko.audit/" + "9" * 5000},
        {"schema": "leuko.bundle/1"},
        {"schema": 1},
    ],
)
def test_another_document_is_refused(document: Any) -> None:
    with pytest.raises(DataError, match=r"expected leuko.audit/1"):
        check_schema(document, "audit", "It")


@pytest.mark.parametrize("name", artifacts.SCHEMA_VERSIONS)
def test_a_newer_version_is_refused(name: str) -> None:
    check_schema({"schema": schema(name)}, name, "It")
    newer = {"schema": f"leuko.{name}/{artifacts.SCHEMA_VERSIONS[name] + 1}"}
    with pytest.raises(DataError, match=r"newer Leuko.*Update Leuko"):
        check_schema(newer, name, "It")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"NaN x"])
def test_damaged_json_is_one_sentence(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_json(tmp_path / "a.json", "audit")


def test_missing_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_json(tmp_path / "a.json", "audit")


# One file


def test_a_file_is_written_in_a_new_folder(tmp_path: Path) -> None:
    atomic_write_bytes(tmp_path / "a" / "b" / "c.bin", b"new")
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"new"
    assert temporaries(tmp_path / "a" / "b") == []


@pytest.mark.parametrize("fault", [ValueError("x"), KeyboardInterrupt(), OSError(5, "I/O error")])
def test_a_fault_leaves_the_old_file(fault: BaseException, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    wanted = OutputError if isinstance(fault, OSError) else type(fault)
    with pytest.raises(wanted), atomic_write(file) as handle:  # noqa: PT012
        handle.write(b"half")
        raise fault
    assert file.read_bytes() == b"old"
    assert temporaries(tmp_path) == []


def test_a_reader_that_left_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), atomic_write(tmp_path / "file"):
        raise BrokenPipeError
    assert list(tmp_path.iterdir()) == []


def test_a_limit_on_file_size_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))
    try:
        with pytest.raises(OutputError, match="File too large"):
            atomic_write_bytes(file, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == b"old"
    assert temporaries(tmp_path) == []


FULL_DISK = """
import sys
from pathlib import Path
from leuko.support.artifacts import atomic_folder, atomic_write_bytes
from leuko.errors import OutputError
root = Path(sys.argv[1])
atomic_write_bytes(root / "file", b"old")
with atomic_folder(root / "folder") as folder:
    (folder / "a").write_bytes(b"old")
for attempt in ("file", "folder"):
    try:
        if attempt == "file":
            atomic_write_bytes(root / "file", bytes(3_000_000))
        else:
            with atomic_folder(root / "folder") as folder:
                (folder / "a").write_bytes(bytes(1_000_000))
                (folder / "b").write_bytes(bytes(2_000_000))
    except OutputError as error:
        print(error)
print((root / "file").read_bytes(), (root / "folder" / "a").read_bytes())
print(sorted(path.name for path in root.iterdir()))
"""


def test_a_full_disk_leaves_the_old_files(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=2m none "$1" || exit 77; exec "$2" -c "$3" "$1"'
    try:
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, "sh", tmp_path, sys.executable, FULL_DISK],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare on this machine")
    if "disk is full" not in done.stdout and (done.returncode == 77 or "unshare" in done.stderr):
        pytest.skip("this user may not mount a small disk of its own")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all("the disk is full; free some space" in line for line in lines[:2])
    assert lines[2] == "b'old' b'old'"
    assert lines[3] == "['file', 'folder']"


def test_no_permission(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    with unprivileged(), pytest.raises(OutputError, match="permission is denied; choose another"):
        atomic_write_bytes(tmp_path / "file", b"x")
    with unprivileged(), pytest.raises(OutputError, match="permission is denied"):
        prepare_folder(tmp_path / "folder")


def test_something_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="a file stands where a folder is needed"):
        atomic_write_bytes(tmp_path / "file" / "x", b"")
    with pytest.raises(OutputError, match="a folder stands where a file is needed"):
        atomic_write_bytes(tmp_path / "folder", b"")
    with pytest.raises(OutputError, match="a file stands where a folder is needed"):
        prepare_folder(tmp_path / "file")
    with pytest.raises(OutputError), atomic_folder(tmp_path / "file"):
        pass
    with pytest.raises(OutputError):
        atomic_write_bytes(tmp_path / ("x" * 300), b"")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_the_current_folder_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path(), Path("..")):
        with pytest.raises(OutputError):
            atomic_write_bytes(path, b"")
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    atomic_write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_bytes() == b"new"
    assert temporaries(tmp_path) == temporaries(tmp_path / "real") == []


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    before = os.stat("/dev/null")
    atomic_write_bytes(Path("/dev/null"), b"gone")
    assert os.path.samestat(before, os.stat("/dev/null"))
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    atomic_write_bytes(tmp_path / "pipe", b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)


# Folders


def test_a_folder_is_replaced_as_one(tmp_path: Path) -> None:
    for names in (("a", "b"), ("c",)):
        with atomic_folder(tmp_path / "run") as folder:
            for name in names:
                (folder / name).write_text(name)
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == list(names)
    assert temporaries(tmp_path) == []


def test_a_fault_leaves_the_old_folder(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "run") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "run") as folder:  # noqa: PT012
        (folder / "a").write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "run" / "a").read_text() == "old"
    assert temporaries(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from leuko.support.artifacts import atomic_folder, atomic_write_bytes
kind, moment, root = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
steps = 0

def audit(event, arguments):
    # Python tells of every file operation before it happens.
    global steps
    if event in ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree"):
        steps += 1
        if steps == moment:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(audit)
if kind == "file":
    atomic_write_bytes(root / "file", b"new" * 100_000)
else:
    with atomic_folder(root / "folder") as folder:
        (folder / "a").write_bytes(b"new")
        (folder / "b").write_bytes(b"new")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_killed_at_every_step_leaves_the_old_or_the_new(kind: str, tmp_path: Path) -> None:
    outcomes = []
    for moment in range(1, 40):
        root = tmp_path / str(moment)
        (root / "folder").mkdir(parents=True)
        (root / "file").write_bytes(b"old")
        for name in ("a", "b"):
            (root / "folder" / name).write_bytes(b"old")
        done = run_python(KILLED, kind, moment, root)
        restore_folder(root / "folder")
        contents = {(root / "folder" / name).read_bytes() for name in ("a", "b")}
        contents = {(root / "file").read_bytes()[:3]} if kind == "file" else contents
        assert contents in ({b"old"}, {b"new"}), (moment, contents)
        outcomes.append(contents.pop())
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    else:
        pytest.fail("the write never came to its end")
    assert outcomes[0] == b"old"
    assert outcomes[-1] == b"new"


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_folder(tmp_path / "link") as folder:
        (folder / "a").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_text() == "new"


@pytest.mark.slow
@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
))  # fmt: skip
def test_whatever_is_finite_round_trips(value: Any) -> None:
    plain = finite(value)
    assert json.loads(json_text(value)) == plain
    assert json.loads(canonical_json(plain)) == plain
