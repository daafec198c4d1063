"""What every command shares: outputs kept apart and tried, and a log that cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import leuko as package
from leuko.cli.common import keep_apart, try_outputs
from leuko.cli.main import _say_interrupted
from leuko.errors import OutputError, UsageError
from leuko.prediction_files import read_predictions
from leuko.support.artifacts import atomic_write_bytes
from tiny import open_to_all, unprivileged, write_picture

Leuko = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: a file, a picture in a folder, a list of it, and links."""
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "cells" / "1.png", "Basophil")
    (tmp_path / "file").write_text("file")
    (tmp_path / "list.txt").write_text("# a list\ncells/1.png\n")
    (tmp_path / "link").symlink_to("cells/1.png")
    (tmp_path / "again").symlink_to("cells")
    return tmp_path


# Outputs that would destroy something


@pytest.mark.parametrize(
    ("outputs", "inputs", "message"),
    [
        ({"--csv": "new", "--out": "new"}, [], "--csv and --out both name new; give each a name"),
        ({"--csv": "new", "--out": "./cells/../new"}, [], "both name"),
        ({"--csv": "file", "--out": "./file"}, [], "both name"),
        ({"--csv": "link", "--out": "cells/1.png"}, [], "both name"),
        ({"--csv": "file"}, ["other", "file"], "--csv file is an input of this command"),
        ({"--csv": "file"}, [Path("cells/../file")], "is an input"),
        ({"--csv": "cells/1.png"}, ["link"], "is an input"),
        ({"--csv": "link"}, ["cells/1.png"], "is an input"),
        ({"--csv": "cells/1.png"}, ["cells/*.png"], "is an input"),
        ({"--csv": "cells/1.png"}, ["list.txt"], "is an input"),
        ({"--csv": "list.txt"}, ["list.txt"], "is an input"),
        ({"--csv": "cells/1.png"}, ["cells"], "--csv cells/1.png is one of the images in cells"),
        ({"--csv": "again/1.png"}, ["cells"], "one of the images"),
        ({"--csv": "cells/1.png"}, ["again/"], "one of the images"),
        ({"--csv": "cells/1.png"}, ["."], "one of the images"),
    ],
)
def test_an_output_that_is_also_something_else(
    outputs: dict[str, str], inputs: list[str], message: str, here: Path
) -> None:
    with pytest.raises(UsageError, match="; ") as refused:
        keep_apart({option: Path(path) for option, path in outputs.items()}, inputs)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("outputs", "inputs"),
    [
        ({"--csv": "new", "--out": "other"}, ["new"]),
        ({"--csv": "file", "--out": None}, ["cells", "missing", "missing/*.png", "-", None]),
        ({"--csv": "cells/new.png"}, ["cells"]),
        ({"--csv": "file"}, ["list.txt", "cells/1.png", "default"]),
        ({"--csv": "/dev/null", "--out": "/dev/null"}, ["/dev/null"]),
        ({"--csv": "cells/rows.csv"}, ["cells"]),
    ],
)
def test_an_output_of_its_own(
    outputs: dict[str, str | None], inputs: list[str | None], here: Path
) -> None:
    (here / "cells" / "rows.csv").touch()
    keep_apart({option: path and Path(path) for option, path in outputs.items()}, inputs)


