"""Standard streams that are closed, full or left by their reader, in real processes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import leuko as package
from tiny import write_dataset

SOURCE = Path(package.__file__).resolve().parent.parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/dev/full").exists(), reason="needs a shell and the device /dev/full"
    ),
]

PREDICT = "predict Cells -m ./tiny.zip --csv a.csv"
FULL = "Error: standard output: No space left on device.\n"


@pytest.fixture
def here(tiny_model: Path, tmp_path: Path) -> Path:
    """A folder with class folders in Cells and the tiny model."""
    write_dataset(tmp_path / "Cells", each=3)
    (tmp_path / "tiny.zip").symlink_to(tiny_model)
    return tmp_path


def shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell's command in which `leuko` is this Leuko."""
    script = f'leuko() {{ {shlex.quote(sys.executable)} -m leuko "$@"; }}; {command}'
    environment = {name: text for name, text in os.environ.items() if name[:6] != "LEUKO_"}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", script], cwd=folder, timeout=120, text=True,
        env={**environment, "PYTHONPATH": str(SOURCE)}, capture_output=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "written"),
    [
        *((f"{PREDICT} {closed}", "a.csv") for closed in (">&-", "2>&-", "<&-", "2>/dev/full >&-")),
        (PREDICT, "a.csv"),
        ("count Cells -m ./tiny.zip --csv a.csv", "a.csv"),
        ("evaluate ./tiny.zip Cells --resamples 100 --out report", "report/evaluation.json"),
        ("balance Cells Balanced", "Balanced/Basophil"),
    ],
)
def test_closed_streams_change_nothing_else(here: Path, command: str, written: str) -> None:
    done = shell(here, f"leuko {command}" + ("" if "&-" in command else " <&- >&- 2>&-"))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (here / written).exists()


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_answers_come_without_standard_error(here: Path, streams: str) -> None:
    done = shell(here, f"leuko predict Cells/Basophil -m ./tiny.zip {streams}")
    assert done.returncode == 0
    assert done.stdout.count("Basophil") >= 3


def test_a_closed_input_lists_nothing(here: Path) -> None:
    done = shell(here, "leuko predict - -m ./tiny.zip <&-")
    assert (done.returncode, done.stderr) == (1, "Error: Standard input lists no images.\n")


@pytest.mark.parametrize(
    "command",
    ["--version", "--help", "predict Cells -m ./tiny.zip", "count Cells -m ./tiny.zip --csv a.csv"],
)
def test_a_full_disk_is_a_sentence(here: Path, command: str) -> None:
    done = shell(here, f"leuko {command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr.endswith(FULL)
    assert "Traceback" not in done.stderr
    assert (here / "a.csv").exists() == ("a.csv" in command)


def test_a_reader_that_left_is_no_fault(here: Path) -> None:
    done = shell(here, "leuko predict Cells -m ./tiny.zip --csv a.csv | true")
    assert (done.returncode, (here / "a.csv").exists()) == (0, True)
    done = shell(here, "(sleep 1; leuko predict Cells -m ./tiny.zip) | true")
    assert (done.returncode, done.stderr.count("Error"), "Traceback" in done.stderr) == (
        1,
        0,
        False,
    )


@pytest.mark.parametrize("arguments", ["nowhere.jpg", "--bogus", "Cells --engine bogus"])
def test_errors_keep_their_exit_code(here: Path, arguments: str) -> None:
    wanted = shell(here, f"leuko predict {arguments}").returncode
    assert wanted in (1, 2)
    assert shell(here, f"leuko predict {arguments} <&- >&- 2>&-").returncode == wanted


def test_programs_that_are_started_have_streams_too(here: Path) -> None:
    """Ray's do not start without."""
    code = "import os; from leuko.cli.streams import open_streams; open_streams(); "
    code += "raise SystemExit(sum(map(os.get_inheritable, range(3))))"
    done = shell(here, f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- >&- 2>&-")
    assert done.returncode == 3