def test_a_part_of_a_parquet_folder(here: Path) -> None:
    (here / "t.parquet").mkdir()
    (here / "t.parquet" / "0.parquet").touch()
    with pytest.raises(UsageError, match=r"one of the images in t\.parquet"):
        keep_apart({"--out": Path("t.parquet/0.parquet")}, ["t.parquet"])
    keep_apart({"--out": Path("t.parquet/0.parquet")}, ["cells"])
    (here / "t.parquet" / "letter").touch()  # is no part of the table
    keep_apart({"--log-file": Path("t.parquet/letter")}, ["t.parquet"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "cells/1.png", "--picture", "cells/1.png"],
        ["predict", "cells", "--picture", "cells/1.png"],
        ["predict", "cells/1.png", "--csv", "cells/1.png"],
        ["predict", "list.txt", "--csv", "list.txt"],
        ["predict", "cells/1.png", "--log-file", "cells/1.png"],
        ["predict", "cells/1.png", "--csv", "same.csv", "--picture", "same.csv"],
        ["predict", "cells/1.png", "--csv", "same.csv", "--log-file", "same.csv"],
        ["predict", "cells/*.png", "--explain", "cells"],
        ["predict", "cells", "-m", "./model.zip", "--csv", "model.zip"],
        ["evaluate", "default", "out/predictions.csv", "--out", "out"],
        ["evaluate", "default", "cells", "--log-file", "cells/1.png"],
        ["export", "default", "--check", "file", "--log-file", "file"],
        ["adapt", "./model.zip", "cells", "--out", "model.zip"],
        ["adapt", "./run", "cells", "--out", "run/bundle"],
        ["models", "calibrate", "./model.zip", "cells", "--out", "model.zip"],
        ["count", "cells", "-m", "model.zip", "--csv", "./model.zip"],
        ["import-model", "file", "--classes", "a", "--out", "new", "--log-file", "file"],
    ],
)
def test_a_command_refuses_before_it_reads(arguments: list[str], here: Path, leuko: Leuko) -> None:
    write_picture(here / "cells" / "1.explained.png", "Basophil")
    for name in ("model.zip", "out/predictions.csv", "run/bundle/bundle.json"):
        atomic_write_bytes(here / name, b"not read")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    done = leuko(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Error: ")
    assert len(done.err.splitlines()) == 1
    assert before == {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_list_on_standard_input_is_no_output(here: Path) -> None:
    command = [sys.executable, "-m", "leuko", "predict", "-", "--csv", "list.txt"]
    environment = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parent.parent)}
    with (here / "list.txt").open() as names:
        done = subprocess.run(
            command, stdin=names, capture_output=True, env=environment, timeout=60
        )
    assert done.returncode == 2
    assert b"--csv list.txt is an input of this command" in done.stderr
    assert (here / "list.txt").read_text() == "# a list\ncells/1.png\n"


@pytest.mark.slow
def test_what_is_written_may_be_written_again(here: Path, tiny_model: Path, leuko: Leuko) -> None:
    arguments = ("predict", "cells/1.png", "-m", tiny_model, "--csv", "heat/p.csv", "--picture",
                 "cells/sheet.png", "--explain", "heat", "--log-file", "log")  # fmt: skip
    assert leuko(*arguments).code == 0
    assert leuko(*arguments).code == 0


# Outputs that cannot be written


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("cells", "a folder stands where a file is needed"),
        ("file/new.csv", "a file stands where a folder is needed"),
        ("file/deep/new.csv", "a file stands where a folder is needed"),
        ("/proc/new.csv", "cannot be written"),
        ("x" * 300, "cannot be written"),
    ],
)
def test_an_output_that_cannot_be_written(path: str, message: str, here: Path) -> None:
    before = sorted(here.rglob("*"))
    with pytest.raises(OutputError, match=message):
        try_outputs(Path("new"), Path(path))
    assert sorted(here.rglob("*")) == before


def test_an_output_without_permission(here: Path) -> None:
    open_to_all(here)
    with unprivileged(), pytest.raises(OutputError, match="permission is denied"):
        try_outputs(Path("new"))


def test_trying_an_output_leaves_nothing(here: Path) -> None:
    before = sorted(here.rglob("*"))
    try_outputs(Path("file"), None, Path("new/deeper/p.csv"), Path("link"), Path("/dev/full"))
    assert sorted(here.rglob("*")) == before
    assert (here / "file").read_text() == "file"
    assert (here / "link").is_symlink()


@pytest.mark.parametrize(
    ("option", "path"), [("--csv", "full.png"), ("--picture", "full.png"), ("--out", "full.csv")]
)
def test_predict_says_so_before_the_work(option: str, path: str, here: Path, leuko: Leuko) -> None:
    (here / path).mkdir()
    done = leuko("predict", "missing.png", "-m", "./no-model", option, path, "--json")
    assert (done.code, done.out) == (1, "")
    assert "a folder stands where a file is needed" in done.err


# A log on a full disk


class Names:
    """Lines of standard input that come when something has happened."""

    def __init__(self, lines: list[str], wait: Callable[[], None]) -> None:
        self.lines, self.wait = lines, wait

    def __iter__(self) -> Iterator[str]:
        self.wait()
        return iter(self.lines)


@pytest.fixture
def breaking_log(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log that takes two lines; images are named on standard input, after that."""
    os.mkfifo(here / "log")

    def read() -> None:
        with (here / "log").open() as log:
            log.readline()
            log.readline()

    reader = threading.Thread(target=read)
    reader.start()
    monkeypatch.setattr(sys, "stdin", Names(["cells/1.png", "file"], lambda: reader.join(60)))
    return here / "log"


def test_a_log_that_breaks_off_costs_nothing_else(
    breaking_log: Path, here: Path, tiny_model: Path, leuko: Leuko
) -> None:
    done = leuko("predict", "-", "-m", tiny_model, "--log-file", breaking_log, "--csv", "p.csv",
                 "--picture", "p.png", "--json", "--verbose")  # fmt: skip
    assert done.code == 1
    assert json.loads(done.out)["found"] == 2
    assert len(read_predictions(here / "p.csv")) == 2
    assert (here / "p.png").is_file()
    assert "2 images: 1 accepted, 1 rejected." in done.err
    assert "Logging error" not in done.err
    assert done.err.count(str(breaking_log)) == 1
    assert done.err.splitlines()[-1] == (
        f"Error: {breaking_log} ends early, it cannot be written: Broken pipe. Everything else "
        "was done."
    )
    assert "ends early" not in leuko("predict", "file", "-m", tiny_model).err  # it is said once


def test_a_log_that_breaks_off_leaves_the_command_its_own_error(
    breaking_log: Path, tiny_model: Path, leuko: Leuko
) -> None:
    done = leuko("predict", "-", "-m", tiny_model, "--log-file", breaking_log, "--verbose",
                 "--picture", "none.png", "--csv", "/dev/full")  # fmt: skip
    assert done.code == 1
    assert f"{breaking_log} ends early, it cannot be written: Broken pipe." in done.err
    assert sum(line.startswith("Error: ") for line in done.err.splitlines()) == 1
    assert done.err.splitlines()[-1].startswith("Error: ")
    assert str(breaking_log) not in done.err.splitlines()[-1]


def test_a_log_on_a_full_disk_is_said_before_the_work(
    here: Path, tiny_model: Path, leuko: Leuko
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full on this machine")
    done = leuko("predict", "cells", "-m", tiny_model, "--log-file", "/dev/full", "--csv", "p.csv")
    assert (done.code, done.out) == (1, "")
    assert done.err == "Error: /dev/full cannot be written: No space left on device.\n"
    assert not (here / "p.csv").exists()


# Ctrl-C


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["balance", "a", "b"], "The same command goes on from here."),
        (["--quiet", "data", "shrink", "a", "b"], "The same command goes on from here."),
        (["demo"], "The same command goes on from here."),
        (["train", "a", "--recipe", "cnn"], "The same command with --resume goes on from here."),
        (["compare", "a"], "The same command with --resume goes on from here."),
        (["field", "a", "--out", "b"], "The same command with --resume goes on from here."),
        (["predict", "data", "--csv", "p.csv"], "appears whole or not at all. For a long run give "
         "--engine processes and --out FILE: it keeps what is finished, and goes on with --resume"),
        (["data", "info", "a"], "A file of results appears whole or not at all; give the same"),
        (["count", "cells"], "A file of results appears whole or not at all; give the same"),
        ([], "A file of results appears whole or not at all; give the same"),
    ],
)  # fmt: skip
def test_how_to_go_on(
    arguments: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["leuko", *arguments])
    _say_interrupted()
    said = capsys.readouterr().err
    assert said.startswith("Interrupted. ")
    assert sentence in said
